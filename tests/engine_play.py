"""The real engine over tiny clips: a place for it, faults on order, a server to be killed, and what must hold after."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO
from unittest import mock

import httpx2

from clips import make_clip
from crosscut import bootstrap, standalone
from crosscut.bootstrap import OpenCrew
from crosscut.engine.embedded import EmbeddedExecutor
from crosscut.settings import Settings
from crosscut.store.schema import work
from sounds import tune, write_media

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping

    from crosscut.machine import Machine
    from crosscut.store.options import Options
    from crosscut.units import Ledger, Outcome, Unit

PATIENCE = 60.0
SIZE = (64, 96)
KEPT = ("bytes", "sha256", "recipe", "loudness", "true_peak", "error")
"""What must be the same in the row of a variation, however often the machine fell."""


def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """The first true value of `condition`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)
    return value


# A place for an engine


@dataclass(frozen=True)
class Place:
    """Sources, data folder and output folder of one engine, below `root`."""

    root: Path

    def __post_init__(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def shared(self) -> Path:
        """What machines share, where a test has them share."""
        return self.root / "shared"

    def machines(self) -> list[Path]:
        """The data folders of worker processes that have their own."""
        return sorted(self.root.glob("machine-*"))

    @property
    def state(self) -> Path:
        return self.data / "state.sqlite"

    def settings(self, **more: Any) -> Settings:
        return Settings(**{"_env_file": None, "data_dir": self.data, "workers": 2, **more})

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with contextlib.closing(sqlite3.connect(self.state)) as database:
            database.row_factory = sqlite3.Row
            return database.execute(query, values).fetchall()

    def outputs(self, folder: str) -> dict[int, sqlite3.Row]:
        query = "SELECT outputs.* FROM outputs JOIN jobs ON jobs.seq = outputs.job WHERE jobs.folder = ?"
        return {row["variation"]: row for row in self.rows(query, folder)}

    def files(self, folder: str) -> dict[str, str]:
        """SHA-256 of every file there but those that tell of the run."""
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (self.out / folder).iterdir()
            if not path.name.startswith((".crosscut.lock", "manifest."))
        }


def body(*sizes: int, task: str = "task", encoded: bool = True, **more: Any) -> dict[str, Any]:
    """A request of clips `c0.mp4`, `c1.mp4` …; what is `encoded` does not fit as it came."""
    names = iter(f"c{number}.mp4" for number in range(sum(sizes)))
    blocks = {f"b{block}": [next(names) for _ in range(size)] for block, size in enumerate(sizes)}
    formats = {"formats": ["64x96"], "fps": 30} if encoded else {}
    return {"task_name": task, "video_blocks": blocks, **formats, **more}


SOUND = {
    "audio_blocks": {"a": ["m0.wav"], "b": ["m1.wav"]},
    "text_to_speech": [{"text": "Hi", "voice": None}, {"text": "Ho", "voice": None}],
}


def sources_of(document: Mapping[str, Any]) -> list[str]:
    blocks = [*document["video_blocks"].values(), *document.get("audio_blocks", {}).values()]
    return list(dict.fromkeys(name for block in blocks for name in block))


@cache
def source(name: str) -> bytes:
    """The file of that name, always the same: an encoder does not give the same bytes every time."""
    number = int(name[1:-4])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        if name.endswith(".wav"):
            write_media(path, tune(0.6, seed=number), codec="pcm_s16le")
        else:
            make_clip(path, frames=8, fps=24, size=SIZE, first=7 * number)
        return path.read_bytes()


def by_upload(place: Place, document: Mapping[str, Any], upload: Callable[[str], str]) -> dict[str, Any]:
    """The request with ids of uploads in place of paths."""
    provide(place, document)
    text = json.dumps(document)
    for name in sources_of(document):
        text = text.replace(f'"{name}"', f'"{upload(name)}"')
    return json.loads(text)


def provide(place: Place, document: Mapping[str, Any]) -> None:
    for name in sources_of(document):
        if not name.startswith("source:") and not (place.root / name).exists():
            (place.root / name).write_bytes(source(name))


