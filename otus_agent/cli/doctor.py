"""``otus doctor``: looks at the machine, and tells what to do about each finding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import rich_click as click

from otus_agent.cli.client import socket_path
from otus_agent.cli.errors import CliError
from otus_agent.cli.options import Settings, common_options, pass_settings
from otus_agent.cli.render import console, emit

if TYPE_CHECKING:
    from otus_agent.checkup import Finding

_MARKS = {"ok": "[green]ok  [/]", "info": "[cyan]info[/]", "warn": "[yellow]warn[/]",
          "fail": "[bold red]FAIL[/]"}  # fmt: skip


@click.command()
@click.option(
    "--interface",
    "-i",
    "interfaces",
    multiple=True,
    metavar="NAME",
    help="Interface to look at (default: those that are up); repeatable.",
)
@common_options
@pass_settings
def doctor(settings: Settings, interfaces: tuple[str, ...]) -> None:
    """Checks kernel, privileges, interfaces, memory, clock, Kafka and daemon.

    Ends with 1 when something would keep the agent from capturing.
    """
    from otus_agent.checkup import examine

    config, problem = _configuration(settings)
    path = socket_path(settings.socket, settings.config)
    findings = examine(config, problem, path, interfaces)
    document = [
        {"check": one.check, "result": one.result, "finding": one.finding, "fix": one.fix}
        for one in findings
    ]

    emit(document, settings.form, lambda _: _show(findings))
    failed = [one.check for one in findings if one.result == "fail"]
    if failed:
        raise CliError(f"failed: {', '.join(failed)}")


def _show(findings: list[Finding]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    for one in findings:
        text = escape(one.finding)
        if one.fix:
            text += f"\n[bold]fix:[/] {escape(one.fix)}"
        table.add_row(_MARKS[one.result], one.check, text)
    console().print(table)


def _configuration(settings: Settings) -> tuple[object, str]:
    """The configuration, or the defaults and what is wrong with it."""
    from otus_agent.config.agent import AgentConfig
    from otus_agent.config.explaining import ConfigurationProblems

    try:
        return settings.agent_config(), ""
    except ConfigurationProblems as error:
        return AgentConfig(), error.message
