"""What a variation costs once its pieces exist: processor time, writing against `cp` of the same bytes, memory."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks import crosscut_way
from benchmarks.measure import command, fresh, settle

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.clips import Inputs
    from benchmarks.scale import Scale


@dataclass(frozen=True)
class Writing:
    """Seconds on the clock to write all variations, in four ways."""

    unsynced: float
    cp: float
    delivered: float
    cp_synced: float

    @property
    def against_cp(self) -> float:
        return self.unsynced / self.cp

    @property
    def against_sync(self) -> float:
        return self.delivered / self.cp_synced


@dataclass(frozen=True)
class Pieces:
    """`cpu` is the seconds that one more variation takes, `spliced` those on the clock for all: nothing is written yet.

    `memory` is the peak while delivering, in bytes.
    """

    name: str
    variations: int
    bytes: int
    cpu: float
    spliced: float
    memory: int
    writing: Writing


def pieces(inputs: Inputs, scale: Scale, folder: Path) -> list[Pieces]:
    folder.mkdir()
    large = crosscut_way.request("all", inputs.alike, inputs.music, scale.text)
    results = [_measure("large", large, 27, folder, scale.rounds)]
    for count in (27, scale.many**3 // 4, scale.many**3):
        small = crosscut_way.request("all", inputs.small, inputs.music, scale.text, select={"count": count})
        rounds = scale.rounds if count == 27 else 1
        results.append(_measure("small", small, count, folder, rounds))
    return results


def _measure(name: str, body: dict[str, Any], variations: int, folder: Path, rounds: int) -> Pieces:
    data = folder / "data"
    fresh(crosscut_way.produce_nowhere, body, data)  # makes the pieces
    one = [fresh(crosscut_way.produce_nowhere, body | {"select": {"count": 1}}, data) for _ in range(rounds)]
    spliced = [fresh(crosscut_way.produce_nowhere, body, data) for _ in range(rounds)]
    cpu = median(each.cpu for each in spliced) - median(each.cpu for each in one)
    written = [_write(body, data, folder / "written") for _ in range(rounds)]
    writing = Writing(*(median(times) for times in zip(*(times for times, _, _ in written), strict=True)))
    _, size, _ = written[0]
    memory = max(memory for _, _, memory in written)
    return Pieces(
        name,
        variations,
        size,
        cpu / (variations - 1),
        median(each.wall for each in spliced),
        memory,
        writing,
    )


def _write(body: dict[str, Any], data: Path, folder: Path) -> tuple[tuple[float, float, float, float], int, int]:
    """The four times in the order of `Writing`, the bytes written each time, and the peak memory.

    At most twice the bytes are on the disk at a time.
    """
    ours, copy = folder / "ours", folder / "copy"
    folder.mkdir()
    settle()
    unsynced = fresh(crosscut_way.produce_unsynced, body, data, ours)
    size = sum(path.stat().st_size for path in ours.rglob("*.mp4"))
    settle()
    cp = command("cp", "-r", ours, copy)
    shutil.rmtree(ours)
    settle()
    delivered = fresh(crosscut_way.produce_folder, body, data, ours)
    shutil.rmtree(copy)
    settle()
    cp_synced = command("sh", "-c", 'cp -r "$0" "$1" && sync -f "$1"', ours, copy)
    shutil.rmtree(folder)
    return (unsynced.wall, cp.wall, delivered.wall, cp_synced.wall), size, delivered.memory
