"""What captions that are drawn into the pictures cost: how many clips must be encoded for them. Pure.

A clip is encoded once for what is said while it is seen: for lines that belong to a block or a clip once for them and
the clip together, for one over the whole video once for every place that the clip has under that line.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import TYPE_CHECKING, Any

import numpy as np

from crosscut.media import NO_TIME, Seconds
from crosscut.plan import LISTED, SpokenLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from crosscut.plan import Plan
    from crosscut.timeline import Slot

    _Places = NDArray[np.bool_]
    """For each frame of a video whether a clip may begin there; the last stands for all that follow."""


@dataclass(frozen=True)
class Encodes:
    """So many encodes of so many `seconds` each; `drawn` if they have captions."""

    count: int
    seconds: Fraction
    drawn: bool


def price(plan: Plan) -> dict[str, Any]:
    """How many encodes of how many seconds, those of clips without captions too."""
    few = len(plan) <= LISTED
    found = _listed(plan) if few else _counted(plan)
    return {
        "clips_to_encode": sum(each.count for each in found),
        "encode_seconds": round(float(sum((each.count * each.seconds for each in found), Fraction(0))), 2),
        "captions_to_draw": {
            "encodes": sum(each.count for each in found if each.drawn),
            "exact": few and all(line.exact for line in plan.lines if isinstance(line, SpokenLine)),
        },
    }


def _listed(plan: Plan) -> list[Encodes]:
    """Small jobs: every variation is looked at."""
    found = {}
    for variation in plan:
        fps, at = plan.targets[variation.target].format.fps, 0
        for place, slot in enumerate(variation.slots, 1):
            shown = slot.length + (variation.hold if place == len(variation.slots) else 0)
            begin, end = at / fps, (at + shown) / fps
            heard = tuple(
                said.later(Seconds(-begin)) for said in variation.said if said.start < end and said.end > begin
            )
            if heard or plan.renditions[slot.clip, variation.target].reasons:
                seconds = (shown if heard else slot.frames) / fps
                found[slot.clip, variation.target, heard] = Encodes(1, seconds, drawn=bool(heard))
            at += slot.length
    return list(found.values())


def _counted(plan: Plan) -> list[Encodes]:
    """Large jobs: about as many as every clip has places under the drawn lines, and one for what is its own."""
    once, under = {}, []
    stages = {(box.ranges, box.lines): (number, box) for number, box in enumerate(plan.grid.stages)}
    for stage, box in stages.values():
        for number, target in enumerate(plan.targets):
            for block, slot, heard, silent in _seen(plan, stage, number):
                seconds = slot.length / target.format.fps
                if slot.said or (silent and plan.renditions[slot.clip, number].reasons):
                    once[slot.clip, number, slot.said] = Encodes(1, seconds, drawn=bool(slot.said))
                most = ceil(Fraction(box.combinations, box.sizes[block]))
                under.append(Encodes(min(heard, most), seconds, drawn=True))
    return [*once.values(), *under]


def _seen(plan: Plan, stage: int, number: int) -> Iterator[tuple[int, Slot, int, bool]]:
    """The slots of each block: under how many drawn lines, place by place, each is seen, and whether under none.

    Every line is taken to begin at `voice_start`.
    """
    start, fps = plan.request.mix.voice_start, plan.targets[number].format.fps
    drawn = [plan.lines[line] for line in plan.drawable(stage, NO_TIME)]
    ends = np.sort([ceil((start + line.seconds) * fps) for line in drawn if isinstance(line, SpokenLine)]).astype(int)
    places = np.zeros(max(ends, default=0) + 1, dtype=bool)
    places[0] = True
    for block in range(len(plan.request.blocks)):
        slots = [slot for slot in plan.slots_in(stage, block, number) if not slot.problem]
        found = {length: _heard(places, length, floor(start * fps), ends) for length in {slot.length for slot in slots}}
        for slot in slots:
            yield block, slot, *found[slot.length]
        places = _behind(places, found)


def _heard(places: _Places, length: int, start: int, ends: NDArray[np.int64]) -> tuple[int, bool]:
    at = np.flatnonzero(places)
    lines = len(ends) - np.searchsorted(ends, at, side="right")
    lines[at + length <= start] = 0
    return int(lines.sum()), not len(ends) or bool((lines < len(ends)).any())


def _behind(places: _Places, lengths: Iterable[int]) -> _Places:
    """Where clips may begin that follow a clip of one of these lengths."""
    behind = np.zeros_like(places)
    for length in lengths:
        behind[length:] |= places[: max(0, len(places) - length)]
        behind[-1] |= places[-length:].any()
    return behind
