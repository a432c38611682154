from __future__ import annotations

import struct
import time
import tracemalloc
from dataclasses import dataclass, replace
from fractions import Fraction
from io import BytesIO
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clips
from crosscut.boxes import MAX_SAMPLES, box, full_box, table
from crosscut.errors import CrosscutError, ProbeError
from crosscut.mp4 import Read, Track, access_unit_delimiter, copy_obstacles, find_moov, read_tracks
from crosscut.mp4_write import MAX_32, TrackTable, run_lengths, write_head

if TYPE_CHECKING:
    from pathlib import Path

RATES = [Fraction(24), Fraction(25), Fraction(30_000, 1001), Fraction(60)]


def reader(data: bytes) -> Read:
    def read(offset: int, length: int) -> bytes:
        stream = BytesIO(data)
        stream.seek(offset)
        return stream.read(length)

    return read


def moov_of(data: bytes) -> bytes:
    offset, length = find_moov(reader(data), len(data))
    return data[offset : offset + length]


def video_of(data: bytes) -> Track:
    return next(track for track in read_tracks(moov_of(data)) if track.kind == "video")


def obstacles_of(data: bytes) -> tuple[str, ...]:
    return copy_obstacles(video_of(data), reader(data))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return clips.make_clip(tmp_path_factory.mktemp("mp4") / "clip.mp4", frames=30, audio=True).read_bytes()


# Reading what FFmpeg wrote


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("moov_first", [True, False])
def test_tables_say_what_a_demuxer_says(tmp_path: Path, fps: Fraction, moov_first: bool) -> None:
    path = clips.make_clip(tmp_path / "a.mp4", frames=20, fps=fps, moov_first=moov_first, audio=True)
    data = path.read_bytes()
    video, audio = read_tracks(moov_of(data))
    assert (video.kind, video.width, video.height, video.rotation) == ("video", 96, 64, 0)
    assert (audio.kind, audio.timescale, audio.entry[4:8]) == ("audio", 48_000, b"mp4a")
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        assert video.parameter_sets == container.streams.video[0].codec_context.extradata
        container.seek(0)
        sounds = [packet for packet in container.demux(audio=0) if packet.size]
        assert audio.audio_config == container.streams.audio[0].codec_context.extradata
    for track, found in ((video, packets), (audio, sounds)):
        assert [data[o : o + n] for o, n in zip(track.offsets, track.sizes, strict=True)] == [bytes(p) for p in found]
        assert [int(t) - track.media_time for t in track.times] == [p.pts for p in found]
    assert video.sync.tolist() == [packet.is_keyframe for packet in packets]
    assert video.frame_rate == fps
    assert Fraction(video.duration, video.timescale) == 20 / fps
    assert obstacles_of(data) == ()


def test_a_single_frame_has_the_rate_of_its_length(tmp_path: Path) -> None:
    track = video_of(clips.make_clip(tmp_path / "a.mp4", frames=1, fps=25).read_bytes())
    assert track.frame_rate == 25
    assert len(track.sizes) == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not_mp4"),
        (b"<html>not a video at all</html>", "not_mp4"),
        (box(b"ftyp", b"isom") + box(b"mdat", bytes(100)), "not_mp4"),
        (box(b"ftyp", b"isom") + (999).to_bytes(4) + b"moov", "not_mp4"),
        (box(b"ftyp", b"isom") + (1).to_bytes(4) + b"mdat" + (1 << 63).to_bytes(8), "not_mp4"),
        (bytes(8) * 10, "not_mp4"),
    ],
)
def test_other_files_have_no_moov(data: bytes, code: str) -> None:
    with pytest.raises(ProbeError) as caught:
        find_moov(reader(data), len(data))
    assert caught.value.code == code


