"""Music and a voice-over -> soundtracks: loudness, seamless loop, limiter, exact length, AAC.

One *body* for each (music, voice, gain step), as long as the longest variation, is encoded once. A soundtrack is the
first frames of a body and a short *tail* with the fade-out, encoded once for each length. The encoder runs at a
constant quality, so its only memory is a few frames: after the pre-roll a tail's frames are those of the body, bit for
bit, and the join cannot be heard.

    pcm.decode_audio -> plan_levels -> measure_mix -> (music, voice, step) render_body -> (length) render_tails

Functions with a `job` run in a sandbox child: `job.inputs` and `job.outputs` are open files. The music is stereo PCM,
the voice-over mono PCM, as `pcm` describes.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from crosscut import aac, pcm
from crosscut.loudness import HOP, Meter, Profile, Signal, integrated, limited, measure, ratio, ratios
from crosscut.media import AAC_FRAME, AUDIO_RATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from crosscut.pcm import Sound
    from crosscut.sandbox import Job

TARGET = -14.0
"""LUFS integrated, of every soundtrack."""
MUSIC_GAIN = -14.0
"""LU from the voice-over to the music under it."""
TRUE_PEAK = -1.5
"""dBTP that no decoded soundtrack may pass."""
CEILING = -2.2
"""dBTP the limiter holds before encoding: AAC adds a few tenths of a decibel to limited sound."""
MOST_ENCODES = 10
MARGIN = 0.1
"""dB a body keeps below `TRUE_PEAK`, for its tails and for meters that look between the samples more finely."""
MOST_GAIN = 24
"""Decibels; what is quieter than this can lift stays quiet, and noise stays noise."""
LEAST_STEP = -12
NEAR = 0.5
"""LU from the target within which no other step is tried."""
WORTH = 0.1
"""LU; more gain that brings less than this only feeds the limiter."""
SAMPLE = 3 * AUDIO_RATE
"""Samples encoded to learn what the encoder does to the loudness: on noise, music and speech the answer is within
0.03 LU of that of 10 seconds.
"""
REMEMBERED = 8
"""Pieces of a mix kept in memory: a minute and a quarter, 30 MB; a longer mix is read again by every pass over it."""
RISE = 3 * AUDIO_RATE // 2
"""Samples in which the music comes up once the voice-over has ended."""

FADE = AUDIO_RATE // 2
CROSSFADE = AUDIO_RATE // 2

LOOK_BACK = 2
"""Frames before the fade-out whose windows the encoder may choose with a view of it."""
PRE_ROLLS = (8, 24)
"""Frames encoded and thrown away before a tail; the second only where the first did not meet the body."""
WARM_UP = 12
"""Frames of the body decoded before a tail: the decoder and the filters of the meter settle within the first hop."""
DIPS = (0.0, 0.06, 0.12, 0.25)
"""What a fade-out is lowered by, within 10 ms, where its encoding overshoots."""


def _fade_out(samples: int) -> Signal:
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * np.arange(1, samples + 1) / max(samples, 1)), np.float32)


FADED_ENERGY = np.square(_fade_out(FADE)).reshape(-1, HOP).mean(axis=1)


@dataclass(frozen=True)
class Levels:
    """Gains in dB, None where there is no such part, and the loudness to reach in LUFS.

    `music` holds under the voice-over, `alone` after it and everywhere if there is none.
    """

    music: float | None
    voice: float | None
    alone: float | None
    target: float = TARGET

    def arguments(self) -> dict[str, Any]:
        """For a child function."""
        return asdict(self)


def plan_levels(
    music: Sound | None,
    voice: Sound | None,
    *,
    target: float = TARGET,
    music_gain: float = MUSIC_GAIN,
) -> Levels:
    """The voice-over comes to the target and the music `music_gain` LU beside it; music alone comes to the target.

    Where the voice-over has ended the music comes up to the target, slowly: if it stayed down, a short voice-over in
    a long video would need so much gain to be as loud as others that the limiter flattens it.
    """

    def gain(sound: Sound | None, loudness: float) -> float | None:
        if sound is None:
            return None
        return 0.0 if sound.loudness is None else min(loudness - sound.loudness, float(MOST_GAIN))

    alone = gain(music, target)
    under = alone if voice is None else gain(music, target + music_gain)
    return Levels(under, gain(voice, target), alone, target)


@dataclass(frozen=True)
class Steps:
    """Which gain in whole dB brings a mix to its target, by the length of the soundtrack.

    The gate hears other parts of a short soundtrack than of a long one. `runs` are (from this many hops, step).
    """

    runs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Steps:
        """From the answer of `measure_mix`."""
        return cls(tuple((hops, step) for hops, step in answer["steps"]))

    def at(self, samples: int) -> int:
        place = bisect_right(self.runs, samples // HOP, key=lambda run: run[0])
        return self.runs[max(place - 1, 0)][1]


@dataclass(frozen=True)
class SoundtrackPlan:
    """The first `body_frames` access units of `body`, then `tail_frames` of `tail` from number `tail_skip` on.

    Decoders throw away `priming` samples, then `samples` are heard, `loudness` LUFS (None: silent), `true_peak` dBTP.
    """

    body: Path
    tail: Path
    body_frames: int
    tail_skip: int
    tail_frames: int
    samples: int
    loudness: float | None
    true_peak: float
    priming: int = aac.PRIMING

    @classmethod
    def of(cls, body: Path, tail: Path, answer: Mapping[str, Any]) -> SoundtrackPlan:
        """From one element of the answer of `render_tails`."""
        return cls(body, tail, **answer)


class _Music:
    """A stereo PCM file repeated for ever; its end and its beginning overlap with equal power."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._samples = pcm.count(file, 2)
        self._overlap = min(CROSSFADE, self._samples // 4)
        self._period = self._samples - self._overlap
        self._rise = np.sin(np.pi / 2 * (np.arange(self._overlap) + 0.5) / max(self._overlap, 1)).astype(np.float32)

    def read(self, start: int, stop: int) -> Signal:
        sound = np.zeros((2, stop - start), np.float32)
        for turn in range(max(0, (start - self._samples) // self._period + 1), (stop - 1) // self._period + 1):
            base = turn * self._period
            low, high = max(start, base), min(stop, base + self._samples)
            piece = pcm.read(self._file, 2, low - base, high - base)
            if turn:
                rise = self._rise[low - base : high - base]
                piece[:, : len(rise)] *= rise
            fall = self._rise[::-1][max(low - base - self._period, 0) : max(high - base - self._period, 0)]
            piece[:, piece.shape[1] - len(fall) :] *= fall
            sound[:, low - start : high - start] += piece
        return sound


class _Voice:
    """A mono PCM file, heard once from the start, on both loudspeakers."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.samples = pcm.count(file, 1)

    def read(self, start: int, stop: int) -> Signal:
        sound = np.zeros((2, stop - start), np.float32)
        piece = pcm.read(self._file, 1, max(start, 0), stop)
        before = max(-start, 0)
        sound[:, before : before + piece.shape[1]] = piece
        return sound


def _mixed(files: Sequence[BinaryIO], levels: Levels) -> Callable[[int, int], Signal]:
    """Reads the sum of what `levels` names; `files` are the music and the voice-over, those there are.

    What it gives is shared: not to be written to.
    """
    music = None if levels.music is None else _Music(files[0])
    voice = None if levels.voice is None else _Voice(files[-1])
    end = 0 if voice is None else voice.samples

    @lru_cache(maxsize=REMEMBERED)
    def read(start: int, stop: int) -> Signal:
        sound: Signal = np.zeros((2, stop - start), np.float32)
        if music and levels.music is not None and levels.alone is not None:
            risen = np.clip((np.arange(start, stop) - end) / RISE, 0, 1) if voice else np.ones(1)
            gain = levels.music + (levels.alone - levels.music) * risen
            sound += music.read(start, stop) * ratios(gain)
        if voice and levels.voice is not None:
            sound += voice.read(start, stop) * np.float32(ratio(levels.voice))
        return sound

    return read


def measure_mix(job: Job, *, levels: Mapping[str, Any], shortest: int, longest: int) -> dict[str, Any]:
    """Child: the music and voice-over there are -> `Steps` for soundtracks of `shortest` to `longest` samples."""
    wanted = Levels(**levels)
    read = _mixed(job.inputs, wanted)

    def profile(gain: float, ceiling: float) -> Profile:
        meter = Meter(between=np.isinf(ceiling))
        for piece in limited(read, longest, gain, np.array([ceiling])):
            meter.push(piece)
        return meter.finish()

    lengths = _lengths(shortest, longest)
    plain = profile(0.0, np.inf)
    highest = max(0, int(MOST_GAIN - max(gain for gain in (wanted.voice, wanted.alone) if gain is not None)))
    target = wanted.target - _lost(read(0, min(longest, SAMPLE)))
    missed = target - _loudness_of(plain.energy, lengths)
    best, error = np.zeros(len(lengths), np.int64), np.full(len(lengths), np.inf)
    if np.isfinite(missed).any():
        first = int(np.clip(np.floor(np.nanmin(missed)), LEAST_STEP, highest))
        for step in range(first, highest + 1):
            if not (error[np.isfinite(missed)] > NEAR).any():
                break
            free = plain.true_peak + step <= CEILING
            energy = plain.energy * 10 ** (step / 10) if free else profile(step, CEILING).energy
            missed = target - _loudness_of(energy, lengths)
            better = (error > NEAR) & (np.abs(missed) < error - WORTH)
            best[better], error[better] = step, np.abs(missed[better])
            if not better.any():
                break
    changes = [0, *(np.flatnonzero(np.diff(best)) + 1).tolist()]
    return {"steps": [[int(lengths[index]), int(best[index])] for index in changes]}


def _lost(sound: Signal) -> float:
    """How many LU the encoder takes away: little of music, one of white noise."""
    with aac.Encoder(io.BytesIO()) as encoder:
        units = [*encoder.encode(sound), *encoder.finish()]
        decoded = aac.Decoder(encoder.extradata).decode(units)
    before, after = measure(sound).loudness, measure(decoded[:, : sound.shape[1]]).loudness
    return 0.0 if before is None or after is None else after - before


def _lengths(shortest: int, longest: int) -> NDArray[np.int64]:
    """Every hop to 40 s, then about every percent: loudness changes the less the more of it there is."""
    low, high = max(shortest // HOP, 1), max(longest // HOP, 1)
    far = np.geomspace(400, max(high, 400), 400).astype(np.int64)
    lengths = np.unique(np.concatenate([np.arange(low, min(high, 400) + 1), far]))
    return np.asarray(lengths[(lengths >= low) & (lengths <= high)])


def _loudness_of(energy: NDArray[np.floating], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each length, faded out at its end; NaN where silent."""
    found = np.full(len(lengths), np.nan)
    for index, hops in enumerate(lengths.tolist()):
        heard = energy[:hops].astype(np.float64)
        faded = min(len(FADED_ENERGY), hops)
        heard[hops - faded :] *= FADED_ENERGY[-faded:]
        loudness = integrated(heard)
        found[index] = np.nan if loudness is None else loudness
    return found


def render_body(job: Job, *, levels: Mapping[str, Any], samples: int, step: int) -> dict[str, Any]:
    """Child: the music and voice-over there are -> limited mix (interleaved s16), its AAC in MP4, and its `Profile`.

    Where a decoded true peak is too high, the limiter's ceiling is lowered there and all is encoded again. Answers
    `loudness`, `true_peak`, `samples` and `frames`.
    """
    mix, body, stored = job.outputs
    read = _mixed(job.inputs, Levels(**levels))
    ceiling = np.full(-(-samples // HOP) + 1, CEILING)
    for _ in range(MOST_ENCODES):
        profile = _encode_body(job, limited(read, samples, step, ceiling), mix, body, samples)
        if profile.true_peak <= TRUE_PEAK - MARGIN:
            break
        excess = 20 * np.log10(np.maximum(profile.peak, 1e-10)) - (TRUE_PEAK - MARGIN)
        lower = np.where(excess > 0, excess + MARGIN, 0)
        ceiling[: len(lower)] -= sliding_window_view(np.pad(lower, 1), 3).max(axis=1)[: len(ceiling)]
    stored.write(profile.to_bytes())
    return {
        "loudness": profile.loudness,
        "true_peak": profile.true_peak,
        "samples": samples,
        "frames": aac.frames(samples),
    }


def _encode_body(job: Job, pieces: Iterator[Signal], mix: BinaryIO, body: BinaryIO, samples: int) -> Profile:
    meter = Meter()
    mix.seek(0)
    with aac.Encoder(body) as encoder:
        decoder = aac.Decoder(encoder.extradata)
        heard = 0

        def listen(packets: Iterable[bytes]) -> int:
            sound = decoder.decode(packets)[:, : samples - heard]
            meter.push(sound)
            return int(sound.shape[1])

        for piece in pieces:
            words = np.rint(piece.T * 32767).astype("<i2")
            mix.write(np.ascontiguousarray(words).data)
            heard += listen(encoder.encode(_from_words(words)))
            job.progress(heard / samples)
        listen(encoder.finish())
    return meter.finish()


def _from_words(words: NDArray[np.int16]) -> Signal:
    return np.ascontiguousarray(words.T, np.float32) / np.float32(32767)


def render_tails(job: Job, *, lengths: Sequence[int]) -> dict[str, Any]:
    """Child: mix, AAC and profile of a body -> for each length, in samples, the tail in MP4.

    Answers `tails`: for each length what `SoundtrackPlan.of` takes. About 15 ms of CPU each.
    """
    mix, body, stored = job.inputs
    profile = Profile.from_bytes(stored.read(), mix.seek(0, 2) // 4)
    tails: list[dict[str, Any]] = []
    with aac.Reader(body) as units:
        for samples, file in zip(lengths, job.outputs, strict=True):
            tails.append(_render_tail(_Body(mix, units, profile), samples, file))
            job.progress(len(tails) / len(lengths))
    return {"tails": tails}


@dataclass(frozen=True, eq=False)
class _Body:
    mix: BinaryIO
    units: aac.Reader
    profile: Profile

    def sound(self, start: int, stop: int) -> Signal:
        self.mix.seek(start * 4)
        return _from_words(np.frombuffer(self.mix.read((stop - start) * 4), "<i2").reshape(-1, 2))


def _render_tail(body: _Body, samples: int, file: BinaryIO) -> dict[str, Any]:
    fade = min(FADE, samples // 2)
    first = max(0, (samples - fade) // AAC_FRAME - LOOK_BACK)

    def encode(skip: int, dip: float) -> list[bytes]:
        sound = body.sound((first - skip) * AAC_FRAME, samples)
        ramp = np.minimum(np.arange(1, fade + 1) / (AUDIO_RATE // 100), 1).astype(np.float32)
        sound[:, sound.shape[1] - fade :] *= _fade_out(fade) * (1 - dip * ramp)
        with aac.Encoder(file) as encoder:
            return [*encoder.encode(sound), *encoder.finish()]

    for pre_roll in PRE_ROLLS:
        skip = min(pre_roll, first)
        units = encode(skip, DIPS[0])
        if skip == first or units[skip - 1 : skip] == body.units.units(first - 1, first):
            break
    for dip in DIPS:
        units = encode(skip, dip) if dip else units
        profile = _joined(body, first, units[skip:], samples)
        if profile.true_peak <= TRUE_PEAK:
            break
    return {
        "body_frames": first,
        "tail_skip": skip,
        "tail_frames": len(units) - skip,
        "samples": samples,
        "loudness": profile.loudness,
        "true_peak": profile.true_peak,
    }


def _joined(body: _Body, first: int, tail: Sequence[bytes], samples: int) -> Profile:
    """Of the decoded soundtrack: as stored to the join, measured from there."""
    start = max(0, first - WARM_UP)
    decoder = aac.Decoder(body.units.extradata)
    sound = decoder.decode([*body.units.units(start, first), *tail])[:, : samples - start * AAC_FRAME]
    hop = -(-start * AAC_FRAME // HOP)
    heard = measure(sound[:, hop * HOP - start * AAC_FRAME :])
    settling = 1 if start else 0
    return Profile(
        samples,
        np.concatenate([body.profile.energy[: hop + settling], heard.energy[settling:]]),
        np.concatenate([body.profile.peak[: hop + settling], heard.peak[settling:]]),
    )
