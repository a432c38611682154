from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosscut.artifacts import Artifacts, Lease, artifact_key, whole
from crosscut.errors import FetchError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KEYS = [artifact_key("test", number=number) for number in range(8)]


def write(data: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(data)

    return make


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def store(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path, 1_000_000)


def blobs(root: Path) -> list[Path]:
    return sorted((root / "blobs").glob("*/*"))


@dataclass(frozen=True)
class Frame:
    rate: Fraction


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(st.text(min_size=1, max_size=4), JSON, max_size=4))
def test_a_key_does_not_depend_on_the_order_of_the_recipe(recipe: dict[str, Any]) -> None:
    recipe.pop("kind", None)
    assert artifact_key("a", **recipe) == artifact_key("a", **dict(reversed(recipe.items())))


def test_a_key_tells_apart_what_differs() -> None:
    recipes: list[dict[str, Any]] = [
        {},
        {"a": 1},
        {"a": "1"},
        {"a": True},
        {"a": Fraction(1)},
        {"a": b"1"},
        {"a": Frame(Fraction(1))},
    ]
    keys = [artifact_key(kind, **recipe) for kind in ("x", "y") for recipe in recipes]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 64 for key in keys)


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}])
def test_a_recipe_of_uncertain_meaning_has_no_key(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        artifact_key("a", value=value)


def test_an_artifact_is_made_once_and_then_found(store: Artifacts) -> None:
    made: list[Path] = []

    def make(path: Path) -> None:
        made.append(path)
        path.write_bytes(b"abc")

    with store.lease() as lease:
        assert lease.get(KEYS[0], ".bin") is None
        for _ in range(3):
            path = lease.make(KEYS[0], make, ".bin")
            assert path.read_bytes() == b"abc"
    with store.lease() as later:
        found = later.get(KEYS[0], ".bin")
        assert found is not None
        assert found.read_bytes() == b"abc"
    assert len(made) == 1
    assert made[0].suffix == ".bin"


def test_a_finished_file_is_read_only(store: Artifacts) -> None:
    with store.lease() as lease:
        assert lease.make(KEYS[0], write(b"x")).stat().st_mode & 0o777 == 0o444


def test_json_is_made_once_and_can_be_replaced(store: Artifacts) -> None:
    with store.lease() as lease:
        assert lease.make_json(KEYS[0], lambda: {"a": [1]}) == {"a": [1]}
        assert lease.make_json(KEYS[0], lambda: pytest.fail("made twice")) == {"a": [1]}
        lease.put_json(KEYS[0], {"a": 2})
        assert lease.get_json(KEYS[0]) == {"a": 2}
    with store.lease() as later:
        assert later.get_json(KEYS[0]) == {"a": 2}
        assert later.get_json(KEYS[1]) is None


def test_a_group_comes_from_one_call_or_is_made_again(store: Artifacts, tmp_path: Path) -> None:
    def maker(generation: int) -> Callable[[Mapping[str, Path]], None]:
        def make(paths: Mapping[str, Path]) -> None:
            for suffix, path in paths.items():
                path.write_text(f"{generation}{suffix}")

        return make

    def texts(generation: int) -> list[str]:
        with store.lease() as lease:
            paths = lease.make_group(KEYS[0], (".pcm", ".json"), maker(generation))
            return [path.read_text() for path in paths.values()]

    assert texts(1) == ["1.pcm", "1.json"]
    assert texts(2) == ["1.pcm", "1.json"]
    blobs(tmp_path)[0].unlink()
    assert texts(3) == ["3.pcm", "3.json"]


def test_a_group_whose_maker_fails_half_way_leaves_nothing(store: Artifacts, tmp_path: Path) -> None:
    def half(paths: Mapping[str, Path]) -> None:
        paths[".a"].write_bytes(b"a")
        raise ValueError

    with store.lease() as lease, pytest.raises(ValueError):
        lease.make_group(KEYS[0], (".a", ".b"), half)
    assert blobs(tmp_path) == []


def test_a_group_is_never_mixed_from_two_calls(store: Artifacts) -> None:
    def maker(text: str, *suffixes: str) -> Callable[[Mapping[str, Path]], None]:
        def make(paths: Mapping[str, Path]) -> None:
            for suffix in suffixes:
                paths[suffix].write_text(text)

        return make

    members = (".a", ".b")
    with store.lease() as lease:
        lease.make_group(KEYS[0], members, maker("old", *members))
    store.blob(KEYS[0], ".a").unlink()
    with store.lease() as lease, pytest.raises(StorageError):
        lease.make_group(KEYS[0], members, maker("half", ".a"))
    with store.lease() as lease:
        paths = lease.make_group(KEYS[0], members, maker("new", *members))
        assert [path.read_text() for path in paths.values()] == ["new", "new"]


def test_the_makers_error_is_the_callers_and_the_next_call_makes_again(store: Artifacts, tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise FetchError("No.", code="no")

    with store.lease() as lease:
        with pytest.raises(FetchError, match="No"):
            lease.make(KEYS[0], fail)
        assert blobs(tmp_path) == []
        assert lease.make(KEYS[0], write(b"whole")).read_bytes() == b"whole"


def test_a_maker_that_writes_nothing_is_a_storage_error(store: Artifacts) -> None:
    with store.lease() as lease, pytest.raises(StorageError):
        lease.make(KEYS[0], lambda _: None)


def test_threads_make_a_key_once(store: Artifacts) -> None:
    made: list[Path] = []

    def slow(path: Path) -> None:
        time.sleep(0.05)
        made.append(path)
        path.write_bytes(b"x")

    with store.lease() as lease, ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: lease.make(KEYS[0], slow), range(8)))
    assert len(made) == 1
    assert len(set(paths)) == 1


