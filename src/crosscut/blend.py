"""Music, voice-overs and the clips' own sound -> their sum, in any part: levels, places, seamless loop, ducking, fades.

Music and clips are stereo PCM, voice-overs mono PCM, as `pcm` describes. A voice has one gain from its first word to
its last: the music makes room for voices and clips, a clip for the voices that are heard in it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from math import floor
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from crosscut import ducking, pcm
from crosscut.ducking import Ducking, Speech, together
from crosscut.loudness import CHUNK, Signal, ratio, ratios
from crosscut.media import AUDIO_RATE, USUAL_MIX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
class VoiceLevel:
    """One gain in dB from the first word to the last, and the sample at which the PCM file begins."""

    gain: float
    start: int = 0


@dataclass(frozen=True)
class ClipLevel:
    """Gains in dB where nobody speaks and where somebody does; heard from sample `start` on, at most `samples`."""

    gain: float
    under: float
    start: int
    samples: int


@dataclass(frozen=True)
class Levels:
    """What a mix is made by: gains in dB, and times in samples.

    `music` (None: there is none) holds under voice-overs and clips, `alone` where neither is heard.
    """

    music: float | None
    alone: float | None
    voices: tuple[VoiceLevel, ...] = ()
    clips: tuple[ClipLevel, ...] = ()
    fade_in: int = 0

    def arguments(self) -> dict[str, Any]:
        """For a child function."""
        return asdict(self)

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Levels:
        voices = tuple(VoiceLevel(**each) for each in arguments["voices"])
        clips = tuple(ClipLevel(**each) for each in arguments["clips"])
        return cls(**{**arguments, "voices": voices, "clips": clips})

    @property
    def as_they_came(self) -> Levels:
        """Everything at its place, no louder or softer than it is, and nothing making room."""
        silent = None if self.music is None else 0.0
        voices = tuple(replace(each, gain=0.0) for each in self.voices)
        return Levels(silent, silent, voices, tuple(replace(each, gain=0.0, under=0.0) for each in self.clips))

    @property
    def highest(self) -> float:
        """Decibels that all of it can still be lifted by: nothing by more than `MOST_GAIN`.

        Among clips this holds for one at least: one of them may be too quiet, and the others must make up for it.
        """
        gains = [each.gain for each in self.voices] + ([] if self.alone is None else [self.alone])
        clips = [each.gain for each in self.clips]
        most = min([*gains, *clips]) if clips else max(gains, default=0.0)
        return max(0.0, MOST_GAIN - most)


@dataclass(frozen=True)
class Heard:
    """A clip's sound at its place: from sample `start` on, at most `samples`, `gain` dB beside its usual level."""

    sound: Sound
    start: int
    samples: int
    gain: float = 0.0


def plan_levels(
    music: Sound | None,
    voices: Sequence[tuple[Sound, int]] = (),
    clips: Sequence[Heard] = (),
    settings: MixSettings = USUAL_MIX,
) -> Levels:
    """Levels of the parts there are; of a voice-over its sound and the sample it begins at. No clip is a silent one.

    Voice-overs come `voice_gain` LU beside the target, clips to the target. Music lies `music_gain` LU beside the
    softest voice-over or clip, and so does a clip beside the voice-overs that are heard in it. Where nothing else is
    heard the music comes up to the target, slowly: if it stayed down, a short voice-over in a long video would need so
    much gain to be as loud as others that the limiter flattens it. Without a target everything is as loud as it came
    but for `voice_gain`. Neither music nor clip is ever louder under speech than alone.
    """
    alone = None if music is None else _gain(music, settings.loudness)
    spoken = [(_voice_gain(sound, settings), sound, start) for sound, start in voices]
    said = [
        (sound.loudness + gain, start, start + sound.samples)
        for gain, sound, start in spoken
        if sound.loudness is not None
    ]
    clear = [(clip.sound, clip.sound.loudness) for clip in clips if clip.sound.loudness is not None]
    fronts = [loudness for loudness, _, _ in said]
    fronts += [loudness + _gain(sound, settings.loudness) for sound, loudness in clear]
    under = alone
    if music is not None and alone is not None and fronts:
        under = min(alone, _gain(music, min(fronts) + settings.music_gain))
    return Levels(
        under,
        alone,
        tuple(VoiceLevel(gain, start) for gain, _, start in spoken),
        tuple(_clip_level(clip, said, settings) for clip in clips),
        samples_in(settings.fade_in) if music else 0,
    )


