"""The one place that builds objects from settings."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from filelock import FileLock, Timeout

from crosscut import __version__
from crosscut.artifacts import Artifacts, storage_errors
from crosscut.bucket_depot import BucketDepot
from crosscut.client import SERVER_FILE, STATE_LOCK
from crosscut.commons import Commons
from crosscut.crew import Crew
from crosscut.destinations.buckets import CloudOptions, is_bucket, s3_endpoint
from crosscut.destinations.drive_account import Account
from crosscut.destinations.drive_folders import is_drive
from crosscut.destinations.signing import BucketSigner
from crosscut.engine.claims import Claims
from crosscut.engine.embedded import EmbeddedExecutor
from crosscut.errors import CrosscutError, RequestError, StorageError
from crosscut.fetch import Fetcher, FetchLimits
from crosscut.fields import RequestLimits
from crosscut.files import FileNotes
from crosscut.folder_depot import FolderDepot
from crosscut.keyring import Keyring
from crosscut.links import PUBLIC
from crosscut.machine import Machine
from crosscut.places import Places, is_remote, whole, within
from crosscut.previews import Previews
from crosscut.recent import Recent
from crosscut.sandbox import Sandbox
from crosscut.service import Service
from crosscut.settings import Settings
from crosscut.shared_lease import shared_artifacts
from crosscut.sharing import Sharing
from crosscut.store import Options, Store
from crosscut.store.database import Database
from crosscut.store.shared import commons_of as stored_commons
from crosscut.studio import DELIVERIES
from crosscut.telemetry import Telemetry, event_log
from crosscut.tracing import NoTracer
from crosscut.uploads import Uploads
from crosscut.voices.elevenlabs import ElevenLabsVoice
from crosscut.voices.espeak import EspeakVoice
from crosscut.voices.piper import PiperVoice
from crosscut.voices.purchases import Purchases
from crosscut.webhooks import deliver, installation_secret
from crosscut.workshop import Toolbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TextIO

    from pydantic import SecretStr

    from crosscut.telemetry import Watcher
    from crosscut.tracing import Tracer
    from crosscut.voices import Voice
    from crosscut.workshop import Workshop

CLOUD = (
    "gcs_key_file", "gcs_endpoint", "s3_access_key_id", "s3_region", "s3_endpoint", "azure_account", "azure_endpoint",
    "cloud_identity",
)  # fmt: skip
CLOUD_SECRETS = ("s3_secret_access_key", "azure_key")
"""Settings that say how buckets are reached."""

SHARING = 4
"""Connections to the database that a worker process of a cluster has at most; one while it is idle."""

NETWORK_SHARES = 4
"""So many jobs can be slow at once before the network lane is full."""

CHILD_MODULES = (
    "crosscut.probe",
    "crosscut.conform",
    "crosscut.pcm",
    "crosscut.mix",
    "crosscut.levelling",
    "crosscut.seams",
    "crosscut.poster",
    "crosscut.voices.espeak",
)
"""Modules whose functions run in sandbox children; they are imported once, before any file is seen."""

PIPER_MODULES = ("crosscut.voices.piper_engine",)
"""Those of Piper's own children: it is an extra and may not import, and its licence (GPL) keeps to them."""

SHARED_SECONDS = 10.0
"""So long it is believed how what machines share was found."""

LOOKED_AT_SECONDS = 1.0
"""Whoever looks for a running server has its lock for a moment."""


@contextlib.contextmanager
def open_commons(settings: Settings) -> Iterator[Commons]:
    """What this process shares with others: with those of its machine, or over the database with all of a cluster."""
    files = FileNotes(settings.data_dir)
    if settings.engine == "embedded":
        yield Commons(own=files)
        return
    if not settings.database_url:
        raise RequestError(
            "the engine celery keeps what machines share in its database: set CROSSCUT_DATABASE_URL", code="no_database"
        )
    with contextlib.closing(Database(settings.database_url, newer=True, connections=SHARING)) as database:
        yield stored_commons(database, files)


