"""Outcomes -> summary and manifest. Pure: rows in, text and numbers out."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

COLUMNS = (
    "index",
    "file",
    "clips",
    "format",
    "music",
    "voice_over",
    "voice",
    "duration",
    "hold",
    "speed",
    "bytes",
    "sha256",
    "loudness",
    "true_peak",
    "seconds",
    "error",
)
"""Keys of a manifest row. Durations and holds are seconds, loudness is LUFS, true peak dBTP; null where absent."""

REASONS_SHOWN = 20


class Tally:
    """Counts outcomes as they come; keeps no rows."""

    def __init__(self) -> None:
        self.made = 0
        self.kept = 0
        self.bytes = 0
        self.failures: Counter[str] = Counter()

    def add(self, row: Mapping[str, Any], *, kept: bool) -> None:
        if row["error"]:
            self.failures[row["error"]] += 1
            return
        self.bytes += row["bytes"]
        if kept:
            self.kept += 1
        else:
            self.made += 1

    @property
    def failed(self) -> int:
        return self.failures.total()

    def summary(self) -> dict[str, Any]:
        return {
            "total": self.made + self.kept + self.failed,
            "succeeded": self.made + self.kept,
            "made": self.made,
            "kept": self.kept,
            "failed": self.failed,
            "bytes": self.bytes,
            "failures": [
                {"reason": reason, "variations": count} for reason, count in self.failures.most_common(REASONS_SHOWN)
            ],
        }


def manifest_json(head: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The manifest in pieces, one row a line, so that a million rows need no memory."""
    opening = json.dumps(dict(head), ensure_ascii=False, indent=1)
    yield opening[: opening.rindex("}")].rstrip() + (',\n "variations": [' if head else ' "variations": [')
    separator = "\n  "
    for row in rows:
        yield separator + json.dumps({column: row.get(column) for column in COLUMNS}, ensure_ascii=False)
        separator = ",\n  "
    yield "\n ]\n}\n"


def manifest_csv(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The same rows for a spreadsheet; clips are joined with ` + `."""
    yield _csv_line(COLUMNS)
    for row in rows:
        yield _csv_line(_cell(row.get(column)) for column in COLUMNS)


def _csv_line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        value = " + ".join(str(item) for item in value)
    text = str(value)
    # A spreadsheet would run these as formulas; numbers of ours may start with a minus.
    if isinstance(value, str) and text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + text
    return text
