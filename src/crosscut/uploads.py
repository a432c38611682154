"""Files that users send: kept by content, safe from eviction, each known to who sent it."""

from __future__ import annotations

import hashlib
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from crosscut.destinations import nothing
from crosscut.disk import link, storage_errors
from crosscut.errors import StorageError
from crosscut.ports import NotFoundError
from crosscut.sniff import HEAD
from crosscut.store import access
from crosscut.transfer import refuse_other, too_large

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from crosscut.artifacts import Artifacts
    from crosscut.sharing import Sharing
    from crosscut.store import Store

PREFIX = "source:"


class Uploads:
    """Thread-safe. `folder` holds a hard link to each upload: what is linked is not evicted from the artifacts.

    Where machines share, uploads are there, and nothing is linked here. Files and rows change together: in one
    transaction, in which nobody else has that upload.
    """

    def __init__(
        self, artifacts: Artifacts, folder: Path, store: Store, most_bytes: int, sharing: Sharing | None = None
    ) -> None:
        """Uploads of before the machine shared are shared now."""
        self._artifacts = artifacts
        self._folder = folder
        self._store = store
        self._most_bytes = most_bytes
        self._sharing = sharing
        with storage_errors():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in folder.iterdir() if sharing else ():
                assert sharing is not None
                sharing.give_upload(path, path.name, nothing)

    def unknown(self, owner: str | None, sources: Iterable[str]) -> str | None:
        """The first of the `sources` that claims to be an upload (`source:…`) but is none of that owner."""
        asked = {source: _digest(source) for source in sources if source.startswith(PREFIX)}
        if not asked:
            return None
        known = self._store.read(lambda db: access.uploaded(db, owner, set(asked.values())))
        return next((source for source, upload in asked.items() if upload not in known), None)

    def intake(self, owner: str, name: str) -> Taking:
        return Taking(self, owner, name)

    def keep(self, owner: str, name: str, sha256: str, size: int) -> None:
        """Note whose it is, and hold on to it."""

        def note(db: Any) -> None:
            access.hold_upload(db, sha256)
            self._hold(sha256, size)
            access.add_upload(db, owner, sha256, name, size, self._store.clock())

        self._store.read(note)

    def remove(self, owner: str | None, source: str) -> None:
        """Forget whose it is, and let go of it with its last owner; NotFoundError where it is none of that owner."""
        upload = _digest(source)

        def forget(db: Any) -> None:
            access.hold_upload(db, upload)
            if not access.remove_upload(db, owner, upload):
                raise NotFoundError(
                    "there is no such upload of yours: use the id that POST /sources answered", code="no_such_source"
                )
            if not access.uploaded(db, None, [upload]):
                self._let_go(upload)

        self._store.read(forget)

    def _hold(self, sha256: str, size: int) -> None:
        if self._sharing is not None:
            if not self._sharing.has_upload(sha256, size):
                raise StorageError(
                    "this file was removed at the same moment: send it again", code="removed", retryable=True
                )
            return
        blob, mine = self._artifacts.blob(sha256, ""), self._folder / sha256
        with storage_errors():
            if not (mine.exists() and mine.samefile(blob)):
                mine.unlink(missing_ok=True)
                link(blob, mine)

    def _let_go(self, upload: str) -> None:
        if self._sharing is not None:
            self._sharing.remove_upload(upload)
        with storage_errors():
            (self._folder / upload).unlink(missing_ok=True)

    @property
    def artifacts(self) -> Artifacts:
        return self._artifacts

    @property
    def most_bytes(self) -> int:
        return self._most_bytes


def _digest(source: str) -> str:
    return source.removeprefix(PREFIX).partition("/")[0]


def _plain(name: str) -> str:
    """The name as the last part of an id: variations are called after it."""
    return re.sub(r"[\x00-\x1f\x7f/\\]+", "_", name).strip()[:200] or "upload"


class Taking:
    """One upload under way."""

    def __init__(self, uploads: Uploads, owner: str, name: str) -> None:
        self._uploads = uploads
        self._owner = owner
        self._name = name
        self._stack = ExitStack()
        self._lease = self._stack.enter_context(uploads.artifacts.lease())
        self._scratch = self._lease.scratch()
        self._digest = hashlib.sha256()
        self._size = 0
        with storage_errors():
            self._file = self._stack.enter_context(self._scratch.open("wb"))

    def write(self, data: bytes) -> None:
        """Raises FetchError when it is larger than sources may be."""
        self._size += len(data)
        if self._size > self._uploads.most_bytes:
            raise too_large(self._name, self._uploads.most_bytes)
        self._digest.update(data)
        with storage_errors():
            self._file.write(data)

    def commit(self) -> dict[str, Any]:
        """Raises FetchError when it plainly is no media file."""
        try:
            with storage_errors():
                self._file.close()
                with self._scratch.open("rb") as file:
                    refuse_other(file.read(HEAD), self._name)
            sha256 = self._digest.hexdigest()
            with self._lease.locked(sha256):
                self._lease.keep_upload(self._scratch, sha256, self._size)
                self._uploads.keep(self._owner, self._name, sha256, self._size)
        finally:
            self._stack.close()
        source = f"{PREFIX}{sha256}/{_plain(self._name)}"
        return {"id": source, "name": self._name, "bytes": self._size, "sha256": sha256}

    def abort(self) -> None:
        self._stack.close()
