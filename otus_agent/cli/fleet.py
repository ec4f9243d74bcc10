"""``otus fleet``: many agents, steered and watched through Kafka."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from otus_agent.cli.errors import CliError
from otus_agent.cli.options import Settings, common_options, pass_settings
from otus_agent.cli.render import console, count, duration, emit, show_table

if TYPE_CHECKING:
    from otus_agent.config.kafka import KafkaConfig
    from otus_agent.kafka.envelope import Target
    from otus_agent.kafka.fleet import AgentView, FleetClient, Outcome

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])
_MAX_CELL = 100


@click.group()
def fleet() -> None:
    """Steers many agents through Kafka: sends a command, gathers the answers."""
    # What the client library logs of its attempts is told once, by whoever gives up.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())


# --- Options -------------------------------------------------------------------


def broker_options(function: FunctionT) -> FunctionT:
    """Where the fleet is."""
    option = click.option(
        "--brokers",
        metavar="HOST:PORT,…",
        help="Brokers (default: kafka.brokers of the configuration).",
    )
    return option(function)


def sending_options(default_target: str | None) -> Callable[[FunctionT], FunctionT]:
    """Whom to tell, how to sign, how long to wait."""

    def add(function: FunctionT) -> FunctionT:
        help_target = "Agent id, * or tag selector (region=cn-east-1,role=edge); repeatable."
        options = (
            click.option(
                "--target", "-t", "targets", multiple=True, metavar="WHOM",
                required=default_target is None,
                default=None if default_target is None else (default_target,),
                show_default=default_target is not None, help=help_target,
            ),
            click.option(
                "--key", "-k", metavar="FILE", type=click.Path(dir_okay=False),
                envvar="OTUS_FLEET_KEY", help="Key that signs the command.",
            ),
            click.option(
                "--key-id", metavar="ID",
                help="What agents call the key (default: the file's name without suffix).",
            ),
            click.option(
                "--timeout", default="10s", show_default=True, metavar="DURATION",
                help="How long to wait for answers.",
            ),
            click.option(
                "--dry-run", is_flag=True,
                help="Only show whom the command would reach, and the command.",
            ),
        )  # fmt: skip
        for option in reversed(options):
            function = option(function)
        return broker_options(function)

    return add


def _kafka_config(settings: Settings, brokers: str | None) -> KafkaConfig:
    from otus_agent.config.kafka import KafkaConfig

    kafka = settings.agent_config().kafka
    if brokers is not None:
        from pydantic import ValidationError

        try:
            known = kafka.model_dump() if kafka is not None else {}
            kafka = KafkaConfig.model_validate({**known, "brokers": brokers})
        except ValidationError as error:
            raise click.UsageError(f"--brokers: {error.errors()[0]['msg']}") from None
    if kafka is None:
        raise CliError(
            "no kafka section in the configuration: give --config or --brokers",
            "configuration_invalid",
        )
    return kafka


def _seconds(text: str, option: str) -> float:
    from otus_agent.config.fields import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from None


# --- Sending -------------------------------------------------------------------


class _Request:
    """One command line's command: what the sending options said, put together."""

    def __init__(self, settings: Settings, options: Mapping[str, Any]) -> None:
        self._settings = settings
        self._kafka = _kafka_config(settings, options["brokers"])
        targets = list(options["targets"])
        self._target: Target = targets[0] if len(targets) == 1 else targets
        self._timeout_s = _seconds(options["timeout"], "--timeout")
        self._key, self._key_id = options["key"], options["key_id"]
        self._dry_run = options["dry_run"]

    def run(
        self, command: str, params: Mapping[str, Any], tell: Callable[[Any], str] = lambda _: ""
    ) -> None:
        """Sends, prints the answers, and ends with the exit code they deserve.

        Args:
            command: name in the agents' command table.
            params: its parameters.
            tell: one line about an agent's result, for the table.

        Raises:
            CliError: not everybody who was meant answered with success.
        """
        from otus_agent.kafka.fleet import FleetClient
        from otus_agent.kafka.signing import load_signer

        signer = load_signer(self._key, self._key_id) if self._key else None

        async def talk() -> Outcome:
            async with FleetClient(self._kafka, signer) as client:
                return await self._talk(client, command, params)

        outcome = asyncio.run(talk())
        if self._dry_run:
            _show_dry_run(outcome, self._settings.form)
            return
        _show_outcome(outcome, self._settings.form, tell)
        _judge(outcome)

    async def _talk(self, client: FleetClient, command: str, params: Mapping[str, Any]) -> Outcome:
        from otus_agent.kafka.fleet import Outcome

        expected = client.expected(self._target, await client.agents())
        envelope = client.envelope(command, self._target, params)
        if self._dry_run:
            return Outcome(envelope, expected)
        if not expected:
            # They may be there all the same: new, or without events.
            print("otus: no known agent is meant; waiting for any answer", file=sys.stderr)
        with _progress(expected) as progress:
            return await client.send(envelope, expected, self._timeout_s, progress)


