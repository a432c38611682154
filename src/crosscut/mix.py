"""Music and voice-overs -> soundtracks: loudness, seamless loop, limiter, exact length, AAC.

One *body* for each (music, voice, gain step), as long as the longest variation, is encoded once. A soundtrack is the
first frames of a body and a short *tail* with the fade-out, encoded once for each length. The encoder runs at a
constant quality, so after a pre-roll it uses the windows of the body, and the join cannot be heard.

    pcm.decode_audio -> blend.plan_levels -> measure_mix -> (music, voice, step) render_body -> (length) render_tails

Functions with a `job` run in a sandbox child: `job.inputs` and `job.outputs` are open files. What is measured and what
is heard is the sum that `blend` reads; fades at the end are half a cosine, of `fade_out` samples, at least 5 ms and at
most half of what there is.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from crosscut import aac
from crosscut.blend import EDGE, Levels, fade_gain, mixed
from crosscut.loudness import CHUNK, HOP, Meter, Profile, Signal, integrated, limited, measure
from crosscut.media import AAC_FRAME, AUDIO_RATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from crosscut.sandbox import Job

TRUE_PEAK = -1.5
"""dBTP that no decoded soundtrack may pass."""
CEILING = -2.2
"""dBTP the limiter holds before encoding: AAC adds a few tenths of a decibel to limited sound."""
MOST_ENCODES = 10
MARGIN = 0.1
"""dB a body keeps below `TRUE_PEAK`, for its tails and for meters that look between the samples more finely."""
LEAST_STEP = -12.0
NEAR = 0.35
"""LU from the target within which no other step is tried: what is estimated is off by what is left to half a LU."""
MOST_AT_ONCE = 2.0
"""dB between two steps that are tried."""
WORTH = 0.1
"""LU a dB; more gain that brings less than this only feeds the limiter."""
SAMPLE = 20 * AUDIO_RATE
"""Samples encoded to learn what the encoder does to the loudness: it takes other amounts from a voice than from music,
and what the first seconds alone said was off by up to 0.6 LU.
"""

LOOK_BACK = 2
"""Frames before the fade-out whose windows the encoder may choose with a view of it."""
PRE_ROLL = 24
"""Frames encoded and thrown away before a tail: with 8 the windows are those of the body, but just before a hit the
error was up to 4 dB larger; with 24 it is the body's.
"""
WARM_UP = 12
"""Frames of the body decoded before a tail: the decoder and the filters of the meter settle within the first hop."""
DIPS = (0.0, 0.06, 0.12, 0.25)
"""What a fade-out is lowered by, within 10 ms, where its encoding overshoots."""


@dataclass(frozen=True)
class Steps:
    """Which gain in tenths of a dB brings a mix to its target, by the length of the soundtrack.

    The gate hears other parts of a short soundtrack than of a long one. `runs` are (from this many hops, step).
    """

    runs: tuple[tuple[int, float], ...]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Steps:
        """From the answer of `measure_mix`."""
        return cls(tuple((hops, step) for hops, step in answer["steps"]))

    def at(self, samples: int) -> float:
        place = bisect_right(self.runs, samples // HOP, key=lambda run: run[0])
        return self.runs[max(place - 1, 0)][1]


AS_IT_IS = Steps(((0, 0.0),))
"""For who has no target."""


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


def measure_mix(
    job: Job, *, levels: Mapping[str, Any], target: float, fade_out: int, shortest: int, longest: int
) -> dict[str, Any]:
    """Child: the music and voice-over there are -> `Steps` for soundtracks of `shortest` to `longest` samples.

    `target` is in LUFS.
    """
    wanted = Levels.of(levels)
    read = mixed(job.inputs, wanted)

    def profile(gain: float, ceiling: float) -> Profile:
        meter = Meter(between=np.isinf(ceiling))
        for piece in limited(read, longest, gain, np.array([ceiling])):
            meter.push(piece)
        return meter.finish()

    lengths = _lengths(shortest, longest)
    plain = profile(0.0, np.inf)
    begin = max(min(wanted.fade_in, longest - SAMPLE), 0)
    goal = target - _lost(read(begin, min(begin + SAMPLE, longest)))

    def missed(step: float) -> NDArray[np.float64]:
        free = plain.true_peak + step <= CEILING
        energy = plain.energy * 10 ** (step / 10) if free else profile(step, CEILING).energy
        return goal - faded_loudness(energy, lengths, fade_out)

    best = _best_steps(missed, goal - faded_loudness(plain.energy, lengths, fade_out), wanted.highest)
    changes = [0, *(np.flatnonzero(np.diff(best)) + 1).tolist()]
    return {"steps": [[int(lengths[index]), float(best[index])] for index in changes]}


def _best_steps(
    missed: Callable[[float], NDArray[np.float64]], plain: NDArray[np.float64], highest: float
) -> NDArray[np.float64]:
    """For each length the lowest of few steps that comes `NEAR`, or as near as is worth it.

    `missed` are the LU that a step leaves to the target, by length, `plain` those without gain; NaN where silent.
    """
    best, error = np.zeros(len(plain)), np.full(len(plain), np.inf)
    wanting = plain[np.isfinite(plain)]
    if not len(wanting):
        return best
    step, rise = float(np.clip(_towards(wanting), LEAST_STEP, highest)), 0.0
    while step <= highest:
        left = missed(step)
        better = (error > NEAR) & (np.abs(left) < error - WORTH * rise)
        best[better], error[better] = step, np.abs(left[better])
        wanting = left[(error > NEAR) & (left > NEAR)]
        if not better.any() or not len(wanting):
            break
        rise = min(_towards(wanting), MOST_AT_ONCE)
        step = round(step + rise, 1)
    return best


def _towards(missed: NDArray[np.float64]) -> float:
    """The gain in tenths of a dB that brings the nearest near, and as many of the others as it can."""
    low, high = float(missed.min()), float(missed.max())
    return round(low + min(NEAR, (high - low) / 2), 1)


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


def faded_loudness(energy: NDArray[np.floating], lengths: NDArray[np.int64], fade_out: int) -> NDArray[np.float64]:
    """Of each length, faded out at its end; NaN where silent."""
    found = np.full(len(lengths), np.nan)
    for index, hops in enumerate(lengths.tolist()):
        heard = energy[:hops].astype(np.float64)
        faded = _faded_energy(fade_of(fade_out, hops * HOP))
        heard[hops - len(faded) :] *= faded
        loudness = integrated(heard)
        found[index] = np.nan if loudness is None else loudness
    return found


def fade_of(fade_out: int, samples: int) -> int:
    """Samples that a soundtrack of `samples` is faded out in."""
    return min(max(fade_out, EDGE), samples // 2)


@lru_cache(maxsize=8)
def _faded_energy(fade: int) -> NDArray[np.float64]:
    """What a fade-out leaves of the energy of the last hops, 100 times a second looked at."""
    hops = -(-fade // HOP)
    place = (np.arange(10 * hops) + 0.5) * HOP / 10 - (hops * HOP - fade)
    gain = 0.5 + 0.5 * np.cos(np.pi * np.clip(place / fade, 0, 1))
    return np.asarray(np.square(gain).reshape(-1, 10).mean(axis=1))


def render_body(job: Job, *, levels: Mapping[str, Any], samples: int, step: float) -> dict[str, Any]:
    """Child: the music and voice-overs there are -> limited mix (interleaved s16), its AAC in MP4, its `Profile`.

    Where a decoded true peak is too high, the limiter's ceiling is lowered there and all is encoded again. Answers
    `loudness`, `true_peak`, `samples` and `frames`.
    """
    mix, body, stored = job.outputs
    wanted = Levels.of(levels)
    read = mixed(job.inputs, wanted)
    ceiling = ceilings(samples)
    for _ in range(MOST_ENCODES):
        write_mix(limited(read, samples, step, ceiling), mix)
        profile = encode_mix(mix, body, samples, HOP, job.progress)
        if not lower(ceiling, profile, HOP, TRUE_PEAK - MARGIN):
            break
    stored.write(profile.to_bytes())
    return {
        "loudness": profile.loudness,
        "true_peak": profile.true_peak,
        "samples": samples,
        "frames": aac.frames(samples),
    }


def ceilings(samples: int) -> NDArray[np.float64]:
    """In dBTP, one for each hop, for the limiter."""
    return np.full(-(-samples // HOP) + 1, CEILING)


def lower(ceiling: NDArray[np.float64], heard: Profile, hop: int, most: float) -> bool:
    """Lower the ceiling where decoded peaks are above `most` dBTP; False where none are."""
    excess = 20 * np.log10(np.maximum(heard.peak, 1e-10)) - most
    over = np.flatnonzero(excess > 0)
    lowered = np.zeros(len(ceiling))
    for border in (over * hop, over * hop + hop - 1):
        np.maximum.at(lowered, np.minimum(border // HOP, len(ceiling) - 1), excess[over] + MARGIN)
    ceiling -= sliding_window_view(np.pad(lowered, 1), 3).max(axis=1)
    return bool(len(over))


def write_mix(pieces: Iterable[Signal], mix: BinaryIO) -> None:
    """As interleaved s16, from the start of the file on."""
    mix.seek(0)
    mix.writelines(np.ascontiguousarray(np.rint(piece.T * 32767).astype("<i2")).data for piece in pieces)


def read_mix(mix: BinaryIO, start: int, stop: int) -> Signal:
    """What there is of this part."""
    mix.seek(start * 4)
    words = np.frombuffer(mix.read(max(stop - start, 0) * 4), "<i2").reshape(-1, 2)
    return np.ascontiguousarray(words.T, np.float32) / np.float32(32767)


def encode_mix(mix: BinaryIO, body: BinaryIO, samples: int, hop: int, progress: Callable[[float], None]) -> Profile:
    """The AAC of a written mix in MP4, and what it is once decoded again."""
    meter = Meter(hop=hop)
    with aac.Encoder(body) as encoder:
        decoder = aac.Decoder(encoder.extradata)
        heard = 0

        def listen(packets: Iterable[bytes]) -> int:
            sound = decoder.decode(packets)[:, : samples - heard]
            meter.push(sound)
            return int(sound.shape[1])

        for start in range(0, samples, CHUNK):
            heard += listen(encoder.encode(read_mix(mix, start, min(start + CHUNK, samples))))
            progress(heard / samples)
        listen(encoder.finish())
    return meter.finish()


def render_tails(job: Job, *, lengths: Sequence[int], fade_out: int) -> dict[str, Any]:
    """Child: mix, AAC and profile of a body -> for each length, in samples, the tail in MP4.

    Answers `tails`: for each length what `SoundtrackPlan.of` takes. About 15 ms of CPU each.
    """
    mix, body, stored = job.inputs
    profile = Profile.from_bytes(stored.read(), mix.seek(0, 2) // 4)
    tails: list[dict[str, Any]] = []
    with aac.Reader(body) as units:
        for samples, file in zip(lengths, job.outputs, strict=True):
            tails.append(_render_tail(_Body(mix, units, profile), samples, fade_out, file))
            job.progress(len(tails) / len(lengths))
    return {"tails": tails}


@dataclass(frozen=True, eq=False)
class _Body:
    mix: BinaryIO
    units: aac.Reader
    profile: Profile


def _render_tail(body: _Body, samples: int, fade_out: int, file: BinaryIO) -> dict[str, Any]:
    fade = fade_of(fade_out, samples)
    first = max(0, (samples - fade) // AAC_FRAME - LOOK_BACK)
    skip = min(PRE_ROLL, first)

    def encode(dip: float) -> list[bytes]:
        sound = read_mix(body.mix, (first - skip) * AAC_FRAME, samples)
        ramp = np.minimum(np.arange(1, fade + 1) / (AUDIO_RATE // 100), 1).astype(np.float32)
        sound[:, sound.shape[1] - fade :] *= fade_gain(fade) * (1 - dip * ramp)
        with aac.Encoder(file) as encoder:
            return [*encoder.encode(sound), *encoder.finish()]

    for dip in DIPS:
        units = encode(dip)
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
