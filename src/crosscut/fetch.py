"""URL or local path -> local file: safely (see guard), resumably, and once for all jobs and processes.

A source is stored under the SHA-256 of its bytes. A note per URL (or per path, size, mtime and inode) remembers which
bytes it gave, so that a later job asks the server only whether they changed. Where the server gives nothing to ask
with (no ETag, no Last-Modified) its bytes are trusted for `FetchLimits.trust`; where it does not give the file any
more, as with a signed link that has expired, the copy it gave before is used, and the source says so; not where an
object of a bucket may not be read any more.

Share links and names of objects lead to their files (see links). An object is asked for as anybody would, and signed
for with the credentials of this machine only where it is not public; it is known by its name, never by what was signed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import httpx2

from crosscut.artifacts import artifact_key
from crosscut.disk import is_full, storage_errors
from crosscut.errors import FetchError
from crosscut.guard import USUAL_PORTS, Guard, RefusedError, checked_url, guarded_client, redact, resolve
from crosscut.links import PUBLIC, LinkError, Place, names_file, object_name, object_place, share_place
from crosscut.sniff import HEAD
from crosscut.transfer import FetchLimits, Pace, Transfer, refuse_other, shown, too_large

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from crosscut.artifacts import Lease
    from crosscut.guard import Resolver
    from crosscut.links import Endpoints, Signer
    from crosscut.transfer import Progress

__all__ = ["FetchLimits", "Fetcher", "Source"]

CHUNK = 1 << 20

NOTE_VERSION = 3
"""Part of the names of notes: raise it when their fields change."""

LOST = {
    "not_found": "is not there any more",
    "not_permitted": "needs permission now",
    "quota_exceeded": "was downloaded too often of late",
}
"""By the code of an error that trying again will not mend: what became of a source we have a copy of."""


@dataclass(frozen=True)
class Source:
    """A fetched file. `path` is the lease's; `label` may stand in sentences and logs."""

    label: str
    sha256: str
    path: Path
    size: int
    note: str | None = None
    """A sentence for the user about where these bytes come from, if not from the source as it is now."""
    filename: str | None = None
    """What the server calls the file, where the link does not say."""


