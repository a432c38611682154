"""Buckets of Azure, on an emulator of ours."""

from __future__ import annotations

import base64
import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from azure_emulator import ACCOUNT, KEY, Emulator
from contracts.destination import DestinationContract, numbered, virtual
from crosscut.destinations.buckets import CloudOptions
from crosscut.destinations.objectstore import PART, ObjectStoreDestination
from crosscut.errors import DeliverError, StorageError


@pytest.fixture
def emulator():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def options(emulator):
    return CloudOptions(azure_account=ACCOUNT, azure_key=KEY, azure_endpoint=emulator.endpoint)


@pytest.fixture
def azure(options, tmp_path):
    return ObjectStoreDestination("az://videos/some where", options, tmp_path / "locks", {})


class TestAzure(DestinationContract):
    @pytest.fixture
    def destination(self, emulator, azure):
        self.emulator = emulator
        return azure

    def read(self, folder, name):
        return self.emulator.data(f"some where/{folder}/{name}")

    def names(self, folder):
        return self.emulator.names(f"some where/{folder}/")

    def wrong(self, destination):
        options = replace(destination._options, azure_key=base64.b64encode(b"another key").decode())
        return ObjectStoreDestination("az://videos/some where", options, destination._locks, {})

    @contextlib.contextmanager
    def full(self):
        self.emulator.script = [("block", "quota")]
        yield

    def stumble(self):
        self.emulator.script = [("put", "503")]

    def stall(self):
        self.emulator.script = [("put", "hang"), ("block", "hang")]

    def begun(self):
        return len(self.emulator.script) < 2


def test_what_arrives_says_what_it_is(emulator, azure):
    with azure.open("task") as delivery:
        small = delivery.put("1.mp4", virtual(b"video"))
        large = delivery.put("2.mp4", virtual(numbered(2 * PART)))
        delivery.put_text("manifest.json", ["{}"])
    headers = {key.rpartition("/")[2]: blob.headers for (_, key), blob in emulator.blobs.items()}
    assert headers["1.mp4"] == {"content-type": "video/mp4", "x-ms-meta-sha256": small.sha256}
    assert headers["2.mp4"]["content-type"] == "video/mp4"
    assert headers["2.mp4"]["x-ms-meta-sha256"] == large.sha256
    assert headers["manifest.json"]["content-type"] == "application/json"
    assert emulator.requests["block"] == 2


def test_every_file_arrives_once_through_faults(emulator, azure):
    emulator.rate = 0.1
    large = numbered(2 * PART + 1)
    files = {f"{number}.mp4": bytes([number % 251]) * (number * 97) for number in range(60)} | {"large.mp4": large}
    with azure.open("task") as delivery, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: delivery.put(name, virtual(files[name])), files))
    assert {name: emulator.data(f"some where/task/{name}") for name in emulator.names("some where/task/")} == files


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"azure_key": base64.b64encode(b"another key").decode()}, "wrong_credentials"),
        ({"azure_key": "no key"}, "wrong_credentials"),
        ({"azure_key": ""}, "no_credentials"),
    ],
)
def test_wrong_keys_are_said(emulator, options, tmp_path, changed, code):
    destination = ObjectStoreDestination("az://videos", replace(options, **changed), tmp_path, {})
    with pytest.raises(DeliverError) as caught, destination.open("task"):
        pass
    assert (caught.value.code, caught.value.retryable) == (code, False)
    assert not emulator.blobs


def test_what_may_not_be_taken_away_is_said_and_stays(emulator, azure):
    with azure.open("task") as delivery:
        delivery.put("1.mp4", virtual(b"video"))
        emulator.script = [("batch", "403")]
        with pytest.raises(DeliverError) as caught:
            delivery.remove("1.mp4")
        assert caught.value.code == "no_permission"
        assert delivery.holds("1.mp4")


def test_a_container_that_is_not_there_is_said(options, tmp_path):
    with (
        pytest.raises(DeliverError, match="there is no bucket az://other") as caught,
        ObjectStoreDestination("az://other", options, tmp_path, {}).open("task"),
    ):
        pass
    assert caught.value.code == "no_such_bucket"


def test_a_full_account_is_said(emulator, azure):
    with azure.open("task") as delivery:
        emulator.script = [("put", "quota")]
        with pytest.raises(StorageError) as caught:
            delivery.put("1.mp4", virtual(b"video"))
    assert (caught.value.code, caught.value.retryable) == ("disk_full", True)
    assert not emulator.blobs


def test_a_token_signs_no_links(options, tmp_path):
    environ = {"AZURE_STORAGE_SAS_TOKEN": "sv=2023-11-03&sig=x"}
    destination = ObjectStoreDestination("az://videos", replace(options, azure_key=""), tmp_path, environ)
    with pytest.raises(DeliverError, match="CROSSCUT_AZURE_KEY") as caught:
        destination.linker("task", timedelta(days=1))
    assert caught.value.code == "no_links"
