"""The service: what it adds to the library, how soon it answers while all workers are busy, how fast it plays."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.client
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import crosscut_way
from benchmarks.clips import make_clip
from benchmarks.measure import fresh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.scale import Scale

RANGE_BYTES = 65_536
PLAYERS = 4
"""Connections that ask for ranges at the same time."""


@dataclass(frozen=True)
class Overhead:
    """Of `variations` of tiny clips, each delivered: the whole job in one process, and as `crosscut render` does it."""

    variations: int
    library_wall: float
    library_cpu: float
    service_wall: float
    service_cpu: float

    @property
    def wall(self) -> float:
        """Seconds more for each variation."""
        return (self.service_wall - self.library_wall) / self.variations

    @property
    def cpu(self) -> float:
        return (self.service_cpu - self.library_cpu) / self.variations


@dataclass(frozen=True)
class Served:
    overhead: Overhead
    variations: int
    """Of the large job that keeps the workers busy."""
    rate: float
    """Variations of it a second."""
    latencies: dict[str, tuple[float, float]]
    """By what was asked, and whether all workers were busy meanwhile: median and 95th percentile, in seconds."""
    memory: tuple[int, int]
    """Bytes of the API's process (VmRSS) when the large job was planned, and after a stretch of it."""
    ranges: float
    """Range requests a second, of 64 KiB each."""


def service(scale: Scale, folder: Path) -> Served:
    folder.mkdir()
    clip = folder / "tiny.mp4"
    make_clip(clip, (96, 64), Fraction(24), 1, {"preset": "veryfast", "crf": "30"}, 1)
    overhead = _overhead(clip, scale, folder / "overhead")
    sources = folder / "sources"
    sources.mkdir()
    for block in "abc":
        for number in range(scale.wide):
            os.link(clip, sources / f"{block}{number}.mp4")
    with _sources(sources) as port, _server(folder / "served", port) as (server, process):
        return _asked(Asking(server), process, f"http://127.0.0.1:{port}", overhead, scale)


def _overhead(clip: Path, scale: Scale, folder: Path) -> Overhead:
    folder.mkdir()
    sizes = (scale.wide // 5, scale.wide // 4, scale.wide // 5)
    blocks = [
        [folder / f"{block}{number}.mp4" for number in range(size)] for block, size in zip("abc", sizes, strict=True)
    ]
    for path in (path for block in blocks for path in block):
        os.link(clip, path)
    named = {f"block {number}": [str(clip) for clip in block] for number, block in enumerate(blocks, 1)}
    body = {"task_name": "tiny", "video_blocks": named}
    variations = sizes[0] * sizes[1] * sizes[2]
    library = fresh(crosscut_way.produce_folder, body, folder / "library", folder / "theirs")
    shutil.rmtree(folder / "theirs")
    cost, report = crosscut_way.render(body, folder / "rendered", folder / "ours")
    assert report["made"] == variations, report
    shutil.rmtree(folder / "ours")
    return Overhead(variations, library.wall, library.cpu, cost.wall, cost.cpu)


@contextlib.contextmanager
def _sources(folder: Path) -> Iterator[int]:
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def _server(folder: Path, sources: int) -> Iterator[tuple[int, int]]:
    """A `crosscut serve` of its own: the port and the process of its API."""
    folder.mkdir()
    environment = {
        "CROSSCUT_DATA_DIR": str(folder / "data"),
        "CROSSCUT_FETCH_ALLOW": f"127.0.0.1:{sources}",
        "CROSSCUT_REQUESTS_PER_MINUTE": "1000000",
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "crosscut", "serve", "--port", "0", "--to", str(folder / "videos")],
            env=os.environ | environment,
            stderr=log,
        )
    try:
        file = folder / "data" / "server.json"
        while not file.exists():
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        yield int(json.loads(file.read_text())["url"].rpartition(":")[2]), process.pid
    finally:
        process.terminate()
        process.wait()


