"""A service in memory that keeps the facade's promises, for tests of what stands in front of it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import httpx2
from fastapi.testclient import TestClient

from crosscut import keys
from crosscut.additions import extended, parse_addition
from crosscut.api.app import create_app
from crosscut.api.options import ApiOptions
from crosscut.errors import RequestError, StorageError
from crosscut.ports import (
    ENDED,
    Accepted,
    ConflictError,
    Metrics,
    Mode,
    NotFoundError,
    NotReadyError,
    Playable,
)
from crosscut.request import Request, parse_request
from crosscut.virtual import Extent, VirtualFile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from fastapi import FastAPI

VIDEO_BYTES = 3_000_000
JSON = {"content-type": "application/json"}
REQUEST = {
    "task_name": "spring",
    "video_blocks": {"hook": ["https://a.example/1.mp4", "https://a.example/2.mp4", "https://a.example/3.mp4"]},
}
BODY = json.dumps(REQUEST).encode()


def client_of(service: FakeService, token: str | None = None, **options: Any) -> TestClient:
    """A caller of the API as this machine's own browser would reach it; shows `token` where there is one."""
    app = create_app(service, ApiOptions(**options))
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return TestClient(app, base_url="http://localhost:8000", headers=headers)


def post_in_pieces(app: FastAPI, path: str, pieces: Iterable[bytes], headers: Mapping[str, str]) -> httpx2.Response:
    """POST a body of unknown length, piece by piece, as `Transfer-Encoding: chunked` comes in."""

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def send() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            return await client.post(path, content=body(), headers=headers)

    return asyncio.run(send())


