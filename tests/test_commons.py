"""What machines share, in files and in a database: both pass the same contracts, over many processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text, update

import commons_play
from contracts.commons import HoldsContract, HoldsOfManyContract, NotesContract, NotesOfManyContract, wait_until
from crosscut.commons import Inherited
from crosscut.errors import StorageError
from crosscut.files import FileNotes, shared_in
from crosscut.store.clock import now
from crosscut.store.database import Database
from crosscut.store.holds import MARGIN
from crosscut.store.schema import holds
from crosscut.store.shared import StoredCounts, _wait, commons_of, shared_by


@pytest.fixture
def database(where):
    database = Database(where)
    yield database
    database.close()


@pytest.fixture
def elsewhere(where):
    """Starts another process over the same."""
    started = []

    def start(action, name):
        command = [sys.executable, commons_play.__file__, where, action, name]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


class Files:
    @pytest.fixture(params=["files", "hashed"])
    def where(self, request, tmp_path):
        return f"{request.param}:{tmp_path / 'shared'}"

    @pytest.fixture
    def opened(self, where):
        with commons_play.opened(where) as shared:
            yield lambda: replace(shared)


class Postgres:
    @pytest.fixture
    def where(self, postgres):
        return postgres

    @pytest.fixture
    def opened(self, database):
        return lambda: shared_by(database, "play")


class Sqlite:
    """One process owns its file."""

    @pytest.fixture
    def where(self, tmp_path):
        return f"sqlite:///{tmp_path / 'state.sqlite'}"

    @pytest.fixture
    def opened(self, database):
        return lambda: shared_by(database, "play")


class TestFileNotes(Files, NotesOfManyContract):
    pass


class TestStoredNotes(Postgres, NotesOfManyContract):
    def test_each_purpose_has_notes_of_its_own(self, database):
        one, other = (shared_by(database, area).notes for area in ("voices", "drive"))
        one.put("a", "1")
        assert other.get("a") is None


class TestSqliteNotes(Sqlite, NotesContract):
    pass


class TestFileHolds(Files, HoldsOfManyContract):
    pass


class TestStoredHolds(Postgres, HoldsOfManyContract):
    lease = commons_play.LEASE

    @pytest.fixture
    def two(self, database):
        return [shared_by(database, "play", self.lease).holds for _ in range(2)]

    def test_a_hold_that_was_lost_is_not_taken_back(self, database, opened, two):
        """As after a long halt: others have it by now."""
        one, other = two[0], opened().holds
        lost = one.lock("a")
        with database.begin() as db:
            db.execute(update(holds).values(until=0.0))
        taken = other.lock("a")
        assert taken is not None
        time.sleep(self.lease)
        assert one.lock("a") is None
        lost.release()
        assert one.lock("a") is None, "who lost it gives nothing back that is another's"
        taken.release()
        one.lock("a").release()

    def test_a_hold_that_is_about_to_end_is_left_to_end(self, database, opened, two):
        """Somebody may be taking it at that very moment."""
        one, other = two[0], opened().holds
        hold = one.lock("a")
        margin = self.lease * MARGIN
        soon = update(holds).values(until=now() + margin * 0.9)
        with database.begin() as db:
            db.execute(soon)
        end = time.monotonic() + self.lease
        while time.monotonic() < end:  # which stays what it is where it was renewed nevertheless
            with database.begin() as db:
                db.execute(soon.where(holds.c.until < now() + margin))
            time.sleep(margin / 10)
        time.sleep(margin)
        taken = other.lock("a")
        assert taken is not None
        taken.release()
        hold.release()

    def test_connections_that_break_cost_no_hold(self, database, two):
        one, other = two
        hold = one.lock("a")
        end = time.monotonic() + 2 * self.lease
        while time.monotonic() < end:
            with database.begin() as db:
                db.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                                " WHERE pid <> pg_backend_pid() AND query LIKE '%holds%'"))  # fmt: skip
            time.sleep(0.05)
        assert other.lock("a") is None
        hold.release()

    def test_nothing_is_renewed_when_nothing_is_held(self, opened):
        one = opened().holds
        for _ in range(3):
            one.lock("a").release()
        wait_until(lambda: not any(thread.name == "holds" for thread in threading.enumerate()))

    def test_what_cannot_be_given_back_runs_out_without_an_error(self, where):
        database = Database(where)
        hold = shared_by(database, "play", self.lease).holds.lock("a")
        broken = Database(where)
        hold.holds._database = broken
        with broken.begin() as db:
            db.execute(text("ALTER TABLE holds RENAME TO away"))
        hold.release()
        with broken.begin() as db:
            db.execute(text("ALTER TABLE away RENAME TO holds"))
        wait_until(lambda: shared_by(database, "play").holds.lock("a"))
        database.close()
        broken.close()


class TestSqliteHolds(Sqlite, HoldsContract):
    pass


class TestCounts:
    @pytest.fixture(params=["sqlite", "postgres"])
    def where(self, request, tmp_path):
        return f"sqlite:///{tmp_path / 's'}" if request.param == "sqlite" else request.getfixturevalue("postgres")

    def test_no_more_than_allowed_are_let_in_over_all_who_count(self, database):
        with ThreadPoolExecutor(8) as pool:
            told = list(pool.map(lambda _: StoredCounts(database, 1000.0).hit("me", 20), range(40)))
        assert sum(one.allowed for one in told) == 20
        assert sorted(one.left for one in told if one.allowed) == list(range(20))
        assert {one.left for one in told if not one.allowed} == {0}
        assert StoredCounts(database).hit("you", 20).left == 19

    def test_after_the_wait_one_more_is_let_in(self, database):
        counts = StoredCounts(database, 1.0)
        while counts.hit("me", 5).allowed:
            pass
        refused = counts.hit("me", 5)
        assert 0 < refused.wait <= 2
        time.sleep(refused.wait + 0.01)
        assert counts.hit("me", 5).allowed

    def test_who_asks_no_more_is_forgotten(self, database):
        counts = StoredCounts(database, 0.05)
        for name in "abc":
            counts.hit(name, 5)
        time.sleep(0.15)
        counts.hit("me", 5)
        with database.begin() as db:
            assert db.execute(text("SELECT count(*) FROM counts")).scalar() == 1


@given(st.integers(0, 50), st.integers(0, 50), st.floats(0, 0.999), st.integers(0, 50))
def test_the_wait_is_until_there_is_room_and_no_longer(previous, current, into, room):
    wait = _wait(previous, current, into, room)

    def weighted(after):
        moment = into + after
        if moment <= 1:
            return previous * (1 - moment) + current
        return current * max(0.0, 2 - moment)

    assert weighted(wait) <= room + 1e-6
    if wait > 1e-6:
        assert weighted(wait - 1e-6) > room - 1e-3


def test_machines_tell_the_time_alike(postgres):
    databases = [Database(postgres) for _ in range(2)]
    one, other = (shared_by(database, "play").clock() for database in databases)
    assert abs(one - other) < 1
    assert abs(one - time.time()) < 5
    for database in databases:
        database.close()


class TestInherited:
    def test_what_one_machine_had_noted_goes_on(self, tmp_path):
        before, after = FileNotes(tmp_path / "before"), FileNotes(tmp_path / "after")
        notes = Inherited(after, before)
        before.put("secret", "old")
        assert notes.has("secret")
        assert notes.put_once("secret", "new") == "old"
        assert after.get("secret") == "old"
        notes.put("secret", "newer")
        assert (notes.get("secret"), before.get("secret")) == ("newer", "old")
        notes.forget("secret")
        assert notes.get("secret") is None
        assert notes.put_once("other", "1") == "1"


def test_a_cluster_goes_on_with_what_its_first_machine_was(postgres, tmp_path):
    database = Database(postgres)
    shared_in(tmp_path).notes.put("webhook-secret", "whsec_old\n")
    commons = commons_of(database, FileNotes(tmp_path))
    assert commons.own.get("webhook-secret") == "whsec_old\n"
    assert commons_of(database, FileNotes(Path("/nowhere"))).own.get("webhook-secret") == "whsec_old\n"
    database.close()


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    shared = shared_in(tmp_path / "file")
    for action in (
        lambda: shared.notes.put("a", "1"),
        lambda: shared.notes.put_once("a", "1"),
        lambda: shared.holds.lock("a"),
        lambda: shared.holds.slot("a", 1),
    ):
        with pytest.raises(StorageError):
            action()
