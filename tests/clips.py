"""Short clips for tests, made with PyAV: every frame's number can be read back from its brightness."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from av.video.frame import VideoFrame

LEVELS = 70
STEP = 3
RATE = 48_000


def luma(number: int) -> int:
    """The brightness (limited range) of the upper half of frame `number`; repeats after `LEVELS` frames."""
    return 18 + STEP * (number % LEVELS)


def number_of(frame: VideoFrame) -> int:
    """The number of a frame, modulo `LEVELS`."""
    plane = frame.to_ndarray(format="yuv420p")[: frame.height // 4, 4 : frame.width - 4]
    return round((float(plane.mean()) - 18) / STEP)


def frame(number: int, size: tuple[int, int]) -> VideoFrame:
    """Grey above, a moving pattern below, so that encoders have something to predict."""
    width, height = size
    picture = np.full((height * 3 // 2, width), 128, np.uint8)
    picture[:height] = luma(number)
    rows, columns = np.mgrid[0 : height // 2, 0:width]
    picture[height // 2 : height] = 40 + (columns * 5 + rows * 3 + number * 7) % 160
    return av.VideoFrame.from_ndarray(picture, format="yuv420p")


def make_clip(
    path: Path,
    *,
    frames: int = 24,
    fps: Fraction | int = 24,
    size: tuple[int, int] = (96, 64),
    first: int = 0,
    options: Mapping[str, str] | None = None,
    moov_first: bool = True,
    audio: bool = False,
    hertz: float = 440.0,
    muxer: Mapping[str, str] | None = None,
) -> Path:
    """An H.264 MP4 whose frames are numbered from `first`; x264's defaults (B-frames, pyramid) unless `options` say.

    `audio` adds a tone of `hertz` as long as the pictures, interleaved with them.
    """
    rate = Fraction(fps)
    flags = {"movflags": "+faststart"} if moov_first else {}
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact", **flags, **(muxer or {})}) as out:
        video = out.add_stream("libx264", rate=rate)
        video.width, video.height = size
        video.pix_fmt = "yuv420p"
        video.time_base = 1 / rate
        video.codec_context.thread_count = 1
        video.options = {"crf": "12", "stitchable": "1", "x264-params": "bframes=3", **(options or {})}
        tone = out.add_stream("aac", rate=RATE, layout="stereo") if audio else None
        for index in range(frames):
            picture = frame(first + index, size)
            picture.pts = index
            picture.time_base = 1 / rate
            out.mux(video.encode(picture))
        out.mux(video.encode(None))
        if tone is not None:
            for sound in tone_frames(int(frames / rate * RATE), hertz=hertz):
                out.mux(tone.encode(sound))
            out.mux(tone.encode(None))
    return path


def make_sound(path: Path, samples: int, *, hertz: float = 440.0) -> Path:
    """AAC at 48 kHz, stereo, in an MP4 of its own."""
    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as out:
        stream = out.add_stream("aac", rate=RATE, layout="stereo")
        for sound in tone_frames(samples, hertz=hertz):
            out.mux(stream.encode(sound))
        out.mux(stream.encode(None))
    return path


def tone_frames(samples: int, *, hertz: float = 440.0) -> list[av.AudioFrame]:
    """A sine that swells, so that no two AAC frames are alike."""
    times = np.arange(samples) / RATE
    wave = (np.sin(2 * np.pi * hertz * times) * (0.1 + 0.3 * times / max(1e-9, samples / RATE))).astype(np.float32)
    made = []
    for start in range(0, samples, 1024):
        part = wave[start : start + 1024]
        sound = av.AudioFrame.from_ndarray(np.stack([part, part]), format="fltp", layout="stereo")
        sound.sample_rate = RATE
        sound.pts = start
        sound.time_base = Fraction(1, RATE)
        made.append(sound)
    return made
