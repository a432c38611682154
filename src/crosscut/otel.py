"""Traces sent by OpenTelemetry's SDK, with OTLP over HTTP.

Made after a process was forked, since the thread that sends does not survive a fork. What else the SDK lets one choose
comes from its own variables: `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_RESOURCE_ATTRIBUTES` …
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    get_current_span,
    set_span_in_context,
    use_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from crosscut.errors import CrosscutError
from crosscut.telemetry import SECRET_KEYS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from opentelemetry.context import Context
    from opentelemetry.util.types import AttributeValue

    from crosscut.tracing import Told

SEND_SECONDS = 5
"""How long a collector may take to answer."""

LONGEST_WORD = 200

_W3C = TraceContextTextMapPropagator()
_wanted: ContextVar[int | None] = ContextVar("wanted span id", default=None)


class OtelTracer:
    """Implements `tracing.Tracer`."""

    def __init__(self, endpoint: str, version: str) -> None:
        """`endpoint` is a collector's base address, such as http://collector:4318."""
        resource = Resource.create({"service.version": version} | ({} if _is_named() else {"service.name": "crosscut"}))
        self._provider = TracerProvider(resource=resource, id_generator=_Ids())
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=SEND_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("crosscut", version)

    @contextmanager
    def request(self, parent: str | None) -> Iterator[Told]:
        with self._span("request", _context(parent), SpanKind.SERVER) as span:

            def told(name: str, fields: Mapping[str, Any]) -> None:
                span.update_name(name)
                span.set_attributes(_attributes(fields, ""))
                if fields.get("http.response.status_code", 0) >= 500:
                    span.set_status(Status(StatusCode.ERROR))

            yield told

    def current(self) -> str | None:
        carrier: dict[str, str] = {}
        _W3C.inject(carrier)
        return carrier.get("traceparent")

    @contextmanager
    def unit(
        self, trace: str | None, job: str, kind: str, fields: Mapping[str, Any]
    ) -> Iterator[Callable[[str], None]]:
        asked = _asked(trace)
        if asked is None:
            yield lambda _code: None
            return
        parent = SpanContext(asked.trace_id, _span_id(job), is_remote=True, trace_flags=asked.trace_flags)
        with self._span(kind, set_span_in_context(NonRecordingSpan(parent)), SpanKind.CONSUMER) as span:
            span.set_attributes(_attributes(fields))
            yield lambda code: span.set_status(Status(StatusCode.ERROR, code))

    @contextmanager
    def stage(self, name: str, fields: Mapping[str, Any]) -> Iterator[None]:
        if not get_current_span().is_recording():
            yield
            return
        with self._span(name) as span:
            span.set_attributes(_attributes(fields))
            try:
                yield
            except BaseException as error:
                code = error.code if isinstance(error, CrosscutError) else type(error).__name__
                span.set_status(Status(StatusCode.ERROR, code))
                raise

    def job(self, trace: str | None, job: str, created: float, ended: float, fields: Mapping[str, Any]) -> None:
        asked = _asked(trace)
        if asked is None:
            return
        token = _wanted.set(_span_id(job))
        try:
            context = set_span_in_context(NonRecordingSpan(asked))
            span = self._tracer.start_span("job", context, start_time=int(created * 1e9))
        finally:
            _wanted.reset(token)
        span.set_attributes(_attributes({"job": job, **fields}))
        span.end(int(ended * 1e9))

    def close(self) -> None:
        self._provider.shutdown()

    @contextmanager
    def _span(self, name: str, context: Context | None = None, kind: SpanKind = SpanKind.INTERNAL) -> Iterator[Span]:
        span = self._tracer.start_span(name, context, kind)
        # The words of an exception may hold whatever it is about: they stay in the log.
        with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield span


class _Ids(RandomIdGenerator):
    """A job's span is told when it has ended, but its units name it as their parent before."""

    def generate_span_id(self) -> int:
        return _wanted.get() or super().generate_span_id()


def _span_id(job: str) -> int:
    """Never 0, which is no id."""
    return int.from_bytes(blake2b(job.encode(), digest_size=8).digest()) or 1


def _context(traceparent: str | None) -> Context:
    carrier = {"traceparent": traceparent} if traceparent else {}
    return _W3C.extract(carrier, set_span_in_context(INVALID_SPAN))


def _asked(traceparent: str | None) -> SpanContext | None:
    """The span that asked for a job."""
    found = get_current_span(_context(traceparent)).get_span_context()
    return found if found.is_valid else None


def _attributes(fields: Mapping[str, Any], prefix: str = "crosscut.") -> dict[str, AttributeValue]:
    return {f"{prefix}{name}": value for name, value in fields.items() if _is_harmless(name, value)}


def _is_harmless(name: str, value: object) -> bool:
    if isinstance(value, str):
        return "://" not in value and len(value) <= LONGEST_WORD and not SECRET_KEYS.search(name)
    return isinstance(value, bool | int | float)


def _is_named() -> bool:
    return "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
