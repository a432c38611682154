"""Buckets: GCS on an emulator of ours, S3 on moto, Azure as far as its options go."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import obstore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

import moto_server
from contracts.destination import DestinationContract, virtual
from crosscut.destinations import EVERYONE
from crosscut.destinations.bucket_errors import refusal
from crosscut.destinations.buckets import Bucket, CloudOptions, bucket_of, connect, is_bucket
from crosscut.destinations.objectstore import PART, ObjectStoreDestination, _Listing
from crosscut.destinations.signing import BucketSigner
from crosscut.errors import DeliverError, FetchError, RequestError, StorageError
from crosscut.links import ObjectName
from crosscut.virtual import Extent, VirtualFile
from faulty_proxy import Proxy
from gcs_emulator import Emulator

SECRET = "wJalrXUtnFEMI-the-secret"


@pytest.fixture
def emulator():
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def gcs(emulator, tmp_path):
    return destination_in(emulator, tmp_path)


def destination_in(emulator, tmp_path, place="gs://bucket/some where"):
    key = tmp_path / "key.json"
    key.write_text(emulator.service_account)
    options = CloudOptions(gcs_key_file=str(key), gcs_endpoint=emulator.url)
    return ObjectStoreDestination(place, options, tmp_path / "locks", {})


def filled(size, folder):
    """A file of that many bytes, none of which are on the disk."""
    path = folder / f"sparse-{size}"
    with path.open("wb") as file:
        file.truncate(size)
    return VirtualFile([Extent(b"head", 0, 4), Extent(path, 0, size - 4)])


class TestGcs(DestinationContract):
    @pytest.fixture
    def destination(self, emulator, gcs):
        self.emulator = emulator
        return gcs

    def read(self, folder, name):
        return self.emulator.data(f"some where/{folder}/{name}")

    def names(self, folder):
        return self.emulator.names(f"some where/{folder}/")

    def wrong(self, destination):
        with Emulator() as other:
            destination_in(other, destination._locks.parent)
        return destination

    @contextlib.contextmanager
    def full(self):
        self.emulator.script = [("part", "quota")]
        yield

    def stumble(self):
        self.emulator.script = [("put", "503")]

    def stall(self):
        self.emulator.script = [("put", "hang"), ("part", "hang")]

    def begun(self):
        return len(self.emulator.script) < 2


@pytest.fixture(scope="module")
def moto():
    with moto_server.running() as url:
        yield url


@pytest.fixture
def faulty(moto):
    with Proxy(moto) as proxy:
        yield proxy


@pytest.fixture
def s3_options(moto):
    moto_server.emptied(moto, "my-bucket")
    return CloudOptions(s3_access_key_id="AKIAIT", s3_secret_access_key=SECRET, s3_endpoint=moto)


class TestS3(DestinationContract):
    @pytest.fixture
    def destination(self, s3_options, faulty, tmp_path):
        self.store = connect(Bucket("s3", "my-bucket"), s3_options, {})
        self.faulty = faulty
        options = replace(s3_options, s3_endpoint=faulty.url)
        return ObjectStoreDestination("s3://my-bucket/videos/", options, tmp_path / "locks", {})

    def wrong(self, destination):
        self.faulty.script = [("GET", "unsigned")] * 2
        return destination

    @contextlib.contextmanager
    def full(self):
        self.faulty.script = [("PUT", "full")] * 3
        yield
        self.faulty.script = []

    def stumble(self):
        self.faulty.script = [("PUT", "503")]

    def stall(self):
        self.faulty.script = [("PUT", "hang")]

    def begun(self):
        return not self.faulty.script

    def read(self, folder, name):
        try:
            return bytes(obstore.get(self.store, f"videos/{folder}/{name}").bytes())
        except FileNotFoundError:
            return None

    def names(self, folder):
        prefix = f"videos/{folder}"
        found = [entry["path"] for page in obstore.list(self.store, prefix=prefix) for entry in page]
        return sorted(path.removeprefix(f"{prefix}/") for path in found)


def test_every_file_arrives_once_in_s3_through_faults(s3_options, faulty, tmp_path):
    faulty.rate = 0.1
    large = filled(PART * 2 + 1, tmp_path)
    files = {f"{number}.mp4": virtual(bytes([number % 251]) * (number * 97)) for number in range(60)}
    files |= {"large.mp4": large}
    options = replace(s3_options, s3_endpoint=faulty.url)
    with (
        ObjectStoreDestination("s3://my-bucket", options, tmp_path, {}).open("task") as delivery,
        ThreadPoolExecutor(4) as pool,
    ):
        list(pool.map(lambda name: delivery.put(name, files[name]), files))
    store = connect(Bucket("s3", "my-bucket"), s3_options, {})
    there = {entry["path"].removeprefix("task/") for page in obstore.list(store, prefix="task") for entry in page}
    assert there == set(files)
    for name, file in files.items():
        assert bytes(obstore.get(store, f"task/{name}").bytes()) == file.read_range(0, len(file))


def test_what_arrives_says_what_it_is(emulator, gcs):
    with gcs.open("task") as delivery:
        delivered = delivery.put("1.mp4", virtual(b"video"))
        delivery.put_text("manifest.json", ["{}"])
        delivery.put_text("manifest.csv", ["a,b"])
    headers = {key: stored.headers for (_, key), stored in emulator.objects.items()}
    assert headers["some where/task/1.mp4"] == {
        "content-type": "video/mp4",
        "x-goog-meta-sha256": hashlib.sha256(b"video").hexdigest(),
    }
    assert headers["some where/task/manifest.json"]["content-type"] == "application/json"
    assert headers["some where/task/manifest.csv"]["content-type"] == "text/csv; charset=utf-8"
    assert delivered.location == "gs://bucket/some where/task/1.mp4"


def test_a_large_file_says_what_it_is_too(emulator, gcs, tmp_path):
    with gcs.open("task") as delivery:
        delivered = delivery.put("1.mp4", filled(2 * PART, tmp_path))
    headers = emulator.objects["bucket", "some where/task/1.mp4"].headers
    assert headers["content-type"] == "video/mp4"
    assert headers["x-goog-meta-sha256"] == delivered.sha256
    assert emulator.requests["part"] == 2


def test_other_bytes_than_were_sent_are_noticed(emulator, gcs):
    emulator.script = [("put", "damage")]
    with gcs.open("task") as delivery, pytest.raises(DeliverError) as caught:
        delivery.put("1.mp4", virtual(b"video"))
    assert (caught.value.code, caught.value.retryable) == ("damaged_upload", True)


def test_an_upload_that_was_completed_unheard_is_not_repeated(emulator, gcs, tmp_path):
    emulator.script = [("complete", "lost")]
    file = filled(2 * PART, tmp_path)
    with gcs.open("task") as delivery:
        delivery.put("1.mp4", file)
        assert delivery.holds("1.mp4", len(file))
    assert emulator.data("some where/task/1.mp4") == file.read_range(0, len(file))
    assert emulator.requests["part"] == 2


def test_an_upload_that_is_gone_is_not_taken_for_complete(emulator, gcs, tmp_path):
    file = filled(2 * PART, tmp_path)
    with gcs.open("task") as delivery:
        delivery.put("1.mp4", file)
        emulator.script = [("complete", "forget")]
        with pytest.raises(DeliverError) as caught:
            delivery.put("1.mp4", file)
    assert (caught.value.code, caught.value.retryable) == ("unavailable", True)


def test_every_file_arrives_once_through_faults(tmp_path):
    """One request in ten is refused, cut off before or cut off after it was done."""
    with Emulator(rate=0.1, seed=7) as emulator:
        destination = destination_in(emulator, tmp_path)
        large = filled(PART * 2 + 1, tmp_path)
        files = {f"{number}.mp4": virtual(bytes([number % 251]) * (number * 97)) for number in range(120)}
        files |= {f"large-{number}.mp4": large for number in range(6)}
        with destination.open("task") as delivery, ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda name: delivery.put(name, files[name]), files))
        assert emulator.names("some where/task/") == sorted(files)
        for name, file in files.items():
            assert emulator.data(f"some where/task/{name}") == file.read_range(0, len(file))
        assert set(emulator.faults) == set(emulator.kinds)
        assert emulator.faults.total() > 10


def test_a_killed_writer_leaves_nothing_under_the_name(emulator, gcs, tmp_path):
    with gcs.open("task") as delivery:
        delivery.put("1.mp4", virtual(b"before"))
    told = json.dumps([emulator.url, str(tmp_path)])
    victim = subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, told])
    deadline = time.monotonic() + 30
    while not emulator.requests["part"]:
        assert time.monotonic() < deadline
        assert victim.poll() is None
        time.sleep(0.005)
    victim.kill()
    victim.wait()
    assert emulator.data("some where/task/1.mp4") == b"before"
    with gcs.claim("task"), gcs.open("task") as delivery:
        delivery.put("1.mp4", virtual(b"after"))
    assert emulator.data("some where/task/1.mp4") == b"after"


WRITE_FOR_EVER = """
import json, sys
from pathlib import Path
from crosscut.destinations.buckets import CloudOptions
from crosscut.destinations.objectstore import ObjectStoreDestination

