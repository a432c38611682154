"""ElevenLabs: voices like people's, bought by the character; what was bought once is never bought again.

Its SDK takes a second to import, so that is done when it is first needed. Nothing it raises goes further: its
exceptions hold the request, and so the key.
"""

from __future__ import annotations

import hashlib
import threading
import time
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from crosscut.artifacts import artifact_key
from crosscut.errors import VoiceError
from crosscut.files import shared_in
from crosscut.media import PLAIN, Manner, Seconds
from crosscut.slots import Slots
from crosscut.voices import MOST_CHARACTERS, Resolved, Speech, alignment, check_text
from crosscut.voices.answers import FORMATS, bought, decode
from crosscut.voices.catalogue import Catalogue
from crosscut.voices.purchases import MOST_TRIES, Purchases, uncertain
from crosscut.voices.replies import Reply, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from elevenlabs.client import ElevenLabs
    from elevenlabs.core.request_options import RequestOptions

    from crosscut.commons import Shared
    from crosscut.sandbox import Sandbox

USUAL_MODEL = "eleven_multilingual_v2"
PRICES = {
    "eleven_multilingual_v2": 0.10 / 1_000,
    "eleven_v3": 0.10 / 1_000,
    "eleven_flash_v2_5": 0.05 / 1_000,
    "eleven_flash_v2": 0.05 / 1_000,
    "eleven_turbo_v2_5": 0.05 / 1_000,
    "eleven_turbo_v2": 0.05 / 1_000,
}
"""US dollars a character: the list prices of the API in the middle of 2026."""
CHARACTERS_PER_SECOND = 15
READ_SECONDS = 240.0
CONNECT_SECONDS = 10.0
ONCE: RequestOptions = {"max_retries": 0}
"""The SDK would buy again after a conflict or an error of the server."""
PAGE = 100
MOST_PAGES = 50
BUSY_TRIES = 5
CROWDED_TRIES = 12
LONGEST_PAUSE = 8.0


