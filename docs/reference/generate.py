"""Writes the reference pages that say what the code says.

Run it after a change of configuration models, commands or the command line:

    python docs/reference/generate.py

A test compares the pages with what this would write.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

import otus_agent
from otus_agent.agent import RESTART_KEYS, Agent
from otus_agent.cli import cli
from otus_agent.cli import errors as cli_errors
from otus_agent.config.agent import AgentConfig, FileOutput, LokiOutput, StreamOutput
from otus_agent.config.fields import Duration, field_docs, format_duration
from otus_agent.config.task import TaskConfig
from otus_sdk import errors as sdk_errors

FOLDER = Path(__file__).parent
NOTE = "<!-- Written by docs/reference/generate.py; change the code, then run it. -->\n"
DURATION_METADATA = get_args(Duration)[1:]


def main() -> None:
    """Writes all pages."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """The pages by file name."""
    return {
        "configuration.md": configuration_page(),
        "cli.md": cli_page(),
        "rpc.md": rpc_page(),
    }


# --- Configuration ---------------------------------------------------------------


def configuration_page() -> str:
    """Every key of the global configuration and of tasks."""
    parts = [NOTE, "# Configuration\n", _CONFIGURATION_HEAD]
    parts += ["## Global configuration\n"]
    for section, info in AgentConfig.model_fields.items():
        parts += _section(section, info, environment=True)
    parts += [
        "### `log.outputs` of type `file`\n", *_rows(FileOutput, "", environment=False),
        "### `log.outputs` of type `loki`\n", *_rows(LokiOutput, "", environment=False),
        "### `log.outputs` of types `stdout` and `stderr`\n",
        *_rows(StreamOutput, "", environment=False),
        "## Tasks\n", _TASK_HEAD, "### Top level\n", *_rows(TaskConfig, "", environment=False),
    ]  # fmt: skip
    for section, info in TaskConfig.model_fields.items():
        parts += _section(section, info, environment=False)
    return "\n".join(parts)


_CONFIGURATION_HEAD = """\
The global file is `/etc/otus/config.yml`, or what `--config` or `OTUS_CONFIG`
names. It is YAML 1.2 (JSON is YAML too). A value of the environment wins over the
file, and an option of the command line over both: `otus daemon --set
log.level=debug`. Lists in the environment are separated by commas or are JSON,
mappings are `key=value` pairs separated by commas or are JSON; `__` also reaches
into lists and mappings: `OTUS_LOG__OUTPUTS__0__PATH`. `OTUS_PLUGIN_PATH` is no key:
it names folders, separated by colons, in which plugins are found beside the installed ones.

A key that does not exist is an error which names the nearest one, in the file as
in the environment. `otus validate FILE...` checks files, `otus config show`
prints what is in force with secrets masked, `otus config schema` prints the JSON
Schema for editors.

`otus reload` and SIGHUP read it anew. What changes then says "reload" below; what
says "restart" stays as it was until the daemon starts again, and the answer of
the reload names it. A file that does not hold changes nothing. Tasks that run
keep what they started with; the next task sees the new values.

