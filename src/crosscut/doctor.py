"""What this machine has and lacks, told before a job finds out."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av

from crosscut.errors import CrosscutError
from crosscut.media import Format
from crosscut.sandbox import Sandbox
from crosscut.segments import profile_sets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crosscut.destinations import Destination
    from crosscut.settings import Settings
    from crosscut.sharing import Sharing
    from crosscut.workshop import Workshop

ROOM = 2 * 2**30
"""Free bytes below which a job of ordinary clips may fail."""


@dataclass(frozen=True)
class Finding:
    """`good` is None where a lack only narrows what can be done."""

    name: str
    good: bool | None
    words: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(
    settings: Settings, workshop: Workshop, place: Destination, sharing: Sharing | None = None
) -> list[Finding]:
    """Look at the interpreter, the disk, the codecs, the voice, where videos go, the isolation of child processes."""
    return [
        Finding("python", sys.version_info >= (3, 11), sys.version.split()[0]),
        Finding(
            "ffmpeg", None if _ffmpeg() < (8, 1) else True, f"libraries {_dotted(_ffmpeg())} in PyAV {av.__version__}"
        ),
        *([_tried("shared", lambda: _shared(settings.shared, sharing))] if sharing else []),
        _tried("encoder", lambda: _encoder(workshop)),
        _tried("voice", lambda: _voice(workshop)),
        _tried("videos go", lambda: _place(settings.destination, place)),
        _disk(settings.data_dir),
        Finding("workers", True, f"{settings.workers} of {os.cpu_count()} processors"),
        *(Finding("isolation", True, words) for words in Sandbox.isolation()),
    ]


def _ffmpeg() -> tuple[int, int]:
    # libavutil 60.26 came with FFmpeg 8.1; earlier libraries lack fixes and the HDR conversion.
    major, minor, _ = av.library_versions["libavutil"]
    return (8, 1) if (major, minor) >= (60, 26) else (major - 52, 0)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _tried(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except CrosscutError as error:
        return Finding(name, False, f"{error.public} ({error.detail})" if error.detail else error.public)


def _encoder(workshop: Workshop) -> str:
    sets = profile_sets(Format(1080, 1920, Fraction(30)), workshop)
    return f"x264 works in a child process ({len(sets) // 2} bytes of parameter sets)"


def _voice(workshop: Workshop) -> str:
    resolved = workshop.voice.resolve(None)
    if not workshop.voice.free:
        return f"{workshop.voice.name} has the voice {resolved.id}; nothing was spoken, since that costs money"
    speech = workshop.voice.speak("Crosscut is ready.", resolved, workshop.lease.scratch(".pcm"))
    return f"{workshop.voice.name} speaks as {resolved.id}, {speech.samples / 48_000:.1f} s"


def _place(name: str, place: Destination) -> str:
    place.check()
    return f"to {name}"


def _shared(place: str, sharing: Sharing) -> str:
    sharing.check()
    return f"machines can share {place}: it can be read and written, and heeds conditions"


def _disk(folder: Path) -> Finding:
    usage = shutil.disk_usage(folder)
    words = f"{usage.free / 2**30:.1f} GiB free for {folder}"
    return Finding("disk", usage.free >= ROOM or None, words)
