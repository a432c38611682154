"""Files put together inside a bucket: what several of them share is sent once, and each of them is joined from that.

    prefix/Spring/1_a.mp4                a file, joined
    prefix/.crosscut/Spring/<sha256>     a part of files, named by its bytes, there until the folder is swept
    prefix/.crosscut/Spring/<random>     what a file has alone, such as its index, there until the file is joined

A part that two processes send at the same time is written twice with the same bytes. A file appears under its name by
the one request that joins it, and is whole then: the store answers with its CRC32C.

A store that does not join, or not for us, is asked no more for a while; files are sent whole then, with the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import google_crc32c

from crosscut.destinations import Delivered, Delivery
from crosscut.destinations.compose import MOST, CannotJoinError, PartsGoneError
from crosscut.errors import CrosscutError, DeliverError
from crosscut.virtual import VirtualFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from crosscut.virtual import Extent

HIDDEN = ".crosscut"
"""Beside the folders of tasks, of which none begins with a dot."""

WORTH = 1 << 16
"""Bytes that a file must share for it to be put together: below, the requests take longer than the bytes."""

SPENT_AT_ONCE = 64
"""Parts of one file alone that are taken away together."""

ASKED_AGAIN = 900.0
"""Seconds after which a store that refused is asked again: somebody may have changed what it allows."""


class Bucket(Delivery, Protocol):
    """A delivery into a folder of a bucket."""

    def key(self, name: str) -> str:
        """The object's whole name in the bucket."""
        ...

    def headers(self, name: str, sha256: str) -> Mapping[str, str]:
        """What such a file says of itself to those who download it."""
        ...

    def finds(self, name: str, size: int) -> bool:
        """Whether it is there now, whatever was known before."""
        ...

    def note(self, name: str, size: int) -> None:
        """It was written there by somebody else."""
        ...

    def discard(self, names: Sequence[str]) -> None:
        """Take these away, if they are there."""
        ...

    def clear(self) -> None:
        """Take away everything in the folder."""
        ...


class Join(Protocol):
    """One request that joins objects; see `compose.Composer.join`."""

    def __call__(self, key: str, sources: Sequence[str], headers: Mapping[str, str]) -> int: ...


