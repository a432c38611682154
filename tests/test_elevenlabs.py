from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import commons_play
from contracts.voice import LONG, SHORT, VoiceContract
from crosscut import pcm
from crosscut.errors import CrosscutError, StorageError, VoiceError
from crosscut.files import shared_in
from crosscut.media import PLAIN, Manner
from crosscut.sandbox import Sandbox
from crosscut.voices import Resolved
from crosscut.voices.elevenlabs import BUSY_TRIES, CROWDED_TRIES, PRICES, ElevenLabsVoice, _Patience
from crosscut.voices.replies import Reply, refusal
from elevenlabs_emulator import KEY, REFUSALS, VOICES, Emulator
from emulating import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crosscut.voices import Speech, Voice

RACHEL, SARAH, ADAM = (voice for voice, _ in VOICES[:3])
DAY = 86_400


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(["crosscut.pcm"]) as sandbox:
        yield sandbox


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def opened(sandbox: Sandbox, emulator: Emulator, tmp_path: Path) -> Callable[..., ElevenLabsVoice]:
    """The voice as one more process would open it."""

    def opened(**changed: Any) -> ElevenLabsVoice:
        usual = {"api_key": KEY, "folder": tmp_path / "voices", "base_url": emulator.url, "pause": 0.001, "timeout": 10}
        if "clock" in changed:
            changed["shared"] = shared_in(tmp_path / "voices", changed.pop("clock"))
        return ElevenLabsVoice(sandbox, **(usual | changed))

    return opened


@pytest.fixture(params=["machine", "cluster"])
def where(request, tmp_path: Path) -> str:
    """What processes of one machine share, and those of machines that have nothing together but a database."""
    if request.param == "machine":
        return f"files:{tmp_path / 'voices'}"
    url: str = request.getfixturevalue("postgres")
    return url


@pytest.fixture
def voice(opened: Callable[..., ElevenLabsVoice]) -> ElevenLabsVoice:
    return opened()


def speak(voice: ElevenLabsVoice, output: Path, text: str = SHORT, manner: Manner = PLAIN) -> Speech:
    output.unlink(missing_ok=True)
    return voice.speak(text, voice.resolve(RACHEL, manner), output)


def refused(voice: ElevenLabsVoice, output: Path, text: str = SHORT, manner: Manner = PLAIN) -> CrosscutError:
    with pytest.raises(CrosscutError) as caught:
        speak(voice, output, text, manner)
    assert not list(output.parent.glob(f"{output.name}*"))
    return caught.value


class TestElevenLabsVoice(VoiceContract):
    replaces = False
    other = "Rachel"

    @pytest.fixture(params=["pro", "free"])
    def voice(self, request, opened: Callable[..., ElevenLabsVoice], emulator: Emulator) -> Voice:
        emulator.plan = request.param
        return opened()


