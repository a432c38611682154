from __future__ import annotations

import gzip
import hashlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosscut.artifacts import Artifacts, Lease
from crosscut.errors import FetchError, StorageError
from crosscut.fetch import Fetcher, FetchLimits, Source
from crosscut.links import Endpoints, ObjectName
from crosscut.sniff import looks_like

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_httpserver import HTTPServer

    Handler = Callable[["Request"], None]

MEDIA = bytes(range(256)) * 2000
"""512,000 bytes that are not text."""

QUICK = FetchLimits(
    max_bytes=1_000_000, connect=2, first_byte=1, slowest=1000, slow_window=1, total=10, backoff=0.01, longest_pause=0.2
)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Request:
    """One connection's request and the raw socket to answer on."""

    def __init__(self, peer: socket.socket, number: int, text: str) -> None:
        self.peer = peer
        self.number = number
        self.text = text

    def header(self, name: str) -> str | None:
        found = re.search(rf"^{name}: (.*?)\r$", self.text, re.IGNORECASE | re.MULTILINE)
        return found[1] if found else None

    def send(self, status: str, body: bytes = b"", **headers: object) -> None:
        lines = [f"HTTP/1.1 {status}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.peer.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    def range_start(self) -> int:
        wanted = self.header("Range")
        return int(wanted[6:-1]) if wanted else 0


class RawServer:
    """Answers every connection with `handler`, which may misbehave below the level of HTTP."""

    def __init__(self) -> None:
        self.handler: Handler = lambda request: request.send("200 OK", MEDIA, Content_Length=len(MEDIA))
        self.requests: list[Request] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.closing = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def url(self, path: str = "/clip.mp4") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._answer, args=(peer,))
            self._threads.append(thread)
            thread.start()

    def _answer(self, peer: socket.socket) -> None:
        with peer, suppress(OSError):
            received = b""
            while b"\r\n\r\n" not in received:
                part = peer.recv(65536)
                if not part:
                    return
                received += part
            request = Request(peer, len(self.requests), received.decode("latin-1"))
            self.requests.append(request)
            self.handler(request)

    def close(self) -> None:
        self.closing.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(5)


@pytest.fixture
def server() -> Iterator[RawServer]:
    it = RawServer()
    yield it
    it.close()


@pytest.fixture
def store(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "store", 10_000_000)


@pytest.fixture
def lease(store: Artifacts) -> Iterator[Lease]:
    with store.lease() as it:
        yield it


@pytest.fixture
def fetcher(lease: Lease, server: RawServer) -> Fetcher:
    return Fetcher(lease, QUICK, allow=frozenset({("127.0.0.1", server.port)}))


def refused(fetcher: Fetcher, source: str, code: str, **options: object) -> FetchError:
    with pytest.raises(FetchError) as caught:
        fetcher.fetch(source, **options)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert caught.value.public.endswith(".")
    assert "\n" not in caught.value.public
    return caught.value


def test_a_url_becomes_a_file_with_its_hash(fetcher: Fetcher, server: RawServer) -> None:
    seen: list[tuple[int, int | None]] = []
    source = fetcher.fetch(
        server.url("/clip.mp4?key=secret"), on_progress=lambda done, total: seen.append((done, total))
    )
    assert source.path.read_bytes() == MEDIA
    assert (source.sha256, source.size) == (sha256(MEDIA), len(MEDIA))
    assert source.label == server.url("/clip.mp4")
    assert seen[-1] == (len(MEDIA), len(MEDIA))
    assert seen == sorted(seen)
    assert server.requests[0].header("Accept-Encoding") == "identity"


def test_a_job_asks_for_a_url_once(fetcher: Fetcher, server: RawServer) -> None:
    with ThreadPoolExecutor(4) as pool:
        sources = list(pool.map(fetcher.fetch, [server.url(), f"{server.url()}#t=1"] * 4))
    assert len({source.path for source in sources}) == 1
    assert len(server.requests) == 1


def test_two_urls_with_the_same_bytes_are_one_file(fetcher: Fetcher, server: RawServer) -> None:
    first, second = fetcher.fetch(server.url("/1")), fetcher.fetch(server.url("/2"))
    assert first.path == second.path
    assert first.label != second.label


def fetched(store: Artifacts, server: RawServer, trust: float, url: str) -> Source:
    """Fetch as another job would."""
    with store.lease() as lease:
        limits = replace(QUICK, trust=trust)
        return Fetcher(lease, limits, frozenset({("127.0.0.1", server.port)})).fetch(url)


def later(store: Artifacts, server: RawServer, trust: float = QUICK.trust) -> str:
    """Fetch as another job would, and give the hash."""
    return fetched(store, server, trust, server.url()).sha256


def test_l03_bytes_are_had_by_the_whole_link_that_gave_them_and_by_no_other(
    store: Artifacts, server: RawServer
) -> None:
    server.handler = lambda request: (
        request.send("200 OK", MEDIA) if "sig=good" in request.text else request.send("403 Forbidden", b"no")
    )
    assert fetched(store, server, 60, server.url("/clip.mp4?sig=good")).size == len(MEDIA)
    for guess in ("/clip.mp4", "/clip.mp4?sig=", "/clip.mp4?sig=bad"):
        with pytest.raises(FetchError) as caught:
            fetched(store, server, 60, server.url(guess))
        assert caught.value.code == "not_permitted"


@pytest.mark.parametrize(
    ("validator", "condition"),
    [
        ({"ETag": '"v1"'}, ("If-None-Match", '"v1"')),
        ({"Last_Modified": "Sat, 01 Jan 2022 00:00:00 GMT"}, ("If-Modified-Since", "Sat, 01 Jan 2022 00:00:00 GMT")),
    ],
)
def test_a_later_job_downloads_again_only_what_changed(
    store: Artifacts, server: RawServer, validator: dict[str, str], condition: tuple[str, str]
) -> None:
    server.handler = lambda request: (
        request.send("304 Not Modified")
        if request.number in (1, 2)
        else request.send("200 OK", MEDIA + bytes([request.number]), **validator)
    )
    hashes = [later(store, server) for _ in range(4)]
    assert hashes == [sha256(MEDIA + b"\0")] * 3 + [sha256(MEDIA + b"\3")]
    assert [request.header(condition[0]) for request in server.requests] == [None] + [condition[1]] * 3


