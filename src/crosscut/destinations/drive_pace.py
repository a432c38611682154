"""How fast all who deliver with one Google account go: together, never each for itself.

name              uploads under way, and name/limit.json how many there may be (see `slots`)
name/pause.json   until when nobody asks for anything, as Google asked for
"""

from __future__ import annotations

import contextlib
import json
import random
from typing import TYPE_CHECKING, Any

from crosscut.commons import told
from crosscut.destinations.drive_errors import limited
from crosscut.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Iterator

    from crosscut.commons import Shared
    from crosscut.destinations.drive_wire import Wire

UPLOADS = 4
"""At once; an account takes a few new files a second at most, however many are sent."""
LONGEST_PAUSE = 64.0
PATIENCE = 8.0
"""Seconds; a longer pause is not sat out here but told to whoever decides what is done next."""
CALM_SECONDS = 120.0
"""So long after a pause the next one is short again."""


class Pace:
    """Thread-safe, and the same for all who share."""

    def __init__(self, shared: Shared, name: str, wire: Wire, *, second: float = 1.0) -> None:
        """`second` is how long a second of pausing is."""
        self._shared = shared
        self._wire = wire
        self._second = second
        self._slots = Slots(shared, name)
        self._key = f"{name}/pause.json"

    @contextlib.contextmanager
    def upload(self) -> Iterator[None]:
        """Be one of the few who send a file; a limit that was lowered rises again when all has gone well."""
        self._slots.learn(UPLOADS)
        with self._slots.taken(self._wire.pause):
            yield
        self._slots.learn(UPLOADS)

    def wait(self) -> None:
        """Sit a pause out; DeliverError `rate_limited` for one that is long."""
        until, _ = _pause(self._shared.notes.get(self._key))
        left = until - self._shared.clock() if until else 0.0
        if left <= 0:
            return
        if left > PATIENCE * self._second:
            raise limited(left)
        # Not all at the same moment.
        self._wire.pause(left + random.Random().uniform(0, left / 4))

    def limited(self, asked: float | None) -> None:
        """Google asks to go slower, for `asked` seconds where it says so: all pause, each time twice as long."""
        note = self._shared.notes.get(self._key)
        until, level = _pause(note)
        now = self._shared.clock()
        if now < until:
            return  # what was under way when the pause began
        level = min(level + 1, 10) if now < until + CALM_SECONDS * self._second else 0
        pause = max(min(2.0**level, LONGEST_PAUSE) * self._second, asked or 0.0)
        wanted = json.dumps({"until": now + pause, "level": level})
        if self._shared.notes.put_once(self._key, wanted, instead_of=note) == wanted:  # else another began it
            self._slots.lower(self._slots.limit())


def _pause(note: str | None) -> tuple[float, int]:
    """Until when, and how often it was doubled."""
    state: Any = told(note)
    try:
        return float(state["until"]), int(state["level"])
    except (TypeError, KeyError, ValueError):
        return 0.0, 0
