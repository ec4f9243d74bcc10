"""The table of all metrics: name, kind, labels, meaning, and where the values come from.

One line here is one instrument and one row of docs/reference/metrics.md; a test
compares them. Names are as Prometheus shows them.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from otus_agent.telemetry.reading import Reading

Samples = Iterable[tuple[float, tuple[str, ...]]]

TASK_STATES: Final = ("created", "starting", "running", "stopping", "stopped", "failed")


class Kind(StrEnum):
    """What Prometheus takes a metric for."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: as Prometheus shows it; counters end in `_total`.
        kind: counters never fall while their task lives.
        labels: names, in the order in which samples give their values.
        meaning: one line for people.
        samples: value and label values of each series, from a reading.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    samples: Callable[[Reading], Samples]


# Where frames and records end inside a pipeline: what `dropped` adds up.
_LOSSES = ("undecodable", "filtered", "unmatched", "parse_error", "process", "emit_error")
_NOT_LOST = frozenset({("fragment", "absorbed"), ("fragment", "duplicate")})
_SEGMENT_LOSSES = ("limit_streams", "limit_octets", "timeout", "closed")


def _capture_packets(reading: Reading) -> Samples:
    for task in reading.tasks:
        yield task.source.received, (task.task, task.interface)


def _capture_drops(reading: Reading) -> Samples:
    for task in reading.tasks:
        yield task.source.dropped, (task.task, "kernel")
        yield task.source.interface_dropped, (task.task, "interface")
        yield task.source.left, (task.task, "stopped")


def _pipeline_packets(reading: Reading) -> Samples:
    for task in reading.tasks:
        for pipeline in task.pipelines:
            parsed = pipeline.group("parsed", "forwarded")
            fragments = sum(
                count
                for reason, count in pipeline.counters.get("fragment", {}).items()
                if ("fragment", reason) not in _NOT_LOST
            )
            segments = sum(pipeline.one("segment", reason) for reason in _SEGMENT_LOSSES)
            stages = {
                "received": pipeline.one("received", "frames"),
                "decoded": pipeline.one("decoded", "packets"),
                "parsed": parsed,
                "processed": parsed - pipeline.group("process"),
                "reported": pipeline.group("emitted"),
                "dropped": pipeline.group(*_LOSSES) + fragments + segments,
            }
            for stage, count in stages.items():
                yield count, (task.task, pipeline.pipeline, stage)


def _outcomes(reading: Reading) -> Samples:
    for task in reading.tasks:
        for pipeline in task.pipelines:
            for group, reasons in pipeline.counters.items():
                if group in ("anomaly", "gauge"):
                    continue
                for reason, count in reasons.items():
                    yield count, (task.task, pipeline.pipeline, group, reason)


def _anomalies(reading: Reading) -> Samples:
    for task in reading.tasks:
        for pipeline in task.pipelines:
            for reason, count in pipeline.counters.get("anomaly", {}).items():
                yield count, (task.task, pipeline.pipeline, reason)


def _gauge(reason: str) -> Callable[[Reading], Samples]:
    def samples(reading: Reading) -> Samples:
        for task in reading.tasks:
            yield sum(p.one("gauge", reason) for p in task.pipelines), (task.task,)

    return samples


def _task_status(reading: Reading) -> Samples:
    for task in reading.tasks:
        for state in TASK_STATES:
            yield float(task.state == state), (task.task, state)


def _task_uptime(reading: Reading) -> Samples:
    for task in reading.tasks:
        yield task.uptime_s, (task.task,)


def _ledger(reading: Reading) -> Samples:
    for task in reading.tasks:
        yield float(task.balanced), (task.task,)


def _flows(reading: Reading) -> Samples:
    for task in reading.tasks:
        yield task.flows, (task.task,)


def _reporter_records(reading: Reading) -> Samples:
    for task in reading.tasks:
        for delivery in task.deliveries:
            account = delivery.account
            yield account.offered, (task.task, account.name, "offered")
            yield account.reported, (task.task, account.name, "reported")
            yield sum(account.dropped.values()), (task.task, account.name, "dropped")
            yield sum(account.failed.values()), (task.task, account.name, "failed")


