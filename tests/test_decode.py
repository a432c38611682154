from __future__ import annotations

import io
import socket
import struct
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import av
import av.error
import numpy as np
import pytest
from av.stream import Disposition
from hypothesis import given, settings
from hypothesis import strategies as st

from crosscut.decode import audio_stream, check_frame, decoded, open_media, refuse_unknown, video_stream
from crosscut.errors import ProbeError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from av.container import OutputContainer

CLIPS = [
    ("mp4", "libx264", "aac"),
    ("mov", "libx264", "pcm_s16le"),
    ("matroska", "libx264", "flac"),
    ("webm", "libvpx", "libopus"),
    ("avi", "mpeg4", "libmp3lame"),
    ("mpegts", "mpeg2video", "mp2"),
    ("flv", "libx264", "aac"),
    ("gif", "gif", None),
]
SOUNDS = [
    ("wav", "pcm_s16le"),
    ("mp3", "libmp3lame"),
    ("adts", "aac"),
    ("flac", "flac"),
    ("ogg", "libopus"),
    ("ipod", "alac"),
    ("mp4", "aac"),
]


def video_track(container: OutputContainer, codec: str, size: int) -> Any:
    stream = cast("Any", container.add_stream(codec, rate=25))
    stream.width = stream.height = size
    stream.pix_fmt = stream.codec_context.codec.video_formats[0].name if codec in ("png", "gif") else "yuv420p"
    return stream


def pictures(stream: Any, frames: int) -> list[av.Packet[Any]]:
    shades = [np.full((stream.height, stream.width, 3), number * 20 % 255, np.uint8) for number in range(frames)]
    shown = [av.VideoFrame.from_ndarray(shade, format="rgb24") for shade in shades]
    return [packet for frame in (*shown, None) for packet in stream.encode(frame)]


def sound(stream: Any, samples: int) -> list[av.Packet[Any]]:
    stream.codec_context.open(strict=False)
    step = stream.codec_context.frame_size or 1024
    packets = []
    for start in range(0, samples, step):
        frame = av.AudioFrame(stream.codec_context.format.name, "stereo", step)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.rate, frame.pts, frame.time_base = 48_000, start, Fraction(1, 48_000)
        packets += stream.encode(frame)
    return [*packets, *stream.encode(None)]


