"""One pipeline of the core, as Python drives it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from functools import partial
from typing import Any, Final

from otus_core.batch import Batch, Envelope
from otus_core.capture import Capture, Instruction, instructions
from otus_core.counters import by_group
from otus_core.flow import Filter, FlowRegistry
from otus_core.labels import BUILT_IN
from otus_core.native import CoreError, check, ffi, lib, text

TUNNELS: Final = ("none", "vxlan", "gre", "erspan", "geneve", "ipip", "gtpu", "tzsp")
LATENCY_STAGES: Final = ("decode", "parse", "process", "encode", "capture")

# Of its block, what a batch must use to take it along: one that uses less is copied,
# for it would keep memory from those that wait with it.
WORTH_GIVING: Final = 0.5
# Blocks that wait for the next batches: one being encoded, one being sent.
MAX_SPARE: Final = 2
# Blocks that may be away at once, more than a reporter's queue holds by default. Behind a
# longer queue new ones would have to be cleared first, which costs more than a copy.
MAX_AWAY: Final = 8
# How long blocks wait while batches are too small for them.
SPARE_S: Final = 1.0


class Output(IntFlag):
    """What the core puts into the batch beside the records."""

    NONE = 0
    JSON = lib.OTUS_OUTPUT_JSON
    PROTOBUF = lib.OTUS_OUTPUT_PROTOBUF
    FRAME = lib.OTUS_OUTPUT_FRAME
    PAYLOAD_JSON = lib.OTUS_OUTPUT_PAYLOAD_JSON


class StageKind(IntEnum):
    """The stages that a pipeline can hold."""

    PARSE_SIP = lib.OTUS_STAGE_PARSE_SIP
    PARSE_RTP = lib.OTUS_STAGE_PARSE_RTP
    PARSE_PYTHON = lib.OTUS_STAGE_PARSE_PYTHON
    FILTER = lib.OTUS_STAGE_FILTER
    LABEL = lib.OTUS_STAGE_LABEL
    PROCESS_PYTHON = lib.OTUS_STAGE_PROCESS_PYTHON


class ExactView(IntFlag):
    """What the exact filter is run over, bits: see core_c/include/otus/bpf.h."""

    INNER = lib.OTUS_EXACT_INNER
    TAGGED = lib.OTUS_EXACT_TAGGED
    EXTENSIONS = lib.OTUS_EXACT_EXTENSIONS
    FRAME = lib.OTUS_EXACT_FRAME


class DropReason(IntEnum):
    """Counters under which Python stages drop records."""

    PARSE_ERROR = lib.OTUS_COUNT_PARSE_ERROR_PLUGIN
    PROCESSED = lib.OTUS_COUNT_PROCESS_PLUGIN
    PROCESS_ERROR = lib.OTUS_COUNT_PROCESS_PLUGIN_ERROR


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage; parsers come before processors.

    Attributes:
        kind: which one.
        filter: of FILTER.
        keep_if: of FILTER: keep what matches; otherwise drop it.
        labels: of LABEL: name to value.
        header_labels: of PARSE_SIP: label name to SIP header name.
        mentions: label names that get an id although no stage before sets them:
            those that a filter asks for and a Python plugin may set.
    """

    kind: StageKind
    filter: Filter | None = None
    keep_if: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    header_labels: Mapping[str, str] = field(default_factory=dict)
    mentions: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """The decoder; None keeps the core's default.

    Attributes:
        tunnels: kinds that are followed, each with its UDP ports (none: the
            registered ones).
        ip_reassembly: put IP fragments together.
        max_datagrams: datagrams not complete, at once.
        max_fragments: fragments in one datagram.
        max_fragment_octets: octets of all fragments held.
        max_datagrams_per_source: of one source address, at once.
        fragment_timeout_ms: milliseconds of packet time.
    """

    tunnels: Mapping[str, Sequence[int]] = field(default_factory=dict)
    ip_reassembly: bool = True
    max_datagrams: int | None = None
    max_fragments: int | None = None
    max_fragment_octets: int | None = None
    max_datagrams_per_source: int | None = None
    fragment_timeout_ms: int | None = None


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """TCP streams; no ports switch the stage off, None keeps the core's default."""

    ports: Sequence[int] = ()
    max_streams: int | None = None
    max_stream_octets: int | None = None
    max_message_octets: int | None = None
    gap_timeout_ms: int | None = None
    idle_timeout_ms: int | None = None


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """All that one pipeline is made of.

    Attributes:
        task_id: envelope, as are agent_id and pipeline_id.
        stages: parsers, then processors.
        exact_filter: BPF run over the decoded packet.
        exact_view: as which frame.
        forward_unmatched: what no parser took goes on as "raw".
        outputs: encoded forms that reporters and Python stages want.
        raw_payload: put the payload's octets into the encoded record.
        max_records: records in a batch; 0 for the default.
        arena_octets: octets of a batch's arena; 0 for the default.
    """

    task_id: str
    agent_id: str
    pipeline_id: str
    stages: Sequence[Stage]
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    streams: StreamConfig = field(default_factory=StreamConfig)
    flows: FlowRegistry | None = None
    exact_filter: Sequence[Instruction] = ()
    exact_view: ExactView = ExactView.INNER
    forward_unmatched: bool = False
    outputs: Output = Output.JSON
    raw_payload: bool = False
    max_records: int = 0
    arena_octets: int = 0


