"""The pieces of one job's variations, held while they are needed: segments, soundtracks, and what those are made of.

A piece is taken from the store, or made by whoever needs it first; with a workshop that only looks, what is not there
is a MissingError.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

from crosscut.errors import CrosscutError
from crosscut.gather import Planned, sentence
from crosscut.media import NO_TIME, Seconds
from crosscut.plan import SpokenLine
from crosscut.segments import make_segment, segment_key
from crosscut.soundtracks import Mixed, Part, Range, Recipe, Soundtracks, decode_music, samples_of
from crosscut.speech import say, voice_part
from crosscut.workshop import Once

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from crosscut.plan import Plan, Variation
    from crosscut.plandoc import PlanDoc
    from crosscut.splice import Segment
    from crosscut.voices import Word
    from crosscut.workshop import Workshop

SEGMENTS_KEPT = 512
"""Segments held at once, each with the tables of its track; what falls out is read again."""

PARTS_KEPT = 1_024


class Pieces:
    """Thread-safe, but for `use` and `settle`: those are called while nothing is being made."""

    def __init__(self, plan: Plan, doc: PlanDoc, workshop: Workshop, base: Path | None) -> None:
        self._plan = plan
        self._doc = doc
        self._workshop = workshop
        self._base = base
        self._encoders: ThreadPoolExecutor | None = None
        self._segments = Once(self._segment, SEGMENTS_KEPT)
        self._music = Once(self._decode_music, PARTS_KEPT)
        self._picture_spans = Once(plan.picture_span)
        self._voices = Once(self._voice, PARTS_KEPT)
        self._soundtracks = Soundtracks(workshop, None, self._parts, plan.request.mix, self.span)
        self._ready = Once(self._soundtrack, PARTS_KEPT)
        self._keys: dict[tuple[str, int], str] = {}

    def use(self, workshop: Workshop, encoders: ThreadPoolExecutor, mixers: ThreadPoolExecutor) -> None:
        """Work with these from now on."""
        self._workshop = workshop
        self._encoders = encoders
        self._soundtracks.use(workshop, mixers)

    def ask(self, variations: Iterable[Variation]) -> None:
        """Start what these need and nobody has asked for; call from one thread."""
        assert self._encoders is not None, "who only looks does not ask"
        recipes = []
        for variation in variations:
            for clip in variation.clips:
                if (clip, variation.target) not in self._segments:
                    self._encoders.submit(self._segments.get, (clip, variation.target))
            if sounds(variation):
                recipes.append((recipe_of(variation), samples_of(self._plan.length(variation))))
        self._soundtracks.ask(recipes)

    def segments(self, variation: Variation) -> list[Segment]:
        return [self._segments.get((clip, variation.target)) for clip in variation.clips]

    def soundtrack(self, variation: Variation) -> Mixed | None:
        """The one that was asked for; None where the variation is silent."""
        if not sounds(variation):
            return None
        return self._soundtracks.wait(recipe_of(variation), samples_of(self._plan.length(variation)))

    def soundtrack_now(self, variation: Variation) -> Mixed | None:
        """The same for who has not asked for it."""
        if not sounds(variation):
            return None
        return self._ready.get((recipe_of(variation), samples_of(self._plan.length(variation))))

    def words(self, line: int) -> tuple[Word, ...]:
        """The words of a voice-over and when each is heard, before any speed."""
        return say(self._plan.request.lines[line], self._workshop, self._doc.voices[line]).words

    def segment_key(self, clip: str, number: int) -> str:
        if (clip, number) not in self._keys:
            rendition, target = self._plan.renditions[clip, number], self._plan.targets[number]
            sha256, facts = self._doc.sources[clip].sha256, self._doc.facts[clip]
            self._keys[clip, number] = segment_key(sha256, facts, rendition, target)
        return self._keys[clip, number]

    def source(self, name: str) -> Planned:
        return Planned(self._doc.sources[name], name, self._base, self._workshop)

    def span(self, recipe: Recipe) -> Range:
        """The lengths a recipe can be asked for: shortest to longest picture, or to the end of its voice-over."""
        shortest, longest = self._picture_spans.get(recipe.stage)
        if recipe.line is not None:
            line = self._plan.lines[recipe.line]
            assert isinstance(line, SpokenLine)
            slowest_frame = max(1 / target.format.fps for target in self._plan.targets)
            longest = Seconds(max(longest, line.seconds / recipe.speed + self._plan.unspoken + slowest_frame))
        return Range(samples_of(shortest), samples_of(longest))

    def settle(self) -> None:
        """Wait for what runs, and forget what failed: who asks again has it tried again."""
        self._soundtracks.settle()
        for cache in (self._segments, self._music, self._voices, self._ready):
            cache.forget_errors()

    def _segment(self, clip_number: tuple[str, int]) -> Segment:
        clip, number = clip_number
        rendition, target, telemetry = (
            self._plan.renditions[clip_number],
            self._plan.targets[number],
            self._workshop.telemetry,
        )
        source, facts = self.source(clip), self._doc.facts[clip]
        try:
            if not rendition.reasons:
                return make_segment(source, facts, rendition, target, self._workshop)
            with telemetry.piece("conform") as report:
                return make_segment(source, facts, rendition, target, self._workshop, self._threads, report)
        except CrosscutError as error:
            raise self._named(clip, error) from error

    def _decode_music(self, number_stage: tuple[int, int]) -> Part:
        number, stage = number_stage
        name, starts = self._plan.request.music[number], self._plan.request.music_starts
        start = starts[number] if number < len(starts) else NO_TIME
        try:
            with self._workshop.telemetry.timed("music", source=self._doc.names[name]):
                return decode_music(self.source(name), self._workshop, self.longest(stage), start)
        except CrosscutError as error:
            raise self._named(name, error) from error

    def _voice(self, number_speed: tuple[int, Fraction]) -> Part:
        number, speed = number_speed
        voiced = self._doc.voices[number]
        assert voiced is not None, "a line that can be spoken has a voice"
        return voice_part(self._plan.request.lines[number], voiced, speed, self._workshop)

    def _parts(self, recipe: Recipe) -> tuple[Part | None, Part | None]:
        music = None if recipe.music is None else self._music.get((recipe.music, recipe.stage))
        line = None if recipe.line is None else self._voices.get((recipe.line, recipe.speed))
        return music, line

    def _soundtrack(self, recipe_samples: tuple[Recipe, int]) -> Mixed:
        return self._soundtracks.get(*recipe_samples)

    def _named(self, source: str, error: CrosscutError) -> CrosscutError:
        """Log the error and let its sentence name the source."""
        name = self._doc.names[source]
        self._workshop.telemetry.failed(error, source=name)
        public = sentence(source, name, error)
        return type(error)(public, code=error.code, retryable=error.retryable, after=error.after)

    def longest(self, stage: int) -> int:
        """Samples of the longest soundtrack that anything in that stage can ask for."""
        drawn = range(*self._plan.request.all_stages[stage].lines)
        lines = [number for number in drawn if isinstance(self._plan.lines[number], SpokenLine)]
        return max(self.span(Recipe(None, line, Fraction(1), stage)).longest for line in (None, *lines))

    @cached_property
    def _threads(self) -> int:
        """Encoder threads: processors that no other clip will use."""
        return encoder_threads(self._plan, self._workshop.workers)


def encoder_threads(plan: Plan, processors: int) -> int:
    """For one clip, when as many as possible are encoded at the same time."""
    encodes = sum(bool(rendition.reasons) for rendition in plan.renditions.values())
    return max(1, processors // max(1, min(encodes, processors)))


def sounds(variation: Variation) -> bool:
    return variation.music is not None or variation.line is not None


def recipe_of(variation: Variation) -> Recipe:
    return Recipe(variation.music, variation.line, variation.speed, variation.stage)