class _progress:  # noqa: N801 reads as the function it stands for
    """Shows on stderr how many have answered, where that is a terminal."""

    def __init__(self, expected: frozenset[str]) -> None:
        self._expected = expected
        self._live: Any = None
        self._bar: Any = None

    def __enter__(self) -> Callable[[Outcome], None]:
        if not sys.stderr.isatty():
            return lambda _: None
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._live = Progress(
            TextColumn("answers"), BarColumn(), MofNCompleteColumn(),
            console=console(stderr=True), transient=True,
        )  # fmt: skip
        self._live.start()
        self._bar = self._live.add_task("answers", total=len(self._expected) or None)
        return self._show

    def _show(self, outcome: Outcome) -> None:
        self._live.update(self._bar, completed=len(outcome.answers))

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()


def _show_dry_run(outcome: Outcome, form: str) -> None:
    data = {"reaches": sorted(outcome.expected), "command": dict(outcome.envelope)}

    def show(_: Any) -> None:
        show_table(["AGENT"], [(name,) for name in data["reaches"]], "no known agent is meant")
        print(json.dumps(data["command"], indent=2, ensure_ascii=False))

    emit(data, form, show)


def _show_outcome(outcome: Outcome, form: str, tell: Callable[[Any], str]) -> None:
    data = {
        "request_id": outcome.envelope["request_id"],
        "succeeded": outcome.succeeded,
        "missing": outcome.missing,
        "answers": outcome.answers,
    }

    def show(_: Any) -> None:
        show_table(["AGENT", "RESULT", "MESSAGE"], _rows(outcome, tell), "nobody answered")

    emit(data, form, show)


def _rows(outcome: Outcome, tell: Callable[[Any], str]) -> list[tuple[str, str, str]]:
    """Failures first: among many agents they are what one looks for."""
    rows = [(name, "no answer", "") for name in outcome.missing]
    for name in outcome.failed:
        error = outcome.answers[name].get("error")
        error = error if isinstance(error, dict) else {}
        rows.append((name, str(error.get("code", "error")), str(error.get("message", ""))))
    for name in sorted(set(outcome.answers) - set(outcome.failed)):
        answer = outcome.answers[name]
        again = " (answered before)" if answer.get("duplicate") else ""
        rows.append((name, "ok", f"{_told(answer.get('result'), tell)}{again}"))
    return rows


def _told(result: Any, tell: Callable[[Any], str]) -> str:
    try:
        return tell(result)[:_MAX_CELL]
    except (
        LookupError,
        TypeError,
        AttributeError,
        ValueError,
        ArithmeticError,
    ):  # an agent of another version
        return json.dumps(result, ensure_ascii=False)[:_MAX_CELL]


def _judge(outcome: Outcome) -> None:
    if outcome.succeeded:
        return
    if not outcome.answers and not outcome.expected:
        raise CliError("no agent is meant, or none answered")
    parts = []
    if outcome.failed:
        parts.append(f"{len(outcome.failed)} failed")
    if outcome.missing:
        parts.append(f"{len(outcome.missing)} did not answer (they still may, within the TTL)")
    total = len(outcome.expected | set(outcome.answers))
    raise CliError(f"of {total} agents {', '.join(parts)}")


