"""Who may see and change what: keys, tenants, strangers' pages, too many requests."""

from __future__ import annotations

import asyncio
import io
import json
from contextlib import closing

import pytest
from fastapi.testclient import TestClient
from starlette.requests import Request

from api_fakes import BODY, JSON, FakeService, client_of
from crosscut.api.access import Access
from crosscut.api.app import create_app
from crosscut.api.edge import EXTRA_HEADERS
from crosscut.api.options import ApiOptions
from crosscut.api.problems import Problem
from crosscut.store.database import Database
from crosscut.store.shared import StoredCounts
from crosscut.telemetry import event_log

ADMIN = "machine-token-0123456789"
ROUTES = [
    ("GET", "/jobs/{job}"),
    ("GET", "/jobs/{job}/plan"),
    ("GET", "/jobs/{job}/variations"),
    ("GET", "/jobs/{job}/events"),
    ("GET", "/jobs/{job}/manifest.json"),
    ("GET", "/jobs/{job}/manifest.csv"),
    ("GET", "/jobs/{job}/variations/{n}.mp4"),
    ("HEAD", "/jobs/{job}/variations/{n}.mp4"),
    ("GET", "/jobs/{job}/variations/{n}.jpg"),
    ("POST", "/jobs/{job}/cancel"),
    ("POST", "/jobs/{job}/retry"),
    ("POST", "/jobs/{job}/extend"),
    ("DELETE", "/jobs/{job}"),
]
OWN_ROUTES = [
    ("GET", "/jobs"),
    ("POST", "/process_media"),
    ("POST", "/plan"),
    ("POST", "/sources"),
    ("POST", "/process_media/"),
    ("DELETE", "/sources/{source:path}"),
]
SERVER_ROUTES = [("GET", "/livez"), ("GET", "/readyz"), ("GET", "/metrics")]
ADMIN_ROUTES = [("GET", "/admin/keys"), ("POST", "/admin/keys"), ("DELETE", "/admin/keys/{key}")]


@pytest.fixture
def service():
    return FakeService(video_size=100)


def submit(client):
    return client.post("/process_media", content=BODY, headers=JSON).json()["id"]


def ask(client, method, template, job="x"):
    path = template.replace(":path", "").format(job=job, n=1, key="x", source="source:" + "0" * 64)
    body = {"content": b'{"video_blocks": {"hook": ["https://a.example/9.mp4"]}}'} if method == "POST" else {}
    return client.request(method, path, headers=JSON, **body)


def test_every_route_is_in_one_of_these_lists(service):
    """So that a new route is tried by two tenants too."""
    known = {*ROUTES, *OWN_ROUTES, *SERVER_ROUTES, *ADMIN_ROUTES}
    app = client_of(service).app
    assert {(method, route.path) for route in app.state.routes for method in route.methods} == known


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a03_a_job_of_another_owner_does_not_exist(service, method, path):
    mine = client_of(service, service.token("ann"), auth=True)
    job = submit(mine)
    service.advance(job, "done", 3)
    theirs = client_of(service, service.token("bob"), auth=True)
    refused, unknown = ask(theirs, method, path, job), ask(theirs, method, path, "nobody")
    assert refused.status_code == unknown.status_code == 404
    assert refused.content == unknown.content
    assert ask(mine, method, path, job).status_code < 300


def test_a03_lists_and_cursors_show_ones_own(service):
    ann, bob = (client_of(service, service.token(owner), auth=True) for owner in ("ann", "bob"))
    ann_job, bob_job = submit(ann), submit(bob)
    assert [status["id"] for status in ann.get("/jobs").json()["jobs"]] == [ann_job]
    assert bob.get("/jobs", params={"cursor": ann_job}).status_code == 422
    assert [status["id"] for status in bob.get("/jobs").json()["jobs"]] == [bob_job]