@pytest.mark.parametrize(("trust", "asked"), [(60, 1), (0, 3)])
def test_without_a_validator_bytes_are_trusted_for_a_while(
    store: Artifacts, server: RawServer, trust: float, asked: int
) -> None:
    for _ in range(3):
        later(store, server, trust)
    assert len(server.requests) == asked


def gone(request: Request) -> None:
    """Hang up without an answer."""


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (gone, "cannot be reached any more"),
        (lambda request: request.send("503 Later"), "cannot be reached any more"),
        (lambda request: request.send("403 Expired"), "needs permission now"),
        (lambda request: request.send("401 Who"), "needs permission now"),
        (lambda request: request.send("404 No"), "is not there any more"),
        (lambda request: request.send("410 Gone"), "is not there any more"),
    ],
)
@pytest.mark.parametrize("validator", [{}, {"ETag": '"v1"'}])
def test_a_source_that_is_lost_is_taken_from_the_store_and_says_so(
    store: Artifacts, server: RawServer, handler: Handler, reason: str, validator: dict[str, str]
) -> None:
    url = server.url("/a.mp4?sig=secret")
    server.handler = lambda request: request.send("200 OK", MEDIA, **validator)
    first = fetched(store, server, 0, url)
    server.handler = handler
    second = fetched(store, server, 0, url)
    today = datetime.fromtimestamp(time.time(), UTC).date()
    assert (first.sha256, first.note) == (second.sha256, None)
    assert second.note == f"{server.url('/a.mp4')} {reason}: the copy fetched on {today} is used"
    server.handler = lambda request: request.send("200 OK", MEDIA[:-1], **validator)
    third = fetched(store, server, 0, url)
    assert (third.sha256, third.note) == (sha256(MEDIA[:-1]), None)


def test_a_lost_source_is_asked_for_once_a_job(store: Artifacts, server: RawServer) -> None:
    later(store, server, 0)
    server.handler = lambda request: request.send("404 No")
    with store.lease() as lease:
        fetcher = Fetcher(lease, replace(QUICK, trust=0), frozenset({("127.0.0.1", server.port)}))
        assert fetcher.fetch(server.url()).note == fetcher.fetch(server.url()).note
    assert len(server.requests) == 2


def test_another_answer_than_the_file_is_still_an_error(store: Artifacts, server: RawServer) -> None:
    later(store, server, 0)
    server.handler = lambda request: request.send("200 OK", b"<html>Sign in")
    with pytest.raises(FetchError):
        later(store, server, 0)


def test_a_source_damaged_in_the_store_is_fetched_again(store: Artifacts, server: RawServer) -> None:
    server.handler = lambda request: request.send("200 OK", MEDIA, ETag='"v1"')
    later(store, server)
    blob = store.blob(sha256(MEDIA), "")
    blob.chmod(0o600)
    os.truncate(blob, 1000)
    with store.lease() as lease:
        source = Fetcher(lease, QUICK, frozenset({("127.0.0.1", server.port)})).fetch(server.url())
        assert source.path.read_bytes() == MEDIA
    assert server.requests[1].header("If-None-Match") is None


def test_what_was_evicted_is_asked_for_without_a_condition(store: Artifacts, server: RawServer, tmp_path: Path) -> None:
    server.handler = lambda request: request.send("200 OK", MEDIA, ETag='"v1"')
    later(store, server)
    store.blob(sha256(MEDIA), "").unlink()
    assert later(store, server) == sha256(MEDIA)
    assert server.requests[1].header("If-None-Match") is None


