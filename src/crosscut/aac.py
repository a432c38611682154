"""AAC-LC at 48 kHz stereo: encode to MP4, decode, and read single access units of our own files.

The settings leave the encoder without long memory: constant quality (no rate control), no noise substitution (its
random numbers run through the file), no marks in the stream. So two encodes of the same sound, begun at different
frames, soon use the same windows for the same samples, and mostly are the same bits. Where the windows agree, units of
one may follow those of the other: what overlaps cancels, and the rest is the usual error of coding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Self

import av
import numpy as np

from crosscut.media import AAC_FRAME, AUDIO_RATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from crosscut.loudness import Signal

PRIMING = 1_024
"""Samples a decoder gives before the first of ours: one frame, for the overlap of the transform."""

CHANNEL_PAIR = 1
"""Syntactic element of two channels (ISO/IEC 14496-3, table 4.85)."""

OPTIONS = {
    "flags": "+qscale+bitexact",
    "aac_coder": "fast",
    "global_quality": "200",  # about 75 to 160 kb/s
    "aac_pns": "0",
}
"""Why these: docs/decisions/aac-at-constant-quality.md."""


def frames(samples: int) -> int:
    """Access units of a stream of so many samples. Number n covers samples (n - 1) 1024 to (n + 1) 1024, windowed."""
    return 1 + -(-samples // AAC_FRAME)


def windows(unit: bytes) -> bytes:
    """What two access units must have in common for one to stand for the other: the windows of both channels.

    Where the channels share theirs (ISO/IEC 14496-3, tables 4.4 and 4.6), these are its sequence and shape. Where they
    do not, those of the second channel lie behind entropy coding, and it is all of the unit.
    """
    shared = len(unit) > 1 and unit[0] >> 5 == CHANNEL_PAIR and unit[0] & 1
    return bytes([unit[1] >> 4]) if shared else unit


class Encoder:
    """Writes one MP4 track to `file`, from its start on, and gives the access units as they come."""

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        file.truncate()
        self._container = av.open(file, "w", format="mp4", options={"fflags": "+bitexact"})
        self._stream = self._container.add_stream("aac", rate=AUDIO_RATE, layout="stereo", options=OPTIONS)
        self._container.start_encoding()
        self._at = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @property
    def extradata(self) -> bytes:
        return self._stream.codec_context.extradata or b""

    def encode(self, signal: Signal) -> Iterator[bytes]:
        """`signal` is whole frames long, but for the last; FFmpeg cuts it into them."""
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(signal), format="fltp", layout="stereo")
        frame.sample_rate = AUDIO_RATE
        frame.pts = self._at
        self._at += signal.shape[1]
        return self._written(frame)

    def finish(self) -> Iterator[bytes]:
        return self._written(None)

    def _written(self, frame: av.AudioFrame | None) -> Iterator[bytes]:
        for packet in self._stream.encode(frame):
            yield bytes(packet)
            self._container.mux(packet)


class Decoder:
    """Decodes access units that follow each other; what the first one gives is thrown away: it misses its overlap."""

    def __init__(self, extradata: bytes) -> None:
        self._codec = av.CodecContext.create("aac", "r")
        self._codec.extradata = extradata
        self._lead = PRIMING

    def decode(self, packets: Iterable[bytes]) -> Signal:
        pieces: list[Signal] = [np.zeros((2, 0), np.float32)]
        for packet in packets:
            for frame in self._codec.decode(av.Packet(packet)):
                assert isinstance(frame, av.AudioFrame)
                # As `to_ndarray` does, which takes three times as long.
                planes = [np.frombuffer(bytes(plane), np.float32, frame.samples) for plane in frame.planes]
                pieces.append(np.stack(planes))
        sound = np.concatenate(pieces, axis=1)
        lead, self._lead = self._lead, max(0, self._lead - sound.shape[1])
        return sound[:, lead:]


class Reader:
    """Any access units of a file that `Encoder` wrote."""

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        self._container = av.open(file, "r", format="mp4")
        self._stream = self._container.streams.audio[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @property
    def extradata(self) -> bytes:
        return self._stream.codec_context.extradata or b""

    def units(self, first: int, stop: int) -> list[bytes]:
        """Numbers `first` to `stop`, without `stop`."""
        start, end = (number * AAC_FRAME - PRIMING for number in (first, stop))
        if first >= stop:
            return []
        self._container.seek(start, stream=self._stream, backward=True)
        found = []
        for packet in self._container.demux(self._stream):
            if packet.pts is None or packet.pts >= end:
                break
            if packet.pts >= start:
                found.append(bytes(packet))
        return found
