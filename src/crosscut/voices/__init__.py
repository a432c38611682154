"""Text -> speech: the protocol every voice provider follows, and what is refused by all of them."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from crosscut.errors import VoiceError
from crosscut.media import PLAIN, Manner

if TYPE_CHECKING:
    from pathlib import Path

    from crosscut.media import Seconds

MOST_CHARACTERS = 5_000


@dataclass(frozen=True)
class Word:
    """One word as it is written, punctuation included, and when it is heard."""

    text: str
    start: Seconds
    end: Seconds


@dataclass(frozen=True)
class Speech:
    """`samples` of mono PCM at 48 kHz; `voice` is the one really used."""

    samples: int
    words: tuple[Word, ...]
    voice: str
    notes: tuple[str, ...] = ()
    billed: int = 0
    """Characters the provider charged for now; 0 for what was bought before."""
    cost: float = 0.0
    """US dollars."""


@dataclass(frozen=True)
class Resolved:
    """A voice the provider has and how it speaks; `note` says in a sentence where it is not the one asked for."""

    id: str
    note: str | None = None
    manner: Manner = PLAIN


class Voice(Protocol):
    """A provider of speech. Its methods may be called from any thread."""

    @property
    def name(self) -> str: ...

    @property
    def free(self) -> bool:
        """What costs nothing is spoken by a plan too, to learn the exact length."""

    def price(self, manner: Manner) -> float:
        """US dollars a character, about."""

    def owned(self, text: str, resolved: Resolved) -> bool:
        """Whether it was bought before, or costs nothing."""

    def resolve(self, voice: str | None, manner: Manner = PLAIN) -> Resolved:
        """The voice for a name, or the default one. Free, and always the same for the same name.

        Raises VoiceError where there is no such voice and no other may stand in.
        """

    def speak(self, text: str, resolved: Resolved, output: Path) -> Speech:
        """Write mono PCM (see `pcm`) to `output`, which must not exist. Raises VoiceError, the output is gone then."""

    def estimate(self, text: str) -> Seconds:
        """About how long it will be; free."""

    def key(self, text: str, resolved: Resolved) -> tuple[str, ...]:
        """Everything that decides the sound, the version of the engine included."""


def check_text(text: str, most: int = MOST_CHARACTERS) -> None:
    """Raise VoiceError "blank_text", "long_text" or "control_characters"."""
    if not any(character.isalnum() for character in text):
        raise VoiceError("this voice-over has no words to speak; write some or leave it out", code="blank_text")
    if len(text) > most:
        raise VoiceError(
            f"this voice-over has {len(text):,} characters, more than {most:,}; shorten or split it", code="long_text"
        )
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\r\t":
            raise VoiceError(
                f"this voice-over holds the control character U+{ord(character):04X}; take it out",
                code="control_characters",
            )
