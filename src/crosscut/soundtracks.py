"""Drawn music + spoken line + length -> soundtrack, from artifacts that many variations share."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import TYPE_CHECKING, Any

from crosscut import blend, mix
from crosscut.artifacts import artifact_key, whole
from crosscut.errors import ProbeError, StorageError
from crosscut.loudness import Profile
from crosscut.media import AUDIO_RATE, NO_TIME, Seconds
from crosscut.pcm import Sound
from crosscut.splice import AudioRun, Soundtrack, read_track
from crosscut.workshop import Once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from concurrent.futures import Future, ThreadPoolExecutor
    from pathlib import Path

    from crosscut.media import MixSettings
    from crosscut.mp4 import Track
    from crosscut.workshop import Material, Workshop

VERSION = 3
"""Part of every name here: raise it when the sound of a mix changes."""

BODY_FILES = (".pcm", ".m4a", ".profile")
"""The limited mix, its AAC, and its loudness over time."""

PART_FILES = (".pcm", ".json")
"""Decoded sound and what it measures."""

TAILS_AT_ONCE = 32
"""One child process makes so many, bounded by the files it may hold open."""

MUSIC_SECONDS = 1_200
"""Music beyond this is not decoded; it would only be heard by a longer video."""

MUSIC_STEP = 30
"""Seconds: music is decoded in whole steps of this, so that videos of about one length share it."""

STEREO = 8
"""Bytes of a sample for two loudspeakers, as `pcm` stores it; the limited mix takes half."""

BODIES_KEPT = 256
"""Bodies held at once, each with the tables of its track."""

KEPT = 2_048
"""Soundtracks held at once: many times what is asked for ahead. What falls out is an artifact and is read again."""


@dataclass(frozen=True)
class Part:
    """Decoded music or a voice-over: its artifact's key, its PCM file and what it measures."""

    key: str
    pcm: Path
    sound: Sound


@dataclass(frozen=True)
class Recipe:
    """What a family of soundtracks shares: parts by number in the request, and the voice's speed.

    Each stage of a request has families of its own, so that what is added later changes nothing before it.
    """

    music: int | None
    line: int | None
    speed: Fraction
    stage: int = 0


@dataclass(frozen=True)
class Mixed:
    """A soundtrack and what a meter says of it after decoding (LUFS, None: silent; dBTP)."""

    soundtrack: Soundtrack
    loudness: float | None
    true_peak: float


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

    def read(paths: Mapping[str, Path]) -> Part:
        sound = Sound(**json.loads(paths[".json"].read_bytes()))
        return Part(key, whole(paths[".pcm"], sound.samples * STEREO), sound)

    found = workshop.find(key, PART_FILES, read)
    if found is not None:
        return found
    path = source.path  # it may be fetched again here, which a maker must not do

    def make(paths: Mapping[str, Path]) -> None:
        answer = workshop.run(
            "crosscut.pcm:decode_audio",
            inputs=[path],
            outputs=[paths[".pcm"]],
            media_seconds=60,
            channels=2,
            max_seconds=seconds,
            trim=True,
            skip=skip,
        )
        paths[".json"].write_text(json.dumps(answer))

    return workshop.piece(key, PART_FILES, make, read)


@dataclass(frozen=True)
class Range:
    """Shortest and longest soundtrack a recipe is asked for, in samples."""

    shortest: int
    longest: int


@dataclass(frozen=True)
class Body:
    key: str
    files: Mapping[str, Path]
    track: Track


