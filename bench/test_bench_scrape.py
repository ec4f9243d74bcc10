"""What a scrape of fifty tasks costs: reading the core, and writing it down as text.

CPU time of the process: a scrape takes it from the pipelines' Python.
"""

from __future__ import annotations

import asyncio
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import frames
from otus_agent.agent import Agent
from otus_agent.config.agent import AgentConfig
from otus_agent.telemetry import Telemetry
from otus_agent.telemetry.reading import Reader

TASKS = 50
pytestmark = pytest.mark.benchmark(timer=time.process_time)


class Running:
    """An agent with tasks and its telemetry, on a loop of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ready = threading.Event()
        self._done = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    def __enter__(self) -> Running:
        self._thread.start()
        assert self._ready.wait(120)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        messages = [frames.udp(frames.sip(call_id=f"call-{n}")) for n in range(100)]
        capture = frames.write_pcap(self._folder / "sip.pcap", messages)
        config: dict[str, Any] = {
            "daemon": {"data_dir": str(self._folder / "data")},
            "metrics": {"listen": "127.0.0.1:0"},
        }
        self.agent = Agent(AgentConfig.model_validate(config))
        await self.agent.start()
        telemetry = Telemetry(self.agent)
        await telemetry.start()
        for number in range(TASKS):
            await self.agent.commands.dispatch("task.create", {"task": self._task(number, capture)})
        self.port = telemetry.port
        self._ready.set()
        await self._done.wait()
        await telemetry.stop()
        await self.agent.stop(10)

    @staticmethod
    def _task(number: int, capture: str) -> dict[str, Any]:
        broker = {"brokers": ["127.0.0.1:1"], "topic": "t"}
        return {
            "id": f"task-{number}",
            "capture": {"type": "pcap", "files": [capture], "follow": True},
            "reporters": [{"type": "kafka", "config": broker}],
            "workers": {"batch_records": 64, "batch_octets": 1 << 18},
            "flows": {"max_flows": 1024},
        }

    def scrape(self) -> bytes:
        url = f"http://127.0.0.1:{self.port}/metrics"
        with urllib.request.urlopen(url, timeout=60) as answer:
            text: bytes = answer.read()
            return text


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("scrape")) as running:
        yield running


def test_a_scrape_of_fifty_tasks(benchmark: Any, running: Running) -> None:
    """Over HTTP, as Prometheus does it."""
    text = benchmark(running.scrape)
    series = sum(not line.startswith(b"#") for line in text.splitlines())
    benchmark.extra_info["series"] = series
    benchmark.extra_info["octets"] = len(text)
    print(f"\n{series} series, {len(text)} octets")
    assert text.count(b"otus_ledger_balanced{") == TASKS


def test_a_reading_of_fifty_tasks(benchmark: Any, running: Running) -> None:
    """The part that looks at the tasks: counters, ledgers, queues."""
    reader = Reader(running.agent, max_age_s=0.0)
    assert len(benchmark(reader.read).tasks) == TASKS
