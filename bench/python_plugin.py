"""Plugins in plain Python, called for each packet, in a whole task: packets a second of CPU.

    python bench/python_plugin.py [PACKETS]

The same capture runs without a plugin, past a processor that keeps everything, past one that
reads a label, and past a parser that looks at a port and leaves the packet to `sip`. Start and
stop of the task are in the figures: take more packets for less of them.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import traffic

from otus_agent.config.task import TaskConfig
from otus_agent.registry import PluginRegistry
from otus_agent.task import Task, TaskEnvironment
from otus_sdk.factory import PluginFactory, PluginKind
from otus_sdk.model import DecodedPacket, OutputPacket
from otus_sdk.protocols import RecordBatch, ReportResult

STOP_S = 60.0


class Plugin:
    name = "bench"

    def init(self, config: Any) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


class Sink(Plugin):
    wants = frozenset[str]()

    def report_batch(self, batch: RecordBatch) -> ReportResult:
        return ReportResult(len(batch))

    def flush(self) -> None: ...


class KeepAll(Plugin):
    def process(self, packet: OutputPacket) -> bool:
        return True


class ReadLabel(Plugin):
    def process(self, packet: OutputPacket) -> bool:
        return packet.labels.get("sip.method") != "NONE"


class ReadPort(Plugin):
    payload_type = "bench"

    def can_handle(self, packet: DecodedPacket) -> bool:
        return packet.transport.dst_port == 0

    def handle(self, packet: DecodedPacket) -> tuple[dict[str, Any], dict[str, str]]:
        return {}, {}


CHAINS: dict[str, tuple[PluginKind, type[Plugin]] | None] = {
    "no plugin": None,
    "processor, keeps": (PluginKind.PROCESSOR, KeepAll),
    "processor, label": (PluginKind.PROCESSOR, ReadLabel),
    "parser, port": (PluginKind.PARSER, ReadPort),
}


async def run(path: Path, plugin: tuple[PluginKind, type[Plugin]] | None) -> None:
    registry = PluginRegistry.load()
    registry.add(PluginFactory(PluginKind.REPORTER, "sink", Sink), "bench")
    config: dict[str, Any] = {
        "id": "bench",
        "capture": {"type": "pcap", "files": str(path)},
        "parsers": ["sip"],
        "reporters": ["sink"],
    }
    if plugin is not None:
        registry.add(PluginFactory(plugin[0], "bench", plugin[1]), "bench")
        if plugin[0] is PluginKind.PARSER:
            config["parsers"] = ["bench", "sip"]
        else:
            config["processors"] = [{"type": "bench"}]
    task = Task(TaskConfig.model_validate(config), TaskEnvironment("bench", registry))
    await task.start()
    await task.finished.wait()
    await task.stop(STOP_S)
    assert task.ledger().balanced


def main() -> None:
    packets = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.pcap"
        path.write_bytes(traffic.pcap(traffic.sip_frames(packets)))
        alone = 0.0
        for name, plugin in CHAINS.items():
            start = time.process_time()
            asyncio.run(run(path, plugin))
            seconds = time.process_time() - start
            alone = alone or seconds
            print(f"{name:18} {packets / seconds:10,.0f} packets/s  {alone / seconds:5.2f}")


if __name__ == "__main__":
    main()