def fill(folder: Path) -> Path:
    """Take all the room there is; the file that does."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return ballast


# Faults on order


@dataclass(frozen=True)
class Fault:
    """What befalls a worker over a unit of `kind` whose payload has `word` in it, or the variation `index`."""

    kind: str
    do: str
    """`crash` (SIGSEGV), `kill`, `hang`, `seize` (hang without letting other threads run), `hold` until `release`."""
    at: str = "begin"
    """`begin`, `middle` (with the first progress) or `end` (done, but not handed in) of the unit."""
    word: str = ""
    index: int = 0
    mark: str = ""
    """A file: it is made when the fault strikes, which it does once. Empty: it strikes always."""
    release: str = ""

    def meets(self, unit: Unit) -> bool:
        if unit.kind != self.kind or self.word not in json.dumps(unit.payload):
            return False
        return not self.index or self.index in unit.payload.get("indexes", ())

    def strike(self, cancelled: threading.Event) -> None:
        if self.mark:
            try:
                Path(self.mark).open("x").close()
            except FileExistsError:
                return
        if self.do in ("crash", "kill"):
            signal.raise_signal(signal.SIGSEGV if self.do == "crash" else signal.SIGKILL)
        elif self.do == "seize":
            import ctypes

            ctypes.PyDLL(None).sleep(1000)
        while self.do == "hang" or not Path(self.release).exists():
            if cancelled.wait(0.005) and self.do == "hold":
                return
            time.sleep(0.005)


class FaultyCrew(OpenCrew):
    faults: tuple[Fault, ...]

    def perform(
        self, unit: Unit, ledger: Ledger, cancelled: threading.Event, report: Callable[[float], None]
    ) -> Outcome:
        due = [fault for fault in self.faults if fault.meets(unit)]

        def strike(at: str) -> None:
            for fault in due:
                if fault.at == at:
                    fault.strike(cancelled)

        def reported(fraction: float) -> None:
            report(fraction)
            strike("middle")

        strike("begin")
        outcome = super().perform(unit, ledger, cancelled, reported)
        strike("end")
        return outcome


def faulty_crew(arguments: Mapping[str, Any], log: TextIO) -> FaultyCrew:
    """Called in the worker processes, in place of `bootstrap.crew`."""
    settings = Settings.model_validate(arguments["settings"])
    if arguments.get("apart"):
        folder = settings.data_dir.parent / f"machine-{os.getpid()}"
        settings = settings.model_copy(update={"data_dir": folder})
    crew = FaultyCrew(settings, log, arguments["secrets"])
    crew.faults = tuple(Fault(**fault) for fault in arguments["faults"])
    return crew


# The engine in this process


@dataclass
class Engine:
    """A machine that runs, and what it wrote to its log."""

    machine: Machine
    place: Place
    log: io.StringIO = field(default_factory=io.StringIO)

    def submit(self, document: Mapping[str, Any], **more: Any) -> str:
        provide(self.place, document)
        return self.machine.service.submit(
            document, local=True, base=self.place.root, destination=str(self.place.out), **more
        ).id

    def upload(self, name: str) -> str:
        intake = self.machine.service.intake("local", name)
        intake.write((self.place.root / name).read_bytes())
        return intake.commit()["id"]

    def status(self, job: str) -> dict[str, Any]:
        return self.machine.service.status(job, None)

    def over(self, job: str) -> bool:
        row = self.machine.store.owned(job, None)
        return row is not None and row.phase == "ended"

    def ended(self, job: str, seconds: float = PATIENCE) -> dict[str, Any]:
        """The status of the job after its end."""
        until(lambda: self.over(job), seconds)
        return self.status(job)

    def units(self, **values: Any) -> list[Any]:
        query = work.select().where(*(work.c[name] == value for name, value in values.items()))
        return self.machine.store.read(lambda db: list(db.execute(query)))

    def worker(self, index: int) -> tuple[Any, int]:
        """The batch in hand that makes variation `index`, and the process that has it."""

        def found() -> Any:
            pids = {worker.name: worker.pid for worker in self.machine.workers()}
            batches = self.units(kind="batch", state="running")
            mine = (batch for batch in batches if index in json.loads(batch.payload)["indexes"])
            return next(((batch, pids[batch.worker]) for batch in mine), None)

        unit, pid = until(found)
        return unit, pid

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


@contextlib.contextmanager
def running(
    place: Place,
    *faults: Fault,
    grace: float = 5,
    options: Callable[..., Options] | None = None,
    executor: type[EmbeddedExecutor] = EmbeddedExecutor,
    apart: bool = False,
    **settings: Any,
) -> Iterator[Engine]:
    """The engine of that place; `options` and `executor` stand in for the usual ones.

    `apart`: each worker process has a data folder of its own, as if it were on another machine.
    """
    if apart:
        place.shared.mkdir(exist_ok=True)
        settings["shared"] = str(place.shared)

    def built(ledger: Ledger, factory: str, arguments: Mapping[str, Any], **more: Any) -> EmbeddedExecutor:
        if faults or apart:
            factory = "engine_play:faulty_crew"
            arguments = {**arguments, "faults": [vars(one) for one in faults], "apart": apart}
        return executor(ledger, factory, arguments, **more)

    log = io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(standalone, "EmbeddedExecutor", built))
        if options:
            stack.enter_context(mock.patch.object(bootstrap, "Options", options))
        machine = stack.enter_context(
            standalone.open_machine(place.settings(**settings), f"sqlite:///{place.state}", [log], grace=grace)
        )
        yield Engine(machine, place, log)


# What must hold afterwards


def check_invariants(place: Place) -> None:
    """Of a place whose engine has been closed and whose jobs have all ended."""
    assert [row[0] for row in place.rows("PRAGMA integrity_check")] == ["ok"]
    jobs = place.rows("SELECT * FROM jobs")
    assert len({job["folder"] for job in jobs}) == len(jobs), "each job has a folder of its own here"
    for job in jobs:
        _check_job(place, job)
    left = place.rows("SELECT work.*, jobs.state AS job_state FROM work LEFT JOIN jobs ON jobs.id = work.job")
    # What a manifest has cost is added up at the next start; what a cancelled job keeps is for a retry of it.
    usual = {("manifest", "done", "done"), ("manifest", "done", "failed"), ("manifest", "done", "cancelled")}
    usual |= {(kind, "ready", "cancelled") for kind in ("batch", "plan")}
    odd = {tuple(row) for row in left if (row["kind"], row["state"], row["job_state"]) not in usual}
    assert not odd, odd
    assert [path.name for folder in (place.data, *place.machines()) for path in (folder / "jobs").iterdir()] == []
    uploaded = {row["id"] for row in place.rows("SELECT id FROM uploads")}
    kept = place.shared.glob("uploads/*/*") if place.shared.exists() else (place.data / "uploads").iterdir()
    assert {path.name for path in kept} == uploaded
    blobs = [path for folder in (place.data, *place.machines()) for path in (folder / "blobs").glob("*/*")]
    held = {path.name for path in blobs if path.stat().st_nlink != 1}
    assert held == (set() if place.shared.exists() else uploaded), f"hold of pieces is wrong: {held}"


def _check_job(place: Place, job: sqlite3.Row) -> None:
    assert job["phase"] == "ended"
    assert job["state"] in ("done", "failed", "cancelled")
    outputs = place.outputs(job["folder"])
    good = {index: row for index, row in outputs.items() if row["error"] is None}
    assert (len(good), len(outputs) - len(good)) == (job["ok"], job["failed"])
    if job["state"] == "cancelled":
        assert job["ok"] + job["failed"] + job["doomed"] <= job["total"]
    else:
        assert job["ok"] + job["failed"] + job["doomed"] == job["total"]
        assert place.rows("SELECT * FROM slots WHERE job = ? AND state = 'wait'", job["id"]) == []
    assert place.rows("SELECT * FROM needs WHERE job = ? AND state = 'wait'", job["id"]) == []
    folder = place.out / job["folder"]
    if not job["edition"]:
        assert not good
        return
    assert job["manifest_problem"] is None
    if job["state"] == "cancelled" and not good and not (folder / "manifest.json").exists():
        assert not folder.exists() or {path.name for path in folder.iterdir()} <= {".crosscut.lock"}
        return
    told = json.loads((folder / "manifest.json").read_text())["variations"]
    made = {row["index"]: row for row in told if row["file"]}
    assert made.keys() == good.keys()
    if job["state"] != "cancelled":
        assert [row["index"] for row in told] == list(range(1, job["total"] + 1))
    files = {row["file"]: good[index] for index, row in made.items()}
    assert len(files) == len(good)
    for name, row in files.items():
        data = (folder / name).read_bytes()
        assert (len(data), hashlib.sha256(data).digest()) == (row["bytes"], row["sha256"])
    names = {path.name for path in folder.iterdir()} - {".crosscut.lock"}
    assert names == {*files, "manifest.json", "manifest.csv"}, names.symmetric_difference(files)
    csv_rows = (folder / "manifest.csv").read_text().splitlines()
    assert len(csv_rows) == len(told) + 1


def check_like_undisturbed(place: Place, document: Mapping[str, Any], *, uploaded: bool = False) -> None:
    """The same files and the same rows as where nothing ever went wrong, in a place whose engine has been closed."""
    check_invariants(place)
    check_made(place, document, uploaded=uploaded)


def check_made(place: Place, document: Mapping[str, Any], *, uploaded: bool = False) -> None:
    """What is there of a job that has ended is what comes out where nothing ever goes wrong."""
    folder = document["task_name"]
    files, rows = undisturbed(json.dumps({**document, "task_name": "task"}), uploaded)
    _check_same(place.files(folder), files)
    _check_same({index: _kept(row) for index, row in place.outputs(folder).items()}, rows)


def _check_same(found: Mapping[Any, Any], wanted: Mapping[Any, Any]) -> None:
    differing = [name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)]
    assert not differing, {name: (found.get(name), wanted.get(name)) for name in differing}


def _kept(row: sqlite3.Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEPT)


@cache
def undisturbed(document: str, uploaded: bool) -> tuple[dict[str, str], dict[int, tuple[Any, ...]]]:
    """Files and rows of a request as it comes out by itself."""
    request = json.loads(document)
    with tempfile.TemporaryDirectory() as root:
        place = Place(Path(root))
        with running(place) as engine:
            wanted = by_upload(place, request, engine.upload) if uploaded else request
            status = engine.ended(engine.submit(wanted))
        assert (status["succeeded"], status["failed"]) == (status["total"], 0), status["errors"]
        check_invariants(place)
        folder = request["task_name"]
        rows = {index: _kept(row) for index, row in place.outputs(folder).items()}
        return place.files(folder), rows


# Processes


def stat(pid: int) -> tuple[str, int] | None:
    """State and parent of a process, None when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1])


