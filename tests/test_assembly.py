"""Files put together inside a bucket: what is shared is sent once, and whoever refuses gets files whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer

from contracts.destination import DestinationContract, numbered
from crosscut.destinations import nothing
from crosscut.destinations.assembly import ASKED_AGAIN, HIDDEN, WORTH, Assemblies
from crosscut.destinations.buckets import Bucket, CloudOptions, google_facts
from crosscut.destinations.compose import MOST, CannotJoinError, Composer, PartsGoneError
from crosscut.destinations.objectstore import PART, ObjectStoreDestination
from crosscut.errors import DeliverError
from crosscut.virtual import Extent, VirtualFile
from gcs_emulator import TOKEN, Emulator, joined_crc32c

CLIP = WORTH
PLACE = "some where"


@pytest.fixture
def emulator():
    with Emulator() as emulator:
        yield emulator


def options_for(emulator, tmp_path, **more):
    key = tmp_path / "key.json"
    key.write_text(emulator.service_account)
    return CloudOptions(gcs_key_file=str(key), gcs_endpoint=emulator.url, **more)


def destination_in(emulator, tmp_path, **more):
    return ObjectStoreDestination(
        f"gs://bucket/{PLACE}", options_for(emulator, tmp_path, **more), tmp_path / "locks", {}
    )


def clip(number, size=CLIP):
    return bytes((number,)) + numbered(size - 1)


def video(head, *clips):
    """`head` is its own, the clips are shared."""
    extents = [Extent(part, 0, len(part)) for part in (head, *clips)]
    at, shared = len(head), []
    for each in clips:
        shared.append((at, at + len(each)))
        at += len(each)
    return VirtualFile(extents, shared)


def content(file):
    return file.read_range(0, len(file))


def hidden(emulator, folder="task"):
    return emulator.names(f"{PLACE}/{HIDDEN}/{folder}/")


class Sharing:
    """Marks most of every file as shared, whatever it holds."""

    def __init__(self, inner):
        self.inner = inner

    def location(self, folder):
        return self.inner.location(folder)

    def claim(self, folder):
        return self.inner.claim(folder)

    def check(self):
        self.inner.check()

    def linker(self, folder, lasts):
        return self.inner.linker(folder, lasts)

    @contextlib.contextmanager
    def open(self, folder, check=nothing):
        with self.inner.open(folder, check) as delivery:
            delivery._worth = 1
            yield SharingDelivery(delivery)


class SharingDelivery:
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def put(self, name, file):
        third = -(-len(file) // 3)
        ranges = [(third, 2 * third), (2 * third, len(file))] if third > 1 else []
        delivered = self.inner.put(name, VirtualFile(file.extents(0, len(file)), ranges))
        assert delivered.joined == bool(ranges)
        return delivered


class TestAssembledInGcs(DestinationContract):
    @pytest.fixture
    def destination(self, emulator, tmp_path):
        self.emulator = emulator
        return Sharing(destination_in(emulator, tmp_path))

    def read(self, folder, name):
        return self.emulator.data(f"{PLACE}/{folder}/{name}")

    def names(self, folder):
        return self.emulator.names(f"{PLACE}/{folder}/")

    def wrong(self, destination):
        with Emulator() as other:
            options_for(other, destination.inner._locks.parent)
        return destination

    @contextlib.contextmanager
    def full(self):
        self.emulator.script = [("put", "quota")]
        yield

    def stumble(self):
        self.emulator.script = [("put", "503"), ("compose", "503")]

    def stall(self):
        self.emulator.script = [("compose", "hang")]

    def begun(self):
        return not self.emulator.script


def test_what_files_share_is_sent_once(emulator, tmp_path):
    clips = [clip(number) for number in range(4)]
    files = {f"{a}{b}.mp4": video(bytes((a, b)) * 50, clips[a], clips[b]) for a in range(4) for b in range(4)}
    with destination_in(emulator, tmp_path).open("task") as delivery, ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda name: delivery.put(name, files[name]), files))
    for delivered, (name, file) in zip(made, files.items(), strict=True):
        assert emulator.data(f"{PLACE}/task/{name}") == content(file)
        assert (delivered.bytes, delivered.sha256) == (len(file), hashlib.sha256(content(file)).hexdigest())
        assert (delivered.joined, delivered.refusal) == (True, None)
    assert sum(delivered.sent for delivered in made) == 16 * 100 + 4 * CLIP
    assert emulator.bytes_in < 16 * 100 + 4 * CLIP + 16 * 1000
    assert emulator.requests["compose"] == 16
    assert len(hidden(emulator)) == 4


def test_a_joined_file_says_what_it_is(emulator, tmp_path):
    file = video(b"head", clip(1))
    with destination_in(emulator, tmp_path).open("task") as delivery:
        delivered = delivery.put("1.mp4", file)
        assert delivery.holds("1.mp4", len(file))
    assert emulator.objects["bucket", f"{PLACE}/task/1.mp4"].headers == {
        "content-type": "video/mp4",
        "x-goog-meta-sha256": delivered.sha256,
    }


def test_another_process_finds_what_is_there(emulator, tmp_path):
    for number in range(3):
        with destination_in(emulator, tmp_path).open("task") as delivery:
            sent = delivery.put(f"{number}.mp4", video(b"head", clip(1))).sent
            assert sent == 4 + CLIP * (number == 0)


def test_batches_of_one_process_send_what_they_share_once(emulator, tmp_path):
    destination = destination_in(emulator, tmp_path)

    def batch(number):
        with destination.open("task") as delivery:
            return sum(
                delivery.put(f"{number}-{other}.mp4", video(bytes((number, other)), clip(other))).sent
                for other in range(6)
            )

    with ThreadPoolExecutor(6) as pool:
        sent = sum(pool.map(batch, range(6)))
    assert sent == 36 * 2 + 6 * CLIP
    assert len(emulator.names(f"{PLACE}/task/")) == 36


def test_what_one_file_has_alone_does_not_stay(emulator, tmp_path):
    with destination_in(emulator, tmp_path).open("task") as delivery:
        for number in range(3):
            delivery.put(f"{number}.mp4", video(b"head", clip(1)))
    assert len(hidden(emulator)) == 1


def test_a_swept_folder_has_no_parts_left_and_others_keep_theirs(emulator, tmp_path):
    destination = destination_in(emulator, tmp_path)
    with destination.open("task") as delivery, destination.open("task 2") as other:
        delivery.put("1.mp4", video(b"head", clip(1)))
        other.put("1.mp4", video(b"head", clip(1)))
        delivery.sweep()
        assert hidden(emulator) == []
        assert hidden(emulator, "task 2") != []
        delivery.put("2.mp4", video(b"head", clip(1)))
    assert emulator.data(f"{PLACE}/task/2.mp4") == b"head" + clip(1)


def test_where_nothing_may_be_taken_away_the_videos_are_good_all_the_same(emulator, tmp_path):
    emulator.forbidden = frozenset({"delete"})
    with destination_in(emulator, tmp_path).open("task") as delivery:
        assert delivery.put("1.mp4", video(b"head", clip(1))).joined
        delivery.sweep()
    assert emulator.data(f"{PLACE}/task/1.mp4") == b"head" + clip(1)
    assert emulator.requests["delete"] > 0
    with destination_in(emulator, tmp_path, patience=0.2).open("task") as delivery:
        emulator.forbidden = frozenset()
        emulator.script = [("delete", "503")] * 50
        with pytest.raises(DeliverError):
            delivery.sweep()
        emulator.script = []


def test_a_file_that_shares_little_is_sent_whole(emulator, tmp_path):
    with destination_in(emulator, tmp_path).open("task") as delivery:
        delivered = delivery.put("1.mp4", video(b"head", clip(1, WORTH - 1)))
    assert (delivered.joined, delivered.sent, delivered.refusal) == (False, WORTH + 3, None)
    assert emulator.requests["compose"] == 0


@pytest.mark.parametrize("parts", [MOST - 1, MOST, 2 * MOST])
def test_many_parts_are_joined_in_steps(emulator, tmp_path, parts):
    file = video(b"head", *(number.to_bytes(4) * 20 for number in range(parts)))
    with destination_in(emulator, tmp_path).open("task") as delivery:
        delivery._worth = 1
        assert delivery.put("1.mp4", file).joined
    assert emulator.data(f"{PLACE}/task/1.mp4") == content(file)
    assert emulator.requests["compose"] == {MOST - 1: 1, MOST: 3, 2 * MOST: 4}[parts]
    assert len(hidden(emulator)) == parts


def test_a_part_may_be_larger_than_one_request(emulator, tmp_path):
    source = tmp_path / "clip"
    source.write_bytes(numbered(PART + 1))
    file = VirtualFile([Extent(b"head", 0, 4), Extent(source, 0, PART + 1)], [(4, PART + 5)])
    with destination_in(emulator, tmp_path).open("task") as delivery:
        assert delivery.put("1.mp4", file).joined
    assert emulator.data(f"{PLACE}/task/1.mp4") == content(file)
    assert emulator.requests["part"] == 2


@pytest.mark.parametrize(
    ("fault", "detail"),
    [("400", "400 InvalidArgument"), ("403", "403 AccessDenied"), ("501", "501 NotImplemented"),
     ("damage", "other bytes than were sent"), ("unsure", "no checksum in the answer")],
)  # fmt: skip
def test_a_store_that_does_not_join_gets_files_whole_and_is_asked_no_more(emulator, tmp_path, fault, detail):
    destination = destination_in(emulator, tmp_path)
    emulator.script = [("compose", fault)]
    files = {f"{number}.mp4": video(bytes((number,)), clip(1)) for number in range(3)}
    with destination.open("task") as delivery:
        first = delivery.put("0.mp4", files["0.mp4"])
        second = delivery.put("1.mp4", files["1.mp4"])
        assert delivery.grouped
    with destination.open("task") as delivery:
        delivery.put("2.mp4", files["2.mp4"])
    assert (first.joined, first.refusal, first.sent) == (False, detail, 2 * (1 + CLIP))
    assert (second.joined, second.refusal, second.sent) == (False, None, 1 + CLIP)
    assert emulator.requests["compose"] == 1
    for name, file in files.items():
        assert emulator.data(f"{PLACE}/task/{name}") == content(file)
        assert emulator.objects["bucket", f"{PLACE}/task/{name}"].headers["content-type"] == "video/mp4"
    with destination.open("task") as delivery:
        delivery.sweep()
    assert hidden(emulator) == []


def test_who_may_not_compose_is_told_by_what_came(emulator, tmp_path):
    emulator.forbidden = frozenset({"compose"})
    with destination_in(emulator, tmp_path).open("task") as delivery:
        assert delivery.put("1.mp4", video(b"head", clip(1))).refusal == "403 AccessDenied"
    assert emulator.names(f"{PLACE}/task/") == ["1.mp4"]


def test_a_store_is_asked_again_after_a_while():
    now = [0.0]
    assemblies = Assemblies(lambda: now[0])
    assert not assemblies.refuses("gs://bucket/task")
    assemblies.refused("gs://bucket/task")
    assert assemblies.refuses("gs://bucket/task")
    assert not assemblies.refuses("gs://bucket/another")
    now[0] = ASKED_AGAIN
    assert not assemblies.refuses("gs://bucket/task")


def test_parts_that_are_gone_are_sent_again(emulator, tmp_path):
    with destination_in(emulator, tmp_path).open("task") as delivery:
        delivery.put("1.mp4", video(b"head", clip(1)))
        for key in [key for key in emulator.objects if HIDDEN in key[1]]:
            del emulator.objects[key]
        delivered = delivery.put("2.mp4", video(b"more", clip(1)))
    assert delivered.joined
    assert delivered.sent == 2 * 4 + CLIP
    assert emulator.data(f"{PLACE}/task/2.mp4") == b"more" + clip(1)


def test_every_file_arrives_once_through_faults(tmp_path):
    """One request in ten is refused, cut off before or cut off after it was done."""
    with Emulator(rate=0.1, seed=11) as emulator:
        destination = destination_in(emulator, tmp_path)
        clips = [clip(number, CLIP + number) for number in range(6)]
        files = {f"{a}{b}.mp4": video(bytes((a, b)) * (a + 1), clips[a], clips[b]) for a in range(6) for b in range(6)}
        with destination.open("task") as delivery, ThreadPoolExecutor(4) as pool:
            made = list(pool.map(lambda name: delivery.put(name, files[name]), files))
        assert all(delivered.joined for delivered in made)
        assert sum(delivered.sent for delivered in made) == sum(
            [2 * (a + 1) for a in range(6) for _ in range(6)]
        ) + sum(map(len, clips))
        for name, file in files.items():
            assert emulator.data(f"{PLACE}/task/{name}") == content(file)
        with destination.open("task") as delivery:
            delivery.sweep()
        assert hidden(emulator) == []
        assert emulator.faults.total() > 10


@pytest.mark.parametrize(
    ("fault", "code"), [("429", "rate_limited"), ("500", "unavailable"), ("hangup", "unreachable")]
)
def test_what_does_not_pass_is_left_to_the_job(emulator, tmp_path, fault, code):
    with destination_in(emulator, tmp_path, patience=0.3).open("task") as delivery:
        delivery.put("1.mp4", video(b"head", clip(1)))
        emulator.script = [("compose", fault)] * 50
        with pytest.raises(DeliverError) as caught:
            delivery.put("2.mp4", video(b"head", clip(1)))
        emulator.script = []
    assert (caught.value.code, caught.value.retryable) == (code, True)
    assert emulator.requests["compose"] > 2
    assert emulator.names(f"{PLACE}/task/") == ["1.mp4"]


def test_waiting_ends_when_nobody_wants_it_any_more(emulator, tmp_path):
    wanted = [True]

    def check():
        if not wanted[0]:
            raise DeliverError("cancelled", code="cancelled")

    start = time.monotonic()
    with (
        pytest.raises(DeliverError, match="cancelled"),
        destination_in(emulator, tmp_path).open("task", check) as delivery,
    ):
        delivery.put("1.mp4", video(b"head", clip(1)))
        emulator.script = [("compose", "503")] * 50
        wanted[0] = False
        delivery.put("2.mp4", video(b"head", clip(1)))
    assert time.monotonic() - start < 30


def test_a_killed_writer_leaves_nothing_under_a_name_and_its_parts_are_used(emulator, tmp_path):
    destination = destination_in(emulator, tmp_path)
    told = json.dumps([emulator.url, str(tmp_path)])
    victim = subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, told])
    deadline = time.monotonic() + 30
    while emulator.requests["compose"] < 5:
        assert time.monotonic() < deadline
        assert victim.poll() is None
        time.sleep(0.005)
    victim.kill()
    victim.wait()
    names = emulator.names(f"{PLACE}/task/")
    assert names
    assert all(emulator.data(f"{PLACE}/task/{name}").endswith(bytes(CLIP)) for name in names)
    with destination.claim("task"), destination.open("task") as delivery:
        assert delivery.put("1.mp4", video(b"head", bytes(CLIP))).sent == 4
        delivery.sweep()
    assert hidden(emulator) == []


WRITE_FOR_EVER = """
import json, sys
from pathlib import Path
from crosscut.destinations.assembly import WORTH
from crosscut.destinations.buckets import CloudOptions
from crosscut.destinations.objectstore import ObjectStoreDestination
from crosscut.virtual import Extent, VirtualFile

