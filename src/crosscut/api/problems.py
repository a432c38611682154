"""Errors as `application/problem+json` (RFC 9457): one sentence that says what to change, and a stable code."""

from __future__ import annotations

import json
import math
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from crosscut.errors import CrosscutError, SandboxError, StorageError
from crosscut.ports import ConflictError, NotFoundError, NotReadyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI
    from fastapi.routing import APIRoute
    from starlette.requests import Request

MEDIA_TYPE = "application/problem+json"

_BY_CODE = {
    "disk_full": 507,
    "idempotency_in_flight": 409,
    "idempotency_mismatch": 422,
    "rate_limited": 429,
    "queue_full": 429,
    "too_large": 413,
}
_BY_CLASS: tuple[tuple[type[CrosscutError], int], ...] = (
    (NotFoundError, 404),
    (NotReadyError, 409),
    (ConflictError, 409),
    (StorageError, 503),
    (SandboxError, 503),
)
_NOWHERE = "There is nothing at this address; /openapi.json lists what there is."


class Problem(Exception):  # noqa: N818  the standard's own word
    """An answer other than the one hoped for; `more` are members beside those of the standard."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more

    def response(self) -> Response:
        body = {
            "type": f"urn:crosscut:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.more,
        }
        # Escapes outside ASCII: half a surrogate pair may be part of what a sentence quotes.
        return Response(json.dumps(body), self.status, self.headers, MEDIA_TYPE)


def not_found() -> Problem:
    return Problem(404, "not_found", _NOWHERE)


def internal_error(request_id: str) -> Problem:
    return Problem(
        500,
        "internal_error",
        f"Something is wrong on this server, not with the request; its log tells more under {request_id}.",
    )


def problem_of(error: CrosscutError) -> Problem:
    status = _BY_CODE.get(error.code) or next((s for kind, s in _BY_CLASS if isinstance(error, kind)), 422)
    headers = {}
    if error.retryable or error.after is not None or status == 429:
        headers["retry-after"] = str(max(1, math.ceil(error.after or 1)))
    return Problem(status, error.code, error.public, headers=headers)


def answer_problems(app: FastAPI) -> None:
    """Make every error the app can raise one of these; unforeseen ones are left to the edge."""

    async def own(_request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    async def known(_request: Request, error: Exception) -> Response:
        assert isinstance(error, CrosscutError)
        return problem_of(error).response()

    async def routing(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _of_routing(error, _methods_at(request)).response()

    async def parameters(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _of_parameters(error).response()

    async def gone(_request: Request, _error: Exception) -> Response:
        return Problem(400, "upload_cut", "The request ended before its body was whole; send it again.").response()

    app.add_exception_handler(Problem, own)
    app.add_exception_handler(CrosscutError, known)
    app.add_exception_handler(HTTPException, routing)
    app.add_exception_handler(RequestValidationError, parameters)
    app.add_exception_handler(ClientDisconnect, gone)


def _methods_at(request: Request) -> str:
    """What an address answers to, of all routes that share it."""
    routes: list[APIRoute] = request.app.state.routes
    path = request.scope["path"]
    return ", ".join(sorted({method for r in routes if r.path_regex.match(path) for method in r.methods or ()}))


def _of_routing(error: HTTPException, allowed: str) -> Problem:
    if error.status_code == 404:
        return not_found()
    if error.status_code == 405:
        allowed = allowed or (error.headers or {}).get("Allow", "")
        return Problem(
            405,
            "method_not_allowed",
            f"This address answers to {allowed} only; use one of these.",
            headers={"allow": allowed},
        )
    phrase = HTTPStatus(error.status_code).phrase
    return Problem(error.status_code, phrase.lower().replace(" ", "_"), f"{phrase}.", headers=error.headers)


def _of_parameters(error: RequestValidationError) -> Problem:
    """The first mistake; one in the path means that nothing can be there."""
    found = error.errors()
    if any(details["loc"][0] == "path" for details in found):
        return not_found()
    details = found[0]
    kind, name = details["loc"][0], str(details["loc"][-1])
    place = f"The header {name}" if kind == "header" else f"The query parameter {name}"
    code = "invalid_header" if kind == "header" else "invalid_parameter"
    match details["type"]:
        case "missing":
            said = f"is missing; add ?{name}=… to the address"
        case "string_pattern_mismatch":
            said = "is not spelled as it must be; /openapi.json shows how"
        case _:
            said = re.sub(r"^(Input|String|Value) should ", "must ", details["msg"])
    return Problem(422, code, f"{place} {said}.", parameter=name)
