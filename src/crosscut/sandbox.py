"""Run one function on files from outside in a child process that can do nothing else, and die without harm.

    Sandbox (any thread) ──task sockets──> spawner (warm, single-threaded) ──fork──> child (confined, one task)

The spawner imports the task modules once, so a child costs a fork (about 5 ms). Every task has two sockets: on the
*channel* the child gets its request and open files and answers in JSON lines; on the *status* socket the spawner
reports the exit code, and its closing by us is the order to kill. A child never hears of a path of ours.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Self, TypeAlias

from crosscut import errors, isolation
from crosscut.errors import CrosscutError, SandboxError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

JSON: TypeAlias = Any

READY = b"ready"
"""What a spawner says when its modules are imported; anything else is the reason why they are not."""
ANSWER_BYTES = 16 * 2**20
"""The longest line a child may send."""
MOST_CHILDREN = 64
MOST_FILES = 250
"""Open files one task can be given; the kernel passes 253 at once (SCM_MAX_FD)."""

_NOTICE_SECONDS = 0.1
"""How long a cancellation may go unnoticed."""
_START_SECONDS = 60
_KILL_SECONDS = 5

_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
"""The environment a child may read: no keys, no URLs."""
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""Only a single-threaded process can be forked safely."""

_SENTENCES = {
    "cancelled": "the work on this file was cancelled",
    "damaged": "this file could not be read: it is damaged or not what it seems; convert it with another program",
    "decoder_crashed": "the decoder crashed on this file: it is damaged or not what it seems; "
    "convert it with another program",
    "interrupted": "the work on this file was interrupted; try again",
    "memory": "this file needs more memory than allowed; use one with a smaller picture",
    "output_too_large": "the result for this file is larger than allowed; use a shorter one",
    "time": "the work on this file took longer than allowed; use a shorter or smaller one",
    "unavailable": "the decoder processes cannot be started on this machine; see the log of the server",
}
_ERRORS = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, CrosscutError)
}


@dataclass(frozen=True)
class Limits:
    """What one child may use; `file_bytes` holds for each output by itself."""

    memory_bytes: int = 2 * 2**30
    cpu_seconds: int = 600
    wall_seconds: float = 900.0
    file_bytes: int = 4 * 2**30


def _ignored(_percent: int) -> None:
    """Nobody wants to know."""


@dataclass
class Job:
    """What a task works with: `inputs` open for reading; `outputs` empty, open for reading and writing."""

    inputs: tuple[BinaryIO, ...] = ()
    outputs: tuple[BinaryIO, ...] = ()
    report: Callable[[int], None] = _ignored
    """Gets each whole percent once, rising."""
    percent: int = 0

    def progress(self, fraction: float) -> None:
        """Say how much is done, 0 to 1; cheap enough to call for every frame."""
        percent = int(fraction * 100)
        if percent > self.percent:
            self.percent = percent
            self.report(percent)


