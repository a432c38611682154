"""What those who work together must agree on, in whatever processes: what was noted, and who is at what.

Two small protocols, and what is made of them. One machine keeps them in files (`files`), a cluster in its database
(`store.shared`); every method of both raises StorageError.
"""

from __future__ import annotations

import json
import random
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOONEST_SECONDS = 0.05
"""Between the first two looks for something that others hold."""


class Notes(Protocol):
    """Text by key. Some of it is secret: it is shown and logged nowhere.

    What is written outlives a loss of power, but what is put for the `moment`; what is forgotten may come back by one.

    Keys are as long as they like; a text has no U+0000.
    """

    def get(self, key: str) -> str | None:
        """None where there is nothing, or nothing that can be read."""
        ...

    def has(self, key: str) -> bool:
        """Whether there is anything, without fetching it."""
        ...

    def put_once(self, key: str, value: str, instead_of: str | None = None) -> str:
        """Note `value` where there is nothing yet, or what is no good any more; return what is noted then.

        Of all who try at the same time, in whatever processes, one has its way, and all get the same answer.
        """
        ...

    def put(self, key: str, value: str, *, moment: bool = False) -> None:
        """`moment`: it only saves work, so nobody waits until a disk has it; a key that is not put once."""
        ...

    def forget(self, key: str) -> None: ...


class Hold(Protocol):
    def release(self) -> None:
        """Let others have it; by any thread, and never an error: what cannot be given back runs out."""
        ...


class Holds(Protocol):
    """Who is at something now. What a process held that died is free again, at once or within a minute.

    A holder that was cut off from the others for so long has lost it without being told. So a hold saves work and is
    kind to other servers; what must never happen twice is noted as well.
    """

    poll_seconds: float
    """The longest time between two looks of one who waits."""

    def lock(self, key: str) -> Hold | None:
        """None where another thread or process has it."""
        ...

    def slot(self, key: str, most: int) -> Hold | None:
        """Be one of at most `most`, all counted that hold one now; None where there are as many already."""
        ...


@dataclass(frozen=True)
class Shared:
    notes: Notes
    holds: Holds
    clock: Callable[[], float] = time.time
    """Seconds of the epoch, the same for all who share."""

    def read(self, key: str) -> Any | None:
        """A note that is JSON; None where it is not."""
        return told(self.notes.get(key))

    def write(self, key: str, value: Any) -> None:
        self.notes.put(key, json.dumps(value))

    @contextmanager
    def locked(self, key: str, pause: Callable[[float], None] = time.sleep) -> Iterator[None]:
        """Alone with this key for the block; `pause`, between two looks, may raise to give it up."""
        hold = self.awaited(lambda: self.holds.lock(key), pause)
        try:
            yield
        finally:
            hold.release()

    def awaited(self, take: Callable[[], Hold | None], pause: Callable[[float], None] = time.sleep) -> Hold:
        longest, seconds = self.holds.poll_seconds, SOONEST_SECONDS
        while (hold := take()) is None:
            # Not all at the same moment.
            pause(min(seconds, longest) * random.uniform(0.5, 1))
            seconds *= 1.5
        return hold


def told(text: str | None) -> Any | None:
    """What a note says in JSON; None where it says nothing that can be read."""
    try:
        return json.loads(text or "")
    except (ValueError, RecursionError):
        return None


@dataclass(frozen=True)
class Standing:
    """Where somebody stands who may do something so often a minute."""

    allowed: bool
    left: int
    """How often more now."""
    wait: float
    """Seconds until once more is allowed, or until there is more left."""


class Counts(Protocol):
    """How often each did something within the last minute, over all who count together."""

    def hit(self, key: str, most: int) -> Standing:
        """Count one more, unless that would be more than `most`."""
        ...


@dataclass(frozen=True)
class Inherited:
    """Notes that go on with what was noted `before`, elsewhere."""

    notes: Notes
    before: Notes

    def get(self, key: str) -> str | None:
        found = self.notes.get(key)
        if found is None:
            earlier = self.before.get(key)
            found = None if earlier is None else self.notes.put_once(key, earlier)
        return found

    def has(self, key: str) -> bool:
        return self.notes.has(key) or self.before.has(key)

    def put_once(self, key: str, value: str, instead_of: str | None = None) -> str:
        self.get(key)
        return self.notes.put_once(key, value, instead_of)

    def put(self, key: str, value: str, *, moment: bool = False) -> None:
        self.notes.put(key, value, moment=moment)

    def forget(self, key: str) -> None:
        self.before.forget(key)
        self.notes.forget(key)


@dataclass(frozen=True)
class Commons:
    """What is shared for each purpose; None: in files of its own, by the processes of one machine."""

    own: Notes
    """What the installation is: somebody's consent to Google Drive, the secret of webhooks."""
    voices: Shared | None = None
    drive: Shared | None = None
    counts: Counts | None = None
    """None: each process counts for itself."""
