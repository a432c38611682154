"""The client and its commands, against a small server that can be told to misbehave."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from filelock import FileLock

from crosscut import client as client_module
from crosscut.cli import run
from crosscut.client import Client, discover, running
from crosscut.commands.jobs import with_uploads
from crosscut.errors import RequestError, ServerError

ADMIN = "admin-token-canary"


def status(version, state="running", **more):
    made = more.get("succeeded", version)
    return {
        "id": "job_1", "task_name": "spring", "state": state, "version": version, "total": 8, "succeeded": made,
        "made": made, "kept": 0, "failed": 0, "seconds": 1.5, "notes": [], "errors": [], "destination": "videos",
        "folder": "spring", "clips_encoded": 1, "clips_copied": 2, "voice_over_characters": 0,
        "cost": {"currency": "USD", "voice_over": 0.0}, "loudness": None, "manifest_problem": None,
        "created_at": "2026-11-22T10:00:00Z",
        "stages": {"fetch": {"done": 0, "total": 0, "failed": 0}, "deliver": {"done": made, "total": 8, "failed": 0}},
    } | more  # fmt: skip


DONE = status(3, "done", succeeded=8)


class Crosscut:
    """Speaks the routes of a server; `looks` and `streams` say what each further look or stream gets."""

    def __init__(self):
        self.log = []
        self.looks = [DONE]
        self.streams = []
        self.answers = {}
        self.keys = []
        self.port = 0
        self.start()

    def start(self):
        self._http = ThreadingHTTPServer(("127.0.0.1", self.port), type("Bound", (Handler,), {"fake": self}))
        self.port = self._http.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self):
        self._http.shutdown()
        self._thread.join(10)
        self._http.server_close()

    def asked(self, method, path):
        return [each for each in self.log if (each["method"], each["path"]) == (method, path)]

    def look(self):
        """The next status; the last one stays."""
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: Crosscut

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.note()
        if path in self.fake.answers:
            return self.fake.answers[path](self)
        if path == "/jobs":
            return self.send({"jobs": [self.fake.look()], "next": None})
        if path == "/jobs/job_1":
            return self.send(self.fake.look())
        if path == "/jobs/job_1/events" and self.fake.streams:
            return self.fake.streams.pop(0)(self)
        if path == "/admin/keys" and self.is_admin():
            return self.send({"keys": self.fake.keys})
        return self.problem(404, "no_such_job", "There is no such job.")

    def do_POST(self):
        path = self.note()
        if path in self.fake.answers:
            return self.fake.answers[path](self)
        if path == "/process_media":
            return self.send({"id": "job_1", "created": True, "variations": 8, "estimate": {}, "links": {}}, 202)
        if path == "/sources":
            return self.send({"id": f"source:{len(self.body):032x}", "bytes": len(self.body)}, 201)
        if path == "/jobs/job_1/cancel":
            return self.send(status(4, "cancelled", succeeded=2))
        if path == "/admin/keys" and self.is_admin():
            self.fake.keys.append({"id": "abcdefgh2345", **json.loads(self.body)})
            return self.send({"id": "abcdefgh2345", "token": "ck_token"}, 201)
        return self.problem(404, "not_found", "There is nothing at this address.")

    def do_DELETE(self):
        path = self.note()
        if path != "/admin/keys/abcdefgh2345" or not self.is_admin():
            return self.problem(404, "no_such_key", "There is no such key.")
        self.send_response(204)
        return self.end_headers()

    def note(self):
        self.body = self.rfile.read(int(self.headers.get("content-length", 0)))
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        entry = {"method": self.command, "path": parts.path, "query": query}
        self.fake.log.append(entry | {"headers": self.headers, "body": self.body})
        return parts.path

    def is_admin(self):
        return self.headers.get("authorization") == f"Bearer {ADMIN}"

    def send(self, value, code=200, kind="application/json", **headers):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        for name, text in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(body)

    def problem(self, code, word, detail, **headers):
        value = {"status": code, "code": word, "detail": detail, "title": "No"}
        self.send(value, code, "application/problem+json", **headers)


def stream(*events, whole=True):
    """A connection that sends these statuses as events; not `whole`: it is cut off after them."""

    def talk(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for each in events:
            event = f": ping\n\nevent: progress\nid: {each['version']}\ndata: {json.dumps(each)}\n\n".encode()
            handler.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        if whole:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    return talk


@pytest.fixture
def server():
    it = Crosscut()
    yield it
    it.stop()


@pytest.fixture
def client(server):
    with Client(server.url, "ck_mine", patience=5, pause=0.01, silence=5) as it:
        yield it


def versions(client):
    return [each["version"] for each in client.watch("job_1")]


def test_a_request_is_sent_as_it_is_with_key_and_idempotency_key(server, client):
    body = '{"task_name": "é"}'.encode()
    assert client.submit(body, "spring-1")["variations"] == 8
    (asked,) = server.asked("POST", "/process_media")
    assert asked["body"] == body
    assert asked["headers"]["Idempotency-Key"] == "spring-1"
    assert asked["headers"]["Authorization"] == "Bearer ck_mine"
    assert asked["headers"]["Content-Type"] == "application/json"
    for _ in range(2):
        client.submit(body)
    first, second = (asked["headers"]["Idempotency-Key"] for asked in server.log[1:])
    assert first != second


@pytest.mark.parametrize("text", ["é", "a b", "a\r\nX-Other: 1", "\ud800", "x" * 256])
def test_what_no_header_can_hold_is_refused_without_being_shown(server, client, text):
    for ask in (lambda: Client(server.url, text), lambda: client.submit(b"{}", text)):
        with pytest.raises(RequestError, match="must be plain") as caught:
            ask()
        assert text not in caught.value.public
    assert server.log == []


def test_a_file_is_uploaded_as_it_is_under_its_name(server, client, tmp_path):
    (tmp_path / "hook é.mp4").write_bytes(bytes(300_000))
    assert client.upload(tmp_path / "hook é.mp4")["id"].startswith("source:")
    (asked,) = server.asked("POST", "/sources")
    assert asked["query"] == {"name": "hook é.mp4"}
    assert asked["body"] == bytes(300_000)
    with pytest.raises(RequestError, match=r"gone\.mp4"):
        client.upload(tmp_path / "gone.mp4")


def test_every_page_of_jobs_is_fetched(server, client):
    pages = iter([{"jobs": [status(1)], "next": "c1"}, {"jobs": [status(2), DONE], "next": None}])
    server.answers["/jobs"] = lambda handler: handler.send(next(pages))
    assert [job["version"] for job in client.jobs("running")] == [1, 2, 3]
    assert [asked["query"] for asked in server.log] == [
        {"limit": "200", "state": "running"},
        {"limit": "200", "state": "running", "cursor": "c1"},
    ]


def test_a_problem_is_told_with_its_sentence_and_code(server, client):
    server.answers["/jobs/job_1"] = lambda handler: handler.problem(
        429, "rate_limited", "Wait \x1b[31m7 s.\n" + "x" * 9_000, Retry_After="7"
    )
    with pytest.raises(ServerError) as caught:
        client.status("job_1")
    error = caught.value
    assert (error.code, error.retryable, error.after) == ("rate_limited", True, 7)
    assert error.public.startswith("Wait �[31m7 s.�")
    assert len(error.public) <= 1000
    with pytest.raises(ServerError) as caught:
        client.status("job_2")
    assert (caught.value.public, caught.value.retryable) == ("There is no such job.", False)


@pytest.mark.parametrize(
    ("code", "body"), [(502, b"<html>bad gateway"), (500, b"[1]"), (422, b'{"detail": [{"loc": []}]}'), (301, b"")]
)
def test_what_does_not_speak_as_crosscut_is_named(server, client, code, body):
    server.answers["/jobs/job_1"] = lambda handler: handler.send(body, code, "text/html", Location="http://a.example/")
    with pytest.raises(ServerError, match=f"{server.url} answers HTTP {code}; check --server"):
        client.status("job_1")


@pytest.mark.parametrize("body", [b"<html>welcome", b"[]", b"{}", b'"state"', b"\xff"])
def test_a_good_answer_of_something_else_is_named(server, client, body):
    for path in ("/jobs/job_1", "/jobs"):
        server.answers[path] = lambda handler: handler.send(body)
    with pytest.raises(ServerError, match="does not answer as crosscut does"):
        client.status("job_1")
    with pytest.raises(ServerError, match="does not answer as crosscut does"):
        list(client.jobs())


@pytest.mark.parametrize("job", ["", "..", "a/b", "a?b", "a b", "é", "x" * 101, "../admin/keys"])
def test_an_id_cannot_lead_elsewhere(server, client, job):
    for ask in (client.status, client.cancel, client.revoke_key, lambda job: list(client.watch(job))):
        with pytest.raises(RequestError, match="is not an id"):
            ask(job)
    assert server.log == []


def test_nobody_answering_is_one_sentence(server):
    server.stop()
    try:
        with Client(server.url) as client, pytest.raises(ServerError) as caught:
            list(client.watch("job_1"))
    finally:
        server.start()
    assert caught.value.public == f"no crosscut answers at {server.url}: start one with crosscut serve."


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/", "http://me:CANARY@host/", "", "http://a b/"])
def test_an_address_that_is_no_use_is_refused(url):
    with pytest.raises(ServerError) as caught:
        Client(url)
    assert "CANARY" not in caught.value.public


def test_proxies_of_the_environment_are_not_asked(server, client, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with Client(server.url) as fresh:
        assert fresh.status("job_1")["state"] == "done"


def test_watching_follows_the_events(server, client):
    server.looks = [status(1)]
    server.streams = [stream(status(1), status(2), DONE)]
    assert versions(client) == [1, 2, 3]
    assert len(server.asked("GET", "/jobs/job_1")) == 1


@pytest.mark.parametrize("whole", [True, False])
def test_watching_goes_on_after_the_last_event_it_heard(server, client, whole):
    server.looks = [status(1)]
    server.streams = [stream(status(1), status(2), whole=whole), stream(status(2), DONE)]
    server.looks = [status(1), status(2)]
    assert versions(client) == [1, 2, 3]
    heard = [asked["headers"]["Last-Event-ID"] for asked in server.asked("GET", "/jobs/job_1/events")]
    assert heard == [None, "2"]


@pytest.mark.parametrize(
    "events",
    [
        lambda handler: handler.problem(404, "not_found", "There is nothing at this address."),
        lambda handler: handler.send(b"<html>", 200, "text/html"),
        lambda handler: handler.send(b"data: {\n\n", 200, "text/event-stream"),
    ],
)
def test_watching_asks_where_events_do_not_come(server, client, events):
    server.looks = [status(1), status(1), status(2), status(2), DONE]
    server.streams = [events] * 5
    assert versions(client) == [1, 2, 3]
    assert len(server.streams) == 4, "they are not tried again"


def test_watching_asks_where_events_are_held_back(server):
    release = threading.Event()

    def silent(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        handler.wfile.flush()
        release.wait(10)
        handler.close_connection = True

    server.looks = [status(1), status(2), DONE]
    server.streams = [silent, silent]
    try:
        with Client(server.url, pause=0.01, silence=0.3) as client:
            assert versions(client) == [1, 2, 3]
    finally:
        release.set()
    assert len(server.streams) == 1


def test_watching_waits_for_a_server_that_starts_anew(server, client):
    server.looks = [status(1)]
    server.streams = [stream(status(2), whole=False)]
    seen = []
    for each in client.watch("job_1"):
        seen.append(each["version"])
        if each["version"] == 2:
            server.stop()
            server.looks = [DONE]
            timer = threading.Timer(0.3, server.start)
            timer.start()
    timer.join()
    assert seen == [1, 2, 3]


def test_watching_a_server_that_stays_away_ends(server):
    server.looks = [status(1)]
    with Client(server.url, pause=0.01, patience=0.2) as client:
        looks = client.watch("job_1")
        assert next(looks)["version"] == 1
        server.stop()
        try:
            with pytest.raises(ServerError, match="no crosscut answers"):
                next(looks)
        finally:
            server.start()


def test_watching_bears_a_busy_server_and_not_a_deleted_job(server, client):
    looks = iter(
        [
            lambda handler: handler.send(status(1)),
            lambda handler: handler.problem(503, "busy", "Later.", Retry_After="0"),
            lambda handler: handler.send(status(2)),
            lambda handler: handler.problem(404, "no_such_job", "There is no such job."),
        ]
    )

    def look(handler):
        next(looks)(handler)

    server.answers["/jobs/job_1"] = look
    seen = []
    with pytest.raises(ServerError, match="no such job"):
        seen.extend(each["version"] for each in client.watch("job_1"))
    assert seen == [1, 2]
    assert next(looks, None) is None


def write_server_file(folder, url, **more):
    folder.mkdir(exist_ok=True)
    (folder / "server.json").write_text(json.dumps({"url": url, "admin_token": ADMIN, "pid": 1} | more))


@contextlib.contextmanager
def as_server(folder):
    """Hold what a server holds."""
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "state.lock"):
        yield


@pytest.fixture
def served(tmp_path):
    with as_server(tmp_path):
        yield


def test_what_a_killed_server_left_is_not_believed(tmp_path):
    write_server_file(tmp_path, "http://127.0.0.1:8000")
    with pytest.raises(ServerError) as caught:
        running(tmp_path)
    assert caught.value.code == "no_server"
    with as_server(tmp_path):
        assert running(tmp_path).token == ADMIN


def test_a_server_is_named_or_found(tmp_path, served):
    with pytest.raises(ServerError, match="start one with crosscut serve"):
        discover("", "ck_a", tmp_path)
    write_server_file(tmp_path, "http://127.0.0.1:8000")
    found = discover("", None, tmp_path)
    assert (found.url, found.token) == ("http://127.0.0.1:8000", ADMIN)
    assert ADMIN not in repr(found)
    assert discover("", "ck_a", tmp_path).token == "ck_a"
    assert running(tmp_path).token == ADMIN
    elsewhere = discover("https://host.example", None, tmp_path)
    assert (elsewhere.url, elsewhere.token) == ("https://host.example", None)


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"url": "http://a"}', "\ud800"])
def test_a_damaged_server_file_is_one_sentence(tmp_path, served, content):
    (tmp_path / "server.json").write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(ServerError, match=r"server\.json.*crosscut serve"):
        running(tmp_path)


# The commands


@pytest.fixture
def project(tmp_path, monkeypatch, server):
    """A folder with clips, and a server that runs with its data."""
    with as_server(tmp_path / "data"):
        yield furnished(tmp_path, monkeypatch, server)


def furnished(tmp_path, monkeypatch, server):
    for name in list(os.environ):
        if name.startswith("CROSSCUT_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CROSSCUT_DATA_DIR", str(tmp_path / "data"))
    write_server_file(tmp_path / "data", server.url)
    (tmp_path / "clips").mkdir()
    for number in range(3):
        (tmp_path / "clips" / f"{number}.mp4").write_bytes(bytes(number + 1))
    return tmp_path


LINK = "https://example.com/a.mp4"


def write_request(project, blocks, **more):
    (project / "request.json").write_text(json.dumps({"task_name": "spring", "video_blocks": blocks, **more}))


def test_submit_uploads_each_file_once_and_says_so(project, server, capsys):
    write_request(
        project,
        {"a": ["clips/0.mp4", LINK, "clips/1.mp4"], "b": ["clips/0.mp4", "source:" + "a" * 32]},
        audio_blocks={"m": ["clips/2.mp4"]},
    )
    assert run(["submit", "request.json", "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["id"] == "job_1"
    assert [asked["query"]["name"] for asked in server.asked("POST", "/sources")] == ["0.mp4", "1.mp4", "2.mp4"]
    assert output.err.count("uploaded") == 3
    (asked,) = server.asked("POST", "/process_media")
    one, two, three = (f"source:{size:032x}" for size in (1, 2, 3))
    assert json.loads(asked["body"]) == {
        "task_name": "spring",
        "video_blocks": {"a": [one, LINK, two], "b": [one, "source:" + "a" * 32]},
        "audio_blocks": {"m": [three]},
    }


def test_submit_sends_a_request_of_links_as_it_is(project, server, capsys):
    text = '{ "task_name":"t",  "video_blocks": {"a": ["' + LINK + '"]}, "later": 1}'
    (project / "request.json").write_text(text)
    assert run(["submit", "request.json", "--idempotency-key", "k1"]) == 0
    (asked,) = server.log
    assert asked["body"] == text.encode()
    assert asked["headers"]["Idempotency-Key"] == "k1"
    assert capsys.readouterr().out == "job_1: 8 variations\n"


@pytest.mark.parametrize(
    "change", [{"fit": "no"}, {"video_blocks": {"a": ["clips/0.mp4", "gone.mp4"]}}, {"audio_blocks": {"m": ["clips"]}}]
)
def test_a_request_that_cannot_be_is_not_submitted(project, server, capsys, change):
    write_request(project, {"a": ["clips/0.mp4"]})
    body = json.loads((project / "request.json").read_text()) | change
    (project / "request.json").write_text(json.dumps(body))
    assert run(["submit", "request.json"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("crosscut: ")
    assert server.asked("POST", "/process_media") == []
    if "fit" in change:
        assert server.log == []


def busy(times, after, answer):
    """Refuses so many times, then answers."""
    left = [times]

    def handle(handler):
        left[0] -= 1
        if left[0] >= 0:
            return handler.problem(429, "rate_limited", "Too many.", Retry_After=after)
        return answer(handler)

    return handle


def test_submit_waits_for_a_busy_server_and_sends_the_whole_file_again(project, server, capsys):
    write_request(project, {"a": ["clips/2.mp4"]})
    server.answers["/sources"] = busy(1, "1", lambda handler: handler.send({"id": "source:" + "a" * 32}, 201))
    server.answers["/process_media"] = busy(1, "0", lambda handler: handler.send({"id": "job_1"}, 202))
    assert run(["submit", "request.json"]) == 0
    assert [asked["body"] for asked in server.asked("POST", "/sources")] == [bytes(3)] * 2
    keys = [asked["headers"]["Idempotency-Key"] for asked in server.asked("POST", "/process_media")]
    assert keys[0]
    assert keys[0] == keys[1]
    assert capsys.readouterr().err.count("crosscut: the server has too much to do; going on in 1 s\n") == 2


@pytest.mark.parametrize("after", ["3", "60"])
def test_a_server_that_stays_busy_is_not_waited_for(project, server, capsys, monkeypatch, after):
    monkeypatch.setattr(client_module, "LONGEST_WAIT", 2.0)
    write_request(project, {"a": ["clips/0.mp4"]})
    server.answers["/sources"] = busy(99, after, None)
    assert run(["submit", "request.json"]) == 2
    assert capsys.readouterr().err == "crosscut: Too many.\n"
    assert len(server.log) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b'{"a":1,"a":2}', b"\xff", b'{"video_blocks": {"a": 7}}'])
def test_no_request_is_too_odd_for_uploads(body, tmp_path):
    with contextlib.suppress(RequestError):
        assert with_uploads(body, tmp_path, lambda _path: "source:x") == body


def test_paths_are_uploaded_wherever_they_stand(tmp_path):
    body = {
        "task_name": "t",
        "video_blocks": {"a": ["1.mp4", {"url": "2.mp4", "start": 1}, "https://example.com/3.mp4"]},
        "audio_blocks": {"m": [{"url": "m.mp3", "start": 2}, "1.mp4"]},
        "text_to_speech": [{"text": "Hi", "clip": "2.mp4"}, {"text": "Ho"}],
    }
    sent = []

    def upload(path):
        sent.append(path.name)
        return f"source:{len(sent):064x}"

    made = json.loads(with_uploads(json.dumps(body).encode(), tmp_path, upload))
    assert sent == ["1.mp4", "2.mp4", "m.mp3"]
    one, two, music = (f"source:{number:064x}" for number in (1, 2, 3))
    assert made["video_blocks"] == {"a": [one, {"url": two, "start": 1}, "https://example.com/3.mp4"]}
    assert made["audio_blocks"] == {"m": [{"url": music, "start": 2}, one]}
    assert made["text_to_speech"] == [{"text": "Hi", "clip": two}, {"text": "Ho"}]


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (DONE, 0),
        (status(3, "done", failed=1), 1),
        (status(3, "done", manifest_problem="disk full"), 1),
        (status(3, "failed"), 2),
        (status(3, "cancelled"), 2),
    ],
)
def test_watch_prints_lines_and_ends_as_the_job_does(project, server, capsys, last, code):
    server.looks = [status(1)]
    server.streams = [stream(status(2), last)]
    assert run(["watch", "job_1"]) == code
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["version"] for line in lines] == [1, 2, 3]


def test_submit_can_stay_and_watch(project, server, capsys):
    write_request(project, {"a": [LINK]})
    server.looks = [status(3, "done", failed=2)]
    assert run(["submit", "request.json", "--watch", "--json"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("state") for line in lines] == [None, "done"]


def test_leaving_a_watched_job_says_how_to_come_back(project, server, capsys):
    left = threading.Event()

    def leave(handler):
        stream(status(2))(handler)
        # Python may be where it can raise nothing just then, such as in a finalizer: who leaves presses again.
        for _ in range(10):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            if left.wait(2):
                return

    server.looks = [status(1)]
    server.streams = [leave]
    assert run(["watch", "job_1"]) == 130
    left.set()
    assert capsys.readouterr().err == "crosscut: the job goes on; crosscut watch job_1 shows it again\n"


def test_watch_on_a_terminal_shows_bars_and_the_report(project, server):
    server.looks = [status(1)]
    server.streams = [stream(status(2), status(3, "done", failed=1, errors=[{"reason": "Why [not]", "variations": 1}]))]
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "crosscut", "watch", "job_1"]
    child = subprocess.Popen(command, cwd=project, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):
        while piece := os.read(ours, 65536):
            shown += piece
    os.close(ours)
    assert child.wait() == 1
    text = shown.decode()
    assert "writing videos" in text
    assert "failed ×1: Why [not]" in text
    assert "8 variations: 3 made, 1 failed" in text


def test_jobs_are_listed(project, server, capsys):
    server.looks = [status(2, failed=1, task_name="spring [bold]sale")]
    assert run(["jobs", "--state", "running"]) == 0
    text = capsys.readouterr().out
    assert "spring [bold]sale" in text
    assert "2/8" in text
    assert server.log[0]["query"]["state"] == "running"
    assert run(["jobs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == "job_1"
    assert run(["jobs", "--state", "sleeping"]) == 2


def test_a_job_is_cancelled(project, server, capsys):
    assert run(["cancel", "job_1"]) == 0
    assert capsys.readouterr().out == "job_1: cancelled, 2 of 8 made\n"


def test_the_api_key_of_the_settings_is_shown_to_the_server_named(project, server, monkeypatch):
    monkeypatch.setenv("CROSSCUT_API_KEY", "ck_mine")
    monkeypatch.setenv("CROSSCUT_SERVER", server.url)
    assert run(["jobs", "--json"]) == 0
    monkeypatch.delenv("CROSSCUT_API_KEY")
    assert run(["jobs", "--json", "--server", server.url]) == 0
    assert [asked["headers"]["Authorization"] for asked in server.log] == ["Bearer ck_mine", None]


def test_no_server_is_one_sentence(project, server, capsys):
    (project / "data" / "server.json").unlink()
    for command in (["jobs"], ["watch", "job_1"], ["cancel", "job_1"]):
        assert run(command) == 2
        assert capsys.readouterr().err == (
            "crosscut: no running crosscut was found: start one with crosscut serve, or name one with --server.\n"
        )


def test_keys_are_managed_through_the_running_server(project, server, capsys):
    assert run(["keys", "create", "--owner", "anna", "--name", "laptop", "--replaces", "old", "--overlap", "2d"]) == 0
    assert capsys.readouterr().out == "ck_token\n"
    (asked,) = server.asked("POST", "/admin/keys")
    assert json.loads(asked["body"]) == {
        "owner": "anna",
        "name": "laptop",
        "replaces": "old",
        "overlap_seconds": 172_800,
    }
    assert run(["keys", "list"]) == 0
    assert "laptop" in capsys.readouterr().out
    assert run(["keys", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["keys"][0]["owner"] == "anna"
    assert run(["keys", "revoke", "abcdefgh2345"]) == 0
    assert capsys.readouterr().out == "abcdefgh2345: revoked\n"
    assert run(["keys", "revoke", "other"]) == 2
    assert capsys.readouterr().err == "crosscut: There is no such key.\n"


class State:
    """Stands for the state itself, opened while no server runs."""

    def __init__(self):
        self.opened = self.closed = 0
        self.made = []

    @contextlib.contextmanager
    def open_store(self, _settings):
        self.opened += 1
        yield self
        self.closed += 1

    def create_key(self, owner, name, replaces=None, overlap_seconds=0):
        self.made.append((owner, name, replaces, overlap_seconds))
        return "id", "ck_direct"


@pytest.mark.parametrize("stale", [True, False])
def test_keys_are_managed_in_the_state_where_no_server_runs(tmp_path, server, capsys, monkeypatch, stale):
    project = furnished(tmp_path, monkeypatch, server)
    state = State()
    monkeypatch.setattr("crosscut.standalone.open_store", state.open_store, raising=False)
    if not stale:
        (project / "data" / "server.json").unlink()
    assert run(["keys", "create", "--owner", "anna", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"id": "id", "token": "ck_direct"}
    assert state.made == [("anna", "anna", None, 0)]
    assert state.opened == state.closed == 1
    assert server.log == [], "the administrator's token is nobody else's to see"


def test_a_state_that_a_server_owns_is_not_opened_beside_it(project, server, monkeypatch):
    state = State()
    monkeypatch.setattr("crosscut.standalone.open_store", state.open_store, raising=False)
    write_server_file(project / "data", server.url, admin_token="wrong")
    assert run(["keys", "create", "--owner", "anna"]) == 2
    assert state.opened == 0


@pytest.mark.parametrize("overlap", ["", "24", "h", "-1h", "1.5h", "24 hours", "²h", "9" * 12 + "d"])
def test_an_overlap_that_is_no_time_is_refused(project, server, capsys, overlap):
    assert run(["keys", "create", "--owner", "anna", "--replaces", "old", f"--overlap={overlap}"]) == 2
    assert "crosscut: " in capsys.readouterr().err
    assert server.log == []


def test_the_webhook_secrets_are_printed(project, capsys, monkeypatch):
    assert run(["keys", "webhook-secret"]) == 0
    secret = capsys.readouterr().out.strip()
    assert secret.startswith("whsec_")
    assert (project / "data" / "webhook-secret").read_text().strip() == secret
    monkeypatch.setenv("CROSSCUT_WEBHOOK_SECRETS", f"whsec_{'A' * 40},whsec_{'B' * 40}")
    assert run(["keys", "webhook-secret"]) == 0
    assert capsys.readouterr().out == f"whsec_{'A' * 40}\nwhsec_{'B' * 40}\n"


def test_serve_is_given_where_to_listen_and_to_deliver(project, monkeypatch):
    served = []
    monkeypatch.setattr(
        "crosscut.standalone.serve", lambda settings, *how: served.append((settings.data_dir, *how)), raising=False
    )
    assert run(["serve"]) == 0
    assert run(["serve", "--host", "0.0.0.0", "--port", "80", "--to", "out"]) == 0
    data = project / "data"
    assert served == [(data, "127.0.0.1", 8000, "videos"), (data, "0.0.0.0", 80, "out")]
    assert run(["serve", "--port", "65536"]) == 2