class Fetcher:
    """Fetches sources for one job: within its life a source is asked for once. Thread-safe."""

    def __init__(
        self,
        lease: Lease,
        limits: FetchLimits | None = None,
        allow: frozenset[tuple[str, int]] = frozenset(),
        *,
        ports: frozenset[int] = USUAL_PORTS,
        resolver: Resolver = resolve,
        since: float | None = None,
        endpoints: Endpoints = PUBLIC,
        signer: Signer | None = None,
    ) -> None:
        """`since` (seconds of the epoch, default now): what any process fetched after it is taken without asking.

        `endpoints` pass the guard like every host: one on this machine has to be in `allow` as well.
        """
        self._lease = lease
        self._limits = limits or FetchLimits()
        self._allow = allow
        self._ports = ports
        self._resolver = resolver
        self._since = time.time() if since is None else since
        self._endpoints = endpoints
        self._signer = signer

    def fetch(
        self,
        source: str,
        *,
        base: Path | None = None,
        on_progress: Progress | None = None,
        cancelled: threading.Event | None = None,
    ) -> Source:
        """Return the file behind a URL or, where `base` is given, behind a path relative to it; FetchError if not."""
        report = on_progress or _silent
        stop = cancelled or threading.Event()
        if re.match(r"\s*[a-z][a-z0-9+.-]+:", source, re.IGNORECASE):
            return self._fetch_url(source, report, stop)
        if base is None:
            raise FetchError(f"{shown(source)} is not a web link; use http or https.", code="scheme_not_allowed")
        return self._fetch_file(source, base, report, stop)

    def _fetch_url(self, text: str, report: Progress, stop: threading.Event) -> Source:
        label = redact(text)
        try:
            place = self._place(text)
        except (RefusedError, LinkError) as error:
            raise FetchError(f"{label} {error.reason}.", code=error.code) from error
        key = artifact_key("url", url=place.key, version=NOTE_VERSION)
        pace = Pace(label, self._limits, stop)
        with self._lease.locked(key, waiting=pace.check_cancelled):
            known = self._noted(key)
            note = known if known and self._is_fresh(known) else None
            if note is None:
                note = self._lease.with_room(lambda: self._ask(place, label, known, pace, report))
                self._lease.put_json(key, note)
        named = place.name is not None or names_file(text)
        return self._source(label, note, None if named else note["filename"])

    def _place(self, text: str) -> Place:
        name = object_name(text)
        if name:
            return object_place(name, self._endpoints)
        url = str(checked_url(text))
        return share_place(url, self._endpoints) or Place(url, url)

    def _sign(self, place: Place) -> str | None:
        return self._signer.sign(place.name, place.region) if self._signer and place.name else None

    def _noted(self, key: str, *, private: bool = False) -> dict[str, Any] | None:
        """The note of a source whose bytes are here, whole."""
        note: dict[str, Any] | None = self._lease.get_json(key, private=private)
        return note if note and self._lease.content(note["sha256"], note["size"]) else None

    def _is_fresh(self, note: dict[str, Any]) -> bool:
        """Whether the server need not be asked."""
        if note["etag"] or note["last_modified"]:
            return bool(note["asked"] >= self._since)
        return bool(max(note["asked"] - self._since, note["fetched"] + self._limits.trust - time.time()) >= 0)

    def _ask(
        self, place: Place, label: str, known: dict[str, Any] | None, pace: Pace, report: Progress
    ) -> dict[str, Any]:
        """Return the new note: of what `place` gives now or, where it gives nothing any more, of what is `known`.

        `fetched` is when the server last stood for the bytes, `asked` when it was asked, in seconds of the epoch.
        """
        try:
            note = self._download(place, label, known, pace, report)
        except FetchError as error:
            if known is None or not (error.retryable or error.code in LOST):
                raise
            if place.name and error.code == "not_permitted":
                # A link may run out; an object that everybody can name was shut by somebody.
                raise
            return {**known, "asked": time.time(), "lost": LOST.get(error.code, "cannot be reached any more")}
        now = time.time()
        return {**note, "fetched": now, "asked": now, "lost": None}

    def _download(
        self, place: Place, label: str, known: dict[str, Any] | None, pace: Pace, report: Progress
    ) -> dict[str, Any]:
        """Store what `place` gives now, unless it is what is `known`; return what describes it."""
        limits = self._limits
        pace.start()
        guard = Guard(allow=self._allow, ports=self._ports, resolver=self._resolver, watch=pace.check)
        timeout = httpx2.Timeout(limits.first_byte, connect=limits.connect)
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": f"crosscut/{version('crosscut')}"}
        scratch = self._lease.scratch()
        try:
            with storage_errors(), guarded_client(guard, timeout, headers) as client, scratch.open("wb") as file:
                transfer = Transfer(
                    client, place, label, file, limits=limits, pace=pace, report=report, known=known, sign=self._sign
                )
                fresh = transfer.run()
            if fresh is None:
                assert known is not None
                return known
            self._lease.keep(scratch, fresh["sha256"])
            return fresh
        finally:
            scratch.unlink(missing_ok=True)

    def _fetch_file(self, text: str, base: Path, report: Progress, stop: threading.Event) -> Source:
        label = shown(text)
        pace = Pace(label, self._limits, stop)
        with _opened(base / text, label) as file:
            status = os.fstat(file.fileno())
            if status.st_size > self._limits.max_bytes:
                raise too_large(label, self._limits.max_bytes)
            key = artifact_key(
                "file",
                path=str((base / text).resolve()),
                size=status.st_size,
                mtime=status.st_mtime_ns,
                inode=[status.st_dev, status.st_ino],
            )
            with self._lease.locked(key, waiting=pace.check_cancelled):
                note = self._noted(key, private=True)
                if note is None:
                    note = self._lease.with_room(lambda: self._take_in(file, label, status.st_size, pace, report))
                    self._lease.put_json(key, note, private=True)
        return self._source(label, note)

    def _take_in(self, file: BinaryIO, label: str, size: int, pace: Pace, report: Progress) -> dict[str, Any]:
        """Copy an open file into the store; the hash is that of the copy, whatever happens to the original."""
        scratch = self._lease.scratch()
        digest = hashlib.sha256()
        try:
            file.seek(0)
            with scratch.open("w+b") as copy:
                _clone(file, copy, pace)
                copy.seek(0)
                refuse_other(copy.read(HEAD), label)
                copy.seek(0)
                while chunk := copy.read(CHUNK):
                    pace.check_cancelled()
                    digest.update(chunk)
                    report(copy.tell(), size)
                taken = copy.tell()
            self._lease.keep(scratch, digest.hexdigest())
        except OSError as error:
            if is_full(error):
                raise
            raise FetchError(
                f"{label} could not be read to its end; check the disk it is on.", code="unreadable", detail=str(error)
            ) from error
        finally:
            scratch.unlink(missing_ok=True)
        return {"sha256": digest.hexdigest(), "size": taken}

    def _source(self, label: str, note: dict[str, Any], filename: str | None = None) -> Source:
        path = self._lease.content(note["sha256"])
        assert path is not None, "the lease holds what it was given"
        return Source(label, note["sha256"], path, note["size"], _lost(label, note), filename)


def _lost(label: str, note: dict[str, Any]) -> str | None:
    if not note.get("lost"):
        return None
    day = datetime.fromtimestamp(note["fetched"], UTC).date()
    return f"{label} {note['lost']}: the copy fetched on {day} is used"


def _opened(path: Path, label: str) -> BinaryIO:
    """Open a regular file without waiting for the other end of a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise FetchError(f"{label} does not exist; check the path.", code="not_found") from error
    except OSError as error:
        raise FetchError(
            f"{label} cannot be read; check its permissions.", code="unreadable", detail=str(error)
        ) from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
    raise FetchError(f"{label} is {what}; give the path of a media file.", code="not_a_file")


def _clone(source: BinaryIO, target: BinaryIO, pace: Pace) -> None:
    """Copy by reference where the file system can (reflink), inside the kernel where it cannot, else by hand."""
    with suppress(OSError, AttributeError):
        while os.copy_file_range(source.fileno(), target.fileno(), 64 * CHUNK):
            pace.check_cancelled()
        return
    source.seek(0)
    target.seek(0)
    target.truncate()
    shutil.copyfileobj(source, target, CHUNK)


def _silent(_size: int, _total: int | None) -> None:
    """Report nothing."""