class ElevenLabsVoice:
    """The sandbox must know the module `crosscut.pcm`; `folder` is never emptied."""

    name: ClassVar[str] = "elevenlabs"
    free: ClassVar[bool] = False

    def __init__(
        self,
        sandbox: Sandbox,
        api_key: str,
        folder: Path,
        *,
        default: str | None = None,
        model: str = USUAL_MODEL,
        base_url: str | None = None,
        prices: Mapping[str, float] | None = None,
        timeout: float = READ_SECONDS,
        pause: float = 1.0,
        shared: Shared | None = None,
    ) -> None:
        """What is bought, and how many ask at once, is the same for all who have `shared`, by default the folder.

        `default` is the id or name of the voice for lines that name none, `model` what speaks them.

        `prices` in US dollars a character, by model, go before `PRICES`; `timeout` is how many seconds an answer may
        take, `pause` the first wait before another try, which then doubles.
        Raises VoiceError "invalid_key" and "bad_address".
        """
        if not api_key or not all("!" <= character <= "~" for character in api_key):
            raise VoiceError(
                "the ElevenLabs API key holds a character that no key has: set it again, without spaces or quotes",
                code="invalid_key",
            )
        if base_url is not None and not _is_address(base_url):
            raise VoiceError(
                "the address of ElevenLabs must be like https://api.eu.residency.elevenlabs.io", code="bad_address"
            )
        self._sandbox = sandbox
        self._api_key = api_key
        self._base_url = base_url
        self._default = default
        self._model = model
        self._prices = {**PRICES, **(prices or {})}
        self._timeout = timeout
        self._pause = pause
        self._lock = threading.Lock()
        self._sdk: ElevenLabs | None = None
        account = hashlib.sha256(f"crosscut account {base_url} {api_key}".encode()).hexdigest()[:16]
        self._purchases = Purchases(folder, shared)
        shared = shared or shared_in(folder)
        self._catalogue = Catalogue(shared, f"account-{account}", self._list_voices, self._list_models)
        self._slots = {
            quick: Slots(shared, f"slots-{account}-{'quick' if quick else 'usual'}") for quick in (False, True)
        }

    def __repr__(self) -> str:
        return f"ElevenLabsVoice(default={self._default!r}, model={self._model!r})"

    def price(self, manner: Manner) -> float:
        """That of the dearest model where the price of this one is not known."""
        return self._prices.get(manner.model or self._model, max(self._prices.values()))

    def owned(self, text: str, resolved: Resolved) -> bool:
        return self._purchases.owns(self._purchase_key(text, resolved))

    def resolve(self, voice: str | None, manner: Manner = PLAIN) -> Resolved:
        """By id or name, in any case; "Sarah" finds "Sarah - Mature, Reassuring" where no other has that name.

        Raises VoiceError "unknown_voice", "ambiguous_voice", "no_voices", and what `speak` raises of the account.
        """
        wanted = self._default if voice is None or not voice.strip() else voice.strip()
        return Resolved(self._catalogue.voice(wanted), None, self._whole(manner))

    def estimate(self, text: str) -> Seconds:
        return Seconds(Fraction(len(text), CHARACTERS_PER_SECOND))

    def key(self, text: str, resolved: Resolved) -> tuple[str, ...]:
        """The output format is not in it: what was bought once is used whatever the plan allows today."""
        return (self.name, "1", self._purchase_key(text, resolved))

    def speak(self, text: str, resolved: Resolved, output: Path) -> Speech:
        check_text(text)
        key, manner = self._purchase_key(text, resolved), self._whole(resolved.manner)
        model = str(manner.model)
        answer, billed = self._purchases.find(key), 0
        if answer is None:
            check_text(text, min(self._catalogue.most_characters(model) or MOST_CHARACTERS, MOST_CHARACTERS))
            with self._purchases.locked(key):
                answer = self._purchases.find(key)
                if answer is None:
                    answer, billed = self._buy(text, resolved.id, manner, key)
        samples = decode(self._sandbox, text, answer, output)
        words, timed = alignment.words(text, answer["alignment"], samples, tagged=model.startswith("eleven_v3"))
        untimed = None if timed else "ElevenLabs gave no times for this voice-over: its captions keep an even pace"
        notes = tuple(note for note in (resolved.note, untimed) if note)
        # The header counts credits, of which the cheaper models take fewer: the price is by the character.
        cost = len(text) * self.price(manner) if billed else 0.0
        return Speech(samples, words, resolved.id, notes, billed, cost)

    def _whole(self, manner: Manner) -> Manner:
        """With a model; without the language where that is heard from the text alone and naming it is an error."""
        model = manner.model or self._model
        language = None if model.startswith(("eleven_multilingual", "eleven_mono")) else manner.language
        settings = ((name, value if isinstance(value, bool) else float(value)) for name, value in manner.settings)
        return Manner(model, language, tuple(sorted(settings)))

    def _purchase_key(self, text: str, resolved: Resolved) -> str:
        manner = self._whole(resolved.manner)
        return artifact_key(
            "elevenlabs",
            text=text,
            voice=resolved.id,
            model=manner.model,
            language=manner.language,
            settings=manner.settings,
        )

    def _buy(self, text: str, voice: str, manner: Manner, key: str) -> tuple[dict[str, Any], int]:
        """The answer as it is kept, and what was billed for it now; the caller holds the lock of `key`."""
        slots = self._slots["flash" in str(manner.model) or "turbo" in str(manner.model)]
        patience = _Patience(self._pause)
        while True:
            form = next((form for form in FORMATS[:-1] if not self._catalogue.refused(form)), FORMATS[-1])
            with slots.taken() as limit:
                # Whoever waits for long, or is halted, may have lost the lock to another.
                answer = self._purchases.find(key)
                if answer is not None:
                    return answer, 0
                doubt = self._purchases.risk(key)
                reply = self._ask(partial(_order, text=text, voice=voice, manner=manner, form=form))
            answer = bought(reply, form, len(text))
            if answer is not None:
                billed, answer = answer["billed"], self._purchases.keep(key, answer)
                allowed = reply.number("maximum-concurrent-requests")
                if allowed is not None:
                    slots.learn(allowed)
                return answer, billed
            if reply.kind == "lost":
                raise uncertain() if self._purchases.tries(key) >= MOST_TRIES else refusal(reply)
            self._purchases.spared(key, doubt)
            if reply.kind == "crowded":
                slots.lower(limit)
            if reply.kind == "format" and form != FORMATS[-1]:
                self._catalogue.refuse(form)
            elif (seconds := patience.after(reply)) is None:
                raise refusal(reply)
            else:
                time.sleep(seconds)

    def _list_voices(self) -> list[tuple[str, str]]:
        voices: dict[str, str] = {}
        token: str | None = None
        for _ in range(MOST_PAGES):
            page = self._told(partial(_page, token=token), _Patience(self._pause))
            listed = getattr(page, "voices", None)
            for entry in listed if isinstance(listed, list) else []:
                voice, name = getattr(entry, "voice_id", None), getattr(entry, "name", None)
                if isinstance(voice, str) and isinstance(name, str):
                    voices[voice] = name
            token = getattr(page, "next_page_token", None)
            if not token or not getattr(page, "has_more", False):
                break
        return list(voices.items())

    def _list_models(self) -> dict[str, int | None]:
        models = self._told(lambda sdk: sdk.models.with_raw_response.list(request_options=ONCE), None)
        return {
            str(entry.model_id): getattr(entry, "maximum_text_length_per_request", None)
            for entry in (models if isinstance(models, list) else [])
            if getattr(entry, "model_id", None) and getattr(entry, "can_do_text_to_speech", None) is not False
        }

    def _told(self, call: Callable[[ElevenLabs], Any], patience: _Patience | None) -> Any:
        """The answer to what costs nothing, tried again as long as there is `patience`."""
        while True:
            reply = self._ask(call)
            if reply.kind == "answer":
                return reply.body
            seconds = patience.after(reply) if patience else None
            if seconds is None:
                raise refusal(reply, free=True)
            time.sleep(seconds)

    def _ask(self, call: Callable[[ElevenLabs], Any]) -> Reply:
        with self._lock:
            if self._sdk is None:
                self._sdk = _open(self._api_key, self._base_url, self._timeout)
        return _asked(self._sdk, call, self._api_key)


