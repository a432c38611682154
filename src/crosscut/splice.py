"""Segments and a soundtrack -> one MP4 that exists as an index over files already there.

Nothing is decoded, encoded or copied here: the sample tables of the parts are put together into a new `moov`, and the
media of the file is a list of byte ranges of the parts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from crosscut import layout
from crosscut.captions import CLOCK, samples_of
from crosscut.errors import SpliceError, StorageError
from crosscut.media import AAC_FRAME, AUDIO_RATE
from crosscut.mp4 import access_unit_delimiter, find_moov, parameter_units, read_tracks
from crosscut.mp4_write import TrackTable, text_entry, write_head
from crosscut.virtual import Extent, VirtualFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from crosscut.boxes import Ints
    from crosscut.captions import Captions
    from crosscut.mp4 import Flags, Kind, Track

__all__ = ["AudioRun", "Extent", "Segment", "Soundtrack", "VirtualFile", "read_segment", "read_track", "splice"]

VERSION = 1
"""Raised when the same pieces are joined into other bytes, so that files of before are not taken for the same."""

MAX_TIMESCALE = 10_000_000

MIN_FONT, MAX_FONT = 12, 255
"""Pixels; the size of a font is one byte."""

TEXT_GROUP = 2
"""Any group but 0, so that players can turn captions off (ISO/IEC 14496-12, 8.3.2.3)."""


@dataclass(frozen=True)
class Segment:
    """A video file whose packets are copied; keep it, and what it works out is worked out once."""

    path: Path
    track: Track

    @cached_property
    def duration(self) -> Fraction:
        """Seconds."""
        return Fraction(self.track.duration, self.track.timescale)

    @cached_property
    def frame_rate(self) -> Fraction:
        rate = self.track.frame_rate
        if rate is None or int(self.track.times.min()) != self.track.media_time or not self.track.sync[0]:
            raise _unfit("Its frames do not follow each other evenly from the start")
        return rate

    @cached_property
    def parameter_sets(self) -> bytes:
        record = self.track.parameter_sets
        if record is None:
            raise _unfit("It is not H.264 in an avc1 track")
        return record

    @cached_property
    def shifts(self) -> Ints:
        """Composition offsets in whole frames, as if the first frame were shown when the first is decoded."""
        return (self.track.shifts - self.track.media_time) // int(self.track.durations[0])

    @cached_property
    def delay(self) -> Fraction:
        """Seconds by which showing must lag behind decoding so that no frame is shown before it is decoded."""
        return max(0, -int(self.shifts.min())) / self.frame_rate

    @cached_property
    def in_band_sets(self) -> bytes:
        """SPS and PPS as they stand in a sample, each behind its length."""
        length_size, units = parameter_units(self.parameter_sets)
        if length_size != 4:
            raise _unfit("The lengths of its NAL units do not take 4 bytes")
        return b"".join(len(unit).to_bytes(4) + unit for unit in units)

    @cached_property
    def wide_sizes(self) -> Ints:
        """Sizes of the samples when every sync sample brings its parameter sets."""
        return self.track.sizes + self.track.sync * len(self.in_band_sets)

    @cached_property
    def delimiters(self) -> dict[int, int]:
        """For every sync sample, the bytes of the access unit delimiter that must stay first (H.264, 7.4.1.2.3)."""
        lengths = {}
        with self.path.open("rb") as file:
            for index in np.flatnonzero(self.track.sync).tolist():
                file.seek(int(self.track.offsets[index]))
                lengths[index] = access_unit_delimiter(file.read(16))
        return lengths


@dataclass(frozen=True)
class AudioRun:
    """`count` AAC access units of a file, from number `first` on."""

    path: Path
    track: Track
    first: int
    count: int
    own: bool = False
    """Made for one video, or for those of one length: hardly another has the same access units."""


@dataclass(frozen=True)
class Soundtrack:
    """Runs of one AAC stream at 48 kHz: decoders throw away `priming` samples, then `samples` are heard."""

    runs: tuple[AudioRun, ...]
    priming: int
    samples: int


def read_track(path: Path, kind: Kind) -> Track:
    """The sample tables of the only `kind` track of a file of ours.

    Raises ProbeError for what is no MP4, SpliceError where there is not one such track, StorageError
    `damaged_artifact` where the file ends before its samples do.
    """
    with path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        size = file.seek(0, 2)
        tracks = [track for track in read_tracks(read(*find_moov(read, size))) if track.kind == kind]
    if len(tracks) != 1 or len(tracks[0].sizes) == 0:
        raise SpliceError(f"A part of the video needs exactly one {kind} track with content.", code="unfit_part")
    if int((tracks[0].offsets + tracks[0].sizes).max()) > size:
        raise StorageError("A prepared file is damaged. Run the job again to make it anew.", code="damaged_artifact")
    return tracks[0]


def read_segment(path: Path) -> Segment:
    return Segment(path, read_track(path, "video"))


def splice(
    segments: Sequence[Segment],
    soundtrack: Soundtrack | None,
    *,
    hold: Fraction | Sequence[Fraction] = Fraction(0),
    captions: Captions | None = None,
    grouped: bool = False,
) -> VirtualFile:
    """The segments one after the other under one soundtrack.

    Sound and pictures of a second lie together; `grouped`, what other videos have as well lies in one piece each, so
    that a store can join them (see `layout`): the same samples at other places of the file.

    The last frame of all stays `hold` seconds longer, or that of each segment where there is a number for each.

    Captions become a track that players show to those who want it; they end with the pictures at the latest.
    Segments that share their parameter sets share one sample entry. Where they differ, every segment keeps its own
    and also brings its sets in band: FFmpeg needs the one, Chromium the other. Raises SpliceError.
    """
    lanes = [_video_lane(segments, _holds(segments, hold))]
    if soundtrack is not None:
        lanes.append(_audio_lane(soundtrack, grouped=grouped))
    if captions is not None:
        lanes.append(_text_lane(captions, lanes[0].table))
    order = layout.grouped if grouped else layout.interleaved
    starts = [np.zeros_like(lane.table.chunk_offsets) for lane in lanes]
    extents: list[Extent] = []
    pieces: list[tuple[int, int, int]] = []
    media = 0
    for kind, index in order([layout.Chunks(lane.seconds, lane.pieces) for lane in lanes]):
        starts[kind][index] = media
        chunk, piece = lanes[kind].chunks[index], lanes[kind].pieces[index]
        length = sum(extent.length for extent in chunk)
        if piece != layout.OWN:
            pieces.append((kind, piece, length))
        media += length
        extents += chunk
    head = write_head([replace(lane.table, chunk_offsets=at) for lane, at in zip(lanes, starts, strict=True)], media)
    shared = layout.ranges(pieces, len(head) + media) if grouped else ()
    return VirtualFile((Extent(head, 0, len(head)), *extents), shared)


@dataclass(frozen=True, eq=False)
class _Lane:
    """One track before its chunks have their places in the file."""

    table: TrackTable
    """With chunks that all start at 0."""
    seconds: list[int]
    """The second of the video in which each chunk starts: chunks are interleaved by it."""
    chunks: list[list[Extent]]
    """The bytes of each chunk."""
    pieces: list[int]
    """Of which piece that other videos may have as well each chunk is a part; `layout.OWN`: of none."""


def _video_lane(segments: Sequence[Segment], holds: Sequence[Fraction]) -> _Lane:
    _check_pictures(segments, holds)
    entries: dict[bytes, bytes] = {}
    for segment in segments:
        entries.setdefault(segment.parameter_sets, segment.track.entry)
    wide = len(entries) > 1
    timescale = _timescale(segments)
    delay = int(max(segment.delay for segment in segments) * timescale)
    durations = np.concatenate(
        [_durations(segment, hold, timescale) for segment, hold in zip(segments, holds, strict=True)]
    )
    seconds = (np.cumsum(durations) - durations) // timescale
    counts = [len(segment.track.sizes) for segment in segments]
    borders = np.cumsum(counts)[:-1]
    opens = np.diff(seconds, prepend=-1) != 0
    opens[borders] = True
    chunks: list[list[Extent]] = []
    for segment, segment_opens in zip(segments, np.split(opens, borders), strict=True):
        inserts, literal = (segment.delimiters, segment.in_band_sets) if wide else ({}, b"")
        _add_samples(
            chunks,
            segment.path,
            segment.track.offsets,
            segment.track.sizes,
            segment_opens,
            inserts=inserts,
            literal=literal,
        )
    first = np.flatnonzero(opens)
    owner = np.repeat([list(entries).index(segment.parameter_sets) for segment in segments], counts)
    table = TrackTable(
        kind="video",
        timescale=timescale,
        entries=tuple(entries.values()),
        sizes=np.concatenate([segment.wide_sizes if wide else segment.track.sizes for segment in segments]),
        durations=durations,
        chunk_samples=np.diff(first, append=len(opens)),
        chunk_offsets=np.zeros_like(first),
        chunk_entries=owner[first],
        shown=int(durations.sum()),
        media_time=delay,
        shifts=np.concatenate([each.shifts * int(timescale / each.frame_rate) for each in segments]) + delay,
        sync=np.concatenate([segment.track.sync for segment in segments]),
        width=segments[0].track.width,
        height=segments[0].track.height,
    )
    owners = np.repeat(np.arange(len(segments)), counts)
    return _Lane(table, seconds[first].tolist(), chunks, owners[first].tolist())


def _audio_lane(soundtrack: Soundtrack, *, grouped: bool) -> _Lane:
    _check_sound(soundtrack)
    runs = soundtrack.runs
    counts = [run.count for run in runs]
    total = sum(counts)
    seconds = np.maximum(0, np.arange(total) * AAC_FRAME - soundtrack.priming) // AUDIO_RATE
    pieces = layout.sound_pieces((run.first, run.count, grouped and not run.own) for run in runs)
    opens = (np.diff(seconds, prepend=-1) != 0) | (np.diff(pieces, prepend=layout.OWN) != 0)
    chunks: list[list[Extent]] = []
    sizes = []
    for run, run_opens in zip(runs, np.split(opens, np.cumsum(counts)[:-1]), strict=True):
        span = slice(run.first, run.first + run.count)
        sizes.append(run.track.sizes[span])
        _add_samples(chunks, run.path, run.track.offsets[span], sizes[-1], run_opens, inserts={}, literal=b"")
    first = np.flatnonzero(opens)
    table = TrackTable(
        kind="audio",
        timescale=AUDIO_RATE,
        entries=(runs[0].track.entry,),
        sizes=np.concatenate(sizes),
        durations=np.full(total, AAC_FRAME),
        chunk_samples=np.diff(first, append=total),
        chunk_offsets=np.zeros_like(first),
        chunk_entries=np.zeros_like(first),
        shown=soundtrack.samples,
        media_time=soundtrack.priming,
    )
    return _Lane(table, seconds[first].tolist(), chunks, pieces[first].tolist())


def _text_lane(captions: Captions, picture: TrackTable) -> _Lane:
    """As wide as the picture, two lines and a little more high, above what apps lay over an upright picture's end."""
    samples = samples_of(captions.until(picture.shown * CLOCK // picture.timescale))
    sizes = np.array([len(data) for _, data in samples])
    durations = np.array([ticks for ticks, _ in samples])
    seconds = (np.cumsum(durations) - durations) // CLOCK
    first = np.flatnonzero(np.diff(seconds, prepend=-1))
    chunks = []
    for some in np.split(np.arange(len(samples)), first[1:]):
        data = b"".join(samples[index][1] for index in some)
        chunks.append([Extent(data, 0, len(data))])
    width, height = picture.width, picture.height
    font = min(max(MIN_FONT, min(width, height) // 20), MAX_FONT)
    area = min(3 * font, height)
    table = TrackTable(
        kind="text",
        timescale=CLOCK,
        entries=(text_entry(width, area, font),),
        sizes=sizes,
        durations=durations,
        chunk_samples=np.diff(first, append=len(samples)),
        chunk_offsets=np.zeros_like(first),
        chunk_entries=np.zeros_like(first),
        shown=int(durations.sum()),
        width=width,
        height=area,
        top=max(0, height - area - height // (6 if height > width else 20)),
        group=TEXT_GROUP,
        language=captions.language,
    )
    return _Lane(table, seconds[first].tolist(), chunks, [layout.OWN] * len(chunks))


def _add_samples(
    chunks: list[list[Extent]],
    path: Path,
    offsets: Ints,
    sizes: Ints,
    opens: Flags,
    *,
    inserts: Mapping[int, int],
    literal: bytes,
) -> None:
    """Append the samples of one file to `chunks`, a new chunk wherever `opens` says so.

    Samples that lie back to back become one extent. `literal` goes into each sample of `inserts`, behind as many of
    its bytes as are given there.
    """
    starts = opens.copy()
    starts[list(inserts)] = True
    starts[1:] |= offsets[1:] != offsets[:-1] + sizes[:-1]
    starts[0] = True
    first = np.flatnonzero(starts)
    lengths = np.add.reduceat(sizes, first)
    for index, offset, length in zip(first.tolist(), offsets[first].tolist(), lengths.tolist(), strict=True):
        if opens[index]:
            chunks.append([])
        skip = inserts.get(index, 0)
        if index in inserts:
            chunks[-1] += Extent(path, offset, skip), Extent(literal, 0, len(literal))
        chunks[-1].append(Extent(path, offset + skip, length - skip))


def _timescale(segments: Sequence[Segment]) -> int:
    """Ticks a second in which frames and lengths of all segments are whole, at least `AUDIO_RATE`."""
    exact = math.lcm(
        *(each.frame_rate.numerator for each in segments), *(each.duration.denominator for each in segments)
    )
    timescale = exact * math.ceil(AUDIO_RATE / exact)
    if timescale > MAX_TIMESCALE:
        raise SpliceError(
            "The frame rates of the clips have no common clock. Ask for one frame rate.", code="timescale"
        )
    return timescale


def _durations(segment: Segment, hold: Fraction, timescale: int) -> Ints:
    count = len(segment.track.sizes)
    durations = np.full(count, int(timescale / segment.frame_rate))
    shown = int(segment.duration * timescale) + math.ceil(hold * timescale)
    durations[-1] = shown - (count - 1) * int(durations[0])
    return durations


def _holds(segments: Sequence[Segment], hold: Fraction | Sequence[Fraction]) -> Sequence[Fraction]:
    if isinstance(hold, Fraction):
        return [*([Fraction(0)] * (len(segments) - 1)), hold]
    return hold


def _check_pictures(segments: Sequence[Segment], holds: Sequence[Fraction]) -> None:
    if not segments:
        raise SpliceError("A video needs at least one clip.", code="no_clips")
    if min(holds) < 0:
        raise SpliceError("A frame cannot be held for less than no time.", code="bad_hold")
    if len({(each.track.width, each.track.height) for each in segments}) > 1:
        raise _unfit("Its frame size differs from that of its neighbours")
    obstacles = [obstacle for each in segments for obstacle in each.track.obstacles]
    if obstacles:
        raise _unfit(f"Its packets cannot be copied ({obstacles[0]})")
    if any(each.track.rotation for each in segments):
        raise _unfit("It is turned by its track matrix")


def _check_sound(soundtrack: Soundtrack) -> None:
    for run in soundtrack.runs:
        deltas = run.track.durations[max(0, run.first) : run.first + run.count]
        if run.count < 1 or len(deltas) != run.count:
            raise _unfit_sound("A run of it reaches beyond its file")
        if run.track.timescale != AUDIO_RATE or np.any(deltas[:-1] != AAC_FRAME):
            raise _unfit_sound("It is not AAC-LC at 48 kHz")
    configs = {run.track.audio_config for run in soundtrack.runs}
    if len(configs) != 1 or None in configs:
        raise _unfit_sound("Its runs were not encoded alike")
    if soundtrack.priming < 0 or soundtrack.samples < 1:
        raise _unfit_sound("It has no length")
    if soundtrack.priming + soundtrack.samples > sum(run.count for run in soundtrack.runs) * AAC_FRAME:
        raise _unfit_sound("It is shorter than it says")


def _unfit(why: str) -> SpliceError:
    return SpliceError(f"A clip cannot be joined as it is. {why}: let it be encoded anew.", code="unfit_segment")


def _unfit_sound(why: str) -> SpliceError:
    return SpliceError(f"The soundtrack cannot be joined. {why}: let it be mixed anew.", code="unfit_soundtrack")
