"""How the store paces work."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from crosscut.units import Kind, Lane


@dataclass(frozen=True)
class Options:
    processors: int = 1
    """Units of the processor lane that can run at once."""
    window: int = 4
    """Batches kept ready for each job."""
    senders: int = 2
    """Batches of a job that are sent to other machines at the same time."""
    writers: int = 4
    """Variations of a batch that are written at the same time."""
    batch: int = 0
    """Variations in a batch; 0: as many as are worth a few seconds."""
    admitted: int = 256
    """Jobs whose work is in the queue at the same time; later ones wait their turn, fair between owners."""
    downloads: int = 8
    """Units of the network lane that one job may have in hand."""
    free_speech: bool = True
    """Whether lines are spoken for a job that is only planned."""
    lease_seconds: float = 60.0
    ahead: int = 0
    """Units beyond those that can run that one job may have in hand, where they are soon done and far away."""
    sent_seconds: float = 60.0
    """How long a unit that was handed out may wait to be begun before it is looked for."""
    source_seconds: float = 900.0
    """How long a download may take."""
    slack: float = 300.0
    """Seconds beyond what a unit may take by itself before its worker is called hung."""

    def most_in_hand(self, lane: Lane) -> int:
        """Units of a lane that one job may have in hand; there are more, so that a slow job leaves some to others."""
        return self.downloads if lane == "network" else 2 * self.processors + self.ahead

    def allowed(self, kind: Kind, payload: Mapping[str, Any] | None = None) -> float:
        """Seconds one attempt may take."""
        own = {"source": self.source_seconds, "batch": 30.0 * len((payload or {}).get("indexes", ()))}.get(kind, 0.0)
        if kind == "segment" and payload:
            # Four times the processor time that `Workshop.run` gives.
            own = 4 * (120 + 60 * float(Fraction(payload["facts"]["video"]["duration"])))
        return own + self.slack
