"""Units of work, one kind after the other, against a ledger in memory and with real tiny clips."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from clips import make_clip
from crosscut.artifacts import Artifacts
from crosscut.benches import MOST, Benches
from crosscut.bootstrap import CHILD_MODULES
from crosscut.crew import Crew
from crosscut.destinations.folder import FolderDestination
from crosscut.errors import DeliverError, WebhookError
from crosscut.fetch import Fetcher
from crosscut.plandoc import PlanDoc, plan_of
from crosscut.request import Line
from crosscut.sandbox import Sandbox
from crosscut.studio import DELIVERIES
from crosscut.telemetry import Telemetry
from crosscut.units import Found, JobRecord, Output, Unit
from crosscut.wants import line_name, request_of, wants
from crosscut.workshop import Toolbox
from fakes import MemoryLedger, ToneVoice
from sounds import tune, write_media

SIZE = (64, 96)


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(CHILD_MODULES) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Clips of two encoders' rates, a tune, and a file that is none."""
    folder = tmp_path_factory.mktemp("media")
    make_clip(folder / "a.mp4", frames=15, fps=30, size=SIZE, first=0)
    make_clip(folder / "b.mp4", frames=12, fps=24, size=SIZE, first=20)
    make_clip(folder / "c.mp4", frames=15, fps=30, size=SIZE, first=40)
    write_media(folder / "song.wav", tune(3))
    (folder / "broken.mp4").write_text("<html>no</html>")
    return folder


class House:
    """One machine's crew and its ledger: units are made and performed by hand."""

    def __init__(self, tmp_path, sandbox, base):
        self.log = io.StringIO()
        self.base = base
        self.out = tmp_path / "out"
        self.tools = Toolbox(
            artifacts=Artifacts(tmp_path / "data", 1 << 30),
            sandbox=sandbox,
            voice=ToneVoice(),
            fetcher=lambda lease, since: Fetcher(lease, since=since),
            telemetry=lambda: Telemetry(None, [self.log]),
            workers=1,
            processors=2,
            memory_bytes=1 << 30,
        )
        self.ledger = MemoryLedger()
        self.destination = FolderDestination
        self.sent = []
        self.crew = Crew(self.tools, lambda place: self.destination(Path(place)), self.sent_by)
        self.units = 0

    def sent_by(self, payload, _cancelled):
        self.sent.append(payload)

    def submit(self, **body):
        record = JobRecord(
            id=f"j{len(self.ledger.jobs)}",
            owner="me",
            created=1.0,
            body={"task_name": "my task", **body},
            extensions=(),
            local=True,
            base=str(self.base),
            destination=str(self.out),
            folder="my task",
            plan=None,
            edition=0,
        )
        self.ledger.jobs[record.id] = record
        return record.id

    def unit(self, kind, job, **payload):
        self.units += 1
        return Unit(self.units, 1, kind, job, json.loads(json.dumps(payload)))

    def do(self, kind, job, stop=None, report=lambda _: None, **payload):
        unit = self.unit(kind, job, **payload)
        return self.crew.perform(unit, self.ledger, stop or threading.Event(), report)

    def prepare(self, job):
        record = self.ledger.jobs[job]
        found = []
        for want in wants(record, request_of(record)):
            outcome = self.do(want.kind, job, **want.payload)
            error = outcome.failure and outcome.failure.public
            found.append(Found(want.kind, want.name, None if error else through_json(outcome.result), error))
        self.ledger.founds[job] = found
        return found

    def plan(self, job):
        outcome = self.do("plan", job)
        assert outcome.failure is None
        record = self.ledger.jobs[job]
        self.ledger.jobs[job] = replace(
            record, plan=outcome.result["plan"], edition=record.edition + 1, planned=len(record.extensions)
        )
        return through_json(outcome.result)

    def segments(self, job, result):
        return [self.do("segment", job, **payload) for payload in result["segments"].values()]

    def batch(self, job, indexes, **more):
        outcome = self.do("batch", job, indexes=list(indexes), **more)
        self.ledger.made.setdefault(job, {}).update({output.index: output for output in outcome.outputs})
        return outcome

    def through(self, job):
        """All of it, as an engine would; the plan's result and the batch's outcome."""
        self.prepare(job)
        result = self.plan(job)
        assert all(outcome.failure is None for outcome in self.segments(job, result))
        return result, self.batch(job, range(1, result["estimate"]["variations"] + 1))

    def manifest(self):
        return json.loads((self.out / "my task" / "manifest.json").read_text())["variations"]

    def events(self, **fields):
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in lines if fields.items() <= line.items()]


