"""Pipelines: what a task's stages become in the core, and the thread that drives them.

The order of the task is never changed. Stages that the core knows run inside
its call, one after the other; at a Python stage the call stops, the plugin is
asked, and the call goes on behind it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import otus_core
from otus_agent.ledger import SourceAccount, add_counters
from otus_agent.logs.logger import get_logger
from otus_agent.resolve import ResolvedPlugin, ResolvedTask
from otus_agent.stages import FaultTracker, ParserStage, ProcessorStage, PythonStage
from otus_sdk.errors import ConfigurationInvalid, OtusError, PluginInitFailed
from otus_sdk.factory import NativeStage, PluginKind

__all__ = ["PipelineWorker", "StagePlan", "build_stages", "core_outputs"]

log = get_logger("otus.pipeline")

# How long an idle pipeline sleeps in the core; finish() and interrupt() wake it.
POLL_TIMEOUT_MS = 1000
MAX_THREAD_NAME = 15


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """One stage before the core sees it: native, or a plugin instance.

    Attributes:
        resolved: The plugin.
        native: What the core runs instead, or None.
        plugin: The instance, where Python runs it.
        tracker: Its faults, likewise.
    """

    resolved: ResolvedPlugin
    native: NativeStage | None = None
    plugin: Any = None
    tracker: FaultTracker | None = None


@dataclass(frozen=True, slots=True)
class StagePlan:
    """The stages of one pipeline, in order: parsers, then processors."""

    stages: tuple[PlannedStage, ...]

    @property
    def plugins(self) -> list[PlannedStage]:
        """Those that Python runs."""
        return [stage for stage in self.stages if stage.plugin is not None]

    @property
    def trackers(self) -> list[FaultTracker]:
        """The faults of each of them."""
        return [stage.tracker for stage in self.stages if stage.tracker is not None]


def build_stages(task: ResolvedTask) -> StagePlan:
    """Makes the stages of one pipeline; plugins are constructed, not yet initialised.

    Raises:
        PluginInitFailed: A factory raised, or made something that is no plugin.
    """
    planned: list[PlannedStage] = []
    for resolved in (*task.parsers, *task.processors):
        factory = resolved.factory
        native = factory.native(resolved.config) if factory.native is not None else None
        if native is not None:
            planned.append(PlannedStage(resolved, native))
            continue
        tracker = FaultTracker(resolved.name, task.config.faults, task.config.id)
        planned.append(PlannedStage(resolved, None, construct(resolved), tracker))
    return StagePlan(tuple(planned))


def construct(resolved: ResolvedPlugin) -> Any:
    """An instance of a plugin.

    Raises:
        PluginInitFailed: Its factory raised.
    """
    try:
        return resolved.factory.create()
    except Exception as error:
        raise PluginInitFailed(
            f"{resolved.factory.kind} {resolved.name!r} can't be made: "
            f"{type(error).__name__}: {error}"
        ) from error


def python_stages(plan: StagePlan) -> dict[int, PythonStage]:
    """What runs at each index where the core stops.

    Raises:
        PluginInitFailed: A plugin has neither form of its kind.
    """
    stages: dict[int, PythonStage] = {}
    for index, stage in enumerate(plan.stages):
        if stage.plugin is None or stage.tracker is None:
            continue
        is_parser = stage.resolved.factory.kind is PluginKind.PARSER
        make: Callable[..., PythonStage] = ParserStage if is_parser else ProcessorStage
        try:
            stages[index] = make(stage.plugin, index, stage.resolved.name, stage.tracker)
        except (TypeError, ValueError, AttributeError) as error:
            raise PluginInitFailed(
                f"{stage.resolved.factory.kind} {stage.resolved.name!r}: {error}"
            ) from error
    return stages


def core_stages(plan: StagePlan) -> list[otus_core.Stage]:
    """The stages as the core takes them, filters compiled.

    Raises:
        PluginInitFailed: The core knows no such stage.
        ConfigurationInvalid: A filter expression does not hold.
    """
    kinds = otus_core.StageKind
    stages: list[otus_core.Stage] = []
    for stage in plan.stages:
        native = stage.native
        if native is None:
            is_parser = stage.resolved.factory.kind is PluginKind.PARSER
            stages.append(
                otus_core.Stage(kinds.PARSE_PYTHON if is_parser else kinds.PROCESS_PYTHON)
            )
            continue
        match native.kind:
            case "sip":
                headers = dict(native.config.get("header_labels", {}))
                stages.append(otus_core.Stage(kinds.PARSE_SIP, header_labels=headers))
            case "rtp":
                stages.append(otus_core.Stage(kinds.PARSE_RTP))
            case "label":
                labels = dict(native.config["labels"])
                stages.append(otus_core.Stage(kinds.LABEL, labels=labels))
            case "filter":
                stages.append(otus_core.Stage(kinds.FILTER))
            case _:
                raise PluginInitFailed(
                    f"{stage.resolved.factory.kind} {stage.resolved.name!r}: the core has no "
                    f"stage {native.kind!r}"
                )
    return _with_filters(plan, stages)


def _with_filters(plan: StagePlan, stages: list[otus_core.Stage]) -> list[otus_core.Stage]:
    """Compiles filters last, for programs name labels by the ids that all stages give."""
    filters = {
        index: stage.native
        for index, stage in enumerate(plan.stages)
        if stage.native is not None and stage.native.kind == "filter"
    }
    if not filters:
        return stages
    from otus_sdk.expression import Schema, compile_expression
    from otus_sdk.labels import BUILTIN_LABELS, LabelType

    # What a Python plugin will set can't be known: any label may be named then.
    if plan.plugins:
        for index, native in filters.items():
            named = compile_names(native.config["expression"])
            stages[index] = dataclasses.replace(
                stages[index], mentions=tuple(name for name in named if name not in BUILTIN_LABELS)
            )
    ids = otus_core.label_ids(stages)
    schema = Schema(dict.fromkeys(ids, LabelType.STRING), ids)
    for index, native in filters.items():
        try:
            program = compile_expression(native.config["expression"], schema)
        except ConfigurationInvalid as error:
            whose = plan.stages[index].resolved
            raise ConfigurationInvalid(f"processor {whose.name!r}: {error.message}") from error
        stages[index] = dataclasses.replace(
            stages[index],
            filter=otus_core.Filter(program.bytecode),
            keep_if=native.config["action"] == "keep_if",
        )
    return stages


def compile_names(expression: str) -> Sequence[str]:
    """The labels that an expression names, known or not; none where it does not parse."""
    from otus_sdk.expression import Schema, check, parse_expression

    try:
        schema = Schema(permissive=True)
        return [
            name
            for name in check(parse_expression(expression), expression, schema)
            if schema.is_label(name)
        ]
    except ConfigurationInvalid:
        return ()


def core_outputs(plan: StagePlan, wants: frozenset[str]) -> otus_core.Output:
    """What the core has to encode: for reporters, and for Python processors."""
    outputs = otus_core.Output.NONE
    if "json" in wants:
        outputs |= otus_core.Output.JSON
    if "protobuf" in wants:
        outputs |= otus_core.Output.PROTOBUF
    looks_at_packets = any(
        stage.plugin is not None and stage.resolved.factory.kind is PluginKind.PROCESSOR
        for stage in plan.stages
    )
    if "packet" in wants or looks_at_packets:
        outputs |= otus_core.Output.PAYLOAD_JSON
    return outputs


class BatchSink(Protocol):
    """Where batches go: a reporter's queue."""

    @property
    def room_octets(self) -> int:
        """Memory that batches and what is made of them may still take, by what is known."""

    def put(self, batch: Any) -> None:
        """Takes a batch; never blocks."""

    def wait_for_room(self, batch: Any, give_up: Callable[[], bool]) -> None:
        """Waits until `put` would drop nothing, or the worker gives up."""