def test_threads_may_put_the_same_bytes_at_the_same_time(tmp_path: Path) -> None:
    """Two sources of one content: each finds its file replaced by the other's while it is given its second name."""
    for round_ in range(15):
        with Artifacts(tmp_path / str(round_), 1_000_000).lease() as lease, ThreadPoolExecutor(8) as pool:

            def put(_: int, lease: Lease = lease) -> Path:
                scratch = lease.scratch()
                scratch.write_bytes(b"the same")
                return lease.keep(scratch, KEYS[0])

            assert {path.read_bytes() for path in pool.map(put, range(40))} == {b"the same"}


def test_processes_make_a_key_once(tmp_path: Path) -> None:
    code = """
import random, sys, time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from crosscut.artifacts import Artifacts
root, seed, *keys = sys.argv[1:]
def make(path):
    time.sleep(0.01)
    path.write_bytes(b"x" * 1000)
    print("made")
draw = random.Random(int(seed))
with Artifacts(Path(root), 10**6).lease() as lease:
    for _ in range(20):
        assert lease.make(draw.choice(keys), make).stat().st_size == 1000
    for key in keys:
        assert lease.make(key, make).stat().st_size == 1000
"""
    workers = [python(code, tmp_path, seed, *KEYS) for seed in range(6)]
    outputs = [worker.communicate(timeout=30)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 6
    assert "".join(outputs).count("made") == len(KEYS)


def test_the_cap_holds_and_the_least_recently_used_go_first(tmp_path: Path) -> None:
    store = Artifacts(tmp_path, 1000)
    now = time.time()
    for age, key in enumerate(KEYS):
        with store.lease() as lease:
            lease.make(key, write(bytes(200)))
        os.utime(store.blob(key, ""), (now - 1000 + age, now - 1000 + age))
        if age == 3:
            with store.lease() as lease:
                assert lease.get(KEYS[0]) is not None
        assert sum(path.stat().st_size for path in blobs(tmp_path)) <= 1000
    kept = {path.name for path in blobs(tmp_path)}
    assert {KEYS[0], KEYS[-1]} <= kept
    assert KEYS[1] not in kept


def test_an_existing_store_is_cut_to_the_cap_at_the_start(tmp_path: Path) -> None:
    with Artifacts(tmp_path, 10_000).lease() as lease:
        for key in KEYS:
            lease.make(key, write(bytes(1000)))
    Artifacts(tmp_path, 4000)
    assert len(blobs(tmp_path)) == 3


def test_what_a_lease_holds_survives_eviction(tmp_path: Path) -> None:
    store = Artifacts(tmp_path, 1000)
    with store.lease() as holder, store.lease() as other:
        held = holder.make(KEYS[0], write(b"h" * 600))
        for key in KEYS[1:]:
            other.make(key, write(bytes(600)))
        store.blob(KEYS[0], "").unlink()
        assert held.read_bytes() == b"h" * 600
        assert holder.get(KEYS[0]) == held


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: os.truncate(path, 0)])
def test_a_vanished_or_empty_file_is_made_again(
    store: Artifacts, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    with store.lease() as lease:
        lease.make(KEYS[0], write(b"abc"))
    damage(blobs(tmp_path)[0])
    with store.lease() as lease:
        assert lease.get(KEYS[0]) is None
        assert lease.make(KEYS[0], write(b"abc")).read_bytes() == b"abc"


def damage(path: Path, data: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(data)
    path.chmod(0o444)


def test_json_that_cannot_be_read_is_made_again(store: Artifacts) -> None:
    with store.lease() as lease:
        lease.put_json(KEYS[0], {"a": 1})
    damage(store.blob(KEYS[0], ".json"), b"{")
    with store.lease() as lease:
        assert lease.get_json(KEYS[0]) is None
        assert lease.make_json(KEYS[0], lambda: {"a": 1}) == {"a": 1}
    with store.lease() as later:
        assert later.get_json(KEYS[0]) == {"a": 1}


def needs_four(paths: Mapping[str, Path]) -> bytes:
    return whole(paths[".a"], 4).read_bytes() + paths[".b"].read_bytes()


def test_what_its_reader_calls_damaged_is_made_once_more(store: Artifacts) -> None:
    calls: list[int] = []

    def make(paths: Mapping[str, Path]) -> None:
        calls.append(1)
        for path in paths.values():
            path.write_bytes(b"good")

    with store.lease() as lease:
        lease.make_read(KEYS[0], (".a", ".b"), make, needs_four)
    damage(store.blob(KEYS[0], ".a"), b"goo")
    all_see_it, seen = threading.Barrier(4, timeout=5), threading.local()

    def together(paths: Mapping[str, Path]) -> bytes:
        try:
            return needs_four(paths)
        finally:
            if not hasattr(seen, "it"):
                seen.it = True
                all_see_it.wait()

    with store.lease() as lease, ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda _: lease.make_read(KEYS[0], (".a", ".b"), make, together), range(4)))
    assert read == [b"goodgood"] * 4
    assert len(calls) == 2, "once at first, once for the damage, however many see it"


