"""When each word of a text is heard, from the time of each character as a provider tells it."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from crosscut.media import AUDIO_RATE, Seconds
from crosscut.voices import Word

if TYPE_CHECKING:
    from collections.abc import Sequence

SHORTEST = AUDIO_RATE // 1_000
"""Samples a word is heard at least."""

_TAG = re.compile(r"\[[^\[\]]*\]")


def last_second(told: Any) -> float | None:
    """When the last character ends, None where the times cannot be used."""
    timed = _characters(told)
    return max(end for _, _, end in timed) if timed else None


def words(text: str, told: Any, samples: int, *, tagged: bool) -> tuple[tuple[Word, ...], bool]:
    """The words of `text` as they stand between spaces, within `samples` at 48 kHz and one after the other.

    `told` is what the provider says, and may be anything: `characters`, `character_start_times_seconds` and
    `character_end_times_seconds`. Where it cannot be used the words share the sound by their lengths, and the second
    answer is False. `tagged`: what stands in brackets is an order and is not heard.
    """
    spans = [match.span() for match in re.finditer(r"\S+", _plain(text, tagged=tagged))]
    tokens = [text[start:stop] for start, stop in spans]
    found = _heard(_characters(told), tagged=tagged)
    good = [word for word, _, _ in found] == tokens
    if good:
        times = [(start, end) for _, start, end in found]
    else:
        edges = [0, *accumulate(len(token) for token in tokens)]
        seconds = samples / AUDIO_RATE
        times = [(seconds * start / edges[-1], seconds * end / edges[-1]) for start, end in pairwise(edges)]
    placed = _ordered([(_sample(start), _sample(end)) for start, end in times], samples)
    return tuple(
        Word(token, _seconds(start), _seconds(end)) for token, (start, end) in zip(tokens, placed, strict=True)
    ), good


def _plain(text: str, *, tagged: bool) -> str:
    """`text` with spaces for its tags, every other character where it was."""
    return _TAG.sub(lambda tag: " " * len(tag[0]), text) if tagged else text


def _characters(told: Any) -> list[tuple[str, float, float]]:
    """Empty where anything is wrong with them."""
    if not isinstance(told, dict):
        return []
    lists: list[Any] = [told.get(f"character{name}") for name in ("s", "_start_times_seconds", "_end_times_seconds")]
    if not all(isinstance(entry, list) for entry in lists) or len({len(entry) for entry in lists}) != 1:
        return []
    timed = list(zip(*lists, strict=True))
    good = all(isinstance(text, str) and _is_time(start) and _is_time(end) for text, start, end in timed)
    return timed if good else []


def _is_time(value: Any) -> bool:
    """Whether it is a number of seconds; no comparison with not-a-number holds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6


def _heard(timed: Sequence[tuple[str, float, float]], *, tagged: bool) -> list[tuple[str, float, float]]:
    text = "".join(character for character, _, _ in timed)
    owners = [place for place, (character, _, _) in enumerate(timed) for _ in character]
    found = []
    for match in re.finditer(r"\S+", _plain(text, tagged=tagged)):
        first, last = owners[match.start()], owners[match.end() - 1]
        found.append((match[0], timed[first][1], timed[last][2]))
    return found


def _ordered(times: Sequence[tuple[int, int]], samples: int) -> list[tuple[int, int]]:
    """Each at least a moment long, none before the end of the one before, all within the sound."""
    least = max(min(SHORTEST, samples // max(len(times), 1)), 1)
    cursor, forward = 0, []
    for start, end in times:
        begin = max(start, cursor)
        cursor = max(end, begin + least)
        forward.append((begin, cursor))
    limit, placed = samples, []
    for start, end in reversed(forward):
        stop = min(end, limit)
        limit = min(start, stop - least)
        placed.append((limit, stop))
    return placed[::-1]


def _sample(seconds: float) -> int:
    return max(round(seconds * AUDIO_RATE), 0)


def _seconds(sample: int) -> Seconds:
    return Seconds(Fraction(sample, AUDIO_RATE))
