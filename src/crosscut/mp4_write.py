"""Write the head of an MP4 (ISO/IEC 14496-12): `ftyp`, the `moov` with all sample tables, and the start of `mdat`.

Pure. Equal tables give equal bytes: no clock is read, creation times are zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from crosscut.boxes import box, full_box
from crosscut.media import AUDIO_RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crosscut.boxes import Ints
    from crosscut.mp4 import Flags, Kind

MAX_32 = 0xFFFF_FFFF
MAX_MOVIE_TIMESCALE = 1_000_000
"""Above it, 32-bit durations would end after little more than an hour."""

_FTYP = box(b"ftyp", b"isom", (512).to_bytes(4), b"isomiso2avc1mp41")
_MATRIX = np.array([1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4").tobytes()
_FONT = b"Arial"
_DINF = box(b"dinf", full_box(b"dref", (1).to_bytes(4), full_box(b"url ", flags=1)))
_HANDLERS = {"video": (b"vide", b"video\0"), "audio": (b"soun", b"sound\0"), "text": (b"sbtl", b"captions\0")}
"""QuickTime's `sbtl` and not `text`: by it players know a subtitle, which is only shown to those who want it."""
_MEDIA_HEADERS = {
    "video": full_box(b"vmhd", bytes(8), flags=1),
    "audio": full_box(b"smhd", bytes(4)),
    "text": full_box(b"nmhd"),
}


@dataclass(frozen=True, eq=False)
class TrackTable:
    """What the `moov` says of one track: sample tables in decoding order, times in ticks of `timescale`."""

    kind: Kind | Literal["text"]
    timescale: int
    entries: tuple[bytes, ...]
    """Whole sample entries; several only where decoders must be set up anew along the way."""
    sizes: Ints
    durations: Ints
    chunk_samples: Ints
    """Samples in every chunk."""
    chunk_offsets: Ints
    """Where every chunk starts, from the first byte of media."""
    chunk_entries: Ints
    """Index into `entries`, for every chunk."""
    shown: int
    """Ticks the edit list shows, from `media_time` on."""
    media_time: int = 0
    shifts: Ints | None = None
    """Composition offsets; None where samples are shown as they are decoded."""
    sync: Flags | None = None
    """None where every sample is a sync sample."""
    width: int = 0
    height: int = 0
    top: int = 0
    """Pixels from the top of the picture to where the track is shown."""
    group: int = 0
    """Of the tracks of one group, 0 apart, a player shows one."""
    language: str = "und"
    """ISO 639-2."""


def write_head(tracks: Sequence[TrackTable], media: int) -> bytes:
    """Everything before the first of `media` bytes of samples; `moov` comes first, so playing starts at once.

    Chunk offsets take 64 bits only where the file needs them.
    """
    movie_timescale = math.lcm(*(track.timescale for track in tracks))
    if movie_timescale > MAX_MOVIE_TIMESCALE:
        movie_timescale = AUDIO_RATE
    shown = [_rescale(track.shown, movie_timescale, track.timescale) for track in tracks]
    mvhd = _movie_header(movie_timescale, max(shown), len(tracks) + 1)
    mdat = _mdat_header(media)
    bodies = [_sample_tables(track) for track in tracks]

    def moov(start: int, kind: bytes) -> bytes:
        traks = [
            _trak(number, track, duration, body + _chunk_offsets(track, start, kind))
            for number, (track, duration, body) in enumerate(zip(tracks, shown, bodies, strict=True), 1)
        ]
        return box(b"moov", mvhd, *traks)

    kind = b"stco"
    start = len(_FTYP) + len(moov(0, kind)) + len(mdat)
    if start + media > MAX_32:
        kind = b"co64"
        start = len(_FTYP) + len(moov(0, kind)) + len(mdat)
    return _FTYP + moov(start, kind) + mdat


def text_entry(width: int, height: int, font: int) -> bytes:
    """A `tx3g` sample entry (3GPP TS 26.245, 5.16): white on a dark veil, centred, at the bottom of a box that size."""
    white, veil, everything = b"\xff" * 4, bytes(3) + b"\x99", bytes(4)
    style = everything + (1).to_bytes(2) + bytes(1) + font.to_bytes(1) + white
    fonts = box(b"ftab", (1).to_bytes(2) + (1).to_bytes(2) + bytes((len(_FONT),)) + _FONT)
    justified = (1).to_bytes(1) + (-1).to_bytes(1, signed=True)
    corners = bytes(4) + height.to_bytes(2) + width.to_bytes(2)
    return box(b"tx3g", bytes(6) + (1).to_bytes(2) + bytes(4) + justified + veil + corners + style + fonts)


def run_lengths(values: Ints) -> tuple[Ints, Ints]:
    """How many, and which value, for every run of equal neighbours."""
    edges = np.flatnonzero(np.diff(values)) + 1
    starts = np.concatenate((np.zeros(min(1, len(values)), np.int64), edges))
    return np.diff(np.append(starts, len(values))), values[starts]


def _rescale(ticks: int, to: int, of: int) -> int:
    return (2 * ticks * to + of) // (2 * of)


