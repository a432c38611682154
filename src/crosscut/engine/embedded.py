"""The engine of one machine: supervised worker processes below this one, which holds the ledger."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from crosscut.engine import WorkerState
from crosscut.engine.channel import Channel, unanswered
from crosscut.engine.nursery import Nursery
from crosscut.errors import CrosscutError
from crosscut.telemetry import _Lines, event_log

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TextIO

    from crosscut.engine.channel import Message
    from crosscut.units import Lane, Ledger

NETWORK_UNITS = 8
"""Units at once in the one process of the network lane: they mostly wait."""
WAITING = 1
"""Units that wait in this process for each that can run."""
REST_SECONDS = 0.2
"""Between two looks of the scheduler: it is woken when a unit has ended."""
SHORT_LIFE_SECONDS = 5.0
"""A worker that ends sooner, with nothing done, is not replaced at once."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before a worker is replaced: doubled with each short life after another."""
UNREAD_SECONDS = 10
"""How long a worker may leave a message unread in a full socket before it counts as hung."""
ALL_KILLED = "killed with its nursery"
_KILL_SECONDS = 5


@dataclass(eq=False)
class _Worker:
    """Our end of one process."""

    name: str
    lane: Lane
    at_once: int
    channel: Channel
    status: socket.socket
    born: float
    pid: int = 0
    """0 until it is ready for units."""
    hands: dict[int, tuple[int, int]] = field(default_factory=dict)
    """ticket -> (unit, attempt) for what was given to it and has not ended."""
    begun: set[tuple[int, int]] = field(default_factory=set)
    """Those of them the ledger may know it by."""
    ended: int = 0
    problem: str = ""

    def send(self, *message: Any) -> None:
        """A worker that cannot take it is dead, or as good as dead."""
        try:
            self.channel.send(message)
        except OSError:
            self.kill()

    def kill(self) -> None:
        with contextlib.suppress(OSError):  # it is dead already
            self.status.shutdown(socket.SHUT_WR)

    def bury(self) -> str:
        """Make sure that it is dead; what it died of."""
        self.kill()
        self.status.settimeout(_KILL_SECONDS)
        try:
            said = self.status.recv(16)
        except OSError:
            said = b""
        self.status.close()
        self.channel.close()
        if not said:
            return ALL_KILLED
        code = int(said)
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


