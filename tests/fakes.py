"""Simple, real stand-ins for what is slow, costs money or needs a network."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from crosscut import pcm
from crosscut.depot import BLOCK, Held, unavailable
from crosscut.errors import StorageError
from crosscut.media import AUDIO_RATE, PLAIN, Manner, Seconds
from crosscut.voices import Resolved, Speech, Word, check_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from crosscut.units import Found, JobRecord, Outcome, Output, Unit


@dataclass(frozen=True)
class ToneVoice:
    """Speaks every word as a beep of a fifth of a second and a pause half as long."""

    name: ClassVar[str] = "tone"
    free: ClassVar[bool] = True
    PITCHES: ClassVar = {"low": 220, "high": 880}
    BEEP: ClassVar = AUDIO_RATE // 5
    PAUSE: ClassVar = AUDIO_RATE // 10

    def price(self, manner: Manner) -> float:
        return 0.0

    def owned(self, text: str, resolved: Resolved) -> bool:
        return True

    def resolve(self, voice: str | None, manner: Manner = PLAIN) -> Resolved:
        if voice is None or voice in self.PITCHES:
            return Resolved(voice or "low")
        return Resolved("low", f"there is no voice “{voice}”: low speaks instead")

    def speak(self, text: str, resolved: Resolved, output: Path) -> Speech:
        check_text(text)
        beep = 0.3 * np.sin(2 * np.pi * self.PITCHES[resolved.id] * np.arange(self.BEEP) / AUDIO_RATE)
        step = self.BEEP + self.PAUSE
        words = [
            Word(
                word,
                Seconds(Fraction(step * place, AUDIO_RATE)),
                Seconds(Fraction(step * place + self.BEEP, AUDIO_RATE)),
            )
            for place, word in enumerate(text.split())
        ]
        sound = np.tile(np.concatenate([beep, np.zeros(self.PAUSE)]), len(words))[None, :].astype(np.float32)
        with output.open("xb") as file:
            pcm.write(file, sound)
        return Speech(sound.shape[1], tuple(words), resolved.id, (resolved.note,) if resolved.note else ())

    def estimate(self, text: str) -> Seconds:
        return Seconds(Fraction(len(text.split()) * (self.BEEP + self.PAUSE), AUDIO_RATE))

    def key(self, text: str, resolved: Resolved) -> tuple[str, ...]:
        return (self.name, "1", resolved.id, text)


@dataclass
class MemoryDepot:
    """A depot in memory; its `trouble` is raised by as many calls as it is set for."""

    objects: dict[str, bytes] = field(default_factory=dict)
    reachable: bool = True
    troubles: int = 0
    calls: list[str] = field(default_factory=list)
    """What was asked, with names, in order."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def check(self) -> None:
        if not self.reachable:
            raise StorageError("CROSSCUT_SHARED: no", code="shared_unusable")

    def read(self, name: str) -> Held | None:
        self._asked("read", name)
        with self.lock:
            return Held(self.objects[name], self.objects[name]) if name in self.objects else None

    def write(self, name: str, data: bytes, instead_of: Held | None = None) -> bool:
        self._asked("write", name)
        with self.lock:
            free = self.objects.get(name) == (instead_of.edition if instead_of else None)
            if free:
                self.objects[name] = data
            return free

    def size(self, name: str) -> int | None:
        self._asked("size", name)
        with self.lock:
            return len(self.objects[name]) if name in self.objects else None

    def blocks(self, name: str) -> Iterator[bytes]:
        self._asked("blocks", name)
        if name not in self.objects:
            raise FileNotFoundError(name)
        data = self.objects[name]
        yield from (data[start : start + BLOCK] for start in range(0, len(data), BLOCK))

    def store(self, name: str, blocks: Iterable[bytes]) -> None:
        self._asked("store", name)
        data = b"".join(blocks)
        with self.lock:
            self.objects[name] = data

    def remove(self, name: str) -> None:
        self._asked("remove", name)
        with self.lock:
            self.objects.pop(name, None)

    def _asked(self, call: str, name: str) -> None:
        with self.lock:
            self.calls.append(f"{call} {name}")
            self.troubles -= 1
            troubled = self.troubles >= 0
        if troubled or not self.reachable:
            raise unavailable("no")


@dataclass
class MemoryLedger:
    """What a store would answer, as plain values for a test to fill in."""

    jobs: dict[str, JobRecord] = field(default_factory=dict)
    founds: dict[str, list[Found]] = field(default_factory=dict)
    made: dict[str, dict[int, Output]] = field(default_factory=dict)
    """By job and index."""
    elsewhere: dict[int, Output] = field(default_factory=dict)
    """Good outputs of other jobs into the same place."""
    asked: list[str] = field(default_factory=list)
    """The questions, in order."""

    def start(self, unit: int, attempt: int, worker: str) -> Unit | None:
        raise NotImplementedError

    def beat(self, unit: int, attempt: int, fraction: float = 0.0) -> bool:
        return True

    def finish(self, unit: int, attempt: int, outcome: Outcome) -> bool:
        return True

    def job(self, job: str) -> JobRecord | None:
        self.asked.append("job")
        return self.jobs.get(job)

    def found(self, job: str) -> list[Found]:
        return self.founds.get(job, [])

    def earlier(self, job: str, indexes: Sequence[int]) -> dict[int, Output]:
        return {index: self.elsewhere[index] for index in indexes if index in self.elsewhere}

    def outputs(self, job: str, after: int, limit: int) -> list[Output]:
        self.asked.append("outputs")
        mine = self.made.get(job, {})
        return [mine[index] for index in sorted(mine) if index > after][:limit]