@dataclass(frozen=True, slots=True)
class PollResult:
    """What a call came back with.

    Attributes:
        next_stage: index of the Python stage that it stopped at; None at the end.
        ended: the source gives no more; the batch in hand is the last.
    """

    next_stage: int | None
    ended: bool


@dataclass(frozen=True, slots=True)
class CaptureStats:
    """A source's own accounts, cumulative.

    Attributes:
        received: frames that passed the kernel filter, dropped ones included.
        dropped: lost because the ring was full.
        interface_dropped: lost before the socket; a host-wide figure.
        freezes: times the ring was full.
        ignored: second sightings of one frame, left out on purpose.
        waiting: in the ring, not taken yet.
        removals: times the interface was removed and waited for.
    """

    received: int
    dropped: int
    interface_dropped: int
    freezes: int
    ignored: int
    waiting: int
    removals: int


@dataclass(frozen=True, slots=True)
class Latency:
    """A histogram of durations, sampled.

    Attributes:
        buckets: count below 2^(i+4) ns for each i; the last holds all others.
        sum_ns: of the samples.
        count: samples taken.
    """

    buckets: tuple[int, ...]
    sum_ns: int
    count: int

    def __add__(self, other: Latency) -> Latency:
        """Both together."""
        buckets = tuple(map(sum, zip(self.buckets, other.buckets, strict=True)))
        return Latency(buckets, self.sum_ns + other.sum_ns, self.count + other.count)


class _NativeConfig:
    """Lays a PipelineConfig out for C and keeps its parts alive."""

    def __init__(self, config: PipelineConfig) -> None:
        self._alive: list[object] = [config]
        self.label_names = _custom_labels(config.stages)
        self.struct = ffi.new("struct otus_pipeline_config *")
        self._fill(config)

    def _text(self, value: str) -> Any:
        octets = ffi.new("char[]", value.encode())
        self._alive.append(octets)
        return octets

    def _array(self, c_type: str, items: Sequence[Any]) -> Any:
        if not items:
            return ffi.NULL
        array = ffi.new(c_type, list(items))
        self._alive.append(array)
        return array

    def _fill(self, config: PipelineConfig) -> None:
        native = self.struct
        native.envelope.task_id = self._text(config.task_id)
        native.envelope.agent_id = self._text(config.agent_id)
        native.envelope.pipeline_id = self._text(config.pipeline_id)
        native.envelope.raw_payload = config.raw_payload
        _fill_decoder(native.decoder, config.decoder)
        _fill_streams(native.streams, config.streams)
        native.flows = config.flows.handle if config.flows is not None else ffi.NULL
        exact = instructions(config.exact_filter)
        self._alive.append(exact)
        native.exact_filter = exact
        native.exact_filter_len = len(config.exact_filter)
        native.exact_view = int(config.exact_view)
        native.label_names = self._array(
            "const char *[]", [self._text(name) for name in self.label_names]
        )
        native.num_label_names = len(self.label_names)
        native.stages = self._array("struct otus_stage[]", [self._stage(s) for s in config.stages])
        native.num_stages = len(config.stages)
        native.forward_unmatched = config.forward_unmatched
        native.outputs = int(config.outputs)
        native.max_records = config.max_records
        native.arena_octets = config.arena_octets

    def _stage(self, stage: Stage) -> dict[str, Any]:
        labels = [
            {"id": self._id(name), "value": self._text(value)}
            for name, value in stage.labels.items()
        ]
        headers = [
            {"id": self._id(name), "name": self._text(header)}
            for name, header in stage.header_labels.items()
        ]
        action = lib.OTUS_FILTER_KEEP_IF if stage.keep_if else lib.OTUS_FILTER_DROP_IF
        return {
            "kind": int(stage.kind),
            "action": action,
            "filter": stage.filter.handle if stage.filter is not None else ffi.NULL,
            "labels": self._array("struct otus_static_label[]", labels),
            "num_labels": len(labels),
            "header_labels": self._array("struct otus_header_label[]", headers),
            "num_header_labels": len(headers),
        }

    def _id(self, name: str) -> int:
        if name in BUILT_IN:
            return BUILT_IN.index(name)
        return int(lib.OTUS_NUM_LABELS) + self.label_names.index(name)


