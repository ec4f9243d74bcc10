"""The checks. Each test says in one sentence which promise of the contracts it checks."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from otus_sdk.errors import PacketTooShort, PipelineStopped, UnsupportedProtocol
from otus_sdk.factory import API_VERSION, NativeStage, PluginFactory, PluginKind
from otus_sdk.host import (
    PacketList,
    RecordList,
    maybe_await,
    parse_function,
    process_function,
    report_function,
)
from otus_sdk.labels import check_label_name
from otus_sdk.model import CaptureStats, DecodedPacket, OutputPacket, RawPacket
from otus_sdk.protocols import (
    BatchParser,
    BatchProcessor,
    BatchReporter,
    Capturer,
    Parser,
    ParseResult,
    PluginFault,
    Processor,
    Reporter,
    ReporterStats,
    ReportResult,
)
from otus_sdk.testing.samples import record_json, sample_packets, sample_records

__all__ = ["PluginConformance"]

TIMEOUT_S = 60.0
_TRAFFIC_ERRORS = (PacketTooShort, UnsupportedProtocol)
_FORMS: Mapping[PluginKind, tuple[type, ...]] = {
    PluginKind.CAPTURER: (Capturer,),
    PluginKind.PARSER: (Parser, BatchParser),
    PluginKind.PROCESSOR: (Processor, BatchProcessor),
    PluginKind.REPORTER: (Reporter, BatchReporter),
}


def _run(value: Any) -> Any:
    """The value of a plain or an async call."""
    if not inspect.isawaitable(value):
        return value

    async def wait() -> Any:
        async with asyncio.timeout(TIMEOUT_S):
            return await maybe_await(value)

    return asyncio.run(wait())


class PluginConformance:
    """Checks one plugin; subclass it in a test module.

    Attributes:
        factory: The plugin's factory.
        config: The section that a task would hold.
        bad_configs: Sections that must be refused.
        packets: What a parser is offered besides the samples; put in what it takes.
        records: What a processor or reporter gets besides the samples.
    """

    factory: ClassVar[PluginFactory]
    config: ClassVar[Mapping[str, Any]] = {}
    bad_configs: ClassVar[Sequence[Mapping[str, Any]]] = ()
    packets: ClassVar[Sequence[DecodedPacket]] = ()
    records: ClassVar[Sequence[OutputPacket]] = ()

    def __init_subclass__(cls, **arguments: Any) -> None:
        """Leaves out the checks of the other kinds."""
        super().__init_subclass__(**arguments)
        factory = getattr(cls, "factory", None)
        for kind in PluginKind:
            for name in dir(cls) if factory is not None and factory.kind is not kind else ():
                if name.startswith(f"test_{kind.value}_"):
                    setattr(cls, name, None)

    # --- for subclasses ------------------------------------------------------

    def make_plugin(self) -> Any:
        """An initialised instance; override where a test needs more than `config`."""
        plugin: Any = self.factory.create()
        _run(plugin.init(self.make_config()))
        return plugin

    def make_config(self) -> Any:
        """The validated configuration."""
        return self.factory.config_type(**self.config)

    def _started(self) -> Any:
        plugin = self.make_plugin()
        _run(plugin.start())
        return plugin

    def _all_packets(self) -> list[DecodedPacket]:
        return [*self.packets, *sample_packets()]

    def _all_records(self) -> list[OutputPacket]:
        return [*copy.deepcopy(list(self.records)), *sample_records()]

    def _batch(self, records: Sequence[OutputPacket]) -> RecordList:
        encoded = [record_json(record) for record in records]
        return RecordList(records, json=encoded, protobuf=encoded)

    # --- factory and configuration -------------------------------------------

    def test_factory_speaks_this_api(self) -> None:
        """The factory says what it is, in the API version of this SDK."""
        assert isinstance(self.factory, PluginFactory)
        assert self.factory.api_version == API_VERSION
        assert self.factory.description, "give the factory a description for `otus plugins`"

    def test_instances_are_of_the_factory_s_kind(self) -> None:
        """create() makes a new plugin of the right name with a form of its kind."""
        plugin, other = self.factory.create(), self.factory.create()
        assert plugin is not other, "create() must make a new instance each time"
        assert plugin.name == self.factory.name
        forms = _FORMS[self.factory.kind]
        names = " or ".join(form.__name__ for form in forms)
        assert isinstance(plugin, forms), f"it has not all the members of {names}"

    def test_configuration_is_checked(self) -> None:
        """A good section is accepted; unknown keys and what the author calls bad are refused."""
        assert isinstance(self.make_config(), self.factory.config_type)
        with pytest.raises((TypeError, ValueError)):
            self.factory.config_type(**{**self.config, "otus_sdk_no_such_key": 1})
        for section in self.bad_configs:
            with pytest.raises((TypeError, ValueError)):
                self.factory.config_type(**section)

    def test_native_stage_comes_from_the_configuration(self) -> None:
        """A native stage is made from the configuration alone."""
        if self.factory.native is None:
            pytest.skip("it has no native stage")
        native = self.factory.native(self.make_config())
        assert native is None or isinstance(native, NativeStage)

    # --- lifecycle -----------------------------------------------------------

    def test_stop_without_start(self) -> None:
        """stop() is safe without start(), and twice."""
        plugin = self.make_plugin()
        _run(plugin.stop())
        _run(plugin.stop())

    def test_start_and_stop(self) -> None:
        """stop() ends what start() began, and is safe twice."""
        plugin = self._started()
        _run(plugin.stop())
        _run(plugin.stop())

    def test_instances_do_not_share(self) -> None:
        """Two instances live side by side; stopping one leaves the other at work."""
        first, second = self._started(), self._started()
        _run(first.stop())
        if self.factory.kind is PluginKind.PARSER:
            parse_function(second)(PacketList(self._all_packets()))
        elif self.factory.kind is PluginKind.PROCESSOR:
            process_function(second)(self._batch(self._all_records()))
        _run(second.stop())

    # --- parsers -------------------------------------------------------------

    def test_parser_results_are_well_formed(self) -> None:
        """Payloads are JSON-able, labels have good names and text values, the type is a name."""
        parser = self._started()
        check_label_name(parser.payload_type)
        packets = self._all_packets()
        outcomes = parse_function(parser)(PacketList(packets))
        assert len(outcomes) == len(packets)
        for outcome in outcomes:
            if isinstance(outcome, PluginFault):
                assert isinstance(outcome.error, _TRAFFIC_ERRORS), repr(outcome.error)
            elif outcome is not None:
                _check_result(outcome)
        _run(parser.stop())

    def test_parser_takes_what_it_should(self) -> None:
        """Each of the author's own packets is taken, as the class attribute promises."""
        if not self.packets:
            pytest.skip("put packets that the parser takes into `packets`")
        parser = self._started()
        outcomes = parse_function(parser)(PacketList(self.packets))
        assert all(isinstance(outcome, ParseResult) for outcome in outcomes), outcomes
        _run(parser.stop())

    def test_parser_survives_every_truncation(self) -> None:
        """A payload that is cut off anywhere is refused or a traffic error, never a fault."""
        parser = self._started()
        parse = parse_function(parser)
        for packet in self._all_packets():
            if len(packet.payload) > 2000:
                continue
            cuts = [
                _with_payload(packet, packet.payload[:end]) for end in range(len(packet.payload))
            ]
            for outcome in parse(PacketList(cuts)) if cuts else ():
                if isinstance(outcome, PluginFault):
                    assert isinstance(outcome.error, _TRAFFIC_ERRORS), repr(outcome.error)
        _run(parser.stop())

    def test_parser_forms_agree(self) -> None:
        """A parser with both forms gives the same in either."""
        parser = self._started()
        if not (isinstance(parser, Parser) and isinstance(parser, BatchParser)):
            pytest.skip("it has one form; the SDK makes the other from it")
        packets = self._all_packets()
        singly = [_parse_singly(parser, packet) for packet in packets]
        together = [_comparable(outcome) for outcome in parser.parse_batch(PacketList(packets))]
        assert together == singly
        _run(parser.stop())

    def test_parser_can_handle_changes_nothing(self) -> None:
        """can_handle() gives a bool, the same twice, and leaves the packet as it was."""
        parser = self._started()
        if not isinstance(parser, Parser):
            pytest.skip("it has the batch form only")
        for packet in self._all_packets():
            before = copy.deepcopy(packet)
            answers = [parser.can_handle(packet), parser.can_handle(packet)]
            assert answers in ([True, True], [False, False]), answers
            assert packet == before
        _run(parser.stop())

    # --- processors ----------------------------------------------------------

    def test_processor_judges_every_record(self) -> None:
        """Every record gets a truth value; labels stay text under good names."""
        processor = self._started()
        records = self._all_records()
        outcomes = process_function(processor)(self._batch(records))
        assert len(outcomes) == len(records)
        for outcome, record in zip(outcomes, records, strict=True):
            assert not isinstance(outcome, PluginFault), repr(outcome)
            _check_labels(record.labels)
        _run(processor.stop())

    def test_processor_changes_labels_only(self) -> None:
        """All of a record but its labels is as it was before."""
        processor = self._started()
        records, before = self._all_records(), self._all_records()
        process_function(processor)(self._batch(records))
        for record, old in zip(records, before, strict=True):
            old.labels.clear()
            old.labels.update(record.labels)
            assert record == old
        _run(processor.stop())

    def test_processor_forms_agree(self) -> None:
        """A processor with both forms judges and labels the same in either."""
        processor = self._started()
        if not (isinstance(processor, Processor) and isinstance(processor, BatchProcessor)):
            pytest.skip("it has one form; the SDK makes the other from it")
        one, other = self._all_records(), self._all_records()
        singly = [bool(processor.process(record)) for record in one]
        together = [bool(keep) for keep in processor.process_batch(self._batch(other))]
        assert together == singly
        assert [record.labels for record in one] == [record.labels for record in other]
        _run(processor.stop())

    # --- reporters -----------------------------------------------------------

    def test_reporter_accounts_for_every_record(self) -> None:
        """Reported, dropped, failed and pending add up; nothing is pending after stop()."""
        asyncio.run(asyncio.wait_for(self._report(), TIMEOUT_S))

    async def _report(self) -> None:
        plugin: Any = self.factory.create()
        await maybe_await(plugin.init(self.make_config()))
        wants = getattr(plugin, "wants", frozenset({"packet"}))
        assert wants <= {"json", "protobuf", "packet"}, f"wants {wants} asks for unknown forms"
        await maybe_await(plugin.start())
        records = self._all_records()
        report = report_function(plugin)
        pending = 0
        for _ in range(3):
            result = await report(self._batch(records))
            assert isinstance(result, ReportResult)
            told = result.reported + sum(result.dropped.values()) + sum(result.failed.values())
            assert told + result.pending == len(records), f"{result} for {len(records)} records"
            pending += result.pending
        if hasattr(plugin, "stats"):
            # Where a reporter keeps books, they hold all that it took over.
            assert _total(plugin.stats()) == 3 * len(records), plugin.stats()
        else:
            assert not pending, "pending records need stats(), which tells what became of them"
        await maybe_await(plugin.flush())
        await maybe_await(plugin.stop())
        await maybe_await(plugin.stop())
        if hasattr(plugin, "stats"):
            final = plugin.stats()
            assert _total(final) == 3 * len(records), final
            assert final.queued == 0, f"after stop() {final.queued} records are still queued"

    def test_reporter_does_not_change_records(self) -> None:
        """A reporter leaves records as they are: the next reporter gets the same."""
        records, before = self._all_records(), self._all_records()

        async def once() -> None:
            plugin: Any = self.factory.create()
            await maybe_await(plugin.init(self.make_config()))
            await maybe_await(plugin.start())
            await report_function(plugin)(self._batch(records))
            await maybe_await(plugin.stop())

        asyncio.run(asyncio.wait_for(once(), TIMEOUT_S))
        assert records == before

    # --- capturers -----------------------------------------------------------

    def test_capturer_ends_when_told(self) -> None:
        """capture() returns by itself or soon after stop(); stats() never go down."""
        if self.factory.native is not None and self.factory.native(self.make_config()) is not None:
            pytest.skip("the core captures for it")
        plugin = self._started()
        sink = _Sink(limit=1000)
        before: CaptureStats = plugin.stats()
        thread = threading.Thread(target=_swallow(plugin.capture, sink), daemon=True)
        thread.start()
        sink.seen.wait(1.0)
        plugin.stop()
        thread.join(TIMEOUT_S)
        assert not thread.is_alive(), "capture() did not return after stop()"
        after: CaptureStats = plugin.stats()
        assert after.received >= before.received
        assert all(isinstance(packet, RawPacket) for packet in sink.packets)


