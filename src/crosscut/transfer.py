"""One download over HTTP: tries, resumption, redirects, the clock, and the refusal of what is plainly not media."""

from __future__ import annotations

import hashlib
import random
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from html import unescape
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httpx2

from crosscut.errors import FetchError
from crosscut.guard import RefusedError, checked_url
from crosscut.links import PAGE, PERMISSION, LinkError, file_name
from crosscut.sniff import HEAD, WEB_PAGE, looks_like

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from typing import BinaryIO

    from crosscut.links import Place

    Progress = Callable[[int, int | None], None]
    """Bytes so far, and in all where the server says so."""
    Sign = Callable[[Place], str | None]
    """A short-lived URL for a private place; None without credentials for it."""

REDIRECTS = frozenset({301, 302, 303, 307, 308})
TRY_AGAIN = frozenset({408, 425, 429})
GONE = frozenset({404, 410})
PAGES = frozenset({200, 401, 403})
"""With these a page may come instead of a shared file, and say why."""

PROGRESS = 65_536
"""A broken transfer that got this much further starts its count of tries anew."""


@dataclass(frozen=True)
class FetchLimits:
    """Seconds, bytes, and bytes a second."""

    max_bytes: int = 2 << 30
    connect: float = 5
    first_byte: float = 15
    slowest: int = 10_000
    """Mean rate over `slow_window` below which a transfer is given up."""
    slow_window: float = 30
    total: float = 900
    redirects: int = 5
    tries: int = 4
    backoff: float = 0.5
    """First pause before another try; it doubles, up to `longest_pause`, which also caps a server's Retry-After."""
    longest_pause: float = 60
    trust: float = 3600
    """For how long bytes are taken without asking where the server gave no validator and would send them all again:
    long enough to plan, correct and render, short enough that a file replaced today is seen today."""


class Pace:
    """The clock of one fetch: it raises when the caller cancels, the time is up or the transfer crawls."""

    def __init__(self, label: str, limits: FetchLimits, cancelled: threading.Event) -> None:
        self._label = label
        self._limits = limits
        self._cancelled = cancelled

    def start(self) -> None:
        self._end = time.monotonic() + self._limits.total
        self.restart()

    def restart(self) -> None:
        """Begin a new window for the mean rate."""
        self._window = time.monotonic() + self._limits.slow_window
        self._received = 0

    def received(self, size: int) -> None:
        self._received += size

    def check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise FetchError(f"{self._label} was not fetched: the job was cancelled.", code="cancelled")

    def check(self) -> None:
        self.check_cancelled()
        now = time.monotonic()
        if now >= self._end:
            raise self._too_slow(f"was not finished within {self._limits.total / 60:g} minutes")
        if now >= self._window:
            if self._received < self._limits.slowest * self._limits.slow_window:
                raise self._too_slow(f"came slower than {self._limits.slowest / 1000:g} kB/s")
            self.restart()

    def pause(self, seconds: float) -> None:
        self._cancelled.wait(min(seconds, max(self._end - time.monotonic(), 0)))
        self.restart()
        self.check()

    def _too_slow(self, what: str) -> FetchError:
        return FetchError(f"{self._label} {what}; put it on a faster server.", code="too_slow", retryable=True)


class _AgainError(Exception):
    """One try failed in a way that another may not; `error` is for the last try."""

    def __init__(self, error: FetchError, pause: float | None = None) -> None:
        super().__init__(error.public)
        self.error = error
        self.pause = pause


