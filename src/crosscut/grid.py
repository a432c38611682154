"""Which variations there are, as stages of combinations, and which of them a clip's arrival makes possible. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import numpy as np

from crosscut.combinations import Combinations, Numbers, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    _Clips = NDArray[np.int32]
    """Rows of (block, clip)."""


CHUNK = 1 << 16
"""Rows of a selection that are worked out at a time, which bounds the memory it takes."""

FEW = 16
"""So many boxes of a selection are found one by one faster than all of them together."""

BOXES_KEPT = 32
"""Boxes that a grid remembers, as they are cut in many pieces."""


@dataclass(frozen=True)
class Stage:
    """One part of a job's variations: a box of clips, whole or a balanced selection of it.

    `ranges` has for each block the first clip and the one after the last; `music` and `lines` are the ranges of tracks
    and lines that its variations draw from.
    """

    ranges: tuple[tuple[int, int], ...]
    count: int | None
    music: tuple[int, int]
    lines: tuple[int, int]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(stop - start for start, stop in self.ranges)

    @property
    def combinations(self) -> int:
        total = math.prod(self.sizes)
        return total if self.count is None else min(self.count, total)

    def meets(self, other: Stage) -> bool:
        """Whether the boxes of both have a combination in common."""
        return all(max(a, c) < min(b, d) for (a, b), (c, d) in zip(self.ranges, other.ranges, strict=True))


@dataclass(frozen=True)
class Grid:
    """All stages of a job in all its formats; variations are numbered from 1, stage by stage.

    Within a stage the combinations follow one another in the order of `Combinations`, each in all formats.
    """

    stages: tuple[Stage, ...]
    targets: int

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Grid:
        """The grid of which `as_json` gave this."""
        return cls(tuple(_stage(stage) for stage in document["stages"]), document["targets"])

    def as_json(self) -> dict[str, Any]:
        stages = [
            {
                "ranges": [list(span) for span in stage.ranges],
                "count": stage.count,
                "music": list(stage.music),
                "lines": list(stage.lines),
            }
            for stage in self.stages
        ]
        return {"stages": stages, "targets": self.targets}

    def __len__(self) -> int:
        return self._ends[-1] * self.targets

    @property
    def weight(self) -> int:
        """Rows it holds in memory once it is used: a few bytes per block each. Whole stages hold none."""
        return sum(stage.combinations for stage in self.stages if stage.count is not None)

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        """How many combinations there are before each stage, and after the last."""
        return tuple(accumulate((stage.combinations for stage in self.stages), initial=0))

    @cached_property
    def _boxes(self) -> tuple[_Whole | _Selection, ...]:
        return tuple(_Whole(stage) if stage.count is None else _Selection(stage) for stage in self.stages)

    def place(self, index: int) -> tuple[int, int, int]:
        """Stage, position in it and format of a variation; raises IndexError where there is none."""
        if not 1 <= index <= len(self):
            raise IndexError(f"variation {index} of {len(self)}")
        position, target = divmod(index - 1, self.targets)
        stage = bisect_right(self._ends, position) - 1
        return stage, position - self._ends[stage], target

    def combination(self, stage: int, position: int) -> Row:
        """A clip number per block."""
        row = self._boxes[stage].combinations.combination(position)
        return tuple(start + clip for (start, _), clip in zip(self.stages[stage].ranges, row, strict=True))

    def order(self) -> Iterator[tuple[int, int]]:
        """Every (block, clip) in the order in which it serves to complete variations soonest.

        Clips that no variation shows are left out.
        """
        seen: set[tuple[int, int]] = set()
        for box in self._boxes:
            for clip in box.order():
                if clip not in seen:
                    seen.add(clip)
                    yield clip

    def box_sizes(self, ready: Sequence[tuple[int, int]], since: int = 0) -> list[list[int]]:
        """For each stage, how many combinations each (block, clip) of `ready` makes possible, from place `since` on.

        `ready` has no clip twice, in the order of arrival: a clip's box are the combinations that hold it and
        otherwise only clips before it.
        """
        clips = _as_array(ready)
        return [box.box_sizes(clips, since) for box in self._boxes]

    def box(self, stage: int, ready: Sequence[tuple[int, int]], place: int) -> Members:
        """The combinations of `stage` that the (block, clip) at `place` of `ready` makes possible.

        What follows in `ready` is of no account. The last boxes are remembered; any thread may ask.
        """
        return Members(
            self._box(stage, _as_array(ready[: place + 1]).tobytes()), self._ends[stage] * self.targets, self.targets
        )

    @cached_property
    def _box(self) -> Callable[[int, bytes], _Product | _Rows]:
        return lru_cache(BOXES_KEPT)(partial(_box, self._boxes))

    def doomed(self, failed: Sequence[tuple[int, int]]) -> list[int]:
        """For each (block, clip) of `failed` the combinations (of all stages, one format) that hold it and none before.

        `failed` has no clip twice.
        """
        clips = _as_array(failed)
        return [
            sum(counts) for counts in zip([0] * len(clips), *(box.doomed(clips) for box in self._boxes), strict=True)
        ]


class Members:
    """Some combinations of one stage, in order."""

    def __init__(self, positions: _Product | _Rows, base: int, targets: int) -> None:
        self._positions = positions
        self._base = base
        self._targets = targets

    def __len__(self) -> int:
        return len(self._positions)

    def indexes(self, start: int, stop: int, target: int) -> list[int]:
        """The variations of the members from `start` until `stop` in format `target`; an end beyond the last is it."""
        positions = self._positions.between(start, min(stop, len(self)))
        indexes: list[int] = (positions * self._targets + (self._base + target + 1)).tolist()
        return indexes


def _stage(document: Mapping[str, Any]) -> Stage:
    return Stage(
        ranges=tuple((start, stop) for start, stop in document["ranges"]),
        count=document["count"],
        music=tuple(document["music"]),
        lines=tuple(document["lines"]),
    )


def _as_array(clips: Sequence[tuple[int, int]]) -> _Clips:
    return np.fromiter(chain.from_iterable(clips), dtype=np.int32, count=2 * len(clips)).reshape(-1, 2)


def _box(boxes: Sequence[_Whole | _Selection], stage: int, ready: bytes) -> _Product | _Rows:
    return boxes[stage].box(np.frombuffer(ready, dtype=np.int32).reshape(-1, 2))


def _places(stage: Stage, clips: _Clips) -> list[Numbers]:
    """By block and clip of the stage: the place among `clips`, or their number for all others."""
    starts, stops = np.array(stage.ranges).T
    ends = np.cumsum(stops - starts)
    shifts = ends - stops
    blocks, choices = clips.T
    inside = np.flatnonzero((starts[blocks] <= choices) & (choices < stops[blocks]))
    places = np.full(ends[-1], len(clips))
    places[shifts[blocks[inside]] + choices[inside]] = inside
    return np.split(places, ends[:-1])


def _in_box(stage: Stage, ready: _Clips) -> list[NDArray[np.bool_]]:
    """By block and clip of the stage: whether combinations in the box of the last clip of `ready` may show it."""
    last = len(ready) - 1
    return [
        places == last if block == ready[last, 0] else places < last
        for block, places in enumerate(_places(stage, ready))
    ]


@dataclass(frozen=True)
class _Product:
    """Positions in a whole stage: the sums of one number of each axis, in order."""

    axes: tuple[Numbers, ...]

    def __len__(self) -> int:
        return math.prod(map(len, self.axes))

    def between(self, start: int, stop: int) -> Numbers:
        rest = np.arange(start, max(start, stop))
        positions = np.zeros(len(rest), dtype=np.int64)
        if len(rest):
            for axis in reversed(self.axes):
                rest, digits = np.divmod(rest, len(axis))
                positions += axis[digits]
        return positions


@dataclass(frozen=True)
class _Rows:
    """Positions in a selection, in order and in few bytes."""

    positions: NDArray[np.integer]

    def __len__(self) -> int:
        return len(self.positions)

    def between(self, start: int, stop: int) -> Numbers:
        return self.positions[start : max(start, stop)].astype(np.int64)


@dataclass(frozen=True)
class _Whole:
    stage: Stage

    @cached_property
    def combinations(self) -> Combinations:
        return Combinations(self.stage.sizes)

    def order(self) -> Iterator[tuple[int, int]]:
        for step in range(max(self.stage.sizes)):
            for block, (start, stop) in enumerate(self.stage.ranges):
                if start + step < stop:
                    yield block, start + step

    def box_sizes(self, ready: _Clips, since: int) -> list[int]:
        return self._others([0] * len(self.stage.ranges), ready, 1)[since:]

    def doomed(self, failed: _Clips) -> list[int]:
        return self._others(list(self.stage.sizes), failed, -1)

    def _others(self, counts: list[int], clips: _Clips, step: int) -> list[int]:
        """For each clip in turn the product of the other blocks' counts; then the count of its own goes a `step`."""
        found = []
        empty = counts.count(0)
        filled = math.prod(filter(None, counts))
        for block, clip in clips.tolist():
            start, stop = self.stage.ranges[block]
            if not start <= clip < stop:
                found.append(0)
                continue
            empty -= counts[block] == 0
            filled //= counts[block] or 1
            found.append(0 if empty else filled)
            counts[block] += step
            empty += counts[block] == 0
            filled *= counts[block] or 1
        return found

    def box(self, ready: _Clips) -> _Product:
        sizes = self.stage.sizes
        strides = (math.prod(sizes[block + 1 :]) for block in range(len(sizes)))
        allowed = _in_box(self.stage, ready)
        return _Product(tuple(np.flatnonzero(part) * stride for part, stride in zip(allowed, strides, strict=True)))


