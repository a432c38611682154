"""How much energy a mix has over time, from what its parts measure: unrelated sounds add up in power. Pure.

Energies are K-weighted mean squares of every `HOP`, as a `Profile` has them. What is told of a mix here is told before
a sample of it is made: how loud its parts are together as they came, and about how loud the mix is before its limiter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crosscut.blend import CROSSFADE, Levels, ducked_under
from crosscut.ducking import Ducking, Speech, together
from crosscut.loudness import HOP
from crosscut.mix import faded_loudness

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crosscut.pcm import Sound

Energies = NDArray[np.float64]

LOOKS = 4
"""In a hop, at what makes room: it falls within 150 ms."""


def energies(levels: Levels, sounds: Sequence[Sound], samples: int) -> Energies:
    """Of the whole hops in `samples`. `sounds` are those that `levels` names: music, voice-overs, clips.

    Fades are left out, and pauses within a voice-over.
    """
    borders = np.arange(samples // HOP + 1) * HOP
    others = iter(sounds if levels.music is None else sounds[1:])
    total = np.zeros(len(borders) - 1)
    said: list[Speech] = []
    for voice, sound in zip(levels.voices, others, strict=False):
        total += _once(sound, voice.start, sound.samples, borders) * _power(voice.gain)
        said.append(Speech.throughout(voice.start, voice.start + sound.samples))
    fronts = list(said)
    for clip, sound in zip(levels.clips, others, strict=True):
        stop = clip.start + min(sound.samples, clip.samples)
        makes_room = ducked_under(said, clip.gain - clip.under, clip.start, stop)
        gain = _power(clip.gain) * _powers(makes_room, borders)
        total += _once(sound, clip.start, stop - clip.start, borders) * gain
        fronts.append(Speech.throughout(clip.start, stop))
    if levels.music is not None and levels.alone is not None:
        depth = levels.alone - levels.music
        ducked = Ducking(together(fronts), depth) if fronts and depth else None
        total += _looped(sounds[0], borders) * _power(levels.alone) * _powers(ducked, borders)
    return total


def foretold(levels: Levels, sounds: Sequence[Sound], samples: int, fade_out: int) -> float | None:
    """LUFS of a mix that is faded out in its last `fade_out` samples; None where it is silent or too short to tell."""
    loudness = faded_loudness(energies(levels, sounds, samples), np.array([samples // HOP]), fade_out)
    return None if np.isnan(loudness[0]) else float(loudness[0])


def _running(sound: Sound) -> Energies:
    """The energy up to every border of its hops, times `HOP`."""
    return np.concatenate([[0.0], np.cumsum(sound.hops, dtype=np.float64)]) * HOP


def _at(running: Energies, places: NDArray[np.int64]) -> Energies:
    return np.asarray(np.interp(places, np.arange(len(running)) * HOP, running))


def _once(sound: Sound, start: int, most: int, borders: NDArray[np.int64]) -> Energies:
    return np.diff(_at(_running(sound), np.clip(borders - start, 0, most))) / HOP


def _looped(sound: Sound, borders: NDArray[np.int64]) -> Energies:
    """What overlaps at a seam has the power of either."""
    running, period = _running(sound), sound.samples - min(CROSSFADE, sound.samples // 4)
    turns, rest = np.divmod(borders, period)
    return np.diff(turns * _at(running, np.array([period])) + _at(running, rest)) / HOP


def _powers(ducking: Ducking | None, borders: NDArray[np.int64]) -> Energies:
    """What it leaves of the energy of every hop, looked at `LOOKS` times in it."""
    if ducking is None:
        return np.ones(len(borders) - 1)
    places = (borders[:-1, None] + (np.arange(LOOKS) + 0.5) * HOP / LOOKS).ravel()
    powers: Energies = 10 ** (ducking.at(places) / 10)
    return np.asarray(powers.reshape(-1, LOOKS).mean(axis=1))


def _power(decibels: float) -> float:
    return float(10 ** (decibels / 10))