class _Patience:
    """How long to wait before another try, and when to give up."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._left = {"crowded": CROWDED_TRIES, "busy": BUSY_TRIES, "unsent": BUSY_TRIES, "lost": BUSY_TRIES}

    def after(self, reply: Reply) -> float | None:
        """Seconds; None where waiting does not help, or did not."""
        left = self._left.get(reply.kind, 1) - 1
        if left <= 0:
            return None
        self._left[reply.kind] = left
        pause = min(self._pause, LONGEST_PAUSE)
        self._pause *= 2
        return max(pause, reply.wait() or 0.0)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False


def _open(api_key: str, base_url: str | None, timeout: float) -> ElevenLabs:
    try:
        import httpx  # noqa: PLC0415 - as below
        from elevenlabs.client import ElevenLabs  # noqa: PLC0415 - takes a second, and only this needs it
    except ImportError:
        missing = True
    else:
        missing = False
    if missing:
        raise VoiceError(
            "ElevenLabs is not installed here: install crosscut[elevenlabs], or choose another voice",
            code="unavailable",
        )
    # The SDK hands its one number to the client, which takes several as well.
    patience: Any = httpx.Timeout(timeout, connect=CONNECT_SECONDS)
    return ElevenLabs(
        api_key=api_key,
        base_url=base_url,
        timeout=patience,
        # A connection kept open may be closed by the other side just as it is used again, which looks like an answer
        # that was lost and paid for. Elsewhere than where it was sent the key has no business.
        httpx_client=httpx.Client(limits=httpx.Limits(max_keepalive_connections=0), follow_redirects=False),
    )


def _asked(sdk: ElevenLabs, call: Callable[[ElevenLabs], Any], api_key: str) -> Reply:
    """Nothing is raised, so that no error that holds the key is chained to ours."""
    import httpx  # noqa: PLC0415 - loaded with the SDK
    from elevenlabs.core.api_error import ApiError  # noqa: PLC0415
    from elevenlabs.core.parse_error import ParsingError  # noqa: PLC0415

    try:
        response = call(sdk)
        return Reply(200, response.data, response.headers)
    except (ApiError, ParsingError) as error:
        return Reply(error.status_code or 0, _without(error.body, api_key), error.headers or {})
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as error:
        return Reply(0, sent=False, fault=type(error).__name__)
    except Exception as error:  # noqa: BLE001 - the SDK makes objects of whatever it is sent
        return Reply(0, fault=type(error).__name__)


def _without(body: Any, api_key: str) -> Any:
    """What came, without the key where it is repeated."""
    if isinstance(body, dict):
        return {name: _without(value, api_key) for name, value in body.items()}
    if isinstance(body, list):
        return [_without(value, api_key) for value in body]
    return body.replace(api_key, "[key]") if isinstance(body, str) else body


def _page(sdk: ElevenLabs, token: str | None) -> Any:
    return sdk.voices.with_raw_response.search(page_size=PAGE, next_page_token=token, request_options=ONCE)


def _order(sdk: ElevenLabs, text: str, voice: str, manner: Manner, form: str) -> Any:
    from elevenlabs.types.voice_settings import VoiceSettings  # noqa: PLC0415 - loaded with the SDK

    chosen: dict[str, Any] = {"model_id": manner.model}
    if manner.language:
        chosen["language_code"] = manner.language
    if manner.settings:
        settings: dict[str, Any] = dict(manner.settings)
        chosen["voice_settings"] = VoiceSettings(**settings)
    return sdk.text_to_speech.with_raw_response.convert_with_timestamps(
        voice, text=text, output_format=form, request_options=ONCE, **chosen
    )
