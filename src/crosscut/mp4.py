"""ISO base media boxes (ISO/IEC 14496-12): find the `moov`, read its sample tables, say what forbids copying them.

Pure: bytes in, values out. Files come from strangers: tables are read through the bounded ways of `boxes`, and only
a fixed path of boxes is entered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crosscut.boxes import MAX_SAMPLES, Ints, children, damaged, need, number, read_boxes, table, too_long
from crosscut.errors import ProbeError

Read = Callable[[int, int], bytes]
"""`read(offset, length)`: the bytes of a file from `offset`, fewer only where the file ends."""

Flags = NDArray[np.bool_]
Kind = Literal["video", "audio"]

MAX_MOOV = 64 << 20
"""Bytes; far above what `MAX_SAMPLES` can need."""

MAX_TOP_BOXES = 4096
"""Boxes at the top of a file before its `moov`."""

_HANDLERS: dict[bytes, Kind] = {b"vide": "video", b"soun": "audio"}
_ROTATIONS: dict[tuple[float, ...], int] = {(1, 0, 0, 1): 0, (0, 1, -1, 0): 90, (-1, 0, 0, -1): 180, (0, -1, 1, 0): 270}
_UNITY = 1 << 16
_ENTRY_HEADER: dict[Kind, int] = {"video": 86, "audio": 36}


@dataclass(frozen=True, eq=False)
class Track:
    """One track's sample tables, an element per sample in decoding order; times in ticks of `timescale`."""

    kind: Kind
    timescale: int
    entry: bytes
    """The first sample entry, whole (`avc1`, `mp4a`, ...)."""
    width: int
    height: int
    sizes: Ints
    offsets: Ints
    """Where each sample starts in the file."""
    durations: Ints
    """Decoding-time deltas (`stts`)."""
    shifts: Ints
    """Composition offsets (`ctts`)."""
    sync: Flags
    media_time: int = 0
    """Where the edit list starts showing the media."""
    rotation: int = 0
    """Clockwise degrees that turn the picture upright."""
    obstacles: tuple[str, ...] = ()
    """Why the packets cannot simply be copied, as far as the tables alone say."""

    @cached_property
    def times(self) -> Ints:
        """Composition time of every sample, in decoding order."""
        return np.cumsum(self.durations) - self.durations + self.shifts

    @cached_property
    def frame_rate(self) -> Fraction | None:
        """Frames a second, exact; None unless all frames are equally long (the last may be longer or shorter)."""
        if len(self.sizes) == 0 or self.durations[0] == 0:
            return None
        delta = int(self.durations[0])
        even = bool(np.all(self.durations[:-1] == delta)) and bool(np.all(np.diff(np.sort(self.times)) == delta))
        return Fraction(self.timescale, delta) if even else None

    @cached_property
    def duration(self) -> int:
        """Ticks the samples last; at a constant rate no frame, not even the last, is shorter than the others."""
        total = int(self.durations.sum())
        return total if self.frame_rate is None else max(total, len(self.sizes) * int(self.durations[0]))

    @cached_property
    def parameter_sets(self) -> bytes | None:
        """The `avcC` record (ISO/IEC 14496-15, 5.3.3.1); None where the entry is not a whole `avc1`."""
        return self._extension(b"avcC") if self.entry[4:8] == b"avc1" else None

    @cached_property
    def audio_config(self) -> bytes | None:
        """The AudioSpecificConfig of an `mp4a` entry (ISO/IEC 14496-1, 7.2.6.7), without bit rates or buffer sizes."""
        record = self._extension(b"esds") if self.entry[4:8] == b"mp4a" else None
        return None if record is None else _specific_info(record[4:])

    def _extension(self, kind: bytes) -> bytes | None:
        try:
            found = children(memoryview(self.entry)[_ENTRY_HEADER[self.kind] :]).get(kind)
        except ProbeError:
            return None
        return None if found is None else bytes(found)


