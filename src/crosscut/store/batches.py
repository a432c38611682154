"""Batches of variations, cut lazily from the boxes that ready clips have opened.

Functions over an open transaction.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, and_, bindparam, case, exists, func, or_, select, update

from crosscut.store import places, queue
from crosscut.store.schema import boxes, jobs, slots, work

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from crosscut.grid import Grid, Members
    from crosscut.store.options import Options
    from crosscut.store.schema import AnyRow
    from crosscut.units import Lane

SECONDS = 5.0
"""Batches aim at so much work: little enough to lose, enough to be worth handing out."""

MOST = 100
FIRST = 16
"""Variations in a batch while nobody knows yet how long one takes."""


def cut(db: Connection, grid_of: Callable[[str], Grid], options: Options, now: float) -> None:
    """Keep a few batches ready for every job that has combinations to make and its place."""
    for job in list(db.execute(_LACKING, {"near": options.window, "far": options.senders})):
        size = options.batch or _size(job, options)
        for _ in range((options.senders if job.remote else options.window) - job.waiting):
            indexes = _take(db, job.id, size, grid_of(job.id))
            if not indexes:
                break
            queue.put(db, [row(job, indexes, options, now, edition=job.edition)])


_OF_THE_JOB = (work.c.job == jobs.c.id, work.c.kind == "batch")
# What is sent away takes room for as long as it takes: those under way count.
_WAITING = (
    select(func.count())
    .where(*_OF_THE_JOB, or_(work.c.state == "ready", and_(jobs.c.remote, work.c.state != "done")))
    .scalar_subquery()
)
_LACKING = select(
    jobs.c.id,
    jobs.c.edition,
    jobs.c.remote,
    jobs.c.total,
    jobs.c.ok,
    jobs.c.kept,
    jobs.c.spent,
    _WAITING.label("waiting"),
).where(
    jobs.c.state == "running",
    jobs.c.phase.in_(("make", "queued", "gather", "plan")),
    exists().where(boxes.c.job == jobs.c.id, boxes.c.cursor < boxes.c.size),
    places.held(),
    case((jobs.c.remote, bindparam("far", type_=Integer)), else_=bindparam("near", type_=Integer)) > _WAITING,
)


def row(job: AnyRow, indexes: list[int], options: Options, now: float, **more: Any) -> dict[str, Any]:
    """`job` has `id` and `remote`: to send videos away holds up no processor."""
    payload = {"indexes": indexes, **more}
    lane: Lane = "network" if job.remote else "processor"
    allowed = options.allowed("batch", payload)
    return queue.unit_row("batch", job.id, payload, now, size=len(indexes), allowed=allowed, lane=lane)


def _size(job: AnyRow, options: Options) -> int:
    made = job.ok - job.kept
    spent = json.loads(job.spent)
    seconds: float = sum(spent.get(stage, (0, 0.0))[1] for stage in ("deliver", "mix", "tail"))
    if job.remote:
        # Each of those who write at once waits for itself.
        seconds /= options.writers
    size: int = FIRST if made < FIRST else round(SECONDS / max(seconds / made, 1e-3))
    # A small job shall use all processors, several times: they do not end at the same moment.
    most: int = -(-job.total // (4 * options.processors))
    least = 2 * options.writers if job.remote else 1
    return max(1, min(max(size, least), MOST, most))


def _take(db: Connection, job: str, size: int, grid: Grid) -> list[int]:
    """The next variations, from the oldest open boxes; each is taken once, whoever else takes at the same time."""
    taken: list[int] = []
    for box in list(db.execute(_OPEN, {"at": job, "most": size})):
        stop = min(box.size, box.cursor + size - len(taken))
        here = {"at": job, "at_stage": box.stage, "at_target": box.target, "at_ord": box.ord, "from": box.cursor}
        if db.execute(_MOVE, {**here, "to": stop}).rowcount:
            taken += _members(db, box, grid).indexes(box.cursor, stop, box.target)
        if len(taken) >= size:
            break
    return taken


_OPEN = (
    select(boxes)
    .where(boxes.c.job == bindparam("at"), boxes.c.cursor < boxes.c.size)
    .order_by(boxes.c.stage, boxes.c.ord, boxes.c.target)
    .limit(bindparam("most", type_=Integer))
)
_MOVE = (
    update(boxes)
    .where(
        boxes.c.job == bindparam("at"),
        boxes.c.stage == bindparam("at_stage"),
        boxes.c.target == bindparam("at_target"),
        boxes.c.ord == bindparam("at_ord"),
        boxes.c.cursor == bindparam("from"),
    )
    .values(cursor=bindparam("to"))
)


def _members(db: Connection, box: AnyRow, grid: Grid) -> Members:
    ready = [tuple(slot) for slot in db.execute(_READY, {"at": box.job, "of": box.target, "until": box.ord})]
    return grid.box(box.stage, ready, box.ord)


_READY = (
    select(slots.c.block, slots.c.choice)
    .where(slots.c.job == bindparam("at"), slots.c.target == bindparam("of"), slots.c.ord <= bindparam("until"))
    .order_by(slots.c.ord)
)
