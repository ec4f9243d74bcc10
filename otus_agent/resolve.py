"""A task's configuration and the installed plugins become something that can be built.

Each plugin's own section is validated into the type that its factory names.
Complaints carry the key's path within the task, so that whoever loaded the task
from a file can say the line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from otus_agent.config.documents import KeyPath, dotted
from otus_agent.config.explaining import message_of, nearest, one_line_of
from otus_agent.config.task import PluginSection, TaskConfig
from otus_agent.registry import PluginRegistry
from otus_sdk.errors import ConfigurationInvalid, OtusError
from otus_sdk.factory import NativeStage, PluginFactory, PluginKind

__all__ = [
    "Resolution",
    "ResolvedPlugin",
    "ResolvedTask",
    "TaskInvalid",
    "TaskProblem",
    "resolve_task",
]

Inherit = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""Lays the own section of a reporter or processor over what it inherits: (type, section)."""


@dataclass(frozen=True, slots=True)
class TaskProblem:
    """One complaint.

    Attributes:
        path: Of the key within the task: ("reporters", 0, "config", "topic").
        message: What is wrong, and what is allowed.
        is_about_key: Whether the key is wrong, and not its value.
    """

    path: KeyPath
    message: str
    is_about_key: bool = False

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.message}"


class TaskInvalid(ConfigurationInvalid):
    """A task that can't be built; `problems` has all that is wrong with it."""

    def __init__(self, task_id: str, problems: Sequence[TaskProblem]) -> None:
        lines = [str(problem) for problem in problems]
        super().__init__(
            f"task {task_id}: {one_line_of(lines)}", details={"task": task_id, "problems": lines}
        )
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class ResolvedPlugin:
    """A plugin with its validated configuration.

    Attributes:
        factory: Makes it.
        config: An instance of `factory.config_type`.
        name: What counters and logs call it; unique within its kind in the task.
        path: Of its section within the task.
    """

    factory: PluginFactory
    config: Any
    name: str
    path: KeyPath


@dataclass(frozen=True, slots=True)
class ResolvedTask:
    """A task whose plugins are all there and whose sections all hold."""

    config: TaskConfig
    capturer: ResolvedPlugin
    parsers: tuple[ResolvedPlugin, ...]
    processors: tuple[ResolvedPlugin, ...]
    reporters: tuple[ResolvedPlugin, ...]


def resolve_task(
    task: TaskConfig, registry: PluginRegistry, inherit: Inherit | None = None
) -> ResolvedTask:
    """Finds every plugin of a task and validates its section.

    Args:
        task: As loaded.
        registry: The installed plugins.
        inherit: What reporters and processors inherit from the global configuration.

    Raises:
        PluginNotFound, PluginConflict, PluginInitFailed: A plugin is the only
            thing that is wrong.
        TaskInvalid: Anything else is wrong; all problems are listed.
    """
    found = Resolution(task, registry, inherit)
    if found.problems:
        if len(found.problems) == len(found.errors) == 1:
            raise found.errors[0]
        raise TaskInvalid(task.id, found.problems)
    return found.resolved()