def test_moov_is_found_behind_a_64_bit_mdat() -> None:
    size = 5 << 30
    mdat = (1).to_bytes(4) + b"mdat" + (size - 24).to_bytes(8)

    def read(offset: int, length: int) -> bytes:
        return {0: mdat, size - 24: box(b"moov", bytes(16))}[offset][:length]

    assert find_moov(read, size) == (size - 24, 24)


# What forbids copying


def edited(data: bytes, kind: bytes, change: bytes, *, at: int) -> bytes:
    """`data` with bytes of the payload of its first `kind` box replaced."""
    start = data.index(kind, data.index(b"moov")) + 4 + at
    return data[:start] + change + data[start + len(change) :]


@pytest.mark.parametrize(
    ("kind", "change", "at", "obstacle"),
    [
        (b"elst", (2000).to_bytes(4), 12, "an edit that cuts off the start"),
        (b"elst", (600).to_bytes(4), 8, "an edit that cuts off the end"),
        (b"elst", b"\xff\xff\xff\xff", 12, "an empty edit at the start"),
        (b"elst", b"\0\2\0\0", 16, "an edit that changes speed"),
        (b"elst", (0).to_bytes(4), 12, "its first picture comes late"),
        (b"avc1", b"encv", -4, "encrypted"),
        (b"avc1", b"hvc1", -4, "its H.264 is not in a plain avc1 track"),
        (b"avcC", b"\xfd", 4, "NAL unit lengths of 2 bytes, not 4"),
        (b"url ", b"\0", 3, "media in another file"),
        (b"stss", (2).to_bytes(4), 8, "it does not start with a sync sample"),
        (b"tkhd", struct.pack(">i", -(1 << 16)), 40, "mirrored or skewed"),
    ],
)
def test_each_obstacle_is_named(clip: bytes, kind: bytes, change: bytes, at: int, obstacle: str) -> None:
    assert obstacle in obstacles_of(edited(clip, kind, change, at=at))


@pytest.mark.parametrize(("milliseconds", "cut"), [(1250, False), (1249, False), (1230, False), (1228, True)])
def test_an_edit_may_end_within_half_a_frame(clip: bytes, milliseconds: int, cut: bool) -> None:
    found = obstacles_of(edited(clip, b"elst", milliseconds.to_bytes(4), at=8))
    assert found == (("an edit that cuts off the end",) if cut else ())


def test_one_frame_at_another_time_is_uneven(clip: bytes) -> None:
    shifts = video_of(clip).shifts
    longer = replace(video_of(clip), shifts=shifts + np.eye(1, len(shifts), 7, dtype=np.int64)[0])
    assert copy_obstacles(longer, reader(clip)) == ("uneven frame times",)


def test_a_fragmented_file_is_named(tmp_path: Path) -> None:
    muxer = {"movflags": "+frag_keyframe+empty_moov"}
    data = clips.make_clip(tmp_path / "f.mp4", moov_first=False, muxer=muxer).read_bytes()
    assert "a fragmented file" in obstacles_of(data)


def test_a_turned_picture_is_read_from_the_matrix(clip: bytes) -> None:
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    track = video_of(edited(clip, b"tkhd", matrix, at=40))
    assert (track.rotation, track.obstacles) == (90, ())


def test_several_edits_forbid_copying(clip: bytes) -> None:
    moov = moov_of(clip)
    start = moov.index(b"elst") + 4
    row = moov[start + 8 : start + 20]
    edits = box(b"edts", full_box(b"elst", (2).to_bytes(4), row, row))
    trak = bytearray(moov[moov.index(b"trak") - 4 :])
    old = trak.index(b"edts") - 4
    trak[old : old + 36] = edits
    trak[:4] = (int.from_bytes(trak[:4]) + 12).to_bytes(4)
    changed = box(b"moov", moov[8 : moov.index(b"trak") - 4], bytes(trak))
    assert "several edits" in read_tracks(changed)[0].obstacles


