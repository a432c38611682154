"""Bodies as strangers send them: too large, too deep, too much, of another kind, twice."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from api_fakes import BODY, JSON, REQUEST, FakeService, client_of, post_in_pieces

ROUTES = ["/process_media", "/plan", "/jobs/{job}/extend"]


@pytest.fixture
def service():
    return FakeService(video_size=100)


@pytest.fixture
def client(service):
    return client_of(service, body_bytes=10_000, upload_bytes=20_000)


@pytest.fixture
def job(client):
    return client.post("/process_media", content=BODY, headers=JSON).json()["id"]


def code_of(response):
    assert response.headers["content-type"] == "application/problem+json", response.text
    assert response.json()["status"] == response.status_code
    return response.status_code, response.json()["code"]


@pytest.mark.parametrize("path", ROUTES)
def test_r01_a_declared_body_over_the_limit_is_not_read(client, job, path):
    response = client.post(path.format(job=job), content=b" " * 10_001, headers=JSON)
    assert code_of(response) == (413, "too_large")
    assert "10,000 bytes" in response.json()["detail"]
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize("path", ROUTES)
def test_r01_a_body_without_length_is_cut_at_the_limit(client, job, path):
    read = 0

    def pieces():
        nonlocal read
        for _ in range(100):
            read += 1_000
            yield b" " * 1_000

    assert code_of(post_in_pieces(client.app, path.format(job=job), pieces(), JSON)) == (413, "too_large")
    assert read <= 12_000


def test_r01_a_length_that_lies_is_counted(client):
    for declared in ("1", "-5", "x", "9" * 30):
        headers = JSON | {"content-length": declared}
        response = post_in_pieces(client.app, "/process_media", [b" " * 6_000] * 2, headers)
        assert code_of(response) == (413, "too_large")


def test_r01_a_body_at_the_limit_is_taken(client):
    assert client.post("/process_media", content=BODY.ljust(10_000), headers=JSON).status_code == 202
    assert post_in_pieces(client.app, "/process_media", [BODY, b" " * 5], JSON).status_code == 202


def test_r01_uploads_have_a_limit_of_their_own(client, service):
    assert client.post("/sources?name=a.mp4", content=b"x" * 20_000).status_code == 201
    assert code_of(client.post("/sources?name=a.mp4", content=b"x" * 20_001)) == (413, "too_large")
    chunked = post_in_pieces(client.app, "/sources?name=a.mp4", [b"x" * 9_000] * 3, {})
    assert code_of(chunked) == (413, "too_large")
    assert [intake.ended for intake in service.intakes] == ["committed", "aborted"]


async def post_raw(app, path, receive, query=b"", length=None):
    """The status of a POST whose body comes as `receive` has it."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": query,
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
    }
    if length is not None:
        scope["headers"].append((b"content-length", str(length).encode()))
    await app(scope, receive, send)
    return sent[0]["status"]


def piece_then(what):
    """A body of which one piece comes, and then `what` happens."""
    pieces = iter([{"type": "http.request", "body": b"x" * 100, "more_body": True}])

    async def receive():
        return next(pieces, None) or await what()

    return receive


def test_r01_nothing_is_read_of_what_is_declared_too_large(client, service):
    async def receive():
        raise AssertionError

    assert asyncio.run(post_raw(client.app, "/process_media", receive, length=10_001)) == 413
    assert asyncio.run(post_raw(client.app, "/sources", receive, b"name=a.mp4", length=20_001)) == 413
    assert service.intakes == []


def test_r01_an_upload_that_is_cut_leaves_nothing(client, service):
    async def hang_up():
        return {"type": "http.disconnect"}

    assert asyncio.run(post_raw(client.app, "/sources", piece_then(hang_up), b"name=a.mp4")) == 400
    assert [intake.ended for intake in service.intakes] == ["aborted"]


def test_r01_a_body_that_stops_coming_is_given_up(service):
    app = client_of(service, patience=0.05).app

    async def wait():
        await asyncio.Event().wait()

    def status_of(*request):
        return asyncio.run(asyncio.wait_for(post_raw(app, *request), 5))

    assert status_of("/process_media", piece_then(wait)) == 408
    assert status_of("/sources", piece_then(wait), b"name=a.mp4") == 408
    assert [intake.ended for intake in service.intakes] == ["aborted"]


def test_r01_a_document_that_drips_is_given_up(service):
    app = client_of(service, patience=0.05).app

    async def drip():
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b" ", "more_body": True}

    assert asyncio.run(asyncio.wait_for(post_raw(app, "/process_media", drip), 10)) == 408


R02 = {
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "many keys": None,
    "nan": b'{"seed": NaN}',
    "duplicate": b'{"task_name": "a", "task_name": "b"}',
    "surrogate": b'{"task_name": "\\ud800"}',
    "surrogate key": b'{"\\udfff": 1}',
    "digits": b'{"seed": ' + b"1" * 400_000 + b"}",
    "nothing": b"",
    "not utf-8": b'{"task_name": "\xff"}',
    "utf-16": '{"task_name": "a"}'.encode("utf-16"),
    "null": b"null",
    "raw surrogate": b'{"task_name": "\xed\xa0\x80"}',
    "nul": b'{"task_name": "a\\u0000"}',
    "text": b'"x"',
}


