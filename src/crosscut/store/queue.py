"""Units of work: put into the queue, taken in hand, handed in, and got back when they were lost.

Functions over an open transaction. Every write by a worker is fenced by the attempt. What is asked all the time is a
statement made once: to build one costs several times what the database takes.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import TYPE_CHECKING, Any

from sqlalchemy import Float, and_, bindparam, delete, func, insert, select, update

from crosscut.store.bulk import insert_new
from crosscut.store.schema import destinations, jobs, work
from crosscut.units import LANES, VERSION, Failure, Outcome, Unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from crosscut.store.schema import AnyRow
    from crosscut.units import Kind, Lane

PREPARATIONS = ("source", "speech", "segment")
"""Kinds that belong to nobody: jobs want them by key."""

MOST_TRIES = 5
MOST_WAITS = 50
"""How often a destination may ask all of us to wait before a unit gives up."""

MOST_CRASHES = 4
"""A unit whose worker died so often is to blame itself."""

LONGEST_PAUSE = 300.0
"""Seconds between two tries."""

WEBHOOK_PAUSES = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 36_000.0)
"""Seconds before each further try of a webhook: a receiver that is back within a day gets the event."""

FOREIGN_PAUSE = 5.0
"""Seconds before a unit of newer code is handed out again, after it came to older code."""

CRASHED = Failure("engine", "crashed", "the process that worked on it died again and again: report this, with the log")


def unit_row(
    kind: Kind,
    job: str | None,
    payload: Mapping[str, Any],
    now: float,
    *,
    key: str | None = None,
    allowed: float = 600.0,
    size: int = 1,
    not_before: float = 0.0,
    tries: int = 0,
    lane: Lane | None = None,
) -> dict[str, Any]:
    """A row for `put`; without `key` it is like no other, without `lane` in that of its kind."""
    return {
        "key": key or secrets.token_hex(16),
        "kind": kind,
        "lane": lane or LANES[kind],
        "job": job,
        "payload": json.dumps(payload),
        "version": VERSION,
        "size": size,
        "allowed": allowed,
        "state": "ready",
        "not_before": not_before,
        "ready_since": max(now, not_before),
        "tries": tries,
    }


def put(db: Connection, units: Sequence[dict[str, Any]]) -> None:
    """Put units into the queue, but those whose key is there already."""
    insert_new(db, work, units, ["key"])


def understood() -> Any:
    """A unit this code can do; others wait for newer code on the same database."""
    return and_(work.c.version <= VERSION, work.c.kind.in_(LANES))


def stopped() -> Any:
    """A batch or plan of a cancelled job: kept, in case the job is tried again, but not done."""
    return and_(jobs.c.state == "cancelled", work.c.kind.in_(("batch", "plan")))


# In hand


def start(db: Connection, unit: int, attempt: int, worker: str, now: float, ttl: float) -> Unit | None:
    row = db.execute(_START, {"unit": unit, "nth": attempt, "by": worker, "now": now, "until": now + ttl}).one_or_none()
    if row is None:
        foreign = and_(work.c.id == unit, work.c.attempt == attempt, work.c.state == "queued", ~understood())
        db.execute(_unassigned(now).where(foreign).values(not_before=now + FOREIGN_PAUSE))
        return None
    state, trace = db.execute(_ASKED, {"at": row.job}).one_or_none() or (None, None)
    if row.kind in ("batch", "plan") and state == "cancelled":
        db.execute(_unassigned(now).where(work.c.id == unit))
        return None
    if row.kind not in ("webhook", "manifest") and state == "queued":
        db.execute(_BEGIN, {"at": row.job, "now": now})
    return Unit(unit, attempt, row.kind, row.job, json.loads(row.payload), trace)


_START = (
    update(work)
    .where(work.c.id == bindparam("unit"), work.c.attempt == bindparam("nth"), work.c.state == "queued", understood())
    .values(
        state="running",
        worker=bindparam("by"),
        lease=bindparam("until"),
        deadline=bindparam("now", type_=Float) + work.c.allowed,
        fraction=0.0,
    )
    .returning(work.c.kind, work.c.job, work.c.payload)
)
_ASKED = select(jobs.c.state, jobs.c.trace).where(jobs.c.id == bindparam("at"))
_STATE = select(jobs.c.state).where(jobs.c.id == bindparam("at"))
_BEGIN = (
    update(jobs)
    .where(jobs.c.id == bindparam("at"), jobs.c.state == "queued")
    .values(state="running", started=bindparam("now"), version=jobs.c.version + 1)
)


def beat(db: Connection, unit: int, attempt: int, fraction: float, now: float, ttl: float) -> bool:
    row = db.execute(_BEAT, {"unit": unit, "nth": attempt, "until": now + ttl, "part": fraction}).one_or_none()
    if row is None:
        return False
    return row.kind != "batch" or db.scalar(_STATE, {"at": row.job}) == "running"


_BEAT = (
    update(work)
    .where(work.c.id == bindparam("unit"), work.c.attempt == bindparam("nth"), work.c.state == "running")
    .values(lease=bindparam("until"), fraction=bindparam("part"))
    .returning(work.c.kind, work.c.job)
)


def held_by(db: Connection, unit: int, attempt: int) -> AnyRow | None:
    """The unit's row if that attempt still has it; locked until the transaction ends."""
    return db.execute(_HELD, {"unit": unit, "nth": attempt}).one_or_none()


