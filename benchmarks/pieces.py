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

    @property
    def against_cp(self) -> float:
        """Writing alone, beyond the splicing, as a multiple of `cp`."""
        return (self.writing.unsynced - self.spliced) / self.writing.cp

    @property
    def against_sync(self) -> float:
        return (self.writing.delivered - self.spliced) / self.writing.cp_synced


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
    size = _size(body, data, folder / "sized")
    written = [_write(body, data, folder / "written", size) for _ in range(rounds)]
    return Pieces(
        name,
        variations,
        size,
        cpu / (variations - 1),
        median(each.wall for each in spliced),
        max(memory for _, memory in written),
        Writing(*(median(times) for times in zip(*(times for times, _ in written), strict=True))),
    )


def _size(body: dict[str, Any], data: Path, folder: Path) -> int:
    fresh(crosscut_way.produce_unsynced, body, data, folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    shutil.rmtree(folder)
    return size


def _write(body: dict[str, Any], data: Path, folder: Path, size: int) -> tuple[tuple[float, float, float, float], int]:
    """The four times in the order of `Writing`, and the peak memory of delivering.

    At most twice the bytes are on the disk at a time.
    """
    ours, copy = folder / "ours", folder / "copy"
    folder.mkdir()
    settle(folder, size)
    unsynced = fresh(crosscut_way.produce_unsynced, body, data, ours)
    settle(folder, size)
    cp = command("cp", "-r", ours, copy)
    shutil.rmtree(folder)
    folder.mkdir()
    settle(folder, size)
    delivered = fresh(crosscut_way.produce_folder, body, data, ours)
    settle(folder, size)
    cp_synced = command("sh", "-c", 'cp -r "$0" "$1" && sync -f "$1"', ours, copy)
    shutil.rmtree(folder)
    return (unsynced.wall, cp.wall, delivered.wall, cp_synced.wall), delivered.memory
