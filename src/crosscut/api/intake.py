"""Routes by which work and sources come in."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from crosscut.api import documents
from crosscut.api.access import ByCaller, BySender, ByUploader  # noqa: TC001  FastAPI reads them
from crosscut.api.answers import JsonAnswer, Within, body_within, job_links, json_body, with_links
from crosscut.api.problems import Problem
from crosscut.ports import ENDED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from crosscut.ports import Accepted, Intake, Service

router = APIRouter()

FIRST_LOOK = 0.02
"""Seconds after which a plan is first looked for; then twice as long each time, up to the usual pause."""
UPLOAD_BLOCK = 1 << 20
"""Bytes of an upload that are written at a time."""

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,255}$",
        examples=["spring-2026-07-14"],
        description="Any word of yours: the same request sent twice with it makes one job.",
    ),
]
SourceName = Annotated[
    str,
    Query(
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        examples=["hook1.mp4"],
        description="The file's name, as manifests and file names shall show it.",
    ),
]


SourceId = Annotated[
    str,
    Path(
        pattern=r"^source:[0-9a-f]{64}(/[^\x00-\x1f\x7f]*)?$",
        examples=["source:" + "4f2a" * 16],
        description="The upload's `id`; its name may be left out.",
    ),
]


@router.post("/process_media", **documents.PROCESS_MEDIA)
@router.post("/process_media/", include_in_schema=False, status_code=202)
async def process_media(
    request: Request, within: Within, caller: BySender, idempotency_key: IdempotencyKey = None
) -> JsonAnswer:
    """Take a request and start making all of its variations.

    Answers at once. `variations` says how many there will be; the `links` lead on.
    """
    _refuse_twice(request, "idempotency-key")
    body = await json_body(request)
    accepted = await run_in_threadpool(
        within.service.submit, body, owner=caller.account, idempotency_key=idempotency_key, mode="make"
    )
    answer = JsonAnswer(_accepted(request, accepted), 202)
    answer.headers["location"] = job_links(request, accepted.id)["self"]
    if not accepted.created:
        answer.headers["idempotent-replayed"] = "true"
    return answer


@router.post("/plan", **documents.PLAN)
async def plan(request: Request, within: Within, caller: BySender) -> JsonAnswer:
    """Tell what a request would make and what it would cost; nothing is encoded or bought.

    The clips are looked at, which takes a while the first time: 202 says where to look on.
    """
    body = await json_body(request)
    accepted = await run_in_threadpool(within.service.submit, body, owner=caller.account, mode="plan")
    status = await _planned(within, accepted.id, caller.owner)
    answer = JsonAnswer(with_links(request, status), 200 if _is_planned(status) else 202)
    answer.headers["location"] = job_links(request, accepted.id)["self"]
    return answer


@router.post("/sources", **documents.SOURCES)
async def sources(request: Request, within: Within, caller: ByUploader, name: SourceName) -> JsonAnswer:
    """Take a file of yours; the answer's `id` stands wherever a request has a link.

    The body is the file itself, as it is: `curl -X POST -T hook1.mp4 'http://localhost:8000/sources?name=hook1.mp4'`.
    """
    if request.headers.get("content-type", "").strip().lower().startswith("multipart/"):
        raise Problem(
            415,
            "not_raw",
            "Send the file itself as the body, not a form: curl -X POST -T clip.mp4 '…/sources?name=clip.mp4'.",
        )
    chunks = body_within(request, within.options.upload_bytes)
    taken = await _take(within.service, caller.account, name, chunks)
    return JsonAnswer(taken, 201)


@router.delete("/sources/{source:path}", **documents.DELETE_SOURCE)
def delete_source(within: Within, caller: ByCaller, source: SourceId) -> Response:
    """Delete a file of yours.

    What was made of it stays; a job that still has to read it makes the variations without it alone.
    """
    within.service.remove_source(source, caller.owner)
    return Response(status_code=204)


def _accepted(request: Request, accepted: Accepted) -> dict[str, Any]:
    return {
        "id": accepted.id,
        "created": accepted.created,
        "variations": accepted.variations,
        "estimate": dict(accepted.estimate),
        "links": job_links(request, accepted.id),
    }


def _refuse_twice(request: Request, header: str) -> None:
    if len(request.headers.getlist(header)) > 1:
        raise Problem(422, "invalid_header", f"The header {header} came twice; send it once.", parameter=header)


def _is_planned(status: dict[str, Any]) -> bool:
    return status["plan"] is not None or status["state"] in ENDED


async def _planned(within: Within, job: str, owner: str | None) -> dict[str, Any]:
    """The status once the plan is there, or after as long as a caller may be kept waiting."""
    deadline, pause, seen = time.monotonic() + within.options.plan_wait, FIRST_LOOK, -1
    while True:
        version = await run_in_threadpool(within.service.version, job, owner)
        if version != seen:
            status = await run_in_threadpool(within.service.status, job, owner)
            seen = version
        if _is_planned(status) or time.monotonic() + pause > deadline:
            return status
        await asyncio.sleep(pause)
        pause = min(2 * pause, within.options.poll)


async def _take(service: Service, owner: str, name: str, chunks: AsyncIterator[bytes]) -> dict[str, Any]:
    """Write `chunks` as they come; nothing is left of an upload that does not end well."""
    block = bytearray()
    intake: Intake | None = None
    committed = False
    try:
        async for chunk in chunks:
            if intake is None:
                intake = await run_in_threadpool(service.intake, owner, name)
            block += chunk
            if len(block) >= UPLOAD_BLOCK:
                await run_in_threadpool(intake.write, bytes(block))
                block.clear()
        if intake is None:
            raise Problem(422, "empty_upload", "The upload is empty; send the file as the body.")
        await run_in_threadpool(intake.write, bytes(block))
        taken = await run_in_threadpool(intake.commit)
        committed = True
        return taken
    finally:
        if intake is not None and not committed:
            intake.abort()