def _custom_labels(stages: Sequence[Stage]) -> list[str]:
    names: dict[str, None] = {}
    for stage in stages:
        names.update(dict.fromkeys(stage.header_labels))
        names.update(dict.fromkeys(stage.labels))
        names.update(dict.fromkeys(stage.mentions))
    return [name for name in names if name not in BUILT_IN]


def label_ids(stages: Sequence[Stage]) -> dict[str, int]:
    """Tell the ids that custom labels of these stages will have in a pipeline.

    Returns:
        Name to id, from the first id behind the built-in labels on: what filter
        programs name them by.
    """
    first = int(lib.OTUS_NUM_LABELS)
    return {name: first + i for i, name in enumerate(_custom_labels(stages))}


def _fill_decoder(native: Any, config: DecoderConfig) -> None:
    lib.otus_decoder_config_init(ffi.addressof(native))
    native.ip_reassembly = config.ip_reassembly
    for kind, ports in config.tunnels.items():
        native.tunnels |= 1 << TUNNELS.index(kind)
        if ports:
            target = getattr(native, kind)
            target.num = len(ports)
            for i, port in enumerate(ports):
                target.port[i] = port
    _fill_given(
        native,
        config,
        (
            "max_datagrams",
            "max_fragments",
            "max_fragment_octets",
            "max_datagrams_per_source",
            "fragment_timeout_ms",
        ),
    )


def _fill_streams(native: Any, config: StreamConfig) -> None:
    lib.otus_stream_config_init(ffi.addressof(native))
    native.num_ports = len(config.ports)
    for i, port in enumerate(config.ports):
        native.ports[i] = port
    _fill_given(
        native,
        config,
        (
            "max_streams",
            "max_stream_octets",
            "max_message_octets",
            "gap_timeout_ms",
            "idle_timeout_ms",
        ),
    )


def _fill_given(native: Any, config: object, names: Sequence[str]) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None:
            setattr(native, name, value)


