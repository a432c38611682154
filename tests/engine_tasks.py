"""A queue in memory with attempts and leases, and a crew for worker processes that does what payloads say."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from crosscut.errors import FetchError, StorageError
from crosscut.sandbox import Sandbox
from crosscut.telemetry import event_log
from crosscut.units import LANES, Found, JobRecord, Kind, Outcome, Output, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crosscut.units import Ledger

SECONDS = 20


def until(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """The first true value of `condition`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)
    return value


@dataclass
class Row:
    kind: Kind
    payload: Mapping[str, Any]
    attempt: int = 0
    state: str = "ready"
    worker: str = ""
    lease: float = 0.0
    fraction: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)


class MemoryLedger:
    """The Ledger's promises, and what a store offers beside it; an odd job name makes its reads fail."""

    def __init__(self, lease_seconds: float = 60.0) -> None:
        self.rows: list[Row] = []
        self.starts: list[tuple[int, int, str]] = []
        self.refused: list[tuple[int, int]] = []
        """Starts that were answered None."""
        self.fenced: list[tuple[int, int]] = []
        self.beats = 0
        self.failures: list[Exception] = []
        """Raised one after the other by `finish`."""
        self._lease_seconds = lease_seconds
        self._lock = threading.RLock()

    def add(self, do: str = "nothing", kind: Kind = "batch", **payload: Any) -> int:
        with self._lock:
            self.rows.append(Row(kind, {"do": do, **payload}))
            return len(self.rows) - 1

    def lease(self, unit: int) -> int:
        """Mark it as handed out; its new attempt."""
        with self._lock:
            row = self.rows[unit]
            assert row.state == "ready"
            row.state, row.attempt = "queued", row.attempt + 1
            return row.attempt

    def ready(self) -> list[int]:
        with self._lock:
            return [unit for unit, row in enumerate(self.rows) if row.state == "ready"]

    def hand_back(self, worker: str) -> None:
        with self._lock:
            for row in self.rows:
                if row.state == "running" and row.worker == worker:
                    row.state = "ready"

    def expire(self) -> None:
        with self._lock:
            for row in self.rows:
                if row.state == "running" and row.lease < time.monotonic():
                    row.state = "ready"

    def cancel(self, unit: int) -> None:
        with self._lock:
            self.rows[unit].state = "cancelled"

    def states(self) -> list[str]:
        with self._lock:
            return [row.state for row in self.rows]

    def _held(self, unit: int, attempt: int) -> Row | None:
        row = self.rows[unit]
        return row if row.state == "running" and row.attempt == attempt else None

    def start(self, unit: int, attempt: int, worker: str) -> Unit | None:
        with self._lock:
            row = self.rows[unit]
            if row.state != "queued" or row.attempt != attempt:
                self.refused.append((unit, attempt))
                return None
            row.state, row.worker, row.lease = "running", worker, time.monotonic() + self._lease_seconds
            self.starts.append((unit, attempt, worker))
            return Unit(unit, attempt, row.kind, "job", row.payload)

    def beat(self, unit: int, attempt: int, fraction: float = 0.0) -> bool:
        with self._lock:
            self.beats += 1
            row = self._held(unit, attempt)
            if row:
                row.fraction, row.lease = fraction, time.monotonic() + self._lease_seconds
            return row is not None

    def finish(self, unit: int, attempt: int, outcome: Outcome) -> bool:
        with self._lock:
            if self.failures:
                raise self.failures.pop(0)
            row = self._held(unit, attempt)
            if row is None:
                self.fenced.append((unit, attempt))
                return False
            row.state = "done"
            row.outcomes.append(outcome)
            return True

    def job(self, job: str) -> JobRecord | None:
        if job == "full disk":
            raise StorageError("the disk is full", code="disk_full", retryable=True)
        if job == "bug":
            raise KeyError(job)
        if job == "lambda":
            return lambda: None  # type: ignore[return-value]
        return JobRecord(job, "me", 0.0, {}, (), True, None, "there", "folder", None, 1)

    def found(self, job: str) -> list[Found]:
        return [Found("source", job, {"label": "a" * 100_000}, None)]

    def earlier(self, job: str, indexes: Sequence[int]) -> dict[int, Output]:
        return {index: Output(index) for index in indexes}

    def outputs(self, job: str, after: int, limit: int) -> list[Output]:
        return [Output(index) for index in range(after + 1, after + 1 + limit)]