def test_two_processes_share_one_download(server: RawServer, tmp_path: Path) -> None:
    def slow(request: Request) -> None:
        time.sleep(0.5)
        request.send("200 OK", MEDIA)

    server.handler = slow
    code = """
import sys, time
from pathlib import Path
from crosscut.artifacts import Artifacts
from crosscut.fetch import Fetcher
root, url, port = sys.argv[1:]
with Artifacts(Path(root), 10**7).lease() as lease:
    fetcher = Fetcher(lease, allow=frozenset({("127.0.0.1", int(port))}))
    print("ready", flush=True)
    sys.stdin.readline()
    print(fetcher.fetch(url).sha256)
"""
    command = [sys.executable, "-c", code, str(tmp_path), server.url(), str(server.port)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    workers = [subprocess.Popen(command, text=True, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    assert [worker.communicate("go\n", timeout=20)[0].strip() for worker in workers] == [sha256(MEDIA)] * 2
    assert len(server.requests) == 1


def cut_after(size: int, etag: str = '"v1"') -> Handler:
    """A server that hangs up after `size` bytes of every answer and can resume."""

    def answer(request: Request) -> None:
        start = request.range_start()
        rest = MEDIA[start:]
        described = {"ETag": etag, "Content_Length": len(rest)}
        if start:
            described["Content_Range"] = f"bytes {start}-{len(MEDIA) - 1}/{len(MEDIA)}"
        request.send("206 Partial Content" if start else "200 OK", rest[:size], **described)

    return answer


def test_a_broken_download_is_resumed(fetcher: Fetcher, server: RawServer) -> None:
    server.handler = cut_after(110_000)
    assert fetcher.fetch(server.url()).sha256 == sha256(MEDIA)
    starts = [request.range_start() for request in server.requests]
    assert starts == [0, 110_000, 220_000, 330_000, 440_000]
    assert [request.header("If-Range") for request in server.requests] == [None] + ['"v1"'] * 4


def test_progress_renews_the_tries_and_standing_still_uses_them_up(fetcher: Fetcher, server: RawServer) -> None:
    server.handler = cut_after(70_000)
    assert fetcher.fetch(server.url()).sha256 == sha256(MEDIA)
    assert len(server.requests) == 8
    server.handler = cut_after(1000)
    error = refused(fetcher, server.url("/other"), "truncated_download")
    assert error.retryable
    assert len(server.requests) == 8 + 4


def test_a_weak_etag_is_not_resumed_but_started_again(fetcher: Fetcher, server: RawServer) -> None:
    server.handler = lambda request: cut_after(10**9 if request.number else 110_000, 'W/"v1"')(request)
    assert fetcher.fetch(server.url()).sha256 == sha256(MEDIA)
    assert [request.header("Range") for request in server.requests] == [None, None]


def test_a_file_that_changed_meanwhile_is_started_again(fetcher: Fetcher, server: RawServer) -> None:
    other = MEDIA[::-1][:50_000]

    def answer(request: Request) -> None:
        if request.number == 0:
            request.send("200 OK", MEDIA[:110_000], Content_Length=len(MEDIA), ETag='"v1"')
        else:
            request.send("200 OK", other, Content_Length=len(other), ETag='"v2"')

    server.handler = answer
    assert fetcher.fetch(server.url()).path.read_bytes() == other
    assert server.requests[1].header("If-Range") == '"v1"'


@pytest.mark.parametrize("wrong", ["416 Range Not Satisfiable", "206 Partial Content"])
def test_a_wrong_answer_to_a_resumption_starts_again(fetcher: Fetcher, server: RawServer, wrong: str) -> None:
    def answer(request: Request) -> None:
        if request.number == 0:
            request.send("200 OK", MEDIA[:110_000], Content_Length=len(MEDIA), ETag='"v1"')
        elif request.header("Range"):
            request.send(wrong, b"x", Content_Range="bytes 5-5/6", Content_Length=1)
        else:
            request.send("200 OK", MEDIA, Content_Length=len(MEDIA))

    server.handler = answer
    assert fetcher.fetch(server.url()).sha256 == sha256(MEDIA)
    assert len(server.requests) == 3


def test_a_body_that_ends_early_every_time_is_truncated(fetcher: Fetcher, server: RawServer) -> None:
    server.handler = lambda request: request.send("200 OK", MEDIA, Content_Length=len(MEDIA) + 1)
    assert refused(fetcher, server.url(), "truncated_download").retryable


@pytest.mark.parametrize("status", ["408 Timeout", "425 Early", "429 Many", "500 No", "502 No", "503 Later", "599 No"])
def test_a_server_that_is_busy_is_asked_again(fetcher: Fetcher, server: RawServer, status: str) -> None:
    server.handler = lambda request: request.send(status) if request.number < 3 else request.send("200 OK", MEDIA)
    assert fetcher.fetch(server.url()).sha256 == sha256(MEDIA)
    error_server = server.requests[-1].number
    server.handler = lambda request: request.send(status)
    assert refused(fetcher, server.url("/other"), "unavailable").retryable
    assert server.requests[-1].number == error_server + 4


@pytest.mark.parametrize(
    "pause", ["0.15", "1", formatdate(time.time() + 3600, usegmt=True)], ids=["part", "second", "date"]
)
def test_retry_after_is_honoured_up_to_the_cap(fetcher: Fetcher, server: RawServer, pause: str) -> None:
    times: list[float] = []

    def answer(request: Request) -> None:
        times.append(time.monotonic())
        if request.number:
            request.send("200 OK", MEDIA)
        else:
            request.send("429 Slow Down", Retry_After=pause)

    server.handler = answer
    fetcher.fetch(server.url())
    waited = times[1] - times[0]
    assert waited < 0.15 if pause == "0.15" else 0.19 < waited < 1, "only whole seconds and dates have a meaning"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "not_permitted"),
        (403, "not_permitted"),
        (451, "not_permitted"),
        (404, "not_found"),
        (410, "not_found"),
        (400, "bad_response"),
        (204, "bad_response"),
        (304, "bad_response"),
        (206, "bad_response"),
        (302, "bad_response"),
    ],
)
def test_a_final_answer_is_not_asked_for_again(fetcher: Fetcher, server: RawServer, status: int, code: str) -> None:
    server.handler = lambda request: request.send(f"{status} X", MEDIA if status == 206 else b"")
    error = refused(fetcher, server.url("/a.mp4?sig=secret"), code)
    assert str(status) in error.public
    assert "secret" not in error.public
    assert "/a.mp4" in error.public
    assert not error.retryable
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Length: 20\r\n\r\n" + MEDIA,
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + MEDIA,
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 300_000,
        b"\x16\x03\x01 no http",
        b"",
    ],
    ids=["two lengths", "negative length", "endless header", "no http", "nothing"],
)
def test_what_is_not_http_is_a_bad_response(fetcher: Fetcher, server: RawServer, answer: bytes) -> None:
    server.handler = lambda request: request.peer.sendall(answer)
    refused(fetcher, server.url(), "bad_response")


def test_an_endless_body_stops_at_the_limit(fetcher: Fetcher, server: RawServer) -> None:
    sent: list[int] = []

    def answer(request: Request) -> None:
        request.send("200 OK")
        while not server.closing.is_set():
            sent.append(request.peer.send(MEDIA))

    server.handler = answer
    error = refused(fetcher, server.url(), "source_too_large")
    assert "1,000,000 bytes" in error.public
    assert len(server.requests) == 1


def test_a_length_above_the_limit_is_refused_before_the_body(fetcher: Fetcher, server: RawServer) -> None:
    server.handler = lambda request: request.send("200 OK", Content_Length=1_000_001)
    refused(fetcher, server.url(), "source_too_large")


def test_a_length_below_the_truth_gives_only_that_many_bytes(fetcher: Fetcher, server: RawServer) -> None:
    server.handler = lambda request: request.send("200 OK", MEDIA, Content_Length=5000)
    assert fetcher.fetch(server.url()).size == 5000


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip"])
def test_a_compressed_body_is_refused_unopened(fetcher: Fetcher, server: RawServer, coding: str) -> None:
    bomb = gzip.compress(bytes(50_000_000), 1)
    server.handler = lambda request: request.send("200 OK", bomb, Content_Encoding=coding)
    error = refused(fetcher, server.url(), "bad_response")
    assert "compressed" in error.public