def test_in_band_sets_may_repeat_but_not_differ(tmp_path: Path) -> None:
    options = {"x264-params": "repeat-headers=1:keyint=8"}
    data = clips.make_clip(tmp_path / "a.mp4", options=options).read_bytes()
    assert obstacles_of(data) == ()
    track = video_of(data)
    second = int(track.offsets[np.flatnonzero(track.sync)[1]])
    inside = data.index(b"\x67", second) + 3
    changed = data[:inside] + bytes((data[inside] ^ 1,)) + data[inside + 1 :]
    assert obstacles_of(changed) == ("parameter sets that change along the way",)


def test_a_first_picture_that_is_no_idr_forbids_copying(clip: bytes) -> None:
    track = video_of(clip)
    start, size = int(track.offsets[0]), int(track.sizes[0])
    sample = clip[start : start + size]
    at = 0
    while sample[at + 4] & 0x1F != 5:
        at += 4 + int.from_bytes(sample[at : at + 4])
    recovery = clip[: start + at + 4] + b"\x61" + clip[start + at + 5 :]
    assert obstacles_of(recovery) == ("its first picture is not an IDR picture",)
    unreadable = clip[:start] + bytes(size) + clip[start + size :]
    assert obstacles_of(unreadable) == ("a picture that cannot be read",)


def test_an_access_unit_delimiter_is_measured() -> None:
    assert access_unit_delimiter(b"\0\0\0\2\x09\xf0\0\0\0\1\x65") == 6
    assert access_unit_delimiter(b"\0\0\0\1\x65") == 0
    assert access_unit_delimiter(b"") == 0


# Writing and reading back


@dataclass(frozen=True)
class Shape:
    table: TrackTable
    media: int


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    count = draw(st.integers(1, 60))

    def numbers(low: int, high: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        return np.array(draw(st.lists(st.integers(low, high), min_size=count, max_size=count)), np.int64)

    sizes = numbers(0, 1 << 20)
    opens = numbers(0, 1) == 1
    opens[0] = True
    first = np.flatnonzero(opens)
    gaps = np.array(draw(st.lists(st.integers(0, 99), min_size=len(first), max_size=len(first))), np.int64)
    lengths = np.add.reduceat(sizes, first)
    ends = np.cumsum(lengths + gaps)
    far = draw(st.sampled_from([0, 1 << 33]))
    durations = numbers(0, 1 << 20)
    video = draw(st.booleans())
    entry = box(b"avc1", bytes(24), (96).to_bytes(2), (64).to_bytes(2), bytes(50)) if video else box(b"mp4a", bytes(28))
    table = TrackTable(
        kind="video" if video else "audio",
        timescale=draw(st.integers(1, 10_000_000)),
        entries=(entry,),
        sizes=sizes,
        durations=durations,
        chunk_samples=np.diff(first, append=count),
        chunk_offsets=ends - lengths + far,
        chunk_entries=np.zeros_like(first),
        shown=draw(st.integers(0, 1 << 40)),
        media_time=draw(st.sampled_from([0, 1024, 1 << 33])),
        shifts=numbers(-5, 5) * 512 if video else None,
        sync=numbers(0, 1) == 1 if video else None,
        width=96 if video else 0,
        height=64 if video else 0,
    )
    return Shape(table, int(ends[-1]) + far)


@settings(deadline=None, max_examples=80)
@given(st.lists(shapes(), min_size=1, max_size=2))
def test_what_is_written_is_read_back(made: list[Shape]) -> None:
    media = max(shape.media for shape in made)
    head = write_head([shape.table for shape in made], media)
    assert head == write_head([shape.table for shape in made], media)
    assert (b"co64" in head) == (len(head) + media > MAX_32)
    for shape, track in zip(made, read_tracks(moov_of(head + bytes(8))), strict=True):
        table = shape.table
        assert (track.kind, track.timescale, track.entry) == (table.kind, table.timescale, table.entries[0])
        assert (track.width, track.height, track.media_time) == (table.width, table.height, table.media_time)
        zeros = np.zeros_like(table.sizes)
        np.testing.assert_array_equal(track.sizes, table.sizes)
        np.testing.assert_array_equal(track.durations, table.durations)
        np.testing.assert_array_equal(track.shifts, zeros if table.shifts is None else table.shifts)
        np.testing.assert_array_equal(track.sync, zeros == 0 if table.sync is None else table.sync)
        if table.shifts is not None and table.shifts.any():
            signed = 1 if table.shifts.min() < 0 else 0
            assert full_box(b"ctts", version=signed)[4:9] in head
        starts = np.cumsum(table.chunk_samples) - table.chunk_samples
        np.testing.assert_array_equal(track.offsets[starts], table.chunk_offsets + len(head))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 3), max_size=30))