def media(
    kind: str,
    video: str | None = None,
    audio: str | None = None,
    *,
    frames: int = 10,
    size: int = 64,
    options: dict[str, str] | None = None,
) -> io.BytesIO:
    """A file of that muxer with a moving picture and 0.4 s of silence."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind, options=options) as container:
        shown = video_track(container, video, size) if video else None
        heard = container.add_stream(audio, rate=48_000, layout="stereo") if audio else None
        if shown:
            container.mux(pictures(shown, frames))
        if heard:
            container.mux(sound(heard, 19_200))
    return io.BytesIO(file.getvalue())


def with_bad_packets(bad: Collection[int], frames: int) -> io.BytesIO:
    """PNG pictures in QuickTime, some of them no PNG."""
    source, file = media("mov", "png", frames=frames, size=16), io.BytesIO()
    with av.open(source, "r") as read, av.open(file, "w", format="mov") as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for number, packet in enumerate(read.demux(video=0)):
            if packet.size:
                copy = av.Packet(b"no picture") if number in bad else packet
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.is_keyframe = True
                copy.stream = stream
                write.mux(copy)
    return io.BytesIO(file.getvalue())


def video_frames(file: io.BytesIO, **budgets: Any) -> int:
    with open_media(file) as container:
        stream = video_stream(container)
        assert stream
        return sum(1 for _ in decoded(container, stream, **budgets))


def refused(file: Any) -> str:
    with pytest.raises(ProbeError) as caught:
        open_media(file)
    return caught.value.code


@pytest.mark.parametrize(("kind", "video", "audio"), CLIPS)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_clip_of_every_known_kind_opens_and_decodes(kind: str, video: str, audio: str | None, threads: int) -> None:
    file = media(kind, video, audio)
    with open_media(file, threads=threads) as container:
        shown = video_stream(container)
        assert shown
        assert shown.codec_context.thread_count == threads
        times = [frame.time for frame in decoded(container, shown)]
        assert times == sorted(times, key=float)
        assert len(times) == 10
    file.seek(0)
    with open_media(file, threads=threads) as container:
        heard = audio_stream(container)
        assert (heard is None) == (audio is None)
        if heard:
            assert sum(frame.samples for frame in decoded(container, heard)) >= 19_200


@pytest.mark.parametrize(("kind", "audio"), SOUNDS)
def test_sound_of_every_known_kind_opens_and_decodes(kind: str, audio: str) -> None:
    with open_media(media(kind, audio=audio)) as container:
        heard = audio_stream(container)
        assert video_stream(container) is None
        assert heard
        assert sum(frame.samples for frame in decoded(container, heard)) >= 19_200


@pytest.mark.parametrize(("kind", "audio"), [("mp3", "libmp3lame"), ("mp4", "aac"), ("flac", "flac")])
def test_a_cover_is_never_video(kind: str, audio: str) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        cover = video_track(container, "png", 64)
        cover.disposition = Disposition.attached_pic
        heard = container.add_stream(audio, rate=48_000, layout="stereo")
        container.mux([*pictures(cover, 1), *sound(heard, 4096)])
    with open_media(io.BytesIO(file.getvalue())) as container:
        assert len(container.streams.video) == 1
        assert video_stream(container) is None
        assert audio_stream(container)


def test_the_default_picture_wins_and_among_defaults_the_largest() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        tracks = [video_track(container, "mpeg4", size) for size in (32, 96, 64, 128)]
        for track in tracks[:3]:
            track.disposition = Disposition.default
        container.mux([packet for track in tracks for packet in pictures(track, 1)])
    with open_media(io.BytesIO(file.getvalue())) as container:
        stream = video_stream(container)
        assert stream
        assert stream.codec_context.width == 96


def test_a_codec_that_is_not_on_the_list_is_no_stream() -> None:
    with open_media(media("matroska", "ffv1", "pcm_s16le")) as container:
        assert len(container.streams.video) == 1
        assert video_stream(container) is None
        assert audio_stream(container)


# what is not media


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"", "empty"),
        (b"\0" * 4096, "empty"),
        (b"\xef\xbb\xbf\r\n<!DOCTYPE html><html>", "HTML"),
        (b"\xff\xfe" + "<html>ä".encode("utf-16-le"), "HTML"),
        (b'{"error": "not found"}', "JSON"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"#EXTM3U\nhttp://127.0.0.1/a.ts\n", "M3U"),
        (b"ffconcat version 1.0\nfile sibling.ts\n", "ffconcat"),
        (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n", "SDP"),
        (b"1\n00:00:00,000 --> 00:00:01,000\nHell\xf6\n", "text"),
        (b"%PDF-1.7\n\0", "PDF"),
        (b"PK\x03\x04\x14\0", "ZIP"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "JPEG"),
        (b"\0\0\0\x24ftypheic\0\0\0\0", "HEIC"),
    ],
)
def test_what_is_plainly_no_media_is_called_by_its_name(head: bytes, word: str) -> None:
    with pytest.raises(ProbeError, match=word) as caught:
        refuse_unknown(head)
    assert caught.value.code == "not_media"
    assert refused(io.BytesIO(head)) == "not_media"


@settings(deadline=None)
@given(st.text(min_size=1).filter(str.isprintable))
def test_no_text_is_media(text: str) -> None:
    with pytest.raises(ProbeError):
        refuse_unknown(text.encode())


PLAYLISTS = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{segment}\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile {segment}\n",
    "sdp": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
    "a=rtpmap:96 H264/90000\r\n",
    "mpd": '<?xml version="1.0"?><MPD><Period><AdaptationSet><Representation><BaseURL>{segment}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
}


@pytest.mark.parametrize("name", ["clip.mp4", "clip", "clip.m3u8", "clip.ffconcat", "clip.sdp"])
@pytest.mark.parametrize("text", PLAYLISTS)
@pytest.mark.parametrize("hidden", [False, True], ids=["plain", "past our sniffing"])
def test_a_playlist_leads_to_no_other_file_and_no_address(tmp_path: Path, text: str, name: str, hidden: bool) -> None:
    (tmp_path / "sibling.ts").write_bytes(media("mpegts", "mpeg2video").getvalue())
    path = tmp_path / name
    with socket.create_server(("127.0.0.1", 0)) as server:
        for segment in (f"http://127.0.0.1:{server.getsockname()[1]}/a.ts", "sibling.ts", str(tmp_path / "sibling.ts")):
            path.write_text(PLAYLISTS[text].format(segment=segment) + ("#\x01\n" if hidden else ""))
            with path.open("rb") as file:
                assert refused(file) == "not_media"
        server.settimeout(0.01)
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("name", ["clip.mp4", "clip.jpg", "http:"])
def test_noise_under_any_name_is_no_media(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(np.random.default_rng(1).bytes(20_000))
    with path.open("rb") as file:
        assert refused(file) == "not_media"


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(media("webm", "libvpx").getvalue())
    with path.open("rb") as file, open_media(file) as container:
        assert "webm" in container.format.name


# damage


def test_an_mp4_without_its_index_is_truncated() -> None:
    whole = media("mp4", "libx264").getvalue()
    assert refused(io.BytesIO(whole[: whole.index(b"moov") - 4])) == "truncated"


def test_a_file_cut_in_the_middle_gives_the_frames_there_are() -> None:
    whole = media("matroska", "mpeg4", frames=50).getvalue()
    assert 5 < video_frames(io.BytesIO(whole[: len(whole) // 2])) < 45


def test_nested_boxes_without_end_do_no_harm() -> None:
    depth = 20_000
    boxes = b"".join(struct.pack(">I4s", 8 * (depth - level), b"moov") for level in range(depth))
    assert refused(io.BytesIO(boxes)) == "truncated"


def test_a_few_bad_packets_are_left_out() -> None:
    assert video_frames(with_bad_packets({0, 1, 50}, 100)) == 97


def test_many_bad_packets_are_damage() -> None:
    file = with_bad_packets(range(0, 100, 10), 100)
    with pytest.raises(ProbeError, match="10 of its 101 packets") as caught:
        video_frames(file)
    assert caught.value.code == "damaged"
    file.seek(0)
    assert video_frames(file, tolerance=Fraction(1, 2)) == 90


def test_fifty_bad_packets_at_the_start_end_it() -> None:
    with pytest.raises(ProbeError) as caught:
        video_frames(with_bad_packets(range(50), 2000), tolerance=Fraction(1))
    assert caught.value.code == "no_frames"


def test_nothing_decodable_is_no_frames() -> None:
    with pytest.raises(ProbeError) as caught:
        video_frames(with_bad_packets(range(5), 5), tolerance=Fraction(1))
    assert caught.value.code == "no_frames"


def test_an_encrypted_file_is_named_so() -> None:
    options = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "0123456789abcdef" * 2,
        "encryption_kid": "fedcba9876543210" * 2,
    }
    with pytest.raises(ProbeError) as caught:
        video_frames(media("mp4", "libx264", options=options))
    assert caught.value.code == "encrypted"


class Stub:
    """A stream and its container: one packet, one fault of the demuxer, and frames that come when flushed."""

    start_time = 1000

    def __init__(self, frames: list[av.VideoFrame]) -> None:
        self.frames = frames

    def demux(self, _: Stub) -> Iterator[av.Packet[Any]]:
        yield av.Packet(b"x")
        raise av.error.InvalidDataError(1094995529, "Invalid data")

    def decode(self, packet: object) -> list[av.VideoFrame]:
        return [] if packet else self.frames


def test_a_fault_of_the_demuxer_ends_the_file_and_loses_no_frame() -> None:
    stub = cast("Any", Stub([av.VideoFrame(16, 16, "yuv420p")]))
    assert len(list(decoded(stub, stub, tolerance=Fraction(1)))) == 1


def test_frames_without_a_time_take_their_place_or_are_left_out() -> None:
    frames = [av.VideoFrame(16, 16, "yuv420p") for _ in range(5)]
    for frame, duration in zip(frames, (40, 40, 0, 40, 40), strict=True):
        frame.duration = duration
    frames[4].pts = 2000
    stub = cast("Any", Stub(frames))
    assert [frame.pts for frame in decoded(stub, stub, tolerance=Fraction(1))] == [1000, 1040, 1080, 2000]


# budgets


def test_frames_and_pixels_are_budgeted() -> None:
    file = media("mp4", "libx264")
    assert video_frames(file, max_frames=10, max_pixels_total=10 * 64 * 64) == 10
    for budget in ({"max_frames": 9}, {"max_pixels_total": 10 * 64 * 64 - 1}):
        file.seek(0)
        with pytest.raises(ProbeError, match="more than") as caught:
            video_frames(file, **budget)
        assert caught.value.code == "limit_exceeded"


@pytest.mark.parametrize("size", [16_000, 65_535])
def test_a_picture_larger_than_8k_is_never_unpacked(size: int) -> None:
    gif = bytearray(media("gif", "gif", frames=3).getvalue())
    struct.pack_into("<HH", gif, 6, size, size)
    with pytest.raises(ProbeError) as caught:
        video_frames(io.BytesIO(gif))
    assert caught.value.code == "no_frames"


def test_a_frame_that_lacks_planes_is_damage_before_anyone_scales_it() -> None:
    frame = av.VideoFrame(0, 0, "yuv420p")
    stub = cast("Any", Stub([frame]))
    for act in (lambda: check_frame(frame), lambda: next(decoded(stub, stub))):
        with pytest.raises(ProbeError) as caught:
            act()
        assert caught.value.code == "damaged"


@pytest.mark.parametrize("name", ["yuv420p", "nv12", "pal8", "yuva420p10le", "gbrp", "gray", "bgra", "p010le"])
def test_a_whole_frame_of_any_format_passes(name: str) -> None:
    check_frame(av.VideoFrame(16, 16, name))
