from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpcore2
import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosscut.guard import NOT_PUBLIC, Guard, RefusedError, checked_url, guarded_client, is_public, redact

if TYPE_CHECKING:
    import ipaddress
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

PUBLIC = "93.184.215.14"


class Listener:
    """A TCP listener on both loopbacks that counts who comes; `talk` answers, else the peer is left waiting."""

    def __init__(self, talk: Callable[[socket.socket], None] | None = None) -> None:
        self.contacts = 0
        self._talk = talk
        self._peers: list[socket.socket] = []
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self.port: int = self._sockets[0].getsockname()[1]
        if socket.has_ipv6:
            self._sockets.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))
        self._threads = [threading.Thread(target=self._accept, args=(each,), daemon=True) for each in self._sockets]
        for thread in self._threads:
            thread.start()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                peer, _ = listening.accept()
            except OSError:
                return
            self.contacts += 1
            self._peers.append(peer)
            if self._talk is not None:
                self._talk(peer)

    def close(self) -> None:
        for each in self._sockets:
            each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(5)
        for peer in self._peers:
            peer.close()


@contextmanager
def listening(talk: Callable[[socket.socket], None] | None = None) -> Iterator[Listener]:
    listener = Listener(talk)
    try:
        yield listener
    finally:
        listener.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as it:
        yield it


class Detour(httpcore2.SyncBackend):
    """Stands for the internet: notes which address is dialled and connects to this machine instead."""

    def __init__(self, dead: Iterable[str] = ()) -> None:
        self.dialled: list[str] = []
        self._dead = set(dead)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        self.dialled.append(host)
        if host in self._dead:
            raise httpcore2.ConnectError("dead")
        return super().connect_tcp("127.0.0.1", port, timeout, local_address, socket_options)


EMBEDDED = [
    "::ffff:{}",
    "::{}",
    "64:ff9b::{}",
    "64:ff9b:1::{}",
    "2001:db8::5efe:{}",
    "2600:1::5efe:{}",
    "2600:1::200:5efe:{}",
]

NEVER_PUBLIC = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.1.1", "100.64.0.1"),
    *("0.0.0.0", "0.1.2.3", "192.0.0.8", "192.0.0.170", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.88.99.1"),
    *("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16"),
    *("::1", "::", "2002:7f00:1::", "2001:0:7f00:1::", "fec0::1", "fe80::1%lo", "fc00::1", "ff02::1", "ff0e::1"),
    *("2001:db8::1", "3fff::1", "100::1", "5f00::1", "64:ff9b:1:7f00:1::"),
    *(form.format("127.0.0.1") for form in EMBEDDED),
    *(form.format("168.63.129.16") for form in EMBEDDED),
]


@pytest.mark.parametrize("address", NEVER_PUBLIC)
def test_local_and_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", PUBLIC, "2606:4700::1111", "2a00:1450:4001::200e", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"]
)
def test_ordinary_addresses_are_public(address: str) -> None:
    assert is_public(address)


@settings(deadline=None, max_examples=200)
@given(st.ip_addresses(v=4), st.sampled_from(EMBEDDED))
def test_embedding_an_address_never_makes_it_public(address: ipaddress.IPv4Address, form: str) -> None:
    assert not is_public(form.format(address)) or is_public(str(address))


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(NOT_PUBLIC), st.integers(min_value=0))
def test_no_address_of_a_special_network_is_public(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network, number: int
) -> None:
    assert not is_public(str(network[number % network.num_addresses]))


SPELLINGS = [
    *("127.0.0.1", "localhost", "127.1", "0", "0.0.0.0", "2130706433", "0x7f000001", "0x7f.0.0.1", "017700000001"),
    *("0177.0.0.1", "①②⑦.⓪.⓪.①", "::1", "::", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"),
]


@pytest.mark.parametrize("host", SPELLINGS)
def test_no_spelling_of_the_own_machine_is_contacted(host: str, listener: Listener) -> None:
    guard = Guard(ports=frozenset({listener.port}))
    with pytest.raises((RefusedError, httpcore2.ConnectError)) as caught:
        guard.connect_tcp(host, listener.port, timeout=2)
    if isinstance(caught.value, RefusedError):
        assert caught.value.code == "address_not_allowed"
    assert listener.contacts == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]", "localhost"])
def test_the_client_passes_the_guard(host: str, listener: Listener) -> None:
    guard = Guard(ports=frozenset({listener.port}))
    with guarded_client(guard, httpx2.Timeout(2), {}) as client, pytest.raises(RefusedError, match="not public"):
        client.get(f"http://{host}:{listener.port}/")
    assert listener.contacts == 0


