"""Routes that answer with files: whole or a range of them, or the word that the caller has them already."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Path, Request
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.routing import Match

from crosscut.api import documents
from crosscut.api.access import ByCaller, access_of
from crosscut.api.answers import JOB_ID, JobId, Streamed, context_of, disposition
from crosscut.api.problems import Problem, not_found, problem_of
from crosscut.api.ranges import Span, Unsatisfiable, asked_span, is_unchanged, may_continue
from crosscut.errors import CrosscutError
from crosscut.ports import PLACES
from crosscut.virtual import BLOCK

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from starlette.datastructures import Headers
    from starlette.types import ASGIApp, Receive, Scope, Send

    from crosscut.ports import Playable

_INDEX = re.compile("[1-9][0-9]{0,15}")
_FILES = (".mp4", ".jpg")
_YES = ("1", "true", "yes", "on")
_POLICY = "default-src 'none'; media-src 'self'; img-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""What a browser may load for a video or picture opened as a page of its own: that file and its own style."""

Index = Annotated[int, Path(alias="n", ge=1, le=PLACES, description="The variation's `index`, from 1.", examples=[1])]


class _Direct(APIRoute):
    """Documented by FastAPI, and called by `Shortcut`: what FastAPI would do to call it costs more than the bytes.

    The whole answer is made in one visit to one thread: players ask for very many small ranges.
    """

    def answer(self, request: Request) -> Response:
        caller = access_of(request).identify(request)
        job, n = request.path_params["job"], request.path_params["n"]
        if not (JOB_ID.fullmatch(job) and _INDEX.fullmatch(n) and int(n) <= PLACES):
            raise not_found()
        answer: Response = self.endpoint(request, caller, job, int(n))
        return answer


router = APIRouter(route_class=_Direct)


class Shortcut:
    """Takes players straight to these routes, past the framework's own layers. Plain ASGI, behind the edges."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._routes = [route for route in router.routes if isinstance(route, _Direct)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._found(scope) if scope["type"] == "http" and scope["path"].endswith(_FILES) else None
        if route is None:
            await self._app(scope, receive, send)
            return
        try:
            response = await run_in_threadpool(route.answer, Request(scope, receive))
        except Problem as problem:
            response = problem.response()
        except CrosscutError as error:
            response = problem_of(error).response()
        await response(scope, receive, send)

    def _found(self, scope: Scope) -> _Direct | None:
        for route in self._routes:
            match, found = route.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                return route
        return None


@router.get("/jobs/{job}/variations/{n}.mp4", response_class=Response, **documents.PREVIEW)
@router.head("/jobs/{job}/variations/{n}.mp4", include_in_schema=False)
def preview(request: Request, caller: ByCaller, job: JobId, n: Index) -> Response:
    """A variation as a video, with ranges, as soon as its pieces exist; nothing is stored for it."""
    playable = context_of(request).service.playable(job, caller.owner, n)
    attachment = request.query_params.get("download", "").lower() in _YES
    return preview_answer(playable, request.method, request.headers, attachment=attachment)


@router.get("/jobs/{job}/variations/{n}.jpg", response_class=Response, **documents.POSTER)
def poster(request: Request, caller: ByCaller, job: JobId, n: Index) -> Response:
    """A picture of a variation."""
    picture, etag = context_of(request).service.poster(job, caller.owner, n)
    return poster_answer(picture, etag, request.headers)


def preview_answer(playable: Playable, method: str, asked: Headers, *, attachment: bool) -> Response:
    """The variation as `asked`; reads the first block at once, so that a damaged file is still a clean refusal.

    Raises Problem 416 and what `VirtualFile` raises.
    """
    size = len(playable.file)
    headers = _tagged(playable.etag, "private, no-cache") | {
        "accept-ranges": "bytes",
        "content-disposition": disposition(playable.name, attachment=attachment),
    }
    if is_unchanged(asked.get("if-none-match"), playable.etag):
        return Response(status_code=304, headers=headers)
    span = _span(asked, playable.etag, size) if method == "GET" else None
    start, stop = (span.start, span.stop) if span else (0, size)
    headers["content-length"] = str(stop - start)
    if span:
        headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
    status = 206 if span else 200
    if method == "HEAD":
        return Response(None, status, headers, "video/mp4")
    if stop - start <= BLOCK:
        return Response(playable.file.read_range(start, stop), status, headers, "video/mp4")
    blocks = playable.file.blocks(start, stop)
    return Streamed(_after(next(blocks), blocks), status, headers, media_type="video/mp4")


def _after(first: bytes, rest: Iterator[bytes]) -> Generator[bytes]:
    yield first
    yield from rest


def poster_answer(picture: bytes, etag: str, asked: Headers) -> Response:
    headers = _tagged(etag, "private, max-age=300")
    if is_unchanged(asked.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    return Response(picture, headers=headers, media_type="image/jpeg")


def _tagged(etag: str, cache: str) -> dict[str, str]:
    return {
        "etag": f'"{etag}"',
        "cache-control": cache,
        "vary": "Authorization",
        "content-security-policy": _POLICY,
    }


def _span(asked: Headers, etag: str, size: int) -> Span | None:
    if not may_continue(asked.get("if-range"), etag):
        return None
    try:
        return asked_span(asked.get("range"), size)
    except Unsatisfiable:
        raise Problem(
            416,
            "range_not_satisfiable",
            f"The file has {size:,} bytes; ask for a range within them.",
            headers={"content-range": f"bytes */{size}", "accept-ranges": "bytes"},
        ) from None
