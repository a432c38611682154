"""The durable state machine: every rule on SQLite and, where a server answers, on PostgreSQL."""

from __future__ import annotations

import itertools
import json
import os
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, select, text
from sqlalchemy.exc import OperationalError

from crosscut.service import _waiting
from crosscut.status import summary
from crosscut.store import Store, reading
from crosscut.store.schema import jobs, needs, outputs, slots, totals, work
from crosscut.units import Failure, Outcome, Output, Spent
from store_play import Clock, Play, body, broken, leased, options, submission

POSTGRES = os.environ.get("CROSSCUT_TEST_POSTGRES", "postgresql+psycopg://root@127.0.0.1:5432/test")


def _postgres_answers() -> bool:
    engine = create_engine(POSTGRES, connect_args={"connect_timeout": 2})
    try:
        with engine.connect():
            return True
    except OperationalError:
        return False
    finally:
        engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'state.sqlite'}"
        return
    if not _postgres_answers():
        pytest.skip("no PostgreSQL at CROSSCUT_TEST_POSTGRES")
    schema = f"t{uuid.uuid4().hex}"
    engine = create_engine(POSTGRES)
    with engine.begin() as db:
        db.execute(text(f"CREATE SCHEMA {schema}"))
    yield f"{POSTGRES}?options=-csearch_path%3D{schema}"
    with engine.begin() as db:
        db.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(url, clock):
    store = Store(url, options(), clock)
    yield store
    store.close()


def _row(store, job):
    return store.whole(job, None)


def _indexes(store, job):
    return [one.index for one in store.outputs(job, 0, 10**6)]


def _nothing_left(store):
    with store.database.begin() as db:
        left = list(db.execute(select(work.c.kind, work.c.state)))
    return left == []


def _settled(store, job, total, *, failed=0):
    row = _row(store, job)
    assert (row.phase, row.ok + row.failed + row.doomed) == ("ended", total)
    assert row.failed + row.doomed == failed
    with store.database.begin() as db:
        good = len(
            list(db.execute(select(outputs.c.variation).where(outputs.c.job == row.seq, outputs.c.error.is_(None))))
        )
    assert good == row.ok
    assert _nothing_left(store)


def test_a_job_goes_through_all_its_stages(store):
    job = store.submit(submission(body(3, 2, text_to_speech=[{"text": "hello"}]))).id
    play = Play(store)
    play.run()
    assert _row(store, job).state == "done"
    assert _indexes(store, job) == [1, 2, 3, 4, 5, 6]
    kinds = [kind for kind, _ in play.done]
    assert [kinds.count(kind) for kind in ("source", "speech", "plan", "segment", "manifest")] == [5, 1, 1, 5, 1]
    assert kinds.index("plan") > kinds.index("speech")
    assert kinds[-1] == "manifest"
    spent = json.loads(_row(store, job).spent)
    assert spent["conform"] == [5, 10.0]
    _settled(store, job, 6)


def test_a_variation_is_made_as_soon_as_its_own_clips_are_ready(store):
    store.submit(submission(body(10, 10)))
    play = Play(store)
    play.run()
    kinds = [kind for kind, _ in play.done]
    assert kinds.index("batch") == kinds.index("segment") + 2


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), batch=st.integers(1, 9), formats=st.integers(0, 2))
@settings(max_examples=30, deadline=None)
def test_every_variation_comes_out_once(sizes, batch, formats):
    store = Store("sqlite://", options(batch=batch), Clock())
    more = {"formats": ["9:16", "1:1"][:formats]} if formats else {}
    job = store.submit(submission(body(*sizes, **more))).id
    made = []
    play = Play(store, trouble=lambda unit: made.extend(unit.payload["indexes"]) if unit.kind == "batch" else None)
    play.run()
    total = _row(store, job).total
    assert sorted(made) == list(range(1, total + 1))
    _settled(store, job, total)
    store.close()


def test_a_selection_comes_out_whole(store):
    job = store.submit(submission(body(5, 5, 5, select={"count": 23}))).id
    Play(store).run()
    assert _indexes(store, job) == list(range(1, 24))


def test_clips_that_need_nothing_open_their_boxes_at_once(store):
    job = store.submit(submission(body(4, 3))).id
    play = Play(store, copied=True)
    play.run()
    assert not [kind for kind, _ in play.done if kind == "segment"]
    _settled(store, job, 12)


