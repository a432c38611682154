"""Uploads: whose they are, how they are asked for, and how they go."""

from __future__ import annotations

import contextlib
import hashlib
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from sqlalchemy import event

from cluster_play import schema, services
from crosscut.artifacts import Artifacts
from crosscut.errors import StorageError
from crosscut.fields import RequestLimits
from crosscut.gauges import LEAST_FREE_BYTES, full_disks
from crosscut.ports import NotFoundError
from crosscut.previews import Previews
from crosscut.service import Service
from crosscut.shared_lease import shared_artifacts
from crosscut.sharing import Sharing
from crosscut.store import Store
from crosscut.uploads import Uploads
from fakes import MemoryDepot

MP4 = b"\0\0\0\x18ftypmp42" + bytes(100)


@pytest.fixture
def store(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'state.sqlite'}")
    yield store
    store.close()


@pytest.fixture
def uploads(tmp_path, store):
    return Uploads(Artifacts(tmp_path / "data", 10**9), tmp_path / "data" / "uploads", store, 10**6)


@pytest.fixture
def service(tmp_path, store, uploads):
    keyring = SimpleNamespace(authenticate=None, create_key=None, list_keys=None, revoke_key=None)
    limits = RequestLimits()
    return Service(store, SimpleNamespace(), uploads, keyring, destination=str(tmp_path), limits=limits)


def sent(uploads, owner, data=MP4, name="a.mp4"):
    taking = uploads.intake(owner, name)
    taking.write(data)
    return taking.commit()["id"]


def test_uploads_are_asked_for_in_one_query(store, uploads):
    mine, theirs = sent(uploads, "ann"), sent(uploads, "bob", MP4 + b"2")
    asked = []
    event.listen(store.database._engine, "before_cursor_execute", lambda *call: asked.append(call[2][:6]))
    many = ["https://a.example/1.mp4", mine, mine.partition("/")[0], *(f"source:{n:064x}" for n in range(9_000))]
    assert uploads.unknown("ann", many) == f"source:{0:064x}"
    assert asked == ["BEGIN ", "SELECT"]
    assert uploads.unknown("ann", [mine, theirs]) == theirs
    assert uploads.unknown(None, [mine, theirs]) is None
    assert uploads.unknown("ann", ["https://a.example/1.mp4"]) is None
    assert asked == ["BEGIN ", "SELECT"] * 3


def test_the_largest_request_of_uploads_and_links_is_taken(service, uploads):
    mine = sent(uploads, "ann")
    names = [f"{mine.partition('/')[0]}/{n}.mp4" for n in range(5_000)]
    links = [f"https://a.example/{n}.mp4" for n in range(5_000)]
    body = {"task_name": "t", "video_blocks": {"hook": [*names, *links]}}
    assert service.submit(body, owner="ann").variations == 10_000


def test_an_upload_goes_with_its_last_owner(tmp_path, uploads):
    source = sent(uploads, "ann")
    assert sent(uploads, "bob") == source
    kept = tmp_path / "data" / "uploads" / hashlib.sha256(MP4).hexdigest()
    uploads.remove("ann", source)
    assert uploads.unknown("ann", [source]) == source
    assert uploads.unknown("bob", [source]) is None
    assert kept.exists()
    with pytest.raises(NotFoundError) as caught:
        uploads.remove("ann", source)
    assert caught.value.code == "no_such_source"
    uploads.remove("bob", source.partition("/")[0])
    assert not kept.exists()
    assert sent(uploads, "ann") == source
    assert kept.exists()


def test_this_machines_own_command_line_removes_what_anybody_sent(uploads):
    source = sent(uploads, "ann")
    sent(uploads, "bob")
    uploads.remove(None, source)
    assert uploads.unknown(None, [source]) == source


# Of many machines


@pytest.fixture
def depot():
    return MemoryDepot()


def server(folder, store, depot):
    """The uploads of a server with a data folder of its own."""
    sharing = Sharing(depot, (0.01,))
    return Uploads(shared_artifacts(folder, 10**9, sharing, "it"), folder / "uploads", store, 10**6, sharing)


