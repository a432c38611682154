"""The journey: request -> fetch -> probe -> plan -> speak -> conform, mix -> splice -> deliver -> report.

Functions over values and protocols; no database, queue or web framework is known here.
"""

from __future__ import annotations

import traceback
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

from crosscut import __version__
from crosscut.artifacts import artifact_key
from crosscut.errors import CrosscutError, SpliceError
from crosscut.estimate import estimate
from crosscut.gather import Gathered, draw_plan, gather, sentence
from crosscut.journal import Journal
from crosscut.media import Seconds
from crosscut.naming import folder_name
from crosscut.plan import FADE, SpokenLine, Variation
from crosscut.report import Tally, manifest_csv, manifest_json
from crosscut.segments import make_segment, segment_key
from crosscut.soundtracks import VERSION as SOUND_VERSION
from crosscut.soundtracks import Mixed, Part, Range, Recipe, Soundtracks, decode_music, samples_of
from crosscut.speech import Speeches
from crosscut.splice import VERSION as SPLICE_VERSION
from crosscut.splice import Segment, splice
from crosscut.workshop import Once

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from crosscut.destinations import Delivery, Destination
    from crosscut.plan import Plan
    from crosscut.request import Request
    from crosscut.workshop import Workshop

BATCH = 64
"""Variations looked ahead: their tails are made together."""

UNEXPECTED = "it could not be made because of an error in crosscut: report it, with the line of the log"

DELIVERIES = 4
"""Variations written at the same time."""

LOOK_AHEAD = 10_000
"""Variations whose clips are queued for encoding at the start, in the order they are needed."""


def preview(request: Request, base: Path | None, workshop: Workshop) -> dict[str, Any]:
    """What `request` would make and cost, as JSON: sources are fetched and read, nothing is encoded or bought."""
    gathered = gather(request, base, workshop)
    speeches = Speeches(request, workshop)
    plan = draw_plan(request, gathered, speeches.expected(), workshop)
    notes = [*gathered.notes, *speeches.notes]
    return estimate(plan, gathered.sizes, gathered.names.__getitem__) | {"notes": notes}


def produce(request: Request, base: Path | None, workshop: Workshop, destination: Destination) -> dict[str, Any]:
    """Make every variation that `destination` does not hold yet, and its manifest; the final report as JSON.

    Raises `RequestError` where the request cannot be made at all; what fails alone is told in the report.
    """
    start = workshop.telemetry.clock()
    gathered = gather(request, base, workshop)
    speeches = Speeches(request, workshop)
    plan = draw_plan(request, gathered, speeches.spoken(), workshop)
    plan.refuse_overflow()
    with destination.open(folder_name(request.task_name)) as delivery:
        production = Production(plan, gathered, speeches, workshop, delivery)
        try:
            production.run()
        except BaseException:
            workshop.cancelled.set()
            production.finish(interrupted=True)
            raise
        production.finish()
    seconds = workshop.telemetry.clock() - start
    report = production.report(seconds)
    workshop.telemetry.log.info("job done", **{key: report[key] for key in ("total", "succeeded", "failed", "seconds")})
    return report