def drip(request: Request, head: bytes, closing: threading.Event, every: float = 0.05) -> None:
    request.peer.sendall(head)
    while not closing.wait(every):
        request.peer.sendall(b"x")


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "], ids=["body", "header"])
def test_a_drip_feed_is_given_up(fetcher: Fetcher, server: RawServer, head: bytes) -> None:
    server.handler = lambda request: drip(request, head, server.closing)
    began = time.monotonic()
    error = refused(fetcher, server.url(), "too_slow")
    assert "1 kB/s" in error.public
    assert error.retryable
    assert time.monotonic() - began < 2


def test_the_total_deadline_ends_a_steady_transfer(lease: Lease, server: RawServer) -> None:
    limits = FetchLimits(slowest=1, slow_window=1, total=0.5)
    server.handler = lambda request: drip(request, b"HTTP/1.1 200 OK\r\n\r\n" + MEDIA, server.closing)
    refused(Fetcher(lease, limits, frozenset({("127.0.0.1", server.port)})), server.url(), "too_slow")


def test_a_server_that_never_answers_is_a_timeout(lease: Lease, server: RawServer) -> None:
    limits = FetchLimits(first_byte=0.2, tries=2, backoff=0.01)
    server.handler = lambda request: drip(request, b"", server.closing, every=5)
    refused(Fetcher(lease, limits, frozenset({("127.0.0.1", server.port)})), server.url(), "timeout")
    assert len(server.requests) == 2


@pytest.mark.parametrize("moment", ["silent", "dripping", "pausing", "waiting for another"])
def test_cancelling_stops_within_a_second(lease: Lease, server: RawServer, moment: str) -> None:
    def answer(request: Request) -> None:
        if moment == "dripping":
            drip(request, b"HTTP/1.1 200 OK\r\n\r\n", server.closing)
        elif moment == "pausing":
            request.send("503 Later", Retry_After=60)
        else:
            server.closing.wait(5)

    server.handler = answer
    fetcher = Fetcher(lease, FetchLimits(), frozenset({("127.0.0.1", server.port)}))
    cancelled, never = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        if moment == "waiting for another":
            pool.submit(fetcher.fetch, server.url(), cancelled=never)
            time.sleep(0.2)
        threading.Timer(0.3, cancelled.set).start()
        began = time.monotonic()
        refused(fetcher, server.url(), "cancelled", cancelled=cancelled)
        assert time.monotonic() - began < 1
        never.set()
    assert list(lease.scratch().parent.glob("scratch-*")) == []


@pytest.mark.parametrize(
    ("body", "content_type", "looks"),
    [
        (
            b"<!doctype html><title>Sign in &amp;\n go on</title>" + b" " * 9000,
            "text/html; charset=utf-8",
            "a web page (HTML) titled “Sign in & go on”",
        ),
        (b"<!doctype html><title>Quota exceeded</title>", "video/mp4", "a web page (HTML) titled “Quota exceeded”"),
        (MEDIA, "text/html", "a web page (HTML)"),
        ("<html><body>Désolé".encode("latin-1"), "video/mp4", "a web page (HTML)"),
        (b"<!-- made by hand -->\n<html>", "video/mp4", "a web page (HTML)"),
        (b'{"error": "no"}', "application/json", "JSON"),
        (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "application/xml", "XML"),
        (b"#EXTM3U\nhttp://169.254.169.254/x.ts\n", "video/mp4", "a playlist (M3U)"),
        (b"ffconcat version 1.0\nfile x.mp4\n", "video/mp4", "a playlist (ffconcat)"),
        (b"\xef\xbb\xbfnot found", "video/mp4", "text"),
        ("zażółć gęślą jaźń ".encode() * 1000, "video/mp4", "text"),
        ("no".encode("utf-16"), "video/mp4", "text"),
        (b"", "video/mp4", "empty"),
    ],
)
def test_text_is_not_media(fetcher: Fetcher, server: RawServer, body: bytes, content_type: str, looks: str) -> None:
    server.handler = lambda request: request.send("200 OK", body, Content_Type=content_type, Content_Length=len(body))
    error = refused(fetcher, server.url(), "not_media")
    assert f" is {looks}, not video or sound" in error.public
    assert not error.retryable


def test_an_html_page_with_status_404_is_simply_not_found(fetcher: Fetcher, server: RawServer) -> None:
    server.handler = lambda request: request.send("404 Not Found", b"<html>", Content_Type="text/html")
    refused(fetcher, server.url(), "not_found")


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", "image/png"])
def test_the_bytes_count_not_the_declared_type(fetcher: Fetcher, server: RawServer, content_type: str) -> None:
    server.handler = lambda request: request.send("200 OK", MEDIA, Content_Type=content_type)
    assert fetcher.fetch(server.url()).sha256 == sha256(MEDIA)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=300), st.integers(0, 300), st.sampled_from([b"\0", b"\x01", b"\xff", b"\x1a\x45\xdf\xa3"]))
def test_a_file_with_a_binary_byte_is_never_called_text(data: bytes, position: int, binary: bytes) -> None:
    mixed = b"\x00" + data[:position] + binary + data[position:]
    assert looks_like(mixed) in (None, "empty")


@settings(deadline=None, max_examples=100)
@given(st.text(min_size=1).filter(lambda text: text.isprintable()), st.integers(0, 3))
def test_text_is_seen_wherever_it_is_cut(text: str, cut: int) -> None:
    data = ("x" + text + "ż€😀").encode()
    assert looks_like(data[: len(data) - cut]) is not None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["/final", "final", "//127.0.0.1:{port}/final", "http://127.0.0.1:{port}/final"])
