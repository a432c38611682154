"""The engine of one machine, built from settings, and the server in front of an engine."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from filelock import FileLock, Timeout

from crosscut.bootstrap import (
    NETWORK_SHARES,
    crew_arguments,
    open_commons,
    open_places,
    open_toolbox,
    options_of,
    places_of,
    service_of,
    tracer_of,
)
from crosscut.client import SERVER_FILE, STATE_LOCK
from crosscut.disk import storage_errors
from crosscut.engine.claims import Claims
from crosscut.engine.embedded import EmbeddedExecutor
from crosscut.errors import CrosscutError, StorageError
from crosscut.keyring import Keyring
from crosscut.machine import Machine
from crosscut.places import whole
from crosscut.previews import Previews
from crosscut.store import Store
from crosscut.telemetry import event_log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    from crosscut.service import Service
    from crosscut.settings import Settings

LOOKED_AT_SECONDS = 1.0
"""Whoever looks for a running server has its lock for a moment."""


@contextlib.contextmanager
def open_machine(
    settings: Settings,
    database: str,
    logs: Sequence[TextIO] = (),
    *,
    destination: str | None = None,
    private: bool = False,
    grace: float = 0,
) -> Iterator[Machine]:
    """The engine of this machine over the state in `database`, which no other process may have open.

    `private`: the caller holds the place that will be written into, and what an earlier process was at is given up;
    `grace` seconds are given at the end to finish.
    """
    log = event_log(logs)
    place = destination or whole(settings.destination)
    with contextlib.ExitStack() as stack:
        commons = stack.enter_context(open_commons(settings))
        places = stack.enter_context(contextlib.closing(places_of(settings, commons)))
        claims = Claims(None if private else places)
        tools = stack.enter_context(open_toolbox(settings, None, logs, commons=commons))
        if tools.sharing:
            tools.sharing.check()
        store = Store(database, options_of(settings))
        stack.enter_context(store.database.owned())
        if private:
            store.abandon()
        previews = Previews(tools)
        stack.callback(previews.close)

        def service(machine: Machine) -> Service:
            return service_of(settings, tools, previews, machine, place, places)

        def executor(machine: Machine) -> EmbeddedExecutor:
            return EmbeddedExecutor(
                store,
                "crosscut.bootstrap:crew",
                crew_arguments(settings),
                processors=settings.workers,
                network=NETWORK_SHARES * settings.network_workers,
                on_death=machine.died,
                on_loss=machine.lost,
                on_change=machine.wake,
                logs=logs,
            )

        machine = Machine(store, service, executor, claims, log, time.time, tracer=tracer_of(settings, logs))
        try:
            yield machine
        finally:
            machine.close(grace)
            with contextlib.suppress(StorageError), storage_errors():  # the next start does the same
                tools.artifacts.sweep()


@contextlib.contextmanager
def _own_folder(settings: Settings) -> Iterator[None]:
    """Be the one server of the data folder, or who stands in for it, for the block; StorageError where another is."""
    with contextlib.ExitStack() as stack:
        with storage_errors():
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = FileLock(settings.data_dir / STATE_LOCK, fallback_to_soft=False, thread_local=False)
            try:
                lock.acquire(timeout=LOOKED_AT_SECONDS)
            except Timeout:
                raise StorageError(
                    f"another crosscut serve uses {settings.data_dir}: stop it, or set CROSSCUT_DATA_DIR to another"
                    " folder",
                    code="state_in_use",
                ) from None
            stack.callback(lock.release)
            # Left by a server that was killed.
            (settings.data_dir / SERVER_FILE).unlink(missing_ok=True)
        yield


def _database(settings: Settings) -> str:
    return settings.database_url or f"sqlite:///{settings.data_dir / 'state.sqlite'}"


@contextlib.contextmanager
def open_store(settings: Settings) -> Iterator[Keyring]:
    """The API keys, where no server of this folder runs that holds them."""
    with _own_folder(settings):
        store = Store(_database(settings))
        try:
            yield Keyring(store)
        finally:
            store.close()


class OpenEngine(Protocol):
    def __call__(
        self, settings: Settings, database: str, logs: Sequence[TextIO], *, destination: str, grace: float
    ) -> contextlib.AbstractContextManager[Machine]: ...


def _look_at(settings: Settings, place: str, log: Any) -> None:
    """Tell the log if nothing can be delivered there as things are."""
    try:
        with open_places(settings) as places:
            places(place).check()
    except CrosscutError as error:
        log.warning("no video could be delivered now", destination=place, reason=error.public, code=error.code)


def serve(settings: Settings, host: str, port: int, destination: str, open_engine: OpenEngine = open_machine) -> None:
    """Run the API, and the engine behind it, until SIGTERM or SIGINT."""
    from crosscut import serving  # noqa: PLC0415 - the web framework takes a while to import, and only this needs it

    with contextlib.ExitStack() as stack:
        logs: list[TextIO] = [sys.stderr]
        if settings.log_file:
            with storage_errors():
                logs.append(stack.enter_context(settings.log_file.open("a", encoding="utf-8")))
        stack.enter_context(_own_folder(settings))
        place = whole(destination)
        # A name that is none is told now, not by the first job; what else is wrong with it as soon as it is known.
        with contextlib.closing(places_of(settings)) as places:
            places(place)
        threading.Thread(target=_look_at, args=(settings, place, event_log(logs)), daemon=True).start()
        machine = stack.enter_context(
            open_engine(settings, _database(settings), logs, destination=place, grace=settings.grace_seconds)
        )
        options = serving.Serving(
            host=host,
            port=port,
            data_dir=settings.data_dir,
            auth=settings.auth,
            allowed_hosts=settings.allowed_hosts,
            requests_per_minute=settings.requests_per_minute,
            upload_bytes=settings.source_bytes,
            plan_wait=settings.plan_wait_seconds,
        )
        serving.run(
            machine.service,
            options,
            event_log(logs),
            keys=Keyring(machine.store).any(),
            tracer=machine.tracer,
            counts=stack.enter_context(open_commons(settings)).counts,
        )