class Sandbox:
    """Runs tasks of `modules` in confined children; made after any fork of the caller, used from any thread.

    At most `at_once` of them run at the same time; others wait, which counts for no limit of theirs.
    """

    def __init__(self, modules: Sequence[str], at_once: int = MOST_CHILDREN) -> None:
        self._modules = tuple(modules)
        self._turns = threading.Semaphore(at_once)
        self._lock = threading.Lock()
        self._spawner: _Spawner | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def isolation() -> tuple[str, ...]:
        """What this machine holds a child back with, for a report on its health."""
        return isolation.available()

    def close(self) -> None:
        """End the spawner and all children; a `run` under way raises SandboxError "interrupted"."""
        with self._lock:
            self._closed = True
            if self._spawner:
                self._spawner.close()
                self._spawner = None

    def run(
        self,
        task: str,
        *,
        arguments: Mapping[str, JSON],
        inputs: Sequence[Path] = (),
        outputs: Sequence[Path] = (),
        limits: Limits = Limits(),
        read_paths: Sequence[Path] = (),
        on_progress: Callable[[float], None] | None = None,
        cancelled: threading.Event | None = None,
    ) -> JSON:
        """Call `task` ("module:function") as `function(job, **arguments)` in a child and return its JSON answer.

        `outputs` are created and must not exist; they are gone again after any error. A CrosscutError of the function
        arrives as it was raised; everything else is a SandboxError with code "cancelled", "damaged",
        "decoder_crashed", "interrupted", "memory", "output_too_large", "time" or "unavailable", or a StorageError.
        A crash with an argument `threads` above 1 is tried once more with 1: some decoder faults need threads.
        """
        if task.partition(":")[0] not in self._modules:
            raise ValueError(f"{task} is not of the modules of this sandbox")
        if len(inputs) + len(outputs) > MOST_FILES:
            raise ValueError(f"more than {MOST_FILES} files for one task")

        def attempt(arguments: Mapping[str, JSON]) -> JSON:
            request = {
                "task": task,
                "arguments": dict(arguments),
                "inputs": len(inputs),
                "limits": asdict(limits),
                "read_paths": [str(path) for path in read_paths],
            }
            with _open_files(inputs, outputs) as files, self._turn(cancelled):
                return self._attempt(request, files, limits.wall_seconds, on_progress, cancelled)

        try:
            return attempt(arguments)
        except SandboxError as error:
            if error.code != "decoder_crashed" or arguments.get("threads", 1) == 1:
                raise
        return attempt({**arguments, "threads": 1})

    @contextlib.contextmanager
    def _turn(self, cancelled: threading.Event | None) -> Iterator[None]:
        while not self._turns.acquire(timeout=_NOTICE_SECONDS):
            if cancelled and cancelled.is_set():
                raise sandbox_error("cancelled")
        try:
            yield
        finally:
            self._turns.release()

    def _attempt(
        self,
        request: Mapping[str, JSON],
        files: Sequence[int],
        wall_seconds: float,
        on_progress: Callable[[float], None] | None,
        cancelled: threading.Event | None,
    ) -> JSON:
        channel, status = self._start_child()
        with channel, status:
            try:
                watch = _Watch(channel, status, time.monotonic() + wall_seconds, on_progress, cancelled)
                watch.send(request, files)
                code = watch.until_exit()
            except BaseException:
                _kill(status)
                raise
            return _outcome(code, watch.answer)

    def _start_child(self) -> tuple[socket.socket, socket.socket]:
        """Have a child forked, by a new spawner where the last one died; our ends of its channel and status."""
        with self._lock:
            for _ in range(2):
                if self._closed:
                    raise sandbox_error("interrupted", "the sandbox is closed")
                self._spawner = self._spawner or _Spawner(self._modules)
                try:
                    return self._spawner.fork()
                except OSError:
                    self._spawner.close()
                    self._spawner = None
        raise sandbox_error("interrupted", "the spawner died twice")


