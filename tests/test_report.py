"""The manifest is complete, streams, and is safe to open."""

from __future__ import annotations

import csv
import io
import json

from hypothesis import given
from hypothesis import strategies as st

from crosscut.report import COLUMNS, manifest_csv, manifest_json

ROW = dict.fromkeys(COLUMNS) | {
    "index": 1,
    "file": "1_a-b.mp4",
    "clips": ["a.mp4", "b.mp4"],
    "bytes": 10,
    "error": None,
}


def test_json_holds_every_row_in_order():
    rows = [ROW | {"index": index, "recipe": "internal"} for index in (1, 2, 3)]
    document = json.loads("".join(manifest_json({"task_name": "t"}, rows)))
    assert document["task_name"] == "t"
    assert [row["index"] for row in document["variations"]] == [1, 2, 3]
    assert tuple(document["variations"][0]) == COLUMNS


def test_json_without_rows_is_valid():
    assert json.loads("".join(manifest_json({"task_name": "t"}, [])))["variations"] == []


@given(st.lists(st.text(), min_size=1, max_size=3), st.none() | st.text())
def test_csv_reads_back_and_runs_no_formula(clips, voice):
    text = "".join(manifest_csv([ROW | {"clips": clips, "voice_over": voice, "loudness": -14.2}]))
    header, row = csv.reader(io.StringIO(text, newline=""))
    cells = dict(zip(header, row, strict=True))
    assert tuple(header) == COLUMNS
    assert cells["loudness"] == "-14.2"
    assert not cells["voice_over"].startswith(("=", "+", "-", "@"))
    assert not cells["clips"].startswith(("=", "+", "-", "@"))
