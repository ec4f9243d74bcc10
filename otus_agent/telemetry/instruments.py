"""OpenTelemetry instruments over the table of metrics, and the core's histograms.

A histogram that the core has filled can't be given to an OpenTelemetry
instrument, which wants single values (13 µs each): it goes onto the same
Prometheus registry as a collector of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.core import Metric as Family

from otus_agent.bridge import LATENCY_BOUNDS_S
from otus_agent.telemetry.metrics import METRICS, PIPELINE_LATENCY, Kind, Metric
from otus_agent.telemetry.reading import Reader, TaskReading

# Bucket i of the core counts durations below 2^(i+4) ns. Below 64 ns and above
# 17 s nothing is worth a series of its own.
_FIRST_BUCKET = 2
_LAST_BUCKET = 30


def register(provider: MeterProvider, reader: Reader) -> None:
    """Makes one observable instrument for each metric of the table that is no histogram."""
    meter = provider.get_meter("otus")
    for metric in METRICS:
        callbacks = [_callback(metric, reader)]
        if metric.kind is Kind.COUNTER:
            # The exporter adds `_total` itself.
            name = metric.name.removesuffix("_total")
            meter.create_observable_counter(name, callbacks, description=metric.meaning)
        elif metric.kind is Kind.GAUGE:
            meter.create_observable_gauge(metric.name, callbacks, description=metric.meaning)


def _callback(metric: Metric, reader: Reader) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        for value, label_values in metric.samples(reader.read()):
            yield Observation(value, dict(zip(metric.labels, label_values, strict=True)))

    return observe


class LatencyCollector:
    """Gives the core's sampled histograms, and the reporters', to a Prometheus registry."""

    def __init__(self, reader: Reader, registry: CollectorRegistry) -> None:
        self._reader = reader
        registry.register(self)

    def describe(self) -> Iterable[Family]:
        """Names the metric without a reading."""
        yield self._family()

    def collect(self) -> Iterable[Family]:
        """One histogram a task and stage, the task's pipelines added up."""
        family = self._family()
        for task in self._reader.read().tasks:
            for stage, buckets, sum_s in (*_core_stages(task), *_report_stage(task)):
                family.add_metric([task.task, stage], buckets, sum_s)
        yield family

    @staticmethod
    def _family() -> HistogramMetricFamily:
        return HistogramMetricFamily(
            PIPELINE_LATENCY.name, PIPELINE_LATENCY.meaning, labels=PIPELINE_LATENCY.labels
        )


Stage = tuple[str, list[tuple[str, float]], float]


def _cumulative(bounds: Sequence[str], counts: Sequence[int]) -> list[tuple[str, float]]:
    return list(zip(bounds, map(float, accumulate(counts)), strict=True))


def _core_stages(task: TaskReading) -> Iterable[Stage]:
    stages = dict.fromkeys(stage for pipeline in task.pipelines for stage in pipeline.latency)
    bounds = [repr(2.0 ** (i + 4) / 1e9) for i in range(_FIRST_BUCKET, _LAST_BUCKET)] + ["+Inf"]
    for stage in stages:
        histograms = [p.latency[stage] for p in task.pipelines if stage in p.latency]
        counts = [sum(column) for column in zip(*(h.buckets for h in histograms), strict=True)]
        low = sum(counts[: _FIRST_BUCKET + 1])
        middle = counts[_FIRST_BUCKET + 1 : _LAST_BUCKET]
        high = sum(counts[_LAST_BUCKET:])
        yield (
            stage,
            _cumulative(bounds, [low, *middle, high]),
            sum(h.sum_ns for h in histograms) / 1e9,
        )


def _report_stage(task: TaskReading) -> Iterable[Stage]:
    if not task.deliveries:
        return
    bounds = [*(repr(bound) for bound in LATENCY_BOUNDS_S), "+Inf"]
    counts = [
        sum(column) for column in zip(*(d.latency_buckets for d in task.deliveries), strict=True)
    ]
    yield "report", _cumulative(bounds, counts), sum(d.latency_sum_s for d in task.deliveries)
