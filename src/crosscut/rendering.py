"""One request made here and now: a job in a private state, begun, watched and waited for."""

from __future__ import annotations

import contextlib
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from crosscut.artifacts import artifact_key
from crosscut.bootstrap import open_places
from crosscut.disk import storage_errors
from crosscut.errors import RequestError, SandboxError
from crosscut.fields import RequestLimits
from crosscut.naming import folder_name
from crosscut.places import check_links, whole
from crosscut.request import parse_request
from crosscut.standalone import open_machine

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import TextIO

    from crosscut.destinations import Destination
    from crosscut.machine import Machine
    from crosscut.settings import Settings
    from crosscut.telemetry import Watcher

LOOK_SECONDS = 0.1
REST_SECONDS = 10.0
"""How long a cancelled job may take to come to rest: its manifest is written then."""


def render(
    body: bytes,
    base: Path,
    to: Path | str | None,
    settings: Settings,
    watcher: Watcher | None = None,
    logs: Sequence[TextIO] = (),
) -> dict[str, Any]:
    """Make every variation that is not in `to`/<task>/ yet, and the manifest; the report as JSON.

    Without `to` the request's destination is taken, or that of the settings.

    Relative paths start at `base`. What was made before, by this or an interrupted run, is kept where the request
    still wants it. Raises `RequestError` where the request cannot be made at all, CrosscutError `busy` where another
    run writes into the same folder; what fails alone is told in the report.
    """
    request = parse_request(body, local=True, limits=RequestLimits(variations=settings.max_variations))
    destination = whole(str(to or request.destination or settings.destination))
    folder = folder_name(request.task_name)
    if request.link_days:
        check_links(destination)
    states = settings.data_dir / "renders"
    with storage_errors():
        states.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = states / f"{artifact_key('place', location=f'{destination}/{folder}')[:32]}.sqlite"
    with (
        open_places(settings) as places,
        places(destination).claim(folder),
        # What is wrong with the place is told before anything is fetched, encoded or bought.
        _usable(places(destination), folder, request.link_days),
        open_machine(settings, f"sqlite:///{state}", logs, private=True) as machine,
    ):
        job = machine.service.submit(body, local=True, base=base, destination=destination).id
        try:
            status = _watched(machine, job, watcher)
        except BaseException:
            machine.service.cancel(job, None)
            _wait(machine, job)
            raise
        if status["refused"]:
            machine.service.delete(job, None)
            raise RequestError(status["refused"], code="voice_too_long")
        machine.store.supersede(job)
        return report_of(status, places(destination).location(folder))


@contextlib.contextmanager
def _usable(place: Destination, folder: str, link_days: float | None) -> Iterator[None]:
    if link_days:
        place.linker(folder, timedelta(days=link_days))
    with place.open(folder):
        yield


def _watched(machine: Machine, job: str, watcher: Watcher | None) -> dict[str, Any]:
    while True:
        over = _is_over(machine, job)
        status = machine.service.status(job, None)
        if watcher is not None:
            for stage, told in status["stages"].items():
                watcher.stage(stage, told["done"], told["total"])
            watcher.flow(status["bytes"], status["bytes_per_second"])
        if over:
            return status
        if troubles := machine.troubles():
            raise SandboxError(f"this machine cannot work: {troubles[0]}", code="unavailable")
        time.sleep(LOOK_SECONDS)


def _wait(machine: Machine, job: str) -> None:
    end = time.monotonic() + REST_SECONDS
    while not _is_over(machine, job) and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)


def _is_over(machine: Machine, job: str) -> bool:
    row = machine.store.owned(job, None)
    return row is None or row.phase == "ended"


def report_of(status: dict[str, Any], location: str) -> dict[str, Any]:
    """What the command prints, from a job's status."""
    same = (
        "task_name", "total", "succeeded", "made", "kept", "failed", "bytes", "bytes_per_second", "bytes_sent",
        "retries", "joined_in_bucket",
        "seconds", "seconds_by_stage", "formats",
        "formats_reason", "clips_copied", "clips_encoded", "soundtracks_encoded", "voice_over_characters",
        "voice_over_characters_billed", "cache_hits", "cache_misses", "cost", "loudness",
        "manifest_problem", "notes",
    )  # fmt: skip
    return {name: status[name] for name in same} | {"folder": location, "failures": status["errors"]}