def find_moov(read: Read, size: int) -> tuple[int, int]:
    """Offset and length of the `moov` box, wherever it is in a file of `size` bytes.

    Raises ProbeError `not_mp4` for other files and for files that end before their `moov` does.
    """
    at = 0
    for _ in range(MAX_TOP_BOXES):
        header = read(at, 16)
        if len(header) < 8 or not header[4:8].isascii():
            break
        length, least = int.from_bytes(header[:4]), 8
        if length == 1:
            length, least = int.from_bytes(header[8:]), 16
        elif length == 0:
            length = size - at
        if length < least or length > size - at:
            break
        if header[4:8] == b"moov":
            if length > MAX_MOOV:
                raise too_long()
            return at, length
        at += length
    raise ProbeError("The file is not a complete MP4: it has no index (moov). Export it again.", code="not_mp4")


def read_tracks(moov: bytes) -> tuple[Track, ...]:
    """Every video track, and every audio track in an `mp4a` entry, of a whole `moov` box.

    Raises ProbeError `damaged_mp4` where tables contradict themselves, `too_many_samples` beyond `MAX_SAMPLES`.
    """
    whole = next(read_boxes(memoryview(moov)), None)
    if whole is None or whole.kind != b"moov":
        raise damaged("no moov")
    found = children(whole.payload)
    common = ("a fragmented file",) if b"mvex" in found else ()
    movie_timescale = _timescale(need(found, b"mvhd"))
    tracks: list[Track] = []
    budget = MAX_SAMPLES
    for box in read_boxes(whole.payload):
        track = _read_track(box.payload, movie_timescale, common, budget) if box.kind == b"trak" else None
        if track is not None:
            budget -= len(track.sizes)
            tracks.append(track)
    return tuple(tracks)


def parameter_units(record: bytes) -> tuple[int, tuple[bytes, ...]]:
    """Bytes in a NAL unit's length field, and all SPS then all PPS units, of an `avcC` record.

    Raises ProbeError `damaged_mp4`.
    """
    view = memoryview(record)
    units = []
    at = 5
    for mask in (0x1F, 0xFF):
        count = number(view, at, 1) & mask
        at += 1
        for _ in range(count):
            length = number(view, at, 2)
            at += 2 + length
            if length == 0 or at > len(view):
                raise damaged("avcC")
            units.append(bytes(view[at - length : at]))
    return (number(view, 4, 1) & 3) + 1, tuple(units)


def copy_obstacles(track: Track, read: Read) -> tuple[str, ...]:
    """Why the packets of a video track cannot be copied into any joined track; empty means they can.

    Looks into the file only at the heads of sync samples: the first must be an IDR picture, and none may bring
    parameter sets other than those of the sample entry.
    """
    if track.parameter_sets is None:
        return (*track.obstacles, "its H.264 is not in a plain avc1 track")
    if len(track.sizes) == 0:
        return (*track.obstacles, "no pictures")
    found = list(track.obstacles)
    if track.frame_rate is None:
        found.append("uneven frame times")
    elif track.duration != len(track.sizes) * int(track.durations[0]):
        found.append("its last picture is held")
    if int(track.times.min()) > track.media_time:
        found.append("its first picture comes late")
    length_size, units = parameter_units(track.parameter_sets)
    if length_size != 4:
        return (*found, f"NAL unit lengths of {length_size} bytes, not 4")
    if not track.sync[0]:
        return (*found, "it does not start with a sync sample")
    found += _stream_obstacles(track, read, frozenset(units))
    return tuple(found)


def access_unit_delimiter(head: bytes) -> int:
    """Bytes, with their length field of four, of the access unit delimiter that `head` starts with; else 0."""
    length = int.from_bytes(head[:4])
    return 4 + length if len(head) > 4 and head[4] & 0x1F == 9 and length <= 8 else 0


def _stream_obstacles(track: Track, read: Read, known: frozenset[bytes]) -> list[str]:
    starts = np.flatnonzero(track.sync)
    for index in starts.tolist():
        slice_type, sets = _leading_units(read, int(track.offsets[index]), int(track.sizes[index]))
        if not slice_type:
            return ["a picture that cannot be read"]
        if index == 0 and slice_type != 5:
            return ["its first picture is not an IDR picture"]
        if not sets <= known:
            return ["parameter sets that change along the way"]
    return []


