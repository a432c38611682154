"""The one place that builds objects from settings."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from crosscut import __version__
from crosscut.artifacts import Artifacts
from crosscut.bucket_depot import BucketDepot
from crosscut.commons import Commons
from crosscut.crew import Crew
from crosscut.destinations.buckets import CloudOptions, is_bucket, s3_endpoint
from crosscut.destinations.drive_account import Account
from crosscut.destinations.drive_folders import is_drive
from crosscut.destinations.signing import BucketSigner
from crosscut.errors import RequestError, StorageError
from crosscut.fetch import Fetcher, FetchLimits
from crosscut.fields import RequestLimits
from crosscut.files import FileNotes
from crosscut.folder_depot import FolderDepot
from crosscut.keyring import Keyring
from crosscut.links import PUBLIC
from crosscut.places import Places, is_remote, whole, within
from crosscut.recent import Recent
from crosscut.sandbox import Sandbox
from crosscut.service import Service
from crosscut.settings import Settings
from crosscut.shared_lease import shared_artifacts
from crosscut.sharing import Sharing
from crosscut.store import Options
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
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TextIO

    from pydantic import SecretStr

    from crosscut.machine import Machine
    from crosscut.previews import Previews
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
