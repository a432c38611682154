"""The service's amounts in Prometheus' text format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, UntypedMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.core import Metric

    from crosscut.ports import Metrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

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
            GaugeMetricFamily, "queue_depth", "Units of work by kind and state.", ("kind", "state"), now.queue_depth
        )
        yield GaugeMetricFamily(
            "crosscut_queue_oldest_seconds", "Age of the unit that waits longest.", now.queue_oldest_seconds
        )
        yield _family(CounterMetricFamily, "stage_seconds", "Seconds of work by stage.", ("stage",), now.stage_seconds)
        yield _family(UntypedMetricFamily, "stage_seconds_count", "Executions by stage.", ("stage",), now.stage_count)
        yield _family(CounterMetricFamily, "variations", "Variations by outcome.", ("outcome",), now.variations)
        yield _family(CounterMetricFamily, "bytes", "Bytes fetched and delivered.", ("direction",), now.bytes)
        yield _family(CounterMetricFamily, "cache", "Pieces asked of the store by result.", ("result",), now.cache)
        yield CounterMetricFamily("crosscut_voice_characters", "Characters that were spoken.", now.voice_characters)
        yield CounterMetricFamily("crosscut_units_resent", "Units sent again that nobody had begun.", now.resent)
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
    amounts: Mapping[str, float] | Mapping[tuple[str, str], int],
) -> Metric:
    family = kind(f"crosscut_{name}", told, labels=labels)
    for values, amount in amounts.items():
        family.add_metric([values] if isinstance(values, str) else list(values), amount)
    return family
