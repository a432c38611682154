"""The part of Azure's Blob Storage that crosscut uses, on a real socket, as strict and as faulty.

It checks the signatures of requests and of links, blocks and their list. Faults come by script or by chance. What it
answers was compared with Azurite 3.37, on which the same contract passes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from email import message_from_bytes
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from emulating import Emulating, Server

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import Message
    from urllib.parse import SplitResult

    Answer = tuple[int, bytes, dict[str, str]]

ACCOUNT = "crosscuttests"
KEY = base64.b64encode(b"the key of the account, 32 bytes").decode()
MOST_BLOCKS = 50_000
SIGNED = (
    "content-encoding", "content-language", "content-length", "content-md5", "content-type", "date",
    "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range",
)  # fmt: skip
"""Headers of which the values are signed, in this order (Azure Storage, "Authorize with Shared Key")."""

ANSWERS = {
    "403": (403, "AuthorizationPermissionMismatch"),
    "429": (429, "TooManyRequests"),
    "500": (500, "InternalError"),
    "503": (503, "ServerBusy"),
}
"""Faults that are answered before anything is done; `hangup` and `lost` close the connection, before and after; `hang`
says nothing until the end, `quota` refuses for want of room."""


class RefusedError(Exception):
    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


@dataclass(frozen=True)
class Blob:
    data: bytes
    headers: dict[str, str]


@dataclass
class Emulator(Emulating):
    containers: frozenset[str] = frozenset({"videos"})
    page: int = 5000
    """Names in one answer of a list."""
    rate: float = 0.0
    """Share of requests that meet one of `kinds`."""
    kinds: tuple[str, ...] = ("503", "500", "hangup", "lost")
    seed: int = 1
    script: list[tuple[str, str]] = field(default_factory=list)
    """(operation, fault): each is met once, by the next request of the operation."""
    blobs: dict[tuple[str, str], Blob] = field(default_factory=dict)
    blocks: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    """Those that were sent and not committed, by blob and id."""
    requests: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.serve(_Handler)

    @property
    def endpoint(self) -> str:
        return f"{self.url}/{ACCOUNT}"

    def names(self, prefix: str = "") -> list[str]:
        with self.lock:
            return sorted(key.removeprefix(prefix) for _, key in self.blobs if key.startswith(prefix))

    def data(self, key: str, container: str = "videos") -> bytes | None:
        with self.lock:
            blob = self.blobs.get((container, key))
        return blob.data if blob else None

    def fault(self, operation: str) -> str:
        with self.lock:
            self.requests[operation] += 1
            return self.due(operation)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_: Any) -> None:
        pass

    def do_any(self) -> None:
        self.emulator: Emulator = self.server.emulator
        self.url = urlsplit(self.path)
        self.query = dict(parse_qsl(self.url.query, keep_blank_values=True))
        account, container, *key = unquote(self.url.path).removeprefix("/").split("/", 2)
        self.place = (container, key[0] if key else "")
        operation = self.operation() if account == ACCOUNT else "odd"
        fault = self.emulator.fault(operation)
        if fault == "hang":
            self.emulator.closing.wait(60)
        try:
            if fault in ("hangup", "hang"):
                raise ConnectionResetError
            answer = self.answer(operation, fault)
        except RefusedError as refusal:
            told = f'<?xml version="1.0"?><Error><Code>{refusal.code}</Code><Message>no</Message></Error>'
            answer = refusal.status, told.encode(), {"content-type": "application/xml", "x-ms-error-code": refusal.code}
        except ConnectionError:
            self.close_connection = True
            return
        if fault == "lost":
            self.close_connection = True
            return
        self.send(*answer)

    do_GET = do_PUT = do_DELETE = do_HEAD = do_POST = do_any  # noqa: N815 - as they are looked up

    def operation(self) -> str:
        known = {
            ("PUT", None): "put",
            ("PUT", "block"): "block",
            ("PUT", "blocklist"): "commit",
            ("GET", "list"): "list",
            ("GET", None): "get",
            ("HEAD", None): "head",
            ("DELETE", None): "delete",
            ("POST", "batch"): "batch",
        }
        return known.get((self.command, self.query.get("comp")), "odd")

    def answer(self, operation: str, fault: str) -> Answer:
        if "chunked" in self.headers.get("transfer-encoding", ""):
            self.close_connection = True
            raise self.complaint("a body without a length")
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if len(body) != int(self.headers.get("content-length") or 0):
            raise ConnectionResetError
        if fault in ANSWERS:
            raise RefusedError(*ANSWERS[fault])
        if fault == "quota":
            raise RefusedError(403, "AccountQuotaExceeded")
        if operation == "odd":
            raise self.complaint(f"{self.command} {self.path}")
        if "sig" in self.query:
            self.check_link()
        else:
            check_signature(self.command, self.url, self.headers)
        if self.place[0] not in self.emulator.containers:
            raise RefusedError(404, "ContainerNotFound")
        work: Callable[[bytes], Answer] = getattr(self, f"on_{operation}")
        with self.emulator.lock:
            return work(body)

    def check_link(self) -> None:
        """Azure Storage, "Create a service SAS", of version 2020-12-06 and later: the blob by its name, decoded."""
        told = self.query
        resource = f"/blob/{ACCOUNT}/{self.place[0]}/{self.place[1]}"
        lines = [told["sp"], told["st"], told["se"], resource, "", "", "", told["sv"], told["sr"], *[""] * 7]
        ends = datetime.fromisoformat(told["se"]).timestamp()
        right = (told["sr"], told["sp"], self.command) in (("b", "r", "GET"), ("b", "r", "HEAD"))
        if told["sig"] != signature("\n".join(lines)) or not right or time.time() > ends:
            raise RefusedError(403, "AuthenticationFailed")

    def complaint(self, sentence: str) -> RefusedError:
        self.emulator.complaints.append(sentence)
        return RefusedError(400, "InvalidInput")

    def kept_headers(self) -> dict[str, str]:
        sent = {name.lower(): value for name, value in self.headers.items()}
        kept = {name: value for name, value in sent.items() if name.startswith("x-ms-meta-")}
        return kept | {"content-type": sent.get("x-ms-blob-content-type") or sent.get("content-type") or ""}

    def on_put(self, body: bytes) -> Answer:
        if self.headers.get("x-ms-blob-type") != "BlockBlob":
            raise self.complaint("a blob of no type")
        return self.stored(body)

    def stored(self, data: bytes) -> Answer:
        if self.headers.get("if-none-match") == "*" and self.place in self.emulator.blobs:
            raise RefusedError(409, "BlobAlreadyExists")
        self.emulator.blobs[self.place] = Blob(data, self.kept_headers())
        self.emulator.blocks.pop(self.place, None)
        return 201, b"", {"etag": self.tag(data)}

    def on_block(self, body: bytes) -> Answer:
        waiting = self.emulator.blocks.setdefault(self.place, {})
        block = self.query["blockid"]
        if len(base64.b64decode(block, validate=True)) > 64 or {len(block)} != {len(one) for one in (*waiting, block)}:
            raise self.complaint("ids of blocks have one length, of at most 64 bytes")
        waiting[block] = body
        return 201, b"", {}

    def on_commit(self, body: bytes) -> Answer:
        waiting = self.emulator.blocks.get(self.place, {})
        named = [one.text or "" for one in ET.fromstring(body)]
        if len(named) > MOST_BLOCKS or any(one.tag not in ("Uncommitted", "Latest") for one in ET.fromstring(body)):
            raise self.complaint("a list of blocks that are not new")
        if any(block not in waiting for block in named):
            raise RefusedError(400, "InvalidBlockList")
        return self.stored(b"".join(waiting[block] for block in named))

    def on_delete(self, _: bytes) -> Answer:
        self.found()
        del self.emulator.blobs[self.place]
        return 202, b"", {}

    def on_batch(self, body: bytes) -> Answer:
        """Azure Storage, "Blob Batch": requests in parts, each signed for itself, and their answers in parts."""
        kind = self.headers.get("content-type", "")
        parts = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body).get_payload()
        answers = ""
        for part in parts if isinstance(parts, list) else ():
            line, _, rest = part.get_payload(decode=True).strip().partition(b"\r\n")
            method, target, _ = line.decode().split()
            url = urlsplit(target)
            container, key = unquote(url.path).removeprefix("/").split("/", 2)[-2:]
            if method != "DELETE" or container != self.place[0]:
                raise self.complaint(f"a batch with {line!r}")
            check_signature(method, url, message_from_bytes(rest))
            there = self.emulator.blobs.pop((container, key), None)
            told = "202 Accepted\r\n" if there else "404 Not Found\r\nx-ms-error-code: BlobNotFound\r\n"
            answers += "--answers\r\nContent-Type: application/http\r\n"
            answers += f"Content-ID: {part['content-id']}\r\n\r\nHTTP/1.1 {told}\r\n\r\n"
        return 202, f"{answers}--answers--\r\n".encode(), {"content-type": "multipart/mixed; boundary=answers"}

    def found(self) -> Blob:
        blob = self.emulator.blobs.get(self.place)
        if blob is None:
            raise RefusedError(404, "BlobNotFound")
        return blob

    def on_get(self, _: bytes) -> Answer:
        blob = self.found()
        return 200, blob.data, {"etag": self.tag(blob.data), "last-modified": LONG_AGO, **blob.headers}

    def on_head(self, _: bytes) -> Answer:
        blob = self.found()
        facts = {"content-length": str(len(blob.data)), "etag": self.tag(blob.data), "last-modified": LONG_AGO}
        return 200, b"", facts | blob.headers

    def on_list(self, _: bytes) -> Answer:
        odd = set(self.query) - {"restype", "comp", "prefix", "marker", "maxresults", "startFrom"}
        if odd or self.query.get("restype") != "container":
            raise self.complaint(f"a list with {self.query}")
        after, prefix = self.query.get("marker", ""), self.query.get("prefix", "")
        most = min(int(self.query.get("maxresults", 5000)), self.emulator.page)
        keys = sorted(
            key for container, key in self.emulator.blobs if container == self.place[0] and key.startswith(prefix)
        )
        # `startFrom` is new: a server of the version that is asked for may not know it.
        keys = [key for key in keys if key > after]
        rows = "".join(
            f"<Blob><Name>{escape(key)}</Name><Properties><Last-Modified>{LONG_AGO}</Last-Modified><Content-Length>"
            f"{len(self.emulator.blobs[self.place[0], key].data)}</Content-Length><Content-Type>x</Content-Type>"
            "<Etag>0x1</Etag></Properties></Blob>"
            for key in keys[:most]
        )
        more = escape(keys[most - 1]) if len(keys) > most else ""
        told = f"<EnumerationResults><Blobs>{rows}</Blobs><NextMarker>{more}</NextMarker></EnumerationResults>"
        return 200, told.encode(), {"content-type": "application/xml"}

    @staticmethod
    def tag(data: bytes) -> str:
        return f'"0x{hashlib.md5(data, usedforsecurity=False).hexdigest()[:15].upper()}"'

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"content-length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()


LONG_AGO = "Sat, 01 Nov 2025 00:00:00 GMT"


def signature(text: str) -> str:
    return base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), "sha256")).decode()


def check_signature(method: str, url: SplitResult, headers: Message) -> None:
    """Azure Storage, "Authorize with Shared Key": the resource as its URL spells it, behind the account."""
    sent = {name.lower(): value for name, value in headers.items()}
    if sent.get("content-length") == "0":
        sent["content-length"] = ""
    named = sorted((name, value.strip()) for name, value in sent.items() if name.startswith("x-ms-"))
    asked = sorted((name.lower(), value) for name, value in parse_qsl(url.query, keep_blank_values=True))
    lines = [method, *(sent.get(name, "") for name in SIGNED), *(f"{name}:{value}" for name, value in named)]
    text = "\n".join([*lines, f"/{ACCOUNT}{url.path}", *(f"{name}:{value}" for name, value in asked)])
    if sent.get("authorization") != f"SharedKey {ACCOUNT}:{signature(text)}":
        raise RefusedError(403, "AuthenticationFailed")
    if abs(parsedate_to_datetime(sent["date"]).timestamp() - time.time()) > 900:
        raise RefusedError(403, "AuthenticationFailed")
