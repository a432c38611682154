"""Where finished variations go: a small protocol, one module for each kind of place.

A `Destination` opens a `Delivery` into a job's folder; several processes may have one at the same time. Everything put
is whole or absent: a file appears under its name only when all its bytes are safe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from datetime import timedelta

    from crosscut.splice import VirtualFile

__all__ = ["EVERYONE", "Delivered", "Delivery", "Destination", "Linker"]

EVERYONE = frozenset({"busy", "rate_limited", "unreachable"})
"""Codes of a DeliverError by which a place asks all who write into it to wait, not one file alone."""


@dataclass(frozen=True)
class Delivered:
    """`location` is what a user opens: a path or a link; `bytes` and `sha256` (hexadecimal) are of the whole file.

    `sent` bytes left this machine for it: other files may have had the rest of it before, and a folder takes none.
    """

    location: str
    bytes: int
    sha256: str
    retries: int = 0
    """Requests that had to be made again, as far as they are known."""
    link: str | None = None
    """Where a browser finds it, for whoever may see it there; None where files have no such address."""
    sent: int = 0
    joined: bool = False
    """The store has put it together."""
    refusal: str | None = None
    """Why the store has not, where it was asked to; for a log."""


def nothing() -> None:
    pass


class Delivery(Protocol):
    """A way into one job's folder. Used from several threads; names are safe single components made by `naming`."""

    location: str
    grouped: bool
    """Whether fewer bytes may be sent of files in which what they share with others lies together (see `layout`).

    The same for a place and its settings, whatever happens: files that are made again have the same bytes.
    """

    def holds(self, name: str, size: int | None = None) -> bool:
        """Whether a whole file of that name and size is there already; None: of whatever size."""
        ...

    def put(self, name: str, file: VirtualFile) -> Delivered:
        """Write `file` as `name`, replacing what was there. Raises `DeliverError` or `StorageError`.

        Of several writers of one name at the same time, in whatever processes, one leaves its whole file.
        """
        ...

    def put_text(self, name: str, parts: Iterable[str]) -> None:
        """Write a companion file in pieces, such as the manifest or captions; as whole or absent as what `put` writes.

        Raises like `put`.
        """
        ...

    def remove(self, name: str) -> None:
        """Take away a companion file, if it is there. Raises `DeliverError`."""
        ...

    def sweep(self) -> None:
        """Remove what dead writers left half done; only while nobody else writes."""
        ...


Linker: TypeAlias = "Callable[[str], str]"
"""A link to the file of that name, for everybody who has it, until it ends; it is a secret, and stands in no log."""


class Destination(Protocol):
    def location(self, folder: str) -> str:
        """What a user opens to see a job's folder, whether or not it is there yet."""
        ...

    def check(self) -> None:
        """Ask whether it can be used at all; nothing is made. Raises DeliverError."""
        ...

    def claim(self, folder: str) -> AbstractContextManager[None]:
        """Hold the folder for one job, for as long as anything is written there (`DeliverError` code `busy`).

        What dead writers left is swept. May be left by another thread than the one that entered.
        """
        ...

    def open(self, folder: str, check: Callable[[], None] = nothing) -> AbstractContextManager[Delivery]:
        """A way into the folder, which is made if missing; at its end what was put survives a power cut.

        `check` is called where much time is spent, and raises what shall end it.
        """
        ...

    def linker(self, folder: str, lasts: timedelta) -> Linker:
        """Signs links to files of the folder, without asking whether they are there.

        Raises DeliverError "no_links" where there are no such links, or these credentials sign none.
        """
        ...
