"""The contracts between the agent and its plugins.

Four kinds: capturers, parsers, processors, reporters. Each has a per-packet
form and a batch form; a plugin implements whichever suits it and the agent
(through `otus_sdk.host`) supplies the other. The batch form is what makes
Python fast enough for a busy link: one call for thousands of packets.

What holds for every plugin, said once:

* Calls come in this order: `init`, `start`, any number of work calls, `stop`.
  `stop` may come without `start`, and twice; after it nothing is called.
* There is one instance of a parser or processor per pipeline, and one of a
  capturer or reporter per task. Calls on one instance come never two at a time
  (but a capturer's `stop`, and `stats`), so plain attributes are safe; what
  instances share (a module global, a file) is the author's to guard.
* All work calls on one parser or processor come from its pipeline's thread. All
  other calls, and all on a reporter: coroutines run on the event loop and must
  not block it, plain functions run on a thread of the plugin's own and may.
* Packets and batches are immutable and own their memory: keep what you like.
* An exception is contained: it is counted, logged once per kind with the
  packet's octets in hex, and the packet goes on as the task's policy says. A
  plugin that keeps failing, or overruns its time budget, is quarantined.
* Not guaranteed: that a packet is seen at all (capture may drop under load),
  that packets of different pipelines arrive in order of time, that `stop` is
  called when the process is killed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from otus_sdk.model import CaptureStats, DecodedPacket, Envelope, OutputPacket, RawPacket

__all__ = [
    "BatchParser",
    "BatchProcessor",
    "BatchReporter",
    "Capturer",
    "PacketBatch",
    "PacketSink",
    "ParseResult",
    "Parser",
    "Plugin",
    "PluginFault",
    "Processor",
    "RecordBatch",
    "ReportResult",
    "Reporter",
    "ReporterStats",
]


class Plugin(Protocol):
    """What every plugin is.

    Attributes:
        name: As in its factory: "kafka". Lower case, stable.
    """

    name: str

    def init(self, config: Any) -> Awaitable[None] | None:
        """Takes the validated configuration; opens nothing that must be closed.

        Called once, before `start`. May be a coroutine, as `start` and `stop`.

        Args:
            config: An instance of the factory's `config_type`, already validated.

        Raises:
            Exception: Whatever says, in one line, what is wrong: the task does
                not start, and the operator reads it as `plugin_init_failed`.
        """

    def start(self) -> Awaitable[None] | None:
        """Opens what the plugin needs. Work calls come only after it returned.

        Raises:
            Exception: As for `init`; `stop` is called all the same.
        """

    def stop(self) -> Awaitable[None] | None:
        """Releases everything. Safe without `start`, safe twice, does not raise.

        Bounded: the agent waits two seconds, cancels a coroutine, leaves a plain
        function to itself, and goes on. A reporter's `flush` comes before, within
        the task's stop deadline.
        """


# --- capture -----------------------------------------------------------------


@runtime_checkable
class PacketSink(Protocol):
    """Where a Python capturer puts its frames."""

    def put(self, packets: Iterable[RawPacket], *, block: bool = True) -> int:
        """Hands frames to the pipeline.

        Args:
            packets: In the order of capture.
            block: Wait while the pipeline is behind (files, replay). A live
                source passes False and counts what was not taken as dropped.

        Returns:
            How many were taken, from the first on. Less than all only with
            `block=False`.

        Raises:
            PipelineStopped: The task stops; return from `capture`.
        """
        ...


@runtime_checkable
class Capturer(Plugin, Protocol):
    """A source of frames.

    A capturer whose factory offers a native stage is run by the core;
    `capture` is then not called, and may say so by raising.
    """

    def capture(self, output: PacketSink) -> None:
        """Captures until the source ends or `stop` is called.

        Blocks, in a thread of its own; `stop` comes from another thread and
        must make it return within a second. Returning means: the source has
        ended, as a file does.

        Args:
            output: Takes the frames.

        Raises:
            Exception: The source failed for good: the task fails with this
                message. Troubles that pass (an interface that is down) are
                waited out.
        """

    def stats(self) -> CaptureStats:
        """Frames received and dropped so far. Any thread; never blocks; never goes down."""
        ...


# --- parsers -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ParseResult:
    """What a parser made of one packet.

    Attributes:
        payload: JSON-able: str keys, values of str, int, float, bool, None,
            lists and dicts of these.
        labels: Names as `otus_sdk.labels` allows; values are text.
        payload_type: Where it differs from the parser's `payload_type`.
    """

    payload: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)
    payload_type: str | None = None


@dataclass(frozen=True, slots=True)
class PluginFault:
    """Stands where a result would be: the plugin raised on this packet."""

    error: Exception


@runtime_checkable
class Parser(Plugin, Protocol):
    """Understands one protocol, packet by packet.

    The first parser in the task's order that can handle a packet has it.

    Attributes:
        payload_type: What it produces: "sip", or a name of your own
            (`[a-z0-9][a-z0-9._-]*`).
    """

    payload_type: str

    def can_handle(self, packet: DecodedPacket) -> bool:
        """Whether this packet is mine: by port, magic octets, a known flow.

        Called for every packet that no parser before took, so it is cheap and
        changes nothing. False leaves the packet to the next parser.
        """
        ...

    def handle(self, packet: DecodedPacket) -> tuple[Mapping[str, Any], Mapping[str, str]]:
        """Parses a packet for which `can_handle` said yes.

        Returns:
            The payload (see `ParseResult.payload`) and the labels.

        Raises:
            PacketTooShort, UnsupportedProtocol: It is mine, and malformed: a
                parse error of this parser, which is counted and ends the
                packet's way. No fault of the plugin.
            Exception: A fault of the plugin. The packet goes on to the next
                parser, or is dropped as a parse error, as the task's
                `faults.on_error` says.
        """
        ...


@runtime_checkable
class PacketBatch(Protocol):
    """Decoded packets, in the order of capture. Immutable; keep it if you like.

    Columns (`payload`, `src_port`, ...) are cheaper than `packet`, which makes
    an object for each packet: look at columns first.
    """

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[DecodedPacket]: ...

    def packet(self, index: int) -> DecodedPacket:
        """The packet at `index` (0 .. len - 1)."""
        ...

    def payload(self, index: int) -> bytes:
        """Its octets after the transport header."""
        ...

    def src_port(self, index: int) -> int:
        """Its source port, 0 where there is none."""
        ...

    def dst_port(self, index: int) -> int:
        """Its destination port, 0 where there is none."""
        ...

    def ts_ns(self, index: int) -> int:
        """Its time in nanoseconds since the epoch."""
        ...


@runtime_checkable
class BatchParser(Plugin, Protocol):
    """Understands one protocol, a batch at a time.

    Attributes:
        payload_type: As for `Parser`.
    """

    payload_type: str

    def parse_batch(self, batch: PacketBatch) -> Sequence[ParseResult | PluginFault | None]:
        """Parses what is its own.

        Args:
            batch: The packets that no parser before took.

        Returns:
            One entry a packet, in order: the result; None where the packet is
            not this parser's; `PluginFault` around the exception
            where it is, and can't be parsed (see `Parser.handle`). A wrong
            length is a fault of the plugin.

        Raises:
            Exception: A fault of the plugin that costs the whole batch.
        """
        ...


# --- processors --------------------------------------------------------------


@runtime_checkable
class Processor(Plugin, Protocol):
    """Judges and labels records, one by one."""

    def process(self, packet: OutputPacket) -> bool:
        """Whether to keep the record.

        May change `packet.labels`: names as `otus_sdk.labels` allows, values
        text. Nothing else of the packet can be changed.

        Returns:
            False drops the record; the drop is counted.

        Raises:
            Exception: Counted; the record is kept or dropped as the task's
                `faults.on_error` says (keep, unless set otherwise).
        """
        ...


@runtime_checkable
class RecordBatch(Protocol):
    """Records, in the order of capture. Immutable; keep it if you like.

    `json` and `protobuf` are there for reporters whose `wants` asked for them,
    and raise `LookupError` otherwise.
    """

    @property
    def envelope(self) -> Envelope:
        """Task, agent and pipeline that all records come from."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[OutputPacket]: ...

    def packet(self, index: int) -> OutputPacket:
        """The record at `index` (0 .. len - 1) as an object."""
        ...

    def json(self, index: int) -> bytes:
        """The record as one JSON object in UTF-8, no line end."""
        ...

    def protobuf(self, index: int) -> bytes:
        """The record as one `otus.v1.Record`."""
        ...

    def key(self, index: int) -> bytes:
        """What keeps a conversation together: the Call-ID, else the 5-tuple as text."""
        ...

    def payload_type(self, index: int) -> str:
        """What it is: "sip", "rtp", "rtcp", "raw", or a plugin's own."""
        ...

    def labels(self, index: int) -> dict[str, str]:
        """The record's labels; a fresh dict each time."""
        ...

    def ts_ns(self, index: int) -> int:
        """Its time in nanoseconds since the epoch."""
        ...


