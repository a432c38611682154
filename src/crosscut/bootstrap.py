"""The one place that builds objects from settings."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from crosscut.artifacts import Artifacts, storage_errors
from crosscut.crew import Crew
from crosscut.destinations.folder import FolderDestination
from crosscut.engine.claims import Claims
from crosscut.engine.embedded import EmbeddedExecutor
from crosscut.errors import StorageError
from crosscut.fetch import Fetcher, FetchLimits
from crosscut.fields import RequestLimits
from crosscut.keyring import Keyring
from crosscut.machine import Machine
from crosscut.previews import Previews
from crosscut.sandbox import Sandbox
from crosscut.service import Service
from crosscut.settings import Settings
from crosscut.store import Options, Store
from crosscut.telemetry import Telemetry, event_log
from crosscut.uploads import Uploads
from crosscut.voices.espeak import EspeakVoice
from crosscut.webhooks import deliver, installation_secret
from crosscut.workshop import Toolbox

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TextIO

    from crosscut.destinations import Destination
    from crosscut.telemetry import Watcher
    from crosscut.workshop import Workshop

CHILD_MODULES = (
    "crosscut.probe",
    "crosscut.conform",
    "crosscut.pcm",
    "crosscut.mix",
    "crosscut.poster",
    "crosscut.voices.espeak",
)
"""Modules whose functions run in sandbox children; they are imported once, before any file is seen."""


@contextlib.contextmanager
def open_toolbox(
    settings: Settings, watcher: Watcher | None = None, logs: Sequence[TextIO] = (), workers: int | None = None
) -> Iterator[Toolbox]:
    """What all jobs of this process share; child processes end with the block.

    `workers` pieces are made at the same time in this process; default: as many as the machine is to make.
    Progress is told to `watcher`, events are written to `logs`, one JSON object a line.
    """
    # The client's own lines would carry whole URLs, signatures included.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    limits = FetchLimits(max_bytes=settings.source_bytes, total=settings.fetch_seconds)
    artifacts = Artifacts(settings.data_dir, settings.cache_bytes)
    with Sandbox(CHILD_MODULES) as sandbox:
        yield Toolbox(
            artifacts=artifacts,
            sandbox=sandbox,
            voice=EspeakVoice(sandbox),
            fetcher=lambda lease, since: Fetcher(lease, limits, frozenset(settings.fetch_allow), since=since),
            telemetry=lambda: Telemetry(watcher, logs),
            workers=workers or settings.workers,
            processors=settings.workers,
            memory_bytes=settings.memory_bytes,
        )


@contextlib.contextmanager
def open_workshop(
    settings: Settings, watcher: Watcher | None = None, logs: Sequence[TextIO] = ()
) -> Iterator[Workshop]:
    """The tools for one job; child processes and the job's hold on artifacts end with the block."""
    with open_toolbox(settings, watcher, logs) as toolbox, toolbox.open() as workshop:
        try:
            yield workshop
        except BaseException:
            workshop.cancelled.set()
            raise


def destination_of(place: str) -> Destination:
    """Where a job's folder is made, from its name: today a folder on this machine."""
    return FolderDestination(Path(place))


class OpenCrew(Crew):
    """A crew with tools of its own."""

    def __init__(self, settings: Settings, log: TextIO, secrets: Sequence[str]) -> None:
        self._stack = contextlib.ExitStack()
        tools = self._stack.enter_context(open_toolbox(settings, None, [log]))

        def webhook(payload: Mapping[str, Any], cancelled: threading.Event) -> None:
            deliver(payload, secrets, frozenset(settings.fetch_allow), cancelled)

        super().__init__(tools, destination_of, webhook)

    def close(self) -> None:
        super().close()
        self._stack.close()


def crew(arguments: Mapping[str, Any], log: TextIO) -> OpenCrew:
    """Called in each worker process; `arguments` come from `_crew_arguments`."""
    return OpenCrew(Settings.model_validate(arguments["settings"]), log, arguments["secrets"])


