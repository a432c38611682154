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
from crosscut import conform, decode, probe, seeking
from crosscut.burning import STYLES, BurnCue, BurnWord, looks, safe_area, to_json
from crosscut.errors import ConformError
from crosscut.lettering import DESIGNS, Lettering
from crosscut.media import Format
from crosscut.overlay import captioned
from crosscut.probe import _FACTS
from crosscut.sandbox import Job, Sandbox
from crosscut.splice import read_segment

RED, GREEN, BLUE, WHITE = (200, 30, 30), (30, 200, 30), (30, 30, 200), (235, 235, 235)


def facts_of(path):
    with path.open("rb") as file:
        return _FACTS.validate_python(probe.inspect(Job(inputs=(file,))))


def conformed(path, tmp_path, width, height, fps=30, fit="blur", facts=None, name="", **options):
    facts = facts or facts_of(path)
    result = tmp_path / f"{path.stem}-{width}x{height}-{fps}-{fit}{name}.mp4".replace("/", "_")
    with path.open("rb") as file, result.open("w+b") as output:
        conform.encode(
            Job(inputs=(file,), outputs=(output,)),
            width=width,
            height=height,
            fps=str(Fraction(fps)),
            fit=fit,
            rotation=facts.video.rotation,
            pixel_aspect=str(facts.video.pixel_aspect),
            **{"duration": str(facts.video.duration), "threads": 1} | options,
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


# Captions


def planes(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]).astype(int)


def differing(one, other, tolerance=12):
    """The frames, and the rows and columns of the luma, in which two segments differ beyond what encoding does."""
    height = one.shape[1] * 2 // 3
    changed = np.abs(one[:, :height] - other[:, :height]) > tolerance
    return np.flatnonzero(changed.any(axis=(1, 2))), np.argwhere(changed.any(axis=0))


CUES = (
    BurnCue(200, 700, ((BurnWord("one", True, 200, 400), BurnWord("two", True, 400, 700)),)),
    BurnCue(900, 1500, ((BurnWord("three", True, 900, 1500),),)),
)
SIZE = (180, 320)


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    """Two seconds of grey: whatever changes is a caption."""
    grey = np.full((320, 180, 3), 120, np.uint8)
    return make_video(tmp_path_factory.mktemp("captions") / "still.mp4", grey, frames=60)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("style", STYLES)
def test_captions_are_seen_when_they_should_be_and_in_the_safe_area(still, tmp_path, style, threads):
    captions = {"style": style, "cues": to_json(CUES)}
    plain = conformed(still, tmp_path, *SIZE)
    burnt = conformed(still, tmp_path, *SIZE, name=style, captions=captions, threads=threads)
    one, other = planes(plain), planes(burnt)
    assert one.shape == other.shape == (60, 480, 180)
    frames, spots = differing(one, other)
    assert list(frames) == [*range(6, 21), *range(27, 45)]
    area = safe_area(*SIZE)
    (top, left), (bottom, right) = spots.min(axis=0), spots.max(axis=0)
    # The encoder may smear by a pixel or two.
    assert area.left - 2 <= left <= right < area.right + 2
    assert area.top - 2 <= top <= bottom < area.bottom + 2
    assert read_segment(burnt).parameter_sets == read_segment(plain).parameter_sets
    assert facts_of(burnt).copy.obstacles == ()


def test_the_light_goes_from_word_to_word(still, tmp_path):
    burnt = planes(conformed(still, tmp_path, *SIZE, captions={"style": "plain", "cues": to_json(CUES)}))
    # The accent is yellow: little blue, so a low Cb, left of the middle first and then right of it.
    blue = burnt[:, 320:400].reshape(60, 160, 90)
    left, right = blue[:, :, :45].min(axis=(1, 2)), blue[:, :, 45:].min(axis=(1, 2))
    assert list(np.flatnonzero(left < 90)) == [*range(6, 12), *range(27, 45)]
    assert list(np.flatnonzero(right < 90)) == [*range(12, 21), *range(27, 45)]