url, folder = json.loads(sys.argv[1])
options = CloudOptions(gcs_key_file=f"{folder}/key.json", gcs_endpoint=url)

def for_ever():
    while True:
        yield "x" * (1 << 20)

destination = ObjectStoreDestination("gs://bucket/some where", options, Path(folder, "locks"), {})
with destination.open("task") as delivery:
    delivery.put_text("1.mp4", for_ever())
"""


LETTING_GO = """
import threading, time
from crosscut.destinations.waiting import waited

def late():
    time.sleep(0.1)
    print("let go", flush=True)

async def ask():
    threading.Thread(target=late, daemon=True).start()

waited(ask, lambda: None)
"""


def test_the_process_ends_after_the_last_thread_of_obstore_has_let_go():
    """One that comes back to an interpreter which ends aborts the process, though all has been delivered."""
    done = subprocess.run([sys.executable, "-c", LETTING_GO], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (0, "let go\n")


def test_memory_does_not_grow_with_the_file(tmp_path):
    with Emulator(keep=False) as emulator:
        destination_in(emulator, tmp_path)
        told = json.dumps([emulator.url, str(tmp_path), 300 << 20])
        done = subprocess.run([sys.executable, "-c", WRITE_SPARSE, told], capture_output=True, text=True, check=True)
        assert emulator.objects["bucket", "task/1.mp4"].body.size == 300 << 20
    assert int(done.stdout) < 60 << 20


WRITE_SPARSE = """
import json, sys
from pathlib import Path
from crosscut.destinations.buckets import CloudOptions
from crosscut.destinations.objectstore import PART, ObjectStoreDestination
from crosscut.virtual import Extent, VirtualFile

