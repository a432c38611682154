"""Open and decode a media file from a stranger: known formats and codecs only, no second file, nothing without a bound.

Meant for a child of the sandbox. A MemoryError is let through, for the sandbox to name; every other fault of a file
that FFmpeg notices becomes a ProbeError.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO, overload

import av
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame

from crosscut.errors import ProbeError
from crosscut.sniff import HEAD, looks_like

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,mp3,wav,aac,flac,gif,mxf"
"""FFmpeg's demuxers we trust: none follows a reference to another file or address."""

VIDEO_DECODERS = (
    "h264,hevc,libdav1d,vp8,vp9,mpeg1video,mpeg2video,mpeg4,msmpeg4,h263,flv,mjpeg,prores,dnxhd,cfhd,dvvideo,theora,"
    "gif,png,qtrle"
)
AUDIO_DECODERS = (
    "aac,aac_latm,mp3float,mp3,mp2float,mp2,opus,vorbis,flac,alac,ac3,eac3,amrnb,amrwb,pcm_u8,pcm_s16le,pcm_s16be,"
    "pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,pcm_f64le,pcm_alaw,pcm_mulaw,adpcm_ms,adpcm_ima_wav,"
    "adpcm_ima_qt"
)
"""Names of decoders, which can differ from those of codecs (libdav1d decodes av1)."""

MAX_PIXELS = 8192 * 4320
"""The largest picture: 8K as in DCI and UHDTV."""
MAX_FRAMES = 500_000
MAX_PIXELS_TOTAL = 10**12
"""Pixels times frames: 37 minutes of 4K at 60 frames a second, or 2½ hours of 1080p at that rate."""
TOLERANCE = Fraction(1, 20)
"""The share of undecodable packets a file may have."""

_HOPELESS_PACKETS = 50

_DECODERS = f"{VIDEO_DECODERS},{AUDIO_DECODERS}"
_KNOWN_DECODERS = frozenset(_DECODERS.split(","))
_NEVER_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_CODEC_OPTIONS = {"codec_whitelist": _DECODERS, "max_pixels": str(MAX_PIXELS)}
_CONTAINER_OPTIONS = {
    # a file object without protocols cannot lead anywhere else; FFmpeg's default for one is to allow all
    "protocol_whitelist": "none",
    "format_whitelist": FORMATS,
    "codec_whitelist": _DECODERS,
    "max_streams": "64",
    "probesize": "10485760",
    "analyzeduration": "10000000",
}

_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


def refuse_unknown(head: bytes) -> None:
    """Raise ProbeError "not_media" where the first bytes (about `HEAD`) are plainly something else."""
    looks = looks_like(head)
    if looks:
        raise ProbeError(f"the file is {looks}, not video or sound; check what the link leads to", code="not_media")


def open_media(file: BinaryIO, *, threads: int = 1) -> InputContainer:
    """Open by content, never by name; the caller closes the container, then the file.

    ProbeError "not_media", or "truncated" for an MP4 without its index.
    """
    head = file.read(HEAD)
    file.seek(0)
    refuse_unknown(head)
    try:
        container = av.open(
            file,
            "r",
            metadata_errors="replace",
            container_options=_CONTAINER_OPTIONS,
            options={"max_pixels": str(MAX_PIXELS)},
        )
    except MemoryError:
        raise
    except (FFmpegError, OSError, ValueError) as error:
        raise _unopened(head, str(error)) from error
    for stream in container.streams:
        if _is_known(stream):
            stream.codec_context.options = _CODEC_OPTIONS
            stream.codec_context.thread_count = threads
            stream.codec_context.thread_type = "AUTO"
    return container


def _unopened(head: bytes, detail: str) -> ProbeError:
    if head[4:8] in _MP4_BOXES:
        return ProbeError(
            "the file is cut off or damaged: it has no readable index; upload or export it again",
            code="truncated",
            detail=detail,
        )
    return ProbeError(
        "the file is no video or sound of a kind we know; convert it to MP4 (H.264, AAC)",
        code="not_media",
        detail=detail,
    )


def video_stream(container: InputContainer) -> VideoStream | None:
    """The default stream, or else the largest, that is no cover picture and has a decoder we trust."""
    return max(
        (s for s in container.streams.video if _is_known(s) and not s.disposition & _NEVER_VIDEO),
        key=lambda s: (bool(s.disposition & Disposition.default), s.codec_context.width * s.codec_context.height),
        default=None,
    )


def audio_stream(container: InputContainer) -> AudioStream | None:
    """The default stream, or else the first, that has a decoder we trust."""
    return max(
        (s for s in container.streams.audio if _is_known(s)),
        key=lambda s: bool(s.disposition & Disposition.default),
        default=None,
    )


