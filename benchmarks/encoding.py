"""One clip conformed in the sandbox, against the ffmpeg command line with the same filters and encoder settings."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import crosscut_way, ffmpeg_way
from benchmarks.measure import Cost, fresh, typical
from crosscut.media import Format

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.clips import Inputs
    from benchmarks.scale import Scale


@dataclass(frozen=True)
class Encoding:
    name: str
    threads: int
    crosscut: Cost
    ffmpeg: Cost

    @property
    def wall(self) -> float:
        """How many times as long as ffmpeg."""
        return self.crosscut.wall / self.ffmpeg.wall

    @property
    def cpu(self) -> float:
        return self.crosscut.cpu / self.ffmpeg.cpu


def encodings(inputs: Inputs, scale: Scale, folder: Path, threads: Sequence[int]) -> list[Encoding]:
    folder.mkdir()
    frame = Format(*scale.frame, Fraction(30))
    upright, lying = inputs.alike[0][0], inputs.mixed[0][1]
    sizes = ["×".join(map(str, size)) for size in (scale.frame, scale.landscape)]
    results: list[Encoding] = []
    for count in threads:
        for name, clip, shown in (
            (f"{sizes[0]}, the same size", upright, scale.frame),
            (f"{sizes[1]} to {sizes[0]} on a blurred backdrop", lying, scale.landscape),
        ):
            place = folder / str(len(results))
            ours = _crosscut(clip, frame, scale, count, place)
            ffmpeg = [
                ffmpeg_way.conform_clip(clip, frame, shown, count, place / f"ffmpeg {number}.mp4")
                for number in range(scale.rounds)
            ]
            results.append(Encoding(name, count, ours, typical(ffmpeg)))
    return results


def _crosscut(clip: Path, frame: Format, scale: Scale, threads: int, folder: Path) -> Cost:
    """Of one clip in a sandbox that has been started before."""
    duration = str(scale.seconds)
    blank = folder.with_name(f"{folder.name} blank")
    _, start = fresh(crosscut_way.conform_clip, clip, frame, duration, threads, blank, 0)
    walls, cpu = fresh(crosscut_way.conform_clip, clip, frame, duration, threads, folder, scale.rounds)
    return Cost(median(walls), (cpu - start) / scale.rounds)
