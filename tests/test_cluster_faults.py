"""The rows of the fault matrix about disks, about work that kills or hangs and about destinations, in a cluster."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest

import drive_emulator
import gcs_emulator
from cluster_play import clustered, services
from crosscut import cluster as module
from drive_model import Fault
from engine_play import SOUND, body, check_like_undisturbed, check_made, fill, provide, undisturbed, until
from engine_play import Fault as WorkFault

services()


@pytest.fixture(scope="module")
def sea(tmp_path_factory):
    """A server and three workers, a bucket and a Drive, which each test leaves as they were."""
    root = tmp_path_factory.mktemp("sea")
    with pytest.MonkeyPatch.context() as patch, drive_emulator.Emulator() as drive, gcs_emulator.Emulator() as bucket:
        patch.setattr(module, "SENT_SECONDS", 2.0)
        key = root / "key.json"
        key.write_text(bucket.service_account)
        near = {"google_url": drive.url, "gcs_endpoint": bucket.url, "gcs_key_file": str(key)}
        with clustered(root, **near) as cluster:
            drive.consent_file(cluster.place.data / "google.json")
            with cluster.serving() as engine:
                cluster.work("network", 4)
                cluster.work("processor", 1)
                cluster.work("processor", 1)
                cluster.ready(engine, 3)
                yield cluster, engine, drive, bucket
                cluster.order()
                assert [worker.stop() for worker in cluster.workers] == [0] * 3


@pytest.fixture
def cluster(sea):
    return sea[0]


@pytest.fixture
def engine(sea):
    return sea[1]


@pytest.fixture
def drive(sea):
    return sea[2]


@pytest.fixture
def bucket(sea):
    return sea[3]


def begin(engine, document, destination):
    provide(engine.place, document)
    return engine.machine.service.submit(document, local=True, base=engine.place.root, destination=destination).id


def come(engine, job, seconds=60.0):
    status = engine.ended(job, seconds)
    assert (status["succeeded"], status["failed"]) == (status["total"], 0), status["errors"]
    return status


def videos(document):
    """SHA-256 by name of the videos of an undisturbed run."""
    files, _ = undisturbed(json.dumps({**document, "task_name": "task"}), False)
    return {name: digest for name, digest in files.items() if name.endswith(".mp4")}


def in_drive(drive, task):
    nodes = drive.children(task)
    assert len({node.name for node in nodes}) == len(nodes), "a file is there twice"
    assert len(drive.folders(task)) == 1
    return {node.name: node.sha256 for node in nodes if node.name.endswith(".mp4")}


def in_bucket(bucket, task):
    names = [name for name in bucket.names(f"out/{task}/") if name.endswith(".mp4")]
    return {name: hashlib.sha256(bucket.data(f"out/{task}/{name}")).hexdigest() for name in names}


def test_row_12_a_full_disk_costs_only_time(tmp_path, small_disk):
    document = body(2, 2, **SOUND)
    mark, go = tmp_path / "mark", tmp_path / "go"
    with clustered(tmp_path) as cluster:
        small_disk(cluster.place.data, 8 << 20)
        cluster.order(WorkFault("segment", "hold", mark=str(mark), release=str(go)))
        with cluster.serving() as engine:
            cluster.all_work()
            job = engine.submit(document)
            until(mark.exists)
            ballast = fill(cluster.place.data)
            go.touch()
            until(lambda: any(event.get("code") == "disk_full" for event in cluster.log()))
            assert not engine.over(job)
            ballast.unlink()
            come(engine, job)
            assert [worker.stop() for worker in cluster.workers] == [0] * 3
        check_like_undisturbed(cluster.place, document)


def test_row_14_a_variation_that_kills_its_workers_is_given_up_alone(cluster, engine):
    document = body(2, 3, task="row_14", encoded=False)
    cluster.order(WorkFault("batch", "crash", index=5))
    job = engine.submit(document)
    status = engine.ended(job)
    cluster.order()
    assert (status["state"], status["succeeded"], status["failed"]) == ("done", 5, 1)
    (error,) = status["errors"]
    assert "the process that worked on it died again and again" in error["reason"]
    assert [index for index, row in cluster.place.outputs("row_14").items() if row["error"]] == [5]
    assert engine.machine.service.retry(job, None)["variations"] == 1
    come(engine, job)
    check_made(cluster.place, document)


def test_row_15_what_hangs_is_ended_and_done_again(cluster, engine):
    """It lets no other thread of its process go on, so that its station sees no sign of life."""
    document = body(2, 2, task="row_15", **{**SOUND, "fps": 31})
    mark = cluster.place.root / "row_15.mark"
    cluster.order(WorkFault("segment", "seize", word="c1.mp4", mark=str(mark)))
    job = engine.submit(document)
    come(engine, job)
    check_made(cluster.place, document)
    assert mark.exists()
    assert any(event["event"] == "a worker is killed" for event in cluster.log())


def test_row_17_a_rate_limit_holds_back_one_destination_and_no_other(engine, drive, bucket):
    """All workers wait as long as Google asks them to, and ask nothing meanwhile."""
    document = body(2, 3, task="row_17", **SOUND)
    limited = Fault("429", "POST", "uploadType", skip=1, headers={"Retry-After": "5"})
    drive.faults = [limited]
    job = begin(engine, document, "drive:")
    until(lambda: limited.times == 0)
    asked = time.monotonic()
    time.sleep(0.5)  # for what was under way
    before = len(drive.seen)
    other = body(2, 2, task="row_17_other", encoded=False)
    come(engine, begin(engine, other, "gs://bucket/out"))
    assert time.monotonic() - asked < 5
    time.sleep(max(0.0, asked + 4.5 - time.monotonic()))
    assert len(drive.seen) == before, drive.seen[before:]
    assert not engine.over(job)
    come(engine, job)
    assert in_drive(drive, "row_17") == videos(document)
    assert in_bucket(bucket, "row_17_other").keys() == videos(other).keys()


def test_row_18_a_bucket_that_fails_and_hangs_up_gets_each_video_once(engine, bucket):
    document = body(3, 4, task="row_18_calm", **SOUND)
    come(engine, begin(engine, document, "gs://bucket/out"))
    document["task_name"] = "row_18"
    bucket.kinds, bucket.rate = ("500", "hangup", "lost"), 0.3
    try:
        job = begin(engine, document, "gs://bucket/out")
        come(engine, job, 120)
    finally:
        bucket.rate = 0.0
    assert in_bucket(bucket, "row_18") == in_bucket(bucket, "row_18_calm")
    assert in_bucket(bucket, "row_18").keys() == videos(document).keys()
    assert sum(bucket.faults.values()) > 5


def test_row_18_a_drive_that_fails_and_hangs_up_gets_each_video_once(engine, drive):
    document = body(3, 4, task="row_18_drive", **SOUND)
    drive.chaos = 0.1
    try:
        come(engine, begin(engine, document, "drive:"), 180)
    finally:
        drive.chaos = 0.0
    assert in_drive(drive, "row_18_drive") == videos(document)


def test_row_19_a_consent_that_is_taken_back_ends_the_job_with_one_cause(engine, drive):
    """At once, with what was made before; when it is given again, the rest is made by a retry."""
    document = body(6, 6, task="row_19", **SOUND)
    job = begin(engine, document, "drive:")
    until(lambda: engine.status(job)["succeeded"] >= 4)
    drive.refresh_error = "invalid_grant"
    drive.forget_tokens()
    before = len(drive.seen)
    status = engine.ended(job, 20)
    assert (status["state"], status["succeeded"] + status["failed"]) == ("done", 36)
    assert 4 <= status["succeeded"] < 36
    (error,) = status["errors"]
    assert "crosscut auth google" in error["reason"]
    assert len(drive.seen) - before < 100
    drive.refresh_error = None
    engine.machine.service.retry(job, None)
    come(engine, job)
    assert in_drive(drive, "row_19") == videos(document)


def test_row_20_a_kill_between_delivery_and_its_record_leaves_one_file(cluster, engine, drive):
    document = body(2, 2, task="row_20", **SOUND)
    mark = cluster.place.root / "row_20.mark"
    cluster.order(WorkFault("batch", "kill", at="end", index=3, mark=str(mark)))
    # What the process held beside it, such as the right to send another file, is free within a minute.
    come(engine, begin(engine, document, "drive:"), 120)
    assert Path(mark).exists()
    assert in_drive(drive, "row_20") == videos(document)
