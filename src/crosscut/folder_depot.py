"""A depot in a folder that all machines mount: any file system that has hard links and renames at once, such as NFS.

A name is given by a hard link, which fails where it is taken; no lock is needed, and none is trusted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from crosscut.depot import BLOCK, Held, unavailable
from crosscut.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

STEPS = "steps"
"""Folder of files that have no name yet."""
STEP_SECONDS = 86_400.0
"""What is written for longer has been left by a process that was killed."""


class FolderDepot:
    def __init__(self, root: Path) -> None:
        """`root` is made only right below a mount point: where else it is missing, a volume may be."""
        self._root = root

    def check(self) -> None:
        name = f"{STEPS}/check-{secrets.token_hex(8)}"
        try:
            with self._errors():
                if self._root.parent.is_mount():
                    self._root.mkdir(exist_ok=True)
                (self._root / STEPS).mkdir(exist_ok=True)
                self._sweep()
            first = self.write(name, b"first")
            second = self.write(name, b"second")
            self.remove(name)
        except StorageError as error:
            raise _unusable(error.detail) from error
        if not first or second:
            raise _unusable("a hard link was made over a file")

    def read(self, name: str) -> Held | None:
        try:
            with self._errors():
                data = (self._root / name).read_bytes()
        except FileNotFoundError:
            return None
        return Held(data, hashlib.sha256(data).digest())

    def write(self, name: str, data: bytes, instead_of: Held | None = None) -> bool:
        path = self._root / name
        with self._errors(), self._step([data]) as step:
            path.parent.mkdir(parents=True, exist_ok=True)
            if instead_of is not None and not self._taken_away(path, instead_of):
                return False
            try:
                os.link(step, path)
            except FileExistsError:
                return False
            return True

    def size(self, name: str) -> int | None:
        try:
            with self._errors():
                return (self._root / name).stat().st_size
        except FileNotFoundError:
            return None

    def blocks(self, name: str) -> Iterator[bytes]:
        with self._errors(), (self._root / name).open("rb", buffering=0) as file:
            while block := file.read(BLOCK):
                yield block

    def store(self, name: str, blocks: Iterable[bytes]) -> None:
        path = self._root / name
        with self._errors(), self._step(blocks) as step:
            path.parent.mkdir(parents=True, exist_ok=True)
            step.replace(path)

    def remove(self, name: str) -> None:
        with self._errors():
            (self._root / name).unlink(missing_ok=True)
            self._there()

    def _taken_away(self, path: Path, known: Held) -> bool:
        """Whether we, and nobody else, took `known` away from there."""
        taken = self._root / STEPS / secrets.token_hex(8)
        try:
            path.rename(taken)
        except FileNotFoundError:
            return False
        try:
            if hashlib.sha256(taken.read_bytes()).digest() == known.edition:
                return True
            with contextlib.suppress(FileExistsError):  # it is another's, and goes back unless a third is there now
                os.link(taken, path)
            return False
        finally:
            taken.unlink(missing_ok=True)

    @contextmanager
    def _step(self, blocks: Iterable[bytes]) -> Iterator[Path]:
        """A file of these bytes that has no name yet; it is gone at the end."""
        path = self._root / STEPS / secrets.token_hex(8)
        try:
            with path.open("xb", buffering=0) as file:
                for block in blocks:
                    view = memoryview(block)
                    while view:
                        view = view[file.write(view) :]
                os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what killed writers left."""
        for path in (self._root / STEPS).iterdir():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > STEP_SECONDS:
                    path.unlink()

    def _there(self) -> None:
        if not (self._root / STEPS).is_dir():
            raise NotADirectoryError(str(self._root))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """FileNotFoundError is the caller's only where all the rest is there: a volume may have gone."""
        try:
            try:
                yield
            except FileNotFoundError:
                self._there()
                raise
        except FileNotFoundError:
            raise
        except OSError as error:
            raise unavailable(
                "the folder that the machines share (CROSSCUT_SHARED) cannot be used at the moment: is it mounted, and"
                " is there room?",
                str(error),
            ) from error


def _unusable(detail: str) -> StorageError:
    return StorageError(
        "the folder that the machines share (CROSSCUT_SHARED) cannot be used: it must be there and writable, on a file"
        " system with hard links, such as NFS",
        code="shared_unusable",
        detail=detail,
    )