def _voice_gain(sound: Sound, settings: MixSettings) -> float:
    if sound.loudness is None:
        return 0.0
    usual = sound.loudness if settings.loudness is None else settings.loudness
    return _gain(sound, usual + settings.voice_gain)


def _clip_level(clip: Heard, said: Sequence[tuple[float, int, int]], settings: MixSettings) -> ClipLevel:
    alone = _gain(clip.sound, settings.loudness)
    over = [loudness for loudness, start, stop in said if start < clip.start + clip.samples and stop > clip.start]
    under = min(alone, _gain(clip.sound, min(over) + settings.music_gain)) if over else alone
    return ClipLevel(alone + clip.gain, under + clip.gain, clip.start, clip.samples)


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


class _Once:
    """A PCM file heard once from sample `begin` on, at most `most` samples of it, its very ends rounded off.

    One channel is heard on both loudspeakers.
    """

    def __init__(self, file: BinaryIO, channels: int, begin: int, most: int | None = None) -> None:
        self._file = file
        self._channels = channels
        self.begin = begin
        samples = pcm.count(file, channels)
        self._samples = samples if most is None else min(samples, most)

    def read(self, start: int, stop: int) -> Signal:
        sound = np.zeros((2, stop - start), np.float32)
        low, high = max(start, self.begin) - self.begin, min(stop - self.begin, self._samples)
        if low < high:
            piece = pcm.read(self._file, self._channels, low, high)
            _rise(piece, low, EDGE)
            _rise(piece[:, ::-1], self._samples - high, EDGE)
            sound[:, low + self.begin - start : high + self.begin - start] = piece
        return sound

    @property
    def end(self) -> int:
        return self.begin + self._samples

    @property
    def speech(self) -> Speech:
        starts = range(0, self._samples, CHUNK)
        pieces = (pcm.read(self._file, self._channels, start, min(start + CHUNK, self._samples)) for start in starts)
        powers = [ducking.powers(piece) for piece in pieces]
        return Speech(self.begin, ducking.talking(np.concatenate([*powers, np.zeros(0)])))


def mixed(files: Sequence[BinaryIO], levels: Levels) -> Callable[[int, int], Signal]:
    """Reads the sum of what `levels` names; `files` are the music, the voice-overs and the clips, those there are.

    What it gives is shared: not to be written to. There is silence before the beginning.
    """
    music = None if levels.music is None else _Music(files[0], max(levels.fade_in, EDGE))
    others = iter(files[1:] if music else files)
    voices = [(_Once(next(others), 1, level.start), level) for level in levels.voices]
    clips = [(_Once(next(others), 2, level.start, level.samples), level) for level in levels.clips]
    alone, depth = levels.alone or 0.0, (levels.alone or 0.0) - (levels.music or 0.0)
    ducks = bool(music and depth) or any(level.gain != level.under for level in levels.clips)
    said = [voice.speech for voice, _ in voices] if ducks else []
    fronts = said + [Speech.throughout(clip.begin, clip.end) for clip, _ in clips]
    ducked = Ducking(together(fronts), depth) if music and fronts and depth else None
    makes_room = [ducked_under(said, level.gain - level.under, clip.begin, clip.end) for clip, level in clips]

    @lru_cache(maxsize=REMEMBERED)
    def read(start: int, stop: int) -> Signal:
        sound: Signal = np.zeros((2, stop - start), np.float32)
        if music:
            gain = alone + (ducked.gain(start, stop) if ducked else np.zeros(1))
            sound += music.read(start, stop) * ratios(gain)
        for voice, heard in voices:
            if start < voice.end and stop > voice.begin:
                sound += voice.read(start, stop) * np.float32(ratio(heard.gain))
        for (clip, level), makes in zip(clips, makes_room, strict=True):
            if start < clip.end and stop > clip.begin:
                gain = level.gain + (makes.gain(start, stop) if makes else np.zeros(1))
                sound += clip.read(start, stop) * ratios(gain)
        return sound

    return read


def ducked_under(said: Sequence[Speech], depth: float, start: int, stop: int) -> Ducking | None:
    """By what is said while a clip is heard, and nothing else: so its sound is the same beside any neighbours."""
    if not said or not depth:
        return None
    heard = together(said).within(start, stop)
    return Ducking(heard, depth) if heard.cells.any() else None
