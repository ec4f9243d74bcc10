"""Task files: read, set by flags, validated, their plugins' sections as well."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from otus_agent.config.documents import KeyPath, dotted
from otus_agent.config.explaining import ConfigurationProblems, Problem, in_order
from otus_agent.config.loading import Source, load_source, parse_source, read_source, validate
from otus_agent.config.task import TaskConfig, task_prefix
from otus_sdk.errors import ConfigurationInvalid

if TYPE_CHECKING:
    from otus_agent.registry import PluginRegistry
    from otus_agent.resolve import Inherit, ResolvedPlugin, TaskProblem

__all__ = [
    "TASK_FILE_PATTERNS",
    "check_task",
    "load_task",
    "read_task",
    "task_files_in",
    "task_problems",
    "task_source",
]

TASK_FILE_PATTERNS = ("*.yaml", "*.yml", "*.json")


def task_files_in(folder: Path) -> list[Path]:
    """The task files of a directory, in the order of their names."""
    return sorted(file for pattern in TASK_FILE_PATTERNS for file in folder.glob(pattern))


def read_task(name: str | Path) -> Source:
    """The task in a YAML or JSON file (`-`: on standard input), not yet validated.

    Raises:
        ConfigurationProblems: It can't be read, is not one well-formed document,
            or the document of another command.
    """
    if str(name) == "-":
        return task_source(parse_source(sys.stdin.read(), "standard input"))
    return task_source(read_source(name))


def task_source(source: Source) -> Source:
    """The task within a document that may be a `task.create` command.

    Raises:
        ConfigurationProblems: It is the document of another command, or of none.
    """
    if not isinstance(source.data, Mapping):
        message = "must be a mapping of keys to values"
        raise ConfigurationProblems([Problem(source.where(()), "", message)])
    try:
        prefix = task_prefix(source.data)
    except ValueError as error:
        raise ConfigurationProblems(
            [Problem(source.where(("command",)), "command", str(error))]
        ) from None
    if not prefix:
        return source
    depth = len(prefix)

    def below(places: Mapping[KeyPath, str]) -> dict[KeyPath, str]:
        return {path[depth:]: at for path, at in places.items() if path[:depth] == prefix}

    return Source(source.name, source.data["task"], below(source.values), below(source.keys))


def load_task(
    path: str | Path, flags: Mapping[str, str] | None = None
) -> tuple[TaskConfig, Source]:
    """A task from a YAML or JSON file, bare or in a `task.create` command.

    Args:
        path: The file; `-` is standard input.
        flags: Dotted key to text, as `--set` gives them.

    Returns:
        The task, and where each of its keys stands.

    Raises:
        ConfigurationProblems: It does not hold; all problems are listed with their places.
    """
    source = read_task(path)
    return load_source(TaskConfig, source, flags=flags), source


# --- What plugins expect of their sections ---------------------------------------


def check_task(
    task: TaskConfig, source: Source, registry: PluginRegistry, inherit: Inherit | None = None
) -> None:
    """Checks the plugins that a task names, their sections, and the capture filter.

    Raises:
        ConfigurationProblems: They do not hold; with the places in the file.
        PluginNotFound, PluginConflict, PluginInitFailed: A plugin is all that is wrong.
    """
    from otus_agent.resolve import Resolution

    found = Resolution(task, registry, inherit)
    problems = _placed(source, [*found.problems, *_filter_problems(task, found.capturer)])
    if len(problems) == len(found.errors) == 1:
        error = found.errors[0]
        raise type(error)(f"{problems[0].where}: {error.message}", details=error.details)
    if problems:
        raise ConfigurationProblems(in_order(problems))


def task_problems(
    source: Source, registry: PluginRegistry, inherit: Inherit | None = None
) -> list[Problem]:
    """All that is wrong with a task, whether its own keys or its plugins' ones."""
    from otus_agent.resolve import Resolution

    problems: list[Problem] = []
    try:
        task = validate(TaskConfig, source)
    except ConfigurationProblems as error:
        problems += error.problems
        try:
            task = validate(TaskConfig, _what_holds(source, error.problems))
        except ConfigurationProblems:
            return problems
    found = Resolution(task, registry, inherit)
    problems += _placed(source, [*found.problems, *_filter_problems(task, found.capturer)])
    return in_order(problems)


def _what_holds(source: Source, problems: Iterable[Problem]) -> Source:
    """The task without its wrong sections; harmless ones stand for those that it must have."""
    wrong = {problem.key.partition(".")[0] for problem in problems}
    stand_ins = {"id": "x", "capture": {"type": "pcap", "files": ["x"]}, "reporters": ["console"]}
    good = {key: value for key, value in source.data.items() if key not in wrong}
    return replace(source, data=stand_ins | good)


def _placed(source: Source, problems: Iterable[TaskProblem]) -> list[Problem]:
    return [
        Problem(
            source.where(problem.path, key=problem.is_about_key),
            dotted(problem.path),
            problem.message,
        )
        for problem in problems
    ]


def _filter_problems(task: TaskConfig, capturer: ResolvedPlugin | None) -> list[TaskProblem]:
    """Whether the filter can be compiled, for Ethernet: the interface need not be there."""
    from otus_agent.capture_filter import has_libpcap
    from otus_agent.resolve import TaskProblem
    from otus_agent.task import capture_stage, compile_filters

    native = capture_stage(capturer) if capturer is not None else None
    if not has_libpcap():
        return []
    try:
        compile_filters(native, task)
    except ConfigurationInvalid as error:
        message = error.message.removeprefix("bpf_filter: ")
        return [TaskProblem(("capture", "bpf_filter"), message)]
    return []
