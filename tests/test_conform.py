"""Conforming: what comes out is upright, unstretched, on time, in the right colours, and joinable."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction
from math import floor

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from hypothesis import given
from hypothesis import strategies as st

from clips import make_clip, number_of
from crosscut import conform, probe
from crosscut.errors import ConformError
from crosscut.media import Format
from crosscut.probe import _FACTS
from crosscut.sandbox import Job
from crosscut.splice import read_segment

RED, GREEN, BLUE, WHITE = (200, 30, 30), (30, 200, 30), (30, 30, 200), (235, 235, 235)


def facts_of(path):
    with path.open("rb") as file:
        return _FACTS.validate_python(probe.inspect(Job(inputs=(file,))))


def conformed(path, tmp_path, width, height, fps=30, fit="blur", facts=None):
    facts = facts or facts_of(path)
    result = tmp_path / f"{path.stem}-{width}x{height}-{fps}-{fit}.mp4".replace("/", "_")
    with path.open("rb") as file, result.open("w+b") as output:
        conform.encode(
            Job(inputs=(file,), outputs=(output,)),
            width=width,
            height=height,
            fps=str(Fraction(fps)),
            fit=fit,
            rotation=facts.video.rotation,
            pixel_aspect=str(facts.video.pixel_aspect),
            duration=str(facts.video.duration),
            threads=1,
        )
    return result


def pictures(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def quarters(size, corners=(RED, GREEN, BLUE, WHITE)):
    """Red | green over blue | white."""
    width, height = size
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2], picture[: height // 2, width // 2 :] = corners[0], corners[1]
    picture[height // 2 :, : width // 2], picture[height // 2 :, width // 2 :] = corners[2], corners[3]
    return picture


def make_video(path, picture, *, codec="libx264", pix_fmt="yuv420p", frames=6, rate=30, aspect=None, **context):
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = picture.shape[1], picture.shape[0], pix_fmt
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        for _ in range(frames):
            sink.mux(stream.encode(VideoFrame.from_ndarray(picture, format="rgb24")))
        sink.mux(stream.encode(None))
    return path


def corner_colours(picture):
    height, width = picture.shape[:2]
    spots = [
        (height // 4, width // 4),
        (height // 4, -width // 4),
        (-height // 4, width // 4),
        (-height // 4, -width // 4),
    ]
    return [tuple(int(v) for v in picture[y, x]) for y, x in spots]


def close(found, wanted, tolerance=22):
    return all(abs(a - b) <= tolerance for f, w in zip(found, wanted, strict=True) for a, b in zip(f, w, strict=True))


def turned(facts, rotation):
    return replace(facts, video=replace(facts.video, rotation=rotation))


@pytest.mark.parametrize(
    ("rotation", "corners"),
    [
        (0, (RED, GREEN, BLUE, WHITE)),
        (90, (BLUE, RED, WHITE, GREEN)),
        (180, (WHITE, BLUE, GREEN, RED)),
        (270, (GREEN, WHITE, RED, BLUE)),
    ],
)
def test_a_turned_picture_stands_upright(tmp_path, rotation, corners):
    path = make_video(tmp_path / "quarters.mp4", quarters((128, 64)))
    size = (128, 64) if rotation % 180 == 0 else (64, 128)
    result = conformed(path, tmp_path, *size, facts=turned(facts_of(path), rotation))
    assert close(corner_colours(pictures(result)[0]), corners)


@pytest.mark.parametrize("fit", ["pad", "crop", "blur"])
def test_a_circle_stays_a_circle(tmp_path, fit):
    width, height = 192, 96
    y, x = np.mgrid[0:height, 0:width]
    picture = np.full((height, width, 3), 20, np.uint8)
    picture[(x - width / 2) ** 2 + (y - height / 2) ** 2 < 30**2] = 235
    result = conformed(make_video(tmp_path / "circle.mp4", picture), tmp_path, 96, 160, fit=fit)
    bright = pictures(result)[0].mean(axis=2) > 190
    wide, high = np.ptp(np.flatnonzero(bright.any(axis=0))), np.ptp(np.flatnonzero(bright.any(axis=1)))
    assert abs(int(wide) - int(high)) <= 3


def test_pad_is_black_and_blur_is_not(tmp_path):
    path = make_video(tmp_path / "wide.mp4", np.full((64, 128, 3), 180, np.uint8))
    padded = pictures(conformed(path, tmp_path, 64, 128, fit="pad"))[0]
    blurred = pictures(conformed(path, tmp_path, 64, 128, fit="blur"))[0]
    assert padded[4].max() < 10
    assert abs(int(blurred[4].mean()) - 180) < 12


def test_pixels_that_are_not_square_are_widened(tmp_path):
    path = make_video(tmp_path / "anamorphic.mp4", quarters((96, 96)), aspect=Fraction(2))
    facts = facts_of(path)
    assert facts.video.shown_size == (192, 96)
    assert close(corner_colours(pictures(conformed(path, tmp_path, 192, 96))[0]), (RED, GREEN, BLUE, WHITE))


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [
        ("libx264", "yuv444p", "mp4"),
        ("libx264", "yuv420p10le", "mkv"),
        ("libx264", "yuvj420p", "mov"),
        ("mpeg4", "yuv420p", "avi"),
        ("mjpeg", "yuvj422p", "mov"),
        ("libvpx-vp9", "yuv420p", "webm"),
        ("mpeg2video", "yuv420p", "ts"),
    ],
)
def test_any_codec_and_pixel_format_keeps_its_colours(tmp_path, codec, pix_fmt, suffix):
    path = make_video(tmp_path / f"clip.{suffix}", quarters((160, 96)), codec=codec, pix_fmt=pix_fmt)
    result = conformed(path, tmp_path, 160, 96)
    facts = facts_of(result)
    assert (facts.video.pixel_format, facts.video.codec) == ("yuv420p", "h264")
    assert close(corner_colours(pictures(result)[2]), (RED, GREEN, BLUE, WHITE), tolerance=30)


def test_full_range_and_sd_colours_become_bt709(tmp_path):
    path = make_video(tmp_path / "sd.mov", quarters((160, 96)), codec="mjpeg", pix_fmt="yuvj420p")
    facts = facts_of(conformed(path, tmp_path, 160, 96))
    assert str(facts.video.colour) == "1/1/1"


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_is_not_washed_out(tmp_path, transfer):
    grey = np.full((64, 64, 3), 128, np.uint8)
    grey[:, 32:] = 60
    path = make_video(
        tmp_path / "hdr.mp4", grey, pix_fmt="yuv420p10le", frames=2, color_trc=transfer, color_primaries=9, colorspace=9
    )
    assert facts_of(path).video.colour.hdr
    picture = pictures(conformed(path, tmp_path, 64, 64))[0]
    bright, dark = float(picture[:, 8:24].mean()), float(picture[:, 40:56].mean())
    # Half of the PQ signal is 92 cd/m², about diffuse white's half; half of the HLG signal is a mid grey.
    assert bright > 100
    assert dark < bright / 1.8


@pytest.mark.parametrize("size", [(97, 65), (33, 200), (2, 2), (1, 1)])
def test_odd_and_tiny_sizes_work(tmp_path, size):
    grey = np.full((size[1], size[0], 3), 120, np.uint8)
    path = make_video(tmp_path / "odd.mkv", grey, codec="libvpx-vp9", pix_fmt="yuv444p", frames=2)
    picture = pictures(conformed(path, tmp_path, 64, 128))[0]
    assert picture.shape == (128, 64, 3)
    assert abs(int(picture[64, 32].mean()) - 120) < 15


@pytest.mark.parametrize(
    ("source", "target"),
    [(24, 30), (25, 30), (Fraction(30000, 1001), 30), (60, 30), (30, 60), (15, Fraction(30000, 1001))],
)
def test_frames_keep_their_time_at_another_rate(tmp_path, source, target):
    path = make_clip(tmp_path / "rate.mp4", frames=40, fps=source)
    result = conformed(path, tmp_path, 96, 64, fps=target)
    with av.open(str(result)) as container:
        shown = [number_of(frame) for frame in container.decode(video=0)]
    assert len(shown) == round(Fraction(40) / Fraction(source) * Fraction(target))
    for slot, number in enumerate(shown):
        assert abs(Fraction(slot) / Fraction(target) - Fraction(number) / Fraction(source)) <= max(
            1 / Fraction(source), 1 / Fraction(target)
        )


def test_halving_the_rate_shows_every_other_frame(tmp_path):
    path = make_clip(tmp_path / "rate.mp4", frames=40, fps=60)
    with av.open(str(conformed(path, tmp_path, 96, 64, fps=30))) as container:
        assert [number_of(frame) for frame in container.decode(video=0)] == list(range(0, 40, 2))


def test_segments_of_one_format_share_their_parameter_sets_and_start_with_an_idr(tmp_path):
    sources = [
        make_clip(tmp_path / "a.mp4", frames=10, fps=25),
        make_clip(tmp_path / "b.mp4", frames=70, fps=60, size=(64, 96)),
        make_video(tmp_path / "c.avi", quarters((160, 96)), codec="mpeg4", frames=2),
    ]
    segments = [read_segment(conformed(path, tmp_path, 96, 64)) for path in sources]
    blank = tmp_path / "blank.mp4"
    with blank.open("w+b") as output:
        conform.encode_blank(Job(outputs=(output,)), width=96, height=64, fps="30")
    assert {segment.parameter_sets for segment in segments} == {read_segment(blank).parameter_sets}
    for path in tmp_path.glob("*-96x64-*.mp4"):
        facts = facts_of(path)
        assert facts.copy is not None
        assert facts.copy.obstacles == ()
        assert facts.copy.frame_rate == 30


def test_a_file_without_pictures_is_refused(tmp_path):
    path = tmp_path / "tone.wav"
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("pcm_s16le", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 48000
        sink.mux(stream.encode(frame))
    with path.open("rb") as file, pytest.raises(ConformError) as caught:
        conform.encode(
            Job(inputs=(file,), outputs=(io.BytesIO(),)),
            width=64, height=64, fps="30", fit="pad", rotation=0, pixel_aspect="1", duration="1", threads=1,
        )  # fmt: skip
    assert caught.value.code == "no_video"


class Stamp:
    """Stands for a decoded frame where only its time matters."""

    def __init__(self, pts: int) -> None:
        self.pts, self.time_base = pts, Fraction(1, 1000)


@given(
    st.lists(st.integers(0, 400), min_size=1, max_size=40),
    st.sampled_from([Fraction(24), Fraction(30000, 1001), Fraction(60)]),
    st.integers(1, 200),
)
def test_pacing_fills_every_slot_once_and_in_order(steps, fps, total):
    times, now = [], 0
    for step in steps:
        times.append(now)
        now += step
    shown = list(conform.paced(iter([Stamp(time) for time in times]), fps, total))
    assert [slot for _, first, stop in shown for slot in range(first, stop)] == list(range(total))
    for frame, first, _ in shown[1:]:
        assert first == floor(Fraction(frame.pts - times[0], 1000) * fps + Fraction(1, 2))


@given(
    st.integers(16, 5000),
    st.integers(16, 5000),
    st.sampled_from([(1080, 1920), (1080, 1080), (1920, 1080), (64, 4096)]),
    st.sampled_from(["pad", "crop", "blur"]),
)
def test_layout_never_stretches(width, height, frame, fit):
    place = conform.layout((width, height), Format(*frame, Fraction(30)), fit)
    assert place.width % 2 == place.height % 2 == 0
    if fit == "crop":
        assert place.width >= frame[0] - 2
        assert place.height >= frame[1] - 2
    else:
        assert place.width <= frame[0]
        assert place.height <= frame[1]
    wide, high = Fraction(frame[0], width), Fraction(frame[1], height)
    scale = max(wide, high) if fit == "crop" else min(wide, high)
    assert abs(place.width - max(2, width * scale)) <= 3
    assert abs(place.height - max(2, height * scale)) <= 3


def test_wide_gamut_colours_keep_their_saturation(tmp_path):
    red = np.zeros((64, 64, 3), np.uint8)
    red[:] = (180, 60, 50)
    plain = make_video(tmp_path / "709.mp4", red, frames=2)
    wide = make_video(tmp_path / "p3.mp4", red, frames=2, color_primaries=12, color_trc=1, colorspace=1)
    narrow, converted = (pictures(conformed(path, tmp_path, 64, 64))[0][32, 32].astype(int) for path in (plain, wide))
    # The same numbers mean a stronger red in Display P3 than in BT.709.
    assert converted[0] - converted[1] > narrow[0] - narrow[1] + 8


def test_work_done_ahead_keeps_its_order_and_its_error():
    def items():
        yield from range(20)
        raise ValueError("the end")

    taken = []
    with pytest.raises(ValueError, match="the end"):
        for item in conform.ahead(items()):
            taken.append(item)  # noqa: PERF402 - what came before the error counts
    assert taken == list(range(20))
    assert list(conform.ahead(iter(()))) == []