def test_one_private_answer_refuses_the_name() -> None:
    dialler = Detour()
    guard = Guard(resolver=lambda _host, _port: [PUBLIC, "10.0.0.1"], dialler=dialler)
    with pytest.raises(RefusedError, match="not public"):
        guard.connect_tcp("example.com", 80, timeout=2)
    assert dialler.dialled == []


def test_a_name_that_changes_after_the_check_gains_nothing(listener: Listener) -> None:
    answers = iter([[PUBLIC], ["127.0.0.1"]])
    dialler = Detour()
    guard = Guard(ports=frozenset({listener.port}), resolver=lambda _host, _port: next(answers), dialler=dialler)
    guard.connect_tcp("rebind.example", listener.port, timeout=2).close()
    assert dialler.dialled == [PUBLIC], "the checked address is dialled, from one look-up"
    with pytest.raises(RefusedError):
        guard.connect_tcp("rebind.example", listener.port, timeout=2)
    assert dialler.dialled == [PUBLIC]


def failing(_host: str, _port: int) -> list[str]:
    raise socket.gaierror(socket.EAI_AGAIN, "temporary failure")


@pytest.mark.parametrize("resolver", [failing, lambda _host, _port: []])
def test_a_failed_look_up_never_skips_the_check(resolver: Callable[[str, int], list[str]]) -> None:
    dialler = Detour()
    with pytest.raises(httpcore2.ConnectError):
        Guard(resolver=resolver, dialler=dialler).connect_tcp("example.com", 80, timeout=2)
    assert dialler.dialled == []


def test_the_next_address_is_tried_when_one_is_dead(listener: Listener) -> None:
    dialler = Detour(dead=["2606:4700::1111"])
    guard = Guard(
        ports=frozenset({listener.port}), resolver=lambda _host, _port: ["2606:4700::1111", PUBLIC], dialler=dialler
    )
    guard.connect_tcp("example.com", listener.port, timeout=2).close()
    assert dialler.dialled == ["2606:4700::1111", PUBLIC]


@pytest.mark.parametrize("port", [22, 25, 6379, 9200, 8000])
def test_other_ports_are_refused_before_any_look_up(port: int) -> None:
    looked_up: list[str] = []

    def resolver(host: str, _port: int) -> list[str]:
        looked_up.append(host)
        return [PUBLIC]

    with pytest.raises(RefusedError, match=f"port {port}") as caught:
        Guard(resolver=resolver).connect_tcp("example.com", port, timeout=2)
    assert caught.value.code == "port_not_allowed"
    assert looked_up == []


def test_the_allow_list_lets_exactly_one_host_and_port_through(listener: Listener) -> None:
    guard = Guard(allow=frozenset({("localhost", listener.port)}))
    guard.connect_tcp("localhost", listener.port, timeout=2).close()
    for host in ("127.0.0.1", "localhost.", "localhost.example"):
        with pytest.raises((RefusedError, httpcore2.ConnectError)):
            guard.connect_tcp(host, listener.port, timeout=2)
    with pytest.raises(RefusedError):
        guard.connect_tcp("localhost", 80, timeout=2)
    time.sleep(0.05)
    assert listener.contacts == 1


class StopError(Exception):
    pass


@pytest.mark.parametrize("hanging", ["look-up", "read", "handshake"])
def test_the_watch_ends_every_wait_within_a_second(hanging: str, listener: Listener) -> None:
    stop, release = threading.Event(), threading.Event()

    def watch() -> None:
        if stop.is_set():
            raise StopError

    def resolver(_host: str, _port: int) -> list[str]:
        if hanging == "look-up":
            release.wait(10)
        return ["127.0.0.1"]

    def talk() -> None:
        stream = guard.connect_tcp("slow.example", listener.port, timeout=1)
        try:
            if hanging == "handshake":
                stream.start_tls(ssl.create_default_context(), "slow.example", timeout=1)
            stream.read(1, timeout=20)
        finally:
            stream.close()

    guard = Guard(allow=frozenset({("slow.example", listener.port)}), resolver=resolver, watch=watch)
    threading.Timer(0.1, stop.set).start()
    began = time.monotonic()
    with pytest.raises(StopError):
        talk()
    release.set()
    assert time.monotonic() - began < 1


def test_silence_is_a_timeout(listener: Listener) -> None:
    guard = Guard(allow=frozenset({("localhost", listener.port)}))
    stream = guard.connect_tcp("localhost", listener.port, timeout=2)
    with pytest.raises(httpcore2.ReadTimeout):
        stream.read(1, timeout=0.1)
    stream.close()


