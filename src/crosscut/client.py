"""Speaks to a crosscut server: what `crosscut submit`, `jobs`, `watch`, `cancel` and `keys` do."""

from __future__ import annotations

import json
import re
import secrets
import time
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import httpx2
from filelock import FileLock, Timeout

from crosscut.errors import CrosscutError, RequestError, ServerError
from crosscut.guard import RefusedError, checked_url, redact
from crosscut.transfer import retry_after, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

SERVER_FILE = "server.json"
"""In the data folder while a server runs there: its `url`, `admin_token` and `pid`."""

STATE_LOCK = "state.lock"
"""In the data folder, held while a server runs there."""

ENDED = frozenset({"done", "failed", "cancelled"})
TRY_AGAIN = frozenset({408, 425, 429, 502, 503, 504})

SILENCE = 40.0
"""Seconds without a byte after which a connection is lost; a server's events are kept alive every 15 s."""

LONGEST_WAIT = 120.0
"""Seconds one call may be put off by a server that has too much to do."""

PAGE = 200
"""Jobs asked for at a time."""

SENTENCE = 1000
"""Most characters of a server's sentence that are shown."""

NO_SERVER = "no running crosscut was found: start one with crosscut serve, or name one with --server"


@dataclass(frozen=True)
class Address:
    """Where a server is, and the token to show there."""

    url: str
    token: str | None = field(repr=False)


class _BusyError(ServerError):
    """The server has not done it, and says when it would (HTTP 429)."""


def discover(server: str, api_key: str | None, data_dir: Path) -> Address:
    """The server that is named, else the one that runs with this data folder; ServerError when there is none.

    The latter's administrator token is shown to it alone, and only where there is no API key.
    """
    if server:
        return Address(server, api_key)
    found = running(data_dir)
    return replace(found, token=api_key or found.token)


def running(data_dir: Path) -> Address:
    """The server that runs with this data folder, and its administrator token; ServerError when there is none."""
    try:
        found = json.loads((data_dir / SERVER_FILE).read_text(encoding="utf-8"))
        if not _is_served(data_dir):  # the file is what a killed server left, and its port may be another's by now
            raise ServerError(f"{NO_SERVER}.", code="no_server")
        return Address(str(found["url"]), str(found["admin_token"]))
    except FileNotFoundError as error:
        raise ServerError(f"{NO_SERVER}.", code="no_server") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServerError(f"{SERVER_FILE} in the data folder cannot be read; {NO_SERVER}.", code="no_server") from error


def _is_served(data_dir: Path) -> bool:
    try:
        with FileLock(data_dir / STATE_LOCK, timeout=0, fallback_to_soft=False):
            return False
    except Timeout:
        return True


