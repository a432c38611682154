"""The command line as a user meets it: settings, refusals, a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

from clips import make_clip
from crosscut.cli import run
from crosscut.settings import Settings


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith("CROSSCUT_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "a.mp4", frames=6)
    (tmp_path / "request.json").write_text(json.dumps({"task_name": "t", "video_blocks": {"a": ["a.mp4"]}}))
    return tmp_path


def refused(capsys, *arguments):
    assert run(list(arguments)) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("crosscut: ")
    return output.err


def test_settings_come_from_a_file_and_the_environment_wins(project, monkeypatch):
    (project / ".env").write_text(
        "CROSSCUT_DATA_DIR=~/pieces\nCROSSCUT_CACHE_BYTES=3GiB\nCROSSCUT_WORKERS=3\nOTHER=1\nCROSSCUT_LOG_FILE=\n"
    )
    monkeypatch.setenv("CROSSCUT_WORKERS", "5")
    monkeypatch.setenv("CROSSCUT_FETCH_ALLOW", "Media.local:8080, [::1]:9000,")
    settings = Settings()
    assert settings.data_dir == project.home() / "pieces"
    assert (settings.cache_bytes, settings.workers) == (3 * 2**30, 5)
    assert settings.fetch_allow == (("media.local", 8080), ("::1", 9000))


@pytest.mark.parametrize(
    ("name", "value"), [("FETCH_ALLOW", "localhost"), ("WORKERS", "many"), ("WORKERS", "0"), ("CACHE_BYTES", "lots")]
)
def test_a_setting_that_is_no_use_is_named(project, monkeypatch, capsys, name, value):
    monkeypatch.setenv(f"CROSSCUT_{name}", value)
    assert f"CROSSCUT_{name}" in refused(capsys, "plan", "request.json")


def test_a_request_that_is_not_there_is_refused(project, capsys):
    assert "nowhere.json" in refused(capsys, "render", "nowhere.json", "--to", "out")
    (project / "request.json").write_text("{")
    refused(capsys, "render", "request.json", "--to", "out")
    assert sorted(path.name for path in project.iterdir()) == ["a.mp4", "request.json"]


def test_videos_go_where_to_or_the_request_or_the_settings_say(project, monkeypatch, capsys):
    monkeypatch.setenv("CROSSCUT_DATA_DIR", str(project / "data"))
    monkeypatch.setenv("CROSSCUT_DESTINATION", "usual")
    assert run(["render", "request.json", "--quiet"]) == 0
    body = json.loads((project / "request.json").read_text())
    (project / "request.json").write_text(json.dumps(body | {"destination": "asked"}))
    assert run(["render", "request.json", "--quiet"]) == 0
    assert run(["render", "request.json", "--to", "told", "--quiet"]) == 0
    assert [(project / place / "t" / "1_a.mp4").exists() for place in ("usual", "asked", "told")] == [True] * 3
    assert not (project / "videos").exists()
    capsys.readouterr()


def test_a_data_folder_that_cannot_be_used_is_one_sentence(project, monkeypatch, capsys):
    monkeypatch.setenv("CROSSCUT_DATA_DIR", str(project / "a.mp4"))
    assert refused(capsys, "render", "request.json", "--to", "out").count("\n") == 1


def test_a_request_is_read_from_standard_input(project):
    command = [sys.executable, "-m", "crosscut", "render", "-", "--to", "out", "--json", "-q"]
    environment = os.environ | {"CROSSCUT_DATA_DIR": str(project / "data")}
    body = (project / "request.json").read_bytes()
    done = subprocess.run(command, input=body, cwd=project, env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout)["made"] == 1
    assert done.stderr == b""


def test_a_terminal_sees_bars_and_a_log_file_the_events(project):
    environment = os.environ | {
        "CROSSCUT_DATA_DIR": str(project / "data"),
        "CROSSCUT_LOG_FILE": str(project / "log.jsonl"),
    }
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "crosscut", "render", "request.json", "--to", "out"]
    child = subprocess.Popen(command, cwd=project, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert child.wait() == 0
    text = shown.decode()
    assert "writing videos" in text
    assert "1/1" in text
    assert "1 variations: 1 made, 0 failed" in text
    events = [json.loads(line) for line in (project / "log.jsonl").read_text().splitlines()]
    assert events[-1]["event"] == "job done"
    assert "event" not in text


LEAVING = """
import gc, os, signal, sys, time
from crosscut import cli

class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)

def run():
    try:
        last = Last()
        del last
        time.sleep(10)
    except KeyboardInterrupt:
        return 130

cli.run = run
cli.main()
"""


def test_an_interrupt_that_meets_a_finalizer_is_not_lost():
    done = subprocess.run([sys.executable, "-c", LEAVING], check=False, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (130, "")
