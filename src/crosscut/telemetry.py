"""What happens, told twice: structured log lines (one JSON event a line) and progress for whoever watches."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import structlog

from crosscut.tracing import NoTracer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

    from crosscut.errors import CrosscutError
    from crosscut.tracing import Tracer

SECRET_KEYS = re.compile(r"authorization|api[_-]?key|token|secret|password|signature|cookie", re.IGNORECASE)
CREDENTIALS = re.compile(r"(?<=://)[^/\s@\"']*@")
QUERY = re.compile(r"(?<=\S)[?#][^\s\"']+")
LINE_BREAKS = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}
"""What JSON leaves as it is and some readers of lines take for an end."""


class Watcher(Protocol):
    """Sees a job's progress, in pieces of a stage and parts of them; called from several threads."""

    def stage(self, name: str, done: float, total: int | None) -> None: ...

    def flow(self, written: int, per_second: float | None) -> None:
        """Bytes of videos that are delivered."""
        ...


class Silent:
    def stage(self, name: str, done: float, total: int | None) -> None:
        pass

    def flow(self, written: int, per_second: float | None) -> None:
        pass


class Telemetry:
    """One job's clock, log and progress. Thread-safe."""

    def __init__(
        self,
        watcher: Watcher | None = None,
        streams: Sequence[TextIO] = (),
        clock: Callable[[], float] = time.monotonic,
        tracer: Tracer | None = None,
    ) -> None:
        self.watcher = watcher or Silent()
        self.log = event_log(streams)
        self.clock = clock
        self._tracer = tracer or NoTracer()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.finished: defaultdict[str, int] = defaultdict(int)
        self._done: defaultdict[str, int] = defaultdict(int)
        self._total: dict[str, int | None] = {}
        self._begun: defaultdict[str, dict[object, float]] = defaultdict(dict)
        self._lock = threading.Lock()

    def expect(self, stage: str, total: int | None) -> None:
        with self._lock:
            self._total[stage] = total
        self._show(stage)

    def advance(self, stage: str) -> None:
        with self._lock:
            self._done[stage] += 1
        self._show(stage)

    @contextmanager
    def piece(self, stage: str) -> Iterator[Callable[[float], None]]:
        """One long piece of `stage`: call what is given with the fraction that is done; it counts when it ends."""
        token = object()

        def report(fraction: float) -> None:
            with self._lock:
                self._begun[stage][token] = fraction
            self._show(stage)

        try:
            yield report
        finally:
            with self._lock:
                self._begun[stage].pop(token, None)
            self.advance(stage)

    def _show(self, stage: str) -> None:
        with self._lock:
            done = self._done[stage] + sum(self._begun[stage].values())
            total = self._total.get(stage)
        self.watcher.stage(stage, done, total)

    @contextmanager
    def timed(self, stage: str, **fields: Any) -> Iterator[None]:
        """Log how long one process of `stage` took, and add it to the stage's sum."""
        start = self.clock()
        outcome = "failed"
        try:
            with self._tracer.stage(stage, fields):
                yield
            outcome = "done"
        finally:
            seconds = self.clock() - start
            with self._lock:
                self.seconds[stage] += seconds
                self.finished[stage] += outcome == "done"
            self.log.info("process ended", stage=stage, outcome=outcome, seconds=round(seconds, 4), **fields)

    def failed(self, error: CrosscutError, **fields: Any) -> None:
        """Log why something was given up; `detail` is for this line only."""
        stage, code = error.stage, error.code
        if code == "cancelled":
            return
        self.log.warning("given up", stage=stage, code=code, reason=error.public, detail=error.detail, **fields)


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Take credentials and signed queries out of every value of a log line."""
    return {key: "[redacted]" if SECRET_KEYS.search(key) else _redacted(value) for key, value in event.items()}


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return QUERY.sub("", CREDENTIALS.sub("", value)) if "://" in value else value
    if isinstance(value, dict):
        return {k: "[redacted]" if SECRET_KEYS.search(str(k)) else _redacted(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(item) for item in value]
    return value


def event_log(streams: Sequence[TextIO]) -> FilteringBoundLogger:
    """A log that writes each event as one line of JSON to every stream; none means silence. Nothing global is set."""
    log: FilteringBoundLogger = structlog.wrap_logger(
        _Lines(streams),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    return log


class _Lines:
    """Writes each event as one line to every stream."""

    _lock = threading.Lock()

    def __init__(self, streams: Sequence[TextIO]) -> None:
        self._streams = streams

    def msg(self, message: str) -> None:
        with self._lock:
            for stream in self._streams:
                stream.write(message.translate(LINE_BREAKS) + "\n")
                stream.flush()

    log = debug = info = warning = warn = error = critical = exception = fatal = failure = msg
