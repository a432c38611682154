"""Who we are to Google: a service account (which may act for a person) or somebody's consent; bearer tokens from it.

google-auth signs and refreshes. It takes a sixth of a second to import, so that is done when it is first needed.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx2

from crosscut.destinations.drive_errors import Reply
from crosscut.errors import DeliverError
from crosscut.guard import RefusedError
from crosscut.transfer import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from google.auth.credentials import Credentials

    from crosscut.commons import Notes
    from crosscut.destinations.drive_wire import Wire

FULL_SCOPE = "https://www.googleapis.com/auth/drive"
"""For a service account: it sees only what it was made a member of, and is not asked for any consent."""
FILE_SCOPE = "https://www.googleapis.com/auth/drive.file"
"""For people: files that crosscut made itself, and none of their own."""
TOKEN_SECONDS = 30.0
LOCK_SECONDS = 0.25
PRIVATE_KEY = ("client_email", "private_key", "token_uri")
CONSENT = ("client_id", "client_secret", "refresh_token")
CONSENT_NOTE = "google.json"
"""What `crosscut auth google` keeps is noted so."""

NOT_CONNECTED = (
    "Google Drive is not connected: run crosscut auth google, or set CROSSCUT_GOOGLE_SERVICE_ACCOUNT to the key file"
    " of a service account"
)
EXPIRED = (
    "Google does not accept the consent any more: run crosscut auth google again; while the consent screen of your"
    " Google Cloud project is in testing, a consent lasts 7 days, so publish it"
)
WRONG_CLIENT = (
    "Google does not know the OAuth client: set CROSSCUT_GOOGLE_CLIENT_ID and CROSSCUT_GOOGLE_CLIENT_SECRET to one of"
    " your Google Cloud project, then run crosscut auth google again"
)
WRONG_KEY = (
    "Google does not accept the key of the service account: make a new one in the Google Cloud console, and check the"
    " clock of this machine"
)
NOT_DELEGATED = (
    "the service account may not act for CROSSCUT_GOOGLE_SUBJECT: let an administrator of the Google Workspace allow"
    f" its client id the scope {FULL_SCOPE} (domain-wide delegation)"
)


@dataclass(frozen=True)
class Urls:
    """Where Google is."""

    api: str = "https://www.googleapis.com"
    token: str = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
    consent: str = "https://accounts.google.com/o/oauth2/v2/auth"
    device: str = "https://oauth2.googleapis.com/device/code"

    @classmethod
    def under(cls, root: str | None) -> Urls:
        """Google's own; or everything below one root, where settings name a stand-in."""
        if not root:
            return cls()
        root = root.rstrip("/")
        return cls(root, f"{root}/token", f"{root}/o/oauth2/v2/auth", f"{root}/device/code")


@dataclass(frozen=True)
class Identity:
    """Who delivers. `account` is what a user calls it; `subject` whom a service account acts for."""

    account: str
    facts: Mapping[str, str] = field(repr=False)
    token_url: str
    service: bool
    subject: str | None = None

    @property
    def has_storage(self) -> bool:
        return not self.service or self.subject is not None


def identity(service_account: Path | None, subject: str | None, consent: Notes, urls: Urls) -> Identity:
    """From the key file of a service account where there is one, else from what `crosscut auth google` has noted.

    Raises DeliverError "not_connected", "wrong_credentials".
    """
    if service_account is not None:
        said = "CROSSCUT_GOOGLE_SERVICE_ACCOUNT must name the JSON key file of a service account"
        try:
            facts = _texts(service_account.read_bytes(), PRIVATE_KEY, said)
        except FileNotFoundError:
            raise DeliverError(f"{said}; there is no such file", code="wrong_credentials") from None
        except OSError:
            raise DeliverError(said, code="wrong_credentials") from None
        account = f"{facts['client_email']} for {subject}" if subject else facts["client_email"]
        return Identity(account, facts, facts["token_uri"], service=True, subject=subject)
    note = consent.get(CONSENT_NOTE)
    if note is None:
        raise DeliverError(NOT_CONNECTED, code="not_connected")
    facts = _texts(note, CONSENT, "the consent to Google Drive is damaged: run crosscut auth google again")
    return Identity(facts.get("account") or facts["client_id"], facts, urls.token, service=False)


