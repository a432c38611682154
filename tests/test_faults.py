"""The fault matrix: what may happen to a machine, row by row, and what must hold afterwards (`engine_play`).

Some rows are covered elsewhere too, closer to the part that answers for them:

    row   test
    8     test_store.py::test_a_doubled_message_starts_nothing
    8     test_embedded.py::test_equal_messages_are_done_once
    9     test_embedded.py::test_what_a_paused_worker_hands_in_after_its_lease_is_fenced
    14    test_store.py::test_a_variation_that_kills_its_workers_is_given_up_alone
    15    test_store.py::test_a_hung_worker_is_named
    16    test_store.py::test_a_source_that_cannot_be_had_costs_only_its_variations
    21    test_store.py::test_a_cancelled_job_comes_to_rest_and_can_be_taken_up_again
    21    test_store.py::test_cancelling_the_first_of_two_sharers_leaves_the_second_whole
    22    test_store.py::test_the_same_key_gives_the_same_job
    23    test_store.py::test_a_small_job_does_not_wait_behind_a_large_one
    24    test_store.py::test_jobs_share_what_both_need
    28    test_crew.py::test_a_damaged_piece_is_made_again
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from crosscut.engine import scheduler
from crosscut.engine.embedded import EmbeddedExecutor
from crosscut.errors import StorageError
from crosscut.store import Options, queue
from crosscut.store.schema import work
from crosscut.units import VERSION
from engine_play import (
    SOUND,
    Fault,
    Place,
    Server,
    body,
    check_invariants,
    check_like_undisturbed,
    fill,
    running,
    source,
    stat,
    until,
)

TESTS = Path(__file__).parent
SMALL = body(2, 2, **SOUND)
SERVED = body(3, 3, **SOUND)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_every_row_of_the_table_above_names_a_test():
    named = re.findall(r"^    \d+ +(test_\w+\.py)::(test_\w+)$", __doc__, re.MULTILINE)
    assert len(named) == __doc__.count("::")
    for file, name in named:
        assert f"\ndef {name}(" in (TESTS / file).read_text(), name


# A worker, or all of them


@pytest.mark.parametrize("at", ["begin", "middle"])
def test_row_01_a_killed_worker_costs_only_what_it_had_in_hand(place, at):
    held = Fault("batch", "hold", at=at, index=3, mark=str(place.root / "mark"), release=str(place.root / "go"))
    with running(place, held) as engine:
        job = engine.submit(SMALL)
        until(Path(held.mark).exists)
        unit, pid = engine.worker(3)
        others = {worker.pid for worker in engine.machine.workers()} - {pid}
        os.kill(pid, signal.SIGKILL)
        status = engine.ended(job)
        assert others <= {worker.pid for worker in engine.machine.workers()}
    assert (status["succeeded"], status["failed"]) == (4, 0)
    (death,) = [event for event in engine.events() if event["event"] == "a worker ended"]
    assert (death["cause"], death["units"]) == ("SIGKILL", [unit.id])
    check_like_undisturbed(place, SMALL)


def test_row_02_everything_is_killed_again_and_again_and_nothing_is_lost_or_done_twice(place):
    finished = {}
    with Server(place) as server:
        job = server.submit(SERVED)
        for least in (1, 4, 7):
            until(lambda least=least: len(place.outputs("task")) >= least or server.over(job))
            server.kill()
            times = {path.name: path.stat().st_mtime_ns for path in (place.out / "task").glob("*.mp4")}
            for index in place.outputs("task"):
                (name,) = [name for name in times if name.startswith(f"{index}_")]
                finished.setdefault(name, times[name])
            server.start()
        until(lambda: server.over(job))
        assert server.stop() == 0
    check_like_undisturbed(place, SERVED, uploaded=True)
    assert len(finished) >= 7
    assert {name: (place.out / "task" / name).stat().st_mtime_ns for name in finished} == finished


def test_row_03_a_dead_parent_takes_all_its_processes_along(place):
    with Server(place) as server:
        job = server.submit(SERVED)
        until(lambda: place.outputs("task"))
        assert len(server.workers()) == 3
        server.kill_parent()
        server.start()
        until(lambda: server.over(job))
        assert server.stop() == 0
    check_like_undisturbed(place, SERVED, uploaded=True)


@pytest.mark.parametrize("grace", [20, 0])
def test_row_04_an_end_that_is_asked_for_finishes_or_hands_back(place, grace):
    with Server(place, CROSSCUT_GRACE_SECONDS=str(grace)) as server:
        job = server.submit(SERVED)
        running_now = "SELECT id FROM work WHERE kind = 'batch' AND state = 'running'"
        in_hand = until(lambda: [row["id"] for row in place.rows(running_now)])
        start = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - start < 10
        states = {row["id"]: row["state"] for row in place.rows("SELECT * FROM work")}
        assert set(states.values()) <= {"ready", "done"}
        if grace:
            assert [states.get(unit, "done") for unit in in_hand] == ["done"] * len(in_hand)
        assert list((place.data / "jobs").iterdir()) == []
        server.start()
        until(lambda: server.over(job))
        assert server.stop() == 0
    check_like_undisturbed(place, SERVED, uploaded=True)


def test_a_killed_nursery_is_no_units_fault(place):
    """However often: they are all done in the end."""
    with running(place, Fault("segment", "hold", word="c1.mp4", release=str(place.root / "go"))) as engine:
        job = engine.submit(SMALL)
        for attempt in range(queue.MOST_CRASHES + 1):
            until(lambda least=attempt: any(unit.attempt > least for unit in held_segments(engine)))
            (segment,) = held_segments(engine)
            pids = {worker.name: worker.pid for worker in engine.machine.workers()}
            os.kill(stat(pids[segment.worker])[1], signal.SIGKILL)
        (place.root / "go").touch()
        status = engine.ended(job)
    assert (status["succeeded"], status["failed"]) == (4, 0)
    check_like_undisturbed(place, SMALL)


def held_segments(engine):
    return [unit for unit in engine.units(kind="segment", state="running") if "c1.mp4" in unit.payload]


# Messages


class Stammerer(EmbeddedExecutor):
    """Says everything three times, and once more when it is over."""

    def submit(self, unit, attempt, lane):
        said = self.__dict__.setdefault("said", [])
        for message in [*said[-2:], *[(unit, attempt, lane)] * 3]:
            super().submit(*message)
        said.append((unit, attempt, lane))


def test_row_08_a_message_that_comes_again_changes_nothing(place):
    with running(place, executor=Stammerer) as engine:
        status = engine.ended(engine.submit(SMALL))
    assert (status["succeeded"], status["clips_encoded"], status["voice_over_characters"]) == (4, 4, 4)
    delivered = [event["variation"] for event in engine.events() if event.get("stage") == "deliver"]
    assert sorted(delivered) == [1, 2, 3, 4]
    check_like_undisturbed(place, SMALL)


class Deaf(EmbeddedExecutor):
    """Cannot end its workers."""

    def kill(self, name):
        pass


def test_row_09_a_worker_that_slept_past_its_lease_comes_too_late(place):
    """While another has the same work in hand, and again when all is over."""
    held = Fault("batch", "hold", at="middle", index=3, release=str(place.root / "go"))
    with running(place, held, lease_seconds=3, executor=Deaf) as engine:
        job = engine.submit(SMALL)
        until(lambda: list(place.out.glob("task/3_*.mp4")))
        unit, first = engine.worker(3)
        os.kill(first, signal.SIGSTOP)
        until(lambda: engine.worker(3)[0].attempt == unit.attempt + 1)
        _, second = engine.worker(3)
        assert second != first
        os.kill(second, signal.SIGSTOP)
        os.kill(first, signal.SIGCONT)
        until(lambda: {worker.pid: worker.busy for worker in engine.machine.workers()}[first] == 0)
        made = {row["variation"] for row in place.rows("SELECT variation FROM outputs")}
        assert not made & set(json.loads(unit.payload)["indexes"]), "the late result was taken"
        (there,) = engine.units(id=unit.id)
        assert (there.state, there.attempt > unit.attempt) == ("running", True)
        Path(held.release).touch()
        status = engine.ended(job)
        os.kill(second, signal.SIGCONT)
        until(lambda: not any(worker.busy for worker in engine.machine.workers()))
        assert engine.status(job) | {"version": 0} == status | {"version": 0}
    assert (status["succeeded"], status["failed"]) == (4, 0)
    check_like_undisturbed(place, SMALL)


# The disk


WRITER = """
import os, sys, time
from crosscut.store import Store
from store_play import body, submission
for _ in range(int(sys.argv[2])):
    read, write = os.pipe()
    child = os.fork()
    if not child:
        store = Store(sys.argv[1])
        while True:
            os.write(write, (store.submit(submission(body(2))).id + chr(10)).encode())
    os.close(write)
    said = os.read(read, 10**6)
    time.sleep(said[-2] % 16 * 0.004)
    os.kill(child, 9)
    os.waitpid(child, 0)
    while part := os.read(read, 10**6):
        said += part
    os.close(read)
    sys.stdout.write(said.decode())
