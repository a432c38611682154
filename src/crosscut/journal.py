"""What a job has delivered, one JSON line for each variation, so that a second run makes nothing twice.

A line is written only after its file is safe; a line torn by a crash is ignored. Lines stay on disk: in memory is one
number for each variation.
"""

from __future__ import annotations

import contextlib
import json
import threading
from array import array
from typing import TYPE_CHECKING, Any

from crosscut.artifacts import storage_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ABSENT = -1

MOST = 10_000_000
"""Indexes beyond this are no job's: the line is damaged."""


class Journal:
    """Rows are JSON objects with an `index` from 1; the latest line of an index counts. Thread-safe.

    Raises StorageError where the disk fails. Rows beyond `total`, of a larger job into the same place, are kept.
    """

    def __init__(self, path: Path, total: int) -> None:
        self._path = path
        self._places = array("q", [ABSENT]) * total
        self._lock = threading.Lock()
        with storage_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
            self._read_places()

    def _read_places(self) -> None:
        self._file.seek(0)
        place = 0
        for line in self._file:
            row = _parsed(line)
            if row is not None:
                self._place(row["index"], place)
            place += len(line)
        if place and not line.endswith(b"\n"):
            self._file.write(b"\n")

    def _place(self, index: int, place: int) -> None:
        if not 1 <= index <= MOST:
            return
        self._places.extend([ABSENT] * (index - len(self._places)))
        self._places[index - 1] = place

    def find(self, index: int) -> dict[str, Any] | None:
        """The latest row of that variation."""
        with self._lock:
            place = self._places[index - 1]
            if place == ABSENT:
                return None
            self._file.seek(place)
            return _parsed(self._file.readline())

    def append(self, row: dict[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        with self._lock, storage_errors():
            place = self._file.seek(0, 2)
            self._file.write(line)
            self._file.flush()
            self._place(row["index"], place)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every row that is known, by index."""
        for index in range(1, len(self._places) + 1):
            row = self.find(index)
            if row is not None:
                yield row

    def close(self) -> None:
        """Keep only the latest rows, so that repeated runs do not grow the file; where there is no room, keep it."""
        compact = self._path.with_suffix(".compact")
        try:
            with compact.open("wb") as file:
                for row in self.rows():
                    file.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
            compact.replace(self._path)
        except OSError:
            compact.unlink(missing_ok=True)
        finally:
            with contextlib.suppress(OSError):
                self._file.close()


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("index"), int) else None
