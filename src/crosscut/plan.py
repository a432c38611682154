"""What will be made, worked out before anything is spent: every variation by index, and what the whole costs. Pure."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING, Literal

from crosscut.combinations import Combinations
from crosscut.draws import Draws
from crosscut.errors import RequestError
from crosscut.media import ClipFacts, Seconds, Target, differences
from crosscut.naming import NameTemplate, labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from crosscut.request import Request

FADE = Seconds(Fraction(1, 2))
"""Length of the fade-out; a voice-over has to be over when it starts."""

SPEED_LIMIT = Fraction(5, 4)
SPEED_STEP = Fraction(1, 20)
"""Voices are sped up in steps, so that few versions serve many lengths."""

LISTED = 10_000
"""Up to so many variations are looked at one by one for the plan; more are counted by their lengths."""


@dataclass(frozen=True)
class Rendition:
    """A clip in a format: how many frames it has there, and why it must be encoded (empty: it is copied)."""

    frames: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class SpokenLine:
    """Length of a voice-over; `exact` once it has been spoken, else an estimate."""

    seconds: Seconds
    exact: bool = True


@dataclass(frozen=True)
class Variation:
    """One output. Numbers are positions in the request's lists; `index` counts from 1."""

    index: int
    name: str
    combination: tuple[int, ...]
    clips: tuple[str, ...]
    target: int
    music: int | None
    line: int | None
    frames: int
    """Frames of picture, before any hold."""
    hold: int
    """Frames that the last picture stays longer."""
    speed: Fraction
    """How much faster the voice-over is spoken."""
    overflow: Literal["hold", "speed"] | None
    problem: str | None
    """Why it cannot be made, as far as is known."""


