"""Where a line is spoken that belongs to a block or to a clip. Pure."""

from __future__ import annotations

import difflib
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

from crosscut.cuts import cut_of
from crosscut.naming import clip_label, file_of
from crosscut.refusals import place_of, problem, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crosscut.refusals import Location

LISTED = 5
"""Names that are told where one is not known."""
COMPARED = 500
"""Names among which the nearest is looked for, and characters of the one that is not known."""


@dataclass(frozen=True)
class Binding:
    """With every clip of a block (its number), or with one clip (its key, see `cuts`): there alone or in any block."""

    block: int | None = None
    clip: str | None = None


@dataclass(frozen=True)
class Places:
    """What lines may name: blocks, and their clips (keys). Looks each up once, however many lines there are."""

    blocks: Mapping[str, Sequence[str]]

    def binding(self, place: Location, block: str | None, clip: str | None) -> Binding | None:
        """That of a line at `place`; a clip is named by its label or link, or by what its file is called.

        Raises a problem where there is no such block or clip.
        """
        if block is not None and block not in self.blocks:
            raise problem(f"{place_of((*place, 'block'))} names {quoted(block)}, {_unknown(block, [*self.blocks])}.")
        number = None if block is None else self._numbers[block]
        if number is None and clip is None:
            return None
        return Binding(number, None if clip is None else self._clip(place, block, clip))

    def _clip(self, place: Location, block: str | None, clip: str) -> str:
        meant = self._clips(block, by_file=False).get(clip) or self._clips(block, by_file=True).get(clip, ())
        if len(meant) == 1:
            return meant[0]
        fault = "which means several clips; give each a label of its own and name one"
        if not meant:
            among = chain.from_iterable(self.blocks.values()) if block is None else self.blocks[block]
            fault = _unknown(clip, list(dict.fromkeys(cut_of(each).label or clip_label(each) for each in among)))
        raise problem(f"{place_of((*place, 'clip'))} names {quoted(clip)}, {fault}.")

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.blocks)}

    def _clips(self, block: str | None, *, by_file: bool) -> Mapping[str, Sequence[str]]:
        """The clips of a block, or of all, by label and link or by what they are called: by label, else by file."""
        if (block, by_file) not in self._found:
            found = defaultdict(list)
            clips = chain.from_iterable(self.blocks.values()) if block is None else self.blocks[block]
            for clip in dict.fromkeys(clips):
                cut = cut_of(clip)
                files = {cut.label} if cut.label else {clip_label(clip), file_of(cut.source)}
                for name in files if by_file else {cut.source, cut.label or cut.source}:
                    found[name].append(clip)
            self._found[block, by_file] = found
        return self._found[block, by_file]

    @cached_property
    def _found(self) -> dict[tuple[str | None, bool], Mapping[str, Sequence[str]]]:
        return {}


def _unknown(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name[:COMPARED], known[:COMPARED], n=1)
    more = f" and {len(known) - LISTED:,} more" if len(known) > LISTED else ""
    there = ", ".join(map(quoted, known[:LISTED])) + more
    return "which is not there; " + (f"the nearest is {quoted(near[0])}" if near else f"there are {there}")
