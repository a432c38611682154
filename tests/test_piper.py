from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.voice import LONG, SHORT, VoiceContract
from crosscut import pcm
from crosscut.bootstrap import PIPER_MODULES, open_workshop
from crosscut.destinations.folder import FolderDestination
from crosscut.doctor import examine
from crosscut.errors import RequestError, VoiceError
from crosscut.media import PLAIN, Manner
from crosscut.sandbox import Sandbox
from crosscut.settings import Settings
from crosscut.voices.piper import PiperVoice
from crosscut.voices.piper_engine import MOST_PHONEMES, _pieces, sentences
from crosscut.voices.spoken import record, spread
from engine_play import Place, body, running
from piper_models import RATE, STEP, make_voice

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from crosscut.voices import Voice

TONE, OTHER, GERMAN = "en_US-tone-medium", "en_US-whistle-low", "de_DE-ton-medium"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(PIPER_MODULES) as sandbox:
        yield sandbox


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def voice(sandbox: Sandbox, folder: Path) -> PiperVoice:
    make_voice(folder, TONE)
    make_voice(folder, OTHER, pitch=800.0)
    return PiperVoice(sandbox, folder)


def refused(voice: PiperVoice, output: Path, text: str = SHORT, name: str | None = None) -> VoiceError:
    with pytest.raises(VoiceError) as caught:
        voice.speak(text, voice.resolve(name), output)
    assert not output.exists()
    return caught.value


def sound(file: Path) -> np.ndarray:
    return np.fromfile(file, "<f4")


def pitch(samples: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * 48_000 / len(samples))


class TestPiperVoice(VoiceContract):
    replaces = False
    other = OTHER

    @pytest.fixture
    def voice(self, voice: PiperVoice) -> Voice:
        return voice


def test_a_model_alone_is_a_voice_as_a_folder_of_one_is(sandbox: Sandbox, folder: Path, tmp_path: Path) -> None:
    file = make_voice(folder, TONE)
    alone, listed = PiperVoice(sandbox, file), PiperVoice(sandbox, folder)
    assert alone.resolve(None) == listed.resolve(None) == listed.resolve(TONE)
    assert alone.key(SHORT, alone.resolve(None)) == listed.key(SHORT, listed.resolve(None))
    assert alone.speak(SHORT, alone.resolve(TONE), tmp_path / "speech.pcm").voice == TONE


def test_voices_are_told_apart_by_name_in_any_case(voice: PiperVoice, tmp_path: Path) -> None:
    for number, name in enumerate((OTHER, OTHER.upper(), f" {OTHER}.onnx ")):
        assert voice.resolve(name).id == OTHER
        voice.speak("ooo", voice.resolve(name), tmp_path / f"{number}.pcm")
    voice.speak("ooo", voice.resolve(None), tmp_path / "tone.pcm")
    assert pitch(sound(tmp_path / "1.pcm")) - pitch(sound(tmp_path / "tone.pcm")) == pytest.approx(600, abs=30)


def test_a_name_nearly_right_is_answered_with_the_right_one(voice: PiperVoice) -> None:
    with pytest.raises(VoiceError, match=f"close to it are “{OTHER}”") as caught:
        voice.resolve("en_us_whistle")
    assert caught.value.code == "unknown_voice"
    with pytest.raises(VoiceError) as caught:
        voice.resolve("\x1b[31m" + "x" * 500)
    assert "\x1b" not in caught.value.public
    assert len(caught.value.public) < 200


def test_a_line_without_a_voice_is_spoken_in_its_language(voice: PiperVoice, folder: Path) -> None:
    make_voice(folder, GERMAN)
    make_voice(folder, "thorsten", language={}, espeak={"voice": "fr-fr"})
    assert voice.resolve(None, Manner(language="en")).id == TONE
    assert voice.resolve(None, Manner(language="de")).id == GERMAN
    assert voice.resolve(None, Manner(language="fr")).id == "thorsten"
    with pytest.raises(VoiceError, match="no Piper voice here speaks “es”") as caught:
        voice.resolve(None, Manner(language="es"))
    assert caught.value.code == "unknown_language"


