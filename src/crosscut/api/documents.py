"""The OpenAPI document: what each route takes and answers, with examples. Nothing here decides anything."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from crosscut.additions import AdditionBody
from crosscut.api import shapes
from crosscut.api.problems import MEDIA_TYPE
from crosscut.request import RequestBody

if TYPE_CHECKING:
    from fastapi import FastAPI
    from pydantic import BaseModel

_Route = dict[str, Any]

SUMMARY = (
    "Every combination of your video clips, with music and a spoken voice-over. Send a request, follow its job, "
    "play any variation before it is delivered. Errors are `application/problem+json`: `detail` says what to change."
)
TAGS = [
    {"name": "requests", "description": "Send work and sources."},
    {"name": "jobs", "description": "Look at, follow and change what was sent."},
    {"name": "variations", "description": "Play what a job makes."},
    {"name": "server", "description": "Health and amounts."},
]
REQUEST = {
    "task_name": "spring_campaign",
    "video_blocks": {
        "hook": ["https://example.com/hook1.mp4", "https://example.com/hook2.mp4"],
        "body": ["https://example.com/body.mov"],
    },
    "audio_blocks": {"music": ["https://example.com/calm.mp3"]},
    "text_to_speach": [{"text": "Try it today.", "voice": "Sarah"}],
}
OWN_SOUND = {
    "task_name": "with_their_own_sound",
    "video_blocks": {
        "hook": [
            "https://example.com/hook1.mp4",
            {"url": "https://example.com/interview.mov", "start": 12.5, "end": 18, "volume": 0.8, "label": "why"},
        ],
        "cta": ["https://example.com/cta1.mp4"],
    },
    "clip_sound": "keep",
    "text_to_speech": [
        {"text": "She explains it better than we can.", "clip": "why"},
        {"text": "Only until Sunday.", "block": "cta"},
    ],
    "captions": "burn",
    "caption_style": "box",
}
SMALL_REQUEST = {"task_name": "first_try", "video_blocks": {"hook": ["https://example.com/hook1.mp4"]}}
ADDITION = {"video_blocks": {"hook": ["https://example.com/hook3.mp4"]}}
PROBLEMS = {
    400: ("bad_host", "The Host header is missing, doubled or broken; send one name and port."),
    401: ("unauthorized", "A valid key is needed; send one as “Authorization: Bearer ck_…”."),
    403: ("cross_origin", "A page of another origin may not change anything here; send the request from a program."),
    404: ("no_such_job", "There is no job with this id; GET /jobs lists yours."),
    408: ("too_slow", "The body did not come within 30 s; send it again, without a pause."),
    409: ("not_ready", "Variation 7 is not ready yet; ask again when its clips are prepared."),
    413: ("too_large", "The body is larger than 1,048,576 bytes; send less at a time."),
    415: ("not_json", "Send the request as JSON, with the header “Content-Type: application/json”."),
    416: ("range_not_satisfiable", "The file has 2,345,678 bytes; ask for a range within them."),
    421: ("host_not_allowed", "This server answers to names of its own machine only; call it as localhost."),
    422: ("invalid_request", "video_blocks.hook[1] must be a link that starts with https://."),
    429: ("rate_limited", "More than 600 requests came within a minute; wait 3 s and send them slower."),
    500: ("internal_error", "Something is wrong on this server, not with the request; its log tells more."),
    503: ("not_ready", "No worker is running."),
    507: ("disk_full", "The disk is full; free some space and send the request again."),
}
_ALWAYS = (400, 401, 403, 421, 422, 429, 500, 503)
_PARTIAL = {
    header: {"schema": {"type": "string"}, "description": told}
    for header, told in (
        ("ETag", "Names exactly these bytes."),
        ("Content-Range", "Which bytes of how many."),
        ("Accept-Ranges", "Always `bytes`."),
    )
}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {
            "description": f"`{PROBLEMS[status][0]}`, for one",
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "example": _problem(status, *PROBLEMS[status]),
                }
            },
        }
        for status in sorted({*_ALWAYS, *statuses})
    }


def _problem(status: int, code: str, detail: str) -> dict[str, Any]:
    return {
        "type": f"urn:crosscut:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }


def _route(
    tag: str,
    status: int,
    told: str,
    model: type[BaseModel] | None,
    *problems: int,
    media: str | None = None,
    **more: Any,
) -> _Route:
    answer: dict[str, Any] = {"description": told}
    if model is not None:
        answer["model"] = model
    if media is not None:
        answer["content"] = {media: {"schema": {"type": "string"}}}
    return {
        "tags": [tag],
        "status_code": status,
        "responses": {status: answer, **_problems(*problems)},
        **more,
    }


def _json_body(schema: str, told: str, **examples: Any) -> dict[str, Any]:
    shown = {name: {"value": value} for name, value in examples.items()}
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}, "examples": shown}}
    return {"requestBody": {"required": True, "description": told, "content": content}}


_REQUEST_BODY = _json_body(
    "RequestBody", "What to combine and how.", full=REQUEST, small=SMALL_REQUEST, own_sound=OWN_SOUND
)
_FILE_BODY = {
    "requestBody": {
        "required": True,
        "description": "The file itself.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    },
}

PROCESS_MEDIA = _route("requests", 202, "Taken.", shapes.Accepted, 408, 409, 413, 415, 507, openapi_extra=_REQUEST_BODY)
PLAN = _route("requests", 200, "The plan.", shapes.JobStatus, 408, 413, 415, 507, openapi_extra=_REQUEST_BODY)
PLAN["responses"][202] = {"description": "Not planned yet: look on at `links.self`.", "model": shapes.JobStatus}
SOURCES = _route("requests", 201, "Kept.", shapes.Source, 408, 413, 415, 507, openapi_extra=_FILE_BODY)
DELETE_SOURCE = _route("requests", 204, "Deleted.", None, 404)

JOBS = _route("jobs", 200, "A page of jobs.", shapes.JobPage)
JOB = _route("jobs", 200, "The job.", shapes.JobStatus, 404)
JOB_PLAN = _route("jobs", 200, "The plan.", shapes.Plan, 404, 409)
VARIATIONS = _route("jobs", 200, "A page of variations.", shapes.VariationPage, 404)
EVENTS: _Route = {"tags": ["jobs"], "responses": _problems(404)}
MANIFEST_JSON = _route("jobs", 200, "The manifest.", shapes.Manifest, 404, 409)
MANIFEST_CSV = _route("jobs", 200, "The manifest.", None, 404, 409, media="text/csv")
CANCEL = _route("jobs", 200, "The job as it is now.", shapes.JobStatus, 404, 409)
RETRY = _route("jobs", 202, "What is made again.", shapes.Retried, 404, 409)
EXTEND = _route(
    "jobs",
    202,
    "What is new.",
    shapes.Extended,
    404,
    408,
    409,
    413,
    415,
    507,
    openapi_extra=_json_body("AdditionBody", "What to add; blocks are named as in the request.", clip=ADDITION),
)
DELETE = _route("jobs", 204, "Forgotten.", None, 404, 409)

PREVIEW = _route("variations", 200, "The whole video.", None, 404, 409, 416, media="video/mp4")
PREVIEW["responses"][206] = {
    "description": "The range asked for.",
    "headers": _PARTIAL,
    "content": {"video/mp4": {"schema": {"type": "string"}}},
}
PREVIEW["openapi_extra"] = {
    "parameters": [
        {
            "name": "download",
            "in": "query",
            "required": False,
            "schema": {"type": "boolean", "default": False},
            "description": "Offer it as a file to be saved.",
        },
        *(
            {"name": header, "in": "header", "required": False, "schema": {"type": "string"}, "example": example}
            for header, example in (("Range", "bytes=0-65535"), ("If-Range", '"4f2a"'), ("If-None-Match", '"4f2a"'))
        ),
    ]
}
POSTER = _route("variations", 200, "The picture.", None, 404, 409, media="image/jpeg")
for _shown in (PREVIEW, POSTER):
    _shown["responses"][304] = {"description": "The caller has it already."}

LIVEZ = _route("server", 200, "Alive.", shapes.Health)
READYZ = _route("server", 200, "Ready.", shapes.Health)
METRICS = _route("server", 200, "The amounts.", None, media="text/plain")


def describe(app: FastAPI, *, auth: bool) -> None:
    """Let `app.openapi()` tell what FastAPI cannot see: the request's own model, problems, keys."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(plain(), auth=auth)
        return app.openapi_schema

    app.description = SUMMARY
    app.openapi_tags = TAGS
    app.openapi = openapi  # type: ignore[method-assign]


def _completed(document: dict[str, Any], *, auth: bool) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for model in (RequestBody, AdditionBody, shapes.Problem):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    schemas["RequestBody"]["example"] = REQUEST
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    if auth:
        document["components"]["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer", "description": "A key made by `crosscut keys create`."}
        }
        document["security"] = [{"key": []}]
        document["paths"]["/livez"]["get"]["security"] = []
    return document
