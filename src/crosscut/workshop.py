"""The tools one job works with: its view of the artifact store, its child processes, its clock and its voice."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from crosscut.sandbox import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence
    from pathlib import Path

    from crosscut.artifacts import Lease
    from crosscut.fetch import Fetcher
    from crosscut.sandbox import Sandbox
    from crosscut.telemetry import Telemetry
    from crosscut.voices import Voice

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")


@dataclass(frozen=True)
class Workshop:
    """Thread-safe; whoever opened it (`bootstrap`) closes the parts."""

    lease: Lease
    sandbox: Sandbox
    fetcher: Fetcher
    voice: Voice
    telemetry: Telemetry
    journals: Path
    """Folder with a journal for each place that was delivered to."""
    workers: int
    memory_bytes: int
    cancelled: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def pool(self, workers: int, name: str) -> Iterator[ThreadPoolExecutor]:
        """Threads for this block; when it is left by an error, also Ctrl-C, their work is stopped, not waited for."""
        with ThreadPoolExecutor(workers, name) as pool:
            try:
                yield pool
            except BaseException:
                self.cancelled.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def run(
        self,
        task: str,
        *,
        inputs: Sequence[Path] = (),
        outputs: Sequence[Path] = (),
        media_seconds: float = 0,
        on_progress: Callable[[float], None] | None = None,
        **arguments: Any,
    ) -> Any:
        """A child process for `task`, with time in proportion to the media it handles: seconds of it, or 0."""
        cpu = round(120 + 60 * media_seconds)
        limits = Limits(memory_bytes=self.memory_bytes, cpu_seconds=cpu, wall_seconds=4.0 * cpu)
        return self.sandbox.run(
            task,
            inputs=inputs,
            outputs=outputs,
            limits=limits,
            on_progress=on_progress,
            cancelled=self.cancelled,
            arguments=arguments,
        )


class Once(Generic[K, V]):
    """Work that several threads need: whoever asks first does it, its result or its error is everybody's."""

    def __init__(self, make: Callable[[K], V]) -> None:
        self._make = make
        self._futures: dict[K, Future[V]] = {}
        self._lock = threading.Lock()

    def get(self, key: K) -> V:
        with self._lock:
            future = self._futures.get(key)
            first = future is None
            if future is None:
                future = self._futures[key] = Future()
        if first:
            try:
                future.set_result(self._make(key))
            except BaseException as error:
                future.set_exception(error)
                raise
        return future.result()
