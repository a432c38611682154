"""Several machines in one: PostgreSQL, a broker, servers and workers, and wires between them that can be cut."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from sqlalchemy.engine import make_url

from crosscut import cluster
from crosscut.engine import carrier
from crosscut.errors import CrosscutError
from crosscut.settings import Settings
from engine_play import Engine, Fault, FaultyCrew, Place, children, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TextIO

LOOPBACK = {
    "postgresql": "postgresql+psycopg://postgres@127.0.0.1:5432/postgres",
    "redis": "redis://127.0.0.1:6379/0",
    "amqp": "amqp://guest:guest@127.0.0.1:5672//",
}


def services() -> dict[str, str]:
    """URLs by scheme, from CROSSCUT_TEST_SERVICES: `loopback`, or URLs with spaces between them."""
    told = os.environ.get("CROSSCUT_TEST_SERVICES", "")
    if not told:
        reason = "set CROSSCUT_TEST_SERVICES=loopback to test with PostgreSQL, Redis and RabbitMQ; see README.md"
        pytest.skip(reason, allow_module_level=True)
    urls = LOOPBACK.values() if told == "loopback" else told.split()
    return {url.partition(":")[0].partition("+")[0]: url for url in urls}


# Wires


class Wire:
    """A way to a service, which can be cut (refused and closed) or frozen (nothing comes through, nothing is told)."""

    def __init__(self, host: str, port: int, at: str = "127.0.0.1") -> None:
        """It begins at that address of ours."""
        self._target = (host, port)
        self._at = at
        self._listener: socket.socket | None = None
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self.port = 0
        self.mend()

    def mend(self) -> None:
        self._flowing.set()
        if self._listener is None:
            self._listener = socket.create_server((self._at, self.port))
            self.port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def freeze(self) -> None:
        self._flowing.clear()

    def cut(self) -> None:
        if self._listener:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.shake()

    def shake(self) -> None:
        """End all connections; new ones are welcome."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(self._target)
            except OSError:
                return
            with self._lock:
                self._pairs.append((near, far))
            threading.Thread(target=self._carry, args=(near, far), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with near, far, contextlib.suppress(OSError):
            while True:
                for end in select.select([near, far], [], [])[0]:
                    data = end.recv(65_536)
                    self._flowing.wait()
                    if not data:
                        return
                    (far if end is near else near).sendall(data)


@contextlib.contextmanager
def wired(url: str, at: str = "127.0.0.1") -> Iterator[tuple[Wire, str]]:
    """A wire to the service, and its URL by way of that."""
    parts = urlsplit(url)
    wire = Wire(parts.hostname or "", parts.port or 0, at)
    user, at_sign, _ = parts.netloc.rpartition("@")
    try:
        yield wire, urlunsplit(parts._replace(netloc=f"{user}{at_sign}{at}:{wire.port}"))
    finally:
        wire.mend()
        wire.cut()


# State in PostgreSQL


class Row(tuple):  # noqa: SLOT001
    """By place or by name, as those of SQLite."""

    names: tuple[str, ...]

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(self.names.index(key) if isinstance(key, str) else key)


def _rows(cursor: psycopg.Cursor[Any]) -> Any:
    names = tuple(column.name for column in cursor.description or ())

    def make(values: Any) -> Row:
        row = Row(values)
        row.names = names
        return row

    return make


@dataclass(frozen=True)
class SharedPlace(Place):
    """A place whose state is in a schema of PostgreSQL."""

    database: str = ""

    def rows(self, query: str, *values: Any) -> list[Any]:
        if query.startswith("PRAGMA"):
            return [("ok",)]
        url = make_url(self.database).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url, row_factory=_rows) as connection:
            return connection.execute(query.replace("%", "%%").replace("?", "%s"), values).fetchall()


@contextlib.contextmanager
def schema(url: str, by_wire: str) -> Iterator[tuple[str, str]]:
    """An empty schema of its own in that database: the URL that leads there, directly and by wire."""
    name = f"t{uuid.uuid4().hex}"
    admin = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as db:
        db.execute(f"CREATE SCHEMA {name}")
    try:
        yield f"{url}?options=-csearch_path%3D{name}", f"{by_wire}?options=-csearch_path%3D{name}"
    finally:
        with psycopg.connect(admin, autocommit=True) as db:
            db.execute(f"DROP SCHEMA {name} CASCADE")


# Machines


