"""``otus validate`` and ``otus config``: configuration without a daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from otus_agent.cli.errors import CliError
from otus_agent.cli.options import Settings, common_options, pass_settings
from otus_agent.cli.render import emit, printable_lines


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option(
    "--kind",
    type=click.Choice(["agent", "task"]),
    help="What the files are (default: seen from their keys).",
)
@common_options
@pass_settings
def validate(settings: Settings, files: tuple[str, ...], kind: str | None) -> None:
    """Checks global configuration and task files, plugins' own keys included.

    Of a directory, each file in it is checked. Each problem is told as FILE:LINE:COLUMN: KEY: what is wrong, what is allowed.
    """
    from otus_agent.config.checking import check_file

    results: list[dict[str, Any]] = []
    for name in (name for path in files for name in _files_of(path)):
        found, problems = check_file(name, kind)
        results.append({"file": name, "kind": found, "valid": not problems,
                        "problems": [str(problem) for problem in problems]})  # fmt: skip

    def show(results: Any) -> None:
        for result in results:
            for problem in result["problems"]:
                click.echo(printable_lines(problem), err=True)
            if result["valid"]:
                print(f"{result['file']}: valid {result['kind']} configuration")

    emit(results, settings.form, show)
    invalid = [result for result in results if not result["valid"]]
    if invalid:
        number = sum(len(result["problems"]) for result in invalid)
        files_text = f"{len(invalid)} of {len(results)} files"
        message = f"{number} problem{'' if number == 1 else 's'} in {files_text}"
        raise CliError(message, "configuration_invalid")


def _files_of(path: str) -> list[str]:
    if not Path(path).is_dir():
        return [path]
    from otus_agent.config.task_files import TASK_FILE_PATTERNS, task_files_in

    files = [str(file) for file in task_files_in(Path(path))]
    if not files:
        raise CliError(f"{path} holds no files to check ({', '.join(TASK_FILE_PATTERNS)})")
    return files


@click.group()
def config() -> None:
    """Shows the configuration and its schema."""


@config.command()
@click.option("--task", "kind", flag_value="task", help="The schema of task files.")
@click.option(
    "--agent",
    "kind",
    flag_value="agent",
    default="agent",
    help="The schema of the global configuration (the default).",
)
@common_options
@pass_settings
def schema(settings: Settings, kind: str) -> None:
    """Prints the JSON Schema of a configuration file, for editors."""
    from otus_agent.config.schema import json_schema

    document = json_schema("task" if kind == "task" else "agent")
    emit(document, "yaml" if settings.form == "yaml" else "json", print)


@config.command("show")
@click.option(
    "--daemon",
    "from_daemon",
    is_flag=True,
    help="What is in force in the running daemon, instead of what a new one would take.",
)
@common_options
@pass_settings
def show_config(settings: Settings, from_daemon: bool) -> None:
    """Prints the configuration that file and environment give, secrets masked."""
    if from_daemon:
        document = settings.client().call("config.show")
    else:
        from otus_agent.agent import shown_config

        document = shown_config(settings.agent_config())
    emit(document, "json" if settings.form == "json" else "yaml", print)
