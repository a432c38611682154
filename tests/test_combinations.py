from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosscut.combinations import Combinations

shapes = st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple)
relaxed = settings(deadline=None, max_examples=60)

UNEVEN = (2, 6, 14, 18, 26, 30)
"""Sizes of three equal blocks for which counts may differ by two."""


def rows(sizes: tuple[int, ...], count: int | None = None) -> list[tuple[int, ...]]:
    combinations = Combinations(sizes, count)
    return [combinations.combination(i) for i in range(len(combinations))]


def spreads(order: list[tuple[int, ...]], sizes: tuple[int, ...]) -> int:
    """The widest gap between the counts of two clips of one block in any prefix."""
    counts = [[0] * n for n in sizes]
    widest = 0
    for row in order:
        for block, clip in enumerate(row):
            counts[block][clip] += 1
        widest = max(widest, *(max(c) - min(c) for c in counts))
    return widest


def pairs(order: list[tuple[int, ...]]) -> set[tuple[int, int, int, int]]:
    return {(a, b, row[a], row[b]) for row in order for a, b in itertools.combinations(range(len(row)), 2)}


def all_pairs(sizes: tuple[int, ...]) -> int:
    return sum(a * b for a, b in itertools.combinations(sizes, 2))


def covered_at(sizes: tuple[int, ...]) -> int:
    order = rows(sizes, math.prod(sizes))
    seen: set[tuple[int, int, int, int]] = set()
    for number, row in enumerate(order, 1):
        seen |= pairs([row])
        if len(seen) == all_pairs(sizes):
            return number
    raise AssertionError


@relaxed
@given(shapes)
def test_without_count_the_product_comes_in_order_with_the_last_block_fastest(sizes: tuple[int, ...]) -> None:
    assert rows(sizes) == list(itertools.product(*map(range, sizes)))


def test_a_quadrillion_combinations_cost_nothing() -> None:
    combinations = Combinations((1000,) * 5)
    assert len(combinations) == 10**15
    assert combinations.combination(10**15 - 1) == (999,) * 5
    assert combinations.combination(123_456_789_012_345) == (123, 456, 789, 12, 345)


@relaxed
@given(shapes)
def test_the_whole_balanced_order_is_a_permutation_of_the_product(sizes: tuple[int, ...]) -> None:
    assert sorted(rows(sizes, math.prod(sizes))) == list(itertools.product(*map(range, sizes)))


@relaxed
@given(shapes)
def test_every_prefix_uses_the_clips_of_a_block_evenly(sizes: tuple[int, ...]) -> None:
    wide = [n for n in sizes if n > 1]
    allowed = 2 if len(wide) == 3 and len(set(wide)) == 1 and wide[0] in UNEVEN else 1
    assert spreads(rows(sizes, math.prod(sizes)), sizes) <= allowed


@relaxed
@given(shapes, st.integers(1, 400), st.integers(1, 400))
def test_a_smaller_count_is_a_prefix_of_a_larger_one(sizes: tuple[int, ...], one: int, other: int) -> None:
    smaller, larger = sorted((one, other))
    order = rows(sizes, larger)
    assert len(order) == min(larger, math.prod(sizes))
    assert order[:smaller] == rows(sizes, smaller)


@pytest.mark.parametrize("n", range(1, 31))
def test_all_pairs_of_three_blocks_of_n_meet_within_n_squared_rows(n: int) -> None:
    order = rows((n, n, n), n * n)
    assert len(pairs(order)) == 3 * n * n
    assert len(set(order)) == n * n
    assert spreads(order, (n, n, n)) <= (2 if n in UNEVEN else 1)
    if n != 2:
        assert all({row[block] for row in order[:n]} == set(range(n)) for block in range(3))


@pytest.mark.parametrize("n", [6, 10, 14])
def test_three_blocks_without_a_group_still_fill_the_product_evenly(n: int) -> None:
    order = rows((n, n, n), n**3)
    assert len(set(order)) == n**3
    assert spreads(order, (n, n, n)) <= (2 if n in UNEVEN else 1)


@pytest.mark.parametrize(
    "sizes", [(4, 3, 2), (2, 3, 4, 5), (5, 5, 5, 5), (8, 8, 8, 8), (10, 5, 3, 2), (10, 10, 3), (12, 8)]
)
def test_all_pairs_meet_as_early_as_the_two_largest_blocks_allow(sizes: tuple[int, ...]) -> None:
    largest = sorted(sizes)[-2:]
    assert covered_at(sizes) == math.prod(largest)


@pytest.mark.parametrize("sizes", list(itertools.combinations_with_replacement(range(2, 8), 3)))
def test_all_pairs_of_any_three_blocks_meet_within_twice_the_least_number_of_rows(sizes: tuple[int, ...]) -> None:
    assert covered_at(sizes) <= 2 * sizes[1] * sizes[2]


@relaxed
@given(shapes)
def test_the_first_rows_show_every_clip(sizes: tuple[int, ...]) -> None:
    if tuple(n for n in sizes if n > 1) != (2, 2, 2):
        first = rows(sizes, max(sizes))
        assert all({row[block] for row in first} == set(range(n)) for block, n in enumerate(sizes))


def test_a_balanced_part_of_a_huge_product_is_cheap_and_distinct() -> None:
    for sizes in ((97, 89, 83, 79), (10,) * 12, (2,) * 16, (300, 200, 5), (1, 1, 2000)):
        order = rows(sizes, 2_000)
        assert len(set(order)) == 2_000
        assert spreads(order, sizes) <= 1


def test_sixteen_blocks_of_two_fill_their_product() -> None:
    assert len(set(rows((2,) * 12, 4096))) == 4096


@relaxed
@given(shapes, st.none() | st.integers(1, 400), st.integers(0, 50), st.integers(0, 400))
def test_many_at_once_they_are_what_they_are_one_by_one(
    sizes: tuple[int, ...], count: int | None, start: int, length: int
) -> None:
    columns = Combinations(sizes, count).columns(start, start + length)
    assert list(zip(*(c.tolist() for c in columns), strict=True)) == rows(sizes, count)[start : start + length]


@pytest.mark.parametrize("sizes", [(6, 6, 6), (14, 14, 14), (10, 10, 10), (12, 8, 5), (40, 30, 20, 6)])
def test_larger_selections_come_at_once_too(sizes: tuple[int, ...]) -> None:
    columns = Combinations(sizes, 3_000).columns(0, 3_000)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == rows(sizes, 3_000)


def test_indexes_beyond_the_end_and_empty_blocks_are_refused() -> None:
    with pytest.raises(IndexError):
        Combinations((2, 2)).combination(4)
    with pytest.raises(IndexError):
        Combinations((2, 2), 3).combination(-1)
    for sizes, count in (((), None), ((2, 0), None), ((2,), 0)):
        with pytest.raises(ValueError):
            Combinations(sizes, count)
