"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    frame: tuple[int, int]
    landscape: tuple[int, int]
    seconds: int
    """Length of a clip."""
    text: str
    """The voice-over; shorter than three clips."""
    timed: int
    """Combinations that MoviePy and ffmpeg make; the time of all is their median times their number."""
    many: int
    """Small clips in each of three blocks."""
    rounds: int
    """Repetitions of what is quick."""
    wide: int
    """Tiny clips in each of three blocks of the service's large job."""
    patience: int
    """Variations of it that are waited for."""
    files: int
    """Sent to other machines, of `file_bytes` each."""
    file_bytes: int


FULL = Scale(
    frame=(1080, 1920),
    landscape=(1280, 720),
    seconds=5,
    text="Three hooks, three stories and three endings are twenty-seven videos, and every piece was made only once.",
    timed=3,
    many=10,
    rounds=3,
    wide=100,
    patience=20_000,
    files=500,
    file_bytes=5_000_000,
)
QUICK = Scale(
    frame=(216, 384),
    landscape=(256, 144),
    seconds=1,
    text="Made only once.",
    timed=1,
    many=4,
    rounds=1,
    wide=20,
    patience=300,
    files=8,
    file_bytes=300_000,
)