@runtime_checkable
class BatchProcessor(Plugin, Protocol):
    """Judges and labels records, a batch at a time."""

    def process_batch(self, batch: RecordBatch) -> Sequence[bool]:
        """Which records to keep.

        Labels are changed through the `labels` of `batch.packet(i)`, or of the
        packets that iteration gives.

        Returns:
            One truth value a record, in order (`bytes` will do). A wrong length
            is a fault of the plugin.

        Raises:
            Exception: Counted; the whole batch is kept or dropped as the
                task's `faults.on_error` says.
        """
        ...


# --- reporters ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReportResult:
    """What became of the records of one call.

    Reported, dropped, failed and pending together are the records of the
    batch: the ledger checks it.

    Attributes:
        reported: Delivered.
        dropped: Given up before trying, by reason ("too_large", ...).
        pending: Taken over, to be delivered later; the reporter's `stats` then
            tells what became of them.
        failed: Tried and not delivered, by reason ("timeout", ...).
    """

    reported: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    pending: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReporterStats:
    """What a reporter that finishes later has done since it started, in records.

    Taken over = reported + dropped + failed + queued, at every moment.

    Attributes:
        reported: Delivered.
        dropped: Given up before trying, by reason ("queue_full", ...).
        failed: Tried and not delivered, by reason ("timeout", ...).
        queued: Not decided yet.
        notes: Records to which something was done on the way ("truncated"); they
            are counted above as well.
        trouble: What keeps it from delivering just now, in one line; empty for nothing.
        held_octets: Memory of what is queued; the queue before the reporter gets along
            with so much less.
    """

    reported: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)
    queued: int = 0
    notes: Mapping[str, int] = field(default_factory=dict)
    trouble: str = ""
    held_octets: int = 0