@contextlib.contextmanager
def open_toolbox(
    settings: Settings,
    watcher: Watcher | None = None,
    logs: Sequence[TextIO] = (),
    workers: int | None = None,
    tracer: Tracer | None = None,
    commons: Commons | None = None,
) -> Iterator[Toolbox]:
    """What all jobs of this process share; child processes end with the block.

    `workers` pieces are made at the same time in this process; default: as many as the machine is to make.
    Progress is told to `watcher`, events are written to `logs`, one JSON object a line.
    """
    # The clients' own lines would carry whole URLs, signatures included.
    for client in ("httpx2", "httpcore2", "httpx", "httpcore", "google"):
        logging.getLogger(client).setLevel(logging.WARNING)
    cloud, near = cloud_options(settings), [whole(each) for each in settings.private_sources]
    endpoints = replace(PUBLIC, gs=cloud.gcs_endpoint or PUBLIC.gs, s3=s3_endpoint(cloud) or PUBLIC.s3)
    signer = BucketSigner(cloud, lambda name: within(name, near))
    limits = FetchLimits(max_bytes=settings.source_bytes, total=settings.fetch_seconds)
    sharing = sharing_of(settings)
    artifacts = _artifacts(settings, sharing)
    with (
        Sandbox(CHILD_MODULES, workers or settings.workers) as sandbox,
        Sandbox(PIPER_MODULES) as piper_sandbox,
        contextlib.ExitStack() as stack,
    ):
        commons = commons or stack.enter_context(open_commons(settings))
        yield Toolbox(
            artifacts=artifacts,
            sandbox=sandbox,
            voice=_voice(settings, sandbox, piper_sandbox, commons),
            fetcher=lambda lease, since: Fetcher(
                lease, limits, frozenset(settings.fetch_allow), since=since, endpoints=endpoints, signer=signer
            ),
            telemetry=lambda: Telemetry(watcher, logs, tracer=tracer),
            workers=workers or settings.workers,
            processors=settings.workers,
            memory_bytes=settings.memory_bytes,
            sharing=sharing,
        )


def sharing_of(settings: Settings) -> Sharing | None:
    """What this machine shares with others, None where it is alone. Raises RequestError where its name is none."""
    if not settings.shared:
        return None
    place = whole(settings.shared)
    if is_drive(place):
        raise RequestError(
            "CROSSCUT_SHARED cannot be a folder of Google Drive: give a folder of this machine, gs://…, s3://… or az://…",
            code="bad_shared",
        )
    return Sharing(BucketDepot(place, cloud_options(settings)) if is_bucket(place) else FolderDepot(Path(place)))


def _artifacts(settings: Settings, sharing: Sharing | None) -> Artifacts:
    if sharing is None:
        return Artifacts(settings.data_dir, settings.cache_bytes)
    return shared_artifacts(settings.data_dir, settings.cache_bytes, sharing, whole(settings.shared))


def _speaks(settings: Settings) -> Literal["espeak", "piper", "elevenlabs"]:
    if settings.voices != "auto":
        return settings.voices
    if settings.elevenlabs_api_key:
        return "elevenlabs"
    return "piper" if settings.piper_model else "espeak"


def _voice(settings: Settings, sandbox: Sandbox, piper_sandbox: Sandbox, commons: Commons) -> Voice:
    if _speaks(settings) == "espeak":
        return EspeakVoice(sandbox)
    if _speaks(settings) == "piper":
        if settings.piper_model is None:
            raise RequestError(
                "Piper needs a model: set CROSSCUT_PIPER_MODEL to its .onnx file, or CROSSCUT_VOICES=espeak",
                code="no_model",
            )
        return PiperVoice(piper_sandbox, settings.piper_model)
    if settings.elevenlabs_api_key is None:
        raise RequestError(
            "ElevenLabs needs a key: set CROSSCUT_ELEVENLABS_API_KEY, or CROSSCUT_VOICES=espeak", code="no_key"
        )
    if commons.voices is not None:
        # What this machine bought while it was alone, or could not tell the others.
        Purchases(settings.data_dir / "voices", commons.voices).tell_others()
    return ElevenLabsVoice(
        sandbox,
        settings.elevenlabs_api_key.get_secret_value(),
        settings.data_dir / "voices",
        default=settings.elevenlabs_voice or None,
        base_url=settings.elevenlabs_url or None,
        shared=commons.voices,
    )


@contextlib.contextmanager
def open_workshop(
    settings: Settings, watcher: Watcher | None = None, logs: Sequence[TextIO] = ()
) -> Iterator[Workshop]:
    """The tools for one job; child processes and the job's hold on artifacts end with the block."""
    with open_toolbox(settings, watcher, logs) as toolbox, toolbox.open() as workshop:
        if toolbox.sharing:
            with contextlib.suppress(StorageError):  # who needs a piece says what is wrong
                toolbox.sharing.check()
        try:
            yield workshop
        except BaseException:
            workshop.cancelled.set()
            raise


def cloud_options(settings: Settings) -> CloudOptions:
    plain: dict[str, Any] = {name: getattr(settings, name) for name in CLOUD}
    plain["assemble"] = settings.assemble == "auto"
    return CloudOptions(**plain | {name: _secret(getattr(settings, name)) or "" for name in CLOUD_SECRETS})


def places_of(settings: Settings, commons: Commons | None = None) -> Places:
    """What makes a destination of the name of a place; whoever asks for it closes it.

    Without `commons` it is for this machine alone.
    """
    commons = commons or Commons(own=FileNotes(settings.data_dir))
    account = Account(
        settings.data_dir / "drive",
        consent=commons.own,
        shared=commons.drive,
        service_account=settings.google_service_account,
        subject=settings.google_subject or None,
        url=settings.google_url or None,
    )
    return Places(cloud_options(settings), account, settings.data_dir / "locks")