def test_redirects_are_followed(fetcher: Fetcher, server: RawServer, status: int, target: str) -> None:
    server.handler = lambda request: (
        request.send("200 OK", MEDIA)
        if "/final" in request.text.split("\r\n", 1)[0]
        else request.send(f"{status} Moved", Location=target.format(port=server.port), Content_Length=0)
    )
    assert fetcher.fetch(server.url()).sha256 == sha256(MEDIA)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("http://127.0.0.1:{other}/", "port_not_allowed"),
        ("http://127.0.0.1:8080/", "address_not_allowed"),
        ("http://localhost:8080/", "address_not_allowed"),
        ("http://[::1]:8080/", "address_not_allowed"),
        ("http://[::ffff:127.0.0.1]:8080/", "address_not_allowed"),
        ("http://2130706433/", "address_not_allowed"),
        ("http://169.254.169.254/latest/meta-data/", "address_not_allowed"),
        ("https://10.0.0.1/", "address_not_allowed"),
        ("file:///etc/passwd", "scheme_not_allowed"),
        ("ftp://127.0.0.1/x", "scheme_not_allowed"),
        ("http://u:p@127.0.0.1:{port}/", "credentials_in_url"),
    ],
)
def test_redirects_pass_every_check(fetcher: Fetcher, server: RawServer, target: str, code: str) -> None:
    location = target.format(port=server.port, other=server.port - 1)
    server.handler = lambda request: request.send("302 Found", Location=location, Content_Length=0)
    refused(fetcher, server.url(), code)
    assert len(server.requests) == 1


def test_a_redirect_loop_ends(fetcher: Fetcher, server: RawServer) -> None:
    server.handler = lambda request: request.send("302 Found", Location="/again", Content_Length=0)
    refused(fetcher, server.url(), "too_many_redirects")
    assert len(server.requests) == 1 + QUICK.redirects


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]", "localhost"])
def test_a_private_address_is_never_contacted(lease: Lease, server: RawServer, host: str) -> None:
    fetcher = Fetcher(lease, QUICK, ports=frozenset({server.port}))
    error = refused(fetcher, f"http://{host}:{server.port}/a.mp4?sig=secret", "address_not_allowed")
    assert "CROSSCUT_FETCH_ALLOW" in error.public
    assert "secret" not in error.public
    assert not error.retryable
    assert server.requests == []


def test_a_name_that_does_not_resolve_is_asked_for_again(lease: Lease, server: RawServer) -> None:
    tries: list[str] = []

    def resolver(host: str, _port: int) -> list[str]:
        tries.append(host)
        if len(tries) < 3:
            raise socket.gaierror(socket.EAI_AGAIN, "temporary failure")
        return ["127.0.0.1"]

    allowed = Fetcher(lease, QUICK, frozenset({("clips.example", server.port)}), resolver=resolver)
    assert allowed.fetch(f"http://clips.example:{server.port}/a").sha256 == sha256(MEDIA)
    tries.clear()
    checked = Fetcher(lease, QUICK, ports=frozenset({server.port}), resolver=resolver)
    refused(checked, f"http://clips.example:{server.port}/b", "address_not_allowed")
    assert len(tries) == 3
    assert len(server.requests) == 1


def test_a_dead_port_is_unreachable(lease: Lease) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    fetcher = Fetcher(lease, QUICK, frozenset({("127.0.0.1", port)}))
    assert refused(fetcher, f"http://127.0.0.1:{port}/", "unreachable").retryable


def test_a_proxy_in_the_environment_is_not_used(
    fetcher: Fetcher, server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert fetcher.fetch(server.url()).sha256 == sha256(MEDIA)


def test_a_common_server_is_understood(lease: Lease, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/a.mp4").respond_with_data(MEDIA, content_type="video/mp4")
    fetcher = Fetcher(lease, QUICK, frozenset({(httpserver.host, httpserver.port)}))
    assert fetcher.fetch(httpserver.url_for("/a.mp4")).sha256 == sha256(MEDIA)


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("file:///etc/passwd", "scheme_not_allowed"),
        ("ftp://h/a.mp4", "scheme_not_allowed"),
        ("concat:a.mp4|b.mp4", "scheme_not_allowed"),
        (" http://example.com/", "bad_url"),
        ("https://u:secret@example.com/", "credentials_in_url"),
        ("/etc/passwd", "scheme_not_allowed"),
        ("clip.mp4", "scheme_not_allowed"),
        ("", "scheme_not_allowed"),
    ],
)
def test_only_web_links_are_fetched_without_a_base(fetcher: Fetcher, source: str, code: str) -> None:
    assert "secret" not in refused(fetcher, source, code).public


def test_a_local_file_is_taken_in_once(store: Artifacts, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(MEDIA)
    seen: list[tuple[int, int | None]] = []
    for _ in range(2):
        with store.lease() as lease:
            source = Fetcher(lease).fetch(
                "clip.mp4", base=tmp_path, on_progress=lambda done, total: seen.append((done, total))
            )
            assert source.path.read_bytes() == MEDIA
            assert (source.label, source.sha256, source.size) == ("clip.mp4", sha256(MEDIA), len(MEDIA))
            assert source.path.stat().st_ino != (tmp_path / "clip.mp4").stat().st_ino
    assert seen == [(len(MEDIA), len(MEDIA))]


def test_a_local_file_that_changed_is_taken_in_again(lease: Lease, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(MEDIA)
    fetcher = Fetcher(lease)
    first = fetcher.fetch(str(clip), base=tmp_path)
    clip.write_bytes(MEDIA[::-1])
    os.utime(clip, (1, 1))
    second = fetcher.fetch(str(clip), base=tmp_path)
    assert (first.sha256, second.sha256) == (sha256(MEDIA), sha256(MEDIA[::-1]))
    assert first.path.read_bytes() == MEDIA


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("gone.mp4", "not_found"),
        ("", "not_a_file"),
        ("folder", "not_a_file"),
        ("pipe", "not_a_file"),
        ("clip.mp4/x", "not_found"),
        ("a\0b", "not_found"),
        ("x" * 300, "unreadable"),
        ("text.mp4", "not_media"),
        ("empty.mp4", "not_media"),
        ("large.mp4", "source_too_large"),
    ],
)
def test_a_local_path_that_cannot_be_used_is_named(fetcher: Fetcher, tmp_path: Path, name: str, code: str) -> None:
    (tmp_path / "clip.mp4").write_bytes(MEDIA)
    (tmp_path / "text.mp4").write_text("ffconcat version 1.0")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "large.mp4").touch()
    os.truncate(tmp_path / "large.mp4", QUICK.max_bytes + 1)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    error = refused(fetcher, name, code, base=tmp_path)
    assert name[:100].replace("\0", "�") in error.public
    assert str(tmp_path) not in error.public


