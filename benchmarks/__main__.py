"""`python -m benchmarks`: measure everything, print the page and write it."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks import ffmpeg_way
from benchmarks.clips import make_inputs, make_music, make_small
from benchmarks.destinations import destinations
from benchmarks.encoding import encodings
from benchmarks.measure import busy, measured
from benchmarks.pieces import pieces
from benchmarks.report import Results, destinations_alone, page
from benchmarks.scale import FULL, QUICK, Scale
from benchmarks.service import service
from benchmarks.sounds import sounds
from benchmarks.videos import cases, quality

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def main() -> None:
    options = _options()
    cores = len(os.sched_getaffinity(0))
    scale = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory(prefix="crosscut-bench-", dir=options.scratch) as folder:
        if options.only:
            print(_destinations_alone(Path(folder), scale))
            return
        worked = busy()
        with measured() as cost:
            results = _measure(Path(folder), scale, cores)
        others = (busy() - worked - cost.cpu) / cost.wall / (os.cpu_count() or cores)
    text = page(results, _machine(cores, options.date, max(0.0, others)), quick=options.quick)
    print(text)
    if not options.quick:
        PAGE.write_text(text, encoding="utf-8")


def _measure(folder: Path, scale: Scale, cores: int) -> Results:
    _say("making clips")
    inputs = make_inputs(folder / "inputs", scale)
    _say("timing all combinations")
    made = cases(inputs, scale, folder / "cases")
    _say("comparing quality")
    qualities = quality(inputs, scale, folder / "quality")
    _say("encoding single clips")
    encoded = encodings(inputs, scale, folder / "encodings", sorted({1, cores}))
    _say("encoding sound")
    heard = sounds(inputs, scale, folder / "sounds")
    _say("splicing and writing")
    written = pieces(inputs, scale, folder / "pieces")
    _say("asking the service")
    served = service(scale, folder / "service")
    _say("delivering to other machines")
    delivered = destinations(inputs.small, inputs.music, scale, folder / "destinations")
    return Results(scale.seconds, made, written, encoded, heard, qualities, served, delivered)


def _destinations_alone(folder: Path, scale: Scale) -> str:
    _say("making clips")
    (folder / "inputs").mkdir()
    small, music = make_small(folder / "inputs", scale), folder / "inputs" / "music.wav"
    make_music(music)
    _say("delivering to other machines")
    return destinations_alone(destinations(small, music, scale, folder / "destinations"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny inputs, page not written: does it run at all?")
    parser.add_argument("--only", choices=["destinations"], help="that part alone, page not written")
    parser.add_argument("--scratch", type=Path, help="folder on the disk to measure (6 GB); default: the usual one")
    parser.add_argument("--date", default=time.strftime("%Y-%m-%d"), help="day named on the page; default: today")
    return parser.parse_args()


def _machine(cores: int, date: str, others: float) -> str:
    versions = ", ".join(
        f"{name} {version(package)}"
        for name, package in (("crosscut", "crosscut"), ("MoviePy", "moviepy"), ("PyAV", "av"))
    )
    return (
        f"{date}: {cores} cores ({platform.machine()}), {platform.system()} {platform.release()},"
        f" Python {platform.python_version()}, {versions}, ffmpeg {ffmpeg_way.version()};"
        f" other programs had {others:.0%} of the processors meanwhile."
    )


def _say(what: str) -> None:
    print(f"{time.strftime('%X')}  {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
