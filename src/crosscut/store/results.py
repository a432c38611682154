"""What comes of a unit: handed in by its worker, or given up when workers died over it.

Functions over an open transaction.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, select

from crosscut.store import opening, outcomes, planning, queue, reading
from crosscut.store.jobs import fail, record_of
from crosscut.store.schema import jobs
from crosscut.units import Outcome, Output
from crosscut.wants import request_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from crosscut.grid import Grid
    from crosscut.store.options import Options
    from crosscut.store.schema import AnyRow
    from crosscut.units import Failure


def finish(
    db: Connection,
    unit: int,
    attempt: int,
    outcome: Outcome,
    grid_of: Callable[[str], Grid],
    options: Options,
    now: float,
) -> bool:
    """Take in the outcome, or throw it away (False) when the unit is no longer that attempt's."""
    row = queue.held_by(db, unit, attempt)
    if row is None:
        outcomes.add(db, {("units", "late"): 1})
        return False
    if row.kind == "batch":
        _batch(db, row, outcome, options, now)
    elif outcome.failure is None:
        _succeeded(db, row, outcome, grid_of, options, now)
    elif not queue.try_again(db, row, outcome.failure, outcome, now):
        _failed(db, row, outcome.failure, outcome, grid_of, now)
    return True


def died(db: Connection, worker: str, grid_of: Callable[[str], Grid], options: Options, now: float) -> None:
    """A worker is dead: what it had in hand goes back, or is given up when it killed too many."""
    _lost(db, queue.in_hand(db, worker), grid_of, options, now, "crashed")


def silent(db: Connection, grid_of: Callable[[str], Grid], options: Options, now: float) -> list[str]:
    """Take what they had in hand from workers that are silent, as if they had died; their names.

    What they hand in later is fenced.
    """
    rows = queue.silent(db, now)
    _lost(db, rows, grid_of, options, now, "expired")
    return sorted({row.worker for row in rows})


def _lost(
    db: Connection, rows: Sequence[AnyRow], grid_of: Callable[[str], Grid], options: Options, now: float, how: str
) -> None:
    for row in rows:
        if queue.crashed(db, row, now):
            continue
        if row.kind == "batch":
            _batch(db, row, Outcome(failure=queue.CRASHED), options, now)
        else:
            _failed(db, row, queue.CRASHED, Outcome(), grid_of, now)
    outcomes.add(db, {("units", how): len(rows)})


def _succeeded(
    db: Connection, row: AnyRow, outcome: Outcome, grid_of: Callable[[str], Grid], options: Options, now: float
) -> None:
    if row.kind in ("source", "speech"):
        planning.prepared(db, row.key, outcome.result, None)
    elif row.kind == "segment":
        opening.segment_ended(db, row.key, None, grid_of)
    elif row.kind == "manifest":
        planning.over(db, row.job, outcome.result.get("problem"), now, outcome.result)
    elif row.kind == "plan":
        job = db.execute(reading.entire().where(jobs.c.id == row.job).with_for_update(of=jobs)).one_or_none()
        if job is not None and job.phase == "plan" and job.state != "cancelled":
            grid = request_of(record_of(job)).grid(outcome.result["targets"])
            planning.decided(db, job, outcome.result, grid, options, now)
    queue.close(db, row, outcome, now)


def _failed(
    db: Connection, row: AnyRow, failure: Failure, outcome: Outcome, grid_of: Callable[[str], Grid], now: float
) -> None:
    if row.kind in ("source", "speech"):
        planning.prepared(db, row.key, None, failure)
    elif row.kind == "segment":
        opening.segment_ended(db, row.key, failure, grid_of)
    elif row.kind == "manifest":
        planning.over(db, row.job, failure.public, now, {})
    elif row.kind == "plan":
        fail(db, row.job, failure.public, now)
    queue.close(db, row, outcome, now)


def _batch(db: Connection, row: AnyRow, outcome: Outcome, options: Options, now: float) -> None:
    """Record what came out; what can heal, and what was not come to, is put back as a batch of its own."""
    job = db.execute(_JOB, {"at": row.job}).one_or_none()
    if job is None:
        queue.close(db, row, outcome, now)
        return
    ended = [one for one in outcome.outputs if one.error is None or not one.error.retryable]
    seen = {one.index for one in ended}
    retries: dict[str, int] = {}
    left = [index for index in json.loads(row.payload)["indexes"] if index not in seen]
    if left:
        unhealed = {one.index: one.error for one in outcome.outputs if one.error}
        failure = outcome.failure or next((unhealed[index] for index in left if index in unhealed), None)
        if job.state == "cancelled":
            _put_back(db, row, left, row.tries, 0.0, options, now)
        elif failure and queue.may_try_again(row, failure):
            pause = queue.pause_before(row, failure)
            if failure.everyone:
                queue.pause_destination(db, row.job, now + pause)
            _put_back(db, row, left, row.tries + 1, pause, options, now)
            retries = {failure.code: 1}
            again = outcome.meters.get("retries", 0) + len(left)
            outcome = replace(outcome, meters={**outcome.meters, "retries": again})
        else:
            fallback = failure or queue.CRASHED
            ended += [Output(index, error=unhealed.get(index) or fallback) for index in left]
    outcomes.record(db, job.seq, ended)
    queue.close(db, row, outcome, now, retries=retries, **_counted(ended))


_JOB = select(jobs.c.seq, jobs.c.state).where(jobs.c.id == bindparam("at"))


def _put_back(
    db: Connection, row: AnyRow, left: Sequence[int], tries: int, pause: float, options: Options, now: float
) -> None:
    payload = {"indexes": list(left)}
    queue.put(
        db,
        [
            queue.unit_row(
                "batch",
                row.job,
                payload,
                now,
                size=len(left),
                allowed=options.allowed("batch", payload),
                not_before=now + pause if pause else 0.0,
                tries=tries,
                lane=row.lane,
            )
        ],
    )


def _counted(outputs: Sequence[Output]) -> dict[str, Any]:
    failures = Counter(one.error.public for one in outputs if one.error)
    return {
        "ok": len(outputs) - failures.total(),
        "kept": sum(one.kept for one in outputs),
        "failed": failures.total(),
        "errors": dict(failures.most_common(outcomes.REASONS_KEPT)),
    }