class FakeCrew:
    """Its deeds are its methods `do_…`."""

    def __init__(self, arguments: Mapping[str, Any], log: TextIO) -> None:
        self._log = event_log([log])
        self._arguments = arguments
        self._sandbox = Sandbox(["sandbox_tasks"])
        self._forgotten: list[str] = []

    def perform(
        self, unit: Unit, ledger: Ledger, cancelled: threading.Event, report: Callable[[float], None]
    ) -> Outcome:
        result = getattr(self, f"do_{unit.payload['do']}")(unit.payload, ledger, cancelled, report)
        return Outcome(result={"value": result}, outputs=(Output(unit.id),))

    def forget(self, job: str) -> None:
        self._forgotten.append(job)

    def close(self) -> None:
        self._sandbox.close()
        if "closed" in self._arguments:
            Path(self._arguments["closed"], str(os.getpid())).touch()

    def do_nothing(self, *_: object) -> None:
        pass

    def do_hold(
        self,
        payload: Mapping[str, Any],
        _: Ledger,
        cancelled: threading.Event,
        report: Callable[[float], None],
    ) -> str:
        """Until the file `until` is there, or the end of the unit is asked for."""
        report(0.5)
        while not Path(payload["until"]).exists():
            if cancelled.wait(0.005):
                return "cancelled"
        return "held"

    def do_hang(self, *_: object) -> None:
        while True:
            time.sleep(1)

    def do_die_once(self, payload: Mapping[str, Any], *_: object) -> None:
        mark = Path(payload["mark"])
        if not mark.exists():
            mark.touch()
            signal.raise_signal(signal.SIGSEGV)

    def do_sandbox(self, *_: object) -> None:
        self._sandbox.run("sandbox_tasks:sleep", arguments={"seconds": 100})

    def do_raise(self, payload: Mapping[str, Any], *_: object) -> None:
        if payload["what"] == "refusal":
            raise FetchError("the server answers 404", code="http_404")
        raise ZeroDivisionError("at https://host/file?Signature=secret")

    def do_lambda(self, *_: object) -> Any:
        return lambda: None

    def do_ask(self, payload: Mapping[str, Any], ledger: Ledger, *_: object) -> Any:
        try:
            record = ledger.job(payload["job"])
        except Exception as error:  # noqa: BLE001 - that is the answer
            return [type(error).__name__, getattr(error, "code", None), getattr(error, "retryable", None)]
        found = ledger.found("f")
        assert record
        assert found[0].result
        outputs = ledger.outputs("o", 4, 2)
        return [record.id, len(found[0].result["label"]), ledger.earlier("e", [3])[3].index, outputs[1].index]

    def do_log(self, payload: Mapping[str, Any], *_: object) -> None:
        for number in range(payload["lines"]):
            self._log.info("a line", number=number, text="ü" * number, url="https://host/?token=secret")

    def do_recall(self, *_: object) -> list[str]:
        return self._forgotten


def fake_crew(arguments: Mapping[str, Any], log: TextIO) -> FakeCrew:
    if "stillborn" in arguments:
        with Path(arguments["stillborn"]).open("a") as file:
            file.write(f"{time.monotonic()}\n")
        raise RuntimeError("no tools")
    return FakeCrew(arguments, log)


class Floor:
    """A scheduler in small: hands out what is ready whenever something changed, and hands back what a death left."""

    def __init__(
        self,
        ledger: MemoryLedger,
        arguments: Mapping[str, Any] | None = None,
        processors: int = 1,
        logs: Sequence[TextIO] = (),
        factory: str = "engine_tasks:fake_crew",
    ) -> None:
        from crosscut.engine.embedded import EmbeddedExecutor

        self.ledger = ledger
        self.deaths: list[str] = []
        self.changes = 0
        self._lock = threading.Lock()
        self.executor = EmbeddedExecutor(
            ledger,
            factory,
            arguments or {},
            processors=processors,
            on_death=self._on_death,
            on_change=self._on_change,
            logs=logs,
        )

    def offer(self) -> None:
        with self._lock:
            for unit in self.ledger.ready():
                self.executor.submit(unit, self.ledger.lease(unit), LANES[self.ledger.rows[unit].kind])

    def _on_death(self, worker: str) -> None:
        self.deaths.append(worker)
        self.ledger.hand_back(worker)

    def _on_change(self) -> None:
        self.changes += 1
        if hasattr(self, "executor"):
            self.offer()


def parent() -> None:
    """The main of a process with one worker busy in a sandbox and one in itself; prints when they are."""
    ledger = MemoryLedger()
    floor = Floor(ledger, processors=2)
    ledger.add("sandbox")
    ledger.add("hang")
    floor.offer()
    until(lambda: len(ledger.starts) == 2 and len(floor.executor.workers()) == 3)
    sys.stdout.write(json.dumps([worker.pid for worker in floor.executor.workers()]) + "\n")
    sys.stdout.flush()
    if "close" in sys.argv:
        floor.executor.close(0.1)
    else:
        threading.Event().wait()
