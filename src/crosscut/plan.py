"""What will be made, worked out before anything is spent: every variation by index, and what the whole costs. Pure."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil, prod
from typing import TYPE_CHECKING, Literal

from crosscut.draws import Draws
from crosscut.errors import RequestError
from crosscut.media import ClipFacts, Seconds, Target, differences
from crosscut.naming import NameTemplate, labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from crosscut.grid import Grid, Stage
    from crosscut.request import Request

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
    stage: int = 0
    """Which of the request's stages it belongs to."""


@dataclass(frozen=True)
class _Pool:
    """The tracks and lines that one stage draws from; both are numbered as in the request."""

    stage: Stage
    tracks: Draws
    voices: Draws
    lengths: tuple[Seconds, ...]
    """Of the lines that can be spoken, shortest first."""
    spoken: tuple[int, ...]
    """The numbers of these lines."""

    @classmethod
    def of(cls, seed: int, number: int, stage: Stage, lines: Sequence[SpokenLine | str]) -> _Pool:
        salt = f"/{number}" if number else ""
        said = ((line, lines[line]) for line in range(*stage.lines))
        spoken = sorted((line.seconds, n) for n, line in said if isinstance(line, SpokenLine))
        return cls(
            stage,
            Draws(seed, stage.music[1] - stage.music[0], f"music{salt}"),
            Draws(seed, stage.lines[1] - stage.lines[0], f"voice{salt}"),
            tuple(seconds for seconds, _ in spoken),
            tuple(n for _, n in spoken),
        )

    def music(self, position: int) -> int | None:
        return self.stage.music[0] + self.tracks.draw(position) if self.tracks.tracks else None

    def line(self, position: int, allowed: Sequence[int]) -> int | None:
        first, everyone = self.stage.lines[0], len(allowed) == self.voices.tracks
        if not allowed:
            return None
        return first + self.voices.draw(position, None if everyone else [line - first for line in allowed])


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
    def grid(self) -> Grid:
        return self.request.grid(len(self.targets))

    def __len__(self) -> int:
        return len(self.grid)

    def __iter__(self) -> Iterator[Variation]:
        return (self.variation(index) for index in range(1, len(self) + 1))

    @cached_property
    def _labels(self) -> tuple[tuple[str, ...], ...]:
        ends = [{stage.ranges[block][1] for stage in self.grid.stages} for block in range(len(self.request.blocks))]
        return tuple(labels(block.clips, sorted(end)) for block, end in zip(self.request.blocks, ends, strict=True))

    @cached_property
    def _music_labels(self) -> tuple[str, ...]:
        return labels(self.request.music, sorted({stage.music[1] for stage in self.grid.stages}))

    @cached_property
    def _template(self) -> NameTemplate:
        return NameTemplate.parse(self.request.name, tuple(block.name for block in self.request.blocks))

    @cached_property
    def _pools(self) -> tuple[_Pool, ...]:
        """What each stage draws from."""
        return tuple(
            _Pool.of(self.request.seed, number, stage, self.lines) for number, stage in enumerate(self.grid.stages)
        )

    @cached_property
    def _repeats(self) -> tuple[int, ...]:
        """For each stage how often its clips may have come together by then, it included."""
        repeats: list[int] = []
        for stage in self.grid.stages:
            earlier = zip(self.grid.stages, repeats, strict=False)
            repeats.append(1 + max((times for other, times in earlier if other.meets(stage)), default=0))
        return tuple(repeats)

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
        stage, position, number = self.grid.place(index)
        pool, combination = self._pools[stage], self.grid.combination(stage, position)
        clips = tuple(block.clips[choice] for block, choice in zip(self.request.blocks, combination, strict=True))
        music = pool.music(position)
        problem = next((self.clip_problems[clip] for clip in clips if clip in self.clip_problems), None)
        if problem is None and music is not None:
            problem = self.music_problems.get(self.request.music[music])
        frames = 0 if problem else sum(self.renditions[clip, number].frames for clip in clips)
        picture = Seconds(frames / self.targets[number].format.fps)
        line = pool.line(position, self.drawable(stage, picture))
        spoken = self.lines[line] if line is not None else None
        hold, speed, overflow = 0, Fraction(1), None
        if isinstance(spoken, str):
            problem = problem or spoken
        elif spoken is not None and not problem:
            hold, speed, overflow = self.overflow(spoken.seconds, picture, self.targets[number].format.fps)
        return Variation(
            index=index,
            stage=stage,
            name=self._name(index, stage, number, combination, music, line),
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
    def unspoken(self) -> Seconds:
        """What a variation needs beside its voice-over: the time before it, and the fade-out that leaves it alone."""
        return Seconds(self.request.mix.voice_start + self.request.mix.fade_out)

    def drawable(self, stage: int, picture: Seconds) -> Sequence[int]:
        """The lines among which a variation with that picture draws, evenly; all where there is no picture."""
        pool = self._pools[stage]
        if self.request.voice_overflow != "choose" or not pool.spoken or not picture:
            return range(*pool.stage.lines)
        return pool.spoken[: max(1, bisect_right(pool.lengths, picture - self.unspoken))]

    def overflow(
        self, spoken: Seconds, picture: Seconds, fps: Fraction
    ) -> tuple[int, Fraction, Literal["hold", "speed"] | None]:
        """Hold in frames, speed and handling of a voice-over over a picture."""
        room = picture - self.unspoken
        if spoken <= room:
            return 0, Fraction(1), None
        speed = Fraction(1)
        if self.request.voice_overflow == "speed":
            wanted = spoken / room if room > 0 else SPEED_LIMIT
            speed = min(SPEED_LIMIT, 1 + ceil((wanted - 1) / SPEED_STEP) * SPEED_STEP)
        hold = max(0, ceil((spoken / speed - room) * fps))
        return hold, speed, "hold" if hold else "speed"

    def _name(
        self, index: int, stage: int, number: int, combination: tuple[int, ...], music: int | None, line: int | None
    ) -> str:
        return self._template.render(
            index=index,
            # Not len(self): more of the same job must not rename what is there.
            total=prod(self.grid.stages[0].sizes) * len(self.targets),
            choices=combination,
            clips=tuple(block[choice] for block, choice in zip(self._labels, combination, strict=True)),
            music=self._music_labels[music] if music is not None else "",
            voice=str(line + 1) if line is not None else "",
            format=self.format_names[number],
            seed=self.request.seed,
            task=self.request.task_name,
            append_format=len(self.targets) > 1,
            repeat=self._repeats[stage],
        )

    def length(self, variation: Variation) -> Seconds:
        return Seconds((variation.frames + variation.hold) / self.targets[variation.target].format.fps)

    def picture_span(self, stage: int) -> tuple[Seconds, Seconds]:
        """The shortest and the longest picture of any variation of that stage, holds apart."""
        ranges = self.request.all_stages[stage].ranges
        spans = []
        for number, target in enumerate(self.targets):
            lengths = [
                [
                    self.renditions[clip, number].frames
                    for clip in block.clips[start:stop]
                    if clip not in self.clip_problems
                ]
                or [0]
                for block, (start, stop) in zip(self.request.blocks, ranges, strict=True)
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
        return any(
            pool.lengths and pool.lengths[-1] + self.unspoken > self.picture_span(number)[0] and self._can(pool.stage)
            for number, pool in enumerate(self._pools)
        )

    def _can(self, stage: Stage) -> bool:
        """Whether any clip of each block and any of its tracks can be used."""
        music = self.request.music[slice(*stage.music)]
        return all(
            any(clip not in self.clip_problems for clip in block.clips[start:stop])
            for block, (start, stop) in zip(self.request.blocks, stage.ranges, strict=True)
        ) and (not music or any(source not in self.music_problems for source in music))

    def _too_long(self, variation: Variation) -> RequestError:
        assert variation.line is not None
        line = self.lines[variation.line]
        assert isinstance(line, SpokenLine)
        picture = variation.frames / self.targets[variation.target].format.fps
        needed = ("" if line.exact else "about ") + _seconds(line.seconds + self.unspoken)
        return RequestError(
            f"variation {variation.index} ({variation.name}) is {_seconds(picture)} long and its voice-over"
            f" (line {variation.line + 1}) needs {needed}:"
            " shorten the text, use longer clips, or send voice_overflow hold, speed or choose",
            code="voice_too_long",
        )


def _seconds(value: Fraction) -> str:
    return f"{float(value):.1f} s"
