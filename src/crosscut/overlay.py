"""Captions over frames: each frame that shows one gets it blended over, in the eight bits of its own planes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from av.video.frame import VideoFrame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from av.video.plane import VideoPlane
    from numpy.typing import NDArray

    from crosscut.burning import BurnCue, Look
    from crosscut.lettering import Picture

    Paced: TypeAlias = Iterator[tuple[VideoFrame, int, int]]
    """Frames with the first slot they are shown in and the one in which they no longer are."""

_RED, _BLUE = 0.2126, 0.0722
_SHARES = np.array([_RED, 1 - _RED - _BLUE, _BLUE])
"""Of red, green and blue in luma (ITU-R BT.709, 3.2)."""

_PLANES = np.zeros((4, 3), np.float32)
"""From red, green, blue and alpha (colours multiplied by alpha) to Y, Cb and Cr times alpha (BT.709, 3.3 and 3.4)."""
_PLANES[:3, 0] = 219 * _SHARES
_PLANES[:3, 1] = 224 * (np.array([0, 0, 1]) - _SHARES) / (2 * (1 - _BLUE))
_PLANES[:3, 2] = 224 * (np.array([1, 0, 0]) - _SHARES) / (2 * (1 - _RED))
_PLANES[3] = 16, 128, 128
_PLANES /= 255


@dataclass(frozen=True)
class _Layer:
    """What a plane becomes: `(plane * kept + added) >> 8`."""

    kept: NDArray[np.uint16]
    added: NDArray[np.uint16]


@dataclass(frozen=True)
class _Stamp:
    """A picture as the planes of yuv420p have it, chroma at half the size."""

    left: int
    top: int
    layers: tuple[_Layer, _Layer, _Layer]

    def onto(self, frame: VideoFrame) -> None:
        for plane, layer, half in zip(frame.planes, self.layers, (1, 2, 2), strict=True):
            height, width = layer.kept.shape
            place = _rows(plane)[self.top // half :][:height, self.left // half :][:, :width]
            work = place.astype(np.uint16)
            work *= layer.kept
            work += layer.added
            work >>= 8
            place[...] = work


def _rows(plane: VideoPlane) -> NDArray[np.uint8]:
    """The plane itself, to be read and written."""
    # Turned around by its line size a picture begins at its last row, and what follows is not ours.
    assert plane.line_size > 0
    return np.frombuffer(cast("memoryview", plane), np.uint8).reshape(-1, plane.line_size)[:, : plane.width]


def _stamp(picture: Picture) -> _Stamp:
    pixels = picture.pixels
    _, height, width = pixels.shape
    quarter = pixels.reshape(4, height // 2, 2, width // 2, 2).mean((2, 4), np.float32)
    luma = _layer(pixels.astype(np.float32), 0)
    return _Stamp(picture.left, picture.top, (luma, _layer(quarter, 1), _layer(quarter, 2)))


def _layer(pixels: NDArray[np.float32], plane: int) -> _Layer:
    kept = 256 - np.rint(pixels[3] * np.float32(256 / 255))
    added = sum(part * share for part, share in zip(pixels, 256 * _PLANES[:, plane], strict=True))
    # A half is added for rounding; where a picture covers all, 16 bits hold it and 255 * 256.
    return _Layer(kept.astype(np.uint16), (added + np.float32(128)).astype(np.uint16))


def captioned(pictures: Paced, looks: Sequence[Look], draw: Callable[[BurnCue, int | None], Picture | None]) -> Paced:
    """The pictures with what `looks` says drawn over them; a picture that stays while that changes comes several times.

    Takes the frames over: one whose planes nobody else has is drawn on, all others are copied.
    """
    waiting = list(reversed(looks))
    shown: Look | None = None
    stamp: _Stamp | None = None
    for frame, first, stop in pictures:
        at = first
        while at < stop:
            while waiting and waiting[-1].stop <= at:
                waiting.pop()
            look = waiting[-1] if waiting else None
            if look is None or look.first > at:
                until = min(stop, look.first) if look else stop
                yield frame, at, until
            else:
                until = min(stop, look.stop)
                if look is not shown:
                    picture = draw(look.cue, look.word)
                    shown, stamp = look, _stamp(picture) if picture else None
                yield _drawn(frame, stamp, alone=(at, until) == (first, stop)), at, until
            at = until


def _drawn(frame: VideoFrame, stamp: _Stamp | None, *, alone: bool) -> VideoFrame:
    if stamp is None:
        return frame
    if alone:
        # Copies where the decoder or a filter still has the planes.
        frame.make_writable()
    else:
        frame = _copied(frame)
    stamp.onto(frame)
    return frame


def _copied(frame: VideoFrame) -> VideoFrame:
    copy = VideoFrame(frame.width, frame.height, frame.format.name)
    for source, target in zip(frame.planes, copy.planes, strict=True):
        _rows(target)[...] = _rows(source)
    copy.time_base, copy.pict_type = frame.time_base, frame.pict_type
    copy.colorspace, copy.color_range = frame.colorspace, frame.color_range
    copy.color_primaries, copy.color_trc = frame.color_primaries, frame.color_trc
    return copy