class FullLease(Lease):
    """A lease on a disk without space: whatever is written goes to the kernel's full device."""

    def scratch(self, suffix: str = "") -> Path:
        path = super().scratch(suffix)
        path.symlink_to("/dev/full")
        return path


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_a_storage_error(store: Artifacts, server: RawServer, tmp_path: Path) -> None:
    fetcher = Fetcher(FullLease(store, tmp_path), QUICK, frozenset({("127.0.0.1", server.port)}))
    with pytest.raises(StorageError) as caught:
        fetcher.fetch(server.url())
    assert caught.value.code == "disk_full"
    assert len(server.requests) == 2, "once more after eviction"


FILE_ID = "1aB_cd-EF23456789"
DRIVE_LINK = f"https://drive.google.com/file/d/{FILE_ID}/view"
DRIVE_QUERY = f"/download?id={FILE_ID}&export=download&confirm=t"
DROPBOX_LINK = "https://www.dropbox.com/scl/fi/xy/My%20clip.mp4"
WARNING = b"""<!DOCTYPE html><title>Google Drive - Virus scan warning</title>
<form id="download-form" action="/elsewhere">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="u-1"></form>"""
QUOTA = b"<html><title>Google Drive - Quota exceeded</title>"
HTML = "text/html; charset=utf-8"


class Keys:
    """Signs for `answers`, one URL after the other, the last for ever."""

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str | None]] = []

    def sign(self, name: ObjectName, region: str | None) -> str | None:
        self.asked.append((str(name), region))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def standing_in(store: Artifacts, server: RawServer, source: str, keys: Keys | None = None) -> Source:
    """Fetch as another job would, with the server in place of every service."""
    at = server.url("")
    endpoints = Endpoints(drive=at, dropbox=at, gs=f"{at}/gs", s3=f"{at}/s3")
    allow = frozenset({("127.0.0.1", server.port)})
    with store.lease() as lease:
        fetcher = Fetcher(lease, replace(QUICK, trust=0), allow, endpoints=endpoints, signer=keys)
        return fetcher.fetch(source)


def not_had(
    store: Artifacts, server: RawServer, source: str, code: str, said: str, keys: Keys | None = None
) -> FetchError:
    with pytest.raises(FetchError) as caught:
        standing_in(store, server, source, keys)
    error = caught.value
    assert (error.code, error.public[-1], "\n" in error.public) == (code, ".", False)
    assert said in error.public
    for text in (error.public, error.detail, repr(error), repr(error.__cause__)):
        assert "CANARY" not in text
    return error


def asked(server: RawServer) -> list[str]:
    return [request.text.split(" ", 2)[1] for request in server.requests]


@pytest.mark.parametrize(
    ("link", "wanted", "label", "filename"),
    [
        (f"{DRIVE_LINK}?usp=sharing", DRIVE_QUERY, DRIVE_LINK, "My clip.mp4"),
        (f"https://drive.google.com/open?id={FILE_ID}", DRIVE_QUERY, "https://drive.google.com/open", "My clip.mp4"),
        (
            f"{DRIVE_LINK}?resourcekey=CANARY",
            f"{DRIVE_QUERY}&resourcekey=CANARY",
            DRIVE_LINK,
            "My clip.mp4",
        ),
        (
            f"{DROPBOX_LINK}?rlkey=CANARY&dl=0",
            "/scl/fi/xy/My%20clip.mp4?rlkey=CANARY&dl=1",
            DROPBOX_LINK.replace("%20", " "),
            None,
        ),
        ("gs://my_bucket/a/My clip.mp4", "/gs/my_bucket/a/My%20clip.mp4", "gs://my_bucket/a/My clip.mp4", None),
        ("S3://bucket/a+b.mp4", "/s3/bucket/a%2Bb.mp4", "s3://bucket/a+b.mp4", None),
    ],
)
def test_share_links_and_object_names_lead_to_the_file(
    store: Artifacts, server: RawServer, link: str, wanted: str, label: str, filename: str | None
) -> None:
    server.handler = lambda request: request.send(
        "200 OK", MEDIA, ETag='"v1"', Content_Disposition="attachment; filename*=UTF-8''My%20clip.mp4"
    )
    source = standing_in(store, server, link)
    assert (source.sha256, source.label, source.filename) == (sha256(MEDIA), label, filename)
    server.handler = lambda request: request.send("304 Not Modified")
    again = standing_in(store, server, link)
    assert (again.sha256, again.note, again.filename) == (sha256(MEDIA), None, filename)
    assert asked(server) == [wanted] * 2
    assert server.requests[1].header("If-None-Match") == '"v1"'


def test_another_link_is_called_as_its_server_says_where_it_has_no_name(fetcher: Fetcher, server: RawServer) -> None:
    server.handler = lambda request: request.send("200 OK", MEDIA, Content_Disposition='inline; filename="a/b.mp4"')
    assert fetcher.fetch(server.url("/get?id=1")).filename == "b.mp4"
    assert fetcher.fetch(server.url("/clip.mp4")).filename is None


def test_other_spellings_of_a_share_link_are_the_same_source(store: Artifacts, server: RawServer) -> None:
    at = server.url("")
    links = [DRIVE_LINK, f"https://drive.google.com/uc?export=download&id={FILE_ID}", f"{DRIVE_LINK}?usp=drive_link"]
    with store.lease() as lease:
        endpoints = Endpoints(drive=at, dropbox=at)
        fetcher = Fetcher(lease, QUICK, frozenset({("127.0.0.1", server.port)}), endpoints=endpoints)
        assert len({fetcher.fetch(link).path for link in links}) == 1
        assert len(server.requests) == 1
        fetcher.fetch(f"{DRIVE_LINK}?resourcekey=k")
        assert len(server.requests) == 2
        for query in ("?rlkey=k&dl=0", "?dl=1&rlkey=k", "?rlkey=k&st=x"):
            fetcher.fetch(DROPBOX_LINK + query)
        assert len(server.requests) == 3


