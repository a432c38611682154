"""A plan's clips: which must be made, what each that is ready makes possible, what each that cannot be had costs.

Functions over an open transaction. Variations are never rows up front: when a clip becomes ready it opens a box, the
combinations with what was ready before it, and batches are cut from boxes as there is room for them.
"""

from __future__ import annotations

import json
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, func, insert, select, update

from crosscut.store import outcomes, queue
from crosscut.store.schema import boxes, jobs, slots

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection

    from crosscut.grid import Grid
    from crosscut.store.options import Options
    from crosscut.units import Failure


def place(db: Connection, job: str, result: Mapping[str, Any], grid: Grid, options: Options, now: float) -> None:
    """Take in the clips of a plan: what must be made gets units, what is ready opens its boxes."""
    _place(db, job, result, grid, options, now)
    for target in range(grid.targets):
        waiting = {tuple(slot) for slot in db.execute(_UNNUMBERED, {"at": job, "of": target})}
        _number(db, job, target, [slot for slot in grid.order() if slot in waiting])
        _open_boxes(db, job, target, grid)


def _place(db: Connection, job: str, result: Mapping[str, Any], grid: Grid, options: Options, now: float) -> None:
    known = {(row.target, row.block, row.choice): row.state for row in db.execute(_KNOWN, {"at": job})}
    order = {place: number for number, place in enumerate(grid.order())}
    rows = [
        {
            "job": job,
            "target": target,
            "block": block,
            "choice": choice,
            "position": order.get((block, choice), len(order)),
            "key": key,
            "error": problem,
            "state": "failed" if problem else "wait" if key else "ready",
        }
        for target, block, choice, key, problem in result["slots"]
        if known.get((target, block, choice)) in (None, "failed", "off")
    ]
    for row in rows:
        if (row["target"], row["block"], row["choice"]) in known:
            db.execute(_FORGET, _here(job, row["target"], row["block"], row["choice"]))
    if rows:
        db.execute(_INSERT, rows)
    rows.sort(key=itemgetter("position"))
    segments = {row["key"]: result["segments"][row["key"]] for row in rows if row["state"] == "wait"}
    queue.put(
        db,
        [
            queue.unit_row("segment", None, payload, now, key=key, allowed=options.allowed("segment", payload))
            for key, payload in segments.items()
        ],
    )


def _number(db: Connection, job: str, target: int, places: Sequence[tuple[int, int]]) -> None:
    """Give ready slots (block, choice) the next numbers among the ready ones."""
    last = db.scalar(_LAST, {"at": job, "of": target})
    first = 0 if last is None else last + 1
    rows = [
        _here(job, target, block, choice) | {"number": first + place} for place, (block, choice) in enumerate(places)
    ]
    if rows:
        db.execute(_NUMBER, rows)


def _open_boxes(db: Connection, job: str, target: int, grid: Grid) -> None:
    """A box for every ready slot in every stage, where there is none yet."""
    ready = list(db.execute(_NUMBERED, {"at": job, "of": target}))
    known = set(db.execute(_OPENED, {"at": job, "of": target}).all())
    places_ready = [(row.block, row.choice) for row in ready]
    missing = [(stage, row.ord) for stage in range(len(grid.stages)) for row in ready if (stage, row.ord) not in known]
    if not missing:
        return
    since = min(number for _, number in missing)
    sizes = grid.box_sizes(places_ready, since)
    fresh = [
        {
            "job": job,
            "stage": stage,
            "target": target,
            "ord": number,
            "block": places_ready[number][0],
            "choice": places_ready[number][1],
            "size": sizes[stage][number - since],
            "cursor": 0,
        }
        for stage, number in missing
    ]
    db.execute(_OPEN, fresh)