_HELD = (
    select(work)
    .where(work.c.id == bindparam("unit"), work.c.attempt == bindparam("nth"), work.c.state == "running")
    .with_for_update()
)


def close(db: Connection, row: AnyRow, outcome: Outcome, now: float, **counted: Any) -> None:
    """The unit is over: what it spent waits to be folded into its job."""
    # The key is free again: the same piece may be wanted anew before the fold.
    db.execute(_CLOSE, {"unit": row.id, "free": f"done/{row.id}", "told": _told(row, outcome, now, counted)})


def _told(row: AnyRow, outcome: Outcome, now: float, counted: Mapping[str, Any]) -> str:
    """What `fold` adds up, of the attempt that ends now."""
    done = {
        "kind": row.kind,
        "seconds": max(0.0, now - (row.deadline - row.allowed)),
        "spent": {stage: [spent.count, spent.seconds] for stage, spent in outcome.spent.items()},
        "meters": dict(outcome.meters),
        **counted,
    }
    return json.dumps(done)


_CLOSE = (
    update(work)
    .where(work.c.id == bindparam("unit"))
    .values(state="done", key=bindparam("free"), payload="{}", done=bindparam("told"))
)


def try_again(db: Connection, row: AnyRow, failure: Failure, outcome: Outcome, now: float) -> bool:
    """Put it back for a later try; False when that cannot help (any more)."""
    if not may_try_again(row, failure):
        return False
    # The unit goes on: what this attempt spent is a row of its own, to be folded.
    told = _told(row, outcome, now, {"retries": {failure.code: 1}})
    note = unit_row(row.kind, row.job, {}, now, lane=row.lane) | {"state": "done", "done": told}
    put(db, [note | {"key": f"done/{note['key']}"}])
    pause = pause_before(row, failure)
    if failure.everyone:
        pause_destination(db, row.job, now + pause)
    db.execute(
        update(work)
        .where(work.c.id == row.id)
        .values(
            state="ready",
            worker=None,
            lease=None,
            deadline=None,
            fraction=0.0,
            not_before=now + pause,
            ready_since=now + pause,
            tries=row.tries + 1,
        )
    )
    return True


def may_try_again(row: AnyRow, failure: Failure) -> bool:
    if row.kind == "webhook":
        return failure.retryable and row.tries < len(WEBHOOK_PAUSES)
    # Waiting because all have to is hardly this unit's failure.
    return failure.retryable and row.tries + 1 < (MOST_WAITS if failure.everyone else MOST_TRIES)