url, folder = json.loads(sys.argv[1])
options = CloudOptions(gcs_key_file=f"{folder}/key.json", gcs_endpoint=url)
destination = ObjectStoreDestination("gs://bucket/some where", options, Path(folder, "locks"), {})
with destination.open("task") as delivery:
    for number in range(100_000):
        head = str(number).encode()
        file = VirtualFile([Extent(head, 0, len(head)), Extent(bytes(WORTH), 0, WORTH)], [(len(head), len(head) + WORTH)])
        delivery.put(f"{number}.mp4", file)
"""  # noqa: E501


def test_settings_can_say_no(emulator, tmp_path):
    with destination_in(emulator, tmp_path, assemble=False).open("task") as delivery:
        assert not delivery.grouped
        delivered = delivery.put("1.mp4", video(b"head", clip(1)))
    assert (delivered.joined, delivered.sent) == (False, 4 + CLIP)
    assert emulator.requests["compose"] == 0


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_the_emulators_checksum_of_two_is_that_of_both(first, second):
    both = joined_crc32c(google_crc32c.value(first), google_crc32c.value(second), len(second))
    assert both == google_crc32c.value(first + second)


# The one request


def composer(emulator, tmp_path, **more):
    options = options_for(emulator, tmp_path)
    return Composer(Bucket("gs", "bucket"), google_facts(options, {}), endpoint=emulator.url, patience=1.0, **more)


@pytest.mark.parametrize("key", ["a/1 ä.mp4", "a/%2e%2e/x.mp4", "a/.%2E/x", "a/b+c~d&e<f>.mp4", "a/q'\"u.mp4", "a/?#x"])
def test_names_are_joined_as_they_are(emulator, tmp_path, key):
    with destination_in(emulator, tmp_path, assemble=False).open("task"):
        pass
    for name in (key, "x.mp4", "x", "other"):
        emulator.store(("bucket", name), emulator_body(name.encode()), "", {})
    with contextlib.closing(composer(emulator, tmp_path)) as one:
        checksum = one.join(f"{key}.joined", [key, "other"], {"Content-Type": "video/mp4"})
    assert emulator.data(f"{key}.joined") == key.encode() + b"other"
    assert checksum == google_crc32c.value(key.encode() + b"other")
    assert len(emulator.objects) == 5


def emulator_body(data):
    from gcs_emulator import Body

    return Body(len(data), hashlib.md5(data).hexdigest(), data, google_crc32c.value(data))


def test_a_part_that_is_not_there_is_said(emulator, tmp_path):
    with contextlib.closing(composer(emulator, tmp_path)) as one, pytest.raises(PartsGoneError):
        one.join("a", ["b"], {})


def test_the_key_of_somebody_else_joins_nothing(emulator, tmp_path):
    with Emulator() as other:
        facts = google_facts(options_for(other, tmp_path), {})
    one = Composer(Bucket("gs", "bucket"), facts, endpoint=emulator.url, patience=1.0)
    with contextlib.closing(one), pytest.raises(CannotJoinError) as caught:
        one.join("a", ["b"], {})
    assert caught.value.detail == "401 AuthenticationRequired"
    assert emulator.requests["compose"] == 2


def test_what_gcloud_has_stored_is_used(emulator, tmp_path):
    facts = {"type": "authorized_user", "refresh_token": "r", "client_id": "c", "client_secret": "s"}
    emulator.store(("bucket", "b"), emulator_body(b"bytes"), "", {})
    with HTTPServer(host="127.0.0.1") as server:
        server.expect_request("/token", method="POST").respond_with_json({"access_token": TOKEN, "expires_in": 3600})
        one = Composer(Bucket("gs", "bucket"), facts, endpoint=emulator.url, tokens=server.url_for("/token"))
        with contextlib.closing(one):
            one.join("a", ["b"], {})
            one.join("c", ["b"], {})
        assert len(server.log) == 1
        assert b"refresh_token=r" in server.log[0][0].get_data()
    assert emulator.data("a") == emulator.data("c") == b"bytes"


def test_consent_that_was_taken_away_joins_nothing(emulator):
    facts = {"type": "authorized_user", "refresh_token": "secret", "client_id": "c", "client_secret": "s"}
    with HTTPServer(host="127.0.0.1") as server:
        server.expect_request("/token").respond_with_json({"error": "invalid_grant"}, status=400)
        one = Composer(Bucket("gs", "bucket"), facts, endpoint=emulator.url, tokens=server.url_for("/token"))
        with contextlib.closing(one), pytest.raises(CannotJoinError) as caught:
            one.join("a", ["b"], {})
    assert "secret" not in repr((caught.value, caught.value.__cause__))


def test_the_identity_of_a_machine_is_used(emulator):
    emulator.store(("bucket", "b"), emulator_body(b"bytes"), "", {})
    with HTTPServer(host="127.0.0.1") as server:
        token = server.expect_request(
            "/computeMetadata/v1/instance/service-accounts/default/token", headers={"Metadata-Flavor": "Google"}
        )
        token.respond_with_json({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"})
        one = Composer(Bucket("gs", "bucket"), None, endpoint=emulator.url, metadata=server.url_for("").rstrip("/"))
        with contextlib.closing(one):
            one.join("a", ["b"], {})
            one.join("c", ["b"], {})
        assert len(server.log) == 1


def test_a_machine_without_an_identity_joins_nothing(emulator):
    with HTTPServer(host="127.0.0.1") as server:
        server.expect_request("/computeMetadata/v1/instance/service-accounts/default/token").respond_with_data("", 404)
        one = Composer(Bucket("gs", "bucket"), None, endpoint=emulator.url, metadata=server.url_for("").rstrip("/"))
        with contextlib.closing(one), pytest.raises(CannotJoinError):
            one.join("a", ["b"], {})


def test_facts_are_those_of_the_key_that_is_used(emulator, tmp_path):
    options = options_for(emulator, tmp_path)
    assert google_facts(options, {})["client_email"] == "it@tests"
    unset = replace(options, gcs_key_file="")
    assert google_facts(unset, {"GOOGLE_APPLICATION_CREDENTIALS": options.gcs_key_file})["client_email"] == "it@tests"
    assert google_facts(unset, {"GOOGLE_SERVICE_ACCOUNT_KEY": '{"type": "service_account"}'})["type"]
    assert google_facts(unset, {"HOME": str(tmp_path)}) is None
