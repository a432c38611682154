"""The calls of the Google Drive API (v3) that a delivery needs, each tried again for as long as it heals in seconds.

All of them may be repeated: what is made has an id that was drawn before.
"""

from __future__ import annotations

import json
import random
import secrets
import threading
from collections import deque
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx2

from crosscut.destinations.drive_auth import Tokens, UnreachableError
from crosscut.destinations.drive_errors import Reply
from crosscut.errors import DeliverError
from crosscut.guard import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from crosscut.destinations.drive_auth import Identity, Urls
    from crosscut.destinations.drive_pace import Pace
    from crosscut.destinations.drive_wire import Wire

FOLDER_TYPE = "application/vnd.google-apps.folder"
FIELDS = "id,name,mimeType,size,sha256Checksum,md5Checksum,webViewLink,trashed,parents,driveId"
SHARED = {"supportsAllDrives": "true"}
IDS = 100
"""Drawn at a time; those that are not used cost nothing."""
PAGE = 1000
"""The most that Drive lists at once."""
TRIES = 6
LONGEST_WAIT = 8.0


@dataclass(frozen=True)
class Found:
    """A file or folder as Drive has it."""

    id: str
    name: str
    mime: str = ""
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    link: str = ""
    trashed: bool = False
    parents: tuple[str, ...] = ()
    drive: str | None = None
    """The Shared Drive it is in."""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Found:
        """Raises KeyError, TypeError and ValueError for what is no file."""
        return cls(
            id=str(told["id"]),
            name=str(told.get("name", "")),
            mime=str(told.get("mimeType", "")),
            size=int(told["size"]) if "size" in told else None,
            sha256=told.get("sha256Checksum"),
            md5=told.get("md5Checksum"),
            link=str(told.get("webViewLink", "")),
            trashed=bool(told.get("trashed")),
            parents=tuple(told.get("parents", ())),
            drive=told.get("driveId"),
        )

    def lies_in(self, folder: str) -> bool:
        """Whether it is there for whoever opens the folder; Drive may tell no parents."""
        return not self.trashed and (not self.parents or folder in self.parents)


class Patience:
    """How often something is tried again that does not get on."""

    def __init__(self, wire: Wire, second: float) -> None:
        self._wire = wire
        self._second = second
        self._failures = 0
        self.tries = 0
        """How many more there were than should have been needed."""

    def got_on(self) -> None:
        self._failures = 0

    def after(self, reply: Reply) -> None:
        """Wait before another try; raises what came of the last one."""
        self._failures += 1
        self.tries += 1
        asked = reply.after or 0.0
        if self._failures >= TRIES or asked > LONGEST_WAIT * self._second:
            raise reply.error() if reply.kind in ("again", "rate") or reply.status == 401 else _stuck(reply)
        if reply.kind == "rate":
            return  # all wait for that together, before the next request
        doubled = min(2.0 ** (self._failures - 2), LONGEST_WAIT) * random.Random().uniform(0.5, 1)
        self._wire.pause(max(doubled * self._second, asked))


