"""Captions that become part of the picture: how much is shown at once, when each word is spoken, and where. Pure.

Times of cues are whole milliseconds, as in `captions`; slots are the frames of a segment, counted from 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import floor
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from crosscut.captions import CLOCK, FLICKER, passages
from crosscut.media import NO_TIME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from crosscut.media import Seconds
    from crosscut.voices import Word

VERSION = 1
"""Raised when the same words look otherwise, so that segments of before are not taken for the same."""

Style: TypeAlias = Literal["plain", "box", "pop"]
STYLES: tuple[Style, ...] = get_args(Style)

LETTER = {"plain": Fraction(17, 250), "box": Fraction(3, 50), "pop": Fraction(1, 10)}
"""How high a letter's em is, as a share of the picture's shorter side."""

MOST_COLUMNS = {"plain": 30, "box": 36, "pop": 16}
"""Of a line: beyond it the eye has to wander, and a cue has more than can be read in one glance."""

LONGEST = 32
"""Columns of a word that is not cut: it is drawn smaller instead."""

_COLUMN = Fraction(14, 25)
"""How wide a letter is on average, in ems."""

BROADCAST = Fraction(1, 20)
"""Graphics safe area: what is kept clear at each edge (EBU R 95)."""

UPRIGHT = Fraction(2, 3)
"""Width by height below which phones show a picture on the whole screen, with their buttons and texts over it."""

PHONE_SIDE, PHONE_TOP, PHONE_BOTTOM = Fraction(12, 100), Fraction(14, 100), Fraction(35, 100)
"""What is kept clear there. Top and bottom: Meta's guide to Reels and Stories (14 % and 35 %), the strictest of all.

Sides: Meta asks for 6 %, the buttons of TikTok, Reels and Shorts take 120 to 150 of 1080 pixels on the right (11 to
14 %); as much on the left keeps text in the middle of the picture.
"""


@dataclass(frozen=True)
class BurnWord:
    """Spoken from `start` until `end` (milliseconds); `spaced` where a space goes before it within a line."""

    text: str
    spaced: bool
    start: int
    end: int


@dataclass(frozen=True)
class BurnCue:
    """Lines of words, shown from `start` until `end` (milliseconds)."""

    start: int
    end: int
    lines: tuple[tuple[BurnWord, ...], ...]

    @property
    def words(self) -> tuple[BurnWord, ...]:
        return tuple(word for line in self.lines for word in line)


@dataclass(frozen=True)
class Look:
    """What the slots from `first` until `stop` show: a cue, and the number of the word in it that is being spoken."""

    first: int
    stop: int
    cue: BurnCue
    word: int | None


@dataclass(frozen=True)
class Area:
    """Pixels from `left` until `right` and from `top` until `bottom`; all even, as 4:2:0 needs."""

    left: int
    top: int
    right: int
    bottom: int


def safe_area(width: int, height: int) -> Area:
    """Where nothing covers or cuts off what is drawn."""
    if Fraction(width, height) < UPRIGHT:
        side, top, bottom = width * PHONE_SIDE, height * PHONE_TOP, height * PHONE_BOTTOM
    else:
        side, top, bottom = width * BROADCAST, height * BROADCAST, height * BROADCAST
    return Area(_inward(side), _inward(top), width - _inward(side), height - _inward(bottom))


def _inward(margin: Fraction) -> int:
    return 2 * -floor(-margin / 2)


def letter_size(style: Style, width: int, height: int) -> float:
    """Pixels of an em, before anything is made smaller to fit."""
    return float(LETTER[style] * min(width, height))


def burnt_columns(style: Style, width: int, height: int) -> int:
    """Columns of a line of that style in a picture of that size."""
    area = safe_area(width, height)
    return min(MOST_COLUMNS[style], floor((area.right - area.left) / (LETTER[style] * min(width, height) * _COLUMN)))


def burnt_cues(
    words: Iterable[Word], columns: int, *, speed: Fraction = Fraction(1), begin: Seconds = NO_TIME
) -> tuple[BurnCue, ...]:
    """The words as cues in order, none over another, each word with the time it is spoken.

    They are divided as `captions.cues_of` does, but for words too long for a line: they get one to themselves.
    """
    cues = []
    for passage in passages(words, columns, max(columns, LONGEST), speed, begin):
        atoms = [atom for line in passage.lines for atom in line]
        starts = [round(atom.start * CLOCK) for atom in atoms]
        ends = [round(atom.end * CLOCK) for atom in atoms]
        for at, (end, following) in enumerate(zip(ends, [*starts[1:], passage.end], strict=True)):
            # Between two words of one breath the light goes over without a blink.
            ends[at] = following if following - end < FLICKER else end
        spoken = iter(zip(starts, ends, strict=True))
        lines = tuple(tuple(BurnWord(atom.text, atom.spaced, *next(spoken)) for atom in line) for line in passage.lines)
        cues.append(BurnCue(passage.start, passage.end, lines))
    return tuple(cues)


def seen(cues: Iterable[BurnCue], start: int, end: int) -> tuple[BurnCue, ...]:
    """What of them is seen from `start` until `end` (milliseconds), in time from `start` on.

    Cues are cut at the borders; their words keep their times, which may lie outside.
    """
    return tuple(
        BurnCue(
            max(cue.start, start) - start,
            min(cue.end, end) - start,
            tuple(
                tuple(replace(word, start=word.start - start, end=word.end - start) for word in line)
                for line in cue.lines
            ),
        )
        for cue in cues
        if max(cue.start, start) < min(cue.end, end)
    )


def to_json(cues: Iterable[BurnCue]) -> list[list[object]]:
    """Exact and short: `[start, end, [[[text, spaced, start, end], ...], ...]]` for each, `spaced` as 0 or 1."""
    return [
        [
            cue.start,
            cue.end,
            [[[word.text, int(word.spaced), word.start, word.end] for word in line] for line in cue.lines],
        ]
        for cue in cues
    ]


def from_json(cues: Sequence[Sequence[Any]]) -> tuple[BurnCue, ...]:
    """The cues that `to_json` told."""
    return tuple(
        BurnCue(
            start,
            end,
            tuple(
                tuple(BurnWord(text, bool(spaced), since, until) for text, spaced, since, until in line)
                for line in lines
            ),
        )
        for start, end, lines in cues
    )


def looks(cues: Iterable[BurnCue], fps: Fraction, slots: int) -> tuple[Look, ...]:
    """What is shown when in a segment of so many slots, in order; every moment belongs to the slot nearest to it."""
    return tuple(look for cue in cues for look in _looks(cue, fps, slots))


def _looks(cue: BurnCue, fps: Fraction, slots: int) -> Iterator[Look]:
    first, stop = (min(max(0, _slot(moment, fps)), slots) for moment in (cue.start, cue.end))
    spans = [(_slot(word.start, fps), _slot(word.end, fps)) for word in cue.words]
    inside = {edge for span in spans for edge in span if first < edge < stop}
    for since, until in pairwise(sorted({first, stop} | inside)):
        # Where words overlap in time it is the later one.
        speaking = [number for number, (start, end) in enumerate(spans) if start <= since < end]
        yield Look(since, until, cue, speaking[-1] if speaking else None)


def _slot(moment: int, fps: Fraction) -> int:
    return floor(moment * fps / CLOCK + Fraction(1, 2))
