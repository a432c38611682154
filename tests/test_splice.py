from __future__ import annotations

import hashlib
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clips
from crosscut.boxes import box, children, read_boxes
from crosscut.captions import Captions, Cue
from crosscut.errors import SpliceError, StorageError
from crosscut.mp4 import Track, copy_obstacles, find_moov, read_tracks
from crosscut.mp4_write import TrackTable, write_head
from crosscut.splice import (
    AudioRun,
    Extent,
    Segment,
    Soundtrack,
    VirtualFile,
    read_segment,
    read_track,
    splice,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RATES = [Fraction(24), Fraction(25), Fraction(30_000, 1001), Fraction(60)]
ENCODERS = [
    {"profile": "baseline", "x264-params": "keyint=10"},
    {"profile": "main", "x264-params": "bframes=0:ref=1"},
    {"profile": "high", "x264-params": "bframes=3:b-pyramid=normal:ref=4"},
]


class Shown(NamedTuple):
    time: Fraction
    digest: str


def stored(path: Path, file: VirtualFile) -> Path:
    with path.open("wb") as out:
        file.copy_to(out)
    return path


def pictures(path: Path) -> list[Shown]:
    with av.open(str(path)) as container:
        return [
            Shown(frame.pts * frame.time_base, hashlib.md5(frame.to_ndarray().tobytes()).hexdigest())
            for frame in container.decode(video=0)
            if frame.pts is not None and frame.time_base is not None
        ]


def packets(path: Path, kind: str = "video") -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        stream = container.streams.get({kind: 0})[0]
        return [
            (packet.pts * packet.time_base, bytes(packet))
            for packet in container.demux(stream)
            if packet.pts is not None and packet.time_base is not None
        ]


def remuxed(path: Path, parts: list[Path], fps: Fraction) -> Path:
    """What FFmpeg makes of the packets of `parts`."""
    with av.open(str(path), "w", format="mp4") as out:
        track = None
        done = 0
        for part in parts:
            with av.open(str(part)) as container:
                source = container.streams.video[0]
                track = track or out.add_stream_from_template(source)
                assert source.time_base is not None
                for packet in container.demux(source):
                    if packet.pts is None or packet.dts is None:
                        continue
                    offset = int(done / fps / source.time_base)
                    packet.pts += offset
                    packet.dts += offset
                    packet.stream = track
                    out.mux(packet)
                done += source.frames
    return path


def whole_sound(path: Path, samples: int) -> Soundtrack:
    clips.make_sound(path, samples)
    track = read_track(path, "audio")
    return Soundtrack((AudioRun(path, track, 0, len(track.sizes)),), track.media_time, samples)


def tables(file: VirtualFile) -> tuple[Track, ...]:
    offset, length = find_moov(lambda at, count: file.read_range(at, at + count), len(file))
    return read_tracks(file.read_range(offset, offset + length))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("splice")


@pytest.fixture(scope="module")
def parts(folder: Path) -> list[Segment]:
    """Three clips alike, numbered through: 24, 7 and 39 frames at 24 a second; one with sound, one with moov last."""
    return [
        read_segment(clips.make_clip(folder / "a.mp4", frames=24)),
        read_segment(clips.make_clip(folder / "b.mp4", frames=7, first=24, moov_first=False)),
        read_segment(clips.make_clip(folder / "c.mp4", frames=39, first=31, audio=True)),
    ]


@pytest.fixture(scope="module")
def unlike(folder: Path) -> list[Segment]:
    """Three clips of different encoders, 20 frames each: their borders are not on whole seconds."""
    return [
        read_segment(clips.make_clip(folder / f"wide{index}.mp4", frames=20, first=index * 20, options=options))
        for index, options in enumerate(ENCODERS)
    ]


# Joined pictures


@pytest.mark.parametrize("fps", RATES)
def test_a_splice_decodes_and_demuxes_like_its_parts(tmp_path: Path, fps: Fraction) -> None:
    lengths = [20, 13, 7]
    paths = [
        clips.make_clip(tmp_path / f"{index}.mp4", frames=count, fps=fps, first=index * 20, moov_first=index % 2 == 0)
        for index, count in enumerate(lengths)
    ]
    file = splice([read_segment(path) for path in paths], None)
    out = stored(tmp_path / "out.mp4", file)
    frames = pictures(out)
    assert [frame.digest for frame in frames] == [frame.digest for path in paths for frame in pictures(path)]
    assert [frame.time for frame in frames] == [number / fps for number in range(sum(lengths))]
    oracle = remuxed(tmp_path / "oracle.mp4", paths, fps)
    assert packets(out) == packets(oracle)
    assert frames == pictures(oracle)
    (track,) = tables(file)
    assert (track.frame_rate, track.obstacles) == (fps, ())
    assert Fraction(track.duration, track.timescale) == sum(lengths) / fps
    assert copy_obstacles(track, lambda at, count: file.read_range(at, at + count)) == ()


def test_clips_of_one_frame_join_anything(tmp_path: Path, parts: list[Segment]) -> None:
    still = read_segment(clips.make_clip(tmp_path / "still.mp4", frames=1, first=50))
    joined = [still, parts[1], still, still]
    frames = pictures(stored(tmp_path / "out.mp4", splice(joined, None)))
    assert [frame.digest for frame in frames] == [shown.digest for part in joined for shown in pictures(part.path)]
    assert [frame.time for frame in frames] == [Fraction(number, 24) for number in range(10)]


def test_a_splice_can_be_spliced_again(tmp_path: Path, parts: list[Segment]) -> None:
    once = stored(tmp_path / "once.mp4", splice(parts[:2], None))
    again = splice([read_segment(once), parts[2]], None)
    assert pictures(stored(tmp_path / "again.mp4", again)) == pictures(
        stored(tmp_path / "direct.mp4", splice(parts, None))
    )


def test_equal_parts_give_equal_bytes(parts: list[Segment], folder: Path) -> None:
    again = [read_segment(part.path) for part in parts]
    assert splice(parts, None).sha256() == splice(again, None).sha256()


def test_seeking_to_any_second_shows_its_frame(tmp_path: Path, parts: list[Segment]) -> None:
    path = stored(tmp_path / "out.mp4", splice(parts, whole_sound(tmp_path / "sound.mp4", 140_000)))
    with av.open(str(path)) as container:
        assert container.duration == round(Fraction(70 * av.time_base, 24))
        for second in (2, 0, 1):
            container.seek(second * av.time_base)
            found = next(f for f in container.decode(video=0) if f.time is not None and f.time >= second - 1e-6)
            assert clips.number_of(found) == second * 24


def test_other_boxes_in_the_entry_do_not_make_a_join_wide(tmp_path: Path, parts: list[Segment]) -> None:
    entry = parts[1].track.entry + box(b"btrt", bytes(12))
    entry = len(entry).to_bytes(4) + entry[4:]
    other = Segment(parts[1].path, replace(parts[1].track, entry=entry))
    (track,) = tables(splice([parts[0], other, parts[2]], None))
    assert track.obstacles == ()
    assert track.entry == parts[0].track.entry


# Clips of different encoders


def test_unlike_clips_decode_bit_for_bit(tmp_path: Path, unlike: list[Segment]) -> None:
    assert len({segment.parameter_sets for segment in unlike}) == 3
    file = splice([*unlike, unlike[0]], whole_sound(tmp_path / "sound.mp4", 4 * 48_000))
    frames = pictures(stored(tmp_path / "out.mp4", file))
    paths = [segment.path for segment in (*unlike, unlike[0])]
    assert [frame.digest for frame in frames] == [frame.digest for path in paths for frame in pictures(path)]
    assert [frame.time for frame in frames] == [Fraction(number, 24) for number in range(80)]


def test_every_unlike_clip_keeps_its_own_sample_entry(unlike: list[Segment]) -> None:
    file = splice([*unlike, unlike[0]], None)
    assert tables(file)[0].obstacles == ("several sample entries",)
    head = file.read_range(0, 20_000)
    entries = [head.index(segment.track.entry) for segment in unlike]
    assert entries == sorted(entries)
    start = head.index(b"stsc") + 8
    rows = np.frombuffer(head, ">u4", 3 * int.from_bytes(head[start : start + 4]), start + 4).reshape(-1, 3)
    spans = np.diff(rows[:, 0], append=rows[-1, 0] + 1)
    described = np.repeat(rows[:, 2], spans * rows[:, 1])
    assert described.tolist() == [1] * 20 + [2] * 20 + [3] * 20 + [1] * 20


def delimited(segment: Segment, path: Path) -> Segment:
    """The segment with an access unit delimiter in front of every sample, as hardware encoders write it."""
    track, blob = segment.track, segment.path.read_bytes()
    delimiter = b"\0\0\0\2\x09\xf0"
    media = [delimiter + blob[at : at + size] for at, size in zip(track.offsets, track.sizes, strict=True)]
    table = TrackTable(
        kind="video",
        timescale=track.timescale,
        entries=(track.entry,),
        sizes=track.sizes + len(delimiter),
        durations=track.durations,
        chunk_samples=np.array([len(media)]),
        chunk_offsets=np.array([0]),
        chunk_entries=np.array([0]),
        shown=track.duration,
        media_time=track.media_time,
        shifts=track.shifts,
        sync=track.sync,
        width=track.width,
        height=track.height,
    )
    content = b"".join(media)
    path.write_bytes(write_head([table], len(content)) + content)
    return read_segment(path)


def unit_types(file: VirtualFile, start: int, size: int) -> list[int]:
    found, at = [], start
    while at < start + size:
        found.append(file.read_range(at + 4, at + 5)[0] & 0x1F)
        at += 4 + int.from_bytes(file.read_range(at, at + 4))
    assert at == start + size
    return found


def test_unlike_clips_bring_their_sets_behind_a_delimiter(tmp_path: Path, unlike: list[Segment]) -> None:
    joined = [unlike[0], delimited(unlike[1], tmp_path / "delimited.mp4"), unlike[2]]
    file = splice(joined, None)
    (track,) = tables(file)
    heads = [unit_types(file, int(track.offsets[at]), int(track.sizes[at])) for at in np.flatnonzero(track.sync)]
    sei = [7, 8, 6, 5]
    assert heads == [sei, [7, 8, 5], [9, *sei], sei]
    frames = pictures(stored(tmp_path / "out.mp4", file))
    assert [frame.digest for frame in frames] == [frame.digest for part in joined for frame in pictures(part.path)]


def test_rates_may_differ_between_clips(tmp_path: Path) -> None:
    paths = [
        clips.make_clip(tmp_path / f"{fps.numerator}.mp4", frames=12, fps=fps)
        for fps in (Fraction(30_000, 1001), RATES[1])
    ]
    frames = pictures(stored(tmp_path / "out.mp4", splice([read_segment(path) for path in paths], None)))
    half = 12 * Fraction(1001, 30_000)
    assert [frame.time for frame in frames[:12]] == [number * Fraction(1001, 30_000) for number in range(12)]
    assert [frame.time for frame in frames[12:]] == [half + Fraction(number, 25) for number in range(12)]


# Holding the last frame


def test_hold_lengthens_the_video_by_its_last_frame_only(tmp_path: Path, parts: list[Segment]) -> None:
    plain, held = splice(parts, None), splice(parts, None, hold=Fraction(5, 3))
    (before,), (after,) = tables(plain), tables(held)
    assert Fraction(after.duration - before.duration, after.timescale) == Fraction(5, 3)
    path = stored(tmp_path / "held.mp4", held)
    assert pictures(path) == pictures(stored(tmp_path / "plain.mp4", plain))
    with av.open(str(path)) as container:
        assert container.duration == round((Fraction(70, 24) + Fraction(5, 3)) * av.time_base)


def test_hold_is_rounded_up_to_a_tick(parts: list[Segment]) -> None:
    (track,) = tables(splice(parts, None, hold=Fraction(1, 10**9)))
    assert int(track.durations[-1] - track.durations[0]) == 1


def expected_times(segments: list[Segment], holds: list[Fraction]) -> list[Fraction]:
    """When each frame is shown: those of a segment begin where the one before it ends, its hold included."""
    times, begin = [], Fraction(0)
    for segment, hold in zip(segments, holds, strict=True):
        count = len(segment.track.sizes)
        times += [begin + number / segment.frame_rate for number in range(count)]
        begin += count / segment.frame_rate + hold
    return times


@pytest.mark.parametrize("counts", [(5, 0, 0), (0, 31, 2), (1, 60, 0), (24, 24, 24)])
def test_every_clip_may_hold_its_last_frame(tmp_path: Path, parts: list[Segment], counts: tuple[int, ...]) -> None:
    assert all(int(part.track.shifts.max()) > int(part.track.shifts.min()) for part in parts), "they have B-frames"
    holds = [Fraction(count, 24) for count in counts]
    file = splice(parts, whole_sound(tmp_path / "sound.mp4", 140_000), hold=holds)
    path = stored(tmp_path / "held.mp4", file)
    frames, plain = pictures(path), pictures(stored(tmp_path / "plain.mp4", splice(parts, None)))
    assert [frame.digest for frame in frames] == [frame.digest for frame in plain]
    assert [frame.time for frame in frames] == expected_times(parts, holds)
    video = tables(file)[0]
    assert Fraction(video.duration, video.timescale) == Fraction(70 + sum(counts), 24)
    with av.open(str(path)) as container:
        stamps = [(packet.dts, packet.pts) for packet in container.demux(video=0) if packet.pts is not None]
    assert all(decoded <= shown for decoded, shown in stamps if decoded is not None)
    assert [decoded for decoded, _ in stamps] == sorted({decoded for decoded, _ in stamps})


def test_a_seek_into_a_hold_shows_the_picture_that_is_held(tmp_path: Path, parts: list[Segment]) -> None:
    path = stored(tmp_path / "held.mp4", splice(parts, None, hold=[Fraction(3), Fraction(0), Fraction(0)]))
    with av.open(str(path)) as container:
        container.seek(int(2.5 * av.time_base))
        shown = [frame for frame in container.decode(video=0) if frame.time is not None and frame.time <= 2.5]
        assert clips.number_of(shown[-1]) == 23


def test_unlike_clips_and_unlike_rates_are_held_as_exactly(tmp_path: Path, unlike: list[Segment]) -> None:
    other = read_segment(clips.make_clip(tmp_path / "ntsc.mp4", frames=9, fps=RATES[2]))
    joined, holds = [unlike[2], other, unlike[0]], [Fraction(7, 24), 40 / RATES[2], Fraction(0)]
    frames = pictures(stored(tmp_path / "held.mp4", splice(joined, None, hold=holds)))
    assert [frame.digest for frame in frames] == [shown.digest for part in joined for shown in pictures(part.path)]
    assert [frame.time for frame in frames] == expected_times(joined, holds)


def test_holding_the_last_clip_alone_is_holding_the_video(parts: list[Segment]) -> None:
    holds = [Fraction(0), Fraction(0), Fraction(5, 3)]
    assert splice(parts, None, hold=holds).sha256() == splice(parts, None, hold=Fraction(5, 3)).sha256()
    assert splice(parts, None, hold=[Fraction(0)] * 3).sha256() == splice(parts, None).sha256()


def test_a_clip_that_holds_its_own_last_frame_keeps_it(tmp_path: Path, parts: list[Segment]) -> None:
    held = stored(tmp_path / "held.mp4", splice(parts[:1], None, hold=Fraction(1, 7)))
    (track,) = tables(splice([read_segment(held), parts[1]], None))
    exact = Fraction(31, 24) + Fraction(-(-48_000 // 7), 48_000)
    assert Fraction(track.duration, track.timescale) == exact


# The soundtrack


def test_the_soundtrack_is_copied_and_trimmed_exactly(tmp_path: Path, parts: list[Segment]) -> None:
    sound = whole_sound(tmp_path / "sound.mp4", 139_999)
    path = stored(tmp_path / "out.mp4", splice(parts, sound))
    assert packets(path, "audio") == packets(tmp_path / "sound.mp4", "audio")
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert (stream.duration, stream.time_base) == (139_999, Fraction(1, 48_000))
        assert stream.start_time == 0
    audio = tables(splice(parts, sound))[1]
    assert (audio.media_time, audio.timescale) == (1024, 48_000)


def test_runs_continue_each_other(tmp_path: Path, parts: list[Segment]) -> None:
    whole = whole_sound(tmp_path / "sound.mp4", 120_000)
    (run,) = whole.runs
    pieces = (replace(run, count=50), replace(run, first=50, count=13), replace(run, first=63, count=run.count - 63))
    assert splice(parts, replace(whole, runs=pieces)).sha256() == splice(parts, whole).sha256()
    later = Soundtrack((replace(run, first=10, count=20),), 2048, 18_000)
    path = stored(tmp_path / "later.mp4", splice(parts, later))
    assert [data for _, data in packets(path, "audio")] == [
        data for _, data in packets(tmp_path / "sound.mp4", "audio")[10:30]
    ]
    assert packets(path, "audio")[0][0] == Fraction(-2048, 48_000)


def test_picture_and_sound_take_turns_about_every_second(tmp_path: Path, parts: list[Segment]) -> None:
    video, audio = tables(splice(parts, whole_sound(tmp_path / "sound.mp4", 140_000)))
    frames = [video.offsets[np.arange(70) // 24 == second] for second in range(3)]
    heard = np.maximum(0, np.arange(len(audio.sizes)) * 1024 - audio.media_time) // 48_000
    sounds = [audio.offsets[heard == second] for second in range(3)]
    order = [
        offset for pair in zip(frames, sounds, strict=True) for part in pair for offset in (part.min(), part.max())
    ]
    assert order == sorted(order)


def test_ffmpeg_reads_every_kind_without_a_word(tmp_path: Path, parts: list[Segment], unlike: list[Segment]) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    sound = whole_sound(tmp_path / "sound.mp4", 130_000)
    for name, file in {
        "safe": splice(parts, sound),
        "wide": splice(unlike, sound),
        "held": splice(parts, sound, hold=Fraction(1)),
    }.items():
        path = stored(tmp_path / f"{name}.mp4", file)
        done = subprocess.run([ffmpeg, "-v", "error", "-i", path, "-f", "null", "-"], capture_output=True, check=False)
        assert (name, done.returncode, done.stderr) == (name, 0, b"")
        wave = subprocess.run(
            [ffmpeg, "-v", "error", "-i", path, "-map", "0:a", "-f", "s16le", "-"], capture_output=True, check=True
        )
        assert len(wave.stdout) == 130_000 * 4


# Captions


def invented(path: Path, kind: str, count: int) -> Track:
    """A track that no encoder had a hand in, so that its bytes are the same everywhere."""
    path.write_bytes(hashlib.shake_128(kind.encode()).digest(100 * count))
    video = kind == "video"
    record = box(b"avcC", bytes.fromhex("0164000affe100046764000a01000468ee3cb0"))
    descriptor = b"\x03\x16" + bytes(3) + b"\x04\x11" + bytes(13) + b"\x05\x02\x11\x90"
    picture = box(b"avc1", bytes(24), (96).to_bytes(2), (64).to_bytes(2), bytes(50), record)
    return Track(
        kind="video" if video else "audio",
        timescale=24 if video else 48_000,
        entry=picture if video else box(b"mp4a", bytes(28), box(b"esds", bytes(4) + descriptor)),
        width=96 * video,
        height=64 * video,
        sizes=np.full(count, 100),
        offsets=np.arange(count) * 100,
        durations=np.full(count, 1 if video else 1024),
        shifts=np.zeros(count, np.int64),
        sync=np.arange(count) % 24 == 0,
    )


@pytest.fixture
def plain(tmp_path: Path) -> tuple[list[Segment], Soundtrack]:
    """5 s of pictures and as much sound."""
    segment = Segment(tmp_path / "v", invented(tmp_path / "v", "video", 60))
    run = AudioRun(tmp_path / "a", invented(tmp_path / "a", "audio", 250), 0, 250)
    return [segment, segment], Soundtrack((run,), 1024, 250_000)


def test_a_file_without_captions_is_what_it_was_before_there_were_any(plain: tuple[list[Segment], Soundtrack]) -> None:
    file = splice(*plain, hold=Fraction(1, 3))
    assert len(file) == 39_795
    assert file.sha256() == "c7a66a99184f46a7ff8709af63ea66ded7006b9e24809090001119614e103b84"


CUES = (Cue(0, 900, "Erste"), Cue(1_200, 2_500, "Zweite 🧀\nZeile"), Cue(2_500, 4_999, "字幕"))


def text_boxes(file: VirtualFile) -> dict[bytes, memoryview]:
    """The boxes of the third track, by what they are called."""
    head = file.read_range(0, 30_000)
    start = head.index(b"moov") - 4
    moov = next(read_boxes(memoryview(head)[start:]))
    trak = [found.payload for found in read_boxes(moov.payload) if found.kind == b"trak"][2]
    boxes: dict[bytes, memoryview] = {}
    waiting = [trak]
    while waiting:
        for kind, payload in children(waiting.pop()).items():
            boxes[kind] = payload
            waiting += [payload] if kind in (b"mdia", b"minf", b"stbl", b"edts") else []
    return boxes


def test_captions_are_a_track_of_their_own_beside_their_seconds(plain: tuple[list[Segment], Soundtrack]) -> None:
    file = splice(*plain, captions=Captions(CUES, 5_000, "deu"))
    boxes = text_boxes(file)
    assert bytes(boxes[b"hdlr"][8:12]) == b"sbtl"
    assert b"nmhd" in boxes
    flags, group = bytes(boxes[b"tkhd"][1:4]), int.from_bytes(boxes[b"tkhd"][34:36])
    assert (flags, group) == (b"\0\0\3", 2)
    top, width, height = (int.from_bytes(boxes[b"tkhd"][at : at + 4]) >> 16 for at in (68, 76, 80))
    assert (top, width, height) == (64 - 36 - 3, 96, 36)
    assert (int.from_bytes(boxes[b"mdhd"][12:16]), int.from_bytes(boxes[b"mdhd"][16:20])) == (1000, 5000)
    packed = int.from_bytes(boxes[b"mdhd"][20:22])
    assert "".join(chr(0x60 + (packed >> shift & 31)) for shift in (10, 5, 0)) == "deu"
    sizes = np.frombuffer(boxes[b"stsz"], ">u4", offset=12).tolist()
    runs = np.frombuffer(boxes[b"stts"], ">u4", offset=8).reshape(-1, 2).tolist()
    texts = [b"Erste", b"", "Zweite 🧀\nZeile".encode(), "字幕".encode(), b""]
    assert sizes == [len(text) + 2 for text in texts]
    assert runs == [[1, 900], [1, 300], [1, 1300], [1, 2499], [1, 1]]
    offsets = np.frombuffer(boxes[b"stco"], ">u4", offset=8).tolist()
    samples = [len(text).to_bytes(2) + text for text in texts]
    chunks = [samples[0] + samples[1], samples[2], samples[3], samples[4]]
    assert [file.read_range(at, at + len(chunk)) for at, chunk in zip(offsets, chunks, strict=True)] == chunks
    (video, audio) = tables(file)
    for at, second in zip(offsets, (0, 1, 2, 4), strict=True):
        pictures_then = video.offsets[np.arange(120) // 24 == second]
        assert pictures_then.max() < at < (video.offsets[np.arange(120) // 24 == second + 1].min(initial=len(file)))
    assert audio.obstacles == video.obstacles == ()


def test_captions_change_the_files_name_and_no_range_of_it_differs_from_the_copy(
    tmp_path: Path, plain: tuple[list[Segment], Soundtrack]
) -> None:
    one = splice(*plain, captions=Captions(CUES, 5_000, "deu"))
    other = splice(*plain, captions=Captions((*CUES[:2], replace(CUES[2], text="字墓")), 5_000, "deu"))
    assert len(one) == len(other)
    assert len({one.digest(), other.digest(), splice(*plain).digest()}) == 3
    assert one.digest() == splice(*plain, captions=Captions(CUES, 5_000, "deu")).digest()
    content = stored(tmp_path / "out.mp4", one).read_bytes()
    assert len(one) == len(content)
    assert content.index(b"moov") < content.index(b"mdat")
    for start in range(0, len(content), 997):
        assert one.read_range(start, start + 1500) == content[start : start + 1500]


def test_what_has_captions_can_be_spliced_again(tmp_path: Path, parts: list[Segment]) -> None:
    captions = Captions((Cue(100, 900, "text"),), 1_000)
    path = stored(tmp_path / "one.mp4", splice(parts[:1], None, captions=captions))
    assert splice([read_segment(path)], None).sha256() == splice(parts[:1], None).sha256()


def test_captions_end_with_the_pictures_at_the_latest(plain: tuple[list[Segment], Soundtrack]) -> None:
    late = Captions((*CUES, Cue(4_999, 5_001, "half"), Cue(5_001, 6_000, "never")), 6_000)
    fitting = Captions((*CUES, Cue(4_999, 5_000, "half")), 5_000)
    assert splice(*plain, captions=late).sha256() == splice(*plain, captions=fitting).sha256()
    held = splice(*plain, captions=late, hold=Fraction(1))
    assert b"never" in held.read_range(0, len(held))


# What is refused


def test_unfit_pieces_are_refused(tmp_path: Path, parts: list[Segment]) -> None:
    part = parts[0]
    other_size = read_segment(clips.make_clip(tmp_path / "size.mp4", frames=3, size=(64, 96)))
    uneven = Segment(part.path, replace(part.track, durations=np.arange(1, 25)))
    late = Segment(part.path, replace(part.track, media_time=0))
    turned = Segment(part.path, replace(part.track, rotation=90))
    hevc = Segment(part.path, replace(part.track, entry=part.track.entry.replace(b"avc1", b"hvc1")))
    cut = Segment(part.path, replace(part.track, obstacles=("an edit that cuts off the end",)))
    for bad in (other_size, uneven, late, turned, hevc, cut):
        with pytest.raises(SpliceError) as caught:
            splice([part, bad], None)
        assert caught.value.code == "unfit_segment"
    with pytest.raises(SpliceError, match="at least one"):
        splice([], None)
    for hold in (Fraction(-1), [Fraction(-1), Fraction(1)]):
        with pytest.raises(SpliceError, match="held"):
            splice([part, part], None, hold=hold)


def test_rates_without_a_common_clock_are_refused(parts: list[Segment]) -> None:
    strange = Segment(parts[0].path, replace(parts[0].track, timescale=99_999_989))
    with pytest.raises(SpliceError, match="common clock"):
        splice([parts[0], strange], None)


def test_unfit_sound_is_refused(tmp_path: Path, parts: list[Segment]) -> None:
    sound = whole_sound(tmp_path / "sound.mp4", 48_000)
    (run,) = sound.runs
    slow = replace(run, track=replace(run.track, timescale=44_100))
    mono = replace(run, track=replace(run.track, entry=run.track.entry.replace(b"\x11\x90", b"\x11\x88")))
    for bad in (
        replace(sound, samples=60_000),
        replace(sound, samples=0),
        replace(sound, priming=-1),
        replace(sound, runs=()),
        replace(sound, runs=(replace(run, first=1),)),
        replace(sound, runs=(replace(run, first=-1),)),
        replace(sound, runs=(slow,)),
        replace(sound, runs=(run, mono)),
    ):
        with pytest.raises(SpliceError) as caught:
            splice(parts, bad)
        assert caught.value.code == "unfit_soundtrack"


def test_a_file_needs_the_track_it_is_read_for(tmp_path: Path) -> None:
    sound = clips.make_sound(tmp_path / "sound.mp4", 4096)
    with pytest.raises(SpliceError, match="exactly one video track"):
        read_segment(sound)
    path = clips.make_clip(tmp_path / "a.mp4", frames=5)
    os.truncate(path, path.stat().st_size - 10)
    with pytest.raises(StorageError) as caught:
        read_segment(path)
    assert caught.value.code == "damaged_artifact"


# Beyond 4 GiB


def test_offsets_beyond_4_gib_take_64_bits(parts: list[Segment]) -> None:
    huge = Segment(parts[0].path, replace(parts[0].track, sizes=np.full(24, 1 << 28)))
    file = splice([huge, huge], None)
    assert len(file) > 12 << 30
    (track,) = tables(file)
    head = len(file) - (48 << 28)
    assert track.offsets.tolist() == [head + (index << 28) for index in range(48)]
    assert file.read_range(head - 16, head) == (1).to_bytes(4) + b"mdat" + ((48 << 28) + 16).to_bytes(8)


def test_parts_may_lie_beyond_4_gib(tmp_path: Path, parts: list[Segment]) -> None:
    far = 5 << 30
    path = tmp_path / "sparse.bin"
    with path.open("wb") as out:
        out.seek(far)
        out.write(parts[0].path.read_bytes())
    moved = Segment(path, replace(parts[0].track, offsets=parts[0].track.offsets + far))
    assert splice([moved], None).sha256() == splice(parts[:1], None).sha256()


# The virtual file


@pytest.fixture(scope="module")
def blobs(folder: Path) -> list[Path]:
    paths = [folder / f"blob{index}" for index in range(3)]
    for index, path in enumerate(paths):
        path.write_bytes(hashlib.shake_128(bytes((index,))).digest(5000))
    return paths


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_range_is_the_same_part_of_the_copy(blobs: list[Path], data: st.DataObject) -> None:
    sources = st.one_of(st.sampled_from(blobs), st.binary(max_size=40))
    extents, expected = [], b""
    for source in data.draw(st.lists(sources, max_size=8)):
        content = source if isinstance(source, bytes) else source.read_bytes()
        start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2)))
        extents.append(Extent(source, start, stop - start))
        expected += content[start:stop]
    file = VirtualFile(extents)
    out = BytesIO()
    file.copy_to(out)
    assert out.getvalue() == expected
    assert len(file) == len(expected)
    assert file.sha256() == hashlib.sha256(expected).hexdigest()
    start, stop = data.draw(st.tuples(*[st.integers(0, len(expected) + 5)] * 2))
    assert file.read_range(start, stop) == expected[start:stop]
    assert b"".join(file.blocks(start)) == expected[start:]


@pytest.fixture
def mixed(blobs: list[Path]) -> VirtualFile:
    return VirtualFile([Extent(b"head", 0, 4), *(Extent(blob, 7, 4000) for blob in blobs), Extent(blobs[0], 0, 10)])


def test_a_copy_starts_where_the_target_stands_and_leaves_it_at_the_end(tmp_path: Path, mixed: VirtualFile) -> None:
    content = mixed.read_range(0, len(mixed))
    with (tmp_path / "buffered").open("wb") as out:
        out.write(b"before")
        mixed.copy_to(out)
        out.write(b"after")
    assert (tmp_path / "buffered").read_bytes() == b"before" + content + b"after"
    descriptor = os.open(tmp_path / "plain", os.O_WRONLY | os.O_CREAT)
    mixed.copy_to(descriptor)
    os.close(descriptor)
    assert (tmp_path / "plain").read_bytes() == content


def test_what_the_kernel_will_not_copy_is_copied_by_hand(tmp_path: Path, mixed: VirtualFile) -> None:
    content = mixed.read_range(0, len(mixed))
    with (tmp_path / "appended").open("ab") as out:  # copy_file_range says EBADF
        mixed.copy_to(out)
    assert (tmp_path / "appended").read_bytes() == content
    with ThreadPoolExecutor(1) as pool:
        reading, writing = os.pipe()  # copy_file_range says EINVAL
        with os.fdopen(reading, "rb") as source:
            received = pool.submit(source.read)
            with os.fdopen(writing, "wb", buffering=0):
                mixed.copy_to(writing)
            assert received.result() == content


def test_errors_of_the_target_stay_what_they_are(mixed: VirtualFile) -> None:
    with open("/dev/full", "wb", buffering=0) as out, pytest.raises(OSError, match="No space left"):  # noqa: PTH123
        mixed.copy_to(out)


def test_several_threads_may_read_at_once(mixed: VirtualFile) -> None:
    content = mixed.read_range(0, len(mixed))
    spans = [(start, start + 999) for start in range(0, len(content), 37)]
    with ThreadPoolExecutor(8) as pool:
        assert all(
            found == content[start:stop]
            for (start, stop), found in zip(spans, pool.map(lambda span: mixed.read_range(*span), spans), strict=True)
        )


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_no_file_stays_open(tmp_path: Path, mixed: VirtualFile) -> None:
    before = open_descriptors()
    reading: Iterator[bytes] = mixed.blocks()
    next(reading)
    next(reading)
    assert open_descriptors() == before + 1
    del reading
    mixed.copy_to(BytesIO())
    assert open_descriptors() == before


@pytest.mark.parametrize("fate", ["shortened", "gone"])
def test_a_damaged_part_is_told_from_everything_else(tmp_path: Path, blobs: list[Path], fate: str) -> None:
    part = tmp_path / "part"
    part.write_bytes(blobs[0].read_bytes())
    file = VirtualFile([Extent(part, 0, 5000)])
    if fate == "gone":
        part.unlink()
    else:
        os.truncate(part, 4999)
    with (tmp_path / "out").open("wb") as out:
        for read in (lambda: file.copy_to(out), lambda: file.copy_to(BytesIO()), file.sha256):
            with pytest.raises(StorageError) as caught:
                read()
            assert caught.value.code == "damaged_artifact"
            assert str(tmp_path) not in caught.value.public


def test_a_range_before_the_file_is_refused(mixed: VirtualFile) -> None:
    with pytest.raises(ValueError, match="starts at 0"):
        mixed.read_range(-1, 5)