def video_bytes(job: str, index: int, size: int = VIDEO_BYTES) -> bytes:
    """What the fake's variation holds: no two blocks of it are alike."""
    block = hashlib.sha256(f"{job} {index}".encode()).digest()
    words = (hashlib.sha256(block + place.to_bytes(4)).digest() for place in range(size // 32 + 1))
    return b"".join(words)[:size]


@dataclass
class FakeJob:
    id: str
    owner: str
    body: bytes
    request: Request
    mode: Mode
    state: str = "queued"
    version: int = 1
    states: list[str] = field(default_factory=list)
    """Of each variation, in order."""
    plan: dict[str, Any] | None = None
    idempotency_key: str | None = None


@dataclass
class FakeIntake:
    service: FakeService
    owner: str
    name: str
    data: bytearray = field(default_factory=bytearray)
    largest: int = 0
    ended: str | None = None

    def write(self, data: bytes) -> None:
        if self.service.disk_is_full:
            raise StorageError("The disk is full; free some space and send the file again.", code="disk_full")
        self.largest = max(self.largest, len(data))
        self.data += data

    def commit(self) -> dict[str, Any]:
        self.ended = "committed"
        digest = hashlib.sha256(self.data).hexdigest()
        self.service.uploads[f"source:{digest}"] = self.owner
        return {"id": f"source:{digest}", "bytes": len(self.data), "sha256": digest}

    def abort(self) -> None:
        self.ended = "aborted"


class FakeService:
    """Jobs advance only when a test says so; `planning` False leaves plans unmade."""

    def __init__(self, video_size: int = VIDEO_BYTES) -> None:
        self.all_jobs: dict[str, FakeJob] = {}
        self.intakes: list[FakeIntake] = []
        self.uploads: dict[str, str] = {}
        """Owners by id."""
        self.keys: dict[str, dict[str, Any]] = {}
        self.reasons: list[str] = []
        self.amounts = Metrics()
        self.disk_is_full = False
        self.damaged = False
        self.planning = True
        self.breaks: Callable[[], None] = lambda: None
        self.now = 0.0
        self.tokens_seen: list[str] = []
        self.version_reads = 0
        self._video_size = video_size
        self._files: dict[tuple[str, int], VirtualFile] = {}
        self._lock = threading.RLock()

    # What tests do

    def advance(self, job: str, state: str, count: int = 1) -> None:
        """Let the next `count` queued variations come to `state`, and the job end with the last."""
        with self._lock:
            record = self.all_jobs[job]
            record.state = "running"
            for index, old in enumerate(record.states):
                if count and old == "queued":
                    record.states[index] = state
                    count -= 1
            if "queued" not in record.states:
                record.state = "done"
            record.version += 1

    def token(self, owner: str) -> str:
        return self.create_key(owner, "test")[1]

    # What the API asks

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
        self.breaks()
        if self.disk_is_full:
            raise StorageError("The disk is full; free some space and send the request again.", code="disk_full")
        assert owner is not None
        assert isinstance(body, bytes)
        assert (base, destination) == (None, None)
        request = parse_request(body, local=local)
        with self._lock:
            known = self._known(owner, idempotency_key)
            if known is not None:
                if known.body != body:
                    raise ConflictError(
                        "This Idempotency-Key came with another request before; use a new one.",
                        code="idempotency_mismatch",
                    )
                return self._accepted(known, created=False)
            record = FakeJob(secrets.token_hex(8), owner, body, request, mode, idempotency_key=idempotency_key)
            record.states = ["queued"] * min(self._count(request), 10_000) if mode == "make" else []
            if self.planning:
                record.plan = {"variations": self._count(request)}
                record.state = "done" if mode == "plan" else "queued"
            self.all_jobs[record.id] = record
            return self._accepted(record, created=True)

    def status(self, job: str, owner: str | None) -> dict[str, Any]:
        record = self._job(job, owner)
        made, failed = record.states.count("done"), record.states.count("failed")
        total = len(record.states)
        return {
            "id": record.id,
            "task_name": record.request.task_name,
            "state": record.state,
            "mode": record.mode,
            "created_at": "2026-03-01T09:00:00Z",
            "started_at": None,
            "ended_at": None,
            "destination": "videos",
            "folder": "spring",
            "total": total,
            "succeeded": made,
            "made": made,
            "kept": 0,
            "failed": failed,
            "percent": 100.0 * (made + failed) / total if total else 0.0,
            "rate": None,
            "eta_seconds": None,
            "position": 0,
            "stages": {"deliver": {"done": made, "total": total, "failed": failed}},
            "seconds": 0.0,
            "seconds_by_stage": {},
            "voice_over_characters": 0,
            "voice_over_characters_billed": 0,
            "cache_hits": 0,
            "cache_misses": 0,
            "cost": {"currency": "USD", "voice_over": 0.0},
            "bytes": 0,
            "bytes_per_second": None,
            "retries": 0,
            "bytes_sent": 0,
            "joined_in_bucket": 0,
            "errors": [{"reason": "It broke.", "variations": failed}] if failed else [],
            "notes": [],
            "formats": [],
            "formats_reason": None,
            "clips_copied": 0,
            "clips_encoded": 0,
            "soundtracks_encoded": 0,
            "loudness": None,
            "manifest_problem": None,
            "plan": record.plan,
            "passthrough": None,
            "version": record.version,
        }

    def plan(self, job: str, owner: str | None) -> dict[str, Any]:
        plan = self._job(job, owner).plan
        if plan is None:
            raise NotReadyError("It is not planned yet; ask again soon.", code="not_ready", retryable=True)
        return plan

    def jobs(
        self,
        owner: str | None,
        *,
        state: str | None = None,
        task_name: str | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> tuple[list[dict[str, Any]], str | None]:
        wanted = [
            record.id
            for record in reversed(self.all_jobs.values())
            if owner in (None, record.owner)
            and state in (None, record.state)
            and task_name in (None, record.request.task_name)
        ]
        if after is not None:
            if after not in wanted:
                raise RequestError("The cursor is none of this list; begin without one.", code="invalid_cursor")
            wanted = wanted[wanted.index(after) + 1 :]
        page = wanted[:limit]
        return [self.status(job, owner) for job in page], page[-1] if len(wanted) > limit else None

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
        rows = [
            row
            for row in self._rows(self._job(job, owner))
            if row["index"] > after and state in (None, row["state"]) and clip in (None, *row["clips"])
        ]
        return rows[:limit], rows[limit - 1]["index"] if len(rows) > limit else None

    def version(self, job: str, owner: str | None) -> int:
        self.version_reads += 1
        return self._job(job, owner).version

    def playable(self, job: str, owner: str | None, index: int) -> Playable:
        record = self._variation(job, owner, index)
        if record.states[index - 1] == "queued":
            raise NotReadyError(
                f"Variation {index} is not ready yet; ask again when its clips are prepared.",
                code="not_ready",
                retryable=True,
                after=2,
            )
        file = self._files.get((job, index))
        if file is None:
            data = video_bytes(job, index, self._video_size)
            file = self._files[job, index] = VirtualFile([Extent(data, 0, len(data))])
        if self.damaged:
            raise StorageError(
                "A prepared file is damaged or gone. Run the job again to make it anew.", code="damaged_artifact"
            )
        return Playable(file, f"{job}-{index}", f"{index:04} {record.request.task_name}.mp4")

    def poster(self, job: str, owner: str | None, index: int) -> tuple[bytes, str]:
        self.playable(job, owner, index)
        return b"\xff\xd8" + video_bytes(job, index, 100), f"p-{job}-{index}"

    def manifest(self, job: str, owner: str | None) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
        record = self._job(job, owner)
        rows = (row for row in self._rows(record) if row["state"] != "queued")
        return {"task_name": record.request.task_name, "total": len(record.states)}, rows

    def cancel(self, job: str, owner: str | None) -> dict[str, Any]:
        record = self._job(job, owner)
        if record.state not in ENDED:
            record.states = ["cancelled" if state == "queued" else state for state in record.states]
            record.state = "cancelled"
            record.version += 1
        return self.status(job, owner)

    def retry(self, job: str, owner: str | None) -> dict[str, Any]:
        record = self._job(job, owner)
        failed = record.states.count("failed")
        record.states = ["queued" if state == "failed" else state for state in record.states]
        if failed:
            record.state = "queued"
            record.version += 1
        return {"variations": failed, "preparations": 0}

    def extend(self, job: str, owner: str | None, body: bytes) -> dict[str, Any]:
        record = self._job(job, owner)
        addition = parse_addition(body, record.request)
        if record.state == "cancelled":
            raise ConflictError("This job was cancelled; send a new request instead.", code="job_cancelled")
        before = len(record.states)
        record.request = extended(record.request, addition)
        record.states += ["queued"] * min(self._count(record.request) - before, 10_000)
        record.version += 1
        return {
            "variations": len(record.states) - before,
            "first_index": before + 1,
            "total": len(record.states),
            "clips": [clip for block in addition.blocks for clip in block.clips],
            "music": list(addition.music),
            "lines": [line.text for line in addition.lines],
        }

    def delete(self, job: str, owner: str | None) -> None:
        record = self._job(job, owner)
        if record.state == "running":
            raise ConflictError("This job is running; cancel it first.", code="job_running")
        del self.all_jobs[job]

    def intake(self, owner: str | None, name: str) -> FakeIntake:
        assert owner is not None
        self.intakes.append(FakeIntake(self, owner, name))
        return self.intakes[-1]

    def remove_source(self, source: str, owner: str | None) -> None:
        known = source.partition("/")[0]
        if self.uploads.get(known) is None or owner not in (None, self.uploads[known]):
            raise NotFoundError("There is no such upload; POST /sources answers ids.", code="no_such_source")
        del self.uploads[known]

    def authenticate(self, token: str) -> str | None:
        self.tokens_seen.append(token)
        parsed = keys.parse_token(token)
        row = self.keys.get(parsed[0]) if parsed else None
        if parsed is None or row is None or not keys.matches(parsed[1], row["hash"]) or self.now >= row["until"]:
            return None
        owner: str = row["owner"]
        return owner

    def create_key(
        self, owner: str, name: str, replaces: str | None = None, overlap_seconds: float = 0
    ) -> tuple[str, str]:
        if replaces is not None:
            self._key(replaces)["until"] = self.now + overlap_seconds
        key, token, hashed = keys.new_key(secrets.token_bytes)
        self.keys[key] = {"id": key, "owner": owner, "name": name, "hash": hashed, "until": float("inf")}
        return key, token

    def list_keys(self) -> list[dict[str, Any]]:
        return [{"id": row["id"], "owner": row["owner"], "name": row["name"]} for row in self.keys.values()]

    def revoke_key(self, key: str) -> None:
        self._key(key)["until"] = self.now

    def metrics(self) -> Metrics:
        self.breaks()
        return replace(self.amounts)

    def problems(self) -> list[str]:
        return list(self.reasons)

    # Inside

    def _job(self, job: str, owner: str | None) -> FakeJob:
        self.breaks()
        record = self.all_jobs.get(job)
        if record is None or owner not in (None, record.owner):
            raise NotFoundError("There is no job with this id; GET /jobs lists yours.", code="no_such_job")
        return record

    def _variation(self, job: str, owner: str | None, index: int) -> FakeJob:
        record = self._job(job, owner)
        if not 1 <= index <= len(record.states):
            raise NotFoundError(
                f"The job has {len(record.states):,} variations; ask for one of these.", code="no_such_variation"
            )
        return record

    def _key(self, key: str) -> dict[str, Any]:
        if key not in self.keys:
            raise NotFoundError("There is no key with this id; list them to see which there are.", code="no_such_key")
        return self.keys[key]

    def _known(self, owner: str, idempotency_key: str | None) -> FakeJob | None:
        if idempotency_key is None:
            return None
        same = (r for r in self.all_jobs.values() if (r.owner, r.idempotency_key) == (owner, idempotency_key))
        return next(same, None)

    def _accepted(self, record: FakeJob, *, created: bool) -> Accepted:
        count = self._count(record.request)
        return Accepted(record.id, created, count, {"variations": count})

    def _count(self, request: Request) -> int:
        return request.combinations * max(1, len(request.formats))

    def _rows(self, record: FakeJob) -> Iterator[dict[str, Any]]:
        clips = record.request.blocks[0].clips
        for place, state in enumerate(record.states):
            yield {
                "index": place + 1,
                "state": state,
                "file": f"{place + 1:04}.mp4",
                "clips": [clips[place % len(clips)]],
                "error": "It broke." if state == "failed" else None,
            }