@pytest.mark.parametrize("style", STYLES)
def test_colours_are_those_of_the_picture_that_was_drawn(tmp_path, style):
    """Decoded with BT.709: the spoken word, and the letters of the other."""
    path = make_video(tmp_path / "still.mp4", np.full((1280, 720, 3), 120, np.uint8), frames=3)
    cue = BurnCue(0, 100, ((BurnWord("MM", True, 0, 100), BurnWord("MM", True, 100, 100)),))
    picture = pictures(conformed(path, tmp_path, 720, 1280, captions={"style": style, "cues": to_json([cue])}))[1]
    design = DESIGNS[style]
    for colour in (design.lamp.colour if design.lamp else design.accent, (255, 255, 255)):
        near = np.abs(picture.astype(int) - colour).max(axis=2)
        assert (near <= 6).sum() > 100, near.min()


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("size", [(96, 160), (160, 96), (180, 320)])
@pytest.mark.parametrize("fit", ["pad", "crop", "blur", None])
def test_moving_pictures_are_what_they_were_but_for_the_caption(tmp_path, fit, size, rotation):
    """Without a fit they come straight from the decoder, which needs them again for the next ones."""
    if fit is None and (size, rotation) != ((96, 160), 0):
        return
    path = make_clip(tmp_path / "clip.mp4", frames=24, size=(96, 160), fps=30)
    cue = BurnCue(300, 600, ((BurnWord("xx", True, 400, 500),),))
    picture = Lettering(*size, "box").picture(cue, None)
    covered = np.zeros((size[1], size[0]), bool)
    covered[picture.top :, picture.left :][: picture.pixels.shape[1], : picture.pixels.shape[2]] = True

    def painted(cues):
        with path.open("rb") as file, decode.open_media(file) as source:
            frames = conform.paced(decode.decoded(source, source.streams.video[0]), Fraction(30), 24)
            if fit:
                painter = conform.Painter(Format(*size, Fraction(30)), fit, rotation, Fraction(1))
                frames = ((painter.paint(frame), first, stop) for frame, first, stop in frames)
            drawn = captioned(frames, looks(cues, Fraction(30), 24), Lettering(*size, "box").picture)
            return [(first, stop, frame.to_ndarray(format="yuv420p").astype(int)) for frame, first, stop in drawn]

    plain, burnt = painted(()), painted((cue,))
    assert [entry[:2] for entry in plain] == [entry[:2] for entry in burnt] == [(at, at + 1) for at in range(24)]
    for (at, _, one), (_, _, other) in zip(plain, burnt, strict=True):
        changed = one[: size[1]] != other[: size[1]]
        assert changed.any() == (9 <= at < 18)
        assert not (changed & ~covered).any()


def test_a_picture_that_stays_is_drawn_anew_where_the_caption_changes(tmp_path):
    path = make_video(tmp_path / "slow.mp4", np.full((320, 180, 3), 120, np.uint8), frames=2, rate=1)
    cues = [BurnCue(100, 600, ((BurnWord("ab", True, 200, 400),),))]
    plain = planes(conformed(path, tmp_path, *SIZE))
    burnt = planes(conformed(path, tmp_path, *SIZE, name="burnt", captions={"style": "pop", "cues": to_json(cues)}))
    assert list(differing(plain, burnt)[0]) == list(range(3, 18))
    steps = np.flatnonzero(np.abs(np.diff(burnt, axis=0)).max(axis=(1, 2)) > 30) + 1
    assert list(steps) == [3, 6, 12, 18]


def test_a_confined_child_has_the_fonts(still, tmp_path):
    words = ("Hello", "مرحبا", "שלום", "नमस्ते", "🔥👩🏽‍🚀", "ไทย")
    cue = BurnCue(0, 2000, tuple((BurnWord(word, True, 0, 2000),) for word in words))
    facts = facts_of(still)
    with Sandbox(["crosscut.conform"]) as sandbox:
        answer = sandbox.run(
            "crosscut.conform:encode",
            inputs=[still],
            outputs=[tmp_path / "out.mp4"],
            arguments={
                "width": 180, "height": 320, "fps": "30", "fit": "pad", "rotation": 0, "pixel_aspect": "1",
                "duration": str(facts.video.duration), "threads": 1, "start": "0", "hold": 3,
                "captions": {"style": "pop", "cues": to_json([cue])},
            },
        )  # fmt: skip
    assert answer == {"frames": 63}
    assert planes(tmp_path / "out.mp4")[30].max() > 200


# A part of a clip, and its last picture held