@dataclass(frozen=True)
class _Selection:
    stage: Stage

    @cached_property
    def combinations(self) -> Combinations:
        return Combinations(self.stage.sizes, self.stage.count)

    @cached_property
    def _columns(self) -> tuple[Numbers, ...]:
        """For each block the clip of every combination, counted from the start of its range, in few bytes."""
        rows = len(self.combinations)
        columns = tuple(np.empty(rows, dtype=np.min_scalar_type(size - 1)) for size in self.stage.sizes)
        for start in range(0, rows, CHUNK):
            for column, part in zip(columns, self.combinations.columns(start, start + CHUNK), strict=True):
                column[start : start + CHUNK] = part
        return columns

    def order(self) -> Iterator[tuple[int, int]]:
        first_uses = []
        for block, ((start, _), column) in enumerate(zip(self.stage.ranges, self._columns, strict=True)):
            clips, rows = np.unique(column, return_index=True)
            first_uses += [(row, block, start + clip) for row, clip in zip(rows.tolist(), clips.tolist(), strict=True)]
        return ((block, clip) for _, block, clip in sorted(first_uses))

    def box_sizes(self, ready: _Clips, since: int) -> list[int]:
        if len(ready) - since <= FEW:
            return [len(self.box(ready[: place + 1])) for place in range(since, len(ready))]
        # A row is in the box of the last of its clips.
        return self._tally(ready, np.maximum)[since:]

    def doomed(self, failed: _Clips) -> list[int]:
        return self._tally(failed, np.minimum)

    def _tally(self, clips: _Clips, choose: np.ufunc) -> list[int]:
        """For each of `clips` the rows of whose clips it is the chosen one, by their places among `clips`."""
        places = _places(self.stage, clips)
        counts = np.zeros(len(clips) + 1, dtype=np.int64)
        if choose.reduce([part.min() for part in places]) < len(clips):
            for start in range(0, len(self.combinations), CHUNK):
                rows = slice(start, start + CHUNK)
                chosen = places[0][self._columns[0][rows]]
                for part, column in zip(places[1:], self._columns[1:], strict=True):
                    choose(chosen, part[column[rows]], out=chosen)
                counts += np.bincount(chosen, minlength=len(counts))
        tally: list[int] = counts[:-1].tolist()
        return tally

    def box(self, ready: _Clips) -> _Rows:
        """Looks at one column, and at the others only where it has the clip."""
        allowed = _in_box(self.stage, ready)
        few = np.min_scalar_type(self.stage.combinations)
        if not all(part.any() for part in allowed):
            return _Rows(np.empty(0, dtype=few))
        block, clip = ready[-1].tolist()
        rows = np.flatnonzero(self._columns[block] == clip - self.stage.ranges[block][0])
        for number, (part, column) in enumerate(zip(allowed, self._columns, strict=True)):
            if number != block and not part.all():
                rows = rows[part[column[rows]]]
        return _Rows(rows.astype(few))
