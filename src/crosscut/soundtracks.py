"""Soundtracks by recipe and length, from artifacts that many variations share.

What has no clips is a body and a tail for each length (see `mix`); what has, `joining` makes.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from crosscut import blend, mix
from crosscut.artifacts import artifact_key, whole
from crosscut.energies import Energies, energies
from crosscut.joining import Joiner
from crosscut.loudness import HOP, Profile, integrated
from crosscut.media import AUDIO_RATE
from crosscut.recipes import (
    PART_FILES,
    STEREO,
    VERSION,
    Mixed,
    Part,
    Parts,
    Range,
    Recipe,
    Shown,
    Spoken,
    decode_clip_sound,
    decode_music,
    music_seconds,
    samples_of,
)
from crosscut.splice import AudioRun, Soundtrack, read_track
from crosscut.workshop import Once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from concurrent.futures import Future, ThreadPoolExecutor
    from pathlib import Path

    from crosscut.media import MixSettings
    from crosscut.mp4 import Track
    from crosscut.workshop import Workshop

__all__ = [
    "PART_FILES",
    "VERSION",
    "Mixed",
    "Part",
    "Parts",
    "Range",
    "Recipe",
    "Shown",
    "Soundtracks",
    "Spoken",
    "decode_clip_sound",
    "decode_music",
    "music_seconds",
    "samples_of",
]

BODY_FILES = (".pcm", ".m4a", ".profile")
"""The limited mix, its AAC, and its loudness over time."""

TAIL_FILES = (".m4a", ".json")

TAILS_AT_ONCE = 32
"""One child process makes so many, bounded by the files it may hold open."""

BODIES_KEPT = 256
"""Bodies held at once, each with the tables of its track."""

KEPT = 2_048
"""Soundtracks held at once: many times what is asked for ahead. What falls out is an artifact and is read again."""


@dataclass(frozen=True)
class Body:
    key: str
    files: Mapping[str, Path]
    track: Track
    before: Energies
    """Of its parts as they came."""


class Soundtracks:
    """Makes what soundtracks are made of as they are asked for, each once. Thread-safe.

    `part` gives a recipe's sounds; `spans` the lengths that one without clips may be asked for.
    """

    def __init__(
        self,
        workshop: Workshop,
        pool: ThreadPoolExecutor | None,
        part: Callable[[Recipe], Parts],
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
        self._joiner = Joiner(workshop, settings)
        self._kept = kept
        self._made: OrderedDict[tuple[Recipe, int], Future[dict[int, Mixed]]] = OrderedDict()
        """The last asked for comes last."""
        self._fresh: list[tuple[tuple[Recipe, int], Future[dict[int, Mixed]]]] = []
        """Asked for since things were settled."""

    def use(self, workshop: Workshop, pool: ThreadPoolExecutor) -> None:
        """Work with these from now on; only while nothing is being made."""
        self._workshop = self._joiner.workshop = workshop
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
        self._joiner.forget_errors()

    def _inputs(self, recipe: Recipe) -> tuple[blend.Levels, list[Part]]:
        parts = self._part(recipe)
        voices = [(part.sound, spoken.start) for part, spoken in zip(parts.voices, recipe.voices, strict=True)]
        levels = blend.plan_levels(parts.music.sound if parts.music else None, voices, settings=self._settings)
        return levels, [*([parts.music] if parts.music else []), *parts.voices]

    def _measure(self, recipe: Recipe) -> mix.Steps:
        if self._settings.loudness is None:
            return mix.AS_IT_IS
        levels, parts = self._inputs(recipe)
        span = self._spans(recipe)
        wanted: dict[str, Any] = {
            "levels": levels.arguments(),
            "target": self._settings.loudness,
            "fade_out": self._fade_out,
            "shortest": span.shortest,
            "longest": span.longest,
        }
        key = artifact_key("steps", parts=[part.key for part in parts], version=VERSION, **wanted)
        return mix.Steps.of(
            self._workshop.piece_json(
                key,
                lambda: self._workshop.run(
                    "crosscut.mix:measure_mix",
                    inputs=[part.pcm for part in parts],
                    media_seconds=span.longest / AUDIO_RATE,
                    **wanted,
                ),
            )
        )

    def _body(self, recipe_step: tuple[Recipe, float]) -> Body:
        recipe, step = recipe_step
        levels, parts = self._inputs(recipe)
        wanted: dict[str, Any] = {"levels": levels.arguments(), "samples": self._spans(recipe).longest, "step": step}
        key = artifact_key("body", parts=[part.key for part in parts], version=VERSION, **wanted)

        def make(paths: Mapping[str, Path]) -> None:
            with self._workshop.telemetry.timed("mix", music=recipe.music, step=step):
                self._workshop.run(
                    "crosscut.mix:render_body",
                    inputs=[part.pcm for part in parts],
                    outputs=[paths[suffix] for suffix in BODY_FILES],
                    media_seconds=wanted["samples"] / AUDIO_RATE,
                    **wanted,
                )

        def read(files: Mapping[str, Path]) -> Body:
            samples = wanted["samples"]
            whole(files[".pcm"], samples * STEREO // 2)
            Profile.from_bytes(files[".profile"].read_bytes(), samples)
            before = energies(levels.as_they_came, [part.sound for part in parts], samples)
            return Body(key, files, read_track(files[".m4a"], "audio"), before)

        return self._workshop.piece(key, BODY_FILES, make, read)

    def _mixes(self, recipe: Recipe, lengths: Sequence[int]) -> dict[int, Mixed]:
        if recipe.clips:
            parts = self._part(recipe)
            if any(parts.clips) and not any(parts.audible):
                return self._mixes(replace(recipe, clips=()), lengths)
            return {samples: self._joiner.mixed(recipe, parts, samples) for samples in lengths}
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

        def read(files: Mapping[str, Path]) -> Mixed:
            return _mixed(body, files)

        found = self._workshop.each(lambda samples: self._workshop.find(keys[samples], TAIL_FILES, read), lengths)
        made = {samples: mixed for samples, mixed in zip(lengths, found, strict=True) if mixed}
        missing = [samples for samples in lengths if samples not in made]
        self._workshop.meters.add("cache_misses", len(missing))
        for start in range(0, len(missing), TAILS_AT_ONCE):
            made |= self._render_tails(body, missing[start : start + TAILS_AT_ONCE], keys)
        return made

    def _render_tails(self, body: Body, lengths: Sequence[int], keys: Mapping[int, str]) -> dict[int, Mixed]:
        lease = self._workshop.lease
        scratch = [{suffix: lease.scratch(suffix) for suffix in TAIL_FILES} for _ in lengths]
        with self._workshop.telemetry.timed("tail", count=len(lengths)):
            answer = self._workshop.run(
                "crosscut.mix:render_tails",
                inputs=[body.files[suffix] for suffix in BODY_FILES],
                outputs=[files[".m4a"] for files in scratch],
                media_seconds=len(lengths),
                lengths=list(lengths),
                fade_out=self._fade_out,
            )

        def kept(made: tuple[int, Mapping[str, Path], Any]) -> Mixed:
            samples, files, facts = made
            lease.with_room(lambda: files[".json"].write_text(json.dumps(facts)))
            return _mixed(body, lease.keep_group(keys[samples], files))

        made = zip(lengths, scratch, answer["tails"], strict=True)
        return dict(zip(lengths, self._workshop.each(kept, made), strict=True))


def _mixed(body: Body, files: Mapping[str, Path]) -> Mixed:
    facts = json.loads(files[".json"].read_bytes())
    tail = mix.SoundtrackPlan.of(body.files[".m4a"], files[".m4a"], facts)
    runs = (
        AudioRun(tail.body, body.track, 0, tail.body_frames),
        AudioRun(tail.tail, read_track(tail.tail, "audio"), tail.tail_skip, tail.tail_frames, own=True),
    )
    soundtrack = Soundtrack(tuple(run for run in runs if run.count), tail.priming, tail.samples)
    before = integrated(body.before[: tail.samples // HOP])
    return Mixed(soundtrack, tail.loudness, tail.true_peak, before)
