"""Options that every command takes, before or after its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click
from click.core import ParameterSource

if TYPE_CHECKING:
    from otus_agent.cli.client import Client
    from otus_agent.config.agent import AgentConfig

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

OUTPUTS = ("table", "json", "yaml")


@dataclass(slots=True)
class Settings:
    """What the common options say."""

    config: str | None = None
    socket: str | None = None
    output: str | None = None

    @property
    def form(self) -> str:
        """How results are printed."""
        return self.output or "table"

    def client(self, timeout_s: float = 60.0) -> Client:
        """A client of the daemon that the options name."""
        from otus_agent.cli.client import Client, socket_path

        return Client(socket_path(self.socket, self.config), timeout_s)

    def agent_config(self) -> AgentConfig:
        """The global configuration that file and environment give.

        Raises:
            ConfigurationInvalid: it does not hold.
        """
        from otus_agent.cli.client import config_path
        from otus_agent.config.agent import AgentConfig
        from otus_agent.config.loading import load

        return load(AgentConfig, config_path(self.config), os.environ)


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    settings = context.ensure_object(Settings)
    name = parameter.name
    if value is not None and name is not None:
        # What stands before the command's name is not undone by the environment,
        # which is asked once more behind it.
        is_typed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if is_typed or getattr(settings, name) is None:
            setattr(settings, name, value)
    return value


def common_options(function: FunctionT) -> FunctionT:
    """Adds ``--config``, ``--socket`` and ``--output`` to a command."""
    options = (
        click.option(
            "--config", "-c", metavar="FILE", envvar="OTUS_CONFIG", expose_value=False,
            callback=_remember, type=click.Path(dir_okay=False),
            help="Global configuration (default: /etc/otus/config.yml where it exists).",
        ),
        click.option(
            "--socket", "-s", metavar="PATH", envvar="OTUS_SOCKET", expose_value=False,
            callback=_remember, type=click.Path(dir_okay=False),
            help="The daemon's socket (default: daemon.socket_path of the configuration).",
        ),
        click.option(
            "--output", "-o", type=click.Choice(OUTPUTS), envvar="OTUS_OUTPUT",
            expose_value=False, callback=_remember, help="How results are printed.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def pass_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the settings as its first argument."""
    return click.make_pass_decorator(Settings, ensure=True)(function)


def assignments_option(what: str) -> Callable[[FunctionT], FunctionT]:
    """Adds ``--set KEY=VALUE``, handed over as a mapping named ``flags``."""
    return click.option(
        "--set", "flags", metavar="KEY=VALUE", multiple=True, callback=_as_mapping, help=what
    )


def _as_mapping(
    _context: click.Context, _parameter: click.Parameter, assignments: tuple[str, ...]
) -> dict[str, str]:
    flags: dict[str, str] = {}
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        if not separator or not key.strip():
            raise click.UsageError(f"--set {assignment}: must be KEY=VALUE")
        flags[key.strip()] = value
    return flags


def complete_task_ids(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Ids of the daemon's tasks that begin with what is typed; none when it is slow."""
    from otus_agent.cli.errors import CliError

    settings = context.find_object(Settings) or Settings()
    try:
        rows = settings.client(timeout_s=0.5).call("task.list")["tasks"]
    except (CliError, LookupError, TypeError):
        return []
    return [row["id"] for row in rows if row["id"].startswith(incomplete)]
