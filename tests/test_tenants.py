"""Owners who share a server: none keeps another waiting, sees what is another's, or leaves anything behind."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from crosscut.store import Store
from crosscut.store.schema import metadata
from store_play import Clock, Play, body, leased, options, submission

TASKS = 10_000


@pytest.fixture
def store(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'state.sqlite'}", options(), Clock())
    yield store
    store.close()


def test_l01_who_sends_ten_thousand_tasks_keeps_nobody_waiting(store):
    for number in range(TASKS):
        store.submit(submission(body(2, 2, task=f"g{number}"), owner="greedy"))
    store.admit()
    play = Play(store, copied=True)
    for _ in range(4):
        play.lease("network", "busy")
    late = store.submit(submission(body(2, 2, task="late"), owner="modest")).id
    store.admit()
    # Of all units handed out from now on every other one is the late one's, until it has what it needs.
    first = [store.start(*leased(store, "network"), "w") for _ in range(4)]
    assert [unit.job == late for unit in first] == [True] * 4
    for unit in first:
        store.finish(unit.id, unit.attempt, play.work(unit))
    turns = 0
    while store.whole(late, None).phase != "ended":
        play.step()
        turns += 1
        assert turns < 40
    assert store.whole(late, None).state == "done"


def test_l04_of_a_deleted_job_nothing_is_left(store):
    kept = store.submit(submission(body(3, 2, task="kept"))).id
    gone = store.submit(submission(body(3, 2, task="gone"), owner="other")).id
    play = Play(store)
    play.run()
    rows = {table.name: table for table in metadata.sorted_tables}

    def count():
        return {
            name: store.read(lambda db, table=table: db.scalar(select(func.count()).select_from(table)))
            for name, table in rows.items()
        }

    before = count()
    store.remove(gone)
    play.settle()
    after = count()
    assert store.whole(gone, None) is None
    assert store.whole(kept, None).ok == 6
    for name in ("jobs", "documents", "needs", "slots", "boxes", "outputs"):
        assert after[name] * 2 == before[name] > 0, name
    assert (after["work"], after["places"]) == (0, 0)


def test_each_owner_has_a_folder_of_their_own_for_a_task_of_one_name(store):
    def folder(owner, **more):
        job = store.submit(submission(body(1, 1, task="Spring"), owner=owner, **more)).id
        row = store.owned(job, owner)
        return job, row.folder, row.place

    first, *one = folder("ada")
    _, *two = folder("bob")
    assert folder("ada")[1:] == tuple(one), "the same owner goes on in the same folder"
    assert (one[0], two[0], folder("cleo")[1]) == ("Spring", "Spring (2)", "Spring (3)")
    assert one[1] != two[1]
    assert folder("bob", destination="elsewhere")[1] == "Spring"
    assert folder("dora", mode="plan")[1] == "Spring", "a plan writes nothing"
    store.remove(first)
    assert folder("bob")[1:] == tuple(two), "what was delivered is still there"
