"""File -> clip facts, read in a sandbox child; nothing is decided here."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from pydantic import TypeAdapter

from crosscut import decode, mp4
from crosscut.artifacts import artifact_key
from crosscut.errors import CrosscutError, ProbeError
from crosscut.media import ClipFacts, Colour, CopyFacts, Seconds, VideoFacts
from crosscut.sandbox import Limits

if TYPE_CHECKING:
    import threading

    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from crosscut.artifacts import Lease
    from crosscut.fetch import Source
    from crosscut.sandbox import Job, Sandbox

VERSION = 2
"""Part of the name of every stored fact sheet: raise it when a change here alters one."""

STANDARD_RATES = tuple(
    Fraction(rate) for rate in ("24000/1001", "24", "25", "30000/1001", "30", "48", "50", "60000/1001", "60")
)
MAX_SECONDS = 3_600
MAX_PACKETS = 500_000
MAX_TAIL = 60
"""Seconds a last picture may stay: screen recordings do that; a header that claims more is damaged."""

_FACTS = TypeAdapter(ClipFacts)


def probe(source: Source, lease: Lease, sandbox: Sandbox, cancelled: threading.Event | None = None) -> ClipFacts:
    """The facts of `source`, from the store where they were read before. Raises `CrosscutError` naming no source."""
    key = artifact_key("facts", source=source.sha256, version=VERSION)
    limits = Limits(cpu_seconds=120, wall_seconds=180)
    answer = lease.make_json(
        key,
        lambda: sandbox.run(
            "crosscut.probe:inspect", inputs=[source.path], limits=limits, cancelled=cancelled, arguments={}
        ),
    )
    return _FACTS.validate_python(answer)


def inspect(job: Job) -> Any:
    """Child: everything but the caller's name of `job.inputs[0]`, as JSON."""
    file = job.inputs[0]
    decode.refuse_unknown(file.read(4096))
    file.seek(0)
    with decode.open_media(file) as container:
        stream = decode.video_stream(container)
        sound = decode.audio_stream(container)
        audio = sound.codec_context.codec.canonical_name if sound is not None else None
        timing = _timing(container, stream) if stream is not None else None
    if stream is None or timing is None:
        return _FACTS.dump_python(ClipFacts(container.format.name, None, audio), mode="json")
    file.seek(0)
    with decode.open_media(file) as container:
        stream = decode.video_stream(container)
        assert stream is not None
        frame = next(iter(decode.decoded(container, stream)), None)
        if frame is None:
            raise ProbeError("not one frame of it can be decoded", code="no_frames")
        video = _video_facts(stream, frame, timing)
        name = container.format.name
    copy = _copy_facts(file) if "mp4" in name and video.codec == "h264" else None
    return _FACTS.dump_python(ClipFacts(name, video, audio, copy), mode="json")


@dataclass(frozen=True)
class Timing:
    rate: Fraction
    frames: int
    duration: Seconds


def _timing(container: InputContainer, stream: VideoStream) -> Timing:
    times, last_duration, packets = _packet_times(container, stream)
    base = stream.time_base or Fraction(1, 1000)
    if len(times) == 0:
        raise ProbeError("its video holds no pictures", code="no_frames")
    span = int(times[-1] - times[0]) * base
    step = span / (len(times) - 1) if len(times) > 1 else stream.guessed_rate and 1 / stream.guessed_rate
    step = step or Fraction(1, 30)
    tail = last_duration * base
    found = span + (tail if 0 < tail <= MAX_TAIL else step)
    promised = (stream.duration or 0) * base
    if packets < stream.frames and found + 1 < promised * Fraction(19, 20):
        raise ProbeError(
            f"it is cut off: {float(found):.1f} of {float(promised):.1f} s are there; upload or export it again",
            code="truncated",
        )
    # With every packet there, the header may still tell of a last picture that stays.
    held = stream.frames and packets >= stream.frames and found < promised <= found + MAX_TAIL
    duration = Seconds(promised if held else found)
    if duration > MAX_SECONDS:
        raise ProbeError(f"it is longer than {MAX_SECONDS // 60} minutes", code="limit_exceeded")
    return Timing(standard_rate(1 / step), len(times), duration)


def _packet_times(container: InputContainer, stream: VideoStream) -> tuple[NDArray[np.int64], int, int]:
    """Times of the shown packets in order, the duration of the one shown last, in ticks, and the count of all."""
    times: list[int] = []
    last, packets = (0, 0), 0
    for packet in container.demux(stream):
        packets += packet.size > 0
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None or packet.is_discard or packet.size == 0:
            continue
        times.append(time)
        last = max(last, (time, packet.duration or 0))
        if len(times) > MAX_PACKETS:
            raise ProbeError(f"it has more than {MAX_PACKETS} frames", code="limit_exceeded")
    return np.sort(np.array(times, dtype=np.int64)), last[1], packets


def standard_rate(rate: Fraction) -> Fraction:
    """The standard rate within 0.5 % of `rate`, else `rate` to a thousandth."""
    nearest = min(STANDARD_RATES, key=lambda standard: abs(standard - rate))
    if abs(nearest - rate) * 200 <= nearest:
        return nearest
    return max(Fraction(1, 1000), Fraction(round(rate * 1000), 1000))


def _video_facts(stream: VideoStream, frame: VideoFrame, timing: Timing) -> VideoFacts:
    aspect = stream.sample_aspect_ratio or Fraction(1)
    # A pixel eight times as wide as high is a damaged header, not a camera.
    if not Fraction(1, 8) <= aspect <= 8:
        aspect = Fraction(1)
    return VideoFacts(
        codec=stream.codec_context.codec.canonical_name,
        width=frame.width,
        height=frame.height,
        rotation=-frame.rotation % 360 if frame.rotation % 90 == 0 else 0,
        pixel_aspect=aspect,
        pixel_format=frame.format.name,
        colour=frame_colour(frame),
        frame_rate=timing.rate,
        frames=timing.frames,
        duration=timing.duration,
    )


def frame_colour(frame: VideoFrame) -> Colour:
    full = int(frame.color_range) == 2 or frame.format.name.startswith("yuvj")
    return Colour(int(frame.color_primaries), int(frame.color_trc), int(frame.colorspace), full)


def _copy_facts(file: BinaryIO) -> CopyFacts | None:
    """What the sample tables say; a track that our reader cannot follow is simply conformed."""

    def read(offset: int, length: int) -> bytes:
        file.seek(offset)
        return file.read(length)

    size = file.seek(0, 2)
    try:
        tracks = [track for track in mp4.read_tracks(read(*mp4.find_moov(read, size))) if track.kind == "video"]
        if len(tracks) != 1 or tracks[0].parameter_sets is None or len(tracks[0].sizes) == 0:
            return None
        track = tracks[0]
        obstacles = mp4.copy_obstacles(track, read)
    except CrosscutError:
        return None
    sets = track.parameter_sets
    return None if sets is None else CopyFacts(sets.hex(), track.frame_rate or Fraction(0), obstacles)
