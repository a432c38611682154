"""What can be looked up: jobs, their outputs, numbers for the metrics. Functions over an open transaction."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, case, distinct, func, or_, select

from crosscut.store import outcomes, queue
from crosscut.store.schema import LIVE, destinations, documents, jobs, needs, outputs, slots, totals, work
from crosscut.units import Found, Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Select

    from crosscut.fields import Event
    from crosscut.store.schema import AnyRow

LIGHT = (
    jobs.c.seq,
    jobs.c.id,
    jobs.c.state,
    jobs.c.total,
    jobs.c.doomed,
    jobs.c.edition,
    jobs.c.destination,
    jobs.c.folder,
)
"""What a look at variations needs."""


def owned(db: Connection, job: str, owner: str | None, columns: Sequence[Any] = (jobs,)) -> AnyRow | None:
    """The job, if it is that owner's; `owner` None is everybody."""
    return db.execute(_owned(tuple(columns), anyone=owner is None), {"at": job, "by": owner}).one_or_none()


@cache
def _owned(columns: tuple[Any, ...], *, anyone: bool) -> Select[Any]:
    query = select(*columns).where(jobs.c.id == bindparam("at"))
    return query if anyone else query.where(jobs.c.owner == bindparam("by"))


def entire() -> Select[Any]:
    """Jobs with their documents."""
    texts = [column for column in documents.c if column.name != "job"]
    return select(jobs, *texts).join(documents, documents.c.job == jobs.c.id)


def whole(db: Connection, job: str, owner: str | None) -> AnyRow | None:
    """The job with its documents, if it is that owner's; `owner` None is everybody."""
    return db.execute(_whole(anyone=owner is None), {"at": job, "by": owner}).one_or_none()


@cache
def _whole(*, anyone: bool) -> Select[Any]:
    query = entire().where(jobs.c.id == bindparam("at"))
    return query if anyone else query.where(jobs.c.owner == bindparam("by"))


def listed(
    db: Connection, owner: str | None, state: str | None, task_name: str | None, before: int | None, limit: int
) -> list[AnyRow]:
    """Jobs, latest first."""
    query = select(jobs).order_by(jobs.c.seq.desc()).limit(limit)
    for value, condition in (
        (owner, jobs.c.owner == owner),
        (state, jobs.c.state == state),
        (task_name, jobs.c.task_name == task_name),
        (before, jobs.c.seq < (before or 0)),
    ):
        if value is not None:
            query = query.where(condition)
    return list(db.execute(query))


def stages(db: Connection, job: str) -> dict[str, dict[str, float]]:
    """Preparations by stage: how many there are, have ended and have failed; parts of those in hand count too."""
    found: dict[str, dict[str, float]] = {
        name: {"done": 0, "total": 0, "failed": 0} for name in ("source", "speech", "segment")
    }
    at = {"at": job}
    for kind, state, count in [*db.execute(_NEEDS, at), *(("segment", *row) for row in db.execute(_SLOTS, at))]:
        found[kind]["total"] += count
        if state not in ("wait", "off"):
            found[kind]["done"] += count
        if state == "failed":
            found[kind]["failed"] += count
    found["segment"]["done"] += db.scalar(_IN_HAND, at) or 0.0
    return found


_NEEDS = (
    select(needs.c.kind, needs.c.state, func.count())
    .where(needs.c.job == bindparam("at"))
    .group_by(needs.c.kind, needs.c.state)
)
_SLOTS = (
    select(slots.c.state, func.count(distinct(slots.c.key)))
    .where(slots.c.job == bindparam("at"), slots.c.key.is_not(None))
    .group_by(slots.c.state)
)
_IN_HAND = (
    select(func.sum(work.c.fraction))
    .where(work.c.state == "running", work.c.kind == "segment")
    .where(work.c.key.in_(select(slots.c.key).where(slots.c.job == bindparam("at"), slots.c.state == "wait")))
)


def copied(db: Connection, job: str) -> int:
    """Clips that are used as they came, counted once for each format."""
    return db.scalar(_COPIED, {"at": job}) or 0


_COPIED = select(func.count()).where(slots.c.job == bindparam("at"), slots.c.key.is_(None), slots.c.state == "ready")


def found(db: Connection, job: str) -> list[Found]:
    return [
        Found(row.kind, row.name, json.loads(row.result) if row.result else None, row.error)
        for row in db.execute(_FOUND, {"at": job})
    ]


_FOUND = select(needs).where(needs.c.job == bindparam("at")).order_by(needs.c.position)


def broken(db: Connection, job: str) -> dict[tuple[int, int, int], str]:
    """Why clips could not be prepared, by (target, block, choice)."""
    return {(row.target, row.block, row.choice): row.error for row in db.execute(_BROKEN, {"at": job})}


_BROKEN = select(slots.c.target, slots.c.block, slots.c.choice, slots.c.error).where(
    slots.c.job == bindparam("at"), slots.c.state == "failed"
)


def estimate(db: Connection, job: str) -> dict[str, Any] | None:
    text = db.scalar(select(documents.c.estimate).where(documents.c.job == job))
    found: dict[str, Any] | None = json.loads(text) if text else None
    return found