class TestNames:
    @pytest.mark.parametrize("spelled", ["Rachel", " rachel ", "RACHEL", RACHEL, f"  {RACHEL}"])
    def test_a_voice_is_found_by_its_name_in_any_case_and_by_its_id(self, voice, spelled: str) -> None:
        assert voice.resolve(spelled) == Resolved(RACHEL, None, Manner("eleven_multilingual_v2"))

    def test_an_id_is_taken_as_it_is_without_asking(self, voice, emulator: Emulator) -> None:
        assert voice.resolve("A" * 20).id == "A" * 20
        assert emulator.lists == 0

    def test_accents_are_one_however_they_are_written(self, voice) -> None:
        assert voice.resolve("e\u0301milie").id == voice.resolve("ÉMILIE").id == VOICES[5][0]

    def test_the_first_word_is_enough_where_the_name_goes_on_with_a_description(self, voice) -> None:
        assert voice.resolve("sarah").id == SARAH
        assert voice.resolve("Sarah - Mature, Reassuring, Confident").id == SARAH

    def test_a_name_that_is_exact_goes_before_one_that_goes_on(self, voice, emulator: Emulator) -> None:
        emulator.voices = (*VOICES, ("S" * 20, "Sarah"))
        assert voice.resolve("sarah").id == "S" * 20

    def test_an_ambiguous_name_is_refused_with_the_ids(self, voice) -> None:
        with pytest.raises(VoiceError) as caught:
            voice.resolve("twin")
        assert caught.value.code == "ambiguous_voice"
        assert VOICES[3][0] in caught.value.public
        assert VOICES[4][0] in caught.value.public

    def test_an_unknown_name_is_refused_with_what_is_close_to_it(self, voice) -> None:
        with pytest.raises(VoiceError) as caught:
            voice.resolve("Rachael\x1b[31m"[:7])
        assert caught.value.code == "unknown_voice"
        assert "“Rachel”" in caught.value.public
        assert "Adam" not in caught.value.public

    def test_a_strange_name_is_shown_harmlessly(self, voice) -> None:
        with pytest.raises(VoiceError) as caught:
            voice.resolve("\x1b[31m" + "x" * 500)
        assert "\x1b" not in caught.value.public
        assert len(caught.value.public) < 300

    def test_all_pages_are_read(self, voice, emulator: Emulator) -> None:
        emulator.page = 2
        assert voice.resolve("Émilie").id == VOICES[5][0]
        assert emulator.lists == 3

    def test_no_name_is_the_voice_of_the_settings_else_the_first_of_the_alphabet(self, opened) -> None:
        assert opened().resolve(None).id == ADAM
        assert opened(default="Rachel").resolve(None).id == RACHEL
        assert opened(default=SARAH).resolve(" ").id == SARAH

    def test_an_account_without_voices_says_so(self, voice, emulator: Emulator) -> None:
        emulator.voices = ()
        for name in (None, "Rachel"):
            with pytest.raises(VoiceError) as caught:
                voice.resolve(name)
            assert caught.value.code == "no_voices"

    def test_a_name_keeps_its_voice_for_a_day_in_every_process(self, opened, emulator: Emulator) -> None:
        now = [1_000_000.0]
        first = opened(clock=lambda: now[0])
        assert (first.resolve("Rachel").id, first.resolve(None).id) == (RACHEL, ADAM)
        emulator.voices = (("N" * 20, "Rachel"), ("M" * 20, "Aaron"))
        now[0] += DAY - 1
        for other in (first, opened(clock=lambda: now[0])):
            assert (other.resolve("rachel").id, other.resolve(None).id) == (RACHEL, ADAM)
        assert emulator.lists == 1
        now[0] += 1
        assert (first.resolve("Rachel").id, first.resolve(None).id) == ("N" * 20, "M" * 20)
        assert emulator.lists == 2

    def test_a_name_is_not_refused_by_an_old_list(self, opened, emulator: Emulator) -> None:
        now = [1_000_000.0]
        voice = opened(clock=lambda: now[0])
        voice.resolve("Rachel")
        emulator.voices = (*VOICES, ("N" * 20, "New"))
        with pytest.raises(VoiceError, match="New"):
            voice.resolve("New")
        now[0] += 61
        assert voice.resolve("New").id == "N" * 20
        assert emulator.lists == 2

    def test_a_newer_list_takes_no_name_its_voice(self, opened, emulator: Emulator) -> None:
        now = [1_000_000.0]
        voice = opened(clock=lambda: now[0])
        assert (voice.resolve("Rachel").id, voice.resolve(None).id) == (RACHEL, ADAM)
        emulator.voices = (("N" * 20, "Rachel"), ("M" * 20, "Aaron"), ("O" * 20, "Rachel"))
        now[0] += 61
        assert voice.resolve("Aaron").id == "M" * 20
        assert emulator.lists == 2
        assert (voice.resolve("Rachel").id, voice.resolve(None).id) == (RACHEL, ADAM)

    def test_an_old_list_is_better_than_none(self, opened, emulator: Emulator) -> None:
        now = [1_000_000.0]
        voice = opened(clock=lambda: now[0])
        voice.resolve("Rachel")
        now[0] += 2 * DAY
        emulator.listing = "error"
        assert voice.resolve("sarah").id == SARAH

    @pytest.mark.parametrize(
        ("fault", "code", "retryable"),
        [
            ("invalid_key", "invalid_key", False),
            ("permission", "key_permission", False),
            ("error", "voice_busy", True),
            ("html", "bad_answer", False),
            ("echo", "refused", False),
        ],
    )
    def test_a_list_that_cannot_be_had_says_why(
        self, voice, emulator: Emulator, fault: str, code: str, *, retryable: bool
    ) -> None:
        emulator.listing = fault
        with pytest.raises(VoiceError) as caught:
            voice.resolve("Rachel")
        assert (caught.value.code, caught.value.retryable) == (code, retryable)
        assert emulator.lists == (BUSY_TRIES if retryable else 1)

    def test_a_key_that_may_only_speak_speaks(self, voice, emulator: Emulator, tmp_path: Path) -> None:
        emulator.listing = "permission"
        assert speak(voice, tmp_path / "speech.pcm").voice == RACHEL
        assert speak(voice, tmp_path / "speech.pcm", LONG).billed == len(LONG)
        assert emulator.lists == 1


