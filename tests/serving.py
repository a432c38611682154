"""Servers for tests: `crosscut serve` as a process of its own, an engine inside the test, files over HTTP."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2

from crosscut.settings import Settings
from crosscut.standalone import open_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from crosscut.machine import Machine
    from crosscut.service import Service

T = TypeVar("T")

PATIENCE_SECONDS = 60.0
ENDED = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Server:
    """A running `crosscut serve`."""

    url: str
    folder: Path
    """Its working directory: the data are in `data`, the videos in `videos`, the log is `log`."""
    environment: dict[str, str]

    def command(self, *arguments: str) -> str:
        """What another `crosscut` command of the same machine prints."""
        call = [sys.executable, "-m", "crosscut", *arguments]
        done = subprocess.run(
            call,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ended(self, job: str) -> dict[str, Any]:
        """The status of the job once nothing happens to it any more."""

        def status() -> dict[str, Any] | None:
            told: dict[str, Any] = httpx2.get(f"{self.url}/jobs/{job}").json()
            return told if told["state"] in ENDED else None

        return eventually(status)


@contextlib.contextmanager
def serving(folder: Path, *, host: str = "127.0.0.1", allow: str = "", **settings: str) -> Iterator[Server]:
    """A server on a free port; `allow` are the private addresses it may fetch from, `settings` its variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CROSSCUT_")}
    environment = kept | {
        "CROSSCUT_DATA_DIR": str(folder / "data"),
        "CROSSCUT_FETCH_ALLOW": allow,
        "CROSSCUT_WORKERS": "1",
        "CROSSCUT_NETWORK_WORKERS": "4",
        "CROSSCUT_GRACE_SECONDS": "1",
        **{f"CROSSCUT_{name.upper()}": value for name, value in settings.items()},
    }
    call = [sys.executable, "-m", "crosscut", "serve", "--host", host, "--port", "0", "--to", "videos"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(call, cwd=folder, env=environment, stderr=log)
    try:
        yield Server(_address(folder, process), folder, environment)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    def announced() -> str | None:
        assert process.poll() is None, (folder / "log").read_text()
        with contextlib.suppress(OSError):
            url: str = json.loads((folder / "data" / "server.json").read_text())["url"]
            return url
        return None

    url = eventually(announced)

    def answers() -> bool:
        with contextlib.suppress(httpx2.HTTPError):
            return httpx2.get(f"{url}/livez").status_code == httpx2.codes.OK
        return False

    eventually(answers)
    return url


@contextlib.contextmanager
def machine(folder: Path, **settings: Any) -> Iterator[Machine]:
    """The engine inside this process, with its own worker processes; nothing may be fetched from private addresses."""
    chosen = Settings(
        data_dir=folder / "data", destination=str(folder / "videos"), workers=1, network_workers=4, **settings
    )
    (folder / "data").mkdir(parents=True)
    with open_machine(chosen, f"sqlite:///{folder / 'data' / 'state.sqlite'}", grace=1) as opened:
        yield opened


def uploaded(service: Service, path: Path, owner: str = "local") -> str:
    """The id of the file as an upload of that owner."""
    intake = service.intake(owner, path.name)
    intake.write(path.read_bytes())
    taken: str = intake.commit()["id"]
    return taken


def ended(service: Service, job: str) -> dict[str, Any]:
    """The status of the job once nothing happens to it any more."""

    def status() -> dict[str, Any] | None:
        told = service.status(job, None)
        return told if told["state"] in ENDED else None

    return eventually(status)


@contextlib.contextmanager
def files_served(folder: Path) -> Iterator[int]:
    """The port on loopback that serves the files of `folder`."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        """No lines between those of the tests."""


def eventually(look: Callable[[], T | None], seconds: float = PATIENCE_SECONDS) -> T:
    """What `look` answers as soon as it is true of something; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"not within {seconds:g} s"
        time.sleep(0.05)
    return found
