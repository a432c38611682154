"""Which URLs and addresses may be dialled: checked at connect time, on the very addresses that are then used.

A check of the host's text is worthless (`127.1`, `0x7f000001` and any name under a stranger's control lead to
127.0.0.1), and a look-up before the request may differ from the one that connects. So the guard is the network
backend of the HTTP client: it resolves a name once, refuses it unless every answer is public, and dials only those
answers. Every redirect passes it as well.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
from concurrent.futures import Future, wait
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

import httpcore2
import httpx2

from crosscut.links import LinkError, object_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Resolver = Callable[[str, int], list[str]]
    """Host and port to numeric addresses; raises OSError when there is no answer."""

T = TypeVar("T")

USUAL_PORTS = frozenset({80, 443, 8080, 8443})

TICK = 0.25
"""Seconds between two looks at the watch while the network is silent."""

PATIENCE = 60.0
"""Seconds for a step that comes without a timeout."""

NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        # IANA IPv4 special-purpose registry, and what clouds route to themselves.
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # Azure's host agent, in public space
        # Inside 2000::/3: protocol assignments with Teredo, documentation, 6to4.
        *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
)
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""The only part of IPv6 that IANA gives to the public internet; the rest is local, multicast or a transition scheme."""

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: how an IPv6-only network reaches the IPv4 internet."""

ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""RFC 5214, 6.1: the upper half of an interface identifier that carries an IPv4 address."""

HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?|[0-9a-f:]*:[0-9a-f:.]*")


