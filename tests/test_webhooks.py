"""Webhooks: never to where the guard would not go, signed as the standard has it, and patient with receivers."""

from __future__ import annotations

import json
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError
from werkzeug import Response

from crosscut.errors import WebhookError
from crosscut.files import FileNotes
from crosscut.settings import Settings
from crosscut.webhooks import deliver, event_body, installation_secret
from test_guard import NEVER_PUBLIC, PUBLIC, SPELLINGS, failing, listening

ONE = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TWO = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
THREE = "whsec_" + "AAAA" * 8
PATH_SECRET = "T0000-PATHSECRET"


@pytest.fixture
def listener():
    with listening() as it:
        yield it


def post(url, secrets=(ONE,), allow=(), **options):
    payload = {"url": url, "id": "msg_1", "body": '{"type": "job.ended", "n": "\\u00e9"}'}
    deliver(payload, secrets, frozenset(allow), options.pop("cancelled", threading.Event()), **options)


def refused(url, **options):
    with pytest.raises(WebhookError) as caught:
        post(url, **options)
    assert PATH_SECRET not in caught.value.public + caught.value.detail
    return caught.value


def answered(talk, **options):
    """The error of a delivery to a receiver that does `talk`, and the seconds it took."""
    with listening(talk) as receiver:
        began = time.monotonic()
        error = refused(
            f"http://localhost:{receiver.port}/{PATH_SECRET}", allow={("localhost", receiver.port)}, **options
        )
        return error, time.monotonic() - began


def bracketed(host):
    return f"[{host}]" if ":" in host else host


@pytest.mark.parametrize("host", SPELLINGS)
def test_w01_no_spelling_of_the_own_machine_is_told(host, listener):
    url = f"http://{bracketed(host)}:{listener.port}/{PATH_SECRET}"
    error = refused(url, ports=frozenset({listener.port}))
    assert error.code in {"address_not_allowed", "bad_url"}
    assert not error.retryable
    assert listener.contacts == 0


@pytest.mark.parametrize("address", NEVER_PUBLIC)
def test_w01_no_name_leads_to_an_address_that_is_not_public(address, listener):
    for answers in ([address], [PUBLIC, address]):
        url = f"http://hooks.example:{listener.port}/{PATH_SECRET}"
        error = refused(url, ports=frozenset({listener.port}), resolver=lambda _host, _port, a=answers: a)
        assert (error.code, error.retryable) == ("address_not_allowed", False)
    assert listener.contacts == 0


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("file:///etc/passwd", "scheme_not_allowed"),
        ("gopher://example.com/", "scheme_not_allowed"),
        ("ftp://example.com/", "scheme_not_allowed"),
        ("data:text/plain,a", "scheme_not_allowed"),
        ("concat:a|b", "scheme_not_allowed"),
        ("subfile,,start,0,end,0,,:a", "scheme_not_allowed"),
        ("rtmp://example.com/", "scheme_not_allowed"),
        ("udp://example.com:1", "scheme_not_allowed"),
        ("unix:/var/run/docker.sock", "scheme_not_allowed"),
        ("pipe:0", "scheme_not_allowed"),
        (" http://example.com/", "bad_url"),
        ("http://exam\tple.com/", "bad_url"),
        ("http://example.com/\r\nX: 1", "bad_url"),
        ("http://127.0.0.1\\@example.com/", "bad_url"),
        ("http://user:PATHSECRET@example.com/", "credentials_in_url"),
        ("http://example.com@127.0.0.1/", "credentials_in_url"),
        ("http://%31%32%37.0.0.1/", "bad_url"),
        ("http://example.com#@127.0.0.1:x/", "port_not_allowed"),
        *((f"http://example.com:{port}/", "port_not_allowed") for port in (22, 25, 6379, 9200, 8000)),
    ],
)
def test_w01_what_is_no_plain_web_link_is_refused_for_good(url, code):
    error = refused(url, resolver=lambda _host, _port: ["127.0.0.1"], ports=frozenset({443}))
    assert (error.code, error.retryable) == (code, False)
    assert "PATHSECRET" not in error.public


