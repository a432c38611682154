"""Stages number the variations, and boxes that open as clips arrive hold each of them exactly once."""

from __future__ import annotations

import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosscut.combinations import Combinations
from crosscut.grid import CHUNK, FEW, Grid, Stage

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
    for place, (block, clip) in enumerate(arrivals):
        for number in range(len(grid.stages)):
            members = grid.box(number, arrivals, place)
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


CLIPS = 9
"""Above the last clip of every grid drawn here."""


@st.composite
def arrivals_in(draw, grid):
    """Some clips of every block in some order, also such as no stage shows."""
    clips = [(block, clip) for block in range(len(grid.stages[0].ranges)) for clip in range(CLIPS)]
    return draw(st.permutations(clips))[: draw(st.integers(0, len(clips)))]


def rows_of(grid):
    """For each stage the set of (block, clip) of every combination, with its first variation."""
    rows = [{} for _ in grid.stages]
    for index in range(1, len(grid) + 1, grid.targets):
        rows[grid.place(index)[0]][index] = set(enumerate(clips_of(grid, index)))
    return rows


@relaxed
@given(grids(), st.data())
def test_a_box_has_what_holds_its_clip_and_else_earlier_ones_alone_and_sizes_are_known_without_it(grid, data):
    ready = data.draw(arrivals_in(grid))
    since = data.draw(st.integers(0, len(ready)))
    expected = [
        [
            [index for index, clips in rows.items() if clip in clips and clips <= {*ready[:place], clip}]
            for place, clip in enumerate(ready)
        ]
        for rows in rows_of(grid)
    ]
    assert grid.box_sizes(ready) == [[len(box) for box in boxes] for boxes in expected]
    assert grid.box_sizes(ready, since) == [[len(box) for box in boxes[since:]] for boxes in expected]
    for target in range(grid.targets):
        for stage, boxes in enumerate(expected):
            found = [grid.box(stage, ready, place).indexes(0, len(grid), target) for place in range(len(ready))]
            assert found == [[index + target for index in box] for box in boxes]


@relaxed
@given(grids(), st.data())
def test_a_combination_is_blamed_on_the_first_of_its_clips_that_failed(grid, data):
    failed = data.draw(arrivals_in(grid))
    blamed = [
        next((place for place, clip in enumerate(failed) if clip in clips), None)
        for rows in rows_of(grid)
        for clips in rows.values()
    ]
    assert grid.doomed(failed) == [blamed.count(place) for place in range(len(failed))]


def test_bulk_counts_are_exact_beyond_one_chunk_of_rows():
    rows = CHUNK + 1000
    grid = Grid((stage((0, 300), (0, 290), (0, 1), count=rows), stage((0, 40), (280, 290), (0, 2))), 1)
    ready = [(2, 0), *((block, clip) for clip in range(300) for block in (0, 1) if clip < 290 or not block), (2, 1)]
    assert list(map(sum, grid.box_sizes(ready))) == [rows, 800]
    late = len(ready) - FEW
    assert grid.box_sizes(ready, late) == [sizes[late:] for sizes in grid.box_sizes(ready)]
    assert sum(grid.doomed(ready)) == rows + 800
    assert grid.doomed([(2, 0), (0, 0)]) == [rows + 400, 10]
    everything = [clip for clip in ready if clip != (2, 0)]
    last = grid.box(0, [*everything, (2, 0)], len(everything))
    assert last.indexes(rows - 2, rows + 5, 0) == [rows - 1, rows]


def test_boxes_of_two_orders_are_not_mixed_up_and_may_be_asked_for_at_once():
    grid = Grid((stage((0, 20), (0, 20), count=200),), 2)
    orders = [[(block, clip) for clip in range(20) for block in turn] for turn in ((0, 1), (1, 0))]

    def opened(ready):
        return [grid.box(0, ready, place).indexes(0, 200, 1) for place in range(40)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(opened, orders * 4))
    assert found[:2] * 4 == found
    for boxes in found:
        assert sorted(itertools.chain(*boxes)) == list(range(2, 401, 2))
    assert found[0] != found[1]


def test_a_box_that_is_cut_in_pieces_is_found_once():
    grid = Grid((stage((0, 20), (0, 20), count=300),), 1)
    ready = [(block, clip) for block in (0, 1) for clip in range(20)]
    first = grid.box(0, ready, 30)
    assert first._positions is grid.box(0, [*ready[:31], (0, 99)], 30)._positions
    assert first._positions is not grid.box(0, ready[1:], 29)._positions


def test_what_no_clip_can_complete_needs_no_rows():
    grid = Grid((stage((0, 2000), (0, 2000), count=10**6), stage((0, 9), (0, 9))), 1)
    some = [(0, clip) for clip in range(100)]
    assert grid.weight == 10**6
    assert grid.box_sizes([(1, 5000), *some]) == [[0] * 101] * 2
    assert grid.doomed([(1, 5000)]) == [0]
    assert len(grid.box(0, some, 50)) == 0
    assert [vars(box).keys() for box in grid._boxes] == [{"stage"}] * 2


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
    clips = [(block, clip) for block in range(6) for clip in range(10)]
    members = grid.box(0, clips, len(clips) - 1)
    assert len(members) == 100_000
    assert members.indexes(99_999, 10**9, 1) == [2_000_000]
    assert members.indexes(3, 3, 0) == members.indexes(200_000, 300_000, 0) == []


def test_a_grid_without_stages_is_empty():
    grid = Grid((), 2)
    assert (len(grid), list(grid.order()), grid.weight) == (0, [], 0)
    assert (grid.box_sizes([(0, 1)]), grid.doomed([(0, 1)])) == ([], [0])
