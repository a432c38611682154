"""What the database says is wrong, as errors of ours; who may work on it."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from crosscut.errors import StorageError
from crosscut.store import Store
from crosscut.store import database as module
from crosscut.store.database import Database
from crosscut.store.turns import Turns
from store_play import Play, body, submission

SECRET = "https://hooks.example/canary-in-the-address"


@pytest.fixture
def sqlite(tmp_path):
    return f"sqlite:///{tmp_path / 'state.sqlite'}"


def test_a_state_of_newer_code_is_left_alone(sqlite):
    database = Database(sqlite)
    with database.begin() as db:
        db.execute(text("UPDATE alembic_version SET version_num = '0099'"))
    database.close()
    with pytest.raises(StorageError, match="newer crosscut: update crosscut") as caught:
        Database(sqlite)
    assert caught.value.code == "newer_state"


def test_several_that_start_together_make_the_tables_once(postgres):
    begun = threading.Barrier(6)

    def start():
        begun.wait()
        return Database(postgres)

    with ThreadPoolExecutor(6) as pool:
        databases = [each.result() for each in [pool.submit(start) for _ in range(6)]]
    with databases[0].begin() as db:
        assert db.scalar(text("SELECT count(*) FROM alembic_version")) == 1
    for database in databases:
        database.close()


def test_code_of_before_goes_on_and_starts_with_tables_of_newer_code(postgres):
    before = Store(postgres, newer=True)
    with before.database.begin() as db:
        db.execute(text("ALTER TABLE jobs ADD COLUMN invented_later TEXT"))
        db.execute(text("UPDATE alembic_version SET version_num = '0099'"))
    started = Store(postgres, newer=True)
    for store in (before, started):
        store.submit(submission(body(1, 1)))
    Play(started).run()
    with before.database.begin() as db:
        assert db.scalars(text("SELECT state FROM jobs")).all() == ["done", "done"]
    for store in (before, started):
        store.close()


def test_a_busy_database_is_worth_another_try(sqlite, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)
    database = Database(sqlite)
    with database.begin(), pytest.raises(StorageError) as caught, database.begin():
        pass
    with database.begin():
        pass
    database.close()
    assert (caught.value.code, caught.value.retryable) == ("database_busy", True)


def test_turns_are_taken_in_order_and_every_other_one_by_who_is_in_haste():
    turns, order, ready = Turns(5.0), [], []

    def wait(name):
        ready.append(name)
        with turns.turn(haste=name.startswith("h")):
            order.append(name)

    names = ["a1", "a2", "h1", "a3", "h2", "h3", "h4"]
    with turns.turn():
        threads = []
        for name in names:
            threads.append(threading.Thread(target=wait, args=(name,)))
            threads[-1].start()
            while sum(map(len, turns._waiting.values())) < len(threads):
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == ["h1", "a1", "h2", "a2", "h3", "a3", "h4"]


def test_who_is_interrupted_while_waiting_keeps_nobody_waiting():
    turns = Turns(5.0)
    with turns.turn():
        interrupt = threading.Timer(0.1, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        interrupt.start()
        with pytest.raises(KeyboardInterrupt), turns.turn():
            pass
    interrupt.join()
    with turns.turn():
        pass


def test_who_gave_up_waiting_keeps_nobody_waiting():
    turns = Turns(0.05)
    with turns.turn(), pytest.raises(TimeoutError), turns.turn():
        pass
    with turns.turn(haste=True):
        pass


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_what_was_asked_is_in_no_error(kind, request):
    database = Database(request.getfixturevalue(kind))
    with pytest.raises(StorageError) as caught, database.begin() as db:
        db.execute(text("SELECT no_such_column FROM jobs WHERE webhook = :url"), {"url": SECRET})
    database.close()
    error = caught.value
    assert "no_such_column" in error.detail
    assert not [each for each in (error, error.__cause__, error.detail) if SECRET in f"{each} {each!r}"]


def test_a_deadlock_is_worth_another_try(postgres):
    database = Database(postgres)
    with database.begin() as db:
        db.execute(text("CREATE TABLE pairs (id INTEGER PRIMARY KEY, n INTEGER)"))
        db.execute(text("INSERT INTO pairs VALUES (1, 0), (2, 0)"))
    halfway = threading.Barrier(2)
    refused = []

    def cross(first, second):
        try:
            with database.begin() as db:
                db.execute(text("UPDATE pairs SET n = n + 1 WHERE id = :id"), {"id": first})
                halfway.wait(20)
                db.execute(text("UPDATE pairs SET n = n + 1 WHERE id = :id"), {"id": second})
        except StorageError as error:
            refused.append((error.code, error.retryable))

    threads = [threading.Thread(target=cross, args=pair) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    database.close()
    assert refused == [("database_busy", True)]


def test_two_engines_do_not_share_a_state(postgres):
    one, two = Database(postgres), Database(postgres)
    with one.owned():
        with pytest.raises(StorageError, match="another crosscut serve works on this database") as caught, two.owned():
            pass
        assert caught.value.code == "state_in_use"
        one.close()
    with two.owned():
        pass
    two.close()


def test_a_file_has_its_owner_elsewhere(sqlite):
    database = Database(sqlite)
    with database.owned(), database.begin() as db:
        assert db.scalar(text("SELECT 1")) == 1
    database.close()