@runtime_checkable
class Reporter(Plugin, Protocol):
    """Delivers records, one by one.

    `init`, `start`, `report`, `flush` and `stop` may be plain functions or
    coroutines: see above for where they run. `stats` must not block.

    A reporter may have an attribute `wants`, a frozenset of "json", "protobuf"
    and "packet", settled by the end of `init`: the encoded forms that it will
    ask the batch for. Without it, "packet" is assumed.
    """

    def report(self, packet: OutputPacket) -> Awaitable[None] | None:
        """Delivers one record.

        Raises:
            Exception: The record counts as failed, under the exception's class
                name; the next one is tried all the same.
        """

    def flush(self) -> Awaitable[None] | None:
        """Delivers what is held back. Called before `stop`, within the deadline."""


@runtime_checkable
class BatchReporter(Plugin, Protocol):
    """Delivers records, a batch at a time. Same freedoms as `Reporter`.

    One that delivers later (`ReportResult.pending`) also has
    `stats() -> ReporterStats`, cumulative, callable from any thread.
    """

    def report_batch(self, batch: RecordBatch) -> Awaitable[ReportResult] | ReportResult:
        """Delivers or takes over a batch. Not called again until it returned.

        While it waits, batches queue up in a bounded queue that drops its
        oldest: be slow at your own cost, nobody else's.

        Raises:
            Exception: All records of the batch count as failed, under the
                exception's class name.
        """
        ...

    def flush(self) -> Awaitable[None] | None:
        """Delivers what is held back. Called before `stop`, within the deadline."""
