"""Depots: a folder, a bucket of GCS on an emulator of ours, one of S3 on moto, and the one in memory that tests use."""

from __future__ import annotations

import os
import shutil
import socket
import time
from pathlib import Path

import pytest

import moto_server
from contracts.depot import NAME, DepotContract
from crosscut.bucket_depot import BucketDepot
from crosscut.depot import BLOCK, UNAVAILABLE
from crosscut.destinations.buckets import CloudOptions
from crosscut.errors import StorageError
from crosscut.folder_depot import STEPS, FolderDepot
from fakes import MemoryDepot
from gcs_emulator import Emulator

SECRET = "wJalrXUtnFEMI-the-secret"


class TestMemory(DepotContract):
    @pytest.fixture
    def depot(self):
        return MemoryDepot()

    @pytest.fixture
    def lost(self):
        return MemoryDepot(reachable=False)


class TestFolder(DepotContract):
    @pytest.fixture
    def depot(self, tmp_path):
        depot = FolderDepot(tmp_path)
        depot.check()
        return depot

    @pytest.fixture
    def lost(self, tmp_path):
        return FolderDepot(tmp_path / "not mounted")


class TestGcs(DepotContract):
    @pytest.fixture
    def depot(self, tmp_path):
        with Emulator() as emulator:
            yield BucketDepot("gs://bucket/some where", gcs_options(emulator, tmp_path), {})

    @pytest.fixture
    def lost(self, tmp_path):
        with Emulator() as emulator:
            options = gcs_options(emulator, tmp_path)
        return BucketDepot("gs://bucket/some where", options, {})


@pytest.fixture(scope="module")
def moto():
    with moto_server.running() as url:
        yield url


def s3_options(endpoint):
    return CloudOptions(s3_access_key_id="AKIAIT", s3_secret_access_key=SECRET, s3_endpoint=endpoint, patience=0.3)


class TestS3(DepotContract):
    @pytest.fixture
    def depot(self, moto):
        moto_server.emptied(moto, "my-bucket")
        return BucketDepot("s3://my-bucket/shared", s3_options(moto), {})

    @pytest.fixture
    def lost(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        return BucketDepot("s3://my-bucket/shared", s3_options(f"http://127.0.0.1:{port}"), {})


def gcs_options(emulator, folder):
    key = folder / "key.json"
    key.write_text(emulator.service_account)
    return CloudOptions(gcs_key_file=str(key), gcs_endpoint=emulator.url, patience=0.3)


def test_a_folder_is_not_made_where_a_volume_should_be(tmp_path):
    with pytest.raises(StorageError):
        FolderDepot(tmp_path / "mount").write(NAME, b"data")
    assert list(tmp_path.iterdir()) == []


VOLUME = Path("/dev/shm")


@pytest.mark.skipif(not (VOLUME.is_mount() and os.access(VOLUME, os.W_OK)), reason="no volume to be had here")
def test_a_folder_right_below_a_mounted_volume_is_made(tmp_path):
    root = VOLUME / f"crosscut-{tmp_path.name}-{os.getpid()}"
    try:
        FolderDepot(root).check()
        assert FolderDepot(root).write(NAME, b"data")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    with pytest.raises(StorageError):
        FolderDepot(root / "deeper").check()
    assert not root.exists()


def test_a_folder_without_hard_links_is_refused(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StorageError, match="hard links"):
        FolderDepot(tmp_path).check()


def test_what_killed_writers_left_in_a_folder_goes_after_a_day(tmp_path):
    depot = FolderDepot(tmp_path)
    depot.check()
    assert list((tmp_path / STEPS).iterdir()) == []
    for name, age in (("old", 90_000), ("new", 10)):
        (tmp_path / STEPS / name).write_bytes(b"half")
        os.utime(tmp_path / STEPS / name, (time.time() - age,) * 2)
    depot.check()
    assert [path.name for path in (tmp_path / STEPS).iterdir()] == ["new"]


def test_who_reads_what_is_replaced_in_a_folder_meanwhile_reads_what_was_there(tmp_path):
    depot = FolderDepot(tmp_path)
    depot.check()
    old, new = (bytes([byte]) * (2 * BLOCK) for byte in b"on")
    depot.store(NAME, [old])
    reading = depot.blocks(NAME)
    first = next(reading)
    depot.store(NAME, [new])
    assert b"".join([first, *reading]) == old
    assert b"".join(depot.blocks(NAME)) == new


def test_a_bucket_that_heeds_no_conditions_is_refused(tmp_path):
    with Emulator(heeds=False) as emulator:
        with pytest.raises(StorageError, match="If-None-Match") as caught:
            BucketDepot("gs://bucket", gcs_options(emulator, tmp_path), {}).check()
        assert caught.value.code == "shared_unusable"


@pytest.mark.parametrize(
    ("buckets", "forbidden", "told"),
    [({"other"}, set(), "there is no bucket gs://bucket"), ({"bucket"}, {"put"}, "let them list, create, read")],
)
def test_a_bucket_that_cannot_be_written_into_says_what_to_change(tmp_path, buckets, forbidden, told):
    with Emulator(buckets=frozenset(buckets), forbidden=frozenset(forbidden)) as emulator:
        depot = BucketDepot("gs://bucket/x", gcs_options(emulator, tmp_path), {})
        with pytest.raises(StorageError, match=told) as caught:
            depot.check()
        assert "CROSSCUT_SHARED" in caught.value.public
        with pytest.raises(StorageError) as caught:
            list(depot.blocks(NAME)) if buckets == {"other"} else depot.write(NAME, b"")
        assert caught.value.code == UNAVAILABLE


def test_an_answer_that_is_lost_is_asked_for_again(tmp_path):
    with Emulator(script=[("put", "lost"), ("get", "hangup"), ("head", "503")]) as emulator:
        depot = BucketDepot("gs://bucket/x", gcs_options(emulator, tmp_path), {})
        # It was written, but who asks again is told that it was there already.
        assert not depot.write(NAME, b"data")
        assert depot.read(NAME).data == b"data"
        assert depot.size(NAME) == 4
        assert sum(emulator.faults.values()) == 3
