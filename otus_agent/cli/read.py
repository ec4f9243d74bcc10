"""`otus read`: what is in capture files, message by message or call by call."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import rich_click as click
from click.exceptions import Exit

from otus_agent.cli.errors import CliError
from otus_agent.cli.options import Settings, common_options, pass_settings

if TYPE_CHECKING:
    from otus_agent.cli.read_output import Output
    from otus_agent.task import Task
    from otus_sdk.errors import ConfigurationInvalid

__all__ = ["read"]

TUNNELS = ("vxlan", "gre", "erspan", "geneve", "ipip", "gtpu", "tzsp")
# Where SIP over TCP and WebSocket is met; in a file nothing is lost by looking.
TCP_PORTS = (5060, 5061, 5062, 5063, 5070, 5080, 80, 8080, 8088)
PROGRESS_OCTETS = 32 << 20
PROGRESS_INTERVAL_S = 0.2


@dataclass(slots=True)
class _Selection:
    """Which records are wanted."""

    labels: dict[str, str] = field(default_factory=dict)
    expression: str | None = None
    rtp: bool = False


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path())
@click.option("--calls", is_flag=True, help="One line a call instead of one a message.")
@click.option(
    "--filter", "expression", metavar="EXPRESSION",
    help="Only records for which it holds: \"sip.method == 'INVITE' && src_port == 5060\".",
)  # fmt: skip
@click.option(
    "--label", "labels", multiple=True, metavar="NAME=VALUE",
    help="Only records with this label: --label sip.method=INVITE. Repeatable, all must hold.",
)  # fmt: skip
@click.option("--bpf", metavar="FILTER", help="Only packets that this tcpdump filter takes.")
@click.option("--rtp", is_flag=True, help="RTP and RTCP packets of the calls as well.")
@click.option(
    "--tcp-port", "tcp_ports", multiple=True, type=click.IntRange(1, 65535),
    help="TCP port that carries SIP or WebSocket; replaces the usual ones. Repeatable.",
)  # fmt: skip
@click.option("--no-progress", is_flag=True, help="No progress bar.")
@common_options
@pass_settings
def read(
    settings: Settings,
    files: tuple[str, ...],
    calls: bool,
    expression: str | None,
    labels: tuple[str, ...],
    bpf: str | None,
    rtp: bool,
    tcp_ports: tuple[int, ...],
    no_progress: bool,
) -> None:
    """Tells what is in capture files: SIP messages, or calls.

    Reads pcap and pcapng, plain or compressed with gzip or zstd, `-` from standard
    input; follows every known tunnel and puts fragments and TCP streams together.
    `--output json` gives one JSON object a line.
    """
    from otus_agent.cli.read_output import make_output
    from otus_agent.logs import log_to_stderr

    log_to_stderr()
    # What ends a task is told once, with the file's name.
    for name in ("otus.task", "otus.pipeline"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    selection = _Selection(_pairs(labels), expression, rtp)
    output = make_output(settings.form, sys.stdout, calls=calls)
    capture: dict[str, Any] = {"type": "pcap"}
    if bpf:
        capture["bpf_filter"] = bpf
    failed: list[str] = []
    seen = _Seen()
    try:
        for number, name in enumerate(files):
            path = "/dev/stdin" if name == "-" else name
            # A name that holds pattern characters is meant as it stands.
            config = _task(number, {**capture, "files": [path]}, selection, tcp_ports or TCP_PORTS)
            try:
                _read_one(config, path, output, selection, seen, progress=not no_progress)
            except CliError as error:
                failed.append(error.message)
                print(f"otus: {error.message}", file=sys.stderr)
        output.finish()
    except BrokenPipeError:
        # The reader has seen enough: `otus read x.pcap | head`.
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.close()
        return
    if settings.form == "table" and not failed:
        print(seen.summary(), file=sys.stderr)
    if failed:
        raise Exit(1)


def _pairs(labels: tuple[str, ...]) -> dict[str, str]:
    from otus_agent.config.explaining import nearest
    from otus_sdk.labels import BUILTIN_LABELS

    pairs: dict[str, str] = {}
    for label in labels:
        name, equals, value = label.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--label {label}: must be NAME=VALUE")
        if name.strip() not in BUILTIN_LABELS:
            message = f"--label {label}: no such label{nearest(name, BUILTIN_LABELS)}"
            raise click.UsageError(message.removesuffix("?"))
        pairs[name.strip()] = value
    return pairs


def _task(
    number: int, capture: dict[str, Any], selection: _Selection, tcp_ports: tuple[int, ...]
) -> dict[str, Any]:
    processors: list[dict[str, Any]] = []
    if selection.expression:
        processors.append({"type": "filter", "config": {"keep_if": selection.expression}})
    return {
        "id": f"read-{number}",
        "capture": capture,
        "decoder": {"tunnels": list(TUNNELS)},
        "streams": {"tcp_ports": list(tcp_ports), "max_streams": 8192},
        "parsers": ["sip", "rtp"] if selection.rtp else ["sip"],
        "processors": processors,
        "reporters": ["read-output"],
    }


@dataclass(slots=True)
class _Seen:
    """The counts of all files together."""

    packets: int = 0
    messages: int = 0
    undecodable: int = 0
    errors: int = 0
    shown: int = 0

    def add(self, task: Task) -> None:
        ledger = task.ledger()
        decode, parse = ledger.equation("decode"), ledger.equation("parse")
        self.packets += decode.total
        self.messages += parse.parts.get("parsed[sip]", 0)
        self.errors += parse.parts.get("parse_error[sip]", 0)
        self.undecodable += sum(
            count for name, count in decode.parts.items() if name.startswith("undecodable[")
        )

    def summary(self) -> str:
        text = f"{_number(self.packets, 'packet')}, {_number(self.messages, 'SIP message')}"
        if self.shown != self.messages:
            text += f", {self.shown} shown"
        if self.errors:
            text += f", {self.errors} that looked like SIP and are none"
        if self.undecodable:
            text += f", {self.undecodable} undecodable"
        return text


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


class _OutputReporter:
    """The reporter that `otus read` puts behind its pipeline."""

    name = "read-output"

    def __init__(self, output: Output, selection: _Selection, seen: _Seen) -> None:
        self.wants = output.wants
        self._output = output
        self._labels = selection.labels
        self._seen = seen
        self.error: BaseException | None = None

    def init(self, config: Any) -> None: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def flush(self) -> None: ...

    def report_batch(self, batch: Any) -> Any:
        from otus_sdk.protocols import ReportResult

        if self.error is None:
            rows = self._rows(batch)
            try:
                self._seen.shown += self._output.write(batch, rows)
            except OSError as error:
                self.error = error
        return ReportResult(len(batch))

    def _rows(self, batch: Any) -> Iterator[int]:
        wanted = self._labels
        for row in range(len(batch)):
            if wanted:
                labels = batch.labels(row)
                if any(labels.get(name) != value for name, value in wanted.items()):
                    continue
            yield row


def _read_one(
    config: dict[str, Any],
    path: str,
    output: Output,
    selection: _Selection,
    seen: _Seen,
    *,
    progress: bool,
) -> None:
    from otus_agent.config.task import TaskConfig
    from otus_agent.registry import PluginRegistry
    from otus_agent.task import Task, TaskEnvironment
    from otus_sdk.errors import ConfigurationInvalid, OtusError
    from otus_sdk.factory import PluginFactory, PluginKind

    reporter = _OutputReporter(output, selection, seen)
    registry = PluginRegistry.load()
    registry.add(PluginFactory(PluginKind.REPORTER, "read-output", lambda: reporter), "otus read")
    task_config = TaskConfig.model_validate(config)
    size = Path(path).stat().st_size if Path(path).is_file() else 0
    shows = progress and size >= PROGRESS_OCTETS and sys.stderr.isatty()

    async def main() -> Task:
        from otus_agent.cli.run import run_until_end

        task = Task(task_config, TaskEnvironment("", registry))
        watching: asyncio.Task[None] | None = None
        if shows:
            watching = asyncio.create_task(_show_progress(task, path, size, sys.stderr))
        try:
            await run_until_end(task)
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        return task

    try:
        task = asyncio.run(main())
    except ConfigurationInvalid as error:
        raise _about_options(error) from None
    except OtusError as error:
        raise CliError(error.message.removeprefix("task " + config["id"] + ": ")) from error
    if reporter.error is not None:
        raise reporter.error
    seen.add(task)
    if task.last_error is not None:
        message = task.last_error.removeprefix(f"pipeline {task.id}-0: ")
        raise CliError(message if message.startswith(path) else f"{path}: {message}")
    for worker in task.workers:
        if worker.cut:
            raise CliError(f"{path}: {worker.cut}")


def _about_options(error: ConfigurationInvalid) -> ConfigurationInvalid:
    """The problem with the task that the options make, told of the option."""
    from otus_sdk.errors import ConfigurationInvalid

    message = error.message.removeprefix("processor 'filter': ").removeprefix("task read-0: ")
    for key, option in (
        ("processors.0.config.keep_if: expression, ", "--filter: "),
        ("expression, ", "--filter: "),
        ("bpf_filter: ", "--bpf: "),
    ):
        if message.startswith(key):
            told = [str(one).replace(key, option, 1) for one in error.details.get("problems", ())]
            told = told or [option + message.removeprefix(key)]
            return ConfigurationInvalid(told[0], details={"problems": told})
    return error


async def _show_progress(task: Task, path: str, size: int, stderr: TextIO) -> None:
    from rich.console import Console
    from rich.progress import Progress

    position: Callable[[], int] = lambda: sum(worker.position() for worker in task.workers)  # noqa: E731
    with Progress(console=Console(file=stderr), transient=True) as bar:
        # Of a compressed file the position counts what was in it: no known total.
        known = position() <= size
        reading = bar.add_task(Path(path).name, total=size if known else None)
        while True:
            at = position()
            bar.update(reading, completed=at, total=size if at <= size else None)
            await asyncio.sleep(PROGRESS_INTERVAL_S)
