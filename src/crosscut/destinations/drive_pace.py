"""How fast the processes of a machine go at one Google account: together, never each for itself.

folder/slot-000.lock, limit.json …   uploads under way (see `slots`)
folder/pause.json                    until when nobody asks for anything, as Google asked for
"""

from __future__ import annotations

import contextlib
import random
import time
from typing import TYPE_CHECKING, Any

from crosscut import files
from crosscut.destinations.drive_errors import limited
from crosscut.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from crosscut.destinations.drive_wire import Wire

UPLOADS = 4
"""At once; an account takes a few new files a second at most, however many are sent."""
LONGEST_PAUSE = 64.0
PATIENCE = 8.0
"""Seconds; a longer pause is not sat out here but told to whoever decides what is done next."""
CALM_SECONDS = 120.0
"""So long after a pause the next one is short again."""
POLL_SECONDS = 0.05


class Pace:
    """Thread-safe, and the same for all processes that have the folder."""

    def __init__(
        self, folder: Path, wire: Wire, *, second: float = 1.0, clock: Callable[[], float] = time.time
    ) -> None:
        """`second` is how long a second of pausing is; `clock` is the epoch's, as other processes read it."""
        self._wire = wire
        self._second = second
        self._clock = clock
        self._slots = _Slots(folder, clock)
        self._file = folder / "pause.json"
        self._gate = folder / "pause.lock"

    @contextlib.contextmanager
    def upload(self) -> Iterator[None]:
        """Be one of the few who send a file; a limit that was lowered rises again when all has gone well."""
        with self._slots.waited_for(lambda: self._wire.pause(POLL_SECONDS)):
            yield
        self._slots.learn(UPLOADS)

    def wait(self) -> None:
        """Sit a pause out; DeliverError `rate_limited` for one that is long."""
        left = self._state()[0] - self._clock()
        if left <= 0:
            return
        if left > PATIENCE * self._second:
            raise limited(left)
        # Not all at the same moment.
        self._wire.pause(left + random.Random().uniform(0, left / 4))

    def limited(self, asked: float | None) -> None:
        """Google asks to go slower, for `asked` seconds where it says so: all pause, each time twice as long."""
        with files.locked(self._gate):
            until, level = self._state()
            now = self._clock()
            if now < until:
                return  # what was under way when the pause began
            level = min(level + 1, 10) if now < until + CALM_SECONDS * self._second else 0
            pause = max(min(2.0**level, LONGEST_PAUSE) * self._second, asked or 0.0)
            files.write_json(self._file, {"until": now + pause, "level": level})
        self._slots.lower(self._slots.limit())

    def _state(self) -> tuple[float, int]:
        state: Any = files.read_json(self._file)
        try:
            return float(state["until"]), int(state["level"])
        except (TypeError, KeyError, ValueError):
            return 0.0, 0


class _Slots(Slots):
    @contextlib.contextmanager
    def waited_for(self, pause: Callable[[], None]) -> Iterator[None]:
        """Hold a slot for the block; `pause`, between two looks for a free one, may raise."""
        self.learn(UPLOADS)
        while (found := self._take()) is None:
            pause()
        slot, _ = found
        try:
            yield
        finally:
            slot.release()
