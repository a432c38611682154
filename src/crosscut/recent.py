"""Answers that are good for a moment, so that many who ask at once cost one look."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps at most `most` answers for `seconds` each. Thread-safe; two may look at the same moment."""

    def __init__(self, seconds: float, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._answers: dict[K, tuple[float, V]] = {}
        self._lock = threading.Lock()

    def get(self, key: K, look: Callable[[], V]) -> V:
        now = self._clock()
        with self._lock:
            known = self._answers.get(key)
        if known is not None and now - known[0] < self._seconds:
            return known[1]
        value = look()
        with self._lock:
            if len(self._answers) >= self._most:
                self._answers.clear()
            self._answers[key] = (now, value)
        return value

    def forget(self) -> None:
        """Something has changed."""
        with self._lock:
            self._answers.clear()
