"""Clip -> segment: upright, square pixels, one size, one constant frame rate, SDR BT.709, one H.264 profile.

`encode` runs in a sandbox child. All segments of one format carry byte-identical parameter sets, so that they join
without encoding; the caller compares them with `parameter_sets` of a probe encode rather than assuming it.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING, Any, TypeVar

import av
from av.filter import Graph
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc

from crosscut.burning import from_json, looks
from crosscut.errors import ConformError
from crosscut.lettering import Lettering
from crosscut.media import BT709, Colour, Fit, Format, shown_size, usual_colour
from crosscut.overlay import captioned
from crosscut.probe import frame_colour
from crosscut.seeking import frames_from, timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from av.container import OutputContainer
    from av.filter.context import FilterContext
    from av.video.stream import VideoStream

    from crosscut.overlay import Paced
    from crosscut.sandbox import Job

T = TypeVar("T")

VERSION = 2
"""Part of every segment's name: raise it when a change here alters what is encoded."""

X264 = {
    "preset": "veryfast",
    "crf": "20",
    "a53cc": "0",
    # stitchable keeps content out of the parameter sets; closed GOPs and constant rate let segments follow each other.
    "x264-params": "stitchable=1:open-gop=0:force-cfr=1:bframes=3:nal-hrd=none",
}
KEYFRAME_SECONDS = 2
NARROW_PRIMARIES = {1, 4, 5, 6, 7}
"""H.273, table 2: BT.709 and the two of BT.601, near enough to be taken for each other as players do."""

BLUR_SHRINK = 8
"""The blurred backdrop is computed at an eighth of the frame: cheaper, and smoother."""


@dataclass(frozen=True)
class Layout:
    """Where the picture goes: its size in the frame, and what surrounds or is cut off it."""

    width: int
    height: int
    fit: Fit | None
    """None when the picture fills the frame exactly."""


def layout(shown: tuple[int, int], frame: Format, fit: Fit) -> Layout:
    """Scale `shown` (upright, square pixels) into `frame` without stretching; even sizes, as 4:2:0 needs."""
    wide, high = Fraction(frame.width, shown[0]), Fraction(frame.height, shown[1])
    scale = max(wide, high) if fit == "crop" else min(wide, high)
    width, height = _even(shown[0] * scale), _even(shown[1] * scale)
    # A pixel or two of rounding is not worth a border.
    if abs(width - frame.width) <= 2 and abs(height - frame.height) <= 2:
        return Layout(frame.width, frame.height, None)
    return Layout(width, height, fit)


def _even(value: Fraction) -> int:
    return max(2, 2 * round(value / 2))


def encode(
    job: Job,
    *,
    width: int,
    height: int,
    fps: str,
    fit: Fit,
    rotation: int,
    pixel_aspect: str,
    duration: str,
    threads: int,
    captions: Mapping[str, Any] | None = None,
    start: str = "0",
    hold: int = 0,
) -> Any:
    """Child: conform `job.inputs[0]` into an MP4 without sound in `job.outputs[0]`.

    `fps`, `pixel_aspect`, `start` and `duration` (seconds) are exact fractions as text. What is before `start` is left
    out, `duration` counts from there, and the last picture stays for `hold` frames more. `captions` are
    `{"style": ..., "cues": ...}` (see `burning`), in time from the first frame on. Answers `{"frames": n}`.
    """
    frame_format = Format(width, height, Fraction(fps))
    frames = max(1, round(Fraction(duration) * frame_format.fps))
    total = frames + hold
    with frames_from(job.inputs[0], Fraction(start), threads) as decoded:
        painter = Painter(frame_format, fit, rotation, Fraction(pixel_aspect))
        paces = paced(decoded, frame_format.fps, frames, start=Fraction(start), hold=hold)
        pictures: Paced = ((painter.paint(frame), first, stop) for frame, first, stop in paces)
        if captions:
            shown = looks(from_json(captions["cues"]), frame_format.fps, total)
            pictures = captioned(pictures, shown, Lettering(width, height, captions["style"]).picture)
        if threads == 1:
            # With threads of its own the encoder takes pictures and works on them while the next are decoded.
            pictures = ahead(pictures)
        with av.open(job.outputs[0], "w", format="mp4", options={"fflags": "+bitexact"}) as sink:
            encoder = add_encoder(sink, frame_format, threads)
            count = 0
            for painted, first, stop in pictures:
                for slot in range(first, stop):
                    painted.pts = slot
                    sink.mux(encoder.encode(painted))
                count = stop
                job.progress(count / total)
            sink.mux(encoder.encode(None))
    return {"frames": count}


