"""Routes of jobs: looking, following, changing."""

from __future__ import annotations

from collections.abc import AsyncIterator  # noqa: TC003  FastAPI reads it
from typing import TYPE_CHECKING, Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from crosscut.api import documents
from crosscut.api.access import ByCaller, BySender  # noqa: TC001  FastAPI reads them
from crosscut.api.answers import JobId, JsonAnswer, Streamed, Within, json_body, with_links
from crosscut.ports import PLACES
from crosscut.report import manifest_csv, manifest_json

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

router = APIRouter()

MANIFEST_BLOCK = 1 << 16
"""Characters of a manifest that are sent at a time."""
_PLAIN = r"^[^\x00-\x1f\x7f]*$"

States = Annotated[
    Literal["queued", "running", "done", "cancelled", "failed"] | None, Query(description="Only jobs in this state.")
]
TaskName = Annotated[
    str | None, Query(max_length=200, pattern=_PLAIN, description="Only jobs of this name.", examples=["spring"])
]
Cursor = Annotated[
    str | None,
    Query(pattern=r"^[A-Za-z0-9_.:=\-]{1,200}$", description="Where to go on: `next` of the page before."),
]
VariationStates = Annotated[
    Literal["queued", "done", "failed", "cancelled"] | None, Query(description="Only variations in this state.")
]
Clip = Annotated[
    str | None, Query(max_length=4_096, pattern=_PLAIN, description="Only variations with this clip, as requested.")
]
After = Annotated[int, Query(alias="cursor", ge=0, le=PLACES, description="Where to go on: `next` of the page before.")]
PageSize = Annotated[int, Query(ge=1, le=200, description="Most rows of a page.")]
Rows = Annotated[int, Query(ge=1, le=1_000, description="Most rows of a page.")]
LastEvent = Annotated[str | None, Header(alias="Last-Event-ID", description="Sent by browsers when they reconnect.")]


@router.get("/jobs", **documents.JOBS)
def jobs(
    request: Request,
    within: Within,
    caller: ByCaller,
    state: States = None,
    task_name: TaskName = None,
    cursor: Cursor = None,
    limit: PageSize = 50,
) -> JsonAnswer:
    """All jobs of yours, newest first."""
    found, following = within.service.jobs(caller.owner, state=state, task_name=task_name, after=cursor, limit=limit)
    return JsonAnswer({"jobs": [with_links(request, status) for status in found], "next": following})


@router.get("/jobs/{job}", **documents.JOB)
def job_status(request: Request, within: Within, caller: ByCaller, job: JobId) -> JsonAnswer:
    """How far a job is, what it has cost and what went wrong."""
    return JsonAnswer(with_links(request, within.service.status(job, caller.owner)))


@router.get("/jobs/{job}/plan", **documents.JOB_PLAN)
def job_plan(within: Within, caller: ByCaller, job: JobId) -> JsonAnswer:
    """What a job makes and costs, as it was worked out from its clips."""
    return JsonAnswer(within.service.plan(job, caller.owner))


@router.get("/jobs/{job}/variations", **documents.VARIATIONS)
def variations(
    request: Request,
    within: Within,
    caller: ByCaller,
    job: JobId,
    state: VariationStates = None,
    clip: Clip = None,
    cursor: After = 0,
    limit: Rows = 50,
) -> JsonAnswer:
    """The variations of a job in order of their index."""
    rows, following = within.service.variations(job, caller.owner, state=state, clip=clip, after=cursor, limit=limit)
    here = f"{request.scope.get('root_path', '')}/jobs/{job}/variations"
    linked = [
        {**row, "links": {"preview": f"{here}/{row['index']}.mp4", "poster": f"{here}/{row['index']}.jpg"}}
        for row in rows
    ]
    return JsonAnswer({"variations": linked, "next": following})


async def _exists(within: Within, caller: ByCaller, job: JobId) -> None:
    """An answer that is a stream can no longer say 404 once it has begun."""
    await run_in_threadpool(within.service.version, job, caller.owner)


@router.get(
    "/jobs/{job}/events", response_class=EventSourceResponse, dependencies=[Depends(_exists)], **documents.EVENTS
)
async def events(
    within: Within, caller: ByCaller, job: JobId, last_event_id: LastEvent = None
) -> AsyncIterator[ServerSentEvent]:
    """A job's status now and at every change, as server-sent events.

    Events `progress` carry the status and, as `id`, its version; one event `end` is the last. Whoever reconnects with
    `Last-Event-ID` hears nothing until something has changed.
    """
    since = int(last_event_id) if last_event_id and last_event_id.isdecimal() and len(last_event_id) < 19 else None
    async for news in within.feeds.follow(job, caller.owner, since):
        if news.version != since:
            since = news.version
            yield ServerSentEvent(event="progress", id=str(news.version), raw_data=news.status)
        if news.end:
            yield ServerSentEvent(event="end", id=str(news.version), raw_data=news.status)


@router.get("/jobs/{job}/manifest.json", response_class=Response, **documents.MANIFEST_JSON)
def manifest_as_json(within: Within, caller: ByCaller, job: JobId) -> Response:
    """What was made, one row for each variation."""
    head, rows = within.service.manifest(job, caller.owner)
    return Streamed(_blocks(manifest_json(head, rows)), media_type="application/json")


@router.get("/jobs/{job}/manifest.csv", response_class=Response, **documents.MANIFEST_CSV)
def manifest_as_csv(within: Within, caller: ByCaller, job: JobId) -> Response:
    """The same rows for a spreadsheet."""
    _, rows = within.service.manifest(job, caller.owner)
    headers = {"content-disposition": 'attachment; filename="manifest.csv"'}
    return Streamed(_blocks(manifest_csv(rows)), headers=headers, media_type="text/csv; charset=utf-8")


@router.post("/jobs/{job}/cancel", **documents.CANCEL)
def cancel(request: Request, within: Within, caller: BySender, job: JobId) -> JsonAnswer:
    """Stop a job; what is made stays."""
    return JsonAnswer(with_links(request, within.service.cancel(job, caller.owner)))


@router.post("/jobs/{job}/retry", **documents.RETRY)
def retry(within: Within, caller: BySender, job: JobId) -> JsonAnswer:
    """Make what failed once more, and nothing else."""
    return JsonAnswer(within.service.retry(job, caller.owner), 202)


@router.post("/jobs/{job}/extend", **documents.EXTEND)
async def extend(request: Request, within: Within, caller: BySender, job: JobId) -> JsonAnswer:
    """Add clips, music or lines: only what is new is made, and what was made keeps its name."""
    body = await json_body(request)
    return JsonAnswer(await run_in_threadpool(within.service.extend, job, caller.owner, body), 202)


@router.delete("/jobs/{job}", **documents.DELETE)
def delete(within: Within, caller: ByCaller, job: JobId) -> Response:
    """Forget a job; delivered files stay."""
    within.service.delete(job, caller.owner)
    return Response(status_code=204)


def _blocks(pieces: Iterable[str]) -> Generator[bytes]:
    """The text in blocks worth sending; every block costs the way to a thread and back."""
    block: list[str] = []
    size = 0
    for piece in pieces:
        block.append(piece)
        size += len(piece)
        if size >= MANIFEST_BLOCK:
            yield "".join(block).encode(errors="replace")
            block.clear()
            size = 0
    yield "".join(block).encode(errors="replace")
