"""Those who work: one function for each kind of unit. Knows no SQL, queue or web."""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from threading import Semaphore
from typing import TYPE_CHECKING, Any

import structlog

from crosscut import __version__
from crosscut.benches import Bench, Benches
from crosscut.cuts import cut_of
from crosscut.errors import CrosscutError, RequestError
from crosscut.estimate import estimate
from crosscut.gather import Planned, document, draw_plan, origin_of, recalled, sentence, shown, study
from crosscut.media import Seconds
from crosscut.pieces import encoder_threads, take_of
from crosscut.plan import Rendition, SpokenLine
from crosscut.plandoc import FACTS, ORIGIN, TARGET, PlanDoc, Voiced
from crosscut.report import Levels, linked, manifest_csv, manifest_json
from crosscut.segments import Take, make_segment, segment_key
from crosscut.speech import expected, line_sentence, say, voice_or_why
from crosscut.spending import costs
from crosscut.studio import UNEXPECTED, Studio, failure
from crosscut.tracing import NoTracer
from crosscut.units import Failure, Outcome, Spent
from crosscut.wants import line_name, line_of, planned_request, request_of

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from crosscut.destinations import Destination, Linker
    from crosscut.plan import Plan
    from crosscut.request import Request
    from crosscut.tracing import Tracer
    from crosscut.units import Found, JobRecord, Ledger, Output, Unit
    from crosscut.workshop import Toolbox, Workshop

PAGE = 1_000
"""Outputs asked for at once."""


