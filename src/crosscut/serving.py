"""The API on a socket, until the process is told to end."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import secrets
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import uvicorn

from crosscut import __version__
from crosscut.api.app import create_app
from crosscut.api.options import ApiOptions
from crosscut.client import SERVER_FILE
from crosscut.disk import storage_errors
from crosscut.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from crosscut.commons import Counts
    from crosscut.ports import Service
    from crosscut.tracing import Tracer

SWITCH_SECONDS = 0.001
"""How long one thread may keep the interpreter from the others: answers come first."""

HEADERS_SECONDS = 20
"""How long a connection may stay idle."""

MOST_CONNECTIONS = 1_000

GOODBYE_SECONDS = 2
"""How long open connections may go on when the server ends."""


@dataclass(frozen=True)
class Serving:
    host: str
    port: int
    """0: any that is free."""
    data_dir: Path
    auth: Literal["auto", "on", "off"]
    allowed_hosts: tuple[str, ...]
    requests_per_minute: int
    upload_bytes: int
    plan_wait: float


def run(
    service: Service,
    options: Serving,
    log: Any,
    *,
    keys: bool,
    tracer: Tracer | None = None,
    counts: Counts | None = None,
) -> None:
    """Answer until SIGTERM or SIGINT; `keys` says whether there is an API key by now."""
    auth = options.auth == "on" or (options.auth == "auto" and not _is_loopback(options.host))
    if auth and not keys:
        raise RequestError(
            f"{options.host} can be reached from outside and there is no API key yet: make one with"
            " crosscut keys create --owner NAME, or listen on 127.0.0.1",
            code="no_keys",
        )
    admin = secrets.token_urlsafe(32)
    sys.setswitchinterval(SWITCH_SECONDS)
    with _listening(options.host, options.port) as listener:
        port = listener.getsockname()[1]
        name = _name_of(options.host)
        url = f"http://{name}:{port}"
        app = create_app(
            service,
            ApiOptions(
                auth=auth,
                allowed_hosts=(name, *options.allowed_hosts),
                admin_token=admin,
                rate_per_minute=options.requests_per_minute,
                upload_bytes=options.upload_bytes,
                plan_wait=options.plan_wait,
                version=__version__,
            ),
            log,
            tracer,
            counts,
        )
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GOODBYE_SECONDS,
            timeout_keep_alive=HEADERS_SECONDS,
            limit_concurrency=MOST_CONNECTIONS,
            loop="uvloop",
            http="httptools",
        )
        with _announced(options.data_dir, url, admin):
            log.info("serving", url=url, auth=auth)
            # It ends by the signal that it was sent, once more; whoever sent it wanted this end.
            with contextlib.suppress(KeyboardInterrupt):
                uvicorn.Server(config).run(sockets=[listener])
            log.info("ending")


def _name_of(host: str) -> str:
    """What this machine's own programs call a server that listens there, as in addresses of the web."""
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        if address.is_unspecified:
            return "[::1]" if address.version == 6 else "127.0.0.1"
        return f"[{address}]" if address.version == 6 else str(address)
    return host or "127.0.0.1"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
        raise RequestError(f"cannot listen on {host}:{port}: {reason}", code="cannot_listen") from error
    with listener:
        yield listener


@contextlib.contextmanager
def _announced(folder: Path, url: str, admin: str) -> Iterator[None]:
    """Tell this machine's own command line where we are, and how to prove that it may manage keys."""
    path = folder / SERVER_FILE
    scratch = path.with_suffix(".new")
    with storage_errors():
        scratch.unlink(missing_ok=True)
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"url": url, "admin_token": admin, "pid": os.getpid()}, file)
        scratch.replace(path)
    try:
        yield
    finally:
        # Where it stays nobody believes it: our lock on the folder ends with us.
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
