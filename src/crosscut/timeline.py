"""What stands where in a variation: clips one after another, lines spoken where they belong, pictures held for them.

Pure. No line is ever cut, and no two are spoken at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Literal

from crosscut.media import NO_TIME, Seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

Handling = Literal["hold", "speed"]
"""What is done where a voice-over is longer than its picture; one that is sped up may need a hold as well."""

SPEED_LIMIT = Fraction(5, 4)
SPEED_STEP = Fraction(1, 20)
"""Voices are sped up in steps, so that few versions serve many lengths."""

BREATH = Seconds(Fraction(1, 4))
"""Between two lines."""


EDGE = Seconds(Fraction(1, 40))
"""Between a line and the clip that follows: the sound of a clip is placed by whole frames of AAC, which are 21 ms."""


@dataclass(frozen=True)
class Utterance:
    """A line by its number in the request, how much faster it is spoken, and when."""

    line: int
    speed: Fraction
    start: Seconds
    end: Seconds

    def later(self, by: Seconds) -> Utterance:
        return replace(self, start=Seconds(self.start + by), end=Seconds(self.end + by))


@dataclass(frozen=True)
class Slot:
    """A clip's place in variations: `frames` of its picture, the last one `hold` frames longer.

    `said` counts from the beginning of the slot.
    """

    clip: str
    frames: int
    hold: int = 0
    said: tuple[Utterance, ...] = ()
    overflow: Handling | None = None
    problem: str | None = None
    """Why it cannot be made, as far as its lines are to blame."""

    @property
    def length(self) -> int:
        """Frames until the next slot."""
        return self.frames + self.hold


def fitted(spoken: Seconds, room: Fraction, fps: Fraction, *, faster: bool) -> tuple[int, Fraction, Handling | None]:
    """Frames of hold, speed and handling of what is `spoken` in so many seconds of `room`; `faster` allows speed."""
    if spoken <= room:
        return 0, Fraction(1), None
    speed = Fraction(1)
    if faster:
        wanted = spoken / room if room > 0 else SPEED_LIMIT
        speed = min(SPEED_LIMIT, 1 + ceil((wanted - 1) / SPEED_STEP) * SPEED_STEP)
    hold = max(0, ceil((spoken / speed - room) * fps))
    return hold, speed, "hold" if hold else "speed"


def slot_of(
    clip: str, frames: int, fps: Fraction, lines: Sequence[tuple[int, Seconds]], rest: Seconds, *, faster: bool
) -> Slot:
    """The clip with these lines (number, seconds) spoken in it one after another, and `rest` seconds without any."""
    if not lines:
        return Slot(clip, frames)
    breaths = BREATH * (len(lines) - 1)
    spoken = Seconds(sum((seconds for _, seconds in lines), Fraction(0)))
    hold, speed, overflow = fitted(spoken, frames / fps - rest - breaths, fps, faster=faster)
    said, at = [], NO_TIME
    for number, seconds in lines:
        said.append(Utterance(number, speed, at, Seconds(at + seconds / speed)))
        at = Seconds(said[-1].end + BREATH)
    return Slot(clip, frames, hold, tuple(said), overflow)


def spoken_in(slots: Sequence[Slot], fps: Fraction) -> tuple[Utterance, ...]:
    """What is spoken in slots that follow each other, from the beginning of the first."""
    said: list[Utterance] = []
    begin = 0
    for slot in slots:
        said += [each.later(Seconds(begin / fps)) for each in slot.said]
        begin += slot.length
    return tuple(said)


def gaps(said: Sequence[Utterance], begin: Seconds, end: Seconds) -> list[tuple[Seconds, Seconds]]:
    """The stretches of time from `begin` to `end` in which nobody speaks, a breath away from who does.

    `said` is in order. The last stretch is always there, even if nothing is left of it.
    """
    free = []
    for each in said:
        if each.start - BREATH > begin:
            free.append((begin, Seconds(each.start - BREATH)))
        begin = max(begin, Seconds(each.end + BREATH))
    return [*free, (begin, end)]


def placed(
    line: int, seconds: Seconds, free: Sequence[tuple[Seconds, Seconds]], fps: Fraction, *, faster: bool
) -> tuple[Utterance, Handling | None]:
    """A line in the first of the stretches that is long enough, else in the last one, whatever that takes."""
    start, end = next((gap for gap in free if gap[1] - gap[0] >= seconds), free[-1])
    _, speed, handling = fitted(seconds, end - start, fps, faster=faster)
    return Utterance(line, speed, start, Seconds(start + seconds / speed)), handling


def quiet(blocks: Sequence[Sequence[Slot]]) -> int:
    """Frames of the longest stretch of pictures in which nobody speaks, whichever slot of each block is shown."""
    longest = run = 0
    for slots in blocks:
        run = 0 if any(slot.said for slot in slots) else run + min(slot.length for slot in slots)
        longest = max(longest, run)
    return longest
