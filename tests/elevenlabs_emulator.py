"""The part of ElevenLabs that crosscut uses, on a real socket: it checks, sells and fails as the real one does.

What no client of ours may send is refused and remembered; `close` fails the test then. Faults are served one by one to
the next orders of speech.
"""

from __future__ import annotations

import base64
import io
import json
import wave
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import av
import numpy as np

from emulating import Emulating, Server

if TYPE_CHECKING:
    from collections.abc import Callable

RATE = 44_100
CHARACTERS_PER_SECOND = 15
KEY = "sk_the_right_key_0123456789"

FORMATS = {"pcm_44100": "pro", "wav_44100": "pro", "mp3_44100_128": "free", "pcm_24000": "free"}
SETTINGS = {
    "stability": (0, 1),
    "similarity_boost": (0, 1),
    "style": (0, 1),
    "speed": (0.7, 1.2),
    "use_speaker_boost": (False, True),
}
FIELDS = {"text", "model_id", "language_code", "voice_settings"}
MODELS = {"eleven_multilingual_v2": 10_000, "eleven_flash_v2_5": 40_000, "eleven_v3": 5_000, "eleven_tiny": 100}
VOICES = (
    ("21m00Tcm4TlvDq8ikWAM", "Rachel"),
    ("EXAVITQu4vr4xnSDxMaL", "Sarah - Mature, Reassuring, Confident"),
    ("pNInz6obpgDQGcFmaJgB", "Adam"),
    ("AZnzlk1XvdvUeBnXmlld", "Twin"),
    ("ErXwobaYiN019PkySvjV", "TWIN"),
    ("MF3mGyEYCl7XYWbV9V6O", "Émilie"),
)

REFUSALS = {
    "invalid_key": (401, "invalid_api_key"),
    "quota": (401, "quota_exceeded"),
    "credits": (402, "insufficient_credits"),
    "permission": (401, "missing_permissions"),
    "unusual": (401, "detected_unusual_activity"),
    "crowded": (429, "too_many_concurrent_requests"),
    "busy": (429, "system_busy"),
    "error": (500, "internal_server_error"),
    "unavailable": (503, "unavailable"),
}
"""Refused before anything is sold."""


@dataclass(frozen=True)
class Sale:
    text: str
    voice: str
    model: str
    form: str
    body: dict[str, Any]


@dataclass
class Emulator(Emulating):
    """`allowed` is how many orders may be under way at once, `advertised` what the headers say of it."""

    voices: tuple[tuple[str, str], ...] = VOICES
    plan: str = "pro"
    allowed: int = 1_000
    advertised: int | None = 2
    seconds: float = 0.0
    """How long an order takes."""
    page: int = 100
    """Most voices of a page, whatever is asked for."""
    billing: str = "character-cost"
    listing: str | None = None
    """The fault of every list that is asked for."""
    faults: deque[str] = field(default_factory=deque)
    sales: list[Sale] = field(default_factory=list)
    orders: int = 0
    lists: int = 0
    most_at_once: int = 0
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.at_once = 0
        self.serve(_Handler)