@dataclass
class Worker:
    """A `crosscut worker` of one lane, or of both, as a process group of its own."""

    process: subprocess.Popen[bytes]
    lane: str

    @property
    def pid(self) -> int:
        return self.process.pid

    def crews(self) -> list[int]:
        """The processes that do units."""
        return [crew for nursery in children(self.pid) for crew in children(nursery)]

    def kill(self) -> None:
        """All of it, at once."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


@dataclass
class Cluster:
    place: SharedPlace
    database: str
    broker: str
    state: Wire
    """To the database."""
    messages: Wire
    """To the broker."""
    near_broker: str
    """The broker without a wire."""
    workers: list[Worker] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def orders(self) -> Path:
        return self.place.root / "faults.json"

    def order(self, *faults: Fault) -> None:
        """From now on these faults befall whoever works."""
        scratch = self.orders.with_suffix(".new")
        scratch.write_text(json.dumps([vars(fault) for fault in faults]))
        scratch.replace(self.orders)

    def chosen(self, **more: Any) -> dict[str, Any]:
        return {
            "data_dir": str(self.place.data), "engine": "celery", "broker_url": self.broker,
            "database_url": self.database, "workers": 2, "network_workers": 2, "lease_seconds": 5,
            "grace_seconds": 10, **self.settings, **more,
        }  # fmt: skip

    def all_work(self, **more: Any) -> list[Worker]:
        """A worker of the network, and two of a processor each."""
        return [self.work("network", **more), self.work("processor", 1, **more), self.work("processor", 1, **more)]

    def station_of(self, worker: Worker) -> str | None:
        """How the station calls itself that the worker is."""
        told = (event for event in self.log() if event["event"] == "working" and event["pid"] == worker.pid)
        return next((event["station"] for event in told), None)

    def queue(self, engine: Engine, lane: str) -> str:
        return carrier.queue_of(cluster.name_of(engine.machine.store), lane)

    @contextlib.contextmanager
    def serving(self, destination: str = "", **more: Any) -> Iterator[Engine]:
        """A server in this process."""
        log = io.StringIO()
        settings = Settings(_env_file=None, **self.chosen(**more))
        with cluster.open_scheduler(
            settings, settings.database_url, [log], destination=destination or str(self.place.out)
        ) as machine:
            yield Engine(machine, self.place, log)

    def work(self, lane: str, at_once: int = 2, code: str = "", within: Sequence[str] = (), **more: Any) -> Worker:
        """Start a worker; `code` is run before its own, `within` is a command that runs it somewhere else."""
        told = {"settings": self.chosen(**more), "lane": lane, "at_once": at_once, "orders": str(self.orders)}
        with (self.place.root / "worker.log").open("ab") as said:
            process = subprocess.Popen(
                [*within, sys.executable, "-c", f"{code}\nimport cluster_play; cluster_play.main()", json.dumps(told)],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
                stdin=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,
            )
        worker = Worker(process, lane)
        self.workers.append(worker)
        return worker

    def log(self) -> list[dict[str, Any]]:
        """What the workers wrote."""
        lines = (self.place.root / "worker.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def ready(self, engine: Engine, stations: int) -> None:
        """Wait until so many stations can take units."""
        until(lambda: sum(bool(one.at_once) for one in engine.machine.store.stations()) >= stations)


class OrderedCrew(FaultyCrew):
    """What is to go wrong may change while it works."""

    orders: Path

    @property
    def faults(self) -> tuple[Fault, ...]:  # type: ignore[override]
        return tuple(Fault(**fault) for fault in json.loads(self.orders.read_text())) if self.orders.exists() else ()


def ordered_crew(arguments: Mapping[str, Any], log: TextIO) -> OrderedCrew:
    crew = OrderedCrew(Settings.model_validate(arguments["settings"]), log, arguments["secrets"])
    crew.orders = Path(arguments["orders"])
    return crew


def main() -> None:
    """The main of a worker of one lane."""
    told = json.loads(sys.argv[1])
    seats = {"network": 0, "processor": 0, told["lane"]: told["at_once"]}
    settings = Settings(_env_file=None, **told["settings"])
    more = {"orders": told["orders"]}
    try:
        sys.exit(cluster.work(settings, cluster.Seats(**seats), "cluster_play:ordered_crew", more))
    except CrosscutError as error:
        sys.stderr.write(f"crosscut: {error.public}\n")
        sys.exit(2)


@contextlib.contextmanager
def clustered(root: Path, broker: str = "redis", **settings: Any) -> Iterator[Cluster]:
    """Machines that share a place, by way of wires to their services; its workers are ended with the block."""
    urls = services()
    with (
        wired(urls["postgresql"]) as (state, database),
        wired(urls[broker]) as (messages, carried),
        schema(urls["postgresql"], database) as (direct, by_wire),
    ):
        made = Cluster(SharedPlace(root, direct), by_wire, carried, state, messages, urls[broker], settings=settings)
        try:
            yield made
        finally:
            for worker in made.workers:
                worker.kill()
