"""A caption -> a picture with transparency, and where it goes: letters by HarfBuzz, outlines and boxes by NumPy.

Lengths of designs and layouts are in ems, upwards from the baseline of the first line and across from its middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from math import ceil, floor, hypot
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import uharfbuzz as hb  # type: ignore[import-untyped]

from crosscut.burning import Area, letter_size, safe_area
from crosscut.coverage import EMOJI
from crosscut.typeset import UNITS, Box, Typesetter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from crosscut.burning import BurnCue, Style
    from crosscut.typeset import Glyph, Line

Mask: TypeAlias = "NDArray[np.uint8]"
"""How much of each pixel is covered, 0 to 255."""

Pixels: TypeAlias = "NDArray[np.uint8]"
"""Planes of red, green, blue and alpha; colours are multiplied by alpha."""

Canvas: TypeAlias = "NDArray[np.float32]"
"""The same while it is worked on."""

Place: TypeAlias = tuple[slice, slice]
"""Rows and columns."""

Colour: TypeAlias = tuple[int, int, int]

INK: Colour = (255, 255, 255)

LEADING = 1.18
"""From baseline to baseline, where nothing reaches further up or down."""
_GAP = 0.1
"""Between the ink of two lines."""
_BOTTOM, _CAPITAL, _TOP = -0.2, 0.73, 0.8
"""What letters of the Latin font reach; boxes behind them are as high whatever the letters."""
_HEIGHT = 5 / 6
"""Where text stands in the safe area: in the middle of its lower third."""
_ROUNDING = 3
"""Pixels beyond each side: one for the smooth edges of what ends there, two as borders are even."""


@dataclass(frozen=True)
class Plate:
    """A rounded box behind text: how far it stands out, how round it is, its colour, how opaque it is (0 to 1)."""

    across: float
    up: float
    radius: float
    colour: Colour
    opacity: float


@dataclass(frozen=True)
class Design:
    """How a style looks. The spoken word has the `accent`; `lamp` is the box behind it, `panel` the one behind all."""

    weight: str
    accent: Colour
    edge: float = 0.0
    edge_colour: Colour = (12, 12, 16)
    shade: float = 0.0
    """How far a soft shadow reaches; it falls by a third of that."""
    shade_opacity: float = 0.5
    panel: Plate | None = None
    lamp: Plate | None = None


DESIGNS: dict[Style, Design] = {
    "plain": Design("Inter-Bold", accent=(255, 222, 33), edge=0.07, shade=0.14),
    "box": Design("Inter-Bold", accent=(255, 214, 64), panel=Plate(0.42, 0.26, 0.3, (14, 15, 20), 0.74)),
    "pop": Design("Inter-Black", accent=INK, edge=0.065, shade=0.12, lamp=Plate(0.13, 0.06, 0.2, (255, 45, 85), 1.0)),
}


@dataclass(frozen=True)
class Picture:
    """What is blended over a frame, its upper left corner at `left`, `top`; corners and sides are even."""

    left: int
    top: int
    pixels: Pixels


class Lettering:
    """Draws the captions of one segment. Keeps the last cue, as frames ask for them in order."""

    def __init__(self, width: int, height: int, style: Style) -> None:
        self._area = safe_area(width, height)
        self._design = DESIGNS[style]
        self._size = letter_size(style, width, height)
        self._setter = Typesetter(self._design.weight)
        self._cue: BurnCue | None = None
        self._drawing: _Drawing | None = None

    def picture(self, cue: BurnCue, word: int | None) -> Picture | None:
        """The cue while that word of it is spoken; None where there is nothing to be seen."""
        if self._cue != cue:
            layout = _layout(self._setter.lines(cue.lines), self._design, self._size, self._area)
            self._cue, self._drawing = cue, _Drawing(layout, self._design, self._setter.fonts) if layout else None
        return self._drawing.picture(word) if self._drawing else None


@dataclass(frozen=True)
class _Layout:
    """Lines with their baselines, and how ems become pixels of the frame, of which the picture takes `area`."""

    lines: tuple[tuple[Line, float], ...]
    size: float
    middle: float
    baseline: float
    area: Area
    text: Box
    words: Mapping[int, Box]

    def pixels(self, box: Box) -> Box:
        """From the lower left corner of the area, upwards."""
        across, up = self.middle - self.area.left, self.area.bottom - self.baseline
        return Box(
            across + box.left * self.size,
            up + box.bottom * self.size,
            across + box.right * self.size,
            up + box.top * self.size,
        )


def _layout(lines: Sequence[Line], design: Design, size: float, area: Area) -> _Layout | None:
    """Smaller than `size` where it would not fit into the area; None where there is no ink at all."""
    inks = [_ems(line.ink) for line in lines]
    if all(ink.left == ink.right for ink in inks):
        return None
    baselines = [0.0]
    for above, below in pairwise(inks):
        baselines.append(baselines[-1] - max(LEADING, below.top - above.bottom + _GAP))
    placed = tuple(zip(lines, baselines, strict=True))
    bands = [
        Box(-line.width / UNITS / 2, min(_BOTTOM, ink.bottom), line.width / UNITS / 2, max(_TOP, ink.top)).moved(0, y)
        for (line, y), ink in zip(placed, inks, strict=True)
    ]
    words = {
        number: Box(band.left + left / UNITS, band.bottom, band.left + right / UNITS, band.top)
        for (line, _), band in zip(placed, bands, strict=True)
        for number, (left, right) in line.spans.items()
    }
    ink = reduce(Box.joined, (ink.moved(band.left, y) for ink, band, y in zip(inks, bands, baselines, strict=True)))
    text = reduce(Box.joined, bands)
    hull = reduce(Box.joined, _outer(design, ink, text, list(words.values())))
    width, height = area.right - area.left - 2 * _ROUNDING, area.bottom - area.top - 2 * _ROUNDING
    size = min(size, max(1, width) / (hull.right - hull.left), max(1, height) / (hull.top - hull.bottom))
    middle = (area.left + area.right) / 2
    middle += _shift(middle + hull.left * size, middle + hull.right * size, area.left, area.right)
    baseline = area.top + (area.bottom - area.top) * _HEIGHT + (_CAPITAL + baselines[-1]) / 2 * size
    baseline += _shift(baseline - hull.top * size, baseline - hull.bottom * size, area.top, area.bottom)
    taken = Area(
        max(area.left, 2 * floor((middle + hull.left * size - 1) / 2)),
        max(area.top, 2 * floor((baseline - hull.top * size - 1) / 2)),
        min(area.right, 2 * ceil((middle + hull.right * size + 1) / 2)),
        min(area.bottom, 2 * ceil((baseline - hull.bottom * size + 1) / 2)),
    )
    return _Layout(placed, size, middle, baseline, taken, text, words)


def _outer(design: Design, ink: Box, text: Box, words: list[Box]) -> Iterator[Box]:
    """What the parts of a caption reach."""
    yield ink.grown(design.edge + design.shade * 4 / 3)
    if design.panel:
        yield text.grown(design.panel.across, design.panel.up)
    if design.lamp:
        yield from (word.grown(design.lamp.across, design.lamp.up) for word in words)


def _ems(box: Box) -> Box:
    return Box(box.left / UNITS, box.bottom / UNITS, box.right / UNITS, box.top / UNITS)


def _shift(low: float, high: float, least: int, most: int) -> float:
    """How far to move what reaches from `low` to `high` so that it lies inside."""
    return max(0.0, least - low) + min(0.0, most - high)


class _Drawing:
    """One cue: all but the spoken word is drawn once."""

    def __init__(self, layout: _Layout, design: Design, fonts: Mapping[str, Any]) -> None:
        self._layout = layout
        self._design = design
        self._fonts = fonts
        area = layout.area
        self._shape = (area.bottom - area.top, area.right - area.left)
        self._words = {number: self._mask(number) for number in layout.words}
        self._letters = reduce(np.maximum, self._words.values())
        self._emoji = self._painted()
        self._ground = self._drawn_ground()
        nothing = np.zeros(self._shape, np.uint8)
        self._plain = _finished(self._lettered(self._ground.copy(), (slice(None), slice(None)), nothing))

    def picture(self, word: int | None) -> Picture:
        """While that word is spoken."""
        pixels = self._plain
        if word is not None and word in self._words:
            lamp = self._plate(self._layout.words[word], self._design.lamp)
            place = _touched(self._words[word] if lamp is None else np.maximum(self._words[word], lamp))
            canvas = self._ground[:, *place].copy()
            if self._design.lamp and lamp is not None:
                _fill(canvas, lamp[place], self._design.lamp.colour)
            pixels = pixels.copy()
            pixels[:, *place] = _finished(self._lettered(canvas, place, self._words[word][place]))
        return Picture(self._layout.area.left, self._layout.area.top, pixels)

    def _lettered(self, canvas: Canvas, place: Place, spoken: Mask) -> Canvas:
        """The text of a part of the picture over what is behind it."""
        letters = self._letters[place]
        _fill(canvas, spoken, self._design.accent)
        _fill(canvas, letters - np.minimum(letters, spoken), INK)
        if self._emoji is not None:
            _lay(canvas, self._emoji[:, *place])
        return canvas

    def _drawn_ground(self) -> Canvas:
        """Everything behind the letters."""
        design, size = self._design, self._layout.size
        canvas = np.zeros((4, *self._shape), np.float32)
        panel = self._plate(self._layout.text, design.panel)
        if design.panel and panel is not None:
            _fill(canvas, panel, design.panel.colour)
        if design.edge:
            shapes = self._letters if self._emoji is None else np.maximum(self._letters, self._emoji[3])
            edge = widened(shapes, design.edge * size)
            shade = softened(edge, design.shade * size, floor(design.shade * size / 3))
            _fill(canvas, (shade * design.shade_opacity).astype(np.uint8), design.edge_colour)
            _fill(canvas, edge, design.edge_colour)
        return canvas

    def _plate(self, box: Box, plate: Plate | None) -> Mask | None:
        if plate is None:
            return None
        size = self._layout.size
        pixels = self._layout.pixels(box.grown(plate.across, plate.up))
        return (rounded(self._shape, pixels, plate.radius * size) * plate.opacity).astype(np.uint8)

    def _mask(self, word: int) -> Mask:
        """Its letters."""
        raster = hb.RasterDraw()
        raster.extents = hb.RasterExtents(0, 0, self._shape[1], self._shape[0], 0)
        for glyph, transform in self._placed():
            if glyph.word == word and glyph.face != EMOJI:
                raster.transform = transform
                raster.draw_glyph_or_fail(self._fonts[glyph.face], glyph.number)
        mask: Mask = _image(raster, 1)[0]
        return mask

    def _painted(self) -> Pixels | None:
        """All emoji; None where there are none."""
        canvas: Canvas | None = None
        for glyph, transform in self._placed():
            if glyph.face == EMOJI and glyph.word is not None:
                canvas = np.zeros((4, *self._shape), np.float32) if canvas is None else canvas
                self._paint(canvas, glyph, transform)
        return None if canvas is None else _finished(canvas)

    def _paint(self, canvas: Canvas, glyph: Glyph, transform: tuple[float, ...]) -> None:
        height, width = self._shape
        ink = glyph.ink.moved(-glyph.x, -glyph.y)
        scale, across, up = transform[0], *transform[4:]
        left, right = max(0, floor(across + ink.left * scale)), min(width, ceil(across + ink.right * scale))
        bottom, top = max(0, floor(up + ink.bottom * scale)), min(height, ceil(up + ink.top * scale))
        raster = hb.RasterPaint()
        raster.extents = hb.RasterExtents(left, bottom, right - left, top - bottom, 0)
        raster.transform = transform
        if left < right and bottom < top and raster.paint_glyph_or_fail(self._fonts[EMOJI], glyph.number):
            blue_first = _image(raster, 4)
            _lay(canvas[:, height - top : height - bottom, left:right], blue_first[[2, 1, 0, 3]])

    def _placed(self) -> Iterator[tuple[Glyph, tuple[float, ...]]]:
        """Every glyph with the transform that brings it into the picture, upwards."""
        layout = self._layout
        scale = layout.size / UNITS
        for line, baseline in layout.lines:
            origin = layout.pixels(Box(-line.width / UNITS / 2, baseline, 0, 0))
            for glyph in line.glyphs:
                yield glyph, (scale, 0, 0, scale, origin.left + glyph.x * scale, origin.bottom + glyph.y * scale)


def _image(raster: Any, depth: int) -> NDArray[np.uint8]:
    """What HarfBuzz drew, plane by plane; it has the lowest row first."""
    image = raster.render()
    extents = image.extents
    rows = np.frombuffer(image.buffer, np.uint8).reshape(extents.height, extents.stride)
    pixels = rows[::-1, : extents.width * depth].reshape(extents.height, extents.width, depth)
    return np.ascontiguousarray(np.moveaxis(pixels, 2, 0))


def _fill(canvas: Canvas, mask: Mask, colour: Colour) -> None:
    share = mask * np.float32(1 / 255)
    canvas *= 1 - share
    for plane, value in enumerate((*colour, 255)):
        canvas[plane] += share * np.float32(value)


def _lay(canvas: Canvas, pixels: Pixels) -> None:
    canvas *= 1 - pixels[3] * np.float32(1 / 255)
    canvas += pixels


def _finished(canvas: Canvas) -> Pixels:
    return np.rint(canvas).clip(0, 255).astype(np.uint8)


def _touched(mask: Mask) -> Place:
    """The rows and columns that something of it covers."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(0), slice(0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def rounded(shape: tuple[int, int], box: Box, radius: float) -> Mask:
    """A box with round corners (pixels, upwards from the lower left corner), smooth at its edges."""
    height, width = shape
    radius = min(radius, (box.right - box.left) / 2, (box.top - box.bottom) / 2)
    across = np.abs(np.arange(width, dtype=np.float32) + 0.5 - (box.left + box.right) / 2)
    up = np.abs(height - np.arange(height, dtype=np.float32) - 0.5 - (box.bottom + box.top) / 2)
    # Beyond these the distance to the corners' circles counts.
    across = np.maximum(across - (box.right - box.left) / 2 + radius, 0)
    up = np.maximum(up - (box.top - box.bottom) / 2 + radius, 0)
    distance = np.sqrt(up[:, None] ** 2 + across[None, :] ** 2)
    mask: Mask = ((radius + 0.5 - distance).clip(0, 1) * 255).astype(np.uint8)
    return mask


