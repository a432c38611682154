"""The other side of the sandbox: `python -m crosscut.spawner SOCKET MODULE...` imports once and forks a child per task.

It stays single-threaded, never reads a byte that a child wrote, and ends with the process that started it.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from crosscut import errors
from crosscut.errors import CrosscutError
from crosscut.isolation import confine, die_with_parent
from crosscut.sandbox import MOST_FILES, READY, Job, sandbox_error, storage_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from crosscut.sandbox import JSON

_CHANNEL = 3
"""The one descriptor a child keeps beside 0, 1 and 2."""
_OPEN_FILES = 64
"""What a child may open beside the files it is given."""
LAZY = tuple(f"numpy.{name}" for name in ("fft", "linalg", "ma", "polynomial", "random", "rec", "strings"))
_PARENT_CHECK_MS = 1000


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # whether work goes on is for the process above to say
    try:
        _import_all(sys.argv[2:])
    except BaseException as error:  # noqa: BLE001  (whatever an import can raise)
        answer = f"{type(error).__name__}: {error}"[:1000].encode()
    else:
        answer = READY
    gc.freeze()
    with contextlib.suppress(OSError):  # whoever started us was interrupted meanwhile
        control.sendall(answer)
        if answer == READY:
            _Spawning(control).serve()


def _import_all(modules: Sequence[str]) -> None:
    """PyAV and NumPy import some of themselves at the first use, when a child can open no file any more."""
    package = importlib.import_module("av")
    for found in pkgutil.walk_packages(package.__path__, "av."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    for module in modules:
        importlib.import_module(module)
    for module in LAZY:
        importlib.import_module(module)


class _Spawning:
    """The loop of the spawner: a byte on `control` brings the two sockets of a task to fork for."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._status: dict[int, int] = {}
        """pid -> status socket, for all children that are not reaped."""
        self._poller = select.poll()
        self._wake, wake = os.pipe()
        for end in (self._wake, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self) -> None:
        parent = os.getppid()
        self._poller.register(self._control, select.POLLIN)
        self._poller.register(self._wake, select.POLLIN)
        going = True
        while going and os.getppid() == parent:
            ready = {descriptor for descriptor, _ in self._poller.poll(_PARENT_CHECK_MS)}
            # in this order no number in `ready` can have come to mean another child
            for pid, status in self._status.items():
                if status in ready:
                    self._poller.unregister(status)
                    os.kill(pid, signal.SIGKILL)
            if self._wake in ready:
                os.read(self._wake, 4096)
                self._reap()
            if self._control.fileno() in ready:
                going = self._fork()
        for pid in self._status:
            os.kill(pid, signal.SIGKILL)

    def _fork(self) -> bool:
        try:
            said, sockets, _, _ = socket.recv_fds(self._control, 1, 2)
        except ConnectionResetError:
            return False
        if not said:
            return False
        channel, status = sockets
        spawner = os.getpid()
        with contextlib.suppress(OSError):  # no process to be had: the closed sockets tell
            pid = os.fork()
            if pid == 0:
                self._become_child(channel, spawner)
            self._status[pid] = os.dup(status)
            self._poller.register(self._status[pid], select.POLLIN)
        os.close(channel)
        os.close(status)
        return True

    def _reap(self) -> None:
        while self._status:
            pid, code = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            status = self._status.pop(pid)
            with contextlib.suppress(KeyError):  # killed before
                self._poller.unregister(status)
            with contextlib.suppress(OSError):  # nobody waits any more
                os.write(status, str(os.waitstatus_to_exitcode(code)).encode())
            os.close(status)

    def _become_child(self, channel: int, spawner: int) -> NoReturn:
        try:
            die_with_parent(spawner)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.detach()
            os.dup2(1, 2)  # what a decoder prints is a stranger's text
            os.dup2(channel, _CHANNEL)
            os.closerange(_CHANNEL + 1, os.sysconf("SC_OPEN_MAX"))
            _work(socket.socket(fileno=_CHANNEL))
            os._exit(0)
        finally:
            os._exit(1)


def _work(channel: socket.socket) -> None:
    """Receive one request, confine this process, do the task, send the answer."""

    def send(message: Mapping[str, JSON]) -> None:
        channel.sendall(json.dumps(message, allow_nan=False).encode() + b"\n")

    _, files, _, _ = socket.recv_fds(channel, 1, MOST_FILES)
    request = json.loads(channel.makefile("rb").readline())
    try:
        send({"result": _do(request, files, lambda percent: send({"percent": percent}))})
    except BaseException as error:  # noqa: BLE001  (a child answers, whatever happens)
        send({"error": _described(error)})


def _do(request: Mapping[str, JSON], files: Sequence[int], report: Callable[[int], None]) -> JSON:
    limits = request["limits"]
    module, _, name = request["task"].partition(":")
    function = getattr(sys.modules[module], name)
    try:
        confine(
            memory_bytes=limits["memory_bytes"],
            cpu_seconds=limits["cpu_seconds"],
            file_bytes=limits["file_bytes"],
            open_files=_OPEN_FILES + len(files),
            read_paths=request["read_paths"],
        )
    except (OSError, ValueError) as error:
        raise sandbox_error("unavailable", f"confinement failed: {error}") from error
    count = request["inputs"]
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(os.fdopen(file, "rb" if index < count else "r+b")) for index, file in enumerate(files)
        ]
        job = Job(inputs=tuple(opened[:count]), outputs=tuple(opened[count:]), report=report)
        return function(job, **request["arguments"])


def _described(error: BaseException) -> JSON:
    known = error if isinstance(error, CrosscutError) else _judged(error)
    kind = next(base for base in type(known).__mro__ if base.__module__ == errors.__name__)
    return {
        "kind": kind.__name__,
        "public": known.public,
        "code": known.code,
        "retryable": known.retryable,
        "detail": known.detail,
    }


def _judged(error: BaseException) -> CrosscutError:
    """What an exception of a library means for the user. Its own text, which may hold paths, is for the log."""
    places = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), lookup_lines=False)
    place = ", ".join(f"{os.path.basename(at.filename)}:{at.lineno} in {at.name}" for at in places[-3:])  # noqa: PTH119
    detail = f"{type(error).__name__}: {error} ({place})"
    for link in _chain(error):
        number = getattr(link, "errno", None)
        if isinstance(link, MemoryError) or number == errno.ENOMEM or _allocation_failed(link):
            return sandbox_error("memory", detail)
        if number == errno.EFBIG:
            return sandbox_error("output_too_large", detail)
        if number in (errno.ENOSPC, errno.EDQUOT):
            return storage_error(OSError(number, detail))
    return sandbox_error("damaged", detail)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _allocation_failed(error: BaseException) -> bool:
    """x264 and other foreign libraries have one error for everything; its text says "malloc failed"."""
    return type(error).__name__ == "ExternalError" and "alloc" in str(error).lower()


if __name__ == "__main__":
    main()
