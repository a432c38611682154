"""How an engine and its machine are: figures of what was done and what waits, and disks without room."""

from __future__ import annotations

import math
import shutil
from itertools import accumulate
from typing import TYPE_CHECKING, Any, get_args

from crosscut.ports import Histogram, Metrics
from crosscut.store import outcomes, reading
from crosscut.units import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from crosscut.store import Store

LEAST_FREE_BYTES = 200_000_000
"""On a disk with less no new work should be begun."""


def measured(store: Store, workers: Sequence[Any], *, ready: bool) -> Metrics:
    """What the state tells of all that was done and waits; `workers` are the processes as they are now."""
    found = store.read(lambda db: reading.metrics(db, store.clock()))
    known: dict[str, dict[str, float]] = found["totals"]
    meters = known.get("meter", {})
    states = {(lane, state): 0 for lane in get_args(Lane) for state in ("busy", "idle")}
    for worker in workers:
        place = (worker.lane, "busy" if worker.busy else "idle")
        states[place] += 1
    made = known.get("variations", {})
    busy = sum(bool(worker.busy) for worker in workers)
    return Metrics(
        queue_depth=found["units"],
        queue_oldest_seconds={lane: found["oldest_seconds"].get(lane, 0.0) for lane in get_args(Lane)},
        backlog=found["backlog"],
        unit_seconds=_histograms(known.get("unit_count", {}), known.get("unit_seconds", {})),
        retries=known.get("retries", {}),
        lost={how: known.get("units", {}).get(how, 0.0) for how in ("expired", "crashed", "late")},
        ready=ready,
        stage_seconds=known.get("stage_seconds", {}),
        stage_count={stage: int(count) for stage, count in known.get("stage_count", {}).items()},
        variations={
            "made": int(made.get("ok", 0) - made.get("kept", 0)),
            "kept": int(made.get("kept", 0)),
            "failed": int(made.get("failed", 0)),
        },
        bytes={"in": meters.get("bytes_in", 0.0), "out": meters.get("bytes_out", 0.0)},
        cache={"hit": meters.get("cache_hits", 0.0), "miss": meters.get("cache_misses", 0.0)},
        voice_characters=meters.get("characters", 0.0),
        resent=int(known.get("units", {}).get("resent", 0)),
        voice_dollars=meters.get("cost", 0.0),
        jobs=found["jobs"],
        workers=states,
        worker_busy_ratio=busy / len(workers) if workers else 0.0,
    )


def _histograms(counts: Mapping[str, float], sums: Mapping[str, float]) -> dict[str, Histogram]:
    """Of totals by “kind bound”, and by kind."""
    bounds = (*outcomes.SECONDS, math.inf)
    found = {}
    for kind, total in sums.items():
        each = [counts.get(f"{kind} {bound}", 0.0) for bound in bounds]
        found[kind] = Histogram(list(zip(bounds, accumulate(each), strict=True)), total)
    return found


def full_disks(disks: Mapping[str, Path], usage: Callable[[Path], Any] = shutil.disk_usage) -> Iterator[str]:
    """A sentence for each folder that has no room, or cannot be reached; those to be made are looked for above."""
    for name, folder in disks.items():
        there = next((each for each in (folder, *folder.parents) if each.exists()), folder)
        try:
            free = usage(there).free
        except OSError:
            yield f"the disk of {name} cannot be reached"
        else:
            if free < LEAST_FREE_BYTES:
                yield f"the disk of {name} is full: less than {LEAST_FREE_BYTES // 1_000_000} MB are left"
