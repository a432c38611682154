"""Jobs as their owners handle them: submitted, cancelled, tried again, extended, deleted.

Functions over an open transaction.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import bindparam, delete, exists, func, insert, or_, select, update

from crosscut.grid import Grid
from crosscut.store import places, queue, reading
from crosscut.store.bulk import insert_new
from crosscut.store.schema import INSIDE, LIVE, boxes, documents, folders, jobs, needs, outputs, slots, work
from crosscut.store.schema import places as places_table
from crosscut.units import JobRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from crosscut.store.schema import AnyRow
    from crosscut.units import Lane

RETRIED_AT_ONCE = 100
"""Variations in a batch of those that failed."""


@dataclass(frozen=True)
class Submission:
    """A checked request with all that the store must know of it."""

    owner: str
    mode: Literal["make", "plan"]
    task_name: str
    body: Mapping[str, Any]
    local: bool
    base: str | None
    destination: str
    folder: str
    total: int
    remote: bool = False
    """Whether the destination is on other machines."""
    webhook: Mapping[str, Any] | None = None
    passthrough: str | None = None
    idempotency_key: str | None = None
    idempotency_hash: str | None = None
    trace: str | None = None
    """The traceparent of the request (W3C Trace Context)."""


@dataclass(frozen=True)
class Submitted:
    id: str
    created: bool
    """False: the same request with the same Idempotency-Key was there already."""
    same: bool
    """False: the Idempotency-Key belongs to another request."""


def submit(db: Connection, wanted: Submission, now: float) -> Submitted:
    """One row; the scheduler does the rest."""
    job = f"job_{secrets.token_hex(10)}"
    folder = _folder_of(db, wanted) if wanted.mode == "make" else wanted.folder
    row: dict[str, Any] = {
        "id": job,
        "owner": wanted.owner,
        "mode": wanted.mode,
        "task_name": wanted.task_name,
        "state": "queued",
        "phase": "queued",
        "created": now,
        "local": wanted.local,
        "base": wanted.base,
        "destination": wanted.destination,
        "remote": wanted.remote,
        "folder": folder,
        "place": place_of(wanted.destination, folder),
        "idempotency_key": wanted.idempotency_key,
        "idempotency_hash": wanted.idempotency_hash,
        "webhook": json.dumps(wanted.webhook) if wanted.webhook else None,
        "passthrough": wanted.passthrough,
        "total": wanted.total,
        "trace": wanted.trace,
    }
    insert_new(db, jobs, [row], ["owner", "idempotency_key"])
    if wanted.idempotency_key is None:
        _keep_body(db, job, wanted)
        return Submitted(job, created=True, same=True)
    known = select(jobs.c.id, jobs.c.idempotency_hash).where(
        jobs.c.owner == wanted.owner, jobs.c.idempotency_key == wanted.idempotency_key
    )
    there = db.execute(known).one()
    if there.id == job:
        _keep_body(db, job, wanted)
    return Submitted(there.id, created=there.id == job, same=there.idempotency_hash == wanted.idempotency_hash)


def _folder_of(db: Connection, wanted: Submission) -> str:
    """The folder's name, with a number where another owner has a task of that name in the same place."""
    for number in count(1):
        folder = wanted.folder if number == 1 else f"{wanted.folder} ({number})"
        place = place_of(wanted.destination, folder)
        insert_new(db, folders, [{"place": place, "owner": wanted.owner}], ["place"])
        if db.scalar(_WHOSE, {"at": place}) == wanted.owner:
            break
    return folder


_WHOSE = select(folders.c.owner).where(folders.c.place == bindparam("at"))


def _keep_body(db: Connection, job: str, wanted: Submission) -> None:
    db.execute(_KEEP, {"job": job, "body": json.dumps(wanted.body)})


_KEEP = insert(documents)


def place_of(destination: str, folder: str) -> str:
    return hashlib.sha256(f"{destination}\n{folder}".encode()).hexdigest()


