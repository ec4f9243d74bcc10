"""``otus daemon``: runs the daemon."""

from __future__ import annotations

import os
from pathlib import Path

import rich_click as click

from otus_agent.cli.client import config_path
from otus_agent.cli.errors import CliError
from otus_agent.cli.options import Settings, assignments_option, common_options, pass_settings


@click.command()
@click.option("--background", is_flag=True, help="Detach once the daemon answers commands.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warn", "error"]),
    help="Same as --set log.level=LEVEL.",
)
@assignments_option("Lay a value over the configuration, such as metrics.listen=:9100; repeatable.")
@common_options
@pass_settings
def daemon(
    settings: Settings, background: bool, log_level: str | None, flags: dict[str, str]
) -> int:
    """Runs the daemon, in the foreground until it is told to stop.

    Configuration comes from the file, then from OTUS_ environment variables,
    then from options. SIGTERM and SIGINT stop it in order (a second one hurries
    it), SIGHUP has it read its configuration anew.
    """
    if log_level is not None:
        flags["log.level"] = log_level
    if settings.socket is not None:
        flags["daemon.socket_path"] = str(Path(settings.socket).absolute())
    from otus_agent.daemon import Invocation, run

    path = config_path(settings.config)
    try:
        return run(Invocation(path, dict(os.environ), flags), background=background)
    except PermissionError as error:
        message = f"{error.filename or error}: no permission; run as root or as the daemon's user, "
        message += "or set daemon.pid_file, daemon.socket_path and daemon.data_dir elsewhere"
        raise CliError(message) from None