def _unit_in_hand(play, kind="batch"):
    for _ in range(100):
        play.settle()
        unit = play.lease("processor") or play.lease("network")
        if unit and unit.kind == kind:
            return unit
        if unit:
            play.store.finish(unit.id, unit.attempt, play.work(unit))
    raise AssertionError(f"no {kind} comes")


# Failures


def test_a_source_that_cannot_be_had_costs_only_its_variations(store):
    job = store.submit(submission(body(3, 2))).id
    bad = "https://example.com/task-0-1.mp4"
    Play(store, trouble=lambda u: Outcome(failure=broken()) if u.payload.get("source") == bad else None).run()
    row = _row(store, job)
    assert (row.state, row.ok, row.doomed) == ("done", 4, 2)
    assert json.loads(row.errors)["doomed"] == {"it is not_found": 2}
    _settled(store, job, 6, failed=2)


def test_a_segment_that_cannot_be_made_costs_only_its_variations(store):
    job = store.submit(submission(body(3, 2))).id
    bad = "https://example.com/task-1-0.mp4"

    def trouble(unit):
        return Outcome(failure=broken("damaged")) if unit.kind == "segment" and unit.payload["source"] == bad else None

    Play(store, trouble=trouble).run()
    _settled(store, job, 6, failed=3)


def test_a_job_of_which_nothing_can_be_made_has_failed(store):
    job = store.submit(submission(body(2, 2))).id
    Play(store, trouble=lambda u: Outcome(failure=broken()) if u.kind == "source" else None).run()
    assert _row(store, job).state == "failed"
    _settled(store, job, 4, failed=4)


def test_what_can_heal_is_tried_again_later_and_not_for_ever(store, clock):
    job = store.submit(submission(body(1))).id
    tries = []

    def trouble(unit):
        if unit.kind == "source":
            tries.append(clock.now)
            return Outcome(failure=broken("timeout", retryable=True))
        return None

    play = Play(store, trouble=trouble)
    for _ in range(400):
        play.step()
        clock.now += 1
    pauses = [after - before for before, after in itertools.pairwise(tries)]
    assert len(tries) == 5
    assert pauses == sorted(pauses)
    assert pauses[0] <= 3
    assert _row(store, job).state == "failed"


def test_what_cannot_heal_is_not_tried_again(store):
    store.submit(submission(body(1)))
    play = Play(store, trouble=lambda u: Outcome(failure=broken()) if u.kind == "source" else None)
    play.run()
    assert [kind for kind, _ in play.done].count("source") == 1


def test_a_batch_is_tried_again_for_what_failed_alone(store, clock):
    job = store.submit(submission(body(7))).id
    batches = []

    def trouble(unit):
        if unit.kind != "batch":
            return None
        batches.append(unit.payload["indexes"])
        if len(batches) > 1:
            return None
        indexes = unit.payload["indexes"]
        good = [Output(i, 1, "ab", "cd") for i in indexes[:-2]]
        bad = [Output(indexes[-2], error=broken("busy", retryable=True)), Output(indexes[-1], error=broken("odd"))]
        return Outcome(outputs=(*good, *bad))

    play = Play(store, copied=True, trouble=trouble)
    play.run()
    clock.now += 10
    play.run()
    assert batches == [[1, 2, 3, 4, 5, 6, 7], [6]]
    _settled(store, job, 7, failed=1)


def test_a_destination_that_is_busy_is_left_alone_by_everybody(store, clock):
    first = store.submit(submission(body(6, task="a"), folder="same")).id
    other = store.submit(submission(body(6, task="b"))).id
    seen = []

    def trouble(unit):
        if unit.kind == "batch":
            seen.append((unit.job, clock.now))
            if unit.job == first and clock.now < 1_000_060:
                return Outcome(failure=broken("rate", retryable=True, after=60.0, everyone=True))
        return None

    play = Play(store, copied=True, trouble=trouble)
    play.run()
    assert [job for job, _ in seen].count(first) == 1
    assert _row(store, other).state == "done"
    clock.now += 61
    play.run()
    _settled(store, first, 6)


# Fences: a message may be lost, doubled or late


def test_a_doubled_message_starts_nothing(store):
    store.submit(submission(body(1)))
    play = Play(store)
    play.settle()
    given = leased(store, "network")
    assert store.start(*given, "w1") is not None
    assert store.start(*given, "w2") is None
    assert store.start(*given, "w1") is None


