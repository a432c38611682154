"""Serves one lane on one machine: takes units from the broker, has workers do them, and tells that it lives.

broker ──Celery, one thread for each unit at once──> Station ──> EmbeddedExecutor ──> worker processes
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

from celery import bootsteps
from celery.concurrency.thread import TaskPool
from celery.worker import state

from crosscut.engine.carrier import TASK
from crosscut.errors import CrosscutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from crosscut.engine import Executor
    from crosscut.store import Store
    from crosscut.units import Lane

REPORT_SECONDS = 2.0
READY_SECONDS = 0.05


class Station:
    """Begins to work with `run`, which ends some time after `stop`."""

    def __init__(
        self,
        app: Celery,
        queue: str,
        store: Store,
        lane: Lane,
        name: str,
        at_once: int,
        executor: Callable[[Station], Executor],
        log: Any,
    ) -> None:
        """`executor` is built for this station: it calls `ended`, `died` and `lost`; its workers are `name/…`."""
        self._app = app
        self._queue = queue
        self._store = store
        self._lane = lane
        self.name = name
        self._at_once = at_once
        self._log = log
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._hands: dict[tuple[int, int], threading.Event] = {}
        """(unit, attempt) -> set when it need not be waited for any more."""
        self._bell, self._ringer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._executor = executor(self)
        app.task(name=TASK)(self.perform)

    def run(self) -> int:
        """Take units until `stop`; the exit status."""
        # A reader of the event loop, so that it looks for the next message as soon as a place is free.
        self._app.steps["consumer"].add(_waker(self._bell))
        self._app.amqp.queues.select_add(self._queue)
        controller = self._app.WorkController(
            hostname=self.name,
            pool=_pool(self._ring),
            concurrency=self._at_once,
            queues=[self._queue],
            without_gossip=True,
            without_mingle=True,
        )
        reporting = threading.Thread(target=self._report, name="report", daemon=True)
        reporting.start()
        # What is taken before somebody can begin it would be found overdue.
        while not self._executor.workers() and not self._closing.wait(READY_SECONDS):
            pass
        if not self._closing.is_set():
            controller.start()
        self._closing.set()
        reporting.join()
        return int(controller.exitcode or 0)

    def stop(self, grace: float) -> None:
        """Take nothing new, let what runs end for at most `grace` seconds, hand back the rest; returns at once."""
        if not self._closing.is_set():
            self._closing.set()
            state.should_stop = os.EX_OK
            threading.Thread(target=self._end, args=(grace,), name="end").start()

    def close(self) -> None:
        """End what still runs, at once; after `run`."""
        self._executor.close(0)

    def perform(self, unit: int, attempt: int) -> None:
        """Returns when the unit has ended here, however."""
        with self._lock:
            welcome = not self._closing.is_set()
            ended = self._hands.setdefault((unit, attempt), threading.Event()) if welcome else None
        if ended is None:
            self._decline(unit, attempt)
            return
        self._executor.submit(unit, attempt, self._lane)
        ended.wait()

    # What the executor calls

    def ended(self, unit: int, attempt: int) -> None:
        with self._lock:
            hand = self._hands.pop((unit, attempt), None)
        if hand:
            hand.set()

    def died(self, worker: str) -> None:
        if self._closing.is_set():
            self._store.give_back(worker)
        else:
            self._store.died(worker)

    def lost(self, worker: str) -> None:
        self._store.give_back(worker)

    def _end(self, grace: float) -> None:
        self._executor.close(grace)
        with self._lock:
            left = list(self._hands)
        for unit, attempt in left:
            self._decline(unit, attempt)
            self.ended(unit, attempt)
        self._ring()

    def _decline(self, unit: int, attempt: int) -> None:
        try:
            self._store.decline(unit, attempt)
        except CrosscutError as error:  # it is overdue before long
            self._log.warning("a unit could not be handed back", unit=unit, detail=error.detail)

    def _report(self) -> None:
        """Tell that we live, and end the workers that are found to hang."""
        silent = False
        while True:
            with self._lock:
                busy = len(self._hands)
            ready = self._at_once if self._executor.workers() else 0
            problem = "; ".join(self._executor.problems()) or None
            try:
                for worker in self._store.report(self.name, self._lane, ready, busy, problem):
                    self._executor.kill(worker)
            except CrosscutError as error:
                if not silent:
                    self._log.warning("the database cannot be reached", detail=error.detail)
                silent = True
            else:
                silent = False
            if self._closing.wait(REPORT_SECONDS if ready else READY_SECONDS):
                break
        try:
            self._store.leave(self.name)
        except CrosscutError as error:
            self._log.warning("the database cannot be reached", detail=error.detail)

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it has not been heard yet
            os.write(self._ringer, b"!")


def _pool(ring: Callable[[], None]) -> type[TaskPool]:
    """Celery's pool of threads, which rings whenever a task is over for Celery too."""

    class Pool(TaskPool):  # type: ignore[misc]
        def on_apply(self, target: Any, args: Any = None, kwargs: Any = None, callback: Any = None, **more: Any) -> Any:
            def told(*values: Any) -> None:
                callback(*values)
                ring()

            return super().on_apply(target, args, kwargs, told, **more)

    return Pool


def _waker(bell: int) -> type[bootsteps.StartStopStep]:
    class Waker(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.consumer:Tasks",)

        def register_with_event_loop(self, _consumer: Any, hub: Any) -> None:
            hub.add_reader(bell, os.read, bell, 4096)

    return Waker
