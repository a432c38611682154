"""The envelope under a voice-over, by rules that hold for any voice."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosscut.ducking import ATTACK, CELL, HOLD, PAUSE, RISE, SOFT, Ducking, Speech, powers, talking, together
from crosscut.loudness import Signal, ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

RATE = 48_000

RUNS = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 150)), max_size=5)
"""Cells of silence, then of speech."""
DEPTHS = st.floats(0, 60)
STARTS = st.integers(-RATE, 3 * RATE)


def cells(runs: list[tuple[int, int]]) -> NDArray[np.bool_]:
    return np.array([said for quiet, loud in runs for said in [False] * quiet + [True] * loud] + [False] * 5)


def words(*runs: tuple[float, float], level: float = 0.1) -> Signal:
    """Mono noise: seconds of silence, then of sound."""
    draw = np.random.default_rng(9)
    parts = [
        part
        for quiet, loud in runs
        for part in (np.zeros(round(quiet * RATE)), level * draw.standard_normal(round(loud * RATE)))
    ]
    return np.concatenate(parts)[None, :].astype(np.float32)


def heard(signal: Signal) -> list[tuple[float, float]]:
    """From when to when there is speech, in seconds."""
    found, place = [], 0
    for said, run in groupby(talking(powers(signal)).tolist()):
        length = len(list(run))
        if said:
            found.append((place * CELL / RATE, (place + length) * CELL / RATE))
        place += length
    return found


@settings(deadline=None, max_examples=60)
@given(RUNS, DEPTHS, STARTS)
def test_music_is_never_louder_than_alone_nor_lower_than_under_speech(
    runs: list[tuple[int, int]], depth: float, start: int
) -> None:
    said = cells(runs)
    gain = Ducking(Speech(start, said), depth).gain(start - RATE, start + len(said) * CELL + 10 * RATE)
    assert gain.max() <= 0
    assert gain.min() >= -depth - 1e-9
    assert gain[0] == 0
    assert gain[-1] == 0


@settings(deadline=None, max_examples=60)
@given(RUNS, DEPTHS, STARTS)
def test_music_is_all_the_way_down_under_every_word(runs: list[tuple[int, int]], depth: float, start: int) -> None:
    said = cells(runs)
    gain = Ducking(Speech(start, said), depth).gain(start, start + len(said) * CELL)
    assert np.abs(gain[np.repeat(said, CELL)] + depth).max(initial=0) < 1e-9


@settings(deadline=None, max_examples=60)
@given(RUNS, DEPTHS, STARTS)
def test_music_never_rises_faster_than_the_slope_and_only_falls_before_a_word(
    runs: list[tuple[int, int]], depth: float, start: int
) -> None:
    said = cells(runs)
    change = (
        np.diff(Ducking(Speech(start, said), depth).gain(start - RATE, start + len(said) * CELL + 10 * RATE)) * RATE
    )
    assert change.max() <= RISE * (1 + 1e-6)
    assert change.min() >= -depth / ((ATTACK - SOFT) * CELL / RATE)
    falls = np.flatnonzero(change < -1e-6) - RATE
    words = np.flatnonzero(said) * CELL
    ahead = words[np.minimum(np.searchsorted(words, falls), len(words) - 1)] - falls if len(words) else falls
    assert ahead.min(initial=0) >= 0
    assert ahead.max(initial=0) <= ATTACK * CELL


@settings(deadline=None, max_examples=30)
@given(RUNS, DEPTHS, st.lists(st.integers(0, 5 * RATE), min_size=1, max_size=4))
def test_parts_are_parts_of_the_same(runs: list[tuple[int, int]], depth: float, cuts: list[int]) -> None:
    ducked = Ducking(Speech(321, cells(runs)), depth)
    places = sorted({0, *cuts, 6 * RATE})
    parts = [ducked.gain(start, stop) for start, stop in pairwise(places)]
    assert np.array_equal(np.concatenate(parts), ducked.gain(0, 6 * RATE))


def test_music_comes_back_at_its_slope_once_the_last_word_is_over() -> None:
    gain = Ducking(Speech(0, cells([(50, 100)])), 14).gain(0, 5 * RATE)
    over = round(1.5 * RATE)
    assert gain[over + HOLD * CELL - CELL] == pytest.approx(-14)
    half = over + HOLD * CELL + round(7 / RISE * RATE)
    assert gain[half] == pytest.approx(-7, abs=0.3)
    assert gain[over + (HOLD + SOFT) * CELL + round(14 / RISE * RATE)] == 0


def test_without_a_word_or_a_distance_nothing_is_changed() -> None:
    assert not Ducking(Speech(0, cells([])), 14).gain(0, RATE).any()
    assert not Ducking(Speech(0, cells([(0, 100)])), 0).gain(0, RATE).any()


@pytest.mark.parametrize("level", [ratio(-46), ratio(-20), ratio(-6)])
def test_words_are_found_at_any_level(level: float) -> None:
    found = heard(words((1.5, 1), (2, 0.5), (0, 0.5), level=level))
    assert [edge for word in found for edge in word] == pytest.approx([1.5, 2.5, 4.5, 5.5], abs=0.04)


def test_short_pauses_and_the_breath_before_the_first_word_belong_to_the_speech() -> None:
    pause = PAUSE * CELL / RATE
    assert len(heard(words((0.5, 1), (pause - 0.1, 1)))) == 1
    assert heard(words((0.5, 1)))[0][0] == 0
    assert len(heard(words((0.5, 1), (pause + 0.1, 1)))) == 2


def test_the_noise_of_a_quiet_room_is_a_pause() -> None:
    room = 0.1 * ratio(-30) * np.random.default_rng(4).standard_normal((1, 6 * RATE))
    said = np.pad(words((1.5, 1), (2, 1)), ((0, 0), (0, RATE // 2))) + room.astype(np.float32)
    assert [edge for word in heard(said) for edge in word] == pytest.approx([1.5, 2.5, 4.5, 5.5], abs=0.04)


@pytest.mark.parametrize("samples", [0, 1, CELL, RATE])
def test_silence_is_no_speech(samples: int) -> None:
    found = talking(powers(np.full((1, samples), 1e-5, np.float32)))
    assert len(found) == -(-samples // CELL)
    assert not found.any()


def test_a_word_in_a_long_silence_is_heard_as_one() -> None:
    assert heard(words((30, 0.3)))[0] == pytest.approx((30, 30.3), abs=0.04)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(STARTS, RUNS), min_size=1, max_size=3))
def test_several_voices_are_heard_where_each_of_them_is(spoken: list[tuple[int, list[tuple[int, int]]]]) -> None:
    speeches = [Speech(start, cells(runs)) for start, runs in spoken]
    both = together(speeches)
    for each in speeches:
        gain = Ducking(both, 12).gain(each.start, each.start + len(each.cells) * CELL)
        assert np.abs(gain[np.repeat(each.cells, CELL)] + 12).max(initial=0) < 1e-9
    quiet = np.flatnonzero(~both.cells)
    heard = [
        each.within(both.start + cell * CELL, both.start + (cell + 1) * CELL) for each in speeches for cell in quiet
    ]
    assert not any(each.cells.any() for each in heard)


def test_one_voice_alone_is_what_it_was() -> None:
    speech = Speech(321, talking(powers(words((1.5, 1), (2, 0.5)))))
    alone = together([speech])
    assert alone.start == 321
    assert np.array_equal(alone.cells, speech.cells)


def test_a_short_pause_between_two_voices_is_one_within_a_sentence() -> None:
    first, second = Speech(0, np.ones(100, np.bool_)), Speech(150 * CELL + 7, np.ones(100, np.bool_))
    assert together([first, second]).cells.all()
    late = Speech((200 + PAUSE) * CELL, np.ones(100, np.bool_))
    assert not together([first, late]).cells[100 : 200 + PAUSE].any()


@settings(deadline=None, max_examples=60)
@given(STARTS, RUNS, STARTS, st.integers(0, 3 * RATE))
def test_a_part_of_speech_is_what_is_said_then(
    start: int, runs: list[tuple[int, int]], first: int, length: int
) -> None:
    speech = Speech(start, cells(runs))
    part = speech.within(first, first + length)
    whole = np.repeat(speech.cells, CELL)
    there = np.flatnonzero(whole) + start
    found = np.flatnonzero(np.repeat(part.cells, CELL)) + part.start
    asked = there[(there >= first) & (there < first + length)]
    assert set(asked) <= set(found) <= set(there)
    assert len(found) < len(asked) + 2 * CELL
