"""What routes share: the context they run in, JSON answers, links, bodies read within a limit."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Path, Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse

from crosscut.api.problems import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Mapping

    from starlette.types import Receive, Scope, Send

    from crosscut.api.feeds import Feeds
    from crosscut.api.options import ApiOptions
    from crosscut.ports import Service


@dataclass(frozen=True)
class Context:
    service: Service
    options: ApiOptions
    feeds: Feeds


def context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


async def _context(request: Request) -> Context:
    return context_of(request)


JOB_ID = re.compile(r"[A-Za-z0-9_\-]{1,100}")
Within = Annotated[Context, Depends(_context)]
JobId = Annotated[
    str, Path(alias="job", pattern=f"^{JOB_ID.pattern}$", description="The job's `id`.", examples=["01JD8Z3V5T"])
]


class JsonAnswer(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        # Half a surrogate pair, as names from outside may hold, must not become an error here.
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(errors="replace")


class Streamed(StreamingResponse):
    """Blocks as they come; lets go of what they come from, also when the caller hangs up."""

    def __init__(
        self, blocks: Generator[bytes], status: int = 200, headers: Mapping[str, str] | None = None, *, media_type: str
    ) -> None:
        super().__init__(blocks, status, headers, media_type)
        self._blocks = blocks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with closing(self._blocks), suppress(ClientDisconnect):
            await super().__call__(scope, receive, send)


def job_links(request: Request, job: str) -> dict[str, str]:
    here = f"{request.scope.get('root_path', '')}/jobs/{job}"
    return {
        "self": here,
        "variations": f"{here}/variations",
        "events": f"{here}/events",
        "manifest_json": f"{here}/manifest.json",
        "manifest_csv": f"{here}/manifest.csv",
        "cancel": f"{here}/cancel",
        "retry": f"{here}/retry",
        "extend": f"{here}/extend",
    }


def with_links(request: Request, status: Mapping[str, Any]) -> dict[str, Any]:
    return {**status, "links": job_links(request, status["id"])}


async def json_body(request: Request) -> bytes:
    """The body as it came, within limits, of a request that says it is JSON; raises Problem 408, 413, 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Problem(
            415,
            "not_json",
            "Send the request as JSON, with the header “Content-Type: application/json”.",
            headers={"accept": "application/json"},
        )
    options = context_of(request).options
    try:
        async with asyncio.timeout(options.patience):
            return b"".join([chunk async for chunk in body_within(request, options.body_bytes)])
    except TimeoutError:
        raise _too_slow(options.patience) from None


async def body_within(request: Request, most: int) -> AsyncIterator[bytes]:
    """The body in pieces as they come.

    Raises Problem 413 as soon as it is known to be larger than `most` bytes, 408 when nothing comes any more.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Problem(415, "packed_body", "The body is compressed; send it without Content-Encoding.")
    if _declared(request) > most:
        raise _too_large(most)
    patience = context_of(request).options.patience
    stream = request.stream()
    total = 0
    while True:
        try:
            chunk = await asyncio.wait_for(anext(stream, None), patience)
        except TimeoutError:
            raise _too_slow(patience) from None
        if chunk is None:
            return
        total += len(chunk)
        if total > most:
            raise _too_large(most)
        if chunk:
            yield chunk


def _declared(request: Request) -> int:
    """What Content-Length says; 0 where it says nothing of use, since what comes is counted anyway."""
    text = request.headers.get("content-length", "")
    return int(text[:20]) if text.isascii() and text.isdigit() else 0


def _too_large(most: int) -> Problem:
    return _unread(413, "too_large", f"The body is larger than {most:,} bytes; send less at a time.")


def _too_slow(seconds: float) -> Problem:
    return _unread(408, "too_slow", f"The body did not come within {seconds:g} s; send it again, without a pause.")


def _unread(status: int, code: str, detail: str) -> Problem:
    """The rest of the body is not read, so the connection cannot be used again."""
    return Problem(status, code, detail, headers={"connection": "close"})


def disposition(name: str, *, attachment: bool) -> str:
    """A Content-Disposition for any file name (RFC 6266, RFC 5987)."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in name)
    kind = "attachment" if attachment else "inline"
    value = f'{kind}; filename="{plain}"'
    return value if plain == name else f"{value}; filename*=UTF-8''{quote(name, safe='', errors='replace')}"