def test_what_of_a_manner_is_not_followed_is_noted(voice: PiperVoice) -> None:
    manner = Manner("eleven_v3", "de", (("speed", 1.1), ("stability", 0.5), ("style", 0.1)))
    assert voice.resolve(TONE, manner).note == (
        f"the Piper voice {TONE} speaks without the model “eleven_v3”, the setting stability and style, the language"
        " “de” (it speaks “en”)"
    )
    assert voice.resolve(TONE, Manner(None, "en", (("speed", 1.1),))).note is None


def test_speed_shortens_the_speech_and_is_in_the_key(voice: PiperVoice, tmp_path: Path) -> None:
    plain, fast = voice.resolve(None), voice.resolve(None, Manner(settings=(("speed", 1.2),)))
    assert voice.key(LONG, plain) != voice.key(LONG, fast)
    slow_samples = voice.speak(LONG, plain, tmp_path / "plain.pcm").samples
    fast_samples = voice.speak(LONG, fast, tmp_path / "fast.pcm").samples
    assert slow_samples / fast_samples == pytest.approx(1.2, rel=0.02)


def test_the_noise_of_a_voice_is_heard_and_always_the_same(sandbox: Sandbox, folder: Path, tmp_path: Path) -> None:
    lively = PiperVoice(sandbox, make_voice(folder, "lively", noise=0.2))
    still = PiperVoice(sandbox, make_voice(folder, "still", noise=0.0))
    for name, voice in (("lively", lively), ("again", lively), ("still", still)):
        voice.speak(SHORT, voice.resolve(None), tmp_path / name)
    noise = sound(tmp_path / "lively") - sound(tmp_path / "still")
    assert 0.01 < np.sqrt(np.mean(noise**2)) < 0.1
    assert (tmp_path / "lively").read_bytes() == (tmp_path / "again").read_bytes()


@pytest.mark.parametrize("suffix", [".onnx", ".onnx.json"])
def test_the_key_follows_the_files(voice: PiperVoice, folder: Path, suffix: str) -> None:
    resolved = voice.resolve(None)
    key = voice.key(SHORT, resolved)
    file = folder / f"{TONE}{suffix}"
    os.utime(file, ns=(0, 0))
    assert voice.key(SHORT, resolved) == key
    file.write_bytes(file.read_bytes() + b"\n")
    assert voice.key(SHORT, resolved) != key


def test_a_word_takes_as_long_as_it_is_spoken(voice: PiperVoice, tmp_path: Path) -> None:
    speech = voice.speak("It costs $1,250 today. And so on.", voice.resolve(None), tmp_path / "speech.pcm")
    lengths = {word.text: word.end - word.start for word in speech.words}
    assert lengths["$1,250"] > 3 * lengths["today."] > 3 * lengths["so"]


def test_words_of_a_sentence_are_heard_within_its_own_sound(voice: PiperVoice, tmp_path: Path) -> None:
    first = voice.speak("Hello there.", voice.resolve(None), tmp_path / "first.pcm")
    speech = voice.speak("Hello there. Come and see us.", voice.resolve(None), tmp_path / "both.pcm")
    assert speech.words[1].end <= first.words[-1].end + 0.05
    gap = speech.words[2].start - speech.words[1].end
    assert 0 < gap < 0.2


def test_what_cannot_be_spoken_does_not_lose_its_words(voice: PiperVoice, tmp_path: Path) -> None:
    speech = voice.speak("... ٥. Hello there. — ٥!", voice.resolve(None), tmp_path / "speech.pcm")
    assert [word.text for word in speech.words] == ["...", "٥.", "Hello", "there.", "—", "٥!"]
    assert all(word.start < word.end for word in speech.words)
    assert all(one.end <= other.start for one, other in pairwise(speech.words))
    assert refused(voice, tmp_path / "silent.pcm", "٥").code == "silent"


def test_what_marks_the_ends_of_a_sentence_is_not_spoken_alone(sandbox: Sandbox, folder: Path, tmp_path: Path) -> None:
    marks = {"_": [0], "^": [5], "$": [6], ".": [7], "h": [8]}
    voice = PiperVoice(sandbox, make_voice(folder, TONE, phoneme_id_map=marks))
    assert refused(voice, tmp_path / "silent.pcm", "Oh.").code == "silent"
    assert voice.speak("Ha.", voice.resolve(None), tmp_path / "speech.pcm").samples > 0