def test_a_late_result_is_thrown_away(store, clock):
    job = store.submit(submission(body(5))).id
    play = Play(store, copied=True)
    unit = _unit_in_hand(play)
    clock.now += 61
    store.reap()
    assert store.beat(unit.id, unit.attempt) is False
    play.run()
    assert store.finish(unit.id, unit.attempt, play.work(unit)) is False
    _settled(store, job, 5)


def test_a_lost_message_is_sent_again(store, clock):
    job = store.submit(submission(body(2))).id
    play = Play(store)
    play.settle()
    assert leased(store, "network") is not None
    assert leased(store, "network") is not None
    clock.now += 61
    store.reap()
    play.run()
    _settled(store, job, 2)


def test_everything_handed_out_is_back_after_a_restart(url, clock):
    store = Store(url, options(), clock)
    job = store.submit(submission(body(3, 3))).id
    play = Play(store)
    for _ in range(4):
        play.step()
    play.lease("network")
    play.lease("processor")
    store.close()
    again = Store(url, options(), clock)
    again.all_back()
    Play(again).run()
    _settled(again, job, 9)
    again.close()


def test_a_dead_worker_costs_what_it_had_in_hand(store):
    job = store.submit(submission(body(4))).id
    play = Play(store)
    play.settle()
    unit = play.lease("network", "victim")
    store.died("victim")
    assert store.finish(unit.id, unit.attempt, play.work(unit)) is False
    play.run()
    _settled(store, job, 4)


def test_a_variation_that_kills_its_workers_is_given_up_alone(store):
    job = store.submit(submission(body(7))).id
    play = Play(store, copied=True)
    deaths = 0
    for _ in range(200):
        play.settle()
        unit = play.lease("processor", "w") or play.lease("network", "w")
        if unit is None:
            break
        if unit.kind == "batch" and 3 in unit.payload["indexes"]:
            deaths += 1
            store.died("w")
        else:
            store.finish(unit.id, unit.attempt, play.work(unit))
    row = _row(store, job)
    assert deaths == 2 + 4
    assert (row.state, row.ok, row.failed) == ("done", 6, 1)
    assert "died" in next(iter(json.loads(row.errors)["made"]))
    _settled(store, job, 7, failed=1)


def test_a_hung_worker_is_named(store, clock):
    store.submit(submission(body(1)))
    play = Play(store)
    play.settle()
    play.lease("network", "sleepy")
    assert store.reap() == []
    clock.now += store.options.allowed("source") + 1
    # Its lease is kept by heartbeats; only its deadline has passed.
    with store.database.begin() as db:
        db.execute(work.update().values(lease=clock.now + 60))
    assert store.reap() == ["sleepy"]


# Several at once


def _together(*calls):
    """Run all at the same moment; what they answered."""
    barrier = threading.Barrier(len(calls))

    def run(call):
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_segments_that_end_at_the_same_moment_open_a_box_each(store):
    job = store.submit(submission(body(8))).id
    play = Play(store)
    first = _unit_in_hand(play, "segment")
    units = [first] + [play.lease("processor", f"w{number}") for number in range(3)]
    assert [unit.kind for unit in units] == ["segment"] * 4
    _together(*(lambda unit=unit: store.finish(unit.id, unit.attempt, play.work(unit)) for unit in units))
    play.run()
    _settled(store, job, 8)


def test_the_same_key_sent_at_the_same_moment_makes_one_job(store):
    wanted = submission(body(2), idempotency_key="k", idempotency_hash="h")
    for number in range(5):
        same = replace(wanted, idempotency_key=f"k{number}")
        answers = _together(*[partial(store.submit, same)] * 4)
        assert len({answer.id for answer in answers}) == 1
        assert [answer.created for answer in answers].count(True) == 1


def test_two_schedulers_hand_out_every_variation_once(store):
    job = store.submit(submission(body(6, 6))).id
    plays = [Play(store, copied=True), Play(store, copied=True)]
    _together(*(play.run for play in plays))
    plays[0].run()
    made = [index for play in plays for kind, what in play.done if kind == "batch" for index in json.loads(what)]
    assert sorted(made) == list(range(1, 37))
    _settled(store, job, 36)


# Sharing and fairness


def test_jobs_share_what_both_need(store):
    first = store.submit(submission(body(3, 3), folder="x")).id
    second = store.submit(submission(body(3, 3), folder="y")).id
    play = Play(store)
    play.run()
    kinds = [kind for kind, _ in play.done]
    assert (kinds.count("source"), kinds.count("segment")) == (6, 6)
    _settled(store, first, 9)
    _settled(store, second, 9)


