"""The pieces of one job's variations, held while they are needed: segments, soundtracks, and what those are made of.

A piece is taken from the store, or made by whoever needs it first; with a workshop that only looks, what is not there
is a MissingError.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from crosscut.blend import samples_in
from crosscut.cuts import cut_of
from crosscut.errors import CrosscutError
from crosscut.gather import Planned, sentence
from crosscut.media import AUDIO_RATE, NO_TIME, Seconds
from crosscut.plan import SpokenLine
from crosscut.segments import Take, make_segment, segment_key
from crosscut.soundtracks import (
    Mixed,
    Part,
    Parts,
    Range,
    Recipe,
    Shown,
    Soundtracks,
    Spoken,
    decode_clip_sound,
    decode_music,
    samples_of,
)
from crosscut.speech import Captioner, say, voice_part
from crosscut.splice import splice
from crosscut.workshop import Once

if TYPE_CHECKING:
    from collections.abc import Iterable
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from crosscut.captions import Captions
    from crosscut.plan import Plan, Variation
    from crosscut.plandoc import PlanDoc
    from crosscut.splice import Segment, VirtualFile
    from crosscut.voices import Word
    from crosscut.workshop import Workshop

SEGMENTS_KEPT = 512
"""Segments held at once, each with the tables of its track; what falls out is read again."""

PARTS_KEPT = 1_024


class Shot(NamedTuple):
    """What is seen of a clip: its key, the number of the format, and what is drawn into it (see `Take`)."""

    clip: str
    target: int
    captions: str | None = None
    hold: int = 0


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
        self._clips = Once(self._clip_sound, PARTS_KEPT)
        self._words = Once(self._spoken_words, PARTS_KEPT)
        self._soundtracks = Soundtracks(workshop, None, self._parts, plan.request.mix, self.span)
        self._ready = Once(self._soundtrack, PARTS_KEPT)
        self._captioner = Captioner(plan, self._words.get)
        self._keys: dict[Shot, str] = {}

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
            for shot in self.shots(variation):
                if shot not in self._segments:
                    self._encoders.submit(self._segments.get, shot)
            if recipe := self.recipe(variation):
                recipes.append((recipe, samples_of(self._plan.length(variation))))
        self._soundtracks.ask(recipes)

    def joined(self, variation: Variation, mixed: Mixed | None, *, grouped: bool = False) -> VirtualFile:
        """The whole variation, with its captions where they are a track; `grouped`: see `splice`."""
        shots, fps = self.shots(variation), self._plan.targets[variation.target].format.fps
        holds = [slot.hold for slot in variation.slots]
        holds[-1] += variation.hold
        file = splice(
            [self._segments.get(shot) for shot in shots],
            mixed.soundtrack if mixed else None,
            hold=[(hold - shot.hold) / fps for hold, shot in zip(holds, shots, strict=True)],
            captions=self.captions(variation),
            grouped=grouped,
        )
        return file if self._shares else file.alone()

    def soundtrack(self, variation: Variation) -> Mixed | None:
        """The one that was asked for; None where the variation is silent."""
        recipe = self.recipe(variation)
        return self._soundtracks.wait(recipe, samples_of(self._plan.length(variation))) if recipe else None

    def soundtrack_now(self, variation: Variation) -> Mixed | None:
        """The same for who has not asked for it."""
        recipe = self.recipe(variation)
        return self._ready.get((recipe, samples_of(self._plan.length(variation)))) if recipe else None

    def captions(self, variation: Variation) -> Captions | None:
        """Those that are a track and a file of their own; None where there are none."""
        return self._captioner.track(variation)

    def captions_recipe(self, variation: Variation) -> dict[str, Any]:
        """What decides the captions, whichever way they are shown."""
        return self._captioner.recipe(variation)

    def shots(self, variation: Variation) -> list[Shot]:
        """What its pictures are made of, one for each clip."""
        return [
            Shot(slot.clip, variation.target, *burnt)
            for slot, burnt in zip(variation.slots, self._captioner.burnt(variation), strict=True)
        ]

    def segment_key(self, shot: Shot) -> str:
        if shot not in self._keys:
            sha256 = self._doc.sources[shot.clip].sha256
            self._keys[shot] = segment_key(sha256, take_of(self._plan, *shot))
        return self._keys[shot]

    def recipe(self, variation: Variation) -> Recipe | None:
        """What is heard in it; None where it is silent."""
        shown = self._shown(variation)
        if variation.music is None and not variation.said and not any(each.clip for each in shown):
            return None
        voices = tuple(Spoken(each.line, each.speed, samples_in(each.start)) for each in variation.said)
        return Recipe(variation.music, voices, shown, variation.stage)

    def _shown(self, variation: Variation) -> tuple[Shown, ...]:
        """Its clips where they are heard; also where each line belongs to one, so that others can share its sound."""
        keeps = self._plan.request.clip_sound == "keep"
        shared = variation.music is None and variation.line is None and any(slot.said for slot in variation.slots)
        if not (keeps or shared):
            return ()
        fps = self._plan.targets[variation.target].format.fps
        edges = list(accumulate((slot.length for slot in variation.slots), initial=0))
        edges[-1] += variation.hold
        places = [samples_in(Seconds(edge / fps)) for edge in edges]
        shown = []
        for slot, start, stop in zip(variation.slots, places, places[1:], strict=False):
            cut, facts = cut_of(slot.clip), self._doc.facts[slot.clip]
            heard = keeps and facts.audio is not None and cut.gain is not None
            shown.append(Shown(slot.clip if heard else None, start, stop - start, cut.gain or 0.0))
        return tuple(shown) if shared or any(each.clip for each in shown) else ()

    def source(self, name: str) -> Planned:
        return Planned(self._doc.sources[name], cut_of(name).source, self._base, self._workshop)

    def span(self, recipe: Recipe) -> Range:
        """The lengths a recipe can be asked for: shortest to longest picture, or to the end of its voice-overs."""
        shortest, longest = self._picture_spans.get(recipe.stage)
        slowest_frame = max(1 / target.format.fps for target in self._plan.targets)
        for voice in recipe.voices:
            line = self._plan.lines[voice.line]
            assert isinstance(line, SpokenLine)
            end = Fraction(voice.start + 1, AUDIO_RATE) + line.seconds / voice.speed
            longest = Seconds(max(longest, end + self._plan.request.mix.fade_out + slowest_frame))
        return Range(samples_of(shortest), samples_of(longest))

    def settle(self) -> None:
        """Wait for what runs, and forget what failed: who asks again has it tried again."""
        self._soundtracks.settle()
        for cache in (self._segments, self._music, self._voices, self._clips, self._words, self._ready):
            cache.forget_errors()
        self._captioner.forget_errors()

    def _segment(self, shot: Shot) -> Segment:
        telemetry, take = self._workshop.telemetry, take_of(self._plan, *shot)
        source = self.source(shot.clip)
        try:
            if take.copied:
                return make_segment(source, take, self._workshop)
            with telemetry.piece("conform") as report:
                return make_segment(source, take, self._workshop, self._threads, report)
        except CrosscutError as error:
            raise self._named(shot.clip, error) from error

    def _clip_sound(self, clip: str) -> Part:
        video = self._doc.facts[clip].video
        assert video is not None, "a usable clip has pictures"
        try:
            with self._workshop.telemetry.timed("clip_sound", source=self._doc.names[clip]):
                return decode_clip_sound(self.source(clip), self._workshop, cut_of(clip).start, video.duration)
        except CrosscutError as error:
            raise self._named(clip, error) from error

    def _spoken_words(self, line: int) -> tuple[Word, ...]:
        """The words of a voice-over and when each is heard, before any speed."""
        return say(self._plan.request.lines[line], self._workshop, self._doc.voices[line]).words

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

    def _parts(self, recipe: Recipe) -> Parts:
        return Parts(
            None if recipe.music is None else self._music.get((recipe.music, recipe.stage)),
            tuple(self._voices.get((voice.line, voice.speed)) for voice in recipe.voices),
            tuple(self._clips.get(shown.clip) if shown.clip else None for shown in recipe.clips),
        )

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
        begin = samples_in(self._plan.request.mix.voice_start)
        spoken = [Spoken(n, Fraction(1), begin) for n in drawn if isinstance(self._plan.lines[n], SpokenLine)]
        return max(self.span(Recipe(None, voices, (), stage)).longest for voices in ((), *((each,) for each in spoken)))

    @cached_property
    def _shares(self) -> bool:
        """Whether a clip is in two variations or more, on the average."""
        return len(self._plan) >= 2 * max(len(block.clips) for block in self._plan.request.blocks)

    @cached_property
    def _threads(self) -> int:
        """Encoder threads: processors that no other clip will use."""
        return encoder_threads(self._plan, self._workshop.workers)


def encoder_threads(plan: Plan, processors: int) -> int:
    """For one clip, when as many as possible are encoded at the same time."""
    encodes = sum(bool(rendition.reasons) for rendition in plan.renditions.values())
    return max(1, processors // max(1, min(encodes, processors)))


def take_of(plan: Plan, clip: str, number: int, captions: str | None = None, hold: int = 0) -> Take:
    """A usable clip in the format of that number."""
    rendition, target = plan.renditions[clip, number], plan.targets[number]
    return Take(plan.facts[clip], rendition, target, cut_of(clip).start, captions, hold)