class _Sink:
    """A packet sink that keeps what it gets, up to a limit, and then is a stopped pipeline."""

    def __init__(self, limit: int) -> None:
        self.packets: list[RawPacket] = []
        self.seen = threading.Event()
        self._limit = limit

    def put(self, packets: Iterable[RawPacket], *, block: bool = True) -> int:
        taken = list(packets)
        if len(self.packets) + len(taken) > self._limit:
            raise PipelineStopped("the sink is full")
        self.packets += taken
        self.seen.set()
        return len(taken)


def _swallow(function: Callable[[Any], object], argument: Any) -> Callable[[], None]:
    def call() -> None:
        try:
            function(argument)
        except PipelineStopped:
            return

    return call


def _total(stats: ReporterStats) -> int:
    return stats.reported + stats.queued + sum(stats.dropped.values()) + sum(stats.failed.values())


def _check_labels(labels: Mapping[str, str]) -> None:
    for name, value in labels.items():
        check_label_name(name)
        assert isinstance(value, str), f"label {name} is {value!r}, must be text"


def _check_result(result: Any) -> None:
    assert isinstance(result, ParseResult), f"{result!r} is neither ParseResult nor None"
    json.dumps(dict(result.payload), allow_nan=False)
    _check_labels(result.labels)
    if result.payload_type is not None:
        check_label_name(result.payload_type)


def _comparable(outcome: Any) -> Any:
    if isinstance(outcome, PluginFault):
        return type(outcome.error)
    if outcome is None:
        return None
    return dict(outcome.payload), dict(outcome.labels)


def _parse_singly(parser: Parser, packet: DecodedPacket) -> Any:
    if not parser.can_handle(packet):
        return None
    try:
        payload, labels = parser.handle(packet)
    except _TRAFFIC_ERRORS as error:
        return type(error)
    return dict(payload), dict(labels)


def _with_payload(packet: DecodedPacket, payload: bytes) -> DecodedPacket:
    return DecodedPacket(
        packet.ts_ns,
        packet.ethernet,
        packet.ip,
        packet.transport,
        payload,
        truncated=True,
        stream=packet.stream,
    )
