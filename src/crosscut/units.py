"""The words between the queue and those who work: a unit of work, what came of it, and who may do it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Kind = Literal["source", "speech", "plan", "segment", "batch", "manifest", "webhook"]
"""`source`, `speech` and `segment` are preparations, shared by all jobs that need them; the rest is one job's own."""

Lane = Literal["network", "processor"]
"""What a unit mostly waits for; a batch for other machines waits for the network, whatever else it takes."""

LANES: Mapping[Kind, Lane] = {
    "source": "network",
    "speech": "network",
    "webhook": "network",
    "plan": "processor",
    "segment": "processor",
    "batch": "processor",
    "manifest": "processor",
}

VERSION = 1
"""Of what payloads mean: raise it when those who know only the former meaning could not do the work as it is wanted."""


@dataclass(frozen=True)
class Unit:
    """Work that was leased: `attempt` fences every write, so a late or doubled message harms nothing."""

    id: int
    attempt: int
    kind: Kind
    job: str
    """The job on whose account it runs; a preparation may serve others too."""
    payload: Mapping[str, Any]
    trace: str | None = None
    """The traceparent of the request that asked for the job, if that is traced."""


@dataclass(frozen=True)
class Failure:
    """Why something was not made. `after` seconds is when a retry makes sense, where the other side said so."""

    stage: str
    code: str
    public: str
    retryable: bool = False
    after: float | None = None
    everyone: bool = False
    """All have to wait, not this unit alone: the destination asks for it, or nothing can be shared."""


@dataclass(frozen=True)
class Output:
    """One variation as it came out; what else its manifest row tells follows from the plan.

    `sha256` and `recipe` are hexadecimal; loudness in LUFS (None: silent), true peak in dBTP, `seconds` of work.
    """

    index: int
    bytes: int | None = None
    sha256: str | None = None
    recipe: str | None = None
    loudness_before: float | None = None
    """Of the parts as they came, simply added up."""
    loudness: float | None = None
    true_peak: float | None = None
    seconds: float = 0.0
    sent: int | None = None
    """Bytes that left the machine for it."""
    kept: bool = False
    """It was there already, whole, from an earlier job."""
    link: str | None = None
    """Where a browser finds it, if its place gives every file an address of its own."""
    error: Failure | None = None


@dataclass(frozen=True)
class Spent:
    """Executions of a stage that ended well, and the seconds of all of them, also of those that did not."""

    count: int
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What came of a unit; `failure` is the whole unit's, an output's own failure is in `outputs`."""

    result: Mapping[str, Any] = field(default_factory=dict)
    outputs: Sequence[Output] = ()
    failure: Failure | None = None
    spent: Mapping[str, Spent] = field(default_factory=dict)
    """By stage, such as `fetch`, `probe`, `speak`, `conform`, `mix`, `tail`, `deliver`."""
    meters: Mapping[str, float] = field(default_factory=dict)
    """Amounts to be added up: `bytes_in`, `bytes_out`, `bytes_sent`, `retries`, `joined`, `join_refusals`,
    `characters`, `cost`, `cache_hits`, `cache_misses`."""


@dataclass(frozen=True)
class JobRecord:
    """A job as those who work for it see it."""

    id: str
    owner: str
    created: float
    """Seconds of the epoch."""
    body: Mapping[str, Any]
    """The request, as it was sent."""
    extensions: Sequence[Mapping[str, Any]]
    """What was added later, in order."""
    local: bool
    """Whether sources may be paths of this machine, relative to `base`."""
    base: str | None
    destination: str
    """Where the task's folder is made, such as a path."""
    folder: str
    """Name of the task's folder there."""
    plan: str | None
    """The decided plan as JSON, None before."""
    edition: int
    """Rises whenever `plan` changes."""
    planned: int = 0
    """How many of the extensions `plan` contains."""
    delivers: bool = True
    """Whether its variations are delivered, and not only planned or played."""


@dataclass(frozen=True)
class Found:
    """A source or line of a job: what came of preparing it, or why it cannot be had; neither while it is waited for."""

    kind: Literal["source", "speech"]
    name: str
    """The source as the request names it; for speech what `wants.line_name` says."""
    result: Mapping[str, Any] | None
    error: str | None


class Ledger(Protocol):
    """What a worker may ask of the store; every write is fenced by the attempt."""

    def start(self, unit: int, attempt: int, worker: str) -> Unit | None:
        """Take a leased unit in hand; None when it is not to be done (any more)."""
        ...

    def beat(self, unit: int, attempt: int, fraction: float = 0.0) -> bool:
        """Keep the lease and tell how much is done, 0 to 1; False: stop, it is somebody else's now or not wanted."""
        ...

    def finish(self, unit: int, attempt: int, outcome: Outcome) -> bool:
        """Hand in what came of it; False when it came too late and was thrown away."""
        ...

    def job(self, job: str) -> JobRecord | None: ...

    def found(self, job: str) -> list[Found]: ...

    def earlier(self, job: str, indexes: Sequence[int]) -> dict[int, Output]:
        """The latest good output of each of these, of other jobs into the same place."""
        ...

    def outputs(self, job: str, after: int, limit: int) -> list[Output]:
        """Outputs with an index beyond `after`, in order."""
        ...
