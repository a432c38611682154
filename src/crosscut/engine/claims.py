"""Which folders this process writes into, held against other processes for as long as their jobs live."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

from crosscut.errors import CrosscutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from crosscut.destinations import Destination


class Claims:
    """Thread-safe. Jobs of this process may share a place: the store lets them in one after the other."""

    def __init__(self, destinations: Callable[[str], Destination] | None) -> None:
        """None: somebody else holds the places."""
        self._destinations = destinations
        self._held: dict[tuple[str, str], tuple[ExitStack, set[str]]] = {}
        self._lock = threading.Lock()

    def take(self, job: str, destination: str, folder: str) -> bool:
        """Whether the job may write there; False while another process does."""
        try:
            self.hold(job, destination, folder)
        except CrosscutError as error:
            # What else is wrong with the place is told by whoever writes.
            return error.code != "busy"
        return True

    def hold(self, job: str, destination: str, folder: str) -> None:
        """Keep other processes out until `release`; raises CrosscutError, code `busy` where one is inside."""
        with self._lock:
            held = self._held.get((destination, folder))
            if held is None:
                stack = ExitStack()
                if self._destinations is not None:
                    stack.enter_context(self._destinations(destination).claim(folder))
                held = self._held[destination, folder] = (stack, set())
            held[1].add(job)

    def jobs(self) -> set[str]:
        """Those that something is held for."""
        with self._lock:
            return set().union(*(jobs for _, jobs in self._held.values()))

    def release(self, job: str) -> None:
        with self._lock:
            for place, (stack, jobs) in list(self._held.items()):
                jobs.discard(job)
                if not jobs:
                    del self._held[place]
                    stack.close()

    def close(self) -> None:
        with self._lock:
            for stack, _ in self._held.values():
                stack.close()
            self._held.clear()