class Assemblies:
    """What the deliveries of one process know of each other. Thread-safe; pickled, it comes out empty."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}
        self._sending: dict[str, dict[str, threading.Lock]] = {}

    def __reduce__(self) -> tuple[type[Assemblies], tuple[()]]:
        return Assemblies, ()

    def refused(self, location: str) -> None:
        """The store of this folder does not join."""
        self._until[location] = self._clock() + ASKED_AGAIN

    def refuses(self, location: str) -> bool:
        return self._clock() < self._until.get(location, 0.0)

    def sending(self, location: str, part: str) -> threading.Lock:
        """To be held by who sends that part."""
        with self._lock:
            return self._sending.setdefault(location, {}).setdefault(part, threading.Lock())

    def forget(self, location: str) -> None:
        """Nothing is sent there any more."""
        with self._lock:
            self._sending.pop(location, None)


@dataclass(frozen=True)
class _Piece:
    """A range of a file."""

    start: int
    stop: int
    shared: bool
    extents: tuple[Extent, ...]
    name: str = ""
    """As a part: what is shared by its bytes, so that all who have it find it."""


class AssemblingDelivery:
    """`files` is the job's folder, `parts` opens the hidden one anew: to know what is there now."""

    grouped = True

    def __init__(
        self, files: Bucket, parts: Callable[[], Bucket], join: Join, assemblies: Assemblies, worth: int = WORTH
    ) -> None:
        self.location = files.location
        self._files = files
        self._open_parts = parts
        self._parts = parts()
        self._join = join
        self._assemblies = assemblies
        self._worth = worth
        self._lock = threading.Lock()
        self._known: dict[tuple[Extent, ...], str] = {}
        """SHA-256 of shared ranges."""
        self._spent: list[str] = []

    def holds(self, name: str, size: int | None = None) -> bool:
        return self._files.holds(name, size)

    def put_text(self, name: str, parts: Iterable[str]) -> None:
        self._files.put_text(name, parts)

    def remove(self, name: str) -> None:
        self._files.remove(name)

    def put(self, name: str, file: VirtualFile) -> Delivered:
        shared = sum(stop - start for start, stop in file.shared)
        if shared < self._worth or self._assemblies.refuses(self.location):
            return self._files.put(name, file)
        sent = _Sent()
        try:
            return self._assembled(name, file, sent)
        except CannotJoinError as error:
            self._assemblies.refused(self.location)
            delivered = self._files.put(name, file)
            return replace(delivered, sent=delivered.sent + sent.bytes, refusal=error.detail)

    def sweep(self) -> None:
        self._files.sweep()
        try:
            self._parts.clear()
        except DeliverError as error:
            # A retention policy, or these credentials, let nothing be taken away; the videos are good all the same.
            if error.retryable:
                raise
        self._assemblies.forget(self.location)
        with self._lock:
            self._spent.clear()

    def close(self) -> None:
        """Take away what was needed for a moment; what cannot be now is when the folder is swept."""
        with self._lock:
            spent, self._spent = self._spent, []
        with contextlib.suppress(CrosscutError):
            self._parts.discard(spent)

    def _assembled(self, name: str, file: VirtualFile, sent: _Sent) -> Delivered:
        pieces, sha256, checksum = self._measured(file)
        headers = self._files.headers(name, sha256)
        try:
            found = self._joined(name, pieces, headers, sent)
        except PartsGoneError:
            # Somebody has emptied the hidden folder: what is there is asked anew, once.
            self._parts = self._open_parts()
            try:
                found = self._joined(name, pieces, headers, sent)
            except PartsGoneError:
                raise CannotJoinError("what was sent is not there") from None
        if found != checksum:
            raise CannotJoinError("other bytes than were sent")
        self._files.note(name, len(file))
        return Delivered(f"{self.location}/{name}", len(file), sha256, sent=sent.bytes, joined=True)

    def _joined(self, name: str, pieces: Sequence[_Piece], headers: Mapping[str, str], sent: _Sent) -> int:
        for piece in pieces:
            self._send(piece, sent)
        sources = [piece.name for piece in pieces]
        own = [piece.name for piece in pieces if not piece.shared]
        while len(sources) > MOST:
            # Joined in several steps; the steps between are objects that this file has alone.
            groups = [sources[start : start + MOST] for start in range(0, len(sources), MOST)]
            sources = [self._step(group) for group in groups]
            own += sources
        found = self._join(self._files.key(name), [self._parts.key(source) for source in sources], headers)
        self._spend(own)
        return found

    def _step(self, group: Sequence[str]) -> str:
        name = secrets.token_hex(16)
        self._join(self._parts.key(name), [self._parts.key(source) for source in group], {})
        return name

    def _send(self, piece: _Piece, sent: _Sent) -> None:
        """What is shared once, whoever needs it first, unless it is there."""
        parts, length = self._parts, piece.stop - piece.start
        lock = self._assemblies.sending(self.location, piece.name) if piece.shared else None
        with lock or contextlib.nullcontext():
            if lock and (parts.holds(piece.name, length) or parts.finds(piece.name, length)):
                return
            parts.put(piece.name, VirtualFile(piece.extents))
            sent.bytes += length

    def _spend(self, names: Sequence[str]) -> None:
        with self._lock:
            self._spent += names
            if len(self._spent) < SPENT_AT_ONCE:
                return
        self.close()

    def _measured(self, file: VirtualFile) -> tuple[list[_Piece], str, int]:
        """The file's pieces with their names, its SHA-256 and its CRC32C; it is read once."""
        whole, checksum, pieces = hashlib.sha256(), 0, []
        for piece in _pieces(file):
            name = self._known.get(piece.extents) if piece.shared else secrets.token_hex(16)
            part = None if name else hashlib.sha256()
            for block in file.blocks(piece.start, piece.stop):
                whole.update(block)
                checksum = google_crc32c.extend(checksum, block)
                if part:
                    part.update(block)
            if part:
                name = self._known[piece.extents] = part.hexdigest()
            pieces.append(replace(piece, name=name or ""))
        return pieces, whole.hexdigest(), checksum


@dataclass
class _Sent:
    bytes: int = 0


def _pieces(file: VirtualFile) -> Iterator[_Piece]:
    """What is shared and what lies between, in the file's order."""
    at = 0
    for start, stop in (*file.shared, (len(file), len(file))):
        for first, last, shared in ((at, start, False), (start, stop, True)):
            if first < last:
                yield _Piece(first, last, shared, tuple(file.extents(first, last)))
        at = stop
