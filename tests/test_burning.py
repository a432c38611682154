"""Captions that are burned in: what is shown at once, when each word lights up, and the way to the child and back."""

from __future__ import annotations

import json
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosscut.burning import (
    LONGEST,
    STYLES,
    Area,
    BurnCue,
    BurnWord,
    burnt_columns,
    burnt_cues,
    from_json,
    looks,
    safe_area,
    seen,
    to_json,
)
from crosscut.captions import FLICKER, MOST, cues_of
from crosscut.voices import Word
from test_captions import display_width, essence, moments, spoken, word_lists

TEXT = "Tired of dull videos? Crosscut makes hundreds of them from a handful of clips, in minutes."


def text_of(cue):
    return "\n".join(
        "".join(f" {word.text}" if word.spaced else word.text for word in line).strip() for line in cue.lines
    )


# What is shown at once


def test_few_words_are_shown_at_once():
    assert [text_of(cue) for cue in burnt_cues(spoken(TEXT), 19)] == [
        "Tired of\ndull videos?",
        "Crosscut makes\nhundreds of them",
        "from a handful of\nclips, in minutes.",
    ]


def test_a_word_too_long_for_a_line_has_one_to_itself_and_is_not_cut():
    long = "Donaudampfschifffahrtsgesellschaft"[:LONGEST]
    assert [text_of(cue) for cue in burnt_cues(spoken(f"Die {long} kommt."), 14)] == ["Die", long, "kommt."]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [(1080, 1920), (1920, 1080), (1080, 1080), (90, 160), (64, 4096), (4096, 64)])
def test_a_line_has_room_for_words(style, size):
    assert 12 <= burnt_columns(style, *size) <= 42


def test_an_upright_picture_keeps_clear_of_the_buttons_of_phones():
    assert safe_area(1080, 1920) == Area(130, 270, 950, 1248)
    assert safe_area(1920, 1080) == Area(96, 54, 1824, 1026)
    assert safe_area(1080, 1350) == Area(54, 68, 1026, 1282)


@given(st.integers(8, 5000), st.integers(8, 5000))
def test_the_safe_area_is_even_and_inside(width, height):
    area = safe_area(2 * width, 2 * height)
    assert all(edge % 2 == 0 for edge in (area.left, area.top, area.right, area.bottom))
    assert 0 <= area.left < area.right <= 2 * width
    assert 0 <= area.top < area.bottom <= 2 * height


@settings(deadline=None, max_examples=300)
@given(
    words=word_lists,
    columns=st.integers(8, 42),
    speed=st.fractions(1, Fraction(5, 4), max_denominator=20),
    begin=st.fractions(0, 5, max_denominator=100),
)
def test_cues_hold_for_any_words(words, columns, speed, begin):
    cues = burnt_cues(words, columns, speed=speed, begin=begin)
    kept = [word for word in words if essence(word.text)]
    assert essence("".join(map(text_of, cues))) == essence("".join(word.text for word in kept))
    for cue in cues:
        assert 0 < cue.end - cue.start <= MOST
        assert 1 <= len(cue.lines) <= 2
        for line in cue.lines:
            assert line
            assert len(line) == 1 or display_width(text_of(BurnCue(0, 1, (line,)))) <= columns
    assert all(one.end <= other.start for one, other in pairwise(cues))


@given(words=word_lists)
@settings(deadline=None)
def test_wide_lines_are_divided_as_soft_captions_are(words):
    soft, burnt = cues_of(words, 42), burnt_cues(words, 42)
    assert [(cue.start, cue.end, cue.text) for cue in soft] == [(cue.start, cue.end, text_of(cue)) for cue in burnt]


# When a word lights up


def test_each_word_has_its_time_and_hands_over_without_a_blink():
    words = [Word("One", Fraction(0), Fraction(1, 2)), Word("two", Fraction(3, 5), Fraction(1))]
    words += [Word("three", Fraction(7, 5), Fraction(2))]
    (cue,) = burnt_cues(words, 30, speed=Fraction(5, 4), begin=Fraction(1, 3))
    times = [(word.start, word.end) for word in cue.words]
    assert times == [(333, 813), (813, 1133), (1453, 1933)]
    assert 813 - 733 < FLICKER <= 1453 - 1133


def cue(start, end, *words):
    return BurnCue(start, end, (tuple(BurnWord(f"w{number}", True, *times) for number, times in enumerate(words)),))


def test_slots_are_those_nearest_to_each_moment():
    shown = looks([cue(100, 900, (100, 400), (400, 600), (800, 900)), cue(900, 1000, (940, 1000))], Fraction(10), 99)
    assert [(look.first, look.stop, look.word) for look in shown] == [
        (1, 4, 0), (4, 6, 1), (6, 8, None), (8, 9, 2), (9, 10, 0),
    ]  # fmt: skip
    assert looks([cue(0, 1000, (0, 1000))], Fraction(30000, 1001), 12)[0].stop == 12
    assert looks([cue(0, 10, (0, 10))], Fraction(30), 12) == ()


@settings(deadline=None)
@given(
    words=word_lists,
    fps=st.sampled_from([Fraction(24), Fraction(30000, 1001), Fraction(60)]),
    slots=st.integers(1, 900),
)
def test_every_slot_shows_what_is_seen_and_spoken_at_its_time(words, fps, slots):
    cues = burnt_cues(words, 20)
    shown = looks(cues, fps, slots)
    assert all(0 <= look.first < look.stop <= slots for look in shown)
    assert all(one.stop <= other.first for one, other in pairwise(shown))
    half = 1000 / fps / 2
    for look in shown:
        for slot in (look.first, look.stop - 1):
            time = slot * 1000 / fps
            assert look.cue.start - half <= time < look.cue.end + half
            if look.word is not None:
                word = look.cue.words[look.word]
                assert word.start - half <= time < word.end + half


# A part of them, and the way to the child


def test_a_part_is_cut_at_its_borders_and_keeps_the_times_of_words():
    first, second, third = cue(0, 900, (0, 400), (400, 900)), cue(900, 2000, (900, 2000)), cue(2000, 3000, (2000, 3000))
    assert seen([first, second, third], 500, 2000) == (
        cue(0, 400, (-500, -100), (-100, 400)),
        cue(400, 1500, (400, 1500)),
    )
    assert seen([first], 900, 1000) == ()


@settings(deadline=None)
@given(words=word_lists, borders=st.lists(st.integers(0, 70_000), min_size=2, max_size=2).map(sorted))
def test_two_parts_show_what_the_whole_shows(words, borders):
    cues = burnt_cues(words, 20)
    fps = Fraction(25)
    start, end = (border - border % 40 for border in borders)
    whole = {
        slot: (text_of(look.cue), look.word)
        for look in looks(cues, fps, 10_000)
        for slot in range(look.first, look.stop)
    }
    part = {
        slot + start // 40: (text_of(look.cue), look.word)
        for look in looks(seen(cues, start, end), fps, 10_000)
        for slot in range(look.first, look.stop)
    }
    assert part == {slot: what for slot, what in whole.items() if start // 40 <= slot < end // 40}


@settings(deadline=None)
@given(words=word_lists, start=moments)
def test_json_and_back(words, start):
    cues = seen(burnt_cues(words, 20), int(start * 1000), 10**6)
    assert from_json(json.loads(json.dumps(to_json(cues)))) == cues


def test_json_is_short():
    told = json.dumps(to_json([cue(0, 900, (0, 400), (400, 900))]), separators=(",", ":"))
    assert told == '[[0,900,[[["w0",1,0,400],["w1",1,400,900]]]]]'
