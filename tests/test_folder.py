"""The folder destination."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess

import pytest

from contracts.destination import DestinationContract, virtual
from crosscut.destinations.folder import FolderDestination
from crosscut.errors import DeliverError, StorageError
from crosscut.journal import Journal


class TestFolder(DestinationContract):
    @pytest.fixture
    def destination(self, tmp_path):
        self.root = tmp_path / "videos"
        return FolderDestination(self.root)

    def read(self, folder, name):
        return (self.root / folder / name).read_bytes()

    def names(self, folder):
        return sorted(path.name for path in (self.root / folder).iterdir() if not path.name.startswith("."))


def test_what_a_killed_writer_left_is_swept(tmp_path):
    with FolderDestination(tmp_path).open("task"):
        pass
    (tmp_path / "task" / ".partial-0123").write_bytes(b"half")
    with FolderDestination(tmp_path).open("task") as delivery:
        delivery.put("1.mp4", virtual(b"whole"))
    assert sorted(path.name for path in (tmp_path / "task").iterdir()) == [".crosscut.lock", "1.mp4"]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DeliverError) as caught, FolderDestination(tmp_path / "file").open("task"):
        pass
    assert caught.value.public == f"cannot write {tmp_path}/file/task: {os.strerror(errno.ENOTDIR).lower()}"


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small file system needs root")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_said_and_leaves_no_half_file(small_disk):
    with FolderDestination(small_disk).open("task") as delivery:
        delivery.put("1.mp4", virtual(b"x" * 100_000))
        with pytest.raises(StorageError) as caught:
            delivery.put("2.mp4", virtual(b"x" * 400_000))
    assert caught.value.code == "disk_full"
    assert "free some space" in caught.value.public
    assert sorted(path.name for path in (small_disk / "task").iterdir()) == [".crosscut.lock", "1.mp4"]


def test_a_journal_on_a_full_disk_keeps_what_it_had(small_disk):
    journal = Journal(small_disk / "j.jsonl", 9_000)
    last = 0
    with pytest.raises(StorageError) as caught:
        for last in range(1, 9_000):
            journal.append({"index": last, "file": "x" * 50})
    assert caught.value.code == "disk_full"
    assert journal.find(last - 1) == {"index": last - 1, "file": "x" * 50}
    assert journal.find(last) is None
    journal.close()
    again = Journal(small_disk / "j.jsonl", 9_000)
    assert sum(1 for _ in again.rows()) == last - 1
    again.close()