class Pipeline:
    """Frames in, batches out.

    `poll`, `resume`, `snapshot` and the setters belong to one thread; counters,
    latencies, capture statistics and `interrupt` may be asked for from any.

    Args:
        capture: taken over, also when this fails.
        config: copied.

    Raises:
        CoreError: out of memory, or stages that do not fit together.
    """

    def __init__(self, capture: Capture, config: PipelineConfig) -> None:
        self._native_config = _NativeConfig(config)
        self._capture = capture
        self._num_stages = len(config.stages)
        self._envelope = Envelope(config.task_id, config.agent_id, config.pipeline_id)
        # Scrapes come from other threads: none may hold a handle that close() frees.
        self._lock = threading.Lock()
        out = ffi.new("struct otus_pipeline **")
        source, capture.handle = capture.handle, None
        check(lib.otus_pipeline_open(out, source, self._native_config.struct))
        self._handle: Any = out[0]
        self._batch = lib.otus_pipeline_batch(self._handle)
        self._next_stage = ffi.new("uint32_t *")
        self._block_octets = int(lib.otus_batch_octets(self._batch))
        self._spare: deque[Any] = deque(maxlen=MAX_SPARE)
        self._gave_at = 0.0
        self._loans: deque[None] = deque([None] * MAX_AWAY)  # one for each block that may go
        self._label_names: list[str] = []
        self._last: tuple[dict[str, dict[str, int]], CaptureStats, dict[str, Latency]] | None = None

    def poll(self, timeout_ms: int) -> PollResult:
        """Take frames until the batch is full or none is left.

        Args:
            timeout_ms: how long to wait for the first frame.

        Raises:
            CoreError: the source failed. What came before is in the batch all the
                same: see `stopped_at`.
        """
        status = lib.otus_pipeline_poll(self._handle, self._next_stage, timeout_ms)
        if status < 0 and status != lib.OTUS_E_END:
            raise CoreError(
                text(lib.otus_pipeline_error(self._handle)) or text(lib.otus_status_name(status)),
                status,
            )
        return self._result(ended=status == lib.OTUS_E_END)

    def stopped_at(self) -> int | None:
        """Return the Python stage at which the batch in hand stopped; None at the end."""
        stage = int(self._next_stage[0])
        return stage if stage < self._num_stages else None

    def resume(self, first_stage: int) -> PollResult:
        """Go on with the batch in hand at a stage."""
        check(lib.otus_pipeline_resume(self._handle, self._next_stage, first_stage))
        return self._result(ended=False)

    def _result(self, *, ended: bool) -> PollResult:
        return PollResult(self.stopped_at(), ended)

    def __len__(self) -> int:
        """Return the records in the batch, dropped ones included."""
        return int(self._batch.num_records)

    def snapshot(self) -> Batch:
        """Copy the batch in hand into Python's memory."""
        native = self._batch
        octets = native.num_records * ffi.sizeof("struct otus_record")
        return Batch(
            bytes(ffi.buffer(native.records, octets)) if octets else b"",
            bytes(ffi.buffer(native.arena.base, native.arena.used)) if native.arena.used else b"",
            self._envelope,
            self.label_names(),
        )

    def hand_over(self, room_octets: int = 1 << 62) -> Batch:
        """Give the batch in hand away, which is empty then.

        Args:
            room_octets: what batches may still take, this one included.

        Lifetime: a large batch takes its memory along, which comes back for another one
            when nothing refers to it any more. A small one is copied, and so is one
            where two blocks have no room any more, MAX_AWAY are away, or there is no
            memory to go on in.
        """
        native = self._batch
        records = native.num_records * ffi.sizeof("struct otus_record")
        is_small = records + native.arena.used < WORTH_GIVING * self._block_octets
        if is_small or not self._loans or room_octets < 2 * self._block_octets:
            return self.snapshot()
        self._gave_at = time.monotonic()
        arena = native.max_records * ffi.sizeof("struct otus_record")
        end = arena + native.arena.used
        memory = ffi.new("void **", self._take_spare())
        if lib.otus_pipeline_exchange(self._handle, memory) < 0:
            return self.snapshot()  # a copy needs no more than what is in use
        self._loans.pop()
        owned = ffi.gc(memory[0], partial(_give_back, self._spare, self._loans))
        view = memoryview(ffi.buffer(owned, end)).toreadonly()
        return Batch(
            view[:records], view[arena:], self._envelope, self.label_names(), self._block_octets
        )

    def let_go(self, room_octets: int) -> None:
        """Free spare blocks that there is no room for; all where no batch took one for SPARE_S."""
        is_idle = time.monotonic() - self._gave_at > SPARE_S
        num_kept = 0 if is_idle else room_octets // self._block_octets
        with contextlib.suppress(IndexError):
            while len(self._spare) > num_kept:
                self._spare.pop()

    def _take_spare(self) -> Any:
        try:
            spare = self._spare.pop()
        except IndexError:
            return ffi.NULL
        ffi.gc(spare, None)  # not to be freed when this is forgotten
        return spare

    def label_names(self) -> list[str]:
        """Return the label names by id; the list only ever grows."""
        names = self._label_names
        while (name := lib.otus_pipeline_label_name(self._handle, len(names))) != ffi.NULL:
            names.append(text(name))
        return names

    def keep(self, mask: bytes, reason: DropReason) -> None:
        """Drop and count the records whose octet is 0.

        Args:
            mask: one octet a record, `len(self)` of them.
            reason: the counter.
        """
        if len(mask) != len(self):
            raise ValueError(f"mask has {len(mask)} octets for {len(self)} records")
        lib.otus_pipeline_keep(self._handle, mask, int(reason))

    def take(self, record: int, stage: int, payload_type: str, payload_json: bytes) -> bool:
        """Say that a Python parser took a record.

        Returns:
            False where the batch has no room left: the record is dropped and counted.

        Raises:
            CoreError: another parser has the record already.
        """
        name = payload_type.encode()
        name_slice, name_pin = _slice(name)
        json_slice, json_pin = _slice(payload_json)
        status = lib.otus_pipeline_take(self._handle, record, stage, name_slice[0], json_slice[0])
        del name_pin, json_pin
        if status == lib.OTUS_E_LIMIT:
            return False
        check(status)
        return True

    def set_label(self, record: int, name: str, value: str) -> None:
        """Set a label of a record; one that finds no room is counted."""
        name_slice, name_pin = _slice(name.encode())
        value_slice, value_pin = _slice(_octets(value))
        lib.otus_pipeline_label(self._handle, record, name_slice[0], value_slice[0])
        del name_pin, value_pin

    def finish(self) -> None:
        """End intake; further polls drain what the source holds and then end."""
        lib.otus_pipeline_finish(self._handle)

    def interrupt(self) -> None:
        """Make a waiting poll return at once."""
        with self._lock:
            if self._handle is not None:
                lib.otus_pipeline_interrupt(self._handle)

    def counters(self) -> dict[str, dict[str, int]]:
        """Return every counter by group and reason; after close the last values."""
        with self._lock:
            return by_group(self._read_counters()) if self._last is None else self._last[0]

    def counter_values(self) -> tuple[int, ...]:
        """Return what `by_group` makes counters of: a batch has no time for more. Not after close."""
        with self._lock:
            return self._read_counters()

    def capture_stats(self) -> CaptureStats:
        """Return the source's own accounts; after close the last values."""
        with self._lock:
            return self._read_stats() if self._last is None else self._last[1]

    def latency(self) -> dict[str, Latency]:
        """Return the sampled histogram of each stage; after close the last one."""
        with self._lock:
            return self._read_latency() if self._last is None else self._last[2]

    def position(self) -> int:
        """Return the octets of the file read so far; 0 for a ring."""
        with self._lock:
            return 0 if self._handle is None else int(lib.otus_pipeline_position(self._handle))

    def error(self) -> str:
        """Return what the source has to say about its end; empty where all is well."""
        with self._lock:
            return "" if self._handle is None else text(lib.otus_pipeline_error(self._handle))

    def _read_counters(self) -> tuple[int, ...]:
        values = ffi.new("uint64_t[]", lib.OTUS_NUM_COUNTERS)
        lib.otus_pipeline_get_counters(self._handle, values)
        return tuple(values)

    def _read_stats(self) -> CaptureStats:
        stats = ffi.new("struct otus_capture_stats *")
        lib.otus_pipeline_capture_stats(self._handle, stats)
        return CaptureStats(
            received=int(stats.received),
            dropped=int(stats.dropped),
            interface_dropped=int(stats.interface_dropped),
            freezes=int(stats.freezes),
            ignored=int(stats.ignored),
            waiting=int(stats.waiting),
            removals=int(stats.removals),
        )

    def _read_latency(self) -> dict[str, Latency]:
        native = ffi.new("struct otus_latency[]", lib.OTUS_NUM_LATENCY_STAGES)
        lib.otus_pipeline_get_latency(self._handle, native)
        return {
            name: Latency(tuple(native[i].bucket), int(native[i].sum_ns), int(native[i].count))
            for i, name in enumerate(LATENCY_STAGES)
        }

    def close(self) -> None:
        """Free everything; safe twice. The last counters stay readable."""
        with self._lock:
            if self._handle is None:
                return
            counters = by_group(self._read_counters())
            self._last = (counters, self._read_stats(), self._read_latency())
            handle, self._handle = self._handle, None
            lib.otus_pipeline_close(handle)


def _give_back(spare: deque[Any], loans: deque[None], memory: Any) -> None:
    """Keep a batch's memory for the next one; what is one too many is freed."""
    spare.append(ffi.gc(memory, lib.free))
    loans.append(None)


def _octets(value: str) -> bytes:
    """Return the octets that a text stands for; halves of a character become '?'."""
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace")


def _slice(octets: bytes) -> tuple[Any, Any]:
    """Return a C slice of octets and what keeps them alive."""
    pin = ffi.from_buffer(octets)
    return ffi.new("struct otus_slice *", {"at": pin, "len": len(octets)}), pin
