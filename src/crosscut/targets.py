"""What the segments of a job must be: output formats, derived from the clips where the request names none. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from crosscut.media import ClipFacts, Fit, Format, Join, Target, VideoFacts, differences, rate_text, usual_colour

if TYPE_CHECKING:
    from collections.abc import Sequence

LONG_SIDE, SHORT_SIDE = 1920, 1080
"""Largest derived frame: what the vertical and horizontal placements of the ad platforms ask for."""

SLOWEST, FASTEST = Fraction(23), Fraction(60)
"""Frame rates worth deriving; screen recordings and slow motion fall outside."""


@dataclass(frozen=True)
class Choice:
    """The formats of a job and, for the plan, why they were chosen."""

    formats: tuple[Format, ...]
    reason: str


def choose_formats(
    videos: Sequence[VideoFacts], sizes: Sequence[tuple[int, int]], fps: Fraction | None, uniform: Target | None
) -> Choice:
    """The asked `sizes` and `fps`; what is not asked follows the clips.

    `uniform` is the target all clips fit as they came, if there is one: then nothing is made smaller, and a rate
    that was not asked for stays theirs.
    """
    rate, rate_reason = (fps, "as asked") if fps else _common_rate(videos)
    if uniform and fps is None and (uniform.format.width, uniform.format.height) in sizes:
        rate, rate_reason = uniform.format.fps, f"all clips have {rate_text(uniform.format.fps)} fps"
    if sizes:
        return Choice(tuple(Format(width, height, rate) for width, height in sizes), f"sizes as asked, {rate_reason}")
    if uniform and (fps is None or fps == uniform.format.fps):
        return Choice((uniform.format,), "all clips have it and can be joined as they came")
    if not videos:
        return Choice((Format(1080, 1920, rate),), "no clip could be read")
    counts = Counter(video.shown_size for video in videos)
    # Among equally common sizes the largest keeps the most detail.
    (width, height), count = max(counts.items(), key=lambda item: (item[1], item[0][0] * item[0][1], item[0]))
    size = _bounded(width, height)
    shrunk = "" if size == (width, height) else f", made {size[0]}×{size[1]}"
    reason = f"{count} of {len(videos)} clips are {width}×{height}{shrunk}; {rate_reason}"
    return Choice((Format(*size, rate),), reason)


def _common_rate(videos: Sequence[VideoFacts]) -> tuple[Fraction, str]:
    rates = Counter(video.frame_rate for video in videos if SLOWEST <= video.frame_rate <= FASTEST)
    if not rates:
        return Fraction(30), "30 fps because no clip has a usual rate"
    rate, count = max(rates.items(), key=lambda item: (item[1], item[0]))
    return rate, f"{count} of {len(videos)} clips have {rate_text(rate)} fps"


def _bounded(width: int, height: int) -> tuple[int, int]:
    scale = min(Fraction(LONG_SIDE, max(width, height)), Fraction(SHORT_SIDE, min(width, height)), Fraction(1))
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))


def uniform_target(clips: Sequence[ClipFacts], join: Join, fit: Fit) -> Target | None:
    """The target that *every* clip fits without encoding, if there is one: that of the first clip."""
    if not clips or (first := clips[0]).video is None or first.copy is None:
        return None
    shape = Format(first.video.width, first.video.height, first.copy.frame_rate)
    colour = usual_colour(first.video.colour, first.video.height)
    target = Target(shape, first.copy.parameter_sets, fit, colour)
    return target if all(not differences(clip, target, join) for clip in clips) else None
