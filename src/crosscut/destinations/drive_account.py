"""The Google account that is delivered with: who it is, how fast all processes go, what they have noted."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from crosscut.commons import Shared
from crosscut.destinations.drive_auth import Urls, identity
from crosscut.destinations.drive_client import DriveClient
from crosscut.destinations.drive_listing import Listings
from crosscut.destinations.drive_pace import Pace
from crosscut.destinations.drive_upload import CHUNK, WHOLE
from crosscut.destinations.drive_wire import Wire
from crosscut.disk import storage_errors
from crosscut.files import FileHolds, HashedNotes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crosscut.commons import Notes
    from crosscut.destinations.drive_auth import Identity


class Account:
    """The one Google account, opened when it is first needed. Thread-safe; may be pickled where files are shared."""

    def __init__(
        self,
        folder: Path,
        *,
        consent: Notes,
        shared: Shared | None = None,
        service_account: Path | None = None,
        subject: str | None = None,
        url: str | None = None,
        second: float = 1.0,
        chunk: int = CHUNK,
        whole: int = WHOLE,
    ) -> None:
        """`consent` has the note that `crosscut auth google` writes. Those who have `shared` deliver together.

        `folder` keeps what this machine has for itself, and without `shared` what its processes share.
        `url` stands in for Google's own; `second` is how long a second of waiting is; `chunk` bytes go into a request
        of a session, which a file of at most `whole` bytes does not have.
        """
        self._arguments: dict[str, Any] = {
            "consent": consent,
            "shared": shared,
            "service_account": service_account,
            "subject": subject,
            "url": url,
            "second": second,
            "chunk": chunk,
            "whole": whole,
        }
        self.folder = folder
        self.chunk = chunk
        self.whole = whole
        self.shared = shared or Shared(HashedNotes(folder / "notes"), FileHolds(folder))
        self.listings = Listings()
        self._lock = threading.Lock()
        self._client: DriveClient | None = None

    def __reduce__(self) -> tuple[Callable[..., Account], tuple[Any, ...]]:
        return _account, (self.folder, self._arguments)

    def identity(self) -> Identity:
        told = self._arguments
        return identity(told["service_account"], told["subject"], told["consent"], Urls.under(told["url"]))

    def client(self) -> DriveClient:
        """A new one where somebody else was connected meanwhile, or the same one again.

        Raises DeliverError "not_connected", "wrong_credentials".
        """
        who = self.identity()
        with self._lock:
            if self._client is None or self._client.identity != who:
                self._client = self._opened(who)
            return self._client

    def _opened(self, who: Identity) -> DriveClient:
        urls, second = Urls.under(self._arguments["url"]), self._arguments["second"]
        wire = Wire([urls.api, who.token_url])
        pace = Pace(self.shared, f"pace/{short(who.account)}", wire, second=second)
        return DriveClient(who, wire, urls, pace, second=second)

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.wire.close()
                self._client = None

    def lock(self, *names: str) -> FileLock:
        """Against all processes of this machine; where it was made, it may be given back by any thread."""
        folder = self.folder / "locks"
        with storage_errors():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / "-".join(names)
        return FileLock(path, timeout=0, fallback_to_soft=False, thread_local=False)


def _account(folder: Path, arguments: dict[str, Any]) -> Account:
    return Account(folder, **arguments)


def short(*texts: str) -> str:
    """A name for them, fit for a file and for a property in Drive."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:32]
