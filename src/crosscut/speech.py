"""Lines as voice-overs, each distinct (text, voice) spoken once ever, and as captions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from crosscut.artifacts import artifact_key, whole
from crosscut.captions import VERSION, columns_for, cues_of, within
from crosscut.errors import CrosscutError, VoiceError
from crosscut.media import AUDIO_RATE, Seconds
from crosscut.pcm import Sound
from crosscut.plan import SpokenLine
from crosscut.plandoc import Voiced
from crosscut.soundtracks import PART_FILES, Part
from crosscut.voices import Word
from crosscut.workshop import Once

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from crosscut.captions import Captions, Cue
    from crosscut.plan import Plan, Variation
    from crosscut.request import Line
    from crosscut.workshop import Workshop

SAMPLE_BYTES = 4
"""Of a voice-over's PCM: mono float32."""

CUES_KEPT = 1_024
"""Lines held at once as the cues they make."""


@dataclass(frozen=True)
class Said:
    """A line as it was spoken: mono PCM (see `pcm`), its exact length, the voice, and when each word is heard."""

    pcm: Path
    seconds: Seconds
    voice: Voiced
    words: tuple[Word, ...]


def voice_for(line: Line, workshop: Workshop) -> Voiced:
    """Who would speak it, and the key of what would be heard; free."""
    resolved = workshop.voice.resolve(line.voice, line.manner)
    key = artifact_key("speech", voice=workshop.voice.key(line.text, resolved))
    return Voiced(resolved.id, key, resolved.note)


def voice_or_why(line: Line, workshop: Workshop) -> Voiced | str:
    """The same, or the sentence why nobody can speak it."""
    try:
        return voice_for(line, workshop)
    except CrosscutError as error:
        return line_sentence(line, error)


def say(line: Line, workshop: Workshop, voiced: Voiced | None = None) -> Said:
    """The line, from the store or spoken now; as it was `voiced` when the job was planned."""
    known = voiced or voice_for(line, workshop)

    def make(paths: Mapping[str, Path]) -> None:
        if voice_for(line, workshop).key != known.key:
            raise VoiceError(
                "this voice speaks otherwise now than when the job was planned: send the job again",
                code="voice_changed",
            )
        with workshop.telemetry.timed("speak", characters=len(line.text), voice=known.id):
            resolved = workshop.voice.resolve(line.voice, line.manner)
            speech = workshop.voice.speak(line.text, resolved, paths[".pcm"])
        words = [(word.text, str(word.start), str(word.end)) for word in speech.words]
        paths[".json"].write_text(json.dumps({"samples": speech.samples, "words": words}))
        workshop.meters.add("characters", len(line.text))
        workshop.meters.add("characters_billed", speech.billed)
        workshop.meters.add("cost", speech.cost)

    def read(paths: Mapping[str, Path]) -> Said:
        told = json.loads(paths[".json"].read_bytes())
        pcm = whole(paths[".pcm"], told["samples"] * SAMPLE_BYTES)
        words = tuple(
            Word(text, Seconds(Fraction(start)), Seconds(Fraction(end))) for text, start, end in told["words"]
        )
        return Said(pcm, Seconds(Fraction(told["samples"], AUDIO_RATE)), known, words)

    return workshop.piece(known.key, PART_FILES, make, read)


def voice_part(line: Line, voiced: Voiced, speed: Fraction, workshop: Workshop) -> Part:
    """The line ready to be mixed, `speed` times as fast."""
    said = say(line, workshop, voiced)
    if speed == 1:
        sound = workshop.piece_json(
            artifact_key("speech-sound", speech=voiced.key),
            lambda: workshop.run("crosscut.pcm:measure_speech", inputs=[said.pcm], media_seconds=float(said.seconds)),
        )
        return Part(voiced.key, said.pcm, Sound(**sound))
    key = artifact_key("speech-fast", speech=voiced.key, speed=speed)

    def make(paths: Mapping[str, Path]) -> None:
        answer = workshop.run("crosscut.pcm:stretch", inputs=[said.pcm], outputs=[paths[".pcm"]], factor=float(speed))
        paths[".json"].write_text(json.dumps(answer))

    def read(paths: Mapping[str, Path]) -> Part:
        found = Sound(**json.loads(paths[".json"].read_bytes()))
        return Part(key, whole(paths[".pcm"], found.samples * SAMPLE_BYTES), found)

    return workshop.piece(key, PART_FILES, make, read)


def line_sentence(line: Line, error: CrosscutError) -> str:
    """Why a line cannot be spoken, with enough of it to be known by."""
    return f"voice-over “{line.text if len(line.text) <= 40 else line.text[:39] + '…'}”: {error.public}"


def expected(lines: Sequence[Line], workshop: Workshop) -> list[SpokenLine]:
    """About how long each will be; free."""
    return [SpokenLine(workshop.voice.estimate(line.text), exact=False) for line in lines]


def speak_all(lines: Sequence[Line], workshop: Workshop) -> list[SpokenLine | str]:
    """Speak every line, several at a time; its length, or the sentence why it cannot be spoken."""
    distinct = list(dict.fromkeys(lines))
    telemetry = workshop.telemetry
    telemetry.expect("speak", len(distinct))

    def one(line: Line) -> SpokenLine | str:
        try:
            return SpokenLine(say(line, workshop).seconds)
        except CrosscutError as error:
            telemetry.failed(error, line=line.text[:40])
            return line_sentence(line, error)
        finally:
            telemetry.advance("speak")

    with workshop.pool(workshop.workers, "speak") as pool:
        answers = dict(zip(distinct, pool.map(one, distinct), strict=True))
    return [answers[line] for line in lines]


class Captioner:
    """The captions of a plan's variations; each line is divided into cues once. Thread-safe.

    `words` tells when each word of a line is heard, before any speed.
    """

    def __init__(self, plan: Plan, words: Callable[[int], Sequence[Word]]) -> None:
        self._plan = plan
        self._words = words
        self._cues = Once(self._divided, CUES_KEPT)

    def wanted(self, variation: Variation) -> bool:
        return self._plan.request.captions == "soft" and variation.line is not None

    def of(self, variation: Variation) -> Captions | None:
        """None where none are wanted. Raises what keeps the line from being spoken."""
        if variation.line is None or not self.wanted(variation):
            return None
        target = self._plan.targets[variation.target].format
        cues = self._cues.get((variation.line, variation.speed, columns_for(target.width, target.height)))
        return within(cues, self._plan.length(variation), self._language(variation.line))

    def recipe(self, variation: Variation) -> dict[str, Any]:
        """What decides the captions beside the sound; nothing where there are none."""
        if variation.line is None or not self.wanted(variation):
            return {}
        return {"captions": (VERSION, self._language(variation.line))}

    def forget_errors(self) -> None:
        self._cues.forget_errors()

    def _divided(self, line_speed_columns: tuple[int, Fraction, int]) -> tuple[Cue, ...]:
        line, speed, columns = line_speed_columns
        return cues_of(self._words(line), columns, speed=speed, begin=self._plan.request.mix.voice_start)

    def _language(self, line: int) -> str | None:
        return self._plan.request.lines[line].manner.language