def _leading_units(read: Read, offset: int, size: int) -> tuple[int, set[bytes]]:
    """The type of a sample's first slice (0: none found), and the parameter sets before it (H.264, table 7-1)."""
    sets: set[bytes] = set()
    for limit in (4096, 1 << 20):
        data = read(offset, min(size, limit))
        at = 0
        while at + 5 <= len(data):
            length, kind = int.from_bytes(data[at : at + 4]), data[at + 4] & 0x1F
            if 1 <= kind <= 5:
                return kind, sets
            if length == 0:
                return 0, sets
            if kind in (7, 8):
                sets.add(data[at + 4 : at + 4 + length])
            at += 4 + length
        if size <= limit:
            break
        sets.clear()
    return 0, sets


def _timescale(payload: memoryview) -> int:
    """Ticks a second of an `mvhd` or `mdhd`."""
    timescale = number(payload, 20 if number(payload, 0, 1) == 1 else 12, 4)
    if timescale == 0:
        raise damaged("timescale")
    return timescale


def _read_track(trak: memoryview, movie_timescale: int, common: tuple[str, ...], budget: int) -> Track | None:
    boxes = children(trak)
    media = children(need(boxes, b"mdia"))
    kind = _HANDLERS.get(bytes(need(media, b"hdlr")[8:12]))
    if kind is None:
        return None
    info = children(need(media, b"minf"))
    tables = children(need(info, b"stbl"))
    entries = [box for _, box in zip(range(2), read_boxes(need(tables, b"stsd")[8:]), strict=False)]
    if not entries or (kind == "audio" and entries[0].kind != b"mp4a"):
        return None
    entry = bytes(entries[0].whole)
    timescale = _timescale(need(media, b"mdhd"))
    rotation = _rotation(need(boxes, b"tkhd"))
    sizes = _sizes(tables, budget)
    obstacles = list(common)
    obstacles += ["several sample entries"] if len(entries) > 1 else []
    obstacles += ["encrypted"] if entries[0].kind in (b"encv", b"enca") else []
    obstacles += ["mirrored or skewed"] if rotation is None else []
    obstacles += [] if _self_contained(info) else ["media in another file"]
    track = Track(
        kind=kind,
        timescale=timescale,
        entry=entry,
        width=number(memoryview(entry), 32, 2) if kind == "video" else 0,
        height=number(memoryview(entry), 34, 2) if kind == "video" else 0,
        sizes=sizes,
        offsets=_offsets(tables, sizes),
        durations=_spread(table(need(tables, b"stts"), 2), len(sizes)),
        shifts=_spread(table(tables[b"ctts"], 2, ">i4"), len(sizes)) if b"ctts" in tables else np.zeros_like(sizes),
        sync=_sync(tables, len(sizes)),
        rotation=rotation or 0,
        obstacles=tuple(obstacles),
    )
    edits = children(boxes[b"edts"]).get(b"elst") if b"edts" in boxes else None
    return track if edits is None else _with_edits(track, edits, Fraction(timescale, movie_timescale))


def _self_contained(info: dict[bytes, memoryview]) -> bool:
    """Whether every data reference has the flag that says the media is in this same file."""
    references = children(info[b"dinf"]).get(b"dref") if b"dinf" in info else None
    return references is None or all(number(box.payload, 3, 1) & 1 for box in read_boxes(references[8:]))


def _sizes(tables: dict[bytes, memoryview], budget: int) -> Ints:
    payload = need(tables, b"stsz")
    constant, count = number(payload, 4, 4), number(payload, 8, 4)
    if count > budget:
        raise too_long()
    return np.full(count, constant, np.int64) if constant else table(payload, 1, at=8)[:, 0]


def _spread(runs: Ints, count: int) -> Ints:
    """A value per sample from rows of (how many, value)."""
    if np.any(runs[:, 0] < 0) or int(runs[:, 0].sum()) != count:
        raise damaged("run lengths")
    return np.repeat(runs[:, 1], runs[:, 0])


