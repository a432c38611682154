"""What the README says of the service, done: its lines as they stand against a server that runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import httpx2
import pytest

from clips import make_clip
from serving import eventually, files_served, serving
from sounds import tune, write_media

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("\n## The service\n")[2].partition("\n## ")[0]
LINES = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]
CURL_LINES = [line for line in LINES if line.startswith("curl ")]
REQUEST = json.loads(re.search(r"^```json\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)[1])

if shutil.which("curl") is None:
    pytest.skip("curl is missing: apt-get install curl", allow_module_level=True)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder with what the README's request names, and the port that serves it."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("hook1.mp4", "hook 2.MP4", "hook3.mp4", "body.mov", "cta1.mp4", "cta2.mp4"):
        make_clip(folder / name, frames=12)
    for seed, name in enumerate(("calm", "lively")):
        write_media(folder / f"{name}.wav", tune(1.0, seed=seed)).rename(folder / f"{name}.mp3")
    with files_served(folder) as port:
        yield folder, port


@pytest.fixture(scope="module")
def server(sources, tmp_path_factory):
    folder, port = sources
    place = tmp_path_factory.mktemp("server")
    with serving(place, allow=f"127.0.0.1:{port}") as running:
        (place / "request.json").write_text(_here(json.dumps(REQUEST), running.url, port))
        shutil.copy(folder / "hook1.mp4", place)
        (place / ".curlrc").write_text("silent\nshow-error\nfail-with-body\nmax-time = 60\n")
        yield running


def _here(text, url, port):
    """The only thing that is changed: where the server and the clips are."""
    return text.replace("http://localhost:8000", url).replace("https://example.com/", f"http://127.0.0.1:{port}/")


@pytest.fixture
def run(server, sources):
    """Runs those lines of the README that contain `part`, which must be some; what the last printed."""
    done = []

    def one(part, **variables):
        lines = [line for line in LINES if part in line]
        assert lines, f"the README has no line with {part}"
        for line in lines:
            command = _here(line, server.url, sources[1]).replace(".venv/bin/", f"{Path(sys.executable).parent}/")
            environment = server.environment | {"CURL_HOME": str(server.folder)} | variables
            shell = subprocess.run(
                ["bash", "-euc", command],
                cwd=server.folder,
                env=environment,
                capture_output=True,
                timeout=60,
                check=False,
            )
            assert shell.returncode == 0, (line, shell.stdout, shell.stderr)
            done.append(line)
        return shell.stdout.decode()

    one.done = done
    return one


def test_the_lines_of_the_readme_do_what_it_says(run, server):
    assert json.loads(run("localhost:8000/readyz")) == {"status": "ok"}
    taken = json.loads(run("--json @request.json http://localhost:8000/process_media"))
    job = taken["id"]
    assert (taken["variations"], taken["estimate"]["distinct_clips"]) == (4, 5)
    again = json.loads(run("Idempotency-Key"))
    assert again["created"]
    assert json.loads(run("Idempotency-Key")) == again | {"created": False}
    plan = json.loads(run("http://localhost:8000/plan"))
    assert (plan["mode"], plan["plan"]["clips_to_encode"], plan["succeeded"]) == ("plan", 0, 0)

    assert job in [one["id"] for one in json.loads(run("curl http://localhost:8000/jobs  "))["jobs"]]
    events = run("/events", JOB=job)
    assert events.count("event: end") == 1
    status = json.loads(run("curl http://localhost:8000/jobs/$JOB ", JOB=job))
    assert (status["state"], status["succeeded"], status["failed"]) == ("done", 4, 0)
    assert json.loads(run("$JOB/plan", JOB=job))["clips_to_encode"] == 0
    assert json.loads(run("variations?state=failed", JOB=job)) == {"variations": [], "next": None}
    run("manifest.csv", JOB=job)
    assert len((server.folder / "manifest.csv").read_text().splitlines()) == 5
    run("variations/1.mp4", JOB=job)
    run("variations/1.jpg", JOB=job)
    delivered = server.folder / "videos" / "spring_campaign" / _names(server, job)[0]
    assert (server.folder / "start.mp4").read_bytes() == delivered.read_bytes()[:65536]
    with av.open(str(server.folder / "poster.jpg")) as poster:
        assert poster.streams.video[0].width == 96

    before = _names(server, job)
    larger = json.loads(run("/extend", JOB=job))
    assert (larger["variations"], larger["first_index"]) == (2, 5)
    server.ended(job)
    assert _names(server, job)[:4] == before
    run("/cancel", JOB=job)
    assert json.loads(run("/retry", JOB=job)) == {"variations": 0, "preparations": 0}
    run("-X DELETE", JOB=job)
    assert delivered.exists()

    upload = json.loads(run("/sources"))
    assert re.fullmatch(r"source:[0-9a-f]{64}/[^/]+", upload["id"])
    assert "crosscut_variations_total" in run("/metrics")
    assert {line for line in CURL_LINES if "Authorization" not in line} == {
        line for line in run.done if line.startswith("curl ")
    }


def _names(server, job):
    rows = httpx2.get(f"{server.url}/jobs/{job}/variations").json()["variations"]
    return [row["file"] for row in rows]


def test_submit_and_jobs_find_the_server_of_this_machine(run, server):
    printed = run("crosscut submit")
    assert json.loads(printed.splitlines()[-1])["state"] == "done"
    run("crosscut jobs")


def test_an_added_line_makes_every_combination_once_more(server):
    job = httpx2.post(f"{server.url}/process_media", json=json.loads((server.folder / "request.json").read_text()))
    job = job.json()["id"]
    server.ended(job)
    addition = {"text_to_speech": [{"text": "Buy it."}]}
    answer = httpx2.post(f"{server.url}/jobs/{job}/extend", json=addition).json()
    assert (answer["variations"], answer["first_index"], answer["total"]) == (4, 5, 8)
    server.ended(job)
    rows = httpx2.get(f"{server.url}/jobs/{job}/variations").json()["variations"]
    assert [row["voice_over"] for row in rows] == ["Try it today."] * 4 + ["Buy it."] * 4
    assert [row["clips"] for row in rows[:4]] == [row["clips"] for row in rows[4:]]


def test_a_webhook_is_verified_as_the_readme_shows(sources, tmp_path, capsys):
    received = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append((self.rfile.read(int(self.headers["content-length"])), dict(self.headers)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    snippet = re.search(r"### Webhooks\n.*?```python\n(.*?)```", SECTION, re.DOTALL)[1]
    with HTTPServer(("127.0.0.1", 0), Receiver) as receiver:
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        port = receiver.server_address[1]
        with serving(tmp_path, allow=f"127.0.0.1:{sources[1]},127.0.0.1:{port}") as server:
            body = {
                "task_name": "t",
                "video_blocks": {"a": [f"http://127.0.0.1:{sources[1]}/hook1.mp4"]},
                "webhook": {"url": f"http://127.0.0.1:{port}/told"},
                "passthrough": "mine",
            }
            job = httpx2.post(f"{server.url}/process_media", json=body).json()["id"]
            eventually(lambda: received)
            secret = server.command("keys", "webhook-secret").strip()
        receiver.shutdown()
        thread.join()
    body, headers = received[0]
    exec(compile(snippet, "README.md", "exec"), {"secret": secret, "body": body, "headers": headers})
    assert capsys.readouterr().out == f"job.ended {job} done mine\n"
    with pytest.raises(Exception, match="signature"):
        exec(compile(snippet, "README.md", "exec"), {"secret": secret, "body": body + b" ", "headers": headers})


def test_a_key_opens_a_server_that_asks_for_one(tmp_path):
    line = next(line for line in LINES if "keys create" in line)
    call = next(line for line in CURL_LINES if "Authorization" in line)
    with serving(tmp_path) as server:
        key = server.command(*line.partition("#")[0].split()[1:]).strip()
    with serving(tmp_path, auth="on") as server:
        for token, expected in ((key, 0), ("ck_wrong", 22), ("", 22)):
            environment = server.environment | {"KEY": token}
            shell = subprocess.run(
                ["bash", "-euc", call.replace("curl ", "curl -sf ", 1).replace("http://localhost:8000", server.url)],
                env=environment,
                capture_output=True,
                timeout=60,
                check=False,
            )
            assert shell.returncode == expected, (token, shell.stderr)
