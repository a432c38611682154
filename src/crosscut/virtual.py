"""A file that exists as a list of byte ranges of other files: measured, read and copied without being stored."""

from __future__ import annotations

import errno
import hashlib
import os
from bisect import bisect_right
from contextlib import ExitStack
from dataclasses import dataclass
from io import UnsupportedOperation
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO

from crosscut.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

BLOCK = 1 << 20
"""Bytes read at a time."""
STRETCH = 64 << 20
"""Bytes that the kernel copies at a time."""

_REFUSED = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM}
"""What the kernel says when it will not copy between two descriptors itself (EBADF: opened for appending)."""


@dataclass(frozen=True, slots=True)
class Extent:
    """`length` bytes from `offset` of a file, or of bytes held in memory."""

    source: Path | bytes
    offset: int
    length: int


def _nothing() -> None:
    pass


class VirtualFile:
    """Immutable, and safe to read from several threads: every call opens its own files, each once.

    Raises StorageError `damaged_artifact` where a file is missing or ends before its extents do. The files must stay
    where they are for as long as this object is read.
    """

    __slots__ = ("_ends", "_extents", "shared")

    def __init__(self, extents: Iterable[Extent], shared: Iterable[tuple[int, int]] = ()) -> None:
        """`shared` are ranges of the file (start, stop), in order, that other files have as well."""
        self._extents = tuple(_merged(extents))
        self._ends = tuple(accumulate(extent.length for extent in self._extents))
        self.shared = tuple(shared)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes `start` to `stop`, without `stop`; fewer where the file ends."""
        return b"".join(self.blocks(start, stop))

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The same bytes piece by piece, none larger than `BLOCK`."""
        if start < 0:
            raise ValueError("a range starts at 0 or later")
        stop = len(self) if stop is None else min(stop, len(self))
        with _Sources() as sources:
            index = bisect_right(self._ends, start)
            while start < stop:
                extent = self._extents[index]
                skip = start - (self._ends[index] - extent.length)
                wanted = min(extent.length - skip, stop - start, BLOCK)
                yield sources.read(extent.source, extent.offset + skip, wanted)
                start += wanted
                index += wanted + skip == extent.length

    def extents(self, start: int, stop: int) -> Iterator[Extent]:
        """What these bytes of the file are made of."""
        index = bisect_right(self._ends, start)
        while start < stop:
            extent = self._extents[index]
            skip = start - (self._ends[index] - extent.length)
            length = min(extent.length - skip, stop - start)
            yield Extent(extent.source, extent.offset + skip, length)
            start += length
            index += 1

    def alone(self) -> VirtualFile:
        """The same bytes, of which no other file has any."""
        return VirtualFile(self._extents)

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for block in self.blocks():
            digest.update(block)
        return digest.hexdigest()

    def digest(self) -> str:
        """Names these bytes, as far as the names of the files they are in do."""
        digest = hashlib.sha256()
        for extent in self._extents:
            source = extent.source
            digest.update(source if isinstance(source, bytes) else f"{source.name}/{extent.offset}".encode())
            digest.update(extent.length.to_bytes(8))
        return digest.hexdigest()[:32]

    def intact(self) -> bool:
        """Whether the files are still there, as long as they must be."""
        ends: dict[Path, int] = {}
        for extent in self._extents:
            if not isinstance(extent.source, bytes):
                ends[extent.source] = max(ends.get(extent.source, 0), extent.offset + extent.length)
        try:
            return all(path.stat().st_size >= end for path, end in ends.items())
        except FileNotFoundError:
            return False

    def copy_to(self, out: BinaryIO | int, check: Callable[[], None] = _nothing) -> None:
        """Write everything where `out` stands; inside the kernel where `out` is, or has, a file descriptor.

        `check` is called again and again, and raises to end it.
        """
        descriptor = out if isinstance(out, int) else _descriptor(out)
        if descriptor is None:
            assert not isinstance(out, int)
            for block in self.blocks():
                check()
                out.write(block)
            return
        with _Sources() as sources:
            for extent in self._extents:
                sources.copy(extent, descriptor, check)


class _Sources(ExitStack):
    """The files of one call, opened when first needed, closed together."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[Path, int] = {}

    def read(self, source: Path | bytes, offset: int, length: int) -> bytes:
        if isinstance(source, bytes):
            return source[offset : offset + length]
        descriptor = self._descriptor(source)
        data = os.pread(descriptor, length, offset)
        while len(data) < length:
            more = os.pread(descriptor, length - len(data), offset + len(data))
            if not more:
                raise _damaged(f"{source.name} ends before {offset + length}")
            data += more
        return data

    def copy(self, extent: Extent, out: int, check: Callable[[], None]) -> None:
        offset, end = extent.offset, extent.offset + extent.length
        while not isinstance(extent.source, bytes) and offset < end:
            check()
            copied = _kernel_copy(self._descriptor(extent.source), out, offset, min(end - offset, STRETCH))
            if copied == 0:
                break
            offset += copied
        while offset < end:
            check()
            block = memoryview(self.read(extent.source, offset, min(BLOCK, end - offset)))
            offset += len(block)
            while block:
                block = block[os.write(out, block) :]

    def _descriptor(self, path: Path) -> int:
        if path not in self._open:
            try:
                self._open[path] = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                raise _damaged(f"{path.name} is missing") from None
            self.callback(os.close, self._open[path])
        return self._open[path]


def _kernel_copy(source: int, out: int, offset: int, length: int) -> int:
    """Bytes copied; 0 where the kernel has nothing more to copy or will not do it."""
    try:
        return os.copy_file_range(source, out, length, offset)
    except AttributeError:  # not Linux
        return 0
    except OSError as error:
        if error.errno in _REFUSED:
            return 0
        raise


def _descriptor(out: BinaryIO) -> int | None:
    try:
        out.flush()
        return out.fileno()
    except (AttributeError, UnsupportedOperation):
        return None


def _damaged(detail: str) -> StorageError:
    return StorageError(
        "A prepared file is damaged or gone. Run the job again to make it anew.",
        code="damaged_artifact",
        detail=detail,
    )


def _merged(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Without empty extents, neighbours in one file as one."""
    last: Extent | None = None
    for extent in extents:
        if extent.length == 0:
            continue
        if last is not None and last.source is extent.source and last.offset + last.length == extent.offset:
            last = Extent(last.source, last.offset, last.length + extent.length)
            continue
        if last is not None:
            yield last
        last = extent
    if last is not None:
        yield last
