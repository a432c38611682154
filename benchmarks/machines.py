"""`python -m benchmarks.machines`: the engine of many machines, over PostgreSQL and Redis on this one.

What works is either real, or a sleep in the place of it: then the engine alone is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import psycopg
import redis

from benchmarks.clips import make_clip
from crosscut import cluster
from crosscut.bootstrap import OpenCrew
from crosscut.engine.carrier import queue_of
from crosscut.settings import Settings
from crosscut.units import Outcome, Output, Spent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from crosscut.machine import Machine
    from crosscut.units import Ledger, Unit

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks-many-machines.md"
DATABASE = "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"
BROKER = "redis://127.0.0.1:6379/0"
PATIENCE = 1_200.0


class SleepyCrew:
    """Sleeps where variations would be made, so long for each batch; does all else."""

    def __init__(self, arguments: Mapping[str, Any], log: TextIO) -> None:
        self._arguments = arguments
        self._log = log
        self._crew: OpenCrew | None = None
        self._lock = threading.Lock()

    def perform(
        self, unit: Unit, ledger: Ledger, cancelled: threading.Event, report: Callable[[float], None]
    ) -> Outcome:
        if unit.kind != "batch":
            return self._real().perform(unit, ledger, cancelled, report)
        seconds = self._arguments["sleep"]
        cancelled.wait(seconds)
        indexes = unit.payload["indexes"]
        outputs = [Output(index, bytes=1, sha256="00", recipe="00", seconds=seconds) for index in indexes]
        return Outcome(outputs=outputs, spent={"deliver": Spent(len(indexes), seconds)})

    def _real(self) -> OpenCrew:
        with self._lock:
            if self._crew is None:
                settings = Settings.model_validate(self._arguments["settings"])
                self._crew = OpenCrew(settings, self._log, self._arguments["secrets"])
        return self._crew

    def forget(self, job: str) -> None:
        if self._crew:
            self._crew.forget(job)

    def close(self) -> None:
        if self._crew:
            self._crew.close()


def sleepy_crew(arguments: Mapping[str, Any], log: TextIO) -> SleepyCrew:
    return SleepyCrew(arguments, log)


def worker() -> int:
    """The main of a worker: `python -c …; worker()` with what it is to be as JSON."""
    told = json.loads(sys.argv[1])
    seats = cluster.Seats(**{"network": 0, "processor": 0, told["lane"]: told["at_once"]})
    crew = "benchmarks.machines:sleepy_crew" if told["sleep"] is not None else cluster.CREW
    return cluster.work(Settings(**told["settings"]), seats, crew, {"sleep": told["sleep"]})


@dataclass
class Bench:
    """A cluster on this machine, with a state and queues of its own."""

    folder: Path
    database: str
    machine: Machine = field(init=False)
    settings: dict[str, Any] = field(default_factory=dict)

    def chosen(self) -> dict[str, Any]:
        return {
            "data_dir": str(self.folder / "data"), "engine": "celery", "broker_url": BROKER,
            "database_url": self.database, "network_workers": 4, "grace_seconds": 1, **self.settings,
        }  # fmt: skip

    @contextlib.contextmanager
    def running(self, processors: int, sleep: float | None, **settings: Any) -> Iterator[Machine]:
        """A server here, and a worker for each lane, which wait for something to do."""
        self.settings = settings
        chosen = Settings(**self.chosen())
        with cluster.open_scheduler(chosen, self.database, destination=str(self.folder / "videos")) as machine:
            workers = [self._start("network", 8, sleep), self._start("processor", processors, sleep)]
            try:
                _until(lambda: sum(one.at_once for one in machine.store.stations()) == 8 + processors)
                # All its processes, not only the first.
                time.sleep(1 + processors / 16)
                yield machine
            finally:
                for process in workers:
                    process.send_signal(signal.SIGTERM)
                for process in workers:
                    process.wait()

    def _start(self, lane: str, at_once: int, sleep: float | None) -> subprocess.Popen[bytes]:
        told = {"settings": self.chosen(), "lane": lane, "at_once": at_once, "sleep": sleep}
        code = "import sys; from benchmarks.machines import worker; sys.exit(worker())"
        return subprocess.Popen([sys.executable, "-c", code, json.dumps(told)], stderr=subprocess.DEVNULL)

    def submit(self, machine: Machine, task: str, *clips: int) -> str:
        sources = self.folder / "sources"
        blocks = {f"b{block}": [f"{block}-{number}.mp4" for number in range(many)] for block, many in enumerate(clips)}
        for name in (name for block in blocks.values() for name in block):
            if not (sources / name).exists():
                os.link(sources / "tiny.mp4", sources / name)
        request = {"task_name": task, "video_blocks": blocks}
        return machine.service.submit(request, local=True, base=sources).id


@contextlib.contextmanager
def _bench(folder: Path) -> Iterator[Bench]:
    (folder / "sources").mkdir()
    tiny = {"preset": "veryfast", "crf": "30"}
    make_clip(folder / "sources" / "tiny.mp4", (96, 64), Fraction(24), 1, tiny, 1)
    name = f"b{uuid.uuid4().hex}"
    plain = DATABASE.replace("+psycopg", "")
    with psycopg.connect(plain, autocommit=True) as db:
        db.execute(f"CREATE SCHEMA {name}")
    try:
        yield Bench(folder, f"{DATABASE}?options=-csearch_path%3D{name}")
    finally:
        with psycopg.connect(plain, autocommit=True) as db:
            db.execute(f"DROP SCHEMA {name} CASCADE")


def _until(condition: Callable[[], Any]) -> float:
    """Wait for it; when it came."""
    end = time.perf_counter() + PATIENCE
    while not condition():
        assert time.perf_counter() < end, "waited in vain"
        time.sleep(0.05)
    return time.perf_counter()


def _made(machine: Machine, job: str) -> int:
    row = machine.store.owned(job, None)
    assert row is not None
    return int(row.ok)


def _is(machine: Machine, job: str, column: str, value: object) -> bool:
    return bool(getattr(machine.store.owned(job, None), column) == value)


def _processors() -> tuple[float, float]:
    """Seconds that the processors of this machine were in use, and had in all (proc(5), `/proc/stat`)."""
    fields = [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:]]
    idle, ticks = fields[3] + fields[4], os.sysconf("SC_CLK_TCK")
    return (sum(fields[:8]) - idle) / ticks, sum(fields[:8]) / ticks


def _rate(machine: Machine, job: str, first: int, last: int) -> tuple[float, float]:
    """Variations a second between two numbers of them, and the share of the processors that was in use meanwhile."""
    start = _until(lambda: _made(machine, job) >= first)
    begun, before = _made(machine, job), _processors()
    end = _until(lambda: _made(machine, job) >= last)
    used, had = (after - earlier for after, earlier in zip(_processors(), before, strict=True))
    return (_made(machine, job) - begun) / (end - start), used / had


# What is measured


def scaling(bench: Bench, variations: int) -> Iterator[str]:
    """One job, made for real by ever more processes; they share the processors with all that serves them."""
    first = 0.0
    for processors in (1, 2, 4):
        with bench.running(processors, None) as machine:
            side = round(variations ** (1 / 2))
            job = bench.submit(machine, f"scaling {processors}", side, variations // side)
            rate, share = _rate(machine, job, variations // 10, variations * 9 // 10)
            _until(partial(_is, machine, job, "phase", "ended"))
        # The videos stay: ext4 takes its time for new files where many were removed a moment ago.
        first = first or rate
        yield (
            f"| {variations:,} tiny variations, {processors} worker processes: rate, share of the processors in use"
            f" | {rate:,.0f}/s, {rate / first:.2f}×, {share:.0%} |"
        )


def sleepers(bench: Bench, workers: int, seconds: float, last: int) -> Iterator[str]:
    """How much of the time workers work who need no processor for it."""
    with bench.running(workers, seconds, batch=1) as machine:
        job = bench.submit(machine, "sleepers", 100, 100)
        rate, _ = _rate(machine, job, workers * 3, last)
        machine.service.cancel(job, None)
    share = rate * seconds / workers
    yield f"| {workers} workers whose work is a sleep of {seconds:g} s: share of the time that is work | {share:.1%} |"


def dispatch(bench: Bench, processors: int, last: int) -> Iterator[str]:
    """How fast variations get through the engine when they cost nothing."""
    for batch, share in ((0, 1), (1, 10)):
        with bench.running(processors, 0.0, batch=batch) as machine:
            job = bench.submit(machine, f"dispatch {batch}", 100, 100, 10)
            rate, _ = _rate(machine, job, last // share // 10, last // share)
            machine.service.cancel(job, None)
        each = "a task for each" if batch else "tasks as the engine cuts them"
        yield f"| dispatch of variations that cost nothing, {each} | {rate:,.0f}/s |"


def million(bench: Bench, processors: int, last: int) -> Iterator[str]:
    """A job of 10⁶ variations: how soon it begins, what the broker holds meanwhile, how soon it is over."""
    client = redis.Redis.from_url(BROKER)
    with bench.running(processors, 0.05) as machine:
        queue = queue_of(cluster.name_of(machine.store), "processor")
        start = time.perf_counter()
        job = bench.submit(machine, "million", 100, 100, 100)
        submitted = time.perf_counter() - start
        planned = _until(lambda: _is(machine, job, "edition", 1)) - start
        begun = _until(lambda: _made(machine, job)) - start
        waiting, held = [], []
        while _made(machine, job) < last:
            waiting.append(client.llen(queue))
            held.append(client.memory_usage(queue) or 0)
            time.sleep(0.05)
        half = len(held) // 2
        cancelled = time.perf_counter()
        machine.service.cancel(job, None)
        rest = (
            _until(
                lambda: (
                    not machine.store.read(
                        lambda db: db.exec_driver_sql(
                            "SELECT 1 FROM work WHERE state IN ('queued', 'running') AND kind = 'batch' LIMIT 1"
                        ).first()
                    )
                )
            )
            - cancelled
        )
    client.close()
    times = f"{submitted:.2f} s, {planned:.1f} s, {begun:.1f} s"
    yield f"| a job of 1,000,000 variations: taken, planned, first one made | {times} |"
    yield (
        f"| the broker's queue over {last:,} of them: most messages, most bytes in the first and second half"
        f" | {max(waiting)}, {max(held[:half]):,}, {max(held[half:]):,} |"
    )
    yield f"| cancelled: nothing of it is in hand any more after | {rest:.2f} s |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.machines", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little of everything, page not written")
    parser.add_argument("--only", choices=("scaling", "sleepers", "dispatch", "million"), help="page not written")
    options = parser.parse_args()
    quick = options.quick
    parts: dict[str, Callable[[Bench], Iterator[str]]] = {
        "scaling": lambda bench: scaling(bench, 900 if quick else 10_000),
        # As long as the engine aims to make its batches.
        "sleepers": lambda bench: sleepers(bench, 8 if quick else 64, 1.0 if quick else 5.0, 48 if quick else 1_000),
        "dispatch": lambda bench: dispatch(bench, 2, 5_000 if quick else 60_000),
        "million": lambda bench: million(bench, 2, 5_000 if quick else 50_000),
    }
    load = os.getloadavg()[0]
    lines = []
    for part in (parts[name] for name in parts if options.only in (None, name)):
        with tempfile.TemporaryDirectory(prefix="crosscut-bench-") as folder, _bench(Path(folder)) as bench:
            for line in part(bench):
                print(line, flush=True)
                lines.append(line)
    told = {"date": time.strftime("%Y-%m-%d"), "cores": len(os.sched_getaffinity(0)), "load": f"{load:.1f}"}
    text = "\n".join([*HEAD, *lines, ""]).format(**told)
    if not quick and options.only is None:
        PAGE.write_text(text, encoding="utf-8")


HEAD = [
    "# Benchmarks: many machines",
    "",
    "Written by `make bench`. {date}: PostgreSQL, Redis, a server and workers, all on one machine of {cores} cores.",
    "The load of other programs was {load} when it began.",
    "",
    "| what | measured |",
    "|---|---|",
]

if __name__ == "__main__":
    main()
