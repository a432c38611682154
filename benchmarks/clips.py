"""The inputs, made here: clips with detail at every scale, grain and movement, as a camera gives; music; a voice."""

from __future__ import annotations

import wave
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from crosscut.sandbox import Sandbox
from crosscut.voices.espeak import EspeakVoice

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.scale import Scale

Picture: TypeAlias = "NDArray[np.uint8]"
Blocks: TypeAlias = "list[list[Path]]"

ENCODERS = (
    {"preset": "superfast", "crf": "21", "x264-params": "bframes=3:ref=2"},
    {"preset": "superfast", "crf": "21", "profile": "baseline"},
    {"preset": "veryfast", "crf": "21", "x264-params": "bframes=2:ref=4:b-pyramid=none"},
)
SMALL = {"preset": "superfast", "crf": "24"}
NTSC = Fraction(30000, 1001)

OCTAVES = (256, 128, 64, 32, 16, 8, 4, 2)
"""Sizes of the spots in a picture, in pixels."""
DETAIL = 0.4
"""A spot is as strong as its size to this power: the lower, the more detail. With `GRAIN` it is chosen so that x264
takes about as many bits as for films from phones: 4 Mbit/s for 1080p at our settings, twice that at ultrafast."""
GRAIN = 0.7
"""Standard deviation of the noise in steps of luma."""
RATE = 48_000
VOICE = "en-us"


@dataclass(frozen=True)
class Inputs:
    """Three blocks of three clips each, and `many` smaller ones; `voice` is `text` as Crosscut's own voice says it."""

    mixed: Blocks
    alike: Blocks
    different: Blocks
    sounding: Blocks
    """Those of `alike` with sound of their own."""
    small: Blocks
    music: Path
    voice: Path


def make_inputs(folder: Path, scale: Scale) -> Inputs:
    folder.mkdir()
    frame, rate = scale.frame, Fraction(30)
    numbers = [[3 * block + clip for clip in range(3)] for block in range(3)]

    def clip(name: str, size: tuple[int, int], fps: Fraction, encoder: dict[str, str], seed: int) -> Path:
        path = folder / f"{name} {seed}.mp4"
        make_clip(path, size, fps, scale.seconds, encoder, seed)
        return path

    alike = [[clip("alike", frame, rate, ENCODERS[0], number) for number in block] for block in numbers]

    def other(number: int) -> tuple[Path, Path]:
        """A clip of another shape, and one of another encoder; every variation gets some of each kind."""
        block, kind = number // 3, (number // 3 + number) % 3
        if kind == 0:
            return alike[block][number % 3], alike[block][number % 3]
        shape = (scale.landscape, Fraction(25)) if kind == 1 else (frame, NTSC)
        return clip("mixed", *shape, ENCODERS[0], number), clip("different", frame, rate, ENCODERS[kind], number)

    others = [[other(number) for number in block] for block in numbers]
    music, voice = folder / "music.wav", folder / "voice.wav"
    make_music(music)
    make_voice(voice, scale.text)
    sounding = [
        [with_sound(path, folder / f"sounding {path.stem}.mp4", scale.seconds, seed) for seed, path in enumerate(block)]
        for block in alike
    ]
    return Inputs(
        sounding=sounding,
        mixed=[[mixed for mixed, _ in block] for block in others],
        alike=alike,
        different=[[different for _, different in block] for block in others],
        small=make_small(folder, scale),
        music=music,
        voice=voice,
    )


