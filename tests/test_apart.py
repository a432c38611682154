"""Worker processes with data folders of their own, as on machines of their own, and one folder that all share."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from cluster_play import clustered
from crosscut.errors import RequestError, StorageError
from crosscut.store import Options
from engine_play import SOUND, Fault, Place, body, by_upload, check_like_undisturbed, running, until

SMALL = body(2, 2, **SOUND)
WIDE = body(3, 3, **SOUND)


def small(**more):
    """Pieces of work so small that every machine gets some."""
    return Options(**{**more, "batch": 1})


@pytest.mark.parametrize(("shared", "error"), [("missing", StorageError), ("drive:", RequestError)])
def test_what_cannot_be_shared_is_told_at_the_start(place, shared, error):
    where = shared if shared == "drive:" else str(place.root / shared)
    with pytest.raises(error, match="CROSSCUT_SHARED"), running(place, shared=where):
        pass


@pytest.mark.parametrize("broker", ["redis"])
def test_workers_with_folders_of_their_own_make_a_job_together(tmp_path, broker):
    """`crosscut worker`s and a server over PostgreSQL; what they share is a folder."""
    folders = [tmp_path / f"machine-{name}" for name in ("net", "one", "two")]
    with clustered(tmp_path, broker, batch=1, shared=str(tmp_path / "shared")) as cluster:
        cluster.place.shared.mkdir()
        lanes = zip(("network", "processor", "processor"), folders, strict=True)
        with cluster.serving() as engine:
            workers = [cluster.work(lane, at_once=1, data_dir=str(folder)) for lane, folder in lanes]
            cluster.ready(engine, 3)
            job = engine.submit(by_upload(cluster.place, WIDE, engine.upload))
            status = engine.ended(job)
            assert (status["succeeded"], status["failed"], status["clips_encoded"]) == (9, 0, 6)
            (name,) = [name for name in cluster.place.files("task") if name.startswith("1_")]
            assert engine.machine.service.playable(job, None, 1).file.sha256() == cluster.place.files("task")[name]
            assert [worker.stop() for worker in workers] == [0, 0, 0]
        delivered = [event["worker"].partition("/")[0] for event in cluster.log() if event.get("stage") == "deliver"]
        assert len(set(delivered)) == 2, "both made videos"
        check_agreement(cluster.place)
        check_like_undisturbed(cluster.place, WIDE, uploaded=True)


def test_a_worker_that_shares_something_else_is_refused(tmp_path):
    with clustered(tmp_path, shared=str(tmp_path / "shared")) as cluster:
        cluster.place.shared.mkdir()
        (tmp_path / "other").mkdir()
        with cluster.serving():
            for settings in ({"shared": str(tmp_path / "other")}, {"shared": ""}):
                worker = cluster.work("processor", data_dir=str(tmp_path / "machine-x"), **settings)
                assert worker.process.wait(60)
    assert (tmp_path / "worker.log").read_text().count("CROSSCUT_SHARED") >= 2


def unhurried(**more):
    """Makes no variations."""
    return Options(**{**more, "window": 0})


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def pieces(folder):
    """SHA-256 of every piece of a machine, by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "blobs").glob("*/*")}


def check_agreement(place):
    """Whatever two machines have, they have the same bytes of."""
    seen = {}
    for folder in (place.data, *place.machines()):
        for name, digest in pieces(folder).items():
            assert seen.setdefault(name, digest) == digest, name


def test_machines_without_a_common_disk_finish_a_job_together(place):
    with running(place, apart=True, options=small) as engine:
        job = engine.submit(by_upload(place, SMALL, engine.upload))
        status = engine.ended(job)
        assert (status["succeeded"], status["failed"], status["clips_encoded"]) == (4, 0, 4)
        assert status["stages"]["fetch"]["done"] == 6
        (name,) = [name for name in place.files("task") if name.startswith("1_")]
        file = engine.machine.service.playable(job, None, 1).file
        assert file.sha256() == place.files("task")[name], "played where nothing was made"
        assert engine.machine.service.poster(job, None, 1)[0].startswith(b"\xff\xd8")
    assert len(place.machines()) == 3
    assert all(map(pieces, place.machines()))
    check_agreement(place)
    check_like_undisturbed(place, SMALL, uploaded=True)


