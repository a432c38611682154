"""How far the music goes down under a voice-over, and how it comes up again: an envelope that follows the voice. Pure.

A clip's own sound goes down under a voice-over in the same way, and the music under both.
The whole voice-over is known before, so the music is down when a word begins, stays down over short pauses, and rises
in a straight line of decibels: never faster than `RISE`, never above where it would be without a voice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crosscut.media import AUDIO_RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crosscut.loudness import Signal

Decibels = NDArray[np.float64]
Cells = NDArray[np.bool_]

CELL = AUDIO_RATE // 100
"""Samples for which one value says how loud the voice is."""

WINDOW = 5
"""Cells whose mean square is looked at together: 50 ms, several periods of the deepest voice."""

SILENCE = 1e-7
"""Mean square (-70 dBFS) below which nothing is a voice."""

PAUSE_LEVEL = 10**-2.4
"""A pause is this much (24 dB) below the mean square of the voice: soft consonants and the ends of words lie above."""

PAUSE = 100
"""Cells; over shorter pauses the music stays down: one that comes and goes with every sentence is heard pumping."""

HOLD = 25
"""Cells that the music stays down after the last word."""

ATTACK = 15
"""Cells in which the music comes down; it is down when the first word begins."""

SOFT = 5
"""Cells over which the corners of the straight lines are rounded; within `ATTACK` and `HOLD`."""

RISE = 8.0
"""Decibels a second, at most, by which the music comes up: 14 dB take a second and three quarters."""


def powers(signal: Signal) -> NDArray[np.float64]:
    """The mean square of each cell; a last one that is not full counts what there is."""
    padded = np.pad(signal, ((0, 0), (0, -signal.shape[1] % CELL)))
    return np.asarray(np.square(padded).mean(axis=0).reshape(-1, CELL).mean(axis=1, dtype=np.float64))


def talking(power: NDArray[np.float64]) -> Cells:
    """In which cells there is speech, short pauses among it; what comes before the first word is such a pause too."""
    around = np.convolve(np.pad(power, WINDOW // 2), np.full(WINDOW, 1 / WINDOW))
    smooth = around[WINDOW - 1 :][: len(power)]
    loud = smooth[smooth > SILENCE]
    if not len(loud):
        return np.zeros(len(power), np.bool_)
    return _bridged(smooth > max(loud.mean() * PAUSE_LEVEL, SILENCE))


def _bridged(said: Cells) -> Cells:
    """With short pauses, also before the first word, as speech."""
    places = np.flatnonzero(said)
    gaps = np.diff(places, prepend=-1)
    changes = np.zeros(len(said) + 1, np.int64)
    changes[places - np.where(gaps > PAUSE, 1, gaps) + 1] += 1
    changes[places + 1] -= 1
    return np.asarray(np.cumsum(changes[:-1]) > 0)


@dataclass(frozen=True, eq=False)
class Speech:
    """In which cells from sample `start` on there is speech, or other sound that music makes room for."""

    start: int
    cells: Cells

    @classmethod
    def throughout(cls, start: int, stop: int) -> Speech:
        return cls(start, np.ones(-(-(stop - start) // CELL), np.bool_))

    def within(self, start: int, stop: int) -> Speech:
        """Only what is heard from sample `start` to `stop`; a cell at either end counts as a whole."""
        first, last = (start - self.start) // CELL, -(-(stop - self.start) // CELL)
        first = min(max(first, 0), len(self.cells))
        return Speech(self.start + first * CELL, self.cells[first : max(last, first)])


def together(speeches: Sequence[Speech]) -> Speech:
    """What any of these says; a short pause between two is one as within one. At least one is given."""
    start = min(each.start for each in speeches)
    ends = [each.start - start + len(each.cells) * CELL for each in speeches]
    cells = np.zeros(-(-max(ends) // CELL), np.bool_)
    for each in speeches:
        first, between = divmod(each.start - start, CELL)
        cells[first : first + len(each.cells)] |= each.cells
        if between:
            cells[first + 1 :][: len(each.cells)] |= each.cells
    return Speech(start, _bridged(cells))


class Ducking:
    """The gain of what makes room beside its level alone: 0 dB where nobody speaks, -`depth` under speech."""

    def __init__(self, speech: Speech, depth: float) -> None:
        """`depth` is at least 0 dB."""
        rise, half = RISE * CELL / AUDIO_RATE, SOFT // 2
        lead = ATTACK + SOFT
        # Values stand between cells: one is down at both its ends, and so much further that rounding leaves it down.
        talked = np.convolve(speech.cells, np.ones(2 + 2 * half + HOLD)) > 0
        down = np.where(np.pad(talked, (lead - half, int(np.ceil(depth / rise)) + SOFT)), depth, -np.inf)
        falling = _left_behind(down[::-1], depth / (ATTACK - 2 * half))[::-1]
        straight = np.maximum(np.maximum(falling, _left_behind(down, rise)), 0)
        rounded = np.convolve(np.pad(straight, half), np.full(SOFT, 1 / SOFT), "valid")
        self._values: Decibels = -np.clip(rounded, 0, depth)
        self._places = speech.start + (np.arange(len(rounded)) - lead) * CELL

    def gain(self, start: int, stop: int) -> Decibels:
        """For each sample of this part of the soundtrack, in dB."""
        return self.at(np.arange(start, stop))

    def at(self, places: NDArray[np.integer] | NDArray[np.floating]) -> Decibels:
        """At these samples of the soundtrack, in dB."""
        return np.asarray(np.interp(places, self._places, self._values))


def _left_behind(down: Decibels, slope: float) -> Decibels:
    """Every value as a straight line that goes down by `slope` a step after it; the highest of them."""
    line = np.arange(len(down)) * slope
    return np.asarray(np.maximum.accumulate(down + line) - line)
