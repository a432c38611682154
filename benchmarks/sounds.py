"""Sound encoded as AAC, against the ffmpeg command line with the settings it has by itself."""

from __future__ import annotations

import io
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import av
import numpy as np

from benchmarks import ffmpeg_way
from benchmarks.clips import RATE, write_wave
from benchmarks.measure import Cost, fresh, measured, typical
from crosscut import aac

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.clips import Inputs
    from benchmarks.scale import Scale

MINUTE = 60


@dataclass(frozen=True)
class Sounds:
    """A minute of music: seconds of processor time, and bytes."""

    crosscut: float
    ffmpeg: float
    bytes: int
    ffmpeg_bytes: int


def sounds(inputs: Inputs, scale: Scale, folder: Path) -> Sounds:
    folder.mkdir()
    sound, output = folder / "minute.wav", folder / "minute.m4a"
    piece = _read(inputs.music)
    write_wave(sound, np.tile(piece, (1, -(-MINUTE * RATE // piece.shape[1])))[:, : MINUTE * RATE].T, 2)
    ours, size = fresh(_encode, sound, scale.rounds)
    theirs = typical([ffmpeg_way.encode_sound(sound, output) for _ in range(scale.rounds)])
    return Sounds(ours.cpu, theirs.cpu, size, output.stat().st_size)


def _read(path: Path) -> NDArray[np.float32]:
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("fltp", "stereo", RATE)
        frames = [piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
    return np.concatenate([np.asarray(frame.to_ndarray(), np.float32) for frame in frames], axis=1)


def _encode(path: Path, rounds: int) -> tuple[Cost, int]:
    """The middle cost of some encodes, and the bytes of one; for a process of its own."""
    sound, costs, size = _read(path), [], 0
    for _ in range(rounds):
        with measured() as cost, aac.Encoder(io.BytesIO()) as encoder:
            size = sum(len(unit) for unit in (*encoder.encode(sound), *encoder.finish()))
        costs.append(cost)
    return Cost(median(each.wall for each in costs), median(each.cpu for each in costs)), size
