"""One look at an agent: all that metrics are made of, taken at one moment."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import otus_core
from otus_agent.bridge import ReporterAccount
from otus_agent.ledger import SourceAccount

log = logging.getLogger("otus.telemetry")


@dataclass(frozen=True, slots=True)
class PipelineReading:
    """One pipeline: counters by group and reason, its latencies by stage."""

    pipeline: str
    counters: Mapping[str, Mapping[str, int]]
    latency: Mapping[str, otus_core.Latency]

    def group(self, *names: str) -> int:
        """The sum of the counters of some groups."""
        return sum(sum(self.counters.get(name, {}).values()) for name in names)

    def one(self, group: str, reason: str) -> int:
        """One counter; 0 where there is none."""
        return self.counters.get(group, {}).get(reason, 0)


@dataclass(frozen=True, slots=True)
class DeliveryReading:
    """One reporter: its accounts, and how long batches took (bounds: LATENCY_BOUNDS_S)."""

    account: ReporterAccount
    latency_buckets: Sequence[int]
    latency_sum_s: float


@dataclass(frozen=True, slots=True)
class TaskReading:
    """One task; all but its state is at its defaults where there is no run to read."""

    task: str
    state: str
    interface: str = ""
    uptime_s: float = 0.0
    balanced: bool = True
    flows: int = 0
    source: SourceAccount = SourceAccount()  # noqa: RUF009 frozen
    pipelines: Sequence[PipelineReading] = ()
    deliveries: Sequence[DeliveryReading] = ()
    faults: Mapping[tuple[str, str], int] = field(default_factory=dict)
    quarantined: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """The agent at one moment."""

    version: str
    agent_id: str
    uptime_s: float
    process: Mapping[str, Any]
    tasks: Sequence[TaskReading]
    commands: Mapping[tuple[str, str, str], int]
    logs: Mapping[str, Mapping[str, int]]
    failures: int


class Reader:
    """Takes readings; the instruments of one scrape share one.

    Args:
        agent: read only; may be read from any thread.
        max_age_s: outside of `one_reading` a reading is taken anew after this
            long. A collection asks for some thirty instruments within milliseconds.
    """

    def __init__(self, agent: Any, max_age_s: float = 0.2) -> None:
        self._agent = agent
        self._max_age_s = max_age_s
        self._lock = threading.Lock()
        self._reading: Reading | None = None
        self._taken_at = 0.0
        self._scrape = threading.local()
        self._failures = 0

    @contextlib.contextmanager
    def one_reading(self) -> Iterator[None]:
        """All that this thread reads meanwhile is of one moment, that of entering."""
        with self._lock:
            self._scrape.reading = self._read_agent()
        try:
            yield
        finally:
            del self._scrape.reading

    def read(self) -> Reading:
        """The reading in force."""
        scraped: Reading | None = getattr(self._scrape, "reading", None)
        if scraped is not None:
            return scraped
        with self._lock:
            now = time.monotonic()
            if self._reading is None or now - self._taken_at > self._max_age_s:
                self._reading = self._read_agent()
                self._taken_at = time.monotonic()
            return self._reading

    def _read_agent(self) -> Reading:
        from otus_agent.agent import process_figures

        agent = self._agent
        # A copy: the event loop may create or delete a task meanwhile.
        tasks = [self._read_task(entry) for entry in list(dict(agent.supervisor.entries).values())]
        return Reading(
            version=agent.version,
            agent_id=agent.agent_id,
            uptime_s=agent.uptime_s,
            process=process_figures(),
            tasks=tasks,
            commands=dict(agent.commands.results),
            logs=_read_logs(agent.logs),
            failures=self._failures,
        )

    def _read_task(self, entry: Any) -> TaskReading:
        """One task's fault, or its plugins', must not cost the metrics of the others."""
        try:
            return _read_task(entry)
        except Exception:
            self._failures += 1
            if self._failures == 1:
                log.exception("task %s could not be read; further ones are counted", entry.id)
            return TaskReading(entry.id, str(entry.state))


def _read_logs(logs: Any) -> dict[str, dict[str, int]]:
    figures = logs.stats() if logs is not None else {}
    return {name: counts for name, counts in figures.items() if isinstance(counts, dict)}


def _read_task(entry: Any) -> TaskReading:
    # Once: the event loop takes it from the entry when the task is deleted.
    task = entry.task
    if task is None:
        return TaskReading(entry.id, str(entry.state))
    capture = task.config.capture
    return TaskReading(
        task=entry.id,
        state=str(entry.state),
        interface=str(capture.config.get("interface", capture.type)),
        uptime_s=task.uptime_s,
        balanced=task.ledger().balanced,
        flows=len(task.flows) if task.flows is not None else 0,
        source=task.source_account(),
        pipelines=[_read_pipeline(worker) for worker in task.workers],
        deliveries=[
            DeliveryReading(
                delivery.account(), tuple(delivery.latency_buckets), delivery.latency_sum_s
            )
            for delivery in task.deliveries
        ],
        faults=_faults(task.trackers),
        quarantined={tracker.plugin: bool(tracker.quarantined) for tracker in task.trackers},
    )


def _faults(trackers: Sequence[Any]) -> dict[tuple[str, str], int]:
    """Each pipeline has an instance of a plugin: their faults add up."""
    faults: dict[tuple[str, str], int] = {}
    for tracker in trackers:
        for kind, count in dict(tracker.faults).items():
            faults[tracker.plugin, kind] = faults.get((tracker.plugin, kind), 0) + count
    return faults


def _read_pipeline(worker: Any) -> PipelineReading:
    with worker.at_rest():
        return PipelineReading(worker.pipeline_id, worker.counters(), worker.latency())