def pause_before(row: AnyRow, failure: Failure) -> float:
    """Seconds until the next try: doubling, spread by half, or what the other side asked for."""
    if failure.after is not None:
        return max(0.0, min(failure.after, LONGEST_PAUSE))
    if row.kind == "webhook":
        return WEBHOOK_PAUSES[min(row.tries, len(WEBHOOK_PAUSES) - 1)]
    spread = 0.5 + hashlib.blake2b(f"{row.id}/{row.attempt}".encode(), digest_size=1).digest()[0] / 255
    return float(min(LONGEST_PAUSE, 2.0 ** min(row.tries, 20)) * spread)


def pause_destination(db: Connection, job: str, until: float) -> None:
    place = db.scalar(select(jobs.c.place).where(jobs.c.id == job))
    if place is None:
        return
    known = db.scalar(select(destinations.c.not_before).where(destinations.c.key == place))
    if known is None:
        db.execute(insert(destinations).values(key=place, not_before=until))
    elif known < until:
        db.execute(update(destinations).where(destinations.c.key == place).values(not_before=until))


# Getting back


def give_back(db: Connection, worker: str, now: float) -> None:
    """Return to the queue what a worker had in hand when it was asked to stop."""
    db.execute(_unassigned(now).where(work.c.worker == worker, work.c.state == "running"))


def all_back(db: Connection, now: float) -> None:
    """At the start of the one process that hands out work: whatever was out is back."""
    db.execute(_unassigned(now).where(work.c.state.in_(("queued", "running"))))


def _unassigned(now: float) -> Any:
    return update(work).values(
        state="ready", worker=None, lease=None, deadline=None, fraction=0.0, not_before=0.0, ready_since=now
    )


def in_hand(db: Connection, worker: str) -> list[AnyRow]:
    return list(db.execute(select(work).where(work.c.worker == worker, work.c.state == "running").with_for_update()))


def overdue(db: Connection, now: float) -> dict[Lane, int]:
    """How many units of a lane are handed out and not begun, of lanes where that is long ago for some."""
    lanes = db.scalars(select(work.c.lane).where(*_overdue(now)).distinct()).all()
    out = select(work.c.lane, func.count()).where(work.c.state == "queued", work.c.lane.in_(lanes))
    return dict(db.execute(out.group_by(work.c.lane)).all()) if lanes else {}


def expired(db: Connection, lane: Lane, now: float) -> int:
    """Take back what was handed out long ago and never begun: its message was lost; how many."""
    return db.execute(_unassigned(now).where(*_overdue(now), work.c.lane == lane)).rowcount


def _overdue(now: float) -> tuple[Any, ...]:
    return work.c.state == "queued", work.c.lease < now


def decline(db: Connection, unit: int, attempt: int, now: float) -> None:
    """Nobody there can begin it."""
    mine = (work.c.id == unit, work.c.attempt == attempt, work.c.state == "queued")
    db.execute(_unassigned(now).where(*mine))


def silent(db: Connection, now: float) -> list[AnyRow]:
    """Units in hand of which nothing is heard any more: the worker is gone, asleep, or stuck as a whole."""
    return list(db.execute(select(work).where(work.c.state == "running", work.c.lease < now).with_for_update()))


def hung(db: Connection, now: float) -> list[str]:
    """Workers that have had a unit in hand for longer than is allowed."""
    query = select(work.c.worker).distinct().where(work.c.state == "running", work.c.deadline < now)
    return [worker for worker in db.scalars(query) if worker]


def crashed(db: Connection, row: AnyRow, now: float) -> bool:
    """Note that a worker died over this unit; False when it has killed enough of them."""
    crashes = row.crashes + 1
    if crashes >= MOST_CRASHES:
        return False
    if row.kind == "batch" and crashes * 2 >= MOST_CRASHES and row.size > 1:
        for index in json.loads(row.payload)["indexes"]:
            put(db, [unit_row("batch", row.job, {"indexes": [index]}, now, allowed=row.allowed, lane=row.lane)])
        db.execute(delete(work).where(work.c.id == row.id))
        return True
    db.execute(_unassigned(now).where(work.c.id == row.id))
    db.execute(update(work).where(work.c.id == row.id).values(crashes=crashes))
    return True