def test_the_warning_of_drive_is_passed_also_when_the_download_is_resumed(store: Artifacts, server: RawServer) -> None:
    def answer(request: Request) -> None:
        if "uuid=u-1" in request.text:
            cut_after(300_000)(request)
        else:
            request.send("200 OK", WARNING, Content_Type=HTML, Content_Length=len(WARNING))

    server.handler = answer
    assert standing_in(store, server, DRIVE_LINK).sha256 == sha256(MEDIA)
    assert asked(server) == [DRIVE_QUERY, f"{DRIVE_QUERY}&uuid=u-1"] * 2
    assert server.requests[3].range_start() == 300_000
    server.handler = lambda request: request.send("200 OK", WARNING, Content_Type=HTML)
    not_had(store, server, f"{DRIVE_LINK}?resourcekey=x", "not_media", "stays behind a warning of Google Drive")
    assert len(server.requests) == 4 + 2


def sign_in(request: Request) -> None:
    """Lead to a page that asks who one is, as Drive and Dropbox do for what is not shared."""
    if "/signin" in request.text:
        request.send("200 OK", b"<!doctype html><title>Sign in</title>" + b" " * 100_000, Content_Type=HTML)
    else:
        request.send("302 Found", Location="/signin?continue=CANARY", Content_Length=0)


@pytest.mark.parametrize(
    ("link", "handler", "code", "said", "note"),
    [
        (DRIVE_LINK, sign_in, "not_permitted", "share it with anyone who has the link", "needs permission now"),
        (
            DRIVE_LINK,
            lambda request: request.send("403 No", b"<html>", Content_Type=HTML),
            "not_permitted",
            "is not given to everyone by Google Drive: share it",
            "needs permission now",
        ),
        (
            DRIVE_LINK,
            lambda request: request.send("200 OK", QUOTA, Content_Type=HTML, Content_Length=len(QUOTA)),
            "quota_exceeded",
            "was downloaded too often of late, says Google Drive",
            "was downloaded too often of late",
        ),
        (DRIVE_LINK, lambda request: request.send("404 No", QUOTA), "not_found", "was not found", "is not there any"),
        (
            f"{DROPBOX_LINK}?rlkey=CANARY",
            sign_in,
            "not_permitted",
            "is not given to everyone by Dropbox: share it with anyone who has the link",
            "needs permission now",
        ),
        (
            f"{DROPBOX_LINK}?rlkey=CANARY",
            lambda request: request.send("401 Who"),
            "not_permitted",
            "by Dropbox: share it",
            "needs permission now",
        ),
    ],
)
def test_a_file_that_is_not_shared_says_what_to_do_and_a_copy_of_it_is_used(
    store: Artifacts, server: RawServer, link: str, handler: Handler, code: str, said: str, note: str
) -> None:
    server.handler = handler
    error = not_had(store, server, link, code, said)
    assert not error.retryable
    server.handler = lambda request: request.send("200 OK", MEDIA)
    standing_in(store, server, link)
    server.handler = handler
    source = standing_in(store, server, link)
    assert source.note is not None
    assert note in source.note
    assert "CANARY" not in source.note


def test_an_endless_page_is_not_read_to_its_end(store: Artifacts, server: RawServer) -> None:
    def answer(request: Request) -> None:
        request.send("200 OK", Content_Type=HTML)
        while not server.closing.is_set():
            request.peer.sendall(b" " * 65_536)

    server.handler = answer
    not_had(store, server, DRIVE_LINK, "not_permitted", "share it with anyone who has the link")


def test_a_folder_or_a_bad_name_is_refused_before_anything_is_asked(store: Artifacts, server: RawServer) -> None:
    not_had(store, server, f"https://drive.google.com/drive/folders/{FILE_ID}", "not_a_file", "is a folder of Google")
    not_had(store, server, "gs://../x", "bad_url", "names a bucket")
    not_had(store, server, "s3://u:CANARY@bucket/x", "credentials_in_url", "holds a user name")
    not_had(store, server, "gs://bucket/x?sig=CANARY", "bad_url", "holds ? or #")
    assert server.requests == []


@pytest.mark.parametrize("source", ["gs://bucket/clip.mp4", "s3://bucket/clip.mp4"])
def test_an_object_is_resumed_and_limited_as_any_source(store: Artifacts, server: RawServer, source: str) -> None:
    server.handler = cut_after(200_000)
    assert standing_in(store, server, source).sha256 == sha256(MEDIA)
    assert [request.range_start() for request in server.requests] == [0, 200_000, 400_000]
    server.handler = lambda request: request.send("200 OK", Content_Length=1_000_001)
    not_had(store, server, f"{source}2", "source_too_large", f"{source}2 is larger")
    server.handler = lambda request: request.send("404 No")
    not_had(store, server, f"{source}3", "not_found", f"{source}3 was not found (HTTP 404)")


@pytest.mark.parametrize(
    ("source", "variable"),
    [("gs://bucket/a.mp4", "GOOGLE_APPLICATION_CREDENTIALS"), ("s3://bucket/a.mp4", "AWS_ACCESS_KEY_ID")],
)
@pytest.mark.parametrize("keys", [None, Keys(None)], ids=["no signer", "no credentials"])
@pytest.mark.parametrize("status", [401, 403])
def test_a_private_object_without_credentials_says_what_to_share_or_set(
    store: Artifacts, server: RawServer, source: str, variable: str, keys: Keys | None, status: int
) -> None:
    server.handler = lambda request: request.send(f"{status} No", b"<Error>", Content_Type="application/xml")
    error = not_had(store, server, source, "not_permitted", variable, keys)
    assert f"{source} is not public, or not there (HTTP {status}): let everyone read it, or set" in error.public
    assert len(server.requests) == 1


def signed_only(handler: Handler) -> Handler:
    return lambda request: handler(request) if "Signature=CANARY" in request.text else request.send("403 Forbidden")


def signed(server: RawServer, number: int = 1) -> str:
    return server.url(f"/private/a.mp4?X-Amz-Signature=CANARY{number}")


def everything_under(folder: Path) -> bytes:
    return b"".join(bytes(path) + (path.read_bytes() if path.is_file() else b"") for path in folder.rglob("*"))


