"""Tasks that tests run in a sandbox: what a hijacked decoder would try, and what an honest one does."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import av
import av.error
import numpy as np

from crosscut.errors import ConformError

if TYPE_CHECKING:
    from collections.abc import Callable

    from crosscut.sandbox import Job


def echo(job: Job, **arguments: Any) -> Any:
    return arguments


def copy(job: Job) -> int:
    data = job.inputs[0].read()
    for output in job.outputs:
        output.write(data)
        output.seek(0)
        assert output.read() == data
    return len(data)


def attempt(job: Job, deed: str, *values: Any, **more: Any) -> str:
    """The name of the error that a forbidden deed ends in, or "done"."""
    deeds: dict[str, Callable[..., object]] = {
        "open": lambda path: open(path).close(),  # noqa: PTH123
        "list": os.listdir,
        "unlink": os.unlink,
        "connect": lambda port: socket.create_connection(("127.0.0.1", port)).close(),
        "udp": lambda: socket.socket(type=socket.SOCK_DGRAM).close(),
        "exec": lambda: os.execv("/bin/true", ["true"]),
        "fork": _fork,
        "kill": lambda pid: os.kill(pid, signal.SIGTERM),
        "tgkill": lambda pid: _call(234, 131, pid, pid, int(signal.SIGTERM)),
        "change limits": _change_limits,
        "av": av.open,
    }
    try:
        deeds[deed](*more.get("values", values))
    except (OSError, av.error.FFmpegError) as error:
        return type(error).__name__
    return "done"


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _change_limits() -> None:
    wanted = (ctypes.c_uint64 * 2)(10, 10)
    _call(302, 261, 0, resource.RLIMIT_CPU, ctypes.addressof(wanted), 0)


def _call(*numbers: int) -> None:
    number = numbers[0 if os.uname().machine == "x86_64" else 1]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(*map(ctypes.c_long, (number, *numbers[2:]))) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def environment(job: Job) -> dict[str, str]:
    return dict(os.environ)


def descriptors(job: Job) -> list[int]:
    found = []
    for number in range(64):
        with contextlib.suppress(OSError):
            os.fstat(number)
            found.append(number)
    return found


def allocate(job: Job, size: int) -> int:
    return len(bytearray(size))


def spin(job: Job) -> None:
    while True:
        pass


def sleep(job: Job, seconds: float = 60) -> str:
    job.progress(0.01)
    time.sleep(seconds)
    return "slept"


def fill(job: Job, size: int) -> None:
    for _ in range(size // 65536):
        job.outputs[0].write(bytes(65536))


def crash(job: Job, threads: int = 1) -> str:
    """Like a decoder fault that needs threads."""
    job.outputs[0].write(b"half")
    job.outputs[0].flush()
    if threads != 1:
        ctypes.string_at(0)
    return f"with {threads}"


def segfault(job: Job) -> None:
    ctypes.string_at(0)


def abort(job: Job) -> None:
    os.abort()


def leave(job: Job) -> None:
    os._exit(7)


def killed(job: Job) -> None:
    signal.raise_signal(signal.SIGKILL)


def refuse(job: Job) -> None:
    raise ConformError("this clip is upside down", code="upside_down", retryable=True, detail="the log's part")


def fail(job: Job, kind: str) -> None:
    failures: dict[str, BaseException] = {
        "value": ValueError("/secret/path"),
        "ffmpeg": av.error.InvalidDataError(1094995529, "Invalid data", "/secret/path"),
        "memory": MemoryError(),
        "ffmpeg memory": av.error.MemoryError(12, "Cannot allocate"),
        "x264": av.error.ExternalError(542398533, "Generic error in an external library: malloc failed"),
        "disk": OSError(28, "No space left on device"),
        "exit": SystemExit(3),
    }
    try:
        raise failures[kind]
    finally:
        if kind == "memory":
            raise ValueError("a cleanup that fails in turn")


def forge(job: Job, text: str) -> None:
    """Write any bytes where the answer belongs."""
    os.write(3, text.encode())
    os._exit(0)


def flood(job: Job) -> None:
    while True:
        os.write(3, b"x" * 65536)


def unspeakable(job: Job) -> object:
    return object()


def count(job: Job, steps: int) -> None:
    for step in range(steps + 1):
        job.progress(step / steps)


def encode(job: Job, threads: int) -> int:
    """x264 with its threads, through Python file objects, and back."""
    with av.open(job.outputs[0], "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "threads": str(threads)})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for shade in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((240, 320, 3), shade * 10, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    job.outputs[0].seek(0)
    with av.open(job.outputs[0], "r") as container:
        container.streams.video[0].codec_context.thread_count = threads
        return len(list(container.decode(video=0)))


def thread(job: Job) -> list[int]:
    found: list[int] = []
    worker = threading.Thread(target=found.append, args=(1,))
    worker.start()
    worker.join()
    return found


def main() -> None:
    """Run as a program: start a task that never ends, say which processes there are, and wait to be killed."""
    from crosscut.sandbox import Sandbox

    with Sandbox(["sandbox_tasks"]) as sandbox:
        sandbox.run("sandbox_tasks:sleep", arguments={"seconds": 300}, on_progress=lambda _: print("going", flush=True))  # noqa: T201


if __name__ == "__main__":
    main()