def test_cancelling_the_first_of_two_sharers_leaves_the_second_whole(store):
    first = store.submit(submission(body(3, 3), folder="x")).id
    second = store.submit(submission(body(3, 3), folder="y")).id
    play = Play(store)
    for _ in range(3):
        play.step()
    store.cancel(first)
    play.run()
    assert _row(store, first).state == "cancelled"
    assert (_row(store, second).phase, _row(store, second).ok) == ("ended", 9)


def test_a_piece_that_failed_for_one_job_is_tried_anew_for_the_next(store):
    first = store.submit(submission(body(2), folder="x")).id
    Play(store, trouble=lambda u: Outcome(failure=broken()) if u.kind == "source" else None).run()
    second = store.submit(submission(body(2), folder="y")).id
    Play(store).run()
    assert _row(store, first).state == "failed"
    _settled(store, second, 2)


def test_a_small_job_does_not_wait_behind_a_large_one(store):
    large = store.submit(submission(body(30, 30, task="large"))).id
    play = Play(store)
    for _ in range(60):
        play.step()
    small = store.submit(submission(body(2, 2, task="small"))).id
    for _ in range(25):
        play.step()
    assert _row(store, small).state == "done"
    assert _row(store, large).state == "running"


def test_owners_are_let_in_in_turn(url, clock):
    store = Store(url, options(admitted=2), clock)
    for number in range(5):
        store.submit(submission(body(1, task=f"a{number}"), owner="greedy"))
    late = store.submit(submission(body(1, task="b"), owner="modest")).id
    store.admit()
    assert _row(store, late).phase == "gather"
    Play(store).run()
    assert _row(store, late).state == "done"
    store.close()


def test_two_jobs_into_one_place_follow_each_other(store):
    first = store.submit(submission(body(9, task="one"), folder="same")).id
    second = store.submit(submission(body(9, task="two"), folder="same")).id
    play = Play(store, copied=True)
    play.run()
    batches = [json.loads(what) for kind, what in play.done if kind == "batch"]
    assert len(batches) == 4
    assert _row(store, first).ended <= _row(store, second).ended
    _settled(store, second, 9)


def test_earlier_outputs_of_the_same_place_are_found(store):
    store.submit(submission(body(3), folder="same"))
    Play(store, copied=True).run()
    second = store.submit(submission(body(3), folder="same")).id
    assert sorted(store.earlier(second, [1, 2, 3, 4])) == [1, 2, 3]
    Play(store, copied=True).run()
    store.supersede(second)
    assert store.earlier(second, [1, 2, 3]) == {}


def test_what_a_smaller_job_does_not_make_anew_stays_known(store):
    first = store.submit(submission(body(5), folder="same")).id
    Play(store, copied=True).run()
    second = store.submit(submission(body(2), folder="same")).id
    Play(store, copied=True).run()
    store.supersede(second)
    third = store.submit(submission(body(5), folder="same")).id
    assert sorted(store.earlier(third, [1, 2, 3, 4, 5])) == [1, 2, 3, 4, 5]
    assert store.owned(first, None) is not None


def test_what_was_made_of_a_clip_that_is_gone_may_be_kept(store):
    store.submit(submission(body(3, 2), folder="same"))
    Play(store, copied=True).run()
    second = store.submit(submission(body(3, 2), folder="same")).id
    bad = "https://example.com/task-0-1.mp4"
    asked = []

    def trouble(unit):
        if unit.payload.get("source") == bad:
            return Outcome(failure=broken())
        if unit.kind == "batch":
            asked.extend(unit.payload["indexes"])
            kept = {i: Output(i, 1, "ab", "cd", kept=True) for i in unit.payload["indexes"]}
            return Outcome(outputs=tuple({**kept, 4: Output(4, error=broken())}[i] for i in kept))
        return None

    Play(store, copied=True, trouble=trouble).run()
    assert sorted(asked) == [1, 2, 3, 4, 5, 6]
    row = _row(store, second)
    assert (row.ok, row.kept, row.failed, row.doomed) == (5, 5, 1, 0)
    _settled(store, second, 6, failed=1)


def test_a_slow_job_leaves_something_to_the_next(url, clock):
    store = Store(url, options(downloads=3), clock)
    store.submit(submission(body(9, task="slow")))
    store.admit()
    in_hand = [leased(store, "network") for _ in range(5)]
    assert in_hand.count(None) == 2
    late = store.submit(submission(body(1, task="late"))).id
    store.admit()
    unit = store.start(*leased(store, "network"), "w")
    assert unit.job == late
    store.close()


