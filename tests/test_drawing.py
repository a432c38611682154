"""What captions in the pictures cost is told beforehand: every clip once for what is said while it is seen."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import accumulate

import pytest
from hypothesis import given, settings

from crosscut.bindings import Binding
from crosscut.drawing import price
from crosscut.estimate import estimate
from crosscut.media import NO_TIME, USUAL_MIX, Format, MixSettings, Seconds, Target
from crosscut.plan import LISTED, SpokenLine
from test_bindings import tasks
from test_plan import TARGET, extend, make_plan

SMALL = Target(Format(1080, 1350, Fraction(30)), "0164")
"""Not one of the clips can be copied into it."""


def priced(blocks=(1, 1), **changes):
    return price(make_plan(blocks, **{"music": (), "captions": "burn", **changes}))


def told(encodes, seconds, drawn, *, exact=True):
    return {
        "clips_to_encode": encodes,
        "encode_seconds": seconds,
        "captions_to_draw": {"encodes": drawn, "exact": exact},
    }


def test_a_clip_is_drawn_once_for_each_line_and_place_it_is_seen_under():
    """Clips of 2 s: a line of 3 s is heard over the first block and half of the second."""
    assert priced((2, 3), lines=(3,)) == told(5, 10.0, 5)
    # Clips of the second block begin after 2 s or after 1 s, and are held for half a second then.
    assert priced((2, 3), lines=(3,), seconds={"b0c1": 1}) == told(8, 3 + 6 + 7.5, 8)
    assert priced((4, 1), lines=(3, 3)) == told(4 + 2, 12.0, 6)


def test_clips_under_no_line_are_copied_or_encoded_as_they_would_be():
    assert priced((2, 3, 2), lines=(2,)) == told(2, 4.0, 2)
    assert priced((2, 3, 2), lines=(1,)) == told(2, 4.0, 2)
    assert priced((2, 3, 2), lines=(1,), targets=(SMALL,)) == told(7, 14.0, 2)
    late = MixSettings(voice_start=Seconds(Fraction(2)), fade_out=NO_TIME)
    assert priced((2, 3, 2), lines=(1,), mix=late) == told(3, 6.0, 3)


def test_a_line_with_its_own_clip_or_block_is_drawn_once_with_each_clip():
    assert priced((2, 3, 2), lines=(1,), bindings=(Binding(1),)) == told(3, 6.0, 3)
    assert priced((2, 3, 2), lines=(1, 1), bindings=(Binding(None, "b2c0"),) * 2, fps=None) == told(1, 2.77, 1)


def test_the_held_last_picture_is_part_of_what_is_drawn():
    after = MixSettings(voice_start=Seconds(Fraction(5)), fade_out=NO_TIME)
    assert priced((1, 1), lines=(1,), mix=after) == told(1, 4.0, 1)


def test_what_cannot_be_made_costs_nothing():
    assert priced((2, 2), lines=(3,), broken=("b0c1",)) == told(3, 6.0, 3)
    assert priced((2, 2), lines=("cannot be spoken",)) == told(0, 0.0, 0)


def test_a_price_is_exact_once_all_lines_are_spoken():
    plan = make_plan((2, 3), lines=(3,), captions="burn")
    expected = replace(plan, lines=(SpokenLine(Seconds(Fraction(3)), exact=False),))
    assert price(expected) == told(5, 10.0, 5, exact=False)


def test_an_estimate_tells_it_where_captions_are_drawn():
    told = estimate(make_plan((2, 3), lines=(3,), captions="burn", targets=(SMALL,)), {}, str)
    assert (told["clips_to_encode"], told["captions_to_draw"]["encodes"], told["wide_would_save"]) == (5, 5, 0)
    for without in ({"captions": "soft", "lines": (3,)}, {"captions": "burn"}):
        assert estimate(make_plan((2, 3), **without), {}, str)["captions_to_draw"] is None


@settings(deadline=None, max_examples=30)
@given(tasks(overflow=("hold",)))
def test_a_small_price_is_what_a_look_at_every_frame_tells(plan):
    seen, drawn = set(), set()
    for variation in plan:
        fps, frame = plan.targets[variation.target].format.fps, 0
        lengths = [slot.length for slot in variation.slots]
        lengths[-1] += variation.hold
        for clip, length in zip(variation.clips, lengths, strict=True):
            words = frozenset(
                (said.line, said.start - frame / fps)
                for each in range(frame, frame + length)
                for said in variation.said
                if said.start < (each + 1) / fps and each / fps < said.end
            )
            frame += length
            if words:
                drawn.add((clip, variation.target, words))
            if words or plan.renditions[clip, variation.target].reasons:
                seen.add((clip, variation.target, words))
    found = price(plan)
    assert (found["clips_to_encode"], found["captions_to_draw"]["encodes"]) == (len(seen), len(drawn))


@pytest.mark.parametrize("targets", [(TARGET,), (SMALL, TARGET)])
@pytest.mark.parametrize(
    "said",
    [
        {"lines": (Fraction(3, 2), 5)},
        {"lines": (4, "cannot be spoken"), "mix": replace(USUAL_MIX, voice_start=Seconds(Fraction(5, 2)))},
        {"lines": (1, Fraction(1, 2)), "bindings": (Binding(1), Binding(None, "b2c3"))},
    ],
)
def test_a_large_price_is_about_what_looking_at_everything_tells(targets, said):
    lengths = {f"b{block}c{number}": 1 + Fraction(number % 8, 4) for block in range(3) for number in range(22)}
    plan = make_plan((22, 22, 22), seconds=lengths, targets=targets, broken=("b1c5",), captions="burn", **said)
    looked = set()
    for variation in plan:
        fps = plan.targets[variation.target].format.fps
        begins = [0, *accumulate(slot.length for slot in variation.slots)]
        for slot, begin in zip(variation.slots, begins, strict=False):
            words = tuple(
                (each.line, each.start - begin / fps)
                for each in variation.said
                if each.start < (begin + slot.length) / fps and each.end > begin / fps
            )
            if words or plan.renditions[slot.clip, variation.target].reasons:
                looked.add((slot.clip, variation.target, slot.length / fps, words))
    found = price(plan)
    assert len(plan) > LISTED
    assert not found["captions_to_draw"]["exact"]
    assert found["clips_to_encode"] == pytest.approx(len(looked), rel=0.1)
    assert found["encode_seconds"] == pytest.approx(float(sum(seconds for _, _, seconds, _ in looked)), rel=0.1)
    assert found["captions_to_draw"]["encodes"] == pytest.approx(sum(bool(each[3]) for each in looked), rel=0.1)


@pytest.mark.parametrize(
    ("said", "drawn", "silent"),
    [
        ({"lines": (3, 1)}, 2 * 2 + 2, 2 + 3_000),
        ({"lines": (2,)}, 2, 2 + 3_000),
        ({"lines": (3, 1), "mix": MixSettings(voice_start=Seconds(Fraction(2)))}, 2 * 2 + 3_000, 2 + 3_000),
        ({"lines": (3, "cannot be spoken")}, 2 + 2, 3_000),
        ({"lines": (1, 1), "bindings": (Binding(1), Binding(1, "b1c0"))}, 2, 2 + 3_000),
        ({"lines": (9,) * 9}, 2 * 9 + 2 * 9 + 3_000 * 4, 0),
    ],
)
def test_a_large_price_is_exact_where_every_clip_has_one_place(said, drawn, silent):
    plans = [
        make_plan((2, 2, 3_000), captions="burn", targets=(target,), music=(), **said) for target in (TARGET, SMALL)
    ]
    copied, encoded = map(price, plans)
    assert (copied["clips_to_encode"], copied["captions_to_draw"]["encodes"]) == (drawn, drawn)
    assert (encoded["clips_to_encode"], encoded["captions_to_draw"]["encodes"]) == (drawn + silent, drawn)


def test_music_that_is_added_has_nothing_drawn_again():
    plan = make_plan((22, 22, 22), lines=(3, 1), captions="burn")
    assert price(extend(plan, music=("m3",))) == price(plan)
    assert price(extend(plan, lines=(1,)))["clips_to_encode"] > price(plan)["clips_to_encode"]