def encode_blank(job: Job, *, width: int, height: int, fps: str) -> Any:
    """Child: one black frame in the profile of `encode`, to learn its parameter sets."""
    frame_format = Format(width, height, Fraction(fps))
    with av.open(job.outputs[0], "w", format="mp4", options={"fflags": "+bitexact"}) as sink:
        encoder = add_encoder(sink, frame_format, 1)
        picture = VideoFrame(width, height, "yuv420p")
        for plane, value in zip(picture.planes, (16, 128, 128), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        picture.pts, picture.time_base = 0, 1 / frame_format.fps
        sink.mux(encoder.encode(picture))
        sink.mux(encoder.encode(None))
    return {"frames": 1}


def add_encoder(sink: OutputContainer, frame_format: Format, threads: int) -> VideoStream:
    options = X264 | {"g": str(round(frame_format.fps * KEYFRAME_SECONDS))}
    stream = sink.add_stream("libx264", rate=frame_format.fps, options=options)
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = frame_format.width, frame_format.height, "yuv420p"
    context.sample_aspect_ratio = Fraction(1)
    context.time_base = 1 / frame_format.fps
    # PyAV's default would cut every picture into slices, which costs size and gains little.
    context.thread_type, context.thread_count = "FRAME", threads
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
    context.colorspace, context.color_range = BT709.matrix, ColorRange.MPEG
    return stream


def paced(
    frames: Iterator[VideoFrame], fps: Fraction, total: int, *, start: Fraction = Fraction(0), hold: int = 0
) -> Iterator[tuple[VideoFrame, int, int]]:
    """Constant rate from any timestamps: `(frame, first slot, stop slot)` for the frames that are shown at all.

    A frame belongs to the slot nearest to its time and stays until the next one's; the last stays until `total`, and
    `hold` slots more. Slot 0 is `start` seconds after the first frame. Dropped frames are never scaled, repeated ones
    are scaled once.
    """
    origin: Fraction | None = None
    held: VideoFrame | None = None
    slot = 0
    for frame in frames:
        time = timestamp(frame)
        origin = time + start if origin is None else origin
        # Halves go up, always: rounding them to even would show pairs of neighbours when a rate is halved.
        arrival = floor((time - origin) * fps + Fraction(1, 2))
        if arrival >= total:
            break
        if held is not None and arrival > slot:
            yield held, slot, arrival
            slot = arrival
        held = frame
    else:
        if held is not None and start:
            _check_left(held, origin, fps)
    if held is None:
        raise ConformError("not one frame of it can be decoded", code="no_frames")
    yield held, slot, total + hold


def _check_left(last: VideoFrame, moment: Fraction | None, fps: Fraction) -> None:
    """Raise ConformError "nothing_left" where the last frame is no longer shown at that time."""
    assert last.time_base is not None
    length = last.duration * last.time_base or 1 / fps  # a file need not say
    if moment is not None and moment >= timestamp(last) + length:
        raise ConformError(
            "nothing of it is left behind the moment at which it is to start: let it start earlier",
            code="nothing_left",
        )


def ahead(items: Iterator[T], depth: int = 4) -> Iterator[T]:
    """The same items, worked out by another thread up to `depth` ahead: decoding goes on while x264 encodes."""
    end: Any = object()
    with ThreadPoolExecutor(1) as worker:
        waiting = deque(worker.submit(next, items, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(worker.submit(next, items, end))
            yield item


class Painter:
    """Turns decoded frames into frames of the format; builds its filter graph anew when the picture changes shape."""

    def __init__(self, frame_format: Format, fit: Fit, rotation: int, pixel_aspect: Fraction) -> None:
        self._format = frame_format
        self._fit = fit
        self._rotation = rotation
        self._pixel_aspect = pixel_aspect
        self._shape: tuple[object, ...] | None = None
        self._graph = Graph()

    def paint(self, frame: VideoFrame) -> VideoFrame:
        shape = (frame.width, frame.height, frame.format.name, frame.interlaced_frame)
        if shape != self._shape:
            self._graph = self._build(frame)
            self._shape = shape
        self._graph.push(frame)
        painted = self._graph.vpull()
        painted.time_base = 1 / self._format.fps
        # The source's picture type would be taken as an order to the encoder.
        painted.pict_type = PictureType.NONE
        return painted

    def _build(self, frame: VideoFrame) -> Graph:
        colour = usual_colour(frame_colour(frame), frame.height)
        upright = self._rotation % 180 == 0
        shown = shown_size(frame.width, frame.height, self._pixel_aspect, self._rotation)
        place = layout(shown, self._format, self._fit)
        chain = Chain(frame, colour)
        if frame.interlaced_frame:
            chain.add("bwdif", mode="send_frame", deint="all")
        # Scaling first makes tone mapping and turning cheap; the picture is still lying on its side here.
        size = (place.width, place.height) if upright else (place.height, place.width)
        chain.scale(size, colour)
        chain.turn(self._rotation)
        chain.place(place, self._format)
        return chain.finish()


class Chain:
    """A filter graph under construction: one line of filters, forked only for the blurred backdrop."""

    def __init__(self, frame: VideoFrame, colour: Colour) -> None:
        self._graph = Graph()
        self._graph.threads = 1
        self._last = self._graph.add(
            "buffer",
            video_size=f"{frame.width}x{frame.height}",
            pix_fmt=frame.format.name,
            time_base=str(frame.time_base),
            pixel_aspect="1/1",
            colorspace=str(int(frame.colorspace)),
            range=str(int(frame.color_range)),
        )
        self.add(
            "setparams",
            color_primaries=str(colour.primaries),
            color_trc=str(colour.transfer),
            colorspace=str(colour.matrix),
            range="full" if colour.full_range else "limited",
        )

    def add(self, name: str, **options: object) -> FilterContext:
        context = self._graph.add(name, **{key: str(value) for key, value in options.items()})
        self._last.link_to(context)
        self._last = context
        return context

    def scale(self, size: tuple[int, int], colour: Colour) -> None:
        width, height = size
        common = {"w": width, "h": height, "flags": "bicubic"}
        if colour.hdr or colour.primaries not in NARROW_PRIMARIES:
            self.add("scale", **common)
            self.add(
                "scale",
                flags="bicubic",
                out_color_matrix="bt709",
                out_range="limited",
                out_primaries="bt709",
                out_transfer="bt709",
                intent="perceptual",
            )
        else:
            self.add("scale", **common, out_color_matrix="bt709", out_range="limited")
        self.add("format", pix_fmts="yuv420p")
        self.add("setsar", sar="1")

    def turn(self, rotation: int) -> None:
        if rotation == 90:
            self.add("transpose", dir="clock")
        elif rotation == 270:
            self.add("transpose", dir="cclock")
        elif rotation == 180:
            self.add("hflip")
            self.add("vflip")

    def place(self, place: Layout, frame_format: Format) -> None:
        width, height = frame_format.width, frame_format.height
        if place.fit == "crop":
            self.add("crop", w=width, h=height)
        elif place.fit == "pad":
            self.add("pad", w=width, h=height, x=_centre(width - place.width), y=_centre(height - place.height))
        elif place.fit == "blur":
            self._backdrop(place, width, height)

    def _backdrop(self, place: Layout, width: int, height: int) -> None:
        split = self.add("split")
        scale = max(Fraction(width, place.width), Fraction(height, place.height)) / BLUR_SHRINK
        self.add("scale", w=_even(place.width * scale), h=_even(place.height * scale), flags="fast_bilinear")
        self.add("gblur", sigma=4, steps=2)
        self.add("scale", w=_even(place.width * scale * BLUR_SHRINK), h=_even(place.height * scale * BLUR_SHRINK))
        self.add("crop", w=width, h=height)
        overlay = self._graph.add("overlay", x=str(_centre(width - place.width)), y=str(_centre(height - place.height)))
        self._last.link_to(overlay, 0, 0)
        split.link_to(overlay, 1, 1)
        self._last = overlay
        self.add("format", pix_fmts="yuv420p")

    def finish(self) -> Graph:
        self.add("buffersink")
        self._graph.configure()
        return self._graph


def _centre(room: int) -> int:
    # Chroma planes are half as wide: an odd offset would shift colour against light.
    return 2 * (room // 4)
