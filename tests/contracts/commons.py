"""What all who share must be able to rely on; tests of a way to share inherit these classes.

Each gives them `opened`, which opens what is shared as one more process would; those of many processes `elsewhere`,
too, which starts `commons_play` in a process of its own over the same.
"""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from crosscut.commons import Hold, Notes, Shared

    Elsewhere = Callable[[str, str], subprocess.Popen[str]]


def together(elsewhere: Elsewhere, action: str, *names: str) -> list[str]:
    """What processes print who begin at the same moment."""
    processes = [elsewhere(action, name) for name in names]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60)[0] for process in processes]
    assert {process.returncode for process in processes} == {0}
    return told


def wait_until(condition: Callable[[], object], seconds: float = 20) -> float:
    """How long it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + seconds, "it never came to be"
        time.sleep(0.01)
    return time.monotonic() - begun


class NotesContract:
    @pytest.fixture
    def notes(self, opened: Callable[[], Shared]) -> Notes:
        return opened().notes

    def test_what_is_noted_first_stays(self, notes: Notes, opened: Callable[[], Shared]) -> None:
        assert (notes.get("a"), notes.has("a")) == (None, False)
        assert notes.put_once("a", "1") == "1"
        assert notes.put_once("a", "2") == "1"
        assert notes.put_once("a", "3", instead_of="2") == "1"
        assert notes.put_once("a", "3", instead_of="1") == "3"
        assert notes.put_once("b", "3", instead_of="1") == "3"
        notes.put("a", "4")
        assert (opened().notes.get("a"), opened().notes.has("a")) == ("4", True)
        notes.forget("a")
        notes.forget("a")
        assert (notes.get("a"), notes.has("a"), notes.get("b")) == (None, False, "3")

    @pytest.mark.parametrize("text", ["", " \n", "käse 🧀", '"\\%s:name$1;--', "\x01\x7f\u2028", "x" * 6_000_000])
    def test_a_text_comes_back_as_it_was(self, notes: Notes, text: str) -> None:
        notes.put("a", text)
        assert notes.get("a") == text
        assert notes.put_once("a", "other", instead_of=text) == "other"
        assert notes.put_once("b", text) == text

    def test_of_many_threads_one_has_its_way(self, opened: Callable[[], Shared]) -> None:
        with ThreadPoolExecutor(8) as pool:
            told = set(pool.map(lambda n: opened().notes.put_once("a", str(n)), range(40)))
        assert told == {opened().notes.get("a")}


class NotesOfManyContract(NotesContract):
    def test_processes_agree_and_none_of_their_changes_is_lost(self, notes: Notes, elsewhere: Elsewhere) -> None:
        """A change is one that replaces a note only where it is still the one that was read."""
        first, other = map(json.loads, together(elsewhere, "agree", "a", "b"))
        assert first == other
        assert len(first) == 60
        assert sorted(json.loads(notes.get("list") or "")) == sorted(f"{who}{n}" for who in "ab" for n in range(20))


class HoldsContract:
    def test_one_at_a_time_has_a_lock(self, opened: Callable[[], Shared]) -> None:
        one, other = opened().holds, opened().holds
        hold = one.lock("locks/a")
        assert (one.lock("locks/a"), other.lock("locks/a")) == (None, None)
        apart = other.lock("locks/b")
        hold.release()
        again = other.lock("locks/a")
        assert again is not None
        assert one.lock("locks/a") is None
        again.release()
        apart.release()

    def test_any_thread_may_release(self, opened: Callable[[], Shared]) -> None:
        holds = opened().holds
        thread = threading.Thread(target=holds.lock("locks/a").release)
        thread.start()
        thread.join()
        again = holds.lock("locks/a")
        assert again is not None
        again.release()

    def test_only_so_many_have_slots_and_those_above_a_lowered_limit_count(self, opened: Callable[[], Shared]) -> None:
        one, other = opened().holds, opened().holds
        held = [one.slot("slots", 3), other.slot("slots", 3), one.slot("slots", 3)]
        assert None not in held
        assert other.slot("slots", 3) is None
        other.slot("others", 3).release()
        more = other.slot("slots", 4)
        for hold in [more, *held[:2]]:
            assert one.slot("slots", 1) is None
            hold.release()
        assert one.slot("slots", 1) is None
        held[2].release()
        last = other.slot("slots", 1)
        assert last is not None
        assert one.slot("slots", 1) is None
        last.release()

    def test_whoever_waits_gets_it_or_gives_up(self, opened: Callable[[], Shared]) -> None:
        shared = opened()
        hold = shared.holds.lock("locks/a")
        threading.Timer(0.2, hold.release).start()
        with shared.locked("locks/a"):
            pass

        class GaveUpError(Exception):
            pass

        def pause(_: float) -> None:
            raise GaveUpError

        with shared.locked("locks/a"), pytest.raises(GaveUpError), shared.locked("locks/a", pause):
            pass


class HoldsOfManyContract(HoldsContract):
    lease = 0.0
    """Seconds in which what a dead process held is free; 0: at once."""

    def test_over_threads_and_processes_no_more_are_inside(self, elsewhere: Elsewhere) -> None:
        """Each says in the notes that it is inside, and who is there already."""
        told = together(elsewhere, "crowd", "a", "b")
        met = [json.loads(line) for output in told for line in output.splitlines()]
        assert len(met) == 2 * 4 * 5
        assert max(map(len, met)) <= 3
        assert any(len({name[0] for name in inside}) > 1 for inside in met), "they never met: nothing was tried"

    def test_what_a_killed_process_held_is_free_again(self, opened: Callable[[], Shared], elsewhere: Elsewhere) -> None:
        holds = opened().holds
        holder = elsewhere("hold", "x")
        holder.stdin.write("go\n")
        holder.stdin.flush()
        assert [holder.stdout.readline() for _ in range(2)] == ["ready\n", "held\n"]
        time.sleep(2 * self.lease)
        assert (holds.lock("x"), holds.slot("y", 1)) == (None, None), "it lasts as long as its holder"
        holder.kill()
        holder.communicate()
        for take in (lambda: holds.lock("x"), lambda: holds.slot("y", 1)):
            taken: list[Hold | None] = []
            seconds = wait_until(lambda take=take, taken=taken: taken.append(take()) or taken[-1], 10)
            taken[-1].release()
            assert self.lease or seconds < 0.1