def test_one_look_hands_out_in_turn_between_jobs_and_as_many_as_there_is_room_for(store):
    jobs_in = [store.submit(submission(body(4, task=str(task)))).id for task in range(2)]
    store.admit()
    asked = []

    def room(*out):
        asked.append(out)
        return 5

    given = store.lease("network", room)
    assert (asked, len(given), len(set(given))) == ([(0, 0)], 5, 5)
    assert [store.start(*one, "w").job for one in given] == [*jobs_in, *jobs_in, jobs_in[0]]
    given = store.lease("network", room)
    assert (asked[1:], len(given)) == ([(0, 5)], 3)
    assert [store.start(*one, "w").job for one in given] == [jobs_in[1], jobs_in[0], jobs_in[1]]
    assert store.lease("network", room) == []
    assert store.lease("network", lambda *_: 0) == []


def test_who_has_nothing_inside_never_waits_for_others(url, clock):
    store = Store(url, options(admitted=1), clock)
    for number in range(3):
        store.submit(submission(body(1, task=f"a{number}"), owner="greedy"))
    store.admit()
    late = store.submit(submission(body(1, task="b"), owner="modest")).id
    store.admit()
    assert _row(store, late).phase == "gather"
    store.close()


def test_only_the_holder_of_a_place_writes_there(store):
    first = store.submit(submission(body(9, task="one"), folder="same")).id
    play = Play(store, copied=True)
    unit = _unit_in_hand(play)
    store.cancel(first)
    store.finish(unit.id, unit.attempt, Outcome(outputs=(Output(1, 1, "ab", "cd"),)))
    second = store.submit(submission(body(9, task="two"), folder="same")).id
    play.run()
    assert (_row(store, first).phase, _row(store, second).state) == ("ended", "done")
    # Tried again while another job writes there: it waits.
    third = store.submit(submission(body(9, task="three"), folder="same")).id
    held = _unit_in_hand(play)
    assert held.job == third
    store.retry(first)
    for _ in range(5):
        play.settle()
        other = play.lease("processor", "w2")
        if other is None or other.kind in ("batch", "manifest"):
            break
        store.finish(other.id, other.attempt, play.work(other))
    assert other is None or other.job == third
    store.finish(held.id, held.attempt, play.work(held))
    if other:
        store.finish(other.id, other.attempt, play.work(other))
    play.run()
    assert (_row(store, first).ok, _row(store, third).ok) == (9, 9)


def test_a_job_that_is_cancelled_before_it_made_anything_writes_nothing(store):
    first = store.submit(submission(body(9, task="one"), folder="same")).id
    play = Play(store, copied=True)
    unit = _unit_in_hand(play)
    second = store.submit(submission(body(9, task="two"), folder="same")).id
    for _ in range(4):
        play.step()
    store.cancel(second)
    play.settle()
    assert (_row(store, second).phase, _row(store, second).state) == ("ended", "cancelled")
    store.finish(unit.id, unit.attempt, play.work(unit))
    play.run()
    assert ("manifest", "null") in play.done
    assert [kind for kind, _ in play.done].count("manifest") == 1
    _settled(store, first, 9)


def test_a_place_is_free_when_its_job_is_deleted(store):
    job = store.submit(submission(body(9))).id
    _unit_in_hand(Play(store, copied=True))
    assert store.holders() == {job}
    store.remove(job)
    assert store.holders() == set()


# What owners do


def test_the_same_key_gives_the_same_job(store):
    wanted = submission(body(2), idempotency_key="k", idempotency_hash="h")
    first, again = store.submit(wanted), store.submit(wanted)
    assert (again.id, again.created, again.same) == (first.id, False, True)
    other = store.submit(submission(body(3), idempotency_key="k", idempotency_hash="other"))
    assert (other.id, other.same) == (first.id, False)
    somebody = store.submit(submission(body(2), idempotency_key="k", idempotency_hash="h", owner="somebody"))
    assert somebody.created


@pytest.mark.parametrize("steps", [0, 1, 2, 4, 6, 9])
def test_a_cancelled_job_comes_to_rest_and_can_be_taken_up_again(store, steps):
    job = store.submit(submission(body(3, 3))).id
    play = Play(store)
    for _ in range(steps):
        play.step()
    assert store.cancel(job)
    assert _row(store, job).state == "cancelled"
    done = len(play.done)
    play.run()
    assert {kind for kind, _ in play.done[done:]} <= {"manifest"}
    kept = _indexes(store, job)
    assert _row(store, job).phase == "ended"
    answer = store.retry(job)
    assert answer["variations"] == 9 - len(kept)
    again = Play(store)
    again.run()
    made = [index for kind, what in again.done if kind == "batch" for index in json.loads(what)]
    assert sorted(made + kept) == list(range(1, 10))
    _settled(store, job, 9)


