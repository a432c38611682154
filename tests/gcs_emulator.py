"""The part of Google Cloud Storage that crosscut uses, its XML API on a real socket, as strict and as faulty.

What no client may send is refused and remembered; `close` fails the test then. Faults come by script or by chance.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cache, reduce
from http.server import BaseHTTPRequestHandler
from operator import xor
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import google_crc32c
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from emulating import Emulating, Server

if TYPE_CHECKING:
    from collections.abc import Callable

    Answer = tuple[int, bytes, dict[str, str]]

TOKEN = "ya29.the-right-token-0123456789"
SMALLEST_PART = 5 << 20
"""Bytes of every part but the last (Cloud Storage, "XML API multipart uploads")."""
MOST_PARTS = 10_000
MOST_COMPONENTS = 32
"""Objects that one compose joins (Cloud Storage, "Composing objects")."""
CRC32C_POLYNOMIAL = 0x82F63B78
"""Reflected (RFC 3720, appendix B.4)."""
BLOCK = 1 << 16
HOST = "storage.googleapis.com"

ANSWERS = {
    "401": (401, "AuthenticationRequired"),
    "400": (400, "InvalidArgument"),
    "403": (403, "AccessDenied"),
    "501": (501, "NotImplemented"),
    "429": (429, "SlowDown"),
    "quota": (403, "QuotaExceeded"),
    "500": (500, "InternalError"),
    "503": (503, "ServiceUnavailable"),
}
"""Faults that are answered before anything is done; `hangup` and `lost` close the connection, before and after, `hang`
at the end; `damage` stores other bytes (a compose: in another order), `forget` loses the upload, `unsure` tells no
checksum."""

SIGNED_AT = re.compile(r"\d{8}T\d{6}Z")


@dataclass(frozen=True)
class Body:
    size: int
    md5: str
    data: bytes | None
    """None where the emulator keeps none."""
    crc32c: int = 0


@dataclass(frozen=True)
class Stored:
    body: Body
    etag: str
    headers: dict[str, str]
    generation: int


@dataclass
class Upload:
    key: str
    headers: dict[str, str]
    parts: dict[int, Body] = field(default_factory=dict)


def joined_crc32c(first: int, second: int, length: int) -> int:
    """The CRC32C of two stretches of bytes one behind the other, from theirs; the second has `length` bytes.

    As zlib's `crc32_combine`: a byte of zeros is a linear map of the 32 bits, and so is any number of them.
    """
    for power in range(length.bit_length()):
        if length >> power & 1:
            first = _times(_zeros(power + 3), first)
    return first ^ second


@cache
def _zeros(power: int) -> tuple[int, ...]:
    """What two to that power bits of zero do to a checksum, by its bits."""
    if power == 0:
        return CRC32C_POLYNOMIAL, *(1 << bit for bit in range(31))
    half = _zeros(power - 1)
    return tuple(_times(half, row) for row in half)


def _times(matrix: tuple[int, ...], vector: int) -> int:
    return reduce(xor, (row for bit, row in enumerate(matrix) if vector >> bit & 1), 0)


class RefusedError(Exception):
    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


@dataclass
class Emulator(Emulating):
    """`keep` the bytes of objects; without, their sizes and MD5s alone. `page` names are in one answer of a list."""

    buckets: frozenset[str] = frozenset({"bucket"})
    keep: bool = True
    page: int = 1000
    rate: float = 0.0
    """Share of requests that meet one of `kinds`."""
    kinds: tuple[str, ...] = ("503", "429", "hangup", "lost")
    seed: int = 1
    script: list[tuple[str, str]] = field(default_factory=list)
    """(operation, fault): each is met once, by the next request of the operation."""
    heeds: bool = True
    """The conditions of a write."""
    forbidden: frozenset[str] = frozenset()
    """Operations that the caller may not do."""
    objects: dict[tuple[str, str], Stored] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    bytes_in: int = 0
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.generation = 0
        self.chance = random.Random(self.seed)
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.serve(_Handler)

    @property
    def service_account(self) -> str:
        """A key file whose tokens and links the emulator knows."""
        pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        facts = {"type": "service_account", "client_email": "it@tests", "private_key_id": "1"}
        return json.dumps(facts | {"private_key": pem.decode(), "client_id": "1", "token_uri": "https://no.where/"})

    def names(self, prefix: str = "") -> list[str]:
        with self.lock:
            return sorted(key.removeprefix(prefix) for _, key in self.objects if key.startswith(prefix))

    def data(self, key: str, bucket: str = "bucket") -> bytes | None:
        with self.lock:
            stored = self.objects.get((bucket, key))
        return stored.body.data if stored else None

    def fault(self, operation: str) -> str:
        with self.lock:
            self.requests[operation] += 1
            fault = self.due(operation)
            if fault:
                self.faults[fault] += 1
        return fault

    def store(self, place: tuple[str, str], body: Body, etag: str, headers: dict[str, str]) -> Stored:
        with self.lock:
            self.generation += 1
            stored = self.objects[place] = Stored(body, etag, headers, self.generation)
        return stored


class _Handler(BaseHTTPRequestHandler):
    server: Server
    met = ""
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_: Any) -> None:
        pass

    def do_any(self) -> None:
        self.emulator: Emulator = self.server.emulator
        url = urlsplit(self.path)
        self.query = dict(parse_qsl(url.query, keep_blank_values=True))
        bucket, _, key = url.path.removeprefix("/").partition("/")
        self.place = (unquote(bucket), unquote(key))
        operation = self.operation()
        fault = self.emulator.fault(operation)
        if fault == "hang":
            self.emulator.closing.wait(60)
        if fault in ("hang", "hangup"):
            self.close_connection = True
            return
        try:
            answer = self.answer(operation, url.path, fault)
        except RefusedError as refusal:
            told = f"<?xml version='1.0'?><Error><Code>{refusal.code}</Code><Message>no</Message></Error>"
            answer = refusal.status, told.encode(), {"content-type": "application/xml"}
        if fault == "lost":
            self.close_connection = True
            return
        self.send(*answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_any  # noqa: N815

    def answer(self, operation: str, path: str, fault: str) -> Answer:
        body = self.read_body()
        if fault in ANSWERS:
            raise RefusedError(*ANSWERS[fault])
        self.check(operation, path)
        if fault == "forget":
            self.emulator.uploads.clear()
        if fault == "damage":
            body = Body(body.size, "0" * 32, body.data)
        self.met = fault
        work: Callable[[Body], Answer] = getattr(self, f"on_{operation}")
        return work(body)

    def operation(self) -> str:
        query, method = self.query, self.command
        if method == "POST":
            return "start" if "uploads" in query else "complete" if "uploadId" in query else "odd"
        if method == "PUT":
            return "part" if "uploadId" in query else "compose" if "compose" in query else "put"
        if method == "DELETE":
            return "abort" if "uploadId" in query else "delete"
        return method.lower() if self.place[1] else "uploads" if "uploads" in query else "list"

    def read_body(self) -> Body:
        """Every byte that was promised, or nothing is done."""
        if "chunked" in self.headers.get("transfer-encoding", ""):
            self.close_connection = True
            raise self.complaint(411, "MissingContentLength", "a body without a length")
        length = int(self.headers.get("content-length") or 0)
        digest, checksum, kept, left = hashlib.md5(usedforsecurity=False), 0, [], length
        while left:
            block = self.rfile.read(min(left, BLOCK))
            if not block:
                raise ConnectionResetError
            digest.update(block)
            checksum = google_crc32c.extend(checksum, block)
            left -= len(block)
            if self.emulator.keep or self.command == "POST" or "compose" in self.query:
                kept.append(block)
        with self.emulator.lock:
            self.emulator.bytes_in += length
        return Body(length, digest.hexdigest(), b"".join(kept) if kept or not length else None, checksum)

    def check(self, operation: str, path: str) -> None:
        if "X-Goog-Signature" in self.query:
            self.check_link(path)
        elif not self.knows(self.headers.get("authorization", "")):
            raise RefusedError(*ANSWERS["401"])
        if self.place[0] not in self.emulator.buckets:
            raise RefusedError(404, "NoSuchBucket")
        if operation in self.emulator.forbidden:
            raise RefusedError(403, "AccessDenied")
        key = self.place[1]
        if operation == "odd" or len(key.encode()) > 1024 or set(key) & set("\r\n"):
            raise self.complaint(400, "InvalidURI", f"{self.command} {self.path}")

    def knows(self, authorization: str) -> bool:
        """The one token, or one that the service account has signed itself (RFC 7523)."""
        if authorization == f"Bearer {TOKEN}":
            return True
        parts = authorization.removeprefix("Bearer ").split(".")
        if len(parts) != 3:
            return False
        signature, claims = (base64.urlsafe_b64decode(part + "==") for part in (parts[2], parts[1]))
        try:
            self.verify(signature, ".".join(parts[:2]))
        except InvalidSignature:
            return False
        told = json.loads(claims)
        now = time.time()
        return bool(told["iss"] == "it@tests" and told["iat"] - 60 <= now < told["exp"] <= told["iat"] + 3600)

    def check_link(self, path: str) -> None:
        """Cloud Storage, "V4 signing process with your own program"; signed for its own host, wherever we are."""
        query = {name: value for name, value in self.query.items() if name != "X-Goog-Signature"}
        at, names = query["X-Goog-Date"], query["X-Goog-SignedHeaders"].split(";")
        assert SIGNED_AT.fullmatch(at)
        told = "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in sorted(query.items()))
        sent = {**self.headers, "host": HOST}
        headers = "".join(f"{name}:{sent[name].strip()}\n" for name in names)
        canonical = "\n".join((self.command, path, told, headers, ";".join(names), "UNSIGNED-PAYLOAD"))
        scope = query["X-Goog-Credential"].split("/", 1)[1]
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        try:
            self.verify(
                bytes.fromhex(self.query["X-Goog-Signature"]),
                "\n".join((query["X-Goog-Algorithm"], at, scope, digest)),
            )
        except InvalidSignature:
            raise RefusedError(403, "SignatureDoesNotMatch") from None

    def verify(self, signature: bytes, text: str) -> None:
        self.emulator.key.public_key().verify(signature, text.encode(), padding.PKCS1v15(), hashes.SHA256())

    def complaint(self, status: int, code: str, sentence: str) -> RefusedError:
        self.emulator.complaints.append(sentence)
        return RefusedError(status, code)

    def kept_headers(self) -> dict[str, str]:
        sent = {name.lower(): value for name, value in self.headers.items()}
        return {name: value for name, value in sent.items() if re.match("content-type|x-goog-meta-", name)}

    def found(self) -> Stored:
        stored = self.emulator.objects.get(self.place)
        if stored is None:
            raise RefusedError(404, "NoSuchKey")
        return stored

    def precondition(self) -> None:
        wanted = self.headers.get("x-goog-if-generation-match")
        stored = self.emulator.objects.get(self.place)
        if self.emulator.heeds and wanted is not None and int(wanted) != (stored.generation if stored else 0):
            raise RefusedError(412, "PreconditionFailed")

    def on_put(self, body: Body) -> Answer:
        with self.emulator.lock:
            self.precondition()
            stored = self.emulator.store(self.place, body, body.md5, self.kept_headers())
        return 200, b"", {"etag": f'"{stored.etag}"', "x-goog-generation": str(stored.generation)}

    def on_start(self, _: Body) -> Answer:
        with self.emulator.lock:
            upload = f"upload-{len(self.emulator.uploads)}-{self.emulator.requests['start']}"
            self.emulator.uploads[upload] = Upload(self.place[1], self.kept_headers())
        told = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
        return 200, told.encode(), {}

    def upload(self) -> Upload:
        upload = self.emulator.uploads.get(self.query["uploadId"])
        if upload is None or upload.key != self.place[1]:
            raise RefusedError(404, "NoSuchUpload")
        return upload

    def on_part(self, body: Body) -> Answer:
        number = int(self.query["partNumber"])
        if not 1 <= number <= MOST_PARTS:
            raise self.complaint(400, "InvalidArgument", f"part {number}")
        with self.emulator.lock:
            self.upload().parts[number] = body
        return 200, b"", {"etag": f'"{body.md5}"'}

    def on_complete(self, body: Body) -> Answer:
        told = [
            (int(part.findtext("{*}PartNumber") or 0), (part.findtext("{*}ETag") or "").strip('"'))
            for part in ET.fromstring(body.data or b"").iter()
            if part.tag.endswith("Part")
        ]
        with self.emulator.lock:
            upload = self.upload()
            parts = [upload.parts.get(number) for number, _ in told]
            if not told or [number for number, _ in told] != sorted({number for number, _ in told}):
                raise self.complaint(400, "InvalidPartOrder", f"the parts {told}")
            if any(part is None or part.md5 != etag for part, (_, etag) in zip(parts, told, strict=True)):
                raise self.complaint(400, "InvalidPart", f"the parts {told}")
            there = [part for part in parts if part]
            if any(part.size < SMALLEST_PART for part in there[:-1]):
                raise self.complaint(400, "EntityTooSmall", f"parts of {[part.size for part in there]} bytes")
            stored = self.join(there, upload.headers)
            del self.emulator.uploads[self.query["uploadId"]]
        answer = f'<CompleteMultipartUploadResult><ETag>"{stored.etag}"</ETag></CompleteMultipartUploadResult>'
        return 200, answer.encode(), {"x-goog-generation": str(stored.generation)}

    def join(self, parts: list[Body], headers: dict[str, str]) -> Stored:
        """What is put together has no MD5 of the whole; its entity tag is none."""
        data = b"".join(part.data or b"" for part in parts) if self.emulator.keep else None
        checksum = reduce(lambda before, part: joined_crc32c(before, part.crc32c, part.size), parts, 0)
        body = Body(sum(part.size for part in parts), "-".join(part.md5 for part in parts), data, checksum)
        tag = base64.b64encode(f"generation {self.emulator.generation + 1}".encode()).decode()
        return self.emulator.store(self.place, body, f"-{tag}", headers)

    def on_abort(self, _: Body) -> Answer:
        with self.emulator.lock:
            self.upload()
            del self.emulator.uploads[self.query["uploadId"]]
        return 204, b"", {}

    def on_compose(self, body: Body) -> Answer:
        names = [name.text or "" for name in ET.fromstring(body.data or b"").iter() if name.tag == "Name"]
        if not 1 <= len(names) <= MOST_COMPONENTS:
            raise self.complaint(400, "InvalidArgument", f"a compose of {len(names)}")
        with self.emulator.lock:
            self.precondition()
            sources = [self.emulator.objects.get((self.place[0], name)) for name in names]
            if not all(sources):
                raise RefusedError(404, "NoSuchKey")
            bodies = [source.body for source in sources if source]
            stored = self.join(bodies[::-1] if self.met == "damage" else bodies, self.kept_headers())
        told = {"etag": f'"{stored.etag}"', "x-goog-generation": str(stored.generation)}
        if self.met != "unsure":
            told["x-goog-hash"] = f"crc32c={base64.b64encode(stored.body.crc32c.to_bytes(4)).decode()}"
        return 200, b"", told

    def on_delete(self, _: Body) -> Answer:
        with self.emulator.lock:
            self.found()
            del self.emulator.objects[self.place]
        return 204, b"", {}

    def on_head(self, _: Body) -> Answer:
        stored = self.found()
        length = {"content-length": str(stored.body.size), "last-modified": "Sat, 01 Nov 2025 00:00:00 GMT"}
        generation = {"x-goog-generation": str(stored.generation)}
        return 200, b"", {"etag": f'"{stored.etag}"', **length, **generation, **stored.headers}

    def on_get(self, _: Body) -> Answer:
        stored = self.found()
        data = stored.body.data or b""
        headers = {"etag": f'"{stored.etag}"', "last-modified": "Sat, 01 Nov 2025 00:00:00 GMT", **stored.headers}
        headers |= {"x-goog-generation": str(stored.generation)}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if not wanted:
            return 200, data, headers
        start, stop = int(wanted[1]), min(int(wanted[2] or len(data)) + 1, len(data))
        if start >= len(data):
            raise RefusedError(416, "InvalidRange")
        return 206, data[start:stop], headers | {"content-range": f"bytes {start}-{stop - 1}/{len(data)}"}

    def on_list(self, _: Body) -> Answer:
        query = self.query
        odd = set(query) - {"list-type", "prefix", "start-after", "max-keys", "continuation-token"}
        if odd or query.get("list-type") != "2":
            raise self.complaint(400, "InvalidArgument", f"a list with {query}")
        after = query.get("continuation-token") or query.get("start-after", "")
        most = min(int(query.get("max-keys", 1000)), self.emulator.page)
        with self.emulator.lock:
            found = {key: stored for (bucket, key), stored in self.emulator.objects.items() if bucket == self.place[0]}
        keys = sorted((key for key in found if key.startswith(query.get("prefix", "")) and key > after), key=str.encode)
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{found[key].body.size}</Size><ETag>{found[key].etag}</ETag>"
            "<LastModified>2025-11-01T00:00:00.000Z</LastModified></Contents>"
            for key in keys[:most]
        )
        more = f"<NextContinuationToken>{escape(keys[most - 1])}</NextContinuationToken>" if len(keys) > most else ""
        cut = str(bool(more)).lower()
        told = f"<ListBucketResult><IsTruncated>{cut}</IsTruncated>{more}{rows}</ListBucketResult>"
        return 200, told.encode(), {"content-type": "application/xml"}

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        with contextlib.suppress(OSError):
            self.send_response(status)
            for name, value in ({"content-length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
            self.wfile.flush()
