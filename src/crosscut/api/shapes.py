"""What answers look like, for the OpenAPI document alone: answers are sent as the service gives them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_ACCEPTED: dict[str, Any] = {
    "id": "01JD8Z3V5T",
    "created": True,
    "variations": 27,
    "estimate": {"variations": 27},
    "links": {"self": "/jobs/01JD8Z3V5T", "events": "/jobs/01JD8Z3V5T/events"},
}
_STATUS: dict[str, Any] = {
    "id": "01JD8Z3V5T",
    "task_name": "spring_campaign",
    "state": "running",
    "mode": "make",
    "created_at": "2026-03-01T09:00:00Z",
    "started_at": "2026-03-01T09:00:01Z",
    "ended_at": None,
    "total": 27,
    "succeeded": 12,
    "made": 12,
    "kept": 0,
    "failed": 1,
    "percent": 48.1,
    "rate": 6.5,
    "eta_seconds": 2.2,
    "position": 0,
    "stages": {"fetch": {"done": 9, "total": 9, "failed": 0}},
    "seconds": 3.4,
    "seconds_by_stage": {"fetch": 1.2},
    "voice_over_characters": 0,
    "voice_over_characters_billed": 0,
    "bytes_sent": 31415926,
    "joined_in_bucket": 0,
    "cache_hits": 0,
    "cache_misses": 0,
    "cost": {"currency": "USD", "voice_over": 0.0},
    "errors": [{"reason": "hook2.mp4 could not be fetched: it answered 404.", "variations": 1}],
    "version": 41,
    "links": {"self": "/jobs/01JD8Z3V5T", "events": "/jobs/01JD8Z3V5T/events"},
}
_VARIATION: dict[str, Any] = {
    "index": 1,
    "state": "done",
    "file": "0001_hook1_body.mp4",
    "clips": ["hook1", "body"],
    "error": None,
    "links": {"preview": "/jobs/01JD8Z3V5T/variations/1.mp4", "poster": "/jobs/01JD8Z3V5T/variations/1.jpg"},
}
_PROBLEM: dict[str, Any] = {
    "type": "urn:crosscut:problem:invalid_request",
    "title": "Unprocessable Content",
    "status": 422,
    "detail": "video_blocks.hook[1] must be a link that starts with https://.",
    "code": "invalid_request",
}


class _Shape(BaseModel):
    model_config = ConfigDict(extra="allow")


class Problem(_Shape):
    """RFC 9457; `detail` is one sentence that says what to change, `code` a stable word for programs."""

    model_config = ConfigDict(json_schema_extra={"example": _PROBLEM})

    type: str
    title: str
    status: int
    detail: str
    code: str


class Accepted(_Shape):
    model_config = ConfigDict(json_schema_extra={"example": _ACCEPTED})

    id: str
    created: bool = Field(description="False where the Idempotency-Key was known already.")
    variations: int
    estimate: dict[str, Any]
    links: dict[str, str]


class Stage(_Shape):
    done: float
    total: float | None
    failed: int = 0


class Error(_Shape):
    reason: str
    variations: int


class JobSummary(_Shape):
    """A job as lists show it."""

    id: str
    task_name: str
    state: Literal["queued", "running", "done", "cancelled", "failed"]
    mode: Literal["make", "plan"]
    created_at: str | None = Field(description="ISO 8601, UTC; like the other times.")
    started_at: str | None
    ended_at: str | None
    destination: str | None = None
    folder: str | None = None
    location: str | None = Field(
        default=None,
        description="What opens the folder: its path, its name in a bucket, its link in Google Drive. Null before the "
        "plan is drawn.",
    )
    total: int
    succeeded: int
    made: int
    kept: int = Field(description="Were there already, whole, from an earlier job.")
    failed: int
    percent: float
    rate: float | None = Field(description="Variations a second.")
    eta_seconds: float | None
    seconds: float | None
    seconds_by_stage: dict[str, float]
    bytes: int = Field(description="Of the videos that were delivered.")
    bytes_per_second: float | None = Field(description="At which they are delivered.")
    retries: int = Field(
        description="Tries of delivering that were made again; those of single requests to a bucket are not known."
    )
    voice_over_characters: int = Field(description="Spoken for this job.")
    voice_over_characters_billed: int = Field(description="Of those that the provider of the voice charged for.")
    bytes_sent: int = Field(description="Bytes of videos that left the machine.")
    joined_in_bucket: int = Field(description="Videos that a bucket has put together from what they share.")
    cache_hits: int = Field(description="Pieces that were there already.")
    cache_misses: int = Field(description="Pieces that had to be fetched, spoken or made.")
    cost: dict[str, Any]
    errors: list[Error] = Field(description="The commonest reasons, at most 20.")
    passthrough: Any = None
    version: int = Field(description="Rises with every change.")
    links: dict[str, str]


class JobStatus(JobSummary):
    """A job in full."""

    model_config = ConfigDict(json_schema_extra={"example": _STATUS})

    position: int | None = Field(description="Jobs that wait before this one.")
    stages: dict[str, Stage]
    notes: list[str] = []
    plan: dict[str, Any] | None = Field(default=None, description="Of a job that only plans; of others see `/plan`.")


class Plan(_Shape):
    """What a job makes and costs; `crosscut plan --json` prints the same."""

    variations: int
    captions_to_draw: dict[str, Any] | None = Field(
        default=None,
        description="Where captions are burned in: how many of the clips to encode that is (`encodes`), "
        "and whether this is `exact`.",
    )


class JobPage(_Shape):
    jobs: list[JobSummary]
    next: str | None = Field(description="`cursor` of the next page.")


class Variation(_Shape):
    model_config = ConfigDict(json_schema_extra={"example": _VARIATION})

    index: int
    state: Literal["queued", "done", "failed", "cancelled"]
    link: str | None = Field(
        default=None,
        description="What opens the video where it was delivered: in Google Drive, or in a bucket with `link_days`.",
    )
    links: dict[str, str]


class VariationPage(_Shape):
    variations: list[Variation]
    next: int | None = Field(description="`cursor` of the next page.")


class Manifest(_Shape):
    variations: list[dict[str, Any]] = Field(
        description="Rows. `loudness_before` (LUFS) is of all that is heard as it came, `loudness` of the video."
    )


class Retried(_Shape):
    model_config = ConfigDict(json_schema_extra={"example": {"variations": 3, "preparations": 1}})

    variations: int
    preparations: int


class Extended(_Shape):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "variations": 9,
                "first_index": 28,
                "total": 36,
                "clips": ["https://example.com/hook3.mp4"],
                "music": [],
                "lines": [],
            }
        }
    )

    variations: int = Field(description="How many are new.")
    first_index: int = Field(description="Number of the first new one.")
    total: int
    clips: list[str]
    music: list[str]
    lines: list[str]


class Source(_Shape):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {"id": f"source:{'4f2a' * 16}/hook1.mp4", "bytes": 2345678, "sha256": "4f2a" * 16}
        }
    )

    id: str
    bytes: int
    sha256: str


class Health(_Shape):
    status: Literal["ok"]
