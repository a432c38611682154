"""What will be made, worked out before anything is spent: every variation by index, and what the whole costs. Pure."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from math import ceil, prod
from typing import TYPE_CHECKING

from crosscut.bindings import Binding
from crosscut.draws import Draws
from crosscut.errors import RequestError
from crosscut.media import NO_TIME, ClipFacts, Seconds, Target, differences
from crosscut.naming import NameTemplate, labels
from crosscut.timeline import BREATH, EDGE, Handling, Slot, Utterance, gaps, placed, quiet, slot_of, spoken_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from crosscut.grid import Grid, Stage
    from crosscut.request import Request

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
    """The one that was drawn."""
    frames: int
    """Frames of picture, with the holds of its slots."""
    hold: int
    """Frames that the last picture stays longer, beside the hold of its slot, until the last line has ended."""
    said: tuple[Utterance, ...]
    """All that is spoken, the drawn line too, in order of time."""
    overflow: Handling | None
    problem: str | None
    """Why it cannot be made, as far as is known."""
    stage: int = 0
    """Which of the request's stages it belongs to."""
    slots: tuple[Slot, ...] = ()
    """One for each clip; none where there is a problem."""

    @property
    def speed(self) -> Fraction:
        """How much faster the fastest of its lines is spoken."""
        return max((each.speed for each in self.said), default=Fraction(1))

    @property
    def held(self) -> int:
        """Frames that pictures stay longer, all together."""
        return self.hold + sum(slot.hold for slot in self.slots)