class TestManner:
    def test_model_language_and_settings_are_those_asked_for(self, voice, emulator: Emulator, tmp_path: Path) -> None:
        manner = Manner("eleven_flash_v2_5", "de", (("speed", 1.1), ("stability", 1), ("use_speaker_boost", True)))
        speak(voice, tmp_path / "speech.pcm", manner=manner)
        assert emulator.sales[0].body == {
            "text": SHORT,
            "model_id": "eleven_flash_v2_5",
            "language_code": "de",
            "voice_settings": {"speed": 1.1, "stability": 1.0, "use_speaker_boost": True},
        }

    def test_nothing_is_sent_that_was_not_asked_for(self, voice, emulator: Emulator, tmp_path: Path) -> None:
        speak(voice, tmp_path / "speech.pcm")
        assert emulator.sales[0].body == {"text": SHORT, "model_id": "eleven_multilingual_v2"}

    def test_a_model_that_hears_the_language_is_not_told_it(self, voice, emulator: Emulator, tmp_path: Path) -> None:
        manner = Manner(language="de")
        assert voice.resolve("Rachel", manner) == voice.resolve("Rachel")
        speak(voice, tmp_path / "speech.pcm", manner=manner)
        assert "language_code" not in emulator.sales[0].body

    def test_all_that_decides_the_sound_decides_the_key(self, voice, opened) -> None:
        flash = "eleven_flash_v2_5"
        manners = [
            Manner(),
            Manner(flash),
            Manner(flash, "de"),
            Manner(flash, "fr"),
            Manner(flash, None, (("speed", 1.1),)),
            Manner(flash, None, (("speed", 1.0),)),
            Manner(flash, None, (("stability", 1.0),)),
        ]
        keys = {voice.key(text, voice.resolve(who, how)) for text in "ab" for who in (RACHEL, ADAM) for how in manners}
        assert len(keys) == 4 * len(manners)
        same = [Resolved(RACHEL), Resolved(RACHEL, None, Manner("eleven_multilingual_v2", "de")), voice.resolve(RACHEL)]
        assert len({voice.key("a", resolved) for resolved in same}) == 1
        assert voice.key("a", Resolved(RACHEL)) == opened(model=flash).key("a", voice.resolve(RACHEL))

    def test_prices_are_by_model_and_unknown_ones_are_dear(self, voice, opened) -> None:
        assert voice.price(Manner()) == voice.price(Manner("eleven_v3")) == 0.10 / 1_000
        assert voice.price(Manner("eleven_flash_v2_5")) == 0.05 / 1_000
        assert voice.price(Manner("eleven_v9")) == max(PRICES.values())
        assert opened(prices={"eleven_v3": 1.0}).price(Manner("eleven_v3")) == 1.0
        assert opened(model="eleven_turbo_v2").price(Manner()) == 0.05 / 1_000

    def test_text_longer_than_the_model_takes_is_refused_before_it_is_bought(self, voice, emulator, tmp_path) -> None:
        error = refused(voice, tmp_path / "speech.pcm", "word " * 21, Manner("eleven_tiny"))
        assert error.code == "long_text"
        assert "more than 100;" in error.public
        assert emulator.orders == 0

    def test_a_model_that_is_not_there_is_refused_before_it_is_bought(self, voice, emulator, tmp_path) -> None:
        error = refused(voice, tmp_path / "speech.pcm", manner=Manner("eleven_flash"))
        assert error.code == "unknown_model"
        assert "eleven_flash_v2_5" in error.public
        assert refused(voice, tmp_path / "speech.pcm", manner=Manner("eleven_english_sts_v2")).code == "unknown_model"
        assert (emulator.orders, emulator.lists) == (0, 1)

    def test_the_captions_of_v3_are_without_its_tags(self, voice, emulator, tmp_path: Path) -> None:
        text = "[laughs softly]Hello there, [whispers] my friend."
        speech = speak(voice, tmp_path / "speech.pcm", text, Manner("eleven_v3"))
        assert [word.text for word in speech.words] == ["Hello", "there,", "my", "friend."]
        assert float(speech.words[0].start) == pytest.approx(15 / 15, abs=0.01)
        speech = speak(voice, tmp_path / "speech.pcm", text)
        assert [word.text for word in speech.words] == text.split()
        assert [sale.text for sale in emulator.sales] == [text, text]


