"""eSpeak NG: robotic but clear speech in many languages, without a network or a key.

The library is loaded in a sandbox child only: its state is global, and its licence (GPL) stays out of our process.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import espeakng_loader  # type: ignore[import-untyped]
import numpy as np

from crosscut.errors import VoiceError
from crosscut.media import AUDIO_RATE, PLAIN, Manner, Seconds
from crosscut.sandbox import Limits
from crosscut.voices import Resolved, Speech, check_text
from crosscut.voices.spoken import record, spread, words_of

if TYPE_CHECKING:
    from crosscut.sandbox import Job, Sandbox

DEFAULT = "en-us"
WORDS_PER_MINUTE = 165
CHARACTERS_PER_SECOND = 15
"""At that speed, of English with its pauses."""

FEMALE_VOICES: tuple[str, ...] = ("en-us+f2", "en-us+f3", "en-us+f4", "en-gb+f2", "en-gb+f3")
MALE_VOICES: tuple[str, ...] = ("en-us", "en-us+m3", "en-us+m7", "en-gb", "en-gb+m3")
FEMALE_NAMES = """
    alice amy anna aria bella charlotte domi dorothy elli emily emma freya gigi glinda grace jane jessica joanna julia
    laura lily lisa maria mary matilda mimi nicole olivia rachel sarah serena sofia sophia victoria zoe
""".split()  # noqa: SIM905
MALE_NAMES = """
    adam alex antoni arnold bill brian callum charlie chris clyde daniel dave david drew eric ethan fin george harry
    jack james jeremy john joseph josh liam matthew michael patrick paul peter roger sam thomas tom will william
