from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from crosscut.engine import embedded
from crosscut.engine.channel import Channel
from crosscut.engine.worker import LineLog
from engine_tasks import SECONDS, Floor, MemoryLedger, until

TESTS = Path(__file__).parent


@pytest.fixture
def open_floor():
    floors = []

    def open_one(*arguments, **more):
        floor = Floor(*arguments, **more)
        floors.append(floor)
        floor.offer()
        return floor

    yield open_one
    for floor in floors:
        floor.executor.close(0)


def settled(ledger):
    return set(ledger.states()) <= {"done", "cancelled"}


def results(ledger):
    return [row.outcomes[0].result.get("value") for row in ledger.rows]


def worker_of(floor, unit):
    """The process that took the unit in hand last."""
    name = until(lambda: next((name for number, _, name in reversed(floor.ledger.starts) if number == unit), None))
    return next(worker for worker in floor.executor.workers() if worker.name == name)


def stat(pid):
    """State and parent of a process, None when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1])


def alive(pid):
    found = stat(pid)
    return found is not None and found[0] != "Z"


def names_in(folder):
    return [path.name for path in Path(folder).iterdir()]


def descendants(pid):
    parents = {int(entry): found[1] for entry in names_in("/proc") if entry.isdigit() and (found := stat(entry))}
    children = [child for child, parent in parents.items() if parent == pid]
    return children + [below for child in children for below in descendants(child)]


def events(log):
    return [json.loads(line) for line in log.getvalue().splitlines()]


# the way of a unit


def test_units_of_both_lanes_are_done_by_their_workers(open_floor):
    ledger = MemoryLedger()
    units = [ledger.add(kind=kind) for kind in ("batch", "segment", "source", "speech")]
    floor = open_floor(ledger, processors=2)
    until(lambda: settled(ledger))
    lanes = {unit: worker.partition("-")[0] for unit, _, worker in ledger.starts}
    assert [lanes[unit] for unit in units] == ["processor", "processor", "network", "network"]
    assert [row.outcomes[0].outputs[0].index for row in ledger.rows] == units
    lanes_of = ["network", "processor", "processor"]
    until(lambda: sorted(worker.lane for worker in floor.executor.workers()) == lanes_of)
    until(lambda: floor.changes == 4)
    assert floor.deaths == []


def test_the_whole_ledger_can_be_asked_and_its_errors_travel(open_floor):
    ledger, log = MemoryLedger(), io.StringIO()
    for job in ("j", "full disk", "bug", "lambda"):
        ledger.add("ask", job=job)
    floor = open_floor(ledger, logs=[log])
    until(lambda: settled(ledger))
    assert results(ledger) == [
        ["j", 100_000, 3, 6],
        ["StorageError", "disk_full", True],
        ["StorageError", "state", True],
        ["StorageError", "state", True],
    ]
    assert floor.deaths == []
    assert [(event["event"], event["call"]) for event in events(log)] == [("the ledger failed", "job")]


def test_an_outcome_that_cannot_travel_is_a_failure(open_floor):
    ledger = MemoryLedger()
    ledger.add("lambda")
    open_floor(ledger)
    until(lambda: settled(ledger))
    assert ledger.rows[0].outcomes[0].failure.code == "not_recorded"


def test_a_ledger_that_fails_for_good_costs_a_lease_not_the_worker(open_floor):
    ledger = MemoryLedger(lease_seconds=0)
    ledger.failures = [OSError("disk")] * 4
    ledger.add()
    floor = open_floor(ledger)
    until(lambda: not ledger.failures)
    until(lambda: floor.changes)
    ledger.expire()
    floor.offer()
    until(lambda: settled(ledger))
    assert floor.deaths == []
    assert len({worker for _, _, worker in ledger.starts}) == 1


def test_equal_messages_are_done_once(open_floor):
    ledger = MemoryLedger()
    floor = open_floor(ledger, processors=2)
    unit = ledger.add("hold", until="/")
    attempt = ledger.lease(unit)
    for _ in range(3):
        floor.executor.submit(unit, attempt, "processor")
    until(lambda: settled(ledger))
    floor.executor.submit(unit, attempt, "processor")
    until(lambda: ledger.refused)
    until(lambda: not any(worker.busy for worker in floor.executor.workers()))
    assert len(ledger.starts) == len(ledger.rows[unit].outcomes) == 1


def test_a_message_that_still_waits_is_not_doubled(open_floor, tmp_path):
    ledger = MemoryLedger()
    ledger.add("hold", until=str(tmp_path / "go"))
    floor = open_floor(ledger)
    until(lambda: ledger.starts)
    unit = ledger.add()
    attempt = ledger.lease(unit)
    for _ in range(3):
        floor.executor.submit(unit, attempt, "processor")
    (tmp_path / "go").touch()
    until(lambda: settled(ledger))
    until(lambda: not any(worker.busy for worker in floor.executor.workers()))
    assert ledger.refused == []


def test_the_network_worker_does_eight_at_once_and_a_processor_worker_one(open_floor, tmp_path):
    ledger, until_file = MemoryLedger(), tmp_path / "go"
    network = [ledger.add("hold", "source", until=str(until_file)) for _ in range(9)]
    processor = [ledger.add("hold", until=str(until_file)) for _ in range(2)]
    floor = open_floor(ledger)
    until(lambda: len(ledger.starts) == 9)
    busy = {worker.lane: worker.busy for worker in floor.executor.workers()}
    assert busy == {"network": 8, "processor": 1}
    assert ledger.states().count("queued") == 2
    assert [ledger.rows[unit].state for unit in (network[-1], processor[-1])] == ["queued", "queued"]
    until_file.touch()
    until(lambda: settled(ledger))


def test_slots_are_twice_what_runs_at_once(open_floor):
    executor = open_floor(MemoryLedger(), processors=3).executor
    assert [executor.slots("processor", *counts) for counts in ((0, 0), (1, 2), (3, 3), (9, 9))] == [6, 3, 0, 0]
    assert executor.slots("network", 0, 0) == 16


def test_a_cancelled_unit_stops_within_two_seconds(open_floor):
    ledger = MemoryLedger()
    unit = ledger.add("hold", until="/nowhere")
    floor = open_floor(ledger)
    until(lambda: ledger.starts)
    ledger.cancel(unit)
    start = time.monotonic()
    until(lambda: ledger.fenced)
    assert time.monotonic() - start < 2
    assert floor.deaths == []


def test_forgetting_reaches_every_worker(open_floor):
    ledger = MemoryLedger()
    floor = open_floor(ledger, processors=2)
    until(lambda: len(floor.executor.workers()) == 3)
    floor.executor.forget("some job")

    def told():
        ledger.rows.clear()
        for kind in ("batch", "batch", "source"):
            ledger.add("recall", kind)
        floor.offer()
        until(lambda: settled(ledger))
        return results(ledger) == [["some job"]] * 3

    until(told)


# faults


def test_a_unit_whose_worker_is_killed_is_done_by_its_successor(open_floor, tmp_path):
    ledger, log = MemoryLedger(), io.StringIO()
    unit = ledger.add("hold", until=str(tmp_path / "go"))
    bystander = ledger.add("hold", "source", until=str(tmp_path / "go"))
    floor = open_floor(ledger, logs=[log])
    victim = worker_of(floor, unit)
    worker_of(floor, bystander)
    os.kill(victim.pid, signal.SIGKILL)
    until(lambda: len(ledger.starts) == 3)
    (tmp_path / "go").touch()
    until(lambda: settled(ledger))
    assert floor.deaths == [victim.name]
    assert [ledger.rows[number].attempt for number in (unit, bystander)] == [2, 1]
    assert [len(row.outcomes) for row in ledger.rows] == [1, 1]
    assert not alive(victim.pid)
    told = events(log)[0]
    assert (told["worker"], told["cause"], told["units"]) == (victim.name, "SIGKILL", [unit])


def test_a_crash_in_foreign_code_costs_one_attempt(open_floor, tmp_path):
    ledger = MemoryLedger()
    ledger.add("die_once", mark=str(tmp_path / "mark"))
    for _ in range(5):
        ledger.add()
    floor = open_floor(ledger)
    until(lambda: settled(ledger))
    assert [row.attempt for row in ledger.rows] == [2, 1, 1, 1, 1, 1]
    assert len(floor.deaths) == 1


def test_a_unit_given_to_a_worker_that_never_began_it_is_given_to_another(open_floor):
    ledger = MemoryLedger()
    floor = open_floor(ledger)
    frozen = until(lambda: [worker for worker in floor.executor.workers() if worker.lane == "processor"])[0]
    os.kill(frozen.pid, signal.SIGSTOP)
    ledger.add()
    floor.offer()
    until(lambda: any(worker.busy for worker in floor.executor.workers()))
    os.kill(frozen.pid, signal.SIGKILL)
    until(lambda: settled(ledger))
    assert [attempt for _, attempt, _ in ledger.starts] == [1]


def test_what_a_paused_worker_hands_in_after_its_lease_is_fenced(open_floor, tmp_path):
    ledger = MemoryLedger(lease_seconds=0.8)
    unit = ledger.add("hold", until=str(tmp_path / "go"))
    floor = open_floor(ledger, processors=2)
    until(lambda: len(floor.executor.workers()) == 3)
    paused = worker_of(floor, unit)
    os.kill(paused.pid, signal.SIGSTOP)
    until(lambda: (ledger.expire(), ledger.ready())[1])
    floor.offer()
    until(lambda: len(ledger.starts) == 2)
    (tmp_path / "go").touch()
    until(lambda: settled(ledger))
    os.kill(paused.pid, signal.SIGCONT)
    until(lambda: ledger.fenced)
    assert ledger.fenced == [(unit, 1)]
    assert len(ledger.rows[unit].outcomes) == 1
    assert floor.deaths == []


def test_a_unit_without_end_is_ended_with_its_worker(open_floor):
    ledger = MemoryLedger()
    unit = ledger.add("hang")
    floor = open_floor(ledger)
    hung = worker_of(floor, unit)
    ledger.rows[unit].payload = {"do": "nothing"}
    floor.executor.kill(hung.name)
    until(lambda: settled(ledger))
    floor.executor.kill(hung.name)
    assert floor.deaths == [hung.name]
    assert not alive(hung.pid)


def test_a_worker_that_leaves_its_messages_unread_is_ended(open_floor, monkeypatch):
    monkeypatch.setattr(embedded, "UNREAD_SECONDS", 1)
    floor = open_floor(MemoryLedger())
    frozen = until(floor.executor.workers)[0]
    os.kill(frozen.pid, signal.SIGSTOP)
    until(lambda: floor.executor.forget("x" * 5000) or not alive(frozen.pid))
    until(lambda: floor.deaths == [frozen.name])


def test_the_sandbox_of_a_killed_worker_ends_with_it(open_floor):
    ledger = MemoryLedger()
    unit = ledger.add("sandbox")
    floor = open_floor(ledger)
    worker = worker_of(floor, unit)
    below = until(lambda: pids if len(pids := descendants(worker.pid)) == 2 else None)
    os.kill(worker.pid, signal.SIGKILL)
    until(lambda: not any(map(alive, below)), 1)


def test_the_death_of_the_nursery_is_survived(open_floor):
    ledger = MemoryLedger()
    unit = ledger.add("hang")
    floor = open_floor(ledger)
    worker = worker_of(floor, unit)
    ledger.rows[unit].payload = {"do": "nothing"}
    os.kill(stat(worker.pid)[1], signal.SIGKILL)
    until(lambda: settled(ledger))
    assert worker.name in floor.deaths


def test_workers_that_die_at_their_start_are_replaced_ever_more_slowly(open_floor, tmp_path):
    ledger, log, births = MemoryLedger(), io.StringIO(), tmp_path / "births"
    unit = ledger.add("hang", "source")
    floor = open_floor(ledger, {"stillborn": str(births)}, logs=[log])

    def times():
        return [float(line) for line in births.read_text().split()] if births.exists() else []

    until(lambda: len(times()) >= 8)
    assert times()[-1] - times()[0] > 0.1 + 0.2 + 0.4
    assert floor.executor.problems() == ["worker processes do not start: RuntimeError: no tools"]
    assert floor.executor.workers() == []
    assert ledger.rows[unit].state == "queued"
    causes = [event["cause"] for event in events(log) if event["event"] == "a worker ended"]
    assert set(causes) == {"RuntimeError: no tools"}
    tracebacks = [event for event in events(log) if event["event"] == "a worker could not be set up"]
    assert "fake_crew" in tracebacks[0]["exception"]
    start = time.monotonic()
    floor.executor.close(5)
    assert time.monotonic() - start < 1


def test_a_crew_that_cannot_be_imported_is_told(open_floor):
    log = io.StringIO()
    floor = open_floor(MemoryLedger(), factory="no_such_module:crew", logs=[log])
    until(floor.executor.problems)
    assert "no_such_module" in floor.executor.problems()[0]
    until(lambda: "no_such_module" in log.getvalue())


# the end


def test_closing_lets_what_is_in_hand_end(open_floor, tmp_path):
    ledger = MemoryLedger()
    in_hand = [ledger.add("hold", kind, until=str(tmp_path / "go")) for kind in ("batch", "source")]
    waiting = ledger.add()
    floor = open_floor(ledger, {"closed": str(tmp_path)})
    until(lambda: len(ledger.starts) == 2)
    pids = [worker.pid for worker in floor.executor.workers()]
    closing = threading.Thread(target=floor.executor.close, args=(SECONDS,))
    closing.start()
    until(floor.executor._closing.is_set)
    floor.executor.submit(waiting, 1, "processor")
    (tmp_path / "go").touch()
    closing.join(5)
    assert not closing.is_alive()
    assert [ledger.rows[unit].state for unit in (*in_hand, waiting)] == ["done", "done", "queued"]
    assert not any(map(alive, pids))
    assert sorted(path.name for path in tmp_path.glob("[0-9]*")) == sorted(map(str, pids)), "crews were not closed"
    assert floor.deaths == []


def test_what_does_not_end_within_the_grace_is_handed_back(open_floor):
    ledger, log = MemoryLedger(), io.StringIO()
    unit = ledger.add("hang")
    floor = open_floor(ledger, logs=[log])
    worker = worker_of(floor, unit)
    start = time.monotonic()
    floor.executor.close(0.3)
    assert 0.3 <= time.monotonic() - start < 2
    assert floor.deaths == [worker.name]
    assert ledger.rows[unit].attempt == 2, "it was not handed back"
    assert not alive(worker.pid)
    assert floor.executor.workers() == []
    floor.executor.close(0)


@pytest.mark.parametrize("end", ["kill", "close"])
def test_nothing_outlives_the_parent(end):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    command = [sys.executable, "-c", "import os; os.close(0); import engine_tasks; engine_tasks.parent()", end]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as parent:
        workers = json.loads(parent.stdout.readline())
        assert len(workers) == 3
        if end == "kill":
            # a nursery, three workers, a spawner and its child
            below = until(lambda: pids if len(pids := descendants(parent.pid)) == 6 else None)
            os.kill(workers[0], signal.SIGSTOP)
            parent.kill()
            until(lambda: not any(map(alive, below)), 1)
        assert parent.stderr.read() == b""
        assert parent.wait(5) == (-signal.SIGKILL if end == "kill" else 0)
        assert not any(map(alive, workers))


def test_the_nursery_is_never_given_a_standard_stream_for_its_socket():
    script = (
        "import os, socket; from crosscut.engine.nursery import _beyond_standard_streams as beyond;"
        "os.close(0); ends = socket.socketpair(); assert ends[0].fileno() == 0;"
        "moved, other = map(beyond, ends); assert moved.fileno() > 2; assert other is ends[1];"
        "moved.send(b'x'); assert other.recv(9) == b'x'; moved.close(); assert other.recv(9) == b''"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=SECONDS)


def test_signals_of_the_terminal_leave_workers_alone(open_floor, tmp_path):
    ledger = MemoryLedger()
    unit = ledger.add("hold", until=str(tmp_path / "go"))
    floor = open_floor(ledger)
    worker = worker_of(floor, unit)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(worker.pid, number)
        os.kill(stat(worker.pid)[1], number)
    (tmp_path / "go").touch()
    until(lambda: settled(ledger))
    assert floor.deaths == []


def test_a_worker_holds_its_channel_and_no_other_descriptor(open_floor):
    floor = open_floor(MemoryLedger(), processors=2)
    until(lambda: len(floor.executor.workers()) == 3)
    for worker in floor.executor.workers():
        assert sorted(names_in(f"/proc/{worker.pid}/fd")) == ["0", "1", "2", "3"]
    assert len(names_in(f"/proc/{stat(worker.pid)[1]}/task")) == 1, "the nursery has threads"


# log lines


def test_lines_of_many_workers_arrive_whole_and_redacted(open_floor):
    ledger, log = MemoryLedger(), io.StringIO()
    units = [ledger.add("log", kind, lines=200) for kind in ("batch", "source", "source", "source", "batch")]
    open_floor(ledger, processors=2, logs=[log])
    until(lambda: settled(ledger))
    until(lambda: len(events(log)) == 200 * len(units))
    told = events(log)
    for unit in units:
        mine = [event for event in told if event["unit"] == unit]
        assert [event["number"] for event in mine] == list(range(200))
        assert {event["worker"] for event in mine} == {worker for number, _, worker in ledger.starts if number == unit}
    assert "secret" not in log.getvalue()


def test_an_unexpected_error_is_one_line_of_the_log(open_floor):
    ledger, log = MemoryLedger(), io.StringIO()
    unit = ledger.add("raise", what="bug")
    ledger.add("raise", what="refusal")
    open_floor(ledger, logs=[log])
    until(lambda: settled(ledger))
    assert [row.outcomes[0].failure.code for row in ledger.rows] == ["unexpected", "http_404"]
    (event,) = events(log)
    assert (event["event"], event["unit"], event["level"]) == ("a unit failed unexpectedly", unit, "error")
    assert "ZeroDivisionError" in event["exception"]
    assert "secret" not in log.getvalue()


def test_a_log_that_nobody_reads_stops_nothing(open_floor):
    class Broken(io.StringIO):
        def write(self, _text):
            raise BrokenPipeError

    ledger = MemoryLedger()
    unit = ledger.add("log", lines=3)
    floor = open_floor(ledger, logs=[Broken()])
    until(lambda: settled(ledger))
    ledger.rows[unit].state = "ready"
    ledger.rows[unit].payload = {"do": "hang"}
    floor.offer()
    os.kill(worker_of(floor, unit).pid, signal.SIGKILL)
    ledger.rows[unit].payload = {"do": "nothing"}
    until(lambda: settled(ledger))


def test_a_line_log_joins_the_parts_of_each_thread():
    lines = []
    log = LineLog(lines.append)
    log.write("a ")
    other = threading.Thread(target=log.write, args=("other\nx",))
    other.start()
    other.join()
    log.pass_on()
    log.write("b\nc\nd")
    assert lines == ["other"]
    log.pass_on()
    log.pass_on()
    assert lines == ["other", "a b\nc"]


def test_a_channel_ends_quietly_and_refuses_to_send_after():
    ours, theirs = map(Channel, socket.socketpair())
    theirs.send(("last", 1))
    theirs.close()
    assert [ours.receive(), ours.receive()] == [("last", 1), None]
    with pytest.raises(OSError):
        ours.send(("x",))
    ours.close()
