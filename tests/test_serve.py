"""`crosscut serve` as a process: the names it answers to, who finds it, what it says where it cannot start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import uuid

import httpx2
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from crosscut import cluster
from crosscut.client import running
from crosscut.disk import storage_errors
from crosscut.errors import ServerError, StorageError
from crosscut.serving import _announced, _name_of
from crosscut.settings import Settings
from crosscut.standalone import open_store
from crosscut.store import Store
from serving import PATIENCE_SECONDS, eventually, serving

POSTGRES = os.environ.get("CROSSCUT_TEST_POSTGRES", "postgresql+psycopg://root@127.0.0.1:5432/test")


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("127.0.0.2", "127.0.0.2"), ("0.0.0.0", "127.0.0.1"), ("", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"),
        ("0:0:0:0:0:0:0:1", "[::1]"), ("localhost", "localhost"), ("192.0.2.7", "192.0.2.7"),
    ],
)  # fmt: skip
def test_a_server_is_called_by_what_leads_to_it(host, name):
    assert _name_of(host) == name


def test_a_server_answers_to_the_address_it_listens_on(tmp_path):
    with serving(tmp_path, host="127.0.0.2") as server:
        assert server.url.startswith("http://127.0.0.2:")
        assert httpx2.get(f"{server.url}/jobs").status_code == 200
        assert httpx2.get(f"{server.url}/jobs", headers={"host": "evil.example"}).status_code == 421
        assert server.command("jobs", "--json") == ""


def test_with_keys_the_own_command_line_needs_none(tmp_path):
    environment = {**os.environ, "CROSSCUT_DATA_DIR": str(tmp_path / "data")}
    create = [sys.executable, "-m", "crosscut", "keys", "create", "--owner", "ann"]
    made = subprocess.run(create, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    with serving(tmp_path, host="0.0.0.0", auth="on") as server:
        assert server.url.startswith("http://127.0.0.1:")
        assert httpx2.get(f"{server.url}/jobs").status_code == 401
        body = {"task_name": "t", "video_blocks": {"hook": ["https://a.example/1.mp4"]}}
        headers = {"authorization": f"Bearer {made.stdout.strip()}", "host": "proxy.example"}
        job = httpx2.post(f"{server.url}/process_media", json=body, headers=headers).json()["id"]
        assert json.loads(server.command("jobs", "--json"))["id"] == job
        assert json.loads(server.command("keys", "list", "--json"))["keys"][0]["owner"] == "ann"


def test_what_a_killed_server_left_is_taken_away_by_the_next_owner(tmp_path):
    settings = Settings(data_dir=tmp_path)
    stale = tmp_path / "server.json"
    stale.write_text(json.dumps({"url": "http://127.0.0.1:9", "admin_token": "canary"}))
    with pytest.raises(ServerError):
        running(tmp_path)
    with open_store(settings) as keyring:
        assert not stale.exists()
        assert keyring.list_keys() == []
        with pytest.raises(StorageError, match="another crosscut serve uses"), open_store(settings):
            pass


def refused(folder, *arguments, **settings):
    """What `crosscut` says when it cannot do it."""
    environment = {**os.environ, **{f"CROSSCUT_{name.upper()}": value for name, value in settings.items()}}
    call = [sys.executable, "-m", "crosscut", *arguments]
    done = subprocess.run(
        call, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 2, done.stderr
    return done.stderr


@pytest.mark.parametrize("command", [("serve", "--port", "0"), ("keys", "list")])
def test_a_data_folder_that_takes_no_file_is_one_sentence(tmp_path, command):
    assert refused(tmp_path, *command, data_dir="/sys") == (
        "crosscut: The data folder cannot be used: make it writable, or set CROSSCUT_DATA_DIR to a folder that is.\n"
    )


def test_a_server_that_cannot_be_announced_is_one_sentence(tmp_path):
    (tmp_path / "server.new").mkdir()
    with pytest.raises(StorageError, match="make it writable"), _announced(tmp_path, "http://a", "token"):
        pass


def test_an_error_of_the_server_is_not_taken_for_one_of_its_folder(tmp_path):
    with pytest.raises(ConnectionError), _announced(tmp_path, "http://a", "token"):
        raise ConnectionError
    with storage_errors():
        assert not (tmp_path / "server.json").exists()


def test_a_second_server_into_the_same_database_is_refused(tmp_path):
    engine = create_engine(POSTGRES, connect_args={"connect_timeout": 2})
    schema = f"t{uuid.uuid4().hex}"
    try:
        with engine.begin() as db:
            db.execute(text(f"CREATE SCHEMA {schema}"))
    except OperationalError:
        pytest.skip("no PostgreSQL at CROSSCUT_TEST_POSTGRES")
    url = f"{POSTGRES}?options=-csearch_path%3D{schema}"
    try:
        with serving(tmp_path, database_url=url):
            said = refused(
                tmp_path, "serve", "--port", "0", data_dir=str(tmp_path / "elsewhere"), database_url=url
            ).splitlines()[-1]
            assert said.startswith("crosscut: another crosscut serve works on this database: stop it")
    finally:
        with engine.begin() as db:
            db.execute(text(f"DROP SCHEMA {schema} CASCADE"))
        engine.dispose()


def test_a_killed_server_leaves_nothing_the_command_line_trusts(tmp_path):
    with serving(tmp_path) as server:
        told = json.loads((tmp_path / "data" / "server.json").read_text())
        os.kill(told["pid"], signal.SIGKILL)
        eventually(lambda: "no running crosscut" in refused(tmp_path, "jobs", data_dir=str(tmp_path / "data")))
        assert (tmp_path / "data" / "server.json").exists()
        assert server.command("keys", "list", "--json") == '{"keys": []}\n'


def test_what_a_cluster_lacks_is_said_before_anything_starts():
    def told(**more):
        return cluster.refusal(Settings(_env_file=None, engine="celery", **more)).public

    assert "set CROSSCUT_BROKER_URL" in told()
    assert "set CROSSCUT_DATABASE_URL" in told(broker_url="redis://127.0.0.1")
    assert "set CROSSCUT_DATABASE_URL" in told(broker_url="redis://127.0.0.1", database_url="sqlite:///x")


def test_health_of_a_server_is_what_it_says_of_itself(tmp_path):
    with serving(tmp_path) as server:
        assert server.command("health") == "ok\n"
        (tmp_path / "data" / "server.json").unlink()
        assert lacking(server, "health").startswith("no running crosscut was found")


def test_health_of_a_server_with_keys_needs_none(tmp_path):
    environment = {**os.environ, "CROSSCUT_DATA_DIR": str(tmp_path / "data")}
    create = [sys.executable, "-m", "crosscut", "keys", "create", "--owner", "ann"]
    subprocess.run(create, cwd=tmp_path, env=environment, capture_output=True, check=True)
    with serving(tmp_path, host="0.0.0.0", auth="on") as server:
        assert httpx2.get(f"{server.url}/readyz").status_code == 401
        assert server.command("health") == "ok\n"


def lacking(server, *arguments):
    """What a health check says that fails."""
    call = [sys.executable, "-m", "crosscut", *arguments]
    done = subprocess.run(
        call, cwd=server.folder, env=server.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    return done.stdout


def test_health_of_workers_is_what_the_database_has_heard_of_this_machine():
    engine = create_engine(POSTGRES, connect_args={"connect_timeout": 2})
    schema = f"t{uuid.uuid4().hex}"
    try:
        with engine.begin() as db:
            db.execute(text(f"CREATE SCHEMA {schema}"))
    except OperationalError:
        pytest.skip("no PostgreSQL at CROSSCUT_TEST_POSTGRES")
    url = f"{POSTGRES}?options=-csearch_path%3D{schema}"
    settings = Settings(_env_file=None, engine="celery", database_url=url, broker_url="redis://127.0.0.1:9/0")
    here, store = f"processor-1@{socket.gethostname()}", Store(url)
    try:
        store.report("processor-1@elsewhere", "processor", 2, 0, None)
        assert cluster.ailments(settings) == ["no worker of this machine was heard in the last seconds"]
        store.report(here, "processor", 0, 0, None)
        assert cluster.ailments(settings) == ["the worker of the processor lane is not ready"]
        store.report(here, "processor", 2, 0, "the disk is full")
        assert cluster.ailments(settings) == ["the disk is full"]
        store.report(here, "processor", 2, 1, None)
        assert cluster.ailments(settings) == []
        store.leave(here)
        assert len(cluster.ailments(settings)) == 1
    finally:
        store.close()
        with engine.begin() as db:
            db.execute(text(f"DROP SCHEMA {schema} CASCADE"))
        engine.dispose()
