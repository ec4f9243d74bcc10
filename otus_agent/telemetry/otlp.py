"""Pushing metrics by OTLP, the core's histograms among them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData

from otus_agent.config.metrics import OtlpConfig
from otus_agent.telemetry.instruments import Histogram, read_histograms
from otus_agent.telemetry.metrics import Metric as Row
from otus_agent.telemetry.reading import Reader


def otlp_reader(config: OtlpConfig, reader: Reader) -> MetricReader:
    """Pushes at the configured interval, from a thread of its own."""
    exporter = _Exporter(
        reader,
        endpoint=config.endpoint,
        timeout=config.timeout,
        headers={name: value.get_secret_value() for name, value in config.headers.items()},
    )
    return PeriodicExportingMetricReader(
        exporter,
        export_interval_millis=config.interval * 1000,
        export_timeout_millis=config.timeout * 1000,
    )


class _Exporter(OTLPMetricExporter):
    """Adds the histograms, which no OpenTelemetry instrument can take whole."""

    def __init__(self, reader: Reader, **options: Any) -> None:
        super().__init__(**options)
        self._histograms = reader

    def export(
        self, metrics_data: MetricsData, timeout_millis: float | None = 10_000, **kwargs: Any
    ) -> MetricExportResult:
        read = read_histograms(self._histograms.read())
        made = [_metric(row, histograms) for row, histograms in read.items() if histograms]
        # Into the scope of the others: one encoded twice would overwrite itself.
        resources = [
            dataclasses.replace(
                resource,
                scope_metrics=[
                    dataclasses.replace(scope, metrics=[*scope.metrics, *made])
                    for scope in resource.scope_metrics
                ],
            )
            for resource in metrics_data.resource_metrics
        ]
        metrics_data = dataclasses.replace(metrics_data, resource_metrics=resources)
        return super().export(metrics_data, timeout_millis, **kwargs)


def _metric(row: Row, histograms: Iterable[Histogram]) -> Metric:
    now = time.time_ns()
    points = [
        HistogramDataPoint(
            attributes=dict(zip(row.labels, one.labels, strict=True)),
            start_time_unix_nano=now - round(one.uptime_s * 1e9),
            time_unix_nano=now,
            count=sum(one.counts),
            sum=one.sum_s,
            bucket_counts=list(one.counts),
            explicit_bounds=list(one.bounds_s),
            # The core keeps no extremes; in the protocol they are optional.
            min=None,  # type: ignore[arg-type]
            max=None,  # type: ignore[arg-type]
        )
        for one in histograms
    ]
    data = HistogramData(points, AggregationTemporality.CUMULATIVE)
    return Metric(row.name, row.meaning, "s", data)