def test_runs_spread_back_into_what_they_came_from(values: list[int]) -> None:
    counts, found = run_lengths(np.array(values, np.int64))
    assert np.repeat(found, counts).tolist() == values
    assert not np.any(np.diff(found) == 0)


# Hostile files


@pytest.mark.parametrize("count", [1 << 31, MAX_SAMPLES + 1])
def test_claimed_samples_take_no_memory(clip: bytes, count: int) -> None:
    moov = moov_of(edited(clip, b"stsz", (1).to_bytes(4) + count.to_bytes(4), at=4))
    tracemalloc.start()
    with pytest.raises(ProbeError) as caught:
        read_tracks(moov)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.code == "too_many_samples"
    assert peak < 1 << 20


@pytest.mark.parametrize("kind", [b"stts", b"ctts", b"stsc", b"stco", b"stss"])
def test_claimed_rows_are_held_against_the_box(clip: bytes, kind: bytes) -> None:
    with pytest.raises(ProbeError) as caught:
        read_tracks(moov_of(edited(clip, kind, (1 << 20).to_bytes(4), at=4)))
    assert caught.value.code == "damaged_mp4"


def test_boxes_in_boxes_are_not_followed() -> None:
    nested = b""
    for _ in range(2000):
        nested = box(b"moov", nested)
    with pytest.raises(ProbeError, match="contradicts"):
        read_tracks(nested)


def test_endless_boxes_and_tables_are_refused() -> None:
    with pytest.raises(ProbeError) as caught:
        read_tracks(box(b"moov", box(b"free") * 200_000))
    assert caught.value.detail == "damaged number of boxes"
    with pytest.raises(ProbeError) as caught:
        table(memoryview(bytes(4) + (MAX_SAMPLES + 1).to_bytes(4) + bytes(4 * MAX_SAMPLES + 4)), 1)
    assert caught.value.code == "too_many_samples"


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_damage_is_refused_or_read_but_nothing_else(clip: bytes, data: st.DataObject) -> None:
    moov = bytearray(moov_of(clip))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(8, len(moov) - 8))
        change = data.draw(st.one_of(st.binary(min_size=1, max_size=4), st.sampled_from([b"\xff" * 4, bytes(4)])))
        moov[at : at + len(change)] = change
    started = time.perf_counter()
    tracemalloc.start()
    try:
        for track in read_tracks(bytes(moov)):
            _ = track.frame_rate, track.duration, track.audio_config
            copy_obstacles(track, reader(clip))
    except CrosscutError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert time.perf_counter() - started < 5
    assert peak < 120 * MAX_SAMPLES


def test_a_held_last_frame_keeps_the_rate_and_a_short_one_counts_whole(clip: bytes) -> None:
    track = video_of(clip)
    held, short = track.durations.copy(), track.durations.copy()
    held[-1] += 777
    short[-1] = 0
    assert {replace(track, durations=each).frame_rate for each in (held, short)} == {Fraction(24)}
    assert replace(track, durations=held).duration == track.duration + 777
    assert replace(track, durations=short).duration == track.duration
