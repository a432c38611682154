"""What the machines of a cluster share: objects by name, each there whole or not at all (the protocol).

`folder_depot` is one on a volume that all of them mount, `bucket_depot` one in an object store; `sharing` says what
lies in it. Nothing is ever removed there but what is damaged, and what a user has removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from crosscut.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

UNAVAILABLE = "shared_unavailable"
"""Code of the StorageError that says to try again later: all of us have to wait."""

BLOCK = 8 << 20
"""Most bytes in one piece of a stream."""


@dataclass(frozen=True)
class Held:
    """A small object as it was read; `edition` is the depot's own word for exactly this content in this place."""

    data: bytes
    edition: Any = None


class Depot(Protocol):
    """Thread-safe; names are printable ASCII, their parts joined by slashes.

    Raises StorageError `shared_unavailable`, retryable, where it cannot be had at the moment.
    """

    def check(self) -> None:
        """Raises StorageError, with what to change, where it cannot be used as it is. Asked once, at the start."""
        ...

    def read(self, name: str) -> Held | None:
        """A small object; None where there is none."""
        ...

    def write(self, name: str, data: bytes, instead_of: Held | None = None) -> bool:
        """Write a small object where there is none, or where exactly that one is; False where it is otherwise.

        Of several writers at the same time one is told True.
        """
        ...

    def size(self, name: str) -> int | None:
        """Bytes of an object; None where there is none."""
        ...

    def blocks(self, name: str) -> Iterator[bytes]:
        """A large object piece by piece, none larger than `BLOCK`; FileNotFoundError where there is none."""
        ...

    def store(self, name: str, blocks: Iterable[bytes]) -> None:
        """Write a large object, replacing what was there; where reading `blocks` raises, nothing is changed."""
        ...

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        ...


def unavailable(sentence: str, detail: str = "") -> StorageError:
    return StorageError(sentence, code=UNAVAILABLE, retryable=True, detail=detail)
