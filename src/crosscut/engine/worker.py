"""A worker process, from its first message to its end: runs units, talks to nobody but the executor above it."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TextIO, cast

from crosscut.engine.channel import Channel, RemoteLedger
from crosscut.engine.execute import execute
from crosscut.telemetry import event_log

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from crosscut.engine.channel import Message
    from crosscut.units import Ledger, Outcome, Unit

LOG_SECONDS = 0.1
"""How long a line of the log may wait for others."""

logger = logging.getLogger(__name__)


class Crew(Protocol):
    """Those who can do every kind of unit; called from several threads."""

    def perform(
        self, unit: Unit, ledger: Ledger, cancelled: threading.Event, report: Callable[[float], None]
    ) -> Outcome: ...

    def forget(self, job: str) -> None:
        """The job has ended or changed: let go of what is kept in memory for it."""
        ...

    def close(self) -> None: ...


class Factory(Protocol):
    """Named by a dotted path such as `crosscut.bootstrap:crew`; called once in each worker process."""

    def __call__(self, arguments: Mapping[str, Any], log: TextIO) -> Crew:
        """`arguments` are JSON values; `log` takes whole lines."""
        ...


def factory_named(path: str) -> Factory:
    module, _, name = path.partition(":")
    factory: Factory = getattr(importlib.import_module(module), name)
    return factory


class LineLog(io.TextIOBase):
    """A text stream that keeps whole lines, those of each thread by themselves, until they are passed on.

    Many at once: whoever reads them has other things to do.
    """

    def __init__(self, take: Callable[[str], None]) -> None:
        """`take` gets lines with the breaks between them, never nothing."""
        self._take = take
        self._begun = threading.local()
        self._lock = threading.Lock()
        self._lines: list[str] = []

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._begun.text = (getattr(self._begun, "text", "") + text).split("\n")
        with self._lock:
            self._lines += lines
        return len(text)

    def pass_on(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
            if lines:
                self._take("\n".join(lines))


class Worker:
    """Units arrive on one thread and are performed on `at_once` others."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        _, self._name, self._at_once, self._factory, self._arguments = channel.receive() or _gone()
        self._ledger = RemoteLedger(channel.send)
        self._crew: Crew
        self._pool = ThreadPoolExecutor(self._at_once, "unit")
        self._drain = threading.Event()
        self._log = LineLog(lambda lines: self._channel.send(("log", lines)))

    def run(self) -> int:
        """Work until told to drain; the exit code. Whenever the executor is gone this process ends on the spot."""
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        threading.Thread(target=self._pass_on, name="log", daemon=True).start()
        log = cast("TextIO", self._log)
        logging.basicConfig(handlers=[ToEvents(log)], level=logging.WARNING, force=True)
        try:
            self._crew = factory_named(self._factory)(self._arguments, log)
        except BaseException as error:
            logger.exception("a worker could not be set up")
            self._log.pass_on()
            self._channel.send(("broken", f"{type(error).__name__}: {error}"))
            return 1
        self._channel.send(("ready", os.getpid()))
        self._drain.wait()
        self._pool.shutdown()
        try:
            self._crew.close()
        except Exception:
            logger.exception("a worker could not be closed in order")
        self._log.pass_on()
        return 0

    def _listen(self) -> None:
        try:
            while message := self._channel.receive():
                self._heed(message)
        finally:
            os._exit(1)

    def _heed(self, message: Message) -> None:
        match message:
            case ("answer", number, good, value):
                self._ledger.take(number, good, value)
            case ("unit", ticket, unit, attempt) if not self._drain.is_set():
                self._pool.submit(self._execute, ticket, unit, attempt)
            case ("forget", job):
                threading.Thread(target=self._forget, args=(job,), name="forget", daemon=True).start()
            case ("drain",):
                self._drain.set()

    def _execute(self, ticket: int, unit: int, attempt: int) -> None:
        try:
            execute(self._ledger, unit, attempt, self._name, self._crew.perform)
        except Exception:
            logger.exception("a unit was left to its lease")
        finally:
            self._log.pass_on()
            self._channel.send(("done", ticket))

    def _pass_on(self) -> None:
        with contextlib.suppress(OSError):  # nobody is there any more: `_listen` sees it too
            while True:
                time.sleep(LOG_SECONDS)
                self._log.pass_on()

    def _forget(self, job: str) -> None:
        try:
            self._crew.forget(job)
        except Exception:
            logger.exception("a job could not be forgotten")


class ToEvents(logging.Handler):
    """Lines of the standard library's logging, as events like all others."""

    def __init__(self, log: TextIO) -> None:
        super().__init__()
        self._events = event_log([log])

    def emit(self, record: logging.LogRecord) -> None:
        self._events.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


def serve(connected: socket.socket) -> NoReturn:
    """Be a worker for whoever holds the other end, until the end of this process."""
    code = 1
    try:
        code = Worker(Channel(connected)).run()
    finally:
        os._exit(code)


def _gone() -> NoReturn:
    os._exit(1)
