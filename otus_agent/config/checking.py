"""Checks whole files: which kind they are, their keys, and what plugins expect of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otus_agent.config.agent import AgentConfig
from otus_agent.config.kafka import KafkaConfig, inherit
from otus_agent.config.loading import (
    ConfigurationProblems,
    Problem,
    Source,
    load_source,
    read_source,
    validate,
)
from otus_agent.config.task import TaskConfig, task_prefix
from otus_sdk.errors import ConfigurationInvalid, OtusError

# Stands for the global section where a task file is checked without one.
_SOME_KAFKA = KafkaConfig.model_validate({"brokers": ["broker.invalid:9092"]})


def check_task(source: Source) -> dict[str, Any]:
    """The task in a document, its own keys checked; plugins' keys are left to the agent.

    Raises:
        ConfigurationInvalid: it does not hold; each problem has its place.
    """
    prefix = _prefix(source)
    validate(TaskConfig, source, prefix)
    task: Any = source.data
    for part in prefix:
        task = task[part]
    return dict(task)


def _prefix(source: Source) -> tuple[str, ...]:
    if not isinstance(source.data, Mapping):
        message = "must be a mapping of keys to values"
        raise ConfigurationProblems([Problem(source.where(()), "", message)])
    try:
        return task_prefix(source.data)
    except ValueError as error:
        place = source.where(("command",))
        raise ConfigurationProblems([Problem(place, "command", str(error))]) from None


def kind_of(source: Source) -> str:
    """Whether a document is a ``task`` or the global (``agent``) configuration."""
    keys = set(source.data) if isinstance(source.data, Mapping) else set()
    task_keys = keys & (set(TaskConfig.model_fields) | {"task", "command"})
    return "task" if len(task_keys) > len(keys & set(AgentConfig.model_fields)) else "agent"


def check_file(
    name: str, kind: str | None = None, kafka: KafkaConfig | None = None
) -> tuple[str, list[Problem]]:
    """Checks a file.

    Args:
        name: the file.
        kind: ``agent`` or ``task``; None sees it from the keys.
        kafka: what reporters inherit; None assumes that there are brokers.

    Returns:
        Its kind, and all problems with it.
    """
    found = kind or ""
    try:
        source = read_source(name)
        found = kind or kind_of(source)
        if found == "agent":
            load_source(AgentConfig, source)
        else:
            _check_plugins(source, kafka or _SOME_KAFKA)
    except ConfigurationProblems as error:
        return found, list(error.problems)
    except ConfigurationInvalid as error:
        return found, [Problem(name, "", error.message)]
    return found, []


def _check_plugins(source: Source, kafka: KafkaConfig) -> None:
    from otus_agent.registry import PluginRegistry
    from otus_agent.resolve import TaskInvalid, resolve_task

    prefix = _prefix(source)
    task = validate(TaskConfig, source, prefix)

    def with_inherited(kind: str, section: Mapping[str, Any]) -> Mapping[str, Any]:
        return inherit(kafka, section) if kind == "kafka" else section

    try:
        resolve_task(task, PluginRegistry.load(), with_inherited)
    except TaskInvalid as error:
        raise ConfigurationProblems(
            [
                Problem(
                    source.where((*prefix, *problem.path), key=_is_about_key(problem.message)),
                    ".".join(str(part) for part in problem.path),
                    problem.message,
                )
                for problem in error.problems
            ]
        ) from None
    except OtusError as error:
        place = _place_of_plugin(source, prefix, str(error.details.get("name", "")))
        raise ConfigurationProblems([Problem(*place, error.message)]) from None


def _is_about_key(message: str) -> bool:
    return message.startswith("unknown key")


def _place_of_plugin(source: Source, prefix: tuple[str, ...], name: str) -> tuple[str, str]:
    """Where the plugin of this name stands in the document, and its key."""
    if name:
        for path in source.values:
            if path[: len(prefix)] != prefix or not path[len(prefix) :]:
                continue
            value: Any = source.data
            for part in path:
                value = value[part]
            below = path[len(prefix) :]
            if value == name and below[0] in ("capture", "parsers", "processors", "reporters"):
                return source.where(path), ".".join(str(part) for part in below)
    return source.name, ""