def _texts(document: bytes | str, needed: tuple[str, ...], otherwise: str) -> dict[str, str]:
    """Those in a JSON object that must have the `needed` ones."""
    try:
        facts = json.loads(document)
        texts = {name: value for name, value in facts.items() if isinstance(value, str) and value}
    except (ValueError, AttributeError, RecursionError):
        texts = {}
    if any(name not in texts for name in needed):
        raise DeliverError(otherwise, code="wrong_credentials")
    return texts


class UnreachableError(Exception):
    """No token could be had now, which says nothing about who asks; `reply` is what came instead."""

    def __init__(self, reply: Reply) -> None:
        super().__init__("no token")
        self.reply = reply


class Tokens:
    """The bearer tokens of one identity, renewed when they run out. Thread-safe."""

    def __init__(self, identity: Identity, wire: Wire) -> None:
        self._identity = identity
        self._wire = wire
        self._lock = threading.Lock()
        self._credentials: Credentials | None = None

    def header(self, refused: str | None = None) -> str:
        """The value of `Authorization`, another than the one that was `refused`.

        Raises UnreachableError; DeliverError "consent_expired", "wrong_credentials", "not_delegated".
        """
        while not self._lock.acquire(timeout=LOCK_SECONDS):
            self._wire.look()
        try:
            if self._credentials is None:
                self._credentials = _credentials(self._identity)
            known: Any = self._credentials
            if not known.valid or f"Bearer {known.token}" == refused:
                self._refresh(known)
            return f"Bearer {known.token}"
        finally:
            self._lock.release()

    def _refresh(self, credentials: Any) -> None:
        from google.auth.exceptions import GoogleAuthError, RefreshError  # noqa: PLC0415 - see above

        try:
            credentials.refresh(transport(self._wire))
        except RefreshError as error:
            facts = error.args[1] if len(error.args) > 1 and isinstance(error.args[1], dict) else {}
            code, public = self._sentence(str(facts.get("error", "")))
            # The error may hold what was sent.
            raise DeliverError(public, code=code, detail=shown(_told(facts))) from None
        except GoogleAuthError as error:
            raise UnreachableError(Reply(0, fault=type(error).__name__)) from None

    def _sentence(self, error: str) -> tuple[str, str]:
        if self._identity.subject is not None and error in ("unauthorized_client", "access_denied"):
            return "not_delegated", NOT_DELEGATED
        if self._identity.service:
            return "wrong_credentials", WRONG_KEY
        if error in ("invalid_client", "unauthorized_client"):
            return "wrong_credentials", WRONG_CLIENT
        return "consent_expired", EXPIRED


def _told(facts: Mapping[str, Any]) -> str:
    return f"{facts.get('error', '')}: {facts.get('error_description', '')}"


def _credentials(identity: Identity) -> Credentials:
    from google.oauth2 import credentials, service_account  # noqa: PLC0415 - see above

    facts = identity.facts
    if not identity.service:
        make: Any = credentials.Credentials
        consented: Credentials = make(
            None,
            refresh_token=facts["refresh_token"],
            token_uri=identity.token_url,
            client_id=facts["client_id"],
            client_secret=facts["client_secret"],
        )
        return consented
    signing: Any = service_account.Credentials
    try:
        signed: Credentials = signing.from_service_account_info(
            dict(facts), scopes=[FULL_SCOPE], subject=identity.subject
        )
    except ValueError:
        # Nothing of the key may be told.
        raise DeliverError(WRONG_KEY, code="wrong_credentials") from None
    return signed


@dataclass(frozen=True)
class _Answer:
    """As google-auth reads it."""

    status: int
    headers: Mapping[str, str]
    data: bytes


def transport(wire: Wire) -> Callable[..., _Answer]:
    """What google-auth sends its requests with, for which it knows no httpx."""

    def send(
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> _Answer:
        try:
            answer = wire.http.request(method, url, content=body, headers=headers, timeout=timeout or TOKEN_SECONDS)
        except httpx2.HTTPError as error:
            raise UnreachableError(Reply(0, fault=type(error).__name__)) from None
        except RefusedError as error:
            raise DeliverError(f"the token address of Google {error.reason}", code=error.code) from None
        reply = Reply(answer.status_code, answer.headers, answer.content)
        if reply.kind in ("again", "rate"):
            # Left to itself google-auth would sleep, deaf to who calls it.
            raise UnreachableError(reply)
        return _Answer(answer.status_code, answer.headers, answer.content)

    return send
