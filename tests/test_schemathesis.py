"""Nothing that the OpenAPI document allows breaks the server: the real app over a real engine."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
    use_after_free,
)

from clips import make_clip
from crosscut.api import create_app
from crosscut.api.options import ApiOptions
from serving import ended, machine, uploaded

if TYPE_CHECKING:
    from crosscut.service import Service

REFUSED = "http://127.0.0.1:9/"
"""Where the guard lets nobody go: what is generated must reach no network."""
SHAPE = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
NO_LIMITS = {"rate_per_minute": None, "wrong_keys_per_minute": 10**9, "plan_wait": 0.05, "poll": 0.02, "patience": 2.0}


def fuzzing(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@dataclass
class World:
    """One engine, with a job whose videos are there, and what leads to its routes."""

    service: Service
    source: str
    """The id of an upload that is a clip."""
    names: Any = field(default_factory=itertools.count)

    def job(self, name: str) -> str:
        """One that has ended well."""
        body = {"task_name": f"{name} {next(self.names)}", "video_blocks": {"hook": [self.source]}}
        job = self.service.submit(body).id
        assert ended(self.service, job)["succeeded"] == 1
        return job


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    with machine(folder / "here", max_variations=50) as opened:
        clip = make_clip(folder / "hook.mp4", frames=6)
        yield World(opened.service, uploaded(opened.service, clip))


@pytest.fixture(scope="module")
def lasting(world):
    return world.job("lasting")


class Later:
    """An app whose document is there while tests are collected; the engine behind it comes with a fixture."""

    def __init__(self, *, auth: bool) -> None:
        self.app = create_app(SimpleNamespace(metrics=None), ApiOptions(auth=auth))

    async def __call__(self, scope, receive, send) -> None:
        await self.app(scope, receive, send)


OPEN, LOCKED = Later(auth=False), Later(auth=True)
open_schema = schemathesis.openapi.from_asgi("/openapi.json", OPEN, headers={"host": "localhost"})
locked_schema = schemathesis.openapi.from_asgi("/openapi.json", LOCKED, headers={"host": "localhost"})


@pytest.fixture(scope="module")
def engine(world):
    OPEN.app = create_app(world.service, ApiOptions(**NO_LIMITS))


@pytest.fixture(scope="module")
def token(world):
    LOCKED.app = create_app(world.service, ApiOptions(auth=True, **NO_LIMITS))
    return world.service.create_key("local", "fuzzer")[1]


def aimed(case, world, lasting):
    """The case with links that lead nowhere, and half of the time with a job that is there."""
    case.headers["host"] = "localhost"
    case.body = nowhere(case.body)
    if "job" in case.path_parameters and len(str(case.path_parameters["job"])) % 2:
        case.path_parameters["job"] = world.job("to be deleted") if case.method == "DELETE" else lasting
    return case


def nowhere(value: Any) -> Any:
    """The document with all links leading where the guard refuses to go; what cannot be a link is left alone."""
    match value:
        case dict():
            return {key: nowhere(each) for key, each in value.items()}
        case list():
            return [nowhere(each) for each in value]
        case str() if re.match(r"\s*https?:", value, re.IGNORECASE):
            return REFUSED + str(len(value))
    return value


@open_schema.parametrize()
@fuzzing(12)
def test_no_request_breaks_the_server(case, engine, world, lasting):
    aimed(case, world, lasting).call_and_validate(checks=[*SHAPE, unsupported_method, allow_header_conformance])


@locked_schema.parametrize()
@fuzzing(4)
def test_nothing_is_told_without_a_key(case, token, world, lasting):
    aimed(case, world, lasting)
    case.headers["Authorization"] = f"Bearer {token}"
    case.call_and_validate(checks=[*SHAPE, ignored_auth])


def test_no_sequence_of_requests_breaks_the_server(engine):
    class Sequence(open_schema.as_state_machine()):
        def before_call(self, case):
            case.headers["host"] = "localhost"
            case.body = nowhere(case.body)

        def validate_response(self, response, case, **_):
            case.validate_response(response, checks=[*SHAPE, use_after_free])

    Sequence.run(settings=settings(fuzzing(6), stateful_step_count=8))