def test_w01_a_failed_look_up_is_tried_again_later(listener):
    error = refused(f"http://hooks.example:{listener.port}/", ports=frozenset({listener.port}), resolver=failing)
    assert (error.code, error.retryable) == ("unreachable", True)
    assert listener.contacts == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_w01_a_redirect_is_not_followed(status, listener, httpserver):
    target = f"http://127.0.0.1:{listener.port}/"
    httpserver.expect_request("/hook").respond_with_data("", status, {"Location": target})
    allow = {("localhost", httpserver.port), ("127.0.0.1", listener.port)}
    error = refused(httpserver.url_for("/hook"), allow=allow)
    assert "redirects" in error.public
    assert error.retryable
    assert listener.contacts == 0


def test_w01_proxies_of_the_environment_are_not_asked(listener, httpserver, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{listener.port}")
    httpserver.expect_oneshot_request("/hook", method="POST").respond_with_data("ok")
    post(httpserver.url_for("/hook"), allow={("localhost", httpserver.port)})
    httpserver.check_assertions()
    assert listener.contacts == 0


def received(httpserver, times=1, secrets=(ONE,), **options):
    """Body and headers of events as a receiver got them."""
    httpserver.expect_request("/hook", method="POST").respond_with_data("", 204)
    for _ in range(times):
        post(httpserver.url_for("/hook"), secrets, {("localhost", httpserver.port)}, **options)
    return [(request.get_data(), dict(request.headers)) for request, _ in httpserver.log]


def test_w02_the_body_is_sent_as_it_is_stored_and_verifies(httpserver):
    ((body, headers),) = received(httpserver)
    assert body == b'{"type": "job.ended", "n": "\\u00e9"}'
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("crosscut/")
    assert Webhook(ONE).verify(body, headers) == {"type": "job.ended", "n": "é"}


@pytest.mark.parametrize("change", [b" ", b"x", b"\x00"])
def test_w02_an_altered_body_does_not_verify(httpserver, change):
    ((body, headers),) = received(httpserver)
    with pytest.raises(WebhookVerificationError, match="No matching"):
        Webhook(ONE).verify(body + change, headers)


def test_w02_an_old_event_does_not_verify_and_cannot_be_made_new(httpserver):
    ((body, headers),) = received(httpserver, clock=lambda: time.time() - 360)
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(ONE).verify(body, headers)
    with pytest.raises(WebhookVerificationError, match="No matching"):
        Webhook(ONE).verify(body, headers | {"Webhook-Timestamp": str(int(time.time()))})


def test_w02_tries_share_an_id_and_each_has_its_own_time(httpserver):
    moments = iter([time.time() - 100, time.time()])
    (_, first), (_, second) = received(httpserver, times=2, clock=lambda: next(moments))
    assert first["Webhook-Id"] == second["Webhook-Id"] == "msg_1"
    assert int(second["Webhook-Timestamp"]) - int(first["Webhook-Timestamp"]) in (99, 100, 101)
    assert first["Webhook-Signature"] != second["Webhook-Signature"]


def test_w02_while_a_secret_is_rotated_both_verify(httpserver):
    ((body, headers),) = received(httpserver, secrets=(TWO, ONE))
    for secret in (ONE, TWO):
        assert Webhook(secret).verify(body, headers)
    with pytest.raises(WebhookVerificationError, match="No matching"):
        Webhook(THREE).verify(body, headers)


def test_w02_the_time_is_utc_wherever_the_machine_stands(httpserver, monkeypatch):
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        ((body, headers),) = received(httpserver)
        assert Webhook(ONE).verify(body, headers)
    finally:
        monkeypatch.undo()
        time.tzset()


def drip(peer):
    """Never finish the header, but never fall silent either."""
    try:
        peer.sendall(b"HTTP/1.1 200 OK\r\n")
        for number in range(200):
            peer.sendall(f"X-{number}: 1\r\n".encode())
            time.sleep(0.05)
    except OSError:
        pass


@pytest.mark.parametrize("talk", [None, drip])
def test_w03_a_receiver_that_hangs_is_left_in_time(talk):
    error, took = answered(talk, seconds=0.6)
    assert (error.code, error.retryable) == ("timeout", True)
    assert 0.5 < took < 3


def test_w03_cancelling_ends_a_delivery_within_a_second():
    cancelled = threading.Event()
    threading.Timer(0.2, cancelled.set).start()
    error, took = answered(None, cancelled=cancelled)
    assert error.code == "cancelled"
    assert took < 1.5


def test_w03_of_an_endless_answer_little_is_read():
    broken = threading.Event()

    def endless(peer):
        try:
            peer.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 1000000000\r\n\r\n")
            for _ in range(1000):
                peer.sendall(b"<" * 1_000_000)
        except OSError:
            broken.set()

    error, took = answered(endless)
    assert broken.is_set(), "we hung up before the thousandth megabyte"
    assert took < 5
    assert error.detail.startswith("<<<<")
    assert len(error.detail) <= 200


def test_w03_an_accepted_event_needs_no_whole_answer():
    def begin(peer):
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\nok")

    with listening(begin) as receiver:
        began = time.monotonic()
        post(f"http://localhost:{receiver.port}/", allow={("localhost", receiver.port)})
        assert time.monotonic() - began < 5
        assert receiver.contacts == 1


def told(httpserver, status, headers=None, body="said\n\x1b[31mthis"):
    httpserver.expect_request("/hook").respond_with_response(Response(body, status, headers))
    return refused(httpserver.url_for("/hook"), allow={("localhost", httpserver.port)})


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 502, 503, 599])
def test_w03_a_receiver_may_be_mended(httpserver, status):
    error = told(httpserver, status)
    assert (error.code, error.retryable, error.stage) == ("not_accepted", True, "webhook")
    assert str(status) in error.public
    assert error.detail == "said��[31mthis"


