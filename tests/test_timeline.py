"""Lines are spoken where they belong, one after another, and pictures last until they have ended."""

from __future__ import annotations

from fractions import Fraction
from itertools import groupby, pairwise, product

from hypothesis import given, settings
from hypothesis import strategies as st

from crosscut.media import NO_TIME, Seconds
from crosscut.timeline import BREATH, SPEED_LIMIT, Slot, Utterance, fitted, gaps, placed, quiet, slot_of, spoken_in

rates = st.sampled_from([Fraction(24), Fraction(30), Fraction(30_000, 1001)])
seconds = st.fractions(Fraction(1, 100), 12, max_denominator=48_000).map(Seconds)
frames = st.integers(1, 200)
fades = st.fractions(0, 3, max_denominator=100).map(Seconds)


def sec(value):
    return Seconds(Fraction(value))


def spoken(*spans):
    return [Utterance(number, Fraction(1), sec(start), sec(end)) for number, (start, end) in enumerate(spans)]


@given(seconds, st.fractions(-3, 12, max_denominator=1000), rates, st.booleans())
def test_what_is_fitted_has_room_and_no_more_is_done_than_that_takes(spoken, room, fps, faster):
    hold, speed, handling = fitted(spoken, room, fps, faster=faster)
    assert spoken / speed <= room + hold / fps
    assert hold == 0 or spoken / speed > room + (hold - 1) / fps
    assert 1 <= speed <= (SPEED_LIMIT if faster else 1)
    assert hold == 0 or speed == (SPEED_LIMIT if faster else 1)
    assert (handling is None) == (spoken <= room)
    assert handling is None or handling == ("hold" if hold else "speed")


@given(frames, rates, st.lists(seconds, max_size=4), fades, st.booleans())
def test_the_lines_of_a_slot_follow_each_other_within_it(count, fps, lengths, rest, faster):
    slot = slot_of("c", count, fps, list(enumerate(lengths, 5)), rest, faster=faster)
    assert [each.line for each in slot.said] == list(range(5, 5 + len(lengths)))
    assert all(each.end - each.start == length / each.speed for each, length in zip(slot.said, lengths, strict=True))
    assert all(after.start - before.end == BREATH for before, after in pairwise(slot.said))
    assert len({each.speed for each in slot.said}) <= 1
    if lengths:
        assert slot.said[0].start == 0
        assert slot.said[-1].end + rest <= slot.length / fps
    assert (slot.overflow is None) == (slot.hold == 0 and all(each.speed == 1 for each in slot.said))


def test_a_slot_in_numbers():
    lines = [(0, sec(1)), (3, sec("1.5"))]
    assert slot_of("c", 60, Fraction(30), [], sec(1), faster=True) == Slot("c", 60)
    held = slot_of("c", 60, Fraction(30), lines, sec("0.5"), faster=False)
    assert (held.hold, held.length, held.overflow) == (38, 98, "hold")
    assert held.said == (
        Utterance(0, Fraction(1), NO_TIME, sec(1)),
        Utterance(3, Fraction(1), sec("1.25"), sec("2.75")),
    )
    quick = slot_of("c", 75, Fraction(30), lines, NO_TIME, faster=True)
    assert (quick.hold, quick.said[1].speed, quick.overflow) == (0, Fraction(23, 20), "speed")


@given(st.lists(st.tuples(frames, st.lists(seconds, max_size=2)), max_size=4), rates)
def test_what_is_spoken_in_slots_begins_with_them(made, fps):
    slots = [slot_of("c", count, fps, list(enumerate(lengths)), NO_TIME, faster=False) for count, lengths in made]
    said = list(spoken_in(slots, fps))
    for number, slot in enumerate(slots):
        begin = sum(each.length for each in slots[:number]) / fps
        mine = [said.pop(0) for _ in slot.said]
        assert [each.start - begin for each in mine] == [each.start for each in slot.said]
        assert [each.end - begin for each in mine] == [each.end for each in slot.said]
        assert all(each.end <= begin + slot.length / fps for each in mine)
    assert not said


def test_gaps_are_a_breath_away_from_who_speaks():
    said = spoken((1, 2), (2, 3), (6, 7))
    expected = [(0, "0.75"), ("3.25", "5.75"), ("7.25", 9)]
    assert gaps(said, NO_TIME, sec(9)) == [(sec(start), sec(end)) for start, end in expected]
    assert gaps(said, sec(5), sec(9)) == [(sec(5), sec("5.75")), (sec("7.25"), sec(9))]
    assert gaps(said, sec(8), sec(4)) == [(sec(8), sec(4))]
    assert gaps([], sec(1), sec(4)) == [(sec(1), sec(4))]
    assert gaps(spoken((0, 4)), NO_TIME, sec(4)) == [(sec("4.25"), sec(4))]


@given(st.lists(seconds, min_size=2, max_size=8), seconds, fades, rates, st.booleans())
def test_a_placed_line_is_a_breath_away_from_all_others(times, length, begin, fps, faster):
    edges = [sum(times[:number], NO_TIME) for number in range(len(times))]
    said = spoken(*zip(edges[::2], edges[1::2], strict=False))
    free = gaps(said, begin, Seconds(edges[-1] + 1))
    mine, handling = placed(9, length, free, fps, faster=faster)
    assert mine.start >= begin
    assert mine.end - mine.start == length / mine.speed
    assert all(mine.end + BREATH <= each.start or each.end + BREATH <= mine.start for each in said)
    assert (handling is None) == any(end - start >= length for start, end in free)
    assert mine.start == next((start for start, end in free if end - start >= length), free[-1][0])


@settings(max_examples=50)
@given(st.lists(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=3), min_size=1, max_size=4))
def test_a_quiet_stretch_is_there_in_every_combination(blocks):
    said = (Utterance(0, Fraction(1), NO_TIME, sec(1)),)
    slots = [[Slot("c", length, said=said if speaks else ()) for length, speaks in block] for block in blocks]
    stretches = [longest_quiet(chosen) for chosen in product(*slots)]
    assert quiet(slots) <= min(stretches)
    if len(stretches) == 1:
        assert quiet(slots) == stretches[0]


def longest_quiet(slots):
    runs = groupby(slots, lambda slot: bool(slot.said))
    return max((sum(slot.length for slot in run) for speaks, run in runs if not speaks), default=0)
