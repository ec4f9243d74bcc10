"""Each form of a plugin from the other, and batches in plain Python.

The agent works in batches. A plugin written packet by packet is wrapped here,
so that the fault of one packet stays with that packet. The other direction
(`parse_one`, `process_one`) is for tests and for reference comparisons.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

from otus_sdk.model import DecodedPacket, Envelope, OutputPacket
from otus_sdk.protocols import (
    BatchParser,
    BatchProcessor,
    BatchReporter,
    PacketBatch,
    Parser,
    ParseResult,
    PluginFault,
    Processor,
    RecordBatch,
    Reporter,
    ReportResult,
)

__all__ = [
    "PacketList",
    "PluginFault",
    "RecordList",
    "call_here",
    "maybe_await",
    "parse_function",
    "parse_one",
    "process_function",
    "process_one",
    "report_function",
]

T = TypeVar("T")


async def maybe_await(value: Awaitable[T] | T) -> T:
    """The value, awaited where it is awaitable: plugins may be plain or async."""
    if inspect.isawaitable(value):
        return await value
    return value


class PacketList:
    """A `PacketBatch` over a list of packets."""

    def __init__(self, packets: Sequence[DecodedPacket]) -> None:
        self._packets = tuple(packets)

    def __len__(self) -> int:
        return len(self._packets)

    def __iter__(self) -> Iterator[DecodedPacket]:
        return iter(self._packets)

    def packet(self, index: int) -> DecodedPacket:
        """The packet at `index`."""
        return self._packets[index]

    def payload(self, index: int) -> bytes:
        """Its payload."""
        return self._packets[index].payload

    def src_port(self, index: int) -> int:
        """Its source port."""
        return self._packets[index].transport.src_port

    def dst_port(self, index: int) -> int:
        """Its destination port."""
        return self._packets[index].transport.dst_port

    def ts_ns(self, index: int) -> int:
        """Its time."""
        return self._packets[index].ts_ns


class RecordList:
    """A `RecordBatch` over a list of records, without encoded forms unless given.

    Args:
        packets: The records.
        json: Their JSON form, where a reporter under test wants it.
        protobuf: Their Protobuf form, likewise.
        keys: Their keys; by default the Call-ID label, else the 5-tuple.
    """

    def __init__(
        self,
        packets: Sequence[OutputPacket],
        *,
        envelope: Envelope | None = None,
        json: Sequence[bytes] | None = None,
        protobuf: Sequence[bytes] | None = None,
        keys: Sequence[bytes] | None = None,
    ) -> None:
        self._packets = tuple(packets)
        self._json = json
        self._protobuf = protobuf
        self._keys = keys
        if envelope is None:
            envelope = self._packets[0].envelope if self._packets else Envelope()
        self._envelope = envelope

    @property
    def envelope(self) -> Envelope:
        """Of all records."""
        return self._envelope

    def __len__(self) -> int:
        return len(self._packets)

    def __iter__(self) -> Iterator[OutputPacket]:
        return iter(self._packets)

    def packet(self, index: int) -> OutputPacket:
        """The packet at `index`."""
        return self._packets[index]

    def json(self, index: int) -> bytes:
        """Its JSON form; LookupError where none was given."""
        if self._json is None:
            raise LookupError("this batch has no JSON form: ask for it through `wants`")
        return self._json[index]

    def protobuf(self, index: int) -> bytes:
        """Its Protobuf form; LookupError where none was given."""
        if self._protobuf is None:
            raise LookupError("this batch has no Protobuf form: ask for it through `wants`")
        return self._protobuf[index]

    def key(self, index: int) -> bytes:
        """The given key, else the Call-ID, else the 5-tuple."""
        if self._keys is not None:
            return self._keys[index]
        packet = self._packets[index]
        call_id = packet.labels.get("sip.call_id") or packet.labels.get("rtp.call_id")
        if call_id:
            return call_id.encode()
        ends = sorted(((packet.src_ip, packet.src_port), (packet.dst_ip, packet.dst_port)))
        (low, low_port), (high, high_port) = ends
        return f"{packet.protocol_name} {low} {low_port} {high} {high_port}".encode()

    def payload_type(self, index: int) -> str:
        """Its payload type."""
        return self._packets[index].payload_type

    def labels(self, index: int) -> dict[str, str]:
        """A copy of its labels."""
        return dict(self._packets[index].labels)

    def ts_ns(self, index: int) -> int:
        """Its time."""
        return self._packets[index].ts_ns


ParseOutcome = ParseResult | PluginFault | None


def parse_function(parser: Parser | BatchParser) -> Callable[[PacketBatch], Sequence[ParseOutcome]]:
    """The batch form of a parser.

    Returns:
        A function from a batch to one outcome a packet. A per-packet parser's
        exceptions come back as `PluginFault` in the packet's place; a batch
        parser's exceptions pass through.

    Raises:
        TypeError: The object has neither form.
    """
    if isinstance(parser, BatchParser):
        return parser.parse_batch
    if not isinstance(parser, Parser):
        raise TypeError(f"{parser!r} has neither parse_batch() nor can_handle() and handle()")
    can_handle, handle = parser.can_handle, parser.handle

    def parse(batch: PacketBatch) -> list[ParseOutcome]:
        outcomes: list[ParseOutcome] = []
        for packet in batch:
            outcome: ParseOutcome = None
            try:
                if can_handle(packet):
                    payload, labels = handle(packet)
                    outcome = ParseResult(payload, labels)
            except Exception as error:  # noqa: BLE001 a plugin may raise anything
                outcome = PluginFault(error)
            outcomes.append(outcome)
        return outcomes

    return parse


def process_function(
    processor: Processor | BatchProcessor,
) -> Callable[[RecordBatch], Sequence[bool | PluginFault]]:
    """The batch form of a processor; see `parse_function` for faults.

    Raises:
        TypeError: The object has neither form.
    """
    if isinstance(processor, BatchProcessor):
        return processor.process_batch
    if not isinstance(processor, Processor):
        raise TypeError(f"{processor!r} has neither process_batch() nor process()")
    process_packet = processor.process

    def process(batch: RecordBatch) -> list[bool | PluginFault]:
        outcomes: list[bool | PluginFault] = []
        for packet in batch:
            try:
                outcomes.append(bool(process_packet(packet)))
            except Exception as error:  # noqa: BLE001 contained: see PluginFault
                outcomes.append(PluginFault(error))
        return outcomes

    return process


async def call_here(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function where the caller is; its result, awaited where it is awaitable."""
    return await maybe_await(function(*arguments))


