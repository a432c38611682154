"""What every depot promises; subclasses say where it is, and give one that cannot be reached."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from contracts.destination import LARGE, numbered
from crosscut.depot import BLOCK, UNAVAILABLE
from crosscut.errors import SandboxError, StorageError

NAME = "pieces/ab/abcdef"
WRITERS = 8


class DepotContract:
    @pytest.fixture
    def depot(self):
        raise NotImplementedError

    @pytest.fixture
    def lost(self):
        """A depot that cannot be reached."""
        raise NotImplementedError

    def test_it_can_be_used(self, depot):
        depot.check()
        depot.check()

    def test_nothing_is_there_at_first(self, depot):
        assert depot.read(NAME) is None
        assert depot.size(NAME) is None
        with pytest.raises(FileNotFoundError):
            list(depot.blocks(NAME))
        depot.remove(NAME)

    def test_what_is_there_is_not_written_over(self, depot):
        assert depot.write(NAME, b"first")
        assert not depot.write(NAME, b"second")
        assert depot.read(NAME).data == b"first"

    def test_it_is_replaced_by_who_knows_what_is_there(self, depot):
        depot.write(NAME, b"first")
        known = depot.read(NAME)
        assert depot.write(NAME, b"second", known)
        assert not depot.write(NAME, b"third", known)
        assert depot.read(NAME).data == b"second"

    def test_what_is_gone_is_not_replaced(self, depot):
        depot.write(NAME, b"first")
        known = depot.read(NAME)
        depot.remove(NAME)
        assert not depot.write(NAME, b"second", known)
        assert depot.read(NAME) is None

    @pytest.mark.parametrize("there", [False, True])
    def test_of_many_writers_one_is_told_that_it_wrote(self, depot, there):
        if there:
            depot.write(NAME, b"old")
        known = depot.read(NAME)
        said = [b"%d" % number * 1000 for number in range(WRITERS)]
        with ThreadPoolExecutor(WRITERS) as pool:
            wrote = list(pool.map(lambda data: depot.write(NAME, data, known), said))
        (winner,) = [data for data, won in zip(said, wrote, strict=True) if won]
        assert depot.read(NAME).data == winner

    def test_a_large_object_comes_and_goes_in_blocks(self, depot):
        data = numbered(LARGE)
        depot.store("files/ab/large", (data[start : start + BLOCK] for start in range(0, LARGE, BLOCK)))
        assert depot.size("files/ab/large") == LARGE
        blocks = list(depot.blocks("files/ab/large"))
        assert b"".join(blocks) == data
        assert max(map(len, blocks)) <= BLOCK

    def test_a_large_object_is_replaced_whole(self, depot):
        depot.store(NAME, [b"first"])
        depot.store(NAME, [b"another"])
        assert b"".join(depot.blocks(NAME)) == b"another"
        assert depot.read(NAME).data == b"another"

    def test_an_object_may_be_empty(self, depot):
        depot.store(NAME, [])
        assert (depot.size(NAME), list(depot.blocks(NAME)), depot.read(NAME).data) == (0, [], b"")

    @pytest.mark.parametrize("read", [0, 1, 2])
    def test_what_cannot_be_read_to_its_end_is_not_stored(self, depot, read):
        def breaking():
            yield from [bytes(BLOCK)] * read
            raise SandboxError("cancelled", code="cancelled")

        depot.store(NAME, [b"before"])
        with pytest.raises(SandboxError, match="cancelled"):
            depot.store(NAME, breaking())
        assert depot.read(NAME).data == b"before"

    def test_what_was_removed_can_be_written_again(self, depot):
        depot.write(NAME, b"first")
        depot.remove(NAME)
        assert depot.read(NAME) is None
        assert depot.write(NAME, b"second")

    def test_one_that_cannot_be_reached_says_to_try_again(self, lost):
        known = lost_things(lost)
        for ask in known:
            with pytest.raises(StorageError) as caught:
                ask()
            assert (caught.value.code, caught.value.retryable) == (UNAVAILABLE, True)

    def test_one_that_cannot_be_reached_is_told_at_the_start(self, lost):
        with pytest.raises(StorageError) as caught:
            lost.check()
        assert (caught.value.code, caught.value.retryable) == ("shared_unusable", False)
        assert "CROSSCUT_SHARED" in caught.value.public


def lost_things(lost):
    return [
        lambda: lost.write(NAME, b"data"),
        lambda: lost.store(NAME, [b"data"]),
        lambda: lost.read(NAME),
        lambda: lost.size(NAME),
        lambda: list(lost.blocks(NAME)),
        lambda: lost.remove(NAME),
    ]
