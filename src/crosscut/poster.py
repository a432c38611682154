"""One picture of a clip as a JPEG, made in a sandbox child."""

from __future__ import annotations

import base64
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from av.codec import CodecContext
from av.video.reformatter import ColorRange, Colorspace

from crosscut import decode
from crosscut.conform import Painter
from crosscut.errors import ProbeError
from crosscut.media import Fit, Format
from crosscut.seeking import timestamp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame

    from crosscut.sandbox import Job

LONG_SIDE = 640
"""Pixels of the longer side."""

SECOND = Fraction(1)
"""Into the clip: the first picture is often black or blurred."""


def poster_size(width: int, height: int) -> tuple[int, int]:
    """`LONG_SIDE` at most, of the same shape, even."""
    scale = min(Fraction(1), Fraction(LONG_SIDE, max(width, height)))
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))


def draw(job: Job, *, width: int, height: int, fit: Fit, rotation: int, pixel_aspect: str, at: str) -> Any:
    """Child: the picture shown `at` (seconds, a fraction as text) into `job.inputs[0]`: `{"jpeg": base64}`."""
    with decode.open_media(job.inputs[0]) as container:
        stream = decode.video_stream(container)
        if stream is None:
            raise ProbeError("it has no video", code="no_video")
        frame = _shown(decode.decoded(container, stream), Fraction(at))
        painter = Painter(Format(width, height, Fraction(25)), fit, rotation, Fraction(pixel_aspect))
        painted = painter.paint(frame)
    # JFIF: BT.601 in full range, whatever the picture was in.
    full = painted.reformat(
        format="yuvj420p",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU601,
        src_color_range=ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )
    return {"jpeg": base64.b64encode(_jpeg(full)).decode()}


def _shown(frames: Iterator[VideoFrame], at: Fraction) -> VideoFrame:
    shown, origin = None, None
    for frame in frames:
        time = timestamp(frame)
        origin = time if origin is None else origin
        if shown is not None and time - origin > at:
            break
        shown = frame
    if shown is None:
        raise ProbeError("not one frame of it can be decoded", code="no_frames")
    return shown


def _jpeg(picture: VideoFrame) -> bytes:
    encoder: VideoCodecContext = CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = picture.width, picture.height, "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    encoder.thread_count = 1
    encoder.options = {"flags": "+qscale", "global_quality": str(4 * 118)}
    picture.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])