def _offsets(tables: dict[bytes, memoryview], sizes: Ints) -> Ints:
    wide = b"co64" in tables
    chunks = table(tables[b"co64"], 1, ">u8")[:, 0] if wide else table(need(tables, b"stco"), 1)[:, 0]
    rows = table(need(tables, b"stsc"), 3)
    if len(sizes) == 0:
        return np.zeros(0, np.int64)
    first = np.append(rows[:, 0], len(chunks) + 1)
    spans = np.diff(first)
    if first[0] != 1 or np.any(spans < 0) or np.any(chunks < 0) or np.any(chunks > 1 << 62):
        raise damaged("chunks")
    counts = np.repeat(rows[:, 1], spans)
    if int(counts.sum()) != len(sizes):
        raise damaged("chunks: other number of samples")
    before = np.cumsum(sizes) - sizes
    starts = np.cumsum(counts) - counts
    full = counts > 0
    offsets: Ints = before + np.repeat(chunks[full] - before[starts[full]], counts[full])
    return offsets


def _sync(tables: dict[bytes, memoryview], count: int) -> Flags:
    if b"stss" not in tables:
        return np.ones(count, np.bool_)
    numbers = table(tables[b"stss"], 1)[:, 0]
    if np.any(numbers < 1) or np.any(numbers > count):
        raise damaged("stss")
    sync = np.zeros(count, np.bool_)
    sync[numbers - 1] = True
    return sync


def _rotation(tkhd: memoryview) -> int | None:
    """Clockwise degrees of the track matrix; None when it does something else than turn."""
    at = 52 if number(tkhd, 0, 1) == 1 else 40
    if at + 36 > len(tkhd):
        raise damaged("tkhd")
    matrix = np.frombuffer(tkhd, ">i4", 9, at)
    turn = tuple(int(matrix[place]) / _UNITY for place in (0, 1, 3, 4))
    return _ROTATIONS.get(turn)


def _with_edits(track: Track, elst: memoryview, scale: Fraction) -> Track:
    """`track` with its edit list read; `scale` is ticks of the track in one tick of the movie."""
    long = number(elst, 0, 1) == 1
    size = 20 if long else 12
    count = number(elst, 4, 4)
    if count * size > len(elst) - 8:
        raise damaged("elst")
    if count == 0:
        return track
    found = ["several edits"] if count > 1 else []
    width = 8 if long else 4
    shown = number(elst, 8, width) * scale
    media_time = int.from_bytes(elst[8 + width : 8 + 2 * width], signed=True)
    if media_time < 0:
        found.append("an empty edit at the start")
        media_time = 0
    if number(elst, 8 + 2 * width, 4) != _UNITY:
        found.append("an edit that changes speed")
    found += _cuts(track, media_time, shown) if track.kind == "video" and len(track.sizes) else []
    return replace(track, media_time=media_time, obstacles=(*track.obstacles, *found))


def _cuts(track: Track, media_time: int, shown: Fraction) -> list[str]:
    """Pictures an edit leaves out; `shown` is in ticks of the track, 0 meaning to the end."""
    found = []
    if media_time > int(track.times.min()):
        found.append("an edit that cuts off the start")
    # Writers round the length of an edit to the ticks of the movie, so only half a frame or more counts as a cut.
    half_frame = Fraction(track.duration, 2 * len(track.sizes))
    if 0 < shown < int(track.times.max()) + half_frame - media_time:
        found.append("an edit that cuts off the end")
    return found


def _specific_info(data: bytes) -> bytes | None:
    """The DecoderSpecificInfo of an ES_Descriptor (ISO/IEC 14496-1, 7.2.6.5); None where there is none."""
    for tag, fixed in ((3, 3), (4, 13), (5, 0)):
        if not data or data[0] != tag:
            return None
        at, length = 1, 0
        for _ in range(4):
            byte = data[at] if at < len(data) else 0
            at, length = at + 1, length << 7 | byte & 0x7F
            if not byte & 0x80:
                break
        data = data[at : at + length][fixed:]
    return data