class Soundtracks:
    """Makes bodies and tails as they are asked for, each once. Thread-safe.

    `part` gives a recipe's music and voice-over, either None; `spans` the lengths it may be asked for.
    """

    def __init__(
        self,
        workshop: Workshop,
        pool: ThreadPoolExecutor | None,
        part: Callable[[Recipe], tuple[Part | None, Part | None]],
        settings: MixSettings,
        spans: Callable[[Recipe], Range],
        kept: int = KEPT,
    ) -> None:
        """At most about `kept` soundtracks are held: wait for one before so many others are asked for."""
        self._workshop = workshop
        self._pool = pool
        self._part = part
        self._settings = settings
        self._fade_out = blend.samples_in(settings.fade_out)
        self._spans = spans
        self._steps = Once(self._measure)
        self._bodies = Once(self._body, BODIES_KEPT)
        self._kept = kept
        self._made: OrderedDict[tuple[Recipe, int], Future[dict[int, Mixed]]] = OrderedDict()
        """The last asked for comes last."""
        self._fresh: list[tuple[tuple[Recipe, int], Future[dict[int, Mixed]]]] = []
        """Asked for since things were settled."""

    def use(self, workshop: Workshop, pool: ThreadPoolExecutor) -> None:
        """Work with these from now on; only while nothing is being made."""
        self._workshop = workshop
        self._pool = pool

    def ask(self, wanted: Iterable[tuple[Recipe, int]]) -> None:
        """Start what is new of these (recipe, samples); call from one thread."""
        assert self._pool is not None, "who only looks does not ask"
        fresh: dict[Recipe, set[int]] = {}
        for recipe, samples in wanted:
            if (recipe, samples) in self._made:
                self._made.move_to_end((recipe, samples))
            else:
                fresh.setdefault(recipe, set()).add(samples)
        for recipe, lengths in fresh.items():
            batch = self._pool.submit(self._mixes, recipe, sorted(lengths))
            asked = {(recipe, samples): batch for samples in lengths}
            self._made.update(asked)
            self._fresh += asked.items()
        while len(self._made) > self._kept:
            self._made.popitem(last=False)

    def wait(self, recipe: Recipe, samples: int) -> Mixed:
        """The soundtrack, once it is made. Raises what went wrong with it."""
        return self._made[recipe, samples].result()[samples]

    def get(self, recipe: Recipe, samples: int) -> Mixed:
        """The soundtrack, here and now, for who has not asked for it."""
        return self._mixes(recipe, [samples])[samples]

    def settle(self) -> None:
        """Stop what has not begun, wait for what has, and forget what failed: who asks again has it tried again."""
        for _, future in self._fresh:
            future.cancel()
        for key, future in self._fresh:
            if (future.cancelled() or future.exception() is not None) and self._made.get(key) is future:
                del self._made[key]
        self._fresh.clear()
        self._steps.forget_errors()
        self._bodies.forget_errors()

    def _inputs(self, recipe: Recipe) -> tuple[blend.Levels, list[Path], list[str]]:
        music, line = self._part(recipe)
        heard, said = (part.sound if part else None for part in (music, line))
        levels = blend.plan_levels(heard, said, self._settings)
        present = [part for part in (music, line) if part]
        return levels, [part.pcm for part in present], [part.key for part in present]

    def _measure(self, recipe: Recipe) -> mix.Steps:
        if self._settings.loudness is None:
            return mix.AS_IT_IS
        levels, inputs, keys = self._inputs(recipe)
        span = self._spans(recipe)
        wanted: dict[str, Any] = {
            "levels": levels.arguments(),
            "target": self._settings.loudness,
            "fade_out": self._fade_out,
            "shortest": span.shortest,
            "longest": span.longest,
        }
        key = artifact_key("steps", parts=keys, version=VERSION, **wanted)
        return mix.Steps.of(
            self._workshop.piece_json(
                key,
                lambda: self._workshop.run(
                    "crosscut.mix:measure_mix", inputs=inputs, media_seconds=span.longest / AUDIO_RATE, **wanted
                ),
            )
        )

    def _body(self, recipe_step: tuple[Recipe, float]) -> Body:
        recipe, step = recipe_step
        levels, inputs, keys = self._inputs(recipe)
        wanted: dict[str, Any] = {"levels": levels.arguments(), "samples": self._spans(recipe).longest, "step": step}
        key = artifact_key("body", parts=keys, version=VERSION, **wanted)

        def make(paths: Mapping[str, Path]) -> None:
            with self._workshop.telemetry.timed("mix", music=recipe.music, line=recipe.line, step=step):
                self._workshop.run(
                    "crosscut.mix:render_body",
                    inputs=inputs,
                    outputs=[paths[suffix] for suffix in BODY_FILES],
                    media_seconds=wanted["samples"] / AUDIO_RATE,
                    **wanted,
                )

        def read(files: Mapping[str, Path]) -> Body:
            samples = wanted["samples"]
            whole(files[".pcm"], samples * STEREO // 2)
            Profile.from_bytes(files[".profile"].read_bytes(), samples)
            return Body(key, files, read_track(files[".m4a"], "audio"))

        return self._workshop.piece(key, BODY_FILES, make, read)

    def _mixes(self, recipe: Recipe, lengths: Sequence[int]) -> dict[int, Mixed]:
        steps = self._steps.get(recipe)
        by_step: dict[float, list[int]] = {}
        for samples in lengths:
            by_step.setdefault(steps.at(samples), []).append(samples)
        made: dict[int, Mixed] = {}
        for step, same in by_step.items():
            made |= self._tails(self._bodies.get((recipe, step)), same)
        return made

    def _tails(self, body: Body, lengths: Sequence[int]) -> dict[int, Mixed]:
        fade = self._fade_out
        keys = {samples: artifact_key("tail", body=body.key, samples=samples, fade_out=fade) for samples in lengths}
        made = {samples: mixed for samples, key in keys.items() if (mixed := self._found(body, key))}
        missing = [samples for samples in lengths if samples not in made]
        self._workshop.meters.add("cache_hits", len(made))
        self._workshop.meters.add("cache_misses", len(missing))
        for start in range(0, len(missing), TAILS_AT_ONCE):
            made |= self._render_tails(body, missing[start : start + TAILS_AT_ONCE], keys)
        return made

    def _found(self, body: Body, key: str) -> Mixed | None:
        """The soundtrack with the stored tail, None where there is none that can be read."""
        lease = self._workshop.lease
        facts, path = lease.get_json(key), lease.get(key, ".m4a")
        if facts is None or path is None:
            return None
        try:
            return _mixed(body, path, facts)
        except (ProbeError, StorageError):
            return None

    def _render_tails(self, body: Body, lengths: Sequence[int], keys: Mapping[int, str]) -> dict[int, Mixed]:
        lease = self._workshop.lease
        scratch = [lease.scratch(".m4a") for _ in lengths]
        with self._workshop.telemetry.timed("tail", count=len(lengths)):
            answer = self._workshop.run(
                "crosscut.mix:render_tails",
                inputs=[body.files[suffix] for suffix in BODY_FILES],
                outputs=scratch,
                media_seconds=len(lengths),
                lengths=list(lengths),
                fade_out=self._fade_out,
            )
        made = {}
        for samples, path, facts in zip(lengths, scratch, answer["tails"], strict=True):
            kept = lease.adopt(path, keys[samples], ".m4a")
            lease.put_json(keys[samples], facts)
            made[samples] = _mixed(body, kept, facts)
        return made


def _mixed(body: Body, path: Path, facts: Mapping[str, Any]) -> Mixed:
    tail = mix.SoundtrackPlan.of(body.files[".m4a"], path, facts)
    runs = (
        AudioRun(tail.body, body.track, 0, tail.body_frames),
        AudioRun(tail.tail, read_track(tail.tail, "audio"), tail.tail_skip, tail.tail_frames),
    )
    soundtrack = Soundtrack(tuple(run for run in runs if run.count), tail.priming, tail.samples)
    return Mixed(soundtrack, tail.loudness, tail.true_peak)