class Transfer:
    """One download into `file`, over as many tries as it takes and may."""

    def __init__(
        self,
        client: httpx2.Client,
        place: Place,
        label: str,
        file: BinaryIO,
        *,
        limits: FetchLimits,
        pace: Pace,
        report: Progress,
        known: dict[str, Any] | None,
        sign: Sign,
    ) -> None:
        self._client = client
        self._place = place
        self._sign = sign
        self._label = label
        self._file = file
        self._limits = limits
        self._pace = pace
        self._report = report
        self._known = known
        self._size = 0
        self._begin({})

    def _begin(self, headers: dict[str, str]) -> None:
        """Forget the bytes so far: the body starts anew, as described by these headers."""
        if self._size:
            self._file.seek(0)
            self._file.truncate()
        self._digest = hashlib.sha256()
        self._size = 0
        self._total: int | None = None
        self._head = b""
        self._headers = headers

    def run(self) -> dict[str, Any] | None:
        """Return the note of the downloaded bytes, None when the server says that the known ones still hold."""
        failures, reached = 0, 0
        while True:
            try:
                return self._try_once()
            except _AgainError as trouble:
                if self._size >= reached + PROGRESS:
                    failures, reached = 0, self._size
                failures += 1
                if failures >= self._limits.tries:
                    raise trouble.error from trouble
                self._pace.pause(self._pause(failures, trouble.pause))

    def _pause(self, failures: int, asked: float | None) -> float:
        jitter = random.Random().uniform(0.5, 1)
        pause = asked if asked is not None else self._limits.backoff * 2 ** (failures - 1) * jitter
        return min(pause, self._limits.longest_pause)

    def _try_once(self) -> dict[str, Any] | None:
        try:
            return self._exchange()
        except (RefusedError, LinkError) as error:
            raise self._error(error.reason, error.code) from error
        except httpx2.ConnectError as error:
            raise self._again("cannot be reached; check its host name", "unreachable", error) from error
        except httpx2.TimeoutException as error:
            raise self._again("did not answer in time", "timeout", error) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            if self._size:
                raise self._again("broke off before its end", "truncated_download", error) from error
            raise self._again("gave an answer that is not proper HTTP", "bad_response", error) from error

    def _exchange(self) -> dict[str, Any] | None:
        response = self._open()
        try:
            if response.status_code == HTTPStatus.NOT_MODIFIED and self._known and not self._size:
                return None
            self._accept(response)
            for chunk in response.iter_raw():
                self._write(chunk)
        finally:
            response.close()
        if self._total is not None and self._size < self._total:
            raise self._again("broke off before its end", "truncated_download")
        if self._size <= HEAD:
            refuse_other(self._head, self._label, self._headers)
        return {
            "sha256": self._digest.hexdigest(),
            "size": self._size,
            "etag": self._headers.get("etag"),
            "last_modified": self._headers.get("last-modified"),
            "filename": file_name(self._headers.get("content-disposition", "")),
        }

    def _open(self) -> httpx2.Response:
        """Send the request and go where the answers point, each time through the same checks as the first URL."""
        url = self._address(self._place) or checked_url(self._place.url)
        for _ in range(self._limits.redirects + 1):
            request = self._client.build_request("GET", url, headers=self._conditions())
            response = self._client.send(request, stream=True)
            target = self._onward(response)
            if target is None:
                return response
            response.close()
            url = target
        raise self._error(
            f"redirects more than {self._limits.redirects} times; give the final link", "too_many_redirects"
        )

    def _address(self, place: Place) -> httpx2.URL | None:
        """Where to ask for `place`; None where it is private and cannot be signed for."""
        text = self._sign(place) if place.private else place.url
        return None if text is None else checked_url(text)

    def _onward(self, response: httpx2.Response) -> httpx2.URL | None:
        """Where an answer sends us; None where it is the last one."""
        url, target = response.request.url, response.headers.get("location")
        if response.status_code in REDIRECTS and target is not None:
            try:
                return checked_url(str(url.join(target)))
            except RefusedError as error:
                raise RefusedError(f"redirects to a link that {error.reason}", error.code) from error
        place = self._place.after(response.status_code, response.headers)
        address = place and self._address(place)
        if place and address:
            self._place = place
            return address
        if self._place.has_pages and response.status_code in PAGES and _is_page(response):
            return checked_url(self._place.past(str(url), self._page(response)))
        return None

    @staticmethod
    def _page(response: httpx2.Response) -> str:
        page = b""
        for chunk in response.iter_raw():
            page += chunk
            if len(page) >= PAGE:
                break
        return page.decode(errors="replace")

    def _conditions(self) -> dict[str, str]:
        etag = self._headers.get("etag", "")
        if self._size and _is_strong(etag):
            return {"Range": f"bytes={self._size}-", "If-Range": etag}
        if self._known and not self._size:
            wanted = {"If-None-Match": self._known["etag"], "If-Modified-Since": self._known["last_modified"]}
            return {name: value for name, value in wanted.items() if value}
        return {}

    def _accept(self, response: httpx2.Response) -> None:
        """Refuse the answer, or set the file to where its body goes on."""
        resumed = response.request.headers.get("range") is not None
        if response.status_code == HTTPStatus.PARTIAL_CONTENT and resumed:
            if not response.headers.get("content-range", "").startswith(f"bytes {self._size}-"):
                self._begin({})
                raise self._again("answered with another part than asked for", "bad_response")
        elif response.status_code == HTTPStatus.OK:
            self._begin(dict(response.headers))
        else:
            raise self._status_error(response, resumed=resumed)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise self._error("came compressed although we asked for the plain file", "bad_response")
        length = response.headers.get("content-length")
        self._total = None if length is None else self._size + int(length)
        if self._total is not None and self._total > self._limits.max_bytes:
            raise too_large(self._label, self._limits.max_bytes)

    def _status_error(self, response: httpx2.Response, *, resumed: bool) -> Exception:
        status = response.status_code
        if status in GONE:
            return self._error(f"was not found (HTTP {status}); check the link", "not_found")
        if status in PERMISSION:
            return self._error(self._place.closed(status), "not_permitted")
        if status in TRY_AGAIN or status >= 500:
            pause = retry_after(response.headers.get("retry-after"))
            return self._again(f"is not available now (HTTP {status})", "unavailable", pause=pause)
        if resumed and status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._begin({})
            return self._again("broke off before its end", "truncated_download")
        return self._error(f"gave an answer that is not a file (HTTP {status})", "bad_response")

    def _write(self, chunk: bytes) -> None:
        self._pace.received(len(chunk))
        before = self._size
        self._size += len(chunk)
        if self._size > self._limits.max_bytes:
            raise too_large(self._label, self._limits.max_bytes)
        if before < HEAD:
            self._head += chunk[: HEAD - before]
        if before <= HEAD < self._size:
            refuse_other(self._head, self._label, self._headers)
        self._file.write(chunk)
        self._digest.update(chunk)
        self._report(self._size, self._total)

    def _error(self, reason: str, code: str) -> FetchError:
        return FetchError(f"{self._label} {reason}.", code=code)

    def _again(self, reason: str, code: str, cause: Exception | None = None, pause: float | None = None) -> _AgainError:
        detail = "" if cause is None else f"{type(cause).__name__}: {cause}"
        return _AgainError(FetchError(f"{self._label} {reason}.", code=code, retryable=True, detail=detail), pause)


