"""A warm, single-threaded process that forks the workers: `python -m crosscut.engine.nursery SOCKET MODULE...`.

    Nursery (executor, any thread) ──control──> nursery process ──fork──> worker

Each worker has a channel of its own to the executor, and a status socket: on it the nursery reports the exit code,
and its closing by the executor is the order to kill. All of them end with the executor, whatever ends it: the nursery
when its control closes, a worker when its channel closes or the nursery is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

from crosscut.engine import worker
from crosscut.errors import CrosscutError
from crosscut.isolation import die_with_parent
from crosscut.sandbox import READY
from crosscut.spawner import _Spawning

if TYPE_CHECKING:
    from collections.abc import Sequence

_START_SECONDS = 60
_END_SECONDS = 5
_CHANNEL = 3
"""The one descriptor a worker starts with beside 0, 1 and 2."""


class Nursery:
    """The executor's side; the process is started with the first fork, and anew when it is found dead."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = tuple(modules)
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def fork(self) -> tuple[socket.socket, socket.socket]:
        """The channel and the status socket of a new worker. CrosscutError or OSError when none can be had now."""
        channel, their_channel = socket.socketpair()
        status, their_status = socket.socketpair()
        with their_channel, their_status:
            try:
                self._order([their_channel.fileno(), their_status.fileno()])
            except BaseException:
                channel.close()
                status.close()
                raise
        return channel, status

    def close(self) -> None:
        """End the process and all workers; also breaks off a start under way."""
        self._closed = True
        if control := self._control:
            with contextlib.suppress(OSError):  # it is gone already
                control.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._end()

    def _order(self, sockets: list[int]) -> None:
        with self._lock:
            for _ in range(2):
                try:
                    socket.send_fds(self._control or self._start(), [b"f"], sockets)
                except OSError as error:
                    reason = repr(error)
                    self._end()
                else:
                    return
        raise _unavailable(reason)

    def _start(self) -> socket.socket:
        if self._closed:
            raise _unavailable("the executor is closed")
        self._control, theirs = (_beyond_standard_streams(end) for end in socket.socketpair())
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
            "MALLOC_ARENA_MAX": "2",
            # only a single-threaded process can be forked safely
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(theirs.fileno()), *self._modules],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=environment,
            )
        self._control.settimeout(_START_SECONDS)
        greeting = self._control.recv(4096)
        if greeting != READY:
            self._end()
            raise _unavailable(greeting.decode(errors="replace") or "the nursery died at its start")
        return self._control

    def _end(self) -> None:
        if self._control:
            self._control.close()
            self._control = None
        if self._process:
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def _beyond_standard_streams(end: socket.socket) -> socket.socket:
    """Where our own standard input was closed its number is free, but the child needs it for its own."""
    if end.fileno() > 2:
        return end
    with end:
        return socket.socket(fileno=fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3))


def _unavailable(detail: str) -> CrosscutError:
    return CrosscutError(
        "the worker processes cannot be started; see the log", code="unavailable", retryable=True, detail=detail
    )


class _Forking(_Spawning):
    def _become_child(self, channel: int, spawner: int) -> NoReturn:
        try:
            die_with_parent(spawner)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.detach()
            os.dup2(channel, _CHANNEL, inheritable=False)
            os.closerange(_CHANNEL + 1, os.sysconf("SC_OPEN_MAX"))
            worker.serve(socket.socket(fileno=_CHANNEL))
        finally:
            os._exit(1)


POLITENESS = 5
"""Added to the niceness of all work, so that who asks is answered while all processors encode."""


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    try:
        os.fstat(2)
    except OSError:  # whoever started us had none; a channel must not get its number
        os.open(os.devnull, os.O_WRONLY)
    os.nice(POLITENESS)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # sent to all of us at once; what is to end is for the executor to say
    try:
        for module in sys.argv[2:]:
            importlib.import_module(module)
    except BaseException as error:  # noqa: BLE001 - whatever an import can raise
        answer = f"{type(error).__name__}: {error}"[:1000].encode()
    else:
        answer = READY
    gc.freeze()
    with contextlib.suppress(OSError):  # whoever started us is gone
        control.sendall(answer)
        if answer == READY:
            _Forking(control).serve()


if __name__ == "__main__":
    main()
