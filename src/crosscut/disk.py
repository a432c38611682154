"""What the disk may say, as errors of ours; links, and what outlives a loss of power."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from crosscut.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPLACED = 100
"""How often in a row a file may be replaced under our eyes."""

NO_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk or quota is behind `error`, at any depth of its causes."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if isinstance(error, StorageError) and error.code == "disk_full":
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn what the operating system says about the store's disk into a StorageError."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise disk_full(error) from error
        raise StorageError(
            "The data folder cannot be used: make it writable, or set CROSSCUT_DATA_DIR to a folder that is.",
            code="storage_unusable",
            detail=str(error),
        ) from error


def disk_full(error: BaseException) -> StorageError:
    return StorageError(
        "The disk is full: free some space, or set CROSSCUT_DATA_DIR to a folder on a larger disk.",
        code="disk_full",
        retryable=True,
        detail=str(error),
    )


def link(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a copy where there are no links."""
    for _ in range(REPLACED):
        try:
            os.link(source, target)
        except FileNotFoundError:
            # Somebody puts the same bytes there just now: the file we found lost its last name before it got ours.
            if source.exists():
                continue
            raise
        except OSError as error:
            if error.errno not in NO_LINK:
                raise
            shutil.copyfile(source, target)
        return
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))


def settle(path: Path) -> int:
    """Force the bytes to the disk before they get a name that promises them, forbid writing; the size in bytes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fchmod(descriptor, 0o444)
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make what was renamed or removed in it outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