class TestFormats:
    def test_the_plan_is_tried_once_and_remembered_by_every_process(self, opened, emulator, tmp_path: Path) -> None:
        emulator.plan = "free"
        now = [1_000_000.0]
        for number, line in enumerate(["one line", "two lines", "three lines"]):
            speak(opened(clock=lambda: now[0]), tmp_path / f"{number}.pcm", line)
        assert [sale.form for sale in emulator.sales] == ["mp3_44100_128"] * 3
        assert emulator.orders == 4
        emulator.plan = "pro"
        now[0] += DAY
        speak(opened(clock=lambda: now[0]), tmp_path / "pro.pcm", "four lines")
        assert emulator.sales[-1].form == "pcm_44100"

    def test_another_plan_buys_nothing_again(self, opened, emulator, tmp_path: Path) -> None:
        emulator.plan = "free"
        key = opened().key(SHORT, Resolved(RACHEL))
        first = speak(opened(), tmp_path / "speech.pcm")
        emulator.plan = "pro"
        assert opened(clock=lambda: 9e9).key(SHORT, Resolved(RACHEL)) == key
        again = speak(opened(clock=lambda: 9e9), tmp_path / "speech.pcm")
        assert (again.billed, again.samples, len(emulator.sales)) == (0, first.samples, 1)

    @pytest.mark.parametrize("plan", ["pro", "free"])
    def test_the_sound_is_the_one_that_was_sold(self, voice, emulator, tmp_path: Path, plan: str) -> None:
        emulator.plan = plan
        speech = speak(voice, tmp_path / "speech.pcm", LONG)
        with (tmp_path / "speech.pcm").open("rb") as file:
            heard = pcm.read(file, 1, 0, speech.samples)[0]
        loud = np.array([np.abs(heard[start : start + 480]).mean() > 0.05 for start in range(0, len(heard) - 480, 480)])
        wanted = [not LONG[min(int((place + 0.5) * 0.15), len(LONG) - 1)].isspace() for place in range(len(loud))]
        assert (loud == np.array(wanted)).mean() > 0.9
        assert speech.samples == pytest.approx(len(LONG) * 3_200, abs=2_500)

    @pytest.mark.parametrize("fault", ["wav_as_pcm", "mp3_as_pcm", "odd"])
    def test_a_sound_in_another_dress_is_heard_all_the_same(self, voice, emulator, tmp_path, fault: str) -> None:
        emulator.faults.append(fault)
        assert speak(voice, tmp_path / "speech.pcm").samples == pytest.approx(len(SHORT) * 3_200, abs=2_500)


class TestMoney:
    @pytest.mark.parametrize(("header", "billed"), [("character-cost", 20), ("x-character-count", 20), ("", 20)])
    def test_what_was_billed_is_said_once(self, opened, emulator, tmp_path: Path, header: str, billed: int) -> None:
        emulator.billing = header
        assert not opened().owned(SHORT, Resolved(RACHEL))
        first = speak(opened(), tmp_path / "speech.pcm")
        assert (first.billed, first.cost) == (billed, pytest.approx(20 * 0.10 / 1_000))
        assert opened().owned(SHORT, Resolved(RACHEL))
        again = speak(opened(), tmp_path / "speech.pcm")
        assert (again.billed, again.cost) == (0, 0)
        assert len(emulator.sales) == 1

    def test_what_was_bought_is_heard_without_a_network_and_with_another_key(self, opened, tmp_path: Path) -> None:
        first = speak(opened(), tmp_path / "first.pcm")
        again = speak(opened(base_url="http://127.0.0.1:9", api_key="sk_another"), tmp_path / "again.pcm")
        assert again.words == first.words
        assert (tmp_path / "first.pcm").read_bytes() == (tmp_path / "again.pcm").read_bytes()

    def test_a_full_disk_is_noticed_before_anything_is_bought(self, voice, emulator, tmp_path, monkeypatch) -> None:
        monkeypatch.setattr("crosscut.voices.purchases.ROOM_BYTES", 2**60)
        assert isinstance(refused(voice, tmp_path / "speech.pcm"), StorageError)
        assert emulator.orders == 0

    @pytest.mark.parametrize("fault", ["null_sound", "no_base64", "no_sound", "silence", "not_audio", "short"])
    def test_what_cannot_be_played_is_not_bought_again(self, opened, emulator, tmp_path: Path, fault: str) -> None:
        emulator.faults.append(fault)
        for _ in range(3):
            error = refused(opened(), tmp_path / "speech.pcm", LONG)
            assert (error.code, error.retryable) == ("bad_audio", False)
        assert len(emulator.sales) == emulator.orders == 1


