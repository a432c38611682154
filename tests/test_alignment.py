from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosscut.voices.alignment import last_second, words

TEXTS = st.text(st.sampled_from("ab é[]$5—漢😀 \n\t"), max_size=40)
TIMES = st.floats() | st.integers() | st.sampled_from([0, 0.1, 1e300, 10**400, -1, True, None, "soon"])


def told(characters: list[str], starts: list, ends: list) -> dict:
    return {
        "characters": characters,
        "character_start_times_seconds": starts,
        "character_end_times_seconds": ends,
    }


def even(text: str) -> dict:
    return told(list(text), [n / 10 for n in range(len(text))], [(n + 1) / 10 for n in range(len(text))])


def spans(text: str, alignment: object, seconds: float = 10, *, tagged: bool = False) -> list[tuple[str, float, float]]:
    found, _ = words(text, alignment, round(seconds * 48_000), tagged=tagged)
    return [(word.text, round(float(word.start), 3), round(float(word.end), 3)) for word in found]


def test_a_word_lasts_from_its_first_character_to_its_last() -> None:
    assert spans("so, it\ncosts  $5", even("so, it\ncosts  $5")) == [
        ("so,", 0.0, 0.3),
        ("it", 0.4, 0.6),
        ("costs", 0.7, 1.2),
        ("$5", 1.4, 1.6),
    ]


def test_characters_may_come_in_clusters() -> None:
    assert spans("ab cd", told(["ab", " c", "d"], [0, 1, 2], [1, 2, 3])) == [("ab", 0, 1), ("cd", 1, 3)]


def test_tags_are_not_heard_where_they_are_orders() -> None:
    text = "[sighs]Hello [very softly] my [friend"
    assert [word for word, _, _ in spans(text, even(text), tagged=True)] == ["Hello", "my", "[friend"]
    assert [word for word, _, _ in spans(text, even(text))] == text.split()
    assert spans("[laughs]", even("[laughs]"), tagged=True) == []


def test_where_the_provider_leaves_the_tags_out_the_words_are_still_found() -> None:
    assert spans("[sighs] Hello you", even("Hello you"), tagged=True) == [("Hello", 0, 0.5), ("you", 0.6, 0.9)]


def test_times_are_clamped_to_the_sound_and_put_in_order() -> None:
    late = told(list("a b c"), [0, 1, 2, 3, 9], [1, 2, 3, 4, 99])
    assert spans("a b c", late, 5) == [("a", 0, 1), ("b", 2, 3), ("c", 4.999, 5)]
    back = told(list("a b c"), [2, 3, 0, 1, 4], [3, 0, 1, 4, 5])
    assert spans("a b c", back, 5) == [("a", 2, 3), ("b", 3, 3.001), ("c", 4, 5)]


@pytest.mark.parametrize(
    "alignment",
    [None, "soon", [], {}, even(""), even("other text"), told(["a"], [0], []), told(["a", 1, "b"], [0] * 3, [1] * 3)],
)
def test_without_usable_times_words_share_the_sound_by_their_lengths(alignment: object) -> None:
    found, timed = words("aaa b", alignment, 48_000, tagged=False)
    assert not timed
    assert [(word.start, word.end) for word in found] == [(0, Fraction(3, 4)), (Fraction(3, 4), 1)]


@given(
    TEXTS,
    st.lists(st.tuples(st.text(max_size=2), TIMES, TIMES), max_size=40),
    st.integers(4_800, 480_000),
    st.booleans(),
    st.booleans(),
)
def test_whatever_is_told_words_are_in_order_and_within_the_sound(text, odd, samples, own, tagged) -> None:
    columns = [list(column) for column in zip(*odd, strict=True)] or [[], [], []]
    if own:
        columns = [list(text), (columns[1] + [0.5] * 40)[: len(text)], (columns[2] + [0.5] * 40)[: len(text)]]
    found, _ = words(text, told(*columns), samples, tagged=tagged)
    assert tagged or [word.text for word in found] == text.split()
    assert all(word.start < word.end for word in found)
    assert all(one.end <= other.start for one, other in pairwise(found))
    assert all(word.start >= 0 and word.end <= Fraction(samples, 48_000) for word in found)
    assert (last_second(told(*columns)) or 0.0) < 1e6
