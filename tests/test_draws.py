from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosscut.draws import Draws

relaxed = settings(deadline=None, max_examples=60)


@relaxed
@given(st.integers(0, 2**63 - 1), st.integers(1, 12), st.integers(0, 60))
def test_draws_are_even_in_every_prefix(seed: int, tracks: int, length: int) -> None:
    draws = Draws(seed, tracks, "music")
    counts = Counter(dict.fromkeys(range(tracks), 0))
    for position in range(length):
        counts[draws.draw(position)] += 1
        assert max(counts.values()) - min(counts.values()) <= 1
    assert set(counts) == set(range(tracks))


@relaxed
@given(st.integers(0, 2**63 - 1), st.integers(1, 9), st.integers(0, 10**15))
def test_a_draw_depends_on_nothing_but_seed_salt_and_position(seed: int, tracks: int, position: int) -> None:
    expected = Draws(seed, tracks, "voice").draw(position)
    other = Draws(seed, tracks, "voice")
    other.draw(position + 1)
    assert other.draw(position) == expected


def test_draws_are_the_same_in_every_process_and_version() -> None:
    assert [Draws(7, 5, "music").draw(i) for i in range(15)] == [0, 2, 3, 1, 4, 4, 2, 3, 0, 1, 0, 1, 3, 2, 4]
    code = "from crosscut.draws import Draws; print([Draws(7, 5, 'music').draw(i) for i in range(5)])"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "1"}
    )
    assert out.stdout.strip() == "[0, 2, 3, 1, 4]"


def test_salts_and_seeds_are_independent() -> None:
    def meetings(a: Draws, b: Draws) -> Counter[tuple[int, int]]:
        return Counter((a.draw(i), b.draw(i)) for i in range(3_000))

    for a, b in ((Draws(1, 3, "music"), Draws(1, 3, "voice")), (Draws(1, 3, "music"), Draws(2, 3, "music"))):
        together = meetings(a, b)
        assert len(together) == 9
        assert all(250 < count < 420 for count in together.values())


@relaxed
@given(st.integers(0, 99), st.integers(1, 8), st.integers(0, 500), st.data())
def test_a_draw_among_the_allowed_keeps_to_them_and_changes_nothing_that_was_allowed(
    seed: int, tracks: int, position: int, data: st.DataObject
) -> None:
    allowed = data.draw(st.lists(st.integers(0, tracks - 1), min_size=1, unique=True))
    draws = Draws(seed, tracks, "voice")
    chosen, plain = draws.draw(position, allowed), draws.draw(position)
    assert chosen in allowed
    assert chosen == plain or plain not in allowed
    assert draws.draw(position, list(reversed(allowed))) == chosen


def test_the_allowed_share_the_draws_of_the_others() -> None:
    counts = Counter(Draws(3, 4, "voice").draw(i, (1, 2)) for i in range(4_000))
    assert 1_800 < counts[1] < 2_200


def test_nothing_to_draw_from_is_refused() -> None:
    with pytest.raises(ValueError):
        Draws(0, 0, "music").draw(0)
    with pytest.raises(ValueError):
        Draws(0, 2, "music").draw(0, ())
