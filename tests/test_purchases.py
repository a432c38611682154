from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from crosscut.errors import StorageError, VoiceError
from crosscut.files import shared_in
from crosscut.slots import FIRST, LOWERED_SECONDS, MOST, Slots
from crosscut.store.database import Database
from crosscut.store.shared import shared_by
from crosscut.voices.purchases import MOST_TRIES, Purchases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY, OTHER = "a" * 64, "b" * 64


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class TestPurchases:
    @pytest.fixture
    def purchases(self, tmp_path: Path) -> Purchases:
        return Purchases(tmp_path / "voices")

    def test_what_was_bought_is_there_as_it_came(self, purchases: Purchases) -> None:
        assert not purchases.owns(KEY)
        assert purchases.find(KEY) is None
        purchases.risk(KEY)
        purchases.keep(KEY, {"billed": 3, "odd": float("inf"), "text": "\ud83d"})
        assert purchases.owns(KEY)
        assert Purchases(purchases.folder).find(KEY) == {"billed": 3, "odd": float("inf"), "text": "\ud83d"}
        assert not purchases.owns(OTHER)

    def test_a_doubt_is_counted_by_all_and_ends_with_the_purchase(self, purchases: Purchases) -> None:
        for number in range(MOST_TRIES):
            assert len(purchases.risk(KEY)) == 8
            assert Purchases(purchases.folder).tries(KEY) == number + 1
        with pytest.raises(VoiceError) as caught:
            Purchases(purchases.folder).risk(KEY)
        assert (caught.value.code, caught.value.retryable) == ("voice_uncertain", False)
        purchases.risk(OTHER)
        purchases.keep(KEY, {})
        assert purchases.tries(KEY) == 0

    def test_what_cost_nothing_is_taken_back_and_no_more(self, purchases: Purchases) -> None:
        first, second = purchases.risk(KEY), purchases.risk(KEY)
        purchases.spared(KEY, first)
        purchases.spared(KEY, first)
        assert purchases.tries(KEY) == 1
        purchases.spared(KEY, second)
        assert purchases.tries(KEY) == 0

    @settings(deadline=None)
    @given(st.lists(st.sampled_from(["risk", "spared"]), max_size=12))
    def test_no_more_doubts_than_allowed_in_any_order(self, tmp_path_factory, steps: list[str]) -> None:
        purchases = Purchases(tmp_path_factory.mktemp("voices"))
        doubts: list[str] = []
        for step in steps:
            if step == "spared" and doubts:
                purchases.spared(KEY, doubts.pop(0))
            elif step == "risk" and len(doubts) == MOST_TRIES:
                with pytest.raises(VoiceError):
                    purchases.risk(KEY)
            elif step == "risk":
                doubts.append(purchases.risk(KEY))
            assert purchases.tries(KEY) == len(doubts)

    def test_one_at_a_time_has_a_key_over_threads_and_processes(self, purchases: Purchases) -> None:
        code = (
            "import sys; from pathlib import Path; from crosscut.voices.purchases import Purchases\n"
            "with Purchases(Path(sys.argv[1])).locked(sys.argv[2]):\n"
            "    print('held', flush=True); sys.stdin.readline()\n"
        )
        held = threading.Event()

        def hold() -> None:
            with purchases.locked(KEY):
                held.set()

        child = python(code, purchases.folder, KEY)
        assert child.stdout.readline() == "held\n"
        waiter = threading.Thread(target=hold)
        waiter.start()
        assert not held.wait(0.3)
        with purchases.locked(OTHER):
            pass
        child.kill()
        child.communicate()
        assert held.wait(5)
        waiter.join()

    def test_a_purchase_is_whole_or_not_there(self, purchases: Purchases, monkeypatch) -> None:
        def fails(_: int) -> None:
            raise OSError(28, "no space left on device")

        monkeypatch.setattr(os, "fsync", fails)
        with pytest.raises(StorageError) as caught:
            purchases.keep(KEY, {"sound": "x" * 1_000})
        assert caught.value.code == "disk_full"
        monkeypatch.undo()
        assert not purchases.owns(KEY)
        assert [path for path in purchases.folder.rglob("*") if path.is_file() and path.name != "lock"] == []

    def test_the_bytes_and_the_name_are_on_the_disk_when_it_is_kept(self, purchases: Purchases, monkeypatch) -> None:
        synced: list[str] = []
        fsync = os.fsync

        def noted(descriptor: int) -> None:
            synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name[:5])
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", noted)
        purchases.keep(KEY, {})
        assert synced == [".new-", KEY[:2]]

    def test_a_folder_that_cannot_be_written_is_a_storage_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        purchases = Purchases(tmp_path / "file")
        for action in (purchases.risk, lambda key: purchases.keep(key, {})):
            with pytest.raises(StorageError):
                action(KEY)

    @pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
    def test_an_answer_that_cannot_be_read_is_as_none_and_bought_anew(self, purchases: Purchases, data: bytes) -> None:
        purchases.keep(KEY, {})
        (purchases.folder / "bought" / KEY[:2] / f"{KEY}.json").write_bytes(data)
        assert purchases.find(KEY) is None
        assert purchases.keep(KEY, {"new": 1}) == purchases.find(KEY) == {"new": 1}

    def test_of_two_answers_the_first_stays(self, purchases: Purchases) -> None:
        assert purchases.keep(KEY, {"n": 1}) == {"n": 1}
        assert purchases.keep(KEY, {"n": 2}) == {"n": 1}

    def test_doubts_that_were_noted_as_a_number_count(self, purchases: Purchases) -> None:
        (purchases.folder / "tries").mkdir(parents=True)
        (purchases.folder / "tries" / f"{KEY}.json").write_text("1")
        purchases.risk(KEY)
        with pytest.raises(VoiceError):
            purchases.risk(KEY)


