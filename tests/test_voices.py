from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from contracts.voice import VoiceContract
from crosscut.errors import VoiceError
from crosscut.sandbox import Job, Sandbox
from crosscut.voices import Resolved
from crosscut.voices.espeak import FEMALE_VOICES, MALE_VOICES, EspeakVoice, _timed, synthesize
from fakes import ToneVoice

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from crosscut.voices import Voice


@pytest.fixture(scope="module")
def espeak() -> Iterator[EspeakVoice]:
    with Sandbox(["crosscut.voices.espeak"]) as sandbox:
        yield EspeakVoice(sandbox)


class TestToneVoice(VoiceContract):
    @pytest.fixture
    def voice(self) -> Voice:
        return ToneVoice()


class TestEspeakVoice(VoiceContract):
    @pytest.fixture
    def voice(self, espeak: EspeakVoice) -> Voice:
        return espeak

    @pytest.mark.parametrize("name", ["en-us", "de", "en-gb+f3", "fr-fr", "zh", "pt-br"])
    def test_voices_by_their_own_names_are_used_as_they_are(
        self, espeak: EspeakVoice, tmp_path: Path, name: str
    ) -> None:
        resolved = espeak.resolve(name)
        assert resolved == Resolved(name)
        assert espeak.speak("1 2 3", resolved, tmp_path / "speech.pcm").samples > 0

    def test_every_stand_in_is_a_voice_of_its_own(self, espeak: EspeakVoice) -> None:
        voices = FEMALE_VOICES + MALE_VOICES
        assert [espeak.resolve(voice) for voice in voices] == [Resolved(voice) for voice in voices]
        assert len(set(voices)) == len(voices)

    def test_given_names_keep_their_gender_in_any_spelling(self, espeak: EspeakVoice) -> None:
        assert espeak.resolve("Sarah").id in FEMALE_VOICES
        assert espeak.resolve("George").id in MALE_VOICES
        assert espeak.resolve(" SARAH ").id == espeak.resolve("sarah").id

    def test_an_unknown_variant_keeps_its_language(self, espeak: EspeakVoice) -> None:
        resolved = espeak.resolve("DE+nobody")
        assert resolved.id == "de"
        assert resolved.note is not None

    def test_a_note_shows_a_strange_name_harmlessly(self, espeak: EspeakVoice) -> None:
        note = espeak.resolve("\x1b[31m" + "x" * 500).note
        assert note is not None
        assert "\x1b" not in note
        assert len(note) < 120

    def test_markup_is_spoken_and_not_obeyed(self, espeak: EspeakVoice, tmp_path: Path) -> None:
        voice = espeak.resolve(None)
        plain = espeak.speak("one two", voice, tmp_path / "plain.pcm")
        marked = espeak.speak('one <break time="9s"/> two', voice, tmp_path / "marked.pcm")
        assert 48_000 < marked.samples - plain.samples < 5 * 48_000

    def test_a_number_spoken_as_several_words_stays_one(self, espeak: EspeakVoice, tmp_path: Path) -> None:
        speech = espeak.speak("naïve café costs $5, or 1,250", espeak.resolve(None), tmp_path / "speech.pcm")
        assert [word.text for word in speech.words] == ["naïve", "café", "costs", "$5,", "or", "1,250"]
        assert speech.words[-1].end - speech.words[-1].start > 1

    def test_words_start_where_the_engine_says_and_share_what_it_speaks_as_one(self) -> None:
        word, clause = 1, 5
        events = [(8, -1, 0), (2, 0, 0), (word, 0, 0), (word, 4, 300), (clause, 9, 900), (word, 10, 1000)]
        assert _timed("one not a three", events, 1600) == [
            ("one", 0, 300),
            ("not", 300, 750),
            ("a", 750, 900),
            ("three", 1000, 1600),
        ]

    def test_text_it_cannot_pronounce_is_refused(self, espeak: EspeakVoice, tmp_path: Path) -> None:
        with pytest.raises(VoiceError) as caught:
            espeak.speak("\N{ARABIC-INDIC DIGIT FIVE}", espeak.resolve("en-us"), tmp_path / "speech.pcm")
        assert caught.value.code == "silent"
        assert not (tmp_path / "speech.pcm").exists()

    def test_a_voice_the_library_lacks_is_an_error(self) -> None:
        with pytest.raises(VoiceError) as caught:
            synthesize(Job(outputs=(io.BytesIO(),)), text="hello", voice="gmw/nothing")
        assert caught.value.code == "unknown_voice"