# --- Watching ------------------------------------------------------------------


@fleet.command("list")
@click.option(
    "--target", "-t", default="*", metavar="WHOM", show_default=True,
    help="Agent id, * or tag selector.",
)  # fmt: skip
@click.option(
    "--since", default="10m", show_default=True, metavar="DURATION",
    help="How far back to look for signs of life.",
)  # fmt: skip
@broker_options
@common_options
@pass_settings
def list_agents(settings: Settings, target: str, since: str, brokers: str | None) -> None:
    """Tells who is alive, from the agents' heartbeats.

    Ends with 1 where an agent has fallen silent.
    """
    from otus_agent.kafka.envelope import matches
    from otus_agent.kafka.fleet import FleetClient

    kafka = _kafka_config(settings, brokers)
    since_s = _seconds(since, "--since")

    async def look() -> dict[str, AgentView]:
        async with FleetClient(kafka) as client:
            return await client.agents(since_s)

    views = [
        view
        for _, view in sorted(asyncio.run(look()).items())
        if matches(target, view.agent_id, view.tags)
    ]
    views.sort(key=lambda view: view.state == "alive")
    data = [
        {"state": view.state, "last_seen": view.last_seen, **view.heartbeat,
         "agent_id": view.agent_id}
        for view in views
    ]  # fmt: skip
    emit(data, settings.form, lambda _: _show_agents(views))
    silent = sum(view.state == "silent" for view in views)
    if silent:
        raise CliError(f"{silent} of {len(views)} agents are silent")


def _show_agents(views: list[AgentView]) -> None:
    from otus_agent.kafka.fleet import seen_text

    now = time.time()
    rows = []
    for view in views:
        running = sum(task.get("state") == "running" for task in view.tasks)
        rows.append(
            (
                view.agent_id,
                view.state,
                seen_text(view.last_seen, now),
                ",".join(f"{name}={value}" for name, value in sorted(view.tags.items())),
                view.heartbeat.get("agent_version", ""),
                duration(view.seconds("uptime_s")),
                f"{running}/{len(view.tasks)}",
            )
        )
    columns = ["AGENT", "STATE", "SEEN", "TAGS", "VERSION", "UP", "#TASKS"]
    show_table(columns, rows, "no agent gave a sign of life")


@fleet.command()
@click.option("--since", default="0s", metavar="DURATION", help="Begin so far back (default: now).")
@click.option("--heartbeats", is_flag=True, help="Show heartbeats as well.")
@broker_options
@common_options
@pass_settings
def events(settings: Settings, since: str, heartbeats: bool, brokers: str | None) -> None:
    """Follows what the agents tell, one JSON object a line, until interrupted."""
    from otus_agent.kafka.fleet import FleetClient

    kafka = _kafka_config(settings, brokers)
    since_s = _seconds(since, "--since")

    async def follow() -> None:
        async with FleetClient(kafka) as client:
            async for event in client.events(since_s):
                if heartbeats or event.get("type") != "heartbeat":
                    print(json.dumps(event, ensure_ascii=False), flush=True)

    asyncio.run(follow())


# --- Commands ------------------------------------------------------------------


@fleet.group("task")
def task() -> None:
    """Tasks of many agents."""


@task.command("create")
@click.option(
    "--file", "-f", "file", required=True, metavar="FILE", type=click.Path(),
    help="Task file, YAML or JSON; - reads standard input.",
)  # fmt: skip
@sending_options(None)
@common_options
@pass_settings
def task_create(settings: Settings, file: str, **options: Any) -> None:
    """Creates a task on every agent that is meant."""
    from otus_agent.cli.task import read_task

    params = {"task": read_task(file)}
    _Request(settings, options).run(
        "task.create", params, lambda row: f"{row['id']} {row['state']}"
    )


@task.command("delete")
@click.argument("task_id", metavar="ID")
@sending_options(None)
@common_options
@pass_settings
def task_delete(settings: Settings, task_id: str, **options: Any) -> None:
    """Stops a task, flushing its reporters, and forgets it."""
    _Request(settings, options).run("task.delete", {"id": task_id}, lambda _: "deleted")


