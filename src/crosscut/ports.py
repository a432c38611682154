"""What the API needs from the service behind it, and the words they share. Knows nothing of the web."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from crosscut.errors import CrosscutError, RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from crosscut.virtual import VirtualFile

Mode = Literal["make", "plan"]
JobState = Literal["queued", "running", "done", "cancelled", "failed"]
VariationState = Literal["queued", "done", "failed", "cancelled"]

ENDED: frozenset[str] = frozenset({"done", "cancelled", "failed"})
"""States of a job in which nothing happens any more."""

PLACES = 2**53
"""No index, cursor or identity number is larger: JSON readers and databases hold it exactly."""


class NotFoundError(CrosscutError):
    """There is no such thing, or it is somebody else's: callers cannot tell which. Code such as `no_such_job`."""

    stage = "request"


class NotReadyError(CrosscutError):
    """It will be there later: code `not_ready`, retryable, `after` seconds where that can be guessed."""

    stage = "request"


class ConflictError(RequestError):
    """It does not go with what is there.

    Codes: `idempotency_mismatch` (the key came with another body), `idempotency_in_flight`, or what the state of a job
    forbids.
    """


@dataclass(frozen=True)
class Accepted:
    """A job that was taken; `created` is False where the idempotency key was known already."""

    id: str
    created: bool
    variations: int
    estimate: Mapping[str, Any]


@dataclass(frozen=True)
class Playable:
    """A variation as bytes; `etag` names exactly these bytes (printable ASCII, no quotes), `name` is its file name."""

    file: VirtualFile
    etag: str
    name: str


class Intake(Protocol):
    """An upload under way; calls come one after another, from several threads. Ends with `commit` or `abort`."""

    def write(self, data: bytes) -> None: ...

    def commit(self) -> dict[str, Any]:
        """Keep it: `id` (`source:…`), `bytes`, `sha256`."""
        ...

    def abort(self) -> None: ...


@dataclass(frozen=True)
class Histogram:
    counts: Sequence[tuple[float, float]]
    """(bound, how many did not exceed it), by rising bounds; the last is infinite."""
    sum: float


@dataclass(frozen=True)
class Metrics:
    """Amounts for /metrics, from SQL; everything that only grows does so over restarts too."""

    queue_depth: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    """By kind of unit, its lane and its state (`later`: it waits for a time, not for a worker)."""
    queue_oldest_seconds: Mapping[str, float] = field(default_factory=dict)
    """Age of the unit that waits longest among those that could run, by lane."""
    backlog: int = 0
    """Variations still to come."""
    unit_seconds: Mapping[str, Histogram] = field(default_factory=dict)
    """What attempts took, by kind of unit."""
    retries: Mapping[str, float] = field(default_factory=dict)
    """Attempts that failed and are made again, by the code of the error."""
    lost: Mapping[str, float] = field(default_factory=dict)
    """Attempts that came to nothing, by how: `expired` (the worker was silent), `crashed` (it died), `late` (what it
    handed in came after the unit was given to another).
    """
    ready: bool = True
    """Whether nothing keeps the service from working."""
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    stage_count: Mapping[str, int] = field(default_factory=dict)
    variations: Mapping[str, int] = field(default_factory=dict)
    """By outcome: `made`, `kept`, `failed`."""
    bytes: Mapping[str, float] = field(default_factory=dict)
    """By direction: `in`, `out`."""
    cache: Mapping[str, float] = field(default_factory=dict)
    """By result: `hit`, `miss`."""
    voice_characters: float = 0.0
    resent: int = 0
    """Units that were handed out again because nobody began them."""
    voice_dollars: float = 0.0
    """What spoken lines cost, by the provider's list."""
    jobs: Mapping[str, int] = field(default_factory=dict)
    """By state."""
    workers: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By lane and state (`busy`, `idle`)."""
    worker_busy_ratio: float = 0.0
    """Share of the workers' time that was work, 0 to 1."""


class Service(Protocol):
    """What can be asked of crosscut. Called from several threads; blocking.

    `owner` None sees everything. Whatever belongs to another owner raises NotFoundError, as if it did not exist.
    """

    def submit(
        self,
        body: bytes | Mapping[str, Any],
        *,
        owner: str | None = "local",
        local: bool = False,
        base: Path | None = None,
        destination: str | None = None,
        idempotency_key: str | None = None,
        mode: Mode = "make",
    ) -> Accepted:
        """Take a job; raises RequestError, ConflictError."""
        ...

    def status(self, job: str, owner: str | None) -> dict[str, Any]: ...

    def jobs(
        self,
        owner: str | None,
        *,
        state: str | None = None,
        task_name: str | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> tuple[list[dict[str, Any]], str | None]:
        """Newest first, and where the next page begins; raises RequestError for a cursor that is none of ours."""
        ...

    def variations(
        self,
        job: str,
        owner: str | None,
        *,
        state: str | None = None,
        clip: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> tuple[list[dict[str, Any]], int | None]: ...

    def version(self, job: str, owner: str | None) -> int:
        """Rises with every change of the status."""
        ...

    def playable(self, job: str, owner: str | None, index: int) -> Playable:
        """Raises NotReadyError while its pieces are missing, NotFoundError beyond the last."""
        ...

    def poster(self, job: str, owner: str | None, index: int) -> tuple[bytes, str]:
        """A JPEG and its entity tag; raises like `playable`."""
        ...

    def manifest(self, job: str, owner: str | None) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
        """The head and the rows, which are read on from one thread after another."""
        ...

    def plan(self, job: str, owner: str | None) -> dict[str, Any]:
        """What the job makes and costs; raises NotReadyError before it is known."""
        ...

    def cancel(self, job: str, owner: str | None) -> dict[str, Any]: ...

    def retry(self, job: str, owner: str | None) -> dict[str, Any]: ...

    def extend(self, job: str, owner: str | None, body: bytes) -> dict[str, Any]: ...

    def delete(self, job: str, owner: str | None) -> None: ...

    def intake(self, owner: str | None, name: str) -> Intake: ...

    def remove_source(self, source: str, owner: str | None) -> None:
        """Forget an upload by its id; raises NotFoundError."""
        ...

    def authenticate(self, token: str) -> str | None:
        """Whose key this is; None for an unknown or revoked one, in the same time."""
        ...

    def create_key(
        self, owner: str, name: str, replaces: str | None = None, overlap_seconds: float = 0
    ) -> tuple[str, str]:
        """Identity and token of a new key; the token is not kept and cannot be shown again."""
        ...

    def list_keys(self) -> list[dict[str, Any]]: ...

    def revoke_key(self, key: str) -> None: ...

    def metrics(self) -> Metrics: ...

    def problems(self) -> list[str]:
        """Why no new work should be sent here, as sentences; empty when ready."""
        ...