def alive(pid: int) -> bool:
    found = stat(pid)
    return found is not None and found[0] != "Z"


def children(pid: int) -> list[int]:
    entries = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [entry for entry in entries if (found := stat(entry)) and found[1] == pid and found[0] != "Z"]


def descendants(pid: int) -> list[int]:
    below = children(pid)
    return below + [further for child in below for further in descendants(child)]


def runs(pid: int, module: str) -> bool:
    try:
        return module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False


class Server:
    """`crosscut serve` as a process group of its own, to be killed in part or as a whole and started again."""

    def __init__(self, place: Place, **environment: str) -> None:
        self._place = place
        self._environment = {
            "CROSSCUT_DATA_DIR": str(place.data),
            "CROSSCUT_WORKERS": "2",
            "CROSSCUT_REQUESTS_PER_MINUTE": "1000000",
            **environment,
        }
        self._said = (place.root / "server.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self.kill()
        self._said.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        assert self._process is None
        where = self._place.data / "server.json"
        where.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "crosscut", "serve", "--port", "0", "--to", str(self._place.out)],
            cwd=self._place.root,
            env=os.environ | self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
            start_new_session=True,
        )
        until(lambda: where.exists() or self._process.poll() is not None)
        assert where.exists(), "the server did not start; see server.log"
        self._url = json.loads(where.read_text())["url"]

    @property
    def address(self) -> tuple[str, int]:
        url = httpx2.URL(self._url)
        return url.host, url.port or 80

    def nursery(self) -> int | None:
        return next((pid for pid in children(self.pid) if runs(pid, "crosscut.engine.nursery")), None)

    def workers(self) -> list[int]:
        nursery = self.nursery()
        return children(nursery) if nursery else []

    def kill(self) -> None:
        """All of it, at once."""
        below = descendants(self.pid)
        os.killpg(self.pid, signal.SIGKILL)
        self._gone(below)

    def kill_parent(self) -> None:
        below = descendants(self.pid)
        os.kill(self.pid, signal.SIGKILL)
        self._gone(below)

    def stop(self) -> int:
        """Ask it to end; its exit code."""
        below = descendants(self.pid)
        os.kill(self.pid, signal.SIGTERM)
        return self._gone(below)

    def _gone(self, below: list[int]) -> int:
        assert self._process is not None
        code = self._process.wait(PATIENCE)
        self._process = None
        until(lambda: not any(map(alive, below)), 5)
        return code

    def get(self, path: str) -> Any:
        answer = httpx2.get(self._url + path, timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, **content: Any) -> Any:
        answer = httpx2.post(self._url + path, timeout=30, **content)
        assert answer.status_code in (200, 201, 202), answer.text
        return answer.json()

    def submit(self, document: Mapping[str, Any]) -> str:
        """Its sources are uploaded first."""
        return self.post("/process_media", json=by_upload(self._place, document, self._upload))["id"]

    def _upload(self, name: str) -> str:
        data = (self._place.root / name).read_bytes()
        return self.post("/sources", params={"name": name}, content=data)["id"]

    def over(self, job: str) -> bool:
        row = self._place.rows("SELECT phase FROM jobs WHERE id = ?", job)
        return bool(row) and row[0]["phase"] == "ended"
