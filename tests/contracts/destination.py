"""What every destination promises; subclasses say where files go and how to read them back."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from crosscut.destinations import EVERYONE
from crosscut.errors import DeliverError, StorageError
from crosscut.studio import END_ALL
from crosscut.virtual import Extent, VirtualFile

if TYPE_CHECKING:
    from pathlib import Path

LARGE = 20 << 20
"""Bytes: more than any destination sends in one piece."""


def virtual(*parts: bytes) -> VirtualFile:
    return VirtualFile([Extent(part, 0, len(part)) for part in parts])


def numbered(size: int) -> bytes:
    """Bytes of which no two stretches of a few are alike, so that none can be lost, doubled or moved unnoticed."""
    return b"".join(number.to_bytes(8) for number in range(size // 8 + 1))[:size]


class CalledOffError(Exception):
    pass


class DestinationContract:
    LINKS = True
    """Whether links to files can be signed."""
    STALLED = LARGE
    """Bytes of a file that is still on its way when somebody looks, after `stall`."""

    @pytest.fixture
    def destination(self):
        raise NotImplementedError

    def read(self, folder, name):
        """The bytes of a delivered file, None if there is none."""
        raise NotImplementedError

    def names(self, folder):
        """Every file a user would see in the folder."""
        raise NotImplementedError

    def wrong(self, destination):
        """A destination like that, whose credentials are not good."""
        raise NotImplementedError

    @contextlib.contextmanager
    def full(self):
        """For the block the place has no room for a large file."""
        raise NotImplementedError
        yield

    def stumble(self):
        """What is asked next fails, and heals."""
        raise NotImplementedError

    def stall(self):
        """What is sent next gets nowhere."""
        raise NotImplementedError

    def begun(self):
        """Whether something is on its way since `stall`."""
        raise NotImplementedError

    def test_a_file_arrives_whole_with_its_facts(self, destination):
        with destination.open("task") as delivery:
            delivered = delivery.put("1_a.mp4", virtual(b"head", b"body" * 1000))
            assert delivery.holds("1_a.mp4", 4004)
        data = b"head" + b"body" * 1000
        assert self.read("task", "1_a.mp4") == data
        assert (delivered.bytes, delivered.sha256) == (4004, hashlib.sha256(data).hexdigest())

    def test_putting_again_replaces_and_makes_no_twin(self, destination):
        with destination.open("task") as delivery:
            delivery.put("1_a.mp4", virtual(b"first"))
            delivery.put("1_a.mp4", virtual(b"second"))
        assert self.read("task", "1_a.mp4") == b"second"
        assert self.names("task") == ["1_a.mp4"]

    def test_a_file_of_another_size_is_not_held(self, destination):
        with destination.open("task") as delivery:
            delivery.put("1_a.mp4", virtual(b"12345"))
            assert not delivery.holds("1_a.mp4", 4)
            assert not delivery.holds("2_b.mp4", 5)

    def test_a_damaged_piece_leaves_nothing_under_the_name(self, destination, tmp_path):
        piece = tmp_path / "piece"
        piece.write_bytes(b"short")
        broken = VirtualFile([Extent(b"head", 0, 4), Extent(piece, 0, 500)])
        with destination.open("task") as delivery, pytest.raises(StorageError):
            delivery.put("1_a.mp4", broken)
        assert self.names("task") == []

    def test_a_large_file_arrives_byte_for_byte(self, destination):
        data = numbered(LARGE + 1)
        with destination.open("task") as delivery:
            delivered = delivery.put("1_a.mp4", virtual(b"head", data))
            assert delivery.holds("1_a.mp4", LARGE + 5)
        assert self.read("task", "1_a.mp4") == b"head" + data
        assert delivered.sha256 == hashlib.sha256(b"head" + data).hexdigest()

    def test_a_large_file_that_breaks_off_leaves_what_was_there(self, destination, tmp_path):
        piece = tmp_path / "piece"
        piece.write_bytes(numbered(LARGE))
        broken = VirtualFile([Extent(piece, 0, LARGE), Extent(piece, 0, LARGE + 1)])
        with destination.open("task") as delivery:
            delivery.put("1_a.mp4", virtual(b"before"))
            with pytest.raises(StorageError):
                delivery.put("1_a.mp4", broken)
            with pytest.raises(StorageError):
                delivery.put("2_b.mp4", broken)
            assert not delivery.holds("2_b.mp4")
        assert self.read("task", "1_a.mp4") == b"before"
        assert self.names("task") == ["1_a.mp4"]

    def test_a_long_text_arrives_or_leaves_what_was_there(self, destination):
        def broken():
            yield "y" * LARGE
            raise ZeroDivisionError

        with destination.open("task") as delivery:
            delivery.put_text("1_a.srt", ("ä" * 1000 for _ in range(LARGE // 2000 + 1)))
            with pytest.raises(ZeroDivisionError):
                delivery.put_text("1_a.srt", broken())
            assert delivery.holds("1_a.srt", 2000 * (LARGE // 2000 + 1))
        assert self.read("task", "1_a.srt") == "ä".encode() * 1000 * (LARGE // 2000 + 1)
        assert self.names("task") == ["1_a.srt"]

    @pytest.mark.parametrize("name", ["ein Käse 🧀.mp4", 'quote\'s "and" (brackets).mp4', "x" * 190 + ".mp4"])
    def test_odd_names_work(self, destination, name):
        with destination.open("quote's folder") as delivery:
            delivery.put(name, virtual(b"data"))
        assert self.read("quote's folder", name) == b"data"

    def test_ten_writers_at_once(self, destination):
        files = {f"{number}.mp4": bytes([number]) * 100_000 for number in range(40)}
        with destination.open("task") as delivery, ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda name: delivery.put(name, virtual(files[name])), files))
        assert {name: self.read("task", name) for name in files} == files

    def test_text_is_written_in_pieces(self, destination):
        with destination.open("task") as delivery:
            delivery.put_text("manifest.json", (part for part in ("{", '"ä": 1', "}\r\n")))
        assert self.read("task", "manifest.json") == '{"ä": 1}\r\n'.encode()

    def test_text_is_replaced_whole_or_not_at_all(self, destination):
        def broken():
            yield "half"
            raise ZeroDivisionError

        with destination.open("task") as delivery:
            delivery.put_text("1_a.srt", ["first, ", "and longer"])
            delivery.put_text("1_a.srt", ["second"])
            with pytest.raises(ZeroDivisionError):
                delivery.put_text("1_a.srt", broken())
        assert self.read("task", "1_a.srt") == b"second"
        assert self.names("task") == ["1_a.srt"]

    def test_a_file_of_unknown_size_is_held_if_it_is_there(self, destination):
        with destination.open("task") as delivery:
            delivery.put_text("1_a.srt", ["text"])
            delivery.put_text("2_b.srt", [])
            assert delivery.holds("1_a.srt")
            assert delivery.holds("2_b.srt")
            assert not delivery.holds("3_c.srt")

    def test_a_removed_file_is_gone_and_may_be_removed_again(self, destination):
        with destination.open("task") as delivery:
            delivery.put("1_a.mp4", virtual(b"video"))
            delivery.put_text("1_a.srt", ["text"])
            delivery.remove("1_a.srt")
            delivery.remove("1_a.srt")
            assert not delivery.holds("1_a.srt")
        assert self.names("task") == ["1_a.mp4"]

    def test_two_jobs_do_not_claim_a_folder_at_once(self, destination):
        caught: list[BaseException] = []

        def second():
            try:
                with destination.claim("task"):
                    pass
            except DeliverError as error:
                caught.append(error)

        with destination.claim("task"):
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()
        assert [error.code for error in caught] == ["busy"]
        assert caught[0].code in EVERYONE
        assert caught[0].retryable
        with destination.claim("task"):
            pass

    def test_a_claim_may_be_given_back_by_another_thread(self, destination):
        claim = destination.claim("task")
        claim.__enter__()
        thread = threading.Thread(target=claim.__exit__, args=(None, None, None))
        thread.start()
        thread.join()
        with destination.claim("task"):
            pass

    def test_workers_write_into_a_claimed_folder(self, destination):
        with destination.claim("task"), destination.open("task") as one, destination.open("task") as other:
            one.put("1.mp4", virtual(b"one"))
            other.put("2.mp4", virtual(b"other"))
            assert one.holds("2.mp4", 5)
            assert one.location == other.location == destination.location("task")
        assert self.names("task") == ["1.mp4", "2.mp4"]

    def test_a_location_is_told_without_making_it(self, destination):
        assert "task" in destination.location("task")
        with destination.open("other") as delivery:
            assert delivery.location == destination.location("other")

    def test_what_heals_is_tried_again(self, destination):
        with destination.open("task") as delivery:
            delivery.put("1.mp4", virtual(b"first"))
            self.stumble()
            delivery.put("2.mp4", virtual(b"second"))
        assert self.names("task") == ["1.mp4", "2.mp4"]
        assert self.read("task", "2.mp4") == b"second"

    def test_credentials_that_are_not_good_are_said_before_anything_is_written(self, destination):
        destination.check()
        wrong = self.wrong(destination)
        for ask in (wrong.check, lambda: wrong.open("task").__enter__()):
            with pytest.raises(DeliverError) as caught:
                ask()
            assert not caught.value.retryable
            assert caught.value.code in END_ALL | {"not_writable"}

    def test_a_full_place_is_said_and_what_was_there_stays(self, destination):
        with destination.open("task") as delivery:
            delivery.put("1.mp4", virtual(b"before"))
            with self.full(), pytest.raises((DeliverError, StorageError)) as caught:
                delivery.put("1.mp4", virtual(numbered(LARGE)))
            assert caught.value.code in ("disk_full", "storage_full")
            assert "free some" in caught.value.public
            assert self.read("task", "1.mp4") == b"before"
            delivery.put("1.mp4", virtual(b"after"))
        assert self.read("task", "1.mp4") == b"after"
        assert self.names("task") == ["1.mp4"]

    @pytest.mark.parametrize("size", [1_000_000, None])
    def test_who_is_called_off_ends_soon_and_leaves_nothing(self, destination, tmp_path, size):
        with destination.open("task") as delivery:
            delivery.put("0.mp4", virtual(b"there"))
        file = sparse(tmp_path / "piece", size or self.STALLED)
        moments: list[float] = []

        def check():
            if self.begun():
                moments.append(time.monotonic())
                raise CalledOffError

        with destination.open("task", check) as delivery:
            self.stall()
            with pytest.raises(CalledOffError):
                delivery.put("1.mp4", file)
        assert time.monotonic() - moments[0] < 2
        assert self.names("task") == ["0.mp4"]

    def test_whoever_comes_after_a_crash_in_the_middle_delivers_it_whole(self, destination, tmp_path):
        with destination.open("task") as delivery:
            delivery.put("1.mp4", virtual(b"before"))
        file = sparse(tmp_path / "piece", self.STALLED)
        self.stall()
        victim = multiprocessing.get_context("spawn").Process(target=_write, args=(destination, file))
        victim.start()
        end = time.monotonic() + 60
        while not self.begun():
            assert time.monotonic() < end
            assert victim.is_alive()
            time.sleep(0.005)
        victim.kill()
        victim.join()
        assert self.read("task", "1.mp4") == b"before"
        with destination.claim("task"), destination.open("task") as delivery:
            delivered = delivery.put("1.mp4", virtual(numbered(LARGE)))
        assert delivered.sha256 == hashlib.sha256(self.read("task", "1.mp4")).hexdigest()
        assert self.names("task") == ["1.mp4"]

    @pytest.mark.parametrize("name", ["1_a.mp4", 'ein Käse 🧀 "q\'s" (1).mp4', "a%41+b~c.mp4"])
    def test_a_link_opens_the_file_for_everybody(self, destination, name):
        if not self.LINKS:
            with pytest.raises(DeliverError, match="link_days") as caught:
                destination.linker("task", timedelta(days=1))
            assert caught.value.code == "no_links"
            return
        with destination.open("quote's folder") as delivery:
            delivery.put(name, virtual(b"data"))
        with urllib.request.urlopen(destination.linker("quote's folder", timedelta(days=7))(name)) as answer:
            assert answer.read() == b"data"
            assert answer.headers["content-type"] == "video/mp4"

    def test_two_processes_that_write_one_name_leave_one_whole_file(self, destination):
        """The files are of different sizes, so that a mixture of them could not go unnoticed."""
        sizes = [400_000, 300_001]
        context = multiprocessing.get_context("spawn")
        start = context.Barrier(len(sizes))
        writers = [
            context.Process(target=_write_again_and_again, args=(destination, start, number, size))
            for number, size in enumerate(sizes)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(60)
        ended = [writer.exitcode for writer in writers]
        assert ended == [0, 0], ended
        data = self.read("task", "1.mp4")
        assert data in [bytes([number]) * size for number, size in enumerate(sizes)]
        assert self.names("task") == ["1.mp4"]


def sparse(path: Path, size: int) -> VirtualFile:
    """A file of that many bytes, none of which are on the disk."""
    with path.open("wb") as file:
        file.truncate(size)
    return VirtualFile([Extent(b"head", 0, 4), Extent(path, 0, size - 4)])


def _write(destination, file):
    with destination.open("task") as delivery:
        delivery.put("1.mp4", file)


def _write_again_and_again(destination, start, number, size):
    start.wait(30)
    with destination.open("task") as delivery:
        for _ in range(20):
            delivery.put("1.mp4", virtual(bytes([number]) * size))
