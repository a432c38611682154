"""The folder destination."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import subprocess
import sys
import time

import pytest

from contracts.destination import DestinationContract, virtual
from crosscut.destinations.folder import FolderDestination
from crosscut.errors import DeliverError, StorageError


class TestFolder(DestinationContract):
    LINKS = False
    STALLED = 1 << 40

    @pytest.fixture
    def destination(self, tmp_path):
        self.root = tmp_path / "videos"
        return FolderDestination(self.root)

    def read(self, folder, name):
        return (self.root / folder / name).read_bytes()

    def names(self, folder):
        return sorted(path.name for path in (self.root / folder).iterdir() if not path.name.startswith("."))

    def wrong(self, destination):
        del destination
        self.root.write_text("in the way")
        return FolderDestination(self.root)

    @contextlib.contextmanager
    def full(self):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def stumble(self):
        """A disk heals nothing."""

    def stall(self):
        """Nothing stalls here, but what is large takes a while."""

    def begun(self):
        return any(self.root.rglob(".partial-*"))


def leave_half(tmp_path):
    (tmp_path / "task" / ".partial-0123").write_bytes(b"half")


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "task").iterdir())


def test_what_a_killed_writer_left_is_swept_by_the_next_who_claims_the_folder(tmp_path):
    with FolderDestination(tmp_path).open("task") as delivery:
        delivery.put("1.mp4", virtual(b"whole"))
    leave_half(tmp_path)
    with FolderDestination(tmp_path).claim("task"):
        assert names(tmp_path) == [".crosscut.lock", "1.mp4"]


def test_a_folder_is_swept_when_it_is_asked_for_and_not_when_it_is_opened(tmp_path):
    with FolderDestination(tmp_path).open("task") as delivery:
        delivery.put("1.mp4", virtual(b"whole"))
        leave_half(tmp_path)
        with FolderDestination(tmp_path).open("task"):
            assert names(tmp_path) == [".partial-0123", "1.mp4"]
        delivery.sweep()
    assert names(tmp_path) == ["1.mp4"]


def test_a_killed_writer_leaves_no_half_file_under_the_name(tmp_path):
    victim = subprocess.Popen([sys.executable, "-c", WRITE_SLOWLY, str(tmp_path)])
    folder = tmp_path / "task"
    deadline = time.monotonic() + 30
    while not (folder.is_dir() and any(path.stat().st_size for path in folder.glob(".partial-*"))):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    victim.kill()
    victim.wait()
    with FolderDestination(tmp_path).claim("task"):
        assert names(tmp_path) == [".crosscut.lock"]


WRITE_SLOWLY = """
import os, sys, threading
from pathlib import Path
from crosscut.destinations.folder import FolderDestination

class Endless:
    def copy_to(self, out, check):
        os.write(out, b"x")
        threading.Event().wait()

with FolderDestination(Path(sys.argv[1])).open("task") as delivery:
    delivery.put("1.mp4", Endless())
"""


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
    assert names(small_disk) == ["1.mp4"]