def _is_known(stream: Stream) -> bool:
    """Whether one of our decoders takes it; the context or its codec is None where FFmpeg has none at all."""
    context = stream.codec_context
    return context is not None and context.codec is not None and context.name in _KNOWN_DECODERS


def check_frame(frame: VideoFrame) -> None:
    """Raise ProbeError "damaged" for a frame that lacks planes of its format: scaling it would crash the process."""
    if len(frame.planes) < len({component.plane for component in frame.format.components}):
        raise ProbeError(
            "the video is damaged: a picture in it is incomplete; convert it with another program",
            code="damaged",
            detail=f"{len(frame.planes)} planes of {frame.format.name}",
        )


@overload
def decoded(
    container: InputContainer,
    stream: VideoStream,
    *,
    max_frames: int = ...,
    max_pixels_total: int = ...,
    tolerance: Fraction = ...,
) -> Iterator[VideoFrame]: ...
@overload
def decoded(
    container: InputContainer,
    stream: AudioStream,
    *,
    max_frames: int = ...,
    max_pixels_total: int = ...,
    tolerance: Fraction = ...,
) -> Iterator[AudioFrame]: ...
def decoded(
    container: InputContainer,
    stream: VideoStream | AudioStream,
    *,
    max_frames: int = MAX_FRAMES,
    max_pixels_total: int = MAX_PIXELS_TOTAL,
    tolerance: Fraction = TOLERANCE,
) -> Iterator[VideoFrame] | Iterator[AudioFrame]:
    """All frames of one stream in the order they are shown, each with a `pts`, as long as the budgets last.

    Packets that cannot be decoded are left out while their share is within `tolerance`. A frame without a time takes
    its place behind the one before, or is left out where that place is not known. For another stream open the file
    again: seeking back loses the first samples of some codecs. ProbeError: "no_frames", "damaged", "encrypted",
    "limit_exceeded".
    """
    tally = _Tally(max_frames, max_pixels_total, tolerance)
    place: int | None = stream.start_time or 0
    for packet in _packets(container, stream, tally):
        for frame in _frames(stream, packet, tally):
            tally.count(frame)
            if frame.pts is None:
                if place is None:
                    continue
                frame.pts = place
            place = frame.pts + frame.duration if frame.duration else None
            yield frame
    tally.close()


def _packets(
    container: InputContainer, stream: VideoStream | AudioStream, tally: _Tally
) -> Iterator[Packet[Stream] | None]:
    """The packets of a stream, the last one empty; a file that breaks off in the middle ends there."""
    try:
        for packet in container.demux(stream):
            if packet.has_sidedata("encryption_info"):
                raise ProbeError("the file is encrypted (DRM); use one without protection", code="encrypted")
            yield packet
    except MemoryError:
        raise
    except FFmpegError as error:
        tally.fail(error)
        yield None


def _frames(
    stream: VideoStream | AudioStream, packet: Packet[Stream] | None, tally: _Tally
) -> list[VideoFrame] | list[AudioFrame]:
    tally.packets += 1
    try:
        return stream.decode(packet)
    except MemoryError:
        raise
    except FFmpegError as error:
        tally.fail(error)
        return []


@dataclass
class _Tally:
    """What was decoded of a stream so far, against its budgets."""

    max_frames: int
    max_pixels_total: int
    tolerance: Fraction
    packets: int = 0
    failed: int = 0
    frames: int = 0
    pixels: int = 0
    reason: str = ""

    def count(self, frame: VideoFrame | AudioFrame) -> None:
        self.frames += 1
        if isinstance(frame, VideoFrame):
            check_frame(frame)
            self.pixels += frame.width * frame.height
        if self.frames > self.max_frames:
            raise _too_long(f"more than {self.max_frames:,} frames")
        if self.pixels > self.max_pixels_total:
            raise _too_long(f"more than {self.max_pixels_total:,} pixels in all its pictures")

    def fail(self, error: FFmpegError) -> None:
        self.failed += 1
        self.reason = str(error)
        if self.failed == self.packets == _HOPELESS_PACKETS:
            raise self._undecodable()

    def close(self) -> None:
        if self.frames == 0:
            raise self._undecodable()
        if self.failed > self.tolerance * self.packets:
            raise ProbeError(
                f"the file is damaged: {self.failed} of its {self.packets} packets cannot be decoded; "
                "convert it with another program",
                code="damaged",
                detail=self.reason,
            )

    def _undecodable(self) -> ProbeError:
        return ProbeError(
            "nothing in the file can be decoded: it is damaged or empty; convert it with another program",
            code="no_frames",
            detail=self.reason,
        )


def _too_long(limit: str) -> ProbeError:
    return ProbeError(f"the file has {limit}, the limit; use a shorter or smaller one", code="limit_exceeded")
