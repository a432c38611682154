"""Settings from the environment (`CROSSCUT_…`) or a `.env` file; only `bootstrap` and the command line read them."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
from pydantic import AliasChoices, ByteSize, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """Every field is one variable: `data_dir` is `CROSSCUT_DATA_DIR`."""

    model_config = SettingsConfigDict(
        env_prefix="CROSSCUT_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    data_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("crosscut")),
        description="Folder for downloads and prepared pieces, which can be made again, and for the jobs and API keys.",
    )
    cache_bytes: ByteSize = Field(
        default=ByteSize(20 * 2**30),
        description="How much the data folder may hold, such as 20GiB; the least recently used pieces go first.",
    )
    shared: str = Field(
        default="",
        description="What all machines of a cluster share: a folder that all of them mount, gs://bucket/prefix,"
        " s3://bucket/prefix or az://container/prefix; default: there is this machine alone.",
    )
    fetch_allow: Annotated[tuple[tuple[str, int], ...], NoDecode] = Field(
        default=(),
        description="Private addresses that sources may come from, as host:port,host:port; all others are refused.",
    )
    source_bytes: ByteSize = Field(default=ByteSize(2 * 2**30), description="Largest source that is downloaded.")
    fetch_seconds: int = Field(default=900, ge=1, description="Longest time one download may take.")
    workers: int = Field(
        default_factory=lambda: (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        ),
        ge=1,
        le=256,
        description="Pieces prepared at the same time; default: one for each processor.",
    )
    memory_bytes: ByteSize = Field(
        default=ByteSize(4 * 2**30), description="Address space one decoding or encoding process may use."
    )
    max_variations: int = Field(default=1_000_000, ge=1, description="Most variations one request may ask for.")
    log_file: Path | None = Field(
        default=None, description="File that log lines are appended to, besides standard error."
    )
    server: str = Field(
        default="",
        description="Where `submit`, `jobs`, `watch` and `cancel` find a server, such as https://host:8000;"
        " default: the one that runs with the same data folder.",
    )
    api_key: SecretStr | None = Field(default=None, description="API key those commands show to the server.")
    destination: str = Field(
        default="videos",
        description="Where the folders of tasks are made if nothing else is said: a folder, drive: (see"
        " `crosscut auth google`), gs://bucket/prefix, s3://bucket/prefix or az://container/prefix.",
    )
    destinations: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Places on other machines that requests to the server may choose, with all below them, as"
        " gs://bucket/prefix,s3://bucket; default: none.",
    )
    private_sources: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Private buckets that requests may read with this machine's credentials, with all below them, as"
        " gs://bucket/prefix,s3://bucket; default: none.",
    )
    google_client_id: str = Field(
        default="", description="Id of your OAuth client of the type Desktop app, for `crosscut auth google`."
    )
    google_client_secret: SecretStr | None = Field(default=None, description="Its secret.")
    google_service_account: Path | None = Field(
        default=None, description="JSON key file of a service account that delivers into Shared Drives."
    )
    google_subject: str = Field(default="", description="Whom the service account acts for (domain-wide delegation).")
    google_url: str = Field(default="", description="Where Google is; default: its own addresses.")
    gcs_key_file: str = Field(
        default="",
        description="Key file of a service account for gs://; default: the one GOOGLE_APPLICATION_CREDENTIALS names.",
    )
    gcs_endpoint: str = Field(default="", description="Where Cloud Storage is; default: its own address.")
    s3_access_key_id: str = Field(default="", description="For s3://; default: AWS_ACCESS_KEY_ID, or a profile.")
    s3_secret_access_key: SecretStr | None = Field(default=None, description="With it.")
    s3_region: str = Field(default="", description="Region of the buckets; default: AWS_REGION.")
    s3_endpoint: str = Field(default="", description="Where a store is that speaks the protocol of S3; default: S3.")
    azure_account: str = Field(
        default="", description="Storage account for az://; default: AZURE_STORAGE_ACCOUNT_NAME."
    )
    azure_key: SecretStr | None = Field(default=None, description="Its key; default: AZURE_STORAGE_ACCOUNT_KEY.")
    azure_endpoint: str = Field(default="", description="Where Azure Blob Storage is; default: its own address.")
    cloud_identity: bool = Field(
        default=False, description="Use the identity that this machine was given in its cloud where no key is set."
    )
    assemble: Literal["auto", "off"] = Field(
        default="auto",
        description="Whether what many videos share is sent once to gs:// and joined there (auto), or every video is"
        " sent whole (off).",
    )
    auth: Literal["auto", "on", "off"] = Field(
        default="auto", description="Whether `serve` asks for API keys; auto: unless it listens on loopback alone."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Host names by which the server may be called, as name,name, besides its address and localhost.",
    )
    requests_per_minute: int = Field(
        default=120, ge=1, description="Requests one API key or address may send a minute; ten times as many uploads."
    )
    webhook_secrets: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(),
        description="Secrets that sign webhooks, as whsec_…,whsec_…: two while one replaces the other;"
        " default: one made for this data folder.",
    )
    grace_seconds: int = Field(
        default=25, ge=0, description="How long `serve` may finish what it has in hand when it is told to end."
    )
    network_workers: int = Field(
        default=8,
        ge=1,
        le=256,
        description="Downloads, spoken lines and webhooks of one job under way at the same time;"
        " all jobs together may have four times as many.",
    )
    database_url: str = Field(
        default="", repr=False, description="Database for the state; default: SQLite in the data folder."
    )
    engine: Literal["embedded", "celery"] = Field(
        default="embedded",
        description="Who does the work of `serve`: workers of this machine, or `crosscut worker` on any number of"
        " machines; needs crosscut[celery], CROSSCUT_BROKER_URL and PostgreSQL.",
    )
    broker_url: str = Field(
        default="",
        repr=False,
        description="Redis or RabbitMQ, which carry work to the workers of the engine celery, such as"
        " redis://host:6379/0 or amqp://user:password@host:5672//.",
    )
    batch: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Variations that one unit of work makes; 1: a task for each; 0: as many as take a few seconds.",
    )
    lease_seconds: float = Field(
        default=60, ge=1, description="After so long what a silent worker had in hand is done by another."
    )
    otel_endpoint: str = Field(
        default="",
        repr=False,
        validation_alias=AliasChoices("CROSSCUT_OTEL_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "otel_endpoint"),
        description="Collector of OpenTelemetry that gets traces by OTLP over HTTP, such as http://collector:4318;"
        " OTEL_EXPORTER_OTLP_ENDPOINT is understood as well; needs crosscut[otel].",
    )
    voices: Literal["auto", "espeak", "piper", "elevenlabs"] = Field(
        default="auto",
        description="Who speaks the voice-overs; auto: ElevenLabs where its key is set, else Piper where a model is,"
        " else espeak.",
    )
    elevenlabs_api_key: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("CROSSCUT_ELEVENLABS_API_KEY", "ELEVENLABS_API_KEY", "elevenlabs_api_key"),
        description="API key of ElevenLabs; ELEVENLABS_API_KEY is understood as well.",
    )
    elevenlabs_voice: str = Field(
        default="", description="Name or id of the voice for lines that name none; default: the account's first."
    )
    elevenlabs_url: str = Field(
        default="", description="Where ElevenLabs is, such as https://api.eu.residency.elevenlabs.io; default: its own."
    )
    piper_model: Path | None = Field(
        default=None,
        description="Model of Piper, an .onnx file with its .onnx.json beside it, or a folder of them;"
        " needs crosscut[piper].",
    )
    plan_wait_seconds: int = Field(
        default=30, ge=0, description="How long `POST /plan` waits for the plan before it answers without."
    )

    @field_validator("fetch_allow", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(_host_port(entry.strip()) for entry in value.split(",") if entry.strip())

    @field_validator("allowed_hosts", "destinations", "private_sources", "webhook_secrets", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(entry.strip() for entry in value.split(",") if entry.strip())

    @field_validator("webhook_secrets")
    @classmethod
    def _usable(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if not all(_is_webhook_secret(secret.get_secret_value()) for secret in value):
            raise ValueError("a secret is whsec_ and 24 to 64 bytes in base64, as crosscut keys webhook-secret prints")
        return value

    @field_validator("data_dir", "log_file", "piper_model", "google_service_account")
    @classmethod
    def _home(cls, value: Path | None) -> Path | None:
        return value and value.expanduser()


def _host_port(entry: str) -> tuple[str, int]:
    host, _, port = entry.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"“{entry}” is not host:port")
    return host.strip("[]").lower(), int(port)


def _is_webhook_secret(text: str) -> bool:
    encoded = text.removeprefix("whsec_").rstrip("=")
    try:
        return 24 <= len(base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)) <= 64
    except ValueError:
        return False


DEPENDS_ON_MACHINE = {
    "data_dir": "~/.local/share/crosscut",
    "cache_bytes": "20GiB",
    "source_bytes": "2GiB",
    "memory_bytes": "4GiB",
    "workers": "one for each processor",
}
"""How a default is written where its value is long or differs between machines."""


def defaults_shown(name: str) -> str:
    """The default of a setting as documents show it; empty where there is none."""
    default = Settings.model_fields[name].default
    return DEPENDS_ON_MACHINE.get(name, "" if default in (None, ()) else str(default))


def dotenv_example() -> str:
    """The text of `.env.example`: every variable with its meaning and default."""
    lines = ["# Settings of crosscut: copy to .env and change. Every one may also be an environment variable."]
    for name, field in Settings.model_fields.items():
        default = defaults_shown(name)
        value = default if " " not in default else ""
        lines += ["", f"# {field.description}", f"# CROSSCUT_{name.upper()}={value}"]
    return "\n".join(lines) + "\n"
