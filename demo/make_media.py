"""Sample clips and music for the demo, made here: sizes, frame rates and shapes as mixed as in real life."""

from __future__ import annotations

import sys
import wave
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.frame import VideoFrame

if TYPE_CHECKING:
    from numpy.typing import NDArray

GLYPHS = {
    "A": "01110 10001 10001 11111 10001 10001 10001",
    "B": "11110 10001 10001 11110 10001 10001 11110",
    "C": "01111 10000 10000 10000 10000 10000 01111",
    "D": "11110 10001 10001 10001 10001 10001 11110",
    "H": "10001 10001 10001 11111 10001 10001 10001",
    "K": "10001 10010 10100 11000 10100 10010 10001",
    "O": "01110 10001 10001 10001 10001 10001 01110",
    "T": "11111 00100 00100 00100 00100 00100 00100",
    "Y": "10001 10001 01010 00100 00100 00100 00100",
    "1": "00100 01100 00100 00100 00100 00100 01110",
    "2": "01110 10001 00001 00110 01000 10000 11111",
    "3": "11110 00001 00001 01110 00001 00001 11110",
    " ": "00000 00000 00000 00000 00000 00000 00000",
}

# name, words, size, frames a second, seconds, colours from and to
CLIPS = (
    ("hook 1.mp4", "HOOK 1", (1080, 1920), Fraction(30), 3, (0x0F4C81, 0x53B3CB)),
    ("hook 2.mp4", "HOOK 2", (1280, 720), Fraction(25), 3, (0x7B2D26, 0xF0A202)),
    ("hook (3).MP4", "HOOK 3", (720, 1280), Fraction(30000, 1001), 2, (0x1B4332, 0x95D5B2)),
    ("body 1.mp4", "BODY 1", (1080, 1920), Fraction(30), 4, (0x3C1642, 0xAFFC41)),
    ("body 2.mp4", "BODY 2", (1080, 1080), Fraction(24), 4, (0x22223B, 0xC9ADA7)),
    ("cta 1.mp4", "CTA 1", (1080, 1920), Fraction(30), 2, (0x9B2226, 0xEE9B00)),
    ("cta 2.mp4", "CTA 2", (1080, 1920), Fraction(60), 2, (0x005F73, 0x94D2BD)),
)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, words, size, fps, seconds, colours in CLIPS:
        if not (folder / name).exists():
            print(f"making {name}")
            make_clip(folder / name, words, size, fps, seconds, colours)
    for name, chords, beat in (
        ("calm.wav", ((220.0, 277.2, 329.6), (196.0, 246.9, 293.7)), 2.0),
        ("lively.wav", ((261.6, 329.6, 392.0), (293.7, 370.0, 440.0), (349.2, 440.0, 523.3)), 0.5),
    ):
        if not (folder / name).exists():
            print(f"making {name}")
            make_music(folder / name, chords, beat)


def make_clip(
    path: Path, words: str, size: tuple[int, int], fps: Fraction, seconds: int, colours: tuple[int, int]
) -> None:
    width, height = size
    mask = lettering(words, width, height)
    first, last = (np.array([c >> 16, c >> 8 & 255, c & 255], dtype=np.float32) for c in colours)
    # The gradient is computed small and scaled up: it is smooth, and a sixteenth of the work.
    slope = (np.linspace(0, 1, height // 16)[:, None] + np.linspace(0, 1, width // 16)[None, :]) / 2
    with av.open(str(path), "w", format="mp4") as sink:
        stream = sink.add_stream("libx264", rate=fps, options={"crf": "26", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(round(seconds * fps)):
            turn = 0.5 + 0.5 * np.sin(2 * np.pi * (slope + number / float(fps * seconds)))
            gradient = (first + (last - first) * turn[..., None]).astype(np.uint8)
            frame = VideoFrame.from_ndarray(gradient, format="rgb24").reformat(width, height, "yuv420p")
            picture = frame.to_ndarray()
            picture[:height][mask] = 235
            sink.mux(stream.encode(VideoFrame.from_ndarray(picture, format="yuv420p")))
        sink.mux(stream.encode(None))


def lettering(words: str, width: int, height: int) -> NDArray[np.bool_]:
    """A mask of `words` in large square letters across the middle."""
    rows = [[bit == "1" for letter in words for bit in GLYPHS[letter].split()[row] + "0"] for row in range(7)]
    cell = max(1, int(width * 0.8) // len(rows[0]))
    letters = np.kron(np.array(rows, dtype=bool), np.ones((cell, cell), dtype=bool))
    mask = np.zeros((height, width), dtype=bool)
    top, left = (height - letters.shape[0]) // 2, (width - letters.shape[1]) // 2
    mask[top : top + letters.shape[0], left : left + letters.shape[1]] = letters
    return mask


def make_music(path: Path, chords: tuple[tuple[float, ...], ...], beat: float) -> None:
    rate = 44_100
    time = np.arange(int(rate * beat)) / rate
    fade = np.minimum(1, np.minimum(time, beat - time) / 0.05)
    bars = [sum(np.sin(2 * np.pi * tone * time) for tone in chord) * fade for chord in chords]
    samples = np.tile(np.concatenate(bars), max(1, round(8 / (beat * len(chords)))))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples / np.abs(samples).max() * 20_000).astype("<i2").tobytes())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