def test_markup_is_spoken_and_not_obeyed(voice: PiperVoice, tmp_path: Path) -> None:
    spaced = voice.speak("one [ [ [two] ] three", voice.resolve(None), tmp_path / "spaced.pcm")
    marked = voice.speak("one [[[two]] three", voice.resolve(None), tmp_path / "marked.pcm")
    assert marked.samples == pytest.approx(spaced.samples, rel=0.05)
    tagged = voice.speak('one <break time="9s"/> two', voice.resolve(None), tmp_path / "tagged.pcm")
    assert tagged.samples < 5 * 48_000


def test_a_text_without_sentences_is_spoken_in_pieces(voice: PiperVoice, tmp_path: Path) -> None:
    text = "lang " * 1_000
    speech = voice.speak(text[:5_000], voice.resolve(None), tmp_path / "speech.pcm")
    assert len(speech.words) == 1_000
    assert 4 * 60 < speech.samples / 48_000 < 8 * 60


@given(st.lists(st.sampled_from("abcde ,"), max_size=1_500))
def test_pieces_are_the_whole_and_none_is_too_long(phonemes: list[str]) -> None:
    pieces = list(_pieces(phonemes))
    assert [phoneme for piece in pieces for phoneme in piece] == phonemes
    assert all(len(piece) <= MOST_PHONEMES for piece in pieces)


def test_a_long_sentence_is_cut_behind_a_comma_or_a_word() -> None:
    words, letters = list("abcd " * 100), ["a"] * 500
    with_comma = words.copy()
    with_comma[203:205] = ", "
    lengths = [[len(piece) for piece in _pieces(phonemes)] for phonemes in (words, with_comma, letters)]
    assert lengths == [[300, 200], [205, 295], [300, 200]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One. ", "Two! ", "Three? ", "Four"]),
        ("Come at 5 p.m. tomorrow. It is 3.5 km.", ["Come at 5 p.m. tomorrow. ", "It is 3.5 km."]),
        ("“Yes.” (No.) «Да!» Нет… 好。", ["“Yes.” ", "(No.) ", "«Да!» ", "Нет… ", "好。"]),
        ("No end", ["No end"]),
    ],
)
def test_a_text_is_cut_behind_its_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected
    assert "".join(sentences(text)) == text


def test_a_voice_that_spells_out_letters_speaks(sandbox: Sandbox, folder: Path, tmp_path: Path) -> None:
    voice = PiperVoice(sandbox, make_voice(folder, "uk_UA-letters-low", phoneme_type="text"))
    speech = voice.speak("abc", voice.resolve(None), tmp_path / "speech.pcm")
    # The beginning is marked by one phoneme, and a silent one stands behind each but the last.
    assert speech.samples / 48_000 == pytest.approx(7 * STEP / RATE + 0.05, abs=0.02)


def test_arabic_gets_its_vowels_from_piper(sandbox: Sandbox, folder: Path, tmp_path: Path) -> None:
    voice = PiperVoice(sandbox, make_voice(folder, "ar_JO-tone-low", espeak={"voice": "ar"}))
    speech = voice.speak("مرحبا بكم.", voice.resolve(None), tmp_path / "speech.pcm")
    assert [word.text for word in speech.words] == ["مرحبا", "بكم."]


