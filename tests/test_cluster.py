"""The engine of many machines over real services: the rows of the fault matrix that mean something different there.

Every job is of real clips and ends with exactly the files and rows of an undisturbed run.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import redis

from cluster_play import clustered, services
from crosscut import cluster as module
from crosscut.engine.carrier import TASK, celery_app
from crosscut.errors import RequestError
from crosscut.settings import Settings
from engine_play import SOUND, Fault, body, check_invariants, check_like_undisturbed, check_made, until

LANES = ("network", "processor")


services()


@pytest.fixture(scope="module")
def sea(tmp_path_factory):
    """A server and three workers, for tests that leave them as they were."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SENT_SECONDS", 2.0)
        with clustered(tmp_path_factory.mktemp("sea")) as cluster:
            with cluster.serving() as engine:
                cluster.all_work()
                cluster.ready(engine, 3)
                yield cluster, engine
                cluster.order()
                left = [worker for worker in cluster.workers if worker.process.poll() is None]
                assert [worker.stop() for worker in left] == [0] * len(left)
            check_invariants(cluster.place)


@pytest.fixture
def cluster(sea):
    cluster, _ = sea
    yield cluster
    cluster.order()


@pytest.fixture
def engine(sea):
    return sea[1]


def small(task, **more):
    return body(2, 2, task=task, **SOUND, **more)


def held(cluster, task, kind="batch", at="begin", word="", index=0):
    """A fault that holds the first such unit until `go` of it."""
    mark, release = (str(cluster.place.root / f"{task}.{end}") for end in ("mark", "go"))
    return Fault(kind, "hold", at=at, word=word, index=index, mark=mark, release=release)


def come(engine, job, document, seconds=60.0):
    """Wait for the end of the job, all of which must be there."""
    status = engine.ended(job, seconds)
    assert (status["succeeded"], status["failed"]) == (status["total"], 0), status["errors"]
    check_made(engine.place, document)
    return status


def test_a_job_is_made_over_rabbitmq_as_well(tmp_path):
    document = small("task")
    with clustered(tmp_path, "amqp") as cluster:
        with cluster.serving() as engine:
            assert len(engine.machine.troubles()) == 2
            workers = [cluster.work("network"), cluster.work("processor")]
            come(engine, engine.submit(document), document)
            assert engine.machine.troubles() == []
            assert [worker.stop() for worker in workers] == [0, 0]
        check_like_undisturbed(cluster.place, document)


def test_one_trace_leads_over_all_machines(tmp_path, collector):
    document = small("task")
    trace = "0af7651916cd43dd8448eb211c80319c"
    with clustered(tmp_path, otel_endpoint=collector.url) as cluster:
        with cluster.serving() as engine:
            workers = cluster.all_work()
            with engine.machine.tracer.request(f"00-{trace}-b7ad6b7169203331-01"):
                job = engine.submit(document)
            come(engine, job, document)
            assert [worker.stop() for worker in workers] == [0] * 3
        until(lambda: len(collector.named("deliver")) == 4)
    ours = {span.span_id: span for span in collector.spans if span.trace_id.hex() == trace}
    (told,) = collector.named("job")
    kinds = {span.name for span in ours.values() if span.parent_span_id == told.span_id}
    assert kinds == {"source", "speech", "plan", "segment", "batch", "manifest"}
    for name, unit in (("fetch", "source"), ("conform", "segment"), ("deliver", "batch")):
        assert {ours[span.parent_span_id].name for span in collector.named(name)} <= {unit}
    assert {span.trace_id.hex() for span in collector.spans} == {trace}


def test_row_01_a_killed_worker_process_costs_only_what_it_had_in_hand(cluster, engine):
    """And that is done again at once, not after a lease."""
    mark = cluster.place.root / "row_01.mark"
    cluster.order(Fault("batch", "kill", index=3, mark=str(mark)))
    document = small("row_01")
    job = engine.submit(document)
    come(engine, job, document)
    assert mark.exists()
    assert any(event["event"] == "a worker ended" and event["cause"] == "SIGKILL" for event in cluster.log())


def test_row_04_a_worker_that_is_told_to_end_finishes_or_hands_back(cluster, engine):
    document = small("row_04")
    hold = held(cluster, "row_04", kind="segment", word="c1.mp4")
    cluster.order(hold)
    extra = cluster.work("processor", 4, grace_seconds=1)
    cluster.ready(engine, 4)
    others = [worker for worker in cluster.workers if worker.lane == "processor" and worker is not extra]
    for worker in others:
        os.killpg(worker.pid, signal.SIGSTOP)
    try:
        job = engine.submit(document)
        until(Path(hold.mark).exists)
        start = time.monotonic()
        assert extra.stop() == 0
        assert time.monotonic() - start < 8
        (unit,) = [unit for unit in engine.units(kind="segment") if "c1.mp4" in unit.payload]
        assert (unit.state, unit.crashes) in {("ready", 0), ("queued", 0)}
    finally:
        for worker in others:
            os.killpg(worker.pid, signal.SIGCONT)
    come(engine, job, document)


