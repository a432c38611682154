"""The request's lines as voice-overs: each distinct (text, voice) spoken once ever."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from crosscut.artifacts import artifact_key, whole
from crosscut.errors import CrosscutError
from crosscut.media import AUDIO_RATE, Seconds
from crosscut.pcm import Sound
from crosscut.plan import SpokenLine
from crosscut.soundtracks import Part
from crosscut.workshop import Once

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from crosscut.request import Line, Request
    from crosscut.voices import Resolved
    from crosscut.workshop import Workshop

SAMPLE_BYTES = 4
"""Of a voice-over's PCM: mono float32."""


@dataclass(frozen=True)
class _Said:
    key: str
    pcm: Path
    seconds: Seconds


class Speeches:
    """Thread-safe. `notes` tell the user what was chosen instead of what was asked for."""

    def __init__(self, request: Request, workshop: Workshop) -> None:
        self._lines = request.lines
        self._workshop = workshop
        self._voice = workshop.voice
        self._resolved = Once(self._resolve)
        self._said = Once(self._say)
        self._parts = Once(self._part)
        self._lock = threading.Lock()
        self._spoken = 0

    @property
    def notes(self) -> list[str]:
        found = [self._resolved.get(line).note for line in self._lines]
        return list(dict.fromkeys(note for note in found if note))

    @property
    def characters(self) -> int:
        """Spoken, and so paid for, by this job; lines spoken before cost nothing."""
        return self._spoken

    @property
    def cost(self) -> float:
        """US dollars."""
        return round(self._spoken * self._voice.price, 4)

    def voice(self, number: int) -> str:
        return self._resolved.get(self._lines[number]).id

    def key(self, number: int) -> str:
        line = self._lines[number]
        return artifact_key("speech", voice=self._voice.key(line.text, self._resolved.get(line)))

    def expected(self) -> tuple[SpokenLine | str, ...]:
        """Lengths for a plan: real ones where speaking is free, else estimates."""
        if not self._voice.price:
            return self.spoken()
        return tuple(SpokenLine(self._voice.estimate(line.text), exact=False) for line in self._lines)

    def spoken(self) -> tuple[SpokenLine | str, ...]:
        """Speak every line; its length, or the sentence why it cannot be spoken."""
        distinct = list(dict.fromkeys(self._lines))
        self._workshop.telemetry.expect("speak", len(distinct))

        def one(line: Line) -> SpokenLine | str:
            try:
                said = self._said.get(line)
            except CrosscutError as error:
                self._workshop.telemetry.failed(error, line=line.text[:40])
                return f"voice-over “{_short(line.text)}”: {error.public}"
            finally:
                self._workshop.telemetry.advance("speak")
            return SpokenLine(said.seconds)

        with self._workshop.pool(self._workshop.workers, "speak") as pool:
            answers = dict(zip(distinct, pool.map(one, distinct), strict=True))
        return tuple(answers[line] for line in self._lines)

    def part(self, number: int, speed: Fraction) -> Part:
        return self._parts.get((number, speed))

    def _resolve(self, line: Line) -> Resolved:
        return self._voice.resolve(line.voice)

    def _say(self, line: Line) -> _Said:
        resolved = self._resolved.get(line)
        key = artifact_key("speech", voice=self._voice.key(line.text, resolved))

        def make(paths: Mapping[str, Path]) -> None:
            with self._workshop.telemetry.timed("speak", characters=len(line.text), voice=resolved.id):
                speech = self._voice.speak(line.text, resolved, paths[".pcm"])
            words = [(word.text, str(word.start), str(word.end)) for word in speech.words]
            paths[".json"].write_text(json.dumps({"samples": speech.samples, "words": words}))
            with self._lock:
                self._spoken += len(line.text)

        def read(paths: Mapping[str, Path]) -> _Said:
            samples = json.loads(paths[".json"].read_bytes())["samples"]
            pcm = whole(paths[".pcm"], samples * SAMPLE_BYTES)
            return _Said(key, pcm, Seconds(Fraction(samples, AUDIO_RATE)))

        return self._workshop.lease.make_read(key, (".pcm", ".json"), make, read)

    def _part(self, number_speed: tuple[int, Fraction]) -> Part:
        number, speed = number_speed
        said = self._said.get(self._lines[number])
        lease, run = self._workshop.lease, self._workshop.run
        if speed == 1:
            sound = lease.make_json(
                artifact_key("speech-sound", speech=said.key),
                lambda: run("crosscut.pcm:measure_speech", inputs=[said.pcm], media_seconds=float(said.seconds)),
            )
            return Part(said.key, said.pcm, Sound(**sound))
        key = artifact_key("speech-fast", speech=said.key, speed=speed)

        def make(paths: Mapping[str, Path]) -> None:
            answer = run("crosscut.pcm:stretch", inputs=[said.pcm], outputs=[paths[".pcm"]], factor=float(speed))
            paths[".json"].write_text(json.dumps(answer))

        def read(paths: Mapping[str, Path]) -> Part:
            found = Sound(**json.loads(paths[".json"].read_bytes()))
            return Part(key, whole(paths[".pcm"], found.samples * SAMPLE_BYTES), found)

        return lease.make_read(key, (".pcm", ".json"), make, read)


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"
