"""Facts are read as they are, whatever the header says."""

from __future__ import annotations

from fractions import Fraction

import pytest

from clips import make_clip, make_sound
from crosscut.errors import ProbeError
from crosscut.probe import standard_rate
from test_conform import facts_of, make_video, quarters


def test_a_plain_clip(tmp_path):
    facts = facts_of(make_clip(tmp_path / "clip.mp4", frames=50, fps=25, audio=True))
    assert (facts.video.width, facts.video.height, facts.video.rotation) == (96, 64, 0)
    assert (facts.video.frame_rate, facts.video.frames, facts.video.duration) == (25, 50, 2)
    assert facts.audio == "aac"
    assert facts.copy is not None
    assert facts.copy.obstacles == ()


@pytest.mark.parametrize("rate", ["24000/1001", "25", "30000/1001", "60000/1001"])
def test_rates_stay_exact(tmp_path, rate):
    facts = facts_of(make_clip(tmp_path / "clip.mp4", frames=31, fps=Fraction(rate)))
    assert facts.video.frame_rate == Fraction(rate)
    assert facts.copy.frame_rate == Fraction(rate)
    assert facts.video.duration == 31 / Fraction(rate)


def test_a_container_that_tells_no_duration_is_counted(tmp_path):
    facts = facts_of(make_video(tmp_path / "clip.ts", quarters((64, 64)), codec="mpeg2video", frames=30, rate=25))
    assert facts.video.duration == pytest.approx(30 / 25, abs=0.05)
    assert facts.copy is None


def test_sound_alone_has_no_video(tmp_path):
    facts = facts_of(make_sound(tmp_path / "tone.m4a", 48_000))
    assert facts.video is None
    assert facts.audio == "aac"


def test_a_file_that_was_cut_off_is_refused_with_what_is_there(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", frames=250, fps=25)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3])
    with pytest.raises(ProbeError) as caught:
        facts_of(path)
    assert caught.value.code == "truncated"
    assert "of 10.0 s" in caught.value.public


@pytest.mark.parametrize(
    "body", [b"", b"<!doctype html><title>Not found</title>", b'{"error": 404}', b"#EXTM3U\nhttp://127.0.0.1/a.ts\n"]
)
def test_what_is_no_media_is_refused(tmp_path, body):
    path = tmp_path / "clip.mp4"
    path.write_bytes(body)
    with pytest.raises(ProbeError) as caught:
        facts_of(path)
    assert caught.value.code == "not_media"


def test_rates_near_a_standard_are_that_standard():
    assert standard_rate(Fraction("29.998")) == 30
    assert standard_rate(Fraction("29.9711")) == Fraction(30000, 1001)
    assert standard_rate(Fraction("14.985")) == Fraction("14.985")
