"""Routes for whoever runs the server: is it alive, is it ready, what does it do, who has keys."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from crosscut.api import documents
from crosscut.api.access import administered, inspected
from crosscut.api.answers import JsonAnswer, Within, json_body
from crosscut.api.exposition import CONTENT_TYPE
from crosscut.api.options import LOCAL
from crosscut.api.problems import Problem
from crosscut.errors import RequestError
from crosscut.strictjson import read_json

router = APIRouter()
admin = APIRouter(include_in_schema=False, dependencies=[Depends(administered)])

_Label = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class NewKey(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    owner: Annotated[_Label, Field(min_length=1)] = LOCAL
    name: _Label = ""
    replaces: _Label | None = None
    """Identity of a key that stops working after the overlap."""
    overlap_seconds: float = Field(default=0, ge=0, le=366 * 86_400)


@router.get("/livez", **documents.LIVEZ)
async def livez() -> JsonAnswer:
    """Whether the process answers at all."""
    return JsonAnswer({"status": "ok"})


@router.get("/readyz", dependencies=[Depends(inspected)], **documents.READYZ)
def readyz(within: Within) -> JsonAnswer:
    """Whether new work should be sent here: database, disk and workers are well."""
    reasons = within.service.problems()
    if reasons:
        raise Problem(503, "not_ready", " ".join(reasons), headers={"retry-after": "5"}, reasons=reasons)
    return JsonAnswer({"status": "ok"})


@router.get("/metrics", dependencies=[Depends(inspected)], response_class=Response, **documents.METRICS)
def metrics(request: Request) -> Response:
    """Amounts for Prometheus."""
    text: bytes = request.app.state.exposition()
    return Response(text, headers={"content-type": CONTENT_TYPE})


@admin.post("/admin/keys")
async def create_key(request: Request, within: Within) -> JsonAnswer:
    wanted = _new_key(await json_body(request), within.options.body_bytes)
    key, token = await run_in_threadpool(
        within.service.create_key, wanted.owner, wanted.name, wanted.replaces, wanted.overlap_seconds
    )
    answer = JsonAnswer({"id": key, "token": token}, 201)
    answer.headers["cache-control"] = "no-store"
    return answer


@admin.get("/admin/keys")
def list_keys(within: Within) -> JsonAnswer:
    return JsonAnswer({"keys": within.service.list_keys()})


@admin.delete("/admin/keys/{key}")
def revoke_key(within: Within, key: str) -> Response:
    within.service.revoke_key(key)
    return Response(status_code=204)


def _new_key(body: bytes, most: int) -> NewKey:
    try:
        return NewKey.model_validate(read_json(body, most_bytes=most, most_levels=4))
    except ValidationError as error:
        found = error.errors()[0]
        place = ".".join(map(str, found["loc"])) or "The request"
        raise RequestError(f"{place}: {found['msg'].lower()}.", code="invalid_request") from None
