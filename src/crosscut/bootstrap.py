"""The one place that builds objects from settings."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from crosscut.artifacts import Artifacts
from crosscut.destinations.folder import FolderDestination
from crosscut.fetch import Fetcher, FetchLimits
from crosscut.sandbox import Sandbox
from crosscut.telemetry import Telemetry
from crosscut.voices.espeak import EspeakVoice
from crosscut.workshop import Workshop

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import TextIO

    from crosscut.settings import Settings
    from crosscut.telemetry import Watcher

CHILD_MODULES = ("crosscut.probe", "crosscut.conform", "crosscut.pcm", "crosscut.mix", "crosscut.voices.espeak")
"""Modules whose functions run in sandbox children; they are imported once, before any file is seen."""


@contextlib.contextmanager
def open_workshop(
    settings: Settings, watcher: Watcher | None = None, logs: Sequence[TextIO] = ()
) -> Iterator[Workshop]:
    """The tools for one job; child processes and the job's hold on artifacts end with the block.

    Progress is told to `watcher`, events are written to `logs`, one JSON object a line.
    """
    # The client's own lines would carry whole URLs, signatures included.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    artifacts = Artifacts(settings.data_dir, settings.cache_bytes)
    with artifacts.lease() as lease, Sandbox(CHILD_MODULES) as sandbox:
        limits = FetchLimits(max_bytes=settings.source_bytes, total=settings.fetch_seconds)
        workshop = Workshop(
            lease=lease,
            sandbox=sandbox,
            fetcher=Fetcher(lease, limits, frozenset(settings.fetch_allow)),
            voice=EspeakVoice(sandbox),
            telemetry=Telemetry(watcher, logs),
            journals=settings.data_dir / "journals",
            workers=settings.workers,
            memory_bytes=settings.memory_bytes,
        )
        try:
            yield workshop
        except BaseException:
            workshop.cancelled.set()
            raise


def folder_destination(root: Path) -> FolderDestination:
    return FolderDestination(root)