@pytest.mark.parametrize("name", R02)
@pytest.mark.parametrize("path", ROUTES)
def test_r02_hostile_json_is_refused_in_a_sentence(service, name, path):
    client = client_of(service)
    job = client.post("/process_media", content=BODY, headers=JSON).json()["id"]
    many = json.dumps({f"k{number}": 1 for number in range(60_000)}).encode()
    body = many if R02[name] is None else R02[name]
    assert code_of(client.post(path.format(job=job), content=body, headers=JSON)) == (422, "invalid_request")
    assert len(service.all_jobs) == 1


def test_r02_a_byte_order_mark_is_no_mistake(client):
    assert client.post("/process_media", content=b"\xef\xbb\xbf" + BODY, headers=JSON).status_code == 202


def test_r03_too_many_combinations_are_refused_with_their_number(client, service):
    blocks = {f"b{block}": [f"https://a.example/{block}/{clip}" for clip in range(10)] for block in range(12)}
    body = json.dumps({"task_name": "t", "video_blocks": blocks}).encode()
    response = client.post("/process_media", content=body, headers=JSON)
    assert code_of(response) == (422, "invalid_request")
    assert "1,000,000,000,000" in response.json()["detail"]
    assert service.all_jobs == {}


def test_r03_an_empty_list_is_named(client):
    body = json.dumps({"task_name": "t", "video_blocks": {"hook": []}}).encode()
    assert "video_blocks.hook" in client.post("/process_media", content=body, headers=JSON).json()["detail"]


@pytest.mark.parametrize(
    ("field", "value"), [("tsak_name", "x"), ("seed", -1), ("seed", "1"), ("music_gain", 3), ("fit", None)]
)
def test_r04_the_field_that_is_wrong_is_named(client, field, value):
    response = client.post("/process_media", content=json.dumps(REQUEST | {field: value}).encode(), headers=JSON)
    assert code_of(response) == (422, "invalid_request")
    assert field in response.json()["detail"]


def test_r05_the_same_key_makes_one_job(client, service):
    headers = JSON | {"idempotency-key": "k-1"}
    first, second = (client.post("/process_media", content=BODY, headers=headers) for _ in range(2))
    assert first.status_code == second.status_code == 202
    assert first.json()["id"] == second.json()["id"]
    assert [first.json()["created"], second.json()["created"]] == [True, False]
    assert second.headers["idempotent-replayed"] == "true"
    assert len(service.all_jobs) == 1


def test_r05_twice_at_once_makes_one_job(client, service):
    headers = JSON | {"idempotency-key": "k-1"}
    ids = []
    threads = [
        threading.Thread(
            target=lambda: ids.append(client.post("/process_media", content=BODY, headers=headers).json()["id"])
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert set(ids) == set(service.all_jobs)
    assert len(service.all_jobs) == 1


def test_r05_the_same_key_with_another_body_is_refused(client, service):
    headers = JSON | {"idempotency-key": "k-1"}
    client.post("/process_media", content=BODY, headers=headers)
    other = json.dumps(REQUEST | {"seed": 1}).encode()
    response = client.post("/process_media", content=other, headers=headers)
    assert code_of(response) == (422, "idempotency_mismatch")
    assert len(service.all_jobs) == 1


@pytest.mark.parametrize("key", [b"", b"a b", b"a" * 256, "é".encode("latin-1"), b"\x7f"])
def test_r05_an_odd_key_is_refused(client, service, key):
    headers = [(b"content-type", b"application/json"), (b"idempotency-key", key)]
    response = client.post("/process_media", content=BODY, headers=headers)
    assert code_of(response) == (422, "invalid_header")
    assert "idempotency-key" in response.json()["detail"].lower()
    assert service.all_jobs == {}


def test_r05_two_keys_are_refused(client, service):
    headers = [("content-type", "application/json"), ("idempotency-key", "a"), ("idempotency-key", "b")]
    assert code_of(client.post("/process_media", content=BODY, headers=headers)) == (422, "invalid_header")
    assert service.all_jobs == {}


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "kind",
    [
        None,
        "",
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/jsonx",
        "json",
        "application/",
        ";",
        "application/xml; a=application/json",
    ],
)
def test_other_content_types_are_told_what_to_send(client, service, job, path, kind):
    headers = {} if kind is None else {"content-type": kind}
    response = client.post(path.format(job=job), content=BODY, headers=headers)
    assert code_of(response) == (415, "not_json")
    assert "Content-Type: application/json" in response.json()["detail"]
    assert len(service.all_jobs) == 1


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "APPLICATION/JSON",
        "application/json; charset=utf-8",
        "application/ld+json",
        " application/json ;x",
    ],
)
def test_json_may_be_spelled_in_many_ways(client, kind):
    assert client.post("/process_media", content=BODY, headers={"content-type": kind}).status_code == 202


@pytest.mark.parametrize("path", ["/process_media", "/sources?name=a"])
def test_packed_bodies_are_refused(client, path):
    response = client.post(path, content=BODY, headers=JSON | {"content-encoding": "gzip"})
    assert code_of(response) == (415, "packed_body")
