"""Python plugins in the middle of a pipeline: asked, answered for, and contained.

The core stops at a Python stage with a batch in hand; the stage here copies the
batch, asks its plugin, and tells the core what became of each record. Nothing
that a plugin raises leaves this module, unless the task asks to fail with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from otus_agent.config.task import FaultSection
from otus_agent.logs.logger import get_logger
from otus_agent.registry import one_line
from otus_sdk.errors import OtusError, PacketTooShort, UnsupportedProtocol
from otus_sdk.host import parse_function, process_function
from otus_sdk.labels import check_label_name
from otus_sdk.model import DecodedPacket, Envelope, OutputPacket
from otus_sdk.protocols import (
    BatchParser,
    BatchProcessor,
    Parser,
    ParseResult,
    PluginFault,
    Processor,
)

__all__ = ["FaultTracker", "ParserStage", "PluginFailed", "ProcessorStage", "PythonStage"]

log = get_logger("otus.plugin")

MAX_OVERRUNS = 3
HEX_OCTETS = 512
MAX_GOOD_NAMES = 1_000
# What a parser says of traffic, and what is no fault of the parser.
_TRAFFIC_ERRORS = (PacketTooShort, UnsupportedProtocol)


class PluginFailed(OtusError):
    """A plugin was quarantined and the task is configured to fail with it."""

    code = "plugin_failed"
    rpc_code = -32014


class CoreBatch(Protocol):
    """What a stage needs of `otus_core.Batch`."""

    def __len__(self) -> int: ...
    def index(self, i: int, /) -> int: ...
    def is_offered(self, i: int, /) -> bool: ...
    def decoded(self, i: int, /) -> DecodedPacket: ...
    def payload(self, i: int, /) -> bytes: ...
    def ts_ns(self, i: int, /) -> int: ...


@dataclass(slots=True)
class FaultTracker:
    """Counts and judges one plugin's faults.

    One thread writes; readers may see a count a moment late.
    """

    plugin: str
    policy: FaultSection
    task_id: str = ""
    faults: dict[str, int] = field(default_factory=dict)
    overruns: int = 0
    quarantined: str = ""
    _consecutive: int = 0
    _slow_in_a_row: int = 0
    _logged: set[str] = field(default_factory=set)

    def fault(self, error: BaseException, octets: bytes = b"", records: int = 1) -> None:
        """Takes note that the plugin raised on records."""
        kind = type(error).__name__
        self.faults[kind] = self.faults.get(kind, 0) + records
        self._consecutive += records
        if kind not in self._logged:
            self._logged.add(kind)
            log.error(
                "plugin raised; further ones of this kind are only counted",
                exc_info=error,
                task=self.task_id,
                plugin=self.plugin,
                reason=one_line(error),
                packet=octets[:HEX_OCTETS].hex(),
            )
        if self._consecutive >= self.policy.max_consecutive:
            self.quarantine(f"raised on {self._consecutive} packets in a row: {one_line(error)}")

    def success(self) -> None:
        """Takes note that the plugin dealt with a record."""
        self._consecutive = 0

    def took(self, seconds: float) -> None:
        """Takes note of how long the plugin had a batch."""
        budget = self.policy.time_budget
        if not budget or seconds <= budget:
            self._slow_in_a_row = 0
            return
        self.overruns += 1
        self._slow_in_a_row += 1
        if self._slow_in_a_row >= MAX_OVERRUNS:
            self.quarantine(
                f"took {seconds:.1f} s for a batch, {MAX_OVERRUNS} times in a row above its "
                f"{budget:g} s"
            )

    def quarantine(self, reason: str) -> None:
        """Lets the plugin see nothing more.

        Raises:
            PluginFailed: The task is configured to fail with it.
        """
        if self.quarantined:
            return
        self.quarantined = reason
        log.error("plugin quarantined", task=self.task_id, plugin=self.plugin, reason=reason)
        if self.policy.quarantine == "fail":
            raise PluginFailed(f"plugin {self.plugin} {reason}")

    def to_dict(self) -> dict[str, Any]:
        """As `otus task status` shows it."""
        return {
            "plugin": self.plugin,
            "faults": dict(self.faults),
            "overruns": self.overruns,
            "quarantined": self.quarantined or None,
        }


class PythonStage(Protocol):
    """One Python stage of one pipeline."""

    tracker: FaultTracker
    plugin: Any

    def run(self, core: Any) -> None:
        """Asks the plugin about the batch in the core's hand."""


class _Packets:
    """The packets of a batch that no parser has taken: an `otus_sdk` PacketBatch."""

    __slots__ = ("_batch", "_rows")

    def __init__(self, batch: CoreBatch, rows: Sequence[int]) -> None:
        self._batch = batch
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[DecodedPacket]:
        return map(self._batch.decoded, self._rows)

    def packet(self, index: int) -> DecodedPacket:
        return self._batch.decoded(self._rows[index])

    def payload(self, index: int) -> bytes:
        return self._batch.payload(self._rows[index])

    def src_port(self, index: int) -> int:
        return self._batch.decoded(self._rows[index]).transport.src_port

    def dst_port(self, index: int) -> int:
        return self._batch.decoded(self._rows[index]).transport.dst_port

    def ts_ns(self, index: int) -> int:
        return self._batch.ts_ns(self._rows[index])


class _Records:
    """A batch whose packets are made once, so that changed labels are still there after."""

    __slots__ = ("_batch", "_packets")

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self._packets: list[Any] = [None] * len(batch)

    def __len__(self) -> int:
        return len(self._packets)

    def __iter__(self) -> Iterator[OutputPacket]:
        for index in range(len(self._packets)):
            yield self.packet(index)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    @property
    def envelope(self) -> Envelope:
        envelope: Envelope = self._batch.envelope
        return envelope

    def packet(self, index: int) -> OutputPacket:
        packet: OutputPacket | None = self._packets[index]
        if packet is None:
            packet = self._packets[index] = self._batch.packet(index)
        return packet

    def changed_labels(self, index: int) -> dict[str, str]:
        packet = self._packets[index]
        changed: dict[str, str] = packet.changed_labels() if packet is not None else {}
        return changed