class TestTogether:
    """Machines that buy together over a database, each with a folder of its own."""

    @pytest.fixture
    def database(self, postgres: str) -> Iterator[Database]:
        with closing(Database(postgres)) as database:
            yield database

    @pytest.fixture
    def machine(self, database: Database, tmp_path: Path) -> Callable[[str], Purchases]:
        return lambda name: Purchases(tmp_path / name, shared_by(database, "voices"), patience=0)

    def test_what_one_has_bought_the_others_have(self, machine) -> None:
        one, other = machine("one"), machine("other")
        one.risk(KEY)
        one.keep(KEY, {"n": 1})
        assert (other.owns(KEY), other.find(KEY), other.tries(KEY)) == (True, {"n": 1}, 0)
        assert other.keep(KEY, {"n": 2}) == {"n": 1}

    def test_two_who_both_believe_to_be_alone_keep_to_the_cap(self, machine) -> None:
        """As after a cut, when one has lost the lock without knowing."""
        one, other, third = machine("one"), machine("other"), machine("third")
        mine, _ = one.risk(KEY), other.risk(KEY)
        with pytest.raises(VoiceError):
            third.risk(KEY)
        one.spared(KEY, mine)
        assert third.tries(KEY) == 1
        third.risk(KEY)
        with pytest.raises(VoiceError):
            one.risk(KEY)

    def test_what_was_bought_while_the_database_was_away_is_kept_and_told_later(self, machine, database) -> None:
        one, other = machine("one"), machine("other")
        one.risk(KEY)
        with database.begin() as db:
            db.execute(text("ALTER TABLE notes RENAME TO away"))
        assert one.keep(KEY, {"n": 1}) == {"n": 1}
        with pytest.raises(StorageError):
            one.risk(OTHER)
        with database.begin() as db:
            db.execute(text("ALTER TABLE away RENAME TO notes"))
        assert (other.owns(KEY), other.tries(KEY)) == (False, 1)
        assert (one.owns(KEY), one.find(KEY)) == (True, {"n": 1})
        assert (other.find(KEY), other.tries(KEY)) == ({"n": 1}, 0)

    def test_a_machine_that_was_alone_hands_on_what_it_has(self, machine, tmp_path: Path) -> None:
        alone = Purchases(tmp_path / "one")
        for number, key in enumerate((KEY, OTHER)):
            alone.keep(key, {"n": number})
        machine("one").tell_others()
        assert [machine("other").find(key) for key in (KEY, OTHER)] == [{"n": 0}, {"n": 1}]


class TestSlots:
    @pytest.fixture
    def now(self) -> list[float]:
        return [1_000_000.0]

    @pytest.fixture
    def slots(self, tmp_path: Path, now: list[float]) -> Slots:
        return Slots(shared_in(tmp_path, lambda: now[0]), "slots")

    def test_it_starts_low_and_learns(self, slots: Slots) -> None:
        assert slots.limit() == FIRST
        slots.learn(5)
        assert Slots(slots.shared, "slots").limit() == 5
        slots.learn(3)
        assert slots.limit() == 3
        slots.learn(10**6)
        assert slots.limit() == MOST
        slots.learn(0)
        assert slots.limit() == 1

    def test_what_proved_too_high_is_not_believed_again_at_once(self, slots: Slots, now: list[float]) -> None:
        slots.learn(5)
        slots.lower(5)
        assert slots.limit() == 4
        slots.learn(5)
        assert slots.limit() == 4
        now[0] += LOWERED_SECONDS
        slots.learn(5)
        assert slots.limit() == 5

    def test_many_who_find_out_at_once_lower_it_once_and_never_below_one(self, slots: Slots) -> None:
        slots.learn(5)
        for _ in range(4):
            slots.lower(5)
        assert slots.limit() == 4
        for seen in (4, 3, 2, 1, 1):
            slots.lower(seen)
        assert slots.limit() == 1

    def test_no_more_hold_one_than_the_limit(self, slots: Slots) -> None:
        slots.learn(3)
        lock, now, most = threading.Lock(), [0], [0]

        def work() -> None:
            for _ in range(4):
                with slots.taken():
                    with lock:
                        now[0] += 1
                        most[0] = max(most[0], now[0])
                    time.sleep(0.005)
                    with lock:
                        now[0] -= 1

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == [3]

    def test_those_above_a_lowered_limit_still_count(self, slots: Slots) -> None:
        slots.learn(3)
        taken = [slots.taken() for _ in range(3)]
        assert [slot.__enter__() for slot in taken] == [3, 3, 3]
        slots.lower(3)
        slots.lower(2)
        assert slots.limit() == 1
        for slot in taken[:2]:
            slot.__exit__(None, None, None)
            assert slots.shared.holds.slot("slots", slots.limit()) is None
        taken[2].__exit__(None, None, None)
        with slots.taken() as limit:
            assert limit == 1
            assert slots.shared.holds.slot("slots", slots.limit()) is None

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"limit": "many", "lowered": 0}', '{"limit": null}', "7"])
    def test_a_damaged_note_is_as_none(self, slots: Slots, text: str) -> None:
        slots.learn(5)
        slots.shared.notes.put("slots/limit.json", text)
        assert slots.limit() == FIRST
        slots.learn(4)
        assert slots.limit() == 4