def test_a_running_batch_of_a_cancelled_job_hands_in_what_it_made(store):
    job = store.submit(submission(body(7))).id
    play = Play(store, copied=True)
    unit = _unit_in_hand(play)
    store.cancel(job)
    assert store.beat(unit.id, unit.attempt) is False
    assert store.finish(unit.id, unit.attempt, Outcome(outputs=(Output(1, 1, "ab", "cd"), Output(2, 1, "ab", "cd"))))
    play.run()
    assert (_row(store, job).phase, _row(store, job).ok) == ("ended", 2)
    store.retry(job)
    play.run()
    _settled(store, job, 7)


def test_a_plan_that_was_under_way_when_its_job_was_cancelled_is_forgotten(store):
    job = store.submit(submission(body(2))).id
    play = Play(store)
    unit = _unit_in_hand(play, "plan")
    store.cancel(job)
    assert store.beat(unit.id, unit.attempt) is False
    assert store.finish(unit.id, unit.attempt, play.work(unit)) is False
    play.settle()
    assert (_row(store, job).phase, _row(store, job).plan) == ("ended", None)
    store.retry(job)
    Play(store).run()
    _settled(store, job, 2)


def test_an_extension_that_cannot_be_planned_leaves_the_rest_whole(store):
    job = store.submit(submission(body(2, 2))).id
    Play(store).run()
    store.extend(job, _row(store, job).edition, {"video_blocks": {"b0": ["https://example.com/new.mp4"]}}, 6)
    Play(store, trouble=lambda u: Outcome(failure=broken()) if u.kind == "plan" else None).run()
    row = _row(store, job)
    assert (row.state, row.ok, row.doomed, row.planned) == ("done", 4, 2, 0)
    _settled(store, job, 6, failed=2)
    store.retry(job)
    Play(store).run()
    assert _row(store, job).planned == 1
    _settled(store, job, 6)


def test_what_is_waited_for_and_nobody_makes_is_queued_again(store):
    job = store.submit(submission(body(2, 2))).id
    play = Play(store)
    play.settle()
    with store.database.begin() as db:
        db.execute(work.delete())
    store.reap()
    while "segment" not in {kind for kind, _ in play.done}:
        play.step()
    with store.database.begin() as db:
        db.execute(work.delete().where(work.c.kind == "segment"))
    store.reap()
    play.run()
    _settled(store, job, 4)


def test_jobs_of_a_process_that_is_gone_are_given_up_and_what_they_made_is_known(store):
    first = store.submit(submission(body(9), folder="same")).id
    unit = _unit_in_hand(Play(store, copied=True))
    store.finish(unit.id, unit.attempt, Outcome(outputs=(Output(1, 1, "ab", "cd"),)))
    store.abandon()
    second = store.submit(submission(body(9), folder="same")).id
    assert list(store.earlier(second, [1, 2])) == [1]
    Play(store, copied=True).run()
    assert (_row(store, first).state, _row(store, second).ok) == ("cancelled", 9)


def test_retry_does_only_what_failed(store):
    job = store.submit(submission(body(3, 3))).id
    bad = "https://example.com/task-0-1.mp4"
    Play(store, trouble=lambda u: Outcome(failure=broken()) if u.payload.get("source") == bad else None).run()
    _settled(store, job, 9, failed=3)
    assert store.retry(job) == {"variations": 3, "preparations": 1}
    again = Play(store)
    again.run()
    assert [kind for kind, _ in again.done].count("source") == 1
    assert [kind for kind, _ in again.done].count("segment") == 1
    assert sorted(i for kind, what in again.done if kind == "batch" for i in json.loads(what)) == [4, 5, 6]
    _settled(store, job, 9)


def test_retry_of_failed_outputs(store):
    job = store.submit(submission(body(5))).id

    def trouble(unit):
        if unit.kind != "batch":
            return None
        return Outcome(outputs=tuple(Output(i, error=broken("odd")) for i in unit.payload["indexes"]))

    Play(store, copied=True, trouble=trouble).run()
    _settled(store, job, 5, failed=5)
    store.retry(job)
    Play(store, copied=True).run()
    _settled(store, job, 5)


