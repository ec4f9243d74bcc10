"""Tasks over files for tests: collecting reporters, and running one to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from otus_agent.config.task import TaskConfig
from otus_agent.registry import PluginRegistry
from otus_agent.task import Task, TaskEnvironment
from otus_sdk.factory import PluginFactory, PluginKind
from otus_sdk.model import OutputPacket
from otus_sdk.protocols import RecordBatch, ReportResult

DEADLINE_S = 120.0


class Plugin:
    """The part of the contract that most test plugins leave empty."""

    name = "test"

    def init(self, config: Any) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


class Collector(Plugin):
    """A batch reporter that keeps all it gets."""

    name = "collect"

    def __init__(self, wants: Sequence[str] = ("json", "packet")) -> None:
        self.wants = frozenset(wants)
        self.batches: list[RecordBatch] = []

    def report_batch(self, batch: RecordBatch) -> ReportResult:
        self.batches.append(batch)
        return ReportResult(len(batch))

    def flush(self) -> None: ...

    @property
    def packets(self) -> list[OutputPacket]:
        return [packet for batch in self.batches for packet in batch]

    @property
    def json(self) -> list[bytes]:
        return [batch.json(i) for batch in self.batches for i in range(len(batch))]


def factory(kind: PluginKind, name: str, create: Callable[[], Any], **more: Any) -> PluginFactory:
    return PluginFactory(kind, name, create, **more)


def make_task(
    files: Sequence[str] | str,
    *factories: PluginFactory,
    reporters: Sequence[Any] = ("collect",),
    collector: Collector | None = None,
    tags: Mapping[str, str] | None = None,
    **changes: Any,
) -> tuple[Task, Collector]:
    """A task over capture files, with a collecting reporter and these plugins."""
    collector = collector or Collector()
    registry = PluginRegistry.load()
    registry.add(factory(PluginKind.REPORTER, "collect", lambda: collector), "tests")
    for one in factories:
        registry.add(one, "tests")
    config = {
        "id": "test",
        "capture": {"type": "pcap", "files": files},
        "parsers": ["sip"],
        "reporters": list(reporters),
        **changes,
    }
    environment = TaskEnvironment("agent-1", registry, tags=tags or {})
    return Task(TaskConfig.model_validate(config), environment), collector


async def run_task(task: Task) -> None:
    """Runs a task until its source ends, and stops it."""
    await task.start()
    try:
        async with asyncio.timeout(DEADLINE_S):
            await task.finished.wait()
    finally:
        await task.stop(DEADLINE_S)
