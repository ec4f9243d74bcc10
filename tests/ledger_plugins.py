"""Plugins that misbehave on command, for tests that watch the ledger meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from otus_agent.registry import PluginRegistry
from otus_sdk.errors import PacketTooShort
from otus_sdk.factory import PluginFactory, PluginKind
from otus_sdk.model import CaptureStats, DecodedPacket, OutputPacket, RawPacket
from otus_sdk.protocols import PacketSink, RecordBatch, ReporterStats, ReportResult
from tasks import Plugin

REPORTER_MOODS = ("good", "raises", "partly", "forgetful", "boastful", "nonsense", "hangs")
STAGE_MOODS = ("good", "drops", "raises", "wrong length", "hangs")


@dataclass(slots=True)
class Control:
    """How the plugins of one task behave from now on; from any thread."""

    reporter: str = "good"
    stage: str = "good"
    released: threading.Event = field(default_factory=threading.Event)
    frames: list[RawPacket] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def calm(self) -> None:
        """All is well again, and whoever hangs goes on."""
        self.reporter = self.stage = "good"
        self.released.set()

    def set_stage(self, mood: str) -> None:
        if mood == "hangs":
            self.released.clear()
        self.stage = mood
        if mood != "hangs":
            self.released.set()


@dataclass(frozen=True, slots=True)
class ControlConfig:
    """Names the task whose control a plugin obeys."""

    task: str


CONTROLS: dict[str, Control] = {}


class Obedient(Plugin):
    """A plugin that knows its task's control."""

    control: Control

    def init(self, config: ControlConfig) -> None:
        self.control = CONTROLS[config.task]


class UnrulyReporter(Obedient):
    """Says at once what became of each batch, and not always the truth."""

    name = "unruly"
    wants = frozenset({"json"})

    async def report_batch(self, batch: RecordBatch) -> Any:
        number = len(batch)
        match self.control.reporter:
            case "raises":
                raise ConnectionError("no")
            case "partly":
                failed = (number - number // 2) // 2
                rest = number - number // 2 - failed
                return ReportResult(number // 2, {"refused": rest}, failed={"timeout": failed})
            case "forgetful":
                return ReportResult(number // 3)
            case "boastful":
                return ReportResult(number + 7, {"refused": 3})
            case "nonsense":
                return number
            case "hangs":
                while self.control.reporter == "hangs":  # noqa: ASYNC110 set by another thread
                    await asyncio.sleep(0.01)
        return ReportResult(number)

    def flush(self) -> None: ...


class LateReporter(Obedient):
    """Takes batches over and keeps its own books."""

    name = "late"
    wants = frozenset({"json"})

    def init(self, config: ControlConfig) -> None:
        super().init(config)
        self._lock = threading.Lock()
        self._stats = ReporterStats()

    def _book(self, queued: int, reported: int, failed: int) -> None:
        with self._lock:
            now = self._stats
            self._stats = ReporterStats(
                now.reported + reported,
                now.dropped,
                {"timeout": now.failed.get("timeout", 0) + failed},
                now.queued + queued - reported - failed,
            )

    def report_batch(self, batch: RecordBatch) -> ReportResult:
        number = len(batch)
        if self.control.reporter == "raises":
            self._book(number // 2, 0, 0)
            raise ConnectionError("after taking the half of it")
        if self.control.reporter != "forgetful":
            self._book(number, number // 3, number // 4)
        return ReportResult(0, pending=number)

    def flush(self) -> None:
        self._book(0, self._stats.queued, 0)

    def stats(self) -> ReporterStats:
        return self._stats


class UnrulyParser(Obedient):
    """Takes what starts with `mine`."""

    name = payload_type = "mine"

    def can_handle(self, packet: DecodedPacket) -> bool:
        return packet.payload[:4] in (b"mine", b"bad!", b"shor")

    def handle(self, packet: DecodedPacket) -> tuple[dict[str, Any], dict[str, str]]:
        match packet.payload[:4]:
            case b"bad!":
                raise RuntimeError("a bug")
            case b"shor":
                raise PacketTooShort("cut off")
        return {"octets": len(packet.payload)}, {"mine.octets": str(len(packet.payload))}


class UnrulyProcessor(Obedient):
    """Keeps records, or does not, or comes back late."""

    name = "unruly"

    def process_batch(self, batch: RecordBatch) -> Sequence[bool]:
        match self.control.stage:
            case "drops":
                return [index % 3 != 0 for index in range(len(batch))]
            case "raises":
                raise RuntimeError("a bug")
            case "wrong length":
                return [True]
            case "hangs":
                self.control.released.wait(120)
        for packet in batch:
            packet.labels["seen.by"] = self.name
        return [True] * len(batch)


class PickyProcessor(Obedient):
    """The same for one record at a time."""

    name = "picky"

    def process(self, packet: OutputPacket) -> bool:
        match self.control.stage:
            case "drops":
                return packet.src_port % 2 == 0
            case "raises":
                raise RuntimeError("a bug")
            case "hangs":
                self.control.released.wait(120)
        return True


class ListCapturer(Obedient):
    """Captures what is appended to the control's list, in small helpings."""

    name = "list"

    def init(self, config: ControlConfig) -> None:
        super().init(config)
        self._given = 0
        self._dropped = 0

    def capture(self, output: PacketSink) -> None:
        while not self.control.closing.is_set():
            for helping in self._helpings():
                taken = output.put(helping, block=False)
                self._given += len(helping)
                self._dropped += len(helping) - taken
            self.control.closing.wait(0.005)

    def _helpings(self) -> Iterator[list[RawPacket]]:
        frames = self.control.frames
        while self._given < len(frames):
            yield frames[self._given : self._given + 20]

    def stats(self) -> CaptureStats:
        return CaptureStats(received=self._given, dropped=self._dropped)

    def stop(self) -> None:
        self.control.closing.set()


def registry() -> PluginRegistry:
    """The installed plugins and these."""
    made = PluginRegistry.load()
    for kind, plugin in (
        (PluginKind.REPORTER, UnrulyReporter),
        (PluginKind.REPORTER, LateReporter),
        (PluginKind.PARSER, UnrulyParser),
        (PluginKind.PROCESSOR, UnrulyProcessor),
        (PluginKind.PROCESSOR, PickyProcessor),
        (PluginKind.CAPTURER, ListCapturer),
    ):
        made.add(PluginFactory(kind, plugin.name, plugin, config_type=ControlConfig), "tests")
    return made