def _reporter_losses(reading: Reading) -> Samples:
    for task in reading.tasks:
        for delivery in task.deliveries:
            account = delivery.account
            for outcome, reasons in (
                ("dropped", account.dropped),
                ("failed", account.failed),
                ("reported", account.notes),
            ):
                for reason, count in reasons.items():
                    yield count, (task.task, account.name, outcome, reason)


def _queue(attribute: str) -> Callable[[Reading], Samples]:
    def samples(reading: Reading) -> Samples:
        for task in reading.tasks:
            for delivery in task.deliveries:
                account = delivery.account
                yield getattr(account, attribute), (task.task, account.name)

    return samples


def _plugin_faults(reading: Reading) -> Samples:
    for task in reading.tasks:
        for (plugin, kind), count in task.faults.items():
            yield count, (task.task, plugin, kind)


def _quarantined(reading: Reading) -> Samples:
    for task in reading.tasks:
        for plugin, is_out in task.quarantined.items():
            yield float(is_out), (task.task, plugin)


def _scrape_failures(reading: Reading) -> Samples:
    yield reading.failures, ()


def _commands(reading: Reading) -> Samples:
    for (command, door, outcome), count in reading.commands.items():
        yield count, (command, door, outcome)


def _logs(reading: Reading) -> Samples:
    for output, counts in reading.logs.items():
        for outcome, count in counts.items():
            if outcome != "queued":
                yield count, (output, outcome)


def _log_queue(reading: Reading) -> Samples:
    for output, counts in reading.logs.items():
        yield counts.get("queued", 0), (output,)


def _build_info(reading: Reading) -> Samples:
    yield 1.0, (reading.version, platform.python_version(), reading.agent_id)


def _uptime(reading: Reading) -> Samples:
    yield reading.uptime_s, ()


def _process(figure: str) -> Callable[[Reading], Samples]:
    def samples(reading: Reading) -> Samples:
        if figure in reading.process:
            yield float(reading.process[figure]), ()

    return samples


def _no_samples(_reading: Reading) -> Samples:
    """Histograms come from the core whole: see instruments.py."""
    return ()


def _counter(name: str, labels: str, meaning: str, samples: Callable[[Reading], Samples]) -> Metric:
    return Metric(name, Kind.COUNTER, tuple(labels.split()), meaning, samples)


def _value(name: str, labels: str, meaning: str, samples: Callable[[Reading], Samples]) -> Metric:
    return Metric(name, Kind.GAUGE, tuple(labels.split()), meaning, samples)


PIPELINE_LATENCY: Final = Metric(
    "otus_pipeline_latency_seconds",
    Kind.HISTOGRAM,
    ("task", "stage"),
    "Time a packet spends in a stage (decode, parse, process, encode: one packet in 1024 is "
    "timed; capture: from the kernel's timestamp to the pipeline; report: see "
    "otus_reporter_latency_seconds, all reporters together).",
    _no_samples,
)

REPORTER_LATENCY: Final = Metric(
    "otus_reporter_latency_seconds",
    Kind.HISTOGRAM,
    ("task", "reporter"),
    "Time from a batch's entry into the queue until the reporter has delivered it or, where it "
    "delivers later, has taken it over.",
    _no_samples,
)

