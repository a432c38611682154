"""Money is talked about before it is spent."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from crosscut.errors import RequestError, VoiceError
from crosscut.media import PLAIN, Manner
from crosscut.request import Line
from crosscut.spending import costs, price_of, refuse_overspending, to_buy
from fakes import ToneVoice

if TYPE_CHECKING:
    from crosscut.voices import Resolved

DEAR = Manner(model="dear")
LINES = [Line("ten chars."), Line("ten chars.", "high"), Line("ten chars.", manner=DEAR), Line("ten chars.")]


@dataclass(frozen=True)
class ShopVoice(ToneVoice):
    """Sells a character for a cent, or for two; knows what was bought, and no voice called nobody."""

    bought: frozenset[tuple[str, str]] = frozenset()
    asked: list[str | None] = field(default_factory=list)
    free = False

    def price(self, manner: Manner) -> float:
        return 0.02 if manner.model == "dear" else 0.01

    def resolve(self, voice: str | None, manner: Manner = PLAIN) -> Resolved:
        self.asked.append(voice)
        if voice == "nobody":
            raise VoiceError("there is no such voice", code="unknown_voice")
        return replace(super().resolve(voice), manner=manner)

    def owned(self, text: str, resolved: Resolved) -> bool:
        return (text, resolved.id) in self.bought


def test_a_line_is_counted_once_and_by_its_model():
    assert price_of(LINES, ShopVoice()) == pytest.approx(0.10 + 0.10 + 0.20)


def test_what_was_bought_or_cannot_be_spoken_is_not_bought():
    voice = ShopVoice(frozenset({("ten chars.", "high")}))
    assert to_buy([*LINES, Line("hello", "nobody")], voice) == [LINES[0], LINES[2]]


@pytest.mark.parametrize("limit", [None, 0.4, 5.0])
def test_within_the_limit_nobody_is_asked(limit):
    voice = ShopVoice()
    refuse_overspending(LINES, limit, voice)
    assert voice.asked == []


def test_beyond_the_limit_the_sentence_says_how_much():
    with pytest.raises(RequestError) as caught:
        refuse_overspending(LINES, 0.39, ShopVoice())
    assert caught.value.code == "spending_limit"
    assert "0.40 US dollars (30 characters)" in caught.value.public
    assert "spending_limit of 0.39" in caught.value.public


def test_what_is_owned_does_not_count_against_the_limit():
    refuse_overspending(LINES, 0.39, ShopVoice(frozenset({("ten chars.", "high")})))


def test_a_plan_tells_what_all_lines_cost_and_what_is_still_to_buy():
    voice = ShopVoice(frozenset({("ten chars.", "low")}))
    told = {"currency": "USD", "voice_over": 0.4, "to_buy": 0.1, "characters_to_buy": 10}
    assert costs(iter(LINES), voice) == told
    assert costs(LINES, ToneVoice()) == {"currency": "USD", "voice_over": 0, "to_buy": 0, "characters_to_buy": 0}