class Crew:
    """Does units of work; several at once for the network, one at a time for the processor.

    Log lines carry job, unit, kind and attempt: they are bound to the context, which pools hand on to their threads.
    """

    def __init__(
        self,
        tools: Toolbox,
        destinations: Callable[[str], Destination],
        webhook: Callable[[Mapping[str, Any], threading.Event], None] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """`webhook` sends one event or raises CrosscutError."""
        self._tracer = tracer or NoTracer()
        self._destinations = destinations
        self._webhook = webhook
        self._benches = Benches(tools)
        self._processors = tools.processors
        self._probes = Semaphore(tools.workers)
        self._kinds = {
            "source": self._source,
            "speech": self._speech,
            "plan": self._plan,
            "segment": self._segment,
            "batch": self._batch,
            "manifest": self._manifest,
            "webhook": self._hook,
        }

    def perform(
        self, unit: Unit, ledger: Ledger, cancelled: threading.Event, report: Callable[[float], None]
    ) -> Outcome:
        """Do it; `report` is told how much is done, 0 to 1. What goes wrong is in the outcome.

        After `cancelled` is set it ends within about a second, with what was made until then.
        """
        words = {"job": unit.job, "unit": unit.id, "kind": unit.kind, "attempt": unit.attempt}
        try:
            with (
                structlog.contextvars.bound_contextvars(**words),
                self._tracer.unit(unit.trace, unit.job, unit.kind, words) as failed,
                self._benches.at(unit.job) as bench,
            ):
                shop = self._benches.shift(bench, cancelled, unit.payload.get("since"))
                outcome = self._performed(Task(unit, ledger, bench, shop, report))
                if outcome.failure:
                    failed(outcome.failure.code)
                return outcome
        except CrosscutError as error:  # not even the tools could be had
            return Outcome(failure=failure(error))

    def _performed(self, task: Task) -> Outcome:
        telemetry = task.shop.telemetry
        try:
            self._kinds[task.unit.kind](task)
        except CrosscutError as error:
            task.failed(error)
        except Exception:
            telemetry.log.exception("unexpected")
            task.failure = Failure(task.unit.kind, "unexpected", UNEXPECTED)
        return Outcome(
            result=task.result,
            outputs=task.outputs,
            failure=task.failure,
            spent={stage: Spent(telemetry.finished[stage], spent) for stage, spent in telemetry.seconds.items()},
            meters=task.shop.meters.read(),
        )

    def forget(self, job: str) -> None:
        """Give back what is held for that job, once nobody works on it."""
        self._benches.forget(job)

    def tidy(self) -> None:
        """Give back what has long not been used; also done with every unit."""
        self._benches.tidy()

    def close(self) -> None:
        self._benches.close()

    # One function for each kind.

    def _source(self, task: Task) -> None:
        source, base = task.payload["source"], task.payload["base"]
        try:
            fetched, facts = study(source, shown(source), base and Path(base), task.shop, self._probes)
        except CrosscutError as error:
            task.failed(error, sentence(source, shown(source), error), source=shown(source))
            return
        task.result = {
            "source": ORIGIN.dump_python(origin_of(fetched), mode="json"),
            "facts": FACTS.dump_python(facts, mode="json"),
        }

    def _speech(self, task: Task) -> None:
        line = line_of(task.payload["line"])
        try:
            said = say(line, task.shop)
        except CrosscutError as error:
            task.failed(error, line_sentence(line, error), line=line.text[:40])
            return
        voice = said.voice
        task.result = {"key": voice.key, "voice": voice.id, "seconds": str(said.seconds), "note": voice.note}

    def _plan(self, task: Task) -> None:
        record = task.record()
        request = request_of(record)
        earlier = PlanDoc.of(record.plan) if record.plan else None
        found = task.ledger.found(record.id)
        gathered = recalled(request, found, earlier)
        lines, voices = _lines(request, found, earlier, task.shop)
        plan = draw_plan(request, gathered, lines, task.shop, earlier)
        cost = costs(request.lines, task.shop.voice)
        task.result = plan_result(record, plan, document(plan, gathered, voices), self._processors, cost)
        if record.delivers:
            # What is wrong with the place is told before anything is encoded.
            destination = self._destinations(record.destination)
            _linker(destination, record, request)
            with destination.open(record.folder, task.shop.check_cancelled) as delivery:
                task.result["location"] = delivery.location

    def _segment(self, task: Task) -> None:
        told = task.payload["source"]
        url, base = told["url"], told["base"]
        source = Planned(ORIGIN.validate_python(_origin(told)), url, base and Path(base), task.shop)
        take = Take(
            FACTS.validate_python(task.payload["facts"]),
            Rendition(task.payload["frames"], tuple(task.payload["reasons"])),
            TARGET.validate_python(task.payload["target"]),
            Seconds(Fraction(task.payload["start"])),
        )
        try:
            make_segment(source, take, task.shop, task.payload["threads"], task.report)
        except CrosscutError as error:
            task.failed(error, sentence(url, shown(url), error), source=shown(url))

    def _batch(self, task: Task) -> None:
        indexes = task.payload["indexes"]
        with task.studio() as (studio, record):
            destination = self._destinations(record.destination)
            earlier = task.ledger.earlier(record.id, indexes)
            with (
                destination.open(record.folder, task.shop.check_cancelled) as delivery,
                closing(studio.make(indexes, delivery, earlier.get)) as outputs,
            ):
                for output in outputs:
                    task.outputs.append(output)
                    task.report(len(task.outputs) / len(indexes))

    def _manifest(self, task: Task) -> None:
        """`payload` may say that the job was `cancelled`, and which clips were `broken` (see `Studio.rows`)."""
        with task.studio() as (studio, record):
            self._tell(task, studio, record)

    def _tell(self, task: Task, studio: Studio, record: JobRecord) -> None:
        broken = {(target, block, choice): why for target, block, choice, why in task.payload.get("broken", ())}
        stopped = bool(task.payload.get("cancelled"))

        def rows() -> Iterator[dict[str, Any]]:
            outputs = _outputs(task.ledger, record.id)
            for row in studio.rows(outputs, stopped=stopped, broken=broken):
                task.shop.check_cancelled()
                task.report(row["index"] / len(studio.plan))
                yield row

        request = studio.plan.request
        head = {
            "task_name": request.task_name,
            "crosscut": __version__,
            "seed": request.seed,
            "total": len(studio.plan),
        }
        problem, levels = None, Levels()
        destination = self._destinations(record.destination)
        link = _linker(destination, record, request)
        if request.link_days:
            end = datetime.fromtimestamp(int(time.time()), UTC) + timedelta(days=request.link_days)
            head["links_end_at"] = end.isoformat()
        with destination.open(record.folder, task.shop.check_cancelled) as delivery:
            told = manifest_json(head, linked(levels.through(rows()), link))
            for name, parts in (("manifest.json", told), ("manifest.csv", manifest_csv(linked(rows(), link)))):
                try:
                    delivery.put_text(name, parts)
                except CrosscutError as error:
                    task.shop.check_cancelled()
                    task.shop.telemetry.failed(error, file=name)
                    problem = problem or error.public
            delivery.sweep()
        task.result = {"problem": problem, "loudness": levels.as_json(), "location": delivery.location}

    def _hook(self, task: Task) -> None:
        assert self._webhook is not None, "this process sends no webhooks"
        with task.shop.telemetry.timed("webhook"):
            self._webhook(task.payload, task.shop.cancelled)


class Task:
    """A unit in hand, and what has come of it so far."""

    def __init__(
        self, unit: Unit, ledger: Ledger, bench: Bench, shop: Workshop, report: Callable[[float], None]
    ) -> None:
        self.unit = unit
        self.payload = unit.payload
        self.ledger = ledger
        self.bench = bench
        self.shop = shop
        self.report = report
        self.result: dict[str, Any] = {}
        self.outputs: list[Output] = []
        self.failure: Failure | None = None

    def failed(self, error: CrosscutError, public: str | None = None, **fields: Any) -> None:
        self.shop.telemetry.failed(error, **fields)
        self.failure = failure(error, public)

    def record(self) -> JobRecord:
        record = self.ledger.job(self.unit.job)
        if record is None:
            raise RequestError("there is no such job any more", code="no_such_job")
        return record

    @contextmanager
    def studio(self) -> Iterator[tuple[Studio, JobRecord]]:
        """A studio of the job's that makes for nobody else; the record that is at hand will do where it has the
        `edition` of the plan that `payload` asks for.
        """
        bench = self.bench
        with bench.alone:
            record = bench.record
            if record is None or self.payload.get("edition") != record.edition:
                record = self.record()
                if bench.record is None or bench.record.edition != record.edition:
                    bench.spare.clear()
                bench.record = record
            studio = bench.spare.pop() if bench.spare else None
        if studio is None:
            assert record.plan is not None, "work on variations comes after the plan"
            base = Path(record.base) if record.base else None
            studio = Studio(planned_request(record), PlanDoc.of(record.plan), bench.workshop, base)
        studio.use(self.shop)
        try:
            yield studio, record
        finally:
            with bench.alone:
                if bench.record is not None and bench.record.edition == record.edition:
                    bench.spare.append(studio)


def plan_result(
    record: JobRecord, plan: Plan, doc: PlanDoc, processors: int, cost: Mapping[str, Any]
) -> dict[str, Any]:
    """All that the queue must know of a plan, as JSON; `segments` are payloads that need nothing else.

    Clips into which captions are drawn are no segments of the queue: what they show depends on who speaks there.
    """
    threads = encoder_threads(plan, processors)
    slots: list[list[Any]] = []
    segments: dict[str, dict[str, Any]] = {}
    for number in range(len(plan.targets)):
        for place, block in enumerate(plan.request.blocks):
            for choice, clip in enumerate(block.clips):
                problem, key = doc.clip_problems.get(clip), None
                if (clip, number) in plan.renditions and not plan.draws_captions:
                    take = take_of(plan, clip, number)
                    key = None if take.copied else segment_key(doc.sources[clip].sha256, take)
                    if key:
                        segments[key] = _segment_payload(record, doc, clip, take, threads)
                slots.append([number, place, choice, key, problem])
    price = estimate(plan, doc.sizes, doc.names.__getitem__) | {"notes": doc.notes, "cost": cost}
    return {
        "plan": doc.as_json(),
        "targets": len(plan.targets),
        "grid": plan.request.grid(len(plan.targets)).as_json(),
        "slots": slots,
        "segments": segments,
        "estimate": price,
        "refused": price["refused"],
    }


def _segment_payload(record: JobRecord, doc: PlanDoc, clip: str, take: Take, threads: int) -> dict[str, Any]:
    return {
        "source": ORIGIN.dump_python(doc.sources[clip]) | {"url": cut_of(clip).source, "base": record.base},
        "since": record.created,
        "facts": FACTS.dump_python(take.facts, mode="json"),
        "target": TARGET.dump_python(take.target, mode="json"),
        "frames": take.rendition.frames,
        "reasons": list(take.rendition.reasons),
        "start": str(take.start),
        "threads": threads,
    }


def _lines(
    request: Request, found: Sequence[Found], earlier: PlanDoc | None, shop: Workshop
) -> tuple[list[SpokenLine | str], list[Voiced | None]]:
    """The length of each line, or why it cannot be spoken, and its voice; one that was not spoken is estimated."""
    known = {each.name: each for each in found if each.kind == "speech"}
    lines: list[SpokenLine | str] = []
    voices: list[Voiced | None] = []
    for number, line in enumerate(request.lines):
        each = known.get(line_name(line))
        before = earlier.lines[number] if earlier and number < len(earlier.lines) else None
        if earlier and isinstance(before, SpokenLine) and before.exact:
            lines.append(before)
            voices.append(earlier.voices[number])
        elif each and each.result is not None:
            lines.append(SpokenLine(Seconds(Fraction(each.result["seconds"]))))
            voices.append(Voiced(each.result["voice"], each.result["key"], each.result["note"]))
        else:
            voiced = voice_or_why(line, shop)
            why = each.error if each and each.error else None if isinstance(voiced, Voiced) else voiced
            lines.append(why or expected([line], shop)[0])
            voices.append(voiced if isinstance(voiced, Voiced) else None)
    return lines, voices


def _linker(destination: Destination, record: JobRecord, request: Request) -> Linker | None:
    """What signs the links that were asked for."""
    return destination.linker(record.folder, timedelta(days=request.link_days)) if request.link_days else None


def _outputs(ledger: Ledger, job: str) -> Iterator[Output]:
    after = 0
    while page := ledger.outputs(job, after, PAGE):
        yield from page
        after = page[-1].index


def _origin(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: told[name] for name in ("label", "sha256", "size", "note")}