class _GoodNames:
    """Names of labels and payload types that were found good.

    There are few, and they repeat; but a plugin may take them from the traffic.
    """

    def __init__(self) -> None:
        self._good: set[str] = set()

    def check(self, name: str) -> str:
        if name not in self._good:
            check_label_name(name)
            if len(self._good) < MAX_GOOD_NAMES:
                self._good.add(name)
        return name

    def check_labels(self, labels: Any) -> None:
        for name, value in labels.items():
            self.check(name)
            if not isinstance(value, str):
                raise TypeError(f"label {name} is {type(value).__name__}, must be text")


class ParserStage:
    """A Python parser at its place in the chain."""

    def __init__(
        self, plugin: Parser | BatchParser, index: int, name: str, tracker: FaultTracker
    ) -> None:
        self.plugin = plugin
        self.tracker = tracker
        self._parse = parse_function(plugin)
        self._index = index
        self._default_type = plugin.payload_type
        self._names = _GoodNames()
        self._names.check(self._default_type)

    def run(self, core: Any) -> None:
        """Offers the plugin what no parser has taken, and tells the core its answers."""
        if self.tracker.quarantined:
            return
        batch: CoreBatch = core.snapshot()
        rows = [row for row in range(len(batch)) if batch.is_offered(row)]
        if not rows:
            return
        outcomes = _ask(self._parse, _Packets(batch, rows), self.tracker)
        if outcomes is None:
            if self.tracker.policy.on_error == "drop":
                _drop(core, "PARSE_ERROR", [batch.index(row) for row in rows])
            return
        dropped: list[int] = []
        for row, outcome in zip(rows, outcomes, strict=True):
            if outcome is None:
                self.tracker.success()
            elif not self._take(core, batch, row, outcome):
                dropped.append(batch.index(row))
        if dropped:
            _drop(core, "PARSE_ERROR", dropped)

    def _take(self, core: Any, batch: CoreBatch, row: int, outcome: Any) -> bool:
        """Tells the core what one packet is; False where the record is to be dropped."""
        try:
            if isinstance(outcome, PluginFault):
                raise outcome.error
            if not isinstance(outcome, ParseResult):
                raise TypeError(f"a parser must give ParseResult or None, not {outcome!r:.80}")
            payload = orjson.dumps(outcome.payload)
            payload_type = self._default_type
            if outcome.payload_type is not None:
                payload_type = self._names.check(outcome.payload_type)
            self._names.check_labels(outcome.labels)
        except _TRAFFIC_ERRORS:
            self.tracker.success()
            return False
        except Exception as error:  # noqa: BLE001 whatever the plugin raised or gave
            self.tracker.fault(error, batch.payload(row))
            return self.tracker.policy.on_error == "keep"
        self.tracker.success()
        record = batch.index(row)
        if core.take(record, self._index, payload_type, payload):
            for name, value in outcome.labels.items():
                core.set_label(record, name, value)
        return True


class ProcessorStage:
    """A Python processor at its place in the chain."""

    def __init__(
        self, plugin: Processor | BatchProcessor, index: int, name: str, tracker: FaultTracker
    ) -> None:
        self.plugin = plugin
        self.tracker = tracker
        self._process = process_function(plugin)
        self._names = _GoodNames()

    def run(self, core: Any) -> None:
        """Lets the plugin judge the records, and tells the core its answers."""
        if self.tracker.quarantined:
            return
        batch = core.snapshot()
        if not len(batch):
            return
        records = _Records(batch)
        outcomes = _ask(self._process, records, self.tracker)
        if outcomes is None:
            if self.tracker.policy.on_error == "drop":
                _drop(core, "PROCESS_ERROR", [batch.index(row) for row in range(len(batch))])
            return
        dropped: list[int] = []
        failed: list[int] = []
        for row, outcome in enumerate(outcomes):
            try:
                if isinstance(outcome, PluginFault):
                    raise outcome.error
                if not outcome:
                    dropped.append(batch.index(row))
                elif labels := records.changed_labels(row):
                    self._names.check_labels(labels)
                    for name, value in labels.items():
                        core.set_label(batch.index(row), name, value)
                self.tracker.success()
            except Exception as error:  # noqa: BLE001 whatever the plugin raised or gave
                failed.append(batch.index(row))
                self.tracker.fault(error, batch.payload(row))
        if dropped:
            _drop(core, "PROCESSED", dropped)
        if failed and self.tracker.policy.on_error == "drop":
            _drop(core, "PROCESS_ERROR", failed)


def _ask(function: Callable[[Any], Any], batch: Any, tracker: FaultTracker) -> Any:
    """The plugin's answers, one a record; None where it failed as a whole."""
    started = time.monotonic()
    try:
        outcomes = function(batch)
        if len(outcomes) != len(batch):
            raise ValueError(f"{len(outcomes)} results for {len(batch)} packets")
    except Exception as error:  # noqa: BLE001 a plugin may raise anything
        tracker.fault(error, batch.payload(0), len(batch))
        return None
    tracker.took(time.monotonic() - started)
    return outcomes


def _drop(core: Any, reason: str, records: Sequence[int]) -> None:
    # Imported late: the rest of this module is tested without the compiled core.
    from otus_core import DropReason

    mask = bytearray(b"\x01") * len(core)
    for record in records:
        mask[record] = 0
    core.keep(bytes(mask), DropReason[reason])
