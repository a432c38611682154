"""The OpenAPI document: whole, with examples that hold, and nothing it allows breaks the server."""

from __future__ import annotations

import json
import re

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api_fakes import BODY, FakeService, client_of
from crosscut.additions import parse_addition
from crosscut.api import documents
from crosscut.request import parse_request

SERVICE = FakeService(video_size=200)
CLIENT = client_of(SERVICE, plan_wait=0.05, poll=0.01, rate_per_minute=None)
DOCUMENT = CLIENT.get("/openapi.json").json()
OPERATIONS = [(path, verb, told) for path, verbs in DOCUMENT["paths"].items() for verb, told in verbs.items()]


def test_every_operation_is_described():
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for path, verb, operation in OPERATIONS:
        assert operation["description"], (verb, path)
        assert set(operation["tags"]) <= tags
        assert operation["tags"]
        assert {"422", "401", "429", "500"} <= set(operation["responses"])


def test_every_refusal_is_a_problem_with_an_example():
    for path, verb, operation in OPERATIONS:
        for status, response in operation["responses"].items():
            if int(status) < 400:
                continue
            assert set(response["content"]) == {"application/problem+json"}, (verb, path, status)
            example = response["content"]["application/problem+json"]["example"]
            assert example["status"] == int(status)
            assert example["detail"].endswith(".")


def test_every_reference_leads_somewhere():
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(DOCUMENT)))
    assert names <= set(DOCUMENT["components"]["schemas"])
    assert {"RequestBody", "AdditionBody", "Problem", "JobStatus"} <= names


def test_the_examples_are_requests_that_are_taken():
    request = parse_request(documents.REQUEST)
    assert parse_request(documents.SMALL_REQUEST).task_name
    assert all(parse_request(documents.OWN_SOUND).bindings)
    assert parse_addition(documents.ADDITION, request).blocks
    for name, example in DOCUMENT["paths"]["/process_media"]["post"]["requestBody"]["content"]["application/json"][
        "examples"
    ].items():
        response = CLIENT.post("/process_media", json=example["value"])
        assert response.status_code == 202, name


def test_keys_are_part_of_the_document_only_where_they_are_needed():
    with_keys = client_of(SERVICE, auth=True).get("/openapi.json").json()
    assert with_keys["security"] == [{"key": []}]
    assert with_keys["paths"]["/livez"]["get"]["security"] == []
    assert "security" not in DOCUMENT
    assert not [path for path in DOCUMENT["paths"] if path.startswith("/admin")]


schema = schemathesis.openapi.from_asgi("/openapi.json", CLIENT.app, headers={"host": "localhost"})
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def an_ended_job():
    """One whose events end at once."""
    made = SERVICE.submit(BODY).id
    SERVICE.advance(made, "done", 3)
    return made


@schema.parametrize()
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_nothing_the_document_allows_breaks_the_server(case):
    case.headers["host"] = "localhost"
    if "job" in case.path_parameters and len(str(case.path_parameters["job"])) % 2:
        case.path_parameters["job"] = an_ended_job()
    case.call_and_validate(checks=CHECKS)
