"""Messages between the executor and one worker process, over one socket.

    executor -> worker   ("begin", name, at_once, factory, arguments)   once, first
                         ("unit", ticket, unit, attempt)  ("forget", job)  ("drain",)
                         ("answer", number, good, value or error)
    worker -> executor   ("ready", pid)  ("broken", reason)   one of them, once, before anything but log lines
                         ("done", ticket)  ("log", lines)
                         ("call", number, name, arguments)   of the ledger

Both sides are ours and of one version, so that values travel as they are.
"""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, TypeAlias

from crosscut.errors import StorageError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from crosscut.units import Found, JobRecord, Outcome, Output, Unit

Message: TypeAlias = tuple[Any, ...]


class Channel:
    """Whole messages over a connected socket, which it takes over; sent by any thread, received by one."""

    def __init__(self, connected: socket.socket) -> None:
        self._connection = Connection(connected.detach())
        self._sending = threading.Lock()

    def send(self, message: Message) -> None:
        """OSError when the other side is gone or does not read; after that only `close` makes sense."""
        with self._sending:
            self._connection.send(message)

    def receive(self) -> Message | None:
        """The next message, None when there will be no more."""
        try:
            message: Message = self._connection.recv()
        except (EOFError, OSError):
            return None
        return message

    def close(self) -> None:
        with self._sending:
            self._connection.close()


class RemoteLedger:
    """The executor's Ledger as a worker sees it, through `send`; any number of threads may call at once."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._numbers = itertools.count(1)
        self._asked: dict[int, Future[Any]] = {}

    def start(self, unit: int, attempt: int, worker: str) -> Unit | None:
        answer: Unit | None = self._ask("start", unit, attempt, worker)
        return answer

    def beat(self, unit: int, attempt: int, fraction: float = 0.0) -> bool:
        answer: bool = self._ask("beat", unit, attempt, fraction)
        return answer

    def finish(self, unit: int, attempt: int, outcome: Outcome) -> bool:
        answer: bool = self._ask("finish", unit, attempt, outcome)
        return answer

    def job(self, job: str) -> JobRecord | None:
        answer: JobRecord | None = self._ask("job", job)
        return answer

    def found(self, job: str) -> list[Found]:
        answer: list[Found] = self._ask("found", job)
        return answer

    def earlier(self, job: str, indexes: Sequence[int]) -> dict[int, Output]:
        answer: dict[int, Output] = self._ask("earlier", job, indexes)
        return answer

    def outputs(self, job: str, after: int, limit: int) -> list[Output]:
        answer: list[Output] = self._ask("outputs", job, after, limit)
        return answer

    def take(self, number: int, good: bool, value: Any) -> None:
        """The answer to a call has come."""
        asked = self._asked.pop(number)
        if good:
            asked.set_result(value)
        else:
            asked.set_exception(value)

    def _ask(self, name: str, *arguments: Any) -> Any:
        number = next(self._numbers)
        asked = self._asked[number] = Future()
        try:
            self._send(("call", number, name, arguments))
        except BaseException:
            del self._asked[number]
            raise
        return asked.result()


def unanswered(error: BaseException) -> StorageError:
    """What a worker hears of an error of the ledger that is not meant for users, and need not be known to it."""
    detail = f"{type(error).__name__}: {error}"
    return StorageError(
        "the state of the jobs could not be read or written; see the log of the server",
        code="state",
        retryable=True,
        detail=detail,
    )