@pytest.mark.parametrize(
    "wishes", [{"captions": "burn", **SOUND}, {"clip_sound": "keep"}], ids=["captions in the pictures", "clips' sound"]
)
def test_what_is_made_inside_of_units_is_shared_too(place, wishes):
    document = body(2, 2, **wishes)
    with running(place, apart=True, options=small) as engine:
        status = engine.ended(engine.submit(document))
    assert (status["succeeded"], status["failed"]) == (4, 0)
    check_agreement(place)
    check_like_undisturbed(place, document)
    made = {path.name for path in place.shared.glob("pieces/*/*")}
    mine = {path.name.partition("-")[0] for folder in place.machines() for path in folder.glob("blobs/*/*")}
    sources = {path.name for path in place.shared.glob("files/*/*")}
    notes = {path.name for path in place.shared.glob("notes/*/*")}
    assert {name for name in mine if name not in made | sources | notes} == private(place), "nothing is one machine's"


def private(place):
    """Keys of notes about paths, which mean nothing elsewhere."""
    found = set()
    for folder in place.machines():
        for path in folder.glob("blobs/*/*.json"):
            if path.read_bytes().startswith(b'{"sha256"'):
                found.add(path.name.partition("-")[0])
    return found


def prepared(place, apart):
    """A job whose clips have all been encoded and of which nothing else was made; where those are shared."""
    with running(place, apart=apart, shared=str(place.shared), options=unhurried) as engine:
        job = engine.submit(SMALL)
        until(lambda: engine.status(job)["stages"]["conform"]["done"] == 4)
    keys = {row["key"] for row in place.rows("SELECT key FROM slots")}
    return job, keys


@pytest.mark.parametrize("damage", ["deleted", "changed"])
def test_row_28_a_piece_that_is_damaged_where_it_is_shared_is_made_again(place, damage):
    job, keys = prepared(place, apart=True)
    encoded = sorted(path for path in place.shared.glob("*/*/*") if path.name in keys)
    assert len(encoded) == 4
    for path in encoded[:2]:
        spoil(path, damage)
    with running(place, apart=True, workers=1) as engine:
        status = engine.ended(job)
    assert (status["succeeded"], status["failed"], status["clips_encoded"]) == (4, 0, 6)
    check_like_undisturbed(place, SMALL)


@pytest.mark.parametrize("damage", ["deleted", "cut"])
def test_row_28_a_piece_that_is_damaged_here_is_fetched_again(place, damage):
    place.shared.mkdir()
    job, keys = prepared(place, apart=False)
    encoded = sorted(path for path in place.data.glob("blobs/*/*.mp4") if path.name.partition("-")[0] in keys)
    assert len(encoded) == 4
    for path in encoded[:2]:
        spoil(path, damage)
    with running(place, shared=str(place.shared)) as engine:
        status = engine.ended(job)
    assert (status["succeeded"], status["failed"], status["clips_encoded"]) == (4, 0, 4)
    check_like_undisturbed(place, SMALL)


def spoil(path, damage):
    path.chmod(0o600)
    data = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    elif damage == "changed":
        path.write_bytes(data[:300] + bytes([data[300] ^ 1]) + data[301:])
    else:
        os.truncate(path, 0 if damage == "emptied" else len(data) // 2)


def test_machines_wait_for_what_they_share_to_come_back(place):
    held = Fault("segment", "hold", at="end", mark=str(place.root / "mark"), release=str(place.root / "go"))
    with running(place, held, apart=True) as engine:
        job = engine.submit(SMALL)
        until(Path(held.mark).exists)
        place.shared.rename(place.root / "away")
        Path(held.release).touch()
        assert "CROSSCUT_SHARED" in engine.machine.service.problems()[0]
        time.sleep(1)
        assert not engine.over(job)
        (place.root / "away").rename(place.shared)
        status = engine.ended(job)
    assert (status["succeeded"], status["failed"], status["clips_encoded"]) == (4, 0, 4)
    check_like_undisturbed(place, SMALL)
