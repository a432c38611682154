"""A clip as a request names it: a source, perhaps only a part of it, how loud, and what it is called. Pure.

All of it is one text, the clip's key wherever things are kept by clip: the link alone where nothing else is wished.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import log10

from crosscut.media import NO_TIME, ClipFacts, Seconds

MARK = "\x1f"
"""Between the source and the rest: a control character, which no source may hold."""

PART = "only a part of it is wanted"
"""Why a clip that is cut cannot be copied."""


@dataclass(frozen=True)
class Cut:
    """What is shown of a source: from `start` until `end` (None: its own); `volume` 1 is its usual level, 0 silence."""

    source: str
    start: Seconds = NO_TIME
    end: Seconds | None = None
    volume: float = 1.0
    label: str | None = None

    @property
    def gain(self) -> float | None:
        """The volume in dB; None is silence."""
        return 20 * log10(self.volume) if self.volume > 0 else None


def clip_key(cut: Cut) -> str:
    wishes = {
        "start": str(cut.start) if cut.start else None,
        "end": None if cut.end is None else str(cut.end),
        "volume": None if cut.volume == 1 else cut.volume,
        "label": cut.label,
    }
    given = {name: value for name, value in wishes.items() if value is not None}
    if not given:
        return cut.source
    return f"{cut.source}{MARK}{json.dumps(given, ensure_ascii=False, sort_keys=True)}"


@lru_cache(maxsize=1 << 14)
def cut_of(clip: str) -> Cut:
    source, _, rest = clip.partition(MARK)
    given = json.loads(rest) if rest else {}
    end = given.get("end")
    return Cut(
        source,
        Seconds(Fraction(given.get("start", 0))),
        None if end is None else Seconds(Fraction(end)),
        given.get("volume", 1.0),
        given.get("label"),
    )


def part_of(facts: ClipFacts, cut: Cut) -> ClipFacts:
    """The facts of what is shown; with a duration of 0 where the source ends before."""
    video = facts.video
    if video is None or not (cut.start or cut.end is not None):
        return facts
    end = video.duration if cut.end is None else min(cut.end, video.duration)
    if cut.start == 0 and end == video.duration:
        return facts
    length = Seconds(max(end - cut.start, Fraction(0)))
    shown = replace(video, duration=length, frames=round(length * video.frame_rate))
    copy = facts.copy and replace(facts.copy, obstacles=(*facts.copy.obstacles, PART))
    return replace(facts, video=shown, copy=copy)


def too_short(facts: ClipFacts, cut: Cut) -> str | None:
    """What is wrong with a cut of a source with these `facts`: a sentence about “it”, or None."""
    if facts.video is None or cut.start < facts.video.duration:
        return None
    length = float(facts.video.duration)
    return f"it is {length:.1f} s long and its start is at {float(cut.start):.1f} s: send a smaller start"
