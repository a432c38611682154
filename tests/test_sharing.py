"""Machines that share: what one has made or fetched, the others take, and all have the same bytes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from crosscut.artifacts import Artifacts, artifact_key, whole
from crosscut.depot import BLOCK, UNAVAILABLE
from crosscut.errors import SandboxError, StorageError
from crosscut.folder_depot import FolderDepot
from crosscut.shared_lease import shared_artifacts
from crosscut.sharing import SMALL, Sharing
from fakes import MemoryDepot

KEYS = [artifact_key("test", number=number) for number in range(8)]
LARGE = 3 * SMALL
QUICK = (0.01, 0.01)


@pytest.fixture
def depot():
    return MemoryDepot()


@pytest.fixture
def machine(tmp_path, depot):
    """Leases of machines by name, each with a data folder of its own."""
    with ExitStack() as stack:
        leases = {}

        def machine(name, cap=1 << 30):
            if name not in leases:
                store = shared_artifacts(tmp_path / name, cap, Sharing(depot, QUICK), "the depot")
                leases[name] = stack.enter_context(store.lease())
            return leases[name]

        yield machine


def filler(size=LARGE):
    """Makes other bytes each time, as encoders do."""

    def make(paths):
        make.calls += 1
        for path in paths.values():
            path.write_bytes(os.urandom(size))

    make.calls = 0
    return make


def never(_paths):
    pytest.fail("made again")


def contents(paths):
    return {suffix: path.read_bytes() for suffix, path in paths.items()}


GROUP = (".pcm", ".m4a")


@pytest.mark.parametrize("size", [100, LARGE, BLOCK + 1])
def test_what_one_machine_made_another_takes(machine, size):
    made = contents(machine("one").make_group(KEYS[0], GROUP, filler(size)))
    assert contents(machine("two").make_group(KEYS[0], GROUP, never)) == made
    assert machine("two").get(KEYS[0], ".m4a").read_bytes() == made[".m4a"]
    assert machine("two").get(KEYS[0], ".m4a").stat().st_mode & 0o777 == 0o444
    assert machine("two").get(KEYS[1], ".m4a") is None


def test_a_group_of_small_files_is_one_object(machine, depot):
    machine("one").make_group(KEYS[0], GROUP, filler(1000))
    assert list(depot.objects) == [f"pieces/{KEYS[0][:2]}/{KEYS[0]}"]
    depot.calls.clear()
    machine("two").get_group(KEYS[0], GROUP)
    assert len(depot.calls) == 1


def test_what_is_here_is_used_without_asking(machine, depot):
    machine("one").make_group(KEYS[0], GROUP, filler())
    depot.calls.clear()
    depot.reachable = False
    machine("one").make_group(KEYS[0], GROUP, never)
    assert machine("one").get(KEYS[0], ".pcm")
    assert depot.calls == []


@pytest.mark.parametrize("size", [100, LARGE])
def test_of_two_that_make_it_at_the_same_time_the_first_ones_bytes_are_everybodys(machine, depot, size):
    both, make = threading.Barrier(2, timeout=10), filler(size)

    def together(paths):
        make(paths)
        both.wait()

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda name: contents(machine(name).make_group(KEYS[0], GROUP, together)), ("one", "two"))
    assert make.calls == 2
    assert one == two == contents(machine("three").make_group(KEYS[0], GROUP, never))
    assert (
        contents(machine("one").get_group(KEYS[0], GROUP)) == contents(machine("two").get_group(KEYS[0], GROUP)) == one
    )


def test_who_was_second_sends_no_bytes(machine, depot):
    def late(paths):
        filler()(paths)
        machine("one").make_group(KEYS[0], GROUP, filler())
        depot.calls.clear()

    machine("two").make_group(KEYS[0], GROUP, late)
    assert not [call for call in depot.calls if call.startswith("store")]


def test_what_was_evicted_here_is_fetched_again(machine, tmp_path):
    lease = machine("one", cap=2 * LARGE)
    made = {}
    for key in KEYS:
        with shared_lease(lease) as other:
            made[key] = contents(other.make_group(key, (".mp4",), filler()))
    assert sum(path.stat().st_size for path in (tmp_path / "one" / "blobs").glob("*/*")) <= 2 * LARGE
    for key in KEYS:
        with shared_lease(lease) as other:
            assert contents(other.make_group(key, (".mp4",), never)) == made[key]
    assert sum(path.stat().st_size for path in (tmp_path / "one" / "blobs").glob("*/*")) <= 2 * LARGE


def shared_lease(lease):
    """Another one on the same machine."""
    return lease._store.lease()


DAMAGE = {
    "removed": lambda _: None,
    "cut": lambda data: data[:-7],
    "emptied": lambda _: b"",
    "changed": lambda data: bytes([data[0] ^ 1]) + data[1:],
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("area", ["files", "pieces"])
def test_what_is_damaged_there_is_made_again_once(machine, depot, how, area):
    machine("one").make_group(KEYS[0], GROUP, filler())
    name = next(name for name in depot.objects if name.startswith(area))
    spoil(depot, name, DAMAGE[how])
    make = filler()
    made = contents(machine("two").make_group(KEYS[0], GROUP, make))
    assert make.calls == 1
    assert contents(machine("three").make_group(KEYS[0], GROUP, never)) == made
    assert {suffix: len(data) for suffix, data in made.items()} == {".pcm": LARGE, ".m4a": LARGE}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_small_file_is_found_by_its_hash(machine, depot, how):
    machine("one").make_group(KEYS[0], (".json",), filler(100))
    (name,) = depot.objects
    card = json.loads(depot.objects[name])
    spoiled = DAMAGE[how](base64.b64decode(card["files"][".json"]["data"]))
    card["files"][".json"]["data"] = None if spoiled is None else base64.b64encode(spoiled).decode()
    depot.objects[name] = json.dumps(card).encode()
    make = filler(100)
    made = contents(machine("two").make_group(KEYS[0], (".json",), make))
    assert make.calls == 1
    assert contents(machine("three").make_group(KEYS[0], (".json",), never)) == made


def spoil(depot, name, how):
    data = how(depot.objects[name])
    if data is None:
        del depot.objects[name]
    else:
        depot.objects[name] = data


def test_two_that_find_it_damaged_agree_on_what_replaces_it(machine, depot):
    machine("one").make_group(KEYS[0], GROUP, filler())
    for name in [name for name in depot.objects if name.startswith("files")]:
        del depot.objects[name]
    both, make = threading.Barrier(2, timeout=10), filler()

    def together(paths):
        make(paths)
        both.wait()

    with ThreadPoolExecutor(2) as pool:
        two, three = pool.map(lambda name: contents(machine(name).make_group(KEYS[0], GROUP, together)), ("2", "3"))
    assert two == three


def needs_large(paths):
    return whole(paths[".pcm"], LARGE).read_bytes()


def test_what_is_damaged_here_is_fetched_and_not_made(machine, depot):
    made = machine("one").make_read(KEYS[0], GROUP, filler(), needs_large)
    lease = machine("one")
    blob = lease._store.blob(KEYS[0], ".pcm")
    blob.chmod(0o600)
    os.truncate(blob, 100)
    assert lease.get(KEYS[0], ".pcm").stat().st_size == 100
    assert lease.make_read(KEYS[0], GROUP, never, needs_large) == made
    with shared_lease(lease) as other:
        assert other.make_read(KEYS[0], GROUP, never, needs_large) == made


def test_what_was_shared_but_is_of_no_use_is_replaced(machine, depot):
    machine("one").make_group(KEYS[0], GROUP, filler(100))
    make = filler()
    made = machine("two").make_read(KEYS[0], GROUP, make, needs_large)
    assert make.calls == 1
    assert machine("three").make_read(KEYS[0], GROUP, never, needs_large) == made
    assert machine("one").make_read(KEYS[0], GROUP, never, needs_large) == made


def test_what_cannot_be_shared_is_not_made_and_can_be_tried_again(machine, depot, tmp_path):
    def out_of_order(paths):
        filler()(paths)
        depot.reachable = False

    with pytest.raises(StorageError) as caught:
        machine("one").make_group(KEYS[0], GROUP, out_of_order)
    assert (caught.value.code, caught.value.retryable) == (UNAVAILABLE, True)
    assert not list((tmp_path / "one").glob("blobs/*/*"))
    with pytest.raises(StorageError):
        machine("one").get(KEYS[0], ".pcm")
    depot.reachable = True
    machine("one").make_group(KEYS[0], GROUP, filler())


def test_troubles_that_pass_are_waited_for(machine, depot):
    for troubles in (1, 2):
        depot.troubles = troubles
        machine("one").make_group(KEYS[troubles], GROUP, filler())
        depot.troubles = troubles
        machine("two").make_group(KEYS[troubles], GROUP, never)


def test_a_source_is_taken_by_its_content(machine, depot):
    data = os.urandom(LARGE)
    sha256 = hashlib.sha256(data).hexdigest()
    scratch = machine("one").scratch()
    scratch.write_bytes(data)
    machine("one").keep(scratch, sha256)
    assert machine("two").content(sha256).read_bytes() == data
    blob = machine("two")._store.blob(sha256, "")
    blob.chmod(0o600)
    os.truncate(blob, 5)
    assert machine("two").content(sha256, LARGE).read_bytes() == data
    depot.objects[f"files/{sha256[:2]}/{sha256}"] = data[:-1]
    assert machine("three").content(sha256) is None
    assert list(depot.objects) == [], "so that who has it can share it again"


def test_an_upload_is_taken_by_its_content_and_lies_apart(machine, depot):
    data = os.urandom(LARGE)
    sha256 = hashlib.sha256(data).hexdigest()
    scratch = machine("one").scratch()
    scratch.write_bytes(data)
    machine("one").keep_upload(scratch, sha256, LARGE)
    assert list(depot.objects) == [f"uploads/{sha256[:2]}/{sha256}"]
    assert machine("two").content(sha256).read_bytes() == data


def test_notes_reach_the_others_but_for_private_ones(machine):
    one, two, three = map(machine, ("one", "two", "three"))
    one.put_json(KEYS[0], {"a": 1})
    assert two.get_json(KEYS[0]) == {"a": 1}
    two.put_json(KEYS[0], {"a": 2})
    assert three.get_json(KEYS[0]) == {"a": 2}
    assert one.get_json(KEYS[0]) == {"a": 1}, "its own, until it asks the server again"
    one.put_json(KEYS[1], 1, private=True)
    assert (one.get_json(KEYS[1], private=True), two.get_json(KEYS[1])) == (1, None)


def test_a_machine_of_another_cluster_is_known(depot):
    Sharing(depot).mark("ours")
    assert Sharing(depot).is_marked("ours")
    assert not Sharing(depot).is_marked("theirs")


def test_half_of_a_file_that_is_there_is_replaced(machine, depot):
    data = os.urandom(LARGE)
    sha256 = hashlib.sha256(data).hexdigest()
    depot.objects[f"files/{sha256[:2]}/{sha256}"] = data[:-1]
    scratch = machine("one").scratch()
    scratch.write_bytes(data)
    machine("one").keep(scratch, sha256)
    assert machine("two").content(sha256).read_bytes() == data


def test_what_comes_damaged_is_asked_for_once_more(machine, depot, monkeypatch):
    made = contents(machine("one").make_group(KEYS[0], GROUP, filler()))
    whole_blocks, damaged = depot.blocks, []

    def blocks(name):
        for block in whole_blocks(name):
            yield block if damaged else block[:-1]
            damaged.append(name)

    monkeypatch.setattr(depot, "blocks", blocks)
    assert contents(machine("two").make_group(KEYS[0], GROUP, never)) == made
    assert len(damaged) == 3


def test_of_threads_that_want_the_same_one_fetches_it(machine, depot, monkeypatch):
    machine("one").make_group(KEYS[0], GROUP, filler())
    lease, quick = machine("two"), depot.blocks
    depot.calls.clear()

    def slow(name):
        time.sleep(0.1)
        return quick(name)

    monkeypatch.setattr(depot, "blocks", slow)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: contents(lease.get_group(KEYS[0], GROUP)), range(4)))
    assert found == [found[0]] * 4
    assert len([call for call in depot.calls if call.startswith("blocks")]) == len(GROUP)


def scratches(lease):
    """Files of a lease that have no name yet."""
    return [path for path in lease._folder.iterdir() if not path.name.startswith(tuple(KEYS))]


@pytest.mark.parametrize("how", ["missing", "stopped"])
def test_what_cannot_be_fetched_whole_leaves_nothing_here(machine, depot, how):
    machine("one").make_group(KEYS[0], GROUP, filler())
    last = max(name for name in depot.objects if name.startswith("files"))
    lease = machine("two")
    if how == "missing":
        del depot.objects[last]
        assert lease.get_group(KEYS[0], GROUP) is None
    else:

        def check():
            if any(call.startswith("blocks") for call in depot.calls):
                raise SandboxError("cancelled", code="cancelled")

        depot.calls.clear()
        with pytest.raises(SandboxError):
            lease.watched(check).get_group(KEYS[0], GROUP)
    assert scratches(lease) == []


def test_a_damaged_source_that_nobody_has_is_no_source(machine, depot):
    data = os.urandom(LARGE)
    sha256 = hashlib.sha256(data).hexdigest()
    scratch = machine("one").scratch()
    scratch.write_bytes(data)
    machine("one").keep(scratch, sha256)
    depot.objects.clear()
    blob = machine("one")._store.blob(sha256, "")
    blob.chmod(0o600)
    os.truncate(blob, 5)
    assert machine("one").content(sha256, LARGE) is None
    assert machine("one").content(sha256) is None


def test_who_is_to_stop_does_not_wait(machine, depot):
    stop = threading.Event()

    def check():
        if stop.is_set():
            raise SandboxError("cancelled", code="cancelled")

    depot.reachable = False
    lease = shared_artifacts(Path(machine("one")._store._blobs.parent), 1 << 30, Sharing(depot, (60.0,)), "the depot")
    with lease.lease() as held, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(held.watched(check).get, KEYS[0], ".pcm")
        time.sleep(0.2)
        start = time.monotonic()
        stop.set()
        with pytest.raises(SandboxError, match="cancelled"):
            asked.result(5)
        assert time.monotonic() - start < 1


def test_what_was_made_before_there_was_sharing_is_not_taken_for_shared(machine, tmp_path, depot):
    with Artifacts(tmp_path / "one", 1 << 30).lease() as alone:
        alone.make_group(KEYS[0], GROUP, filler())
    assert machine("one").get_group(KEYS[0], GROUP) is None
    made = contents(machine("one").make_group(KEYS[0], GROUP, filler()))
    assert contents(machine("two").make_group(KEYS[0], GROUP, never)) == made
    with Artifacts(tmp_path / "one", 1 << 30).lease() as alone:
        assert contents(alone.get_group(KEYS[0], GROUP)) != made


MAKER = """
import hashlib, os, random, sys
from pathlib import Path
from crosscut.folder_depot import FolderDepot
from crosscut.shared_lease import shared_artifacts
from crosscut.sharing import Sharing
root, depot, seed, *keys = sys.argv[1:]
def make(paths):
    for path in paths.values():
        path.write_bytes(os.urandom(200_000))
