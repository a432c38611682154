"""Lines as voice-overs, each distinct (text, voice) spoken once ever, and as captions."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

from crosscut import burning
from crosscut.artifacts import artifact_key, whole
from crosscut.burning import BurnCue, burnt_columns, burnt_cues, seen, to_json
from crosscut.captions import CLOCK, VERSION, Cue, columns_for, cues_of, within
from crosscut.errors import CrosscutError, VoiceError
from crosscut.media import AUDIO_RATE, Seconds
from crosscut.pcm import Sound
from crosscut.plan import SpokenLine
from crosscut.plandoc import Voiced
from crosscut.soundtracks import PART_FILES, Part
from crosscut.soundtracks import VERSION as SOUND_VERSION
from crosscut.voices import Word
from crosscut.workshop import Once

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from crosscut.captions import Captions
    from crosscut.plan import Plan, Variation
    from crosscut.request import Line
    from crosscut.timeline import Slot, Utterance
    from crosscut.workshop import Workshop

AnyCue = TypeVar("AnyCue", Cue, BurnCue)

SAMPLE_BYTES = 4
"""Of a voice-over's PCM: mono float32."""

SPEAKERS = 16
"""Lines asked of a provider at once; it is asked for fewer where it says so (see `slots`)."""

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
            artifact_key("speech-sound", speech=voiced.key, version=SOUND_VERSION),
            lambda: workshop.run("crosscut.pcm:measure_speech", inputs=[said.pcm], media_seconds=float(said.seconds)),
        )
        return Part(voiced.key, said.pcm, Sound(**sound))
    key = artifact_key("speech-fast", speech=voiced.key, speed=speed, version=SOUND_VERSION)

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

    speakers = workshop.workers if workshop.voice.free else SPEAKERS
    with workshop.pool(speakers, "speak") as pool:
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
        self._burnt = Once(self._divided_to_burn, CUES_KEPT)

    def track(self, variation: Variation) -> Captions | None:
        """Those beside the video and in a track of it; None where none are wanted.

        Raises what keeps a line from being spoken.
        """
        if not has_track(self._plan, variation):
            return None
        target = self._plan.targets[variation.target].format
        columns = columns_for(target.width, target.height)
        cues = one_by_one([self._cues.get((said, columns)) for said in variation.said])
        return within(cues, self._plan.length(variation), self._language(variation))

    def burnt(self, variation: Variation) -> list[tuple[str | None, int]]:
        """For each slot what is drawn into its pictures, as JSON, and the frames of its hold that this goes on over."""
        if not self._plan.draws_captions:
            return [(None, 0)] * len(variation.slots)
        found, begin = [], 0
        for number, slot in enumerate(variation.slots, 1):
            held = slot.hold + (variation.hold if number == len(variation.slots) else 0)
            found.append(self._drawn(variation, slot, begin, held))
            begin += slot.length
        return found

    def _drawn(self, variation: Variation, slot: Slot, begin: int, held: int) -> tuple[str | None, int]:
        """The captions of a slot that begins with that frame of the video and is `held` frames longer than its clip.

        Those of a line that belongs to it end with it, so that it looks the same whatever comes next.
        """
        target = self._plan.targets[variation.target].format
        style = self._plan.request.caption_style
        columns = burnt_columns(style, target.width, target.height)
        place = Seconds(begin / target.fps)
        drawn = [said.later(Seconds(-place)) for said in variation.said if said.line == variation.line]
        length = int((slot.frames + held) / target.fps * CLOCK)
        cues = []
        for said in sorted((*slot.said, *drawn), key=lambda each: each.start):
            start = round(said.start * CLOCK)
            cues.append(seen(self._burnt.get((said.line, said.speed, columns)), -start, length - start))
        shown = one_by_one(cues)
        if not shown:
            return None, 0
        document = {"style": style, "version": burning.VERSION, "cues": to_json(shown)}
        goes_on = shown[-1].end * target.fps > slot.frames * CLOCK
        return json.dumps(document), held if goes_on else 0

    def recipe(self, variation: Variation) -> dict[str, Any]:
        """What decides the captions beside the sound; nothing where there are none."""
        if not has_track(self._plan, variation):
            return {}
        return {"captions": (VERSION, self._language(variation))}

    def forget_errors(self) -> None:
        self._cues.forget_errors()
        self._burnt.forget_errors()

    def _divided(self, said_columns: tuple[Utterance, int]) -> tuple[Cue, ...]:
        said, columns = said_columns
        return cues_of(self._words(said.line), columns, speed=said.speed, begin=said.start)

    def _divided_to_burn(self, line_speed_columns: tuple[int, Fraction, int]) -> tuple[BurnCue, ...]:
        line, speed, columns = line_speed_columns
        return burnt_cues(self._words(line), columns, speed=speed)

    def _language(self, variation: Variation) -> str | None:
        """That of its first line that says it."""
        lines = (self._plan.request.lines[said.line] for said in variation.said)
        return next((line.manner.language for line in lines if line.manner.language), None)


def one_by_one(lines: Sequence[Sequence[AnyCue]]) -> tuple[AnyCue, ...]:
    """The cues of several lines in order; one that would stay over the next line's ends before."""
    cues = [cue for line in lines for cue in line]
    ends = [cue.start for cue in cues[1:]] + [cues[-1].end] if cues else []
    return tuple(replace(cue, end=min(cue.end, end)) for cue, end in zip(cues, ends, strict=True))


def has_track(plan: Plan, variation: Variation) -> bool:
    """Whether its captions are a track of it, and a file beside it."""
    return plan.request.captions == "soft" and bool(variation.said)