def _mdat_header(media: int) -> bytes:
    if media + 8 > MAX_32:
        return (1).to_bytes(4) + b"mdat" + (media + 16).to_bytes(8)
    return (media + 8).to_bytes(4) + b"mdat"


def _long(ticks: int) -> tuple[int, int]:
    """Version of a header box that holds `ticks`, and the bytes its times take."""
    return (1, 8) if ticks > MAX_32 else (0, 4)


def _movie_header(timescale: int, duration: int, next_track: int) -> bytes:
    version, size = _long(duration)
    return full_box(
        b"mvhd",
        bytes(2 * size),
        timescale.to_bytes(4),
        duration.to_bytes(size),
        (1 << 16).to_bytes(4) + (1 << 8).to_bytes(2) + bytes(10),  # rate 1, volume 1
        _MATRIX + bytes(24) + next_track.to_bytes(4),
        version=version,
    )


def _trak(number: int, track: TrackTable, shown: int, tables: bytes) -> bytes:
    """`shown` is in ticks of the movie."""
    version, size = _long(shown)
    tkhd = full_box(
        b"tkhd",
        bytes(2 * size) + number.to_bytes(4) + bytes(4) + shown.to_bytes(size) + bytes(10) + track.group.to_bytes(2),
        (1 << 8 if track.kind == "audio" else 0).to_bytes(2) + bytes(2),
        _MATRIX[:28] + (track.top << 16).to_bytes(4) + _MATRIX[32:],
        (track.width << 16).to_bytes(4) + (track.height << 16).to_bytes(4),
        version=version,
        flags=3,  # enabled, in the movie
    )
    version, size = _long(max(shown, track.media_time))
    elst = full_box(
        b"elst",
        (1).to_bytes(4) + shown.to_bytes(size) + track.media_time.to_bytes(size) + (1 << 16).to_bytes(4),
        version=version,
    )
    return box(b"trak", tkhd, box(b"edts", elst), _media(track, tables))


def _media(track: TrackTable, tables: bytes) -> bytes:
    duration = int(track.durations.sum())
    version, size = _long(duration)
    mdhd = full_box(
        b"mdhd",
        bytes(2 * size) + track.timescale.to_bytes(4) + duration.to_bytes(size),
        _packed(track.language) + bytes(2),
        version=version,
    )
    handler, name = _HANDLERS[track.kind]
    hdlr = full_box(b"hdlr", bytes(4) + handler + bytes(12) + name)
    return box(b"mdia", mdhd, hdlr, box(b"minf", _MEDIA_HEADERS[track.kind], _DINF, box(b"stbl", tables)))


def _packed(language: str) -> bytes:
    """Three letters of five bits (8.4.2.3)."""
    first, second, third = (ord(letter) - 0x60 for letter in language)
    return (first << 10 | second << 5 | third).to_bytes(2)


def _sample_tables(track: TrackTable) -> bytes:
    """All of `stbl` but the chunk offsets, which come last."""
    parts = [
        full_box(b"stsd", len(track.entries).to_bytes(4), *track.entries),
        full_box(b"stts", _rows(*run_lengths(track.durations))),
    ]
    if track.sync is not None and not track.sync.all():
        parts.append(full_box(b"stss", _rows(np.flatnonzero(track.sync) + 1)))
    if track.shifts is not None and track.shifts.any():
        version = 1 if track.shifts.min() < 0 else 0
        parts.append(full_box(b"ctts", _rows(*run_lengths(track.shifts)), version=version))
    parts.append(_stsc(track))
    parts.append(full_box(b"stsz", bytes(4), _rows(track.sizes)))
    if track.kind == "audio":
        parts += _pre_roll(len(track.sizes))
    return b"".join(parts)


def _pre_roll(samples: int) -> tuple[bytes, bytes]:
    """Says that decoding may start at any AAC access unit but is right only from the next one on (10.1.1.1)."""
    group = full_box(b"sgpd", b"roll", (2).to_bytes(4), (1).to_bytes(4), (-1).to_bytes(2, signed=True), version=1)
    return group, full_box(b"sbgp", b"roll", (1).to_bytes(4), samples.to_bytes(4), (1).to_bytes(4))


def _rows(*columns: Ints) -> bytes:
    """A counted table of 32-bit numbers; negative ones as two's complement."""
    return len(columns[0]).to_bytes(4) + np.stack(columns, axis=1).astype(">u4").tobytes()


def _stsc(track: TrackTable) -> bytes:
    counts, described = track.chunk_samples, track.chunk_entries + 1
    first = np.flatnonzero(np.append(True, (np.diff(counts) != 0) | (np.diff(described) != 0)))
    return full_box(b"stsc", _rows(first + 1, counts[first], described[first]))


def _chunk_offsets(track: TrackTable, start: int, kind: bytes) -> bytes:
    offsets = (track.chunk_offsets + start).astype(">u4" if kind == b"stco" else ">u8")
    return full_box(kind, len(offsets).to_bytes(4), offsets.tobytes())
