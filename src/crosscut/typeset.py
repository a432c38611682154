"""Lines of words -> glyphs in their places: fonts chosen, directions ordered, scripts shaped by HarfBuzz.

The fonts are mapped into memory when this is imported, so that sandbox children have them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uharfbuzz as hb  # type: ignore[import-untyped]

from crosscut.bidi import levels, visual
from crosscut.coverage import EMOJI, face_of
from crosscut.glyphs import FACES
from crosscut.graphemes import clusters

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crosscut.burning import BurnWord

UNITS = 2048
"""Lengths are in this part of an em."""

PICTURE_SCALE = 0.88
"""Emoji are drawn larger than the letters of their em; this brings them to the height of a line."""

_FOLDER = Path(__file__).parent / "fonts"
_WEIGHTS = ("Inter-Bold", "Inter-Black")


def _opened(name: str) -> Any:
    return hb.Face(hb.Blob.from_file_path(str(_FOLDER / name)))


_OPENED = {weight: _opened(f"{weight}.otf") for weight in _WEIGHTS} | {EMOJI: _opened(f"{EMOJI}.ttf")}
_OPENED |= {name: _opened(f"{name}-Bold.ttf") for name in FACES if name != "Inter"}


@dataclass(frozen=True)
class Box:
    """`left` to `right` and `bottom` to `top`; upwards from the baseline."""

    left: float
    bottom: float
    right: float
    top: float

    def joined(self, other: Box) -> Box:
        return Box(
            min(self.left, other.left),
            min(self.bottom, other.bottom),
            max(self.right, other.right),
            max(self.top, other.top),
        )

    def grown(self, across: float, up: float | None = None) -> Box:
        high = across if up is None else up
        return Box(self.left - across, self.bottom - high, self.right + across, self.top + high)

    def moved(self, across: float, up: float) -> Box:
        return Box(self.left + across, self.bottom + up, self.right + across, self.top + up)


@dataclass(frozen=True)
class Glyph:
    """A glyph of a font with its origin on the line; `word` is None for the spaces between words."""

    face: str
    number: int
    x: int
    y: int
    word: int | None
    ink: Box
    """What it covers, from the origin of the line."""


@dataclass(frozen=True)
class Line:
    """Glyphs from left to right, `width` together; `spans` tells where each word begins and ends."""

    glyphs: tuple[Glyph, ...]
    width: int
    spans: dict[int, tuple[int, int]]

    @property
    def ink(self) -> Box:
        box = Box(0, 0, 0, 0)
        for glyph in self.glyphs:
            box = box.joined(glyph.ink)
        return box


@dataclass(frozen=True)
class _Run:
    """Characters of one font and direction: `(character, word)` each."""

    face: str
    level: int
    characters: tuple[tuple[str, int | None], ...]


class Typesetter:
    """Sets lines with one weight of the Latin font; the fonts of other scripts are bold."""

    def __init__(self, weight: str) -> None:
        self.fonts = {
            name: _font(face, PICTURE_SCALE if name == EMOJI else 1.0)
            for name, face in _OPENED.items()
            if name == weight or name not in _WEIGHTS
        }
        self._weight = weight

    def lines(self, lines: Sequence[Sequence[BurnWord]]) -> tuple[Line, ...]:
        """Every line as it is read; words are numbered through all of them."""
        characters = list(_characters(lines))
        text = " ".join("".join(character for character, _ in line) for line in characters)
        depths = levels(text)
        placed, at = [], 0
        for line in characters:
            ends = at + len(line)
            placed.append(self._line([(*place, depth) for place, depth in zip(line, depths[at:ends], strict=True)]))
            at = ends + 1
        return tuple(placed)

    def _line(self, places: list[tuple[str, int | None, int]]) -> Line:
        runs = list(_runs(places, self._weight))
        glyphs: list[Glyph] = []
        spans: dict[int, tuple[int, int]] = {}
        at = 0
        for number in visual([run.level for run in runs]):
            for glyph, advance in self._shaped(runs[number], at):
                glyphs.append(glyph)
                if glyph.word is not None:
                    left, right = spans.get(glyph.word, (at, at))
                    spans[glyph.word] = (min(left, at), max(right, at + advance))
                at += advance
        return Line(tuple(glyphs), at, spans)

    def _shaped(self, run: _Run, at: int) -> Iterator[tuple[Glyph, int]]:
        """Its glyphs from left to right, from `at` on, each with its advance."""
        buffer = hb.Buffer()
        buffer.add_codepoints([ord(character) for character, _ in run.characters])
        buffer.direction = "rtl" if run.level % 2 else "ltr"
        # Otherwise it would be the language of the machine.
        buffer.language = "und"
        buffer.guess_segment_properties()
        font = self.fonts[run.face]
        hb.shape(font, buffer)
        for info, place in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
            x, y = at + place.x_offset, place.y_offset
            extents = font.get_glyph_extents(info.codepoint)
            left, top = x + extents.x_bearing, y + extents.y_bearing
            ink = Box(left, top + extents.height, left + extents.width, top)
            yield Glyph(run.face, info.codepoint, x, y, run.characters[info.cluster][1], ink), place.x_advance
            at += place.x_advance


def _font(face: Any, scale: float) -> Any:
    font = hb.Font(face)
    font.scale = (round(UNITS * scale), round(UNITS * scale))
    return font


def _characters(lines: Sequence[Sequence[BurnWord]]) -> Iterator[list[tuple[str, int | None]]]:
    """The characters of every line, each with its word."""
    number = 0
    for line in lines:
        found: list[tuple[str, int | None]] = []
        for word in line:
            if word.spaced and found:
                found.append((" ", None))
            found += [(character, number) for character in word.text]
            number += 1
        yield found


def _runs(places: list[tuple[str, int | None, int]], weight: str) -> Iterator[_Run]:
    """What is shaped together, as it is read."""
    at = 0
    parts = []
    before = None
    for cluster in clusters("".join(character for character, _, _ in places)):
        face = face_of(cluster, before)
        before = before if face == EMOJI else face
        # What the caller did not ask `uncovered` about is drawn as the font draws what it lacks.
        name = weight if face in (None, "Inter") else face
        parts.append((name, places[at][2], places[at : at + len(cluster)]))
        at += len(cluster)
    for (name, level), run in groupby(parts, key=lambda part: part[:2]):
        yield _Run(name, level, tuple((character, word) for _, _, part in run for character, word, _ in part))
