"""One file into Google Drive: the resumable protocol, with an answer to everything it may answer.

A session's URL is noted before the first byte is sent, so that whoever comes after a crash asks how far it got and
goes on from there. A small file has no session: it is sent in one request, and again, with the same id, if that breaks
off. Google documents both under "Upload file data"; a session lives for a week.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crosscut.destinations.drive_client import Found, found_in, odd
from crosscut.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from crosscut.commons import Notes
    from crosscut.destinations.drive_client import DriveClient
    from crosscut.destinations.drive_errors import Reply
    from crosscut.virtual import VirtualFile

STEP = 256 * 1024
"""All requests but the last carry a multiple of so many bytes."""
CHUNK = 256 * STEP
"""64 MiB: an answer from time to time, and seldom a wait for one; what was sent of a chunk that breaks off is kept."""
WHOLE = 5_000_000
"""Bytes of a file that goes in one request (Google, "Perform a multipart upload": 5 MB or less)."""


class GoneError(Exception):
    """The id leads nowhere any more: the file was put into the trash, moved away or deleted by somebody."""


@dataclass(frozen=True)
class Target:
    """What is to be there."""

    id: str
    name: str
    folder: str
    mime: str

    def metadata(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "parents": [self.folder],
            "mimeType": self.mime,
            "appProperties": {"crosscut": "file"},
        }


class Upload:
    """One file on its way; used by one thread."""

    def __init__(
        self,
        drive: DriveClient,
        notes: Notes,
        key: str,
        target: Target,
        file: VirtualFile,
        *,
        chunk: int = CHUNK,
        whole: int = WHOLE,
    ) -> None:
        """The session, which a file of at most `whole` bytes does not have, is noted as `key`."""
        self._drive = drive
        self._notes = notes
        self._key = key
        self._target = target
        self._file = file
        self._chunk = chunk
        self._sessions = len(file) > whole
        self._tally = _Tally(file)
        self._patience = drive.patience()
        self._replacing = False
        self._best = 0
        """The most bytes that any session had."""
        self._url: str | None = None
        self._kept: int | None = None
        """Bytes that the session has; None: it must be asked."""

    @property
    def retries(self) -> int:
        return self._patience.tries

    def run(self) -> tuple[Found, str]:
        """The file as Drive has it in the end, and the SHA-256 of what it should be.

        Raises GoneError, DeliverError, and StorageError where the file cannot be read.
        """
        self._url = self._noted()
        try:
            found = self._step()
            while found is None:
                found = self._step()
        except StorageError:
            # Whatever was sent is not to be gone on with.
            self._drop()
            raise
        self._drop()
        return found, self._tally.hexdigest()

    def again(self) -> None:
        """What arrived is not what was sent: let `run` send all of it once more, in place of that."""
        self._replacing = True

    def _step(self) -> Found | None:
        """One request; the file, if it is there now."""
        if not self._sessions:
            return self._sent_whole()
        if self._url is None:
            return self._started()
        if self._kept is None:
            reply = self._put(b"", {"Content-Range": f"bytes */{len(self._file)}"})
        else:
            reply = self._send(self._kept)
        return self._heeded(reply)

    def _sent_whole(self) -> Found | None:
        metadata, replaced = self._described()
        with contextlib.closing(self._tally.blocks(0, len(self._file))) as blocks:
            reply = self._drive.upload_whole(metadata, len(self._file), self._target.mime, blocks, replaced)
        if reply.kind == "done":
            return found_in(reply)
        if reply.status == 401:  # the token is renewed by now
            self._patience.after(reply)
            return None
        return self._unwelcome(reply)

    def _started(self) -> Found | None:
        metadata, replaced = self._described()
        reply = self._drive.start_upload(metadata, len(self._file), self._target.mime, replaced)
        if reply.kind != "done":
            return self._unwelcome(reply)
        url = reply.headers.get("location")
        if not url or not self._drive.trusts(url):
            raise odd(reply)
        self._note(url)
        self._url, self._kept = url, 0
        return None

    def _described(self) -> tuple[dict[str, Any], str | None]:
        """What the file is to be, and the id of the one it replaces."""
        metadata = self._target.metadata()
        if not self._replacing:
            return metadata, None
        # Neither may be given again.
        return {name: value for name, value in metadata.items() if name not in ("id", "parents")}, self._target.id

    def _unwelcome(self, reply: Reply) -> Found | None:
        """What comes of a file that was not taken as it was offered; raises unless it may be offered once more."""
        if reply.kind == "taken" and not self._replacing:
            return self._there_already()
        if reply.kind == "gone" and self._replacing:
            raise GoneError
        if reply.kind not in ("again", "rate"):
            raise reply.error()
        self._patience.after(reply)
        return None

    def _there_already(self) -> Found | None:
        """The id is taken, by what an earlier try has left: this very file, or one to be replaced."""
        found = self._drive.find(self._target.id)
        if found is None or not found.lies_in(self._target.folder):
            raise GoneError
        if found.name == self._target.name and found.size == len(self._file) and self._tally.agrees(found):
            return found
        self._replacing = True
        return None

    def _send(self, start: int) -> Reply:
        """From `start`, as much as one request carries."""
        total = len(self._file)
        stop = min(start + self._chunk, total)
        if stop == start:
            # An empty file has no range; a session that has everything, and has not said that it is done, is asked.
            return self._put(b"", {} if total == 0 else {"Content-Range": f"bytes */{total}"})
        headers = {"Content-Length": str(stop - start), "Content-Range": f"bytes {start}-{stop - 1}/{total}"}
        with contextlib.closing(self._tally.blocks(start, stop)) as blocks:
            return self._put(blocks, headers)

    def _put(self, content: bytes | Iterator[bytes], headers: Mapping[str, str]) -> Reply:
        assert self._url is not None
        return self._drive.exchange(
            "PUT", self._url, headers={**headers, "Content-Type": self._target.mime}, content=content
        )

    def _heeded(self, reply: Reply) -> Found | None:
        match reply.kind:
            case "done":
                return found_in(reply)
            case "more":
                self._has(_kept(reply), reply)
            case "again" | "rate":
                self._kept = None
                self._patience.after(reply)
            case "taken":
                self._drop()
                return self._there_already()
            case "gone":
                self._drop()
                self._patience.after(reply)
            case _:
                self._refused(reply)
        return None

    def _has(self, kept: int, reply: Reply) -> None:
        """Go on from there; a request that brought it no further is one that failed."""
        if kept > len(self._file):
            self._drop()
            self._patience.after(reply)
            return
        if kept > self._best:
            self._best = kept
            self._patience.got_on()
        elif self._kept is not None:
            self._patience.after(reply)
        self._kept = kept

    def _refused(self, reply: Reply) -> None:
        """Raise, unless it is about this session alone, or about a token that is renewed by now."""
        if reply.status == 401 and self._kept is not None:
            self._kept = None
        elif reply.status in (400, 412, 416):
            # It and we do not agree on how far it got.
            self._drop()
        else:
            raise reply.error()
        self._patience.after(reply)

    def _noted(self) -> str | None:
        """The session that an earlier try at these very bytes has left."""
        if not self._sessions:
            return None
        try:
            noted = json.loads(self._notes.get(self._key) or "{}")
            same = noted["for"] == self._token()
            return str(noted["url"]) if same and self._drive.trusts(str(noted["url"])) else None
        except (ValueError, KeyError, TypeError):
            return None

    def _note(self, url: str) -> None:
        self._notes.put(self._key, json.dumps({"for": self._token(), "url": url}), moment=True)

    def _token(self) -> str:
        return f"{self._target.id} {self._target.name} {len(self._file)} {self._file.digest()}"

    def _drop(self) -> None:
        self._url = self._kept = None
        if self._sessions:
            self._notes.forget(self._key)


def _kept(reply: Reply) -> int:
    """Bytes that the session has, which says nothing of a range as long as it has none."""
    found = re.fullmatch(r"bytes=0-(\d{1,15})", reply.headers.get("range", ""))
    return int(found[1]) + 1 if found else 0


class _Tally:
    """The file's SHA-256, taken as it is sent, however often it has to be sent again."""

    def __init__(self, file: VirtualFile) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._reached = 0

    def blocks(self, start: int, stop: int) -> Generator[bytes, None, None]:
        for block in self._file.blocks(start, stop):
            self._take(start, block)
            start += len(block)
            yield block

    def hexdigest(self) -> str:
        """Of the whole file: from where somebody else has sent a part, it is read for this."""
        for block in self._file.blocks(self._reached):
            self._take(self._reached, block)
        return self._digest.hexdigest()

    def agrees(self, found: Found) -> bool:
        """Whether Drive has these bytes; an older file may have one kind of checksum alone."""
        if found.sha256:
            return found.sha256 == self.hexdigest()
        md5 = hashlib.md5(usedforsecurity=False)
        for block in self._file.blocks():
            md5.update(block)
        return found.md5 == md5.hexdigest()

    def _take(self, start: int, block: bytes) -> None:
        if start <= self._reached < start + len(block):
            self._digest.update(memoryview(block)[self._reached - start :])
            self._reached = start + len(block)
