"""The words of the stand-in for Google Drive: faults, files, uploads under way, and what each call may be given."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import Any

STEP = 256 * 1024
WHOLE = 5_000_000
"""Bytes of a file that may come in one request."""
KEPT_BYTES = 1 << 25
"""Bodies up to this size can be read back, where nothing else is said."""
FOLDER = "application/vnd.google-apps.folder"
FULL, FILE = "https://www.googleapis.com/auth/drive", "https://www.googleapis.com/auth/drive.file"
CLIENT, SECRET = "client-1.apps.googleusercontent.com", "GOCSPX-the-client-secret"
DEVICE = "client-tv.apps.googleusercontent.com"
"""Of the type "TVs and Limited Input devices"."""
USER = "ada@example.com"
ROBOT = "robot@project.iam.gserviceaccount.com"
REFRESH = "1//the-refresh-token"

COMMON = {"supportsAllDrives", "fields"}
PARAMETERS = {
    "get": COMMON,
    "create": COMMON,
    "update": COMMON,
    "start": COMMON | {"uploadType"},
    "ids": {"count", "space", "type", "fields"},
    "about": {"fields"},
    "list": COMMON
    | {"q", "orderBy", "pageSize", "pageToken", "corpora", "driveId", "includeItemsFromAllDrives", "spaces"},
}
"""What each call may be given; the real one refuses others."""
METADATA = {"id", "name", "parents", "mimeType", "appProperties", "trashed"}

ERRORS = {
    "rate": (403, "userRateLimitExceeded"),
    "backend": (403, "backendError"),
    "429": (429, "rateLimitExceeded"),
    "500": (500, "internalError"),
    "503": (503, "backendError"),
    "400": (400, "badRequest"),
    "401": (401, "authError"),
    "404": (404, "notFound"),
    "410": (410, "gone"),
    "daily": (403, "dailyLimitExceeded"),
    "quota": (403, "storageQuotaExceeded"),
    "scope": (403, "insufficientPermissions"),
    "permission": (403, "insufficientFilePermissions"),
    "disabled": (403, "accessNotConfigured"),
    "items": (403, "teamDriveFileLimitExceeded"),
    "children": (403, "numChildrenInNonRootLimitExceeded"),
    "policy": (403, "domainPolicy"),
    "unheard_of": (403, "somethingNew"),
}
PASSING = ("rate", "backend", "429", "500", "503", "drop", "half", "lost")
"""Faults that heal, whatever the request."""


@dataclass
class Fault:
    """Meets requests of this method whose path and `Content-Range` hold the texts: the first `times` after `skip`.

    `kind` is one of `ERRORS`, or: drop (hang up before reading), half (hang up in the middle of the body), lost (do
    it, then hang up), none_kept and some_kept (take a body and forget it, or half of it), damage (store other bytes),
    hang (say nothing), slow (do it a little later).
    """

    kind: str
    method: str = ""
    path: str = ""
    content_range: str = ""
    times: int = 1
    skip: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    def meets(self, method: str, path: str, content_range: str) -> bool:
        same = self.method in ("", method) and self.path in path and self.content_range in content_range
        if not same or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass
class Node:
    """A file or a folder."""

    id: str
    name: str
    mime: str
    owner: str
    parent: str | None
    drive: str | None = None
    app: bool = False
    trashed: bool = False
    properties: dict[str, str] = field(default_factory=dict)
    size: int | None = None
    sha256: str = ""
    md5: str = ""
    data: bytes | None = None
    made: float = field(default_factory=time.monotonic)
    revisions: int = 0


@dataclass
class Session:
    """An upload under way."""

    id: str
    node: Node
    replaces: bool
    size: int
    readable: int = KEPT_BYTES
    """The largest body that is kept."""
    kept: int = 0
    received: int = 0
    """All bytes that came, also those that came twice."""
    sha256: Any = field(default_factory=hashlib.sha256)
    md5: Any = field(default_factory=hashlib.md5)
    data: bytearray = field(default_factory=bytearray)
    done: bool = False
    busy: bool = False

    def keep(self, piece: bytes | memoryview) -> None:
        self.sha256.update(piece)
        self.md5.update(piece)
        if self.size <= self.readable:
            self.data += piece
        self.kept += len(piece)


@dataclass
class Device:
    """A code that somebody is to type; `decided`: allowed, or the error that Google gives."""

    code: str
    typed: str
    asked: int = 0
    decided: str | None = None


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    content_range: str
    fault: str


@dataclass(frozen=True)
class Holder:
    """Who has a token."""

    account: str
    scope: str
    service: bool = False
