"""Settings from the environment (`CROSSCUT_…`) or a `.env` file; only `bootstrap` and the command line read them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import platformdirs
from pydantic import ByteSize, Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """Every field is one variable: `data_dir` is `CROSSCUT_DATA_DIR`."""

    model_config = SettingsConfigDict(
        env_prefix="CROSSCUT_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    data_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("crosscut")),
        description="Folder for downloads and prepared pieces; may be deleted, at the price of making them again.",
    )
    cache_bytes: ByteSize = Field(
        default=ByteSize(20 * 2**30),
        description="How much the data folder may hold, such as 20GiB; the least recently used pieces go first.",
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

    @field_validator("fetch_allow", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(_host_port(entry.strip()) for entry in value.split(",") if entry.strip())

    @field_validator("data_dir", "log_file")
    @classmethod
    def _home(cls, value: Path | None) -> Path | None:
        return value and value.expanduser()


def _host_port(entry: str) -> tuple[str, int]:
    host, _, port = entry.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"“{entry}” is not host:port")
    return host.strip("[]").lower(), int(port)


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