def record_of(row: AnyRow) -> JobRecord:
    """From a row of `reading.entire`."""
    return JobRecord(
        id=row.id,
        owner=row.owner,
        created=row.created,
        body=json.loads(row.body),
        extensions=json.loads(row.extensions),
        local=bool(row.local),
        base=row.base,
        destination=row.destination,
        folder=row.folder,
        plan=row.plan,
        edition=row.edition,
        planned=row.planned,
        delivers=row.mode == "make",
    )


def next_in(db: Connection, most: int) -> AnyRow | None:
    """The next job to be let in while fewer than `most` are: of the owner with the fewest inside, the oldest."""
    heads = db.execute(_HEADS).all()
    if not heads:
        return None
    inside: dict[str, int] = dict(db.execute(_INSIDE).all())
    full = sum(inside.values()) >= most
    # Whoever has nothing inside never waits for others.
    able = [one for one in heads if not full or one.owner not in inside]
    head = min(able, key=lambda one: (inside.get(one.owner, 0), one.seq), default=None)
    if head is None:
        return None
    return db.execute(reading.entire().where(jobs.c.seq == head.seq)).one()


_INSIDE = select(jobs.c.owner, func.count()).where(jobs.c.phase.in_(INSIDE)).group_by(jobs.c.owner)
_HEADS = (
    select(jobs.c.owner, func.min(jobs.c.seq).label("seq"))
    .where(jobs.c.phase == "queued", jobs.c.state != "cancelled")
    .group_by(jobs.c.owner)
)


def cancel(db: Connection, job: str, now: float) -> bool:
    """Nothing new starts; what is in hand is told at its next heartbeat; what is made stays."""
    changed = db.execute(
        update(jobs)
        .where(jobs.c.id == job, jobs.c.state.in_(("queued", "running")))
        .values(state="cancelled", ended=now, version=jobs.c.version + 1)
    ).rowcount
    if not changed:
        return False
    db.execute(
        update(jobs).where(jobs.c.id == job, jobs.c.phase == "queued", jobs.c.edition == 0).values(phase="ended")
    )
    _want_nothing(db, job)
    db.execute(delete(work).where(work.c.job == job, work.c.kind == "plan", work.c.state != "done"))
    return True


def _want_nothing(db: Connection, job: str) -> None:
    for table in (needs, slots):
        db.execute(update(table).where(table.c.job == job, table.c.state == "wait").values(state="off"))
    wanted = or_(
        exists().where(needs.c.key == work.c.key, needs.c.state == "wait"),
        exists().where(slots.c.key == work.c.key, slots.c.state == "wait"),
    )
    # Preparations that other jobs want stay; whoever works on one of the others learns it from the heartbeat.
    db.execute(delete(work).where(work.c.kind.in_(queue.PREPARATIONS), work.c.state != "done", ~wanted))


def fail(db: Connection, job: str, reason: str, now: float) -> None:
    """What is to be planned cannot be: the job ends, or goes on with what an earlier plan holds."""
    row = db.execute(reading.entire().where(jobs.c.id == job).with_for_update(of=jobs)).one_or_none()
    if row is None or row.phase == "ended" or row.state == "cancelled":
        return
    planned = Grid.of(json.loads(row.grid)) if row.grid else ()
    lost = row.total - len(planned)
    told = json.loads(row.errors)
    told["doomed"] = {**told.get("doomed", {}), reason: lost}
    values: dict[str, Any] = {"phase": "make"} if planned else {"state": "failed", "phase": "ended", "ended": now}
    db.execute(
        update(jobs)
        .where(jobs.c.id == job)
        .values(errors=json.dumps(told), doomed=row.doomed + lost, version=jobs.c.version + 1, **values)
    )
    if not planned:
        _want_nothing(db, job)


def abandon(db: Connection, now: float) -> None:
    """End all jobs as they are; what they made stays known."""
    for row in list(db.execute(select(jobs.c.id).where(LIVE))):
        cancel(db, row.id, now)
        db.execute(delete(work).where(work.c.job == row.id, work.c.kind.not_in(queue.PREPARATIONS)))
        db.execute(update(jobs).where(jobs.c.id == row.id).values(phase="ended", end_told=True))
        places.free(db, row.id)


