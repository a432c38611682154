"""The service's amounts in Prometheus' text format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    UntypedMetricFamily,
)
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.core import Metric

    from crosscut.ports import Histogram, Metrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

QUEUE_LABELS = ("kind", "lane", "state")

_Family = type[CounterMetricFamily] | type[GaugeMetricFamily] | type[UntypedMetricFamily]


def exposition(metrics: Callable[[], Metrics]) -> Callable[[], bytes]:
    """What writes the text; `metrics` is asked anew each time, the process itself is measured too."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Amounts(metrics))
    return lambda: generate_latest(registry)


class _Amounts(Collector):
    def __init__(self, metrics: Callable[[], Metrics]) -> None:
        self._metrics = metrics

    def describe(self) -> Iterator[Metric]:
        """Nothing, so that registering asks nothing."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        now = self._metrics()
        yield _family(
            GaugeMetricFamily, "queue_depth", "Units of work by kind, lane and state.", QUEUE_LABELS, now.queue_depth
        )
        yield _family(
            GaugeMetricFamily,
            "queue_oldest_seconds",
            "Age of the unit that waits longest for a worker.",
            ("lane",),
            now.queue_oldest_seconds,
        )
        yield GaugeMetricFamily("crosscut_backlog_variations", "Variations still to come.", now.backlog)
        yield _unit_seconds(now.unit_seconds)
        yield _family(CounterMetricFamily, "retries", "Attempts to be made again by error.", ("cause",), now.retries)
        yield _family(
            CounterMetricFamily,
            "units_lost",
            "Attempts that came to nothing by how they were lost.",
            ("how",),
            now.lost,
        )
        yield GaugeMetricFamily("crosscut_ready", "1 when /readyz says so.", float(now.ready))
        yield _family(CounterMetricFamily, "stage_seconds", "Seconds of work by stage.", ("stage",), now.stage_seconds)
        yield _family(UntypedMetricFamily, "stage_seconds_count", "Executions by stage.", ("stage",), now.stage_count)
        yield _family(CounterMetricFamily, "variations", "Variations by outcome.", ("outcome",), now.variations)
        yield _family(CounterMetricFamily, "bytes", "Bytes fetched and delivered.", ("direction",), now.bytes)
        yield _family(CounterMetricFamily, "cache", "Pieces asked of the store by result.", ("result",), now.cache)
        yield CounterMetricFamily("crosscut_voice_characters", "Characters that were spoken.", now.voice_characters)
        yield CounterMetricFamily("crosscut_units_resent", "Units sent again that nobody had begun.", now.resent)
        yield CounterMetricFamily(
            "crosscut_voice_cost_dollars", "What voice-overs cost by the provider's list.", now.voice_dollars
        )
        yield _family(GaugeMetricFamily, "jobs", "Jobs by state.", ("state",), now.jobs)
        yield _family(GaugeMetricFamily, "workers", "Workers by lane and state.", ("lane", "state"), now.workers)
        yield GaugeMetricFamily(
            "crosscut_worker_busy_ratio", "Share of the workers' time that was work.", now.worker_busy_ratio
        )


def _family(
    kind: _Family,
    name: str,
    told: str,
    labels: tuple[str, ...],
    amounts: Mapping[str, float] | Mapping[tuple[str, str], int] | Mapping[tuple[str, str, str], int],
) -> Metric:
    family = kind(f"crosscut_{name}", told, labels=labels)
    for values, amount in amounts.items():
        family.add_metric([values] if isinstance(values, str) else list(values), amount)
    return family


def _unit_seconds(found: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily("crosscut_unit_seconds", "Seconds that attempts took by kind.", labels=("kind",))
    for kind, one in found.items():
        family.add_metric([kind], [(str(bound).replace("inf", "+Inf"), count) for bound, count in one.counts], one.sum)
    return family
