"""Rows -> manifest. Pure."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

COLUMNS = (
    "index",
    "file",
    "captions",
    "clips",
    "format",
    "music",
    "voice_over",
    "voice",
    "duration",
    "hold",
    "speed",
    "bytes",
    "bytes_sent",
    "sha256",
    "loudness_before",
    "loudness",
    "true_peak",
    "seconds",
    "link",
    "error",
)
"""Keys of a manifest row. Durations and holds are seconds, loudness is LUFS, true peak dBTP; null where absent.

`captions` is the file of the captions beside the video. `bytes_sent` left the machine for it: less than `bytes` where
the store has joined it from what other videos have as well. `loudness_before` is that of music, voice-over and kept
clip sound as they came, their energies added up. `link` opens the video in a browser.
"""


class Levels:
    """What the rows that went through it say of loudness: from the lowest to the highest."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[float, float]] = {}

    def through(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        for row in rows:
            for name in ("loudness_before", "loudness", "true_peak"):
                if (value := row.get(name)) is not None:
                    low, high = self._found.get(name, (value, value))
                    self._found[name] = min(low, value), max(high, value)
            yield row

    def as_json(self) -> dict[str, Any] | None:
        """LUFS of the parts as they came and of the videos, [lowest, highest], and the highest dBTP; None: silent."""
        if not self._found:
            return None
        before, after = self._found.get("loudness_before"), self._found.get("loudness")
        return {
            "before": before and list(before),
            "after": after and list(after),
            "true_peak": self._found.get("true_peak", (0.0, None))[1],
        }


def linked(rows: Iterable[Mapping[str, Any]], link: Callable[[str], str] | None) -> Iterator[Mapping[str, Any]]:
    """The rows, with a link to each file that has none of its own."""
    for row in rows:
        yield {**row, "link": link(row["file"])} if link and row["file"] and not row["link"] else row


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
