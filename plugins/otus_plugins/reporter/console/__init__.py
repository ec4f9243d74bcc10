"""Writes records to standard output, one line each."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from otus_plugins.reporter.console.line import format_line
from otus_plugins.reporter.console.output import PatientOutput
from otus_sdk.factory import PluginFactory, PluginKind, Stability
from otus_sdk.protocols import RecordBatch, ReporterStats, ReportResult

__all__ = ["FACTORY", "ConsoleReporter", "ConsoleReporterConfig"]


class ConsoleReporterConfig(BaseModel):
    """The `config` section of the reporter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["text", "json"] = "text"
    color: Literal["auto", "always", "never"] = "auto"
    max_pending_octets: int = Field(default=8 << 20, ge=4096, le=1 << 34)


class ConsoleReporter:
    """One line a record; writing happens in a thread, so that nobody waits for a terminal."""

    name = "console"

    def init(self, config: ConsoleReporterConfig) -> None:
        """Takes the configuration."""
        self._config = config
        self.wants = frozenset({"json"} if config.format == "json" else {"packet"})
        self._output: PatientOutput | None = None

    def start(self) -> None:
        """Starts the thread that writes."""
        self._output = PatientOutput(self._config.max_pending_octets, self._config.color)

    async def stop(self) -> None:
        """Ends the thread; what a stuck reader did not take is dropped."""
        if self._output is not None:
            await self._output.close()

    async def report_batch(self, batch: RecordBatch) -> ReportResult:
        """Queues a line for each record."""
        output = self._output
        if output is None:
            return ReportResult(0, {"not_started": len(batch)})
        if self._config.format == "json":
            lines = [batch.json(index) + b"\n" for index in range(len(batch))]
        else:
            lines = [format_line(packet, color=output.color) for packet in batch]
        output.write(lines)
        return ReportResult(0, pending=len(batch))

    async def flush(self) -> None:
        """Waits until everything is written or dropped."""
        if self._output is not None:
            await self._output.flush()

    def stats(self) -> ReporterStats:
        """Lines written, dropped and waiting so far."""
        return self._output.stats() if self._output is not None else ReporterStats()


FACTORY = PluginFactory(
    kind=PluginKind.REPORTER,
    name="console",
    create=ConsoleReporter,
    config_type=ConsoleReporterConfig,
    description="One line a record on standard output, readable or JSON",
    stability=Stability.STABLE,
)
