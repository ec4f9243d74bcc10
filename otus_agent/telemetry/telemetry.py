"""Telemetry as the daemon starts and stops it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter, ObservableGauge
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry

from otus_agent.telemetry.endpoint import Endpoint
from otus_agent.telemetry.instruments import HistogramCollector, register
from otus_agent.telemetry.reading import Reader

log = logging.getLogger("otus.telemetry")

# Series of one instrument before the SDK folds further ones into one. A thousand
# pipelines with ninety counters each are more than an agent will run.
MAX_SERIES = 100_000
LOOP_TIMEOUT_S = 2.0


class Telemetry:
    """Metrics of an agent: Prometheus endpoint, health checks, OTLP push.

    Args:
        agent: looked at when somebody asks; nothing is counted here.
    """

    def __init__(self, agent: Any) -> None:
        self._agent = agent
        self._provider: MeterProvider | None = None
        self._endpoint: Endpoint | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def port(self) -> int:
        """The port of the endpoint; 0 while it is not started."""
        return self._endpoint.port if self._endpoint is not None else 0

    async def start(self) -> None:
        """Opens the endpoint.

        Raises:
            OSError: the address is taken, or a file of the configuration can't be read.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._start)
        self._agent.parts["metrics"] = self.status
        log.info("metrics are served on port %d", self.port)

    def _start(self) -> None:
        config = self._agent.config.metrics
        registry = CollectorRegistry()
        reader = Reader(self._agent)
        limits: dict[Any, int] = {ObservableCounter: MAX_SERIES, ObservableGauge: MAX_SERIES}
        readers: list[MetricReader] = [
            PrometheusMetricReader(
                disable_target_info=True,
                scope_info_enabled=False,
                registry=registry,
                cardinality_limits=limits,
            )
        ]
        if config.otlp is not None:
            from otus_agent.telemetry.otlp import otlp_reader

            readers.append(otlp_reader(config.otlp, reader))
        self._provider = MeterProvider(
            metric_readers=readers,
            resource=Resource.create(
                {"service.name": "otus", "service.instance.id": self._agent.agent_id}
            ),
            shutdown_on_exit=False,
        )
        register(self._provider, reader)
        HistogramCollector(reader, registry)
        self._endpoint = Endpoint(
            config, registry, reader.one_reading, self._check_health, self._check_ready
        )

    def status(self) -> dict[str, Any]:
        """Where metrics are to be had."""
        return {"port": self.port, "path": self._agent.config.metrics.path}

    async def stop(self) -> None:
        """Closes the endpoint and pushes a last time. Safe without start, safe twice."""
        endpoint, self._endpoint = self._endpoint, None
        provider, self._provider = self._provider, None
        if endpoint is not None:
            await asyncio.to_thread(endpoint.close)
        if provider is not None:
            await asyncio.to_thread(provider.shutdown, 2000)

    def _check_health(self) -> str:
        """Whether the event loop still turns: asked from another thread."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return "event loop is gone"
        answered: concurrent.futures.Future[None] = concurrent.futures.Future()
        try:
            loop.call_soon_threadsafe(answered.set_result, None)
            answered.result(LOOP_TIMEOUT_S)
        except RuntimeError:
            return "event loop is gone"
        except TimeoutError:
            return f"event loop has not answered for {LOOP_TIMEOUT_S:g} s"
        return ""

    def _check_ready(self) -> str:
        if self._agent.shutdown_requested.is_set():
            return "stopping"
        return self._check_health()