def report_function(
    reporter: Reporter | BatchReporter,
    on_fault: Callable[[OutputPacket, Exception], None] | None = None,
    call: Callable[..., Awaitable[Any]] = call_here,
) -> Callable[[RecordBatch], Awaitable[ReportResult]]:
    """The asynchronous batch form of a reporter.

    Args:
        reporter: In either form, plain or async.
        on_fault: Told of each exception of a per-packet reporter.
        call: Calls a function with its arguments: a plain one on another thread, say.

    Returns:
        A coroutine function. A per-packet reporter's exceptions count the
        record as failed under the exception's class name.

    Raises:
        TypeError: The object has neither form.
    """
    if isinstance(reporter, BatchReporter):
        report_batch = reporter.report_batch

        async def whole(batch: RecordBatch) -> ReportResult:
            result: ReportResult = await call(report_batch, batch)
            return result

        return whole
    if not isinstance(reporter, Reporter):
        raise TypeError(f"{reporter!r} has neither report_batch() nor report()")
    report_packet = reporter.report
    is_async = inspect.iscoroutinefunction(report_packet)

    async def each(batch: RecordBatch) -> ReportResult:
        tally = _Tally(on_fault)
        if is_async:
            for packet in batch:
                await tally.add_later(packet, report_packet(packet))
        else:
            # One call for the whole batch, since it may be one to another thread.
            for packet, pending in await call(tally.add_all, report_packet, batch):
                await tally.add_later(packet, pending)
        return ReportResult(tally.reported, failed=tally.failed)

    return each


class _Tally:
    """What became of the packets of a batch that are reported one by one."""

    def __init__(self, on_fault: Callable[[OutputPacket, Exception], None] | None) -> None:
        self.reported = 0
        self.failed: dict[str, int] = {}
        self._on_fault = on_fault

    def add_all(
        self, report: Callable[[OutputPacket], Any], batch: RecordBatch
    ) -> list[tuple[OutputPacket, Any]]:
        """Reports each; returns those of which only an awaitable tells."""
        pending = []
        for packet in batch:
            try:
                outcome = report(packet)
            except Exception as error:  # noqa: BLE001 counted under its class name
                self._add_fault(packet, error)
            else:
                if outcome is None:
                    self.reported += 1
                else:
                    pending.append((packet, outcome))
        return pending

    async def add_later(self, packet: OutputPacket, pending: Any) -> None:
        """Waits for what became of one."""
        try:
            await maybe_await(pending)
        except Exception as error:  # noqa: BLE001 counted under its class name
            self._add_fault(packet, error)
        else:
            self.reported += 1

    def _add_fault(self, packet: OutputPacket, error: Exception) -> None:
        reason = type(error).__name__
        self.failed[reason] = self.failed.get(reason, 0) + 1
        if self._on_fault is not None:
            self._on_fault(packet, error)


def parse_one(parser: Parser | BatchParser, packet: DecodedPacket) -> ParseOutcome:
    """The per-packet form of a parser in either form."""
    return parse_function(parser)(PacketList([packet]))[0]


def process_one(processor: Processor | BatchProcessor, packet: OutputPacket) -> bool | PluginFault:
    """The per-packet form of a processor in either form."""
    outcome = process_function(processor)(RecordList([packet]))[0]
    return outcome if isinstance(outcome, PluginFault) else bool(outcome)
