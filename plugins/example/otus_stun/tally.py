"""Counts records by a label and writes the counts to a file: an async reporter."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from otus_sdk import OutputPacket, PluginFactory, PluginKind


@dataclass(frozen=True, slots=True)
class TallyConfig:
    """The `config` section."""

    path: str
    label: str = "sip.method"


class Tally:
    """Keeps counts; nothing of it blocks the event loop."""

    name = "tally"

    def init(self, config: TallyConfig) -> None:
        """Takes the configuration."""
        self._config = config
        self._counts: Counter[str] = Counter()

    def start(self) -> None:
        """Nothing to open: the file is written whole."""

    async def report(self, packet: OutputPacket) -> None:
        """Counts one record."""
        self._counts[packet.labels.get(self._config.label, "")] += 1

    async def flush(self) -> None:
        """Writes the counts. File I/O blocks, so it goes to a thread."""
        await asyncio.to_thread(self._write)

    async def stop(self) -> None:
        """Writes what the last flush did not; safe without start()."""
        if self._counts:
            await self.flush()

    def _write(self) -> None:
        Path(self._config.path).write_text(json.dumps(self._counts, indent=2) + "\n")


FACTORY = PluginFactory(
    kind=PluginKind.REPORTER,
    name="tally",
    create=Tally,
    config_type=TallyConfig,
    description="Counts records by a label",
)
