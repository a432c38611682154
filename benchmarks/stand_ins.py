"""The emulators of the tests in processes of their own, so that what they cost is not counted as a client's."""

from __future__ import annotations

import multiprocessing
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

TESTS = Path(__file__).parent.parent / "tests"


@dataclass(frozen=True)
class StandIn:
    url: str
    key: str
    """Of a service account for the bucket; of a person for Drive, as `crosscut auth google` stores it."""
    pipe: Connection

    def bytes_in(self) -> int:
        """All that came in as bodies of requests so far."""
        self.pipe.send("bytes")
        count: int = self.pipe.recv()
        return count


@contextmanager
def bucket() -> Iterator[StandIn]:
    """Cloud Storage with a bucket `bucket` that keeps sizes and checksums of objects, and none of their bytes."""
    with _running(_bucket) as stand_in:
        yield stand_in


@contextmanager
def drive() -> Iterator[StandIn]:
    with _running(_drive) as stand_in:
        yield stand_in


@contextmanager
def _running(serve: Any) -> Iterator[StandIn]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    url, key = ours.recv()
    try:
        yield StandIn(url, key, ours)
    finally:
        ours.send("end")
        process.join()
    assert process.exitcode == 0, "a client has sent what it must not"


def _bucket(pipe: Connection) -> None:
    sys.path.insert(0, str(TESTS))
    from gcs_emulator import Emulator  # noqa: PLC0415 - found now

    with Emulator(keep=False) as emulator:
        pipe.send((emulator.url, emulator.service_account))
        while pipe.recv() != "end":
            pipe.send(emulator.bytes_in)


def _drive(pipe: Connection) -> None:
    sys.path.insert(0, str(TESTS))
    import json  # noqa: PLC0415

    from drive_emulator import Emulator  # noqa: PLC0415 - found now
    from drive_model import CLIENT, REFRESH, SECRET, USER  # noqa: PLC0415

    facts = {"account": USER, "client_id": CLIENT, "client_secret": SECRET, "refresh_token": REFRESH}
    with Emulator(readable=0) as emulator:
        pipe.send((emulator.url, json.dumps(facts)))
        while pipe.recv() != "end":
            pipe.send(emulator.received())
