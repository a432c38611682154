"""What folders in Google Drive hold, listed once in a while by each process, however many batches look at it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from crosscut.destinations.drive_client import Found

KEPT_SECONDS = 60.0
"""What somebody takes away by hand is seen after so long."""
MOST = 8
"""Folders whose listings are kept."""


class Listing:
    """One folder. Thread-safe; it is told of what this process writes and takes away."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._files: dict[str, tuple[str, int | None]] | None = None
        self._since = 0.0

    def find(self, file_id: str, ask: Callable[[], Iterable[Found]]) -> tuple[str, int | None] | None:
        """Name and size of a file; None where it is not listed. `ask` lists the folder, where that was long ago."""
        with self._lock:
            if self._files is None or self._clock() - self._since > KEPT_SECONDS:
                self._since = self._clock()
                self._files = {file.id: (file.name, file.size) for file in ask()}
            return self._files.get(file_id)

    def note(self, file_id: str, name: str, size: int | None) -> None:
        with self._lock:
            if self._files is not None:
                self._files[file_id] = name, size

    def forget(self, file_id: str) -> None:
        with self._lock:
            if self._files is not None:
                self._files.pop(file_id, None)


class Listings:
    """Those of one account, by the id of the folder. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folders: OrderedDict[str, Listing] = OrderedDict()

    def of(self, folder: str) -> Listing:
        with self._lock:
            listing = self._folders.setdefault(folder, Listing())
            self._folders.move_to_end(folder)
            while len(self._folders) > MOST:
                self._folders.popitem(last=False)
            return listing
