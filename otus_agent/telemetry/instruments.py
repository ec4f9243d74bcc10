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
from otus_agent.telemetry.metrics import METRICS, PIPELINE_LATENCY, REPORTER_LATENCY, Kind, Metric
from otus_agent.telemetry.reading import DeliveryReading, Reader, TaskReading

# Bucket i of the core counts durations below 2^(i+4) ns. Every second bound is worth
# a series, from 64 ns to 17 s: what is below or above that is in the first or last.
_BOUNDS = range(2, 31, 2)
_CORE_BOUNDS = [*(repr(2.0 ** (i + 4) / 1e9) for i in _BOUNDS), "+Inf"]
_REPORT_BOUNDS = [*map(repr, LATENCY_BOUNDS_S), "+Inf"]


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


Buckets = list[tuple[str, float]]
"""Upper bounds as text, and how many samples are at or below each."""


class LatencyCollector:
    """Gives the core's sampled histograms, and the reporters', to a Prometheus registry."""

    def __init__(self, reader: Reader, registry: CollectorRegistry) -> None:
        self._reader = reader
        registry.register(self)

    def describe(self) -> Iterable[Family]:
        """Names the metrics without a reading."""
        yield _family(PIPELINE_LATENCY)
        yield _family(REPORTER_LATENCY)

    def collect(self) -> Iterable[Family]:
        """A histogram for each task and stage, its pipelines added up, and for each reporter."""
        stages, reporters = _family(PIPELINE_LATENCY), _family(REPORTER_LATENCY)
        for task in self._reader.read().tasks:
            for stage, buckets, sum_s in _core_stages(task):
                stages.add_metric([task.task, stage], buckets, sum_s)
            if task.deliveries:
                stages.add_metric([task.task, "report"], *_delivered(task.deliveries))
            for delivery in task.deliveries:
                reporters.add_metric([task.task, delivery.account.name], *_delivered([delivery]))
        yield stages
        yield reporters


def _family(metric: Metric) -> HistogramMetricFamily:
    return HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)


def _core_stages(task: TaskReading) -> Iterable[tuple[str, Buckets, float]]:
    stages = dict.fromkeys(stage for pipeline in task.pipelines for stage in pipeline.latency)
    for stage in stages:
        histograms = [p.latency[stage] for p in task.pipelines if stage in p.latency]
        counts = [sum(column) for column in zip(*(h.buckets for h in histograms), strict=True)]
        below = list(accumulate(counts))
        totals = [*(float(below[i]) for i in _BOUNDS), float(below[-1])]
        buckets = list(zip(_CORE_BOUNDS, totals, strict=True))
        yield stage, buckets, sum(h.sum_ns for h in histograms) / 1e9


def _delivered(deliveries: Sequence[DeliveryReading]) -> tuple[Buckets, float]:
    columns = zip(*(delivery.latency_buckets for delivery in deliveries), strict=True)
    totals = map(float, accumulate(sum(column) for column in columns))
    buckets = list(zip(_REPORT_BOUNDS, totals, strict=True))
    return buckets, sum(delivery.latency_sum_s for delivery in deliveries)
