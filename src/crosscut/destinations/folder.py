"""Deliver into a folder on disk: temporary name, sync, atomic rename."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from crosscut.destinations import Delivered, nothing
from crosscut.disk import sync_folder
from crosscut.errors import CrosscutError, DeliverError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import timedelta
    from pathlib import Path

    from crosscut.destinations import Linker
    from crosscut.splice import VirtualFile

PARTIAL = ".partial-"
LOCK = ".crosscut.lock"


class FolderDestination:
    def __init__(self, root: Path) -> None:
        # A place is known by its name, which must not depend on where a command is started.
        self._root = root.absolute()

    def location(self, folder: str) -> str:
        return str(self._root / folder)

    def check(self) -> None:
        there = next(path for path in (self._root, *self._root.parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            sentence = f"cannot write {self._root}: {there} is no folder that may be written"
            raise DeliverError(sentence, code="not_writable")

    @contextlib.contextmanager
    def claim(self, folder: str) -> Iterator[None]:
        path = self._made(folder)
        with _refusals(path):
            lock = FileLock(path / LOCK, timeout=0, fallback_to_soft=False, thread_local=False)
            try:
                lock.acquire()
            except Timeout:
                sentence = f"another crosscut is writing into {path}: wait for it, or give the task another name"
                raise DeliverError(sentence, code="busy", retryable=True) from None
        try:
            FolderDelivery(path).sweep()
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def open(self, folder: str, check: Callable[[], None] = nothing) -> Iterator[FolderDelivery]:
        path = self._made(folder)
        try:
            yield FolderDelivery(path, check)
        finally:
            with contextlib.suppress(OSError):
                sync_folder(path)

    def linker(self, folder: str, lasts: timedelta) -> Linker:
        del folder, lasts
        raise DeliverError("files in a folder of this machine have no links: leave link_days out", code="no_links")

    def _made(self, folder: str) -> Path:
        path = self._root / folder
        with _refusals(path):
            path.mkdir(parents=True, exist_ok=True)
        return path


class FolderDelivery:
    grouped = False

    def __init__(self, path: Path, check: Callable[[], None] = nothing) -> None:
        self._path = path
        self._check = check
        self.location = str(path)

    def holds(self, name: str, size: int | None = None) -> bool:
        try:
            found = (self._path / name).stat().st_size
        except OSError:
            return False
        return size is None or found == size

    def put(self, name: str, file: VirtualFile) -> Delivered:
        path = self._path / name
        with _refusals(path), self._replacing(name) as descriptor:
            file.copy_to(descriptor, self._check)
        return Delivered(str(path), len(file), file.sha256())

    def put_text(self, name: str, parts: Iterable[str]) -> None:
        with (
            _refusals(self._path / name),
            self._replacing(name) as descriptor,
            os.fdopen(descriptor, "w", encoding="utf-8", newline="", closefd=False) as file,
        ):
            file.writelines(parts)

    def remove(self, name: str) -> None:
        path = self._path / name
        with _refusals(path):
            path.unlink(missing_ok=True)

    def sweep(self) -> None:
        with _refusals(self._path):
            for leftover in self._path.glob(f"{PARTIAL}*"):
                leftover.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _replacing(self, name: str) -> Iterator[int]:
        partial = self._path / f"{PARTIAL}{secrets.token_hex(8)}"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            try:
                yield descriptor
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            partial.replace(self._path / name)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turn what the system refuses into sentences."""
    try:
        yield
    except CrosscutError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            sentence = f"the disk of {path.parent} is full: free some space and run the same command again"
            raise StorageError(sentence, code="disk_full", retryable=True) from error
        reason = os.strerror(error.errno or 0).lower()
        raise DeliverError(f"cannot write {path}: {reason}", code="not_writable") from error
