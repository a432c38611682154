"""Stages number the variations, and boxes that open as clips arrive hold each of them exactly once."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosscut.combinations import Combinations
from crosscut.grid import Grid, Stage

relaxed = settings(deadline=None, max_examples=80)


def stage(*ranges, count=None, music=(0, 0), lines=(0, 0)):
    return Stage(tuple(ranges), count, music, lines)


@st.composite
def grids(draw):
    blocks = draw(st.integers(1, 4))
    span = st.tuples(st.integers(0, 3), st.integers(1, 4)).map(lambda pair: (pair[0], pair[0] + pair[1]))
    one = st.builds(
        Stage, st.tuples(*[span] * blocks), st.none() | st.integers(1, 300), st.just((0, 2)), st.just((0, 0))
    )
    return Grid(tuple(draw(st.lists(one, min_size=1, max_size=3))), draw(st.integers(1, 3)))


def clips_of(grid, index):
    number, position, _ = grid.place(index)
    return grid.combination(number, position)


@relaxed
@given(grids())
def test_stages_follow_one_another_and_formats_of_a_combination_too(grid):
    expected = [
        (number, position, target)
        for number, one in enumerate(grid.stages)
        for position in range(len(Combinations(one.sizes, one.count)))
        for target in range(grid.targets)
    ]
    assert [grid.place(index) for index in range(1, len(grid) + 1)] == expected
    for index in (0, len(grid) + 1):
        with pytest.raises(IndexError):
            grid.place(index)


def test_a_whole_stage_is_the_product_of_its_ranges_in_plain_order_and_a_part_is_the_balanced_order():
    grid = Grid((stage((2, 4), (0, 3)), stage((1, 4), (5, 8), count=4)), 1)
    assert [clips_of(grid, index) for index in range(1, 7)] == list(itertools.product((2, 3), (0, 1, 2)))
    balanced = Combinations((3, 3), 4)
    assert [clips_of(grid, index) for index in range(7, 11)] == [
        (1 + a, 5 + b) for a, b in map(balanced.combination, range(4))
    ]
    assert len(grid) == 10


@relaxed
@given(grids(), st.randoms(use_true_random=False), st.integers(1, 4))
def test_boxes_hold_every_variation_once_whatever_the_order_of_arrival(grid, random, step):
    blocks = len(grid.stages[0].ranges)
    arrivals = [(block, clip) for block in range(blocks) for clip in range(9)]
    random.shuffle(arrivals)
    found = []
    ready = [set() for _ in range(blocks)]
    for block, clip in arrivals:
        for number in range(len(grid.stages)):
            members = grid.members(number, block, clip, ready)
            for target in range(grid.targets):
                opened = [
                    index
                    for start in range(0, len(members), step)
                    for index in members.indexes(start, start + step, target)
                ]
                assert opened == sorted(opened)
                assert len(opened) == len(members)
                for index in opened:
                    combination = clips_of(grid, index)
                    assert grid.place(index)[::2] == (number, target)
                    assert combination[block] == clip
                    assert all(c in ready[b] for b, c in enumerate(combination) if b != block)
                found += opened
        ready[block].add(clip)
    assert sorted(found) == list(range(1, len(grid) + 1))


@relaxed
@given(grids(), st.data())
def test_possible_counts_the_combinations_of_usable_clips(grid, data):
    usable = [data.draw(st.sets(st.integers(0, 9))) for _ in grid.stages[0].ranges]
    good = [
        index
        for index in range(1, len(grid) + 1, grid.targets)
        if all(c in clips for c, clips in zip(clips_of(grid, index), usable, strict=True))
    ]
    assert grid.possible(usable) == len(good)


def test_clips_come_block_by_block_turn_for_a_whole_stage_and_by_first_use_for_a_part():
    assert list(Grid((stage((0, 3), (0, 1), (0, 2)),), 2).order()) == [(0, 0), (1, 0), (2, 0), (0, 1), (2, 1), (0, 2)]
    part = Grid((stage((0, 5), (0, 5), count=3),), 1)
    shown = [(block, clip) for index in (1, 2, 3) for block, clip in enumerate(clips_of(part, index))]
    assert list(part.order()) == list(dict.fromkeys(shown))


@relaxed
@given(grids())
def test_the_order_has_every_clip_that_is_shown_once(grid):
    order = list(grid.order())
    shown = {(block, clip) for index in range(1, len(grid) + 1) for block, clip in enumerate(clips_of(grid, index))}
    assert len(order) == len(set(order))
    assert set(order) == shown


@relaxed
@given(grids())
def test_a_grid_survives_json(grid):
    assert Grid.of(json.loads(json.dumps(grid.as_json()))) == grid


def test_a_whole_stage_of_a_million_opens_boxes_without_looking_at_it():
    grid = Grid((stage(*[(0, 10)] * 6),), 2)
    members = grid.members(0, 5, 9, [range(10)] * 6)
    assert len(members) == 100_000
    assert members.indexes(99_999, 10**9, 1) == [2_000_000]
    assert members.indexes(3, 3, 0) == members.indexes(200_000, 300_000, 0) == []


def test_a_grid_without_stages_is_empty():
    grid = Grid((), 2)
    assert (len(grid), list(grid.order()), grid.possible([])) == (0, [], 0)