class _Spawner:
    """Our side of the spawner process."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._control, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)), "MALLOC_ARENA_MAX": "2"}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "crosscut.spawner", str(theirs.fileno()), *modules],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=environment | _ONE_THREAD,
                start_new_session=True,
            )
        self._control.settimeout(_START_SECONDS)
        try:
            greeting = self._control.recv(4096)
        except OSError as error:
            greeting = repr(error).encode()
        if greeting != READY:
            self.close()
            raise sandbox_error("unavailable", greeting.decode(errors="replace") or "the spawner died at its start")

    def fork(self) -> tuple[socket.socket, socket.socket]:
        channel, child_channel = socket.socketpair()
        status, child_status = socket.socketpair()
        with child_channel, child_status:
            try:
                socket.send_fds(self._control, [b"f"], [child_channel.fileno(), child_status.fileno()])
            except BaseException:
                channel.close()
                status.close()
                raise
        return channel, status

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it is gone already
            self._control.shutdown(socket.SHUT_RDWR)
        self._control.close()
        try:
            self._process.wait(_KILL_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass
class _Watch:
    """Our end of one child: sends its request, follows its answer, notices its exit, the clock and a cancellation."""

    channel: socket.socket
    status: socket.socket
    deadline: float
    on_progress: Callable[[float], None] | None
    cancelled: threading.Event | None
    answer: Mapping[str, JSON] = field(default_factory=dict)
    percent: int = 0
    line: bytearray = field(default_factory=bytearray)

    def send(self, request: Mapping[str, JSON], files: Sequence[int]) -> None:
        self.channel.settimeout(max(0.1, self.deadline - time.monotonic()))
        try:
            socket.send_fds(self.channel, [b"f"], files)
            self.channel.sendall(json.dumps(request, allow_nan=False).encode() + b"\n")
        except TimeoutError as error:
            raise sandbox_error("time", "the child took no request") from error
        except OSError as error:
            raise sandbox_error("interrupted", "the child was gone before its request") from error
        self.channel.setblocking(False)

    def until_exit(self) -> int:
        """The exit code, negative for a signal; SandboxError on a cancellation, the deadline or a dead spawner."""
        poller = select.poll()
        poller.register(self.channel, select.POLLIN)
        poller.register(self.status, select.POLLIN)
        while True:
            left = self.deadline - time.monotonic()
            if self.cancelled and self.cancelled.is_set():
                raise sandbox_error("cancelled")
            if left <= 0:
                raise sandbox_error("time", "wall clock")
            for ready, _ in poller.poll(min(left, _NOTICE_SECONDS) * 1000):
                if ready == self.channel.fileno() and not self._read():
                    poller.unregister(self.channel)
                elif ready == self.status.fileno():
                    return self._exit_code()

    def _exit_code(self) -> int:
        said = self.status.recv(16)
        while self._read():
            pass
        if not said:
            raise sandbox_error("interrupted", "the spawner died")
        return int(said)

    def _read(self) -> bool:
        """Take what has come; False at the end."""
        try:
            data = self.channel.recv(2**16)
        except (BlockingIOError, ConnectionResetError):
            return False
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._take(bytes(self.line) + line)
            self.line.clear()
        self.line += rest
        if len(self.line) > ANSWER_BYTES:
            raise sandbox_error("damaged", f"an answer of more than {ANSWER_BYTES} bytes")
        return bool(data)

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise sandbox_error("damaged", f"the child answered no JSON: {error}") from error
        if not isinstance(message, dict):
            raise sandbox_error("damaged", "the child answered no JSON object")
        percent = message.get("percent")
        if not isinstance(percent, int):
            self.answer = message
        elif self.percent < percent <= 100:
            self.percent = percent
            if self.on_progress:
                self.on_progress(percent / 100)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _kill(status: socket.socket) -> None:
    """Order the spawner to kill the child, and wait until it is dead."""
    with contextlib.suppress(OSError):  # it is dead already, or the spawner is and its children with it
        status.shutdown(socket.SHUT_WR)
        status.settimeout(_KILL_SECONDS)
        status.recv(16)


def _outcome(code: int, answer: Mapping[str, JSON]) -> JSON:
    if code == 0 and "error" in answer:
        raise _revived(answer["error"])
    if code == 0 and "result" in answer:
        return answer["result"]
    if code == -signal.SIGXCPU:
        raise sandbox_error("time", "processor time")
    if code == -signal.SIGKILL:
        raise sandbox_error("memory", "killed by the kernel, out of memory", retryable=True)
    raise sandbox_error("decoder_crashed", signal.Signals(-code).name if code < 0 else f"exit code {code}")


def _revived(error: JSON) -> CrosscutError:
    """The error a child described, from a description that may be anything."""
    said: Mapping[str, JSON] = error if isinstance(error, dict) else {}

    def text(name: str, length: int) -> str:
        return "".join(c if c.isprintable() or c == "\n" else "?" for c in str(said.get(name, ""))[:length])

    kind = _ERRORS.get(text("kind", 40), SandboxError)
    return kind(
        text("public", 1000),
        code=text("code", 40),
        retryable=said.get("retryable") is True,
        detail=text("detail", 4000),
    )


def sandbox_error(code: str, detail: str = "", *, retryable: bool = False) -> SandboxError:
    return SandboxError(_SENTENCES[code], code=code, retryable=retryable or code == "interrupted", detail=detail)


def storage_error(error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError("the disk is full; free some space", code="disk_full", retryable=True, detail=str(error))
    return StorageError("a working file could not be opened; see the log", code="storage", detail=str(error))


@contextlib.contextmanager
def _open_files(inputs: Sequence[Path], outputs: Sequence[Path]) -> Iterator[list[int]]:
    """Open descriptors, inputs first; after an error the outputs made here are removed."""
    wanted = [(path, os.O_RDONLY) for path in inputs]
    wanted += [(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) for path in outputs]
    opened: list[int] = []
    try:
        while len(opened) < len(wanted):
            opened.append(_open(*wanted[len(opened)]))
        yield opened
    except BaseException:
        for path, flags in wanted[: len(opened)]:
            if flags & os.O_CREAT:
                path.unlink(missing_ok=True)
        raise
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise storage_error(error) from error