class Production:
    """One run over a plan: pieces are made by whoever needs them first, variations are delivered in order."""

    def __init__(
        self, plan: Plan, gathered: Gathered, speeches: Speeches, workshop: Workshop, delivery: Delivery
    ) -> None:
        self._plan = plan
        self._gathered = gathered
        self._speeches = speeches
        self._workshop = workshop
        self._delivery = delivery
        self._telemetry = workshop.telemetry
        self._tally = Tally()
        self._halted: CrosscutError | None = None
        self._known = bytearray(len(plan))
        self._manifest_problem: str | None = None
        # Encoding has the processors; the other pools mostly wait for it, for the disk, or for short tails.
        self._encoders = ThreadPoolExecutor(workshop.workers, "conform")
        self._mixers = ThreadPoolExecutor(workshop.workers, "mix")
        self._writers = ThreadPoolExecutor(DELIVERIES, "deliver")
        self._segments: dict[tuple[str, int], Future[Segment]] = {}
        self._encodes = 0
        self._music = Once(self._decode_music)
        self._soundtracks = Soundtracks(workshop, self._mixers, self._parts, plan.request.music_gain, self._span)
        home = artifact_key("journal", place=delivery.location)
        self._journal = Journal(workshop.journals / f"{home}.jsonl", len(plan))

    def run(self) -> None:
        self._telemetry.expect("deliver", len(self._plan))
        self._queue_segments()
        waiting: deque[tuple[Variation, Future[dict[str, Any]]]] = deque()
        for batch in _batches(iter(self._plan)):
            due = [variation for variation in batch if not self._settled(variation)]
            if self._sounds:
                self._soundtracks.ask((self._recipe(one), samples_of(self._plan.length(one))) for one in due)
            for variation in due:
                self._ask_segments(variation)
                waiting.append((variation, self._writers.submit(self._deliver, variation)))
            while len(waiting) > BATCH:
                self._collect(*waiting.popleft())
        while waiting:
            self._collect(*waiting.popleft())

    def finish(self, *, interrupted: bool = False) -> None:
        """Write the manifest and stop what still runs.

        After an interruption the manifest also tells of files of earlier runs that were not come to.
        """
        for pool in (self._writers, self._mixers, self._encoders):
            pool.shutdown(cancel_futures=True)
        head = {
            "task_name": self._plan.request.task_name,
            "crosscut": __version__,
            "seed": self._plan.request.seed,
            "total": len(self._plan),
        }
        for name, parts in (
            ("manifest.json", manifest_json(head, self._rows(earlier=interrupted))),
            ("manifest.csv", manifest_csv(self._rows(earlier=interrupted))),
        ):
            try:
                self._delivery.put_text(name, parts)
            except CrosscutError as error:
                self._telemetry.failed(error)
                self._manifest_problem = error.public
        self._journal.close()

    def _rows(self, *, earlier: bool) -> Iterator[dict[str, Any]]:
        """What this run made or found whole; with `earlier`, also what the journal knows of and is still there."""
        for row in self._journal.rows():
            seen = row["index"] <= len(self._known) and self._known[row["index"] - 1]
            if seen or (earlier and not row["error"] and self._delivery.holds(row["file"], row["bytes"])):
                yield row

    def report(self, seconds: float) -> dict[str, Any]:
        copied = sum(not self._plan.renditions[key].reasons for key in self._segments)
        return {
            "task_name": self._plan.request.task_name,
            "folder": self._delivery.location,
            **self._tally.summary(),
            "seconds": round(seconds, 3),
            "seconds_by_stage": {stage: round(spent, 3) for stage, spent in self._telemetry.seconds.items()},
            "formats": [str(target.format) for target in self._plan.targets],
            "formats_reason": self._plan.reason,
            "clips_copied": copied,
            "clips_encoded": self._telemetry.finished["conform"],
            "soundtracks_encoded": self._telemetry.finished["mix"],
            "voice_over_characters": self._speeches.characters,
            "cost": {"currency": "USD", "voice_over": self._speeches.cost},
            "manifest_problem": self._manifest_problem,
            "notes": [*self._gathered.notes, *self._speeches.notes],
        }

    @property
    def _sounds(self) -> bool:
        return bool(self._plan.request.music or self._plan.request.lines)

    def _settled(self, variation: Variation) -> bool:
        """Whether nothing is to be done: it cannot be made, or it is there already."""
        row = self._journal.find(variation.index)
        if row and self._is_kept(row, variation):
            self._known[variation.index - 1] = True
            self._tally.add(row, kept=True)
            self._telemetry.advance("deliver")
            return True
        if variation.problem:
            self._record(self._row(variation, error=variation.problem))
            return True
        return False

    def _is_kept(self, row: dict[str, Any], variation: Variation) -> bool:
        if row["error"]:
            return False
        if variation.problem:
            # A source is out of reach now; what was made of it stays what it was.
            told = self._row(variation)
            same = all(row[key] == told[key] for key in ("clips", "music", "voice_over", "format"))
        else:
            same = row["recipe"] == self._fingerprint(variation)
        return same and self._delivery.holds(row["file"], row["bytes"])

    def _fingerprint(self, variation: Variation) -> str:
        """Names everything that decides the file's bytes, before any piece is made; for what can be made."""
        target = self._plan.targets[variation.target]
        segments = [
            segment_key(
                self._gathered.sources[clip],
                self._gathered.facts[clip],
                self._plan.renditions[clip, variation.target],
                target,
            )
            for clip in variation.clips
        ]
        music = None if variation.music is None else self._gathered.sources[self._plan.request.music[variation.music]]
        return artifact_key(
            "variation",
            name=variation.name,
            segments=segments,
            hold=variation.hold,
            music=music and music.sha256,
            music_gain=self._plan.request.music_gain,
            line=None if variation.line is None else self._speeches.key(variation.line),
            speed=variation.speed,
            samples=samples_of(self._plan.length(variation)),
            versions=(SOUND_VERSION, SPLICE_VERSION),
        )

    def _queue_segments(self) -> None:
        for variation in islice(iter(self._plan), LOOK_AHEAD):
            row = self._journal.find(variation.index)
            if not variation.problem and (row is None or not self._is_kept(row, variation)):
                self._ask_segments(variation)

    def _ask_segments(self, variation: Variation) -> None:
        for clip in variation.clips:
            key = (clip, variation.target)
            if key not in self._segments:
                self._encodes += bool(self._plan.renditions[key].reasons)
                self._telemetry.expect("conform", self._encodes)
                self._segments[key] = self._encoders.submit(self._segment, *key)

    def _segment(self, clip: str, number: int) -> Segment:
        target, rendition = self._plan.targets[number], self._plan.renditions[clip, number]
        source, facts = self._gathered.sources[clip], self._gathered.facts[clip]
        try:
            if not rendition.reasons:
                return make_segment(source, facts, rendition, target, self._workshop)
            with self._telemetry.piece("conform") as report:
                return make_segment(source, facts, rendition, target, self._workshop, self._threads, report)
        except CrosscutError as error:
            raise self._named(clip, error) from error

    def _named(self, source: str, error: CrosscutError) -> CrosscutError:
        """Log the error and let its sentence name the source."""
        name = self._gathered.names[source]
        self._telemetry.failed(error, source=name)
        return type(error)(sentence(source, name, error), code=error.code, retryable=error.retryable)

    @cached_property
    def _threads(self) -> int:
        """Encoder threads: processors that no other clip will use."""
        encodes = sum(bool(rendition.reasons) for rendition in self._plan.renditions.values())
        return max(1, self._workshop.workers // max(1, min(encodes, self._workshop.workers)))

    def _decode_music(self, number: int) -> Part:
        name = self._plan.request.music[number]
        try:
            with self._telemetry.timed("music", source=self._gathered.names[name]):
                return decode_music(self._gathered.sources[name], self._workshop, self._longest)
        except CrosscutError as error:
            raise self._named(name, error) from error

    def _parts(self, recipe: Recipe) -> tuple[Part | None, Part | None]:
        music = None if recipe.music is None else self._music.get(recipe.music)
        line = None if recipe.line is None else self._speeches.part(recipe.line, recipe.speed)
        return music, line

    @cached_property
    def _longest(self) -> int:
        """Samples of the longest soundtrack that anything can ask for."""
        lines = [number for number, line in enumerate(self._plan.lines) if isinstance(line, SpokenLine)]
        return max(self._span(Recipe(None, line, Fraction(1))).longest for line in (None, *lines))

    def _span(self, recipe: Recipe) -> Range:
        """The lengths a recipe can be asked for: shortest to longest picture, or to the end of its voice-over."""
        shortest, longest = self._plan.picture_span()
        if recipe.line is not None:
            line = self._plan.lines[recipe.line]
            assert isinstance(line, SpokenLine)
            slowest_frame = max(1 / target.format.fps for target in self._plan.targets)
            longest = Seconds(max(longest, line.seconds / recipe.speed + FADE + slowest_frame))
        return Range(samples_of(shortest), samples_of(longest))

    @staticmethod
    def _recipe(variation: Variation) -> Recipe:
        return Recipe(variation.music, variation.line, variation.speed)

    def _deliver(self, variation: Variation) -> dict[str, Any]:
        """Splice and write one variation; its manifest row."""
        if self._halted:
            raise self._halted
        segments = [self._segments[clip, variation.target].result() for clip in variation.clips]
        length = self._plan.length(variation)
        mixed: Mixed | None = None
        if self._sounds:
            mixed = self._soundtracks.wait(self._recipe(variation), samples_of(length))
        clock = self._telemetry.clock
        start = clock()
        hold = Fraction(variation.hold) / self._plan.targets[variation.target].format.fps
        file = splice(segments, mixed.soundtrack if mixed else None, hold=hold)
        with self._telemetry.timed("deliver", variation=variation.index, file=variation.name):
            delivered = self._delivery.put(variation.name, file)
        return self._row(
            variation,
            mixed=mixed,
            file=variation.name,
            bytes=delivered.bytes,
            sha256=delivered.sha256,
            seconds=round(clock() - start, 4),
        )

    def _collect(self, variation: Variation, future: Future[dict[str, Any]]) -> None:
        try:
            row = future.result()
        except CrosscutError as error:
            row = self._failed(variation, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it costs this variation and not the job
            detail = "".join(traceback.format_exception(error))
            row = self._failed(variation, SpliceError(UNEXPECTED, code="unexpected", detail=detail))
        self._record(row)

    def _failed(self, variation: Variation, error: CrosscutError) -> dict[str, Any]:
        self._telemetry.failed(error, variation=variation.index)
        if error.code == "disk_full":
            self._halted = error
        return self._row(variation, error=error.public)

    def _record(self, row: dict[str, Any]) -> None:
        self._tally.add(row, kept=False)
        self._telemetry.advance("deliver")
        try:
            self._journal.append(row)
            self._known[row["index"] - 1] = True
        except CrosscutError as error:
            # The file is there; only the next run and the manifest will not know of it.
            self._telemetry.failed(error, variation=row["index"])
            self._halted = error

    def _row(
        self, variation: Variation, *, mixed: Mixed | None = None, error: str | None = None, **made: Any
    ) -> dict[str, Any]:
        request, target = self._plan.request, self._plan.targets[variation.target]
        names, line = self._gathered.names, variation.line
        whole = not error and not variation.problem
        return {
            "index": variation.index,
            "file": None,
            "clips": [names[clip] for clip in variation.clips],
            "format": self._plan.format_names[variation.target],
            "music": None if variation.music is None else names[request.music[variation.music]],
            "voice_over": None if line is None else request.lines[line].text,
            "voice": None if line is None else self._speeches.voice(line),
            "duration": round(float(self._plan.length(variation)), 6) if whole else None,
            "hold": round(float(variation.hold / target.format.fps), 6),
            "speed": float(variation.speed),
            "bytes": None,
            "sha256": None,
            "loudness": mixed and _rounded(mixed.loudness),
            "true_peak": mixed and _rounded(mixed.true_peak),
            "seconds": 0.0,
            "error": error,
            "recipe": self._fingerprint(variation) if whole else None,
            **made,
        }


def _batches(variations: Iterator[Variation]) -> Iterator[list[Variation]]:
    while batch := list(islice(variations, BATCH)):
        yield batch


def _rounded(decibels: float | None) -> float | None:
    return None if decibels is None else round(decibels, 2)
