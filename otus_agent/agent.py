"""One agent: its configuration, its tasks and the commands that steer them.

The daemon runs an agent and opens doors to it; tests run one without a daemon.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from otus_agent.commands import (
    CommandTable,
    LogLevelParams,
    NoParams,
    Origin,
    ShutdownParams,
    TaskApplyParams,
    TaskCreateParams,
    TaskDeleteParams,
    TaskListParams,
    TaskStatusParams,
)
from otus_agent.config.agent import AgentConfig, LogConfig
from otus_agent.config.masking import masked
from otus_agent.config.task import TaskConfig
from otus_agent.logs.logger import get_logger
from otus_agent.store import TaskStore
from otus_agent.supervisor import RunningTask, Supervisor, TaskFactory
from otus_sdk.errors import OtusError

if TYPE_CHECKING:
    from otus_agent.registry import PluginRegistry
    from otus_agent.task import TaskEnvironment

_log = get_logger(__name__)

# Keys that only a restart changes: files that are open, and who the agent is.
RESTART_KEYS = (
    "daemon.pid_file",
    "daemon.socket_path",
    "daemon.socket_group",
    "daemon.data_dir",
    "agent.id",
)

ReloadHook = Callable[[AgentConfig, AgentConfig], Awaitable[None]]


class LogControl(Protocol):
    """What the agent needs of the logs."""

    @property
    def level(self) -> str:
        """The level in force."""

    def set_level(self, level: str) -> None:
        """Changes the level at once."""

    def apply(self, config: LogConfig) -> None:
        """Takes over a configuration, or raises and stays as it was."""

    def stats(self) -> dict[str, Any]:
        """Lines written and dropped, by output."""


def agent_version() -> str:
    """The version of the installed distribution."""
    try:
        return importlib.metadata.version("otus")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"


class Agent:
    """Owns configuration, tasks, store and command table.

    Args:
        config: the configuration in force.
        read_config: reads the configuration anew for ``reload``; None where
            there is nothing to read.
        logs: the logs that ``log.level`` and ``reload`` change; None without.
        registry: installed plugins; None loads them when first asked for.
        task_factory: makes a run of a task; None takes ``otus_agent.task.Task``.
    """

    def __init__(
        self,
        config: AgentConfig,
        *,
        read_config: Callable[[], AgentConfig] | None = None,
        logs: LogControl | None = None,
        registry: PluginRegistry | None = None,
        task_factory: TaskFactory | None = None,
    ) -> None:
        self.config = config
        self.agent_id = config.agent_id
        self.version = agent_version()
        self.logs = logs
        self.commands = CommandTable()
        self.store = TaskStore(config.daemon.data_dir)
        self.supervisor = Supervisor(self.store, task_factory or self._make_task, config.daemon)
        self.shutdown_requested = asyncio.Event()
        self.shutdown_timeout_s: float | None = None
        # Doors and telemetry put a figure or a state of theirs here, by name.
        self.parts: dict[str, Callable[[], Any]] = {}
        self.reload_hooks: list[tuple[str, ReloadHook]] = []
        self._read_config = read_config
        self._registry = registry
        self._started = time.monotonic()
        self._started_at = time.time()
        self._reloading = asyncio.Lock()
        self._register_commands()

    # --- Life ----------------------------------------------------------------

    async def start(self, *, restore: bool = True) -> None:
        """Opens the store and brings back the tasks in it.

        Args:
            restore: False leaves them listed and not started: the caller awaits
                ``supervisor.start_loaded``.

        Raises:
            StoreFailed: the data directory can't be used.
        """
        await asyncio.to_thread(self.store.open)
        await self.supervisor.load()
        if restore:
            await self.supervisor.start_loaded()

    async def stop(self, timeout_s: float | None = None) -> None:
        """Stops all tasks, to come back with the next start. Safe twice, and without start."""
        deadline = self.config.daemon.shutdown_timeout if timeout_s is None else timeout_s
        await self.supervisor.stop_all(deadline)
        self.store.close()

    @property
    def registry(self) -> PluginRegistry:
        """The installed plugins."""
        if self._registry is None:
            from otus_agent.registry import PluginRegistry

            self._registry = PluginRegistry.load()
        return self._registry

    @property
    def uptime_s(self) -> float:
        """Seconds since the agent was made, by a clock that does not step."""
        return time.monotonic() - self._started

    def environment(self) -> TaskEnvironment:
        """What a task that starts now shares with the others."""
        from otus_agent.task import TaskEnvironment

        return TaskEnvironment(
            agent_id=self.agent_id,
            registry=self.registry,
            kafka=self.config.kafka,
            tags=dict(self.config.agent.tags),
        )

    def _make_task(self, config: TaskConfig) -> RunningTask:
        from otus_agent.task import Task

        return Task(config, self.environment())

    # --- Commands ------------------------------------------------------------

    def _register_commands(self) -> None:
        register = self.commands.register
        register("task.create", TaskCreateParams, self._task_create)
        register("task.delete", TaskDeleteParams, self._task_delete)
        register("task.list", TaskListParams, self._task_list)
        register("task.status", TaskStatusParams, self._task_status)
        register("task.apply", TaskApplyParams, self._task_apply)
        register(
            "reload",
            NoParams,
            self._reload_command,
            "Reads the configuration anew and applies what can change at run time.",
        )
        register("status", NoParams, self._status, "Tells how the agent is.")
        register("stats", NoParams, self._stats, "Tells the counters of every task and part.")
        register("shutdown", ShutdownParams, self._shutdown)
        register("plugin.list", NoParams, self._plugin_list, "Lists the installed plugins.")
        register(
            "config.show",
            NoParams,
            self._config_show,
            "Tells the configuration in force, secrets masked.",
        )
        register("log.level", LogLevelParams, self._log_level)

    async def _task_create(self, params: TaskCreateParams, origin: Origin) -> dict[str, Any]:
        entry = await self.supervisor.create(params.task)
        _log.info("task.create done", task=entry.id, door=origin.door, peer=origin.peer)
        return entry.summary()

    async def _task_delete(self, params: TaskDeleteParams, origin: Origin) -> dict[str, Any]:
        final = await self.supervisor.delete(params.id, params.timeout)
        _log.info("task.delete done", task=params.id, door=origin.door, peer=origin.peer)
        return final

    async def _task_list(self, params: TaskListParams, _origin: Origin) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "tasks": [entry.summary() for entry in self.supervisor.entries.values()]
        }
        if params.history:
            answer["history"] = list(self.supervisor.history)
        return answer

    async def _task_status(self, params: TaskStatusParams, _origin: Origin) -> dict[str, Any]:
        return self.supervisor.status(params.id)

    async def _task_apply(self, params: TaskApplyParams, origin: Origin) -> dict[str, Any]:
        answer = await self.supervisor.apply(params.tasks, dry_run=params.dry_run)
        counts = {key: len(ids) for key, ids in answer.items() if isinstance(ids, (list, dict))}
        _log.info("task.apply done", door=origin.door, peer=origin.peer, **counts)
        return answer

    async def _reload_command(self, _params: NoParams, origin: Origin) -> dict[str, Any]:
        _log.info("reload asked for", door=origin.door, peer=origin.peer)
        return await self.reload()

    async def _status(self, _params: NoParams, _origin: Origin) -> dict[str, Any]:
        return self.status()

    async def _stats(self, _params: NoParams, _origin: Origin) -> dict[str, Any]:
        return self.stats()

    async def _shutdown(self, params: ShutdownParams, origin: Origin) -> dict[str, Any]:
        _log.info("shutdown asked for", door=origin.door, peer=origin.peer)
        self.request_shutdown(params.timeout)
        return {"stopping": True, "pid": os.getpid()}

    async def _plugin_list(self, _params: NoParams, _origin: Origin) -> dict[str, Any]:
        infos = await asyncio.to_thread(self.registry.plugins)
        return {"plugins": [plugin_row(info) for info in infos]}

    async def _config_show(self, _params: NoParams, _origin: Origin) -> dict[str, Any]:
        return shown_config(self.config)

    async def _log_level(self, params: LogLevelParams, origin: Origin) -> dict[str, Any]:
        if self.logs is None:
            return {"level": self.config.log.level}
        previous = self.logs.level
        if params.level is not None and params.level != previous:
            self.logs.set_level(params.level)
            _log.warning(
                "log level changed",
                level=params.level,
                previous=previous,
                door=origin.door,
                peer=origin.peer,
            )
        return {"level": self.logs.level, "previous": previous}

    def request_shutdown(self, timeout_s: float | None = None) -> None:
        """Asks whoever runs the agent to stop it."""
        self.shutdown_timeout_s = timeout_s
        self.shutdown_requested.set()

    # --- Figures -------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """How the agent is: who, since when, how many tasks, which doors."""
        return {
            "agent_id": self.agent_id,
            "version": self.version,
            "python": ".".join(str(part) for part in sys.version_info[:3]),
            "pid": os.getpid(),
            "started_at": self._started_at,
            "uptime_s": round(self.uptime_s, 3),
            "tags": dict(self.config.agent.tags),
            "tasks": self.supervisor.counts(),
            "history": len(self.supervisor.history),
            "log_level": self.logs.level if self.logs else self.config.log.level,
            "stopping": self.shutdown_requested.is_set(),
            "process": process_figures(),
            **{name: part() for name, part in self.parts.items()},
        }

    def stats(self) -> dict[str, Any]:
        """Counters of every task, of the logs and of the doors."""
        entries = self.supervisor.entries
        return {
            "time": time.time(),
            "uptime_s": round(self.uptime_s, 3),
            "tasks": {task_id: entry.details() for task_id, entry in entries.items()},
            "logs": self.logs.stats() if self.logs else {},
            "process": process_figures(),
            **{name: part() for name, part in self.parts.items()},
        }

    # --- Reload --------------------------------------------------------------

    async def reload(self) -> dict[str, Any]:
        """Reads the configuration anew and applies what can change at run time.

        Returns:
            Changed keys: ``applied``; ``restart_needed``, which stay as they
            were; and ``failed`` (section to reason), which stay as well. Under
            ``tasks_as_before``, ids of tasks that run on with what they inherited
            when they started.

        Raises:
            ConfigurationInvalid: the new one does not hold; nothing changed.
        """
        async with self._reloading:
            if self._read_config is None:
                return {"applied": [], "restart_needed": [], "failed": {}, "tasks_as_before": []}
            new = await asyncio.to_thread(self._read_config)
            changed = changed_keys(self.config, new)
            if self.logs is not None and self.logs.level != new.log.level:
                # The file is as it was, and log.level had been changed since.
                changed = sorted({*changed, "log.level"})
            inherited = self._inherited()
            restart_needed = [key for key in changed if key in RESTART_KEYS]
            merged = _with_old_values(self.config, new, restart_needed)
            failed = await self._apply_sections(merged)
            applied = [
                key
                for key in changed
                if key not in restart_needed and key.partition(".")[0] not in failed
            ]
            now = self._inherited()
            answer = {
                "applied": applied,
                "restart_needed": restart_needed,
                "failed": failed,
                "tasks_as_before": [key for key, was in inherited.items() if now.get(key) != was],
            }
            level = _log.warning if failed or restart_needed else _log.info
            level("configuration reloaded", **answer)
            return answer

    def _inherited(self) -> dict[str, Any]:
        """What each task that runs takes, or would take now, from the global configuration."""
        configs = [
            entry.config
            for entry in self.supervisor.entries.values()
            if entry.task is not None and entry.config is not None
        ]
        if not configs:
            return {}
        inherit = self.environment().inherit
        return {
            config.id: [inherit(one.type, one.config) for one in config.with_inheritance]
            for config in configs
        }

    async def _apply_sections(self, new: AgentConfig) -> dict[str, str]:
        """Puts the sections of new in force one by one; one that fails stays as it was."""
        failed: dict[str, str] = {}
        if self.logs is not None:
            # Also without a change: files that were moved away are opened anew.
            try:
                await asyncio.to_thread(self.logs.apply, new.log)
            except (OtusError, OSError) as error:
                failed["log"] = str(error)
                new = new.model_copy(update={"log": self.config.log})
        for section, hook in self.reload_hooks:
            old = self.config
            if getattr(old, section) == getattr(new, section):
                continue
            try:
                await hook(old, new)
            except Exception as error:  # noqa: BLE001 a section's own code
                _log.exception("reload failed", section=section)
                failed[section] = f"{type(error).__name__}: {error}"
                new = new.model_copy(update={section: getattr(old, section)})
        self.config = new
        self.supervisor.set_limits(new.daemon)
        return failed


def changed_keys(old: AgentConfig, new: AgentConfig) -> list[str]:
    """Dotted keys (two levels: section and key) whose values differ."""
    changed: list[str] = []
    for section in AgentConfig.model_fields:
        before, after = getattr(old, section), getattr(new, section)
        if before == after:
            continue
        if before is None or after is None:
            changed.append(section)
            continue
        changed += [
            f"{section}.{key}"
            for key in type(before).model_fields
            if getattr(before, key) != getattr(after, key)
        ]
    return changed


def _with_old_values(old: AgentConfig, new: AgentConfig, keys: list[str]) -> AgentConfig:
    for dotted_key in keys:
        section, _, key = dotted_key.partition(".")
        kept = getattr(new, section).model_copy(update={key: getattr(getattr(old, section), key)})
        new = new.model_copy(update={section: kept})
    return new


def shown_config(config: AgentConfig) -> dict[str, Any]:
    """A configuration as plain values, secrets masked."""
    shown: dict[str, Any] = masked(config.model_dump(mode="json"))
    return shown


def plugin_row(info: Any) -> dict[str, Any]:
    """One row of ``plugin.list``, from ``otus_agent.registry.PluginInfo``."""
    return {
        "kind": str(info.kind),
        "name": info.name,
        "distribution": info.distribution,
        "stability": str(info.stability) if info.stability is not None else "",
        "description": info.description,
        "error": info.error,
    }


def process_figures() -> dict[str, Any]:
    """Memory, descriptors, threads and CPU time of this process."""
    figures: dict[str, Any] = {}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures["cpu_s"] = round(usage.ru_utime + usage.ru_stime, 3)
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        figures["resident_octets"] = pages * resource.getpagesize()
        figures["descriptors"] = sum(1 for _ in Path("/proc/self/fd").iterdir())
        figures["threads"] = sum(1 for _ in Path("/proc/self/task").iterdir())
    except (OSError, ValueError, IndexError):
        pass  # no /proc: the figures are left out
    return figures