""".split()  # noqa: SIM905
"""Given names that other providers give their voices, so that "Sarah" stays a woman."""

# speak_lib.h of eSpeak NG 1.52
_SYNCHRONOUS, _DO_NOT_EXIT, _UTF8, _RATE = 2, 0x8000, 1, 1
_END_OF_LIST, _WORD, _END_OF_CLAUSE = 0, 1, 5


class _Event(ctypes.Structure):
    _fields_: ClassVar = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


@dataclass(frozen=True)
class EspeakVoice:
    """The sandbox must know the module `crosscut.voices.espeak`."""

    sandbox: Sandbox
    name: ClassVar[str] = "espeak"
    free: ClassVar[bool] = True

    def price(self, manner: Manner) -> float:  # noqa: ARG002
        return 0.0

    def owned(self, text: str, resolved: Resolved) -> bool:  # noqa: ARG002
        return True

    def resolve(self, voice: str | None, manner: Manner = PLAIN) -> Resolved:
        """Of the manner only the language counts, where no voice is named."""
        if voice is None:
            return Resolved(manner.language if manner.language in _languages() else DEFAULT)
        language, plus, variant = voice.strip().partition("+")
        if language.lower() not in _languages():
            chosen = _stand_in(voice)
        elif plus and variant not in _variants():
            chosen = language.lower()
        else:
            return Resolved(f"{language.lower()}{plus}{variant}")
        return Resolved(chosen, f"espeak has no voice “{_shown(voice)}”: its voice {chosen} speaks instead")

    def speak(self, text: str, resolved: Resolved, output: Path) -> Speech:
        check_text(text)
        language, plus, variant = resolved.id.partition("+")
        answer = self.sandbox.run(
            "crosscut.voices.espeak:synthesize",
            arguments={"text": text, "voice": f"{_languages()[language]}{plus}{variant}"},
            outputs=[output],
            limits=Limits(cpu_seconds=60, wall_seconds=120, file_bytes=2**28),
            read_paths=[Path(espeakng_loader.get_library_path()).parent],
        )
        words = words_of(answer["words"])
        return Speech(answer["samples"], words, resolved.id, (resolved.note,) if resolved.note else ())

    def estimate(self, text: str) -> Seconds:
        return Seconds(Fraction(len(text), CHARACTERS_PER_SECOND))

    def key(self, text: str, resolved: Resolved) -> tuple[str, ...]:
        return (self.name, _engine_version(), str(WORDS_PER_MINUTE), resolved.id, text)


@cache
def _engine_version() -> str:
    return version("espeakng-loader")


def _stand_in(name: str) -> str:
    given = name.strip().casefold().split(" ")[0]
    if given in FEMALE_NAMES:
        voices = FEMALE_VOICES
    elif given in MALE_NAMES:
        voices = MALE_VOICES
    else:
        voices = FEMALE_VOICES + MALE_VOICES
    digest = hashlib.sha256(name.strip().casefold().encode(errors="replace")).digest()
    return voices[int.from_bytes(digest[:8]) % len(voices)]


def _shown(name: str) -> str:
    printable = "".join(character if character.isprintable() else "?" for character in name.strip())
    return printable if len(printable) <= 40 else printable[:39] + "…"


@cache
def _languages() -> dict[str, str]:
    """Codes such as "de" and "en-gb", and the voice file to load for each: the one that puts it first."""
    folder = Path(espeakng_loader.get_data_path(), "lang")
    found: dict[str, tuple[int, str]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        for line in path.read_text("utf-8", "replace").splitlines():
            keyword, code, rank = [*line.lower().split(), "", "", ""][:3]
            place = (int(rank or 5), path.relative_to(folder).as_posix()) if keyword == "language" else None
            if place and (code not in found or place < found[code]):
                found[code] = place
    return {code: file for code, (_, file) in found.items()}


@cache
def _variants() -> frozenset[str]:
    return frozenset(path.name for path in Path(espeakng_loader.get_data_path(), "voices", "!v").iterdir())


def synthesize(job: Job, *, text: str, voice: str) -> dict[str, Any]:
    """Child: speak into `job.outputs[0]` as mono PCM; answers `samples` and `words` as [text, start, end] in ms.

    Raises VoiceError "unavailable", "unknown_voice" and "silent".
    """
    rate, sound, events = _spoken(text, voice)
    samples = record(job.outputs[0], rate, [sound])
    return {"samples": samples, "words": _timed(text, events, samples * 1_000 // AUDIO_RATE)}


def _spoken(text: str, voice: str) -> tuple[int, np.ndarray[Any, np.dtype[np.int16]], list[tuple[int, int, int]]]:
    """The sample rate, the samples, and (type, position in the text, ms) of each event."""
    pieces: list[bytes] = []
    events: list[tuple[int, int, int]] = []

    def receive(samples: int | None, count: int, happened: Any) -> int:
        if samples and count > 0:
            pieces.append(ctypes.string_at(samples, 2 * count))
        index = 0
        while happened[index].type != _END_OF_LIST:
            event = happened[index]
            events.append((event.type, event.text_position - 1, event.audio_position))
            index += 1
        return 0

    try:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
    except OSError as error:
        raise VoiceError(
            "the offline voice cannot be loaded on this machine; see the log", code="unavailable", detail=str(error)
        ) from error
    folder = Path(espeakng_loader.get_data_path()).parent
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, bytes(folder), _DO_NOT_EXIT)
    if rate <= 0:
        raise VoiceError("the offline voice cannot find its data; install it again", code="unavailable")
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise VoiceError("espeak has no such voice; name a language it knows, such as en-us", code="unknown_voice")
    callback = _CALLBACK(receive)
    library.espeak_SetSynthCallback(callback)
    library.espeak_SetParameter(_RATE, WORDS_PER_MINUTE, 0)
    data = text.encode() + b"\0"
    library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 1, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    return rate, np.frombuffer(b"".join(pieces), np.int16), events


def _timed(text: str, events: list[tuple[int, int, int]], end: int) -> list[tuple[str, int, int]]:
    """Words as they stand between spaces.

    One that is spoken as several ("$5") is heard from its first to its last; those that are spoken as one ("not a")
    share its time by their lengths.
    """
    tokens = [match.span() for match in re.finditer(r"\S+", text)]
    starts = [start for start, _ in tokens]
    marks = [(kind, place, min(at, end)) for kind, place, at in events if kind in (_WORD, _END_OF_CLAUSE)]
    heard: dict[int, tuple[int, int]] = {}
    for (kind, place, start), (_, _, stop) in pairwise([*marks, (_END_OF_CLAUSE, 0, end)]):
        if kind == _WORD:
            index = max(bisect_right(starts, place) - 1, 0)
            heard[index] = (heard.get(index, (start, stop))[0], stop)
    times = [heard[index] for index in sorted(heard)] or [(0, end)]
    words = []
    for (start, stop), first, last in zip(
        times, [0, *sorted(heard)[1:]], [*sorted(heard)[1:], len(tokens)], strict=True
    ):
        spans = spread(start, stop, [after - before for before, after in tokens[first:last]])
        words += [(text[slice(*token)], *span) for token, span in zip(tokens[first:last], spans, strict=True)]
    return words