def test_an_upload_to_one_server_is_there_for_all(tmp_path, store, depot):
    one, two = (server(tmp_path / name, store, depot) for name in ("one", "two"))
    source = sent(one, "ann")
    assert two.unknown("ann", [source]) is None
    with two.artifacts.lease() as lease:
        assert lease.content(source.removeprefix("source:").partition("/")[0]).read_bytes() == MP4
    sent(two, "bob")
    one.remove("bob", source)
    assert len(depot.objects) == 1
    two.remove("ann", source)
    assert depot.objects == {}
    assert list((tmp_path / "one" / "uploads").iterdir()) == []


def test_what_was_uploaded_before_there_was_sharing_is_shared_at_the_start(tmp_path, uploads, store, depot):
    source = sent(uploads, "ann")
    server(tmp_path / "data", store, depot)
    assert list(depot.objects.values()) == [MP4]
    server(tmp_path / "data", store, depot).remove("ann", source)
    assert depot.objects == {}
    assert list((tmp_path / "data" / "uploads").iterdir()) == []


def test_an_upload_that_cannot_be_shared_is_not_taken(tmp_path, store, depot):
    one = server(tmp_path / "one", store, depot)
    depot.reachable = False
    with pytest.raises(StorageError) as caught:
        sent(one, "ann")
    assert caught.value.retryable
    assert one.unknown("ann", [f"source:{hashlib.sha256(MP4).hexdigest()}"])


def test_one_that_is_removed_while_another_sends_it_is_there_or_sent_again(tmp_path, depot):
    """Several servers over PostgreSQL: no row is left without its file."""
    with contextlib.ExitStack() as stack:
        url = services()["postgresql"]
        database, _ = stack.enter_context(schema(url, url))
        servers = []
        for name in ("one", "two"):
            store = Store(database)
            stack.callback(store.close)
            servers.append(server(tmp_path / name, store, depot))

        def play(place):
            owner = f"owner {place}"
            for _ in range(25):
                with contextlib.suppress(StorageError):
                    servers[place].remove(owner, sent(servers[place], owner))
            while True:
                with contextlib.suppress(StorageError):
                    return sent(servers[place], owner)

        with ThreadPoolExecutor(2) as pool:
            left = list(pool.map(play, range(2)))
        assert servers[0].unknown("owner 0", [left[0]]) is None
        assert servers[1].unknown("owner 1", [left[1]]) is None
        assert list(depot.objects.values()) == [MP4]


def test_a_disk_that_is_full_or_gone_is_told(tmp_path):
    disks = {"the data folder": tmp_path, "the destination": tmp_path / "to" / "be" / "made"}
    looked = []

    def usage(folder):
        looked.append(folder)
        return SimpleNamespace(free=LEAST_FREE_BYTES - (len(looked) == 1))

    assert list(full_disks(disks, usage)) == ["the disk of the data folder is full: less than 200 MB are left"]
    assert looked == [tmp_path, tmp_path]

    def gone(_folder):
        raise OSError

    assert len(list(full_disks(disks, gone))) == 2


def test_the_service_tells_of_its_disks(store, uploads, monkeypatch, tmp_path):
    keyring = SimpleNamespace(authenticate=None, create_key=None, list_keys=None, revoke_key=None)

    def made(disks):
        return Service(
            store, SimpleNamespace(), uploads, keyring, destination="", limits=RequestLimits(), disks=disks,
            troubles=lambda: ["no worker"],
        )  # fmt: skip

    assert made({}).problems() == ["no worker"]
    monkeypatch.setattr("crosscut.gauges.LEAST_FREE_BYTES", 2**70)
    assert made({"the data folder": tmp_path}).problems()[1].startswith("the disk of the data folder is full")


def test_tidying_reaches_the_previews(store, uploads):
    closed = []
    keyring = SimpleNamespace(authenticate=None, create_key=None, list_keys=None, revoke_key=None)
    previews = Previews(SimpleNamespace())
    previews._benches = SimpleNamespace(tidy=lambda: closed.append(True))
    Service(store, previews, uploads, keyring, destination="", limits=RequestLimits()).tidy()
    assert closed == [True]
