"""Who runs the work. An executor only carries `(unit, attempt)` to a process: it may lose, double or delay it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crosscut.units import Lane


class WorkerState(NamedTuple):
    name: str
    """Never used twice."""
    pid: int
    """0 where it runs on another machine."""
    lane: Lane
    busy: int
    """Units in hand."""


class Executor(Protocol):
    """The seam between the scheduler and those who work."""

    def slots(self, lane: Lane, queued: int, running: int) -> int:
        """How many more units of that lane may be handed out now; `queued` and `running` are the store's counts."""
        ...

    def rest(self) -> float:
        """Seconds until the scheduler looks again when nobody wakes it."""
        ...

    def submit(self, unit: int, attempt: int, lane: Lane) -> None:
        """Pass it on without waiting; may be called again with the same values."""
        ...

    def tend(self) -> None:
        """Look who is there; called every second or so by the scheduler."""
        ...

    def waiting(self, lane: Lane) -> int | None:
        """Units passed on that no worker has taken yet; None: not known."""
        ...

    def kill(self, worker: str) -> None:
        """End a worker that is hung; its unit comes back as after a crash."""
        ...

    def forget(self, job: str) -> None:
        """A job has ended: what workers keep at hand for it can go."""
        ...

    def workers(self) -> Sequence[WorkerState]:
        """Those that can take units, or do."""
        ...

    def problems(self) -> list[str]:
        """What keeps units from being worked on, as sentences."""
        ...

    def close(self, grace: float) -> None:
        """Take nothing new, let what runs end for at most `grace` seconds, then stop it."""
        ...