def test_row_06_what_the_broker_forgot_is_sent_again(cluster, engine):
    document = small("row_06")
    resent = totals(cluster).get("resent", 0)
    client = redis.Redis.from_url(cluster.near_broker)
    hold = held(cluster, "row_06", kind="segment", word="c0.mp4")
    both = held(cluster, "row_06b", kind="segment", word="c1.mp4")
    cluster.order(hold, both)
    queue = cluster.queue(engine, "processor")
    job = engine.submit(document)
    until(lambda: Path(hold.mark).exists() and Path(both.mark).exists())
    until(lambda: client.llen(queue) >= 1)
    client.delete(queue)
    for fault in (hold, both):
        Path(fault.release).touch()
    come(engine, job, document)
    client.close()
    assert totals(cluster).get("resent", 0) > resent


def totals(cluster):
    rows = cluster.place.rows("SELECT label, value FROM totals WHERE name = ?", "units")
    return {row["label"]: row["value"] for row in rows}


@pytest.mark.parametrize("what", ["freeze", "cut"])
def test_row_07_a_broker_that_is_away_costs_only_time(cluster, engine, what):
    document = small(f"row_07_{what}")
    getattr(cluster.messages, what)()
    try:
        job = engine.submit(document)
        if what == "cut":
            until(lambda: "the broker cannot be reached" in engine.machine.troubles())
        else:
            time.sleep(2)
        assert not engine.over(job)
    finally:
        cluster.messages.mend()
    come(engine, job, document)
    assert all(worker.process.poll() is None for worker in cluster.workers[:3])


def test_row_08_messages_that_come_three_times_and_late_change_nothing(cluster, engine):
    document = small("row_08", fps=27)
    app = celery_app(cluster.near_broker)
    over = threading.Event()

    def stammer():
        said = set()
        while not over.wait(0.3):
            rows = cluster.place.rows("SELECT id, attempt, lane FROM work WHERE attempt > 0")
            said |= {tuple(row) for row in rows}
            for unit, attempt, lane in said:
                for _ in range(3):
                    app.send_task(TASK, (unit, attempt), queue=cluster.queue(engine, lane))

    thread = threading.Thread(target=stammer)
    thread.start()
    try:
        status = come(engine, engine.submit(document), document)
    finally:
        over.set()
        thread.join()
    app.close()
    assert status["clips_encoded"] == 4


def test_row_10_a_database_that_falls_and_comes_back_loses_nothing(cluster, engine):
    document = body(3, 3, task="row_10", **SOUND)
    job = engine.submit(document)
    for number in range(4):
        time.sleep(0.4)
        cluster.state.shake()
        if number == 2:
            cluster.state.cut()
            time.sleep(1.5)
            cluster.state.mend()
    come(engine, job, document)
    assert all(worker.process.poll() is None for worker in cluster.workers[:3])


def test_row_13_two_schedulers_with_other_batches_do_not_overlap(cluster, engine):
    document = body(4, 6, task="row_13", encoded=False)
    with cluster.serving(batch=1):
        job = engine.submit(document)
        come(engine, job, document)
    made = [
        event["variation"] for event in cluster.log() if event.get("job") == job and event.get("stage") == "deliver"
    ]
    assert sorted(made) == list(range(1, 25))


def test_row_21_a_cancelled_job_stops_everywhere_within_two_seconds(cluster, engine):
    job = engine.submit(body(16, 16, 16, task="row_21", encoded=False))
    until(lambda: engine.status(job)["succeeded"] > 8)
    engine.machine.service.cancel(job, None)
    time.sleep(2)
    assert engine.units(kind="batch", state="running") == []
    before = len(list((cluster.place.out / "row_21").glob("*.mp4")))
    status = engine.ended(job)
    assert status["state"] == "cancelled"
    assert len(list((cluster.place.out / "row_21").glob("*.mp4"))) == before


def test_row_23_a_small_job_does_not_wait_for_a_large_one(cluster, engine):
    large = engine.submit(body(16, 16, 16, task="row_23_large", encoded=False))
    until(lambda: engine.status(large)["succeeded"] > 8)
    document = body(2, 2, task="row_23", encoded=False)
    job = engine.submit(document)
    engine.ended(job)
    assert not engine.over(large)
    come(engine, job, document)
    engine.machine.service.cancel(large, None)
    engine.ended(large)


