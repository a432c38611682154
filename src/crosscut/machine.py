"""An engine, running: store, scheduler, those who carry units to workers, and the service in front of them."""

from __future__ import annotations

import contextlib
import secrets
import threading
from typing import TYPE_CHECKING, Any

from crosscut.engine.scheduler import Scheduler
from crosscut.errors import CrosscutError
from crosscut.tracing import NoTracer
from crosscut.webhooks import event_body

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crosscut.engine import Executor, WorkerState
    from crosscut.engine.claims import Claims
    from crosscut.fields import Event
    from crosscut.service import Service
    from crosscut.store import Store
    from crosscut.tracing import Tracer

ASLEEP_SECONDS = 30.0
"""A scheduler that has not got through its steps for so long is in trouble."""


class Machine:
    """Begins to work when it is made; `close` ends it. The parts are its own from then on."""

    def __init__(
        self,
        store: Store,
        service: Callable[[Machine], Service],
        executor: Callable[[Machine], Executor],
        claims: Claims,
        log: Any,
        clock: Callable[[], float],
        *,
        alone: bool = True,
        tracer: Tracer | None = None,
    ) -> None:
        """`service` and `executor` are built for this machine: they call `wake`, `died` and `troubles`.

        `alone`: nobody else hands out or has work of this state, so that whatever is out at the start and end is lost.
        """
        self.store = store
        self.claims = claims
        self.tracer = tracer or NoTracer()
        self._log = log
        self._clock = clock
        self._news = threading.Event()
        self._closing = threading.Event()
        self.service = service(self)
        self._alone = alone
        if alone:
            store.all_back()
        self.executor = executor(self)
        self._scheduler = Scheduler(store, self.executor, claims, self._announce, log, self._news, self.service.tidy)
        self._thread = threading.Thread(target=self._scheduler.run, name="scheduler", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is news for the scheduler."""
        self._news.set()

    def died(self, worker: str) -> None:
        """A worker's process is gone: what it had in hand is done again."""
        if self._closing.is_set():
            self.store.give_back(worker)
        else:
            self.store.died(worker)

    def lost(self, worker: str) -> None:
        """A worker's process was ended through no fault of what it had in hand."""
        self.store.give_back(worker)

    def workers(self) -> Sequence[WorkerState]:
        return self.executor.workers()

    def troubles(self) -> list[str]:
        """What keeps this machine from working, as sentences."""
        found = self.executor.problems()
        if self._scheduler.silent_for() > ASLEEP_SECONDS or not self._thread.is_alive():
            found.append("the scheduler does not answer")
        return found

    def close(self, grace: float) -> None:
        """Hand out nothing more, let what runs end for at most `grace` seconds, hand back the rest."""
        self._scheduler.stop()
        self._thread.join()
        self._closing.set()
        self.executor.close(grace)
        with contextlib.suppress(CrosscutError):
            self._scheduler.tell()
            if self._alone:
                self.store.all_back()
        self.claims.close()
        self.store.close()
        self.tracer.close()

    def _announce(self, job: str, event: Event) -> Mapping[str, Any] | None:
        status = self.service.status(job, None)
        if event == "job.ended":
            told = {
                key: status[key] for key in ("state", "total", "succeeded", "failed", "seconds", "seconds_by_stage")
            }
            self._log.info("job done", job=job, task=status["task_name"], **told)
            if row := self.store.owned(job, None):
                self.tracer.job(row.trace, job, row.created, row.ended or self._clock(), told)
        webhook = self.service.webhook(job)
        if webhook is None or event not in webhook["events"]:
            return None
        links = {"self": f"/jobs/{job}", "variations": f"/jobs/{job}/variations"}
        body = event_body(event, status | {"links": links}, self._clock())
        return {"url": webhook["url"], "id": f"msg_{secrets.token_hex(12)}", "body": body, "event": event}