class DriveClient:
    """One account. Thread-safe; raises DeliverError, and whatever the watch of its wire raises."""

    def __init__(self, identity: Identity, wire: Wire, urls: Urls, pace: Pace, *, second: float = 1.0) -> None:
        """`second` is how long a second of waiting is."""
        self.identity = identity
        self.pace = pace
        self.wire = wire
        self._tokens = Tokens(identity, wire)
        self._api = urls.api
        self._second = second
        self._ids: deque[str] = deque()
        self._drawing = threading.Lock()

    def patience(self) -> Patience:
        return Patience(self.wire, self._second)

    def new_id(self) -> str:
        """One that no file has yet, here or anywhere."""
        with self._drawing:
            if self._ids:
                return self._ids.popleft()
        reply = self._ask("GET", "/drive/v3/files/generateIds", {"count": str(IDS), "space": "drive"})
        drawn = [str(one) for one in reply.json().get("ids", ())]
        if not drawn:
            raise odd(reply)
        with self._drawing:
            self._ids.extend(drawn[1:])
        return drawn[0]

    def who(self) -> None:
        """Ask who we are: whether we may ask for anything at all."""
        self._ask("GET", "/drive/v3/about", {"fields": "user(emailAddress)"})

    def find(self, file_id: str) -> Found | None:
        reply = self._ask("GET", f"/drive/v3/files/{file_id}", {**SHARED, "fields": FIELDS}, allowed=("done", "gone"))
        return None if reply.kind == "gone" else found_in(reply)

    def make_folder(self, metadata: Mapping[str, Any]) -> Found | None:
        """None where the id is taken already."""
        body = {**metadata, "mimeType": FOLDER_TYPE}
        reply = self._ask("POST", "/drive/v3/files", {**SHARED, "fields": FIELDS}, body, allowed=("done", "taken"))
        return None if reply.kind == "taken" else found_in(reply)

    def trash(self, file_id: str) -> None:
        """Nothing is said where there is no such file; taking away for good is not for every member of a drive."""
        self._ask(
            "PATCH",
            f"/drive/v3/files/{file_id}",
            {**SHARED, "fields": "id"},
            {"trashed": True},
            allowed=("done", "gone"),
        )

    def list(self, query: str, drive: str | None) -> Iterator[Found]:
        """What is found, oldest first; what was made a moment ago may be missing."""
        where = {"corpora": "drive", "driveId": drive} if drive else {}
        parameters = {
            "q": f"{query} and trashed = false",
            "orderBy": "createdTime",
            "pageSize": str(PAGE),
            "fields": f"nextPageToken,files({FIELDS})",
            "includeItemsFromAllDrives": "true",
            **SHARED,
            **where,
        }
        while True:
            page = self._ask("GET", "/drive/v3/files", parameters).json()
            yield from map(Found.of, page.get("files", ()))
            if not page.get("nextPageToken"):
                return
            parameters["pageToken"] = str(page["nextPageToken"])

    def start_upload(self, metadata: Mapping[str, Any], size: int, mime: str, replaced: str | None = None) -> Reply:
        """Begin a session for a new file, or for new content of the one that is `replaced`; its URL is `location`."""
        return self.exchange(
            "PATCH" if replaced else "POST",
            self._api + _upload_path(replaced),
            parameters={"uploadType": "resumable", "fields": FIELDS, **SHARED},
            headers={
                "Content-Type": "application/json; charset=UTF-8",
                "X-Upload-Content-Type": mime,
                "X-Upload-Content-Length": str(size),
            },
            content=json.dumps(metadata).encode(),
        )

    def upload_whole(
        self,
        metadata: Mapping[str, Any],
        size: int,
        mime: str,
        blocks: Iterable[bytes],
        replaced: str | None = None,
    ) -> Reply:
        """The same in one request, with the file's bytes behind what is said of it (RFC 2387)."""
        boundary = secrets.token_hex(16)
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{json.dumps(metadata)}\r\n"
            f"--{boundary}\r\nContent-Type: {mime}\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        return self.exchange(
            "PATCH" if replaced else "POST",
            self._api + _upload_path(replaced),
            parameters={"uploadType": "multipart", "fields": FIELDS, **SHARED},
            headers={
                "Content-Type": f"multipart/related; boundary={boundary}",
                "Content-Length": str(len(head) + size + len(tail)),
            },
            content=chain((head,), blocks, (tail,)),
        )

    def trusts(self, url: str) -> bool:
        """Whether a token may be shown there."""
        theirs, ours = urlsplit(url), urlsplit(self._api)
        return theirs.scheme == ours.scheme and (
            theirs.netloc == ours.netloc
            or (ours.hostname == "www.googleapis.com" and str(theirs.hostname).endswith(".googleapis.com"))
        )

    def exchange(
        self,
        method: str,
        url: str,
        *,
        parameters: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterable[bytes] = b"",
    ) -> Reply:
        """One request and its answer, whatever it is; once more with a new token where the old one has run out.

        A body that can be read only once is not sent again: its answer is then the 401.
        """
        self.pace.wait()
        reply, shown = self._send(method, url, None, parameters, headers, content)
        if reply.status == 401:
            if isinstance(content, bytes):
                reply, _ = self._send(method, url, shown, parameters, headers, content)
            else:
                self._renew(shown)
        if reply.kind == "rate":
            self.pace.limited(reply.after)
        return reply

    def _renew(self, refused: str) -> None:
        try:
            self._tokens.header(refused)
        except UnreachableError:
            return

    def _send(
        self,
        method: str,
        url: str,
        refused: str | None,
        parameters: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        content: bytes | Iterable[bytes],
    ) -> tuple[Reply, str]:
        """The answer, and the token that was shown."""
        try:
            token = self._tokens.header(refused)
        except UnreachableError as error:
            return error.reply, ""
        said = {**(headers or {}), "Authorization": token}
        try:
            # What httpx2 raises holds the request, and so the token: it goes no further.
            answer = self.wire.http.request(method, url, params=parameters, headers=said, content=content)
        except httpx2.HTTPError as error:
            return Reply(0, fault=type(error).__name__), token
        except RefusedError as error:
            raise DeliverError(f"the address of Google Drive {error.reason}", code=error.code) from None
        return Reply(answer.status_code, answer.headers, answer.content), token

    def _ask(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        allowed: tuple[str, ...] = ("done",),
    ) -> Reply:
        """The answer, of a kind that is `allowed`."""
        patience = self.patience()
        headers = {"Content-Type": "application/json; charset=UTF-8"} if body is not None else {}
        content = json.dumps(body).encode() if body is not None else b""
        while True:
            reply = self.exchange(
                method,
                self._api + path,
                parameters=parameters,
                headers=headers,
                content=content,
            )
            if reply.kind in allowed:
                return reply
            if reply.kind not in ("again", "rate"):
                raise reply.error()
            patience.after(reply)


def _upload_path(replaced: str | None) -> str:
    return f"/upload/drive/v3/files/{replaced}" if replaced else "/upload/drive/v3/files"


def found_in(reply: Reply) -> Found:
    try:
        return Found.of(reply.json())
    except (KeyError, TypeError, ValueError):
        raise odd(reply) from None


def odd(reply: Reply) -> DeliverError:
    return DeliverError(
        "Google Drive gave an answer that is not its own: check CROSSCUT_GOOGLE_URL, and what stands between",
        code="bad_answer",
        retryable=True,
        detail=f"HTTP {reply.status}",
    )


def _stuck(reply: Reply) -> DeliverError:
    public = "Google Drive does not take the file as it should; try again later"
    return DeliverError(public, code="unavailable", retryable=True, detail=f"HTTP {reply.status}")


def quoted(text: str) -> str:
    """Text as a query holds it: the backslash first, or those of the quotes would be doubled."""
    doubled = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{doubled}'"
