"""The HTTP client for Google: guarded like any other, and broken off within a moment when its thread is not wanted.

HTTP/1.1 alone: a body is sent faster over a connection of its own than in the frames of a shared one.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpcore2
import httpx2

from crosscut.guard import PATIENCE, TICK, Guard

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterable, Iterator

TIMEOUT = httpx2.Timeout(60.0, connect=10.0, write=30.0)
"""Seconds; reading has the longest, as the answer to the last byte of a large file takes a while."""
SLICE = 1 << 18
"""Bytes written at a time; the slowest line takes so many within the time for writing, which begins anew then."""


class Wire:
    """Thread-safe; connections are kept open between requests, and closed with the last who uses this."""

    def __init__(self, urls: Iterable[str], timeout: httpx2.Timeout = TIMEOUT) -> None:
        """`urls` are of servers that settings name: they alone may be private, and on any port."""
        self._watches = _Watches()
        guard = _Dialler(allow=frozenset(map(_host, urls)), watch=self._watches.look)
        headers = {"User-Agent": f"crosscut/{version('crosscut')}"}
        self.http = httpx2.Client(transport=_Transport(guard), trust_env=False, timeout=timeout, headers=headers)
        self.close = weakref.finalize(self, self.http.close)

    @contextlib.contextmanager
    def watched(self, check: Callable[[], None]) -> Iterator[None]:
        """For the block, whatever this thread waits for here ends soon after `check` begins to raise."""
        before = self._watches.check
        self._watches.check = check
        try:
            yield
        finally:
            self._watches.check = before

    def look(self) -> None:
        """Raise if this thread is not wanted any more."""
        self._watches.look()

    def pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.look()
            time.sleep(min(left, TICK))
        self.look()


class _Watches(threading.local):
    """What each thread looks at while it waits."""

    check: Callable[[], None] | None = None

    def look(self) -> None:
        if self.check is not None:
            self.check()


def _host(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


class _Transport(httpx2.HTTPTransport):
    """httpx2's own over a pool that dials through the guard, for which it has no argument."""

    def __init__(self, guard: Guard) -> None:
        self._pool = httpcore2.ConnectionPool(network_backend=guard, keepalive_expiry=30.0)


class _Dialler(Guard):
    """The guard, whose connections look at the watch while they write, too."""

    def __init__(self, *, allow: frozenset[tuple[str, int]], watch: Callable[[], None]) -> None:
        super().__init__(allow=allow, watch=watch)
        self._look = watch

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        return Line(super().connect_tcp(host, port, timeout, local_address, socket_options), self._look)


class Line(httpcore2.NetworkStream):
    """A connection that calls `look` while it writes."""

    def __init__(self, inner: httpcore2.NetworkStream, look: Callable[[], None]) -> None:
        self._inner = inner
        self._look = look

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        line: socket.socket = self._inner.get_extra_info("socket")
        line.settimeout(TICK)
        rest, end = memoryview(buffer), time.monotonic() + (timeout or PATIENCE)
        while rest:
            self._look()
            try:
                # TLS goes on with what it has begun, as it is given the same bytes again after a timeout.
                sent = line.send(rest[:SLICE])
            except TimeoutError:
                if time.monotonic() >= end:
                    raise httpcore2.WriteTimeout("the other side does not take anything") from None
            except OSError as error:
                raise httpcore2.WriteError(str(error)) from error
            else:
                rest, end = rest[sent:], time.monotonic() + (timeout or PATIENCE)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return Line(self._inner.start_tls(ssl_context, server_hostname, timeout), self._look)

    def get_extra_info(self, info: str) -> object:
        return self._inner.get_extra_info(info)
