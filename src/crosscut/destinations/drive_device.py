"""Somebody's consent to files of theirs in Google Drive, given on another machine: by a short code that is typed there.

The flow for devices (RFC 8628), which Google has for files that an app made itself ("OAuth 2.0 for TV and Limited-Input
Device Applications", allowed scopes), and for clients of a type of its own.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crosscut.destinations.drive_auth import FILE_SCOPE, WRONG_CLIENT
from crosscut.destinations.drive_consent import ask, settle
from crosscut.destinations.drive_wire import Wire
from crosscut.errors import DeliverError
from crosscut.transfer import shown

if TYPE_CHECKING:
    from typing import Any

    from crosscut.commons import Notes
    from crosscut.destinations.drive_auth import Urls

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
SLOWER = 5.0
"""Seconds by which each `slow_down` makes the pauses longer (RFC 8628, 3.5)."""
WRONG_TYPE = (
    "a code to type needs an OAuth client of the type “TVs and Limited Input devices”: set CROSSCUT_GOOGLE_CLIENT_ID"
    " and CROSSCUT_GOOGLE_CLIENT_SECRET to one, or use --manual with one of the type “Desktop app”"
)
REFUSED = "Google gave no consent ({}): run crosscut auth google again, and allow it"


@dataclass(frozen=True)
class Code:
    """What the person types at `page`, within `lasts` seconds; Google may be asked every `interval` seconds."""

    typed: str
    page: str
    lasts: float
    interval: float
    secret: str = field(repr=False)


@dataclass(frozen=True)
class DeviceConsent:
    urls: Urls
    client_id: str
    client_secret: str = field(repr=False)
    second: float = 1.0
    """How long a second of waiting is."""

    def ask(self) -> Code:
        """Raises DeliverError."""
        wire = Wire([self.urls.device])
        try:
            asked = {"client_id": self.client_id, "scope": FILE_SCOPE}
            reply = ask(wire, "POST", self.urls.device, data=asked)
        finally:
            wire.close()
        told = reply.json()
        try:
            return Code(
                str(told["user_code"]),
                str(told.get("verification_url") or told["verification_uri"]),
                float(told["expires_in"]),
                float(told.get("interval", 5)),
                str(told["device_code"]),
            )
        except (KeyError, TypeError, ValueError):
            error = str(told.get("error", ""))
            if error in ("invalid_client", "unauthorized_client"):
                wrong_type = "type" in str(told.get("error_description", ""))
                public = WRONG_TYPE if wrong_type else WRONG_CLIENT
                raise DeliverError(public, code="wrong_credentials", detail=shown(error)) from None
            raise reply.error() from None

    def keep(self, code: Code, notes: Notes) -> str:
        """Wait until the code was typed, change it for a refresh token and keep that; whose it is.

        Raises DeliverError, and StorageError where it cannot be noted.
        """
        wire = Wire([self.urls.api, self.urls.token])
        try:
            tokens = self._waited(wire, code)
            return settle(wire, self.urls, self.client_id, self.client_secret, tokens, notes)
        finally:
            wire.close()

    def _waited(self, wire: Wire, code: Code) -> dict[str, Any]:
        asked = {
            "grant_type": GRANT,
            "device_code": code.secret,
            "client_id": self.client_id,
            "client_secret": self.client_secret,
        }
        interval, end = code.interval, time.monotonic() + code.lasts * self.second
        while time.monotonic() < end:
            wire.pause(interval * self.second)
            try:
                reply = ask(wire, "POST", self.urls.token, data=asked)
            except DeliverError as passing:
                if not passing.retryable:
                    raise
                continue
            told = reply.json()
            if reply.kind == "done":
                return told
            error = str(told.get("error", ""))
            if error == "slow_down":
                interval += SLOWER
            elif error in ("invalid_client", "unauthorized_client"):
                raise DeliverError(WRONG_CLIENT, code="wrong_credentials", detail=shown(error))
            elif error == "expired_token":
                break
            elif error != "authorization_pending":
                raise DeliverError(REFUSED.format(shown(error or f"HTTP {reply.status}", 60)), code="consent_refused")
        raise DeliverError(
            "nobody has typed the code in time: run crosscut auth google --device again", code="consent_refused"
        )
