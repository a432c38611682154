"""Every route with what it is for, and with what it refuses."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import math
import threading
import time

import pytest

from api_fakes import BODY, JSON, REQUEST, FakeService, client_of, post_in_pieces, video_bytes
from crosscut.api.answers import Streamed
from crosscut.api.jobs import MANIFEST_BLOCK, _blocks
from crosscut.ports import Histogram, Metrics
from crosscut.report import manifest_json


@pytest.fixture
def service():
    return FakeService()


@pytest.fixture
def client(service):
    return client_of(service, plan_wait=0.2, poll=0.01)


@pytest.fixture
def job(client):
    return client.post("/process_media", content=BODY, headers=JSON).json()["id"]


def check_problem(response, status, code):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["type"].endswith(code)
    assert problem["title"]
    assert problem["detail"].endswith(".")
    return problem


@pytest.mark.parametrize("path", ["/process_media", "/process_media/"])
def test_a_request_is_taken_at_once(client, service, path):
    response = client.post(path, content=BODY, headers=JSON, follow_redirects=False)
    assert response.status_code == 202
    answer = response.json()
    assert answer["variations"] == 3
    assert answer["estimate"] == {"variations": 3}
    assert response.headers["location"] == answer["links"]["self"] == f"/jobs/{answer['id']}"
    assert service.all_jobs[answer["id"]].body == BODY
    assert client.get(answer["links"]["self"]).json()["id"] == answer["id"]


def test_links_keep_the_prefix_of_a_proxy(service):
    client = client_of(service)
    client.app.root_path = "/media"
    answer = client.post("/media/process_media", content=BODY, headers=JSON).json()
    assert answer["links"]["self"] == f"/media/jobs/{answer['id']}"


def test_what_a_request_lacks_is_said(client):
    problem = check_problem(
        client.post("/process_media", content=b'{"task_name": "a"}', headers=JSON), 422, "invalid_request"
    )
    assert "video_blocks" in problem["detail"]


def test_a_plan_is_waited_for(client, service):
    service.planning = False

    def plan_what_comes():
        while not service.all_jobs:
            time.sleep(0.01)
        plan_all(service)

    later = threading.Timer(0.05, plan_what_comes)
    later.start()
    response = client.post("/plan", content=BODY, headers=JSON)
    later.join()
    assert response.status_code == 200
    assert response.json()["plan"] == {"variations": 3}
    assert response.json()["mode"] == "plan"


def plan_all(service):
    for record in service.all_jobs.values():
        record.plan, record.state, record.version = {"variations": 3}, "done", record.version + 1


def test_a_plan_that_takes_long_can_be_looked_for_later(client, service):
    service.planning = False
    response = client.post("/plan", content=BODY, headers=JSON)
    assert response.status_code == 202
    assert response.headers["location"] == response.json()["links"]["self"]
    plan_all(service)
    assert client.get(response.headers["location"]).json()["plan"] == {"variations": 3}


def test_a_plan_of_nonsense_is_refused(client):
    check_problem(client.post("/plan", content=b"[]", headers=JSON), 422, "invalid_request")


def test_a_source_is_streamed_in(client, service):
    data = bytes(range(256)) * 20_000
    pieces = (data[start : start + 60_000] for start in range(0, len(data), 60_000))
    response = post_in_pieces(client.app, "/sources?name=hook%201.mp4", pieces, {})
    assert response.status_code == 201
    assert response.json()["sha256"] == hashlib.sha256(data).hexdigest()
    [intake] = service.intakes
    assert bytes(intake.data) == data
    assert (intake.name, intake.ended) == ("hook 1.mp4", "committed")
    assert intake.largest < 1_200_000


def test_a_form_is_answered_with_the_right_command(client):
    response = client.post("/sources?name=a.mp4", files={"file": b"abc"})
    assert "curl -X POST -T" in check_problem(response, 415, "not_raw")["detail"]


@pytest.mark.parametrize("query", ["", "?name=", "?name=a%00b", "?name=" + "a" * 201])
def test_a_source_needs_a_name(client, query):
    assert "name" in check_problem(client.post("/sources" + query, content=b"x"), 422, "invalid_parameter")["detail"]


def test_an_empty_source_is_refused(client):
    check_problem(client.post("/sources?name=a.mp4", content=b""), 422, "empty_upload")


def test_a_full_disk_is_said_and_leaves_nothing(client, service, job):
    service.disk_is_full = True
    check_problem(client.post("/process_media", content=BODY, headers=JSON), 507, "disk_full")
    check_problem(client.post("/sources?name=a.mp4", content=b"x"), 507, "disk_full")
    assert [intake.ended for intake in service.intakes] == ["aborted"]


def test_jobs_are_listed_in_pages(client):
    made = [client.post("/process_media", content=BODY, headers=JSON).json()["id"] for _ in range(5)]
    first = client.get("/jobs", params={"limit": 3}).json()
    second = client.get("/jobs", params={"limit": 3, "cursor": first["next"]}).json()
    assert [status["id"] for status in first["jobs"] + second["jobs"]] == made[::-1]
    assert second["next"] is None
    assert first["jobs"][0]["links"]["self"] == f"/jobs/{made[-1]}"


def test_jobs_are_found_by_state_and_name(client, service, job):
    other = json.dumps(REQUEST | {"task_name": "autumn"}).encode()
    autumn = client.post("/process_media", content=other, headers=JSON).json()["id"]
    service.advance(autumn, "done", 3)
    assert [status["id"] for status in client.get("/jobs?state=queued").json()["jobs"]] == [job]
    assert [status["id"] for status in client.get("/jobs?task_name=autumn").json()["jobs"]] == [autumn]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("limit=" + "9" * 30, "limit"),
        ("state=lost", "state"),
        ("cursor=%00", "cursor"),
        ("task_name=%00", "task_name"),
        ("task_name=" + "a" * 201, "task_name"),
    ],
)
def test_odd_parameters_are_named(client, query, parameter):
    problem = check_problem(client.get(f"/jobs?{query}"), 422, "invalid_parameter")
    assert problem["parameter"] == parameter
    assert problem["detail"].startswith(
        (
            f"The query parameter {parameter} must ",
            f"The query parameter {parameter} is not spelled as it must be",
        )
    )


def test_a_cursor_of_another_list_is_refused(client):
    check_problem(client.get("/jobs?cursor=elsewhere"), 422, "invalid_cursor")


def test_the_status_tells_how_far_a_job_is(client, service, job):
    service.advance(job, "done")
    service.advance(job, "failed")
    status = client.get(f"/jobs/{job}").json()
    assert (status["state"], status["total"], status["succeeded"], status["failed"]) == ("running", 3, 1, 1)
    assert set(status["links"]) >= {"variations", "events", "cancel", "retry", "extend", "manifest_json"}


@pytest.mark.parametrize("odd", ["nobody", "a b", "%00", "é", "x" * 101, "%2e%2e%2fetc", "1;drop", "%F0%9F%98%80"])
@pytest.mark.parametrize("rest", ["", "/variations", "/events", "/manifest.json", "/manifest.csv", "/variations/1.mp4"])
def test_an_unknown_job_is_404(client, odd, rest):
    response = client.get(f"/jobs/{odd}{rest}")
    check_problem(response, 404, response.json()["code"])


def test_variations_are_listed_in_pages(client, service, job):
    service.advance(job, "done")
    service.advance(job, "failed")
    first = client.get(f"/jobs/{job}/variations?limit=2").json()
    assert [row["state"] for row in first["variations"]] == ["done", "failed"]
    assert first["variations"][0]["links"]["preview"] == f"/jobs/{job}/variations/1.mp4"
    rest = client.get(f"/jobs/{job}/variations?limit=2&cursor={first['next']}").json()
    assert [row["index"] for row in rest["variations"]] == [3]
    assert rest["next"] is None


def test_variations_are_found_by_state_and_clip(client, service, job):
    service.advance(job, "failed")
    failed = client.get(f"/jobs/{job}/variations?state=failed").json()["variations"]
    assert [row["index"] for row in failed] == [1]
    clip = REQUEST["video_blocks"]["hook"][1]
    found = client.get(f"/jobs/{job}/variations", params={"clip": clip}).json()["variations"]
    assert [row["index"] for row in found] == [2]


@pytest.mark.parametrize("query", ["cursor=-1", "cursor=" + "9" * 40, "limit=1001", "state=running"])
def test_odd_parameters_of_variations_are_refused(client, job, query):
    check_problem(client.get(f"/jobs/{job}/variations?{query}"), 422, "invalid_parameter")


def test_the_manifest_as_json(client, service, job):
    service.advance(job, "done", 2)
    response = client.get(f"/jobs/{job}/manifest.json")
    assert response.headers["content-type"] == "application/json"
    assert [row["index"] for row in response.json()["variations"]] == [1, 2]
    assert response.json()["total"] == 3


def test_the_manifest_as_csv(client, service, job):
    service.advance(job, "done", 2)
    response = client.get(f"/jobs/{job}/manifest.csv")
    assert response.headers["content-type"].startswith("text/csv")
    assert [row["index"] for row in csv.DictReader(io.StringIO(response.text))] == ["1", "2"]


def test_a_manifest_is_not_held_in_memory():
    ahead = 0

    def rows():
        nonlocal ahead
        for index in range(20_000):
            ahead += 1
            yield {"index": index + 1, "file": "x" * 100}

    blocks = _blocks(manifest_json({"total": 20_000}, rows()))
    first = next(blocks)
    assert MANIFEST_BLOCK <= len(first) < 2 * MANIFEST_BLOCK
    assert ahead < 1_000
    assert len(json.loads(first + b"".join(blocks))["variations"]) == 20_000


def test_a_caller_that_hangs_up_leaves_nothing_open():
    closed = []

    def blocks():
        try:
            while True:
                yield b"x"
        finally:
            closed.append(True)

    async def send(message):
        if message["type"] == "http.response.body":
            raise OSError

    answer = Streamed(blocks(), media_type="text/plain")
    asyncio.run(answer({"type": "http", "asgi": {"spec_version": "2.4"}}, None, send))
    assert closed == [True]


def test_cancelling_keeps_what_is_made(client, service, job):
    service.advance(job, "done")
    status = client.post(f"/jobs/{job}/cancel").json()
    assert (status["state"], status["succeeded"]) == ("cancelled", 1)
    assert client.post(f"/jobs/{job}/cancel").status_code == 200


def test_retrying_makes_only_what_failed(client, service, job):
    service.advance(job, "done")
    service.advance(job, "failed", 2)
    response = client.post(f"/jobs/{job}/retry")
    assert (response.status_code, response.json()["variations"]) == (202, 2)
    assert client.get(f"/jobs/{job}").json()["state"] == "queued"


def test_extending_tells_what_is_new(client, job):
    added = json.dumps({"video_blocks": {"hook": ["https://a.example/4.mp4"]}}).encode()
    response = client.post(f"/jobs/{job}/extend", content=added, headers=JSON)
    assert response.status_code == 202
    assert response.json()["variations"] == 1
    assert response.json()["first_index"] == 4


def test_extending_with_nonsense_is_refused(client, job):
    check_problem(client.post(f"/jobs/{job}/extend", content=b"{}", headers=JSON), 422, "invalid_request")
    client.post(f"/jobs/{job}/cancel")
    added = json.dumps({"video_blocks": {"hook": ["https://a.example/4.mp4"]}}).encode()
    check_problem(client.post(f"/jobs/{job}/extend", content=added, headers=JSON), 409, "job_cancelled")


def test_a_job_is_forgotten(client, service, job):
    service.advance(job, "done")
    check_problem(client.delete(f"/jobs/{job}"), 409, "job_running")
    client.post(f"/jobs/{job}/cancel")
    response = client.delete(f"/jobs/{job}")
    assert (response.status_code, response.content) == (204, b"")
    check_problem(client.get(f"/jobs/{job}"), 404, "no_such_job")


@pytest.mark.parametrize("verb", ["cancel", "retry", "extend"])
def test_changing_an_unknown_job_is_404(client, verb):
    check_problem(client.post(f"/jobs/nobody/{verb}", content=b"{}", headers=JSON), 404, "no_such_job")
    check_problem(client.delete("/jobs/nobody"), 404, "no_such_job")


def test_a_poster_is_sent_once(client, service, job):
    service.advance(job, "done")
    response = client.get(f"/jobs/{job}/variations/1.jpg")
    assert response.headers["content-type"] == "image/jpeg"
    assert response.content.startswith(b"\xff\xd8")
    assert "private" in response.headers["cache-control"]
    again = client.get(f"/jobs/{job}/variations/1.jpg", headers={"if-none-match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == response.headers["etag"]


@pytest.mark.parametrize("kind", ["mp4", "jpg"])
def test_what_is_not_ready_can_be_asked_for_again(client, job, kind):
    response = client.get(f"/jobs/{job}/variations/1.{kind}")
    check_problem(response, 409, "not_ready")
    assert response.headers["retry-after"] == "2"


@pytest.mark.parametrize("n", ["0", "4", "-1", "01", "1.0", "+1", "x", "9" * 16, "9" * 400, "%20", "١", "1e3", "1_0"])
@pytest.mark.parametrize("kind", ["mp4", "jpg"])
def test_a_variation_that_cannot_be_is_404(client, service, job, n, kind):
    service.advance(job, "done", 3)
    response = client.get(f"/jobs/{job}/variations/{n}.{kind}")
    check_problem(response, 404, response.json()["code"])


def test_a_video_is_sent_whole_with_its_name(client, service):
    body = json.dumps(REQUEST | {"task_name": 'é "x"'}).encode()
    job = client.post("/process_media", content=body, headers=JSON).json()["id"]
    service.advance(job, "done")
    response = client.get(f"/jobs/{job}/variations/1.mp4")
    assert response.status_code == 200
    assert response.content == video_bytes(job, 1)
    assert response.headers["content-length"] == str(len(response.content))
    assert response.headers["content-type"] == "video/mp4"
    assert response.headers["accept-ranges"] == "bytes"
    named = response.headers["content-disposition"]
    assert named == "inline; filename=\"0001 _ _x_.mp4\"; filename*=UTF-8''0001%20%C3%A9%20%22x%22.mp4"
    offered = client.get(f"/jobs/{job}/variations/1.mp4?download=1")
    assert offered.headers["content-disposition"].startswith("attachment; ")


def test_the_head_of_a_video(client, service, job):
    service.advance(job, "done")
    response = client.head(f"/jobs/{job}/variations/1.mp4", headers={"range": "bytes=0-9"})
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-length"] == "3000000"
    assert response.headers["etag"]


def test_a_damaged_video_is_a_clean_refusal(client, service, job):
    service.advance(job, "done")
    service.damaged = True
    check_problem(client.get(f"/jobs/{job}/variations/1.mp4"), 503, "damaged_artifact")


def test_alive_and_ready(client, service):
    assert client.get("/livez").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ok"}
    service.reasons = ["No worker is running.", "The disk is nearly full."]
    problem = check_problem(client.get("/readyz"), 503, "not_ready")
    assert problem["reasons"] == service.reasons
    assert client.get("/livez").status_code == 200


def test_amounts_for_prometheus(client, service):
    service.amounts = Metrics(
        queue_depth={("segment", "processor", "queued"): 3},
        queue_oldest_seconds={"processor": 1.5},
        backlog=12,
        unit_seconds={"batch": Histogram([(0.1, 1), (30.0, 3), (math.inf, 4)], 62.5)},
        retries={"timeout": 2},
        lost={"expired": 1},
        ready=False,
        voice_dollars=0.25,
        stage_seconds={"fetch": 2.5},
        stage_count={"fetch": 4},
        variations={"made": 7},
        bytes={"in": 10.0},
        cache={"hit": 2.0},
        voice_characters=99,
        resent=3,
        jobs={"running": 1},
        workers={("network", "busy"): 2},
        worker_busy_ratio=0.5,
    )
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = set(response.text.splitlines())
    assert lines >= {
        'crosscut_queue_depth{kind="segment",lane="processor",state="queued"} 3.0',
        'crosscut_queue_oldest_seconds{lane="processor"} 1.5',
        "crosscut_backlog_variations 12.0",
        'crosscut_unit_seconds_bucket{kind="batch",le="0.1"} 1.0',
        'crosscut_unit_seconds_bucket{kind="batch",le="30.0"} 3.0',
        'crosscut_unit_seconds_bucket{kind="batch",le="+Inf"} 4.0',
        'crosscut_unit_seconds_count{kind="batch"} 4.0',
        'crosscut_unit_seconds_sum{kind="batch"} 62.5',
        'crosscut_retries_total{cause="timeout"} 2.0',
        'crosscut_units_lost_total{how="expired"} 1.0',
        "crosscut_ready 0.0",
        "crosscut_voice_cost_dollars_total 0.25",
        'crosscut_stage_seconds_total{stage="fetch"} 2.5',
        'crosscut_stage_seconds_count{stage="fetch"} 4.0',
        'crosscut_variations_total{outcome="made"} 7.0',
        'crosscut_bytes_total{direction="in"} 10.0',
        'crosscut_cache_total{result="hit"} 2.0',
        "crosscut_voice_characters_total 99.0",
        "crosscut_units_resent_total 3.0",
        'crosscut_jobs{state="running"} 1.0',
        'crosscut_workers{lane="network",state="busy"} 2.0',
        "crosscut_worker_busy_ratio 0.5",
    }


def test_unknown_addresses_and_methods_are_problems(client, job):
    check_problem(client.get("/nowhere"), 404, "not_found")
    check_problem(client.get("/jobs/"), 404, "not_found")
    response = client.put(f"/jobs/{job}")
    check_problem(response, 405, "method_not_allowed")
    assert set(response.headers["allow"].split(", ")) == {"DELETE", "GET"}
    check_problem(client.get("/process_media"), 405, "method_not_allowed")
    assert set(client.post("/openapi.json").headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize("path", ["/jobs/{}", "/jobs/{}/variations/1.mp4", "/metrics"])
def test_the_unforeseen_tells_nothing_of_the_inside(service, client, job, path):
    def breaks():
        raise RuntimeError("secret detail")

    service.breaks = breaks
    response = client.get(path.format(job))
    check_problem(response, 500, "internal_error")
    assert "secret" not in response.text
    assert response.headers["x-request-id"] in response.text
    assert response.headers["x-content-type-options"] == "nosniff"
