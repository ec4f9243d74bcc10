"""OpenTelemetry instruments over the table of metrics, and the core's histograms.

A histogram that the core has filled can't be given to an OpenTelemetry
instrument, which wants single values (13 µs each): it goes onto the same
Prometheus registry as a collector of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.core import Metric as Family

from otus_agent.bridge import LATENCY_BOUNDS_S
from otus_agent.telemetry.metrics import METRICS, PIPELINE_LATENCY, REPORTER_LATENCY, Kind, Metric
from otus_agent.telemetry.reading import DeliveryReading, Reader, Reading, TaskReading

# Bucket i of the core counts durations below 2^(i+4) ns. Every second bound is worth
# a series, from 64 ns to 17 s: what is below or above that is in the first or last.
_STEP = 2
_CORE_BUCKETS = range(2, 31, _STEP)
_CORE_BOUNDS_S = tuple(2.0 ** (i + 4) / 1e9 for i in _CORE_BUCKETS)


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


@dataclass(frozen=True, slots=True)
class Histogram:
    """One series of a histogram metric.

    Attributes:
        labels: values, in the metric's order.
        bounds_s: of the buckets, rising; the last bucket has none.
        counts: samples in each bucket, one more than there are bounds.
        sum_s: of the samples.
        uptime_s: of the task: since when the samples are.
    """

    labels: tuple[str, ...]
    bounds_s: Sequence[float]
    counts: Sequence[int]
    sum_s: float
    uptime_s: float


def read_histograms(reading: Reading) -> dict[Metric, list[Histogram]]:
    """The histograms of each task's stages, pipelines added up, and of its reporters."""
    stages: list[Histogram] = []
    reporters: list[Histogram] = []
    for task in reading.tasks:
        stages += _core_stages(task)
        if task.deliveries:
            stages.append(_delivered(task, "report", task.deliveries))
        reporters += [_delivered(task, one.account.name, [one]) for one in task.deliveries]
    return {PIPELINE_LATENCY: stages, REPORTER_LATENCY: reporters}


def _core_stages(task: TaskReading) -> Iterable[Histogram]:
    for stage in dict.fromkeys(stage for one in task.pipelines for stage in one.latency):
        latencies = [one.latency[stage] for one in task.pipelines if stage in one.latency]
        fine = [sum(column) for column in zip(*(one.buckets for one in latencies), strict=True)]
        first, last = _CORE_BUCKETS[0], _CORE_BUCKETS[-1]
        counts = [
            sum(fine[: first + 1]),
            *(sum(fine[i - _STEP + 1 : i + 1]) for i in _CORE_BUCKETS[1:]),
            sum(fine[last + 1 :]),
        ]
        sum_s = sum(one.sum_ns for one in latencies) / 1e9
        yield Histogram((task.task, stage), _CORE_BOUNDS_S, counts, sum_s, task.uptime_s)


def _delivered(task: TaskReading, name: str, deliveries: Sequence[DeliveryReading]) -> Histogram:
    columns = zip(*(one.latency_buckets for one in deliveries), strict=True)
    counts = [sum(column) for column in columns]
    sum_s = sum(one.latency_sum_s for one in deliveries)
    return Histogram((task.task, name), LATENCY_BOUNDS_S, counts, sum_s, task.uptime_s)


class HistogramCollector:
    """Gives the histograms to a Prometheus registry."""

    def __init__(self, reader: Reader, registry: CollectorRegistry) -> None:
        self._reader = reader
        registry.register(self)

    def describe(self) -> Iterable[Family]:
        """Names the metrics without a reading."""
        return map(_family, (PIPELINE_LATENCY, REPORTER_LATENCY))

    def collect(self) -> Iterable[Family]:
        """A family for each histogram metric."""
        for metric, histograms in read_histograms(self._reader.read()).items():
            family = _family(metric)
            for one in histograms:
                bounds = [*map(repr, one.bounds_s), "+Inf"]
                totals = map(float, accumulate(one.counts))
                family.add_metric(one.labels, list(zip(bounds, totals, strict=True)), one.sum_s)
            yield family


def _family(metric: Metric) -> HistogramMetricFamily:
    return HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
