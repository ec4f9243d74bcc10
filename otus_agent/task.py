"""One task: from its configuration to running pipelines and back to nothing.

    created -> starting -> running -> stopping -> stopped | failed

Starting goes through the phases resolve, construct, init, wire and start; each
registers how it is undone, so that a failing one leaves nothing behind.
(validate, the phase before, is `TaskConfig` itself.)
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import otus_core
from otus_agent.bridge import Delivery, ReporterAccount
from otus_agent.capture_filter import (
    LINK_ETHERNET,
    CaptureFilter,
    compile_capture_filter,
    fanout_program,
    interface_link_type,
)
from otus_agent.config.kafka import KafkaConfig, inherit
from otus_agent.config.task import TaskConfig
from otus_agent.ledger import Ledger, SourceAccount, add_counters, make_ledger
from otus_agent.logs.logger import get_logger
from otus_agent.pipeline import (
    PipelineWorker,
    StagePlan,
    build_stages,
    construct,
    core_outputs,
    core_stages,
    python_stages,
)
from otus_agent.plugin_calls import PLUGIN_STOP_TIMEOUT_S, PluginCaller
from otus_agent.registry import PluginRegistry, one_line
from otus_agent.resolve import ResolvedPlugin, ResolvedTask, resolve_task
from otus_agent.sources import Filters, PluginSource, RingSource, Source, make_source
from otus_agent.stages import FaultTracker
from otus_sdk.errors import ConfigurationInvalid, OtusError, PluginInitFailed, TaskStartFailed
from otus_sdk.factory import NativeStage

__all__ = ["Task", "TaskEnvironment", "TaskState"]

log = get_logger("otus.task")

PLUGIN_START_TIMEOUT_S = 30.0


class TaskState(enum.StrEnum):
    """Where a task is in its life."""

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TaskEnvironment:
    """What the tasks of one agent share.

    Attributes:
        agent_id: In every record's envelope.
        registry: The installed plugins.
        kafka: The global section that Kafka reporters inherit from.
        tags: The agent's tags.
    """

    agent_id: str
    registry: PluginRegistry
    kafka: KafkaConfig | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def inherit(self, kind: str, section: Mapping[str, Any]) -> Mapping[str, Any]:
        """Lays the own section of a reporter or processor over what the agent gives it."""
        if kind == "label":
            return {"agent_tags": dict(self.tags), **section}
        if kind == "kafka":
            return inherit(self.kafka, section, self.agent_id)
        return section


class Task:
    """One task. Belongs to one event loop; `status` and `ledger` are for any thread.

    Args:
        config: Validated by itself; its plugins are looked at when it starts.
        environment: What tasks share.

    Attributes:
        finished: Set when the task has ended by itself: its source is exhausted
            (state stays `running` until `stop` has flushed the reporters), or it
            failed. Whoever waits for it calls `stop`.
    """

    def __init__(self, config: TaskConfig, environment: TaskEnvironment) -> None:
        self.config = config
        self.finished = asyncio.Event()
        self.last_error: str | None = None
        self.workers: tuple[PipelineWorker, ...] = ()
        self.deliveries: tuple[Delivery, ...] = ()
        self.trackers: tuple[FaultTracker, ...] = ()
        self.flows: otus_core.FlowRegistry | None = None
        self.source: Source | None = None
        self.notes: list[str] = []
        self._environment = environment
        self._state = TaskState.CREATED
        self._undo = contextlib.AsyncExitStack()
        self._callers: dict[int, PluginCaller] = {}
        self._filters = Filters()
        self._reporting: list[asyncio.Task[None]] = []
        self._workers_done = asyncio.Event()
        self._started_at: float | None = None  # by the wall clock, for people
        self._started: float | None = None  # by one that does not step
        self._ended: float | None = None
        self._lock = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def id(self) -> str:
        """The task's id."""
        return self.config.id

    @property
    def state(self) -> TaskState:
        """Where it is in its life."""
        return self._state

    # --- starting ------------------------------------------------------------

    async def start(self) -> None:
        """Starts the task, or raises and leaves nothing behind.

        Raises:
            ConfigurationInvalid, PluginNotFound, PluginInitFailed: As they say.
            TaskStartFailed: Anything else; one line says what, and what to do.
        """
        async with self._lock:
            if self._state is not TaskState.CREATED:
                raise TaskStartFailed(f"task {self.id} is {self._state}, it starts only once")
            self._state = TaskState.STARTING
            self._loop = asyncio.get_running_loop()
            try:
                await self._start()
            except BaseException as error:
                await self._fail_start(error)
                if isinstance(error, OtusError) and not isinstance(error, otus_core.CoreError):
                    raise
                if isinstance(error, Exception):
                    raise TaskStartFailed(f"task {self.id}: {one_line(error)}") from error
                raise
            self._started_at, self._started = time.time(), time.monotonic()
            if self._state is TaskState.STARTING:
                self._state = TaskState.RUNNING
            log.info("task is running", task=self.id)

    async def _start(self) -> None:
        # On a thread: the first task that names a plugin imports it, some for 300 ms.
        resolved = await asyncio.to_thread(self._resolve)
        plans, reporters = self._construct(resolved)
        await self._init(resolved, plans, reporters)
        await self._wire(resolved, plans, reporters)
        await self._run(resolved, plans, reporters)

    async def _fail_start(self, error: BaseException) -> None:
        self.last_error = one_line(error)
        await self._undo.aclose()
        self._state = TaskState.FAILED
        self._ended = time.monotonic()
        self.finished.set()

    def _resolve(self) -> ResolvedTask:
        environment = self._environment
        return resolve_task(self.config, environment.registry, environment.inherit)

    def _construct(self, resolved: ResolvedTask) -> tuple[list[StagePlan], list[Any]]:
        native = capture_stage(resolved.capturer)
        count = int(native.config.get("fanout_size", 1)) if native is not None else 1
        self._check_affinity()
        plans = [build_stages(resolved) for _ in range(count)]
        self.trackers = tuple(tracker for plan in plans for tracker in plan.trackers)
        return plans, [construct(reporter) for reporter in resolved.reporters]

    def _check_affinity(self) -> None:
        allowed = os.sched_getaffinity(0)
        for cpu in self.config.workers.affinity:
            if cpu not in allowed:
                listed = ", ".join(str(one) for one in sorted(allowed))
                raise ConfigurationInvalid(
                    f"task {self.id}: workers.affinity: no CPU {cpu} for this process, has {listed}"
                )

    async def _init(
        self, resolved: ResolvedTask, plans: Sequence[StagePlan], reporters: Sequence[Any]
    ) -> None:
        for reporter, of in zip(reporters, resolved.reporters, strict=True):
            self._undo.push_async_callback(self._stop_plugin, reporter, of)
            await self._call_plugin(reporter, "init", of, of.config)
        for plan in plans:
            for stage in plan.plugins:
                self._undo.push_async_callback(self._stop_plugin, stage.plugin, stage.resolved)
                await self._call_plugin(stage.plugin, "init", stage.resolved, stage.resolved.config)

    async def _wire(
        self, resolved: ResolvedTask, plans: Sequence[StagePlan], reporters: Sequence[Any]
    ) -> None:
        self.source = await self._make_source(resolved.capturer)
        self.deliveries = tuple(
            Delivery(
                of.name,
                reporter,
                self._caller_of(reporter, of),
                max_batches=section.queue_batches,
                max_octets=section.queue_octets,
                task_id=self.id,
            )
            for reporter, of, section in zip(
                reporters, resolved.reporters, self.config.reporters, strict=True
            )
        )
        wants = frozenset[str]().union(
            *(getattr(reporter, "wants", {"packet"}) for reporter in reporters)
        )
        flows = self.config.flows
        if flows.max_flows:
            self.flows = otus_core.FlowRegistry(flows.max_flows, _ms(flows.ttl))
        self._undo.push_async_callback(asyncio.to_thread, self.source.stop)
        captures = await asyncio.to_thread(self.source.open)
        for index, plan in enumerate(plans):
            try:
                worker = self._worker(index, plan, captures[index], wants)
            except BaseException:
                # The pipeline that failed owned its capture; the later ones have none.
                for rest in captures[index + 1 :]:
                    for capture in rest:
                        capture.close()
                        break
                raise
            self.workers = (*self.workers, worker)
            self._undo.callback(worker.close)

    def _worker(
        self,
        index: int,
        plan: StagePlan,
        captures: Iterator[otus_core.Capture],
        wants: frozenset[str],
    ) -> PipelineWorker:
        pipeline_id = f"{self.id}-{index}"
        config = self._core_config(pipeline_id, plan, wants)
        cpus = self.config.workers.affinity
        return PipelineWorker(
            pipeline_id,
            (otus_core.Pipeline(capture, config) for capture in captures),
            python_stages(plan),
            self.deliveries,
            self._worker_ended_in_thread,
            cpus[index % len(cpus)] if cpus else None,
            self.config.workers.nice,
            can_wait=self.source is not None and self.source.can_wait,
        )

    def _core_config(
        self, pipeline_id: str, plan: StagePlan, wants: frozenset[str]
    ) -> otus_core.PipelineConfig:
        decoder, streams, workers = self.config.decoder, self.config.streams, self.config.workers
        return otus_core.PipelineConfig(
            task_id=self.id,
            agent_id=self._environment.agent_id,
            pipeline_id=pipeline_id,
            stages=core_stages(plan),
            decoder=otus_core.DecoderConfig(
                tunnels=decoder.tunnel_ports,
                ip_reassembly=decoder.ip_reassembly,
                max_datagrams=decoder.max_datagrams,
                max_fragments=decoder.max_fragments,
                max_fragment_octets=decoder.max_fragment_octets,
                max_datagrams_per_source=decoder.max_datagrams_per_source,
                fragment_timeout_ms=_ms(decoder.fragment_timeout),
            ),
            streams=otus_core.StreamConfig(
                ports=streams.tcp_ports,
                max_streams=streams.max_streams,
                max_stream_octets=streams.max_stream_octets,
                max_message_octets=streams.max_message_octets,
                gap_timeout_ms=_ms(streams.gap_timeout),
                idle_timeout_ms=_ms(streams.idle_timeout),
            ),
            flows=self.flows,
            exact_filter=self._filters.exact,
            exact_view=self._filters.exact_view,
            forward_unmatched=self.config.unmatched == "forward",
            outputs=core_outputs(plan, wants),
            raw_payload=self.config.raw_payload,
            max_records=workers.batch_records,
            arena_octets=workers.batch_octets,
        )

    async def _make_source(self, capturer: ResolvedPlugin) -> Source:
        native = capture_stage(capturer)
        self._filters = await asyncio.to_thread(compile_filters, native, self.config)
        if self._filters.note:
            self.notes.append(self._filters.note)
            log.info("task has a capture filter", task=self.id, note=self._filters.note)
        if native is not None:
            return make_source(native, self._filters)
        plugin = construct(capturer)
        self._undo.push_async_callback(self._stop_plugin, plugin, capturer)
        await self._call_plugin(plugin, "init", capturer, capturer.config)
        return PluginSource(capturer.name, plugin)

    async def _run(
        self, resolved: ResolvedTask, plans: Sequence[StagePlan], reporters: Sequence[Any]
    ) -> None:
        for reporter, of in zip(reporters, resolved.reporters, strict=True):
            await self._call_plugin(reporter, "start", of)
        for delivery in self.deliveries:
            name = f"report {self.id} {delivery.name}"
            running = asyncio.create_task(delivery.run(), name=name)
            self._undo.push_async_callback(_cancel, running)
            self._reporting.append(running)
        for plan in plans:
            for stage in plan.plugins:
                await self._call_plugin(stage.plugin, "start", stage.resolved)
                # Its pipeline's thread calls it from here on.
                self._caller_of(stage.plugin, stage.resolved).rest()
        if isinstance(self.source, PluginSource):
            await self._call_plugin(self.source.capturer, "start", resolved.capturer)
            self._caller_of(self.source.capturer, resolved.capturer).rest()
        for worker in self.workers:
            worker.start()
        if self.source is not None:
            self.source.start()

    def _caller_of(self, plugin: Any, of: ResolvedPlugin) -> PluginCaller:
        return self._callers.setdefault(id(plugin), PluginCaller(f"otus-{of.name}"))

    async def _call_plugin(
        self, plugin: Any, method: str, of: ResolvedPlugin, *arguments: Any
    ) -> None:
        try:
            async with asyncio.timeout(PLUGIN_START_TIMEOUT_S):
                await self._caller_of(plugin, of).call(getattr(plugin, method), *arguments)
        except TimeoutError as error:
            raise PluginInitFailed(
                f"{of.factory.kind} {of.name!r}: {method} took longer than "
                f"{PLUGIN_START_TIMEOUT_S:g} s"
            ) from error
        except OtusError:
            raise
        except Exception as error:
            raise PluginInitFailed(
                f"{of.factory.kind} {of.name!r}: {method}: {one_line(error)}"
            ) from error

    async def _stop_plugin(self, plugin: Any, of: ResolvedPlugin) -> None:
        caller = self._caller_of(plugin, of)
        try:
            async with asyncio.timeout(PLUGIN_STOP_TIMEOUT_S):
                await caller.call(plugin.stop)
        except Exception as error:  # noqa: BLE001 stop must not raise; a plugin may all the same
            late = f"it took longer than {PLUGIN_STOP_TIMEOUT_S:g} s"
            log.error(
                "plugin: stop failed",
                task=self.id,
                kind=str(of.factory.kind),
                plugin=of.name,
                reason=late if isinstance(error, TimeoutError) else one_line(error),
            )
        finally:
            caller.rest()

    # --- running -------------------------------------------------------------

    def _worker_ended_in_thread(self, worker: PipelineWorker) -> None:
        loop = self._loop
        # A closed loop means that the process ends.
        with contextlib.suppress(RuntimeError):
            if loop is not None:
                loop.call_soon_threadsafe(self._worker_ended, worker)

    def _worker_ended(self, worker: PipelineWorker) -> None:
        # The source first: a damaged archive explains what the core met behind it.
        if self.source is not None and (error := self.source.error()):
            self._fail(error)
        elif worker.error is not None:
            self._fail(f"pipeline {worker.pipeline_id}: {one_line(worker.error)}")
        if self._state is TaskState.FAILED:
            for other in self.workers:
                other.finish()
        if all(other.ended.is_set() for other in self.workers):
            self._workers_done.set()
            self.finished.set()

    def _fail(self, message: str) -> None:
        if self.last_error is None:
            self.last_error = message
        if self._state in (TaskState.STARTING, TaskState.RUNNING, TaskState.STOPPING):
            log.error("task failed", task=self.id, reason=message)
            self._state = TaskState.FAILED

    # --- stopping ------------------------------------------------------------

    async def stop(self, deadline_s: float | None = None) -> None:
        """Stops capture, drains the pipelines, flushes the reporters. Safe twice.

        Args:
            deadline_s: What is not flushed by then is dropped and counted;
                default: the task's `stop_deadline`.
        """
        async with self._lock:
            if self._ended is not None:
                return
            if self._state is TaskState.CREATED:
                self._end(TaskState.STOPPED)
                return
            if deadline_s is None:
                deadline_s = self.config.stop_deadline
            end = time.monotonic() + deadline_s
            if self._state is not TaskState.FAILED:
                self._state = TaskState.STOPPING
            await self._stop_capture(end)
            await self._stop_reporting(end)
            await self._undo.aclose()
            for delivery in self.deliveries:
                delivery.close()
            failed = self._state is TaskState.FAILED
            self._end(TaskState.FAILED if failed else TaskState.STOPPED)
            if not (ledger := self.ledger()).balanced:
                log.error(
                    "ledger does not balance", task=self.id, imbalances=list(ledger.imbalances)
                )

    def hurry(self) -> None:
        """Lets a `stop` that waits for reporters drop what is not flushed, now."""
        for running in self._reporting:
            running.cancel()

    def _end(self, state: TaskState) -> None:
        self._state = state
        self._ended = time.monotonic()
        self.finished.set()
        log.info("task has ended", task=self.id, state=state.value)

    async def _stop_capture(self, end: float) -> None:
        """Ends intake and waits until the pipelines have seen everything through."""
        if self.source is not None:
            await asyncio.to_thread(self.source.stop)
        if isinstance(self.source, PluginSource):
            # What is in the pipe has been accepted: let the pipeline read it first.
            await _until(self._workers_done, (end - time.monotonic()) / 2)
        for worker in self.workers:
            worker.finish()
        if self.workers and not await _until(self._workers_done, end - time.monotonic()):
            stuck = [w for w in self.workers if not w.ended.is_set()]
            where = ", ".join(
                f"{w.pipeline_id} in plugin {w.stuck_in}" if w.stuck_in else w.pipeline_id
                for w in stuck
            )
            self._fail(f"did not stop in time: pipeline {where}")

    async def _stop_reporting(self, end: float) -> None:
        for delivery in self.deliveries:
            delivery.finish()
        if not self._reporting:
            return
        _, late = await asyncio.wait(self._reporting, timeout=max(0.05, end - time.monotonic()))
        for running in late:
            log.warning("reporter not flushed in time", task=self.id, reporter=running.get_name())
            await _cancel(running)

    # --- accounts, from any thread -------------------------------------------

    def ledger(self) -> Ledger:
        """Every packet so far and what became of it, all of one moment."""
        with self._at_rest():
            counters = add_counters(worker.counters() for worker in self.workers)
            accounts = [delivery.account() for delivery in self.deliveries]
            source = self._source_account()
        return make_ledger(self.id, source, counters, accounts)

    def source_account(self) -> SourceAccount:
        """What the source says of itself, all pipelines together."""
        with self._at_rest():
            return self._source_account()

    @contextlib.contextmanager
    def _at_rest(self) -> Iterator[None]:
        """While no pipeline hands over, or goes on from one file to the next."""
        with contextlib.ExitStack() as held:
            for worker in self.workers:
                held.enter_context(worker.at_rest())
            yield

    def _source_account(self) -> SourceAccount:
        accounts = [worker.source() for worker in self.workers]
        total = sum(accounts, SourceAccount(ended=True))
        # The interface's figure is the same for every socket on it.
        lost = max((account.interface_dropped for account in accounts), default=0)
        total = dataclasses.replace(total, interface_dropped=lost)
        return self.source.account(total) if self.source is not None else total

    def accounts(self) -> list[ReporterAccount]:
        """What became of the records given to each reporter."""
        return [delivery.account() for delivery in self.deliveries]

    @property
    def uptime_s(self) -> float:
        """Seconds since the task started, or that it ran."""
        if self._started is None:
            return 0.0
        return (self._ended or time.monotonic()) - self._started

    def _waiting(self) -> list[str]:
        """What a live task waits for just now, as a note."""
        if not isinstance(self.source, RingSource) or self._ended is not None:
            return []
        what = self.source.waits_for()
        return [f"waits for {what}"] if what else []

    def status(self) -> dict[str, Any]:
        """State, pipelines, reporters, plugin faults and ledger, JSON-able."""
        return {
            "id": self.id,
            "state": self._state.value,
            "started_at": self._started_at,
            "uptime_s": round(self.uptime_s, 3),
            "last_error": self.last_error,
            "notes": [*self.notes, *self._waiting()],
            "pipelines": [_pipeline_status(worker) for worker in self.workers],
            "reporters": [dataclasses.asdict(account) for account in self.accounts()],
            "plugins": [tracker.to_dict() for tracker in self.trackers],
            "flows": len(self.flows) if self.flows is not None else 0,
            "ledger": self.ledger().to_dict(),
        }


