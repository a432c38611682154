"""The engine of many machines: units carried by Celery, over Redis or RabbitMQ, to whoever serves their lane.

A message is a hint, a unit and an attempt: it may be lost, doubled or late (docs/decisions/celery-only-carries.md).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from celery import Celery

from crosscut.engine import WorkerState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crosscut.store import Store
    from crosscut.units import Lane

TASK = "crosscut.execute"

LEAST_WAITING = 8
"""Units of a lane that may wait in the broker, however few can run at once."""

REST_SECONDS, LONG_REST_SECONDS = 0.05, 0.2
"""Between two looks, when nobody tells us that a unit has ended: while some are out, and while none is."""

SOCKET_SECONDS = 5
"""How long a broker may take to answer."""

BURY_SECONDS = 60.0

DOWN_SECONDS = 2.0
"""After a message could not be sent nothing is sent for so long."""


def celery_app(broker: str) -> Celery:
    """Without results, retries, late acknowledgements, countdowns: who does what is decided in SQL."""
    app = Celery("crosscut", broker=broker, set_as_current=False, fixups=[])
    app.conf.update(
        accept_content=["json"],
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        broker_transport_options={"socket_timeout": SOCKET_SECONDS, "socket_connect_timeout": SOCKET_SECONDS},
        result_backend=None,
        task_acks_late=False,
        task_default_delivery_mode="transient",
        task_ignore_result=True,
        task_publish_retry=False,
        task_send_sent_event=True,
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,
    )
    return app


def queue_of(cluster: str, lane: Lane) -> str:
    """Several clusters may share a broker."""
    return f"crosscut.{cluster}.{lane}"


class CeleryExecutor:
    """Passes units on through Celery, and by SQL knows who is there to take them."""

    def __init__(
        self, app: Celery, cluster: str, store: Store, log: Any, rescale: Callable[[int], object], ahead: int = 0
    ) -> None:
        """`ahead` is how many more units may wait in the broker.

        `rescale` is told how many units of the processor lane the stations can do at once, whenever that changes.
        """
        self._app = app
        self._cluster = cluster
        self._store = store
        self._log = log
        self._rescale = rescale
        self._stations: Sequence[Any] = ()
        self._scale = 0
        self._ahead = ahead
        self._out: dict[Lane, int] = {}
        self._buried = time.monotonic()
        self._down_until = 0.0
        self._problem: str | None = None

    # The thin executor

    def slots(self, lane: Lane, queued: int, running: int) -> int:
        self._out[lane] = queued + running
        capacity = self._capacity(lane)
        if not capacity or time.monotonic() < self._down_until:
            return 0
        return max(LEAST_WAITING, capacity, running) + self._ahead - queued

    def rest(self) -> float:
        return REST_SECONDS if any(self._out.values()) else LONG_REST_SECONDS

    def submit(self, unit: int, attempt: int, lane: Lane) -> None:
        if time.monotonic() < self._down_until:
            return  # it is found overdue, and sent again
        queue = queue_of(self._cluster, lane)
        try:
            self._app.send_task(TASK, (unit, attempt), queue=queue, task_id=f"{unit}.{attempt}", retry=False)
        except Exception as error:  # noqa: BLE001 - whatever the client of a broker raises
            self._failed(error)
        else:
            self._problem = None

    def waiting(self, lane: Lane) -> int | None:
        try:
            with self._app.connection_for_read() as connection, connection.channel() as channel:
                found = channel.queue_declare(queue_of(self._cluster, lane), passive=True)
        except Exception as error:  # noqa: BLE001 - see above
            if _is_unknown(error):
                return 0
            self._failed(error)
            return None
        self._problem = None
        return int(found.message_count)

    def close(self, grace: float) -> None:
        """What was passed on goes on without us."""
        del grace
        self._app.close()

    def _failed(self, error: Exception) -> None:
        if self._problem is None:
            self._log.warning("the broker cannot be reached", detail=f"{type(error).__name__}: {error}")
        self._problem = "the broker cannot be reached"
        self._down_until = time.monotonic() + DOWN_SECONDS

    # Who is there

    def tend(self) -> None:
        self._stations = self._store.stations()
        now = time.monotonic()
        if now - self._buried > BURY_SECONDS:
            self._buried = now
            self._store.bury()
        if (scale := self._capacity("processor")) and scale != self._scale:
            self._scale = scale
            self._rescale(scale)

    def kill(self, worker: str) -> None:
        self._store.condemn(worker)

    def forget(self, job: str) -> None:
        """Workers let go of what was not used for a while by themselves."""

    def workers(self) -> list[WorkerState]:
        """One for each unit that can be in hand."""
        return [
            WorkerState(f"{station.name}/{place}", 0, station.lane, int(place < station.busy))
            for station in self._store.stations()
            for place in range(station.at_once)
        ]

    def problems(self) -> list[str]:
        able = {station.lane for station in self._stations if station.at_once and not station.problem}
        found = [self._problem] if self._problem else []
        found += [
            f"no worker serves the {lane} lane: start crosscut worker"
            for lane in ("network", "processor")
            if lane not in able
        ]
        return found + sorted({f"a worker has trouble: {one.problem}" for one in self._stations if one.problem})

    def _capacity(self, lane: Lane) -> int:
        return sum(station.at_once for station in self._stations if station.lane == lane and not station.problem)


def _is_unknown(error: Exception) -> bool:
    """There is no such queue: nothing was sent yet, or Redis holds no empty lists (AMQP 0-9-1: 404, NOT_FOUND)."""
    return str(getattr(error, "reply_code", "")) == "404"