def wrong_keys(service):
    right = service.token("ann")
    key = right.split("_")[1]
    revoked = service.create_key("ann", "old")
    service.revoke_key(revoked[0])
    return {
        "none": [],
        "empty": [""],
        "no scheme": [right],
        "basic": [f"Basic {right}"],
        "no key": ["Bearer"],
        "two keys": [f"Bearer {right} {right}"],
        "changed": [f"Bearer {right[:-1]}{'a' if right[-1] != 'a' else 'b'}"],
        "right id": [f"Bearer ck_{key}_{'A' * 43}"],
        "unknown": [f"Bearer ck_{'a' * 12}_{'A' * 43}"],
        "revoked": [f"Bearer {revoked[1]}"],
        "two headers": [f"Bearer {right}", f"Bearer {right}"],
        "odd": ["Bearer ck_\xff\xfe"],
        "long": ["Bearer ck_" + "a" * 5_000],
    }


def test_a01_every_wrong_key_gets_the_same_answer(service):
    client = client_of(service, auth=True)
    answers = set()
    for headers in wrong_keys(service).values():
        response = client.get("/jobs", headers=[("authorization", value.encode("latin-1")) for value in headers])
        assert response.headers["www-authenticate"].startswith("Bearer")
        answers.add((response.status_code, response.content))
    assert len(answers) == 1
    assert answers.pop()[0] == 401


@pytest.mark.parametrize(("method", "path"), [*ROUTES, *OWN_ROUTES, *SERVER_ROUTES[1:]])
def test_a01_no_route_forgets_to_ask(service, method, path):
    response = ask(client_of(service, auth=True), method, path)
    assert response.status_code == 401
    assert service.all_jobs == {}


@pytest.mark.parametrize("name", ["key", "api_key", "token", "access_token", "authorization"])
def test_a01_a_key_in_the_address_is_not_accepted(service, name):
    client = client_of(service, auth=True)
    assert client.get("/jobs", params={name: service.token("ann")}).status_code == 401
    assert service.tokens_seen == []


def test_a01_a_rotated_key_is_good_during_the_overlap(service):
    key, old = service.create_key("ann", "first")
    _, new = service.create_key("ann", "second", replaces=key, overlap_seconds=60)
    clients = [client_of(service, token, auth=True) for token in (old, new)]
    assert [client.get("/jobs").status_code for client in clients] == [200, 200]
    service.now = 61.0
    assert [client.get("/jobs").status_code for client in clients] == [401, 200]


def test_a02_only_the_service_judges_a_key(service):
    client = client_of(service, auth=True)
    wrong = wrong_keys(service)
    asked = [wrong[name][0] for name in ("changed", "right id", "unknown", "revoked")]
    for header in asked:
        client.get("/jobs", headers={"authorization": header})
    assert service.tokens_seen == [header.removeprefix("Bearer ") for header in asked]


def test_a04_many_wrong_keys_are_slowed_down(service):
    client = client_of(service, auth=True)
    wrong = {"authorization": wrong_keys(service)["unknown"][0]}
    statuses = [client.get("/jobs", headers=wrong).status_code for _ in range(30)]
    assert statuses[:20] == [401] * 20
    assert set(statuses[20:]) == {429}
    refused = client.get("/jobs", headers=wrong)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.json()["code"] == "too_many_wrong_keys"
    assert client.get("/jobs", headers={"authorization": f"Bearer {service.token('ann')}"}).status_code == 200
    elsewhere = TestClient(client.app, base_url="http://localhost", client=("192.0.2.7", 1))
    assert elsewhere.get("/jobs", headers=wrong).status_code == 401


def test_a04_an_ipv6_customer_is_one_address(service):
    access = Access(service, ApiOptions(auth=True, wrong_keys_per_minute=1))
    statuses = []
    for host in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"):
        headers = [(b"authorization", wrong_keys(service)["unknown"][0].encode())]
        request = Request({"type": "http", "headers": headers, "client": (host, 1)})
        with pytest.raises(Problem) as caught:
            access.identify(request)
        statuses.append(caught.value.status)
    assert statuses == [401, 429, 401]


