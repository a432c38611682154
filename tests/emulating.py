"""What the stand-ins for services have in common: a server on a thread that fails the test where a client errs."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import random
    from collections.abc import Callable


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    emulator: Any

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is what some tests are about."""


class Emulating:
    """Serves from `serve` to the end of the block; `complaints` are of what no client of ours may send."""

    complaints: list[str]
    script: list[tuple[str, str]]
    rate: float
    kinds: tuple[str, ...]
    chance: random.Random

    def due(self, operation: str) -> str:
        """The fault it is to meet: the first that `script` has for it (`*`: for any), else one of `kinds` at `rate`."""
        for index, (when, fault) in enumerate(self.script):
            if when in (operation, "*"):
                del self.script[index]
                return fault
        return self.chance.choice(self.kinds) if self.rate and self.chance.random() < self.rate else ""

    def serve(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self.lock = threading.RLock()
        self.closing = threading.Event()
        self.server = Server(("127.0.0.1", 0), handler)
        self.server.emulator = self
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
        assert kind is not None or not self.complaints, self.complaints

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


def wait_until(condition: Callable[[], Any], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.005)
