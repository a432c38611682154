"""The commands with a destination on other machines, over real sockets."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from datetime import datetime
from urllib.parse import parse_qs, urlsplit

import av
import pytest

from azure_emulator import ACCOUNT, KEY
from azure_emulator import Emulator as AzureEmulator
from clips import make_clip
from crosscut.bootstrap import places_of
from crosscut.destinations.folder import FolderDestination
from crosscut.destinations.objectstore import ObjectStoreDestination
from crosscut.errors import RequestError
from crosscut.places import is_remote, whole, within
from crosscut.settings import Settings
from crosscut.standalone import open_machine
from crosscut.status import NOT_JOINED
from crosscut.virtual import Extent, VirtualFile
from drive_emulator import Emulator as DriveEmulator
from drive_model import REFRESH, SECRET
from emulating import wait_until
from gcs_emulator import TOKEN, Emulator


@pytest.fixture
def project(tmp_path):
    for number, name in enumerate("ab"):
        make_clip(tmp_path / f"{name}.mp4", frames=24, size=(64, 96), first=number, audio=True)
    return tmp_path


@pytest.fixture
def emulator():
    with Emulator() as emulator:
        yield emulator


def render(project, emulator, *more, settings=None, **request):
    key = project / "key.json"
    key.write_text(emulator.service_account)
    body = {"task_name": "Spring", "video_blocks": {"a": ["a.mp4", "b.mp4"], "b": ["b.mp4"]}, **request}
    (project / "request.json").write_text(json.dumps(body))
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("CROSSCUT_", "GOOGLE_", "AWS_"))}
    return subprocess.run(
        [sys.executable, "-m", "crosscut", "render", "request.json", "--json", *more],
        cwd=project,
        env=keep
        | {
            "CROSSCUT_DATA_DIR": str(project / "data"),
            "CROSSCUT_GCS_KEY_FILE": str(key),
            "CROSSCUT_GCS_ENDPOINT": emulator.url,
            **(settings or {}),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_videos_and_their_manifest_arrive_in_a_bucket_once(project, emulator):
    done = render(project, emulator, "--to", "gs://bucket/ads", captions="soft", text_to_speech=[{"text": "Hi there"}])
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["made"], report["failed"], report["folder"]) == (2, 0, "gs://bucket/ads/Spring")
    names = {name.removeprefix("ads/Spring/") for name in emulator.names("ads/Spring/")}
    manifest = json.loads(emulator.data("ads/Spring/manifest.json"))
    files = {row["file"]: row for row in manifest["variations"]}
    beside = {row["captions"] for row in manifest["variations"]}
    assert names == {*files, *beside, "manifest.json", "manifest.csv"}
    assert all(len(emulator.data(f"ads/Spring/{name}")) == row["bytes"] for name, row in files.items())
    again = json.loads(
        render(
            project, emulator, "--to", "gs://bucket/ads", captions="soft", text_to_speech=[{"text": "Hi there"}]
        ).stdout
    )
    assert (again["made"], again["kept"]) == (0, 2)
    assert TOKEN not in done.stderr
    assert "BEGIN" not in done.stderr


def big_clips(project):
    """Clips of more bytes than it takes to put files together."""
    for number in range(3):
        encoding = {"x264-params": "qp=0:keyint=12"}
        make_clip(project / f"{number}.mp4", frames=48, size=(160, 240), first=20 * number, options=encoding)
    return {"a": ["0.mp4", "1.mp4", "2.mp4"], "b": ["2.mp4", "1.mp4", "0.mp4"]}


def test_videos_are_joined_in_the_bucket_from_what_they_share(project, emulator):
    wanted = {"video_blocks": big_clips(project), "text_to_speech": [{"text": "Hi there, and welcome to the show"}]}
    done = render(project, emulator, "--to", "gs://bucket/ads", **wanted)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["made"], report["joined_in_bucket"], report["notes"]) == (9, 9, [])
    manifest = json.loads(emulator.data("ads/Spring/manifest.json"))
    rows = manifest["variations"]
    assert report["bytes_sent"] == sum(row["bytes_sent"] for row in rows) < 0.5 * report["bytes"]
    assert emulator.bytes_in < report["bytes_sent"] + 50_000
    for row in rows:
        data = emulator.data(f"ads/Spring/{row['file']}")
        assert (len(data), hashlib.sha256(data).hexdigest()) == (row["bytes"], row["sha256"])
        (project / "joined.mp4").write_bytes(data)
        with av.open(str(project / "joined.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) == 96
    assert emulator.names("ads/.crosscut/") == []
    again = json.loads(render(project, emulator, "--to", "gs://bucket/ads", **wanted).stdout)
    assert (again["made"], again["kept"], again["bytes_sent"]) == (0, 9, 0)


def test_a_bucket_that_does_not_join_is_said_once(project, emulator):
    emulator.forbidden = frozenset({"compose"})
    done = render(project, emulator, "--to", "gs://bucket/ads", video_blocks=big_clips(project))
    report = json.loads(done.stdout)
    assert (report["made"], report["failed"], report["joined_in_bucket"]) == (9, 0, 0)
    assert report["bytes_sent"] > report["bytes"]
    assert report["notes"] == [NOT_JOINED]
    assert emulator.names("ads/.crosscut/") == []
    assert len([name for name in emulator.names("ads/Spring/") if name.endswith(".mp4")]) == 9


def test_the_request_says_where_if_nobody_else_does(project, emulator):
    done = render(project, emulator, destination="gs://bucket/there")
    assert json.loads(done.stdout)["folder"] == "gs://bucket/there/Spring"


def test_links_that_open_the_videos_stand_in_the_manifest_and_in_no_log(project, emulator):
    done = render(project, emulator, "--to", "gs://bucket/ads", link_days=2)
    assert done.returncode == 0, done.stderr
    manifest = json.loads(emulator.data("ads/Spring/manifest.json"))
    for row in manifest["variations"]:
        assert parse_qs(urlsplit(row["link"]).query)["X-Goog-Expires"] == ["172800"]
        with urllib.request.urlopen(row["link"]) as answer:
            assert hashlib.sha256(answer.read()).hexdigest() == row["sha256"]
    rows = list(csv.DictReader(emulator.data("ads/Spring/manifest.csv").decode().splitlines()))
    assert all("X-Goog-Signature=" in row["link"] for row in rows)
    left = datetime.fromisoformat(manifest["links_end_at"]).timestamp() - time.time()
    assert 47 * 3600 < left < 49 * 3600
    assert "Signature" not in done.stdout + done.stderr


def test_a_server_tells_links_to_videos_and_what_opens_the_folder(project, emulator):
    (project / "key.json").write_text(emulator.service_account)
    settings = Settings(
        data_dir=project / "data", workers=1, gcs_key_file=str(project / "key.json"), gcs_endpoint=emulator.url
    )
    body = {"task_name": "Spring", "video_blocks": {"a": ["a.mp4"]}, "link_days": 0.5}
    url = f"sqlite:///{project / 'state.sqlite'}"
    with open_machine(settings, url, destination="gs://bucket/ads") as machine:
        service = machine.service
        with pytest.raises(RequestError, match="link_days is for videos in a bucket"):
            service.submit(body, local=True, base=project, destination=str(project))
        job = service.submit(body, local=True, base=project).id
        assert service.status(job, None)["location"] is None
        wait_until(lambda: service.status(job, None)["ended_at"], 60)
        assert service.status(job, None)["location"] == "gs://bucket/ads/Spring"
        (row,), _ = service.variations(job, None)
        (manifest,) = service.manifest(job, None)[1]
    for link in (row["link"], manifest["link"]):
        assert parse_qs(urlsplit(link).query)["X-Goog-Expires"] == ["43200"]
        with urllib.request.urlopen(link) as answer:
            assert len(answer.read()) == row["bytes"]


def test_a_slow_bucket_keeps_no_processor_from_its_work(project, tmp_path):
    with AzureEmulator(script=[("put", "hang")]) as azure:
        settings = Settings(
            data_dir=project / "data", workers=1, azure_account=ACCOUNT, azure_key=KEY, azure_endpoint=azure.endpoint
        )
        clips = [{"url": name, "end": end} for name in ("a.mp4", "b.mp4") for end in (0.5, 0.6, 0.7)]
        body = {"task_name": "Spring", "video_blocks": {"a": clips}, "formats": ["64x64"]}
        with open_machine(settings, f"sqlite:///{project / 'state.sqlite'}", destination="az://videos") as machine:
            job = machine.service.submit(body, local=True, base=project).id
            wait_until(lambda: azure.requests["put"] > 0, 60)
            wait_until(lambda: machine.service.status(job, None)["stages"]["conform"]["done"] == 6, 60)
            assert machine.service.status(job, None)["succeeded"] < 6
            azure.closing.set()
            wait_until(lambda: machine.service.status(job, None)["ended_at"], 60)
            assert machine.service.status(job, None)["succeeded"] == 6
        assert len(azure.names("Spring/")) == 8


def test_links_where_there_are_none_are_refused_before_anything_is_made(project, emulator):
    for to in ("out", "drive:"):
        done = render(project, emulator, "--to", to, link_days=2)
        assert (done.returncode, done.stdout) == (2, "")
        assert "link_days" in done.stderr
    person = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
    (project / "person.json").write_text(json.dumps(person))
    near = {"CROSSCUT_GCS_KEY_FILE": str(project / "person.json")}
    done = render(project, emulator, "--to", "gs://bucket/ads", settings=near, link_days=2)
    assert (done.returncode, done.stdout) == (2, "")
    assert "key file of a service account" in done.stderr
    assert not emulator.objects


def test_a_bucket_that_is_not_there_is_told_before_anything_is_made(project, emulator):
    done = render(project, emulator, "--to", "gs://another/ads")
    assert (done.returncode, done.stdout) == (2, "")
    assert "gs://another" in done.stderr
    assert "conform" not in done.stderr
    assert "Traceback" not in done.stderr


def test_videos_arrive_in_google_drive_once_in_one_folder(project, emulator):
    with DriveEmulator() as drive:
        (project / "data").mkdir()
        drive.consent_file(project / "data" / "google.json")
        near = {"CROSSCUT_GOOGLE_URL": drive.url}
        done = render(project, emulator, "--to", "drive:", settings=near)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert (report["made"], report["failed"]) == (2, 0)
        assert report["folder"].startswith("https://")
        again = json.loads(render(project, emulator, "--to", "drive:", settings=near).stdout)
        assert (again["made"], again["kept"]) == (0, 2)
        nodes = drive.children("Spring")
        manifest = next(json.loads(node.data) for node in nodes if node.name == "manifest.json")
        files = {node.name: f"https://drive.google.com/file/d/{node.id}/view" for node in nodes}
        assert [row["link"].partition("?")[0] for row in manifest["variations"]] == [
            files[row["file"]] for row in manifest["variations"]
        ]
        assert sorted(node.name for node in nodes) == ["1_a-b.mp4", "2_b-b.mp4", "manifest.csv", "manifest.json"]
        assert len(drive.folders("Spring")) == 1
        assert SECRET not in done.stdout + done.stderr
        assert REFRESH not in done.stdout + done.stderr


def test_who_is_not_connected_is_told_how(project, emulator):
    done = render(project, emulator, "--to", "drive:")
    assert (done.returncode, done.stdout) == (2, "")
    assert "crosscut auth google" in done.stderr


def test_a_server_says_at_its_start_that_nothing_can_be_delivered(project):
    command = [sys.executable, "-m", "crosscut", "serve", "--port", "0", "--to", "drive:"]
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("CROSSCUT_", "GOOGLE_"))}
    environ = keep | {"CROSSCUT_DATA_DIR": str(project / "data")}
    with subprocess.Popen(command, cwd=project, env=environ, stderr=subprocess.PIPE, text=True) as server:
        told = next(json.loads(line) for line in server.stderr if "no video could be delivered" in line)
        server.terminate()
        server.communicate(timeout=30)
    assert told["level"] == "warning"
    assert "crosscut auth google" in told["reason"]


def test_the_doctor_looks_at_where_videos_go(project):
    environ = {"PATH": os.environ["PATH"], "CROSSCUT_DATA_DIR": str(project), "CROSSCUT_DESTINATION": "gs://a-bucket"}
    command = [sys.executable, "-m", "crosscut", "doctor", "--json"]
    done = subprocess.run(command, env=environ, cwd=project, capture_output=True, text=True, check=False)
    found = next(each for each in json.loads(done.stdout)["findings"] if each["name"] == "videos go")
    assert (done.returncode, found["good"]) == (1, False)
    assert "GOOGLE_APPLICATION_CREDENTIALS" in found["words"]


def test_private_objects_are_sources_where_the_settings_say_so(project, emulator):
    places = places_of(Settings(data_dir=project, gcs_key_file=str(project / "key.json"), gcs_endpoint=emulator.url))
    (project / "key.json").write_text(emulator.service_account)
    clip = (project / "a.mp4").read_bytes()
    with places("gs://bucket/in").open("clips") as delivery:
        delivery.put("a.mp4", VirtualFile([Extent(clip, 0, len(clip))]))
    blocks = {"a": ["gs://bucket/in/clips/a.mp4"]}
    near = {"CROSSCUT_FETCH_ALLOW": emulator.url.removeprefix("http://")}
    closed = render(project, emulator, "--to", "out", settings=near, video_blocks=blocks)
    assert closed.returncode == 1
    assert "CROSSCUT_PRIVATE_SOURCES" in closed.stdout
    near["CROSSCUT_PRIVATE_SOURCES"] = "gs://bucket/in"
    done = render(project, emulator, "--to", "out", settings=near, video_blocks=blocks)
    assert done.returncode == 0, done.stderr
    assert "Signature" not in done.stdout + done.stderr
    assert (project / "out" / "Spring" / "1_a.mp4").exists()
    del near["CROSSCUT_PRIVATE_SOURCES"]
    shut = render(project, emulator, "--to", "elsewhere", settings=near, video_blocks=blocks)
    assert shut.returncode == 1, "the copy of what may not be read any more was used"
    assert "CROSSCUT_PRIVATE_SOURCES" in shut.stdout


def test_places_and_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = places_of(Settings(data_dir=tmp_path))
    assert isinstance(places("gs://bucket/x"), ObjectStoreDestination)
    assert isinstance(places(str(tmp_path)), FolderDestination)
    with pytest.raises(RequestError, match="name of a bucket"):
        places("s3://Not A Bucket")
    names = {"out": str(tmp_path / "out"), "s3://bucket/x/": "s3://bucket/x", "gs://bucket": "gs://bucket"}
    assert {name: whole(name) for name in names} == names
    drive = "https://drive.google.com/drive/folders/1AbCdEfGhIjKlMnOpQrStUvWxYz012345"
    assert whole(drive) == "drive:1AbCdEfGhIjKlMnOpQrStUvWxYz012345"
    for odd in ("GS://bucket/x", "s3:/bucket", "gcs://bucket", "ftp://x/y", "gs://", "gs://bucket/../x", "drive:a/b"):
        with pytest.raises(RequestError) as caught:
            whole(odd)
        assert caught.value.code == "bad_destination"
    assert [is_remote(place) for place in ("gs://a/b", "az://a", "/x", "ftp://a")] == [True, True, False, False]


@pytest.mark.parametrize(
    ("place", "allowed"),
    [
        ("gs://bucket/ads", True),
        ("gs://bucket", True),
        ("gs://bucket-of-mine", False),
        ("s3://videos/spring/x", True),
        ("s3://videos", False),
        ("/etc", False),
        ("videos", False),
    ],
)
def test_requests_choose_among_the_places_they_may(place, allowed):
    assert within(place, ("gs://bucket", "s3://videos/spring", "/etc")) is allowed