def test_l02_posts_are_counted_by_owner(service):
    options = {"auth": True, "rate_per_minute": 3}
    app = create_app(service, ApiOptions(**options))
    ann, bob = (
        TestClient(app, base_url="http://localhost", headers={"authorization": f"Bearer {service.token(owner)}"})
        for owner in ("ann", "bob")
    )
    answers = [ann.post("/process_media", content=BODY, headers=JSON) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 429, 429]
    assert answers[0].headers["ratelimit"].startswith('"posts";r=2;t=')
    assert answers[0].headers["ratelimit-policy"] == '"posts";q=3;w=60'
    assert answers[3].headers["ratelimit"].startswith('"posts";r=0;t=')
    assert 1 <= int(answers[3].headers["retry-after"]) <= 60
    assert answers[3].json()["code"] == "rate_limited"
    assert len(service.all_jobs) == 3
    assert ann.get("/jobs").status_code == 200
    assert bob.post("/process_media", content=BODY, headers=JSON).status_code == 202


def test_l02_servers_of_a_cluster_count_together(service, postgres):
    headers = {"authorization": f"Bearer {service.token('ann')}"}
    with closing(Database(postgres)) as one, closing(Database(postgres)) as other:
        servers = [
            TestClient(
                create_app(service, ApiOptions(auth=True, rate_per_minute=5), counts=StoredCounts(database, 600.0)),
                base_url="http://localhost",
                headers=headers,
            )
            for database in (one, other)
        ]
        answers = [servers[n % 2].post("/process_media", content=BODY, headers=JSON) for n in range(7)]
        assert [answer.status_code for answer in answers] == [202] * 5 + [429] * 2
        left = [answer.headers["ratelimit"].split(";")[1] for answer in answers]
        assert left == [f"r={n}" for n in (4, 3, 2, 1, 0, 0, 0)]
        wrong = {"authorization": "Bearer ck_0000"}
        statuses = [servers[n % 2].get("/jobs", headers=wrong).status_code for n in range(22)]
        assert statuses == [401] * 20 + [429] * 2


def test_l02_uploads_are_counted_apart(service):
    client = client_of(service, rate_per_minute=2)
    answers = [client.post("/sources?name=a.mp4", content=b"x") for _ in range(21)]
    assert [answer.status_code for answer in answers] == [201] * 20 + [429]
    assert answers[0].headers["ratelimit-policy"] == '"uploads";q=20;w=60'
    assert answers[-1].json()["detail"].startswith("More than 20 uploads came within a minute; wait ")
    assert client.post("/process_media", content=BODY, headers=JSON).status_code == 202


def test_an_upload_is_deleted_by_its_owner_alone(service):
    ann, bob = (client_of(service, service.token(owner), auth=True) for owner in ("ann", "bob"))
    source = ann.post("/sources?name=a%20b.mp4", content=b"x").json()["id"]
    refused, unknown = bob.delete(f"/sources/{source}"), bob.delete("/sources/source:" + "0" * 64)
    assert refused.status_code == unknown.status_code == 404
    assert refused.content == unknown.content
    assert ann.delete(f"/sources/{source}/a%20b.mp4").status_code == 204
    assert ann.delete(f"/sources/{source}").json()["code"] == "no_such_source"
    assert ann.delete("/sources/source:../../x").status_code == 404


