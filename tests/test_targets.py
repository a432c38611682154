"""Formats follow the clips where the request names none."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from crosscut.media import BT709, Colour, CopyFacts, Format
from crosscut.targets import choose_formats, uniform_target
from test_media import CLIP, VIDEO, with_video


def test_the_most_common_size_and_rate_win():
    videos = [VIDEO, VIDEO, replace(VIDEO, width=1920, height=1080, frame_rate=Fraction(25))]
    choice = choose_formats(videos, (), None, None)
    assert choice.formats == (Format(1080, 1920, Fraction(30)),)
    assert choice.reason == "2 of 3 clips are 1080×1920; 2 of 3 clips have 30 fps"


def test_turned_footage_counts_as_it_is_shown():
    choice = choose_formats([replace(VIDEO, width=3840, height=2160, rotation=90)], (), None, None)
    assert choice.formats == (Format(1080, 1920, Fraction(30)),)
    assert "2160×3840, made 1080×1920" in choice.reason


def test_odd_sizes_become_even():
    (frame,) = choose_formats([replace(VIDEO, width=961, height=541)], (), None, None).formats
    assert (frame.width % 2, frame.height % 2) == (0, 0)


def test_a_screen_recording_does_not_decide_the_rate():
    videos = [replace(VIDEO, frame_rate=Fraction(7)), replace(VIDEO, frame_rate=Fraction(30000, 1001))]
    assert choose_formats(videos, (), None, None).formats[0].fps == Fraction(30000, 1001)
    assert choose_formats(videos[:1], (), None, None).formats[0].fps == 30


def test_what_was_asked_for_is_used():
    choice = choose_formats([VIDEO], ((1080, 1080), (1920, 1080)), Fraction(25), None)
    assert choice.formats == (Format(1080, 1080, Fraction(25)), Format(1920, 1080, Fraction(25)))


def test_clips_of_one_encoder_are_their_own_target():
    full = Colour(1, 1, 1, full_range=True)
    clips = [with_video(colour=full), with_video(colour=full)]
    target = uniform_target(clips, "safe", "blur")
    assert target is not None
    assert target.colour == full
    assert target.parameter_sets == "0164"
    assert choose_formats([VIDEO], (), None, target).formats == (target.format,)


def test_an_asked_size_that_all_clips_have_keeps_their_rate():
    slow = replace(with_video(frame_rate=Fraction(15)), copy=CopyFacts("0164", Fraction(15)))
    target = uniform_target([slow], "safe", "blur")
    size = (1080, 1920)
    choice = choose_formats([slow.video], (size,), None, target)
    assert choice.formats == (target.format,)
    assert choice.reason == "sizes as asked, all clips have 15 fps"
    assert {frame.fps for frame in choose_formats([slow.video], ((1080, 1080), size), None, target).formats} == {15}
    assert choose_formats([slow.video], (size,), Fraction(25), target).formats[0].fps == 25
    assert choose_formats([slow.video], ((1080, 1080),), None, target).formats[0].fps == 30


def test_one_clip_that_differs_ends_that():
    other = replace(CLIP, copy=CopyFacts("0142", Fraction(30)))
    assert uniform_target([CLIP, other], "safe", "blur") is None
    assert uniform_target([CLIP, other], "wide", "blur") is not None
    assert uniform_target([CLIP, with_video(colour=replace(BT709, full_range=True))], "wide", "blur") is None
    assert uniform_target([], "safe", "blur") is None
