"""What must be known again after a crash: noted before something is done elsewhere, so that it is done once."""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING, Protocol

from filelock import FileLock

from crosscut.artifacts import storage_errors
from crosscut.files import replace_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POLL_SECONDS = 0.005


class Notes(Protocol):
    """Text by key, shared by all who deliver to a place. Some of it is secret: it is shown and logged nowhere.

    Every method raises StorageError, and what it has written outlives a loss of power.
    """

    def get(self, key: str) -> str | None: ...

    def put_once(self, key: str, value: str, instead_of: str | None = None) -> str:
        """Note `value` where there is nothing yet, or what is no good any more; return what is noted then.

        Of all who try at the same time, in whatever processes, one has its way, and all get the same answer.
        """
        ...

    def put(self, key: str, value: str) -> None: ...

    def forget(self, key: str) -> None: ...


class FileNotes:
    """A file for each note, readable by its owner alone; for the processes of one machine.

    folder/ab/cdef…   the note whose key has the SHA-256 abcdef…
    folder/ab/lock    held for a moment by whoever writes one of them
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> str | None:
        with storage_errors():
            try:
                return self._path(key).read_text(encoding="utf-8")
            except FileNotFoundError:
                return None

    def put_once(self, key: str, value: str, instead_of: str | None = None) -> str:
        with self._locked(key) as path:
            known = self.get(key)
            if known is not None and known != instead_of:
                return known
            replace_whole(path, value.encode())
            return value

    def put(self, key: str, value: str) -> None:
        with self._locked(key) as path:
            replace_whole(path, value.encode())

    def forget(self, key: str) -> None:
        with self._locked(key) as path:
            path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self._folder / name[:2] / name[2:]

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[Path]:
        path = self._path(key)
        with storage_errors():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(path.parent / "lock", poll_interval=POLL_SECONDS, fallback_to_soft=False):
                yield path
