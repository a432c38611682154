"""What every voice provider must do; a provider's tests inherit this class and give it a `voice` fixture."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from crosscut import pcm
from crosscut.errors import VoiceError
from crosscut.loudness import measure

if TYPE_CHECKING:
    from pathlib import Path

    from crosscut.voices import Speech, Voice

SHORT = "Hello there, friend."
LONG = "Hello there, friend. This offer ends on Sunday & not a day later, so come and see us <soon>."


class VoiceContract:
    unknown = "Nobody With This Name"
    replaces = True
    """Whether another voice stands in for one that is not there; else it is refused."""
    other: str
    """Some other voice than the default one, where none stands in."""

    @pytest.fixture
    def voice(self) -> Voice:
        raise NotImplementedError

    def speak(self, voice: Voice, text: str, output: Path) -> Speech:
        return voice.speak(text, voice.resolve(None), output)

    def test_speech_is_as_long_as_it_says_and_can_be_heard(self, voice: Voice, tmp_path: Path) -> None:
        speech = self.speak(voice, SHORT, tmp_path / "speech.pcm")
        with (tmp_path / "speech.pcm").open("rb") as file:
            assert pcm.count(file, 1) == speech.samples > 0
            loudness = measure(pcm.read(file, 1, 0, speech.samples)).loudness
        assert loudness is not None
        assert loudness > -50

    def test_more_text_takes_longer(self, voice: Voice, tmp_path: Path) -> None:
        short = self.speak(voice, SHORT, tmp_path / "short.pcm")
        long = self.speak(voice, LONG, tmp_path / "long.pcm")
        assert long.samples > 2 * short.samples
        assert voice.estimate(LONG) > 2 * voice.estimate(SHORT)

    def test_the_estimate_is_within_a_factor_of_two(self, voice: Voice, tmp_path: Path) -> None:
        seconds = Fraction(self.speak(voice, LONG, tmp_path / "speech.pcm").samples, 48_000)
        assert seconds / 2 < voice.estimate(LONG) < seconds * 2

    def test_words_are_those_of_the_text_in_order_and_within_the_speech(self, voice: Voice, tmp_path: Path) -> None:
        speech = self.speak(voice, LONG, tmp_path / "speech.pcm")
        assert [word.text for word in speech.words] == LONG.split()
        assert all(word.start < word.end for word in speech.words)
        assert all(one.end <= other.start for one, other in pairwise(speech.words))
        assert speech.words[0].start >= 0
        assert speech.words[-1].end <= Fraction(speech.samples, 48_000)

    def test_the_same_text_gives_the_same_bytes_and_is_paid_for_once(self, voice: Voice, tmp_path: Path) -> None:
        assert voice.owned(SHORT, voice.resolve(None)) == voice.free
        first = self.speak(voice, SHORT, tmp_path / "first.pcm")
        assert voice.owned(SHORT, voice.resolve(None))
        second = self.speak(voice, SHORT, tmp_path / "second.pcm")
        assert replace(first, billed=0, cost=0.0) == second
        assert (first.billed > 0, first.cost > 0) == (not voice.free, not voice.free)
        assert (tmp_path / "first.pcm").read_bytes() == (tmp_path / "second.pcm").read_bytes()

    def test_an_unknown_voice_is_refused_or_replaced_by_the_same_one_every_time_and_noted(
        self, voice: Voice, tmp_path: Path
    ) -> None:
        if not self.replaces:
            for _ in range(2):
                with pytest.raises(VoiceError, match=self.unknown) as caught:
                    voice.resolve(self.unknown)
                assert (caught.value.code, caught.value.retryable) == ("unknown_voice", False)
            return
        resolved = voice.resolve(self.unknown)
        assert resolved == voice.resolve(self.unknown)
        assert resolved.note is not None
        assert self.unknown in resolved.note
        speech = voice.speak(SHORT, resolved, tmp_path / "speech.pcm")
        assert speech.voice == resolved.id
        assert speech.notes == (resolved.note,)

    def test_the_default_voice_needs_no_note(self, voice: Voice) -> None:
        assert voice.resolve(None).note is None
        assert voice.resolve(voice.resolve(None).id) == voice.resolve(None)

    def test_the_key_tells_texts_and_voices_apart(self, voice: Voice) -> None:
        default, other = voice.resolve(None), voice.resolve(self.unknown if self.replaces else self.other)
        assert self.replaces or default.id != other.id
        assert voice.key(SHORT, default) == voice.key(SHORT, default)
        assert voice.key(SHORT, default) != voice.key(LONG, default)
        assert (voice.key(SHORT, default) == voice.key(SHORT, other)) == (default.id == other.id)

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("", "blank_text"),
            (" \n\t ", "blank_text"),
            ("...!?", "blank_text"),
            ("ring the \x07 bell", "control_characters"),
            ("half a \ud83d smile", "control_characters"),
            ("word " * 1_001, "long_text"),
        ],
    )
    def test_text_that_cannot_be_spoken_is_refused_and_leaves_no_file(
        self, voice: Voice, tmp_path: Path, text: str, code: str
    ) -> None:
        with pytest.raises(VoiceError) as caught:
            self.speak(voice, text, tmp_path / "speech.pcm")
        assert caught.value.code == code
        assert not (tmp_path / "speech.pcm").exists()
