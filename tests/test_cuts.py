"""A clip is one text, whatever is wished of it, and the facts of a part follow from those of the whole."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosscut.cuts import PART, Cut, clip_key, cut_of, part_of, too_short
from crosscut.media import NO_TIME, CopyFacts, Seconds, differences
from test_media import CLIP, TARGET, VIDEO

LINK = "https://example.com/a.mp4?sig=1"

moments = st.fractions(0, 86_400, max_denominator=10**9).map(Seconds)
words = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
cuts = st.builds(
    Cut,
    st.sampled_from([LINK, "a b.mp4", "source:" + "a" * 64, "{}", 'a","b']),
    st.just(NO_TIME) | moments,
    st.none() | moments,
    st.just(1.0) | st.floats(0, 4),
    st.none() | words,
)


@given(cuts)
def test_a_key_says_all_that_is_wished(cut):
    assert cut_of(clip_key(cut)) == cut


@given(cuts, cuts)
def test_clips_of_which_the_same_is_wished_have_one_key(one, other):
    assert (clip_key(one) == clip_key(other)) == (one == other)


def test_the_key_of_a_whole_clip_is_its_link():
    assert clip_key(Cut(LINK)) == LINK
    assert cut_of(LINK) == Cut(LINK)


def test_a_volume_is_a_gain():
    assert Cut(LINK).gain == 0
    assert Cut(LINK, volume=0.5).gain == pytest.approx(-6.02, abs=0.01)
    assert Cut(LINK, volume=0).gain is None


@given(cuts)
def test_a_part_lies_within_its_source(cut):
    part, whole = part_of(CLIP, cut).video, VIDEO.duration
    begin, end = min(cut.start, whole), min(whole if cut.end is None else cut.end, whole)
    assert part.duration == max(end - begin, 0)
    assert part.frames == round(part.duration * 30)
    assert (too_short(CLIP, cut) is None) == (cut.start < whole)


def test_a_part_is_encoded_and_a_cut_that_leaves_nothing_out_is_not():
    cut = Cut(LINK, Seconds(Fraction(1)), Seconds(Fraction(5, 2)))
    part = part_of(CLIP, cut)
    assert (part.video.duration, part.video.frames) == (Fraction(3, 2), 45)
    assert differences(part, TARGET) == (PART,)
    for whole in (Cut(LINK), Cut(LINK, end=VIDEO.duration), Cut(LINK, end=Seconds(Fraction(99)), volume=2, label="x")):
        assert part_of(CLIP, whole) is CLIP


def test_what_else_is_known_of_a_source_holds_for_its_parts():
    copy = CopyFacts("0164", Fraction(30), ("odd",))
    source, cut = replace(CLIP, audio="aac", copy=copy), Cut(LINK, Seconds(Fraction(1)))
    part = part_of(source, cut)
    assert part.copy == replace(copy, obstacles=("odd", PART))
    assert replace(part, video=VIDEO, copy=copy) == source
    assert part_of(replace(CLIP, copy=None), cut).copy is None
    sound = replace(CLIP, video=None)
    assert part_of(sound, cut) is sound
    assert too_short(sound, cut) is None


def test_a_start_behind_the_end_is_told_with_both():
    assert too_short(CLIP, Cut(LINK, VIDEO.duration)) is not None
    assert too_short(CLIP, Cut(LINK, Seconds(Fraction(7, 2)))) == (
        "it is 3.0 s long and its start is at 3.5 s: send a smaller start"
    )
