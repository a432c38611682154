"""Grouped files: the same samples as interleaved ones, what is shared in one piece each, playable as they load."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import clips
from crosscut import layout
from crosscut.captions import Captions, Cue
from crosscut.layout import LEAST_SOUND, MOST_SOUND, OWN
from crosscut.media import AAC_FRAME, AUDIO_RATE
from crosscut.mp4 import find_moov, read_tracks
from crosscut.splice import AudioRun, Segment, Soundtrack, read_segment, read_track, splice
from crosscut.virtual import VirtualFile

if TYPE_CHECKING:
    from pathlib import Path

ENCODERS = [
    {"profile": "baseline", "x264-params": "keyint=10"},
    {"profile": "main", "x264-params": "bframes=0:ref=1"},
    {"profile": "high", "x264-params": "bframes=3:b-pyramid=normal:ref=4"},
]
CAPTIONS = Captions((Cue(200, 900, "one"), Cue(2_500, 4_000, "two")), 5_000, "eng")


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> list[Segment]:
    """At 24 a second: 2, 1.5 and 13 seconds, the last one interleaved with sound of its own."""
    folder = tmp_path_factory.mktemp("segments")
    return [
        read_segment(clips.make_clip(folder / "a.mp4", frames=48)),
        read_segment(clips.make_clip(folder / "b.mp4", frames=36, first=48, moov_first=False)),
        read_segment(clips.make_clip(folder / "c.mp4", frames=312, first=84, audio=True)),
    ]


@pytest.fixture(scope="module")
def unlike(tmp_path_factory: pytest.TempPathFactory) -> list[Segment]:
    folder = tmp_path_factory.mktemp("unlike")
    return [
        read_segment(clips.make_clip(folder / f"{index}.mp4", frames=20, first=20 * index, options=options))
        for index, options in enumerate(ENCODERS)
    ]


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty seconds of AAC."""
    return clips.make_sound(tmp_path_factory.mktemp("sound") / "sound.m4a", 20 * clips.RATE)