class Asking:
    """One connection that takes the time of what it asks."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        text = self.text(path, method, body)
        return json.loads(text) if text else None

    def text(self, path: str, method: str = "GET", body: Any = None) -> str:
        self._connection.request(
            method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"}
        )
        response = self._connection.getresponse()
        text = response.read().decode()
        assert response.status < 400, (method, path, response.status, text[:500])
        return text

    def time(self, times: int, ask: Callable[[int], object], pause: float = 0.0) -> tuple[float, float]:
        """Median and 95th percentile, in seconds; `pause` seconds between two."""
        spent = []
        for number in range(times):
            time.sleep(pause)
            start = time.perf_counter()
            ask(number)
            spent.append(time.perf_counter() - start)
        spent.sort()
        return spent[times // 2], spent[min(times - 1, times * 95 // 100)]


def _asked(server: Asking, process: int, sources: str, overhead: Overhead, scale: Scale) -> Served:
    def body(task: str, clips: int) -> dict[str, Any]:
        return {
            "task_name": task,
            "video_blocks": {block: [f"{sources}/{block}{number}.mp4" for number in range(clips)] for block in "abc"},
        }

    job = server.ask("POST", "/process_media", body("large", scale.wide))["id"]
    _until(server, job, scale.patience // 3)
    before, start, made = _memory(process), time.perf_counter(), server.ask("GET", f"/jobs/{job}")["succeeded"]
    sent: list[str] = []
    times = scale.rounds * 20

    def post(task: str, clips: int) -> Callable[[int], None]:
        return lambda number: sent.append(server.ask("POST", "/process_media", body(f"{task} {number}", clips))["id"])

    total = scale.wide**3
    at = f"/jobs/{job}/variations"

    def looks(when: str) -> dict[str, tuple[float, float]]:
        return {
            f"GET /jobs/{{id}}, {when}": server.time(times * 2, lambda _: server.ask("GET", f"/jobs/{job}")),
            f"GET /jobs, {when}": server.time(times * 2, lambda _: server.ask("GET", "/jobs")),
            f"GET /jobs/{{id}}/variations, {when}": server.time(
                times, lambda number: server.ask("GET", f"{at}?cursor={number * total // times}")
            ),
            f"the same, failed ones, {when}": server.time(times, lambda _: server.ask("GET", f"{at}?state=failed")),
        }

    latencies = looks("busy")
    latencies["POST /process_media, 27 variations, busy"] = server.time(times, post("small", 3), pause=0.1)
    latencies[f"POST /process_media, {total:,} variations, busy"] = server.time(
        times, post("another", scale.wide), pause=0.1
    )
    for other in sent:
        server.ask("POST", f"/jobs/{other}/cancel")
    _until(server, job, scale.patience)
    done = server.ask("GET", f"/jobs/{job}")["succeeded"] - made
    rate = done / (time.perf_counter() - start)
    memory = (before, _memory(process))
    server.ask("POST", f"/jobs/{job}/cancel")
    page = server.ask("GET", f"{at}?state=done&limit=8")["variations"]
    _rested(server)
    latencies |= looks("at rest")
    ranges = asyncio.run(_play(server.port, [row["links"]["preview"] for row in page], scale.rounds))
    return Served(overhead, total, rate, latencies, memory, ranges)


def _until(server: Asking, job: str, made: int) -> None:
    while (status := server.ask("GET", f"/jobs/{job}"))["succeeded"] < min(made, status["total"]):
        assert status["state"] in ("queued", "running"), status["errors"]
        time.sleep(0.2)


def _rested(server: Asking) -> None:
    """Wait until no worker has anything in hand: a cancelled job still gets its manifest."""
    idle = 0
    while idle < 5:
        idle = idle + 1 if "\ncrosscut_worker_busy_ratio 0.0\n" in server.text("/metrics") else 0
        time.sleep(0.2)


def _memory(process: int) -> int:
    text = Path(f"/proc/{process}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) * 1024


async def _play(port: int, paths: list[str], seconds: float) -> float:
    """Range requests a second over `PLAYERS` connections."""
    end = time.perf_counter() + seconds
    counts = await asyncio.gather(*(_player(port, paths[number % len(paths)], end) for number in range(PLAYERS)))
    return sum(counts) / seconds


async def _player(port: int, path: str, end: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    while time.perf_counter() < end:
        first = count % 20 * 100
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nRange: bytes={first}-{first + RANGE_BYTES - 1}\r\n\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 206"), head
        await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
        count += 1
    writer.close()
    return count
