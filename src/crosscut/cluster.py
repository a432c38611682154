"""The engine of many machines, built from settings: whoever plans and answers, and whoever works."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from crosscut import bootstrap
from crosscut.disk import storage_errors
from crosscut.engine.claims import Claims
from crosscut.engine.embedded import EmbeddedExecutor
from crosscut.engine.worker import ToEvents
from crosscut.errors import RequestError
from crosscut.isolation import die_with_parent
from crosscut.machine import Machine
from crosscut.places import is_remote, whole
from crosscut.previews import Previews
from crosscut.store import Options, Store
from crosscut.store.shared import StoredNotes
from crosscut.telemetry import event_log
from crosscut.webhooks import installation_secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TextIO

    from celery import Celery

    from crosscut.commons import Notes
    from crosscut.engine.station import Station
    from crosscut.service import Service
    from crosscut.settings import Settings
    from crosscut.sharing import Sharing
    from crosscut.units import Lane

SENT_SECONDS = 10.0
"""A message that takes longer to be taken, while none waits in the broker, is sent again."""

AHEAD = 32
"""Tasks of one job that may be on their way, where each makes fewer variations than that: they are soon done."""

SERVER_SECONDS = 30.0
"""A worker that is started first waits so long for its server."""

MARK = ".crosscut-cluster"
"""A file in a folder that all machines are to share: what it says proves that they do."""


class Seats(NamedTuple):
    """Units at once on this machine, by lane; 0: the lane is not served."""

    network: int
    processor: int


def refusal(settings: Settings) -> RequestError | None:
    """What is missing for an engine of many machines."""
    if importlib.util.find_spec("celery") is None:
        return _refused("the engine celery is not installed: pip install 'crosscut[celery]'")
    if not settings.broker_url:
        return _refused(
            "the engine celery needs a broker: set CROSSCUT_BROKER_URL, such as redis://host:6379/0 or"
            " amqp://user:password@host:5672//"
        )
    if not settings.database_url.startswith("postgresql"):
        return _refused(
            "the engine celery needs a database that all machines reach: set CROSSCUT_DATABASE_URL, such as"
            " postgresql+psycopg://user:password@host/crosscut"
        )
    return None


def _refused(sentence: str) -> RequestError:
    return RequestError(sentence, code="invalid_setting")


def of_cluster(settings: Settings) -> Settings:
    """Settings by which all that is shared is in the database, however the engine was chosen."""
    return settings.model_copy(update={"engine": "celery"})


def of_all_machines(settings: Settings) -> Settings:
    """The same where there may be a cluster: `serve` can be told of its engine by an option alone."""
    return settings if refusal(settings) else of_cluster(settings)


def _app(settings: Settings) -> Celery:
    from crosscut.engine.carrier import celery_app  # noqa: PLC0415 - Celery is an extra

    if error := refusal(settings):
        raise error
    return celery_app(settings.broker_url)


def _share(settings: Settings, store: Store, place: str, sharing: Sharing | None) -> None:
    """Tell the workers what they must know as we do, and mark what they must see as we do."""
    with bootstrap.open_commons(settings) as commons:
        installation_secret(commons.own)
    notes, mark = notes_of(store), _mark(store)
    if sharing:
        sharing.check()
        sharing.mark(mark)
    with storage_errors():
        for folder in (*([] if sharing else [settings.data_dir]), *([] if is_remote(place) else [Path(place)])):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / MARK).write_text(mark, encoding="ascii")
        if sharing:
            (settings.data_dir / MARK).unlink(missing_ok=True)
    notes.put("destination", place)


def _check_shared(settings: Settings, store: Store) -> None:
    """Raises RequestError where this machine does not have what the server has."""
    notes, end = notes_of(store), time.monotonic() + SERVER_SECONDS
    while (place := notes.get("destination")) is None:
        if time.monotonic() > end:
            raise _refused("no server has used this database yet: start crosscut serve --engine celery first")
        time.sleep(0.5)
    mark = notes.get("mark")
    sharing = bootstrap.sharing_of(settings)
    if sharing:
        sharing.check()
        if not sharing.is_marked(mark or ""):
            raise _refused(
                "CROSSCUT_SHARED is not what the server has: set it to the same folder or bucket as that of the server"
            )
    elif not _is_marked(settings.data_dir, mark):
        raise _refused(
            f"{settings.data_dir} is not the data folder of the server: set CROSSCUT_SHARED, as on the server, to a"
            " folder or bucket that all machines reach"
        )
    if not is_remote(place) and not _is_marked(Path(place), mark):
        raise _refused(
            f"the server delivers into {place}, a folder that this machine does not share: mount it here at the same"
            " path, or set CROSSCUT_DESTINATION of the server to a bucket such as gs://bucket/prefix"
        )


def notes_of(store: Store) -> Notes:
    """What all machines of the cluster must know alike."""
    return StoredNotes(store.database, "cluster")


def _mark(store: Store) -> str:
    return notes_of(store).put_once("mark", secrets.token_hex(16))


def name_of(store: Store) -> str:
    """What tells this cluster from others that share its broker."""
    return _mark(store)[:8]


def _is_marked(folder: Path, mark: str | None) -> bool:
    try:
        return (folder / MARK).read_text(encoding="ascii") == mark
    except (OSError, UnicodeDecodeError):
        return False


def _options(settings: Settings) -> Options:
    ahead = AHEAD if 0 < settings.batch < AHEAD else 0
    return replace(bootstrap.options_of(settings), sent_seconds=SENT_SECONDS, ahead=ahead)


# Whoever plans and answers


@contextlib.contextmanager
def open_scheduler(
    settings: Settings,
    database: str,
    logs: Sequence[TextIO] = (),
    *,
    destination: str | None = None,
    grace: float = 0,
) -> Iterator[Machine]:
    """A scheduler and the service in front of it; others may run over the same `database` at the same time."""
    from crosscut.engine.carrier import CeleryExecutor  # noqa: PLC0415 - Celery is an extra

    settings = of_cluster(settings)
    app, log = _app(settings), event_log(logs)
    place = destination or whole(settings.destination)
    with contextlib.ExitStack() as stack:
        commons = stack.enter_context(bootstrap.open_commons(settings))
        tools = stack.enter_context(bootstrap.open_toolbox(settings, None, logs, commons=commons))
        store = Store(database, _options(settings), newer=True)
        stack.enter_context(store.database.owned(shared=True))
        _share(settings, store, place, tools.sharing)
        previews = Previews(tools)
        stack.callback(previews.close)
        places = stack.enter_context(contextlib.closing(bootstrap.places_of(settings, commons)))

        def service(machine: Machine) -> Service:
            return bootstrap.service_of(settings, tools, previews, machine, place, places)

        def executor(_machine: Machine) -> CeleryExecutor:
            def rescale(processors: int) -> None:
                window = 2 * processors + store.options.ahead
                store.options = replace(store.options, processors=processors, window=window, senders=processors + 1)

            return CeleryExecutor(app, name_of(store), store, log, rescale, store.options.ahead)

        # Who may write where is in SQL: locks of this machine would say nothing to others.
        machine = Machine(
            store,
            service,
            executor,
            Claims(None),
            log,
            store.clock,
            alone=False,
            tracer=bootstrap.tracer_of(settings, logs),
        )
        try:
            yield machine
        finally:
            machine.close(grace)


# Whoever works


CREW = "crosscut.bootstrap:crew"


def work(settings: Settings, seats: Seats, crew: str = CREW, more: Mapping[str, Any] | None = None) -> int:
    """Serve lanes on this machine until SIGTERM or SIGINT; the exit status.

    Workers of a single lane can be others than the usual `crew`, who are told `more`.
    """
    if error := refusal(settings):
        raise error
    if seats.network and seats.processor:
        return _both(seats)
    return _serve_lane(of_cluster(settings), "network" if seats.network else "processor", max(seats), crew, more or {})


def _serve_lane(settings: Settings, lane: Lane, at_once: int, crew: str, more: Mapping[str, Any]) -> int:
    with contextlib.ExitStack() as stack:
        logs: list[TextIO] = [sys.stderr]
        if settings.log_file:
            with storage_errors():
                logs.append(stack.enter_context(settings.log_file.open("a", encoding="utf-8")))
        with storage_errors():
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = Store(settings.database_url, _options(settings), newer=True)
        stack.callback(store.close)
        _check_shared(settings, store)
        log = event_log(logs)
        logging.basicConfig(handlers=[ToEvents(stream) for stream in logs], level=logging.WARNING, force=True)
        with bootstrap.open_commons(settings) as commons:
            arguments = {**bootstrap.crew_arguments(settings, installation_secret(commons.own)), **more}
        station = _station(settings, store, lane, at_once, Hiring(crew, arguments, logs))

        def end(_number: int, _frame: object) -> None:
            station.stop(settings.grace_seconds)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        log.info("working", lane=lane, at_once=at_once, station=station.name, pid=os.getpid())
        try:
            return station.run()
        finally:
            station.close()
            log.info("ending", lane=lane, station=station.name)


class Hiring(NamedTuple):
    """How worker processes are made: see `engine.worker.Factory`."""

    crew: str
    arguments: Mapping[str, Any]
    logs: Sequence[TextIO]


def _station(settings: Settings, store: Store, lane: Lane, at_once: int, hiring: Hiring) -> Station:
    from crosscut.engine.carrier import queue_of  # noqa: PLC0415 - Celery is an extra
    from crosscut.engine.station import Station  # noqa: PLC0415 - Celery is an extra

    name = f"{lane}-{secrets.token_hex(4)}@{socket.gethostname()}"

    def executor(station: Station) -> EmbeddedExecutor:
        return EmbeddedExecutor(
            store,
            hiring.crew,
            hiring.arguments,
            processors=at_once if lane == "processor" else 0,
            network=at_once if lane == "network" else 0,
            on_death=station.died,
            on_loss=station.lost,
            on_change=lambda: None,
            on_end=station.ended,
            prefix=f"{name}/",
            logs=hiring.logs,
        )

    queue = queue_of(name_of(store), lane)
    return Station(_app(settings), queue, store, lane, name, at_once, executor, event_log(hiring.logs))


def ailments(settings: Settings) -> list[str]:
    """Why the workers of this machine cannot work, as sentences; none: they can."""
    if error := refusal(settings):
        raise error
    store = Store(settings.database_url, _options(settings), newer=True)
    try:
        here = [station for station in store.stations() if station.name.endswith(f"@{socket.gethostname()}")]
    finally:
        store.close()
    if not here:
        return ["no worker of this machine was heard in the last seconds"]
    unready = [f"the worker of the {station.lane} lane is not ready" for station in here if not station.at_once]
    return unready + [station.problem for station in here if station.problem]


def _both(seats: Seats) -> int:
    """A process for each lane; they end together."""
    command = [sys.executable, "-m", "crosscut", "worker", "--lane"]
    ending: list[int] = []

    def end(number: int, _frame: object) -> None:
        ending.append(number)
        for process in processes:
            process.terminate()

    us = os.getpid()
    processes: list[subprocess.Popen[bytes]] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    for lane, at_once in seats._asdict().items():
        processes.append(
            subprocess.Popen(
                [*command, lane, "--concurrency", str(at_once)],
                process_group=0,  # Ctrl-C reaches it through us, once
                preexec_fn=lambda: die_with_parent(us),  # noqa: PLW1509 - no threads here
            )
        )
    while all(process.poll() is None for process in processes):
        time.sleep(0.2)
    unasked = not ending
    if unasked:
        end(signal.SIGTERM, None)
    codes = [process.wait() for process in processes]
    return next((code for code in codes if code), 1 if unasked else 0)
