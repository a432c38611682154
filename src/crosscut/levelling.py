"""Parts -> one soundtrack, or the body of one slot: mixed, levelled, limited, encoded and measured in one go.

For sound that has one length and no second use `mix` takes three child processes; here one reads the parts once,
finds its gain on the way, and encodes a second time only where the result is not what it should be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from crosscut.blend import Levels, fade_gain, mixed
from crosscut.loudness import Meter, Signal, limited, loudness_of
from crosscut.mix import (
    LEAST_STEP,
    MOST_AT_ONCE,
    MOST_ENCODES,
    WORTH,
    ceilings,
    encode_mix,
    lower,
    write_mix,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from crosscut.sandbox import Job

CLOSE = 0.2
"""LU from the target at which the limited mix is left as it is: the encoder changes about as much."""
MOST_LIMITED = 8
"""Gains tried before anything is encoded."""
MOST_CORRECTED = 6
"""Encodings after which the gain is changed; those that are left are for peaks."""


def render_levelled(
    job: Job,
    *,
    levels: Mapping[str, Any],
    samples: int,
    fade_out: int,
    first: float,
    target: float | None,
    near: float,
    peak: float,
    hop: int,
) -> dict[str, Any]:
    """Child: the parts there are -> limited mix (interleaved s16), its AAC in MP4, its `Profile`, a value for each hop.

    `target` is in LUFS (None: as loud as it happens to be), `first` the gain in dB that is tried first, `near` the LU
    from the target that are not worth a second encoding, `peak` the most dBTP, `fade_out` and `hop` are in samples.
    Answers `loudness` and `true_peak`.
    """
    mix, body, stored = job.outputs
    wanted = Levels.of(levels)
    desk = _Desk(mixed(job.inputs, wanted), samples, fade_out, hop, mix, ceilings(samples))
    step = 0.0 if target is None else desk.step(target, first, min(near, CLOSE), wanted.highest)
    if desk.standing != step:
        desk.limit(step)
    for attempt in range(MOST_ENCODES):
        heard = encode_mix(mix, body, samples, hop, job.progress)
        loudness = loudness_of(heard.energy, hop, samples)
        too_high = lower(desk.ceiling, heard, hop, peak)
        missed = 0.0 if target is None or loudness is None else target - loudness
        better = float(np.clip(step + missed, LEAST_STEP, max(wanted.highest, LEAST_STEP)))
        if attempt < MOST_CORRECTED and abs(missed) > near and better != step:
            step = better
        elif not too_high:
            break
        desk.limit(step)
    stored.write(heard.to_bytes())
    return {"loudness": loudness, "true_peak": heard.true_peak}


@dataclass
class _Desk:
    """The mix before it is encoded; what was limited last stands in its file."""

    read: Callable[[int, int], Signal]
    samples: int
    fade_out: int
    hop: int
    file: BinaryIO
    ceiling: NDArray[np.float64]
    standing: float | None = None
    """The gain of what stands in the file."""

    def limit(self, step: float) -> float | None:
        """Write the mix with so many dB more, and answer its loudness."""
        meter = Meter(between=False, hop=self.hop)
        write_mix(_metered(self._pieces(step, self.ceiling), meter), self.file)
        self.standing = step
        return loudness_of(meter.finish().energy, self.hop, self.samples)

    def step(self, target: float, first: float, near: float, highest: float) -> float:
        """The gain that comes `near` to `target`, or as near as is worth it; at most `highest`."""
        step = float(np.clip(first, LEAST_STEP, highest))
        best, error, change = step, np.inf, 0.0
        for _ in range(MOST_LIMITED):
            heard = self.limit(step)
            left = 0.0 if heard is None else target - heard
            if abs(left) >= error - WORTH * abs(change):
                break
            best, error = step, abs(left)
            step = float(np.clip(step + np.clip(left, LEAST_STEP, MOST_AT_ONCE), LEAST_STEP, highest))
            change = step - best
            if error <= near or not change:
                break
        return best

    def _pieces(self, step: float, ceiling: NDArray[np.float64]) -> Iterator[Signal]:
        """Limited, then faded out at the end."""
        place, begin, gain = 0, self.samples - self.fade_out, fade_gain(self.fade_out)
        for piece in limited(self.read, self.samples, step, ceiling):
            first, place = max(place, begin), place + piece.shape[1]
            if place > first:
                faded = piece[:, first - place :] * gain[first - begin : place - begin]
                yield np.concatenate([piece[:, : first - place], faded], axis=1)
            else:
                yield piece


def _metered(pieces: Iterator[Signal], meter: Meter) -> Iterator[Signal]:
    for piece in pieces:
        meter.push(piece)
        yield piece