Durations are written `500ms`, `5s` or `1m30s`; a plain number counts seconds.
"""

_TASK_HEAD = """\
A task file is YAML or JSON: the task itself, or a command that holds it
(`{"command": "task.create", "task": {...}}`). A parser or processor is a name, or
`{type, config}`; what stands in `config`, and in `capture` beside `type`, belongs
to the plugin: see its README.
"""


def _section(name: str, info: FieldInfo, *, environment: bool) -> list[str]:
    model = _model_in(info.annotation)
    if model is None:
        return []
    doc = inspect.cleandoc(model.__doc__ or "")
    return [f"### `{name}`\n", f"{doc}\n", *_rows(model, f"{name}.", environment=environment)]


def _rows(model: type[BaseModel], prefix: str, *, environment: bool) -> list[str]:
    head = ["| key | type | default | meaning |", "|---|---|---|---|"]
    if environment:
        head = ["| key | type | default | changes by | meaning |", "|---|---|---|---|---|"]
    rows = [*head]
    for key, info, of in _keys(model):
        below = _model_in(info.annotation)
        docs = field_docs(of)
        of_section = inspect.cleandoc((below.__doc__ if below else "") or "").partition("\n")[0]
        meaning = _one_line(docs.get(key.rpartition(".")[2], "") or of_section)
        cells = [f"`{prefix}{key}`", _type_text(info.annotation, info), _default(info, of)]
        if environment:
            cells.append("restart" if f"{prefix}{key}" in RESTART_KEYS else "reload")
        rows.append("| " + " | ".join([*cells, meaning]) + " |")
    return [*rows, ""]


def _keys(model: type[BaseModel], prefix: str = "") -> list[tuple[str, FieldInfo, type[BaseModel]]]:
    found: list[tuple[str, FieldInfo, type[BaseModel]]] = []
    for key, info in model.model_fields.items():
        found.append((prefix + key, info, model))
        below = _model_in(info.annotation)
        if below is not None and prefix.count(".") < 3 and model is not TaskConfig:
            dots = "[]." if get_origin(_without_none(info.annotation)) is list else "."
            found += _keys(below, f"{prefix}{key}{dots}")
    return found


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The one model in an annotation; None where there is none, or are several."""
    found = _models_in(annotation)
    return found[0] if len(found) == 1 else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is dict:
        return []
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _without_none(annotation: Any) -> Any:
    arguments = [one for one in get_args(annotation) if one is not type(None)]
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return arguments[0] if is_union and len(arguments) == 1 else annotation


def _is_duration(metadata: Any) -> bool:
    return any(one in DURATION_METADATA for one in metadata) or "_seconds" in repr(metadata)


def _type_text(annotation: Any, info: FieldInfo | None = None) -> str:
    if info is not None and _is_duration(info.metadata):
        return "duration"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return "duration" if _is_duration(arguments[1:]) else _type_text(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type_text(one) for one in arguments))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (list, tuple):
        return f"list of {_type_text(arguments[0])}"
    if origin is dict:
        return "mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    names = {str: "text", int: "integer", float: "number", bool: "boolean",
             type(None): "null", SecretStr: "secret", Any: "any"}  # fmt: skip
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(info: FieldInfo, model: type[BaseModel]) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, float) and "duration" in _type_text(info.annotation, info):
        return f"`{format_duration(value)}`"
    if isinstance(value, list) and any(isinstance(one, BaseModel) for one in value):
        return ", ".join(f"`{one.model_dump(exclude_unset=True)}`" for one in value)
    if value is None or isinstance(value, bool):
        return f"`{str(value).lower() if value is not None else 'null'}`"
    return f"`{value}`" if value != "" else '`""`'


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("``", "`").replace("|", r"\|").strip()


# --- The command line --------------------------------------------------------------


def cli_page() -> str:
    """Every command with its options, and the exit codes."""
    parts = [NOTE, "# The `otus` command\n", _CLI_HEAD, _exit_codes()]
    context = click.Context(cli, info_name="otus")
    common = {parameter.name for parameter in cli.params}
    parts += ["## Options of every command\n", *_option_rows(cli, context, set())]
    for command, inner in _commands(cli, context):
        parts += [f"## `{inner.command_path}`\n", f"{_doc(command)}\n"]
        usage = " ".join(command.collect_usage_pieces(inner))
        parts.append(f"    {inner.command_path} {usage}\n")
        parts += _option_rows(command, inner, common)
    return "\n".join(parts)


_CLI_HEAD = """\
`--config`, `--socket` and `--output` stand before a command's name or behind it;
`OTUS_CONFIG`, `OTUS_SOCKET` and `OTUS_OUTPUT` give them a default. A failure is
one line on standard error that says what to do next. Colours need a terminal, and
`NO_COLOR` switches them off.

Completion, task ids included: `source <(otus completion bash)`, and the same for
`zsh` and `fish`.
"""


def _exit_codes() -> str:
    meanings = {
        "EXIT_OK": "all is well",
        "EXIT_ERROR": "it failed",
        "EXIT_USAGE": "the command was called wrongly",
        "EXIT_UNREACHABLE": "no daemon answers",
        "EXIT_NOT_FOUND": "there is no such task or plugin",
        "EXIT_INVALID_CONFIGURATION": "a configuration or task file does not hold",
        "EXIT_INTERRUPTED": "ended by Ctrl-C",
    }
    rows = ["| exit code | meaning |", "|---|---|"]
    rows += [f"| {getattr(cli_errors, name)} | {text} |" for name, text in meanings.items()]
    return "\n".join([*rows, ""])


