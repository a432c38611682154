"""Decides what runs next: lets jobs in, cuts batches, hands out leases, ends jobs. Any number may run at once.

Every step is a transaction that compares and sets, so that a scheduler may be killed anywhere.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, get_args

from crosscut.errors import CrosscutError
from crosscut.units import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from crosscut.engine import Executor
    from crosscut.engine.claims import Claims
    from crosscut.fields import Event
    from crosscut.store import Store

LEAST_SECONDS = 0.02
"""Between two looks however often we are woken: what comes meanwhile is looked at together."""

REAP_SECONDS = 1.0
UPKEEP_SECONDS = 60.0


class Scheduler:
    """One thread's work: `run` until `stop`. `announce` gives a job's webhook payload for an event, None: none."""

    def __init__(
        self,
        store: Store,
        executor: Executor,
        claims: Claims,
        announce: Callable[[str, Event], Mapping[str, Any] | None],
        log: Any,
        news: threading.Event,
        upkeep: Callable[[], None],
    ) -> None:
        """`news` is set by whoever has something for it to look at; `upkeep` is called once in a while."""
        self._store = store
        self._executor = executor
        self._claims = claims
        self._announce = announce
        self._log = log
        self._news = news
        self._stopped = threading.Event()
        self._reaped = 0.0
        self._upkeep = upkeep
        self._kept_up = time.monotonic()
        self._beaten = time.monotonic()

    def silent_for(self) -> float:
        """Seconds since it last got through all its steps."""
        return time.monotonic() - self._beaten

    def stop(self) -> None:
        """Hand out nothing more."""
        self._stopped.set()
        self._news.set()

    def run(self) -> None:
        while not self._stopped.is_set():
            busy = False
            self._news.clear()
            try:
                busy = self.tick()
            except CrosscutError as error:
                # The database is away or its disk full: nothing is lost, and it may come back.
                self._log.warning("scheduler waits", stage=error.stage, code=error.code, detail=error.detail)
                self._stopped.wait(1.0)
            except Exception:  # noqa: BLE001
                # One odd job must not keep all others waiting.
                self._log.exception("scheduler stumbles")
                self._stopped.wait(1.0)
            self._stopped.wait(LEAST_SECONDS)
            if not busy:
                self._news.wait(self._executor.rest())

    def tick(self) -> bool:
        """Look at everything once; whether anything was handed out."""
        now = time.monotonic()
        if now - self._reaped >= REAP_SECONDS:
            self._reaped = now
            self._executor.tend()
            for worker in self._store.reap(self._executor.waiting):
                self._log.warning("worker is hung", worker=worker)
                self._executor.kill(worker)
        if now - self._kept_up >= UPKEEP_SECONDS:
            self._kept_up = now
            self._upkeep()
        self._store.admit()
        self._store.take_places(self._claims.take)
        self._store.advance()
        self._let_go()
        handed = [self._hand_out(lane) for lane in get_args(Lane)]
        self.tell()
        self._beaten = time.monotonic()
        return any(handed)

    def _let_go(self) -> None:
        """Jobs that have their place no more have ended or are deleted: so is all that is held for them."""
        for job in self._claims.jobs() - self._store.holders():
            self._claims.release(job)
            self._executor.forget(job)

    def _hand_out(self, lane: Lane) -> bool:
        handed = False
        while leased := self._store.lease(lane, lambda *out: self._executor.slots(lane, *out)):
            for unit, attempt in leased:
                self._executor.submit(unit, attempt, lane)
            handed = True
            if self._stopped.is_set():
                break
        return handed

    def tell(self) -> None:
        """Announce what has come to pass: first failures, ends."""
        for job, event in self._store.unannounced():
            payload = self._announce(job, event)
            self._store.announce(job, event, payload)