class Resolution:
    """A look at the whole task that finds everything that is wrong with it.

    Attributes:
        capturer: None where it is wrong.
        problems: What is wrong, in the order of the task.
        errors: Those of them that are about plugins, not about their sections.
    """

    def __init__(
        self, task: TaskConfig, registry: PluginRegistry, inherit: Inherit | None = None
    ) -> None:
        self.problems: list[TaskProblem] = []
        self.errors: list[OtusError] = []
        self._task = task
        self._registry = registry
        self._inherit = inherit
        self.capturer = self._plugin(
            PluginKind.CAPTURER, task.capture.type, task.capture.config, ("capture",), "type"
        )
        self._parsers = self._sections(PluginKind.PARSER, task.parsers, "parsers")
        self._processors = self._sections(PluginKind.PROCESSOR, task.processors, "processors")
        self._check_conditions()
        self._reporters = self._sections(PluginKind.REPORTER, task.reporters, "reporters")

    def resolved(self) -> ResolvedTask:
        """The task. Only for one without problems."""
        assert self.capturer is not None  # noqa: S101 no problem was found
        named = tuple(
            dataclasses.replace(reporter, name=name)
            for reporter, name in zip(self._reporters, self._task.reporter_names, strict=True)
        )
        return ResolvedTask(
            self._task,
            self.capturer,
            _numbered(self._parsers),
            _numbered(self._processors),
            named,
        )

    def _sections(
        self, kind: PluginKind, sections: Sequence[PluginSection], key: str
    ) -> list[ResolvedPlugin]:
        found: list[ResolvedPlugin] = []
        for index, section in enumerate(sections):
            config: Mapping[str, Any] = section.config
            if self._inherit is not None and kind in (PluginKind.REPORTER, PluginKind.PROCESSOR):
                config = self._inherit(section.type, config)
            plugin = self._plugin(kind, section.type, config, (key, index, "config"), None)
            if plugin is not None:
                found.append(plugin)
        return found

    def _check_conditions(self) -> None:
        """Finds conditions over labels that nothing in the task makes."""
        plugins = [*self._parsers, *self._processors]
        stages = [(plugin, _native_of(plugin)) for plugin in plugins]
        is_known = len(stages) == len(self._task.parsers) + len(self._task.processors)
        if not is_known or any(native is None for _, native in stages):
            return  # what a Python plugin will set can't be known
        conditions = [(plugin, one) for plugin, one in stages if one and one.kind == "filter"]
        if not conditions:
            return
        from otus_sdk.expression import ExpressionError, Schema, check, parse_expression
        from otus_sdk.labels import LabelType

        made = [name for _, one in stages if one for key in ("header_labels", "labels")
                for name in one.config.get(key, ())]  # fmt: skip
        schema = Schema(dict.fromkeys(made, LabelType.STRING))
        for plugin, one in conditions:
            text = one.config["expression"]
            try:
                check(parse_expression(text), text, schema)
            except ExpressionError as error:
                path = (*plugin.path, one.config["action"])
                self.problems.append(TaskProblem(path, error.pointed()))

    def _plugin(
        self,
        kind: PluginKind,
        name: str,
        section: Mapping[str, Any],
        path: KeyPath,
        type_key: str | None,
    ) -> ResolvedPlugin | None:
        type_path = (*path, type_key) if type_key else (*path[:-1], "type")
        try:
            factory = self._registry.get(kind, name)
        except OtusError as error:
            self.errors.append(error)
            self.problems.append(TaskProblem(type_path, error.message))
            return None
        try:
            config = validate_section(factory.config_type, section)
        except ValidationError as error:
            self.problems += [
                _problem((*path, *details["loc"]), details, factory.config_type)
                for details in error.errors(include_url=False)
            ]
            return None
        except Exception as error:  # noqa: BLE001 a dataclass runs its own __post_init__
            self.problems.append(TaskProblem(path, str(error) or type(error).__name__))
            return None
        return ResolvedPlugin(factory, config, name, path)


def _native_of(plugin: ResolvedPlugin) -> NativeStage | None:
    """What the core runs instead of the plugin; None also where its factory fails to say."""
    try:
        return plugin.factory.native(plugin.config) if plugin.factory.native is not None else None
    except Exception:  # noqa: BLE001 a plugin's: the task that is built from it tells
        return None


def _numbered(plugins: Sequence[ResolvedPlugin]) -> tuple[ResolvedPlugin, ...]:
    """Gives repeated names a number: filter, filter-2."""
    seen: dict[str, int] = {}
    numbered: list[ResolvedPlugin] = []
    for plugin in plugins:
        count = seen[plugin.name] = seen.get(plugin.name, 0) + 1
        name = plugin.name if count == 1 else f"{plugin.name}-{count}"
        numbered.append(dataclasses.replace(plugin, name=name))
    return tuple(numbered)


def validate_section(config_type: type, section: Mapping[str, Any]) -> Any:
    """A plugin's section as an instance of its config type, unknown keys refused.

    Raises:
        ValidationError: It does not hold.
    """
    if issubclass(config_type, BaseModel):
        unknown = [key for key in section if key not in known_keys(config_type)]
        if unknown and config_type.model_config.get("extra") != "allow":
            raise _unknown_keys(config_type, unknown, section)
        return config_type.model_validate(dict(section))
    unknown = [key for key in section if key not in known_keys(config_type)]
    if unknown:
        raise _unknown_keys(config_type, unknown, section)
    return TypeAdapter(config_type).validate_python(dict(section))


def _unknown_keys(
    config_type: type, unknown: Sequence[str], section: Mapping[str, Any]
) -> ValidationError:
    return ValidationError.from_exception_data(
        config_type.__name__,
        [{"type": "extra_forbidden", "loc": (key,), "input": section[key]} for key in unknown],
    )


def known_keys(config_type: type) -> list[str]:
    """The keys that a plugin's section may have."""
    if issubclass(config_type, BaseModel):
        keys: list[str] = []
        for name, field in config_type.model_fields.items():
            keys.append(name)
            if isinstance(field.alias, str):
                keys.append(field.alias)
        return keys
    if dataclasses.is_dataclass(config_type):
        return [field.name for field in dataclasses.fields(config_type) if field.init]
    return []


def _problem(path: KeyPath, details: ErrorDetails, config_type: type) -> TaskProblem:
    if details["type"] == "value_error":
        # A plugin's own words, which need no repetition of the value.
        return TaskProblem(path, str((details.get("ctx") or {}).get("error", details["msg"])))
    if details["type"] != "extra_forbidden":
        return TaskProblem(path, message_of(details, path))
    known = known_keys(config_type)
    near = nearest(str(path[-1]), known) if known else ", this plugin has none"
    return TaskProblem(path, f"unknown key{near}", is_about_key=True)