@dataclass(frozen=True)
class Plan:
    """`facts` are keyed by source, as are the sentences why one cannot be used as a clip or as music."""

    request: Request
    targets: tuple[Target, ...]
    reason: str
    facts: Mapping[str, ClipFacts]
    clip_problems: Mapping[str, str]
    music_problems: Mapping[str, str]
    lines: tuple[SpokenLine | str, ...]
    """For each line its length, or the sentence why it cannot be spoken."""
    wide_targets: tuple[Target, ...]
    """What `targets` would be if the request asked for a wide join."""

    @cached_property
    def combinations(self) -> Combinations:
        return Combinations(tuple(len(block.clips) for block in self.request.blocks), self.request.count)

    def __len__(self) -> int:
        return len(self.combinations) * len(self.targets)

    def __iter__(self) -> Iterator[Variation]:
        return (self.variation(index) for index in range(1, len(self) + 1))

    @cached_property
    def _labels(self) -> tuple[tuple[str, ...], ...]:
        return tuple(labels(block.clips) for block in self.request.blocks)

    @cached_property
    def _music_labels(self) -> tuple[str, ...]:
        return labels(self.request.music)

    @cached_property
    def _template(self) -> NameTemplate:
        return NameTemplate.parse(self.request.name, tuple(block.name for block in self.request.blocks))

    @cached_property
    def _music(self) -> Draws:
        return Draws(self.request.seed, len(self.request.music), "music")

    @cached_property
    def _voice(self) -> Draws:
        return Draws(self.request.seed, len(self.request.lines), "voice")

    @cached_property
    def format_names(self) -> tuple[str, ...]:
        """One for each target: the ratio, or the size where two share a ratio."""
        ratios = [target.format.name for target in self.targets]
        return tuple(
            name if ratios.count(name) == 1 else f"{target.format.width}x{target.format.height}"
            for name, target in zip(ratios, self.targets, strict=True)
        )

    @cached_property
    def renditions(self) -> Mapping[tuple[str, int], Rendition]:
        """`(source, target number)` -> rendition, for every clip that can be used."""
        return {
            (source, number): self._rendition(source, target)
            for number, target in enumerate(self.targets)
            for source in self.sources
            if source not in self.clip_problems
        }

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Distinct clips in the order the blocks name them."""
        return tuple(dict.fromkeys(clip for block in self.request.blocks for clip in block.clips))

    def _rendition(self, source: str, target: Target) -> Rendition:
        facts = self.facts[source]
        assert facts.video is not None
        reasons = differences(facts, target, self.request.join)
        frames = facts.video.frames if not reasons else round(facts.video.duration * target.format.fps)
        return Rendition(max(1, frames), reasons)

    def variation(self, index: int) -> Variation:
        """The variation with that number, 1..len(self), in microseconds and without any state."""
        position, number = divmod(index - 1, len(self.targets))
        combination = self.combinations.combination(position)
        clips = tuple(block.clips[choice] for block, choice in zip(self.request.blocks, combination, strict=True))
        music = self._music.draw(position) if self.request.music else None
        problem = next((self.clip_problems[clip] for clip in clips if clip in self.clip_problems), None)
        if problem is None and music is not None:
            problem = self.music_problems.get(self.request.music[music])
        frames = 0 if problem else sum(self.renditions[clip, number].frames for clip in clips)
        picture = Seconds(frames / self.targets[number].format.fps)
        line = self._voice.draw(position, self.drawable(picture)) if self.lines else None
        spoken = self.lines[line] if line is not None else None
        hold, speed, overflow = 0, Fraction(1), None
        if isinstance(spoken, str):
            problem = problem or spoken
        elif spoken is not None and not problem:
            hold, speed, overflow = self.overflow(spoken.seconds, picture, self.targets[number].format.fps)
        return Variation(
            index=index,
            name=self._name(index, combination, music, line, number),
            combination=combination,
            clips=clips,
            target=number,
            music=music,
            line=line,
            frames=frames,
            hold=hold,
            speed=speed,
            overflow=overflow,
            problem=problem,
        )

    @cached_property
    def _by_length(self) -> tuple[tuple[Seconds, ...], tuple[int, ...]]:
        """Lengths of the lines that can be spoken, shortest first, and the numbers of these lines."""
        spoken = sorted(
            (line.seconds, number) for number, line in enumerate(self.lines) if isinstance(line, SpokenLine)
        )
        return tuple(seconds for seconds, _ in spoken), tuple(number for _, number in spoken)

    def drawable(self, picture: Seconds) -> Sequence[int]:
        """The lines among which a variation with that picture draws, evenly; all where there is no picture."""
        lengths, numbers = self._by_length
        if self.request.voice_overflow != "choose" or not numbers or not picture:
            return range(len(self.lines))
        return numbers[: max(1, bisect_right(lengths, picture - FADE))]

    def overflow(
        self, spoken: Seconds, picture: Seconds, fps: Fraction
    ) -> tuple[int, Fraction, Literal["hold", "speed"] | None]:
        """Hold in frames, speed and handling of a voice-over over a picture."""
        room = picture - FADE
        if spoken <= room:
            return 0, Fraction(1), None
        speed = Fraction(1)
        if self.request.voice_overflow == "speed":
            wanted = spoken / room if room > 0 else SPEED_LIMIT
            speed = min(SPEED_LIMIT, 1 + ceil((wanted - 1) / SPEED_STEP) * SPEED_STEP)
        hold = max(0, ceil((spoken / speed - room) * fps))
        return hold, speed, "hold" if hold else "speed"

    def _name(self, index: int, combination: tuple[int, ...], music: int | None, line: int | None, number: int) -> str:
        return self._template.render(
            index=index,
            # Not len(self): more of the same job must not rename what is there.
            total=self.combinations.total * len(self.targets),
            choices=combination,
            clips=tuple(block[choice] for block, choice in zip(self._labels, combination, strict=True)),
            music=self._music_labels[music] if music is not None else "",
            voice=str(line + 1) if line is not None else "",
            format=self.format_names[number],
            seed=self.request.seed,
            task=self.request.task_name,
            append_format=len(self.targets) > 1,
        )

    def length(self, variation: Variation) -> Seconds:
        return Seconds((variation.frames + variation.hold) / self.targets[variation.target].format.fps)

    def picture_span(self) -> tuple[Seconds, Seconds]:
        """The shortest and the longest picture of any variation, holds apart."""
        spans = []
        for number, target in enumerate(self.targets):
            lengths = [
                [self.renditions[clip, number].frames for clip in block.clips if clip not in self.clip_problems] or [0]
                for block in self.request.blocks
            ]
            spans += [Seconds(sum(map(pick, lengths)) / target.format.fps) for pick in (min, max)]
        return min(spans), max(spans)

    def refuse_overflow(self) -> None:
        """Raise what `overflow_refusal` finds."""
        if error := self.overflow_refusal():
            raise error

    def overflow_refusal(self) -> RequestError | None:
        """With `voice_overflow: refuse`, what the first variation shorter than its voice-over is refused with."""
        if self.request.voice_overflow != "refuse" or not self._may_overflow():
            return None
        return next((self._too_long(variation) for variation in self if variation.overflow), None)

    def _may_overflow(self) -> bool:
        """Whether the shortest picture is too short for the longest line; answers without looking at variations."""
        lengths, _ = self._by_length
        music = self.request.music
        impossible = (
            any(all(clip in self.clip_problems for clip in block.clips) for block in self.request.blocks)
            or not lengths
            or (music and all(source in self.music_problems for source in music))
        )
        return not impossible and lengths[-1] + FADE > self.picture_span()[0]

    def _too_long(self, variation: Variation) -> RequestError:
        assert variation.line is not None
        line = self.lines[variation.line]
        assert isinstance(line, SpokenLine)
        picture = variation.frames / self.targets[variation.target].format.fps
        return RequestError(
            f"variation {variation.index} ({variation.name}) is {_seconds(picture)} long and its voice-over"
            f" (line {variation.line + 1}) needs {'' if line.exact else 'about '}{_seconds(line.seconds + FADE)}:"
            " shorten the text, use longer clips, or send voice_overflow hold, speed or choose",
            code="voice_too_long",
        )


def _seconds(value: Fraction) -> str:
    return f"{float(value):.1f} s"