@dataclass(slots=True)
class _Finished:
    """The accounts of core pipelines that have been closed."""

    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    source: SourceAccount = field(default_factory=lambda: SourceAccount(ended=True))
    latency: dict[str, otus_core.Latency] = field(default_factory=dict)
    position: int = 0


class PipelineWorker:
    """One pipeline's thread: poll, Python stages, hand over, until the source ends.

    Args:
        pipeline_id: In the envelope, the thread's name and metrics.
        cores: The core pipelines to run one after the other; a ring gives one,
            several files give several. The first is open already.
        stages: Python stages by index.
        sinks: The reporters' queues.
        on_end: Called from the thread when it ends, `error` being settled.
        cpu: Where to run, None for anywhere.
        nice: The thread's niceness where the source is live; 0 leaves it alone.
        can_wait: The source is not live: rather than dropping, wait for the reporters.
    """

    def __init__(
        self,
        pipeline_id: str,
        cores: Iterator[otus_core.Pipeline],
        stages: Mapping[int, PythonStage],
        sinks: Sequence[BatchSink],
        on_end: Callable[[PipelineWorker], None],
        cpu: int | None = None,
        nice: int = 0,
        *,
        can_wait: bool = False,
    ) -> None:
        self.pipeline_id = pipeline_id
        self.error: BaseException | None = None
        #: Where a file is cut off inside its last record; what came before was taken.
        self.cut = ""
        self.ended = threading.Event()
        self._cores = cores
        self._core: otus_core.Pipeline | None = next(cores, None)
        self._stages = stages
        self._sinks = sinks
        self._on_end = on_end
        self._cpu = cpu
        self._nice = 0 if can_wait else nice
        self._can_wait = can_wait
        self._stopping = False
        self._lock = threading.Lock()
        self._published: Sequence[int] = ()
        self._finished = _Finished()
        self._in_plugin: tuple[str, float] | None = None
        self._thread = threading.Thread(target=self._run, name=f"otus-{pipeline_id}", daemon=True)

    # --- from the event loop -------------------------------------------------

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def finish(self) -> None:
        """Ends intake; the thread drains what is held and then ends."""
        self._stopping = True
        core = self._core
        if core is not None:
            core.interrupt()

    def close(self) -> None:
        """Frees the core of a worker whose thread never ran, or has ended."""
        if self._thread.is_alive():
            return
        if self._core is not None:
            self._retire(self._core)

    @property
    def stuck_in(self) -> str | None:
        """The plugin that the thread has been in for more than a second, if any."""
        inside = self._in_plugin
        if inside is None or time.monotonic() - inside[1] < 1.0:
            return None
        return inside[0]

    # --- accounts, from any thread -------------------------------------------

    @contextlib.contextmanager
    def at_rest(self) -> Iterator[None]:
        """Holds the hand-over back, so that counters and queues are of one moment."""
        with self._lock:
            yield

    def counters(self) -> dict[str, dict[str, int]]:
        """Counters as of the last batch that was handed over; call it `at_rest`."""
        published = otus_core.by_group(self._published) if self._published else {}
        return add_counters([self._finished.counters, published])

    def source(self) -> SourceAccount:
        """What the source says of itself now; call it `at_rest`."""
        finished, core = self._finished.source, self._core
        if core is None:
            return finished
        return finished + SourceAccount.of(core.capture_stats(), ended=False)

    def latency(self) -> dict[str, otus_core.Latency]:
        """The core's sampled latencies by stage; call it `at_rest`."""
        core = self._core
        return _added(self._finished.latency, core.latency() if core is not None else {})

    def position(self) -> int:
        """Octets of files read so far; 0 for a ring."""
        core = self._core
        return self._finished.position + (core.position() if core is not None else 0)

    # --- the thread ----------------------------------------------------------

    def _run(self) -> None:
        try:
            self._settle_in()
            while self._core is not None:
                self._run_core(self._core)
                if cut := self._core.error():
                    log.warning("capture ended early", pipeline=self.pipeline_id, reason=cut)
                    self.cut = cut
                self._retire(self._core)
                if not self._stopping:
                    self._core = next(self._cores, None)
        except OtusError as error:
            self.error = error
        except BaseException as error:
            log.exception("pipeline failed", pipeline=self.pipeline_id)
            self.error = error
        finally:
            if self._core is not None:
                self._retire(self._core)
            self.ended.set()
            self._on_end(self)

    def _settle_in(self) -> None:
        name = f"otus-{self.pipeline_id}"[-MAX_THREAD_NAME:]
        # Names and affinity are conveniences: a kernel that refuses changes nothing.
        with contextlib.suppress(OSError):
            Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name)
        if self._cpu is not None:
            try:
                os.sched_setaffinity(0, {self._cpu})
            except OSError as error:
                log.warning(
                    "pipeline not bound to its CPU",
                    pipeline=self.pipeline_id,
                    cpu=self._cpu,
                    reason=error.strerror,
                )
        if self._nice:
            # A ring overflows in tenths of a second; everything behind it has a queue.
            try:
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._nice)
            except OSError as error:
                log.info(
                    "pipeline has no priority over other threads",
                    pipeline=self.pipeline_id,
                    nice=self._nice,
                    reason=error.strerror,
                )

    def _run_core(self, core: otus_core.Pipeline) -> None:
        failure: Exception | None = None
        finishing = False
        while True:
            if self._stopping and not finishing:
                finishing = True
                core.finish()
            ended, error = False, None
            try:
                ended = core.poll(POLL_TIMEOUT_MS).ended
            except otus_core.CoreError as raised:
                error = raised
            # Also where the source failed: what came before is in the batch.
            failed_plugin = self._run_python(core, core.stopped_at())
            self._hand_over(core)
            if error is not None and failure is not None:
                raise failure
            failure = failure or error or failed_plugin
            if ended:
                break
            if failure is not None and not finishing:
                finishing = True
                core.finish()
        if failure is not None:
            raise failure

    def _run_python(self, core: otus_core.Pipeline, stage: int | None) -> Exception | None:
        """Runs Python stages and the native ones between them, to the end of the chain."""
        failure: Exception | None = None
        while stage is not None:
            if len(core):
                python = self._stages[stage]
                self._in_plugin = (python.tracker.plugin, time.monotonic())
                try:
                    python.run(core)
                except Exception as error:  # noqa: BLE001 a plugin to fail with, or a bug of ours
                    # The batch in hand is seen through: the ledger stays balanced.
                    failure = error
                finally:
                    self._in_plugin = None
            stage = core.resume(stage + 1).next_stage
        return failure

    def _hand_over(self, core: otus_core.Pipeline) -> None:
        room_octets = min((sink.room_octets for sink in self._sinks), default=0)
        core.let_go(room_octets)
        batch = core.hand_over(room_octets) if len(core) else None
        if batch and self._can_wait:
            for sink in self._sinks:
                sink.wait_for_room(batch, lambda: self._stopping)
        with self._lock:
            if batch:
                for sink in self._sinks:
                    sink.put(batch)
            self._published = core.counter_values()

    def _retire(self, core: otus_core.Pipeline) -> None:
        """Closes a core pipeline and keeps its accounts."""
        with self._lock:
            position = core.position()
            core.close()
            past = self._finished
            self._finished = _Finished(
                add_counters([past.counters, core.counters()]),
                past.source + SourceAccount.of(core.capture_stats(), ended=True),
                _added(past.latency, core.latency()),
                past.position + position,
            )
            self._published = ()
            self._core = None


def _added(
    past: Mapping[str, otus_core.Latency], now: Mapping[str, otus_core.Latency]
) -> dict[str, otus_core.Latency]:
    return {
        stage: past[stage] + now[stage] if stage in past else now[stage] for stage in now
    } or dict(past)
