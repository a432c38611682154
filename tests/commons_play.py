"""What other processes do with what is shared: `python commons_play.py WHERE ACTION NAME`, and then a line to begin."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from crosscut.commons import Shared
from crosscut.files import FileHolds, HashedNotes, shared_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEASE = 1.5
"""Seconds, in a database."""


@contextmanager
def opened(where: str) -> Iterator[Shared]:
    """`files:/folder`, `hashed:/folder` or the URL of a database."""
    kind, _, path = where.partition(":")
    if kind == "files":
        yield shared_in(Path(path))
    elif kind == "hashed":
        yield Shared(HashedNotes(Path(path) / "notes"), FileHolds(Path(path)))
    else:
        from crosscut.store.database import Database
        from crosscut.store.shared import shared_by

        with closing(Database(where)) as database:
            yield shared_by(database, "play", LEASE)


def agree(shared: Shared, who: str) -> None:
    say(json.dumps([shared.notes.put_once(f"n/{n}", f"{who}{n}") for n in range(60)]))
    for number in range(20):
        change(shared, lambda names, number=number: [*names, f"{who}{number}"])


def crowd(shared: Shared, who: str) -> None:
    def visit(name: str) -> None:
        for _ in range(5):
            slot = shared.awaited(lambda: shared.holds.slot("crowd", 3))
            inside = change(shared, lambda names: [*names, name])
            say(json.dumps(inside))
            time.sleep(0.01)
            change(shared, lambda names: [each for each in names if each != name])
            slot.release()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(visit, [f"{who}{n}" for n in range(4)]))


def hold(shared: Shared, _: str) -> None:
    held = shared.holds.lock("x"), shared.holds.slot("y", 1)
    say("held" if all(held) else "not free")
    sys.stdin.readline()


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


def change(shared: Shared, make: Callable[[list[str]], list[str]]) -> list[str]:
    """Of the list that all share; what it is then. Each has names of its own, so no two changes are the same."""
    while True:
        note = shared.notes.get("list")
        new = json.dumps(make(json.loads(note or "[]")))
        if shared.notes.put_once("list", new, instead_of=note) == new:
            made: list[str] = json.loads(new)
            return made


if __name__ == "__main__":
    _, where, action, name = sys.argv
    with opened(where) as shared:
        say("ready")
        sys.stdin.readline()
        {"agree": agree, "crowd": crowd, "hold": hold}[action](shared, name)
