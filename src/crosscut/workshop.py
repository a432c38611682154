"""The tools one job works with: its view of the artifact store, its child processes, its clock and its voice."""

from __future__ import annotations

import contextvars
import json
import threading
from collections import OrderedDict, defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar

from crosscut.errors import ProbeError, StorageError
from crosscut.sandbox import Limits, sandbox_error

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from crosscut.artifacts import Artifacts, Lease
    from crosscut.fetch import Fetcher
    from crosscut.sandbox import Sandbox
    from crosscut.sharing import Sharing
    from crosscut.telemetry import Telemetry
    from crosscut.voices import Voice

P = ParamSpec("P")
K = TypeVar("K", bound="Hashable")
V = TypeVar("V")
X = TypeVar("X")


class MissingError(Exception):
    """Who only looks has not found a piece; never leaves the house."""


class Material(Protocol):
    """A source by its content; `path` may have to be fetched again first, and raises CrosscutError."""

    @property
    def label(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def path(self) -> Path: ...


def check(cancelled: threading.Event) -> None:
    """Raises SandboxError `cancelled` once that is set."""
    if cancelled.is_set():
        raise sandbox_error("cancelled")


class Threads(ThreadPoolExecutor):
    """A pool whose work runs in the context of who asked for it: log lines keep the job they belong to."""

    def submit(self, function: Callable[P, V], /, *args: P.args, **kwargs: P.kwargs) -> Future[V]:
        context = contextvars.copy_context()
        return super().submit(lambda: context.run(function, *args, **kwargs))


class Meters:
    """Amounts to be added up, by name. Thread-safe."""

    def __init__(self) -> None:
        self._amounts: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def add(self, name: str, amount: float) -> None:
        with self._lock:
            self._amounts[name] += amount

    def read(self) -> dict[str, float]:
        with self._lock:
            return {name: amount for name, amount in self._amounts.items() if amount}


@dataclass(frozen=True)
class Workshop:
    """Thread-safe; whoever opened it (`bootstrap`) closes the parts."""

    lease: Lease
    sandbox: Sandbox
    fetcher: Fetcher
    voice: Voice
    telemetry: Telemetry
    workers: int
    """Pieces made at the same time in this process."""
    memory_bytes: int
    cancelled: threading.Event = field(default_factory=threading.Event)
    meters: Meters = field(default_factory=Meters)
    looking: bool = False
    """Nothing is made, fetched or spoken: what is not there is a MissingError."""

    @contextmanager
    def pool(self, workers: int, name: str) -> Iterator[Threads]:
        """Threads for this block; when it is left by an error, also Ctrl-C, their work is stopped, not waited for."""
        with Threads(workers, name) as pool:
            try:
                yield pool
            except BaseException:
                self.cancelled.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def piece(
        self,
        key: str,
        suffixes: tuple[str, ...],
        make: Callable[[Mapping[str, Path]], object],
        read: Callable[[Mapping[str, Path]], V],
    ) -> V:
        """What `read` makes of a piece's files: from the store, or from `make` (see `Lease.make_read`)."""
        if self.looking:
            found = self.find(key, suffixes, read)
            if found is None:
                raise MissingError(key)
            return found
        made = False

        def making(paths: Mapping[str, Path]) -> None:
            nonlocal made
            made = True
            make(paths)

        value = self.lease.make_read(key, suffixes, making, read)
        self.meters.add("cache_misses" if made else "cache_hits", 1)
        return value

    def find(self, key: str, suffixes: tuple[str, ...], read: Callable[[Mapping[str, Path]], V]) -> V | None:
        """What `read` makes of a piece's files; None where the store lacks them or they are damaged."""
        paths = self.lease.get_group(key, suffixes)
        if paths is None:
            return None
        try:
            value = read(paths)
        except (ValueError, ProbeError, StorageError):
            return None
        self.meters.add("cache_hits", 1)
        return value

    def piece_json(self, key: str, make: Callable[[], Any]) -> Any:
        """The same for a JSON value."""
        return self.piece(
            key,
            (".json",),
            lambda paths: paths[".json"].write_text(json.dumps(make(), allow_nan=False)),
            lambda paths: json.loads(paths[".json"].read_bytes()),
        )

    def each(self, function: Callable[[X], V], items: Iterable[X]) -> list[V]:
        """What `function` makes of each, in their order; several at a time where pieces come over a network."""
        if self.lease.at_once == 1:
            return [function(item) for item in items]
        with Threads(self.lease.at_once, "share") as pool:
            return list(pool.map(function, items))

    def check_cancelled(self) -> None:
        check(self.cancelled)

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
        if self.looking:
            raise MissingError(task)
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


@dataclass(frozen=True)
class Toolbox:
    """What all jobs of a process share; a workshop for one of them is made from it."""

    artifacts: Artifacts
    sandbox: Sandbox
    voice: Voice
    fetcher: Callable[[Lease, float | None], Fetcher]
    """For a lease and the time (seconds of the epoch, None: now) since when fetched sources are taken unasked."""
    telemetry: Callable[[], Telemetry]
    workers: int
    """Pieces made at the same time in this process."""
    processors: int
    """Of the machine, for all its processes together."""
    memory_bytes: int
    sharing: Sharing | None = None
    """What the machines of a cluster share, behind `artifacts`; None: there is this machine alone."""

    @contextmanager
    def open(self, since: float | None = None) -> Iterator[Workshop]:
        """The tools for one job; its hold on artifacts ends with the block."""
        with self.artifacts.lease() as lease:
            cancelled = threading.Event()
            yield Workshop(
                lease=lease.watched(partial(check, cancelled)),
                sandbox=self.sandbox,
                fetcher=self.fetcher(lease, since),
                voice=self.voice,
                telemetry=self.telemetry(),
                workers=self.workers,
                memory_bytes=self.memory_bytes,
                cancelled=cancelled,
            )


class Once(Generic[K, V]):
    """Work that several threads need: whoever asks first does it, its result or its error is everybody's.

    At most `kept` results are held, the least recently used go first.
    """

    def __init__(self, make: Callable[[K], V], kept: int | None = None) -> None:
        self._make = make
        self._kept = kept
        self._futures: OrderedDict[K, Future[V]] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, key: K) -> bool:
        with self._lock:
            return key in self._futures

    def get(self, key: K) -> V:
        with self._lock:
            future = self._futures.get(key)
            first = future is None
            if future is None:
                future = self._futures[key] = Future()
                if self._kept is not None and len(self._futures) > self._kept:
                    self._futures.popitem(last=False)
            else:
                self._futures.move_to_end(key)
        if first:
            try:
                future.set_result(self._make(key))
            except BaseException as error:
                future.set_exception(error)
                raise
        return future.result()

    def forget_errors(self) -> None:
        """Let what failed be tried again by the next who asks."""
        with self._lock:
            for key, future in list(self._futures.items()):
                if future.done() and future.exception() is not None:
                    del self._futures[key]
