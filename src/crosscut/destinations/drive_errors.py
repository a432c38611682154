"""What Google Drive says when it does not do what was asked: whether to try again, and the sentence for the user."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from crosscut.errors import DeliverError
from crosscut.transfer import retry_after, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["done", "more", "taken", "gone", "rate", "again", "refused"]

KINDS: Mapping[int, Kind] = {
    200: "done",
    201: "done",
    204: "done",
    308: "more",
    404: "gone",
    409: "taken",
    410: "gone",
}
RATE = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "sharingRateLimitExceeded", "RATE_LIMIT_EXCEEDED"})
AGAIN = frozenset({"backendError", "internalError", "transientError"})

CANNOT_SEE = (
    "not_found",
    (
        "Google Drive shows this account no such folder: share it with the account; one connected by crosscut auth"
        " google sees no folder that crosscut did not make, so use drive: alone"
    ),
)
FULL = ("storage_full", "the Google Drive is full: free some space there or get more, then run the task again")
NO_STORAGE = (
    "no_storage",
    (
        "a service account has no storage of its own in Google Drive: name a Shared Drive that it is a member of, as"
        " drive:LINK, or set CROSSCUT_GOOGLE_SUBJECT to the person it acts for"
    ),
)
NOT_PERMITTED = (
    "not_permitted",
    (
        "Google Drive does not let this account write there: make it a content manager of the Shared Drive, or an"
        " editor of the folder"
    ),
)
SENTENCES: Mapping[str, tuple[str, str]] = {
    "storageQuotaExceeded": FULL,
    "insufficientFilePermissions": NOT_PERMITTED,
    "forbidden": NOT_PERMITTED,
    "appNotAuthorizedToFile": CANNOT_SEE,
    "notFound": CANNOT_SEE,
    "dailyLimitExceeded": (
        "daily_limit",
        (
            "Google allows this project no more calls of the Drive API today: run the task again tomorrow, or raise the"
            " quota in the Google Cloud console"
        ),
    ),
    "insufficientPermissions": (
        "missing_scope",
        (
            "the access that was given does not cover files of Google Drive: run crosscut auth google again and leave"
            " every box ticked, or give the service account the scope https://www.googleapis.com/auth/drive"
        ),
    ),
    "accessNotConfigured": (
        "api_disabled",
        (
            "the Google Drive API is not enabled in the project of these credentials: enable it in the Google Cloud"
            " console, wait a few minutes, then run the task again"
        ),
    ),
    "teamDriveFileLimitExceeded": (
        "shared_drive_full",
        "the Shared Drive holds as many files as it may: delete some or name another one",
    ),
    "numChildrenInNonRootLimitExceeded": (
        "folder_full",
        "the folder holds as many files as Google Drive allows in one: give the task another name",
    ),
    "teamDriveHierarchyTooDeep": (
        "too_deep",
        "Google Drive allows no more folders inside each other there: name a folder further up",
    ),
    "domainPolicy": (
        "forbidden_by_policy",
        "the administrator of this Google Workspace does not allow apps to use Drive: ask them to allow this one",
    ),
    "authError": (
        "wrong_credentials",
        (
            "Google Drive does not accept the account any more: run crosscut auth google again, or renew the key of the"
            " service account"
        ),
    ),
}


@dataclass(frozen=True)
class Reply:
    """One answer of Google's; `status` 0 where none came, of which `fault` is all that is known."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    fault: str = ""

    @property
    def kind(self) -> Kind:
        if self.status == 429 or (self.status == 403 and self.reason in RATE):
            return "rate"
        if self.status in (0, 408) or self.status >= 500 or (self.status == 403 and self.reason in AGAIN):
            return "again"
        return KINDS.get(self.status, "refused")

    @property
    def after(self) -> float | None:
        """Seconds that it asks to wait."""
        return retry_after(self.headers.get("retry-after"))

    def json(self) -> dict[str, Any]:
        """The object that came; empty where it was something else."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def reason(self) -> str:
        try:
            return str(self._said()["errors"][0]["reason"])
        except (KeyError, IndexError, TypeError):
            return "authError" if self.status == 401 else ""

    def error(self) -> DeliverError:
        """The sentence for the user."""
        message = str(self._said().get("message", ""))
        detail = f"HTTP {self.status} {self.reason}: {shown(message)}" if self.status else self.fault
        if self.kind == "rate":
            return limited(self.after, detail)
        if self.kind == "again":
            what = f"HTTP {self.status}" if self.status else "the connection was lost"
            public = f"Google Drive is not available now ({what}); try again later"
            return DeliverError(public, code="unavailable", retryable=True, detail=detail, after=self.after)
        if self.reason == "storageQuotaExceeded" and "service account" in message.lower():
            code, public = NO_STORAGE
        elif self.status == 404:
            code, public = CANNOT_SEE
        else:
            why = shown(self.reason or f"HTTP {self.status}", 60)
            code, public = SENTENCES.get(self.reason, ("refused", f"Google Drive refused this ({why}); see the log"))
        return DeliverError(public, code=code, detail=detail)

    def _said(self) -> dict[str, Any]:
        said = self.json().get("error")
        return said if isinstance(said, dict) else {}


def limited(after: float | None, detail: str = "") -> DeliverError:
    public = "Google Drive asks to go slower; the task goes on in a while"
    return DeliverError(public, code="rate_limited", retryable=True, detail=detail, after=after)
