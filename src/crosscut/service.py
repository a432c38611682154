"""What can be asked of crosscut, whoever asks: the API, the command line, a program."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from crosscut.additions import extended, parse_addition
from crosscut.cuts import cut_of
from crosscut.errors import RequestError
from crosscut.gather import name_sources
from crosscut.gauges import full_disks, measured
from crosscut.listing import Listing
from crosscut.naming import folder_name
from crosscut.places import check_links, is_remote, whole, within
from crosscut.ports import Accepted, ConflictError, Metrics, NotFoundError, NotReadyError
from crosscut.recent import Recent
from crosscut.refusals import kind_of
from crosscut.request import parse_request
from crosscut.spending import refuse_overspending
from crosscut.status import delivery_notes, summary
from crosscut.store import Submission, access, reading
from crosscut.store.jobs import record_of
from crosscut.strictjson import read_json
from crosscut.wants import request_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from crosscut.additions import Addition
    from crosscut.destinations import Destination
    from crosscut.fields import RequestLimits
    from crosscut.keyring import Keyring
    from crosscut.ports import Intake, Mode, Playable
    from crosscut.previews import Previews
    from crosscut.request import Request
    from crosscut.store import Store
    from crosscut.units import JobRecord
    from crosscut.uploads import Uploads
    from crosscut.voices import Voice


DETAILS_SECONDS = 0.3
"""How old the counts by stage of a running job may be."""

EDITION_SECONDS = 1.0
"""How long a player need not be told of a new plan."""

KEPT = 4_096


class Service:
    """Thread-safe; blocking. See `ports.Service` for what each call promises."""

    def __init__(
        self,
        store: Store,
        previews: Previews,
        uploads: Uploads,
        keyring: Keyring,
        *,
        destination: str,
        limits: RequestLimits,
        wake: Any = lambda: None,
        workers: Any = list,
        troubles: Any = list,
        disks: Mapping[str, Path] | None = None,
        voice: Voice | None = None,
        choosable: Sequence[str] = (),
        places: Callable[[str], Destination] | None = None,
        trace: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`destination` is where requests go that name none; `wake` tells the scheduler of news.

        `workers` lists the state of the worker processes, `troubles` the sentences of what is wrong with the machine.
        `disks` are the folders that work needs room in, by what to call them; `voice` knows what lines cost.
        `choosable` are the places that requests to a server may name, with all below them; `places` opens one.
        `trace` is the traceparent of the request at hand.
        """
        self._store = store
        self._previews = previews
        self._uploads = uploads
        self._keyring = keyring
        self._destination = destination
        self._choosable = choosable
        self._places = places
        self._limits = limits
        self._wake = wake
        self._trace = trace
        self._workers = workers
        self._troubles = troubles
        self._disks = disks or {}
        self._voice = voice
        self._details: Recent[tuple[Any, ...], dict[str, Any]] = Recent(DETAILS_SECONDS, KEPT)
        self._editions: Recent[tuple[str, str | None], int] = Recent(EDITION_SECONDS, KEPT)
        self.authenticate = keyring.authenticate
        self.create_key = keyring.create_key
        self.list_keys = keyring.list_keys
        self.revoke_key = keyring.revoke_key

    # Taking jobs

    def submit(
        self,
        body: bytes | Mapping[str, Any],
        *,
        owner: str | None = "local",
        local: bool = False,
        base: Path | None = None,
        destination: str | None = None,
        idempotency_key: str | None = None,
        mode: Mode = "make",
    ) -> Accepted:
        document = self._read(body)
        request = parse_request(document, local=local, limits=self._limits)
        place = destination or self._chosen(request, local=local) or self._destination
        if request.link_days:
            check_links(place)
        self._check_uploads(owner, _sources(request))
        if self._voice:
            refuse_overspending(request.lines, request.spending_limit, self._voice)
        total = request.combinations * max(1, len(request.formats))
        wanted = Submission(
            owner=owner or "local",
            mode=mode,
            task_name=request.task_name,
            body=document,
            local=local,
            base=str(base) if base else None,
            destination=place,
            folder=folder_name(request.task_name),
            remote=is_remote(place),
            total=total,
            webhook={"url": request.webhook.url, "events": list(request.webhook.events)} if request.webhook else None,
            passthrough=request.passthrough,
            idempotency_key=idempotency_key,
            idempotency_hash=_hash(document) if idempotency_key is not None else None,
            trace=self._trace(),
        )
        submitted = self._store.submit(wanted)
        if not submitted.same:
            raise ConflictError(
                "this Idempotency-Key came with another request before: use a new key", code="idempotency_mismatch"
            )
        self._wake()
        return Accepted(submitted.id, submitted.created, total, _outlook(request, total))

    def _read(self, body: bytes | Mapping[str, Any]) -> dict[str, Any]:
        document = read_json(body, most_bytes=self._limits.body, most_levels=self._limits.depth)
        if not isinstance(document, dict):
            raise RequestError(f"the body must be an object, not {kind_of(document)}", code="invalid_request")
        return document

    def _chosen(self, request: Request, *, local: bool) -> str | None:
        """The place that a request names, if it may."""
        if request.destination is None:
            return None
        place = whole(request.destination)
        if not local and not within(place, self._choosable):
            raise RequestError(
                "destination is no place that requests to this server may choose: leave it out, or have its operator"
                " add the place to CROSSCUT_DESTINATIONS",
                code="invalid_request",
            )
        return place

    def _check_uploads(self, owner: str | None, sources: Iterable[str]) -> None:
        unknown = self._uploads.unknown(owner, sources)
        if unknown is not None:
            raise RequestError(
                f"{unknown[:24]}… is no upload of yours: send the file to /sources and use the id it answers",
                code="unknown_source",
            )

    def extend(self, job: str, owner: str | None, body: bytes | Mapping[str, Any]) -> dict[str, Any]:
        row = self._whole(job, owner)
        document = self._read(body)
        record = record_of(row)
        if row.plan is None or row.state == "cancelled":
            raise ConflictError(
                "this job has no plan yet: extend it when its clips have been looked at"
                if row.state in ("queued", "running")
                else f"this job was {'cancelled' if row.state == 'cancelled' else 'not planned'}: retry it first",
                code="no_plan",
            )
        request = request_of(record)
        addition = parse_addition(document, request, local=record.local, limits=self._limits)
        # What the job has by now was checked when it came, and may have been deleted since.
        self._check_uploads(owner, _sources(addition))
        larger = extended(request, addition)
        if self._voice:
            refuse_overspending(larger.lines, larger.spending_limit, self._voice)
        formats = json.loads(row.grid)["targets"]
        total = larger.combinations * formats
        if not self._store.extend(job, row.edition, document, total):
            raise ConflictError(
                "this job is just being planned or closed: send the same again in a moment", code="in_between"
            )
        self._wake()
        names = name_sources(larger)
        return {
            "variations": total - row.total,
            "first_index": row.total + 1,
            "total": total,
            "clips": [names[clip] for block in addition.blocks for clip in block.clips],
            "music": [names[track] for track in addition.music],
            "lines": [line.text for line in addition.lines],
        }

    def cancel(self, job: str, owner: str | None) -> dict[str, Any]:
        self._row(job, owner)
        self._store.cancel(job)
        self._wake()
        return self.status(job, owner)

    def retry(self, job: str, owner: str | None) -> dict[str, Any]:
        self._row(job, owner)
        answer = self._store.retry(job)
        if answer is None:
            raise ConflictError("this job is still at work: wait for its end, or cancel it first", code="still_running")
        self._wake()
        return answer

    def delete(self, job: str, owner: str | None) -> None:
        self._row(job, owner)
        self._store.remove(job)
        self._previews.forget(job)
        self._editions.forget()
        self._wake()

    def intake(self, owner: str | None, name: str) -> Intake:
        return self._uploads.intake(owner or "local", name)

    def remove_source(self, source: str, owner: str | None) -> None:
        self._uploads.remove(owner, source)

    # Looking

    def status(self, job: str, owner: str | None) -> dict[str, Any]:
        def look(db: Any) -> dict[str, Any] | None:
            row = reading.owned(db, job, owner)
            if row is None:
                return None
            now = self._store.clock()
            return summary(row, now) | {
                "position": reading.position(db, row),
                **self._details.get((job, row.state, row.phase, row.edition), lambda: _details(db, row, now)),
                "plan": reading.estimate(db, job) if row.mode == "plan" else None,
            }

        found: dict[str, Any] | None = self._store.read(look)
        if found is None:
            raise _no_such_job()
        return found

    def webhook(self, job: str) -> dict[str, Any] | None:
        """Where the job's events go: `url` and `events`."""
        row = self._row(job, None)
        return json.loads(row.webhook) if row.webhook else None

    def version(self, job: str, owner: str | None) -> int:
        found = self._store.version(job, owner)
        if found is None:
            raise _no_such_job()
        return found

    def jobs(
        self,
        owner: str | None,
        *,
        state: str | None = None,
        task_name: str | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> tuple[list[dict[str, Any]], str | None]:
        if after is not None and not (after.isascii() and after.isdigit() and len(after) < 18):
            raise RequestError("this cursor is none of ours: take it from the last answer", code="invalid_cursor")
        before = None if after is None else int(after)
        rows = self._store.read(lambda db: reading.listed(db, owner, state, task_name, before, limit + 1))
        now = self._store.clock()
        shown = [summary(row, now) for row in rows[:limit]]
        return shown, str(rows[limit - 1].seq) if len(rows) > limit else None

    def variations(
        self,
        job: str,
        owner: str | None,
        *,
        state: str | None = None,
        clip: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> tuple[list[dict[str, Any]], int | None]:
        return self._listing(job, owner).page(state, clip, after, limit)

    def _listing(self, job: str, owner: str | None) -> Listing:
        row = self._store.read(lambda db: reading.owned(db, job, owner, reading.LIGHT))
        if row is None:
            raise _no_such_job()
        return Listing(self._store, self._previews, row, self._record(job, owner), self._places)

    def playable(self, job: str, owner: str | None, index: int) -> Playable:
        return self._previews.playable(job, self._edition(job, owner), index, self._record(job, owner))

    def poster(self, job: str, owner: str | None, index: int) -> tuple[bytes, str]:
        return self._previews.poster(job, self._edition(job, owner), index, self._record(job, owner))

    def _edition(self, job: str, owner: str | None) -> int:
        def look() -> int:
            edition = self._store.edition(job, owner)
            if edition is None:
                raise _no_such_job()
            return edition

        return self._editions.get((job, owner), look)

    def manifest(self, job: str, owner: str | None) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
        status = self.status(job, owner)
        head = {name: status[name] for name in ("id", "task_name", "state", "total")}
        return head, self._listing(job, owner).rows()

    def plan(self, job: str, owner: str | None) -> dict[str, Any]:
        """What the job makes and costs, in the words of the plan command; NotReadyError before it is known."""
        row = self._whole(job, owner)
        if row.estimate is None:
            raise NotReadyError(
                "this job's clips are still being looked at: ask again in a moment",
                code="not_ready",
                retryable=True,
                after=2.0,
            )
        plan: dict[str, Any] = json.loads(row.estimate)
        return plan

    # The machine

    def metrics(self) -> Metrics:
        return measured(self._store, self._workers(), ready=not self.problems())

    def problems(self) -> list[str]:
        self._store.read(lambda db: access.any_key(db, 0.0))
        return [*self._troubles(), *full_disks(self._disks)]

    def tidy(self) -> None:
        """Let go of what nobody has looked at for a while; to be called every minute or so."""
        self._previews.tidy()

    def _row(self, job: str, owner: str | None) -> Any:
        return _there(self._store.owned(job, owner))

    def _record(self, job: str, owner: str | None) -> Callable[[], JobRecord]:
        return lambda: record_of(self._whole(job, owner))

    def _whole(self, job: str, owner: str | None) -> Any:
        return _there(self._store.whole(job, owner))


def _there(row: Any) -> Any:
    if row is None:
        raise _no_such_job()
    return row


def _no_such_job() -> NotFoundError:
    return NotFoundError("there is no such job: look at GET /jobs for yours", code="no_such_job")


def _sources(asked: Request | Addition) -> list[str]:
    return [*(cut_of(clip).source for block in asked.blocks for clip in block.clips), *asked.music]


def _hash(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _outlook(request: Request, total: int) -> dict[str, Any]:
    """What is known of a job before its sources have been looked at."""
    lines = set(request.lines)
    clips = {clip for block in request.blocks for clip in block.clips}
    return {
        "task_name": request.task_name,
        "variations": total,
        "combinations": request.combinations,
        "distinct_clips": len(clips),
        "sources": len({cut_of(clip).source for clip in clips} | set(request.music)),
        "voice_over_lines": len(lines),
        "voice_over_characters": sum(len(line.text) for line in lines),
    }


def _waiting(db: Any, row: Any, now: float) -> list[str]:
    if row.state != "running" or not reading.paused(db, row.place, now):
        return []
    return [f"{row.destination} asks to wait, or cannot be reached: the task goes on there by itself"]


def _details(db: Any, row: Any, now: float) -> dict[str, Any]:
    """What only the status of one job tells."""
    outline = json.loads(row.outline)
    kinds = reading.stages(db, row.id)
    spent = json.loads(row.spent)
    mixed = int(spent.get("mix", (0, 0))[0])
    encoded = kinds["segment"]
    return {
        "stages": {
            "fetch": kinds["source"],
            "probe": kinds["source"],
            "speak": kinds["speech"],
            "conform": encoded,
            "mix": {"done": mixed, "total": None, "failed": 0},
            "deliver": {"done": row.ok + row.failed, "total": row.total - row.doomed, "failed": row.failed},
        },
        "formats": [f"{one['width']}x{one['height']} at {one['fps']} fps" for one in outline.get("formats", [])],
        "formats_reason": outline.get("formats_reason"),
        # What captions are drawn into is no piece of the queue, and nothing of it is copied.
        "clips_copied": 0 if outline.get("captions_to_draw") else reading.copied(db, row.id),
        "clips_encoded": int(spent.get("conform", (0, 0))[0]),
        "soundtracks_encoded": mixed,
        "notes": [*(outline.get("notes") or []), *delivery_notes(json.loads(row.meters)), *_waiting(db, row, now)],
        "refused": outline.get("refused"),
    }
