"""Piper: voices like people's without a network or a key, from model files of the user's own.

It is an extra, and loaded in a sandbox child only (`piper_engine`).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from crosscut.errors import SandboxError, VoiceError
from crosscut.media import PLAIN, Manner, Seconds
from crosscut.sandbox import Limits
from crosscut.voices import Resolved, Speech, check_text
from crosscut.voices.catalogue import MOST_SHOWN, shown
from crosscut.voices.spoken import words_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from crosscut.sandbox import Sandbox

VERSION = "1"
PACKAGES = ("piper-tts", "onnxruntime")
CHARACTERS_PER_SECOND = 15
LIMITS = Limits(memory_bytes=4 * 2**30, cpu_seconds=1_200, wall_seconds=1_800, file_bytes=2**29)
"""A decoder as large as those of Piper's `high` voices was measured to take 0.6 of the time it speaks on one core, and
1.5 GiB of address space for 30 s at once.
"""
MODELS_KEPT = 1_000
SPEED = "speed"

_SENTENCES = {
    "memory": "the voice “{}” needs more memory than allowed; choose a smaller one",
    "time": "the voice “{}” took longer than allowed for this voice-over; shorten it or choose a smaller voice",
    "output_too_large": "what the voice “{}” made of this voice-over is longer than allowed; shorten it",
    "damaged": "the voice “{}” cannot be used: get its .onnx and .onnx.json files again, both from the same place",
    "decoder_crashed": "Piper crashed with the voice “{}”: get its files again, or choose another voice",
    "unavailable": "Piper cannot be loaded on this machine; see the log, or choose another voice",
}
"""By the code of a SandboxError."""


@dataclass(frozen=True)
class PiperVoice:
    """`place` is a model `NAME.onnx` with `NAME.onnx.json` beside it, or a folder of such; voices are called `NAME`.

    The sandbox must know the module `crosscut.voices.piper_engine`, which needs the extra: one that has other modules
    as well would be lost to all of them where Piper cannot be imported.
    """

    sandbox: Sandbox
    place: Path
    name: ClassVar[str] = "piper"
    free: ClassVar[bool] = True

    def price(self, manner: Manner) -> float:  # noqa: ARG002
        return 0.0

    def owned(self, text: str, resolved: Resolved) -> bool:  # noqa: ARG002
        return True

    def resolve(self, voice: str | None, manner: Manner = PLAIN) -> Resolved:
        """By name, in any case; without one the first in the order of the alphabet that speaks the manner's language.

        Of the settings only `speed` counts, and a model is chosen by the voice alone.
        Raises VoiceError "unavailable", "no_voices", "unreadable_voice", "unknown_voice" and "unknown_language".
        """
        _engine()
        models = _models(self.place)
        if voice is None or not voice.strip():
            name = _speaking(manner.language, models)
        else:
            name = _named(voice.strip(), models)
        speed = tuple((setting, value) for setting, value in manner.settings if setting == SPEED)
        return Resolved(name, _ignored(name, manner, models), Manner(settings=speed))

    def speak(self, text: str, resolved: Resolved, output: Path) -> Speech:
        check_text(text)
        model = _models(self.place).get(resolved.id)
        if model is None:
            raise _unknown(resolved.id, _models(self.place))
        try:
            answer = self.sandbox.run(
                "crosscut.voices.piper_engine:synthesize",
                arguments={"text": text, "voice": resolved.id, "speed": _speed(resolved)},
                inputs=[model, _description(model)],
                outputs=[output],
                limits=LIMITS,
                read_paths=_data(),
            )
        except SandboxError as error:
            if error.code not in _SENTENCES:
                raise
            sentence = _SENTENCES[error.code].format(shown(resolved.id))
            raise VoiceError(sentence, code=error.code, retryable=error.retryable, detail=error.detail) from error
        words = words_of(answer["words"])
        return Speech(answer["samples"], words, resolved.id, (resolved.note,) if resolved.note else ())

    def estimate(self, text: str) -> Seconds:
        return Seconds(Fraction(len(text), CHARACTERS_PER_SECOND))

    def key(self, text: str, resolved: Resolved) -> tuple[str, ...]:
        """Raises VoiceError where the model is gone or cannot be read."""
        models = _models(self.place)
        if resolved.id not in models:
            raise _unknown(resolved.id, models)
        model = models[resolved.id]
        digests = [_digest(path) for path in (model, _description(model))]
        return (self.name, VERSION, *_engine(), resolved.id, *digests, str(_speed(resolved)), text)


def _engine() -> tuple[str, ...]:
    """The versions of what speaks; VoiceError "unavailable"."""
    try:
        return tuple(version(package) for package in PACKAGES)
    except PackageNotFoundError as error:
        raise VoiceError(
            "Piper is not installed here: install crosscut[piper], or choose another voice",
            code="unavailable",
            detail=str(error),
        ) from error


@cache
def _data() -> list[Path]:
    """The folders of Piper, found without importing it; it reads its dictionaries there."""
    found = find_spec("piper")
    return [Path(folder) for folder in (found and found.submodule_search_locations) or ()]


def _description(model: Path) -> Path:
    return model.with_name(f"{model.name}.json")


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise VoiceError(
            "the files of the Piper voices cannot be read: check CROSSCUT_PIPER_MODEL and the permissions there",
            code="unreadable_voice",
            detail=str(error),
        ) from error


def _models(place: Path) -> dict[str, Path]:
    """Those that have their description, by name and in the order of the alphabet; there is at least one."""
    with _reading():
        files = [place] if place.is_file() else sorted(place.glob("*.onnx"))
        files = [file for file in files if file.suffix == ".onnx" and file.is_file()]
        models = {file.stem: file for file in files if _description(file).is_file()}
    if models:
        return models
    if files:
        raise VoiceError(
            f"the Piper voice “{shown(files[0].stem)}” lacks its description: put {shown(files[0].name)}.json, which"
            " comes with it, beside it",
            code="no_voices",
        )
    raise VoiceError(
        "there is no Piper voice where CROSSCUT_PIPER_MODEL says: set it to an .onnx file, or to a folder of them",
        code="no_voices",
    )


def _named(voice: str, models: Mapping[str, Path]) -> str:
    wanted = voice.removesuffix(".onnx")
    found = [name for name in models if name == wanted] or [
        name for name in models if name.casefold() == wanted.casefold()
    ]
    if not found:
        raise _unknown(voice, models)
    return found[0]


def _unknown(voice: str, models: Mapping[str, Path]) -> VoiceError:
    close = difflib.get_close_matches(voice, models, MOST_SHOWN, 0.4)
    listed = ", ".join(f"“{shown(name)}”" for name in close or list(models)[:MOST_SHOWN])
    return VoiceError(
        f"there is no Piper voice “{shown(voice)}” here; {'close to it are' if close else 'there are'} {listed}",
        code="unknown_voice",
    )


def _speaking(language: str | None, models: Mapping[str, Path]) -> str:
    for name, model in models.items():
        if language is None or _language(model) in (language, None):
            return name
    raise VoiceError(
        f"no Piper voice here speaks “{language}”: add one to the folder of CROSSCUT_PIPER_MODEL, or name a voice",
        code="unknown_language",
    )


def _ignored(name: str, manner: Manner, models: Mapping[str, Path]) -> str | None:
    """A sentence on what was asked for and is not done."""
    others = [setting for setting, _ in manner.settings if setting != SPEED]
    asked = [f"the model “{shown(manner.model)}”"] if manner.model else []
    asked += [f"the setting {' and '.join(others)}"] if others else []
    spoken = _language(models[name])
    if manner.language and spoken not in (manner.language, None):
        asked.append(f"the language “{manner.language}” (it speaks “{spoken}”)")
    return f"the Piper voice {shown(name)} speaks without {', '.join(asked)}" if asked else None


def _speed(resolved: Resolved) -> float:
    return float(dict(resolved.manner.settings).get(SPEED, 1.0))


def _digest(file: Path) -> str:
    """SHA-256 of a file, read again only when it has changed."""
    return _digested(file, *_stamp(file))


def _language(model: Path) -> str | None:
    """ISO 639-1, or None where the description does not say it: a broken one is refused by who speaks."""
    description = _description(model)
    return _told_language(description, *_stamp(description))


def _stamp(file: Path) -> tuple[int, int, int]:
    with _reading():
        status = os.stat(file)  # noqa: PTH116
    return status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(MODELS_KEPT)
def _digested(file: Path, *_stamp: int) -> str:
    with _reading(), file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


@lru_cache(MODELS_KEPT)
def _told_language(description: Path, *_stamp: int) -> str | None:
    """`language.code` is like "en_GB"; older models have only the voice of eSpeak they were made with ("en-gb")."""
    with _reading():
        data = description.read_bytes()
    try:
        told = json.loads(data)
        code = told.get("language", {}).get("code") or told["espeak"]["voice"]
        match = re.match(r"([a-z]{2})(?![a-z])", code)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return match[1] if match else None
