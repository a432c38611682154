"""What voice-overs cost, before any is bought."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from crosscut.errors import RequestError, VoiceError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from crosscut.request import Line
    from crosscut.voices import Voice


def price_of(lines: Iterable[Line], voice: Voice) -> float:
    """About how many US dollars these cost if each is bought once."""
    return sum(len(line.text) * voice.price(line.manner) for line in dict.fromkeys(lines))


def to_buy(lines: Iterable[Line], voice: Voice) -> list[Line]:
    """Those that nobody has bought before, each once; one that no voice can speak is not bought."""
    missing = []
    for line in dict.fromkeys(lines):
        with suppress(VoiceError):
            if not voice.owned(line.text, voice.resolve(line.voice, line.manner)):
                missing.append(line)
    return missing


def refuse_overspending(lines: Iterable[Line], limit: float | None, voice: Voice) -> None:
    """Raise RequestError where the lines cost more than `limit` US dollars."""
    # What has been bought is looked for only where it matters: that may ask the provider for its voices.
    if limit is None or price_of(lines, voice) <= limit:
        return
    missing = to_buy(lines, voice)
    price, characters = price_of(missing, voice), sum(len(line.text) for line in missing)
    if price > limit:
        raise RequestError(
            f"the voice-overs of this task cost about {price:.2f} US dollars ({characters:,} characters), more than its"
            f" spending_limit of {limit:.2f}: shorten them, use fewer, or raise the limit",
            code="spending_limit",
        )


def costs(lines: Iterable[Line], voice: Voice) -> dict[str, Any]:
    """What a plan tells of them."""
    lines = list(lines)
    missing = [] if voice.free else to_buy(lines, voice)
    return {
        "currency": "USD",
        "voice_over": round(price_of(lines, voice), 4),
        "to_buy": round(price_of(missing, voice), 4),
        "characters_to_buy": sum(len(line.text) for line in missing),
    }