def retry(db: Connection, row: AnyRow, now: float) -> dict[str, int]:
    """Do again what failed or was cancelled; what was made stays. The job must have come to rest."""
    failed = list(
        db.scalars(
            select(outputs.c.variation)
            .where(outputs.c.job == row.seq, outputs.c.error.is_not(None))
            .order_by(outputs.c.variation)
        )
    )
    lost = delete(needs).where(needs.c.job == row.id, needs.c.state.in_(("failed", "off")))
    preparations = db.execute(lost).rowcount
    preparations += (
        db.scalar(
            select(func.count()).where(
                slots.c.job == row.id, slots.c.state.in_(("failed", "off")), slots.c.key.is_not(None)
            )
        )
        or 0
    )
    unmade = row.total - row.ok
    if not unmade and not preparations:
        return {"variations": 0, "preparations": 0}
    db.execute(delete(outputs).where(outputs.c.job == row.seq, outputs.c.error.is_not(None)))
    batches = [failed[start : start + RETRIED_AT_ONCE] for start in range(0, len(failed), RETRIED_AT_ONCE)]
    lane: Lane = "network" if row.remote else "processor"
    queue.put(
        db,
        [
            queue.unit_row("batch", row.id, {"indexes": indexes}, now, size=len(indexes), allowed=3_600.0, lane=lane)
            for indexes in batches
        ],
    )
    db.execute(
        update(jobs)
        .where(jobs.c.id == row.id)
        .values(
            state="running" if row.started else "queued",
            phase="queued",
            ended=None,
            failed=0,
            doomed=0,
            errors=json.dumps({"made": {}, "doomed": {}}),
            manifest_problem=None,
            loudness=None,
            failure_told=False,
            end_told=False,
            making=None,
            made_before=jobs.c.ok - jobs.c.kept,
            rescued="{}",
            version=jobs.c.version + 1,
        )
    )
    return {"variations": unmade, "preparations": preparations}


def extend(db: Connection, row: AnyRow, addition: Mapping[str, Any], total: int) -> None:
    """Keep the addition; the job is let in again, for its plan to take in what is new. `row` is of `reading.entire`."""
    extensions = [*json.loads(row.extensions), addition]
    db.execute(update(documents).where(documents.c.job == row.id).values(extensions=json.dumps(extensions)))
    db.execute(
        update(jobs)
        .where(jobs.c.id == row.id)
        .values(
            total=total,
            state="running",
            phase="queued",
            ended=None,
            end_told=False,
            making=None,
            made_before=jobs.c.ok - jobs.c.kept,
            version=jobs.c.version + 1,
        )
    )


def remove(db: Connection, row: AnyRow) -> None:
    """Forget a job; files that were delivered stay where they are."""
    _want_nothing(db, row.id)
    # What is done but not folded still counts for the totals.
    db.execute(delete(work).where(work.c.job == row.id, work.c.kind.not_in(queue.PREPARATIONS), work.c.state != "done"))
    for table in (documents, needs, slots, boxes, places_table):
        db.execute(delete(table).where(table.c.job == row.id))
    db.execute(delete(outputs).where(outputs.c.job == row.seq))
    db.execute(delete(jobs).where(jobs.c.id == row.id))


def supersede(db: Connection, row: AnyRow) -> None:
    """Remove earlier outputs of the same place that this job has too, and the jobs that have none left."""
    mine = select(outputs.c.variation).where(outputs.c.job == row.seq)
    others = select(jobs).where(jobs.c.place == row.place, jobs.c.seq < row.seq)
    for other in list(db.execute(others)):
        db.execute(delete(outputs).where(outputs.c.job == other.seq, outputs.c.variation.in_(mine)))
        left = select(func.count()).select_from(outputs).where(outputs.c.job == other.seq, outputs.c.error.is_(None))
        if not db.scalar(left):
            remove(db, other)