def sound(path: Path, seconds: float, *, own: bool = False) -> Soundtrack:
    """The beginning of the stream."""
    track, samples = read_track(path, "audio"), round(seconds * AUDIO_RATE)
    count = -(-(track.media_time + samples) // AAC_FRAME)
    return Soundtrack((AudioRun(path, track, 0, count, own),), track.media_time, samples)


def decoded(path: Path) -> list[tuple[str, Fraction, bytes]]:
    """Every packet as it is read and every picture and sound as it is decoded, with its time."""
    import av

    found = []
    for kind in ("video", "audio"):
        with av.open(str(path)) as container:
            for packet in container.demux(**{kind: 0}):
                if packet.pts is None:
                    continue
                found.append((f"{kind} packet", packet.pts * packet.time_base, bytes(packet)))
                found += [
                    (kind, frame.pts * frame.time_base, frame.to_ndarray().tobytes()) for frame in packet.decode()
                ]
    return found


def stored(path: Path, file: VirtualFile) -> Path:
    with path.open("wb") as out:
        file.copy_to(out)
    return path


def tracks(file: VirtualFile) -> dict[str, object]:
    found = find_moov(lambda at, count: file.read_range(at, at + count), len(file))
    return {track.kind: track for track in read_tracks(file.read_range(found[0], sum(found)))}


@pytest.mark.parametrize("hold", [Fraction(0), Fraction(1, 2)])
def test_a_grouped_file_is_the_interleaved_one_in_another_order(tmp_path, segments, stream, hold):
    parts = segments, sound(stream, 16.5 + float(hold))
    both = [splice(*parts, hold=hold, captions=CAPTIONS, grouped=grouped) for grouped in (False, True)]
    one, other = (stored(tmp_path / f"{number}.mp4", file) for number, file in enumerate(both))
    assert one.read_bytes() != other.read_bytes()
    assert decoded(one) == decoded(other)
    assert (both[0].shared, len(both[1].shared)) == ((), 3 + 2)


def test_unlike_encoders_are_grouped_too(tmp_path, unlike, stream):
    one, other = (
        stored(tmp_path / f"{grouped}.mp4", splice(unlike, sound(stream, 2.5), grouped=grouped))
        for grouped in (False, True)
    )
    assert decoded(one) == decoded(other)


def pieces(file: VirtualFile) -> set[bytes]:
    return {file.read_range(start, stop) for start, stop in file.shared}


def test_what_files_share_is_the_same_range_of_bytes_in_all_of_them(segments, stream):
    a, b, c = segments
    files = [
        splice(order, sound(stream, float(sum(each.duration for each in order))), grouped=True)
        for order in ([a, b, c], [c, a], [b, a, c], [b, b], [a])
    ]
    found = set().union(*map(pieces, files))
    assert [len(file.shared) for file in files] == [5, 5, 5, 3, 2]
    # Three clips; of the sound access units 0 to 512, 512 to 768, 512 to 640, 640 to 704, 0 to 128 and 0 to 64.
    assert len(found) == 3 + 6
    for file in files:
        assert all(before[1] <= after[0] for before, after in zip(file.shared, file.shared[1:], strict=False))
        assert file.shared[-1][1] == len(file)


def test_what_is_new_is_a_small_part_of_the_file(segments, stream):
    file = splice(segments, sound(stream, 16.5), captions=CAPTIONS, grouped=True)
    own = len(file) - sum(stop - start for start, stop in file.shared)
    assert own == file.shared[0][0]
    most = LEAST_SOUND * int(read_track(stream, "audio").sizes.max())
    assert own < 10_000 + most


def test_sound_of_one_video_alone_is_not_shared(segments, stream):
    file = splice(segments, sound(stream, 16.5, own=True), grouped=True)
    assert len(file.shared) == 3
    assert pieces(file) == pieces(splice(segments, None, grouped=True))


def test_what_has_loaded_can_be_played(segments, stream):
    """Of every moment the sound lies before the end of the pictures that are shown then, or those just after it."""
    file = splice(segments, sound(stream, 16.5), grouped=True)
    both = tracks(file)
    pictures, heard = both["video"], both["audio"]
    ends = np.maximum.accumulate(pictures.offsets + pictures.sizes)
    shown = (np.cumsum(pictures.durations) - pictures.durations) / pictures.timescale
    for number, offset in enumerate(heard.offsets.tolist()):
        second = max(0, number * AAC_FRAME - heard.media_time) / AUDIO_RATE
        index = min(int(np.searchsorted(shown, second + 1, "right")), len(ends) - 1)
        assert offset < ends[index]
    ahead = heard.sizes[heard.offsets < pictures.offsets[0]]
    assert len(ahead) < MOST_SOUND + LEAST_SOUND


def test_alone_a_file_shares_nothing_and_has_the_same_bytes(segments, stream):
    file = splice(segments, sound(stream, 16.5), grouped=True)
    assert file.alone().shared == ()
    assert file.alone().sha256() == file.sha256()


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 3_000), st.booleans()), min_size=1, max_size=4))
def test_sound_is_cut_at_places_of_its_own_stream(spans):
    numbers = layout.sound_pieces(spans)
    assert len(numbers) == sum(count for _, count, _ in spans)
    at, seen = 0, []
    for first, count, shared in spans:
        mine = numbers[at : at + count]
        at += count
        if not shared:
            assert set(mine.tolist()) == {OWN}
            continue
        for number in sorted(set(mine.tolist()) - {OWN}):
            where = np.flatnonzero(mine == number) + first
            length = len(where)
            assert where.tolist() == list(range(where[0], where[0] + length))
            assert (length & (length - 1), where[0] % length) == (0, 0)
            assert LEAST_SOUND <= length <= MOST_SOUND
            seen.append(number)
        assert (mine == OWN).sum() < 2 * LEAST_SOUND
        assert len(set(mine.tolist())) <= count // MOST_SOUND + 10
    assert seen == list(range(len(seen)))


@given(st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=6), st.data())
def test_extents_of_a_range_are_its_bytes(parts, data):
    from crosscut.virtual import Extent

    whole = b"".join(parts)
    file = VirtualFile([Extent(part, 0, len(part)) for part in parts])
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    found = VirtualFile(file.extents(start, stop))
    assert found.read_range(0, len(found)) == whole[start:stop]