def test_w03_a_receiver_that_is_gone_is_not_asked_again(httpserver):
    error = told(httpserver, 410, {"Retry-After": "5"})
    assert (error.code, error.retryable, error.after) == ("gone", False, None)


@pytest.mark.parametrize(
    ("value", "after"),
    [("120", 120), ("86400", 86400), ("0", None), ("-5", None), ("soon", None), ("86401", None), ("9" * 400, None)],
)
def test_w03_a_receiver_may_ask_for_a_pause(httpserver, value, after):
    assert told(httpserver, 429, {"Retry-After": value}).after == after


def test_a_receiver_that_is_not_there_is_tried_again():
    with listening() as receiver:
        port = receiver.port
    error = refused(f"http://localhost:{port}/", allow={("localhost", port)})
    assert (error.code, error.retryable) == ("unreachable", True)


STATUS = {
    "id": "job_1",
    "task_name": "t",
    "state": "done",
    "total": 8,
    "succeeded": 6,
    "failed": 2,
    "errors": [{"reason": f"reason {n}", "variations": 1} for n in range(20)],
    "folder": "t",
    "passthrough": {"order": 7},
    "links": {"self": "/jobs/job_1"},
    "cost": {"currency": "USD", "voice_over": 0.0},
}


def test_an_event_tells_what_became_of_the_job():
    assert json.loads(event_body("job.ended", STATUS, 1_763_800_000.7)) == {
        "type": "job.ended",
        "timestamp": "2025-11-22T08:26:40Z",
        "data": {
            **{name: STATUS[name] for name in STATUS if name not in ("cost", "errors")},
            "errors": STATUS["errors"][:5],
        },
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(JSON)
@example("\ud800")
def test_whatever_is_passed_through_comes_back(value):
    body = event_body("job.first_failure", STATUS | {"passthrough": value}, 0).encode()
    assert json.loads(body)["data"]["passthrough"] == value


def test_the_secret_of_an_installation_is_made_once_and_private(tmp_path, monkeypatch):
    folder = tmp_path / "new" / "data"
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(installation_secret, [FileNotes(folder)] * 32))
    (secret,) = found
    assert stat.S_IMODE((folder / "webhook-secret").stat().st_mode) == 0o600
    assert installation_secret(FileNotes(folder)) == secret != installation_secret(FileNotes(tmp_path / "other"))
    monkeypatch.setenv("CROSSCUT_WEBHOOK_SECRETS", f"{secret},{ONE}")
    assert [each.get_secret_value() for each in Settings(_env_file=None).webhook_secrets] == [secret, ONE]
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "webhook-secret"]


@pytest.mark.parametrize(
    "secret", ["whsec_tooshort", "short", "whsec_!!!!", "password-password-password-password-password"]
)
def test_a_secret_that_would_not_sign_is_refused_without_being_shown(monkeypatch, secret):
    monkeypatch.setenv("CROSSCUT_WEBHOOK_SECRETS", secret)
    with pytest.raises(ValueError) as caught:
        Settings(_env_file=None)
    assert "webhook_secrets" in str(caught.value)
    assert secret not in str(caught.value)