class TestTimes:
    @pytest.mark.parametrize(
        "fault", ["no_alignment", "text_alignment", "empty_alignment", "other_text", "uneven", "no_number"]
    )
    def test_without_times_the_captions_keep_an_even_pace(self, opened, emulator, tmp_path: Path, fault: str) -> None:
        emulator.faults.append(fault)
        for _ in range(2):
            speech = speak(opened(), tmp_path / "speech.pcm", "aaaa bbbb cc")
            assert [word.text for word in speech.words] == ["aaaa", "bbbb", "cc"]
            assert [round(word.start * 10 / speech.words[-1].end) for word in speech.words] == [0, 4, 8]
            assert speech.words[-1].end * 48_000 == speech.samples
            assert len(speech.notes) == 1
        assert emulator.orders == 1

    @pytest.mark.parametrize("fault", ["late", "repeated", "backwards", "negative"])
    def test_times_that_lie_are_put_in_order_within_the_sound(self, voice, emulator, tmp_path, fault: str) -> None:
        emulator.faults.append(fault)
        TestElevenLabsVoice().test_words_are_those_of_the_text_in_order_and_within_the_speech(voice, tmp_path)

    def test_words_are_heard_when_they_are_said(self, voice, tmp_path: Path) -> None:
        words = speak(voice, tmp_path / "speech.pcm", "It costs $5 & more").words
        assert [(word.text, float(word.start), float(word.end)) for word in words] == [
            (text, pytest.approx(start / 15, abs=0.002), pytest.approx(end / 15, abs=0.002))
            for text, start, end in [("It", 0, 2), ("costs", 3, 8), ("$5", 9, 11), ("&", 12, 13), ("more", 14, 18)]
        ]


class TestRefusals:
    @pytest.mark.parametrize(
        ("fault", "code", "says"),
        [
            ("invalid_key", "invalid_key", "API key"),
            ("quota", "quota_exceeded", "credits"),
            ("credits", "quota_exceeded", "credits"),
            ("permission", "key_permission", "permission"),
            ("unusual", "refused", "detected_unusual_activity"),
            ("echo", "refused", "odd"),
            ("echo_list", "refused", "422"),
            ("html", "bad_answer", "address"),
            ("moved", "bad_answer", "address"),
            ("nothing", "bad_answer", "address"),
        ],
    )
    def test_what_does_not_pass_is_tried_once_and_costs_nothing(
        self, opened, emulator, tmp_path: Path, fault: str, code: str, says: str
    ) -> None:
        for number in range(1, 4):
            emulator.faults.append(fault)
            error = refused(opened(), tmp_path / "speech.pcm")
            assert (error.code, error.retryable) == (code, False)
            assert says in error.public
            assert emulator.orders == number
        assert speak(opened(), tmp_path / "speech.pcm").billed == len(SHORT)

    def test_an_id_nobody_has_is_an_unknown_voice(self, voice, tmp_path: Path) -> None:
        with pytest.raises(VoiceError) as caught:
            voice.speak(SHORT, voice.resolve("N" * 20), tmp_path / "speech.pcm")
        assert caught.value.code == "unknown_voice"

    @pytest.mark.parametrize("fault", ["busy", "error", "unavailable"])
    def test_what_passes_is_waited_for_within_reason(self, voice, emulator, tmp_path: Path, fault: str) -> None:
        emulator.faults += [fault] * (BUSY_TRIES - 1)
        assert speak(voice, tmp_path / "speech.pcm").billed == len(SHORT)
        emulator.faults += [fault] * BUSY_TRIES
        error = refused(voice, tmp_path / "speech.pcm", LONG)
        assert (error.code, error.retryable) == ("voice_busy", True)
        assert (emulator.orders, len(emulator.sales)) == (2 * BUSY_TRIES, 1)
        assert speak(voice, tmp_path / "speech.pcm", LONG).billed == len(LONG)

    def test_who_cannot_be_reached_was_not_asked(self, opened, tmp_path: Path) -> None:
        for _ in range(3):
            error = refused(opened(base_url="http://127.0.0.1:9"), tmp_path / "speech.pcm")
            assert (error.code, error.retryable) == ("unreachable", True)
        assert speak(opened(), tmp_path / "speech.pcm").billed == len(SHORT)

    def test_who_does_not_pick_up_was_not_asked(self, opened, tmp_path: Path, monkeypatch) -> None:
        monkeypatch.setattr("crosscut.voices.elevenlabs.CONNECT_SECONDS", 0.1)
        with socket.socket() as server, ExitStack() as stack:
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            for _ in range(2):  # Linux takes one more than it was told to
                caller = stack.enter_context(socket.socket())
                caller.setblocking(False)
                caller.connect_ex(server.getsockname())
            url = f"http://127.0.0.1:{server.getsockname()[1]}"
            for _ in range(2):
                error = refused(opened(base_url=url), tmp_path / "speech.pcm")
                assert (error.code, "ConnectTimeout" in error.detail) == ("unreachable", True)
        assert speak(opened(), tmp_path / "speech.pcm").billed == len(SHORT)

    @pytest.mark.parametrize("url", ["ftp://127.0.0.1", "http://[", "http://", "nowhere"])
    def test_an_address_that_is_none_is_refused(self, opened, url: str) -> None:
        with pytest.raises(VoiceError) as caught:
            opened(base_url=url)
        assert caught.value.code == "bad_address"

    def test_an_answer_that_says_nothing_of_the_limit_leaves_it(self, opened, emulator, tmp_path: Path) -> None:
        emulator.advertised, emulator.seconds = None, 0.5
        slots = opened()._slots[False]
        speaking = threading.Thread(target=speak, args=(opened(), tmp_path / "speech.pcm"))
        speaking.start()
        wait_until(lambda: emulator.orders)
        slots.learn(5)
        speaking.join()
        assert (slots.limit(), len(emulator.sales)) == (5, 1)

    def test_a_crowd_lowers_the_limit_and_is_waited_for(self, opened, emulator, tmp_path: Path) -> None:
        emulator.advertised = 5
        speak(opened(), tmp_path / "speech.pcm", "the limit is learnt")
        limit = opened()._slots[False].limit
        assert limit() == 5
        emulator.faults += ["crowded"] * 2
        speak(opened(), tmp_path / "speech.pcm")
        assert limit() == 3
        emulator.faults += ["crowded"] * CROWDED_TRIES
        error = refused(opened(), tmp_path / "speech.pcm", LONG)
        assert (error.code, error.retryable) == ("voice_busy", True)
        assert limit() == 1