def _pipeline_status(worker: PipelineWorker) -> dict[str, Any]:
    with worker.at_rest():
        counters = worker.counters()
        source = worker.source()
    return {
        "id": worker.pipeline_id,
        "running": not worker.ended.is_set(),
        "stuck_in": worker.stuck_in,
        "received": source.received,
        "dropped": source.dropped,
        "interface_dropped": source.interface_dropped,
        "counters": {
            group: {reason: count for reason, count in reasons.items() if count}
            for group, reasons in counters.items()
            if any(reasons.values())
        },
    }


def capture_stage(capturer: ResolvedPlugin) -> NativeStage | None:
    """What the core runs instead of a capturer, or None."""
    native = capturer.factory.native
    return native(capturer.config) if native is not None else None


def compile_filters(native: NativeStage | None, config: TaskConfig) -> Filters:
    """The operator's capture filter, for the socket and for the innermost datagram.

    Raises:
        ConfigurationInvalid: libpcap does not understand it, or is not installed.
    """
    if native is None or native.kind not in ("afpacket", "file"):
        return Filters()
    ports = config.decoder.tunnel_ports
    expression = native.config.get("bpf_filter") or ""
    live = native.kind == "afpacket"
    link_type = interface_link_type(native.config["interface"]) if live else LINK_ETHERNET
    made = compile_capture_filter(
        expression,
        link_type=link_type,
        tunnels=tuple(ports),
        tunnel_ports=ports,
        as_it_is=bool(native.config.get("raw_bpf")),
    )
    # A file is decoded whole: only a raw program, which nothing follows, is run on its frames.
    raw = not made.exact
    return Filters(
        kernel=made.kernel if live or raw else (),
        exact=made.exact,
        exact_view=otus_core.ExactView(made.exact_view),
        fanout=fanout_program(tuple(ports), ports) if live else (),
        note=_filter_note(expression, made) if expression else "",
    )


def _filter_note(expression: str, made: CaptureFilter) -> str:
    """What becomes of the operator's filter, in one line."""
    if not made.exact:
        return "capture filter: runs as it is given, on whole frames"
    how = (
        "the kernel runs a wider one, so that fragments, VLAN tags and tunnels are not lost; "
        "the exact one judges packets after decoding"
    )
    return f"capture filter: {how} (otus explain-filter {expression!r})"


async def _until(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(max(0.05, seconds)):
            await event.wait()
    except TimeoutError:
        return False
    return True


async def _cancel(running: asyncio.Task[None]) -> None:
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