def _crew_arguments(settings: Settings) -> dict[str, Any]:
    """What a worker process needs, as JSON; secrets reach it through the pipe alone."""
    used = ("cache_bytes", "source_bytes", "fetch_seconds", "fetch_allow", "workers", "memory_bytes")
    secrets = [secret.get_secret_value() for secret in settings.webhook_secrets]
    return {
        "settings": {name: getattr(settings, name) for name in used} | {"data_dir": str(settings.data_dir)},
        "secrets": secrets or [installation_secret(settings.data_dir)],
    }


@contextlib.contextmanager
def open_machine(
    settings: Settings,
    database: str,
    logs: Sequence[TextIO] = (),
    *,
    destination: str | None = None,
    claimed: bool = False,
    grace: float = 0,
) -> Iterator[Machine]:
    """The engine of this machine over the state in `database`, which no other process may have open.

    `claimed`: the caller holds the place that will be written into; `grace` seconds are given at the end to finish.
    """
    options = Options(processors=settings.workers, window=2 * settings.workers, source_seconds=settings.fetch_seconds)
    log = event_log(logs)
    claims = Claims(None if claimed else destination_of)
    with contextlib.ExitStack() as stack:
        tools = stack.enter_context(open_toolbox(settings, None, logs))
        store = Store(database, options)
        previews = Previews(tools)
        stack.callback(previews.close)

        def service(machine: Machine) -> Service:
            return Service(
                store,
                previews,
                Uploads(tools.artifacts, settings.data_dir / "uploads", store, settings.source_bytes),
                Keyring(store),
                destination=destination or str(Path(settings.destination).absolute()),
                limits=RequestLimits(variations=settings.max_variations),
                wake=machine.wake,
                workers=machine.workers,
                troubles=machine.troubles,
            )

        def executor(machine: Machine) -> EmbeddedExecutor:
            return EmbeddedExecutor(
                store,
                "crosscut.bootstrap:crew",
                _crew_arguments(settings),
                processors=settings.workers,
                network=settings.network_workers,
                on_death=machine.died,
                on_change=machine.wake,
                logs=logs,
            )

        machine = Machine(store, service, executor, claims, log, time.time)
        try:
            yield machine
        finally:
            machine.close(grace)
            with contextlib.suppress(StorageError), storage_errors():  # the next start does the same
                tools.artifacts.sweep()


@contextlib.contextmanager
def _own_state(settings: Settings) -> Iterator[str]:
    """The URL of the state in the data folder, which is this process's alone for the block."""
    if settings.database_url:
        yield settings.database_url
        return
    with storage_errors():
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock(settings.data_dir / "state.lock", timeout=0, fallback_to_soft=False, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise StorageError(
            f"another crosscut serve uses {settings.data_dir}: stop it, or set CROSSCUT_DATA_DIR to another folder",
            code="state_in_use",
        ) from None
    try:
        yield f"sqlite:///{settings.data_dir / 'state.sqlite'}"
    finally:
        lock.release()


@contextlib.contextmanager
def open_store(settings: Settings) -> Iterator[Keyring]:
    """The API keys, where no server runs that holds them."""
    with _own_state(settings) as database:
        store = Store(database)
        try:
            yield Keyring(store)
        finally:
            store.close()


def serve(settings: Settings, host: str, port: int, destination: str) -> None:
    """Run the API and its workers until SIGTERM or SIGINT."""
    from crosscut import serving  # noqa: PLC0415 - the web framework takes a while to import, and only this needs it

    with contextlib.ExitStack() as stack:
        logs: list[TextIO] = [sys.stderr]
        if settings.log_file:
            with storage_errors():
                logs.append(stack.enter_context(settings.log_file.open("a", encoding="utf-8")))
        database = stack.enter_context(_own_state(settings))
        place = str(Path(destination).absolute())
        machine = stack.enter_context(
            open_machine(settings, database, logs, destination=place, grace=settings.grace_seconds)
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
        serving.run(machine.service, options, event_log(logs), keys=Keyring(machine.store).any())
