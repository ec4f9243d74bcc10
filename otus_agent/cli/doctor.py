"""``otus doctor``: looks at the machine, and tells what to do about each finding."""

from __future__ import annotations

import rich_click as click

from otus_agent.cli.client import socket_path
from otus_agent.cli.errors import CliError
from otus_agent.cli.options import Settings, common_options, pass_settings
from otus_agent.cli.render import console, emit

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

    def show(_: object) -> None:
        from rich.markup import escape

        target = console()
        for one in findings:
            target.print(f"{_MARKS[one.result]}  {one.check:<14} {escape(one.finding)}")
            if one.fix:
                target.print(f"      {'':<14} fix: {escape(one.fix)}")

    emit(document, settings.form, show)
    failed = [one.check for one in findings if one.result == "fail"]
    if failed:
        raise CliError(f"failed: {', '.join(failed)}")


def _configuration(settings: Settings) -> tuple[object, str]:
    """The configuration, or the defaults and what is wrong with it."""
    from otus_agent.config.agent import AgentConfig
    from otus_agent.config.explaining import ConfigurationProblems

    try:
        return settings.agent_config(), ""
    except ConfigurationProblems as error:
        return AgentConfig(), error.message