def numbers(path):
    with av.open(str(path)) as container:
        return [number_of(frame) for frame in container.decode(video=0)]


def test_a_segment_holds_its_last_picture_with_captions_running_on(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", frames=20, fps=30, size=(96, 160))
    captions = {"style": "box", "cues": to_json([BurnCue(800, 1000, ((BurnWord("ab", True, 800, 1000),),))])}
    held = conformed(path, tmp_path, 96, 160, hold=15)
    assert numbers(held) == [*range(20), *[19] * 15]
    burnt = conformed(path, tmp_path, 96, 160, name="burnt", hold=15, captions=captions)
    assert list(differing(planes(held), planes(burnt))[0]) == list(range(24, 30))


@pytest.mark.parametrize("fps", [30, 24, Fraction(30000, 1001)])
@pytest.mark.parametrize("first", [1, 7, 30, 69])
def test_a_segment_that_starts_later_goes_on_as_the_whole_does(tmp_path, fps, first):
    path = make_clip(tmp_path / "clip.mp4", frames=70, fps=25, size=(96, 64))
    start = first / Fraction(fps)
    whole = numbers(conformed(path, tmp_path, 96, 64, fps=fps))
    if first >= len(whole):
        return
    rest = conformed(
        path, tmp_path, 96, 64, fps=fps, name=str(first), start=str(start), duration=str(Fraction(70, 25) - start)
    )
    assert numbers(rest) == whole[first:]
    some = conformed(path, tmp_path, 96, 64, fps=fps, name="some", start=str(start), duration=str(1 / Fraction(fps)))
    assert numbers(some) == whole[first : first + 1]


def test_a_start_between_frames_shows_what_is_on_screen_then(tmp_path):
    path = make_clip(tmp_path / "slow.mp4", frames=10, fps=5, size=(96, 64))
    part = conformed(path, tmp_path, 96, 64, start="47/100", duration="1/2")
    assert numbers(part) == [2, 2, 2, 2, *[3] * 6, *[4] * 5]


def fragmented(path, target):
    """Its index covers one fragment at a time: a seek lands behind."""
    return remuxed(path, target, movflags="frag_keyframe+empty_moov+default_base_moof")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "fragmented.mp4"])
def test_a_late_start_is_sought_where_the_container_knows_its_key_frames(tmp_path, suffix):
    clip = make_clip(tmp_path / "long.mp4", frames=300, fps=30, size=(96, 64), options={"g": "48"})
    copy = fragmented if suffix.startswith("fragmented") else remuxed
    path = copy(clip, tmp_path / f"copy.{suffix}")
    with path.open("rb") as file, seeking.frames_from(file, Fraction(1901, 300), 1) as frames:
        decoded = sum(1 for _ in frames)
    assert decoded < 170 if suffix in ("mp4", "mkv") else decoded == 300
    part = conformed(path, tmp_path, 96, 64, start="1901/300", duration="2")
    assert numbers(part) == [number % 70 for number in range(190, 250)]


def test_a_seek_that_lands_behind_is_not_trusted(tmp_path):
    """Frames of an open GOP that are shown before its key frame need the GOP before it."""
    path = make_clip(
        tmp_path / "open.mp4",
        frames=240,
        fps=30,
        size=(96, 64),
        options={"x264-params": "open-gop=1:bframes=3:keyint=40"},
    )
    for start in range(90, 170, 7):
        part = conformed(path, tmp_path, 96, 64, start=str(Fraction(start, 30)), duration="1/3")
        assert numbers(part) == [number % 70 for number in range(start, start + 10)]


def test_a_start_behind_the_end_is_refused(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", frames=150, fps=30, size=(96, 64))
    assert numbers(conformed(path, tmp_path, 96, 64, start="1499/300", duration="1/30")) == [149 % 70]
    for start in ("5", "6", "1000"):
        with pytest.raises(ConformError) as caught:
            conformed(path, tmp_path, 96, 64, start=start, duration="1/30")
        assert caught.value.code == "nothing_left"


def remuxed(path, target, **options):
    """The same packets in another container."""
    with av.open(str(path)) as source, av.open(str(target), "w", options=options) as sink:
        stream = source.streams.video[0]
        copy = sink.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                sink.mux(packet)
    return target