def test_an_extension_makes_only_what_is_new(store):
    job = store.submit(submission(body(2, 2))).id
    Play(store).run()
    edition = _row(store, job).edition
    addition = {"video_blocks": {"b0": ["https://example.com/new.mp4"]}}
    assert store.extend(job, edition, addition, 6)
    assert not store.extend(job, edition + 1, addition, 6)
    play = Play(store)
    play.run()
    kinds = [kind for kind, _ in play.done]
    assert (kinds.count("source"), kinds.count("segment")) == (1, 1)
    assert [i for kind, what in play.done if kind == "batch" for i in json.loads(what)] == [5, 6]
    _settled(store, job, 6)


def test_a_deleted_job_leaves_nothing(store):
    job = store.submit(submission(body(3, 3))).id
    play = Play(store)
    for _ in range(6):
        play.step()
    unit = play.lease("processor") or play.lease("network")
    store.remove(job)
    assert store.owned(job, None) is None
    assert unit is None or store.beat(unit.id, unit.attempt) is False
    play.run()
    with store.database.begin() as db:
        for table in (jobs, needs, slots, outputs, work):
            assert list(db.execute(select(table))) == []


def test_a_plan_starts_nothing(store):
    job = store.submit(submission(body(2, 2), mode="plan")).id
    play = Play(store)
    play.run()
    assert {kind for kind, _ in play.done} == {"source", "plan"}
    assert (_row(store, job).state, _row(store, job).phase) == ("done", "ended")


def test_a_refused_plan_fails_the_job_before_anything_is_made(store):
    job = store.submit(submission(body(2, 2))).id
    play = Play(store)

    def trouble(unit):
        return Outcome(dict(play._plan(unit).result) | {"refused": "too long"}) if unit.kind == "plan" else None

    play.trouble = trouble
    play.run()
    assert _row(store, job).state == "failed"
    assert json.loads(_row(store, job).errors)["doomed"] == {"too long": 4}


def test_totals_outlive_jobs(store):
    job = store.submit(submission(body(2, 2))).id
    Play(store).run()
    store.remove(job)
    with store.database.begin() as db:
        known = {(row.name, row.label): row.value for row in db.execute(select(totals))}
    assert known["variations", "ok"] == 4
    assert known["meter", "bytes_in"] == 40
    assert known["stage_seconds", "conform"] == 8.0


def _amounts(store):
    return store.read(lambda db: reading.metrics(db, store.clock()))


def test_amounts_tell_what_waits_by_kind_lane_and_state(store, clock):
    store.submit(submission(body(2, 2)))
    Play(store).settle()
    unit, attempt = leased(store, "network")
    assert store.start(unit, attempt, "w1")
    with store.database.begin() as db:
        later = select(work.c.id).where(work.c.state == "ready").limit(1).scalar_subquery()
        db.execute(work.update().where(work.c.id == later).values(not_before=clock.now + 60))
    clock.now += 7
    found = _amounts(store)
    assert found["units"] == {
        ("source", "network", "running"): 1,
        ("source", "network", "later"): 1,
        ("source", "network", "ready"): 2,
    }
    assert found["oldest_seconds"] == {"network": 7.0}
    assert (found["jobs"], found["backlog"]) == ({"running": 1}, 4)


def test_amounts_tell_what_attempts_took_and_why_they_are_made_again(store, clock):
    store.submit(submission(body(1, 1)))
    again = iter(
        [Outcome(failure=broken("slow", retryable=True), meters={"cost": 0.5}, spent={"fetch": Spent(0, 4.0)})]
    )

    def work_for_a_while(unit):
        clock.now += 3 if unit.kind == "source" else 20
        return next(again, None) if unit.kind == "source" else None

    play = Play(store, trouble=work_for_a_while)
    for _ in range(3):
        play.run()
        clock.now += 60
    known = _amounts(store)["totals"]
    assert {
        label: count for label, count in known["unit_count"].items() if label.startswith(("source", "segment"))
    } == {
        "source 5.0": 3,
        "segment 30.0": 2,
    }
    assert (known["unit_seconds"]["source"], known["unit_seconds"]["segment"]) == (9.0, 40.0)
    assert known["retries"] == {"slow": 1}
    assert known["meter"]["cost"] == 0.5
    assert known["stage_seconds"]["fetch"] == 4.0 + 2 * 0.5