@pytest.mark.parametrize("turned", [-86_400, 86_400])
def test_l02_a_clock_that_is_turned_locks_nobody_out(service, monkeypatch, turned):
    import time

    access = Access(service, ApiOptions(rate_per_minute=2))
    request = Request({"type": "http", "headers": [], EXTRA_HEADERS: {}})
    real = time.time

    def ask_often():
        for _ in range(9):
            asyncio.run(access.sender(request))

    with pytest.raises(Problem):
        ask_often()
    monkeypatch.setattr(time, "time", lambda: real() + turned)
    asyncio.run(access.sender(request))
    with pytest.raises(Problem) as caught:
        ask_often()
    assert 1 <= int(caught.value.headers["retry-after"]) <= 60


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "[::1]", "LOCALHOST"])
def test_u03_names_of_this_machine_are_answered(service, host):
    assert client_of(service).get("/jobs", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "192.0.2.1"])
def test_u03_other_names_are_not_answered_without_keys(service, host):
    response = client_of(service).get("/jobs", headers={"host": host})
    assert (response.status_code, response.json()["code"]) == (421, "host_not_allowed")
    for name in (host.split(":")[0], host.split(":")[0].upper()):
        assert client_of(service, allowed_hosts=(name,)).get("/jobs", headers={"host": host}).is_success
    assert client_of(service, service.token("ann"), auth=True).get("/jobs", headers={"host": host}).is_success


@pytest.mark.parametrize("host", ["", "a b", "user@localhost", "localhost:port", "localhost/x"])
def test_u03_broken_host_headers_are_refused(service, host):
    response = client_of(service).get("/jobs", headers={"host": host})
    assert (response.status_code, response.json()["code"]) == (400, "bad_host")


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:3000", "http://localhost:8000.evil.example", ""]
)
def test_u03_a_page_of_another_origin_changes_nothing(service, origin):
    client = client_of(service)
    response = client.post("/process_media", content=BODY, headers=JSON | {"origin": origin})
    assert (response.status_code, response.json()["code"]) == (403, "cross_origin")
    assert service.all_jobs == {}
    assert "access-control-allow-origin" not in client.get("/jobs", headers={"origin": origin}).headers


def test_u03_a_page_of_ones_own_may(service):
    headers = JSON | {"origin": "http://localhost:8000"}
    assert client_of(service).post("/process_media", content=BODY, headers=headers).status_code == 202


def test_u03_a_preflight_gets_no_leave(service):
    headers = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    response = client_of(service).options("/process_media", headers=headers)
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_u02_names_cannot_become_markup_or_headers(service):
    name = '<script>alert(1)</script>"; x=y'
    body = json.dumps({"task_name": name, "video_blocks": {"a": ["https://a.example/1.mp4"]}}).encode()
    client = client_of(service)
    job = client.post("/process_media", content=body, headers=JSON).json()["id"]
    service.advance(job, "done")
    for path in ("", "/variations/1.mp4", "/variations/1.jpg", "/manifest.json", "/manifest.csv"):
        response = client.get(f"/jobs/{job}{path}")
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-security-policy"].startswith("default-src 'none'")
        assert response.headers["referrer-policy"] == "no-referrer"
        assert "html" not in response.headers["content-type"]
    named = client.get(f"/jobs/{job}/variations/1.mp4").headers["content-disposition"]
    assert named.count('"') == 2
    response = client.get("/jobs?state=%3Cscript%3E")
    assert "<script>" not in response.text


def test_u04_one_request_is_one_line_without_secrets(service):
    log = io.StringIO()
    app = create_app(service, ApiOptions(auth=True), event_log((log,)))
    token = service.token("ann")
    client = TestClient(app, base_url="http://localhost", headers={"authorization": f"Bearer {token}"})
    job = submit(client)
    client.get(f"/jobs/{job}?api_key=canary%0a%1b[31m", headers={"x-request-id": "from-outside"})
    client.get("/jobs/canary%0acanary/variations/1.mp4")
    client.get("/canary%0a%e2%80%a8")
    client.request("CANARY", "/jobs")
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["route"] for line in lines] == [
        "/process_media",
        "/jobs/{job}",
        "/jobs/{job}/variations/{n}.mp4",
        "-",
        "/jobs",
    ]
    assert [line["status"] for line in lines] == [202, 200, 404, 404, 405]
    assert lines[1]["request"] == "from-outside"
    assert lines[1]["job"] == job
    assert lines[1]["ms"] >= 0
    assert lines[1]["bytes"] > 100
    assert "canary" not in log.getvalue()
    assert token not in log.getvalue()


