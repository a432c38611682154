"""How loud sound is (ITU-R BS.1770-4, EBU R128) and a limiter that keeps its peaks down. Pure NumPy.

A signal is a float32 array of shape (channels, samples) at 48 kHz, full scale ±1. One channel is counted as it is
heard here: on both loudspeakers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from crosscut.media import AAC_FRAME, AUDIO_RATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Signal = NDArray[np.float32]

HOP = AUDIO_RATE // 10
"""Samples between gating blocks: blocks of 400 ms overlap by 75 % (BS.1770-4, annex 1)."""

BLOCK_HOPS = 4

ABSOLUTE_GATE = -70.0
RELATIVE_GATE = -10.0
OFFSET = -0.691
"""LUFS = OFFSET + 10 log10(sum of the channels' K-weighted mean squares) (BS.1770-4, annex 1)."""

K_STAGES = (
    ((1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585)),
    ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)),
)
"""Numerators and denominators of the K-weighting filters at 48 kHz (BS.1770-4, tables 1 and 2)."""

SETTLE = 4_800
"""Samples after which the K-weighting filters have forgotten all but 1e-9 of what was before (pole radius 0.995)."""

BLOCKS = {HOP: 5 * HOP, AAC_FRAME: 15 * AAC_FRAME}
"""Samples filtered at a time; with `SETTLE` lengths whose Fourier transform is quick and stays in a processor's cache
(28,800 and 20,160): one of 100,000 takes three times as long for each sample.
"""

PEAK_PAD = 12
"""Samples of context `true_peaks` needs on each side."""

ATTACK = 1.0 / 48
"""Decibels a sample by which the limiter's gain falls ahead of a peak (1 dB per ms)."""

RELEASE = 60.0 / AUDIO_RATE
"""Decibels a sample by which it rises again: slow against a period of bass, quick against a syllable."""

LOOK_AHEAD = 2_400
"""Samples: room for a fall of 50 dB, more than any gain allowed here."""

CHUNK = 96 * HOP
"""Samples limited at a time: whole hops and whole AAC frames."""


def decibels(ratio: float) -> float:
    """20 log10; silence is -200 dB."""
    return 20 * float(np.log10(max(ratio, 1e-10)))


def ratio(decibels: float) -> float:
    return float(10 ** (decibels / 20))


def ratios(decibels: NDArray[np.floating]) -> NDArray[np.float32]:
    """Of many, in single precision: enough for a gain, and several times as quick."""
    return np.asarray(np.exp(decibels.astype(np.float32) * np.float32(np.log(10) / 20)), np.float32)


