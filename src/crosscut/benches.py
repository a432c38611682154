"""A workshop for each job that is worked on in this process, kept while there is more to do for it."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from crosscut.workshop import Meters, check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crosscut.studio import Studio
    from crosscut.units import JobRecord
    from crosscut.workshop import Toolbox, Workshop

MOST = 16
"""Jobs whose pieces are held; more only while all of these are worked on."""

IDLE_SECONDS = 600.0


@dataclass
class Bench:
    """One job's tools in this process, and what was built with them."""

    workshop: Workshop
    tools: ExitStack
    used: float
    users: int = 0
    forgotten: bool = False
    studio: Studio | None = None
    record: JobRecord | None = None
    """The job as it was when `studio` was built."""
    alone: threading.Lock = field(default_factory=threading.Lock)
    """For whoever changes `studio`, `record` or `spare`."""
    spare: list[Studio] = field(default_factory=list)
    """As `studio`, which shows alone: each makes for one unit at a time, and here are those that have none."""


class Benches:
    """Thread-safe."""

    def __init__(self, toolbox: Toolbox, clock: Callable[[], float] = time.monotonic) -> None:
        self._toolbox = toolbox
        self._clock = clock
        self._lock = threading.Lock()
        self._benches: dict[str, Bench] = {}
        """The last used comes last."""

    def __len__(self) -> int:
        return len(self._benches)

    @contextmanager
    def at(self, job: str) -> Iterator[Bench]:
        """The job's bench; what its pieces lie on is not taken away while it is used."""
        with self._lock:
            bench = self._benches.pop(job, None)
            if bench is None:
                tools = ExitStack()
                bench = Bench(tools.enter_context(self._toolbox.open()), tools, self._clock())
            self._benches[job] = bench
            bench.users += 1
            bench.forgotten = False
        try:
            yield bench
        finally:
            with self._lock:
                bench.users -= 1
                bench.used = self._clock()
            self.tidy()

    def shift(self, bench: Bench, cancelled: threading.Event, since: float | None) -> Workshop:
        """The bench's workshop for one unit, with a telemetry and meters of its own.

        What was fetched after `since` (seconds of the epoch) is taken without asking its server again.
        """
        if since is None and bench.record is not None:
            since = bench.record.created
        lease = bench.workshop.lease.watched(partial(check, cancelled))
        return replace(
            bench.workshop,
            lease=lease,
            fetcher=self._toolbox.fetcher(lease, since),
            telemetry=self._toolbox.telemetry(),
            meters=Meters(),
            cancelled=cancelled,
        )

    def forget(self, job: str) -> None:
        with self._lock:
            if job in self._benches:
                self._benches[job].forgotten = True
        self.tidy()

    def tidy(self) -> None:
        """Close what is forgotten, long unused or too much."""
        with self._lock:
            now = self._clock()
            unused = [job for job, bench in self._benches.items() if not bench.users]
            extra = len(self._benches) - MOST
            due = [
                job
                for place, job in enumerate(unused)
                if place < extra or self._benches[job].forgotten or now - self._benches[job].used > IDLE_SECONDS
            ]
            closing = [self._benches.pop(job) for job in due]
        for bench in closing:
            bench.tools.close()

    def close(self) -> None:
        """Close all; nobody may be at work any more."""
        with self._lock:
            closing = list(self._benches.values())
            self._benches.clear()
        for bench in closing:
            bench.tools.close()
