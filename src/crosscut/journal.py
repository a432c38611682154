"""What a job has delivered, one JSON line for each variation, so that a second run makes nothing twice.

A line is written only after its file is safe; a line torn by a crash is ignored. Lines stay on disk: in memory is one
number for each variation.
"""

from __future__ import annotations

import errno
import json
import os
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
            # Unbuffered: what a full disk refuses must not come up again with a later call.
            self._file = path.open("ab", buffering=0)
            self._reader = path.open("rb")
            self._read_places()

    def _read_places(self) -> None:
        place, line = 0, b"\n"
        for line in self._reader:
            row = _parsed(line)
            if row is not None:
                self._place(row["index"], place)
            place += len(line)
        self._end = place
        if not line.endswith(b"\n"):
            self._write(b"\n")

    def _write(self, line: bytes) -> None:
        """All of `line` or nothing."""
        written = 0
        try:
            written = self._file.write(line)
        finally:
            if written != len(line):
                self._file.truncate(self._end)
        if written != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._end += len(line)

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
            self._reader.seek(place)
            return _parsed(self._reader.readline())

    def append(self, row: dict[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        with self._lock, storage_errors():
            place = self._end
            self._write(line)
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
            self._file.close()
            self._reader.close()


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("index"), int) else None