def segment_ended(db: Connection, key: str, failure: Failure | None, grid_of: Callable[[str], Grid]) -> None:
    """A segment is there, or cannot be made: every slot that waited for it goes on."""
    rows = list(db.execute(_WAITING, {"of": key}))
    changed: dict[str, set[int]] = {}
    for job in sorted({row.job for row in rows}):
        # Slots of one job are numbered by one at a time.
        db.execute(_LOCK, {"at": job})
    for row in rows:
        here = _here(row.job, row.target, row.block, row.choice)
        why = failure.public if failure else None
        db.execute(_END, {**here, "now": "failed" if failure else "ready", "why": why})
        if failure is None:
            _number(db, row.job, row.target, [(row.block, row.choice)])
        changed.setdefault(row.job, set()).add(row.target)
    for job, targets in changed.items():
        grid = grid_of(job)
        if failure:
            count_doomed(db, job, grid)
        else:
            for target in targets:
                _open_boxes(db, job, target, grid)
        db.execute(_NEWS, {"at": job})


def count_doomed(db: Connection, job: str, grid: Grid) -> None:
    """How many variations lack a usable clip, by the first clip that is to blame."""
    failed = list(db.execute(_FAILED, {"at": job}))
    reasons: dict[str, int] = {}
    for target in {row.target for row in failed}:
        here = [row for row in failed if row.target == target]
        for row, count in zip(here, grid.doomed([(row.block, row.choice) for row in here]), strict=True):
            reasons[row.error] = reasons.get(row.error, 0) + count
    total = sum(reasons.values())
    told = db.execute(_TOLD, {"at": job}).one()
    errors = json.loads(told.errors)
    for reason, count in json.loads(told.rescued).items():
        reasons[reason] = reasons.get(reason, 0) - count
        total -= count
    kept = dict(sorted(filter(itemgetter(1), reasons.items()), key=lambda one: -one[1])[: outcomes.REASONS_KEPT])
    document = json.dumps({"made": errors.get("made", {}), "doomed": kept})
    db.execute(_DOOM, {"at": job, "lost": total, "told": document})


def _here(job: str, target: int, block: int, choice: int) -> dict[str, Any]:
    return {"at": job, "of": target, "at_block": block, "at_choice": choice}


_SLOT = (
    slots.c.job == bindparam("at"),
    slots.c.target == bindparam("of"),
    slots.c.block == bindparam("at_block"),
    slots.c.choice == bindparam("at_choice"),
)
_MINE = slots.c.job == bindparam("at")
_OF_TARGET = (_MINE, slots.c.target == bindparam("of"))
_KNOWN = select(slots.c.target, slots.c.block, slots.c.choice, slots.c.state).where(_MINE)
_FORGET = delete(slots).where(*_SLOT)
_INSERT = insert(slots)
_UNNUMBERED = select(slots.c.block, slots.c.choice).where(*_OF_TARGET, slots.c.state == "ready", slots.c.ord.is_(None))
_LAST = select(func.max(slots.c.ord)).where(*_OF_TARGET)
_NUMBER = update(slots).where(*_SLOT).values(ord=bindparam("number"))
_NUMBERED = (
    select(slots.c.block, slots.c.choice, slots.c.ord)
    .where(*_OF_TARGET, slots.c.ord.is_not(None))
    .order_by(slots.c.ord)
)
_OPENED = select(boxes.c.stage, boxes.c.ord).where(boxes.c.job == bindparam("at"), boxes.c.target == bindparam("of"))
_OPEN = insert(boxes)
_WAITING = (
    select(slots).where(slots.c.key == bindparam("of"), slots.c.state == "wait").order_by(slots.c.job).with_for_update()
)
_LOCK = select(jobs.c.id).where(jobs.c.id == bindparam("at")).with_for_update()
_END = update(slots).where(*_SLOT).values(state=bindparam("now"), error=bindparam("why"))
_NEWS = update(jobs).where(jobs.c.id == bindparam("at")).values(version=jobs.c.version + 1)
_FAILED = (
    select(slots.c.target, slots.c.block, slots.c.choice, slots.c.error)
    .where(_MINE, slots.c.state == "failed")
    .order_by(slots.c.target, slots.c.block, slots.c.choice)
)
_TOLD = select(jobs.c.errors, jobs.c.rescued).where(jobs.c.id == bindparam("at"))
_DOOM = update(jobs).where(jobs.c.id == bindparam("at")).values(doomed=bindparam("lost"), errors=bindparam("told"))
