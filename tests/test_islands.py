"""Two machines that have nothing in common but a network: namespaces of their own, no disk that both see."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import urllib.request
from dataclasses import dataclass, field

import obstore
import pytest
from obstore.store import S3Store

import moto_server
from cluster_play import clustered, services, wired
from crosscut import cluster as module
from engine_play import SOUND, body, by_upload, undisturbed, until

services()

KEYS = {"s3_access_key_id": "k", "s3_secret_access_key": "s", "s3_region": "us-east-1"}


@dataclass
class Island:
    """A network namespace with a cable to us."""

    number: int
    name: str = ""
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __post_init__(self):
        self.name = f"cc{os.getpid()}x{self.number}"
        ip("netns", "add", self.name)
        self.stack.callback(ip, "netns", "delete", self.name)
        ip("link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("addr", "add", f"{self.gateway}/30", "dev", self.name)
        ip("link", "set", self.name, "up")
        for words in (("addr", "add", f"10.77.{self.number}.2/30", "dev", "eth0"), ("link", "set", "eth0", "up")):
            ip("-n", self.name, *words)
        ip("-n", self.name, "link", "set", "lo", "up")

    @property
    def gateway(self):
        return f"10.77.{self.number}.1"

    @property
    def within(self):
        return ["ip", "netns", "exec", self.name]

    def cable(self, state):
        ip("link", "set", self.name, state)

    def wired(self, url):
        return self.stack.enter_context(wired(url, self.gateway))[1]


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def islands():
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and Debian's package iproute2")
    with contextlib.ExitStack() as stack:
        made = []
        for number in (1, 2):
            try:
                made.append(Island(number))
            except subprocess.CalledProcessError as error:
                pytest.skip(f"network namespaces cannot be had here: {error.stderr.strip()}")
            stack.callback(made[-1].stack.close)
        yield made


@pytest.fixture
def buckets():
    with moto_server.running() as url:
        for name in ("pieces", "videos"):
            urllib.request.urlopen(urllib.request.Request(f"{url}/{name}", method="PUT")).close()
        yield url


def makers(cluster):
    """The stations that delivered something."""
    return {event["worker"].rpartition("/")[0] for event in cluster.log() if event.get("stage") == "deliver"}


def test_two_islands_finish_a_job_together_though_one_is_cut_off(tmp_path, islands, buckets, monkeypatch):
    monkeypatch.setattr(module, "SENT_SECONDS", 2.0)
    document = body(4, 6, task="task", **SOUND)
    with clustered(tmp_path, lease_seconds=3, shared="s3://pieces/all", batch=1, **KEYS) as cluster:
        with cluster.serving("s3://videos/out", s3_endpoint=buckets) as engine:
            workers = {}
            for island in islands:
                told = {
                    "data_dir": str(tmp_path / f"island{island.number}"),
                    "database_url": island.wired(cluster.place.database),
                    "broker_url": island.wired(cluster.near_broker),
                    "s3_endpoint": island.wired(buckets),
                }
                workers[island.number] = [
                    cluster.work(lane, within=island.within, **told) for lane in ("network", "processor")
                ]
            cluster.ready(engine, 4)
            lost = islands[0]
            wanted = by_upload(cluster.place, document, engine.upload)
            job = engine.machine.service.submit(wanted).id
            names = {cluster.station_of(worker) for worker in workers[lost.number]}
            until(lambda: makers(cluster) & names)
            assert not engine.over(job)
            lost.cable("down")
            status = engine.ended(job)
            assert (status["succeeded"], status["failed"]) == (24, 0), status["errors"]
            lost.cable("up")
        assert makers(cluster) - names
    store = S3Store(
        "videos",
        endpoint=buckets,
        access_key_id="k",
        secret_access_key="s",
        region="us-east-1",
        client_options={"allow_http": True},
    )
    there = {entry["path"].rpartition("/")[2]: entry["path"] for page in obstore.list(store) for entry in page}
    made = {
        name: hashlib.sha256(bytes(obstore.get(store, path).bytes())).hexdigest()
        for name, path in there.items()
        if name.endswith(".mp4")
    }
    files, _ = undisturbed(json.dumps(document), True)
    assert made == {name: digest for name, digest in files.items() if name.endswith(".mp4")}
