"""One request of Cloud Storage that obstore does not have: objects of a bucket joined into a new one, in the bucket.

google-auth signs and refreshes; it is imported when it is first needed, as in `drive_auth`.
"""

from __future__ import annotations

import base64
import random
import re
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.sax.saxutils import escape

import httpx2

from crosscut.destinations.bucket_errors import refusal, word_of
from crosscut.destinations.drive_auth import UnreachableError, transport
from crosscut.destinations.drive_errors import Reply
from crosscut.destinations.drive_wire import Wire
from crosscut.errors import DeliverError
from crosscut.guard import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from crosscut.destinations.buckets import Bucket

MOST = 32
"""Objects that one request joins (Cloud Storage, "Composite objects")."""

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
STORAGE = "https://storage.googleapis.com"
TOKENS = "https://oauth2.googleapis.com/token"
METADATA = "http://metadata.google.internal"
IDENTITY = "/computeMetadata/v1/instance/service-accounts/default/token"
"""Compute Engine, "Access tokens": what a machine of Google's is known by."""
EARLY_SECONDS = 60.0
"""A token is renewed before it runs out."""
FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0

CHECKSUM = re.compile(r"crc32c=([A-Za-z0-9+/]{6}==)")


class CannotJoinError(Exception):
    """The store does not join objects, or not for us; `detail` may be logged. Sending files whole may still work."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class PartsGoneError(Exception):
    """An object that was to be joined is not there."""


class Composer:
    """Thread-safe. `facts` are of a key file; None: of the identity of this machine (see `buckets.google_facts`)."""

    def __init__(
        self,
        bucket: Bucket,
        facts: Mapping[str, Any] | None,
        *,
        endpoint: str = "",
        tokens: str = TOKENS,
        metadata: str = METADATA,
        patience: float = 60.0,
        check: Callable[[], None] | None = None,
    ) -> None:
        """A request is tried again for `patience` seconds; `check` is called while waiting, and raises to end it."""
        self._bucket = bucket
        self._url = f"{(endpoint or STORAGE).rstrip('/')}/{bucket.name}"
        self._wire = Wire([self._url, tokens, metadata])
        self._tokens = _Tokens(facts, self._wire, tokens, metadata)
        self._patience = patience
        self._check = check

    def close(self) -> None:
        self._wire.close()

    def join(self, key: str, sources: Sequence[str], headers: Mapping[str, str]) -> int:
        """Make the object `key` of at most `MOST` others, with these headers; its CRC32C, as the store has it.

        May be repeated. Raises CannotJoinError, PartsGoneError; DeliverError for what passes, but not in time.
        """
        names = "".join(f"<Component><Name>{escape(source)}</Name></Component>" for source in sources)
        body = f"<ComposeRequest>{names}</ComposeRequest>".encode()
        told = {"Content-Type": "application/octet-stream", **headers}
        # Quoted once more than needed for %2e: no name leads anywhere else.
        reply = self._asked("PUT", f"{self._url}/{quote(key, safe='/~')}?compose", told, body)
        if reply.status == 404 and self._word(reply) != "NoSuchBucket":
            raise PartsGoneError
        if not 200 <= reply.status < 300:
            raise CannotJoinError(f"{reply.status} {self._word(reply)}".strip())
        if not (found := CHECKSUM.search(reply.headers.get("x-goog-hash", ""))):
            raise CannotJoinError("no checksum in the answer")
        return int.from_bytes(base64.b64decode(found[1]))

    def _asked(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        end, wait, refused = time.monotonic() + self._patience, FIRST_WAIT, None
        with self._wire.watched(self._check or _nothing):
            while True:
                authorization = None
                try:
                    authorization = self._tokens.header(refused)
                    reply = self._sent(method, url, {**headers, "Authorization": authorization}, body)
                except UnreachableError as error:
                    reply = error.reply
                if reply.status == 401 and refused is None:
                    refused = authorization
                    continue
                if not _passes(reply):
                    return reply
                pause = max(wait * random.Random().uniform(0.5, 1), reply.after or 0.0)
                if time.monotonic() + pause > end:
                    raise self._late(reply)
                self._wire.pause(pause)
                wait = min(2 * wait, LONGEST_WAIT)

    def _sent(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        try:
            answer = self._wire.http.request(method, url, headers=headers, content=body)
        except httpx2.HTTPError as error:
            return Reply(0, fault=type(error).__name__)
        except RefusedError as error:
            raise CannotJoinError(f"its address {error.reason}") from None
        return Reply(answer.status_code, answer.headers, answer.content)

    def _late(self, reply: Reply) -> Exception:
        status = f"status code: {reply.status} " if reply.status else ""
        return refusal(self._bucket, f"{status}<Code>{self._word(reply)}</Code>")

    @staticmethod
    def _word(reply: Reply) -> str:
        return word_of(reply.body.decode(errors="replace"))


class _Tokens:
    """Bearer tokens for a bucket, renewed when they run out. Thread-safe."""

    def __init__(self, facts: Mapping[str, Any] | None, wire: Wire, tokens: str, metadata: str) -> None:
        self._facts = facts
        self._wire = wire
        self._url = tokens
        self._metadata = metadata
        self._lock = threading.Lock()
        self._credentials: Any = None
        self._identity = ("", 0.0)
        """The token of this machine's identity, and when it is to be renewed."""

    def header(self, refused: str | None = None) -> str:
        """The value of `Authorization`, another than the `refused` one; UnreachableError, CannotJoinError."""
        with self._lock:
            if self._facts is None:
                return self._of_machine(refused)
            if self._credentials is None:
                self._credentials = _credentials(self._facts, self._url)
            known = self._credentials
            if not known.valid or f"Bearer {known.token}" == refused:
                self._refresh(known)
            return f"Bearer {known.token}"

    def _refresh(self, credentials: Any) -> None:
        from google.auth.exceptions import GoogleAuthError, RefreshError  # noqa: PLC0415 - see above

        try:
            credentials.refresh(transport(self._wire))
        except RefreshError:
            # The error may hold what was sent.
            raise CannotJoinError("no token") from None
        except GoogleAuthError as error:
            raise UnreachableError(Reply(0, fault=type(error).__name__)) from None
        except DeliverError as error:
            raise CannotJoinError(error.code) from None

    def _of_machine(self, refused: str | None) -> str:
        token, until = self._identity
        if time.monotonic() < until and token != refused:
            return token
        try:
            answer = self._wire.http.get(f"{self._metadata}{IDENTITY}", headers={"Metadata-Flavor": "Google"})
        except httpx2.HTTPError as error:
            raise UnreachableError(Reply(0, fault=type(error).__name__)) from None
        reply = Reply(answer.status_code, answer.headers, answer.content)
        if _passes(reply):
            raise UnreachableError(reply)
        told = reply.json()
        if not isinstance(told.get("access_token"), str):
            raise CannotJoinError("this machine has no identity")
        lasts = float(told.get("expires_in", 0.0)) - EARLY_SECONDS
        self._identity = (f"Bearer {told['access_token']}", time.monotonic() + lasts)
        return self._identity[0]


def _credentials(facts: Mapping[str, Any], tokens: str) -> Any:
    from google.oauth2 import credentials, service_account  # noqa: PLC0415 - see above

    if facts.get("type") == "authorized_user":
        make: Any = credentials.Credentials
        secrets = {name: facts.get(name) for name in ("refresh_token", "client_id", "client_secret")}
        return make(None, token_uri=tokens, **secrets)
    signing: Any = service_account.Credentials
    try:
        # Signed here: no request for a token is needed (RFC 7523, as Google's APIs take it).
        return signing.from_service_account_info(dict(facts), scopes=[SCOPE], always_use_jwt_access=True)
    except ValueError:
        # Nothing of the key may be told.
        raise CannotJoinError("a key that cannot sign") from None


def _passes(reply: Reply) -> bool:
    """Whether the same request may be answered otherwise in a while; 501 is what a store does not know."""
    return reply.status in (0, 408, 429) or (reply.status >= 500 and reply.status != 501)


def _nothing() -> None:
    pass
