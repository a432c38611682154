"""Which voices and models an account has: asked for once a day, kept in a note that all who work share."""

from __future__ import annotations

import difflib
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crosscut.errors import VoiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from crosscut.commons import Shared

KEPT_SECONDS = 86_400.0
FRESH_SECONDS = 60.0
"""A name is not refused by a list older than this: the voice may have been made just now."""
MOST_SHOWN = 5

_ID = re.compile(r"[A-Za-z0-9]{20}")
"""How ElevenLabs writes the ids of its voices."""

Listed = tuple[str, str]
"""Id and name of a voice."""


@dataclass(frozen=True)
class Catalogue:
    """Notes one JSON object: `voices` and `models` as they were listed, `names` as they were resolved, `format`."""

    shared: Shared
    name: str
    list_voices: Callable[[], list[Listed]]
    """Raises VoiceError."""
    list_models: Callable[[], dict[str, int | None]]
    """Those that speak, by id, and how many characters each takes."""

    def voice(self, name: str | None) -> str:
        """The id for a name, or of the account's first voice in the order of the alphabet; the same all day.

        Raises VoiceError "unknown_voice", "ambiguous_voice" and "no_voices".
        """
        if name is not None and _ID.fullmatch(name):
            return name
        wanted = "" if name is None else _folded(name)
        pinned = self._recent("names", wanted)
        if pinned is not None:
            return str(pinned)
        with self._locked():
            pinned = self._recent("names", wanted)
            if pinned is not None:
                return str(pinned)
            voices, fresh = self._voices()
            found = _matching(voices, wanted)
            if len(found) != 1 and not fresh:
                voices = self._listed_now()
                found = _matching(voices, wanted)
            if len(found) != 1:
                raise _unresolved(name, found, voices)
            self._keep("names", wanted, found[0][0])
            return found[0][0]

    def most_characters(self, model: str) -> int | None:
        """What a model takes at once, None where nobody knows; VoiceError "unknown_model".

        Where the list cannot be had the purchase itself will say what is wrong; a key may be kept from it for good.
        """
        models = self._recent("lists", "models")
        if models is None:
            try:
                models = self.list_models()
            except VoiceError as error:
                if error.retryable:
                    return None
                models = {}
            with self._locked():
                self._keep("lists", "models", models)
        if models and model not in models:
            close = difflib.get_close_matches(model, models, MOST_SHOWN, 0.5) or sorted(models)[:MOST_SHOWN]
            raise VoiceError(
                f"ElevenLabs has no model “{shown(model)}” that speaks; it has {', '.join(map(shown, close))}",
                code="unknown_model",
            )
        most = models.get(model)
        return most if isinstance(most, int) else None

    def refused(self, form: str) -> bool:
        """Whether the plan was found not to allow this output format."""
        return self._recent("refused", form) is not None

    def refuse(self, form: str) -> None:
        with self._locked():
            self._keep("refused", form, True)

    def _voices(self) -> tuple[list[Listed], bool]:
        """The list, and whether it was made just now."""
        voices = self._recent("lists", "voices")
        if voices is not None:
            return _pairs(voices), self._recent("lists", "voices", FRESH_SECONDS) is not None
        try:
            return self._listed_now(), True
        except VoiceError as error:
            old = self._recent("lists", "voices", float("inf"))
            if old is None or not error.retryable:
                raise
            return _pairs(old), True

    def _listed_now(self) -> list[Listed]:
        voices = self.list_voices()
        self._keep("lists", "voices", voices)
        return voices

    def _locked(self) -> AbstractContextManager[None]:
        return self.shared.locked(f"{self.name}.lock")

    def _read(self) -> dict[str, Any]:
        state = self.shared.read(f"{self.name}.json")
        return state if isinstance(state, dict) else {}

    def _recent(self, part: str, name: str, seconds: float = KEPT_SECONDS) -> Any | None:
        entry = self._read().get(part, {}).get(name)
        return entry[0] if entry and 0 <= self.shared.clock() - entry[1] < seconds else None

    def _keep(self, part: str, name: str, value: Any) -> None:
        state = self._read()
        state.setdefault(part, {})[name] = [value, self.shared.clock()]
        self.shared.write(f"{self.name}.json", state)


def _pairs(voices: Any) -> list[Listed]:
    return [(voice, name) for voice, name in voices]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()


def _given(name: str) -> str:
    """ElevenLabs calls its own voices "Sarah - Mature, Reassuring, Confident"."""
    return _folded(name.partition(" - ")[0])


def _matching(voices: Sequence[Listed], wanted: str) -> list[Listed]:
    """All that the name may mean; the first of all for no name."""
    if not wanted:
        return sorted(voices, key=lambda voice: (_folded(voice[1]), voice[0]))[:1]
    exact = [(voice, name) for voice, name in voices if _folded(name) == wanted or _folded(voice) == wanted]
    return exact or [(voice, name) for voice, name in voices if _given(name) == wanted]


def _unresolved(name: str | None, found: Sequence[Listed], voices: Sequence[Listed]) -> VoiceError:
    if name is None or not voices:
        return VoiceError(
            "this ElevenLabs account has no voices: add one to it, or name a voice by its id", code="no_voices"
        )
    if found:
        ids = ", ".join(f"{voice} ({shown(called)})" for voice, called in found[:MOST_SHOWN])
        return VoiceError(
            f"{len(found)} voices of the ElevenLabs account are called “{shown(name)}”: name one by its id: {ids}",
            code="ambiguous_voice",
        )
    names = {_folded(called): called for _, called in voices} | {_given(called): called for _, called in voices}
    close = [names[near] for near in difflib.get_close_matches(_folded(name), names, MOST_SHOWN, 0.5)]
    listed = list(dict.fromkeys(close)) or sorted(called for _, called in voices)[:MOST_SHOWN]
    return VoiceError(
        f"the ElevenLabs account has no voice called “{shown(name)}”; "
        f"{'close to it are' if close else 'it has'} {', '.join(f'“{shown(called)}”' for called in listed)}",
        code="unknown_voice",
    )


def shown(text: str) -> str:
    printable = "".join(character if character.isprintable() else "?" for character in text.strip())
    return printable if len(printable) <= 60 else printable[:59] + "…"
