"""A second run finds what the first delivered, also after a crash."""

from __future__ import annotations

from crosscut.journal import Journal


def test_the_latest_row_of_an_index_counts_and_survives(tmp_path):
    path = tmp_path / "journals" / "j.jsonl"
    journal = Journal(path, 3)
    journal.append({"index": 2, "file": "old"})
    journal.append({"index": 2, "file": "new"})
    journal.append({"index": 3, "file": "three"})
    assert journal.find(1) is None
    journal.close()
    again = Journal(path, 3)
    assert [row["file"] for row in again.rows()] == ["new", "three"]
    assert path.read_bytes().count(b"\n") == 2
    again.close()


def test_a_torn_line_is_ignored_and_does_not_spoil_the_next(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"index": 1, "file": "one"}\n{"index": 2, "fi')
    journal = Journal(path, 2)
    assert journal.find(2) is None
    journal.append({"index": 2, "file": "two"})
    again = Journal(path, 2)
    assert [row["file"] for row in again.rows()] == ["one", "two"]
    again.close()
    journal.close()


def test_rows_of_a_larger_job_are_kept_and_nonsense_is_not(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"index": 9, "file": "x"}\n{"index": "1"}\n[]\n{"index": 0}\n{"index": 99999999999}\n')
    journal = Journal(path, 2)
    assert [row["index"] for row in journal.rows()] == [9]
    journal.close()
    assert path.read_bytes().count(b"\n") == 1
