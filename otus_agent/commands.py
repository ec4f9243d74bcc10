"""One table of commands, the same through every door.

The Unix socket, the Kafka topic and signals all end in ``CommandTable.dispatch``:
a command has one name, one model of parameters, one handler and one set of errors.
"""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from otus_agent.config.explaining import problems_of
from otus_agent.config.fields import ConfigModel, Duration
from otus_agent.config.loading import Source
from otus_sdk.errors import OtusError


class CommandNotFound(OtusError):
    """No command has this name."""

    code = "command_not_found"
    rpc_code = -32601  # JSON-RPC 2.0 section 5.1: method not found


class ParametersInvalid(OtusError):
    """A command's parameters are wrong; the message names the parameter."""

    code = "parameters_invalid"
    rpc_code = -32602  # JSON-RPC 2.0 section 5.1: invalid params


@dataclass(frozen=True, slots=True)
class Origin:
    """Which door a command came in by, and who sent it."""

    door: Literal["socket", "kafka", "signal", "local"]
    peer: str = ""


LOCAL = Origin("local")

Handler = Callable[[Any, Origin], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Command:
    """One row of the table."""

    name: str
    params_model: type[BaseModel]
    handler: Handler
    summary: str


class CommandTable:
    """All commands by name. Not thread-safe: the event loop's."""

    def __init__(self) -> None:
        self._commands: dict[str, Command] = {}
        # By command, door and outcome ("ok" or an error's code): for the metrics.
        self.results: dict[tuple[str, str, str], int] = {}

    def register(
        self, name: str, params_model: type[BaseModel], handler: Handler, summary: str = ""
    ) -> None:
        """Adds a command.

        Raises:
            ValueError: there is one of this name.
        """
        if name in self._commands:
            raise ValueError(f"two commands are named {name!r}")
        text = summary or (params_model.__doc__ or "").partition("\n")[0]
        self._commands[name] = Command(name, params_model, handler, text)

    def __iter__(self) -> Iterator[Command]:
        return iter(self._commands.values())

    def __contains__(self, name: object) -> bool:
        return name in self._commands

    async def dispatch(
        self, name: str, params: Mapping[str, Any] | None = None, origin: Origin = LOCAL
    ) -> Any:
        """Runs a command.

        Args:
            name: one of the table's names.
            params: its parameters by name; None for none.
            origin: where it came from.

        Returns:
            The answer, made of what JSON knows.

        Raises:
            OtusError: the command does not exist, its parameters are wrong, or
                it failed.
        """
        outcome = "internal_error"
        try:
            answer = await self._run(name, params, origin)
            outcome = "ok"
        except OtusError as error:
            outcome = error.code
            raise
        finally:
            # A name that nobody registered must not become a series of its own.
            known = name if name in self._commands else "unknown"
            key = (known, origin.door, outcome)
            self.results[key] = self.results.get(key, 0) + 1
        return answer

    async def _run(self, name: str, params: Mapping[str, Any] | None, origin: Origin) -> Any:
        command = self._commands.get(name)
        if command is None:
            near = difflib.get_close_matches(name, self._commands, n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise CommandNotFound(f"no command {name[:100]!r}{hint}")
        try:
            validated = command.params_model.model_validate(dict(params or {}))
        except ValidationError as error:
            source = Source("", dict(params or {}))
            problems = [str(one) for one in problems_of(error, command.params_model, source)]
            raise ParametersInvalid(
                f"{name}: {'; '.join(problems)}", details={"problems": problems}
            ) from None
        return await command.handler(validated, origin)


# --- Parameters of the agent's own commands ----------------------------------


class NoParams(ConfigModel):
    """Takes no parameters."""


class TaskCreateParams(ConfigModel):
    """Creates a task, keeps it on disk and starts it."""

    task: dict[str, Any]
    """The task, as a task file holds it."""


class TaskDeleteParams(ConfigModel):
    """Stops a task, flushing its reporters, and forgets it."""

    id: str
    """The task's id."""
    timeout: Duration | None = None
    """How long flushing may take; null takes the task's own deadline."""


class TaskListParams(ConfigModel):
    """Lists tasks."""

    history: bool = False
    """Whether finished tasks are listed as well."""


class TaskStatusParams(ConfigModel):
    """Tells all about one task: state, counters, ledger, last error."""

    id: str
    """The task's id."""


class TaskApplyParams(ConfigModel):
    """Makes the running set equal to the given tasks."""

    tasks: list[dict[str, Any]] = Field(max_length=100_000)
    """All tasks that are to run; others are deleted."""
    dry_run: bool = False
    """Whether only to tell what would be done."""


class ShutdownParams(ConfigModel):
    """Stops the daemon in order."""

    timeout: Duration | None = None
    """How long stopping may take; null takes ``daemon.shutdown_timeout``."""


class LogLevelParams(ConfigModel):
    """Tells the log level, or sets it until the next restart or reload."""

    level: Literal["debug", "info", "warn", "error"] | None = None
    """The new level; null only tells the one in force."""
