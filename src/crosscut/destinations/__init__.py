"""Where finished variations go: a small protocol, one module for each kind of place.

A `Destination` opens one `Delivery` for a job. Everything put is whole or absent: a file appears under its name only
when all its bytes are safe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

    from crosscut.splice import VirtualFile

__all__ = ["Delivered", "Delivery", "Destination"]


@dataclass(frozen=True)
class Delivered:
    """`location` is what a user opens: a path or a link; `bytes` and `sha256` (hexadecimal) are of the whole file."""

    location: str
    bytes: int
    sha256: str


class Delivery(Protocol):
    """One job's folder. Used from several threads; names are safe single path components made by `naming`."""

    location: str

    def holds(self, name: str, size: int) -> bool:
        """Whether a whole file of that name and size is there already."""
        ...

    def put(self, name: str, file: VirtualFile) -> Delivered:
        """Write `file` as `name`, replacing what was there. Raises `DeliverError` or `StorageError`."""
        ...

    def put_text(self, name: str, parts: Iterable[str]) -> None:
        """Companion files, in pieces: the manifest."""
        ...


class Destination(Protocol):
    def open(self, folder: str) -> AbstractContextManager[Delivery]:
        """The job's folder, made if missing; one job at a time may hold it (`DeliverError` code `busy`)."""
        ...
