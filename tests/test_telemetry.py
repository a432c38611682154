"""One JSON event a line, and no secret in any of them."""

from __future__ import annotations

import io
import json

import pytest

from crosscut.errors import FetchError, SandboxError
from crosscut.telemetry import Telemetry


@pytest.fixture
def lines():
    """The events written so far, and the stream they are written to as `lines.stream`."""

    class Lines:
        stream = io.StringIO()

        def __call__(self):
            return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    return Lines()


class Seen:
    def __init__(self):
        self.calls = []

    def stage(self, name, done, total):
        self.calls.append((name, done, total))


@pytest.mark.parametrize(
    "text",
    [
        "https://bucket.example/a b.mp4?X-Goog-Signature=CANARY",
        "cannot fetch https://user:CANARY@example.com/a.mp4 now",
        "HTTPS://EXAMPLE.COM/a.mp4?token=CANARY#CANARY",
        'gs://bucket/a.mp4?sig=CANARY"',
        "https://example.com/a.mp4?CANARY",
    ],
)
def test_credentials_and_signed_queries_never_reach_a_line(lines, text):
    log = Telemetry(streams=[lines.stream]).log
    log.info(text, source=text, nested={"url": text, "list": [text]})
    log.info("keys", api_key="CANARY", Authorization="Bearer CANARY", nested={"xi-api-key": "CANARY"})
    assert "CANARY" not in json.dumps(lines())
    assert "example" in json.dumps(lines()).lower() or "bucket" in json.dumps(lines())


def test_an_event_stays_on_one_line_whatever_it_holds(lines):
    Telemetry(streams=[lines.stream]).log.info("x\ny", source='a\r\n"b"\u001b[31m\u2028')
    (event,) = lines()
    assert event["source"] == 'a\r\n"b"\u001b[31m\u2028'


def test_processes_are_timed_and_summed_by_stage(lines):
    clock = iter([0.0, 1.5, 10.0, 10.25])
    told = Telemetry(streams=[lines.stream], clock=lambda: next(clock))
    with told.timed("conform", source="a.mp4"):
        pass
    with pytest.raises(ValueError, match="no"), told.timed("conform", source="b.mp4"):
        raise ValueError("no")
    assert told.seconds["conform"] == 1.75
    assert told.finished["conform"] == 1
    assert [(event["outcome"], event["seconds"], event["source"]) for event in lines()] == [
        ("done", 1.5, "a.mp4"),
        ("failed", 0.25, "b.mp4"),
    ]


def test_what_was_cancelled_is_not_reported_as_given_up(lines):
    told = Telemetry(streams=[lines.stream])
    told.failed(SandboxError("stopped", code="cancelled"))
    told.failed(FetchError("a.mp4 answers 404", code="not_found", detail="HTTP 404"), source="a.mp4")
    (event,) = lines()
    assert (event["reason"], event["code"], event["detail"]) == ("a.mp4 answers 404", "not_found", "HTTP 404")


def test_parts_of_long_pieces_count_as_progress():
    seen = Seen()
    told = Telemetry(seen)
    told.expect("conform", 2)
    with told.piece("conform") as report:
        report(0.25)
        report(0.5)
    with pytest.raises(FetchError), told.piece("conform") as report:
        report(0.9)
        raise FetchError("gone")
    told.advance("conform")
    assert [done for _, done, _ in seen.calls] == [0, 0.25, 0.5, 1, 1.9, 2, 3]