class EmbeddedExecutor:
    """`processors` workers for the processor lane and one for the network lane, replaced whenever they die.

    0 of them: that lane is not served. `factory` and `arguments` make the crew in each worker, see `worker.Factory`.
    Workers are called `prefix` and what makes them different. `on_death` hears the name of a worker
    that died with its units, after its last call of the ledger, `on_loss` (default: the same) that of one that was
    ended with all others, so that none of its units can be to blame; `on_change` is called after every end of a unit or
    a worker, `on_end` with what need not be waited for any more. They and the ledger are called from several threads;
    what they raise is logged.
    """

    def __init__(
        self,
        ledger: Ledger,
        factory: str,
        arguments: Mapping[str, Any],
        *,
        processors: int,
        network: int = NETWORK_UNITS,
        on_death: Callable[[str], object],
        on_change: Callable[[], object],
        on_loss: Callable[[str], object] | None = None,
        on_end: Callable[[int, int], object] = lambda _unit, _attempt: None,
        prefix: str = "",
        logs: Sequence[TextIO] = (),
    ) -> None:
        self._ledger = ledger
        self._factory = factory
        self._arguments = dict(arguments)
        self._on_death = on_death
        self._on_loss = on_loss or on_death
        self._on_change = on_change
        self._on_end = on_end
        self._prefix = prefix
        self._lines = _Lines(logs)
        self._log = event_log(logs)
        self._nursery = Nursery((factory.partition(":")[0],))
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._tickets = 0
        self._names = 0
        self._workers: dict[str, _Worker] = {}
        self._waiting: dict[Lane, deque[tuple[int, int]]] = {"processor": deque(), "network": deque()}
        self._capacity: dict[Lane, int] = {"processor": processors, "network": network}
        self._problem: str | None = None
        places: list[tuple[Lane, int]] = [("network", network)] if network else []
        places += [("processor", 1)] * processors
        self._threads = [
            threading.Thread(target=self._tend, args=place, name=f"{place[0]} worker", daemon=True) for place in places
        ]
        for thread in self._threads:
            thread.start()

    def slots(self, lane: Lane, queued: int, running: int) -> int:
        return max(0, (1 + WAITING) * self._capacity[lane] - queued - running)

    def rest(self) -> float:
        return REST_SECONDS

    def submit(self, unit: int, attempt: int, lane: Lane) -> None:
        with self._lock:
            if self._closing.is_set() or (unit, attempt) in self._waiting[lane]:
                return
            self._waiting[lane].append((unit, attempt))
        self._hand_out(lane)

    def forget(self, job: str) -> None:
        """Tell every worker that what it keeps in memory for the job is of no use any more."""
        for worker in self._ready():
            worker.send("forget", job)

    def kill(self, name: str) -> None:
        """End a worker that hangs, as if it had crashed; it need not exist any more."""
        with self._lock:
            worker = self._workers.get(name)
        if worker:
            self._say(logging.WARNING, "a worker is killed", worker=name)
            worker.kill()

    def workers(self) -> list[WorkerState]:
        """Those that can take units, or do."""
        return [WorkerState(worker.name, worker.pid, worker.lane, len(worker.hands)) for worker in self._ready()]

    def tend(self) -> None:
        """Every worker has a thread that does."""

    def waiting(self, lane: Lane) -> None:
        """What is lost here is lost with this process."""

    def problems(self) -> list[str]:
        return [f"worker processes do not start: {self._problem}"] if self._problem else []

    def close(self, grace: float) -> None:
        with self._lock:
            self._closing.set()
            for waiting in self._waiting.values():
                waiting.clear()
            workers = list(self._workers.values())
        deadline = time.monotonic() + grace
        for worker in workers:
            worker.send("drain")
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for worker in workers:
            worker.kill()
        for thread in self._threads:
            thread.join(_KILL_SECONDS)
        self._nursery.close()
        for thread in self._threads:
            thread.join()

    def _ready(self) -> list[_Worker]:
        with self._lock:
            return [worker for worker in self._workers.values() if worker.pid]

    def _hand_out(self, lane: Lane) -> None:
        given = []
        with self._lock:
            waiting = self._waiting[lane]
            for worker in self._workers.values():
                while waiting and worker.pid and worker.lane == lane and len(worker.hands) < worker.at_once:
                    self._tickets += 1
                    worker.hands[self._tickets] = pair = waiting.popleft()
                    given.append((worker, self._tickets, *pair))
        for worker, ticket, unit, attempt in given:
            worker.send("unit", ticket, unit, attempt)

    # what follows runs on the thread of one place

    def _tend(self, lane: Lane, at_once: int) -> None:
        """Keep one worker alive, in one life after the other."""
        short_lives = 0
        while not self._closing.is_set():
            short_lives = 0 if self._live(lane, at_once) else short_lives + 1
            if short_lives:
                self._closing.wait(min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(short_lives - 1, 10)))

    def _live(self, lane: Lane, at_once: int) -> bool:
        """One worker from its start to its end; whether it lived well."""
        try:
            worker = self._start(lane, at_once)
        except (CrosscutError, OSError) as error:
            self._problem = f"{error} {getattr(error, 'detail', '')}".strip()
            self._say(logging.ERROR, "no worker could be started", lane=lane, reason=self._problem)
            return False
        if worker:
            while message := worker.channel.receive():
                self._heed(worker, message)
            self._end(worker)
        return worker is None or worker.ended > 0 or time.monotonic() - worker.born > SHORT_LIFE_SECONDS

    def _start(self, lane: Lane, at_once: int) -> _Worker | None:
        channel, status = self._nursery.fork()
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", UNREAD_SECONDS, 0))
        with self._lock:
            self._names += 1
            worker = _Worker(
                f"{self._prefix}{lane}-{self._names}", lane, at_once, Channel(channel), status, time.monotonic()
            )
            welcome = not self._closing.is_set()
            if welcome:
                self._workers[worker.name] = worker
        if not welcome:
            worker.bury()
            return None
        worker.send("begin", worker.name, at_once, self._factory, self._arguments)
        return worker

    def _heed(self, worker: _Worker, message: Message) -> None:
        match message:
            case ("call", number, name, arguments):
                answer = self._answer(worker, name, arguments)
                try:
                    worker.send("answer", number, *answer)
                except Exception as error:  # noqa: BLE001 - the value cannot travel
                    worker.send("answer", number, False, unanswered(error))
            case ("log", lines):
                with contextlib.suppress(OSError, ValueError):  # nobody reads the log any more
                    self._lines.msg(lines)
            case ("done", ticket):
                with self._lock:
                    pair = worker.hands.pop(ticket)
                    worker.begun.discard(pair)
                    worker.ended += 1
                self._tell(partial(self._on_end, *pair))
                self._hand_out(worker.lane)
                self._tell(self._on_change)
            case ("ready", pid):
                with self._lock:
                    worker.pid = pid
                    self._problem = None
                self._hand_out(worker.lane)
            case ("broken", reason):
                worker.problem = self._problem = reason

    def _answer(self, worker: _Worker, name: str, arguments: Sequence[Any]) -> tuple[bool, Any]:
        if name == "start":
            unit, attempt, _ = arguments
            worker.begun.add((unit, attempt))
        try:
            return True, getattr(self._ledger, name)(*arguments)
        except CrosscutError as error:
            return False, error
        except Exception as error:  # noqa: BLE001 - a worker must hear of it, whatever it is
            self._say(logging.ERROR, "the ledger failed", call=name, worker=worker.name, exc_info=True)
            return False, unanswered(error)

    def _end(self, worker: _Worker) -> None:
        cause = worker.bury()
        with self._lock:
            del self._workers[worker.name]
            lost = [pair for pair in worker.hands.values() if pair in worker.begun]
            if not self._closing.is_set():
                self._waiting[worker.lane].extendleft(pair for pair in worker.hands.values() if pair not in lost)
        if lost or not self._closing.is_set():
            listener = self._on_loss if cause == ALL_KILLED else self._on_death
            self._tell(lambda: listener(worker.name))
            for pair in lost:
                self._tell(partial(self._on_end, *pair))
            self._say(
                logging.WARNING,
                "a worker ended",
                worker=worker.name,
                cause=worker.problem or cause,
                units=[unit for unit, _ in lost],
                seconds=round(time.monotonic() - worker.born, 1),
            )
        self._hand_out(worker.lane)
        self._tell(self._on_change)

    def _tell(self, listener: Callable[[], object]) -> None:
        try:
            listener()
        except Exception:  # noqa: BLE001 - this thread has a worker to serve
            self._say(logging.ERROR, "a listener of the executor failed", exc_info=True)

    def _say(self, level: int, event: str, **fields: Any) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads the log any more
            self._log.log(level, event, **fields)