def through_json(value):
    return json.loads(json.dumps(value, allow_nan=False))


@pytest.fixture
def house(tmp_path, sandbox, media):
    house = House(tmp_path, sandbox, media)
    yield house
    house.crew.close()


BLOCKS = {"one": ["a.mp4", "b.mp4"], "two": ["c.mp4"]}
SOUND = {"audio_blocks": {"m": ["song.wav"]}, "text_to_speech": [{"text": "Hi you", "voice": "high"}]}


def test_a_job_goes_through_all_kinds_of_units(house):
    job = house.submit(video_blocks=BLOCKS, **SOUND)
    result, batch = house.through(job)
    assert batch.failure is None
    assert [output.index for output in batch.outputs] == [1, 2]
    told = house.do("manifest", job).result
    loudness = [output.loudness for output in batch.outputs]
    assert told["problem"] is None
    assert told["loudness"]["after"] == [min(loudness), max(loudness)]
    assert told["loudness"]["true_peak"] == max(output.true_peak for output in batch.outputs)
    assert told["loudness"]["before"][0] == min(output.loudness_before for output in batch.outputs)
    rows = house.manifest()
    assert [row["clips"] for row in rows] == [["a.mp4", "c.mp4"], ["b.mp4", "c.mp4"]]
    for row, output in zip(rows, batch.outputs, strict=True):
        data = (house.out / "my task" / row["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (row["bytes"], row["sha256"])
        assert (output.bytes, output.sha256) == (row["bytes"], row["sha256"])
        assert row["voice_over"] == "Hi you"
        assert row["voice"] == "high"
        assert abs(row["loudness"] + 14) <= 1
    assert {path.name for path in (house.out / "my task").iterdir()} == {
        "manifest.csv",
        "manifest.json",
        *(row["file"] for row in rows),
    }
    assert result["targets"] == 1
    assert result["refused"] is None
    assert result["estimate"]["notes"] == []


# Sources and lines


def test_a_source_is_told_as_json_and_counted_once(house):
    job = house.submit(video_blocks=BLOCKS)
    payload = {"source": "a.mp4", "base": str(house.base), "since": 1.0}
    first, second = (house.do("source", job, **payload) for _ in range(2))
    data = (house.base / "a.mp4").read_bytes()
    assert first.result["source"] == {
        "label": "a.mp4",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "note": None,
        "filename": None,
    }
    assert through_json(first.result) == first.result == second.result
    assert first.result["facts"]["video"]["frames"] == 15
    assert (first.meters["bytes_in"], first.meters["cache_misses"]) == (len(data), 1)
    assert second.meters == {"cache_hits": 1}
    assert {stage: spent.count for stage, spent in first.spent.items()} == {"fetch": 1, "probe": 1}


@pytest.mark.parametrize(
    ("source", "stage", "words"),
    [
        ("broken.mp4", "fetch", "broken.mp4 is a web page (HTML)"),
        ("gone.mp4", "fetch", "gone.mp4 does not exist"),
    ],
)
def test_a_source_that_cannot_be_had_is_one_sentence(house, source, stage, words):
    outcome = house.do("source", house.submit(video_blocks=BLOCKS), source=source, base=str(house.base), since=1.0)
    assert outcome.failure.stage == stage
    assert words in outcome.failure.public
    assert not outcome.failure.retryable
    assert outcome.spent[stage].count == 0
    assert house.events(event="given up", source=source)


def test_paths_are_not_for_jobs_from_elsewhere(house):
    outcome = house.do("source", house.submit(video_blocks=BLOCKS), source="a.mp4", base=None, since=1.0)
    assert outcome.failure.code == "scheme_not_allowed"


def test_an_upload_is_a_source(house):
    data = (house.base / "a.mp4").read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    with house.tools.artifacts.lease() as lease:
        lease.make(sha256, lambda path: path.write_bytes(data))
    job = house.submit(video_blocks={"one": [f"source:{sha256}"]})
    _, batch = house.through(job)
    assert [output.error for output in batch.outputs] == [None]


def test_an_upload_that_is_gone_is_asked_for_again(house):
    name = "source:" + "ab" * 32
    outcome = house.do("source", house.submit(video_blocks=BLOCKS), source=name, base=None, since=1.0)
    assert outcome.failure.public == f"{name} was uploaded but is not there any more: upload it again."


class PaidVoice(ToneVoice):
    free = False

    def price(self, manner):
        return 0.5

    def speak(self, text, resolved, output):
        speech = super().speak(text, resolved, output)
        return replace(speech, billed=len(text), cost=self.price(resolved.manner) * len(text))


def test_a_line_is_spoken_and_paid_once_ever(house):
    house.tools = replace(house.tools, voice=PaidVoice())
    crew = Crew(house.tools, FolderDestination)
    unit = house.unit("speech", house.submit(video_blocks=BLOCKS), line=line_name(Line("Four", "nobody")))
    first, second = (crew.perform(unit, house.ledger, threading.Event(), lambda _: None) for _ in range(2))
    assert first.result == second.result
    assert first.result["seconds"] == "3/10"
    assert first.result["voice"] == "low"
    assert "low speaks instead" in first.result["note"]
    assert (first.meters["characters"], first.meters["cost"]) == (4, 2.0)
    assert "characters" not in second.meters
    assert "speak" not in second.spent
    crew.close()


def test_a_line_that_cannot_be_spoken_says_which(house):
    outcome = house.do("speech", house.submit(video_blocks=BLOCKS), line=line_name(Line("...")))
    assert outcome.failure.public.startswith("voice-over “...”: this voice-over has no words")
    assert outcome.failure.stage == "speak"


# The plan


def test_the_plan_says_what_is_to_be_encoded_and_what_cannot_be_used(house):
    job = house.submit(video_blocks={"one": ["a.mp4", "b.mp4", "broken.mp4"], "two": ["c.mp4"]})
    house.prepare(job)
    result = house.plan(job)
    by_slot = {(target, block, choice): (key, problem) for target, block, choice, key, problem in result["slots"]}
    assert set(by_slot) == {(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0)}
    assert "HTML" in by_slot[0, 0, 2][1]
    assert by_slot[0, 0, 2][0] is None
    assert {key for key, _ in by_slot.values() if key} == set(result["segments"])
    assert result["grid"] == request_of(house.ledger.jobs[job]).grid(1).as_json()
    assert result["estimate"]["cannot_be_made"] == 1
    for key, payload in result["segments"].items():
        assert house.do("segment", job, **payload).failure is None
        with house.tools.artifacts.lease() as lease:
            assert lease.get(key, ".mp4") is not None


def test_clips_that_fit_as_they_came_need_no_segment(house):
    job = house.submit(video_blocks={"one": ["a.mp4"], "two": ["c.mp4"]})
    house.prepare(job)
    result = house.plan(job)
    assert result["segments"] == {}
    assert [slot[3:] for slot in result["slots"]] == [[None, None]] * 2
    assert house.batch(job, [1]).outputs[0].error is None


def test_lines_that_were_not_spoken_are_estimated_and_replaced_by_their_real_length(house):
    job = house.submit(video_blocks={"one": ["a.mp4"]}, text_to_speech=[{"text": "One two"}])
    found = house.prepare(job)
    house.ledger.founds[job] = [each for each in found if each.kind == "source"]
    house.plan(job)
    assert [line.exact for line in PlanDoc.of(house.ledger.jobs[job].plan).lines] == [False]
    house.ledger.founds[job] = found
    house.plan(job)
    assert [line.exact for line in PlanDoc.of(house.ledger.jobs[job].plan).lines] == [True]


def test_a_refused_plan_says_why(house):
    job = house.submit(
        video_blocks={"one": ["a.mp4"]}, text_to_speech=[{"text": "far too long for that"}], voice_overflow="refuse"
    )
    house.prepare(job)
    assert "shorten the text" in house.plan(job)["refused"]


def test_more_of_a_job_keeps_its_formats_and_what_was_made(house):
    job = house.submit(video_blocks={"one": ["a.mp4", "broken.mp4"]})
    house.through(job)
    before = PlanDoc.of(house.ledger.jobs[job].plan)
    # By itself b.mp4 would have other frames a second; the broken file can be had now.
    house.ledger.jobs[job] = replace(house.ledger.jobs[job], extensions=({"video_blocks": {"one": ["b.mp4"]}},))
    sources = {each.name: each for each in house.prepare(job)}
    mended = replace(sources["a.mp4"], name="broken.mp4")
    other = replace(sources["b.mp4"], name="a.mp4")
    house.ledger.founds[job] = [other, mended, sources["b.mp4"]]
    result = house.plan(job)
    after = PlanDoc.of(house.ledger.jobs[job].plan)
    assert after.targets == before.targets
    assert after.facts["a.mp4"] == before.facts["a.mp4"]
    assert after.facts["broken.mp4"] == before.facts["a.mp4"]
    assert after.clip_problems == {}
    assert len(result["segments"]) == 1
    house.segments(job, result)
    assert [output.error for output in house.batch(job, [2, 3]).outputs] == [None, None]


# Segments


def encoding(house):
    job = house.submit(video_blocks=BLOCKS)
    house.prepare(job)
    payloads = house.plan(job)["segments"].values()
    return job, next(payload for payload in payloads if payload["source"]["url"] == "b.mp4")


def test_a_segment_tells_how_much_is_done_and_is_made_once(house):
    job, payload = encoding(house)
    told = []
    first = house.do("segment", job, report=told.append, **payload)
    assert told == sorted(told)
    assert told[-1] == 1
    assert first.spent["conform"].count == 1
    again = house.do("segment", job, **payload)
    assert (again.failure, again.meters, again.spent) == (None, {"cache_hits": 1}, {})
    (event,) = house.events(event="process ended", stage="conform")
    assert (event["job"], event["kind"], event["attempt"], event["outcome"]) == (job, "segment", 1, "done")
    assert event["seconds"] >= 0


def lose(house, sha256):
    house.crew.close()
    house.tools.artifacts.blob(sha256, "").unlink()


def test_a_source_the_store_has_lost_is_fetched_again(house):
    job, payload = encoding(house)
    lose(house, payload["source"]["sha256"])
    assert house.do("segment", job, **payload).failure is None


def test_a_source_that_is_cut_off_in_the_store_is_fetched_again(house):
    job, payload = encoding(house)
    house.crew.close()
    blob = house.tools.artifacts.blob(payload["source"]["sha256"], "")
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[:500])
    assert house.do("segment", job, **payload).failure is None


def test_a_source_that_is_another_now_is_said(house, tmp_path):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes((house.base / name).read_bytes())
    house.base = tmp_path
    job, payload = encoding(house)
    lose(house, payload["source"]["sha256"])
    (tmp_path / "b.mp4").write_bytes((house.base / "c.mp4").read_bytes())
    failure = house.do("segment", job, **payload).failure
    assert failure.public == "b.mp4 is another file now than when the job was planned: send the job again."
    assert (failure.code, failure.retryable) == ("source_changed", False)


def test_a_cancelled_segment_may_be_done_later(house):
    job, payload = encoding(house)
    cancelled = threading.Event()
    cancelled.set()
    outcome = house.do("segment", job, cancelled, **payload)
    assert (outcome.failure.code, outcome.failure.retryable) == ("cancelled", True)
    assert house.do("segment", job, **payload).failure is None


# Batches


def test_one_that_cannot_be_made_costs_only_itself(house):
    job = house.submit(video_blocks={"one": ["a.mp4", "broken.mp4", "b.mp4"]}, **SOUND)
    _, batch = house.through(job)
    errors = {output.index: output.error for output in batch.outputs}
    assert (errors[1], errors[3]) == (None, None)
    assert "HTML" in errors[2].public
    assert batch.failure is None
    assert (batch.spent["deliver"].count, batch.meters["bytes_out"]) == (
        2,
        sum(output.bytes or 0 for output in batch.outputs),
    )
    assert sorted(event["variation"] for event in house.events(stage="deliver", kind="batch")) == [1, 3]
    assert {event["job"] for event in house.events(stage="mix")} == {job}


def test_the_next_batch_uses_the_pieces_of_the_one_before(house):
    job = house.submit(video_blocks=BLOCKS, **SOUND)
    house.prepare(job)
    house.segments(job, house.plan(job))
    first = house.batch(job, [1], edition=1)
    house.ledger.asked.clear()
    second = house.batch(job, [2], edition=1)
    assert (first.failure, second.failure) == (None, None)
    assert "job" not in house.ledger.asked
    assert "mix" in first.spent
    assert "mix" not in second.spent
    house.plan(job)
    house.batch(job, [1], edition=2)
    assert "job" in house.ledger.asked


def test_what_is_there_already_is_kept(house):
    job = house.submit(video_blocks=BLOCKS)
    _, first = house.through(job)
    again = house.submit(video_blocks=BLOCKS)
    house.ledger.elsewhere = {output.index: output for output in first.outputs}
    (house.out / "my task" / names_of(house, again)[2]).unlink()
    _, second = house.through(again)
    assert [(output.kept, output.sha256) for output in second.outputs] == [
        (True, first.outputs[0].sha256),
        (False, first.outputs[1].sha256),
    ]
    assert second.spent["deliver"].count == 1


def names_of(house, job):
    house.prepare(job)
    house.plan(job)
    record = house.ledger.jobs[job]
    plan = plan_of(PlanDoc.of(record.plan), request_of(record))
    return {variation.index: variation.name for variation in plan}


class Trouble:
    """A folder that takes some files and then raises."""

    def __init__(self, root, error, after=0):
        self.inner = FolderDestination(root)
        self.error = error
        self.left = after

    @contextmanager
    def open(self, folder, check=None):
        with self.inner.open(folder) as delivery:
            self.delivery = delivery
            yield self

    def __getattr__(self, name):
        return getattr(self.delivery, name)

    def put(self, name, file):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return self.delivery.put(name, file)


def test_batches_of_one_job_are_delivered_at_the_same_time(house):
    """Each waits for the network, and none for another."""
    job = house.submit(video_blocks={"one": ["a.mp4", "b.mp4"]})
    house.prepare(job)
    house.segments(job, house.plan(job))
    together = threading.Barrier(2, timeout=30)

    class Slow(Trouble):
        def put(self, name, file):
            together.wait()
            return self.delivery.put(name, file)

    house.destination = lambda _: Slow(house.out, None)
    with ThreadPoolExecutor(2) as pool:
        batches = list(pool.map(lambda index: house.batch(job, [index], edition=1), (1, 2)))
    assert [(batch.failure, len(batch.outputs)) for batch in batches] == [(None, 1)] * 2
    assert all(output.error is None for batch in batches for output in batch.outputs)


def test_a_place_that_is_busy_asks_everyone_to_wait(house):
    job = house.submit(video_blocks={"one": ["a.mp4", "b.mp4", "c.mp4"]}, select={"count": 3})
    house.through(job)
    busy = DeliverError("it has too much to do: wait", code="rate_limited", retryable=True, after=7)
    trouble = Trouble(house.out, busy, after=1)
    house.destination = lambda _: trouble
    batch = house.batch(job, [1, 2, 3])
    assert (batch.failure.everyone, batch.failure.retryable, batch.failure.after) == (True, True, 7)
    assert all(output.error is None for output in batch.outputs)
    assert len(batch.outputs) <= 1


def test_a_refused_file_is_that_variations_own_trouble(house):
    job = house.submit(video_blocks=BLOCKS)
    house.through(job)
    refused = DeliverError("it may not be written", code="not_writable")
    trouble = Trouble(house.out, refused, after=1)
    house.destination = lambda _: trouble
    batch = house.batch(job, [1, 2])
    assert batch.failure is None
    assert sorted(output.error.public if output.error else "" for output in batch.outputs) == ["", refused.public]


def test_a_cancelled_batch_keeps_what_is_made(house):
    clips = ["a.mp4", "b.mp4", "c.mp4"]
    job = house.submit(video_blocks={"one": clips, "two": clips})
    house.through(job)
    cancelled = threading.Event()

    class Cancelling(Trouble):
        def put(self, name, file):
            cancelled.set()
            return self.delivery.put(name, file)

    house.destination = lambda _: Cancelling(house.out, None)
    batch = house.do("batch", job, cancelled, indexes=list(range(1, 10)))
    assert (batch.failure.code, batch.failure.retryable) == ("cancelled", True)
    assert 1 <= len(batch.outputs) <= DELIVERIES
    assert all(output.error is None for output in batch.outputs)


def test_a_damaged_piece_is_made_again(house):
    job = house.submit(video_blocks=BLOCKS, **SOUND)
    result, first = house.through(job)
    house.crew.close()
    for key in result["segments"]:
        blob = house.tools.artifacts.blob(key, ".mp4")
        blob.chmod(0o600)
        blob.write_bytes(blob.read_bytes()[:-100])
    second = house.batch(job, [1, 2])
    assert [output.sha256 for output in second.outputs] == [output.sha256 for output in first.outputs]
    assert second.spent["conform"].count == 3


def test_a_piece_damaged_while_its_table_is_held_is_made_again(house):
    job = house.submit(video_blocks=BLOCKS)
    result, first = house.through(job)
    for key in result["segments"]:
        blob = house.tools.artifacts.blob(key, ".mp4")
        blob.chmod(0o600)
        blob.write_bytes(blob.read_bytes()[:400])
    second = house.batch(job, [1, 2])
    assert [output.sha256 for output in second.outputs] == [output.sha256 for output in first.outputs]


# Manifests


def test_the_manifest_merges_pages_of_outputs_with_what_cannot_be_made(house, monkeypatch):
    monkeypatch.setattr("crosscut.crew.PAGE", 2)
    job = house.submit(video_blocks={"one": ["a.mp4", "broken.mp4", "b.mp4", "c.mp4"], "two": ["a.mp4", "c.mp4"]})
    house.through(job)
    for index in (3, 4, 7):
        del house.ledger.made[job][index]
    house.ledger.asked.clear()
    house.do("manifest", job, broken=[[0, 0, 3, "c.mp4 could not be prepared"]])
    rows = house.manifest()
    assert [row["index"] for row in rows] == list(range(1, 9))
    errors = {row["index"]: row["error"] for row in rows if row["error"]}
    assert set(errors) == {3, 4, 7}
    assert errors[7] == "c.mp4 could not be prepared"
    assert "HTML" in errors[3]
    assert house.ledger.asked.count("outputs") == 2 * 4


def test_the_manifest_of_a_cancelled_job_holds_what_was_made(house):
    job = house.submit(video_blocks={"one": ["a.mp4", "broken.mp4", "b.mp4"]})
    house.through(job)
    del house.ledger.made[job][3]
    house.do("manifest", job, cancelled=True)
    assert [row["index"] for row in house.manifest()] == [1]


def test_the_manifest_sweeps_what_dead_workers_left(house):
    job = house.submit(video_blocks=BLOCKS)
    house.through(job)
    (house.out / "my task" / ".partial-00").write_bytes(b"half")
    house.do("manifest", job)
    assert not list((house.out / "my task").glob(".partial-*"))


def test_a_manifest_that_cannot_be_written_is_told(house):
    job = house.submit(video_blocks=BLOCKS)
    house.through(job)
    (house.out / "my task" / "manifest.json").mkdir()
    outcome = house.do("manifest", job)
    assert "manifest.json" in outcome.result["problem"]
    assert (house.out / "my task" / "manifest.csv").is_file()


# The rest


def test_a_webhook_is_handed_on(house):
    payload = {"url": "https://a.example/hook", "id": "1", "body": "{}"}
    assert house.do("webhook", "j0", **payload).failure is None
    assert house.sent == [payload]


def test_a_webhook_that_fails_says_when_to_try_again(house):
    def fails(payload, cancelled):
        raise WebhookError("a.example answered 503", code="unavailable", retryable=True, after=5)

    crew = Crew(house.tools, FolderDestination, fails)
    unit = house.unit("webhook", "j0", url="", id="", body="")
    failure = crew.perform(unit, house.ledger, threading.Event(), lambda _: None).failure
    assert (failure.code, failure.retryable, failure.after) == ("unavailable", True, 5)
    crew.close()


def test_a_job_that_is_gone_is_said(house):
    assert house.do("batch", "nobody", indexes=[1]).failure.code == "no_such_job"


def test_an_error_of_ours_is_a_failure_with_its_trace_in_the_log(house):
    failure = house.do("segment", house.submit(video_blocks=BLOCKS)).failure
    assert (failure.code, failure.retryable) == ("unexpected", False)
    assert "report it" in failure.public
    (event,) = house.events(event="unexpected")
    assert "KeyError" in event["exception"]


def test_several_units_of_a_job_may_run_at_once(house):
    job = house.submit(video_blocks=BLOCKS, **SOUND)
    outcomes = {}

    def one(name):
        outcomes[name] = house.do("source", job, source=name, base=str(house.base), since=1.0)

    threads = [threading.Thread(target=one, args=(name,)) for name in ("a.mp4", "b.mp4", "c.mp4", "song.wav")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name: outcome.result["source"]["label"] for name, outcome in outcomes.items()} == {
        name: name for name in ("a.mp4", "b.mp4", "c.mp4", "song.wav")
    }
    assert all(outcome.spent["probe"].count == 1 for outcome in outcomes.values())


# Benches


def leases(house):
    return [path for path in house.tools.artifacts.blob("00", "").parent.parent.parent.glob("jobs/*") if path.is_dir()]


def test_benches_are_given_back_when_there_are_too_many(house):
    benches = Benches(house.tools)
    with benches.at("busy"):
        for number in range(MOST + 3):
            with benches.at(str(number)):
                pass
        assert len(benches) == len(leases(house)) == MOST
        with benches.at("busy") as again:
            assert again.users == 2
    benches.close()
    assert leases(house) == []


def test_benches_are_given_back_when_idle_or_forgotten(house):
    time = SimpleNamespace(now=0.0)
    benches = Benches(house.tools, lambda: time.now)
    for name in ("a", "b"):
        with benches.at(name):
            pass
    time.now = 601
    with benches.at("b"):
        benches.forget("b")
        benches.tidy()
        assert len(benches) == 1
    assert len(benches) == len(leases(house)) == 0


def test_a_bench_keeps_its_lease_between_units(house):
    benches = Benches(house.tools)
    with benches.at("a") as first:
        pass
    with benches.at("a") as second:
        assert second is first
    benches.close()


def test_outputs_are_those_of_the_units_words(house):
    job = house.submit(video_blocks={"one": ["a.mp4"]})
    _, batch = house.through(job)
    (output,) = batch.outputs
    assert isinstance(output, Output)
    assert (len(output.sha256), len(output.recipe)) == (64, 64)
    assert int(output.recipe, 16) >= 0


def test_what_is_added_changes_nothing_before_it_is_planned(house):
    job = house.submit(video_blocks={"one": ["a.mp4"], "two": ["c.mp4"]})
    house.prepare(job)
    house.plan(job)
    house.crew.forget(job)
    record = house.ledger.jobs[job]
    house.ledger.jobs[job] = replace(record, extensions=({"video_blocks": {"one": ["b.mp4"]}},))
    outcome = house.batch(job, [1])
    assert (outcome.failure, [output.error for output in outcome.outputs]) == (None, [None])
