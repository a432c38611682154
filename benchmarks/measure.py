"""What something costs: seconds on the clock, seconds of all processors, bytes of memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

P = ParamSpec("P")
R = TypeVar("R")


@dataclass
class Cost:
    """Seconds; `cpu` counts this process and the children it has waited for."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def measured() -> Iterator[Cost]:
    """The cost of the block, known when it ends."""
    cost = Cost()
    wall, cpu = time.perf_counter(), _cpu()
    yield cost
    cost.wall, cost.cpu = time.perf_counter() - wall, _cpu() - cpu


def _cpu() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def busy() -> float:
    """Seconds that all processors of this machine have worked so far, for whomever (Linux: proc_stat(5))."""
    user, nice, system, _idle, _iowait, *others = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")


def command(*words: object) -> Cost:
    """Run a program to its end; CalledProcessError with what it said where it fails."""
    with measured() as cost:
        subprocess.run([str(word) for word in words], check=True, capture_output=True)
    return cost


def typical(costs: Sequence[Cost]) -> Cost:
    return Cost(median(cost.wall for cost in costs), median(cost.cpu for cost in costs))


def fresh(function: Callable[P, R], *arguments: P.args, **options: P.kwargs) -> R:
    """Call `function` in a new process, so that neither memory nor imports of another measurement count."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **options).result()


def peak_memory() -> int:
    """Most bytes this process ever had in memory (Linux: VmHWM, which unlike ru_maxrss starts anew at exec)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def settle(folder: Path | None = None, size: int = 0) -> None:
    """Let the disk finish what others have written, and leave memory for `size` bytes that will go to `folder`.

    A virtual machine gives memory back to its host; to get it again can take longer than to write a file there.
    """
    if folder:
        filler, block = folder / "filler", bytes(1 << 20)
        with filler.open("wb") as file:
            for _ in range(size // len(block)):
                file.write(block)
        filler.unlink()
    os.sync()
