"""Crosscut itself: the whole command, its journey with other destinations, and one clip conformed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.clips import VOICE
from benchmarks.measure import Cost, measured, peak_memory
from crosscut.bootstrap import open_workshop
from crosscut.destinations import Delivered, nothing
from crosscut.destinations.folder import FolderDestination
from crosscut.pipeline import produce
from crosscut.request import parse_request
from crosscut.sandbox import Limits, Sandbox
from crosscut.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import timedelta
    from pathlib import Path

    from benchmarks.clips import Blocks
    from crosscut.destinations import Delivery, Destination, Linker
    from crosscut.media import Format
    from crosscut.splice import VirtualFile


def request(name: str, blocks: Blocks, music: Path | None, text: str | None, **options: Any) -> dict[str, Any]:
    sounds: dict[str, Any] = {}
    if music:
        sounds["audio_blocks"] = {"music": [str(music)]}
    if text:
        sounds["text_to_speach"] = [{"text": text, "voice": VOICE}]
    return {
        "task_name": name,
        "video_blocks": {f"block {number}": [str(clip) for clip in block] for number, block in enumerate(blocks, 1)},
        **sounds,
        **options,
    }


def render(body: dict[str, Any], data: Path, to: Path) -> tuple[Cost, dict[str, Any]]:
    """`crosscut render` as a user calls it, and its report."""
    file = data.with_suffix(".json")
    file.write_text(json.dumps(body))
    with measured() as cost:
        done = subprocess.run(
            [sys.executable, "-m", "crosscut", "render", str(file), "--to", str(to), "--json", "--quiet"],
            env=os.environ | {"CROSSCUT_DATA_DIR": str(data)},
            check=False,
            stdout=subprocess.PIPE,
        )
    assert done.returncode == 0, done.stdout
    return cost, json.loads(done.stdout)


@dataclass(frozen=True)
class Production:
    """What a job cost the process that runs it, without its start: seconds, and the peak of memory in bytes."""

    wall: float
    cpu: float
    memory: int


class Nowhere:
    """A place that keeps nothing: what is left is the planning and the splicing."""

    def __init__(self) -> None:
        self._delivery: Delivery = Forgotten()

    def location(self, folder: str) -> str:
        return f"nowhere {folder}"

    @contextlib.contextmanager
    def claim(self, folder: str) -> Iterator[None]:
        del folder
        yield

    @contextlib.contextmanager
    def open(self, folder: str, check: Callable[[], None] = nothing) -> Iterator[Delivery]:
        del folder, check
        yield self._delivery

    def check(self) -> None:
        pass

    def linker(self, folder: str, lasts: timedelta) -> Linker:
        raise NotImplementedError


class Forgotten:
    location = "nowhere"
    grouped = False

    def holds(self, name: str, size: int | None = None) -> bool:
        del name, size
        return False

    def put(self, name: str, file: VirtualFile) -> Delivered:
        return Delivered(name, len(file), "")

    def put_text(self, name: str, parts: Iterable[str]) -> None:
        del name
        for _ in parts:
            pass

    def remove(self, name: str) -> None:
        del name

    def sweep(self) -> None:
        pass


class Unsynced(Nowhere):
    """A folder that is written like `cp` writes: without waiting for the disk, without a checksum."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._delivery = Copied(root)


class Copied(Forgotten):
    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, name: str, file: VirtualFile) -> Delivered:
        with (self._root / name).open("xb") as out:
            file.copy_to(out)
        return super().put(name, file)


def produce_nowhere(body: dict[str, Any], data: Path) -> Production:
    return produce_into(body, data, Nowhere())


def produce_unsynced(body: dict[str, Any], data: Path, to: Path) -> Production:
    to.mkdir(parents=True)
    return produce_into(body, data, Unsynced(to))


def produce_folder(body: dict[str, Any], data: Path, to: Path) -> Production:
    return produce_into(body, data, FolderDestination(to))


def produce_into(body: dict[str, Any], data: Path, destination: Destination) -> Production:
    parsed = parse_request(body, local=True)
    with open_workshop(Settings(data_dir=data)) as workshop:
        cpu = time.process_time()
        with measured() as cost:
            errors = [output.error for output in produce(parsed, data, workshop, destination) if output.error]
        cpu = time.process_time() - cpu
    assert not errors, errors
    return Production(cost.wall, cpu, peak_memory())


def conform_clip(
    clip: Path, frame: Format, duration: str, threads: int, folder: Path, times: int
) -> tuple[list[float], float]:
    """Seconds on the clock of each time, and of the processors for all of them with the sandbox and one blank frame."""
    limits = Limits(memory_bytes=4 << 30)
    size = {"width": frame.width, "height": frame.height, "fps": str(frame.fps)}
    how = {"fit": "blur", "rotation": 0, "pixel_aspect": "1", "duration": duration, "threads": threads}
    folder.mkdir()
    walls = []
    with measured() as cost, Sandbox(("crosscut.conform",)) as sandbox:
        sandbox.run("crosscut.conform:encode_blank", outputs=[folder / "blank.mp4"], arguments=size)
        for number in range(times):
            output = folder / f"{number}.mp4"
            with measured() as each:
                sandbox.run(
                    "crosscut.conform:encode", inputs=[clip], outputs=[output], limits=limits, arguments=size | how
                )
            walls.append(each.wall)
    return walls, cost.cpu