def test_what_is_made_damaged_twice_is_the_callers_error(store: Artifacts) -> None:
    calls: list[int] = []

    def make(paths: Mapping[str, Path]) -> None:
        calls.append(1)
        paths[".a"].write_bytes(b"bad")

    with store.lease() as lease, pytest.raises(ValueError, match="4 bytes"):
        lease.make_read(KEYS[0], (".a",), make, needs_four)
    assert len(calls) == 2


def test_a_killed_maker_leaves_nothing_and_a_waiter_takes_over(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from crosscut.artifacts import Artifacts
def make(path):
    path.write_bytes(b"half")
    print("busy", flush=True)
    time.sleep(60)
with Artifacts(Path(sys.argv[1]), 10**6).lease() as lease:
    lease.make(sys.argv[2], make)
"""
    with python(code, tmp_path, KEYS[0]) as victim, ThreadPoolExecutor(1) as pool:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "busy\n"
        store = Artifacts(tmp_path, 10**6)
        assert len(list((tmp_path / "jobs").glob("*/scratch-*"))) == 1, "a living process keeps its folder"
        with store.lease() as lease:
            waiter = pool.submit(lease.make, KEYS[0], write(b"whole"))
            time.sleep(0.2)
            assert not waiter.done()
            victim.send_signal(signal.SIGKILL)
            assert waiter.result(timeout=5).read_bytes() == b"whole"
    Artifacts(tmp_path, 10**6)
    assert list((tmp_path / "jobs").iterdir()) == []
    assert [path.read_bytes() for path in blobs(tmp_path)] == [b"whole"]


def test_a_lease_leaves_no_files_behind(store: Artifacts, tmp_path: Path) -> None:
    with store.lease() as lease:
        lease.scratch(".tmp").write_bytes(b"x")
        lease.make(KEYS[0], write(b"x"))
    assert list((tmp_path / "jobs").iterdir()) == []


def test_waiting_for_a_lock_can_be_given_up(store: Artifacts) -> None:
    def waiting() -> None:
        raise FetchError("Enough.")

    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with store.locked(KEYS[0]):
            holding.set()
            done.wait(5)

    thread = threading.Thread(target=hold)
    thread.start()
    holding.wait(5)
    with pytest.raises(FetchError, match="Enough"), store.locked(KEYS[0], waiting):
        pass
    done.set()
    thread.join()


def fill_disk(path: Path) -> None:
    """Really run out of space, whatever the disk: the kernel's own full device."""
    path.write_bytes(b"part")
    with Path("/dev/full").open("wb") as device:
        device.write(b"x")


needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")


@needs_full_device
def test_a_full_disk_evicts_and_tries_once_more(tmp_path: Path) -> None:
    store = Artifacts(tmp_path, 10_000)
    for key in KEYS[:4]:
        with store.lease() as lease:
            lease.make(key, write(bytes(1000)))
    tries: list[Path] = []

    def maker(path: Path) -> None:
        tries.append(path)
        if len(tries) == 1:
            fill_disk(path)
        path.write_bytes(b"fits")

    with store.lease() as lease:
        assert lease.make(KEYS[7], maker).read_bytes() == b"fits"
    assert len(tries) == 2
    assert len(blobs(tmp_path)) == 3


@needs_full_device
def test_a_disk_that_stays_full_says_how_to_free_it(store: Artifacts, tmp_path: Path) -> None:
    with store.lease() as lease, pytest.raises(StorageError, match="CROSSCUT_DATA_DIR") as caught:
        lease.make(KEYS[0], fill_disk)
    assert caught.value.code == "disk_full"
    assert caught.value.retryable
    assert blobs(tmp_path) == []


@needs_full_device
def test_a_full_disk_is_recognised_behind_another_error(store: Artifacts) -> None:
    tries: list[Path] = []

    def maker(path: Path) -> None:
        tries.append(path)
        try:
            fill_disk(path)
        except OSError as error:
            raise ValueError("encoder failed") from error

    with store.lease() as lease, pytest.raises(StorageError):
        lease.make(KEYS[0], maker)
    assert len(tries) == 2


def test_other_errors_of_the_system_in_a_maker_stay_the_makers(store: Artifacts) -> None:
    def maker(path: Path) -> None:
        raise OSError(errno.EIO, "broken")

    with store.lease() as lease, pytest.raises(OSError, match="broken"):
        lease.make(KEYS[0], maker)


def test_a_root_that_cannot_be_a_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="CROSSCUT_DATA_DIR") as caught:
        Artifacts(tmp_path / "file" / "store", 1000)
    assert str(tmp_path) not in caught.value.public
    assert caught.value.code == "storage_unusable"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_root_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="writable"):
        Artifacts(tmp_path / "store", 1000)


def test_a_store_that_vanishes_while_in_use_is_one_sentence(store: Artifacts, tmp_path: Path) -> None:
    for folder in ("locks", "jobs", "blobs"):
        (tmp_path / folder).rename(tmp_path / f"old-{folder}")
    with pytest.raises(StorageError, match="data folder"), store.lease():
        pass
