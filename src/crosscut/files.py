"""What the processes of one machine share, in small files: replaced whole, and locked by the kernel.

A lock is free as soon as its holder is gone, however it went.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from crosscut.commons import Shared
from crosscut.disk import storage_errors, sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

POLL_SECONDS = 0.005
"""A note is written in about so long."""


class FileNotes:
    """A file for each note, readable by its owner alone; the key is its path in the folder.

    folder/ab/lock    held for a moment by whoever writes a note in folder/ab
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> str | None:
        with storage_errors():
            try:
                return self._path(key).read_text(encoding="utf-8")
            except (FileNotFoundError, UnicodeDecodeError):
                return None

    def has(self, key: str) -> bool:
        with storage_errors():
            return self._path(key).exists()

    def put_once(self, key: str, value: str, instead_of: str | None = None) -> str:
        known = self.get(key)
        if known is not None and known != instead_of:
            return known
        # What takes its time is done before others have to wait.
        with self._made(key) as path, _beside(path, value.encode()) as new:
            with self._locked(path):
                known = self.get(key)
                if known is None or known == instead_of:
                    new.replace(path)
                    known = value
            sync_folder(path.parent)
        return known

    def put(self, key: str, value: str, *, moment: bool = False) -> None:
        with self._made(key) as path, _beside(path, value.encode(), lasting=not moment) as new:
            with nullcontext() if moment else self._locked(path):
                new.replace(path)
            if not moment:
                sync_folder(path.parent)

    def forget(self, key: str) -> None:
        # As good as before or after whatever another does with the note at the same time: no lock.
        with storage_errors(), suppress(FileNotFoundError):
            self._path(key).unlink()

    def _path(self, key: str) -> Path:
        return self.folder / key

    @contextmanager
    def _made(self, key: str) -> Iterator[Path]:
        path = self._path(key)
        with storage_errors():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            yield path

    def _locked(self, path: Path) -> FileLock:
        return FileLock(path.parent / "lock", poll_interval=POLL_SECONDS, fallback_to_soft=False)


class HashedNotes(FileNotes):
    """For keys that are no paths: the file is folder/ab/cdef… where the key has the SHA-256 abcdef…."""

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / name[:2] / name[2:]


class FileHolds:
    """Keys are paths in the folder; each leaves its files there, so let there be a bounded number of them.

    folder/key              a lock
    folder/key/gate.lock    held for a moment by whoever looks for a slot
    folder/key/slot-007.lock
    """

    poll_seconds = 0.05

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def lock(self, key: str) -> FileHold | None:
        path = self._folder / key
        with storage_errors():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return _taken(path)

    def slot(self, key: str, most: int) -> FileHold | None:
        """Some may be held above a limit that was lowered since: they count."""
        folder = self._folder / key
        free: FileHold | None = None
        held = 0
        with storage_errors():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(folder / "gate.lock", poll_interval=POLL_SECONDS, fallback_to_soft=False):
                slots = max(most, _made(folder))
                for number in range(slots):
                    if free is not None and held + slots - number < most:
                        break  # however many of the rest are held
                    hold = _taken(folder / f"slot-{number:03}.lock")
                    if hold is None:
                        held += 1
                    elif free is None:
                        free = hold
                    else:
                        hold.release()
        if free is not None and held >= most:
            free.release()
            return None
        return free


class FileHold:
    def __init__(self, lock: FileLock) -> None:
        self._lock = lock

    def release(self) -> None:
        self._lock.release()


def _taken(path: Path) -> FileHold | None:
    lock = FileLock(path, timeout=0, fallback_to_soft=False, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        return None
    return FileHold(lock)


def _made(folder: Path) -> int:
    numbers = [int(path.stem.removeprefix("slot-")) for path in folder.glob("slot-*.lock")]
    return max(numbers, default=-1) + 1


def shared_in(folder: Path, clock: Callable[[], float] = time.time) -> Shared:
    """What the processes share that have the folder."""
    return Shared(FileNotes(folder), FileHolds(folder), clock)


@contextmanager
def _beside(path: Path, data: bytes, *, lasting: bool = True) -> Iterator[Path]:
    """A new file in the same folder, which its owner alone can read; gone after the block where it was not moved.

    It is `lasting` where its bytes outlive a loss of power. Raises OSError.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
