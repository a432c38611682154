"""Who is next: units handed out in turn between jobs. Functions over an open transaction."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Float, and_, bindparam, exists, func, or_, select, update

from crosscut.store.places import held
from crosscut.store.queue import PREPARATIONS, stopped, understood
from crosscut.store.schema import LIVE, destinations, jobs, needs, slots, work

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Select

    from crosscut.units import Lane

AT_ONCE = 8
"""Units handed out in one look: others wait for the database."""

WRITING = ("batch", "manifest")
"""Kinds that write into the job's place."""


class _Next(NamedTuple):
    """A job's next unit."""

    owner: str
    served: float
    rank: int
    """Its own units come before preparations."""
    unit: int


def lease(
    db: Connection, lane: Lane, room: Callable[[int, int], int], now: float, ttl: float, most: int
) -> list[tuple[int, int]]:
    """Hand out units while there is `room` for more when so many are queued and running: at most `AT_ONCE`.

    Each time it is the turn of the owner with the fewest in hand, of their job with the fewest, and then of the one
    that had its turn longest ago. No job has more than `most` in hand, so that there is something left for the next
    that comes.
    """
    out = db.execute(_OUT, {"lane": lane}).all()
    left = min(AT_ONCE, room(*(sum(row.units for row in out if row.state == state) for state in ("queued", "running"))))
    if left <= 0:
        return []
    in_hand: Counter[str] = Counter()
    owners: Counter[str] = Counter()
    for row in out:
        in_hand[row.job] += row.units
        owners[row.owner] += row.units
    calm = lane == "network" and bool(db.scalar(_SUSPECT_OUT, {"lane": lane}))
    found = _candidates(db, lane, now, calm=calm)
    turn = max((one.served for one in found.values()), default=0.0)
    given: list[tuple[int, int]] = []
    while len(given) < left:
        able = [job for job in found if in_hand[job] < most]
        if not able:
            break
        job = min(able, key=lambda one: (owners[found[one].owner], in_hand[one], found[one][1:]))
        owner, _, _, unit = found.pop(job)
        leased = db.execute(_HAND_OUT, {"unit": unit, "to": job, "until": now + ttl}).one_or_none()
        if leased is not None:
            turn += 1.0
            given.append((unit, leased.attempt))
            in_hand[job] += 1
            owners[owner] += 1
            db.execute(_SERVED, {"at": job, "turn": turn})
        if lane == "network" and not calm and leased is not None and leased.crashes:
            calm, found = True, _candidates(db, lane, now, calm=True)
        else:
            found |= _candidates(db, lane, now, job, calm=calm)
    return given


_OUT = (
    select(work.c.job, jobs.c.owner, work.c.state, func.count().label("units"))
    .outerjoin(jobs, jobs.c.id == work.c.job)
    .where(work.c.state.in_(("queued", "running")), work.c.lane == bindparam("lane"))
    .group_by(work.c.job, jobs.c.owner, work.c.state)
)
_HAND_OUT = (
    update(work)
    .where(work.c.id == bindparam("unit"), work.c.state == "ready")
    .values(state="queued", attempt=work.c.attempt + 1, job=bindparam("to"), lease=bindparam("until"))
    .returning(work.c.attempt, work.c.crashes)
)
_SERVED = update(jobs).where(jobs.c.id == bindparam("at")).values(served=bindparam("turn"))


_SUSPECT_OUT = select(
    exists().where(work.c.lane == bindparam("lane"), work.c.state.in_(("queued", "running")), work.c.crashes > 0)
)
"""Whether a unit over which a worker died is in hand again.

Where a worker has several in hand, those that it died over go one after the other, so that the one that is to blame
ends up without company.
"""


def _candidates(db: Connection, lane: Lane, now: float, job: str | None = None, *, calm: bool) -> dict[str, _Next]:
    """What is next of each job, or of that one."""
    told = {"now": now} | ({} if job is None else {"only": job})
    found: dict[str, _Next] = {}
    for rank, statement in enumerate(_next_units(lane, calm=calm, one=job is not None)):
        for candidate, owner, served, unit in db.execute(statement, told):
            if unit is not None:
                found.setdefault(candidate, _Next(owner, served, rank, unit))
    return found


@cache
def _next_units(lane: Lane, *, calm: bool, one: bool) -> tuple[Select[Any], Select[Any]]:
    """Statements for the next unit of each job, of its own and of the preparations it waits for.

    `calm` leaves out those over which a worker died, `one` looks at one job (`only`).
    """
    now = bindparam("now", type_=Float)
    ready = and_(work.c.state == "ready", work.c.lane == lane, work.c.not_before <= now, understood())
    if calm:
        ready = and_(ready, work.c.crashes == 0)
    paused = exists().where(destinations.c.key == jobs.c.place, destinations.c.not_before > now, work.c.kind == "batch")
    own = (
        select(jobs.c.id, jobs.c.owner, jobs.c.served, func.min(work.c.id))
        .select_from(work)
        .join(jobs, jobs.c.id == work.c.job)
        .where(ready, work.c.kind.not_in(PREPARATIONS), ~paused, ~stopped(), or_(work.c.kind.not_in(WRITING), held()))
        .group_by(jobs.c.id, jobs.c.owner, jobs.c.served)
    )
    wanted, waiting = (
        (needs, jobs.c.phase == "gather") if lane == "network" else (slots, and_(LIVE, jobs.c.edition > 0))
    )
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
    shared = select(jobs.c.id, jobs.c.owner, jobs.c.served, first).where(waiting)
    if one:
        return own.where(work.c.job == bindparam("only")), shared.where(jobs.c.id == bindparam("only"))
    return own, shared