def _commands(
    group: click.Group, context: click.Context
) -> list[tuple[click.Command, click.Context]]:
    found: list[tuple[click.Command, click.Context]] = []
    for name in group.list_commands(context):
        context.meta["otus.resolving"] = name
        command = group.get_command(context, name)
        if command is None:
            continue
        inner = click.Context(command, parent=context, info_name=name)
        if isinstance(command, click.Group):
            found += _commands(command, inner)
        else:
            found.append((command, inner))
    return found


def _doc(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").replace("\b\n", "").replace("\f", "")


def _option_rows(command: click.Command, context: click.Context, hidden: set[Any]) -> list[str]:
    rows: list[str] = []
    for parameter in command.get_params(context):
        if not isinstance(parameter, click.Option) or parameter.name in hidden | {"help"}:
            continue
        record = parameter.get_help_record(context)
        if record is not None:
            rows.append(f"| `{_one_line(record[0])}` | {_one_line(record[1])} |")
    return ["| option | meaning |", "|---|---|", *rows, ""] if rows else []


# --- RPC ---------------------------------------------------------------------------


def rpc_page() -> str:
    """Every command of the table with its parameters, and every error."""
    agent = Agent(AgentConfig())
    parts = [NOTE, "# Commands and JSON-RPC\n", _RPC_HEAD]
    for command in agent.commands:
        parts += [f"## `{command.name}`\n", f"{command.summary}\n"]
        if command.params_model.model_fields:
            parts += _rows(command.params_model, "", environment=False)
    parts += ["## Errors\n", _ERRORS_HEAD, "| code | `data.code` | meaning |", "|---|---|---|"]
    parts += [
        f"| {error.rpc_code} | `{error.code}` | {_summary(error)} |"
        for error in sorted(_errors(), key=lambda one: -one.rpc_code)
    ]
    return "\n".join([*parts, ""])


_RPC_HEAD = """\
The same commands come in by the Unix socket, by Kafka (docs/fleet.md) and from the
command line. On the socket they are JSON-RPC 2.0, one JSON text a line:

    {"jsonrpc": "2.0", "method": "task.list", "params": {}, "id": 1}

Batches (at most 1,000 calls, run in order) and notifications are as the standard
says. Parameters go by name. A client that begins with an HTTP request line is
answered in HTTP, at any path:

    curl --unix-socket /var/run/otus.sock http://otus/rpc \\
         -d '{"jsonrpc": "2.0", "method": "status", "id": 1}'

The socket is its owner's alone (mode 0600), or its owner's and
`daemon.socket_group`'s (0660); the daemon also asks the kernel who is at the other
end, and refuses all but root, its own user and that group. A request may have
`daemon.max_request_octets` octets and take `daemon.request_timeout` to arrive, and
its answer as long to be read; `daemon.max_clients` bounds connections. An idle
connection is closed after five minutes.
"""

_ERRORS_HEAD = """\
`error.code` is the number, `error.data.code` the same name that Kafka answers and
scripts see; `error.data.problems` lists what is wrong with a configuration.
-32700 (not valid JSON), -32600 (not a request) and -32603 (internal error) are the
standard's.
"""


def _errors() -> list[type[sdk_errors.OtusError]]:
    # Every module: which errors there are must not depend on what was imported before.
    for module in pkgutil.walk_packages(otus_agent.__path__, "otus_agent."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    found: dict[tuple[str, int], type[sdk_errors.OtusError]] = {}
    todo = sdk_errors.OtusError.__subclasses__()
    while todo:
        error = todo.pop(0)
        todo += error.__subclasses__()
        if error.__module__.startswith(("otus_sdk.", "otus_agent.")):
            found.setdefault((error.code, error.rpc_code), error)
    return list(found.values())


def _summary(error: type[Exception]) -> str:
    return _one_line(inspect.cleandoc(error.__doc__ or "").partition("\n\n")[0])


if __name__ == "__main__":
    main()
