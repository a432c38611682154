"""What came out: outputs as rows, and what finished units made and spent, added up by job and for the installation.

Functions over an open transaction. Workers write only their own unit's row; `fold` adds many up at once, so that no
row is fought over.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, delete, select, update

from crosscut.store.bulk import insert_or_add, insert_or_replace
from crosscut.store.schema import jobs, outputs, totals, work
from crosscut.units import Failure, Output

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

    from crosscut.store.schema import AnyRow

FOLDED_AT_ONCE = 500
REASONS_KEPT = 20

SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
"""Bounds of the histogram of what units take."""

LABEL_LENGTH = 40
"""Of the labels of `totals`."""


def record(db: Connection, job: int, made: Iterable[Output]) -> None:
    """Write outputs; a later one of the same variation counts."""
    rows = [
        {
            "job": job,
            "variation": one.index,
            "bytes": one.bytes,
            "sent": one.sent,
            "sha256": bytes.fromhex(one.sha256) if one.sha256 else None,
            "recipe": bytes.fromhex(one.recipe) if one.recipe else None,
            "loudness_before": one.loudness_before,
            "loudness": one.loudness,
            "true_peak": one.true_peak,
            "seconds": one.seconds,
            "kept": one.kept,
            "link": one.link,
            "error": json.dumps(failure_json(one.error)) if one.error else None,
        }
        for one in made
    ]
    insert_or_replace(db, outputs, rows, ["job", "variation"])


def output(row: AnyRow) -> Output:
    return Output(
        index=row.variation,
        bytes=row.bytes,
        sent=row.sent,
        sha256=bytes(row.sha256).hex() if row.sha256 else None,
        recipe=bytes(row.recipe).hex() if row.recipe else None,
        loudness_before=row.loudness_before,
        loudness=row.loudness,
        true_peak=row.true_peak,
        seconds=row.seconds,
        kept=bool(row.kept),
        link=row.link,
        error=Failure(**json.loads(row.error)) if row.error else None,
    )


def failure_json(failure: Failure) -> dict[str, Any]:
    return {
        "stage": failure.stage,
        "code": failure.code,
        "public": failure.public,
        "retryable": failure.retryable,
    }


def fold(db: Connection, now: float) -> bool:
    """Add what finished units made and spent to their jobs and to the totals; whether there was anything."""
    rows = list(db.execute(_ENDED))
    by_job: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_job.setdefault(row.job, []).append(json.loads(row.done))
    grown: defaultdict[tuple[str, str], float] = defaultdict(float)
    for job in sorted(by_job):
        _fold_job(db, job, by_job[job], grown, now)
    add(db, grown)
    if rows:
        db.execute(_FORGET, {"ids": [row.id for row in rows]})
    return bool(rows)


_ENDED = (
    select(work.c.id, work.c.job, work.c.done)
    .where(work.c.state == "done")
    .order_by(work.c.id)
    .limit(FOLDED_AT_ONCE)
    .with_for_update(skip_locked=True)
)
_FORGET = delete(work).where(work.c.id.in_(bindparam("ids", expanding=True)))


def _fold_job(
    db: Connection, job: str, done: list[dict[str, Any]], grown: defaultdict[tuple[str, str], float], now: float
) -> None:
    row = db.execute(_KEPT, {"at": job}).one_or_none()
    spent: dict[str, list[float]] = json.loads(row.spent) if row else {}
    meters: dict[str, float] = json.loads(row.meters) if row else {}
    errors: dict[str, dict[str, int]] = {"made": {}, "doomed": {}} | (json.loads(row.errors) if row else {})
    added = dict.fromkeys(("ok", "kept", "failed"), 0)
    for one in done:
        _meter(one, grown)
        for stage, (count, seconds) in one["spent"].items():
            total = spent.setdefault(stage, [0, 0.0])
            total[0] += count
            total[1] += seconds
            for name, value in (("stage_count", count), ("stage_seconds", seconds)):
                grown[name, stage] += value
        for name, value in one["meters"].items():
            meters[name] = meters.get(name, 0.0) + value
            grown["meter", name] += value
        for name in added:
            added[name] += one.get(name, 0)
        for reason, count in one.get("errors", {}).items():
            if reason in errors["made"] or len(errors["made"]) < REASONS_KEPT:
                errors["made"][reason] = errors["made"].get(reason, 0) + count
    for name in ("ok", "kept", "failed"):
        grown["variations", name] += added[name]
    if row is not None:
        told = {"new_spent": json.dumps(spent), "new_meters": json.dumps(meters), "new_errors": json.dumps(errors)}
        making = row.making or (now if added["ok"] else None)
        more = {f"more_{name}": value for name, value in added.items()}
        db.execute(_ADD, {"at": job, "since": making, **told, **more})


def _meter(one: Mapping[str, Any], grown: defaultdict[tuple[str, str], float]) -> None:
    """How long an attempt took, and why there will be another; older code tells neither."""
    if "seconds" in one:
        bound = next((bound for bound in SECONDS if one["seconds"] <= bound), math.inf)
        grown["unit_count", f"{one['kind']} {bound}"] += 1
        grown["unit_seconds", one["kind"]] += one["seconds"]
    for code, count in one.get("retries", {}).items():
        grown["retries", code[:LABEL_LENGTH]] += count


_KEPT = (
    select(jobs.c.spent, jobs.c.meters, jobs.c.errors, jobs.c.making)
    .where(jobs.c.id == bindparam("at"))
    .with_for_update()
)
_ADD = (
    update(jobs)
    .where(jobs.c.id == bindparam("at"))
    .values(
        **{name: bindparam(f"new_{name}") for name in ("spent", "meters", "errors")},
        **{name: jobs.c[name] + bindparam(f"more_{name}") for name in ("ok", "kept", "failed")},
        making=bindparam("since"),
        version=jobs.c.version + 1,
    )
)


def add(db: Connection, grown: Mapping[tuple[str, str], float]) -> None:
    """Add to the totals of the whole installation, by name and label."""
    rows = [{"name": name, "label": label, "value": value} for (name, label), value in sorted(grown.items()) if value]
    insert_or_add(db, totals, rows, ["name", "label"], "value")
