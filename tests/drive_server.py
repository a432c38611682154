"""What the stand-in for Google Drive answers on its socket; it checks what the real one checks."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import secrets
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import parse_qs, urlencode, urlsplit

from cryptography.hazmat.primitives import serialization
from google.auth import jwt

from drive_model import (
    CLIENT,
    DEVICE,
    ERRORS,
    FILE,
    FOLDER,
    FULL,
    METADATA,
    PARAMETERS,
    PASSING,
    REFRESH,
    SECRET,
    STEP,
    USER,
    WHOLE,
    Device,
    Holder,
    Node,
    Seen,
    Session,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from drive_emulator import Emulator
    from emulating import Server


OAUTH = {"invalid_client": 401, "authorization_pending": 428, "slow_down": 403, "access_denied": 403}
"""How Google answers errors of its token endpoint that are not 400."""


class _RefusedError(Exception):
    def __init__(self, status: int, reason: str, message: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.message = status, reason, message or f"{reason}, says the emulator"
        self.headers = headers or {}


class _HungUpError(Exception):
    pass


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer()

    do_POST = do_PATCH = do_PUT = do_GET  # noqa: N815 - as they are looked up

    @property
    def emulator(self) -> Emulator:
        emulator: Emulator = self.server.emulator
        return emulator

    def answer(self) -> None:
        self.unread = int(self.headers.get("content-length", "0"))
        self.url = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(self.url.query, keep_blank_values=True).items()}
        self.fault = self.drawn()
        try:
            if "transfer-encoding" in self.headers:
                self.complain("a body of unknown length")
            self.routed()
        except _RefusedError as refusal:
            error = {"domain": "global", "reason": refusal.reason, "message": refusal.message}
            told = {"error": {"code": refusal.status, "message": refusal.message, "errors": [error]}}
            self.send(refusal.status, told, refusal.headers)
        except (_HungUpError, ConnectionError):
            self.close_connection = True

    def drawn(self) -> str:
        """The fault of this request, if it has one."""
        emulator = self.emulator
        content_range = self.headers.get("content-range", "")
        with emulator.lock:
            found = next((f for f in emulator.faults if f.meets(self.command, self.path, content_range)), None)
            self.fault_headers = found.headers if found else {}
            kind = found.kind if found else ""
            if not kind and emulator.chaos and emulator.draw.random() < emulator.chaos:
                kind = emulator.draw.choice(PASSING)
            emulator.seen.append(Seen(self.command, self.path, content_range, kind))
        return kind

    def routed(self) -> None:
        if self.fault == "drop":
            raise _HungUpError
        if self.fault == "hang":
            self.emulator.closing.wait(30)
            raise _HungUpError
        if self.fault == "slow":
            self.emulator.closing.wait(0.3)
        path = self.url.path
        if path == "/token":
            return self.token()
        if path == "/o/oauth2/v2/auth":
            return self.consent_page()
        if path == "/device/code":
            return self.device_code()
        self.holder = self.bearer()
        if self.fault in ERRORS:
            raise _RefusedError(*ERRORS[self.fault], headers=self.fault_headers)
        if path.startswith("/session/"):
            return self.session()
        return self.api(path)

    def api(self, path: str) -> None:
        found = re.fullmatch(r"(/upload)?/drive/v3/(about|files)(?:/([A-Za-z0-9_-]+))?", path)
        route = (self.command, *found.groups()) if found else None
        match route:
            case ("GET", None, "about", None):
                self.allow("about")
                self.done({"user": {"emailAddress": self.holder.account}})
            case ("GET", None, "files", "generateIds"):
                self.allow("ids")
                self.done({"ids": self.generated(int(self.query.get("count", "10"))), "space": "drive"})
            case ("GET", None, "files", None):
                self.allow("list")
                self.done(self.listed())
            case ("GET", None, "files", str(file_id)):
                self.allow("get")
                self.done(self.told(self.visible(file_id)))
            case ("POST", None, "files", None):
                self.allow("create")
                self.done(self.told(self.create_folder(self.metadata())))
            case ("PATCH", None, "files", str(file_id)):
                self.allow("update")
                self.done(self.told(self.update(self.visible(file_id), self.metadata())))
            case (("POST" | "PATCH"), "/upload", "files", file_id):
                self.allow("start")
                if self.query.get("uploadType") == "multipart":
                    self.whole(file_id)
                else:
                    self.start(file_id, self.metadata())
            case _:
                self.complain(f"{self.command} {path}")

    # What is said

    def complain(self, sentence: str) -> NoReturn:
        self.emulator.complaints.append(f"{sentence} ({self.command} {self.path})")
        raise _RefusedError(400, "complaint", sentence)

    def done(self, value: Any, headers: dict[str, str] | None = None) -> None:
        if self.fault == "lost":
            raise _HungUpError
        self.send(200, value, headers)

    def send(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        if self.unread:
            self.close_connection = True
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def read(self, size: int) -> bytes:
        piece = self.rfile.read(min(size, self.unread))
        self.unread -= len(piece)
        if not piece and self.unread:
            raise _HungUpError
        return piece

    def allow(self, call: str) -> None:
        if odd := set(self.query) - PARAMETERS[call]:
            self.complain(f"parameters {sorted(odd)}")
        if "supportsAllDrives" in PARAMETERS[call] and self.query.get("supportsAllDrives") != "true":
            self.complain("a call that leaves Shared Drives out")
        if call == "about" and "fields" not in self.query:
            self.complain("about wants fields")

    # Who asks

    def bearer(self) -> Holder:
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        with self.emulator.lock:
            holder = self.emulator.tokens.get(token)
        if holder is None:
            raise _RefusedError(401, "authError", "Invalid Credentials")
        return holder

    def token(self) -> None:
        form = {name: values[0] for name, values in parse_qs(self.read(self.unread).decode()).items()}
        grant = form.get("grant_type")
        if self.fault in ERRORS:
            return self.send(ERRORS[self.fault][0], {"error": "internal_failure"})
        if grant == "refresh_token":
            holder = self.refreshed(form)
        elif grant == "urn:ietf:params:oauth:grant-type:jwt-bearer":
            holder = self.signed(form.get("assertion", ""))
        elif grant == "authorization_code":
            holder = self.exchanged(form)
        elif grant == "urn:ietf:params:oauth:grant-type:device_code":
            holder = self.typed(form)
        else:
            self.complain(f"grant {grant}")
        if isinstance(holder, str):
            return self.send(OAUTH.get(holder, 400), {"error": holder})
        token = f"ya29.{secrets.token_urlsafe(24)}"
        with self.emulator.lock:
            self.emulator.tokens[token] = holder
            self.emulator.tokens_given += 1
        told: dict[str, Any] = {
            "access_token": token,
            "expires_in": 3599,
            "token_type": "Bearer",
            "scope": holder.scope,
        }
        if grant in ("authorization_code", "urn:ietf:params:oauth:grant-type:device_code"):
            told["refresh_token"] = REFRESH
        return self.done(told)

    def refreshed(self, form: dict[str, str]) -> Holder | str:
        if form.get("client_id") not in (CLIENT, DEVICE) or form.get("client_secret") != SECRET:
            return "invalid_client"
        if self.emulator.refresh_error or form.get("refresh_token") != REFRESH:
            return self.emulator.refresh_error or "invalid_grant"
        return Holder(USER, FILE)

    def signed(self, assertion: str) -> Holder | str:
        public = self.emulator.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        decode: Any = jwt.decode
        try:
            claims = decode(assertion, certs=public, audience="https://oauth2.googleapis.com/token")
        except Exception:  # noqa: BLE001 - whatever it is
            return "invalid_grant"
        if claims.get("scope") != FULL:
            return "invalid_scope"
        if "sub" in claims:
            return Holder(claims["sub"], FULL) if claims["sub"] in self.emulator.delegated else "unauthorized_client"
        return Holder(claims["iss"], FULL, service=True)

    def consent_page(self) -> None:
        asked = self.query
        redirect = urlsplit(asked.get("redirect_uri", ""))
        right = {
            "response_type": "code",
            "access_type": "offline",
            "prompt": "consent",
            "code_challenge_method": "S256",
        }
        if {name: asked.get(name) for name in right} != right or asked.get("scope") != FILE:
            self.complain(f"a question for consent with {sorted(asked.items())}")
        if redirect.hostname != "127.0.0.1" or len(asked.get("code_challenge", "")) != 43 or len(asked["state"]) < 20:
            self.complain("a question for consent that anybody could answer")
        if asked.get("client_id") != CLIENT:
            raise _RefusedError(401, "invalid_client")
        told = {"state": asked["state"], "error": "access_denied"}
        if self.emulator.consents:
            code = f"4/{secrets.token_urlsafe(12)}"
            self.emulator.codes[code] = asked
            told = {"state": asked["state"], "code": code, "scope": FILE}
        self.send(302, None, {"Location": f"{asked['redirect_uri']}?{urlencode(told)}"})

    def exchanged(self, form: dict[str, str]) -> Holder | str:
        asked = self.emulator.codes.pop(form.get("code", ""), None)
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT, SECRET):
            return "invalid_client"
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if asked is None or asked["redirect_uri"] != form.get("redirect_uri") or asked["code_challenge"] != challenge:
            return "invalid_grant"
        return Holder(USER, self.emulator.granted)

    def device_code(self) -> None:
        form = {name: values[0] for name, values in parse_qs(self.read(self.unread).decode()).items()}
        if form.get("client_id") != DEVICE:
            why = "Invalid client type." if form.get("client_id") == CLIENT else "The OAuth client was not found."
            return self.send(401, {"error": "invalid_client", "error_description": why})
        if form.get("scope") != FILE:
            return self.send(400, {"error": "invalid_scope"})
        device = Device(secrets.token_urlsafe(24), f"{secrets.token_hex(2)}-{secrets.token_hex(2)}".upper())
        self.emulator.devices[device.code] = device
        told = {"device_code": device.code, "user_code": device.typed, "expires_in": 1800, "interval": 5}
        return self.send(200, told | {"verification_url": "https://www.google.com/device"})

    def typed(self, form: dict[str, str]) -> Holder | str:
        if (form.get("client_id"), form.get("client_secret")) != (DEVICE, SECRET):
            return "invalid_client"
        device = self.emulator.devices.get(form.get("device_code", ""))
        if device is None:
            return "invalid_grant"
        device.asked += 1
        if device.asked == 2:
            return "slow_down"
        if device.decided is None:
            return "authorization_pending"
        del self.emulator.devices[device.code]
        return Holder(USER, self.emulator.granted) if device.decided == "allowed" else device.decided

    # Files and folders

    def generated(self, count: int) -> list[str]:
        if not 1 <= count <= 1000:
            self.complain(f"{count} ids")
        drawn = [secrets.token_urlsafe(24) for _ in range(count)]
        with self.emulator.lock:
            self.emulator.ids.update(drawn)
        return drawn

    def metadata(self) -> dict[str, Any]:
        if not self.headers.get("content-type", "").startswith("application/json"):
            self.complain("metadata that is not JSON")
        return self.checked(json.loads(self.read(self.unread)))

    def checked(self, told: dict[str, Any]) -> dict[str, Any]:
        if odd := set(told) - METADATA:
            self.complain(f"metadata {sorted(odd)}")
        for name, value in told.get("appProperties", {}).items():
            if len(f"{name}{value}".encode()) > 124:
                self.complain("a long property")
        return told

    def visible(self, file_id: str) -> Node:
        with self.emulator.lock:
            node = self.emulator.nodes.get(file_id)
        if node is None or not self.sees(node):
            raise _RefusedError(404, "notFound", f"File not found: {file_id}.")
        return node

    def sees(self, node: Node) -> bool:
        mine = self.role(node.drive) != "" if node.drive else node.owner == self.holder.account
        return mine and (self.holder.scope == FULL or node.app)

    def role(self, drive: str) -> str:
        return self.emulator.drives[drive].get(self.holder.account, "")

    def create_folder(self, told: dict[str, Any]) -> Node:
        if told.get("mimeType") != FOLDER:
            self.complain("a file without content")
        with self.emulator.lock:
            node = self.new_node(told)
            self.emulator.nodes[node.id] = node
        return node

    def new_node(self, told: dict[str, Any]) -> Node:
        """The lock is held."""
        emulator = self.emulator
        if told.get("id") not in emulator.ids:
            self.complain("an id that was not drawn")
        if told["id"] in emulator.nodes:
            raise _RefusedError(409, "fileIdInUse", "A file already exists with the provided ID.")
        parents = told.get("parents", [])
        above = self.visible(parents[0]) if parents else None
        drive = above.drive if above else None
        if drive and self.role(drive) == "reader":
            raise _RefusedError(403, "insufficientFilePermissions")
        if above and emulator.is_trashed(above):
            raise _RefusedError(404, "notFound", f"File not found: {above.id}.")
        return Node(
            told["id"],
            told["name"],
            told.get("mimeType", ""),
            self.holder.account,
            above.id if above else f"root of {self.holder.account}",
            drive,
            app=True,
            properties=told.get("appProperties", {}),
        )

    def update(self, node: Node, told: dict[str, Any]) -> Node:
        if set(told) & {"id", "parents"}:
            self.complain("an update of what cannot be updated")
        if "trashed" in told:
            if node.drive and self.role(node.drive) not in ("organizer", "fileOrganizer"):
                raise _RefusedError(403, "insufficientFilePermissions")
            node.trashed = told["trashed"]
        node.name = told.get("name", node.name)
        node.properties |= told.get("appProperties", {})
        return node

    def told(self, node: Node) -> dict[str, Any]:
        parent = node.parent if node.parent and not node.parent.startswith("root of") else f"0A-{self.holder.account}"
        every = {
            "id": node.id,
            "name": node.name,
            "mimeType": node.mime,
            "trashed": self.emulator.is_trashed(node),
            "parents": [parent],
            "driveId": node.drive,
            "size": None if node.size is None else str(node.size),
            "sha256Checksum": node.sha256 or None,
            "md5Checksum": node.md5 or None,
            "webViewLink": f"https://drive.google.com/file/d/{node.id}/view?usp=drivesdk",
        }
        wanted = self.query.get("fields", "id,name,mimeType").split(",")
        if odd := set(wanted) - set(every):
            self.complain(f"fields {sorted(odd)}")
        return {name: every[name] for name in wanted if every[name] is not None}

    def listed(self) -> dict[str, Any]:
        emulator, asked = self.emulator, self.query
        if asked.get("includeItemsFromAllDrives") != "true" or (asked.get("corpora") == "drive") != (
            "driveId" in asked
        ):
            self.complain("a list that leaves Shared Drives out")
        inner = re.fullmatch(r"nextPageToken,files\((.*)\)", asked.get("fields", ""))
        if not inner:
            self.complain(f"fields {asked.get('fields')}")
        matches = self.understood(asked["q"])
        now = time.monotonic()
        with emulator.lock:
            found = [
                node
                for node in emulator.nodes.values()
                if self.sees(node) and matches(node) and now - node.made >= emulator.lag
                and asked.get("driveId") in (None, node.drive)
            ]  # fmt: skip
        found.sort(key=lambda node: node.made)
        start = int(asked.get("pageToken", "page-0").removeprefix("page-"))
        stop = start + min(int(asked.get("pageSize", "100")), emulator.page)
        self.query = {"fields": inner[1]}
        page: dict[str, Any] = {"files": [self.told(node) for node in found[start:stop]]}
        return {**page, "nextPageToken": f"page-{stop}"} if stop < len(found) else page

    def understood(self, q: str) -> Callable[[Node], bool]:
        """The terms of a query that crosscut uses, all joined by `and`."""
        text = r"'((?:[^'\\]|\\[\\'])*)'"
        terms: list[tuple[str, Callable[..., Callable[[Node], bool]]]] = [
            (rf"{text} in parents", lambda v: lambda node: node.parent in (v, f"{v} of {self.holder.account}")),
            (rf"name = {text}", lambda v: lambda node: node.name == v),
            (rf"mimeType = {text}", lambda v: lambda node: node.mime == v),
            (r"trashed = false", lambda: lambda node: not self.emulator.is_trashed(node)),
            (rf"appProperties has {{ key={text} and value={text} }}", lambda k, v: lambda n: n.properties.get(k) == v),
        ]
        wanted: list[Callable[[Node], bool]] = []
        rest = q
        while True:
            for pattern, make in terms:
                if found := re.match(pattern, rest):
                    wanted.append(make(*(re.sub(r"\\(.)", r"\1", value) for value in found.groups())))
                    rest = rest[found.end() :]
                    break
            else:
                self.complain(f"the query {q}")
            if not rest:
                return lambda node: all(one(node) for one in wanted)
            if not rest.startswith(" and "):
                self.complain(f"the query {q}")
            rest = rest.removeprefix(" and ")

    # Uploads

    def start(self, file_id: str | None, told: dict[str, Any]) -> None:
        if self.query.get("uploadType") != "resumable" or not self.headers.get("x-upload-content-type"):
            self.complain("an upload of another kind")
        size = int(self.headers["x-upload-content-length"])
        session = self.begun(file_id, told, size)
        self.done(None, {"Location": f"{self.emulator.url}/session/{session.id}?upload_id=secret-{session.id}"})

    def begun(self, file_id: str | None, told: dict[str, Any], size: int) -> Session:
        with self.emulator.lock:
            if file_id is None:
                node = self.new_node(told)
            elif set(told) & {"id", "parents"}:
                self.complain("an update of what cannot be updated")
            else:
                node = self.update(self.visible(file_id), told)
            self.check_space(node, size)
            session = Session(secrets.token_urlsafe(16), node, file_id is not None, size, self.emulator.readable)
            self.emulator.sessions[session.id] = session
        return session

    def whole(self, file_id: str | None) -> None:
        """What is said of a file, and its bytes, in one body (RFC 2387)."""
        kind = re.fullmatch(r"multipart/related; boundary=(\w+)", self.headers.get("content-type", ""))
        if not kind:
            self.complain("a body of another kind")
        if self.unread > WHOLE + STEP:
            self.complain("more than 5 MB in one request")
        with self.busy():
            body, half = bytearray(), self.unread // 2
            while self.unread:
                if self.fault == "half" and len(body) >= half:
                    raise _HungUpError
                body += self.read(STEP)
        first = body.find(b"\r\n\r\n")
        second, last = body.find(b"\r\n\r\n", first + 4) + 4, f"\r\n--{kind[1]}--\r\n".encode()
        opened, kinds, text, mime = re.split(f"--{kind[1]}\r\n|\r\n\r\n", body[: second - 4].decode())
        told = self.checked(json.loads(text.removesuffix("\r\n")))
        if opened or not body.endswith(last) or "application/json" not in kinds or told["mimeType"] not in mime:
            self.complain("a body of other parts")
        with memoryview(body)[second : -len(last)] as data:
            session = self.begun(file_id, told, len(data))
            session.received = session.size
            session.keep(data)
        self.complete(session)
        self.done(self.told(session.node))

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Who sends a body."""
        with self.emulator.lock:
            self.emulator.at_once += 1
            self.emulator.most_at_once = max(self.emulator.most_at_once, self.emulator.at_once)
        try:
            yield
        finally:
            with self.emulator.lock:
                self.emulator.at_once -= 1

    def check_space(self, node: Node, size: int) -> None:
        if self.holder.service and not node.drive:
            raise _RefusedError(403, "storageQuotaExceeded", "Service Accounts do not have storage quota. Leverage …")
        used = sum(one.size or 0 for one in self.emulator.nodes.values() if not one.drive)
        if self.emulator.quota is not None and not node.drive and used + size > self.emulator.quota:
            raise _RefusedError(403, "storageQuotaExceeded", "The user's Drive storage quota has been exceeded.")

    def session(self) -> None:
        emulator = self.emulator
        with emulator.lock:
            session = emulator.sessions.get(self.url.path.removeprefix("/session/"))
            if session is None:
                raise _RefusedError(404, "notFound", "No such upload.")
            if session.busy:
                self.complain("two who send to one session at once")
            session.busy = True
        try:
            with self.busy():
                self.put(session)
        finally:
            with emulator.lock:
                session.busy = False
        self.state(session)

    def put(self, session: Session) -> None:
        if self.command != "PUT" or "upload_id" not in self.query:
            self.complain("a session is put to, under its whole URL")
        told = self.headers.get("content-range")
        if told == f"bytes */{session.size}" and not self.unread:
            return
        if session.done:
            self.complain("more for an upload that is done")
        self.check_range(session, told)
        self.take(session, self.unread)
        if session.kept == session.size:
            self.complete(session)

    def check_range(self, session: Session, told: str | None) -> None:
        if session.size == 0 and told is None and self.unread == 0:
            return
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", told or "")
        if not found:
            self.complain(f"the range {told} for {session.size} bytes")
        start, last, total = map(int, found.groups())
        if total != session.size or last - start + 1 != self.unread or last >= total:
            self.complain(f"the range {told} with {self.unread} of {session.size} bytes")
        if start != session.kept:
            self.complain(f"the range {told} where {session.kept} are kept")
        if last + 1 != total and self.unread % STEP:
            self.complain(f"{self.unread} bytes in the middle")

    def take(self, session: Session, size: int) -> None:
        forgets = {"none_kept": size, "some_kept": size - size // 2, "half": size - size // 2}
        wanted = size - forgets.get(self.fault, 0)
        taken = 0
        while self.unread:
            if self.fault == "half" and taken >= size // 2:
                raise _HungUpError
            piece = self.read(STEP)
            session.received += len(piece)
            taken += len(piece)
            if len(piece) < STEP and self.unread:
                raise _HungUpError
            if taken <= wanted:
                session.keep(piece)
        if self.fault == "half":
            raise _HungUpError

    def complete(self, session: Session) -> None:
        emulator, node = self.emulator, session.node
        with emulator.lock:
            if not session.replaces and node.id in emulator.nodes:
                raise _RefusedError(409, "fileIdInUse", "A file already exists with the provided ID.")
            node.size, node.data = session.size, bytes(session.data) if session.size <= session.readable else None
            node.sha256, node.md5 = session.sha256.hexdigest(), session.md5.hexdigest()
            if self.fault == "damage":
                node.sha256, node.data = hashlib.sha256(b"damaged").hexdigest(), b"damaged"
            node.revisions += 1
            emulator.nodes[node.id] = node
            session.done = True

    def state(self, session: Session) -> None:
        if session.done:
            self.query = {
                "fields": "id,name,mimeType,size,sha256Checksum,md5Checksum,webViewLink,trashed,parents,driveId"
            }
            return self.done(self.told(session.node))
        if self.fault == "lost":
            raise _HungUpError
        kept = {"Range": f"bytes=0-{session.kept - 1}"} if session.kept else {}
        return self.send(308, None, kept)
