"""Text -> what a reader takes for single characters. Pure."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CLUSTER = 32
"""Code points drawn as one character at most (Unicode's stream-safe text has 30 marks on a letter)."""


def clusters(text: str) -> Iterator[str]:
    """About what is drawn as one character: marks, joiners, skin tones and flags stay with what they belong to."""
    cluster = ""
    for character in text:
        joined = cluster and (
            unicodedata.category(character)[0] == "M"
            or unicodedata.category(character) == "Cf"
            or cluster[-1] == "\u200d"
            or "\U0001f3fb" <= character <= "\U0001f3ff"
            or (_flag(character) and len(cluster) == 1 and _flag(cluster))
        )
        if not joined or len(cluster) >= CLUSTER:
            if cluster:
                yield cluster
            cluster = ""
        cluster += character
    if cluster:
        yield cluster


def _flag(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