def test_a_self_signed_certificate_is_refused(tmp_path: Path) -> None:
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    try:
        subprocess.run(
            [*command, "-keyout", tmp_path / "key", "-out", tmp_path / "cert"], check=True, capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("no openssl command on this system")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")

    def shake_hands(peer: socket.socket) -> None:
        with pytest.raises(OSError):
            context.wrap_socket(peer, server_side=True).close()

    with listening(shake_hands) as server:
        guard = Guard(allow=frozenset({("localhost", server.port)}))
        with guarded_client(guard, httpx2.Timeout(5), {}) as client, pytest.raises(RefusedError) as caught:
            client.get(f"https://localhost:{server.port}/")
    assert caught.value.code == "tls"
    assert "self-signed certificate" in caught.value.reason


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("file:///etc/passwd", "scheme_not_allowed"),
        ("gopher://example.com/", "scheme_not_allowed"),
        ("ftp://example.com/a.mp4", "scheme_not_allowed"),
        ("data:video/mp4;base64,AAAA", "scheme_not_allowed"),
        ("concat:a|b", "scheme_not_allowed"),
        ("subfile,,start,0,end,0,,:a.mp4", "scheme_not_allowed"),
        ("rtmp://example.com/a", "scheme_not_allowed"),
        ("udp://example.com:1", "scheme_not_allowed"),
        ("pipe:0", "scheme_not_allowed"),
        ("//example.com/a", "scheme_not_allowed"),
        (" http://example.com/", "bad_url"),
        ("http://example.com/\n", "bad_url"),
        ("http://exam\tple.com/", "bad_url"),
        ("http://example.com/\r\nX: 1", "bad_url"),
        ("http://127.0.0.1\\@example.com/", "bad_url"),
        ("http://user:secret@example.com/", "credentials_in_url"),
        ("http://example.com@127.0.0.1/", "credentials_in_url"),
        ("http://%31%32%37.0.0.1/", "bad_url"),
        ("http://[fe80::1%25lo]/", "bad_url"),
        ("http://①②⑦.⓪.⓪.①/", "bad_url"),
        ("http:///a.mp4", "bad_url"),
        ("http://", "bad_url"),
        ("http://example.com:99999/", "bad_url"),
        ("http://example.com:x/", "bad_url"),
        ("http://-option/", "bad_url"),
        ("http://exam ple.com/", "bad_url"),
    ],
)
def test_what_is_no_plain_web_link_is_refused(text: str, code: str) -> None:
    with pytest.raises(RefusedError) as caught:
        checked_url(text)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("text", "requested"),
    [
        ("HTTP://Example.COM/A.mp4", "http://example.com/A.mp4"),
        ("https://example.com/a b.mp4?x=1#part", "https://example.com/a%20b.mp4?x=1"),
        ("https://bücher.example/ä.mp4", "https://xn--bcher-kva.example/%C3%A4.mp4"),
        ("http://[2606:4700::1111]:8080/", "http://[2606:4700::1111]:8080/"),
        ("https://my_bucket.example/x", "https://my_bucket.example/x"),
    ],
)
def test_a_web_link_is_brought_to_one_spelling(text: str, requested: str) -> None:
    assert str(checked_url(text)) == requested


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://cdn.example/a.mp4?X-Amz-Signature=secret#secret", "https://cdn.example/a.mp4"),
        ("https://user:secret@cdn.example:8443/a b.mp4", "https://cdn.example:8443/a b.mp4"),
        ("https://user:sec/ret@cdn.example/", "(unreadable URL)"),
        ("http://[::1]:8080/x?secret", "http://[::1]:8080/x"),
        ("https://cdn.example/a%0Ab", "https://cdn.example/a�b"),
        ("secret", "(unreadable URL)"),
        ("gs://my_bucket/a/My clip%20(1).mp4", "gs://my_bucket/a/My clip%20(1).mp4"),
        ("S3://bucket/a\u202eb.mp4", "s3://bucket/a�b.mp4"),
        ("gs://bucket/a.mp4?X-Goog-Signature=secret#secret", "gs://bucket/a.mp4"),
        ("s3://user:secret@bucket/a.mp4", "s3://bucket/a.mp4"),
    ],
)
def test_a_shown_url_holds_no_secret(url: str, shown: str) -> None:
    assert redact(url) == shown


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=40))
def test_any_text_can_be_shown_on_one_line(text: str) -> None:
    for url in (text, f"https://h.example/{text}", f"https://h.example/?{text}", f"gs://bucket/{text}"):
        shown = redact(url)
        assert shown.isprintable()
        assert len(shown) <= 200
