"""The ``otus`` command. Subcommands are imported when they are called."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from importlib import import_module
from typing import Any, NamedTuple, NoReturn

import rich_click as click

from otus_agent.cli.errors import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_OK, CliError, exit_code_of
from otus_agent.cli.options import common_options

__all__ = ["main"]


class _Entry(NamedTuple):
    module: str
    attribute: str
    summary: str


# One row a command, so that `otus --help` imports none of them.
COMMANDS: dict[str, _Entry] = {
    "run": _Entry("run", "run", "Run one task in the foreground, without a daemon."),
    "read": _Entry("read", "read", "Tell what is in capture files."),
    "explain-filter": _Entry(
        "explain_filter", "explain_filter", "Show what becomes of a capture filter."
    ),
    "daemon": _Entry("daemon", "daemon", "Run the daemon."),
    "stop": _Entry("control", "stop", "Stop the daemon, flushing its tasks."),
    "reload": _Entry("control", "reload", "Have the daemon read its configuration anew."),
    "status": _Entry("control", "status", "Tell how the daemon is."),
    "stats": _Entry("control", "stats", "Tell the counters of every task."),
    "top": _Entry("top", "top", "Watch tasks, rates, drops and queues live."),
    "task": _Entry("task", "task", "Create, delete, list and apply tasks."),
    "log": _Entry("control", "log", "Tell or change the daemon's log level."),
    "fleet": _Entry("fleet", "fleet", "Steer many agents through Kafka."),
    "validate": _Entry("config", "validate", "Check configuration and task files."),
    "config": _Entry("config", "config", "Show the configuration and its schema."),
    "plugins": _Entry("control", "plugins", "List the installed plugins."),
    "doctor": _Entry("doctor", "doctor", "Check this machine, and tell how to mend it."),
    "completion": _Entry("completion", "completion", "Print the shell's completion script."),
}


class _LazyGroup(click.RichGroup):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        if _is_listing(ctx, cmd_name):
            return click.RichCommand(name=cmd_name, help=entry.summary)
        module = import_module(f"otus_agent.cli.{entry.module}")
        command: click.Command = getattr(module, entry.attribute)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = ctx.meta["otus.resolving"] = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f", did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"no command '{name}'{hint}")
        return super().resolve_command(ctx, args)


def _is_listing(ctx: click.Context, name: str) -> bool:
    """Whether the group is only asked for a command's summary, as help does."""
    return ctx.meta.get("otus.resolving") != name and not ctx.resilient_parsing


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 ok, 1 error, 2 usage, 3 daemon unreachable, 4 not found, "
    "5 invalid configuration.",
)
@click.version_option(package_name="otus", prog_name="otus")
@common_options
def cli() -> None:
    """Otus captures network traffic, understands SIP and reports what it saw."""


def main(args: list[str] | None = None) -> NoReturn:
    """The console script: runs a command and ends the process with its exit code."""
    sys.exit(_run(args))


def _tell_click_its_version() -> None:
    """Spares click the look into importlib.metadata, a quarter of what `otus --help` takes.

    rich_click asks for ``click.__version__``, which click looks up when asked.
    """
    import click as plain_click

    folder = os.path.dirname(os.path.dirname(plain_click.__file__))  # noqa: PTH120 no pathlib yet
    for name in os.listdir(folder):  # noqa: PTH208
        if name.startswith("click-") and name.endswith(".dist-info"):
            vars(plain_click)["__version__"] = name[len("click-") : -len(".dist-info")]


def _run(args: list[str] | None) -> int:
    with contextlib.suppress(OSError):
        _tell_click_its_version()
    try:
        # Without standalone mode click returns a command's result, or the code
        # of ctx.exit(): commands return None or their exit code.
        code = cli.main(args=args, prog_name="otus", standalone_mode=False)
        return code if isinstance(code, int) else EXIT_OK
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        return _tell([_usage(error)], error.exit_code)
    except CliError as error:
        return _tell(error.problems or [error.message], error.exit_code)
    except BrokenPipeError:
        # The reader of a pipe has seen enough (`otus stats | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except Exception as error:  # noqa: BLE001 raised again where it is not ours
        return _explain(error)


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "otus"
    return f"{error.format_message().rstrip('.')}: see `{command} --help`"


def _explain(error: Exception) -> int:
    from otus_sdk.errors import OtusError

    if isinstance(error, OtusError):
        problems = error.details.get("problems")
        return _tell(problems or [error.message], exit_code_of(error.code))
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return _tell([f"{where}{error.strerror or error}"], EXIT_ERROR)
    raise error


def _tell(lines: list[str], exit_code: int) -> int:
    from otus_agent.cli.render import printable_lines

    for line in lines:
        print(f"otus: {printable_lines(line)}", file=sys.stderr)
    return exit_code
