"""Simple, real stand-ins for what is slow, costs money or needs a network."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from crosscut import pcm
from crosscut.media import AUDIO_RATE, PLAIN, Manner, Seconds
from crosscut.voices import Resolved, Speech, Word, check_text

if TYPE_CHECKING:
    from collections.abc import Sequence
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
