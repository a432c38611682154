"""Small files that the processes of a machine share: replaced whole, and locked by name."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from crosscut.artifacts import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` against every thread and process; the kernel frees it when the holder dies."""
    lock = FileLock(path, fallback_to_soft=False)
    with storage_errors():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def read_json(path: Path) -> Any | None:
    """None where there is no file, or nothing that can be read."""
    with storage_errors():
        try:
            return json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError, RecursionError):
            return None


def write_json(path: Path, value: Any) -> None:
    """Replace the file at once; when this returns it outlives a loss of power.

    Not-a-number is kept as Python reads it again: what was paid for is not lost because it is odd.
    """
    with storage_errors():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_whole(path, json.dumps(value).encode())


def replace_whole(path: Path, data: bytes) -> None:
    """Replace a file at once by one that its owner alone can read; it outlives a loss of power. Raises OSError."""
    # mkstemp makes it with mode 0600.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def remove(path: Path) -> None:
    with storage_errors(), suppress(FileNotFoundError):
        path.unlink()
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make what was renamed or removed in it outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
