"""What is added to a task later: checked like a request, and put behind all that was asked for before. Pure.

Nothing that was asked for earlier changes: its clips, tracks and lines keep their numbers, its variations theirs.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationInfo, field_validator, model_validator

from crosscut.fields import (
    AudioBlocks,
    BlockName,
    ClipField,
    Clips,
    Context,
    LineField,
    Model,
    RequestLimits,
    SelectField,
    VoiceBlocks,
    clip_of,
    context_of,
)
from crosscut.grid import Stage
from crosscut.naming import clip_label, printable
from crosscut.refusals import place_of, problem, quoted, refusal
from crosscut.request import (
    DEFAULT_LIMITS,
    Block,
    Line,
    Request,
    bindings_in,
    blocks_of,
    check_drawable,
    check_product,
    check_sounds,
    check_totals,
    check_volumes,
    lines_in,
    link_of,
    music_in,
    read_model,
    starts_in,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from crosscut.bindings import Binding
    from crosscut.media import Seconds


@dataclass(frozen=True)
class Addition:
    """Clips by block, tracks and lines; `count` is how many of the new combinations of clips to make, None all."""

    blocks: tuple[Block, ...] = ()
    music: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()
    count: int | None = None
    music_starts: tuple[Seconds, ...] = ()
    bindings: tuple[Binding | None, ...] = ()

    @property
    def draws(self) -> bool:
        """Whether any of its lines is drawn, and belongs nowhere."""
        return None in self.bindings if self.bindings else bool(self.lines)


def parse_addition(
    body: str | bytes | Mapping[str, Any],
    request: Request,
    *,
    local: bool = False,
    limits: RequestLimits = DEFAULT_LIMITS,
) -> Addition:
    """Check what `body` adds to `request`, `local` as for a request.

    Raises RequestError, and nothing else, with the code `invalid_request`.
    """
    checked = read_model(AdditionBody, body, "video_blocks", _AdditionContext(local, limits, request))
    addition = checked.addition(request)
    larger = extended(request, addition)
    check_product(larger)
    formats = max(1, len(request.formats))
    variations = larger.combinations * formats
    if variations > limits.variations:
        change = 'add less or choose a part of the new combinations, like "select": {"count": 100}'
        raise refusal(
            f"{variations:,} variations, {(variations - request.combinations * formats):,} of them new, are too many: "
            f"at most {limits.variations:,} are made in one task; {change if addition.blocks else 'add less'}."
        )
    return addition


def extended(request: Request, addition: Addition) -> Request:
    """The request with what is added, as new stages behind those it has.

    Added clips: every combination that has at least one of them, with all music and lines. Added tracks or lines:
    every earlier combination once more, with the added tracks alone and the added lines alone, where any were added.
    Lines that belong somewhere are spoken there in all that is new, the earlier ones too, beside those that are drawn.
    """
    added = {block.name: block.clips for block in addition.blocks}
    larger = replace(
        request,
        blocks=tuple(Block(block.name, block.clips + added.get(block.name, ())) for block in request.blocks),
        music=request.music + addition.music,
        music_starts=request.music_starts + addition.music_starts,
        lines=request.lines + addition.lines,
        bindings=_bindings(request, addition),
    )
    music, lines = (0, len(larger.music)), (0, len(larger.lines))
    boxes = tuple(_new_boxes(request.sizes, larger.sizes))
    counts: Sequence[int | None] = [None] * len(boxes)
    if addition.count is not None:
        counts = _shares(addition.count, [math.prod(stop - start for start, stop in box) for box in boxes])
    stages = [Stage(box, count, music, lines) for box, count in zip(boxes, counts, strict=True) if count != 0]
    if addition.music or addition.lines:
        music = (len(request.music), music[1]) if addition.music else music
        lines = (len(request.lines), lines[1]) if addition.draws else lines
        again = dict.fromkeys((stage.ranges, stage.count) for stage in request.all_stages)
        stages += [Stage(box, count, music, lines) for box, count in again]
    return replace(larger, stages=(*request.all_stages, *stages))


def _bindings(request: Request, addition: Addition) -> tuple[Binding | None, ...]:
    """For each line of both, by its number."""
    if not (request.bindings or addition.bindings):
        return ()
    nowhere = (None,)
    return (request.bindings or nowhere * len(request.lines)) + (addition.bindings or nowhere * len(addition.lines))


def _new_boxes(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[tuple[int, int], ...]]:
    """All new combinations in boxes without overlap: each has the new clips of one block and, before it, old alone."""
    for block, (before, after) in enumerate(zip(old, new, strict=True)):
        if after > before:
            yield (*((0, size) for size in old[:block]), (before, after), *((0, size) for size in new[block + 1 :]))


def _shares(count: int, totals: Sequence[int]) -> list[int]:
    """`count` spread over the boxes by their size, to the largest remainders; one for each where there are enough."""
    if not totals:
        return []
    count = min(count, sum(totals))
    least = 1 if count >= len(totals) else 0
    rest, room = count - least * len(totals), sum(totals) - least * len(totals)
    parts = [divmod(rest * (total - least), max(1, room)) for total in totals]
    shares = [least + part for part, _ in parts]
    largest = sorted(range(len(parts)), key=lambda number: -parts[number][1])
    for number in largest[: count - sum(shares)]:
        shares[number] += 1
    return shares


@dataclass(frozen=True)
class _AdditionContext(Context):
    request: Request


def _request(info: ValidationInfo) -> Request:
    assert isinstance(info.context, _AdditionContext)
    return info.context.request


class AdditionBody(Model):
    """The fields of the document, named and checked as those of a request."""

    video_blocks: dict[BlockName, Clips] | None = None
    audio_blocks: AudioBlocks | None = None
    text_to_speach: list[LineField] | None = None
    text_to_speech: list[LineField] | None = None
    voice_blocks: VoiceBlocks | None = None
    select: SelectField | None = None

    @field_validator("video_blocks")
    @classmethod
    def _known(
        cls, blocks: dict[str, list[str | ClipField]] | None, info: ValidationInfo
    ) -> dict[str, list[str | ClipField]] | None:
        known = [block.name for block in _request(info).blocks]
        for name in blocks or {}:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                blocks_there = ", ".join(map(quoted, known))
                hint = f"the nearest is {quoted(near[0])}" if near else f"its blocks are {blocks_there}"
                raise problem(f"names {quoted(name)}, which is no block of this task; {hint}")
        return blocks

    @model_validator(mode="after")
    def _whole(self, info: ValidationInfo) -> AdditionBody:
        request, limits = _request(info), context_of(info).limits
        check_sounds(self)
        check_drawable(self, request.captions)
        addition = self.addition(request)
        if not (addition.blocks or addition.music or addition.lines):
            raise problem("Nothing is added; send video_blocks, audio_blocks or text_to_speech with what is new.")
        self._refuse_known(request)
        larger = extended(request, addition)
        check_totals(sum(larger.sizes) + len(larger.music), len(larger.lines), limits)
        if addition.count is not None and not addition.blocks:
            raise problem("select chooses among the combinations of added clips, and none are added; remove it.")
        if addition.blocks and addition.count is None and any(stage.count for stage in request.all_stages):
            raise problem(
                "select is missing: this task is a selection, so say how many of the new combinations to make, "
                'like "select": {"count": 20}.'
            )
        return self

    def _refuse_known(self, request: Request) -> None:
        clips = {block.name: set(block.clips) for block in request.blocks}
        check_volumes(self.video_blocks or {}, request.clip_sound)
        for name, sources in (self.video_blocks or {}).items():
            for number, source in enumerate(map(clip_of, sources)):
                _refuse_twice(source, clips[name], ("video_blocks", name, number), f"in block {quoted(name)}")
        music = set(request.music)
        for name, tracks in (self.audio_blocks or {}).items():
            for number, track in enumerate(tracks):
                _refuse_twice(link_of(track), music, ("audio_blocks", name, number), "among the music")
        larger = extended(request, self.addition(request))
        lines = {(line, request.binding(number)) for number, line in enumerate(request.lines)}
        for number in range(len(request.lines), len(larger.lines)):
            line = larger.lines[number]
            if (line, larger.binding(number)) in lines:
                raise problem(
                    f"The line “{printable(line.text, 40)}” is in this task already, with this voice; remove it."
                )
            lines.add((line, larger.binding(number)))

    def addition(self, request: Request) -> Addition:
        """What it adds to that request."""
        added = {block.name: block.clips for block in blocks_of(self.video_blocks or {})}
        blocks = [Block(block.name, block.clips + added.get(block.name, ())) for block in request.blocks]
        return Addition(
            bindings=bindings_in(self, blocks),
            blocks=blocks_of(self.video_blocks or {}),
            music=music_in(self),
            music_starts=starts_in(self),
            lines=lines_in(self),
            count=self.select.count if self.select else None,
        )


def _refuse_twice(source: str, known: set[str], place: tuple[int | str, ...], where: str) -> None:
    """Refuse a source that is `known`, by its place and file name; from now on it is."""
    if source in known:
        raise problem(f"{place_of(place)} ({clip_label(source)}) is {where} already; remove it.")
    known.add(source)