class RefusedError(Exception):
    """What we decline to dial. `reason` continues a sentence that begins with the source: "leads to ..."."""

    def __init__(self, reason: str, code: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


def is_public(address: str) -> bool:
    """Whether a numeric address belongs to the public internet, also behind the IPv4 it may embed.

    Embedded IPv4 counts for mapped and NAT64 addresses, which working networks use; other tunnels are refused whole.
    """
    ip = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        elif ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip not in GLOBAL_UNICAST or (int(ip) >> 32) & 0xFFFFFFFF in ISATAP:
            return False
    return ip.is_global and not any(ip in network for network in NOT_PUBLIC)


def resolve(host: str, port: int) -> list[str]:
    """Return all numeric addresses of `host`, in the system's order of preference."""
    return [str(answer[4][0]) for answer in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def checked_url(text: str) -> httpx2.URL:
    """Parse a URL that may be requested; RefusedError for other schemes, credentials and oddities."""
    if text != text.strip() or "\\" in text or any(not sign.isprintable() for sign in text):
        raise RefusedError("is not a valid URL; remove spaces around it, backslashes and control characters", "bad_url")
    try:
        url = httpx2.URL(text)
        host = url.raw_host.decode("ascii")
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise RefusedError("is not a valid URL; check how it is spelled", "bad_url") from error
    if url.scheme not in ("http", "https"):
        raise RefusedError("is not a web link; only http and https can be fetched", "scheme_not_allowed")
    if url.userinfo:
        raise RefusedError("holds a user name or password; give a link without them", "credentials_in_url")
    if not HOST.fullmatch(host.lower()) or not 0 < (url.port or 80) < 65_536:
        raise RefusedError("is not a valid URL; check its host and port", "bad_url")
    return url.copy_with(fragment=None)


def redact(url: str) -> str:
    """Return scheme, host and path: what a sentence or a log may show of a URL, whose query is often a key."""
    with suppress(LinkError):
        name = object_name(url)
        if name:
            return _on_one_line(str(name))
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        return "(unreadable URL)"
    if not parsed.host:
        return "(unreadable URL)"
    port = "" if parsed.port is None else f":{parsed.port}"
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
    return _on_one_line(f"{parsed.scheme}://{host}{port}{parsed.path}")


def _on_one_line(text: str) -> str:
    shown = "".join(sign if sign.isprintable() else "�" for sign in text)
    return shown if len(shown) <= 200 else f"{shown[:199]}…"


def guarded_client(guard: Guard, timeout: httpx2.Timeout, headers: dict[str, str]) -> httpx2.Client:
    """Return a client whose every connection passes `guard`. It follows no redirects: their targets want a check too.

    No proxy from the environment: it would look names up where the guard cannot see.
    """
    return httpx2.Client(transport=_Transport(guard), trust_env=False, timeout=timeout, headers=headers)


class _Transport(httpx2.HTTPTransport):
    """httpx2's own transport over a pool that dials through the guard, for which it has no argument.

    The trusted certificates are loaded when the first https connection needs them.
    """

    def __init__(self, guard: Guard) -> None:
        self._pool = httpcore2.ConnectionPool(network_backend=guard, http2=True)


class Guard(httpcore2.NetworkBackend):
    """Dials public addresses on allowed ports only; `watch` is called every `TICK` and may raise to break off."""

    def __init__(
        self,
        *,
        allow: frozenset[tuple[str, int]] = frozenset(),
        ports: frozenset[int] = USUAL_PORTS,
        resolver: Resolver = resolve,
        dialler: httpcore2.NetworkBackend | None = None,
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        """`allow` names (host, port) pairs, spelled as in the URL, that may be private and on any port."""
        self._allow = allow
        self._ports = ports
        self._resolver = resolver
        self._watch = watch
        self._dialler = dialler or httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        seconds = timeout or PATIENCE
        addresses = self._addresses(host, port, seconds)
        end = time.monotonic() + seconds
        for position, address in enumerate(addresses, 1):
            left = max(end - time.monotonic(), TICK)
            share = left if position == len(addresses) else left / 2
            try:
                return self._dial(address, port, share, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if position == len(addresses):
                    raise
        raise httpcore2.ConnectError(f"{host}: no address")

    def _addresses(self, host: str, port: int, seconds: float) -> list[str]:
        known = (host.lower(), port) in self._allow
        if port not in self._ports and not known:
            ports = ", ".join(str(usual) for usual in sorted(self._ports))
            raise RefusedError(
                f"uses port {port}; use {ports}, or let {host}:{port} through with CROSSCUT_FETCH_ALLOW",
                "port_not_allowed",
            )
        try:
            addresses = _in_background(lambda: self._resolver(host, port), self._watch, seconds)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"{host}: {error}") from error
        if not known and not all(is_public(address) for address in addresses):
            raise RefusedError(
                "leads to an address that is not public; give a link that anyone on the internet can open, "
                "or let the host through with CROSSCUT_FETCH_ALLOW",
                "address_not_allowed",
            )
        return list(dict.fromkeys(addresses))

    def _dial(
        self,
        address: str,
        port: int,
        seconds: float,
        local_address: str | None,
        options: Iterable[httpcore2.SOCKET_OPTION] | None,
    ) -> httpcore2.NetworkStream:
        def dial() -> httpcore2.NetworkStream:
            return self._dialler.connect_tcp(address, port, seconds, local_address, options)

        stream = _in_background(dial, self._watch, seconds + 1, discard=_close)
        return _WatchedStream(stream, self._watch)


class _WatchedStream(httpcore2.NetworkStream):
    """A connection that looks at the watch while it waits."""

    def __init__(self, inner: httpcore2.NetworkStream, watch: Callable[[], None]) -> None:
        self._inner = inner
        self._watch = watch

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        end = time.monotonic() + (timeout or PATIENCE)
        while True:
            self._watch()
            try:
                return self._inner.read(max_bytes, TICK)
            except httpcore2.ReadTimeout:
                if time.monotonic() >= end:
                    raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        def shake_hands() -> httpcore2.NetworkStream:
            return self._inner.start_tls(ssl_context, server_hostname, timeout)

        try:
            secured = _in_background(shake_hands, self._watch, (timeout or PATIENCE) + 1, discard=_close)
        except httpcore2.ConnectError as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                reason = f"has no valid certificate ({error.__cause__.verify_message.rstrip('.')})"
                raise RefusedError(reason, "tls") from error
            raise
        return _WatchedStream(secured, self._watch)

    def get_extra_info(self, info: str) -> object:
        return self._inner.get_extra_info(info)


def _in_background(
    operation: Callable[[], T], watch: Callable[[], None], seconds: float, discard: Callable[[T], None] | None = None
) -> T:
    """Run an operation that cannot be interrupted; leave it behind when the watch raises or the time is up.

    A result that comes too late goes to `discard`.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(operation())
        except BaseException as error:  # noqa: BLE001  # handed over to the waiting thread as it is
            future.set_exception(error)

    def drop(late: Future[T]) -> None:
        if discard is not None and late.exception() is None:
            discard(late.result())

    Thread(target=run, daemon=True).start()
    try:
        _wait_for(future, watch, seconds)
    except BaseException:
        future.add_done_callback(drop)
        raise
    return future.result()


def _wait_for(future: Future[T], watch: Callable[[], None], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not wait((future,), TICK).done:
        watch()
        if time.monotonic() >= end:
            raise httpcore2.ConnectTimeout("no answer in time")


def _close(stream: httpcore2.NetworkStream) -> None:
    stream.close()
