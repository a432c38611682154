"""Stands before another HTTP server on this machine and lets requests meet faults, by script or by chance."""

from __future__ import annotations

import http.client
import random
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from emulating import Emulating, Server

ANSWERS = {
    "503": (503, "<Error><Code>SlowDown</Code></Error>"),
    "500": (500, "<Error><Code>InternalError</Code></Error>"),
    "full": (403, "<Error><Code>QuotaExceeded</Code></Error>"),
    "unsigned": (403, "<Error><Code>SignatureDoesNotMatch</Code></Error>"),
}
"""Faults that the other server hears nothing of, as are `hangup` and `hang` (nothing is said until the end); with
`lost` it is done and nobody hears of it."""


@dataclass
class Proxy(Emulating):
    behind: str
    script: list[tuple[str, str]] = field(default_factory=list)
    """(method, fault): each is met once, by the next request of the method; `*` is any."""
    rate: float = 0.0
    kinds: tuple[str, ...] = ("503", "500", "hangup", "lost")
    requests: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(3)
        self.serve(_Handler)

    def fault(self, method: str) -> str:
        with self.lock:
            self.requests[method] += 1
            return self.due(method)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_: Any) -> None:
        pass

    def do_any(self) -> None:
        proxy: Proxy = self.server.emulator
        fault = proxy.fault(self.command)
        if fault == "hang":
            proxy.closing.wait(60)
        if fault in ("hang", "hangup"):
            self.close_connection = True
            return
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            self.close_connection = True
            return
        if fault in ANSWERS:
            status, told = ANSWERS[fault]
            self.send(status, told.encode(), [("Content-Type", "application/xml")])
            return
        connection = http.client.HTTPConnection(urlsplit(proxy.behind).netloc, timeout=60)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if fault == "lost":
            self.close_connection = True
            return
        self.send(answer.status, data, answer.getheaders())

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_any  # noqa: N815 - as they are looked up

    def send(self, status: int, body: bytes, headers: list[tuple[str, str]]) -> None:
        self.send_response_only(status)
        kept = [(name, value) for name, value in headers if name.lower() not in ("connection", "transfer-encoding")]
        if self.command != "HEAD":
            kept = [(name, value) for name, value in kept if name.lower() != "content-length"]
            kept.append(("Content-Length", str(len(body))))
        for name, value in kept:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()