def paused(db: Connection, place: str, now: float) -> bool:
    """Whether a place has asked all who write there to wait."""
    return (db.scalar(_PAUSED, {"of": place}) or 0.0) > now


_PAUSED = select(destinations.c.not_before).where(destinations.c.key == bindparam("of"))


def position(db: Connection, row: AnyRow) -> int:
    """How many jobs wait before this one; 0 once it has begun."""
    if row.state != "queued":
        return 0
    return db.scalar(_BEFORE, {"at": row.seq}) or 0


_BEFORE = select(func.count()).where(LIVE, jobs.c.state == "queued", jobs.c.seq < bindparam("at"))


def page(
    db: Connection, seq: int, after: int, limit: int, *, good: bool | None = None, until: int | None = None
) -> list[Output]:
    """Outputs beyond index `after` in order; `good` chooses those that were made (True) or failed (False)."""
    query = select(outputs).where(outputs.c.job == seq, outputs.c.variation > after)
    if good is not None:
        query = query.where(outputs.c.error.is_(None) if good else outputs.c.error.is_not(None))
    if until is not None:
        query = query.where(outputs.c.variation <= until)
    return [outcomes.output(row) for row in db.execute(query.order_by(outputs.c.variation).limit(limit))]


def output(db: Connection, seq: int, index: int) -> Output | None:
    row = db.execute(select(outputs).where(outputs.c.job == seq, outputs.c.variation == index)).one_or_none()
    return outcomes.output(row) if row else None


def earlier(db: Connection, job: str, indexes: Sequence[int]) -> dict[int, Output]:
    """The latest good outputs of other jobs into the same place."""
    own = select(jobs.c.place).where(jobs.c.id == job).scalar_subquery()
    others = list(db.scalars(select(jobs.c.seq).where(jobs.c.place == own, jobs.c.id != job)))
    if not others:
        return {}
    query = select(outputs).where(
        and_(outputs.c.job.in_(others), outputs.c.variation.in_(indexes), outputs.c.error.is_(None))
    )
    return {row.variation: outcomes.output(row) for row in db.execute(query.order_by(outputs.c.job))}


def made_before(db: Connection, job: str, most: int) -> list[int]:
    """Variations up to `most` that other jobs made into the same place and this one has not, in order."""
    own = db.execute(select(jobs.c.seq, jobs.c.place).where(jobs.c.id == job)).one()
    others = list(db.scalars(select(jobs.c.seq).where(jobs.c.place == own.place, jobs.c.id != job)))
    if not others:
        return []
    mine = select(outputs.c.variation).where(outputs.c.job == own.seq)
    query = (
        select(outputs.c.variation)
        .distinct()
        .where(
            outputs.c.job.in_(others),
            outputs.c.error.is_(None),
            outputs.c.variation <= most,
            outputs.c.variation.not_in(mine),
        )
    )
    return list(db.scalars(query.order_by(outputs.c.variation)))


def unannounced(db: Connection) -> list[tuple[str, Event]]:
    """Jobs of which something is to be told: (job, event)."""
    return [(job, event) for event, query in _UNTOLD for job in db.scalars(query)]


_UNTOLD: tuple[tuple[Event, Select[Any]], ...] = (
    (
        "job.first_failure",
        select(jobs.c.id).where(
            ~jobs.c.end_told, jobs.c.webhook.is_not(None), ~jobs.c.failure_told, (jobs.c.failed + jobs.c.doomed) > 0
        ),
    ),
    (
        "job.ended",
        select(jobs.c.id).where(~jobs.c.end_told, jobs.c.state.in_(("done", "failed", "cancelled")), ~LIVE),
    ),
)


def metrics(db: Connection, now: float) -> dict[str, Any]:
    waiting = or_(work.c.job.is_(None), ~queue.stopped())
    # What waits for a time is not what waits for a worker.
    state = case((and_(work.c.state == "ready", work.c.not_before > now), "later"), else_=work.c.state).label(
        "now_state"
    )
    units = db.execute(
        select(work.c.kind, work.c.lane, state, func.count())
        .outerjoin(jobs, jobs.c.id == work.c.job)
        .where(work.c.state != "done", waiting)
        .group_by(work.c.kind, work.c.lane, "now_state")
    )
    oldest = db.execute(
        select(work.c.lane, func.min(work.c.ready_since))
        .outerjoin(jobs, jobs.c.id == work.c.job)
        .where(work.c.state == "ready", work.c.not_before <= now, waiting)
        .group_by(work.c.lane)
    )
    states = db.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state))
    backlog = db.scalar(
        select(func.sum(jobs.c.total - jobs.c.ok - jobs.c.failed - jobs.c.doomed)).where(
            jobs.c.state.in_(("queued", "running"))
        )
    )
    known: dict[str, dict[str, float]] = {}
    for row in db.execute(select(totals)):
        known.setdefault(row.name, {})[row.label] = row.value
    return {
        "units": {(kind, lane, state): count for kind, lane, state, count in units},
        "oldest_seconds": {lane: max(0.0, now - since) for lane, since in oldest},
        "jobs": dict(states.all()),
        "backlog": int(backlog or 0),
        "totals": known,
    }