def refuse_other(head: bytes, label: str, headers: dict[str, str] | None = None) -> None:
    declared = (headers or {}).get("content-type", "").lower()
    kind = WEB_PAGE if declared.startswith("text/html") else looks_like(head)
    if kind is None:
        return
    title = re.search(rb"<title[^>]*>(.{1,300}?)</title", head, re.IGNORECASE | re.DOTALL)
    if title:
        words = " ".join(unescape(title[1].decode(errors="replace")).split())
        kind += f" titled “{shown(words, 80)}”"
    raise FetchError(f"{label} is {kind}, not video or sound; give the direct link to the file.", code="not_media")


def too_large(label: str, limit: int) -> FetchError:
    amount = f"{limit / (1 << 30):.3g} GiB" if limit >= 1 << 29 else f"{limit:,} bytes"
    return FetchError(f"{label} is larger than {amount}, the limit for a source.", code="source_too_large")


def _is_page(response: httpx2.Response) -> bool:
    plain = response.headers.get("content-encoding", "identity").lower() == "identity"
    return plain and response.headers.get("content-type", "").lower().startswith("text/html")


def _is_strong(etag: str) -> bool:
    """A weak validator must not be used in If-Range (RFC 9110, 13.1.5)."""
    return etag.startswith('"')


def retry_after(value: str | None) -> float | None:
    """Seconds to wait, from either form of RFC 9110, 10.2.3."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    with suppress(ValueError):
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    return None


def shown(text: str, most: int = 200) -> str:
    """Make a stranger's text fit for one line of a sentence."""
    clean = "".join(sign if sign.isprintable() else "�" for sign in text) or "(empty)"
    return clean if len(clean) <= most else f"{clean[: most - 1]}…"
