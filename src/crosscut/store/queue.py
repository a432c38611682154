"""Units of work: handing out fairly, taking in hand, handing in, and getting back what was lost.

Functions over an open transaction. Every write by a worker is fenced by the attempt.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Float, and_, bindparam, delete, exists, func, insert, or_, select, update

from crosscut.store.bulk import insert_new
from crosscut.store.places import held
from crosscut.store.schema import destinations, jobs, needs, slots, work
from crosscut.units import LANES, VERSION, Failure, Outcome, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection, Select

    from crosscut.store.schema import AnyRow
    from crosscut.units import Kind, Lane

WRITING = ("batch", "manifest")
"""Kinds that write into the job's place."""

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
) -> dict[str, Any]:
    """A row for `put`; without `key` it is like no other."""
    return {
        "key": key or secrets.token_hex(16),
        "kind": kind,
        "lane": LANES[kind],
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


# Handing out


def lease(
    db: Connection, lane: Lane, room: Callable[[int, int], int], now: float, ttl: float, most: int
) -> list[tuple[int, int]]:
    """Hand out as many units as there is `room` for when so many are queued and running: (unit, attempt).

    Each time it is the turn of the job with the fewest in hand, then of the one that had its turn longest ago. No job
    has more than `most` in hand, so that there is something left for the next that comes.
    """
    out = db.execute(_OUT, {"lane": lane}).all()
    left = room(*(sum(row.units for row in out if row.state == state) for state in ("queued", "running")))
    if left <= 0:
        return []
    in_hand: Counter[str] = Counter()
    for row in out:
        in_hand[row.job] += row.units
    found = _candidates(db, lane, now)
    served: dict[str, float] = dict(db.execute(select(jobs.c.id, jobs.c.served).where(jobs.c.id.in_(found))).all())
    given: list[tuple[int, int]] = []
    turns: dict[str, float] = {}
    while len(given) < left:
        able = [job for job in found if in_hand[job] < most]
        if not able:
            break
        job = min(able, key=lambda one: (in_hand[one], served.get(one, 0.0), found[one]))
        _, unit = found.pop(job)
        attempt = db.scalar(_HAND_OUT, {"unit": unit, "to": job, "until": now + ttl})
        if attempt is not None:
            given.append((unit, attempt))
            in_hand[job] += 1
            served[job] = turns[job] = max(served.values(), default=0.0) + 1.0
        found |= _candidates(db, lane, now, job)
    if turns:
        db.execute(_SERVED, [{"at": job, "turn": turn} for job, turn in turns.items()])
    return given


_OUT = (
    select(work.c.job, work.c.state, func.count().label("units"))
    .where(work.c.state.in_(("queued", "running")), work.c.lane == bindparam("lane"))
    .group_by(work.c.job, work.c.state)
)
_HAND_OUT = (
    update(work)
    .where(work.c.id == bindparam("unit"), work.c.state == "ready")
    .values(state="queued", attempt=work.c.attempt + 1, job=bindparam("to"), lease=bindparam("until"))
    .returning(work.c.attempt)
)
_SERVED = update(jobs).where(jobs.c.id == bindparam("at")).values(served=bindparam("turn"))


def _candidates(db: Connection, lane: Lane, now: float, job: str | None = None) -> dict[str, tuple[int, int]]:
    """For each job, or that one: the (rank, unit) that is next; its own units come before preparations."""
    calm = lane == "network" and _suspect_out(db, lane)
    told = {"now": now} | ({} if job is None else {"only": job})
    found: dict[str, tuple[int, int]] = {}
    for rank, statement in enumerate(_next_units(lane, calm=calm, one=job is not None)):
        for candidate, unit in db.execute(statement, told):
            if unit is not None:
                found.setdefault(candidate, (rank, unit))
    return found


@cache
def _next_units(lane: Lane, *, calm: bool, one: bool) -> tuple[Select[Any], Select[Any]]:
    """Statements for the next unit of each job, of its own and of the preparations it waits for.

    `calm` leaves out those over which a worker died, `one` looks at one job (`only`).
    """
    now = bindparam("now", type_=Float)
    ready = and_(work.c.state == "ready", work.c.lane == lane, work.c.not_before <= now, _understood())
    if calm:
        ready = and_(ready, work.c.crashes == 0)
    paused = exists().where(destinations.c.key == jobs.c.place, destinations.c.not_before > now, work.c.kind == "batch")
    own = (
        select(work.c.job, func.min(work.c.id))
        .join(jobs, jobs.c.id == work.c.job)
        .where(ready, work.c.kind.not_in(PREPARATIONS), ~paused, ~stopped(), or_(work.c.kind.not_in(WRITING), held()))
        .group_by(work.c.job)
    )
    wanted = needs if lane == "network" else slots
    unit = select(work.c.id).where(ready, work.c.key == wanted.c.key).correlate(wanted).scalar_subquery()
    # One look-up for each job, however many pieces it waits for.
    first = (
        select(unit)
        .where(wanted.c.job == jobs.c.id, wanted.c.state == "wait", unit.is_not(None))
        .order_by(wanted.c.position)
        .limit(1)
        .correlate(jobs)
        .scalar_subquery()
    )
    live = and_(jobs.c.phase != "ended", or_(jobs.c.phase != "queued", jobs.c.edition > 0))
    shared = select(jobs.c.id, first).where(live)
    if one:
        return own.where(work.c.job == bindparam("only")), shared.where(jobs.c.id == bindparam("only"))
    return own, shared


def _suspect_out(db: Connection, lane: Lane) -> bool:
    """Whether a unit over which a worker died is in hand again.

    Where a worker has several in hand, those that it died over go one after the other, so that the one that is to
    blame ends up without company.
    """
    out = exists().where(work.c.lane == lane, work.c.state.in_(("queued", "running")), work.c.crashes > 0)
    return bool(db.scalar(select(out)))


def _understood() -> Any:
    """A unit this code can do; others wait for newer code on the same database."""
    return and_(work.c.version <= VERSION, work.c.kind.in_(LANES))


def stopped() -> Any:
    """A batch or plan of a cancelled job: kept, in case the job is tried again, but not done."""
    return and_(jobs.c.state == "cancelled", work.c.kind.in_(("batch", "plan")))


# In hand


def start(db: Connection, unit: int, attempt: int, worker: str, now: float, ttl: float) -> Unit | None:
    row = db.execute(
        update(work)
        .where(work.c.id == unit, work.c.attempt == attempt, work.c.state == "queued", _understood())
        .values(state="running", worker=worker, lease=now + ttl, deadline=now + work.c.allowed, fraction=0.0)
        .returning(work.c.kind, work.c.job, work.c.payload)
    ).one_or_none()
    if row is None:
        foreign = and_(work.c.id == unit, work.c.attempt == attempt, work.c.state == "queued", ~_understood())
        db.execute(_unassigned(now).where(foreign).values(not_before=now + FOREIGN_PAUSE))
        return None
    state = db.scalar(select(jobs.c.state).where(jobs.c.id == row.job))
    if row.kind in ("batch", "plan") and state == "cancelled":
        db.execute(_unassigned(now).where(work.c.id == unit))
        return None
    if row.kind not in ("webhook", "manifest") and state == "queued":
        begun = update(jobs).where(jobs.c.id == row.job, jobs.c.state == "queued")
        db.execute(begun.values(state="running", started=now, version=jobs.c.version + 1))
    return Unit(unit, attempt, row.kind, row.job, json.loads(row.payload))


def beat(db: Connection, unit: int, attempt: int, fraction: float, now: float, ttl: float) -> bool:
    row = db.execute(
        update(work)
        .where(work.c.id == unit, work.c.attempt == attempt, work.c.state == "running")
        .values(lease=now + ttl, fraction=fraction)
        .returning(work.c.kind, work.c.job)
    ).one_or_none()
    if row is None:
        return False
    if row.kind != "batch":
        return True
    return db.scalar(select(jobs.c.state).where(jobs.c.id == row.job)) == "running"


def held_by(db: Connection, unit: int, attempt: int) -> AnyRow | None:
    """The unit's row if that attempt still has it; locked until the transaction ends."""
    return db.execute(
        select(work).where(work.c.id == unit, work.c.attempt == attempt, work.c.state == "running").with_for_update()
    ).one_or_none()


def close(db: Connection, row: AnyRow, outcome: Outcome, **counted: Any) -> None:
    """The unit is over: what it spent waits to be folded into its job."""
    done = {
        "spent": {stage: [spent.count, spent.seconds] for stage, spent in outcome.spent.items()},
        "meters": dict(outcome.meters),
        **counted,
    }
    db.execute(
        update(work)
        .where(work.c.id == row.id)
        # The key is free again: the same piece may be wanted anew before the fold.
        .values(state="done", key=f"done/{row.id}", payload="{}", done=json.dumps(done))
    )


def try_again(db: Connection, row: AnyRow, failure: Failure, now: float) -> bool:
    """Put it back for a later try; False when that cannot help (any more)."""
    if not may_try_again(row, failure):
        return False
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


def expired(db: Connection, now: float) -> None:
    """What was handed out and never begun: the message was lost."""
    db.execute(_unassigned(now).where(work.c.state == "queued", work.c.lease < now))


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
            put(db, [unit_row("batch", row.job, {"indexes": [index]}, now, allowed=row.allowed)])
        db.execute(delete(work).where(work.c.id == row.id))
        return True
    db.execute(_unassigned(now).where(work.c.id == row.id))
    db.execute(update(work).where(work.c.id == row.id).values(crashes=crashes))
    return True