def widened(mask: Mask, radius: float) -> Mask:
    """Every covered pixel as a disc of that radius."""
    reach = ceil(radius)
    padded = np.pad(mask, reach)
    height, width = mask.shape
    result = np.zeros_like(mask)
    row = padded[:, reach : reach + width].copy()
    for dx in range(reach + 1):
        # `row` is the mask made wider by `dx` on both sides: what a disc is at some heights.
        for side in (-dx, dx):
            np.maximum(row, padded[:, reach + side : reach + side + width], out=row)
        for dy in range(-reach, reach + 1):
            share = min(1.0, radius + 0.5 - hypot(dx, dy))
            further = radius + 0.5 - hypot(dx + 1, dy)
            if share > 0 and further < 1:
                moved = row[reach + dy : reach + dy + height]
                np.maximum(result, moved if share == 1 else (moved * np.float32(share)).astype(np.uint8), out=result)
    return result


def softened(mask: Mask, radius: float, fall: int) -> Mask:
    """Blurred, and moved down by `fall` pixels; what it reaches beyond the picture is cut.

    At half the size of the picture, whose sides are even: a blur shows no difference.
    """
    height, width = mask.shape[0] // 2, mask.shape[1] // 2
    small = mask.reshape(height, 2, width, 2).mean((1, 3), np.float32)
    reach = max(1, ceil(radius / 2))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1, dtype=np.float32) / (reach / 2)) ** 2)
    weights /= weights.sum()
    padded = np.pad(small, ((reach + fall // 2, reach), (reach, reach)))
    tall = sum(padded[at : at + height] * weight for at, weight in enumerate(weights))
    soft = sum(tall[:, at : at + width] * weight for at, weight in enumerate(weights))
    return np.repeat(np.repeat(soft.astype(np.uint8), 2, axis=0), 2, axis=1)
