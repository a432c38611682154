"""Splices in a real browser: they play to the end, seek to the right pictures, and are as long as they say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest

import clips
from crosscut.splice import AudioRun, Segment, Soundtrack, VirtualFile, read_segment, read_track, splice

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None and os.environ.get("CROSSCUT_TEST_BROWSER") != "required",
        reason="chromium is not installed (Debian package chromium)",
    ),
]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
]

PAGE = """<!doctype html><video muted playsinline preload="auto"></video><script>
const video = document.querySelector("video"), canvas = document.createElement("canvas");
const once = (name) => new Promise((done) => video.addEventListener(name, done, {once: true}));
const result = {seeks: [], ended: false, error: null};
const report = () => fetch("/result", {method: "POST", body: JSON.stringify(result)});
video.addEventListener("error", () => { result.error = video.error.code + " " + video.error.message; report(); });
function brightness() {
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0);
  const area = context.getImageData(8, 4, canvas.width - 16, canvas.height / 4).data;
  let sum = 0;
  for (let at = 0; at < area.length; at += 4) sum += area[at + 1];
  return sum / (area.length / 4);
}
async function main() {
  const metadata = once("loadeddata");
  video.src = "/video.mp4";
  await metadata;
  result.duration = video.duration;
  result.size = [video.videoWidth, video.videoHeight];
  const ended = once("ended");
  video.playbackRate = 4;
  await video.play();
  await ended;
  result.ended = true;
  result.played = video.currentTime;
  result.last = brightness();
  for (const time of TIMES) {
    const seeked = once("seeked");
    // "seeked" may come before the new picture is there to be drawn; the wait is for a seek that stays on its frame.
    const shown = new Promise((done) => video.requestVideoFrameCallback(done));
    video.currentTime = time;
    await seeked;
    await Promise.race([shown, new Promise((done) => setTimeout(done, 1000))]);
    result.seeks.push(brightness());
  }
  report();
}
main().catch((problem) => { result.error = String(problem); report(); });
</script>"""


@dataclass
class Site:
    """What the server shows, and what the page found."""

    video: VirtualFile
    times: list[float]
    done: Event = field(default_factory=Event)
    result: dict[str, Any] = field(default_factory=dict)
    ranges: int = 0


def handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/":
                self.answer(200, "text/html", PAGE.replace("TIMES", json.dumps(site.times)).encode())
            elif self.path == "/video.mp4":
                self.send_video()
            else:
                self.answer(404, "text/plain", b"")

        def send_video(self) -> None:
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "bytes=0-"))
            assert wanted
            start, stop = int(wanted[1]), int(wanted[2] or len(site.video) - 1) + 1
            site.ranges += 1
            self.answer(
                206,
                "video/mp4",
                site.video.read_range(start, stop),
                ("Content-Range", f"bytes {start}-{min(stop, len(site.video)) - 1}/{len(site.video)}"),
                ("Accept-Ranges", "bytes"),
            )

        def do_POST(self) -> None:
            site.result = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(200, "text/plain", b"")
            site.done.set()

        def answer(self, status: int, kind: str, body: bytes, *headers: tuple[str, str]) -> None:
            self.send_response(status)
            for name, value in (*headers, ("Content-Type", kind), ("Content-Length", str(len(body)))):
                self.send_header(name, value)
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:  # the browser has seen enough of this range
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def served(site: Site) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(site)) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def watch(video: VirtualFile, times: list[float], profile: Path) -> dict[str, Any]:
    """What Chromium reports after playing `video` to its end and seeking to `times`."""
    assert CHROMIUM
    site = Site(video, times)
    with served(site) as address:
        process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert site.done.wait(60), "the browser did not report within 60 s"
        finally:
            process.terminate()
            process.wait(10)
    assert site.ranges > 0
    return site.result


def shown_number(brightness: float) -> int:
    """The number of the frame whose grey the canvas shows, modulo `clips.LEVELS`."""
    return round((brightness * 219 / 255 + 16 - 18) / clips.STEP)


def middles(numbers: list[int], fps: int = 24) -> list[float]:
    return [float(Fraction(2 * number + 1, 2 * fps)) for number in numbers]


def check(result: dict[str, Any], numbers: list[int], *, duration: Fraction, last: int) -> None:
    assert result["error"] is None
    assert result["ended"]
    assert result["duration"] == pytest.approx(float(duration), abs=0.002)
    assert result["played"] == pytest.approx(float(duration), abs=0.05)
    assert shown_number(result["last"]) == last % clips.LEVELS
    found = [shown_number(brightness) for brightness in result["seeks"]]
    assert found == [number % clips.LEVELS for number in numbers]


def sound(path: Path, samples: int) -> Soundtrack:
    clips.make_sound(path, samples)
    track = read_track(path, "audio")
    return Soundtrack((AudioRun(path, track, 0, len(track.sizes)),), track.media_time, samples)


def numbered_through(folder: Path, options: list[dict[str, str]]) -> list[Segment]:
    """Clips of 24 frames at 24 a second, numbered through."""
    return [
        read_segment(clips.make_clip(folder / f"{index}.mp4", first=24 * index, size=(160, 96), options=each))
        for index, each in enumerate(options)
    ]


NUMBERS = [60, 3, 24, 23, 47, 48, 50, 0, 71]


@pytest.mark.parametrize("grouped", [False, True])
def test_a_safe_join_with_b_frames_and_sound(tmp_path: Path, grouped: bool) -> None:
    segments = numbered_through(tmp_path, [{}, {}, {}])
    video = splice(segments, sound(tmp_path / "sound.mp4", 3 * clips.RATE), grouped=grouped)
    assert len(video.shared) == 4 * grouped
    result = watch(video, middles(NUMBERS), tmp_path / "profile")
    check(result, NUMBERS, duration=Fraction(3), last=71)
    assert result["size"] == [160, 96]


def test_a_wide_join_of_three_encoders(tmp_path: Path) -> None:
    encoders = [
        {"profile": "baseline", "x264-params": "keyint=10"},
        {"profile": "main", "x264-params": "bframes=0:ref=1"},
        {"profile": "high", "x264-params": "bframes=3:b-pyramid=normal:ref=4"},
    ]
    segments = numbered_through(tmp_path, encoders)
    video = splice(segments, sound(tmp_path / "sound.mp4", 3 * clips.RATE))
    check(watch(video, middles(NUMBERS), tmp_path / "profile"), NUMBERS, duration=Fraction(3), last=71)


def test_a_held_last_frame(tmp_path: Path) -> None:
    segments = numbered_through(tmp_path, [{}, {}])
    video = splice(segments, sound(tmp_path / "sound.mp4", 4 * clips.RATE), hold=Fraction(2))
    times = [*middles([10, 40]), 2.5, 3.9, *middles([47, 20])]
    result = watch(video, times, tmp_path / "profile")
    check(result, [10, 40, 47, 47, 47, 20], duration=Fraction(4), last=47)