def test_an_odd_request_id_is_replaced(service):
    response = client_of(service).get("/livez", headers={"x-request-id": "<script>"})
    assert response.headers["x-request-id"].isalnum()


def test_an_error_is_logged_with_its_cause(service):
    def breaks():
        raise RuntimeError("the cause")

    log = io.StringIO()
    client = TestClient(create_app(service, ApiOptions(), event_log((log,))), base_url="http://localhost")
    service.breaks = breaks
    response = client.get("/jobs/x")
    failed, ended = (json.loads(line) for line in log.getvalue().splitlines())
    assert "RuntimeError: the cause" in failed["exception"]
    assert failed["request"] == ended["request"] == response.headers["x-request-id"]
    assert ended["status"] == 500


def test_the_servers_own_routes_are_open_where_no_keys_are_needed(service):
    assert all(client_of(service).get(path).status_code == 200 for _, path in SERVER_ROUTES)
    with_keys = client_of(service, auth=True)
    assert [with_keys.get(path).status_code for _, path in SERVER_ROUTES] == [200, 401, 401]
    assert client_of(service, service.token("ann"), auth=True).get("/metrics").status_code == 200


def test_keys_are_managed_by_this_machine(service):
    client = client_of(service, ADMIN, auth=True, admin_token=ADMIN)
    made = client.post("/admin/keys", json={"owner": "ann", "name": "laptop"})
    assert made.status_code == 201
    first, token = made.json()["id"], made.json()["token"]
    assert client_of(service, token, auth=True).get("/jobs").status_code == 200
    listed = client.get("/admin/keys").json()["keys"]
    assert [(row["id"], row["name"]) for row in listed] == [(first, "laptop")]
    assert token not in json.dumps(listed)
    replaced = client.post("/admin/keys", json={"owner": "ann", "name": "", "replaces": first, "overlap_seconds": 9})
    assert replaced.status_code == 201
    assert client.delete(f"/admin/keys/{first}").status_code == 204
    assert client_of(service, token, auth=True).get("/jobs").status_code == 401
    assert client.delete("/admin/keys/nobody").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"owner": 1}',
        b'{"owner": ""}',
        b'{"owner": "a\\u0000"}',
        b'{"more": 1}',
        b'{"overlap_seconds": -1}',
        b'{"overlap_seconds": 1e999}',
        b'{"name": "\\ud800"}',
        b'{"replaces": "x"}',
    ],
)
def test_odd_key_requests_are_refused(service, body):
    client = client_of(service, ADMIN, admin_token=ADMIN)
    response = client.post("/admin/keys", content=body, headers=JSON)
    assert response.status_code in (404, 422)
    assert response.json()["detail"].endswith(".")
    assert service.keys == {}


@pytest.mark.parametrize("token", [None, "", "wrong", ADMIN + "x", ADMIN[:-1]])
@pytest.mark.parametrize("admin_token", [ADMIN, None, ""])
@pytest.mark.parametrize(("method", "path"), ADMIN_ROUTES)
def test_for_all_others_the_admins_routes_do_not_exist(service, token, admin_token, method, path):
    response = ask(client_of(service, token, auth=True, admin_token=admin_token), method, path)
    assert response.status_code == 404
    assert response.json()["code"] == "not_found"


def test_this_machine_sees_everybodys_jobs(service):
    job = submit(client_of(service, service.token("ann"), auth=True))
    admin = client_of(service, ADMIN, auth=True, admin_token=ADMIN)
    assert [status["id"] for status in admin.get("/jobs").json()["jobs"]] == [job]
    assert service.all_jobs[submit(admin)].owner == "local"
