"""What every request passes: its name and log line, the host it was meant for, the page that sent it. Plain ASGI."""

from __future__ import annotations

import re
import secrets
import time
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers, MutableHeaders
from structlog.contextvars import bound_contextvars

from crosscut.api.problems import Problem, internal_error
from crosscut.tracing import NoTracer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from structlog.typing import FilteringBoundLogger

    from crosscut.tracing import Tracer

EXTRA_HEADERS = "crosscut.headers"
"""Key of the ASGI scope: headers that the answer gets, whatever it will be."""

_SECURITY = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:/@\[\]\s]+)(?::[0-9]{1,5})?", re.IGNORECASE)
_INSPECTED = ("/livez", "/readyz", "/metrics")
"""Asked every few seconds: not worth a trace."""

_UNTRACED = NoTracer()
_SAFE = ("GET", "HEAD", "OPTIONS")


class Edge:
    """Names the request, answers the unforeseen, adds the headers of every answer, writes one log line."""

    def __init__(self, app: ASGIApp, log: FilteringBoundLogger, tracer: Tracer) -> None:
        self._app = app
        self._log = log
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope[EXTRA_HEADERS] = {}
        answer = _Answer(scope, send, request_id)
        start = time.perf_counter()
        tracer = _UNTRACED if scope["path"] in _INSPECTED else self._tracer
        with bound_contextvars(request=request_id), tracer.request(headers.get("traceparent")) as traced:
            try:
                await self._app(scope, receive, answer.send)
            except Exception:  # noqa: BLE001  nothing of it may reach the caller
                self._log.exception("request failed", route=_route(scope))
                await answer.fail(scope, receive)
            finally:
                method, route = _word(scope["method"]), _route(scope)
                traced(
                    f"{method} {route}",
                    {
                        "http.request.method": method,
                        "http.route": route,
                        "http.response.status_code": answer.status or 0,
                        **{f"crosscut.{name}": value for name, value in _subject(scope).items()},
                    },
                )
                self._log.info(
                    "request",
                    method=method,
                    route=route,
                    status=answer.status,
                    bytes=answer.bytes,
                    ms=round((time.perf_counter() - start) * 1000, 2),
                    **_subject(scope),
                )


class _Answer:
    """Counts what is sent and adds the headers."""

    def __init__(self, scope: Scope, send: Send, request_id: str) -> None:
        self._scope = scope
        self._send = send
        self._request_id = request_id
        self.status: int | None = None
        self.bytes = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _SECURITY.items():
                headers.setdefault(name, value)
            headers["x-request-id"] = self._request_id
            headers.update(self._scope[EXTRA_HEADERS])
        elif message["type"] == "http.response.body":
            self.bytes += len(message.get("body", b""))
        await self._send(message)

    async def fail(self, scope: Scope, receive: Receive) -> None:
        if self.status is None:
            await internal_error(self._request_id).response()(scope, receive, self.send)
        # An answer that has begun stays without its end: the server cuts the connection, and the caller notices.


def _route(scope: Scope) -> str:
    """The template, never the path: that may hold anything."""
    return getattr(scope.get("route"), "path", None) or "-"


def _subject(scope: Scope) -> dict[str, Any]:
    known = scope.get("path_params", {})
    return {name: _word(str(known[key])) for key, name in (("job", "job"), ("n", "variation")) if key in known}


def _word(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text) else "-"


class Gate:
    """Answers only what was meant for this server and comes from no stranger's page.

    A page of another site can make its reader's browser send requests here, by a name that resolves to this machine
    (so the Host header is checked) or by a form (so Origin must be ours where something is changed).
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str] | None) -> None:
        """`hosts` None: every name is answered."""
        self._app = app
        self._hosts = None if hosts is None else {*_LOOPBACK, *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._refusal(Headers(scope=scope), scope["method"]) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await problem.response()(scope, receive, send)

    def _refusal(self, headers: Headers, method: str) -> Problem | None:
        named = headers.getlist("host")
        match = _HOST.fullmatch(named[0]) if len(named) == 1 else None
        if match is None:
            return Problem(400, "bad_host", "The Host header is missing, doubled or broken; send one name and port.")
        if self._hosts is not None and match[1].lower() not in self._hosts:
            return Problem(
                421,
                "host_not_allowed",
                "This server answers to names of its own machine only; call it as localhost or allow the name there.",
            )
        origin = headers.get("origin")
        if origin is not None and method not in _SAFE and _host_of(origin) != _plain(named[0]):
            return Problem(
                403,
                "cross_origin",
                "A page of another origin may not change anything here; send the request from a program instead.",
            )
        return None


def _host_of(origin: str) -> str:
    return _plain(origin.partition("://")[2])


def _plain(host: str) -> str:
    return re.sub(r":(80|443)$", "", host.lower())
