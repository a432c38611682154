"""All combinations of three blocks of three clips: the whole command against one render for each combination."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING

from benchmarks import crosscut_way, ffmpeg_way, moviepy_way
from benchmarks.measure import fresh, settle, typical
from crosscut.media import Format

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.clips import Blocks, Inputs
    from benchmarks.scale import Scale

ENCODED = 9
"""Clips in a case where all have to be encoded."""


@dataclass(frozen=True)
class Case:
    """Seconds on the clock for all `variations`; those of ffmpeg and MoviePy are extrapolated from `timed`."""

    name: str
    variations: int
    timed: int
    crosscut: float
    ffmpeg: float
    moviepy: float


@dataclass(frozen=True)
class Quality:
    """One video, all its clips encoded: bytes with sound, and structural similarity to the clips."""

    way: str
    bytes: int
    ssim: float


@dataclass(frozen=True)
class Bench:
    inputs: Inputs
    scale: Scale
    folder: Path

    @property
    def frame(self) -> Format:
        return Format(*self.scale.frame, Fraction(30))

    def cases(self) -> list[Case]:
        inputs = self.inputs
        return [
            self._case("mixed sizes and rates: all clips are encoded", inputs.mixed, encoded=ENCODED),
            self._case("one encoder: clips are joined as they came", inputs.alike),
            self._case('three encoders, `"join": "wide"`: likewise', inputs.different, join="wide"),
        ]

    def _case(self, name: str, blocks: Blocks, *, encoded: int = 0, **options: str) -> Case:
        folder = self.folder / f"case {len(list(self.folder.iterdir()))}"
        body = crosscut_way.request("all", blocks, self.inputs.music, self.scale.text, **options)
        settle()
        ours, report = crosscut_way.render(body, folder / "data", folder / "ours")
        assert (report["failed"], report["clips_encoded"]) == (0, encoded), report
        # No clip is in two of them: every shape and encoder has its share.
        combinations = list(zip(*blocks, strict=True))[: self.scale.timed]
        for way in ("ffmpeg", "moviepy"):
            (folder / way).mkdir()
        ffmpeg = [self._ffmpeg(clips, folder / "ffmpeg" / f"{number}.mp4") for number, clips in enumerate(combinations)]
        moviepy = fresh(
            moviepy_way.render_all,
            combinations,
            self.inputs.music,
            self.inputs.voice,
            self.scale.frame,
            [folder / "moviepy" / f"{number}.mp4" for number in range(len(combinations))],
        )
        total = len(list(product(*blocks)))
        return Case(
            name, total, len(combinations), ours.wall, total * typical(ffmpeg).wall, total * typical(moviepy).wall
        )
