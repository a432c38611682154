"""What keeps a clip from being copied is decided as data."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosscut.media import (
    BT709,
    ClipFacts,
    Colour,
    CopyFacts,
    Format,
    Seconds,
    Target,
    VideoFacts,
    differences,
    shown_size,
    usual_colour,
)

VIDEO = VideoFacts(
    codec="h264",
    width=1080,
    height=1920,
    rotation=0,
    pixel_aspect=Fraction(1),
    pixel_format="yuv420p",
    colour=BT709,
    frame_rate=Fraction(30),
    frames=90,
    duration=Seconds(Fraction(3)),
)
CLIP = ClipFacts("mov,mp4,m4a,3gp,3g2,mj2", VIDEO, None, CopyFacts("0164", Fraction(30)))
TARGET = Target(Format(1080, 1920, Fraction(30)), "0164")


def with_video(**changes):
    return replace(CLIP, video=replace(VIDEO, **changes))


def test_a_clip_like_the_target_is_copied():
    assert differences(CLIP, TARGET) == ()


@pytest.mark.parametrize(
    ("clip", "reason"),
    [
        (replace(CLIP, video=None), "no video"),
        (with_video(rotation=90), "turned by 90°"),
        (with_video(width=720), "size 720×1920 ≠ 1080×1920"),
        (with_video(pixel_aspect=Fraction(4, 3)), "pixel shape 4:3 ≠ 1:1"),
        (with_video(pixel_format="yuv420p10le"), "pixel format yuv420p10le ≠ yuv420p"),
        (with_video(colour=Colour(9, 18, 9)), "colour 9/18/9 ≠ 1/1/1"),
        (with_video(colour=replace(BT709, full_range=True)), "colour 1/1/1 full range ≠ 1/1/1"),
        (replace(CLIP, copy=CopyFacts("0164", Fraction(25))), "frame rate 25 ≠ 30"),
        (replace(CLIP, copy=CopyFacts("0164", Fraction(30), ("edit list",))), "edit list"),
        (replace(CLIP, copy=CopyFacts("0164", Fraction(0), ("uneven frame times",))), "uneven frame times"),
        (replace(CLIP, copy=None, container="matroska,webm"), "h264 in matroska,webm, not H.264 in MP4"),
        (replace(CLIP, copy=None), "its H.264 is not in a plain avc1 track"),
    ],
)
@pytest.mark.parametrize("join", ["safe", "wide"])
def test_each_difference_is_named_whatever_the_join(clip, reason, join):
    assert differences(clip, TARGET, join) == (reason,)


def test_another_encoder_matters_only_to_a_safe_join():
    other = replace(CLIP, copy=CopyFacts("0142", Fraction(30)))
    assert differences(other, TARGET) == ("another encoder (its parameter sets differ)",)
    assert differences(other, TARGET, "wide") == ()


def test_untagged_colour_is_taken_as_players_take_it():
    assert usual_colour(Colour(), 1080) == BT709
    assert usual_colour(Colour(), 480) == Colour(6, 6, 6)
    assert usual_colour(Colour(9, 16, 9), 2160) == Colour(9, 16, 9)
    assert usual_colour(Colour(1, 1, 5), 1080) == Colour(1, 1, 6)


@given(
    st.integers(1, 9000),
    st.integers(1, 9000),
    st.fractions(Fraction(1, 8), 8, max_denominator=99),
    st.sampled_from([0, 90, 180, 270]),
)
def test_the_shown_size_keeps_the_shape_and_loses_nothing(width, height, aspect, rotation):
    shown = shown_size(width, height, aspect, rotation)
    upright = shown if rotation % 180 == 0 else shown[::-1]
    assert upright[0] >= width
    assert upright[1] >= height
    assert abs(Fraction(upright[0], upright[1]) - Fraction(width, height) * aspect) <= Fraction(
        width, height
    ) * aspect * (Fraction(1, upright[0]) + Fraction(1, upright[1]))


def test_formats_have_short_names():
    assert Format(1080, 1920, Fraction(30)).name == "9x16"
    assert Format(720, 1280, Fraction(30)).name == "9x16"
    assert Format(1000, 600, Fraction(30)).name == "1000x600"