draw = random.Random(int(seed))
store = shared_artifacts(Path(root), 2_000_000, Sharing(FolderDepot(Path(depot))), "it")
print("ready", flush=True)
sys.stdin.readline()
for _ in range(25):
    with store.lease() as lease:
        key = draw.choice(keys)
        paths = lease.make_group(key, (".a", ".b"), make)
        print(key, *(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths.values()))
"""


def test_processes_with_folders_of_their_own_see_one_set_of_bytes(tmp_path):
    depot = tmp_path / "depot"
    depot.mkdir()
    FolderDepot(depot).check()
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", MAKER, str(tmp_path / f"m{seed}"), str(depot), str(seed), *KEYS],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for seed in range(4)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    seen = {}
    for line in "".join(worker.communicate("go\n", timeout=60)[0] for worker in workers).splitlines():
        key, *digests = line.split()
        seen.setdefault(key, set()).add(tuple(digests))
    assert [worker.returncode for worker in workers] == [0] * 4
    assert {len(digests) for digests in seen.values()} == {1}
    assert len(seen) == len(KEYS)


def test_a_maker_that_is_killed_while_it_shares_leaves_nothing(tmp_path):
    depot = tmp_path / "depot"
    depot.mkdir()
    FolderDepot(depot).check()
    code = MAKER.partition('print("ready"')[0] + (
        "with store.lease() as lease:\n"
        "    real = FolderDepot.write\n"
        "    def write(self, name, data, instead_of=None):\n"
        "        print('sharing', flush=True); sys.stdin.read()\n"
        "    FolderDepot.write = write\n"
        "    lease.make_group(keys[0], ('.a', '.b'), make)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "one"), str(depot), "1", KEYS[0]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout.readline() == "sharing\n"
        victim.kill()
    store = shared_artifacts(tmp_path / "two", 1 << 30, Sharing(FolderDepot(depot)), "it")
    with store.lease() as lease:
        assert lease.get_group(KEYS[0], (".a", ".b")) is None
        make = filler()
        lease.make_group(KEYS[0], (".a", ".b"), make)
        assert make.calls == 1
