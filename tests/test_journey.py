"""From a request to videos, manifest and report, through the command line, with real clips and voices."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import wave
from fractions import Fraction

import av
import numpy as np
import pytest

from clips import make_clip, number_of
from crosscut.cli import run

SIZE = (64, 96)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSCUT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("CROSSCUT_LOG_FILE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_music(path, hertz, seconds=2.0):
    samples = (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(44100 * seconds)) / 44100) * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(44100)
        file.writeframes(samples.tobytes())
    return path


def write_request(project, **fields):
    path = project / "request.json"
    path.write_text(json.dumps({"task_name": "my task", **fields}))
    return path


def mixed_clips(project):
    """Two hooks, one body, two calls to action: frames are numbered 0, 10, 20, ... from their first."""
    make_clip(project / "hook a.mp4", frames=15, fps=30, size=SIZE, first=0, audio=True)
    make_clip(project / "hook (b).MP4", frames=12, fps=24, size=SIZE, first=20)
    make_clip(project / "body.mp4", frames=30, fps=60, size=SIZE, first=30)
    make_clip(project / "cta1.mp4", frames=15, fps=30, size=SIZE, first=10)
    make_clip(project / "cta2.mp4", frames=25, fps=Fraction(30000, 1001), size=SIZE, first=40)
    return {"hook": ["hook a.mp4", "hook (b).MP4"], "body": ["body.mp4"], "cta": ["cta1.mp4", "cta2.mp4"]}


def rendered(project, capsys, *options):
    status = run(["render", "request.json", "--to", "out", "--json", *options])
    output = capsys.readouterr()
    return status, json.loads(output.out), output.err


def manifest(project):
    return json.loads((project / "out" / "my task" / "manifest.json").read_text())["variations"]


def first_numbers(path, at):
    """Frame numbers shown at those seconds."""
    with av.open(str(path)) as container:
        frames = {frame.time: number_of(frame) for frame in container.decode(video=0)}
    return [frames[min(frames, key=lambda time: abs(time - second))] for second in at]


def test_every_combination_is_made_in_order_with_music_and_voice(project, capsys):
    make_music(project / "low.wav", 110)
    make_music(project / "high.wav", 440)
    write_request(
        project,
        video_blocks=mixed_clips(project),
        audio_blocks={"a": ["low.wav"], "b": ["high.wav"]},
        text_to_speach=[{"text": "Hi", "voice": "Sarah"}],
        formats=["64x96"],
    )
    status, report, log = rendered(project, capsys)
    assert (status, report["total"], report["made"], report["failed"]) == (0, 4, 4, 0)
    assert any("Sarah" in note for note in report["notes"])
    rows = manifest(project)
    assert [row["clips"] for row in rows] == [
        [hook, "body.mp4", cta] for hook in ("hook a.mp4", "hook (b).MP4") for cta in ("cta1.mp4", "cta2.mp4")
    ]
    for row in rows:
        data = (project / "out" / "my task" / row["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (row["bytes"], row["sha256"])
        assert abs(row["loudness"] + 14) <= 1
        assert row["true_peak"] <= -1.5
        assert row["voice_over"] == "Hi"
        with av.open(str(project / "out" / "my task" / row["file"])) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert abs(float(video.duration * video.time_base) - row["duration"]) < 0.001
            assert abs(float(audio.duration * audio.time_base) - row["duration"]) < 0.03
    assert {row["music"] for row in rows} == {"low.wav", "high.wav"}
    # hook a is half a second of frames 0.., the body follows with 30.., then the call to action with 10..
    hook, body, cta = first_numbers(project / "out" / "my task" / rows[0]["file"], (0, 0.5, 1.0))
    assert (hook, body, cta) == (0, 30, 10)
    events = [json.loads(line) for line in log.splitlines()]
    assert {"fetch", "probe", "speak", "conform", "mix", "deliver"} <= {event.get("stage") for event in events}
    assert events[-1]["event"] == "job done"
    with (project / "out" / "my task" / "manifest.csv").open(newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == [row["file"] for row in rows]


def test_running_it_again_makes_nothing_twice(project, capsys):
    make_music(project / "low.wav", 110)
    write_request(project, video_blocks=mixed_clips(project), audio_blocks={"a": ["low.wav"]})
    _, first, _ = rendered(project, capsys)
    before = manifest(project)
    (project / "out" / "my task" / before[1]["file"]).unlink()
    status, second, _ = rendered(project, capsys)
    assert (first["made"], first["clips_encoded"] > 0) == (4, True)
    assert (status, second["made"], second["kept"], second["clips_encoded"], second["soundtracks_encoded"]) == (
        0,
        1,
        3,
        0,
        0,
    )
    assert [(row["file"], row["sha256"]) for row in manifest(project)] == [
        (row["file"], row["sha256"]) for row in before
    ]


def test_clips_of_one_encoder_are_copied_packet_for_packet(project, capsys):
    for number in range(3):
        make_clip(project / f"{number}.mp4", frames=20, fps=30, size=SIZE, first=20 * number)
    write_request(project, video_blocks={"a": ["0.mp4", "1.mp4"], "b": ["2.mp4"]})
    status, report, _ = rendered(project, capsys)
    assert (status, report["clips_encoded"], report["clips_copied"]) == (0, 0, 3)
    for row, first in zip(manifest(project), ("0.mp4", "1.mp4"), strict=True):
        with av.open(str(project / "out" / "my task" / row["file"])) as container:
            assert not container.streams.audio
            packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
        parts = []
        for name in (first, "2.mp4"):
            with av.open(str(project / name)) as container:
                parts += [bytes(packet) for packet in container.demux(video=0) if packet.size]
        assert packets == parts


def test_different_encoders_are_joined_as_they_came_when_asked(project, capsys):
    for number, profile in enumerate(("baseline", "main", "high")):
        make_clip(
            project / f"{number}.mp4", frames=20, fps=30, size=SIZE, first=20 * number, options={"profile": profile}
        )
    blocks = {"a": ["0.mp4"], "b": ["1.mp4"], "c": ["2.mp4"]}
    write_request(project, video_blocks=blocks, join="wide")
    status, report, _ = rendered(project, capsys)
    assert (status, report["clips_encoded"], report["clips_copied"]) == (0, 0, 3)
    (row,) = manifest(project)
    with av.open(str(project / "out" / "my task" / row["file"])) as container:
        assert [number_of(frame) for frame in container.decode(video=0)] == list(range(60))


def test_one_bad_source_fails_only_what_uses_it(project, capsys):
    blocks = mixed_clips(project)
    (project / "broken.mp4").write_text("<html><title>Gone</title></html>")
    make_music(project / "sound.wav", 110)
    blocks["hook"] += ["broken.mp4", "missing.mp4", "sound.wav"]
    write_request(project, video_blocks=blocks)
    status, report, _ = rendered(project, capsys)
    assert (status, report["made"], report["failed"]) == (1, 4, 6)
    reasons = [failure["reason"] for failure in report["failures"]]
    assert any("broken.mp4" in reason and "HTML" in reason for reason in reasons)
    assert any("missing.mp4" in reason for reason in reasons)
    assert any("sound.wav has sound but no pictures" in reason for reason in reasons)
    assert [row["error"] is None for row in manifest(project)] == [True] * 4 + [False] * 6


def test_what_was_made_of_a_source_is_kept_when_the_source_is_gone(project, capsys):
    write_request(project, video_blocks=mixed_clips(project))
    rendered(project, capsys)
    (project / "body.mp4").unlink()
    status, report, _ = rendered(project, capsys)
    assert (status, report["kept"], report["failed"]) == (0, 4, 0)
    assert all(row["file"] for row in manifest(project))


def test_a_place_is_the_same_however_it_is_named(project, capsys, monkeypatch):
    write_request(project, video_blocks=mixed_clips(project))
    rendered(project, capsys)
    assert run(["render", "request.json", "--to", str(project / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 4
    other = project / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    assert run(["render", "../request.json", "--to", "out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["made"] == 4


def test_a_manifest_that_cannot_be_written_is_told(project, capsys):
    write_request(project, video_blocks=mixed_clips(project))
    (project / "out" / "my task" / "manifest.json").mkdir(parents=True)
    status, report, _ = rendered(project, capsys)
    assert (status, report["made"]) == (1, 4)
    assert "manifest.json" in report["manifest_problem"]
    assert (project / "out" / "my task" / "manifest.csv").is_file()


def test_a_larger_selection_keeps_what_the_smaller_one_made(project, capsys):
    blocks = mixed_clips(project)
    blocks["again"] = ["hook a.mp4", "body.mp4", "cta1.mp4"]
    for count, made, kept in ((2, 2, 0), (12, 10, 2), (2, 0, 2), (12, 0, 12)):
        write_request(project, video_blocks=blocks, select={"count": count})
        _, report, _ = rendered(project, capsys)
        assert (report["made"], report["kept"]) == (made, kept)
    assert len(list((project / "out" / "my task").glob("*.mp4"))) == 12


def test_a_clip_that_holds_its_last_picture_agrees_with_its_sound(project, capsys):
    write_request(
        project, video_blocks={"a": ["a.mp4"]}, text_to_speech=[{"text": "This line is longer than its clip."}]
    )
    make_clip(project / "a.mp4", frames=10, fps=30, size=SIZE)
    rendered(project, capsys)
    (held,) = manifest(project)
    (project / "out" / "my task" / held["file"]).rename(project / "held.mp4")
    make_music(project / "low.wav", 110)
    write_request(project, video_blocks={"a": ["held.mp4"], "b": ["a.mp4"]}, audio_blocks={"a": ["low.wav"]})
    rendered(project, capsys)
    (row,) = manifest(project)
    assert row["duration"] == pytest.approx(held["duration"] + 1 / 3, abs=0.05)
    with av.open(str(project / "out" / "my task" / row["file"])) as container:
        for stream in container.streams:
            assert float(stream.duration * stream.time_base) == pytest.approx(row["duration"], abs=0.03)


def test_a_long_voice_holds_the_last_picture(project, capsys):
    make_clip(project / "a.mp4", frames=10, fps=30, size=SIZE)
    write_request(
        project, video_blocks={"a": ["a.mp4"]}, text_to_speech=[{"text": "This sentence is longer than its video."}]
    )
    status, _, _ = rendered(project, capsys)
    (row,) = manifest(project)
    assert status == 0
    assert row["hold"] > 1
    assert row["duration"] == pytest.approx(row["hold"] + 10 / 30, abs=0.001)
    with av.open(str(project / "out" / "my task" / row["file"])) as container:
        assert float(container.duration / 1e6) == pytest.approx(row["duration"], abs=0.03)


def test_a_selection_in_several_formats(project, capsys):
    write_request(
        project, video_blocks=mixed_clips(project), formats=["64x96", "96x64"], select={"count": 2}, fit="pad"
    )
    status, report, _ = rendered(project, capsys)
    assert (status, report["total"]) == (0, 4)
    sizes = []
    for row in manifest(project):
        with av.open(str(project / "out" / "my task" / row["file"])) as container:
            sizes.append((container.streams.video[0].width, container.streams.video[0].height))
    assert sizes == [(64, 96), (96, 64)] * 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"video_blocks": {"a": []}}, "video_blocks.a"),
        ({"video_blocks": {"a": ["a.mp4"]}, "clip_sound": "loud"}, "clip_sound"),
        ({"video_blocks": {"a": ["a.mp4"]}, "formts": []}, "formats"),
        ({"video_blocks": {str(n): [f"{c}.mp4" for c in range(10)] for n in range(12)}}, "1,000,000,000,000"),
        ({"video_blocks": {"a": ["a.mp4"]}, "text_to_speech": [], "text_to_speach": []}, "text_to_spe"),
    ],
)
def test_a_refused_request_costs_nothing_and_exits_2(project, capsys, fields, words):
    write_request(project, **fields)
    assert run(["render", "request.json", "--to", "out"]) == 2
    output = capsys.readouterr()
    assert words in output.err
    assert output.err.count("\n") == 1
    assert not (project / "out").exists()
    assert not (project / "data").exists()


def test_a_plan_says_into_how_many_clips_captions_are_drawn(project, capsys):
    for number, name in enumerate("abc"):
        make_clip(project / f"{name}.mp4", frames=48, size=(64, 96), first=number)
    blocks = {"one": ["a.mp4", "b.mp4"], "two": ["c.mp4"]}
    lines = [{"text": "One line", "block": "one"}]
    write_request(project, video_blocks=blocks, text_to_speech=lines, captions="burn")
    assert run(["plan", "request.json", "--quiet"]) == 0
    told = capsys.readouterr().out
    assert "to encode: 3 clips" in told
    assert "captions are drawn into 2 of these clips" in told
    write_request(project, video_blocks=blocks, text_to_speech=lines)
    assert run(["plan", "request.json", "--quiet"]) == 0
    assert "captions" not in capsys.readouterr().out


def test_plan_spends_nothing_and_says_what_would_happen(project, capsys):
    blocks = mixed_clips(project)
    write_request(
        project, video_blocks=blocks, text_to_speech=[{"text": "Much longer than one of these short videos is."}]
    )
    assert run(["plan", "request.json", "--json", "-q"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["variations"], plan["distinct_clips"], plan["clips_to_encode"]) == (4, 5, 5)
    assert plan["shorter_than_voice_over"]["variations"] == [1, 2, 3, 4]
    reasons = {clip["source"]: clip["reasons"] for clip in plan["clips"]}
    assert "frame rate 60 ≠ 30" in reasons["body.mp4"]
    assert run(["plan", "request.json", "-q"]) == 0
    assert "4 variations of 5 clips" in capsys.readouterr().out
    assert not (project / "out").exists()


def test_doctor_finds_what_a_job_needs(project, capsys):
    assert run(["doctor", "--json"]) == 0
    findings = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert {"python", "ffmpeg", "encoder", "voice", "disk", "isolation"} <= set(findings)
    assert findings["encoder"]["good"] is True


def test_a_killed_run_goes_on_where_it_ended(project):
    names = []
    for number in range(4):
        make_clip(project / f"{number}.mp4", frames=60, fps=25, size=(320, 480), first=number)
        names.append(f"{number}.mp4")
    write_request(project, video_blocks={"a": names, "b": names}, fps=30)
    command = [sys.executable, "-m", "crosscut", "render", "request.json", "--to", "out", "--json", "-q"]
    victim = subprocess.Popen(command, cwd=project, start_new_session=True, stdout=subprocess.DEVNULL)
    folder = project / "out" / "my task"
    deadline = time.monotonic() + 60
    while not list(folder.glob("*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    whole = {path.name: path.stat().st_size for path in folder.glob("*.mp4")}
    assert whole
    done = subprocess.run(command, cwd=project, check=True, capture_output=True)
    report = json.loads(done.stdout)
    assert (report["total"], report["failed"]) == (16, 0)
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == [".crosscut.lock"]
    for row in manifest(project):
        data = (folder / row["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
    again = json.loads(subprocess.run(command, cwd=project, check=True, capture_output=True).stdout)
    assert (again["made"], again["kept"]) == (0, 16)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_stops_at_once_and_leaves_no_process(project, number):
    for clip in range(3):
        make_clip(project / f"{clip}.mp4", frames=250, fps=25, first=clip)
    write_request(project, video_blocks={"a": ["0.mp4", "1.mp4", "2.mp4"]}, fps=60, formats=["1080x1920"])
    command = [sys.executable, "-m", "crosscut", "render", "request.json", "--to", "out"]
    victim = subprocess.Popen(command, cwd=project, start_new_session=True, stderr=subprocess.PIPE, text=True)
    for line in victim.stderr:
        if '"probe"' in line:
            break
    time.sleep(0.5)
    victim.send_signal(number)
    start = time.monotonic()
    _, rest = victim.communicate(timeout=30)
    assert time.monotonic() - start < 5
    assert victim.returncode == 130
    assert rest.splitlines()[-1].startswith("crosscut: stopped")
    with pytest.raises(ProcessLookupError):
        for _ in range(50):
            os.killpg(victim.pid, 0)
            time.sleep(0.1)
    assert not list((project / "out" / "my task").glob(".partial*"))
