"""Checks whole files, of whichever kind they are, plugins' own keys included."""

from __future__ import annotations

from collections.abc import Mapping

from otus_agent.config.agent import AgentConfig
from otus_agent.config.explaining import ConfigurationProblems, Problem
from otus_agent.config.kafka import KafkaConfig
from otus_agent.config.loading import Source, load_source, read_source
from otus_agent.config.task import TaskConfig
from otus_agent.config.task_files import task_problems, task_source

# Stands for the global section where a task file is checked without one.
_SOME_KAFKA = KafkaConfig.model_validate({"brokers": ["broker.invalid:9092"]})


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
            return found, []
        return found, _check_task(task_source(source), kafka or _SOME_KAFKA)
    except ConfigurationProblems as error:
        return found, list(error.problems)


def _check_task(source: Source, kafka: KafkaConfig) -> list[Problem]:
    from otus_agent.registry import PluginRegistry
    from otus_agent.task import TaskEnvironment

    environment = TaskEnvironment("", PluginRegistry.load(), kafka)
    return task_problems(source, environment.registry, environment.inherit)
