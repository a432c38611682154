"""Frames of a video from a moment on, without decoding all that is before it."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO

from av.error import FFmpegError

from crosscut import decode
from crosscut.errors import ConformError, ProbeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

WORTH = Fraction(3)
"""Seconds: decoding less than this is quicker than it is to look for a key frame."""

INDEXED = ("mp4", "matroska")
"""Containers that know where their key frames are; in others a seek lands somewhere near."""


def timestamp(frame: VideoFrame) -> Fraction:
    """Seconds; `decoded` lets no frame through that has none."""
    assert frame.pts is not None
    assert frame.time_base is not None
    return frame.pts * frame.time_base


@contextlib.contextmanager
def frames_from(file: BinaryIO, start: Fraction, threads: int) -> Iterator[Iterator[VideoFrame]]:
    """The frames of a video, in order: the first one, whose time is the clip's zero, then those around `start` and on.

    What is between may be left out. ConformError "no_video"; ProbeError as `decode` has it.
    """
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(decode.open_media(file, threads=threads))
        frames = _sought(source, _video(source), start)
        if frames is None:
            stack.close()
            file.seek(0)
            source = stack.enter_context(decode.open_media(file, threads=threads))
            frames = decode.decoded(source, _video(source))
        yield frames


def _video(source: InputContainer) -> VideoStream:
    stream = decode.video_stream(source)
    if stream is None:
        raise ConformError("it has no video", code="no_video")
    return stream


def _sought(source: InputContainer, stream: VideoStream, start: Fraction) -> Iterator[VideoFrame] | None:
    """None where a seek failed or did not land on a key frame before `start`: the file must be opened again."""
    if start < WORTH or not any(name in source.format.name for name in INDEXED):
        return decode.decoded(source, stream)
    assert stream.time_base is not None
    try:
        first = next(decode.decoded(source, stream))
        moment = timestamp(first) + start
        source.seek(int(moment / stream.time_base), stream=stream, backward=True)
        frames = decode.decoded(source, stream)
        landed = next(frames)
    except MemoryError:
        raise
    except (FFmpegError, ProbeError, StopIteration):
        return None
    if not landed.key_frame or timestamp(landed) > moment:
        return None
    return _joined(first, landed, frames)


def _joined(first: VideoFrame, landed: VideoFrame, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    yield first
    yield landed
    yield from frames