@contextlib.contextmanager
def open_places(settings: Settings) -> Iterator[Places]:
    """The same, for the block, and together with all that `settings` name."""
    with open_commons(settings) as commons, contextlib.closing(places_of(settings, commons)) as places:
        yield places


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value else None


def tracer_of(settings: Settings, logs: Sequence[TextIO]) -> Tracer:
    """Traces for this process, which must not be forked from then on."""
    if not settings.otel_endpoint:
        return NoTracer()
    try:
        from crosscut.otel import OtelTracer  # noqa: PLC0415 - OpenTelemetry is an extra, and slow to import
    except ImportError as error:
        event_log(logs).warning("no traces are sent: pip install 'crosscut[otel]'", detail=str(error))
        return NoTracer()
    return OtelTracer(settings.otel_endpoint, __version__)


class OpenCrew(Crew):
    """A crew with tools of its own."""

    def __init__(self, settings: Settings, log: TextIO, secrets: Sequence[str]) -> None:
        self._stack = contextlib.ExitStack()
        tracer = tracer_of(settings, [log])
        self._stack.callback(tracer.close)
        commons = self._stack.enter_context(open_commons(settings))
        tools = self._stack.enter_context(open_toolbox(settings, None, [log], tracer=tracer, commons=commons))

        def webhook(payload: Mapping[str, Any], cancelled: threading.Event) -> None:
            deliver(payload, secrets, frozenset(settings.fetch_allow), cancelled)

        places = places_of(settings, commons)
        self._stack.callback(places.close)
        super().__init__(tools, places, webhook, tracer)

    def close(self) -> None:
        super().close()
        self._stack.close()


def crew(arguments: Mapping[str, Any], log: TextIO) -> OpenCrew:
    """Called in each worker process; `arguments` come from `crew_arguments`."""
    return OpenCrew(Settings.model_validate(arguments["settings"]), log, arguments["secrets"])


def crew_arguments(settings: Settings, secret: str | None = None) -> dict[str, Any]:
    """What a worker process needs, as JSON; secrets reach it through the pipe alone.

    `secret` signs webhooks where none is set; default: that of this data folder.
    """
    used = (
        "cache_bytes", "source_bytes", "fetch_seconds", "fetch_allow", "workers", "memory_bytes",
        "private_sources", "shared", "assemble", "otel_endpoint", "google_subject", "google_url", "voices",
        "elevenlabs_voice", "elevenlabs_url", "engine", "database_url",
    )  # fmt: skip
    secrets = [secret.get_secret_value() for secret in settings.webhook_secrets]
    files = {"piper_model": settings.piper_model, "google_service_account": settings.google_service_account}
    return {
        "settings": {name: getattr(settings, name) for name in (*used, *CLOUD)}
        | {name: _secret(getattr(settings, name)) for name in ("elevenlabs_api_key", *CLOUD_SECRETS)}
        | {"data_dir": str(settings.data_dir)}
        | {name: path and str(path) for name, path in files.items()},
        "secrets": secrets or [secret or installation_secret(FileNotes(settings.data_dir))],
    }


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


def options_of(settings: Settings) -> Options:
    return Options(
        free_speech=_speaks(settings) != "elevenlabs",
        processors=settings.workers,
        window=2 * settings.workers,
        senders=settings.workers + 1,
        writers=DELIVERIES,
        downloads=settings.network_workers,
        source_seconds=settings.fetch_seconds,
        batch=settings.batch,
        lease_seconds=settings.lease_seconds,
    )


def service_of(
    settings: Settings, tools: Toolbox, previews: Previews, machine: Machine, place: str, places: Places
) -> Service:
    """What can be asked of `machine`, whose jobs go to `place` where they name none."""
    return Service(
        machine.store,
        previews,
        Uploads(tools.artifacts, settings.data_dir / "uploads", machine.store, settings.source_bytes, tools.sharing),
        Keyring(machine.store),
        destination=place,
        limits=RequestLimits(variations=settings.max_variations),
        wake=machine.wake,
        workers=machine.workers,
        troubles=_troubles(machine, tools.sharing),
        disks={"the data folder": settings.data_dir} | ({} if is_remote(place) else {"the destination": Path(place)}),
        choosable=[whole(each) for each in settings.destinations],
        voice=tools.voice,
        places=places,
        trace=machine.tracer.current,
    )


def _troubles(machine: Machine, sharing: Sharing | None) -> Callable[[], list[str]]:
    """What is wrong with a machine, and with what it shares."""
    if sharing is None:
        return machine.troubles
    looked: Recent[str, str | None] = Recent(SHARED_SECONDS, 1)

    def troubles() -> list[str]:
        trouble = looked.get("shared", sharing.trouble)
        return [*machine.troubles(), *([trouble] if trouble else [])]

    return troubles


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
