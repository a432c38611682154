"""Sounds for tests: signals, media files and PCM files made of them, and a way to call child functions here."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from crosscut import pcm
from crosscut.sandbox import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from av.container import OutputContainer

    from crosscut.loudness import Signal

RATE = 48_000


def tune(seconds: float, *, seed: int = 0, level: float = 0.3) -> Signal:
    """Stereo plucked notes and drum hits, four a second: something a codec and a limiter have work with."""
    draw = np.random.default_rng(seed)
    samples = round(seconds * RATE)
    sound = np.zeros((2, samples + RATE))
    time = np.arange(RATE) / RATE
    for start in range(0, samples, RATE // 4):
        hertz = 220 * 2 ** (draw.integers(0, 24) / 12)
        note = np.exp(-6 * time) * (np.sin(2 * np.pi * hertz * time) + 0.3 * np.sin(6 * np.pi * hertz * time))
        hit = np.exp(-60 * time) * draw.standard_normal((2, RATE))
        sound[:, start : start + RATE] += 0.5 * note + 0.3 * hit
    return np.asarray(level * sound[:, :samples], np.float32)


def speech(seconds: float, *, seed: int = 1) -> Signal:
    """Mono: a buzz with syllables and pauses, as peaky as a voice."""
    time = np.arange(round(seconds * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * 140 * harmonic * time) / harmonic for harmonic in range(1, 30))
    syllables = np.clip(np.sin(2 * np.pi * 2.5 * time + seed) + 0.4, 0, None) ** 2
    return np.asarray(0.08 * buzz * syllables, np.float32)[None, :]


def write_media(
    path: Path,
    signal: Signal,
    *,
    codec: str = "pcm_s16le",
    rate: int = RATE,
    layout: str = "stereo",
    picture: bool = False,
) -> Path:
    """A media file of `signal`, whose samples are taken to be at `rate`; the container follows the name."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        if picture:
            _write_picture(container)
        for start in range(0, signal.shape[1], 1_024):
            piece = np.ascontiguousarray(signal[:, start : start + 1_024])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_silent_video(path: Path) -> Path:
    with av.open(path, "w") as container:
        _write_picture(container)
    return path


def _write_picture(container: OutputContainer) -> None:
    stream = container.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
    picture = av.VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), format="yuv420p")
    packets = stream.encode(picture) + stream.encode(None)
    container.start_encoding()
    container.mux(packets)


def write_pcm(path: Path, signal: Signal) -> Path:
    with path.open("xb") as file:
        pcm.write(file, signal)
    return path


def read_pcm(path: Path, channels: int) -> Signal:
    with path.open("rb") as file:
        return pcm.read(file, channels, 0, pcm.count(file, channels))


def child(
    function: Callable[..., dict[str, Any]], inputs: Sequence[Path], outputs: Sequence[Path] = (), **arguments: Any
) -> dict[str, Any]:
    """Call a child function in this process, with arguments and answer through JSON as the sandbox does."""
    with ExitStack() as stack:
        job = Job(
            inputs=tuple(stack.enter_context(path.open("rb")) for path in inputs),
            outputs=tuple(stack.enter_context(path.open("x+b")) for path in outputs),
        )
        answer: dict[str, Any] = json.loads(
            json.dumps(function(job, **json.loads(json.dumps(arguments))), allow_nan=False)
        )
    return answer
