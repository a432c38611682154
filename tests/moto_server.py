"""S3 on a socket: moto in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MOTO = """
import logging, threading
from moto.server import ThreadedMotoServer
logging.disable()
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
threading.Event().wait()
"""


@contextmanager
def running() -> Iterator[str]:
    """The URL of its endpoint."""
    server = subprocess.Popen([sys.executable, "-c", MOTO], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.kill()
        server.communicate()


def emptied(url: str, bucket: str) -> None:
    """Forget everything and make that bucket."""
    for method, path in (("POST", "moto-api/reset"), ("PUT", bucket)):
        urllib.request.urlopen(urllib.request.Request(f"{url}/{path}", method=method)).close()
