"""The measurements as a page of Markdown tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from benchmarks.destinations import Destinations
    from benchmarks.encoding import Encoding
    from benchmarks.pieces import Pieces
    from benchmarks.service import Served
    from benchmarks.sounds import Sounds
    from benchmarks.videos import Case, Quality

FASTER_ENCODED, FASTER_JOINED, FASTER_KEPT = 10, 50, 20
FASTER = (FASTER_ENCODED, FASTER_JOINED, FASTER_JOINED, FASTER_KEPT, FASTER_KEPT)
PLAN_SECONDS = 0.005
SLOWER_THAN_CP = 1.5
SLOWER_THAN_FFMPEG = 1.1
MEMORY_GROWTH = 1.1
OVERHEAD_SECONDS = 0.002
POST_SECONDS = 0.05
LOOK_SECONDS = 0.02
RANGES = 1_000
SLOWER_THAN_PLAIN = 1.3
SENT_WHERE_JOINED = 0.05

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Results:
    seconds: int
    """Length of a clip."""
    cases: Sequence[Case]
    pieces: Sequence[Pieces]
    encodings: Sequence[Encoding]
    sounds: Sounds
    qualities: Sequence[Quality]
    served: Served
    destinations: Destinations


def page(results: Results, machine: str, *, quick: bool) -> str:
    """`machine` is a sentence; the figures of a quick run are not compared with what is expected."""
    parts = (
        _head(results, machine, quick=quick),
        _cases(results.cases, results.seconds),
        _pieces(results.pieces),
        _encodings(results.encodings),
        _sounds(results.sounds),
        _qualities(results.qualities),
        _served(results.served),
        _destinations(results.destinations),
    )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def destinations_alone(found: Destinations) -> str:
    goals = _table(("", "expected", "measured", ""), _destinations_goals(found))
    return "\n".join([*goals, "", *_destinations(found)]) + "\n"


def _head(results: Results, machine: str, *, quick: bool) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield "Made by `make bench`, which compares in one run on the same inputs: change no number by hand."
    yield machine
    yield ""
    if quick:
        yield "A quick run on tiny inputs: the figures say only that everything runs."
    else:
        yield from _table(("", "expected", "measured", ""), _goals(results))


def _goals(results: Results) -> Iterator[tuple[str, str, str, str]]:
    for case, least in zip(results.cases, FASTER, strict=True):
        faster = case.moviepy / case.crosscut
        yield f"faster than MoviePy: {case.name}", f"≥ {least}×", f"{faster:.1f}×", _met(faster >= least)
    pieces, encodings, counts = results.pieces, results.encodings, [each.variations for each in results.pieces]
    cpu = max(each.cpu for each in pieces)
    yield (
        "CPU of one more variation",
        f"≤ {1000 * PLAN_SECONDS:g} ms",
        f"{1000 * cpu:.1f} ms",
        _met(cpu <= PLAN_SECONDS),
    )
    yield _at_most(SLOWER_THAN_CP, "writing / `cp`", [each.against_cp for each in (pieces[0], pieces[-1])])
    yield _at_most(
        SLOWER_THAN_CP, "delivering / `cp` and `sync -f`", [each.against_sync for each in (pieces[0], pieces[-1])]
    )
    growth = pieces[-1].memory / pieces[1].memory
    yield _at_most(MEMORY_GROWTH, f"peak memory of {counts[-1]:,} / of {counts[1]:,} variations", [growth])
    yield _at_most(SLOWER_THAN_FFMPEG, "encoding / ffmpeg, on the clock", [each.wall for each in encodings])
    yield _at_most(SLOWER_THAN_FFMPEG, "encoding / ffmpeg, CPU", [each.cpu for each in encodings])
    yield _at_most(1, "encoding sound / ffmpeg, CPU", [results.sounds.crosscut / results.sounds.ffmpeg])
    ours, moviepy = results.qualities[0], results.qualities[-1]
    yield _at_most(1, "bytes / MoviePy's", [ours.bytes / moviepy.bytes])
    better = ours.ssim - moviepy.ssim
    yield "likeness to the clips (SSIM) − MoviePy's", "≥ 0", f"{better:+.4f}", _met(better >= 0)
    yield from _served_goals(results.served)
    yield from _destinations_goals(results.destinations)


def _at_most(limit: float, name: str, ratios: Sequence[float]) -> tuple[str, str, str, str]:
    span = "–".join(dict.fromkeys(f"{ratio:.2f}" for ratio in (min(ratios), max(ratios))))
    return name, f"≤ {limit}×", f"{span}×", _met(max(ratios) <= limit)


def _met(met: bool) -> str:
    return "yes" if met else "**missed**"


def _served(served: Served) -> Iterator[str]:
    yield "## The service"
    yield ""
    over = served.overhead
    yield (
        f"Overhead: {over.variations:,} variations of tiny clips, empty data folders, delivered by the library in"
        f" one process ({over.library_wall:.1f} s, {over.library_cpu:.1f} s CPU without its start) and by"
        f" `crosscut render` ({over.service_wall:.1f} s, {over.service_cpu:.1f} s CPU with its start). Asked: one"
        " connection to"
        f" `crosscut serve` while all workers make a job of {served.variations:,} variations,"
        f" {served.rate:.0f} a second."
        f" Memory: VmRSS of the API's process. Ranges: 64 KiB each over four connections, the client on the same"
        " processors."
    )
    yield ""
    rows = [(what, f"{1000 * half:.1f} ms", f"{1000 * most:.1f} ms") for what, (half, most) in served.latencies.items()]
    yield from _table(("asked with a job of so many variations", "median", "95 %"), rows)


def _served_goals(served: Served) -> Iterator[tuple[str, str, str, str]]:
    over = served.overhead
    for what, seconds in (("on the clock", over.wall), ("CPU", over.cpu)):
        met = _met(seconds <= OVERHEAD_SECONDS)
        yield f"service over library, a variation, {what}", "≤ 2 ms", f"{1000 * seconds:.2f} ms", met
    for start, when, limit in (("POST", "busy", POST_SECONDS), ("GET", "at rest", LOOK_SECONDS)):
        most = max(
            most for what, (_, most) in served.latencies.items() if what.startswith(start) and what.endswith(when)
        )
        yield f"{start}, {when}, 95 %", f"< {1000 * limit:g} ms", f"{1000 * most:.1f} ms", _met(most < limit)
    before, after = served.memory
    growth = f"{before / MEGABYTE:.0f} → {after / MEGABYTE:.0f} MB"
    yield "memory of the API over a stretch of the job", "flat", growth, _met(after <= before * MEMORY_GROWTH)
    yield "range requests a second", f"≥ {RANGES:,}", f"{served.ranges:,.0f}", _met(served.ranges >= RANGES)


def _destinations_goals(found: Destinations) -> Iterator[tuple[str, str, str, str]]:
    for sending, plain in zip(found.sendings, ("obstore alone", "plain HTTP"), strict=True):
        name = f"{sending.files:,} × {sending.bytes / MEGABYTE:g} MB to {sending.place} / {plain}"
        yield _at_most(SLOWER_THAN_PLAIN, name, [sending.ratio])
    joining = found.joining
    name = f"bytes sent for {joining.variations:,} variations of {joining.clips} clips, joined in the bucket / whole"
    yield name, f"< {SENT_WHERE_JOINED:.0%}", f"{joining.share:.1%}", _met(joining.share < SENT_WHERE_JOINED)
    name = f"peak memory of {joining.variations:,} / of {joining.few:,} variations, joined"
    yield _at_most(MEMORY_GROWTH, name, [joining.growth])


def _destinations(found: Destinations) -> Iterator[str]:
    yield "## Delivered to other machines"
    yield ""
    yield (
        "Over real sockets to the emulators of the tests on the same processors, four files at a time, median of the"
        " rounds. Plain: obstore's put of each file, for Drive one request with each file. crosscut: read"
        " from pieces, with SHA-256, checks of what arrived, and for Drive an id that is noted on the disk before each"
        " file is sent. The processors are the bottleneck here; hashed is plain with the SHA-256 of each file."
    )
    yield ""
    yield from _table(
        ("to", "files", "MB each", "crosscut", "plain", "", "plain, hashed", ""),
        (
            (
                each.place,
                f"{each.files:,}",
                f"{each.bytes / MEGABYTE:g}",
                f"{each.ours:.2f} s",
                f"{each.plain:.2f} s",
                f"{each.ratio:.2f}×",
                f"{each.hashed:.2f} s",
                f"{each.ours / each.hashed:.2f}×",
            )
            for each in found.sendings
        ),
    )
    joining = found.joining
    yield ""
    yield (
        f"Joined in the bucket: {joining.variations:,} variations of {joining.clips} clips"
        f" ({joining.bytes / MEGABYTE:,.0f} MB) into an emulated bucket, in which nothing was before; bytes of all"
        " bodies that it has received. The line to it is as fast as the processors: that is when joining saves least"
        " time."
    )
    yield ""
    yield from _table(
        ("", "MB sent", "", "seconds", "CPU", "memory"),
        (
            (way, f"{sent / MEGABYTE:,.1f}", f"{sent / joining.whole:.1%}", f"{cost.wall:.1f} s", f"{cost.cpu:.1f} s",
             f"{cost.memory / MEGABYTE:.0f} MB")
            for way, sent, cost in (
                ("every video whole", joining.whole, joining.whole_cost),
                ("joined in the bucket", joining.joined, joining.joined_cost),
            )
        ),
    )  # fmt: skip


def _cases(cases: Sequence[Case], seconds: int) -> Iterator[str]:
    yield "## Every combination of three blocks of three clips"
    yield ""
    yield (
        f"{cases[0].variations} videos of three clips of {seconds} s with looped music and a voice-over (but for the"
        " last). crosscut: the"
        " whole `crosscut render` with an empty data folder, files synced and hashed. ffmpeg (concat filter) and"
        f" MoviePy: one render for each combination, preset ultrafast; {cases[0].timed} are timed and their median is"
        f" multiplied by {cases[0].variations}. Clips of another shape get a blurred backdrop from crosscut, black"
        " borders from ffmpeg, and are stretched by MoviePy, which is its cheapest way."
    )
    yield ""
    yield from _table(
        ("clips", "crosscut", "ffmpeg", "MoviePy", "than ffmpeg", "than MoviePy"),
        (
            (
                case.name,
                f"{case.crosscut:.1f} s",
                f"{case.ffmpeg:.0f} s",
                f"{case.moviepy:.0f} s",
                f"{case.ffmpeg / case.crosscut:.1f}× faster",
                f"{case.moviepy / case.crosscut:.1f}× faster",
            )
            for case in cases
        ),
    )


def _pieces(pieces: Sequence[Pieces]) -> Iterator[str]:
    yield "## Once the pieces exist"
    yield ""
    yield (
        "The whole job, without the start of the program. CPU: what one more variation takes. Spliced: planned and"
        " spliced, but written nowhere. Written: the same with plain files; what that takes longer is set against"
        " `cp -r` of them. Delivered: as `crosscut render` does, each file synced and hashed (SHA-256); what that takes"
        " longer is set against `cp -r` and one `sync -f`. The first table takes the first and the last row: few large"
        " files and many small ones. Memory: VmHWM meanwhile."
    )
    yield ""
    yield from _table(
        (
            *("clips", "variations", "MB", "CPU", "spliced", "written", "`cp`", ""),
            *("delivered", "`cp`, `sync -f`", "", "memory"),
        ),
        (
            (
                each.name,
                f"{each.variations:,}",
                f"{each.bytes / MEGABYTE:,.0f}",
                f"{1000 * each.cpu:.1f} ms",
                f"{each.spliced:.2f} s",
                f"{each.writing.unsynced:.2f} s",
                f"{each.writing.cp:.2f} s",
                f"{each.against_cp:.2f}×",
                f"{each.writing.delivered:.2f} s",
                f"{each.writing.cp_synced:.2f} s",
                f"{each.against_sync:.2f}×",
                f"{each.memory / MEGABYTE:.0f} MB",
            )
            for each in pieces
        ),
    )


def _encodings(encodings: Sequence[Encoding]) -> Iterator[str]:
    yield "## One clip encoded"
    yield ""
    yield (
        "In the sandbox, against the ffmpeg command line with the same filters, x264 options and threads of decoder and"
        " encoder. ffmpeg always decodes and filters beside the encoder, so that at one thread it uses more than one"
        " core; crosscut encodes another clip there."
    )
    yield ""
    yield from _table(
        ("clip", "threads", "crosscut", "ffmpeg", "", "CPU crosscut", "CPU ffmpeg", ""),
        (
            (
                each.name,
                str(each.threads),
                f"{each.crosscut.wall:.2f} s",
                f"{each.ffmpeg.wall:.2f} s",
                f"{each.wall:.2f}×",
                f"{each.crosscut.cpu:.2f} s",
                f"{each.ffmpeg.cpu:.2f} s",
                f"{each.cpu:.2f}×",
            )
            for each in encodings
        ),
    )


def _sounds(sounds: Sounds) -> Iterator[str]:
    yield "## A minute of sound encoded"
    yield ""
    yield (
        "AAC-LC, 48 kHz, stereo, one thread. crosscut asks FFmpeg's encoder for a constant quality, which spares it the"
        " search for a bit rate; the ffmpeg command line makes 128 kbit/s by itself, and reads the sound from a file"
        " meanwhile."
    )
    yield ""
    yield from _table(
        ("", "CPU", "times real time", "MB"),
        (
            (way, f"{seconds:.2f} s", f"{60 / seconds:.0f}×", f"{size / MEGABYTE:.2f}")
            for way, seconds, size in (
                ("crosscut", sounds.crosscut, sounds.bytes),
                ("ffmpeg", sounds.ffmpeg, sounds.ffmpeg_bytes),
            )
        ),
    )


def _qualities(qualities: Sequence[Quality]) -> Iterator[str]:
    yield "## Size and likeness of one video"
    yield ""
    yield "Three clips of one size and rate, encoded anew; SSIM of all frames against those of the clips."
    yield ""
    yield from _table(
        ("", "MB", "SSIM"), ((each.way, f"{each.bytes / MEGABYTE:.2f}", f"{each.ssim:.4f}") for each in qualities)
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
