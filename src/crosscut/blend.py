"""Music and a voice-over -> their sum, in any part: levels, start of the voice, seamless loop, ducking, fade-in.

The music is stereo PCM, the voice-over mono PCM, as `pcm` describes. The voice has one gain from its first word to
its last: the ducking and the fade-in are of the music alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from math import floor
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from crosscut import ducking, pcm
from crosscut.ducking import Ducking
from crosscut.loudness import CHUNK, Signal, ratio, ratios
from crosscut.media import AUDIO_RATE, USUAL_MIX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from crosscut.media import MixSettings, Seconds
    from crosscut.pcm import Sound

MOST_GAIN = 24
"""Decibels; what is quieter than this can lift stays quiet, and noise stays noise."""
REMEMBERED = 8
"""Pieces of a mix kept in memory: a minute and a quarter, 30 MB; a longer mix is read again by every pass over it."""
CROSSFADE = AUDIO_RATE // 2
EDGE = AUDIO_RATE // 200
"""Samples (5 ms) in which sound comes up or goes down where no fade is asked for: a jump is heard as a click."""


@dataclass(frozen=True)
class Levels:
    """What a mix is made by: gains in dB, None where there is no such part, and times in samples.

    `music` holds under the voice-over, `alone` where nobody speaks and everywhere if there is none.
    """

    music: float | None
    voice: float | None
    alone: float | None
    voice_start: int = 0
    fade_in: int = 0

    def arguments(self) -> dict[str, Any]:
        """For a child function."""
        return asdict(self)


def plan_levels(music: Sound | None, voice: Sound | None, settings: MixSettings = USUAL_MIX) -> Levels:
    """The voice-over comes `voice_gain` LU beside the target, the music under it `music_gain` LU beside the voice-over.

    Where nobody speaks the music comes up to the target, slowly: if it stayed down, a short voice-over in a long video
    would need so much gain to be as loud as others that the limiter flattens it. Without a target the voice-over (but
    for `voice_gain`) and the music alone are as loud as they came. The music is never louder under speech than alone.
    """
    fade_in = samples_in(settings.fade_in) if music else 0
    alone = None if music is None else _gain(music, settings.loudness)
    if voice is None:
        return Levels(alone, None, alone, fade_in=fade_in)
    start = samples_in(settings.voice_start)
    if voice.loudness is None:
        return Levels(alone, 0.0, alone, start, fade_in)
    usual = voice.loudness if settings.loudness is None else settings.loudness
    spoken = _gain(voice, usual + settings.voice_gain)
    if music is None or alone is None:
        return Levels(None, spoken, None, start)
    under = _gain(music, voice.loudness + spoken + settings.music_gain)
    return Levels(min(under, alone), spoken, alone, start, fade_in)


def _gain(sound: Sound, loudness: float | None) -> float:
    """Up to `loudness`; 0 for what is silent and where there is none to come to."""
    return 0.0 if sound.loudness is None or loudness is None else min(loudness - sound.loudness, float(MOST_GAIN))


def samples_in(length: Seconds) -> int:
    """Whole samples, rounded down: what begins early and fades briefly never takes the voice-over's time."""
    return floor(length * AUDIO_RATE)


def fade_gain(samples: int) -> Signal:
    """Gains from about 1 to 0: half a cosine."""
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * np.arange(1, samples + 1) / max(samples, 1)), np.float32)


def _rise(sound: Signal, start: int, length: int) -> None:
    """Let sound from sample `start` on come up from silence within the first `length`, in place."""
    places = np.arange(start, max(min(start + sound.shape[1], length), start))
    sound[:, : len(places)] *= (0.5 - 0.5 * np.cos(np.pi * places / length)).astype(np.float32)


class _Music:
    """A stereo PCM file repeated for ever, faded in; its end and its beginning overlap with equal power."""

    def __init__(self, file: BinaryIO, fade_in: int) -> None:
        self._file = file
        self._fade_in = fade_in
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
        _rise(sound[:, max(-start, 0) :], max(start, 0), self._fade_in)
        return sound


class _Voice:
    """A mono PCM file, heard once from sample `begin` on, on both loudspeakers; its very ends are rounded off."""

    def __init__(self, file: BinaryIO, begin: int) -> None:
        self._file = file
        self._begin = begin
        self._samples = pcm.count(file, 1)

    def read(self, start: int, stop: int) -> Signal:
        sound = np.zeros((2, stop - start), np.float32)
        low, high = max(start, self._begin) - self._begin, min(stop - self._begin, self._samples)
        if low < high:
            piece = pcm.read(self._file, 1, low, high)
            _rise(piece, low, EDGE)
            _rise(piece[:, ::-1], self._samples - high, EDGE)
            sound[:, low + self._begin - start : high + self._begin - start] = piece
        return sound

    def talking(self) -> NDArray[np.bool_]:
        """For each cell of `ducking`."""
        pieces = (pcm.read(self._file, 1, start, start + CHUNK) for start in range(0, self._samples, CHUNK))
        return ducking.talking(np.concatenate([ducking.powers(piece) for piece in pieces]))


def mixed(files: Sequence[BinaryIO], levels: Levels) -> Callable[[int, int], Signal]:
    """Reads the sum of what `levels` names; `files` are the music and the voice-over, those there are.

    What it gives is shared: not to be written to. There is silence before the beginning.
    """
    music = None if levels.music is None else _Music(files[0], max(levels.fade_in, EDGE))
    voice = None if levels.voice is None else _Voice(files[-1], levels.voice_start)
    alone, depth = levels.alone or 0.0, (levels.alone or 0.0) - (levels.music or 0.0)
    ducked = Ducking(voice.talking(), depth, levels.voice_start) if music and voice and depth else None

    @lru_cache(maxsize=REMEMBERED)
    def read(start: int, stop: int) -> Signal:
        sound: Signal = np.zeros((2, stop - start), np.float32)
        if music:
            gain = alone + (ducked.gain(start, stop) if ducked else np.zeros(1))
            sound += music.read(start, stop) * ratios(gain)
        if voice and levels.voice is not None:
            sound += voice.read(start, stop) * np.float32(ratio(levels.voice))
        return sound

    return read
