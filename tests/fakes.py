"""Simple, real stand-ins for what is slow, costs money or needs a network."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from crosscut import pcm
from crosscut.media import AUDIO_RATE, Seconds
from crosscut.voices import Resolved, Speech, Word, check_text

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class ToneVoice:
    """Speaks every word as a beep of a fifth of a second and a pause half as long."""

    name: ClassVar[str] = "tone"
    price: ClassVar[float] = 0.0
    PITCHES: ClassVar = {"low": 220, "high": 880}
    BEEP: ClassVar = AUDIO_RATE // 5
    PAUSE: ClassVar = AUDIO_RATE // 10

    def resolve(self, voice: str | None) -> Resolved:
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
