"""So many requests at a time, and no more, over all who share; how many is learnt from the provider.

name/limit.json   the note of how many there may be
name              what each request is a holder of
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crosscut.commons import told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from crosscut.commons import Hold, Shared

FIRST = 2
"""Requests at a time that every plan allows."""
MOST = 64
LOWERED_SECONDS = 60.0
"""So long a limit that proved too high is not raised again."""


@dataclass(frozen=True)
class Limit:
    most: int
    lowered: float
    """When more than that last proved too many."""

    @classmethod
    def of(cls, note: str | None) -> Limit:
        state: Any = told(note)
        try:
            return cls(min(max(int(state["limit"]), 1), MOST), float(state["lowered"]))
        except (TypeError, KeyError, ValueError):
            return cls(FIRST, 0.0)

    def note(self) -> str:
        return json.dumps({"limit": self.most, "lowered": self.lowered})


@dataclass(frozen=True)
class Slots:
    shared: Shared
    name: str

    @contextmanager
    def taken(self, pause: Callable[[float], None] = time.sleep) -> Iterator[int]:
        """Wait for a slot and hold it for the block, which gets the limit as it stood then.

        `pause`, between two looks, may raise to give it up.
        """
        limits = []

        def take() -> Hold | None:
            limits.append(self.limit())
            return self.shared.holds.slot(self.name, limits[-1])

        slot = self.shared.awaited(take, pause)
        try:
            yield limits[-1]
        finally:
            slot.release()

    def limit(self) -> int:
        return Limit.of(self.shared.notes.get(self._key)).most

    def learn(self, limit: int) -> None:
        """The provider allows so many."""
        wanted = min(max(limit, 1), MOST)

        def learnt(known: Limit) -> Limit:
            calm = wanted < known.most or self.shared.clock() - known.lowered >= LOWERED_SECONDS
            return Limit(wanted, known.lowered) if calm else known

        self._change(learnt)

    def lower(self, seen: int) -> None:
        """`seen` at a time were too many; several requests may find out about the same limit."""
        now = self.shared.clock()
        self._change(lambda known: Limit(max(min(known.most, seen - 1), 1), now))

    def _change(self, change: Callable[[Limit], Limit]) -> None:
        while True:
            note = self.shared.notes.get(self._key)
            known = Limit.of(note)
            new = change(known)
            if new == known or self.shared.notes.put_once(self._key, new.note(), instead_of=note) == new.note():
                return

    @property
    def _key(self) -> str:
        return f"{self.name}/limit.json"
