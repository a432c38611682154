"""What ElevenLabs answers: which of it was charged, which of it passes by itself, and the sentence for the rest."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from crosscut.errors import VoiceError

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["answer", "unsent", "lost", "crowded", "busy", "format", "refused"]

CROWDED = frozenset({"too_many_concurrent_requests", "concurrent_limit_exceeded"})
QUOTA = frozenset({"quota_exceeded", "insufficient_credits"})
NO_FORMAT = frozenset({"output_format_not_allowed", "subscription_required"})
NO_VOICE = frozenset({"voice_not_found", "invalid_voice_id"})
NO_MODEL = frozenset({"model_not_found", "unsupported_model", "invalid_model_id"})
TOO_LONG = frozenset({"max_character_limit_exceeded", "text_too_long"})
NO_PERMISSION = frozenset({"missing_permissions", "insufficient_permissions"})
"""Words of `detail.status` and `detail.code`; the vendor's help uses the older of each pair, its API reference both."""

GATEWAY_TIMEOUTS = frozenset({408, 504, 522, 524})
"""Somebody between us and ElevenLabs waited no longer: the work may have been done."""
LONGEST_WAIT = 60.0
SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class Reply:
    """`status` 0: no whole answer came, and `sent` says whether the request may have been received.

    `body` is the parsed answer, or its text where it is no JSON.
    """

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    sent: bool = True
    fault: str = ""
    """Name of the exception; its text may hold the request, and so the key."""

    @property
    def words(self) -> frozenset[str]:
        """What the answer calls its reason, by all the names it has for it."""
        detail = self.body.get("detail") if isinstance(self.body, dict) else None
        if not isinstance(detail, dict):
            return frozenset()
        given = (detail.get("status"), detail.get("code"))
        return frozenset(word for word in given if isinstance(word, str) and re.fullmatch(r"[a-z_]{1,60}", word))

    @property
    def message(self) -> str:
        """What ElevenLabs says about it, for the log."""
        detail = self.body.get("detail") if isinstance(self.body, dict) else self.body
        said = detail.get("message") if isinstance(detail, dict) else detail
        return f"{self.status} {' '.join(sorted(self.words))} {self.fault} {str(said or '')[:SHOWN_CHARACTERS]}".strip()

    @property
    def is_page(self) -> bool:
        """A web page: of a hotspot, a proxy or a wrong address, never of the API."""
        return isinstance(self.body, str) and self.body.lstrip().startswith("<")

    @property
    def kind(self) -> Kind:
        if self.status == 0:
            return "lost" if self.sent else "unsent"
        if 200 <= self.status < 300:
            return "answer" if not isinstance(self.body, str) else "refused" if self.is_page else "lost"
        if self.status in GATEWAY_TIMEOUTS:
            return "lost"
        if self.status == 429:
            return "crowded" if self.words & CROWDED else "busy"
        if self.status >= 500:
            return "busy"
        return "format" if self.words & NO_FORMAT and self.status in (400, 401, 402, 403) else "refused"

    def number(self, *names: str) -> int | None:
        """The first of these headers that is a whole number."""
        for name in names:
            value = self.headers.get(name, "")
            if re.fullmatch("[0-9]{1,9}", value):
                return int(value)
        return None

    def wait(self) -> float | None:
        """Seconds the other side asks us to wait."""
        seconds = self.number("retry-after")
        return None if seconds is None else min(float(seconds), LONGEST_WAIT)


def refusal(reply: Reply, *, free: bool = False) -> VoiceError:
    """The error for a reply that no further try is made for; `free`: to what costs nothing."""
    words, detail = reply.words, reply.message
    if reply.kind == "unsent" or (free and reply.kind == "lost"):
        return _later(reply, "unreachable", "ElevenLabs cannot be reached; check the network of this machine")
    if reply.kind == "lost":
        return _later(
            reply,
            "voice_timeout",
            "ElevenLabs gave no whole answer and may have charged for this voice-over; it can be tried once more",
        )
    if reply.kind in ("crowded", "busy"):
        return _later(reply, "voice_busy", "ElevenLabs is too busy now; try again later")
    if words & QUOTA or reply.status == 402:
        return VoiceError(
            "the ElevenLabs account has too few credits left for this voice-over: buy some, or wait until they are"
            " renewed, and send the job again",
            code="quota_exceeded",
            detail=detail,
        )
    if words & NO_PERMISSION:
        return VoiceError(
            "the ElevenLabs API key lacks a permission: allow it “Text to Speech” and to read “Voices” and “Models”",
            code="key_permission",
            detail=detail,
        )
    return _refusal_by_word(reply)


def _refusal_by_word(reply: Reply) -> VoiceError:
    words, detail = reply.words, reply.message
    if words & NO_VOICE:
        public, code = "ElevenLabs has no voice with this id; name one of the account's voices", "unknown_voice"
    elif words & NO_MODEL:
        public, code = "ElevenLabs has no such model; name another, or none", "unknown_model"
    elif words & TOO_LONG:
        public, code = "this voice-over is longer than its model takes; shorten or split it", "long_text"
    elif reply.is_page or 200 <= reply.status < 400:
        public = "what answers at the address of ElevenLabs is not its API: check the address and the network"
        code = "bad_answer"
    elif reply.status == 401 and words <= {"invalid_api_key", "needs_authorization", "unauthorized"}:
        public, code = "ElevenLabs refuses the API key: set the right one in CROSSCUT_ELEVENLABS_API_KEY", "invalid_key"
    else:
        reason = ", ".join(sorted(words)) or f"status {reply.status}"
        public, code = f"ElevenLabs refuses this voice-over ({reason}): change it, or see the log", "refused"
    return VoiceError(public, code=code, detail=detail)


def _later(reply: Reply, code: str, public: str) -> VoiceError:
    return VoiceError(public, code=code, retryable=True, detail=reply.message, after=reply.wait())
