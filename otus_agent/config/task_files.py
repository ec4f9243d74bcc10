"""Task files: read, set by flags, validated, their plugins' sections as well."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from otus_agent.config.loading import (
    ConfigurationProblems,
    Problem,
    Source,
    load_source,
    read_source,
)
from otus_agent.config.task import TaskConfig, task_prefix
from otus_agent.registry import PluginRegistry
from otus_agent.resolve import Inherit, KeyPath, ResolvedTask, TaskInvalid, dotted, resolve_task

__all__ = ["check_task", "load_task", "task_source"]


def task_source(source: Source) -> Source:
    """The task within a document that may be a `task.create` command.

    Raises:
        ConfigurationProblems: It is the document of another command.
    """
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
        path: The file.
        flags: Dotted key to text, as `--set` gives them.

    Returns:
        The task, and where each of its keys stands.

    Raises:
        ConfigurationProblems: It does not hold; all problems are listed with their places.
    """
    source = task_source(read_source(path))
    return load_source(TaskConfig, source, flags=flags), source


def check_task(
    task: TaskConfig, source: Source, registry: PluginRegistry, inherit: Inherit | None = None
) -> ResolvedTask:
    """Checks the plugins that a task names and their sections.

    Raises:
        ConfigurationProblems: They do not hold; with the places in the file.
        PluginNotFound, PluginConflict, PluginInitFailed: A plugin is all that is wrong.
    """
    try:
        return resolve_task(task, registry, inherit)
    except TaskInvalid as error:
        raise ConfigurationProblems(
            [
                Problem(source.where(problem.path, key=True), dotted(problem.path), problem.message)
                for problem in error.problems
            ]
        ) from error