url, folder, size = json.loads(sys.argv[1])
source = Path(folder, "source")
with source.open("wb") as file:
    file.truncate(size)

def peak():
    told = Path("/proc/self/status").read_text()
    return int(told.partition("VmHWM:")[2].split()[0]) << 10

options = CloudOptions(gcs_key_file=f"{folder}/key.json", gcs_endpoint=url)
with ObjectStoreDestination("gs://bucket", options, Path(folder, "locks"), {}).open("task") as delivery:
    delivery.put("0.mp4", VirtualFile([Extent(source, 0, 1000)]))
    before = peak()
    delivery.put("1.mp4", VirtualFile([Extent(source, 0, size)]))
    print(peak() - before)
"""


def test_a_folder_of_many_files_is_asked_for_in_pages(emulator, gcs):
    with gcs.open("task") as delivery, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: delivery.put(f"{number:04}.mp4", virtual(b"1")), range(0, 2200, 2)))
    emulator.requests.clear()
    with gcs.open("task") as delivery:
        assert [delivery.holds(f"{number:04}.mp4", 1) for number in range(2200)] == [True, False] * 1100
    assert emulator.requests == {"list": 3}


@settings(max_examples=40)
@given(
    page=st.sampled_from([1, 3, 1000]),
    there=st.dictionaries(st.text("ab.é𝒳", min_size=1, max_size=4), st.integers(0, 20), max_size=20),
    asked=st.lists(st.text("ab.é𝒳", min_size=1, max_size=4)),
    removed=st.sets(st.text("ab.é𝒳", min_size=1, max_size=2)),
)
def test_pages_tell_what_is_there(page, there, asked, removed):
    names = {name: size for name, size in there.items() if name.strip(".")}
    store = MemoryStore()
    for name, size in names.items():
        store.put(f"folder/{name}", b"1" * size)
        store.put(f"folder.{name}", b"another")
    listing = _Listing(store, "folder", page)
    for name in (*asked, *names, *reversed(names)):
        assert listing.size(name) == names.get(name)
    for name in removed:
        listing.note(name, None)
    assert all(listing.size(name) == (None if name in removed else size) for name, size in names.items())


def signed(emulator, tmp_path, name):
    return BucketSigner(gcs_options(emulator, tmp_path), lambda asked: asked.startswith("gs://bucket/in/")).sign(
        name, None
    )


@pytest.mark.parametrize(
    "key", ["in/1 ä.mp4", "in/a%41.mp4", "in/%2e%2e/secrets/x.mp4", "in/.%2E/x.mp4", "in/a+b~c.mp4"]
)
def test_a_link_opens_the_object_of_exactly_that_name(emulator, tmp_path, key):
    for stored in (key, "secrets/x.mp4", "x.mp4", "in/aA.mp4"):
        data = b"asked" if stored == key else b"another"
        obstore.put(connect(Bucket("gs", "bucket"), gcs_options(emulator, tmp_path), {}), stored, data)
    link = signed(emulator, tmp_path, ObjectName("gs", "bucket", key))
    with urllib.request.urlopen(link) as answer:
        assert answer.read() == b"asked"


@pytest.mark.parametrize("key", ["in/%2e%2e/secrets/x.mp4", "in/%2e%2e/%2e%2e/other/x.mp4", "in/.%2e/secrets/x.mp4"])
def test_no_spelling_of_a_name_leads_out_of_its_folder(emulator, tmp_path, key):
    store = connect(Bucket("gs", "bucket"), gcs_options(emulator, tmp_path), {})
    obstore.put(store, "secrets/x.mp4", b"secret")
    link = signed(emulator, tmp_path, ObjectName("gs", "bucket", key))
    with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(link):
        pass
    assert caught.value.code == 404
    caught.value.close()


def test_what_cannot_be_signed_for_is_a_sentence(emulator, tmp_path):
    assert signed(emulator, tmp_path, ObjectName("gs", "bucket", "elsewhere/x.mp4")) is None
    with pytest.raises(FetchError, match="cannot be signed for"):
        signed(emulator, tmp_path, ObjectName("gs", "bucket", "in//x.mp4"))


def gcs_options(emulator, tmp_path):
    key = tmp_path / "key.json"
    key.write_text(emulator.service_account)
    return CloudOptions(gcs_key_file=str(key), gcs_endpoint=emulator.url)


def refused(destination, folder="task"):
    with pytest.raises((DeliverError, StorageError)) as caught, destination.open(folder) as delivery:
        delivery.put("1.mp4", virtual(b"video"))
    assert SECRET not in repr((caught.value, caught.value.public, caught.value.detail, caught.value.__cause__))
    return caught.value


def test_a_bucket_that_is_not_there_is_said(emulator, tmp_path):
    error = refused(destination_in(emulator, tmp_path, "gs://another-bucket"))
    assert error.code == "no_such_bucket"
    assert error.public == "there is no bucket gs://another-bucket: make it, or correct the name"


def test_a_bucket_of_s3_that_is_not_there_is_said(s3_options, tmp_path):
    error = refused(ObjectStoreDestination("s3://other-bucket", s3_options, tmp_path, {}))
    assert error.code == "no_such_bucket"


def test_the_key_of_somebody_else_is_said(emulator, tmp_path):
    with Emulator() as other:
        destination_in(other, tmp_path)
    options = CloudOptions(gcs_key_file=str(tmp_path / "key.json"), gcs_endpoint=emulator.url)
    error = refused(ObjectStoreDestination("gs://bucket", options, tmp_path, {}))
    assert (error.code, error.retryable) == ("wrong_credentials", False)
    assert emulator.requests["put"] == 0


@pytest.mark.parametrize("operation", ["list", "put"])
def test_what_the_credentials_may_not_do_is_said(emulator, gcs, operation):
    emulator.forbidden = frozenset({operation})
    error = refused(gcs)
    assert (error.code, error.retryable) == ("no_permission", False)
    assert "gs://bucket" in error.public


@pytest.mark.parametrize(
    ("fault", "code"),
    [("429", "rate_limited"), ("503", "rate_limited"), ("500", "unavailable"), ("hangup", "unreachable")],
)
def test_what_does_not_pass_is_left_to_the_job(emulator, tmp_path, fault, code):
    destination = destination_in(emulator, tmp_path)
    destination = ObjectStoreDestination(
        "gs://bucket", replace(destination._options, patience=0.3), tmp_path / "locks", {}
    )
    with destination.open("task") as delivery:
        emulator.rate, emulator.kinds = 1.0, (fault,)
        with pytest.raises(DeliverError) as caught:
            delivery.put("1.mp4", virtual(b"video"))
    assert (caught.value.code, caught.value.retryable) == (code, True)
    assert emulator.requests["put"] > 1
    assert (code in EVERYONE) == (fault in ("429", "503", "hangup"))


def answer(status, word):
    told = f"<Code>{word}</Code><StringToSign>{SECRET}</StringToSign>"
    return f"Error performing PUT https://it/x?sig={SECRET} - Server returned non-2xx status code: {status} No: {told}"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (answer(403, "InvalidAccessKeyId"), "wrong_credentials"),
        (answer(403, "SignatureDoesNotMatch"), "wrong_credentials"),
        (answer(400, "ExpiredToken"), "wrong_credentials"),
        (answer(403, "AuthenticationFailed"), "wrong_credentials"),
        ("Error performing token request: status code: 400 Bad Request: {}", "wrong_credentials"),
        (answer(403, "RequestTimeTooSkewed"), "wrong_clock"),
        (answer(400, "AuthorizationHeaderMalformed"), "wrong_region"),
        (
            "Received redirect without LOCATION, this normally indicates an incorrectly configured region",
            "wrong_region",
        ),
        (answer(403, "QuotaExceeded"), "disk_full"),
        (answer(507, "XMinioStorageFull"), "disk_full"),
        (answer(503, "SlowDown"), "rate_limited"),
        (answer(500, "ServerBusy"), "rate_limited"),
        (answer(404, "ContainerNotFound"), "no_such_bucket"),
        (answer(403, "AccessDenied"), "no_permission"),
        (answer(409, "OperationAborted"), "unavailable"),
        (answer(400, "InvalidRequest"), "refused"),
        ("error sending request", "unreachable"),
    ],
)
def test_each_refusal_has_its_sentence(text, code):
    error = refusal(Bucket("s3", "my-bucket"), text)
    assert error.code == code
    assert "s3://my-bucket" in error.public
    assert SECRET not in error.public + error.detail
    assert isinstance(error, StorageError) == (code == "disk_full")


@pytest.mark.parametrize(
    ("place", "named"),
    [("gs://a-bucket", "GOOGLE_APPLICATION_CREDENTIALS"), ("s3://a-bucket", "AWS_ACCESS_KEY_ID"),
     ("az://a-bucket", "AZURE_STORAGE_ACCOUNT")],
)  # fmt: skip
def test_without_credentials_nothing_is_asked_of_the_machine_itself(tmp_path, place, named):
    error = refused(ObjectStoreDestination(place, CloudOptions(), tmp_path, {"HOME": str(tmp_path)}))
    assert error.code == "no_credentials"
    assert named in error.public
    assert "CROSSCUT_CLOUD_IDENTITY" in error.public
    allowed = CloudOptions(cloud_identity=True, azure_account="it")
    assert connect(bucket_of(place), allowed, {"HOME": str(tmp_path)})


@pytest.mark.parametrize("content", ["no JSON", '{"type": "external_account"}', '{"type": "service_account"}'])
def test_a_key_file_that_is_none_is_said(tmp_path, content):
    (tmp_path / "key.json").write_text(content)
    options = CloudOptions(gcs_key_file=str(tmp_path / "key.json"))
    error = refused(ObjectStoreDestination("gs://a-bucket", options, tmp_path, {}))
    assert error.code == "wrong_credentials"
    assert str(tmp_path) not in error.public


def test_half_a_key_is_said(tmp_path):
    error = refused(ObjectStoreDestination("s3://a-bucket", CloudOptions(s3_access_key_id="AKIAIT"), tmp_path, {}))
    assert error.code == "no_credentials"


def test_the_files_of_the_aws_command_line_are_read(tmp_path, s3_options):
    (tmp_path / ".aws").mkdir()
    keys = f"aws_access_key_id = AKIAOTHER\naws_secret_access_key = {SECRET}\n"
    (tmp_path / ".aws/credentials").write_text(f"[default]\n{keys}[other]\n{keys}aws_session_token = session\n")
    (tmp_path / ".aws/config").write_text("[profile other]\nregion = eu-west-1\n")
    environ = {"HOME": str(tmp_path), "AWS_PROFILE": "other", "AWS_ENDPOINT_URL": s3_options.s3_endpoint}
    store = connect(Bucket("s3", "my-bucket"), CloudOptions(), environ)
    assert store.config["region"] == "eu-west-1"
    link = obstore.sign(store, "GET", "x", timedelta(minutes=1))
    assert "AKIAOTHER%2F" in link
    assert "X-Amz-Security-Token=session" in link
    ours = replace(s3_options, s3_endpoint="")
    assert "Security-Token" not in obstore.sign(
        connect(Bucket("s3", "my-bucket"), ours, environ), "GET", "x", timedelta(minutes=1)
    )


@pytest.mark.parametrize(
    ("environ", "used"),
    [
        ({"AZURE_STORAGE_ACCOUNT": "it", "AZURE_STORAGE_KEY": "a2V5"}, {"account_key": "a2V5"}),
        ({"AZURE_STORAGE_ACCOUNT_NAME": "it", "AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=2"}, {"sas_key": "sv=1&sig=2"}),
        (
            {"AZURE_STORAGE_ACCOUNT": "it", "AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": "s", "AZURE_TENANT_ID": "t"},
            {"client_id": "c", "client_secret": "s", "tenant_id": "t"},
        ),
    ],
)
def test_azure_takes_the_variables_of_its_tools(environ, used):
    config = connect(Bucket("az", "videos"), CloudOptions(), environ).config
    assert config == {"container_name": "videos", "account_name": "it", **used}


def test_only_an_endpoint_of_the_settings_may_do_without_tls(s3_options):
    keys = replace(s3_options, s3_endpoint="")
    assert connect(Bucket("s3", "my-bucket"), s3_options, {}).client_options["allow_http"] == "true"
    store = connect(Bucket("s3", "my-bucket"), keys, {})
    assert store.client_options["allow_http"] == "false"
    assert store.config["checksum_algorithm"] == "SHA256"


def test_secrets_are_in_no_repr(s3_options, tmp_path):
    destination = ObjectStoreDestination("s3://my-bucket", replace(s3_options, azure_key=SECRET), tmp_path, {})
    store = connect(Bucket("s3", "my-bucket"), s3_options, {})
    assert SECRET not in repr((destination, destination._options, store, store.credential_provider))


@pytest.mark.parametrize(
    ("place", "bucket"),
    [
        ("gs://bucket", Bucket("gs", "bucket")),
        ("gs://bucket/", Bucket("gs", "bucket")),
        ("s3://my.bucket/a b/ä", Bucket("s3", "my.bucket", "a b/ä/")),
        ("az://videos/a/", Bucket("az", "videos", "a/")),
    ],
)
def test_a_place_names_a_bucket_and_a_folder(place, bucket):
    assert is_bucket(place)
    assert bucket_of(place) == bucket


@pytest.mark.parametrize(
    "place",
    ["gs://", "gs://x", "gs://Bucket", "gs://a@evil.example", "s3://evil.example:80/x", "s3://a_b_c", "az://a--b",
     "gs://bucket//a", "gs://bucket/../a", "gs://bucket/./a", "gs://bucket/a?b", "gs://bucket/a#b", "gs://bucket/a\\b",
     "gs://bucket/a\nb", "gs://bucket/" + "a" * 701, "gs://bucket/a\u202eb"],
)  # fmt: skip
def test_what_names_no_bucket_is_refused_before_anything_is_asked(place):
    with pytest.raises(RequestError) as caught:
        bucket_of(place)
    assert caught.value.code == "bad_destination"


@pytest.mark.parametrize("place", ["videos", "/srv/gs", "drive:abc", "https://bucket", "gs:/x", ""])
def test_other_places_are_no_buckets(place):
    assert not is_bucket(place)
