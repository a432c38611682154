"""Soundtracks with the clips' own sound: spliced from the bodies of their slots, or made as a whole.

A slot is what is heard while a clip is shown. Where nothing is heard across a join, a slot sounds the same beside any
neighbours: its body is encoded once, a seam once for each pair of neighbours, and a soundtrack is an index over them.
For this a slot begins at the AAC frame nearest to its clip's place: at most 10.7 ms from it, and never adding up.
Where music or a voice-over is heard across joins the soundtrack is made as a whole, every sound at its exact place.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from crosscut import aac, blend
from crosscut.artifacts import artifact_key, whole
from crosscut.blend import EDGE, Heard
from crosscut.energies import foretold
from crosscut.loudness import HOP, decibels, loudness_of
from crosscut.media import AAC_FRAME, AUDIO_RATE
from crosscut.mix import MARGIN, NEAR, TRUE_PEAK, fade_of
from crosscut.recipes import STEREO, VERSION, Mixed, Part, Parts, Recipe
from crosscut.seams import QUIET, Seam
from crosscut.splice import AudioRun, Soundtrack, read_track
from crosscut.workshop import Once

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from crosscut.loudness import Signal
    from crosscut.media import MixSettings
    from crosscut.mp4 import Track
    from crosscut.workshop import Workshop

BODY_FILES = (".pcm", ".m4a", ".profile")
"""The limited mix, its AAC, and what it is over time."""

SEAM_FILES = (".m4a", ".profile", ".json")
WHOLE_FILES = (".m4a", ".json")

SILENT_FRAMES = 64
"""Of the body that stands for silence, which is repeated for as long as it is needed."""

EXACT = 0.05
"""LU from its target at which a body is left as it is: silence beside it may cost a few tenths more."""

AROUND = 0.05
"""LU that joins and the fade-out take away from a soundtrack, beside its bodies, more often than not."""

SQUEEZED = 0.3
"""LU that the limiter takes from the peaks of a voice-over, more often than not; of other sound it takes little."""

MISSED = 0.4
"""LU from the target at which a soundtrack is made as a whole instead: half a LU is promised, by any meter."""

TICK = AUDIO_RATE // 1_000
"""Samples: places within a slot are whole milliseconds, as exact places differ by a sample from video to video."""

UNHEARD = 0.15
"""The first share of a fade-out, which lowers sound by less than half a decibel."""

BODIES_KEPT, SEAMS_KEPT = 256, 4_096


@dataclass(frozen=True)
class Slot:
    """What is heard while a clip is shown, wherever that is: its sound, and voices so many samples after its start."""

    clip: Part | None = None
    gain: float = 0.0
    voices: tuple[tuple[Part, int], ...] = ()

    @property
    def frames(self) -> int:
        """Until nothing is heard any more, and a few of silence."""
        ends = [start + part.sound.samples for part, start in self.voices]
        ends += [self.clip.sound.samples] if self.clip else []
        return -(-max(ends) // AAC_FRAME) + QUIET if ends else SILENT_FRAMES

    @property
    def parts(self) -> list[Part]:
        return [*(part for part, _ in self.voices), *([self.clip] if self.clip else [])]

    def levels(self, settings: MixSettings) -> blend.Levels:
        voices = [(part.sound, start) for part, start in self.voices]
        clips = [Heard(self.clip.sound, 0, self.clip.sound.samples, self.gain)] if self.clip else []
        return blend.plan_levels(None, voices, clips, settings)

    def target(self, settings: MixSettings) -> float | None:
        """LUFS of its body; None where voices stand over a clip: its gain is the same as where nobody speaks."""
        if settings.loudness is None or (self.clip and self.voices):
            return None
        return settings.loudness + self.gain + AROUND


SILENCE = Slot()


@dataclass(frozen=True)
class Placed:
    """A slot in a soundtrack, heard for so many frames."""

    slot: Slot
    frames: int


def slots_of(recipe: Recipe, parts: Parts, samples: int, fade: int) -> list[Placed] | None:
    """The slots of a soundtrack of `samples`, faded out in the last `fade`; None where something is heard across joins.

    The last one ends at the last whole frame: what is left of its fade-out by then is silence.
    """
    if recipe.music is not None or not recipe.clips or recipe.clips[0].start:
        return None
    borders = [(shown.start + AAC_FRAME // 2) // AAC_FRAME for shown in recipe.clips] + [samples // AAC_FRAME]
    voices: list[list[tuple[Part, int]]] = [[] for _ in recipe.clips]
    for spoken, part in zip(recipe.voices, parts.voices, strict=True):
        place = max(number for number, shown in enumerate(recipe.clips) if shown.start <= max(spoken.start, 0))
        start = round((spoken.start - recipe.clips[place].start) / TICK) * TICK
        room = (borders[place + 1] - borders[place]) * AAC_FRAME
        if place == len(recipe.clips) - 1:
            room -= round(fade * (1 - UNHEARD))
        if start + part.sound.samples > room:
            return None
        voices[place].append((part, start))
    placed = []
    for shown, clip, said, (start, stop) in zip(recipe.clips, parts.audible, voices, pairwise(borders), strict=True):
        placed.append(Placed(Slot(clip, shown.gain if clip else 0.0, tuple(said)), stop - start))
    possible = all(each.frames > 0 for each in placed) and fade <= placed[-1].frames * AAC_FRAME
    return placed if possible else None


@dataclass(frozen=True, eq=False)
class _Body:
    key: str
    files: Mapping[str, Path]
    track: Track
    frames: int
    heard: Signal
    """Energy and peak of each frame."""


@dataclass(frozen=True, eq=False)
class _Seam:
    path: Path
    track: Track
    place: Seam
    heard: Signal


class Joiner:
    """Makes soundtracks of recipes with clips; bodies and seams each once. Thread-safe."""

    def __init__(self, workshop: Workshop, settings: MixSettings) -> None:
        self.workshop = workshop
        self._settings = settings
        self._bodies = Once(self._body, BODIES_KEPT)
        self._seams = Once(self._seam, SEAMS_KEPT)

    def forget_errors(self) -> None:
        self._bodies.forget_errors()
        self._seams.forget_errors()

    def mixed(self, recipe: Recipe, parts: Parts, samples: int) -> Mixed:
        """The soundtrack of that length."""
        fade = fade_of(blend.samples_in(self._settings.fade_out), samples)
        placed = slots_of(recipe, parts, samples, fade)
        levels, present = self._levels(recipe, parts)
        before = foretold(levels.as_they_came, [part.sound for part in present], samples, 0)
        found = self._spliced(placed, samples, fade, before) if placed else None
        if found is not None and self._suits(found, levels):
            return found
        return self._whole(levels, present, samples, fade, before)

    def _suits(self, mixed: Mixed, levels: blend.Levels) -> bool:
        """Whether it is as loud as it should be, or could not be louder."""
        if mixed.loudness is None or self._settings.loudness is None:
            return True
        left = self._settings.loudness - mixed.loudness
        return abs(left) <= MISSED or (left > 0 and not levels.highest)

    def _levels(self, recipe: Recipe, parts: Parts) -> tuple[blend.Levels, list[Part]]:
        heard = [(clip, shown) for clip, shown in zip(parts.audible, recipe.clips, strict=True) if clip]
        levels = blend.plan_levels(
            parts.music.sound if parts.music else None,
            [(part.sound, spoken.start) for part, spoken in zip(parts.voices, recipe.voices, strict=True)],
            [Heard(clip.sound, shown.start, shown.samples, shown.gain) for clip, shown in heard],
            self._settings,
        )
        music = [parts.music] if parts.music else []
        return levels, [*music, *parts.voices, *(clip for clip, _ in heard)]

    def _spliced(self, placed: Sequence[Placed], samples: int, fade: int, before: float | None) -> Mixed | None:
        """None where two bodies cannot be met, or a slot is too short for both of its seams."""
        runs: list[AudioRun] = []
        heard = []
        position = 0
        for each, following in zip(placed, [*placed[1:], None], strict=True):
            body = self._bodies.get(each.slot)
            seam = self._seams.get((each, following.slot if following else None, EDGE if following else fade))
            if seam is None or seam.place.first < position:
                return None
            runs += self._units(body, position, seam.place.first)
            runs.append(AudioRun(seam.path, seam.track, seam.place.skip, seam.place.count, own=True))
            lead = max(seam.place.lead, position)
            heard += [_cut(body.heard, position, lead), seam.heard[:, lead - seam.place.lead :]]
            position = seam.place.reach + 1
        surplus = sum(run.count for run in runs) - aac.frames(samples)
        runs[-1] = replace(runs[-1], count=runs[-1].count - surplus)
        energy, peak = np.concatenate(heard, axis=1)
        return Mixed(
            Soundtrack(tuple(run for run in runs if run.count), aac.PRIMING, samples),
            loudness_of(energy, AAC_FRAME, samples),
            decibels(float(peak.max())),
            before,
        )

    def _units(self, body: _Body, first: int, stop: int) -> list[AudioRun]:
        """Access units `first` to `stop` of a body, without `stop`, and silence behind its own."""
        own = min(stop, body.frames + 1)
        runs = [AudioRun(body.files[".m4a"], body.track, first, own - first)] if own > first else []
        missing = stop - max(first, own)
        while missing > 0:
            silence = self._bodies.get(SILENCE)
            count = min(missing, silence.frames - QUIET)
            runs.append(AudioRun(silence.files[".m4a"], silence.track, QUIET, count))
            missing -= count
        return runs

    def _body(self, slot: Slot) -> _Body:
        levels, samples = slot.levels(self._settings), slot.frames * AAC_FRAME
        wanted = {
            "levels": levels.arguments(),
            "samples": samples,
            "fade_out": 0,
            "target": slot.target(self._settings),
            "near": EXACT,
            "hop": AAC_FRAME,
            "peak": TRUE_PEAK - MARGIN,
        }
        key = artifact_key("slot", parts=[part.key for part in slot.parts], version=VERSION, **wanted)

        def make(paths: Mapping[str, Path]) -> None:
            outputs = [paths[suffix] for suffix in BODY_FILES]
            self._levelled(levels, slot.parts, outputs, samples, wanted)

        def read(files: Mapping[str, Path]) -> _Body:
            whole(files[".pcm"], samples * STEREO // 2)
            values = np.frombuffer(files[".profile"].read_bytes(), "<f4").reshape(2, -1)[:, : slot.frames]
            return _Body(key, files, read_track(files[".m4a"], "audio"), slot.frames, values)

        return self.workshop.piece(key, BODY_FILES, make, read)

    def _seam(self, meeting: tuple[Placed, Slot | None, int]) -> _Seam | None:
        """Of a slot and the one behind it, or the fade-out into silence; None where their bodies cannot be met."""
        placed, following, fade = meeting
        bodies = [self._bodies.get(placed.slot), *([self._bodies.get(following)] if following else [])]
        files = [body.files[suffix] for body in bodies for suffix in (".pcm", ".m4a")]
        key = artifact_key(
            "seam", bodies=[body.key for body in bodies], frames=placed.frames, fade=fade, version=VERSION
        )

        def make(paths: Mapping[str, Path]) -> None:
            with self.workshop.telemetry.timed("tail", count=1):
                answer = self.workshop.run(
                    "crosscut.seams:render_seam",
                    inputs=files,
                    outputs=[paths[".m4a"], paths[".profile"]],
                    frames=placed.frames,
                    fade=fade,
                )
            paths[".json"].write_text(json.dumps(answer))

        def read(paths: Mapping[str, Path]) -> _Seam | None:
            answer = json.loads(paths[".json"].read_bytes())
            if answer["seam"] is None:
                return None
            heard = np.frombuffer(paths[".profile"].read_bytes(), "<f4").reshape(2, answer["frames"])
            return _Seam(paths[".m4a"], read_track(paths[".m4a"], "audio"), Seam(**answer["seam"]), heard)

        return self.workshop.piece(key, SEAM_FILES, make, read)

    def _whole(
        self, levels: blend.Levels, parts: Sequence[Part], samples: int, fade: int, before: float | None
    ) -> Mixed:
        wanted = {
            "levels": levels.arguments(),
            "samples": samples,
            "fade_out": fade,
            "target": self._settings.loudness,
            "near": NEAR,
            "hop": HOP,
            "peak": TRUE_PEAK,
        }
        key = artifact_key("whole", parts=[part.key for part in parts], version=VERSION, **wanted)

        def make(paths: Mapping[str, Path]) -> None:
            scratch = [self.workshop.lease.scratch(suffix) for suffix in (".pcm", ".profile")]
            answer = self._levelled(levels, parts, [scratch[0], paths[".m4a"], scratch[1]], samples, wanted)
            paths[".json"].write_text(json.dumps(answer))
            for path in scratch:
                path.unlink()

        def read(paths: Mapping[str, Path]) -> Mixed:
            track = read_track(paths[".m4a"], "audio")
            run = AudioRun(paths[".m4a"], track, 0, aac.frames(samples), own=True)
            told = json.loads(paths[".json"].read_bytes())
            return Mixed(Soundtrack((run,), aac.PRIMING, samples), **told, before=before)

        return self.workshop.piece(key, WHOLE_FILES, make, read)

    def _levelled(
        self,
        levels: blend.Levels,
        parts: Sequence[Part],
        outputs: Sequence[Path],
        samples: int,
        wanted: Mapping[str, Any],
    ) -> dict[str, Any]:
        """What the parts measure tells the gain that is tried first: it mostly comes close."""
        loud = foretold(levels, [part.sound for part in parts], samples, wanted["fade_out"])
        goal = None if wanted["target"] is None else wanted["target"] + SQUEEZED * bool(levels.voices)
        with self.workshop.telemetry.timed("mix", seconds_long=samples / AUDIO_RATE):
            answer: dict[str, Any] = self.workshop.run(
                "crosscut.levelling:render_levelled",
                inputs=[part.pcm for part in parts],
                outputs=outputs,
                media_seconds=samples / AUDIO_RATE,
                first=0.0 if loud is None or goal is None else round(goal - loud, 1),
                **wanted,
            )
        return answer


def _cut(profile: Signal, first: int, stop: int) -> Signal:
    """Frames `first` to `stop`, without `stop`; silence behind the end."""
    found = profile[:, first : max(stop, first)]
    return np.pad(found, ((0, 0), (0, max(stop - first, 0) - found.shape[1])))