def test_amounts_tell_how_units_were_lost(store, clock):
    store.submit(submission(body(2, 2)))
    play = Play(store)
    play.settle()
    held = [leased(store, "network") for _ in range(3)]
    assert all(store.start(*each, f"w{number}") for number, each in enumerate(held))
    store.died("w0")
    clock.now += 61
    store.reap()
    assert not store.finish(*held[1], Outcome())
    assert _amounts(store)["totals"]["units"] == {"crashed": 1, "expired": 2, "late": 1}


def test_a_batch_that_is_made_again_tells_why(store, clock):
    store.submit(submission(body(2, 2)))
    once = iter([Outcome(failure=broken("full", retryable=True))])
    play = Play(store, trouble=lambda unit: next(once, None) if unit.kind == "batch" else None)
    for _ in range(3):
        play.run()
        clock.now += 60
    assert _amounts(store)["totals"]["retries"] == {"full": 1}


def test_units_that_older_code_ended_are_folded(store):
    store.submit(submission(body(1, 1)))
    Play(store).settle()
    with store.database.begin() as db:
        db.execute(work.update().values(state="done", done='{"spent": {"fetch": [1, 2.5]}, "meters": {}}'))
    store.advance()
    totals_known = _amounts(store)["totals"]
    assert totals_known["stage_seconds"] == {"fetch": 5.0}
    assert "unit_count" not in totals_known


def test_a_webhook_is_told_of_the_first_failure_and_the_end_once(store):
    job = store.submit(submission(body(2, 2), webhook={"url": "https://example.com/hook"})).id
    bad = "https://example.com/task-0-1.mp4"
    play = Play(store, trouble=lambda u: Outcome(failure=broken()) if u.payload.get("source") == bad else None)
    told = []
    for _ in range(60):
        play.step()
        for who, event in store.unannounced():
            told.append(event)
            store.announce(who, event, {"url": "https://example.com/hook"})
    assert told == ["job.first_failure", "job.ended"]
    assert [kind for kind, _ in play.done].count("webhook") == 2
    _settled(store, job, 4, failed=2)


def test_the_tables_are_what_the_migrations_make(url):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from crosscut.store.schema import metadata

    store = Store(url)
    with store.database.begin() as db:
        assert compare_metadata(MigrationContext.configure(db), metadata) == []
    store.close()


def test_what_is_sent_to_other_machines_waits_in_the_lane_of_the_network(store):
    """A processor that waits for an upload does nothing else."""
    job = store.submit(submission(body(8, 8), remote=True)).id
    play = Play(store)
    batches = []

    def look():
        for lane in ("processor", "network"):
            while unit := play.lease(lane):
                if unit.kind == "batch":
                    assert lane == "network"
                    batches.append(unit)
                else:
                    store.finish(unit.id, unit.attempt, play.work(unit))
        play.settle()

    for _ in range(10):
        look()
    assert len(batches) == store.options.senders
    first = batches[0]
    store.finish(first.id, first.attempt, Outcome(failure=broken(retryable=True)))
    store.clock.now += 60
    look()
    assert batches[-1].payload["indexes"] == first.payload["indexes"]
    row = store.owned(job, None)
    assert summary(row, store.clock.now)["retries"] == len(first.payload["indexes"])
    made = [Output(index, bytes=1000) for index in batches[-1].payload["indexes"]]
    store.finish(batches[-1].id, batches[-1].attempt, Outcome(outputs=made, meters={"bytes_out": 1000 * len(made)}))
    store.advance()
    store.clock.now += 2
    told = summary(store.owned(job, None), store.clock.now)
    assert (told["bytes"], told["bytes_per_second"]) == (1000 * len(made), 500 * len(made))


def test_a_task_whose_place_asks_to_wait_says_so(store):
    job = store.submit(submission(body(1, 1), remote=True)).id
    play = Play(store)
    while (unit := next(filter(None, map(play.lease, ("network", "processor"))), None)) is None or unit.kind != "batch":
        if unit:
            store.finish(unit.id, unit.attempt, play.work(unit))
        play.settle()
    limited = Failure("deliver", "rate_limited", "it is busy", retryable=True, after=30.0, everyone=True)
    store.finish(unit.id, unit.attempt, Outcome(failure=limited))
    store.advance()
    row = store.owned(job, None)
    noted = partial(store.read, lambda db: _waiting(db, row, store.clock.now))
    assert noted() == ["videos asks to wait, or cannot be reached: the task goes on there by itself"]
    store.clock.now += 31
    assert noted() == []
