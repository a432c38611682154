"""Drawn music + spoken line + length -> soundtrack, from artifacts that many variations share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from crosscut import mix
from crosscut.artifacts import artifact_key
from crosscut.media import AUDIO_RATE, Seconds
from crosscut.pcm import Sound
from crosscut.splice import AudioRun, Soundtrack, read_track
from crosscut.workshop import Once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from concurrent.futures import Future, ThreadPoolExecutor
    from fractions import Fraction
    from pathlib import Path

    from crosscut.fetch import Source
    from crosscut.mp4 import Track
    from crosscut.workshop import Workshop

VERSION = 1
"""Part of every name here: raise it when the sound of a mix changes."""

BODY_FILES = (".pcm", ".m4a", ".profile")
"""The limited mix, its AAC, and its loudness over time."""

TAILS_AT_ONCE = 32
"""One child process makes so many, bounded by the files it may hold open."""

MUSIC_SECONDS = 1_200
"""Music beyond this is not decoded; it would only be heard by a longer video."""


@dataclass(frozen=True)
class Part:
    """Decoded music or a voice-over: its artifact's key, its PCM file and what it measures."""

    key: str
    pcm: Path
    sound: Sound


@dataclass(frozen=True)
class Recipe:
    """What a family of soundtracks shares: parts by number in the request, and the voice's speed."""

    music: int | None
    line: int | None
    speed: Fraction


@dataclass(frozen=True)
class Mixed:
    """A soundtrack and what a meter says of it after decoding (LUFS, None: silent; dBTP)."""

    soundtrack: Soundtrack
    loudness: float | None
    true_peak: float


def samples_of(length: Seconds) -> int:
    """Exact length in samples, rounded up: sound never ends before the picture."""
    return ceil(length * AUDIO_RATE)


def decode_music(source: Source, workshop: Workshop) -> Part:
    key = artifact_key("music", source=source.sha256, version=VERSION, seconds=MUSIC_SECONDS)

    def make(paths: Mapping[str, Path]) -> None:
        answer = workshop.run(
            "crosscut.pcm:decode_audio",
            inputs=[source.path],
            outputs=[paths[".pcm"]],
            media_seconds=60,
            channels=2,
            max_seconds=MUSIC_SECONDS,
            trim=True,
        )
        paths[".json"].write_text(json.dumps(answer))

    paths = workshop.lease.make_group(key, (".pcm", ".json"), make)
    return Part(key, paths[".pcm"], Sound(**json.loads(paths[".json"].read_bytes())))


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
        pool: ThreadPoolExecutor,
        part: Callable[[Recipe], tuple[Part | None, Part | None]],
        music_gain: float,
        spans: Callable[[Recipe], Range],
    ) -> None:
        self._workshop = workshop
        self._pool = pool
        self._part = part
        self._music_gain = music_gain
        self._spans = spans
        self._steps = Once(self._measure)
        self._bodies = Once(self._body)
        self._made: dict[tuple[Recipe, int], Future[dict[int, Mixed]]] = {}

    def ask(self, wanted: Iterable[tuple[Recipe, int]]) -> None:
        """Start what is new of these (recipe, samples); call from one thread."""
        fresh: dict[Recipe, set[int]] = {}
        for recipe, samples in wanted:
            if (recipe, samples) not in self._made:
                fresh.setdefault(recipe, set()).add(samples)
        for recipe, lengths in fresh.items():
            batch = self._pool.submit(self._mixes, recipe, sorted(lengths))
            self._made.update({(recipe, samples): batch for samples in lengths})

    def wait(self, recipe: Recipe, samples: int) -> Mixed:
        """The soundtrack, once it is made. Raises what went wrong with it."""
        return self._made[recipe, samples].result()[samples]

    def _inputs(self, recipe: Recipe) -> tuple[mix.Levels, list[Path], list[str]]:
        music, line = self._part(recipe)
        sounds = [part.sound if part else None for part in (music, line)]
        levels = mix.plan_levels(*sounds, music_gain=self._music_gain)
        present = [part for part in (music, line) if part]
        return levels, [part.pcm for part in present], [part.key for part in present]

    def _measure(self, recipe: Recipe) -> mix.Steps:
        levels, inputs, keys = self._inputs(recipe)
        span = self._spans(recipe)
        wanted: dict[str, Any] = {"levels": levels.arguments(), "shortest": span.shortest, "longest": span.longest}
        key = artifact_key("steps", parts=keys, version=VERSION, **wanted)
        return mix.Steps.of(
            self._workshop.lease.make_json(
                key,
                lambda: self._workshop.run(
                    "crosscut.mix:measure_mix", inputs=inputs, media_seconds=span.longest / AUDIO_RATE, **wanted
                ),
            )
        )

    def _body(self, recipe_step: tuple[Recipe, int]) -> Body:
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

        files = self._workshop.lease.make_group(key, BODY_FILES, make)
        return Body(key, files, read_track(files[".m4a"], "audio"))

    def _mixes(self, recipe: Recipe, lengths: Sequence[int]) -> dict[int, Mixed]:
        steps = self._steps.get(recipe)
        by_step: dict[int, list[int]] = {}
        for samples in lengths:
            by_step.setdefault(steps.at(samples), []).append(samples)
        made: dict[int, Mixed] = {}
        for step, same in by_step.items():
            made |= self._tails(self._bodies.get((recipe, step)), same)
        return made

    def _tails(self, body: Body, lengths: Sequence[int]) -> dict[int, Mixed]:
        lease = self._workshop.lease
        keys = {samples: artifact_key("tail", body=body.key, samples=samples) for samples in lengths}
        found = {
            samples: (path, facts)
            for samples, key in keys.items()
            if (facts := lease.get_json(key)) is not None and (path := lease.get(key, ".m4a")) is not None
        }
        missing = [samples for samples in lengths if samples not in found]
        for start in range(0, len(missing), TAILS_AT_ONCE):
            found |= self._render_tails(body, missing[start : start + TAILS_AT_ONCE], keys)
        return {samples: _mixed(body, *tail) for samples, tail in found.items()}

    def _render_tails(
        self, body: Body, lengths: Sequence[int], keys: Mapping[int, str]
    ) -> dict[int, tuple[Path, dict[str, Any]]]:
        lease = self._workshop.lease
        scratch = [lease.scratch(".m4a") for _ in lengths]
        with self._workshop.telemetry.timed("tail", count=len(lengths)):
            answer = self._workshop.run(
                "crosscut.mix:render_tails",
                inputs=[body.files[suffix] for suffix in BODY_FILES],
                outputs=scratch,
                media_seconds=len(lengths),
                lengths=list(lengths),
            )
        made = {}
        for samples, path, facts in zip(lengths, scratch, answer["tails"], strict=True):
            kept = lease.adopt(path, keys[samples], ".m4a")
            lease.put_json(keys[samples], facts)
            made[samples] = (kept, facts)
        return made


def _mixed(body: Body, path: Path, facts: Mapping[str, Any]) -> Mixed:
    tail = mix.SoundtrackPlan.of(body.files[".m4a"], path, facts)
    runs = (
        AudioRun(tail.body, body.track, 0, tail.body_frames),
        AudioRun(tail.tail, read_track(tail.tail, "audio"), tail.tail_skip, tail.tail_frames),
    )
    soundtrack = Soundtrack(tuple(run for run in runs if run.count), tail.priming, tail.samples)
    return Mixed(soundtrack, tail.loudness, tail.true_peak)
