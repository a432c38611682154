"""One trace from a request to its delivered files, as a collector on a real socket gets it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import Counter

import httpx2
import pytest

from clips import make_clip
from collecting import attributes
from crosscut.errors import CrosscutError
from crosscut.otel import OtelTracer
from crosscut.telemetry import Telemetry
from serving import eventually, files_served, serving

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
SECRET = "canary-in-a-signature"


@pytest.fixture
def tracer(collector):
    with contextlib.closing(OtelTracer(collector.url, "1.0")) as tracer:
        yield tracer


def test_one_trace_leads_from_the_request_to_the_delivered_file(tmp_path, collector):
    sources = tmp_path / "sources"
    sources.mkdir()
    for number in range(3):
        make_clip(sources / f"c{number}.mp4", frames=6, fps=24, size=(64, 96), first=number)
    with files_served(sources) as port:
        clips = [f"http://127.0.0.1:{port}/c{number}.mp4?signature={SECRET}" for number in range(3)]
        request = {
            "task_name": "t",
            "video_blocks": {"a": clips[:1], "b": clips[1:]},
            "formats": ["64x96"],
            "fps": 30,
        }
        with serving(tmp_path, allow=f"127.0.0.1:{port}", otel_endpoint=collector.url) as server:
            headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
            answer = httpx2.post(f"{server.url}/process_media", json=request, headers=headers)
            assert server.ended(answer.json()["id"])["succeeded"] == 2
            httpx2.get(f"{server.url}/metrics")
            # Another request is another trace, and looking at jobs is none of this one's business.
            assert httpx2.get(f"{server.url}/jobs/none", headers={"traceparent": "nonsense"}).status_code == 404
            eventually(lambda: collector.named("job"))
            eventually(lambda: len(collector.named("deliver")) == 2)
            eventually(lambda: collector.named("GET /jobs/{job}"))
    ours = [span for span in collector.spans if span.trace_id.hex() == TRACE]
    by_id = {span.span_id: span for span in ours}
    assert len(by_id) == len(ours)
    (asked,), (job,) = collector.named("POST /process_media"), collector.named("job")
    assert asked.parent_span_id.hex() == CALLER
    assert job.parent_span_id == asked.span_id
    units = [span for span in ours if span.parent_span_id == job.span_id]
    kinds = Counter(span.name for span in units)
    assert (kinds["source"], kinds["plan"], kinds["segment"], kinds["manifest"]) == (3, 1, 3, 1)
    assert kinds["batch"] >= 1
    for name, unit in (("fetch", "source"), ("probe", "source"), ("conform", "segment"), ("deliver", "batch")):
        assert {by_id[span.parent_span_id].name for span in collector.named(name)} == {unit}
    assert sorted(attributes(span)["crosscut.variation"] for span in collector.named("deliver")) == [1, 2]
    for unit in units:
        told = attributes(unit)
        assert (told["crosscut.job"], told["crosscut.kind"]) == (answer.json()["id"], unit.name)
        assert job.start_time_unix_nano <= unit.start_time_unix_nano <= unit.end_time_unix_nano
    assert attributes(job)["crosscut.succeeded"] == 2
    assert not any("://" in str(span) or SECRET in str(span) for span in collector.spans)
    assert all(span.trace_id.hex() != TRACE for span in collector.named("GET /jobs/{job}"))
    assert not any("metrics" in span.name or "livez" in span.name for span in collector.spans)


def test_what_fails_is_told_by_its_code_alone(collector, tracer):
    telemetry = Telemetry(tracer=tracer)
    with tracer.request(None) as told:
        trace = tracer.current()
        told("POST /process_media", {"http.response.status_code": 500})
    with tracer.unit(trace, "job_1", "source", {"unit": 1, "token": "x", "from": "https://a.example/"}) as failed:
        with pytest.raises(CrosscutError), telemetry.timed("fetch", source="clip", attempt=2):
            raise CrosscutError(f"no answer from https://a.example/?{SECRET}", code="no_answer")
        failed("no_answer")
    tracer.close()
    (asked,), (unit,), (stage,) = (collector.named(name) for name in ("POST /process_media", "source", "fetch"))
    assert asked.status.code == unit.status.code == stage.status.code == 2
    assert (unit.status.message, stage.status.message) == ("no_answer", "no_answer")
    assert attributes(unit) == {"crosscut.unit": 1}
    assert attributes(stage) == {"crosscut.source": "clip", "crosscut.attempt": 2}
    assert not any(span.events for span in (asked, unit, stage))


def test_what_belongs_to_no_traced_request_is_not_traced(collector, tracer):
    with tracer.unit(None, "job_1", "source", {}), Telemetry(tracer=tracer).timed("fetch"):
        assert tracer.current() is None
    with tracer.unit("00-nonsense", "job_1", "source", {}) as failed:
        failed("code")
    tracer.job(None, "job_1", 1.0, 2.0, {})
    tracer.close()
    assert collector.spans == []


def test_a_caller_who_does_not_sample_is_heeded(collector, tracer):
    with tracer.request(f"00-{TRACE}-{CALLER}-00"):
        trace = tracer.current()
    with tracer.unit(trace, "job_1", "source", {}), Telemetry(tracer=tracer).timed("fetch"):
        pass
    tracer.job(trace, "job_1", 1.0, 2.0, {})
    tracer.close()
    assert collector.spans == []


def test_without_an_endpoint_nothing_of_opentelemetry_is_imported(tmp_path):
    code = """
import sys
from crosscut import bootstrap, cli, cluster
from crosscut.settings import Settings
settings = Settings(_env_file=None, data_dir=sys.argv[1])
crew = bootstrap.crew(bootstrap.crew_arguments(settings), sys.stderr)
crew.close()
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CROSSCUT_", "OTEL_"))}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=kept, check=True)
