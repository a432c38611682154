"""What a soundtrack is made of: the words for it, and the music and clips' sound it takes, decoded.

A recipe says what is heard and where; its parts are decoded sound in PCM files, as `pcm` describes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Any

from crosscut import blend
from crosscut.artifacts import artifact_key, whole
from crosscut.media import AUDIO_RATE, NO_TIME, Seconds
from crosscut.pcm import Sound

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from crosscut.splice import Soundtrack
    from crosscut.workshop import Material, Workshop

VERSION = 6
"""Part of every name of sound: raise it when the sound of a mix changes."""

PART_FILES = (".pcm", ".json")
"""Decoded sound and what it measures."""

MUSIC_SECONDS = 1_200
"""Music beyond this is not decoded; it would only be heard by a longer video."""

MUSIC_STEP = 30
"""Seconds: music is decoded in whole steps of this, so that videos of about one length share it."""

STEREO = 8
"""Bytes of a sample for two loudspeakers, as `pcm` stores it; a limited mix takes half."""


@dataclass(frozen=True)
class Part:
    """Decoded music, a voice-over or a clip's sound: its artifact's key, its PCM file and what it measures."""

    key: str
    pcm: Path
    sound: Sound


@dataclass(frozen=True)
class Spoken:
    """A line by its number in the request, its speed, and the sample of the video at which it begins."""

    line: int
    speed: Fraction
    start: int


@dataclass(frozen=True)
class Shown:
    """A clip's place in a video, in samples, until the next clip's; None: it has no sound, or none that is kept.

    `gain` is in dB beside its usual level.
    """

    clip: str | None
    start: int
    samples: int
    gain: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """What is heard: music by number in the request, voice-overs, and the clips where they are kept.

    One without clips is shared by videos of many lengths; one with clips is of one video, and has all clips of it in
    their order. Each stage of a request has recipes of its own, so that what is added later changes nothing before it.
    """

    music: int | None
    voices: tuple[Spoken, ...] = ()
    clips: tuple[Shown, ...] = ()
    stage: int = 0


@dataclass(frozen=True)
class Parts:
    """The sounds of a recipe, voices and clips in its order."""

    music: Part | None
    voices: tuple[Part, ...] = ()
    clips: tuple[Part | None, ...] = ()

    @property
    def audible(self) -> tuple[Part | None, ...]:
        """The clips, None also for one whose sound is silence."""
        return tuple(clip if clip and clip.sound.loudness is not None else None for clip in self.clips)


@dataclass(frozen=True)
class Mixed:
    """A soundtrack and what a meter says of it after decoding (LUFS, None: silent; dBTP).

    `before` is the loudness of its parts as they came, their energies added up.
    """

    soundtrack: Soundtrack
    loudness: float | None
    true_peak: float
    before: float | None


@dataclass(frozen=True)
class Range:
    """Shortest and longest soundtrack a recipe is asked for, in samples."""

    shortest: int
    longest: int


def samples_of(length: Seconds) -> int:
    """Exact length in samples, rounded up: sound never ends before the picture."""
    return ceil(length * AUDIO_RATE)


def music_seconds(longest: int) -> int:
    """How much music is decoded for soundtracks of at most `longest` samples: as much again may be trimmed silence."""
    steps = ceil(Fraction(longest, MUSIC_STEP * AUDIO_RATE))
    return min((steps + 1) * MUSIC_STEP, MUSIC_SECONDS)


def decode_music(
    source: Material, workshop: Workshop, longest: int = MUSIC_SECONDS * AUDIO_RATE, start: Seconds = NO_TIME
) -> Part:
    """The part of the music that soundtracks of at most `longest` samples can hear; its loudness is that part's.

    It begins at `start` in its file. Raises MixError "start_too_late" where nothing is left from there on.
    """
    seconds, skip = music_seconds(longest), blend.samples_in(start)
    key = artifact_key("music", source=source.sha256, version=VERSION, seconds=seconds, skip=skip)
    wanted = {"channels": 2, "max_seconds": seconds, "trim": True, "skip": skip}
    return _decoded("decode_audio", key, source, workshop, 60, wanted)


def decode_clip_sound(source: Material, workshop: Workshop, start: Seconds, duration: Seconds) -> Part:
    """The clip's own sound that belongs to its pictures from `start` on; silent where it has none."""
    wanted = {"start": str(start), "samples": samples_of(duration)}
    key = artifact_key("clip-sound", source=source.sha256, version=VERSION, **wanted)
    return _decoded("decode_clip", key, source, workshop, float(start + duration), wanted)


def _decoded(
    task: str, key: str, source: Material, workshop: Workshop, media_seconds: float, wanted: Mapping[str, Any]
) -> Part:
    def read(paths: Mapping[str, Path]) -> Part:
        sound = Sound(**json.loads(paths[".json"].read_bytes()))
        return Part(key, whole(paths[".pcm"], sound.samples * STEREO), sound)

    found = workshop.find(key, PART_FILES, read)
    if found is not None:
        return found
    path = source.path  # it may be fetched again here, which a maker must not do

    def make(paths: Mapping[str, Path]) -> None:
        answer = workshop.run(
            f"crosscut.pcm:{task}", inputs=[path], outputs=[paths[".pcm"]], media_seconds=media_seconds, **wanted
        )
        paths[".json"].write_text(json.dumps(answer))

    return workshop.piece(key, PART_FILES, make, read)