def make_small(folder: Path, scale: Scale) -> Blocks:
    """Three blocks of `many` clips of half the size."""
    half = (scale.frame[0] // 2, scale.frame[1] // 2)
    paths = [
        [folder / f"small {scale.many * block + number}.mp4" for number in range(scale.many)] for block in range(3)
    ]
    for seed, path in enumerate(path for block in paths for path in block):
        make_clip(path, half, Fraction(30), scale.seconds, SMALL, seed)
    return paths


def make_clip(
    path: Path, size: tuple[int, int], fps: Fraction, seconds: int, encoder: dict[str, str], seed: int
) -> None:
    """A camera that pans over a scene, and something in front of it that moves the other way, under grain."""
    (width, height), frames = size, round(seconds * fps)
    scene = Scene(width, height, frames, seed)
    grain = [grain_of(width, height, seed + number) for number in range(5)]
    with av.open(str(path), "w", format="mp4") as sink:
        stream = sink.add_stream("libx264", rate=fps, options=encoder)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        for number in range(frames):
            luma, *colours = scene.planes(number)
            luma += grain[number % len(grain)]
            picture = np.concatenate([luma, *(colour.reshape(-1, width) for colour in colours)])
            sink.mux(stream.encode(VideoFrame.from_ndarray(picture, format="yuv420p")))
        sink.mux(stream.encode(None))


class Scene:
    """Pictures with detail at every scale that move by quarters of a pixel, which is what makes them hard to encode."""

    def __init__(self, width: int, height: int, frames: int, seed: int) -> None:
        self._size = width, height
        self._frames = frames
        wide, high = width + 2 * frames + 4, height + 2 * frames + 4
        luma = texture(wide, high, seed).astype(np.uint16)
        after = np.roll(luma, -1, axis=1)
        self._luma = [(((4 - part) * luma + part * after) // 4).astype(np.uint8) for part in range(4)]
        self._colours = [texture(wide // 2, high // 2, seed + shift) // 4 + 96 for shift in (1000, 2000)]

    def planes(self, number: int) -> list[Picture]:
        """Luma and both chroma planes of a frame, to be kept and changed."""
        width, height = self._size
        planes = self._window(5 * number, self._frames + round(self._frames * np.sin(number / 20)), width, height)
        front = self._window(7 * (self._frames - number), number, width // 2, height // 2)
        for back, plane in zip(planes, front, strict=True):
            rows, columns = plane.shape
            back[rows // 2 : rows // 2 + rows, columns // 2 : columns // 2 + columns] = plane
        return planes

    def _window(self, quarters: int, y: int, width: int, height: int) -> list[Picture]:
        x = quarters // 4
        luma = self._luma[quarters % 4][y : y + height, x : x + width].copy()
        colours = [plane[y // 2 : y // 2 + height // 2, x // 2 : x // 2 + width // 2].copy() for plane in self._colours]
        return [luma, *colours]


def texture(width: int, height: int, seed: int) -> Picture:
    """Luma with room for `grain_of` within the limits of video (16 to 235)."""
    draw = np.random.default_rng(seed)
    total = np.zeros((height, width), np.float32)
    for spot in OCTAVES:
        spots = draw.integers(0, 256, (height // spot + 2, width // spot + 2), np.uint8)
        total += spot**DETAIL * enlarged(spots, width, height).astype(np.float32)
    low, high = np.percentile(total, (0.5, 99.5))
    picture: Picture = (np.clip((total - low) / (high - low), 0, 1) * 187 + 32).astype(np.uint8)
    return picture


def grain_of(width: int, height: int, seed: int) -> Picture:
    """Noise of two pixels' size, as cameras leave it, modulo 256: to be added without a thought of overflow."""
    noise = np.random.default_rng(seed).normal(128, 2 * GRAIN, (height // 2, width // 2))
    return enlarged(np.clip(noise, 114, 142).astype(np.uint8), width, height) - np.uint8(128)


def enlarged(picture: Picture, width: int, height: int) -> Picture:
    frame = VideoFrame.from_ndarray(picture, format="gray").reformat(width, height, interpolation="BICUBIC")
    return frame.to_ndarray().astype(np.uint8, copy=False)


def make_music(path: Path, seconds: int = 8) -> None:
    """Chords over a drum, shorter than the videos: it has to be looped."""
    time = np.arange(seconds * RATE) / RATE
    chords = np.array([(220.0, 277.2, 329.6), (196.0, 246.9, 293.7)])[(time.astype(int) // 2) % 2]
    tones = np.sin(2 * np.pi * chords * time[:, None]).mean(axis=1)
    stroke = np.exp(-8 * (time % 0.5))
    drum = np.sin(2 * np.pi * 60 * (time % 0.5)) * stroke
    hiss = np.random.default_rng(1).normal(0, 0.02, (2, len(time))) * stroke
    write_wave(path, (tones + drum + hiss).T * 0.3, 2)


def with_sound(clip: Path, path: Path, seconds: int, seed: int) -> Path:
    """The same packets with a sound beside them: tones that come and go over noise, as loud as `seed` says."""
    time = np.arange(seconds * RATE) / RATE
    tones = np.sin(2 * np.pi * (180 + 40 * seed) * time) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * time))
    noise = np.random.default_rng(seed).normal(0, 0.05, (2, len(time)))
    sound = ((0.2 + 0.1 * seed) * (tones + noise)).astype(np.float32)
    with av.open(str(clip)) as source, av.open(str(path), "w", format="mp4") as sink:
        (pictures,) = source.streams.video
        video, audio = sink.add_stream_from_template(pictures), sink.add_stream("aac", rate=RATE, layout="stereo")
        for packet in source.demux(pictures):
            if packet.dts is not None:
                packet.stream = video
                sink.mux(packet)
        frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = RATE, 0
        sink.mux(audio.encode(frame))
        sink.mux(audio.encode(None))
    return path


def make_voice(path: Path, text: str) -> None:
    raw = path.with_suffix(".pcm")
    with Sandbox(("crosscut.voices.espeak",)) as sandbox:
        voice = EspeakVoice(sandbox)
        voice.speak(text, voice.resolve(VOICE), raw)
    write_wave(path, np.fromfile(raw, "<f4"), 1)


def write_wave(path: Path, sound: NDArray[np.floating], channels: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(sound, -1, 1) * 32_767).astype("<i2").tobytes())
