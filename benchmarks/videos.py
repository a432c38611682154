"""All combinations of three blocks of three clips: the whole command against one render for each combination."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING

from benchmarks import crosscut_way, ffmpeg_way, moviepy_way
from benchmarks.measure import Cost, fresh, settle, typical
from crosscut.media import Format

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.clips import Blocks, Inputs
    from benchmarks.scale import Scale


@dataclass(frozen=True)
class Case:
    """Seconds on the clock for all `variations`; those of ffmpeg and MoviePy are extrapolated from `timed` of them."""

    name: str
    variations: int
    timed: int
    crosscut: float
    ffmpeg: float
    moviepy: float


@dataclass(frozen=True)
class Quality:
    """One video, all clips of which were encoded: bytes with its sound, and structural similarity to the clips."""

    way: str
    bytes: int
    ssim: float


def cases(inputs: Inputs, scale: Scale, folder: Path) -> list[Case]:
    return [
        _case("mixed sizes and rates, all encoded", inputs.mixed, inputs, scale, folder / "mixed", encoded=9),
        _case("one encoder, joined as they came", inputs.alike, inputs, scale, folder / "alike"),
        _case(
            "three encoders, joined as they came (`join: wide`)",
            inputs.different,
            inputs,
            scale,
            folder / "different",
            join="wide",
        ),
        _case(
            "their own sound kept (`clip_sound: keep`) under music and voice-over",
            inputs.sounding,
            inputs,
            scale,
            folder / "kept",
            clip_sound="keep",
        ),
        _case(
            "their own sound kept alone",
            inputs.sounding,
            inputs,
            scale,
            folder / "alone",
            alone=True,
            clip_sound="keep",
        ),
    ]


def _case(
    name: str,
    blocks: Blocks,
    inputs: Inputs,
    scale: Scale,
    folder: Path,
    *,
    encoded: int = 0,
    alone: bool = False,
    **options: str,
) -> Case:
    """`alone`: without music and voice-over."""
    music, text = (None, None) if alone else (inputs.music, scale.text)
    body = crosscut_way.request("all", blocks, music, text, **options)
    folder.mkdir(parents=True)
    settle()
    ours, report = crosscut_way.render(body, folder / "data", folder / "ours")
    assert (report["failed"], report["clips_encoded"]) == (0, encoded), report
    # No clip is in two of these, so that clips of every shape are among them.
    combinations = list(zip(*blocks, strict=True))[: scale.timed]
    ffmpeg, moviepy = _others(combinations, inputs, scale, folder, keep="clip_sound" in options, alone=alone)
    total = prod(map(len, blocks))
    return Case(name, total, len(combinations), ours.wall, total * typical(ffmpeg).wall, total * typical(moviepy).wall)


def quality(inputs: Inputs, scale: Scale, folder: Path) -> list[Quality]:
    """Clips of one size and rate from three encoders, which have to be encoded unless asked otherwise."""
    clips = next(zip(*inputs.different, strict=True))
    folder.mkdir(parents=True)
    body = crosscut_way.request("one", [[clip] for clip in clips], inputs.music, scale.text)
    _, report = crosscut_way.render(body, folder / "data", folder / "ours")
    assert (report["made"], report["clips_encoded"]) == (1, len(clips)), report
    _others([clips], inputs, scale, folder)
    (ours,) = (folder / "ours").rglob("*.mp4")
    made = {"crosscut": ours, "ffmpeg": folder / "ffmpeg 0.mp4", "MoviePy": folder / "moviepy 0.mp4"}
    return [Quality(way, path.stat().st_size, ffmpeg_way.ssim(path, clips)) for way, path in made.items()]


def _others(
    combinations: Sequence[Sequence[Path]],
    inputs: Inputs,
    scale: Scale,
    folder: Path,
    *,
    keep: bool = False,
    alone: bool = False,
) -> tuple[list[Cost], list[Cost]]:
    """The same combinations with ffmpeg and with MoviePy."""
    frame, length = Format(*scale.frame, Fraction(30)), Fraction(3 * scale.seconds)
    music, voice = (None, None) if alone else (inputs.music, inputs.voice)
    outputs = [[folder / f"{way} {number}.mp4" for number in range(len(combinations))] for way in ("ffmpeg", "moviepy")]
    ffmpeg = [
        ffmpeg_way.render(clips, music, voice, frame, length, output, keep=keep)
        for clips, output in zip(combinations, outputs[0], strict=True)
    ]
    return ffmpeg, fresh(moviepy_way.render_all, combinations, music, voice, scale.frame, outputs[1])