@pytest.mark.parametrize("source", ["gs://bucket/a.mp4", "s3://bucket/a.mp4"])
def test_a_private_object_is_signed_for_and_known_by_its_name_alone(
    store: Artifacts, server: RawServer, source: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "httpx2")  # as open_toolbox does
    caplog.set_level("DEBUG")
    server.handler = signed_only(lambda request: request.send("200 OK", MEDIA, ETag='"v1"'))
    keys = Keys(signed(server, 1), signed(server, 2))
    first = standing_in(store, server, source, keys)
    assert (first.label, first.sha256, first.filename, first.note) == (source, sha256(MEDIA), None, None)
    assert asked(server) == [f"/{source[:2]}/bucket/a.mp4", "/private/a.mp4?X-Amz-Signature=CANARY1"]
    server.handler = signed_only(lambda request: request.send("304 Not Modified"))
    second = standing_in(store, server, source, keys)
    assert (second.sha256, second.note) == (first.sha256, None)
    assert server.requests[3].header("If-None-Match") == '"v1"'
    assert keys.asked == [(source, None)] * 2
    assert "CANARY" not in f"{first}{second}{caplog.text}"
    assert b"CANARY" not in everything_under(tmp_path)


def test_a_public_object_is_not_signed_for(store: Artifacts, server: RawServer) -> None:
    keys = Keys(signed(server))
    assert standing_in(store, server, "gs://bucket/a.mp4", keys).sha256 == sha256(MEDIA)
    assert keys.asked == []


def test_every_try_is_signed_for_anew(store: Artifacts, server: RawServer) -> None:
    server.handler = signed_only(cut_after(200_000))
    keys = Keys(*(signed(server, number) for number in range(1, 4)))
    assert standing_in(store, server, "s3://bucket/a.mp4", keys).sha256 == sha256(MEDIA)
    assert asked(server)[1:] == [f"/private/a.mp4?X-Amz-Signature=CANARY{number}" for number in range(1, 4)]
    assert [request.range_start() for request in server.requests] == [0, 0, 200_000, 400_000]


def test_s3_tells_the_region_to_sign_for(store: Artifacts, server: RawServer) -> None:
    def answer(request: Request) -> None:
        if "CANARY2" in request.text:
            request.send("200 OK", MEDIA)
        elif "CANARY1" in request.text:
            request.send("400 Bad Request", x_amz_bucket_region="eu-south-2")
        else:
            request.send("403 Forbidden")

    server.handler = answer
    keys = Keys(signed(server, 1), signed(server, 2))
    assert standing_in(store, server, "s3://bucket/a.mp4", keys).sha256 == sha256(MEDIA)
    assert keys.asked == [("s3://bucket/a.mp4", None), ("s3://bucket/a.mp4", "eu-south-2")]


@pytest.mark.parametrize(
    ("handler", "code", "said"),
    [
        (lambda request: request.send("403 No"), "not_permitted", "this machine's credentials (HTTP 403): grant them"),
        (lambda request: request.send("404 No"), "not_found", "was not found"),
        (lambda request: request.send("500 No"), "unavailable", "is not available now"),
        (lambda request: request.send("418 No"), "bad_response", "gave an answer that is not a file"),
        (lambda request: request.send("200 OK", b"<Error>CANARY", Content_Length=13), "not_media", "is XML"),
        (lambda request: request.send("200 OK", MEDIA, Content_Length=len(MEDIA) + 1), "truncated_download", "broke"),
        (lambda request: request.peer.sendall(b"no http"), "bad_response", "not proper HTTP"),
        (
            lambda request: request.send("307 Go", Location="http://10.0.0.1/?Signature=CANARY", Content_Length=0),
            "address_not_allowed",
            "leads to an address that is not public",
        ),
        (
            lambda request: request.send("307 Go", Location="ftp://h/?Signature=CANARY", Content_Length=0),
            "scheme_not_allowed",
            "redirects to a link that is not a web link",
        ),
    ],
)
def test_no_error_of_a_signed_url_holds_it(
    store: Artifacts, server: RawServer, handler: Handler, code: str, said: str, tmp_path: Path
) -> None:
    server.handler = signed_only(handler)
    error = not_had(store, server, "gs://bucket/a.mp4", code, said, Keys(signed(server)))
    assert error.public.startswith("gs://bucket/a.mp4 ")
    assert b"CANARY" not in everything_under(tmp_path)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://10.0.0.1/a?Signature=CANARY", "address_not_allowed"),
        ("http://127.0.0.1:{other}/a?Signature=CANARY", "port_not_allowed"),
        ("file:///etc/CANARY", "scheme_not_allowed"),
    ],
)
def test_a_signed_url_passes_the_guard(store: Artifacts, server: RawServer, url: str, code: str) -> None:
    server.handler = lambda request: request.send("403 Forbidden")
    not_had(store, server, "s3://bucket/a", code, "s3://bucket/a", Keys(url.format(other=server.port - 1)))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("source", "host"),
    [
        (DRIVE_LINK, "drive.usercontent.google.com"),
        (f"{DROPBOX_LINK}?rlkey=CANARY", "www.dropbox.com"),
        ("gs://bucket/a.mp4", "storage.googleapis.com"),
        ("s3://bucket/a.mp4", "bucket.s3.amazonaws.com"),
        ("s3://my.bucket/a.mp4", "s3.amazonaws.com"),
    ],
)
def test_the_usual_hosts_pass_the_guard_as_any_other(lease: Lease, source: str, host: str) -> None:
    looked_up: list[tuple[str, int]] = []

    def resolver(name: str, port: int) -> list[str]:
        looked_up.append((name, port))
        return ["127.0.0.1"]

    refused(Fetcher(lease, QUICK, resolver=resolver), source, "address_not_allowed")
    assert looked_up == [(host, 443)]


def test_an_endpoint_on_this_machine_has_to_be_allowed(lease: Lease, server: RawServer) -> None:
    endpoints = Endpoints(gs=server.url(""))
    refused(Fetcher(lease, QUICK, endpoints=endpoints), "gs://bucket/a.mp4", "port_not_allowed")
    refused(
        Fetcher(lease, QUICK, endpoints=endpoints, ports=frozenset({server.port})),
        "gs://bucket/a.mp4",
        "address_not_allowed",
    )
    assert server.requests == []