class Client:
    """One server, as the holder of `api_key` sees it; its refusals are raised as ServerError, with its sentence."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        patience: float = 60.0,
        pause: float = 1.0,
        silence: float = SILENCE,
        waiting: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        """`patience` is how many seconds `watch` waits for a server that went away, `pause` those between two looks.

        `waiting` is told for how many seconds a call is put off, where the server asks for that.
        """
        try:
            base = checked_url(url)
        except RefusedError as error:
            raise ServerError(f"{redact(url)} {error.reason}.", code="bad_server") from error
        self.label = redact(url).rstrip("/")
        self._patience = patience
        self._pause = pause
        self._waiting = waiting
        headers = {"Accept": "application/json", "User-Agent": f"crosscut/{version('crosscut')}"}
        if api_key:
            headers["Authorization"] = f"Bearer {_plain(api_key, 'CROSSCUT_API_KEY')}"
        timeout = httpx2.Timeout(silence, connect=5)
        self._http = httpx2.Client(base_url=base, headers=headers, timeout=timeout, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def check(self) -> None:
        """Raises ServerError, with the reasons, where the server can do no work."""
        self._ask("GET", "/readyz", needed="status")

    def submit(self, body: bytes, idempotency_key: str | None = None) -> dict[str, Any]:
        """What the server makes of a request: the job's `id`, how many `variations`, the `estimate` and `links`."""
        key = _plain(idempotency_key, "--idempotency-key") if idempotency_key else secrets.token_urlsafe(16)
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        return self._patiently(lambda: self._ask("POST", "/process_media", needed="id", content=body, headers=headers))

    def upload(self, path: Path) -> dict[str, Any]:
        """Send a file; the `id` that comes back stands for it in requests."""
        headers = {"Content-Type": "application/octet-stream"}
        parameters = {"name": path.name}

        def send() -> dict[str, Any]:
            with path.open("rb") as file:
                return self._ask("POST", "/sources", needed="id", params=parameters, content=file, headers=headers)

        try:
            return self._patiently(send)
        except OSError as error:
            raise RequestError(f"{shown(str(path))} cannot be read; check the path.", code="unreadable") from error

    def status(self, job: str) -> dict[str, Any]:
        return self._ask("GET", f"/jobs/{_id(job)}", needed="state")

    def jobs(self, state: str | None = None) -> Iterator[dict[str, Any]]:
        """The status of every job in `state`, the newest first, fetched page by page."""
        parameters = {"limit": str(PAGE)} | ({"state": state} if state else {})
        while True:
            page = self._patiently(lambda: self._ask("GET", "/jobs", needed="jobs", params=parameters))
            yield from page["jobs"]
            if not page.get("next"):
                return
            parameters["cursor"] = page["next"]

    def cancel(self, job: str) -> dict[str, Any]:
        path = f"/jobs/{_id(job)}/cancel"
        return self._patiently(lambda: self._ask("POST", path, needed="state"))

    def create_key(
        self, owner: str, name: str, replaces: str | None = None, overlap_seconds: float = 0
    ) -> tuple[str, str]:
        """Id and token of a new API key, told this once; the one it replaces goes on for the overlap.

        This, `list_keys` and `revoke_key` want the administrator's token.
        """
        body = {"owner": owner, "name": name, "replaces": replaces, "overlap_seconds": overlap_seconds}
        made = self._ask("POST", "/admin/keys", needed="token", json=body)
        return str(made["id"]), str(made["token"])

    def list_keys(self) -> list[dict[str, Any]]:
        return list(self._ask("GET", "/admin/keys", needed="keys")["keys"])

    def revoke_key(self, key: str) -> None:
        self._ask("DELETE", f"/admin/keys/{_id(key)}")

    def watch(self, job: str) -> Iterator[dict[str, Any]]:
        """The job's status, and again whenever it has changed, until it has ended.

        It comes from the server's events, taken up where they broke off; where none come through, the server is asked
        instead. A server that goes away in between is waited for.
        """
        known = None
        for status in self._looks(job):
            if status.get("version") != known:
                known = status.get("version")
                yield status
            if status["state"] in ENDED:
                return

    def _looks(self, job: str) -> Iterator[dict[str, Any]]:
        """The status as it is now, over and over."""
        events = _Events(self._http, f"/jobs/{_id(job)}/events")
        yield self.status(job)
        heard = time.monotonic()
        while True:
            pause = self._pause
            for status in events:
                heard = time.monotonic()
                yield status
            try:
                status = self.status(job)
            except ServerError as error:
                if not error.retryable or time.monotonic() - heard >= self._patience:
                    raise
                pause = max(pause, min(error.after or 0, self._patience))
            else:
                heard = time.monotonic()
                yield status
            time.sleep(pause)

    def _patiently(self, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `ask`, which may be repeated, answers; when the server is busy it is put off as the server says."""
        end = time.monotonic() + LONGEST_WAIT
        while True:
            try:
                return ask()
            except _BusyError as error:
                pause = max(1.0, error.after or 0)
                if time.monotonic() + pause > end:
                    raise
            self._waiting(pause)
            time.sleep(pause)

    def _ask(self, method: str, path: str, *, needed: str | None = None, **options: Any) -> dict[str, Any]:
        """The JSON object a request is answered with, which must hold `needed`."""
        try:
            response = self._http.request(method, path, **options)
        except httpx2.ConnectError as error:
            said = f"no crosscut answers at {self.label}: start one with crosscut serve."
            raise ServerError(said, code="unreachable", retryable=True, detail=str(error)) from error
        except httpx2.TimeoutException as error:
            said = f"{self.label} did not answer in time; try again."
            raise ServerError(said, code="timeout", retryable=True) from error
        except httpx2.HTTPError as error:
            said = f"{self.label} broke the connection off; try again."
            raise ServerError(said, code="broken_off", retryable=True, detail=str(error)) from error
        if not response.is_success:
            raise self._refusal(response)
        answer = _json_object(response)
        if needed is not None and needed not in answer:
            raise ServerError(f"{self.label} does not answer as crosscut does; check --server.", code="no_crosscut")
        return answer

    def _refusal(self, response: httpx2.Response) -> CrosscutError:
        """What the server says of why not, or what its status tells where it is no crosscut that speaks."""
        status = response.status_code
        problem = _json_object(response)
        said = problem.get("detail") or problem.get("title")
        if not isinstance(said, str):
            said = f"{self.label} answers HTTP {status}; check --server."
        kind = _BusyError if status == httpx2.codes.TOO_MANY_REQUESTS else ServerError
        return kind(
            shown(said, SENTENCE),
            code=str(problem.get("code", f"http_{status}")),
            retryable=status in TRY_AGAIN,
            after=retry_after(response.headers.get("retry-after")),
        )


@dataclass
class _Events:
    """What a job's events tell, each time from where they broke off; nothing (any more) where they do not come."""

    http: httpx2.Client
    path: str
    last: str = ""
    usable: bool = True

    def __iter__(self) -> Iterator[dict[str, Any]]:
        heard = False
        try:
            for status in self._stream() if self.usable else ():
                heard = True
                yield status
        except (httpx2.SSEError, ValueError):
            self.usable = False
        except httpx2.ReadTimeout:
            # Something in between may hold events back.
            self.usable = heard
        except httpx2.HTTPError:
            pass  # the connection was lost, and may be had again

    def _stream(self) -> Iterator[dict[str, Any]]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self.last:
            headers["Last-Event-ID"] = self.last
        with self.http.stream("GET", self.path, headers=headers) as response:
            if not response.is_success:
                self.usable = response.status_code in TRY_AGAIN
                return
            for event in httpx2.EventSource(response):
                self.last = event.id or self.last
                status = json.loads(event.data) if event.data else None
                if isinstance(status, dict) and "version" in status:
                    yield status


def _json_object(response: httpx2.Response) -> dict[str, Any]:
    """The object in an answer; empty where it is something else."""
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _id(text: str) -> str:
    """An id as part of a path; RequestError for what cannot be one."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", text):
        raise RequestError(f"“{shown(text, 60)}” is not an id.", code="no_such_id")
    return text


def _plain(text: str, name: str) -> str:
    """A value that may stand in a header; RequestError, which does not show it, for another."""
    if not re.fullmatch(r"[\x21-\x7e]{1,255}", text):
        raise RequestError(f"{name} must be plain letters, digits and marks, without spaces.", code="bad_header")
    return text
