"""Somebody's consent to files of theirs in Google Drive: asked for in their browser, kept as a refresh token.

The flow for installed apps (RFC 8252) with PKCE (RFC 7636). It is three requests; the library for it would bring two
more HTTP clients with it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2

from crosscut.destinations.drive_auth import CONSENT_NOTE, FILE_SCOPE, WRONG_CLIENT
from crosscut.destinations.drive_errors import Reply
from crosscut.destinations.drive_wire import Wire
from crosscut.errors import DeliverError
from crosscut.guard import RefusedError
from crosscut.transfer import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crosscut.commons import Notes
    from crosscut.destinations.drive_auth import Urls


@dataclass(frozen=True)
class Consent:
    """One question to one person. What they are sent back with is good for this question alone."""

    urls: Urls
    client_id: str
    client_secret: str = field(repr=False)
    redirect: str
    """Where Google sends the browser back to; nobody but this machine is there."""
    state: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48), repr=False)

    @property
    def link(self) -> str:
        """What the person opens; `prompt` makes Google give a refresh token to whoever has given one before."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self.verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "client_id": self.client_id,
            "redirect_uri": self.redirect,
            "response_type": "code",
            "scope": FILE_SCOPE,
            "access_type": "offline",
            "prompt": "consent",
            "state": self.state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{self.urls.consent}?{urlencode(asked)}"

    def pasted(self, text: str) -> str:
        """The code in the address that the person was sent back to, or the code itself. Raises like `answered`."""
        text = text.strip()
        if not text:
            raise DeliverError("nothing was pasted: run crosscut auth google again", code="consent_refused")
        return self.answered(urlsplit(text).query) if "?" in text else text

    def answered(self, query: str) -> str:
        """The code in the query of that address.

        Raises DeliverError "consent_refused", "consent_mixed_up".
        """
        told = {name: values[0] for name, values in parse_qs(query).items()}
        if not hmac.compare_digest(told.get("state", "").encode(), self.state.encode()):
            raise DeliverError(
                "this answer belongs to another question: open the link that is shown now, and paste what comes of it",
                code="consent_mixed_up",
            )
        if "code" not in told:
            why = shown(told.get("error", "no code"), 60)
            raise DeliverError(
                f"Google gave no consent ({why}): run crosscut auth google again, and allow it", code="consent_refused"
            )
        return told["code"]

    def keep(self, code: str, notes: Notes) -> str:
        """Change the code for a refresh token and keep that; whose it is.

        Raises DeliverError, and StorageError where it cannot be noted.
        """
        wire = Wire([self.urls.api, self.urls.token])
        try:
            tokens = self._exchanged(wire, code)
            return settle(wire, self.urls, self.client_id, self.client_secret, tokens, notes)
        finally:
            wire.close()

    def _exchanged(self, wire: Wire, code: str) -> dict[str, Any]:
        asked = {
            "grant_type": "authorization_code",
            "code": code,
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "redirect_uri": self.redirect,
            "code_verifier": self.verifier,
        }
        reply = ask(wire, "POST", self.urls.token, data=asked)
        told = reply.json()
        if reply.kind != "done":
            error = str(told.get("error", ""))
            if error in ("invalid_client", "unauthorized_client"):
                raise DeliverError(WRONG_CLIENT, code="wrong_credentials", detail=error)
            raise DeliverError(
                "Google does not take the code: it is good once, and for a few minutes; run crosscut auth google again",
                code="consent_refused",
                detail=shown(f"HTTP {reply.status} {error}"),
            )
        return told


def settle(wire: Wire, urls: Urls, client_id: str, client_secret: str, tokens: Mapping[str, Any], notes: Notes) -> str:
    """Note what a consent gave, if it is all that is needed; whose it is. Raises DeliverError, StorageError."""
    if FILE_SCOPE not in str(tokens.get("scope", FILE_SCOPE)).split():
        raise DeliverError(
            "the consent does not cover files of Google Drive: run crosscut auth google again, and leave every box"
            " ticked",
            code="missing_scope",
        )
    if not tokens.get("refresh_token"):
        raise DeliverError(
            "Google gave no lasting consent: the OAuth client must be of the type “Desktop app”",
            code="consent_refused",
        )
    account = _account(wire, urls, str(tokens.get("access_token", "")))
    kept = {
        "type": "authorized_user",
        "account": account,
        "client_id": client_id,
        "client_secret": client_secret,
        "refresh_token": tokens["refresh_token"],
    }
    notes.put(CONSENT_NOTE, json.dumps(kept))
    return account


def _account(wire: Wire, urls: Urls, token: str) -> str:
    """The address of who has consented; asking for it shows that the Drive API is enabled, too."""
    headers = {"Authorization": f"Bearer {token}"}
    parameters = {"fields": "user(emailAddress)"}
    reply = ask(wire, "GET", f"{urls.api}/drive/v3/about", headers=headers, params=parameters)
    if reply.kind != "done":
        raise reply.error()
    user = reply.json().get("user")
    return shown(str(user["emailAddress"])) if isinstance(user, dict) and "emailAddress" in user else ""


def ask(wire: Wire, method: str, url: str, **options: Mapping[str, str]) -> Reply:
    """One request; what httpx2 raises holds the token or the code, and goes no further."""
    try:
        answer = wire.http.request(method, url, **options)  # type: ignore[arg-type]
    except httpx2.HTTPError as error:
        raise Reply(0, fault=type(error).__name__).error() from None
    except RefusedError as error:
        raise DeliverError(f"the address of Google {error.reason}", code=error.code) from None
    reply = Reply(answer.status_code, answer.headers, answer.content)
    if reply.kind in ("again", "rate"):
        raise reply.error()
    return reply