@dataclass(frozen=True)
class _Pool:
    """The tracks and lines that one stage draws from; both are numbered as in the request."""

    stage: Stage
    tracks: Draws
    voices: Draws
    lines: tuple[int, ...]
    """The numbers of the lines that are drawn."""
    bound: Mapping[Binding, Sequence[int]]
    """The numbers of those that are spoken where they belong, earlier stages' too."""
    lengths: tuple[Seconds, ...]
    """Of the drawn lines that can be spoken, shortest first."""
    spoken: tuple[int, ...]
    """The places of these among `lines`."""

    @classmethod
    def of(cls, request: Request, number: int, stage: Stage, lines: Sequence[SpokenLine | str]) -> _Pool:
        salt = f"/{number}" if number else ""
        drawn = tuple(line for line in range(*stage.lines) if request.binding(line) is None)
        said = enumerate(lines[line] for line in drawn)
        spoken = sorted((line.seconds, place) for place, line in said if isinstance(line, SpokenLine))
        bound: dict[Binding, list[int]] = {}
        for line in range(stage.lines[1]):
            if binding := request.binding(line):
                bound.setdefault(binding, []).append(line)
        return cls(
            stage,
            Draws(request.seed, stage.music[1] - stage.music[0], f"music{salt}"),
            Draws(request.seed, len(drawn), f"voice{salt}"),
            drawn,
            bound,
            tuple(seconds for seconds, _ in spoken),
            tuple(place for _, place in spoken),
        )

    def music(self, position: int) -> int | None:
        return self.stage.music[0] + self.tracks.draw(position) if self.tracks.tracks else None

    def line(self, position: int, allowed: Sequence[int] | None) -> int | None:
        """The one that is drawn among those at the `allowed` places of `lines`; None are all of them."""
        return self.lines[self.voices.draw(position, allowed)] if self.lines else None

    def belonging(self, block: int, clip: str) -> list[int]:
        """The numbers of the lines that are spoken with a clip in a block, in order."""
        places = (Binding(block), Binding(clip=clip), Binding(block, clip)) if self.bound else ()
        return sorted(line for place in places for line in self.bound.get(place, ()))


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
    filenames: Mapping[str, str] = field(default_factory=dict)
    """What a server called the files of sources, where their links do not tell."""

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
        return tuple(
            labels(block.clips, sorted(end), self.filenames)
            for block, end in zip(self.request.blocks, ends, strict=True)
        )

    @cached_property
    def _music_labels(self) -> tuple[str, ...]:
        return labels(self.request.music, sorted({stage.music[1] for stage in self.grid.stages}), self.filenames)

    @cached_property
    def _template(self) -> NameTemplate:
        return NameTemplate.parse(self.request.name, tuple(block.name for block in self.request.blocks))

    @cached_property
    def _pools(self) -> tuple[_Pool, ...]:
        """What each stage draws from."""
        return tuple(_Pool.of(self.request, number, stage, self.lines) for number, stage in enumerate(self.grid.stages))

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

    @property
    def draws_captions(self) -> bool:
        return self.request.captions == "burn" and bool(self.request.lines)

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

    def slot(self, stage: int, block: int, clip: str, number: int) -> Slot:
        """A usable clip's place in the variations of a stage, in the format of that number."""
        key = (stage, block, clip, number)
        if key not in self._slots:
            self._slots[key] = self._slot(*key)
        return self._slots[key]

    @cached_property
    def _slots(self) -> dict[tuple[int, int, str, int], Slot]:
        return {}

    def _slot(self, stage: int, block: int, clip: str, number: int) -> Slot:
        request, frames = self.request, self.renditions[clip, number].frames
        lines = []
        for line in self._pools[stage].belonging(block, clip):
            spoken = self.lines[line]
            if isinstance(spoken, str):
                return Slot(clip, frames, problem=spoken)
            lines.append((line, spoken.seconds))
        rest = request.mix.fade_out if block == len(request.blocks) - 1 else EDGE
        fps = self.targets[number].format.fps
        return slot_of(clip, frames, fps, lines, rest, faster=self.faster)

    def lines_of(self, variation: Variation) -> tuple[int, ...]:
        """All that it speaks, also where it cannot be made: the lines of its clips, then the drawn one."""
        pool = self._pools[variation.stage]
        belonging = [line for block, clip in enumerate(variation.clips) for line in pool.belonging(block, clip)]
        return (*belonging, *(() if variation.line is None else (variation.line,)))

    def variation(self, index: int) -> Variation:
        """The variation with that number, 1..len(self), in microseconds and without any state."""
        stage, position, number = self.grid.place(index)
        pool, combination = self._pools[stage], self.grid.combination(stage, position)
        clips = tuple(block.clips[choice] for block, choice in zip(self.request.blocks, combination, strict=True))
        music = pool.music(position)
        problem = next((self.clip_problems[clip] for clip in clips if clip in self.clip_problems), None)
        if problem is None and music is not None:
            problem = self.music_problems.get(self.request.music[music])
        slots = () if problem else tuple(self.slot(stage, block, clip, number) for block, clip in enumerate(clips))
        problem = next((slot.problem for slot in slots if slot.problem), problem)
        frames, fps = sum(slot.length for slot in slots), self.targets[number].format.fps
        said = spoken_in(slots, fps) if pool.bound else ()
        free = self._free(said, Seconds(frames / fps)) if frames and pool.lines else ()
        line = pool.line(position, self._drawable(pool, free))
        spoken = self.lines[line] if line is not None else None
        overflow = next((slot.overflow for slot in slots if slot.overflow), None)
        if isinstance(spoken, str):
            problem = problem or spoken
        elif spoken is not None and line is not None and not problem:
            drawn, handling = placed(line, spoken.seconds, free, fps, faster=self.faster)
            said = tuple(sorted((*said, drawn), key=lambda each: each.start))
            overflow = overflow or handling
        hold = self._hold(said[-1], frames, fps) if said and (overflow or pool.bound) and not problem else 0
        return Variation(
            index=index,
            stage=stage,
            name=self._name(index, stage, number, combination, music, line),
            combination=combination,
            clips=clips,
            target=number,
            music=music,
            line=line,
            frames=0 if problem else frames,
            hold=hold,
            said=() if problem else said,
            overflow=None if problem else overflow or ("hold" if hold else None),
            problem=problem,
            slots=() if problem else slots,
        )

    def _free(self, said: Sequence[Utterance], picture: Seconds) -> list[tuple[Seconds, Seconds]]:
        """Where in a video that long a drawn line can be spoken."""
        return gaps(said, self.request.mix.voice_start, Seconds(picture - self.request.mix.fade_out))

    def _hold(self, last: Utterance, frames: int, fps: Fraction) -> int:
        """Frames that a picture must stay longer so that its last line ends before the fade-out."""
        return max(0, ceil((last.end + self.request.mix.fade_out) * fps) - frames)

    @property
    def faster(self) -> bool:
        """Whether lines that are too long are sped up."""
        return self.request.voice_overflow == "speed"

    @cached_property
    def unspoken(self) -> Seconds:
        """What a variation needs beside its voice-over: the time before it, and the fade-out that leaves it alone."""
        return Seconds(self.request.mix.voice_start + self.request.mix.fade_out)

    def drawable(self, stage: int, picture: Seconds) -> Sequence[int]:
        """The lines among which a variation with that picture draws, evenly; all where there is no picture."""
        pool = self._pools[stage]
        places = self._drawable(pool, self._free((), picture) if picture else ())
        return pool.lines if places is None else [pool.lines[place] for place in places]

    def _drawable(self, pool: _Pool, free: Sequence[tuple[Seconds, Seconds]]) -> Sequence[int] | None:
        """Their places among the pool's lines; None are all of them."""
        if self.request.voice_overflow != "choose" or not pool.spoken or not free:
            return None
        return pool.spoken[: max(1, bisect_right(pool.lengths, max(end - start for start, end in free)))]

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

    def slots_in(self, stage: int, block: int, number: int) -> list[Slot]:
        """Those of the usable clips that a stage shows in a block."""
        clips = self.request.blocks[block].clips[slice(*self.request.all_stages[stage].ranges[block])]
        return [self.slot(stage, block, clip, number) for clip in clips if clip not in self.clip_problems]

    def picture_span(self, stage: int) -> tuple[Seconds, Seconds]:
        """The shortest and the longest picture of any variation of that stage, without the hold for a drawn line."""
        ranges = self.request.all_stages[stage].ranges
        spans = []
        for number, target in enumerate(self.targets):
            lengths = [
                [slot.length for slot in self.slots_in(stage, block, number)] or [0] for block in range(len(ranges))
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
        """Whether a picture may be too short for its lines; answers without looking at variations."""
        return any(
            self._can(pool.stage) and any(self._is_tight(number, pool, target) for target in range(len(self.targets)))
            for number, pool in enumerate(self._pools)
        )

    def _is_tight(self, stage: int, pool: _Pool, number: int) -> bool:
        blocks = [self.slots_in(stage, block, number) for block in range(len(self.request.blocks))]
        mix, fps, longest = self.request.mix, self.targets[number].format.fps, max(pool.lengths, default=NO_TIME)
        if not pool.bound:
            return bool(longest) and longest + self.unspoken > quiet(blocks) / fps
        beside = max(mix.voice_start, BREATH) + max(mix.fade_out, BREATH)
        return (
            any(slot.overflow for slots in blocks for slot in slots)
            or min(slot.length for slot in blocks[-1]) / fps < mix.fade_out
            or (bool(longest) and longest + beside > quiet(blocks) / fps)
        )

    def _can(self, stage: Stage) -> bool:
        """Whether any clip of each block and any of its tracks can be used."""
        music = self.request.music[slice(*stage.music)]
        return all(
            any(clip not in self.clip_problems for clip in block.clips[start:stop])
            for block, (start, stop) in zip(self.request.blocks, stage.ranges, strict=True)
        ) and (not music or any(source not in self.music_problems for source in music))

    def _too_long(self, variation: Variation) -> RequestError:
        """Where lines are refused that are too long, so that none is sped up."""
        slot = next((slot for slot in variation.slots if slot.overflow), None)
        whole = slot is None or slot is variation.slots[-1]
        said, frames = (slot.said, slot.frames) if slot else (variation.said, variation.frames)
        needed = said[-1].end + (self.request.mix.fade_out if whole else EDGE)
        lines = [line for each in said if isinstance(line := self.lines[each.line], SpokenLine)]
        about = "" if all(line.exact for line in lines) else "about "
        where = f"clip {variation.slots.index(slot) + 1} of variation" if slot else "variation"
        picture = frames / self.targets[variation.target].format.fps
        others = "hold or speed" if slot else "hold, speed or choose"
        return RequestError(
            f"{where} {variation.index} ({variation.name}) is {_seconds(picture)} long and its voice-over"
            f" ({_numbers(said)}) needs {about}{_seconds(needed)}:"
            f" shorten the text, use longer clips, or send voice_overflow {others}",
            code="voice_too_long",
        )


def _numbers(said: Sequence[Utterance]) -> str:
    """`line 3`, `lines 1, 2 and 3`."""
    *others, last = (str(each.line + 1) for each in said)
    return f"lines {', '.join(others)} and {last}" if others else f"line {last}"


def _seconds(value: Fraction) -> str:
    return f"{float(value):.1f} s"