class TestWhatIsWrong:
    def test_no_model_there(self, sandbox: Sandbox, folder: Path) -> None:
        for place in (folder, folder / "nothing.onnx"):
            with pytest.raises(VoiceError, match="there is no Piper voice where CROSSCUT_PIPER_MODEL says") as caught:
                PiperVoice(sandbox, place).resolve(None)
            assert caught.value.code == "no_voices"

    def test_a_model_without_its_description(self, sandbox: Sandbox, folder: Path) -> None:
        (folder / f"{TONE}.onnx").write_bytes(b"")
        with pytest.raises(VoiceError, match=f"put {TONE}.onnx.json, which comes with it, beside it") as caught:
            PiperVoice(sandbox, folder).resolve(None)
        assert caught.value.code == "no_voices"

    def test_a_place_that_cannot_be_looked_at(self, sandbox: Sandbox, folder: Path) -> None:
        with pytest.raises(VoiceError, match="check CROSSCUT_PIPER_MODEL") as caught:
            PiperVoice(sandbox, folder / ("x" * 300)).resolve(None)
        assert caught.value.code == "unreadable_voice"
        assert "xxx" not in caught.value.public

    @pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x08" * 500])
    def test_a_file_that_is_no_model(self, voice: PiperVoice, folder: Path, tmp_path: Path, content: bytes) -> None:
        (folder / f"{TONE}.onnx").write_bytes(content)
        error = refused(voice, tmp_path / "speech.pcm")
        assert (error.code, error.retryable) == ("bad_model", False)
        assert TONE in error.public
        assert "get its .onnx and .onnx.json files again" in error.public

    @pytest.mark.parametrize(
        "changed",
        [
            {"audio": {}},
            {"audio": {"sample_rate": 1}},
            {"audio": {"sample_rate": "many"}},
            {"phoneme_id_map": {"h": [1]}},
            {"phoneme_type": "morse"},
            {"espeak": {"voice": "no such voice"}},
            {"num_speakers": 9},
        ],
    )
    def test_a_description_that_does_not_fit(
        self, sandbox: Sandbox, folder: Path, tmp_path: Path, changed: dict[str, Any]
    ) -> None:
        voice = PiperVoice(sandbox, make_voice(folder, TONE, **changed))
        assert refused(voice, tmp_path / "speech.pcm").code == "bad_model"

    @pytest.mark.parametrize("content", ["", "[]", "{", '{"language": 3}', '"\ud83d"', "[" * 100_000])
    def test_a_description_that_is_none(self, voice: PiperVoice, folder: Path, tmp_path: Path, content: str) -> None:
        (folder / f"{TONE}.onnx.json").write_text(content, errors="surrogatepass")
        assert voice.resolve(None, Manner(language="en")).id == TONE
        assert refused(voice, tmp_path / "speech.pcm").code == "bad_model"

    def test_a_voice_that_needs_more_than_piper(self, sandbox: Sandbox, folder: Path, tmp_path: Path) -> None:
        voice = PiperVoice(sandbox, make_voice(folder, "zh_CN-tone-medium", phoneme_type="pinyin"))
        error = refused(voice, tmp_path / "speech.pcm")
        assert (error.code, "pinyin" in error.public) == ("unsupported_model", True)

    def test_a_voice_that_takes_all_memory(self, sandbox: Sandbox, folder: Path, tmp_path: Path) -> None:
        voice = PiperVoice(sandbox, make_voice(folder, TONE, inference={"length_scale": 1e5}))
        error = refused(voice, tmp_path / "speech.pcm")
        assert (error.code, "needs more memory than allowed" in error.public) == ("memory", True)

    def test_a_voice_that_is_gone(self, voice: PiperVoice, folder: Path, tmp_path: Path) -> None:
        resolved = voice.resolve(OTHER)
        (folder / f"{OTHER}.onnx").unlink()
        for use in (voice.key, lambda text, resolved: voice.speak(text, resolved, tmp_path / "speech.pcm")):
            with pytest.raises(VoiceError, match=OTHER) as caught:
                use(SHORT, resolved)
            assert caught.value.code == "unknown_voice"

    def test_piper_is_not_installed(self, voice: PiperVoice, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("crosscut.voices.piper.PACKAGES", ("piper-tts", "no-such-package"))
        with pytest.raises(VoiceError, match=r"install crosscut\[piper\]") as caught:
            voice.resolve(None)
        assert caught.value.code == "unavailable"

    def test_piper_cannot_be_imported(self, folder: Path, tmp_path: Path) -> None:
        make_voice(folder, TONE)
        with Sandbox(["no_such_module", *PIPER_MODULES]) as broken:
            error = refused(PiperVoice(broken, folder), tmp_path / "speech.pcm")
        assert (error.code, "Piper cannot be loaded" in error.public) == ("unavailable", True)


class TestSettings:
    def opened(self, tmp_path: Path, **changed: Any) -> str:
        with open_workshop(Settings(_env_file=None, data_dir=tmp_path / "data", **changed)) as workshop:
            return workshop.voice.name

    def test_a_model_makes_piper_speak_unless_elevenlabs_or_another_is_chosen(
        self, folder: Path, tmp_path: Path
    ) -> None:
        model = make_voice(folder, TONE)
        assert self.opened(tmp_path) == "espeak"
        assert self.opened(tmp_path, piper_model=model) == "piper"
        assert self.opened(tmp_path, piper_model=model, voices="espeak") == "espeak"
        assert self.opened(tmp_path, piper_model=model, elevenlabs_api_key="key") == "elevenlabs"

    def test_piper_without_a_model_is_refused_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(RequestError, match="set CROSSCUT_PIPER_MODEL") as caught:
            self.opened(tmp_path, voices="piper")
        assert caught.value.code == "no_model"

    def test_worker_processes_speak_with_it(self, folder: Path, tmp_path: Path) -> None:
        make_voice(folder, TONE)
        lines = [{"text": SHORT}, {"text": SHORT, "voice": "Sarah"}]
        with running(Place(tmp_path), piper_model=folder) as engine:
            status = engine.ended(engine.submit(body(1, 1, encoded=False, text_to_speech=lines[:1])), 60)
            assert (status["succeeded"], status["failed"], status["cost"]["voice_over"]) == (1, 0, 0.0)
            other = body(1, 1, encoded=False, text_to_speech=lines[1:]) | {"task_name": "other"}
            status = engine.ended(engine.submit(other), 60)
        assert (status["succeeded"], status["failed"]) == (0, 1)
        assert f"there is no Piper voice “Sarah” here; there are “{TONE}”" in status["errors"][0]["reason"]

    def test_the_doctor_hears_it_or_says_what_is_missing(self, folder: Path, tmp_path: Path) -> None:
        settings = Settings(_env_file=None, data_dir=tmp_path / "data", piper_model=folder)
        out = FolderDestination(tmp_path)
        with open_workshop(settings) as workshop:
            lacking = next(finding for finding in examine(settings, workshop, out) if finding.name == "voice")
            make_voice(folder, TONE)
            found = next(finding for finding in examine(settings, workshop, out) if finding.name == "voice")
        assert (lacking.good, "there is no Piper voice" in lacking.words) == (False, True)
        assert (found.good, f"piper speaks as {TONE}" in found.words) == (True, True)


IMPORTS = """
import crosscut.bootstrap, json, os, sys

print(json.dumps(sorted({"piper", "onnxruntime"} & set(sys.modules))))
import crosscut.voices.piper_engine

print(json.dumps([os.readlink(file.path) for file in os.scandir("/proc/self/fd") if os.path.exists(file.path)]))
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_only_the_child_imports_piper_and_tells_nobody(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    told = subprocess.run([sys.executable, "-c", IMPORTS], env=environment, capture_output=True, text=True, check=True)
    imported, files, threads = map(json.loads, told.stdout.splitlines())
    assert imported == []
    assert [file for file in files if file.startswith(str(tmp_path))] == []
    assert list(tmp_path.iterdir()) == []
    assert threads == 1, "the process that forks the children has one thread"


@given(
    start=st.integers(0, 10**6),
    length=st.integers(0, 10**6),
    weights=st.lists(st.integers(1, 1_000), min_size=1, max_size=50),
)
def test_spans_share_the_whole_in_order_and_by_weight(start: int, length: int, weights: list[int]) -> None:
    spans = spread(start, start + length, weights)
    assert (spans[0][0], spans[-1][1]) == (start, start + length)
    assert all(one[1] == other[0] for one, other in pairwise(spans))
    for (begin, end), weight in zip(spans, weights, strict=True):
        assert abs((end - begin) - length * weight / sum(weights)) <= 1


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100, 48_000])
def test_sound_in_pieces_is_recorded_as_one_and_ends_with_what_is_heard(rate: int) -> None:
    tone = np.sin(np.arange(rate) * 2 * np.pi * 440 / rate).astype(np.float32)
    whole, parts = io.BytesIO(), io.BytesIO()
    silence = np.zeros(2 * rate, np.float32)
    samples = record(whole, rate, [np.concatenate([tone, silence])])
    assert samples == record(parts, rate, [*np.array_split(tone, 7), silence[:0], silence])
    assert samples == pytest.approx(48_000 + 2_400, abs=500)
    assert np.allclose(*(pcm.read(file, 1, 0, samples) for file in (whole, parts)), atol=1e-6)


def test_a_plain_manner_is_plain(voice: PiperVoice) -> None:
    assert voice.resolve(None, PLAIN).manner == PLAIN
