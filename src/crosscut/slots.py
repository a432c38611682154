"""So many requests at a time, and no more, over all processes of a machine; how many is learnt from the provider.

folder/gate.lock       held for a moment by whoever looks for a slot
folder/slot-007.lock   held by one request; the kernel frees it when its process dies
folder/limit.json      how many there may be
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from crosscut import files
from crosscut.artifacts import storage_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FIRST = 2
"""Requests at a time that every plan allows."""
MOST = 64
LOWERED_SECONDS = 60.0
"""So long a limit that proved too high is not raised again."""
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Slots:
    folder: Path
    clock: Callable[[], float] = time.time
    """Seconds since the epoch, as other processes count them."""

    @contextmanager
    def taken(self) -> Iterator[int]:
        """Wait for a slot and hold it for the block, which gets the limit as it stood then."""
        while (found := self._take()) is None:
            time.sleep(_POLL_SECONDS)
        slot, limit = found
        try:
            yield limit
        finally:
            slot.release()

    def limit(self) -> int:
        return self._state()[0]

    def learn(self, limit: int) -> None:
        """The provider allows so many."""
        with files.locked(self._gate):
            known, lowered = self._state()
            wanted = min(max(limit, 1), MOST)
            if wanted < known or (wanted > known and self.clock() - lowered >= LOWERED_SECONDS):
                self._set(wanted, lowered)

    def lower(self, seen: int) -> None:
        """`seen` at a time were too many; several requests may find out about the same limit."""
        with files.locked(self._gate):
            self._set(max(min(self._state()[0], seen - 1), 1), self.clock())

    def _take(self) -> tuple[FileLock, int] | None:
        """A slot and the limit, unless as many as that are held already, some perhaps above a limit since lowered."""
        free: FileLock | None = None
        held = 0
        with files.locked(self._gate), storage_errors():
            limit = self._state()[0]
            for number in range(max(limit, self._made())):
                slot = FileLock(
                    self.folder / f"slot-{number:03}.lock", timeout=0, fallback_to_soft=False, thread_local=False
                )
                try:
                    slot.acquire()
                except Timeout:
                    held += 1
                    continue
                if free is None:
                    free = slot
                else:
                    slot.release()
        if free is not None and held < limit:
            return free, limit
        if free is not None:
            free.release()
        return None

    def _made(self) -> int:
        numbers = [int(path.stem.removeprefix("slot-")) for path in self.folder.glob("slot-*.lock")]
        return max(numbers, default=-1) + 1

    @property
    def _gate(self) -> Path:
        return self.folder / "gate.lock"

    def _state(self) -> tuple[int, float]:
        """The limit, and when it last proved too high."""
        state: Any = files.read_json(self.folder / "limit.json")
        try:
            return min(max(int(state["limit"]), 1), MOST), float(state["lowered"])
        except (TypeError, KeyError, ValueError):
            return FIRST, 0.0

    def _set(self, limit: int, lowered: float) -> None:
        files.write_json(self.folder / "limit.json", {"limit": limit, "lowered": lowered})