@dataclass(frozen=True, eq=False)
class Profile:
    """What is needed to know the loudness and true peak of a signal, or of any beginning of it, without hearing it.

    One value per hop (100 ms): `energy` is the K-weighted mean square, summed over both loudspeakers, and
    `peak` the true peak, 1 at full scale.
    """

    samples: int
    energy: NDArray[np.float32]
    peak: NDArray[np.float32]

    @property
    def loudness(self) -> float | None:
        return integrated(self.energy[: self.samples // HOP])

    @property
    def true_peak(self) -> float:
        """In dBTP."""
        return decibels(float(self.peak.max(initial=0.0)))

    def to_bytes(self) -> bytes:
        return np.stack([self.energy, self.peak]).astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, samples: int) -> Profile:
        energy, peak = np.frombuffer(data, "<f4").reshape(2, -1)
        return cls(samples, energy, peak)


def integrated(energy: NDArray[np.floating]) -> float | None:
    """Gated loudness in LUFS of hop energies; None below the absolute gate or shorter than one block."""
    if len(energy) < BLOCK_HOPS:
        return None
    blocks = sliding_window_view(energy, BLOCK_HOPS).mean(axis=1, dtype=np.float64)
    blocks = blocks[blocks > _energy(ABSOLUTE_GATE)]
    if not len(blocks):
        return None
    blocks = blocks[blocks > blocks.mean() * 10 ** (RELATIVE_GATE / 10)]
    return OFFSET + 10 * float(np.log10(blocks.mean()))


def loudness_of(energy: NDArray[np.floating], width: int, samples: int) -> float | None:
    """Gated loudness in LUFS of the first `samples`, from the K-weighted mean squares of every `width` samples.

    Within those the energy is taken to be even; with a width far below a block's 400 ms that changes nothing heard.
    """
    running = np.concatenate([[0.0], np.cumsum(energy, dtype=np.float64) * width])
    borders = np.arange(samples // HOP + 1) * HOP
    return integrated(np.diff(np.interp(borders, np.arange(len(running)) * width, running)) / HOP)


def _energy(loudness: float) -> float:
    return float(10 ** ((loudness - OFFSET) / 10))


class Meter:
    """Measures a signal that arrives in pieces of any size, with one value for every `hop` samples.

    Without `between` its peaks are those of the samples alone: quicker, for who wants the loudness only.
    """

    def __init__(self, *, between: bool = True, hop: int = HOP) -> None:
        """`hop` is one of `BLOCKS`; a `Profile` knows its loudness where it is `HOP`, else see `loudness_of`."""
        self._between = between
        self._hop, self._block = hop, BLOCKS[hop]
        self._waiting: Signal | None = None
        self._samples = 0
        self._highest = 0.0
        self._energy: list[NDArray[np.float32]] = []
        self._peak: list[NDArray[np.float32]] = []

    def push(self, signal: Signal) -> None:
        before = self._waiting
        if before is None:
            before = np.zeros((len(signal), SETTLE), np.float32)
        self._samples += signal.shape[1]
        waiting = np.concatenate([before, signal], axis=1)
        while waiting.shape[1] >= SETTLE + self._block:
            self._measure(waiting[:, : SETTLE + self._block])
            waiting = waiting[:, self._block :]
        self._waiting = waiting

    def finish(self) -> Profile:
        # Peaks lag by the context they need, so the rest is measured with as much silence behind it.
        if self._waiting is None:
            return Profile(0, np.zeros(0, np.float32), np.zeros(0, np.float32))
        if self._waiting.shape[1] > SETTLE - PEAK_PAD:
            room = PEAK_PAD + -(self._waiting.shape[1] + PEAK_PAD - SETTLE) % self._hop
            self._measure(np.pad(self._waiting, ((0, 0), (0, room))))
        hops = -(-(self._samples + PEAK_PAD) // self._hop)
        return Profile(self._samples, np.concatenate(self._energy)[:hops], np.concatenate(self._peak)[:hops])

    def _measure(self, block: Signal) -> None:
        size = block.shape[1]
        weighted = np.fft.irfft(np.fft.rfft(block) * _k_response(size), size)[:, SETTLE:]
        speakers = 2 / len(block)
        hops = weighted.reshape(len(block), -1, self._hop)
        self._energy.append((np.square(hops).mean(axis=2).sum(axis=0) * speakers).astype(np.float32))
        floor = self._highest / 2 if self._between else np.inf
        peaks = true_peaks(block[:, SETTLE - 2 * PEAK_PAD :], floor)
        self._highest = max(self._highest, float(peaks.max()))
        self._peak.append(peaks.reshape(-1, self._hop).max(axis=1))


def measure(signal: Signal) -> Profile:
    meter = Meter()
    meter.push(signal)
    return meter.finish()


_RESPONSES: dict[int, NDArray[np.complex64]] = {}


def _k_response(size: int) -> NDArray[np.complex64]:
    if size not in _RESPONSES:
        z = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
        response = np.ones_like(z)
        for above, below in K_STAGES:
            response *= np.polynomial.polynomial.polyval(z, above) / np.polynomial.polynomial.polyval(z, below)
        _RESPONSES[size] = response.astype(np.complex64)
    return _RESPONSES[size]


def _interpolator() -> Signal:
    """Taps (24, 3) that give the values a quarter, a half and three quarters after the 12th of 24 samples."""
    distance = np.arange(1 - PEAK_PAD, PEAK_PAD + 1)[:, None] - np.array([0.25, 0.5, 0.75])[None, :]
    taps = np.sinc(distance) * np.cos(np.pi * distance / (2 * PEAK_PAD + 1)) ** 2
    return np.asarray(taps / taps.sum(axis=0), np.float32)


_TAPS = _interpolator()
_SEGMENT, _AT_ONCE = 512, 32


def true_peaks(signal: Signal, floor: float) -> NDArray[np.float32]:
    """The largest magnitude of any channel at and after each sample, looked at four times as finely.

    The answer is `2 * PEAK_PAD` shorter than the signal: the context at both ends is not in it. Where the samples
    stay below `floor` only they are looked at; peaks between samples are less than twice as high in any real sound.
    """
    count = signal.shape[1] - 2 * PEAK_PAD
    padded = np.pad(signal, ((0, 0), (0, -count % _SEGMENT)))
    plain = np.abs(padded[:, PEAK_PAD : padded.shape[1] - PEAK_PAD]).max(axis=0).reshape(-1, _SEGMENT)
    spans = sliding_window_view(padded, _SEGMENT + 2 * PEAK_PAD, axis=1)[:, ::_SEGMENT]
    loud = np.flatnonzero(plain.max(axis=1) > floor)
    for start in range(0, len(loud), _AT_ONCE):
        few = loud[start : start + _AT_ONCE]
        # A sample's context starts 11 before it and ends 12 after it.
        windows = sliding_window_view(spans[:, few, 1:], 2 * PEAK_PAD, axis=2)[:, :, :_SEGMENT]
        between = np.abs(np.moveaxis(windows @ _TAPS, 3, 0).reshape(-1, len(few), _SEGMENT))
        plain[few] = np.maximum.reduce([plain[few], *between])
    peaks: NDArray[np.float32] = plain.reshape(-1)[:count]
    return peaks


def limited(
    read: Callable[[int, int], Signal], samples: int, gain: float, ceiling: NDArray[np.floating]
) -> Iterator[Signal]:
    """The signal behind `read`, `gain` dB louder, with true peaks of at most `ceiling`, in pieces of `CHUNK` samples.

    `read(start, stop)` gives any part of the signal, silence outside of it. `ceiling` is in dBTP, one value per hop
    of which the last one holds on. The gain falls and rises in straight lines of decibels, so a peak is met exactly
    and both directions are one running maximum each.
    """
    held = 0.0
    for start in range(0, samples, CHUNK):
        count = min(CHUNK, samples - start)
        signal = read(start - PEAK_PAD, start + count + LOOK_AHEAD + PEAK_PAD) * np.float32(ratio(gain))
        hops = np.arange(start // HOP, -(-(start + count + LOOK_AHEAD) // HOP))
        limits = np.repeat(ratios(ceiling[np.minimum(hops, len(ceiling) - 1)]), HOP)[: count + LOOK_AHEAD]
        peaks = true_peaks(signal, float(limits.min()) * 0.6)
        signal = signal[:, PEAK_PAD : PEAK_PAD + count]
        if held <= 0 and (peaks <= limits).all():
            yield signal
            continue
        over = 20 * np.log10(np.maximum(peaks / limits, np.float32(1))).astype(np.float64)
        fall = np.arange(len(over)) * ATTACK
        over = (np.maximum.accumulate((over - fall)[::-1])[::-1] + fall)[:count]
        rise = np.arange(1, count + 1) * RELEASE
        over = np.maximum(np.maximum.accumulate(over + rise), held) - rise
        held = float(over[-1])
        yield signal * ratios(-over)