class _RefusedError(Exception):
    def __init__(self, status: int, word: str, message: str = "") -> None:
        super().__init__(word)
        self.status, self.word, self.message = status, word, message


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(self.listed)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.answer(lambda: self.ordered(json.loads(body)))

    def answer(self, work: Callable[[], None]) -> None:
        try:
            self.check_key()
            work()
        except _RefusedError as refusal:
            detail = {"status": refusal.word, "message": refusal.message or f"{refusal.word}, says the emulator"}
            self.send(refusal.status, json.dumps({"detail": detail}).encode())

    def check_key(self) -> None:
        if self.headers["xi-api-key"] != KEY:
            raise _RefusedError(401, "invalid_api_key")

    def complain(self, sentence: str) -> None:
        raise self.complaint(sentence)

    def complaint(self, sentence: str) -> Exception:
        self.server.emulator.complaints.append(sentence)
        return _RefusedError(422, "complaint", sentence)

    def send(
        self, status: int, body: bytes, headers: dict[str, Any] | None = None, kind: str = "application/json"
    ) -> None:
        self.send_response(status)
        for name, value in {"content-type": kind, "content-length": len(body), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def listed(self) -> None:
        emulator = self.server.emulator
        with emulator.lock:
            emulator.lists += 1
        if emulator.listing == "html":
            self.send(200, b"<html>hotel</html>", kind="text/html")
            return
        if emulator.listing == "echo":
            raise _RefusedError(400, "odd", f"your key is {KEY}")
        if emulator.listing:
            raise _RefusedError(*REFUSALS[emulator.listing])
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/v1/models":
            models = [
                {
                    "model_id": model,
                    "name": model,
                    "can_do_text_to_speech": True,
                    "maximum_text_length_per_request": most,
                    "model_rates": {"character_cost_multiplier": 1.0},
                }
                for model, most in MODELS.items()
            ]
            voice_changer = {"model_id": "eleven_english_sts_v2", "can_do_text_to_speech": False}
            self.send(200, json.dumps([*models, voice_changer]).encode())
        elif url.path == "/v2/voices":
            self.send(200, json.dumps(self.page_of(query)).encode())
        else:
            self.complain(f"GET {self.path}")

    def page_of(self, query: dict[str, str]) -> dict[str, Any]:
        if set(query) - {"page_size", "next_page_token", "search"} or int(query.get("page_size", 10)) > 100:
            self.complain(f"a list of voices with {query}")
        emulator = self.server.emulator
        term = query.get("search", "").lower()
        found = [(voice, name) for voice, name in emulator.voices if term in name.lower()]
        start = int(query.get("next_page_token", "page-0").removeprefix("page-"))
        stop = start + min(int(query.get("page_size", 10)), emulator.page)
        more = stop < len(found)
        return {
            "voices": [
                {"voice_id": voice, "name": name, "category": "premade", "labels": {}}
                for voice, name in found[start:stop]
            ],
            "has_more": more,
            "total_count": len(found),
            "next_page_token": f"page-{stop}" if more else None,
        }

    def ordered(self, body: dict[str, Any]) -> None:
        emulator = self.server.emulator
        with emulator.lock:
            emulator.orders += 1
            fault = emulator.faults.popleft() if emulator.faults else ""
            emulator.at_once += 1
            emulator.most_at_once = max(emulator.most_at_once, emulator.at_once)
            crowded = emulator.at_once > emulator.allowed
        try:
            if crowded:
                raise _RefusedError(*REFUSALS["crowded"])
            self.serve(fault, body)
        finally:
            with emulator.lock:
                emulator.at_once -= 1

    def serve(self, fault: str, body: dict[str, Any]) -> None:
        sale = self.checked(body)
        if fault == "hang_before":
            self.server.emulator.closing.wait(20)
        elif fault == "html":
            self.send(200, b"\n<html>Log in to the hotel</html>", kind="text/html")
        elif fault == "moved":
            self.send(307, b"", {"location": f"{self.server.emulator.url}/elsewhere"})
        elif fault == "nothing":
            self.send(200, b"{}")
        elif fault == "echo":
            raise _RefusedError(400, "odd", f"your key is {KEY}")
        elif fault == "echo_list":
            self.send(422, json.dumps({"detail": [{"loc": ["header"], "msg": f"the key {KEY}"}]}).encode())
        elif fault in REFUSALS:
            raise _RefusedError(*REFUSALS[fault])
        else:
            self.sell(fault, sale)

    def sell(self, fault: str, sale: Sale) -> None:
        emulator = self.server.emulator
        emulator.closing.wait(emulator.seconds)
        with emulator.lock:
            emulator.sales.append(sale)
        if fault == "gateway":
            raise _RefusedError(504, "gateway_timeout")
        if fault == "hang_after":
            emulator.closing.wait(20)
            return
        if fault == "hang_up":
            self.close_connection = True
            return
        answer = _speech(sale)
        if fault in SPOILED:
            SPOILED[fault](answer, sale.text)
        data = json.dumps(answer).encode()
        headers = {"request-id": "r1", "current-concurrent-requests": emulator.at_once}
        if emulator.billing:
            headers[emulator.billing] = len(sale.text)
        if emulator.advertised:
            headers["maximum-concurrent-requests"] = emulator.advertised
        if fault == "truncated":
            data = data[: len(data) // 2]
        self.send(200, data, headers)

    def checked(self, body: dict[str, Any]) -> Sale:
        url = urlsplit(self.path)
        parts, query = url.path.strip("/").split("/"), parse_qs(url.query)
        if len(parts) != 4 or parts[:2] != ["v1", "text-to-speech"] or parts[3] != "with-timestamps":
            self.complain(f"POST {self.path}")
        if set(query) != {"output_format"} or set(body) - FIELDS:
            self.complain(f"an order with {sorted(query)} and {sorted(body)}")
        form, model, text = query["output_format"][0], str(body.get("model_id")), body.get("text")
        if form not in FORMATS:
            self.complain(f"the output format {form}")
        if not isinstance(text, str) or not text.strip():
            raise self.complaint("an order without text")
        self.check_manner(body)
        if parts[2] not in dict(self.server.emulator.voices):
            raise _RefusedError(404, "voice_not_found")
        if model not in MODELS:
            raise _RefusedError(400, "model_not_found")
        if len(text) > MODELS[model]:
            self.complain(f"{len(text)} characters for {model}")
        if FORMATS[form] == "pro" and self.server.emulator.plan != "pro":
            raise _RefusedError(
                403, "output_format_not_allowed", f"'{form}' is only available on the Pro tier and above"
            )
        return Sale(text, parts[2], model, form, body)

    def check_manner(self, body: dict[str, Any]) -> None:
        for name, value in body.get("voice_settings", {}).items():
            low, high = SETTINGS.get(name, (1, 0))
            if not low <= value <= high:
                self.complain(f"the setting {name} of {value}")
        language = body.get("language_code")
        if language is not None and (len(language) != 2 or body.get("model_id", "").startswith("eleven_multi")):
            self.complain(f"the language {language} for {body.get('model_id')}")


def _speech(sale: Sale) -> dict[str, Any]:
    """A tone for every word, silence for the spaces; each character lasts as long as any other."""
    return {
        "audio_base64": base64.b64encode(_encoded(tones(sale.text), sale.form)).decode(),
        "alignment": _alignment(list(sale.text)),
        "normalized_alignment": _alignment(list(sale.text.upper().replace("&", "and"))),
    }


def _alignment(characters: list[str]) -> dict[str, Any]:
    return {
        "characters": characters,
        "character_start_times_seconds": [round(n / CHARACTERS_PER_SECOND, 3) for n in range(len(characters))],
        "character_end_times_seconds": [round((n + 1) / CHARACTERS_PER_SECOND, 3) for n in range(len(characters))],
    }


def tones(text: str) -> np.ndarray:
    each = RATE // CHARACTERS_PER_SECOND
    heard = np.repeat([0.0 if character.isspace() else 0.3 for character in text], each)
    return (heard * np.sin(2 * np.pi * 330 * np.arange(len(heard)) / RATE) * 32_767).astype(np.int16)


def _encoded(sound: np.ndarray, form: str) -> bytes:
    if form == "pcm_44100":
        return sound.tobytes()
    file = io.BytesIO()
    if form == "wav_44100":
        with wave.open(file, "wb") as target:
            target.setparams((1, 2, RATE, 0, "NONE", ""))
            target.writeframes(sound.tobytes())
        return file.getvalue()
    with av.open(file, "w", "mp3") as container:
        stream = container.add_stream("mp3", rate=RATE, layout="mono")
        stream.bit_rate = 128_000
        frame = av.AudioFrame.from_ndarray(sound.reshape(1, -1), format="s16p", layout="mono")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _with_sound(sound: Callable[[str], bytes | None]) -> Callable[[dict[str, Any], str], None]:
    def spoil(answer: dict[str, Any], text: str) -> None:
        data = sound(text)
        answer["audio_base64"] = None if data is None else base64.b64encode(data).decode()

    return spoil


def _with_times(change: Callable[[list[float]], list[float]]) -> Callable[[dict[str, Any], str], None]:
    def spoil(answer: dict[str, Any], text: str) -> None:
        told = answer["alignment"]
        for name in ("character_start_times_seconds", "character_end_times_seconds"):
            told[name] = change(told[name])

    return spoil


SPOILED: dict[str, Callable[[dict[str, Any], str], None]] = {
    "no_base64": lambda answer, _: answer.update(audio_base64="!!!! not base64 !!!!"),
    "null_sound": _with_sound(lambda _: None),
    "no_sound": _with_sound(lambda _: b""),
    "silence": _with_sound(lambda text: bytes(2 * RATE * len(text) // CHARACTERS_PER_SECOND)),
    "not_audio": _with_sound(lambda _: b"\x00\x01not audio at all" * 9),
    "short": _with_sound(lambda text: tones(text)[: RATE // 5].tobytes()),
    "mp3_as_pcm": _with_sound(lambda text: _encoded(tones(text), "mp3_44100_128")),
    "wav_as_pcm": _with_sound(lambda text: _encoded(tones(text), "wav_44100")),
    "odd": _with_sound(lambda text: tones(text).tobytes() + b"\x01"),
    "no_alignment": lambda answer, _: answer.update(alignment=None),
    "text_alignment": lambda answer, _: answer.update(alignment="soon"),
    "empty_alignment": lambda answer, _: answer.update(alignment=_alignment([])),
    "other_text": lambda answer, _: answer.update(alignment=_alignment(list("quite another text"))),
    "uneven": lambda answer, _: answer["alignment"]["characters"].pop(),
    "no_number": _with_times(lambda times: [float("nan"), *times[1:]]),
    "late": _with_times(lambda times: [time + 0.3 for time in times]),
    "repeated": _with_times(lambda times: times[: len(times) // 2] + times[: len(times) - len(times) // 2]),
    "backwards": _with_times(lambda times: times[::-1]),
    "negative": _with_times(lambda times: [time - 0.3 for time in times]),
}
"""What is paid for and lies."""
