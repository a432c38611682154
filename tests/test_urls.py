"""Sources behind URLs: fetched once, through the guard, and never with their secrets in what is shown."""

from __future__ import annotations

import json

import pytest
from werkzeug import Response

from clips import make_clip
from crosscut.cli import run

SIGNED = "/SF/Untitled%20design%20(5).MP4?X-Goog-Signature=SECRETSIGNATURE"


@pytest.fixture
def project(tmp_path, monkeypatch, httpserver):
    monkeypatch.setenv("CROSSCUT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    one = make_clip(tmp_path / "one.mp4", frames=10, fps=30).read_bytes()
    two = make_clip(tmp_path / "two.mp4", frames=10, fps=30, first=10).read_bytes()
    httpserver.expect_request("/SF/Untitled design (5).MP4").respond_with_data(one, content_type="video/mp4")
    httpserver.expect_request("/two.mp4").respond_with_data(two, content_type="application/octet-stream")
    httpserver.expect_request("/gone.mp4").respond_with_handler(
        lambda _: Response("<html><title>Not found</title></html>", 404, content_type="text/html")
    )
    return tmp_path


def request_of(project, *names):
    body = {"task_name": "task", "video_blocks": {"a": list(names), "b": list(names), "c": list(names)}}
    (project / "request.json").write_text(json.dumps(body))


def test_each_source_is_downloaded_once_and_secrets_stay_secret(project, httpserver, monkeypatch, capsys):
    monkeypatch.setenv("CROSSCUT_FETCH_ALLOW", f"{httpserver.host}:{httpserver.port}")
    request_of(project, httpserver.url_for("").rstrip("/") + SIGNED, httpserver.url_for("/two.mp4"))
    assert run(["render", "request.json", "--to", "out", "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["made"] == 8
    assert len(httpserver.log) == 2
    manifest = (project / "out" / "task" / "manifest.json").read_text()
    for text in (output.out, output.err, manifest, (project / "out" / "task" / "manifest.csv").read_text()):
        assert "SECRETSIGNATURE" not in text
    names = [row["file"] for row in json.loads(manifest)["variations"]]
    assert names[0] == "1_Untitled_design-5-Untitled_design-5-Untitled_design-5.mp4"


def test_a_missing_source_fails_what_uses_it_with_one_sentence(project, httpserver, monkeypatch, capsys):
    monkeypatch.setenv("CROSSCUT_FETCH_ALLOW", f"{httpserver.host}:{httpserver.port}")
    request_of(project, httpserver.url_for("/two.mp4"), httpserver.url_for("/gone.mp4"))
    assert run(["render", "request.json", "--to", "out", "--json", "-q"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["made"], report["failed"]) == (1, 7)
    (failure,) = report["failures"]
    assert "gone.mp4" in failure["reason"]
    assert "404" in failure["reason"]


def test_sources_that_differ_in_their_query_alone_are_told_apart(project, httpserver, monkeypatch, capsys):
    monkeypatch.setenv("CROSSCUT_FETCH_ALLOW", f"{httpserver.host}:{httpserver.port}")
    httpserver.expect_request("/uc", query_string="id=1").respond_with_data((project / "one.mp4").read_bytes())
    httpserver.expect_request("/uc", query_string="id=2").respond_with_data("gone", status=404)
    url = httpserver.url_for("/uc")
    (project / "request.json").write_text(
        json.dumps({"task_name": "task", "video_blocks": {"a": [f"{url}?id=1", f"{url}?id=2"]}})
    )
    assert run(["plan", "request.json", "--json", "-q"]) == 1
    plan = capsys.readouterr().out
    assert run(["render", "request.json", "--to", "out", "--json", "-q"]) == 1
    (failure,) = json.loads(capsys.readouterr().out)["failures"]
    assert f"{url} (video_blocks.a[1])" in failure["reason"]
    rows = json.loads((project / "out" / "task" / "manifest.json").read_text())["variations"]
    assert [row["clips"] for row in rows] == [[f"{url} (video_blocks.a[0])"], [f"{url} (video_blocks.a[1])"]]
    assert "id=" not in plan


def test_a_private_address_is_refused_and_never_contacted(project, httpserver, capsys):
    request_of(project, httpserver.url_for("/two.mp4"))
    assert run(["render", "request.json", "--to", "out", "--json", "-q"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["made"], report["failed"]) == (0, 1)
    assert "CROSSCUT_FETCH_ALLOW" in report["failures"][0]["reason"]
    assert httpserver.log == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("https://drive.google.com/drive/folders/SECRETFOLDER01", "is a folder of Google Drive"),
        ("s3://SECRETUSER:SECRETKEY@bucket/a.mp4", "holds a user name, a password or a port"),
        ("gs://bucket/a.mp4?X-Goog-Signature=SECRETSIGNATURE", "holds ? or #"),
    ],
)
def test_a_link_to_no_file_is_refused_before_anything_is_done(project, capsys, source, said):
    request_of(project, source)
    assert run(["render", "request.json", "--to", "out", "-q"]) == 2
    output = capsys.readouterr()
    assert f"video_blocks.a[0] {said}" in " ".join((output.out + output.err).split())
    assert "SECRET" not in output.out + output.err
    assert not (project / "out").exists()