"""


def test_row_11_no_acknowledged_commit_is_lost_by_a_kill(place):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    command = [sys.executable, "-c", WRITER, f"sqlite:///{place.state}", "25"]
    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout
    acknowledged = {line for line in said.split("\n") if len(line) == len("job_") + 20}
    assert len(acknowledged) > 25
    kept = {row["id"] for row in place.rows("SELECT id FROM jobs")}
    assert acknowledged <= kept
    assert len(kept) <= len(acknowledged) + 25
    assert [row[0] for row in place.rows("PRAGMA integrity_check")] == ["ok"]


@pytest.mark.parametrize("where", ["data", "out"])
def test_row_12_a_full_disk_is_told_and_nothing_is_lost(tmp_path, small_disk, monkeypatch, where):
    monkeypatch.setattr(queue, "MOST_TRIES", 2)
    place = Place(tmp_path)
    small_disk(getattr(place, where), 8 << 20)
    kind = "batch" if where == "out" else "segment"
    held = Fault(kind, "hold", mark=str(tmp_path / "mark"), release=str(tmp_path / "go"))
    with running(place, held, lease_seconds=3) as engine:
        job = engine.submit(SMALL)
        until(Path(held.mark).exists)
        ballast = fill(getattr(place, where))
        Path(held.release).touch()
        if where == "data":
            with pytest.raises(StorageError) as told:
                for number in range(1000):
                    engine.submit(body(2, task=f"{number} {'x' * 150}"))
            assert (told.value.code, told.value.retryable) == ("disk_full", True)
            until(lambda: any(event.get("code") == "disk_full" for event in engine.events()))
        else:
            status = engine.ended(job)
            assert status["state"] == "failed"
            assert all("is full: free some space" in error["reason"] for error in status["errors"])
        ballast.unlink()
        for other in [row["id"] for row in engine.machine.service.jobs(None, limit=10_000)[0] if row["id"] != job]:
            engine.machine.service.delete(other, None)
        status = engine.ended(job)
        if status["failed"]:
            assert engine.machine.service.retry(job, None)["variations"] == status["failed"]
            status = engine.ended(job)
    assert (status["succeeded"], status["failed"]) == (4, 0)
    check_like_undisturbed(place, SMALL)


# Work that kills or hangs


@pytest.mark.parametrize("kind", ["source", "segment"])
def test_row_14_a_clip_that_kills_its_worker_costs_only_its_variations(place, kind):
    with running(place, Fault(kind, "crash", word="c1.mp4")) as engine:
        job = engine.submit(SMALL)
        status = engine.ended(job)
    assert (status["state"], status["succeeded"], status["failed"]) == ("done", 2, 2)
    (error,) = status["errors"]
    assert "the process that worked on it died again and again" in error["reason"]
    check_invariants(place)
    (row,) = place.rows("SELECT * FROM jobs")
    assert (row["ok"], row["failed"], row["doomed"]) == (2, 0, 2)
    deaths = [event for event in engine.events() if event["event"] == "a worker ended"]
    assert [death["cause"] for death in deaths] == ["SIGSEGV"] * queue.MOST_CRASHES


def test_row_14_a_variation_that_kills_its_worker_is_given_up_alone(place):
    document = body(2, 6, encoded=False)
    with running(place, Fault("batch", "crash", index=5), batch=4) as engine:
        job = engine.submit(document)
        status = engine.ended(job)
    assert (status["state"], status["succeeded"], status["failed"]) == ("done", 11, 1)
    check_invariants(place)
    assert [index for index, row in place.outputs("task").items() if row["error"]] == [5]


class Hasty(Options):
    """Grants encodings a second and a half."""

    def allowed(self, kind, payload=None):
        return 1.5 if kind == "segment" else super().allowed(kind, payload)


@pytest.mark.parametrize("do", ["hang", "seize"])
def test_row_15_what_hangs_is_ended_tried_again_and_given_up(place, monkeypatch, do):
    """Whether it lets the other threads of its worker go on or not."""
    monkeypatch.setattr(scheduler, "REAP_SECONDS", 0.2)
    more = {"options": Hasty} if do == "hang" else {"lease_seconds": 1.5}
    with running(place, Fault("segment", do, word="c1.mp4"), **more) as engine:
        job = engine.submit(SMALL)
        status = engine.ended(job, 30)
        until(lambda: len(engine.machine.workers()) == 3)
    assert (status["state"], status["succeeded"], status["failed"]) == ("done", 2, 2)
    check_invariants(place)
    killed = [event for event in engine.events() if event["event"] == "a worker is killed"]
    assert len(killed) == queue.MOST_CRASHES


# Sources


@pytest.fixture
def httpserver():
    with HTTPServer(threaded=True) as server:
        yield server


def test_row_16_a_source_that_cannot_be_had_costs_only_its_variations(place, httpserver, monkeypatch):
    monkeypatch.setattr(queue, "MOST_TRIES", 2)
    clip = source("c0.mp4")
    slow = threading.Event()

    def loris(_request):
        def drops():
            for byte in clip:
                if slow.wait(0.3):
                    return
                yield bytes([byte])

        return Response(drops(), content_type="video/mp4")

    def silence(_request):
        slow.wait(20)
        return Response(clip)

    httpserver.expect_request("/good.mp4").respond_with_data(clip, content_type="video/mp4")
    httpserver.expect_request("/gone.mp4").respond_with_data("no", status=404)
    httpserver.expect_request("/cut.mp4").respond_with_data(clip[: len(clip) // 2], content_type="video/mp4")
    httpserver.expect_request("/text.mp4").respond_with_data("<html>Sign in</html>", content_type="text/html")
    httpserver.expect_request("/loris.mp4").respond_with_handler(loris)
    httpserver.expect_request("/silent.mp4").respond_with_handler(silence)
    names = ("good", "gone", "cut", "text", "loris", "silent")
    first = [httpserver.url_for(f"/{name}.mp4") for name in names]
    document = {"task_name": "task", "video_blocks": {"a": first, "b": ["c1.mp4", "c2.mp4"]}}
    for name in document["video_blocks"]["b"]:
        (place.root / name).write_bytes(source(name))
    allow = ((httpserver.host, httpserver.port),)
    with running(place, fetch_allow=allow, fetch_seconds=2) as engine:
        job = engine.machine.service.submit(document, local=True, base=place.root, destination=str(place.out)).id
        status = engine.ended(job)
        slow.set()
    assert (status["state"], status["succeeded"], status["failed"]) == ("done", 2, 10)
    reasons = {error["reason"]: error["variations"] for error in status["errors"]}
    assert set(reasons.values()) == {2}
    for name in names[1:]:
        assert sum(f"/{name}.mp4" in reason for reason in reasons) == 1, reasons
    check_invariants(place)


def test_row_20_a_kill_between_delivery_and_its_record_leaves_one_file(place):
    fault = Fault("batch", "kill", at="end", index=2, mark=str(place.root / "mark"))
    with running(place, fault) as engine:
        status = engine.ended(engine.submit(SMALL))
    assert Path(fault.mark).exists()
    assert (status["succeeded"], status["failed"]) == (4, 0)
    check_like_undisturbed(place, SMALL)


# Cancelling


@pytest.mark.parametrize("kind", ["source", "plan", "segment", "batch"])
def test_row_21_a_cancelled_job_rests_at_once_and_what_it_shares_goes_on(place, kind):
    word = "c0.mp4" if kind in ("source", "segment") else ""
    held = Fault(kind, "hold", word=word, mark=str(place.root / "mark"), release=str(place.root / "go"))
    other = body(2, 2, task="other", **SOUND)
    with running(place, held) as engine:
        job = engine.submit(SMALL)
        until(Path(held.mark).exists)
        kept = engine.submit(other)
        if kind in ("source", "segment"):
            until(lambda: engine.status(kept)["state"] != "queued" or kind == "source")
        start = time.monotonic()
        assert engine.machine.service.cancel(job, None)["state"] == "cancelled"
        until(lambda: engine.over(job), 2)
        assert time.monotonic() - start < 2
        before = engine.status(job)["succeeded"]
        Path(held.release).touch()
        assert engine.ended(kept)["succeeded"] == 4
        assert engine.units(job=job, state="running") == []
        assert engine.status(job)["succeeded"] == before
    check_like_undisturbed(place, other)


def test_row_21_a_job_cancelled_in_the_queue_never_starts(place):
    with running(place, options=partial(Options, admitted=0)) as engine:
        job = engine.submit(SMALL)
        engine.machine.service.cancel(job, None)
        assert engine.ended(job)["state"] == "cancelled"
        assert engine.units() == []
    check_invariants(place)


def test_row_22_the_same_request_at_the_same_time_is_one_job(place):
    clients = 8
    with running(place) as engine:
        ready = threading.Barrier(clients)

        def send(_number):
            ready.wait()
            return engine.submit(SMALL, idempotency_key="once")

        engine.submit(body(2, 2, task="provides the files"))
        with ThreadPoolExecutor(clients) as pool:
            jobs = set(pool.map(send, range(clients)))
        (job,) = jobs
        engine.ended(job)
        assert [row["id"] for row in engine.machine.service.jobs(None, task_name="task")[0]] == [job]
        for row in engine.machine.service.jobs(None)[0]:
            engine.ended(row["id"])
    check_like_undisturbed(place, SMALL)


def test_row_22_a_client_that_dies_while_it_sends_leaves_nothing(place):
    with Server(place) as server:
        host, port = server.address
        for part in (b"", b'{"task_name": "half'):
            with socket.create_connection((host, port)) as client:
                client.sendall(b"POST /process_media HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
                client.sendall(b"Content-Length: 1000\r\n\r\n" + part)
        assert server.get("/jobs")["jobs"] == []
        job = server.submit(SMALL)
        until(lambda: server.over(job))
        assert server.stop() == 0
    check_like_undisturbed(place, SMALL, uploaded=True)


def test_row_23_small_jobs_do_not_wait_for_a_large_one(place):
    blocks = {f"b{block}": ["c0.mp4", "c1.mp4", "c2.mp4", "c3.mp4"] for block in range(10)}
    with running(place, max_variations=10**7) as engine:
        large = engine.submit({"task_name": "large", "video_blocks": blocks, "formats": ["64x96"], "fps": 30})
        until(lambda: engine.status(large)["succeeded"])
        assert engine.status(large)["total"] == 4**10
        start = time.monotonic()
        small = [engine.submit(body(2, 2, task=f"small {number}", **SOUND)) for number in range(10)]
        for job in small:
            assert engine.ended(job, 30)["succeeded"] == 4
        together = time.monotonic() - start
        assert engine.machine.service.cancel(large, None)["state"] == "cancelled"
        engine.ended(large)
        start = time.monotonic()
        alone = [engine.submit(body(2, 2, task=f"alone {number}", **SOUND)) for number in range(10)]
        for job in alone:
            assert engine.ended(job)["succeeded"] == 4
        assert together < 5 + 3 * (time.monotonic() - start)
    check_invariants(place)


def test_row_24_jobs_that_start_together_share_what_both_need(place):
    documents = [body(2, 2, task=f"task {number}", **SOUND) for number in range(3)]
    with running(place) as engine:
        jobs = [engine.submit(document) for document in documents]
        statuses = [engine.ended(job) for job in jobs]
        totals = engine.machine.service.metrics()
    assert [status["succeeded"] for status in statuses] == [4, 4, 4]
    assert (totals.stage_count["fetch"], totals.stage_count["conform"], totals.stage_count["speak"]) == (6, 4, 2)
    assert sum(status["voice_over_characters"] for status in statuses) == 4
    for document in documents:
        check_like_undisturbed(place, document)


# Newer code


@pytest.mark.parametrize("news", ["version = version + 1", "kind = 'dream'"])
def test_row_26_a_unit_of_newer_code_is_left_to_it(place, news):
    held = Fault("plan", "hold", mark=str(place.root / "mark"), release=str(place.root / "go"))
    with running(place, held, grace=0) as engine:
        job = engine.submit(SMALL)
        until(Path(held.mark).exists)
    (unit,) = place.rows("SELECT * FROM work")
    assert (unit["kind"], unit["state"], unit["version"]) == ("plan", "ready", VERSION)
    change(place, news)
    with running(place) as engine:
        other = engine.submit(body(2, 2, task="other", **SOUND))
        assert engine.ended(other)["succeeded"] == 4
        (waiting,) = engine.units(id=unit["id"])
        assert (waiting.id, waiting.state, waiting.attempt) == (unit["id"], "ready", unit["attempt"])
        assert not engine.over(job)
        # Handed out by a newer scheduler, it comes back for others.
        with engine.machine.store.database.begin() as database:
            out = work.update().values(state="queued", lease=time.time() + 60)
            database.execute(out.where(work.c.id == unit["id"]))
        assert engine.machine.store.start(unit["id"], unit["attempt"], "old worker") is None
        (waiting,) = engine.units(id=unit["id"])
        assert waiting.state == "ready"
        assert waiting.not_before > time.time()
    change(place, f"version = {VERSION}, kind = 'plan', not_before = 0")
    with running(place) as engine:
        assert engine.ended(job)["succeeded"] == 4
    check_like_undisturbed(place, SMALL)


def change(place, values):
    with contextlib.closing(sqlite3.connect(place.state)) as database, database:
        database.execute(f"UPDATE work SET {values}")


# Damage


@pytest.mark.parametrize("damage", ["deleted", "cut", "emptied"])
def test_row_28_a_damaged_piece_is_made_again(place, damage):
    with running(place, options=lambda **more: Options(**{**more, "window": 0})) as engine:
        job = engine.submit(SMALL)
        until(lambda: engine.status(job)["stages"]["conform"]["done"] == 4)
    keys = {row["key"] for row in place.rows("SELECT key FROM slots")}
    encoded = sorted(path for path in (place.data / "blobs").glob("*/*.mp4") if path.stem in keys)
    assert len(encoded) == 4
    for number, piece in enumerate(encoded[:2]):
        if damage == "deleted":
            piece.unlink()
        else:
            os.truncate(piece, 0 if damage == "emptied" else piece.stat().st_size // (2 + number))
    with running(place, workers=1) as engine:
        status = engine.ended(job)
    assert (status["succeeded"], status["failed"], status["clips_encoded"]) == (4, 0, 6)
    check_like_undisturbed(place, SMALL)