LOST = ["hang_before", "hang_after", "hang_up", "gateway", "truncated"]


class TestUncertain:
    @pytest.mark.parametrize("fault", LOST)
    def test_a_line_without_an_answer_is_asked_for_twice_ever(self, opened, emulator, tmp_path, fault: str) -> None:
        emulator.faults += [fault] * 9
        codes = [refused(opened(timeout=0.5), tmp_path / "speech.pcm") for _ in range(4)]
        assert [(error.code, error.retryable) for error in codes] == [
            ("voice_timeout", True),
            ("voice_uncertain", False),
            ("voice_uncertain", False),
            ("voice_uncertain", False),
        ]
        assert emulator.orders == 2
        emulator.faults.clear()
        assert speak(opened(), tmp_path / "speech.pcm", LONG).billed == len(LONG)

    def test_an_answer_to_the_second_try_ends_the_doubt(self, opened, emulator, tmp_path: Path) -> None:
        emulator.faults += ["hang_up", ""]
        assert refused(opened(), tmp_path / "speech.pcm").code == "voice_timeout"
        assert speak(opened(), tmp_path / "speech.pcm").billed == len(SHORT)
        assert not list((tmp_path / "voices" / "tries").glob("*.json"))

    def test_errors_of_the_server_between_do_not_wash_a_doubt_away(self, opened, emulator, tmp_path: Path) -> None:
        emulator.faults += ["hang_up", "error", "busy", "hang_up", ""]
        assert refused(opened(), tmp_path / "speech.pcm").code == "voice_timeout"
        assert refused(opened(), tmp_path / "speech.pcm").code == "voice_uncertain"
        assert refused(opened(), tmp_path / "speech.pcm").code == "voice_uncertain"
        assert (emulator.orders, len(emulator.sales)) == (4, 2)

    def test_who_dies_while_an_answer_is_due_leaves_the_doubt(self, emulator, opened, tmp_path, where: str) -> None:
        emulator.faults += ["hang_after"] * 2
        for number in (1, 2):
            child = Child(emulator, tmp_path, where, [SHORT])
            child.go()
            wait_until(lambda number=number: len(emulator.sales) == number)
            child.process.kill()
            child.process.communicate()
        with commons_play.opened(where) as shared:
            assert refused(opened(shared=shared), tmp_path / "speech.pcm").code == "voice_uncertain"
        assert emulator.orders == 2


SCRIPT = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from crosscut.media import Manner
from crosscut.sandbox import Sandbox
from crosscut.voices.elevenlabs import ElevenLabsVoice

from commons_play import opened