@task.command("list")
@sending_options("*")
@common_options
@pass_settings
def task_list(settings: Settings, **options: Any) -> None:
    """Lists tasks."""

    def tell(result: Any) -> str:
        return ", ".join(f"{row['id']} {row['state']}" for row in result["tasks"]) or "no tasks"

    _Request(settings, options).run("task.list", {}, tell)


@task.command("status")
@click.argument("task_id", metavar="ID")
@sending_options("*")
@common_options
@pass_settings
def task_status(settings: Settings, task_id: str, **options: Any) -> None:
    """Tells about one task."""

    def tell(row: Any) -> str:
        error = f", last error: {row['last_error']}" if row["last_error"] else ""
        return f"{row['state']}, up {duration(row['uptime_s'])}{error}"

    _Request(settings, options).run("task.status", {"id": task_id}, tell)


@fleet.command()
@sending_options("*")
@common_options
@pass_settings
def status(settings: Settings, **options: Any) -> None:
    """Tells how the agents are."""

    def tell(row: Any) -> str:
        tasks = ", ".join(f"{number} {state}" for state, number in row["tasks"].items() if number)
        return f"{row['version']}, up {duration(row['uptime_s'])}, tasks: {tasks or 'none'}"

    _Request(settings, options).run("status", {}, tell)


@fleet.command()
@sending_options("*")
@common_options
@pass_settings
def stats(settings: Settings, **options: Any) -> None:
    """Tells the counters of every task; all of them with --output json."""

    def tell(row: Any) -> str:
        return f"{count(len(row['tasks']))} tasks, up {duration(row['uptime_s'])}"

    _Request(settings, options).run("stats", {}, tell)


@fleet.command("plugins")
@sending_options("*")
@common_options
@pass_settings
def plugins(settings: Settings, **options: Any) -> None:
    """Lists the agents' plugins."""

    def tell(row: Any) -> str:
        return ", ".join(f"{one['kind']}/{one['name']}" for one in row["plugins"])

    _Request(settings, options).run("plugin.list", {}, tell)


@fleet.command("reload")
@sending_options(None)
@common_options
@pass_settings
def reload_config(settings: Settings, **options: Any) -> None:
    """Has agents read their configuration anew."""

    def tell(row: Any) -> str:
        parts = [f"{len(row['applied'])} applied"]
        if row["restart_needed"]:
            parts.append(f"restart needed for {', '.join(row['restart_needed'])}")
        if row["failed"]:
            parts.append(f"failed: {', '.join(row['failed'])}")
        return "; ".join(parts)

    _Request(settings, options).run("reload", {}, tell)


@fleet.command()
@sending_options(None)
@common_options
@pass_settings
def shutdown(settings: Settings, **options: Any) -> None:
    """Stops agents, flushing their tasks. Nobody starts them again but their hosts."""
    _Request(settings, options).run("shutdown", {}, lambda _: "stopping")


@fleet.command("send")
@click.argument("command")
@click.option("--params", default="{}", metavar="JSON", help="The command's parameters.")
@sending_options(None)
@common_options
@pass_settings
def send_command(settings: Settings, command: str, params: str, **options: Any) -> None:
    """Sends any command of the agents' command table."""
    try:
        parsed = json.loads(params)
    except ValueError as error:
        raise click.UsageError(f"--params: {error}") from None
    if not isinstance(parsed, dict):
        raise click.UsageError("--params: must be a JSON object")
    _Request(settings, options).run(command, parsed, json.dumps)


# --- Keys ----------------------------------------------------------------------


@fleet.command()
@click.argument("file", type=click.Path(dir_okay=False))
def keygen(file: str) -> None:
    """Makes a key that signs commands, and shows what agents need to trust it."""
    from otus_agent.kafka.signing import generate_keypair

    private, public = generate_keypair()
    path = Path(file)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CliError(f"{path} is there already; a key is not written over") from None
    with os.fdopen(handle, "wb") as written:
        written.write(private)
    print(f"kafka:\n  signing:\n    keys:\n      - {{id: {path.stem}, public_key: {public}}}")
