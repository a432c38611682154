"""The order of text of both directions, against another implementation of the same algorithm."""

from __future__ import annotations

import pytest
from bidi import get_display
from hypothesis import given, settings
from hypothesis import strategies as st

from crosscut.bidi import levels, visual

LETTERS = 'abאבاب٠١12+-#$%,.:\u0300\u064b !?"()[]{}«»〈〉\u200d\u00ad'


def shown(text):
    return "".join(text[at] for at in visual(levels(text)))


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("one two", "one two"),
        ("אבג דהו", "והד גבא"),
        ("abc אבג 12 def", "abc 12 גבא def"),
        ("אבג (abc) דה", "הד )abc( גבא"),
        ("سعر 250 دولار", "رالود 250 رعس"),
        ("عدد ١٢٣٫٥", "١٢٣٫٥ ددع"),
        ("", ""),
    ],
)
def test_words_are_read_in_their_direction_and_numbers_from_the_left(text, seen):
    # Brackets are mirrored where they are drawn, not where they are put in order.
    assert shown(text) == seen


@settings(max_examples=1500, deadline=None)
@given(st.text(LETTERS, max_size=24).map(str.strip))
def test_the_order_is_that_of_another_implementation(text):
    unseen = str.maketrans("", "", "\u200d\u00ad")
    assert shown(text).translate(unseen) == get_display(text).translate(unseen)


def test_what_is_not_seen_stays_with_what_is_before_it():
    text = "אב\u200dג\u200d"
    assert levels(text) == [1] * 5
    assert levels("\u200dab") == [0, 0, 0]
