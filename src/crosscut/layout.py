"""Where the chunks of a spliced file lie: pictures and sound of each second together, or by what files share. Pure.

A grouped file is its index, then what no other file has (captions, the ends of its sound), then its clips one after
the other, each behind the sound that begins while it or a clip before it is shown. So the pictures of a clip are one
range of bytes that is the same in every video that has it, and what a player has loaded can be played, but for
`MOST_SOUND` of sound that it loads early.

Sound that is shared is cut at places of its own stream, not of the video's: into blocks whose length is a power of two
and that begin at a multiple of it. A video that takes the first n access units of a stream then consists of few blocks,
and they are among the few that all others take.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from crosscut.boxes import Ints

OWN = -1
"""No piece: what other videos do not have."""

LEAST_SOUND, MOST_SOUND = 32, 512
"""Access units in a block of shared sound: 0.7 and 10.9 seconds at 48 kHz."""


class Chunks(NamedTuple):
    """Those of a track: in which second of the video each starts, and of which piece it is a part."""

    seconds: Sequence[int]
    pieces: Sequence[int]


def interleaved(tracks: Sequence[Chunks]) -> list[tuple[int, int]]:
    """(track, chunk) in the order of the file: what is shown and heard at one time lies together."""
    order = sorted((second, number, chunk) for number, track in enumerate(tracks) for chunk, second in _counted(track))
    return [(number, chunk) for _, number, chunk in order]


def grouped(tracks: Sequence[Chunks]) -> list[tuple[int, int]]:
    """The same where each piece lies in one. The first track is the pictures, each clip a piece."""
    pictures = tracks[0]
    begins = [pictures.seconds[bisect_left(pictures.pieces, clip)] for clip in range(pictures.pieces[-1] + 1)]
    order: list[tuple[int, int, int, int, int]] = []
    for number, track in enumerate(tracks):
        # A piece stays together: where it lies is up to its first chunk.
        clips: dict[int, int] = {}
        for chunk, second in _counted(track):
            piece = track.pieces[chunk]
            if piece == OWN:
                order.append((OWN, 0, second, number, chunk))
            elif number == 0:
                order.append((piece, 1, 0, number, chunk))
            else:
                clip = clips.setdefault(piece, max(0, bisect_left(begins, second) - 1))
                order.append((clip, 0, piece, number, chunk))
    return [(number, chunk) for *_, number, chunk in sorted(order)]


def ranges(pieces: Iterable[tuple[int, int, int]], size: int) -> list[tuple[int, int]]:
    """Where the pieces are in a file of `size` bytes that ends with them, from the (track, piece, bytes) of chunks."""
    lengths: dict[tuple[int, int], int] = {}
    for track, piece, length in pieces:
        lengths[track, piece] = lengths.get((track, piece), 0) + length
    start = size - sum(lengths.values())
    found = []
    for length in lengths.values():
        found.append((start, start + length))
        start += length
    return found


def sound_pieces(spans: Iterable[tuple[int, int, bool]]) -> Ints:
    """For each access unit of a soundtrack the number of its piece.

    From its spans of streams: their first access unit, how many, and whether others have them.
    """
    parts: list[Ints] = []
    number = 0
    for first, count, shared in spans:
        pieces = np.full(count, OWN)
        for start, stop in _blocks(first, first + count) if shared else ():
            pieces[start - first : stop - first] = number
            number += 1
        parts.append(pieces)
    return np.concatenate(parts)


def _blocks(start: int, stop: int) -> Iterator[tuple[int, int]]:
    at = -(-start // LEAST_SOUND) * LEAST_SOUND
    while at + LEAST_SOUND <= stop:
        length = MOST_SOUND
        while at % length or at + length > stop:
            length //= 2
        yield at, at + length
        at += length


def _counted(track: Chunks) -> Iterator[tuple[int, int]]:
    return enumerate(track.seconds)
