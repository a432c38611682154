"""From a job to units of work: what it needs, what its plan says, the batches its ready clips allow, its end.

Functions over an open transaction.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, exists, insert, or_, select, update

from crosscut.store import batches, opening, places, queue, reading
from crosscut.store.schema import LIVE, boxes, documents, jobs, needs, slots, work
from crosscut.wants import request_of, wants

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection

    from crosscut.grid import Grid
    from crosscut.store.options import Options
    from crosscut.store.schema import AnyRow
    from crosscut.units import Failure, JobRecord
    from crosscut.wants import Want

OUTLINE = ("captions_to_draw", "formats", "formats_reason", "notes", "refused")
"""Of the estimate, what a status tells."""


def want(db: Connection, job: str, wanted: Sequence[Want], options: Options, now: float) -> bool:
    """Put preparations of a job that is to be let in into the queue; those that another job waits for are shared.

    False when it is not to be let in any more.
    """
    if db.scalar(_LOCK, {"at": job}) is None:
        return False
    known = set(db.scalars(_WANTED, {"at": job}))
    fresh = [one for one in wanted if one.key not in known]
    rows = [
        {"job": job, "key": one.key, "kind": one.kind, "name": one.name, "position": position, "state": "wait"}
        for position, one in enumerate(fresh, len(known))
    ]
    if rows:
        db.execute(_WANT, rows)
    queue.put(db, [_want_row(one, options, now) for one in fresh])
    return True


def let_in(db: Connection, job: str) -> None:
    """All it wants is in the queue."""
    db.execute(_LET_IN, {"at": job})


_ENTERING = (jobs.c.id == bindparam("at"), jobs.c.phase == "queued", jobs.c.state != "cancelled")
_LOCK = select(jobs.c.seq).where(*_ENTERING).with_for_update()
_WANTED = select(needs.c.key).where(needs.c.job == bindparam("at"))
_WANT = insert(needs)
_LET_IN = update(jobs).where(*_ENTERING).values(phase="gather", version=jobs.c.version + 1)


def gathered(db: Connection, options: Options, now: float) -> None:
    """Jobs that wait for no source or line any more get their plan drawn."""
    for job in list(db.scalars(_GATHERED)):
        if db.execute(_PLAN, {"at": job}).rowcount:
            queue.put(db, [queue.unit_row("plan", job, {}, now, allowed=options.allowed("plan"))])


_ALL_THERE = and_(
    jobs.c.phase == "gather",
    jobs.c.state != "cancelled",
    ~exists().where(needs.c.job == jobs.c.id, needs.c.state == "wait"),
)
_GATHERED = select(jobs.c.id).where(_ALL_THERE)
_PLAN = update(jobs).where(jobs.c.id == bindparam("at"), _ALL_THERE).values(phase="plan")


def prepared(db: Connection, key: str, result: Mapping[str, Any] | None, failure: Failure | None) -> None:
    """A source or line has ended: tell every job that waits for it."""
    told = {
        "now": "failed" if failure else "done",
        "came": None if result is None or failure else json.dumps(result),
        "why": failure.public if failure else None,
    }
    db.execute(_NEWS, {"of": key})
    db.execute(_PREPARED, {"of": key, **told})


_WAITING = and_(needs.c.key == bindparam("of"), needs.c.state == "wait")
_NEWS = update(jobs).where(jobs.c.id.in_(select(needs.c.job).where(_WAITING))).values(version=jobs.c.version + 1)
_PREPARED = (
    update(needs).where(_WAITING).values(state=bindparam("now"), result=bindparam("came"), error=bindparam("why"))
)


# The plan


def decided(db: Connection, job: AnyRow, result: Mapping[str, Any], grid: Grid, options: Options, now: float) -> None:
    """Keep the plan; clips that must be encoded get units, those that need nothing open their boxes at once.

    `job` is a row of `reading.entire`.
    """
    refused = result["refused"]
    errors = json.loads(job.errors) if not refused else {"made": {}, "doomed": {refused: len(grid)}}
    over = bool(refused) or job.mode == "plan"
    texts = {"drawn": result["plan"], "rows": json.dumps(grid.as_json()), "price": json.dumps(result["estimate"])}
    db.execute(_KEEP_PLAN, {"at": job.id, **texts})
    db.execute(
        update(jobs)
        .where(jobs.c.id == job.id)
        .values(
            edition=jobs.c.edition + 1,
            planned=len(json.loads(job.extensions)),
            outline=json.dumps({name: result["estimate"].get(name) for name in OUTLINE}),
            total=len(grid),
            errors=json.dumps(errors),
            location=result.get("location"),
            doomed=len(grid) if refused else 0,
            phase="ended" if over else "make",
            version=jobs.c.version + 1,
            **({"state": "failed" if refused and job.mode != "plan" else "done", "ended": now} if over else {}),
        )
    )
    if over:
        return
    opening.place(db, job.id, result, grid, options, now)
    _rescue(db, job, grid, options, now)
    opening.count_doomed(db, job.id, grid)


_KEEP_PLAN = (
    update(documents)
    .where(documents.c.job == bindparam("at"))
    .values(plan=bindparam("drawn"), grid=bindparam("rows"), estimate=bindparam("price"))
)


def _rescue(db: Connection, job: AnyRow, grid: Grid, options: Options, now: float) -> None:
    """What lacks a usable clip now, but was made into this place before, may be kept: have it looked at."""
    failed = reading.broken(db, job.id)
    reasons: dict[str, int] = {}
    indexes = []
    for index in reading.made_before(db, job.id, len(grid)) if failed else ():
        stage, position, target = grid.place(index)
        clips = enumerate(grid.combination(stage, position))
        reason = next((failed[target, *clip] for clip in clips if (target, *clip) in failed), None)
        if reason is not None:
            indexes.append(index)
            reasons[reason] = reasons.get(reason, 0) + 1
    for start in range(0, len(indexes), batches.MOST):
        some = indexes[start : start + batches.MOST]
        queue.put(db, [batches.row(job, some, options, now)])
    db.execute(_RESCUE, {"at": job.id, "told": json.dumps(reasons)})


_RESCUE = update(jobs).where(jobs.c.id == bindparam("at")).values(rescued=bindparam("told"))


# The end


def ending(db: Connection, options: Options, now: float) -> None:
    """Jobs of which nothing is left to do, or that were cancelled and have come to rest, get their manifest."""
    for job in list(db.scalars(_NOTHING_MADE)):
        db.execute(update(jobs).where(jobs.c.id == job).values(phase="ended", version=jobs.c.version + 1))
        places.free(db, job)
    for due, close in _TO_CLOSE:
        for job in list(db.execute(due)):
            if db.execute(close, {"at": job.id}).rowcount:
                _ask_for_manifest(db, job, options, now)


_RUNNING = exists().where(work.c.job == jobs.c.id, work.c.kind == "batch", work.c.state.in_(("running", "done")))
_AT_REST = and_(jobs.c.state == "cancelled", LIVE, jobs.c.phase != "close", ~_RUNNING)
_NOTHING_MADE = select(jobs.c.id).where(_AT_REST, or_(jobs.c.edition == 0, jobs.c.ok == 0, jobs.c.mode == "plan"))
_STOPPED = and_(_AT_REST, jobs.c.ok > 0, places.held())
# Open boxes are looked at before open work: cutting moves from the first to the second.
_ALL_MADE = and_(
    jobs.c.phase == "make",
    jobs.c.state == "running",
    places.held(),
    ~exists().where(slots.c.job == jobs.c.id, slots.c.state == "wait"),
    ~exists().where(boxes.c.job == jobs.c.id, boxes.c.cursor < boxes.c.size),
    ~exists().where(work.c.job == jobs.c.id, work.c.kind == "batch"),
)
_TO_CLOSE = [
    (
        select(jobs.c.id, jobs.c.state).where(due),
        update(jobs).where(jobs.c.id == bindparam("at"), due).values(phase="close"),
    )
    for due in (_ALL_MADE, _STOPPED)
]


def _ask_for_manifest(db: Connection, job: AnyRow, options: Options, now: float) -> None:
    broken = [[*slot, why] for slot, why in reading.broken(db, job.id).items()]
    payload = {"cancelled": job.state == "cancelled", "broken": broken}
    queue.put(db, [queue.unit_row("manifest", job.id, payload, now, allowed=options.allowed("manifest"))])


def over(db: Connection, job: str, problem: str | None, now: float, told: Mapping[str, Any]) -> None:
    """The manifest is written, or cannot be: the job has ended.

    `told` may have the `location` of the folder, and as `loudness` what `report.Levels` found.
    """
    row = db.execute(select(jobs).where(jobs.c.id == job).with_for_update()).one_or_none()
    if row is None or row.phase != "close":
        return
    state = row.state if row.state == "cancelled" else "done" if row.ok else "failed"
    db.execute(
        update(jobs)
        .where(jobs.c.id == job)
        .values(
            phase="ended",
            state=state,
            ended=now,
            manifest_problem=problem,
            loudness=json.dumps(told.get("loudness")),
            location=told.get("location", row.location),
            end_told=False,
            version=jobs.c.version + 1,
        )
    )
    places.free(db, job)


def rearm(db: Connection, record: Callable[[str], JobRecord], options: Options, now: float) -> None:
    """Queue again what jobs wait for and nobody is to make: its unit ended just before they began to wait."""
    missing = ~exists().where(work.c.key == needs.c.key)
    query = select(needs.c.job).distinct().join(jobs, jobs.c.id == needs.c.job)
    for job in list(db.scalars(query.where(needs.c.state == "wait", jobs.c.phase == "gather", missing))):
        told = record(job)
        lost = set(db.scalars(select(needs.c.key).where(needs.c.job == job, needs.c.state == "wait", missing)))
        queue.put(db, [_want_row(want, options, now) for want in wants(told, request_of(told)) if want.key in lost])
    lacking = and_(slots.c.state == "wait", ~exists().where(work.c.key == slots.c.key))
    query = select(slots.c.job).distinct().join(jobs, jobs.c.id == slots.c.job)
    for job in list(db.scalars(query.where(lacking, jobs.c.phase == "make", jobs.c.state == "running"))):
        # Their payloads are in the plan, which is drawn again for them.
        db.execute(update(slots).where(slots.c.job == job, lacking).values(state="off"))
        db.execute(update(jobs).where(jobs.c.id == job, jobs.c.phase == "make").values(phase="gather"))


def _want_row(want: Want, options: Options, now: float) -> dict[str, Any]:
    return queue.unit_row(want.kind, None, want.payload, now, key=want.key, allowed=options.allowed(want.kind))