key, url, voice_id, folder, where, out, *lines = sys.argv[1:]
with Sandbox(["crosscut.pcm"]) as sandbox, opened(where) as shared:
    voice = ElevenLabsVoice(sandbox, key, Path(folder), base_url=url, pause=0.05, shared=shared)
    resolved = voice.resolve(voice_id)
    print("ready", flush=True)
    sys.stdin.readline()
    with ThreadPoolExecutor(8) as pool:
        done = pool.map(lambda n: voice.speak(lines[n], resolved, Path(out, str(n))).billed, range(len(lines)))
        print(sum(done))
"""


class Child:
    """Another process that speaks `lines`, eight at a time."""

    number = 0

    def __init__(self, emulator: Emulator, folder: Path, where: str, lines: list[str]) -> None:
        Child.number += 1
        out = folder / f"child-{Child.number}"
        out.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, KEY, emulator.url, RACHEL, str(out / "own"), where, str(out), *lines],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def go(self) -> None:
        assert self.process.stdout.readline() == "ready\n"
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def billed(self) -> int:
        said, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        return int(said)


class TestProcesses:
    def test_two_with_the_same_lines_buy_them_once(self, emulator, tmp_path: Path, where: str) -> None:
        emulator.seconds, emulator.advertised = 0.3, 10
        lines = [f"This is line number {number}." for number in range(4)]
        children = [Child(emulator, tmp_path, where, lines + lines[:2]) for _ in range(2)]
        for child in children:
            child.go()
        assert sum(child.billed() for child in children) == sum(map(len, lines))
        assert sorted(sale.text for sale in emulator.sales) == lines
        assert emulator.orders == 4

    def test_no_more_at_once_than_was_learnt(self, emulator, tmp_path: Path, where: str) -> None:
        emulator.seconds, emulator.advertised, emulator.allowed = 0.15, 3, 3
        children = [
            Child(emulator, tmp_path, where, [f"Child {name} says line {number}." for number in range(12)])
            for name in "ab"
        ]
        for child in children:
            child.go()
        assert [child.billed() > 0 for child in children] == [True, True]
        assert emulator.most_at_once == 3
        assert (emulator.orders, len(emulator.sales)) == (24, 24)

    def test_a_crowd_is_spoken_in_the_end(self, emulator, tmp_path: Path, where: str) -> None:
        """The account is used elsewhere too: less is free than the headers say."""
        emulator.seconds, emulator.advertised, emulator.allowed = 0.05, 6, 2
        children = [
            Child(emulator, tmp_path, where, [f"Child {name} says line {number}." for number in range(8)])
            for name in "ab"
        ]
        for child in children:
            child.go()
        assert [child.billed() > 0 for child in children] == [True, True]
        assert len(emulator.sales) == 16


class TestSecrets:
    @pytest.mark.parametrize(
        "fault", ["", "echo", "echo_list", "hang_before", "hang_up", "truncated", "not_audio", *REFUSALS]
    )
    def test_the_key_is_nowhere_but_in_the_request(self, opened, emulator, tmp_path, caplog, fault: str) -> None:
        caplog.set_level(logging.DEBUG)
        voice = opened(timeout=0.5)
        emulator.faults += [fault] * 20
        if fault:
            error = refused(voice, tmp_path / "speech.pcm")
            assert KEY not in "".join(traceback.format_exception(error))
            assert KEY not in repr(vars(error))
            for chained in _chain(error):
                assert KEY not in f"{chained!r} {vars(chained)}"
                assert not type(chained).__module__.startswith(("httpx", "elevenlabs", "httpcore"))
        else:
            speak(voice, tmp_path / "speech.pcm")
        assert KEY not in repr(voice)
        assert KEY not in caplog.text
        kept = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert kept
        assert not [path for path in kept if KEY in path.name or KEY.encode() in path.read_bytes()]

    @pytest.mark.parametrize("key", ["", "sk with a space", "sk_nl\n", "“sk”", "sk_ü"])
    def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(self, opened, key: str) -> None:
        with pytest.raises(VoiceError) as caught:
            opened(api_key=key)
        assert caught.value.code == "invalid_key"
        assert not key or key not in str(caught.value)

    def test_the_sdk_is_not_imported_before_it_is_needed(self) -> None:
        code = (
            "import sys, crosscut.voices.elevenlabs; print(*sorted({'elevenlabs', 'httpx', 'av'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == ""

    def test_a_key_in_the_environment_is_not_used(self, emulator, tmp_path: Path) -> None:
        """The SDK reads it when it is imported."""
        code = (
            "import sys; from pathlib import Path; from crosscut.voices.elevenlabs import ElevenLabsVoice\n"
            f"voice = ElevenLabsVoice(None, {KEY!r}, Path({str(tmp_path)!r}), base_url={emulator.url!r})\n"
            "print(voice.resolve('Rachel').id)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"ELEVENLABS_API_KEY": "sk_wrong"},
        )
        assert done.stdout.strip() == RACHEL


class TestReplies:
    @pytest.mark.parametrize(
        ("reply", "kind"),
        [
            (Reply(200, []), "answer"),
            (Reply(200, '{"audio'), "lost"),
            (Reply(200, " <!doctype html>"), "refused"),
            (Reply(204, None), "answer"),
            (Reply(302, "<html>"), "refused"),
            (Reply(0), "lost"),
            (Reply(0, sent=False), "unsent"),
            (Reply(408), "lost"),
            (Reply(524, "<html>"), "lost"),
            (Reply(502, "<html>"), "busy"),
            (Reply(429, "slow down"), "busy"),
            (Reply(429, {"detail": "slow down"}), "busy"),
            (Reply(429, {"detail": {"status": "too_many_concurrent_requests"}}), "crowded"),
            (Reply(429, {"detail": {"code": "concurrent_limit_exceeded", "type": "rate_limit_error"}}), "crowded"),
            (Reply(403, {"detail": {"status": "output_format_not_allowed"}}), "format"),
            (Reply(403, {"detail": {"code": "subscription_required"}}), "format"),
            (Reply(500, {"detail": {"code": "subscription_required"}}), "busy"),
            (Reply(400, {"detail": ["anything"]}), "refused"),
            (Reply(400, ["anything"]), "refused"),
        ],
    )
    def test_what_was_sold_what_passes_and_what_does_not(self, reply: Reply, kind: str) -> None:
        assert reply.kind == kind
        if kind != "answer":
            assert refusal(reply).retryable == (kind in ("lost", "unsent", "busy", "crowded"))

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({"detail": {"status": "max_character_limit_exceeded"}}, "long_text"),
            ({"detail": {"code": "text_too_long"}}, "long_text"),
            ({"detail": {"status": "model_not_found"}}, "unknown_model"),
            ({"detail": {"status": "voice_not_found"}}, "unknown_voice"),
            ({"detail": {"status": "Not A Word <script>"}}, "refused"),
        ],
    )
    def test_words_have_codes(self, body: object, code: str) -> None:
        error = refusal(Reply(400, body))
        assert error.code == code
        assert "script" not in error.public

    @pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("999", 60), ("soon", None), ("", None)])
    def test_the_other_side_says_how_long_to_wait(self, header: str, seconds: float | None) -> None:
        reply = Reply(429, headers={"retry-after": header})
        assert reply.wait() == seconds
        assert refusal(reply).after == seconds
        waits = []
        patience = _Patience(1.0)
        while (wait := patience.after(reply)) is not None:
            waits.append(wait)
        assert waits == [max(wait, seconds or 0) for wait in (1, 2, 4, 8)]


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


class TestEmulator:
    """It must be as strict as what it stands for."""

    def post(self, emulator: Emulator, path: str, body: dict[str, Any], key: str = KEY) -> int:
        import urllib.error
        import urllib.request

        request = urllib.request.Request(emulator.url + path, json.dumps(body).encode(), {"xi-api-key": key})
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def test_it_refuses_what_nobody_may_send(self) -> None:
        good = {"text": "Hello", "model_id": "eleven_v3"}
        path = f"/v1/text-to-speech/{RACHEL}/with-timestamps?output_format=pcm_44100"
        odd = [
            (path, good | {"texts": "Hello"}),
            (path, good | {"text": " "}),
            (path, good | {"text": "x" * 5_001}),
            (path, good | {"voice_settings": {"stability": 2}}),
            (path, good | {"voice_settings": {"mood": 1}}),
            (path, good | {"model_id": "eleven_multilingual_v2", "language_code": "de"}),
            (path.replace("pcm_44100", "flac"), good),
            (path.partition("?")[0], good),
            (path.replace("/with-timestamps", ""), good),
        ]
        with pytest.raises(AssertionError), Emulator() as emulator:
            assert self.post(emulator, path, good) == 200
            assert self.post(emulator, path, good, "sk_wrong") == 401
            assert not emulator.complaints
            for number, (where, body) in enumerate(odd):
                assert self.post(emulator, where, body) == 422
                assert len(emulator.complaints) == number + 1
            assert len(emulator.sales) == 1
