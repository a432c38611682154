"""Hostile requests against the real service, by the case ids of the security bar: A03, R01 to R05, S09, S01."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from fastapi.testclient import TestClient

from api_fakes import post_in_pieces
from clips import make_clip
from crosscut.api import create_app
from crosscut.api.options import ApiOptions
from serving import ended, machine, uploaded

JSON = {"content-type": "application/json"}
REFUSED = "http://127.0.0.1:9/"
"""Links to there are refused without a look at any network."""


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with machine(tmp_path_factory.mktemp("engine") / "here", max_variations=1_000) as opened:
        yield opened.service


def app_of(service, **options):
    return create_app(service, ApiOptions(rate_per_minute=None, plan_wait=0.05, poll=0.02, **options))


@pytest.fixture(scope="module")
def caller(service):
    return TestClient(app_of(service), base_url="http://localhost")


@pytest.fixture(scope="module")
def tenants(service):
    """Two callers with keys of their own, by owner."""
    app = app_of(service, auth=True)
    return {
        owner: TestClient(
            app,
            base_url="http://localhost",
            headers={"authorization": f"Bearer {service.create_key(owner, owner)[1]}"},
        )
        for owner in ("ann", "bob")
    }


def request_of(**fields):
    return {"task_name": "t", "video_blocks": {"a": [f"{REFUSED}1.mp4"]}} | fields


def taken(caller, **fields):
    response = caller.post("/process_media", json=request_of(**fields))
    assert response.status_code == 202, response.text
    return response.json()["id"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clips") / "b.mp4", frames=7)


@pytest.fixture(scope="module")
def anns(service, tenants, tmp_path_factory):
    """A job of Ann's, made from her upload, and the upload's id."""
    source = uploaded(service, make_clip(tmp_path_factory.mktemp("clips") / "a.mp4", frames=6), "ann")
    job = taken(tenants["ann"], task_name="anns secret", video_blocks={"a": [source]})
    assert ended(service, job)["succeeded"] == 1
    return job, source


def routes(caller):
    paths = caller.get("/openapi.json").json()["paths"]
    return [(verb.upper(), path) for path, verbs in paths.items() for verb in verbs]


def test_a03_a_job_of_another_owner_is_404_on_every_route_that_has_one(tenants, anns):
    job, _ = anns
    with_job = [(verb, path) for verb, path in routes(tenants["ann"]) if "{job}" in path]
    assert len(with_job) >= 10
    for verb, path in with_job:
        here = path.replace("{job}", job).replace("{n}", "1")
        addition = {"json": {"video_blocks": {"a": [f"{REFUSED}2.mp4"]}}} if path.endswith("extend") else {}
        refused = tenants["bob"].request(verb, here, **addition)
        unknown = tenants["bob"].request(verb, here.replace(job, "job_none"), **addition)
        assert (refused.status_code, refused.json()) == (404, unknown.json()), (verb, path)
        assert refused.json()["code"] == "no_such_job"
    assert tenants["ann"].get(f"/jobs/{job}").json()["total"] == 1
    assert tenants["ann"].get(f"/jobs/{job}/variations/1.mp4").status_code == 200


def test_a03_lists_cursors_and_keys_of_idempotency_show_ones_own_alone(tenants, anns):
    mine = [taken(tenants["ann"]) for _ in range(3)]
    page = tenants["ann"].get("/jobs?limit=1").json()
    assert page["jobs"][0]["id"] == mine[-1]
    for query in ("", "?task_name=anns%20secret", f"?cursor={page['next']}"):
        assert tenants["bob"].get(f"/jobs{query}").json() == {"jobs": [], "next": None}
    sent = {"json": request_of(), "headers": {"idempotency-key": "both"}}
    answers = [tenants[owner].post("/process_media", **sent).json() for owner in ("ann", "bob")]
    assert [answer["created"] for answer in answers] == [True, True]
    theirs = [one["id"] for one in tenants["bob"].get("/jobs").json()["jobs"]]
    assert theirs == [answers[1]["id"]]


def test_a03_an_upload_of_another_owner_does_not_exist(tenants, anns):
    _, source = anns
    with_it = request_of(video_blocks={"a": [source]})
    made_up = request_of(video_blocks={"a": ["source:" + "0" * 64]})
    for path in ("/process_media", "/plan"):
        refused = [tenants["bob"].post(path, json=body) for body in (with_it, made_up)]
        assert [(one.status_code, one.json()["code"]) for one in refused] == [(422, "unknown_source")] * 2
    assert tenants["ann"].post("/plan", json=with_it).status_code in (200, 202)


def test_a03_nor_can_one_be_added(service, tenants, anns, clip):
    _, source = anns
    mine = uploaded(service, clip, "bob")
    assert mine != source
    job = taken(tenants["bob"], video_blocks={"a": [mine]})
    ended(service, job)
    refused = tenants["bob"].post(f"/jobs/{job}/extend", json={"video_blocks": {"a": [source]}})
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_source")


def test_what_was_added_is_told_without_the_secrets_of_its_links(tenants, anns):
    job, _ = anns
    link, track = f"{REFUSED}more.mp4", f"{REFUSED}calm.mp3"
    added = {"video_blocks": {"a": [f"{link}?sig=canary"]}, "audio_blocks": {"m": [f"{track}?sig=canary"]}}
    answer = tenants["ann"].post(f"/jobs/{job}/extend", json=added)
    assert answer.status_code == 202
    assert (answer.json()["clips"], answer.json()["music"]) == ([link], [track])
    assert "canary" not in answer.text


def test_a_job_grows_though_an_upload_of_its_own_was_deleted(service, tenants, clip, tmp_path):
    first = uploaded(service, clip, "bob")
    job = taken(tenants["bob"], task_name="deleted", video_blocks={"a": [first]})
    ended(service, job)
    assert tenants["ann"].delete(f"/sources/{first}").status_code == 404
    assert tenants["bob"].delete(f"/sources/{first}").status_code == 204
    again = tenants["bob"].post("/plan", json=request_of(video_blocks={"a": [first]}))
    assert (again.status_code, again.json()["code"]) == (422, "unknown_source")
    second = uploaded(service, make_clip(tmp_path / "c.mp4", frames=8), "bob")
    grown = tenants["bob"].post(f"/jobs/{job}/extend", json={"video_blocks": {"a": [second]}})
    assert (grown.status_code, grown.json()["total"]) == (202, 2)
    assert grown.json()["clips"] == ["c.mp4"]
    assert ended(service, job)["succeeded"] == 2


def test_r01_a_large_body_is_refused_before_it_is_read(caller):
    large = b'{"task_name": "' + b"x" * (1 << 20) + b'"}'
    assert refusal(caller.post("/process_media", content=large, headers=JSON)) == (413, "too_large")


def test_r01_a_large_body_of_unknown_length_is_cut_off(service):
    sent = []

    def pieces():
        for _ in range(1_000):
            sent.append(1)
            yield b" " * (1 << 16)

    response = post_in_pieces(app_of(service), "/process_media", pieces(), JSON)
    assert refusal(response) == (413, "too_large")
    assert len(sent) < 1_000


def test_r01_a_body_that_does_not_come_is_not_waited_for(service):
    async def never():
        yield b"{"
        await asyncio.Event().wait()

    async def send():
        transport = httpx2.ASGITransport(app=app_of(service, patience=0.1))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/process_media", content=never(), headers=JSON)

    assert refusal(asyncio.run(send())) == (408, "too_slow")


def refusal(response):
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()["code"]


DOCUMENT = json.dumps(request_of())
TRAPS = {
    "nested lists": "[" * 100_000 + "]" * 100_000,
    "nested objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "many keys": json.dumps({f"k{number}": 1 for number in range(80_000)}),
    "a key twice": '{"task_name": "a", ' + DOCUMENT[1:],
    "a block twice": '{"task_name": "t", "video_blocks": {"a": ["https://a.b/1"], "a": ["https://a.b/2"]}}',
    "a huge integer": DOCUMENT[:-1] + ', "seed": 1' + "0" * 400 + "}",
    "a huge float": DOCUMENT[:-1] + ', "music_gain": -1e400}',
    "not a number": DOCUMENT[:-1] + ', "music_gain": NaN}',
    "half a surrogate pair": DOCUMENT.replace('"t"', '"\\ud800"'),
    "half a pair as a key": DOCUMENT.replace('"a"', '"\\udc00"'),
    "half a pair in a link": DOCUMENT.replace("1.mp4", "\\ud800.mp4"),
    "half a pair handed through": DOCUMENT[:-1] + ', "passthrough": "\\ud800"}',
    "a byte order mark inside": DOCUMENT[:5] + "\ufeff" + DOCUMENT[5:],
    "nothing": "",
    "a list": "[]",
    "another encoding": DOCUMENT.encode("utf-16"),
    "broken UTF-8": b'{"task_name": "\xff\xfe"}',
}


@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("path", ["/process_media", "/plan"])
def test_r02_traps_of_json_are_refused_with_a_sentence(caller, path, trap):
    content = TRAPS[trap]
    response = caller.post(path, content=content if isinstance(content, bytes) else content.encode(), headers=JSON)
    assert refusal(response)[0] in (413, 422)
    assert len(response.json()["detail"]) < 1_000


def test_r02_traps_of_json_extend_nothing(service, caller, clip):
    job = taken(caller, video_blocks={"a": [uploaded(service, clip)]})
    ended(service, job)
    for trap, content in TRAPS.items():
        body = content if isinstance(content, bytes) else content.encode()
        response = caller.post(f"/jobs/{job}/extend", content=body, headers=JSON)
        assert refusal(response)[0] in (413, 422), trap
    assert service.status(job, None)["total"] == 1


def test_r03_a_million_million_combinations_are_counted_not_made(caller):
    blocks = {f"b{block}": [f"{REFUSED}{block}/{clip}.mp4" for clip in range(10)] for block in range(12)}
    response = caller.post("/process_media", json=request_of(video_blocks=blocks))
    assert refusal(response) == (422, "invalid_request")
    assert "1,000,000,000,000" in response.json()["detail"]


def test_r03_a_choice_among_a_billion_combinations_is_taken_at_once(caller):
    blocks = {f"b{block}": [f"{REFUSED}{block}/{clip}.mp4" for clip in range(10)] for block in range(9)}
    response = caller.post("/process_media", json=request_of(video_blocks=blocks, select={"count": 5}))
    assert (response.status_code, response.json()["variations"]) == (202, 5)


def test_r03_too_many_links_and_an_empty_list_are_refused(caller):
    many = request_of(video_blocks={"a": ["https://a.b"] * 40_000})
    assert refusal(caller.post("/process_media", json=many)) == (422, "invalid_request")
    empty = caller.post("/process_media", json=request_of(video_blocks={"a": []}))
    assert refusal(empty) == (422, "invalid_request")
    assert "video_blocks" in empty.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"unknown": 1}, "unknown"),
        ({"seed": "1"}, "seed"),
        ({"seed": -1}, "seed"),
        ({"video_blocks": None}, "video_blocks"),
        ({"video_blocks": {"a": [None]}}, "video_blocks.a[0]"),
        ({"music_gain": 6}, "music_gain"),
        ({"select": {"count": 0}}, "select.count"),
        ({"webhook": {"url": "file:///etc/passwd"}}, "webhook.url"),
        ({"destination": "/etc"}, "destination"),
        ({"video_blocks": {"a": ["file:///etc/passwd"]}}, "video_blocks.a[0]"),
        ({"video_blocks": {"a": ["/etc/passwd"]}}, "video_blocks.a[0]"),
    ],
)
def test_r04_s09_what_a_field_cannot_hold_is_refused_by_its_place(caller, fields, place):
    response = caller.post("/process_media", json=request_of(**fields))
    assert refusal(response) == (422, "invalid_request")
    assert place in response.json()["detail"]


def test_r05_two_clients_with_one_idempotency_key_make_one_job(service):
    app = app_of(service)
    before = {job["id"] for job in service.jobs(None, limit=10_000)[0]}
    together = threading.Barrier(8)

    def send(number):
        client = TestClient(app, base_url="http://localhost")
        together.wait()
        return client.post("/process_media", json=request_of(), headers={"idempotency-key": "once"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    taken_by = [answer.json() for answer in answers if answer.status_code == 202]
    assert [answer["created"] for answer in taken_by].count(True) == 1
    made = {job["id"] for job in service.jobs(None, limit=10_000)[0]} - before
    assert made == {answer["id"] for answer in taken_by}


def test_r05_the_key_with_another_body_is_refused(caller):
    key = {"idempotency-key": "mine"}
    assert caller.post("/process_media", json=request_of(), headers=key).status_code == 202
    other = caller.post("/process_media", json=request_of(seed=2), headers=key)
    assert refusal(other) == (422, "idempotency_mismatch")


def test_s01_a_source_on_a_private_address_fails_alone_and_says_why(caller, service):
    status = ended(service, taken(caller, video_blocks={"a": ["http://169.254.169.254/latest", "http://[::1]/1.mp4"]}))
    assert (status["total"], status["failed"]) == (2, 2)
    assert all("CROSSCUT_FETCH_ALLOW" in error["reason"] for error in status["errors"])