METRICS: Final = (
    _counter(
        "otus_capture_packets_total",
        "task interface",
        "Frames that passed the capture filter, those dropped by a full ring included.",
        _capture_packets,
    ),
    _counter(
        "otus_capture_drops_total",
        "task stage",
        "Frames lost before a pipeline: `kernel` by a full ring (or by a capturer plugin), "
        "`interface` by NIC or driver (a host-wide figure), `stopped` in the source when the "
        "task ended.",
        _capture_drops,
    ),
    _counter(
        "otus_pipeline_packets_total",
        "task pipeline stage",
        "Packets that reached a stage: `received` frames, `decoded` packets, `parsed` records, "
        "`processed` records that the processors kept, `reported` records handed to the "
        "reporters' queues; and `dropped`, all that ended on the way.",
        _pipeline_packets,
    ),
    PIPELINE_LATENCY,
    REPORTER_LATENCY,
    _value(
        "otus_task_status",
        "task status",
        "1 for the status that the task is in, 0 for the others.",
        _task_status,
    ),
    _value(
        "otus_reassembly_active_fragments",
        "task",
        "IP fragments held for datagrams that are not complete.",
        _gauge("fragments_held"),
    ),
    _value(
        "otus_reassembly_active_datagrams",
        "task",
        "IP datagrams that are not complete.",
        _gauge("datagrams_held"),
    ),
    _counter(
        "otus_reassembly_datagrams_total",
        "task",
        "IP datagrams put together from fragments.",
        _gauge("datagrams_reassembled"),
    ),
    _value("otus_stream_active_streams", "task", "TCP streams tracked.", _gauge("streams_active")),
    _value(
        "otus_stream_active_segments",
        "task",
        "TCP segments held behind a gap.",
        _gauge("segments_held"),
    ),
    _counter(
        "otus_capture_octets_total",
        "task",
        "Octets of the frames received, as captured.",
        _gauge("received_octets"),
    ),
    _value(
        "otus_flow_active_flows",
        "task",
        "Media endpoints in the flow registry; 0 without the parser rtp.",
        _flows,
    ),
    _counter(
        "otus_pipeline_outcomes_total",
        "task pipeline group reason",
        "Every counter of the ledger: what became of each frame, packet, segment and record.",
        _outcomes,
    ),
    _counter(
        "otus_pipeline_anomalies_total",
        "task pipeline reason",
        "Things odd about packets that went on all the same.",
        _anomalies,
    ),
    _value(
        "otus_ledger_balanced",
        "task",
        "1 while every packet of the task is explained by a counter, else 0.",
        _ledger,
    ),
    _value("otus_task_uptime_seconds", "task", "Time since the task started.", _task_uptime),
    _counter(
        "otus_reporter_records_total",
        "task reporter outcome",
        "Records by what became of them at a reporter: `offered`, `reported`, `dropped` "
        "(before trying), `failed` (after trying).",
        _reporter_records,
    ),
    _counter(
        "otus_reporter_losses_total",
        "task reporter outcome reason",
        "Records dropped or failed at a reporter, by reason; and reported ones that lost a part "
        "(`truncated`).",
        _reporter_losses,
    ),
    _value(
        "otus_reporter_queue_records",
        "task reporter",
        "Records waiting for a reporter or in its hands.",
        _queue("queued"),
    ),
    _value(
        "otus_reporter_queue_batches",
        "task reporter",
        "Batches waiting for a reporter.",
        _queue("queued_batches"),
    ),
    _value(
        "otus_reporter_queue_bytes",
        "task reporter",
        "Memory of the batches waiting for a reporter.",
        _queue("queued_octets"),
    ),
    _counter(
        "otus_scrape_failures_total",
        "",
        "Tasks that could not be read for the metrics: a bug, in a plugin or here; the log has it.",
        _scrape_failures,
    ),
    _counter(
        "otus_plugin_faults_total",
        "task plugin error",
        "Exceptions of Python plugins, by class.",
        _plugin_faults,
    ),
    _value(
        "otus_plugin_quarantined",
        "task plugin",
        "1 while a plugin is bypassed because it kept failing.",
        _quarantined,
    ),
    _counter(
        "otus_command_results_total",
        "command door outcome",
        "Commands by door (socket, kafka, signal) and outcome (`ok` or the error's code).",
        _commands,
    ),
    _counter(
        "otus_log_records_total",
        "output outcome",
        "Log records by output and what became of them.",
        _logs,
    ),
    _value("otus_log_queue_records", "output", "Log records waiting for an output.", _log_queue),
    _value(
        "otus_build_info",
        "version python agent",
        "Always 1; the labels tell what runs.",
        _build_info,
    ),
    _value("otus_agent_uptime_seconds", "", "Time since the agent started.", _uptime),
    _counter(
        "otus_process_cpu_seconds_total",
        "",
        "CPU time of the agent, user and system.",
        _process("cpu_s"),
    ),
    _value(
        "otus_process_resident_memory_bytes",
        "",
        "Resident memory of the agent.",
        _process("resident_octets"),
    ),
    _value(
        "otus_process_open_fds", "", "Descriptors that the agent has open.", _process("descriptors")
    ),
    _value("otus_process_threads", "", "Threads of the agent.", _process("threads")),
)
