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
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from sqlalchemy.engine import make_url

from crosscut import cluster
from crosscut.settings import Settings
from engine_play import Engine, Place, children, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine_play import Fault

LOOPBACK = {
    "postgresql": "postgresql+psycopg://postgres@127.0.0.1:5432/postgres",
    "redis": "redis://127.0.0.1:6379/0",
    "amqp": "amqp://guest:guest@127.0.0.1:5672//",
}


def services() -> dict[str, str]:
    """URLs by scheme, from CROSSCUT_TEST_SERVICES: `loopback`, or URLs with spaces between them."""
    told = os.environ.get("CROSSCUT_TEST_SERVICES", "")
    if not told:
        pytest.skip("set CROSSCUT_TEST_SERVICES=loopback to test with PostgreSQL, Redis and RabbitMQ; see README.md")
    urls = LOOPBACK.values() if told == "loopback" else told.split()
    return {url.partition(":")[0].partition("+")[0]: url for url in urls}


# Wires


class Wire:
    """A way to a service, which can be cut (refused and closed) or frozen (nothing comes through, nothing is told)."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
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
            self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
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
def wired(url: str) -> Iterator[tuple[Wire, str]]:
    """A wire to the service, and its URL by way of that."""
    parts = urlsplit(url)
    wire = Wire(parts.hostname or "", parts.port or 0)
    name = parts.netloc.rpartition("@")[0]
    try:
        yield (
            wire,
            urlunsplit(parts._replace(netloc=f"{name}@127.0.0.1:{wire.port}" if name else f"127.0.0.1:{wire.port}")),
        )
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
def schema(url: str) -> Iterator[str]:
    """An empty schema of its own in that database: the URL that leads there."""
    name = f"t{uuid.uuid4().hex}"
    admin = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as db:
        db.execute(f"CREATE SCHEMA {name}")
    try:
        yield f"{url}?options=-csearch_path%3D{name}"
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
            for pid in (self.pid, *children(self.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


@dataclass
class Cluster:
    place: SharedPlace
    broker: str
    workers: list[Worker] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def chosen(self, **more: Any) -> dict[str, Any]:
        return {
            "data_dir": str(self.place.data), "engine": "celery", "broker_url": self.broker,
            "database_url": self.place.database, "workers": 2, "network_workers": 2, "lease_seconds": 5,
            "grace_seconds": 10, **self.settings, **more,
        }  # fmt: skip

    @contextlib.contextmanager
    def serving(self, **more: Any) -> Iterator[Engine]:
        """A server in this process."""
        log = io.StringIO()
        settings = Settings(_env_file=None, **self.chosen(**more))
        with cluster.open_scheduler(settings, settings.database_url, [log], destination=str(self.place.out)) as machine:
            yield Engine(machine, self.place, log)

    def work(self, lane: str, *faults: Fault, at_once: int = 2, code: str = "", **more: Any) -> Worker:
        """Start a worker; `code` is run before its own."""
        told = {
            "settings": self.chosen(**more), "lane": lane, "at_once": at_once, "faults": [vars(one) for one in faults],
        }  # fmt: skip
        with (self.place.root / "worker.log").open("ab") as said:
            process = subprocess.Popen(
                [sys.executable, "-c", f"{code}\nimport cluster_play; cluster_play.main()", json.dumps(told)],
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
        until(lambda: len([one for one in engine.machine.store.stations() if one.at_once]) == stations)


def main() -> None:
    """The main of a worker: one lane, perhaps with faults on order."""
    told = json.loads(sys.argv[1])
    seats = {"network": 0, "processor": 0, told["lane"]: told["at_once"]}
    crew, more = ("engine_play:faulty_crew", {"faults": told["faults"]}) if told["faults"] else (cluster.CREW, {})
    settings = Settings(_env_file=None, **told["settings"])
    sys.exit(cluster.work(settings, cluster.Seats(**seats), crew, more))


@contextlib.contextmanager
def clustered(root: Path, broker: str = "redis", **settings: Any) -> Iterator[Cluster]:
    """Machines that share a place; its workers are ended with the block."""
    urls = services()
    with schema(urls["postgresql"]) as database:
        made = Cluster(SharedPlace(root, database), urls[broker], settings=settings)
        try:
            yield made
        finally:
            for worker in made.workers:
                worker.kill()
