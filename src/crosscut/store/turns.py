"""Whose turn it is at what only one can have at a time."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Turns:
    """A lock that is handed on: first come, first served, so that nobody is overtaken by who comes again and again.

    Every other turn belongs to those in haste, as long as there are any.
    """

    def __init__(self, patience: float) -> None:
        """`patience` in seconds."""
        self._patience = patience
        self._lock = threading.Lock()
        self._taken = False
        self._haste = False
        """Whether the turn now is of one in haste."""
        self._waiting: dict[bool, deque[threading.Event]] = {True: deque(), False: deque()}

    @contextmanager
    def turn(self, *, haste: bool = False) -> Iterator[None]:
        """Have it for the block; TimeoutError when it does not come for too long."""
        self._take(haste)
        try:
            yield
        finally:
            with self._lock:
                self._hand_on()

    def _take(self, haste: bool) -> None:
        mine = threading.Event()
        with self._lock:
            self._waiting[haste].append(mine)
            if not self._taken:
                self._hand_on()
        came = False
        try:
            came = mine.wait(self._patience)
        finally:
            if not came:  # for too long, or Ctrl-C did
                self._withdraw(mine, haste)
        if not came:
            raise TimeoutError("the turn did not come")

    def _withdraw(self, mine: threading.Event, haste: bool) -> None:
        with self._lock:
            if mine.is_set():
                self._hand_on()
            else:
                self._waiting[haste].remove(mine)

    def _hand_on(self) -> None:
        self._haste = not self._haste
        queue = self._waiting[self._haste] or self._waiting[not self._haste]
        self._haste = queue is self._waiting[True]
        self._taken = bool(queue)
        if queue:
            queue.popleft().set()