def test_row_24_jobs_that_start_together_prepare_each_clip_once(cluster, engine):
    documents = [body(2, 2, task=f"row_24_{name}", fps=29) for name in "ab"]
    jobs = [engine.submit(document) for document in documents]
    statuses = [come(engine, job, document) for job, document in zip(jobs, documents, strict=True)]
    assert sum(status["clips_encoded"] for status in statuses) == 4


SKEWED = "import time; real = time.time; time.time = lambda: real() - 3600"


def test_row_25_a_wrong_clock_changes_nothing(cluster, engine):
    """Its leases would all have run out an hour ago."""
    document = body(3, 4, task="row_25", **SOUND)
    skewed = cluster.work("processor", 4, code=SKEWED)
    until(lambda: cluster.station_of(skewed) in {one.name for one in engine.machine.store.stations() if one.at_once})
    job = engine.submit(document)
    come(engine, job, document)
    events = [event for event in cluster.log() if event.get("job") == job]
    assert {event["attempt"] for event in events} == {1}
    assert cluster.station_of(skewed) in {event["worker"].partition("/")[0] for event in events}
    assert skewed.stop() == 0


OLDER = "import crosscut.units; crosscut.units.VERSION = 0"


def test_row_26_units_of_newer_code_are_left_to_newer_workers(cluster, engine):
    document = body(1, 2, task="row_26", encoded=False)
    for worker in cluster.workers[1:3]:
        os.killpg(worker.pid, signal.SIGSTOP)
    older = cluster.work("processor", 1, code=OLDER)
    try:
        until(lambda: any(one.version == 0 and one.at_once for one in engine.machine.store.stations()))
        job = engine.submit(document)
        until(lambda: any(unit.not_before for unit in engine.units(kind="plan")))
        (unit,) = engine.units(kind="plan", job=job)
        assert unit.state == "ready"
    finally:
        for worker in cluster.workers[1:3]:
            os.killpg(worker.pid, signal.SIGCONT)
    come(engine, job, document)
    assert older.stop() == 0


def test_row_27_what_a_deaf_worker_swallows_is_done_by_others(cluster, engine):
    document = small("row_27")
    resent = totals(cluster).get("resent", 0)
    client = redis.Redis.from_url(cluster.near_broker)
    swallowed = []

    def swallow():
        while len(swallowed) < 2:
            swallowed.extend(filter(None, [client.brpop(cluster.queue(engine, "processor"), 1)]))

    deaf = threading.Thread(target=swallow)
    deaf.start()
    come(engine, engine.submit(document), document)
    deaf.join()
    client.close()
    assert totals(cluster).get("resent", 0) >= resent + 2


# Last: these end the workers that the others used


def test_row_09_a_machine_that_slept_past_its_leases_comes_too_late(cluster, engine):
    document = small("row_09")
    hold = held(cluster, "row_09", at="middle", index=3)
    cluster.order(hold)
    job = engine.submit(document)
    until(Path(hold.mark).exists)
    (unit,) = [unit for unit in engine.units(kind="batch", state="running") if 3 in json.loads(unit.payload)["indexes"]]
    (asleep,) = [
        worker for worker in cluster.workers[:3] if cluster.station_of(worker) == unit.worker.partition("/")[0]
    ]
    os.killpg(asleep.pid, signal.SIGSTOP)
    try:
        until(lambda: engine.units(id=unit.id) == [] or engine.units(id=unit.id)[0].attempt > unit.attempt)
        cluster.order()
        come(engine, job, document)
    finally:
        os.killpg(asleep.pid, signal.SIGCONT)
    Path(hold.release).touch()
    time.sleep(1)
    check_made(cluster.place, document)


def test_row_05_all_workers_are_killed_and_others_take_over(cluster, engine):
    document = small("row_05")
    hold = held(cluster, "row_05", index=3)
    cluster.order(hold)
    job = engine.submit(document)
    until(Path(hold.mark).exists)
    for worker in cluster.workers:
        worker.kill()
    cluster.order()
    cluster.work("network")
    cluster.work("processor")
    come(engine, job, document)


def test_a_machine_that_does_not_share_what_it_must_is_refused(cluster, engine, tmp_path):
    def told(**more):
        with pytest.raises(RequestError) as caught:
            module.work(Settings(_env_file=None, **cluster.chosen(**more)), module.Seats(0, 1))
        return caught.value.public

    assert f"{tmp_path} is not the data folder of the server" in told(data_dir=tmp_path)
    module.notes_of(engine.machine.store).put("destination", str(tmp_path / "videos"))
    assert "a folder that this machine does not share" in told()
    module.notes_of(engine.machine.store).put("destination", str(cluster.place.out))
