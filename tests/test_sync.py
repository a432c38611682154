"""Picture and sound agree after many joins, and the sound is as loud as it says, measured from outside."""

from __future__ import annotations

import json
import wave
from fractions import Fraction

import av
import numpy as np
import pyloudnorm
import pytest
from av.video.frame import VideoFrame

from crosscut.cli import run

RATES = (Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(60))
JOINS = 10


def make_flash(path, rate):
    """A second of black that begins with a tenth of a second of white."""
    with av.open(str(path), "w") as sink:
        stream = sink.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(round(rate)):
            value = 235 if number < rate / 10 else 16
            picture = np.full((96, 64), 128, np.uint8)
            picture[:64] = value
            sink.mux(stream.encode(VideoFrame.from_ndarray(picture, format="yuv420p")))
        sink.mux(stream.encode(None))


def make_beeps(path, seconds):
    """A click of a twentieth of a second at the start of every second."""
    samples = np.zeros(48_000 * seconds)
    beep = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(2400) / 48_000)
    for second in range(seconds):
        samples[48_000 * second : 48_000 * second + 2400] = beep
    write_wave(path, samples)


def write_wave(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def heard(path):
    """Decoded stereo samples, with the time of the first, as a player hears them."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
        sound = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    return sound, float(frames[0].pts * frames[0].time_base)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSCUT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def render(project, **request):
    (project / "request.json").write_text(json.dumps({"task_name": "task", **request}))
    assert run(["render", "request.json", "--to", "out", "-q"]) == 0
    rows = json.loads((project / "out" / "task" / "manifest.json").read_text())["variations"]
    return [(row, project / "out" / "task" / row["file"]) for row in rows]


def test_flash_and_beep_agree_after_ten_joins_of_mixed_rates(project):
    for number, rate in enumerate(RATES):
        make_flash(project / f"{number}.mp4", rate)
    make_beeps(project / "beeps.wav", JOINS + 2)
    blocks = {f"b{number}": [f"{number % len(RATES)}.mp4"] for number in range(JOINS + 1)}
    ((_, path),) = render(project, video_blocks=blocks, audio_blocks={"a": ["beeps.wav"]}, fps=30)
    with av.open(str(path)) as container:
        shown = [(frame.time, frame.to_ndarray(format="gray").mean() > 120) for frame in container.decode(video=0)]
    flashes = [
        time for (time, white), (_, before) in zip(shown, [(0, False), *shown], strict=False) if white and not before
    ]
    sound, start = heard(path)
    loud = np.abs(sound).max(axis=0) > 0.1
    onsets = np.flatnonzero(loud & ~np.concatenate([[False], loud[:-1]]))
    # A tone crosses the threshold many times; a beep begins after silence.
    begins = [start + onset / 48_000 for onset in onsets if not loud[max(0, onset - 4800) : onset].any()]
    assert len(flashes) == JOINS + 1
    # The last beep falls into no fade: all but it are compared.
    for flash, beep in zip(flashes, begins[: JOINS + 1], strict=True):
        assert abs(flash - beep) <= 1 / 30 + 0.010
    assert max(abs(flash - number) for number, flash in enumerate(flashes)) <= 1 / 30 + 0.001


def test_the_manifest_tells_the_loudness_an_independent_meter_finds(project):
    noise = np.random.default_rng(7).normal(0, 0.1, 48_000 * 3)
    swell = np.sin(2 * np.pi * 220 * np.arange(48_000 * 3) / 48_000) * np.linspace(0.05, 0.5, 48_000 * 3)
    write_wave(project / "noise.wav", noise.clip(-1, 1))
    write_wave(project / "swell.wav", swell)
    for number in range(2):
        make_flash(project / f"{number}.mp4", Fraction(25))
    videos = render(
        project,
        video_blocks={name: ["0.mp4", "1.mp4"] for name in "abcd"},
        audio_blocks={"a": ["noise.wav", "swell.wav"]},
        text_to_speech=[
            {"text": "Try it today.", "voice": "Sarah"},
            {"text": "One, two, three, four.", "voice": "Will"},
        ],
        select={"count": 6},
    )
    meter = pyloudnorm.Meter(48_000)
    for row, path in videos:
        sound, _ = heard(path)
        found = meter.integrated_loudness(sound[:, : round(row["duration"] * 48_000)].T.astype(np.float64))
        assert abs(found - row["loudness"]) <= 0.2
        assert abs(found + 14) <= 1
        assert row["true_peak"] <= -1.5
