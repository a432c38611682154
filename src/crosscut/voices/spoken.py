"""What the voices that speak on this machine share: their sound as a PCM file, and words spread over it."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, BinaryIO

import av
import numpy as np

from crosscut import pcm
from crosscut.errors import VoiceError
from crosscut.media import AUDIO_RATE, Seconds
from crosscut.voices import Word

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from av.audio.frame import AudioFrame

TAIL = AUDIO_RATE // 20
"""Samples kept behind the last one heard."""

Samples = np.ndarray[Any, np.dtype[np.int16]] | np.ndarray[Any, np.dtype[np.float32]]

Timed = tuple[str, int, int]
"""A word as a child answers it: its text, and from when to when it is heard, in milliseconds."""


def record(output: BinaryIO, rate: int, pieces: Iterable[Samples]) -> int:
    """Write mono sound of `rate` samples a second as PCM, without the silence behind it; its samples at 48 kHz.

    Raises VoiceError "silent".
    """
    heard = False
    for piece in pcm.resampled(_frames(rate, pieces), "mono"):
        heard = heard or bool(piece.any())
        pcm.write(output, piece)
    if not heard:
        raise VoiceError("nothing is heard of this voice-over; write words the voice can speak", code="silent")
    _, end = pcm.audible(output, 1)
    samples = min(end + TAIL, pcm.count(output, 1))
    output.truncate(samples * 4)
    return samples


def _frames(rate: int, pieces: Iterable[Samples]) -> Iterator[AudioFrame]:
    for piece in pieces:
        if len(piece):
            form = "s16" if piece.dtype == np.int16 else "flt"
            frame = av.AudioFrame.from_ndarray(piece.reshape(1, -1), format=form, layout="mono")
            frame.sample_rate = rate
            yield frame


def spread(start: int, stop: int, weights: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbouring spans that share `start` to `stop` by their weights, which are positive."""
    edges = [0, *accumulate(weights)]
    return list(pairwise(start + (stop - start) * edge // edges[-1] for edge in edges))


def words_of(timed: Iterable[Timed]) -> tuple[Word, ...]:
    return tuple(
        Word(text, Seconds(Fraction(start, 1_000)), Seconds(Fraction(end, 1_000))) for text, start, end in timed
    )
