"""Ties an agent to its fleet: the command door and the event publisher in one piece."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otus_agent.commands import Origin
from otus_agent.config.agent import AgentConfig
from otus_agent.kafka.commands import CommandDoor
from otus_agent.kafka.events import EventPublisher
from otus_agent.kafka.journal import Journal

if TYPE_CHECKING:
    from otus_agent.agent import Agent
    from otus_agent.supervisor import TaskEvent

JOURNAL_NAME = "kafka-requests.jsonl"


class FleetDoor:
    """Commands in, events out, for one agent; nothing where it has no `kafka` section.

    `start` does not wait for a broker. A reload of the `kafka` section makes both
    anew; keys that can't be read leave the former ones in force.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._commands: CommandDoor | None = None
        self._events: EventPublisher | None = None
        self._journal: Journal | None = None
        self._unlisten: Callable[[], None] | None = None

    async def start(self) -> None:
        """Opens the door.

        Raises:
            ConfigurationInvalid: a trusted key can't be read.
        """
        agent = self._agent
        self._open(await asyncio.to_thread(self._made, agent.config))
        self._unlisten = agent.supervisor.add_listener(self._tell)
        agent.parts["kafka"] = self.status
        agent.reload_hooks.append(("kafka", self._reload))

    async def stop(self, deadline_s: float = 5.0) -> None:
        """Takes no more commands, answers the one in hand. Safe twice, and without start.

        Events go on until `say_goodbye`, so that the tasks' last states are told.
        """
        if self._commands is not None:
            await self._commands.stop(deadline_s)
            self._commands = None

    async def say_goodbye(self, deadline_s: float = 2.0) -> None:
        """Sends what is queued and a last event, and closes. After the tasks have stopped."""
        if self._unlisten is not None:
            self._unlisten()
            self._unlisten = None
        if self._events is not None:
            await self._events.stop(deadline_s)
            self._events = None

    def status(self) -> dict[str, Any]:
        """How commands and events are."""
        return {
            "commands": self._commands.status() if self._commands else None,
            "events": self._events.status() if self._events else None,
        }

    def _made(self, config: AgentConfig) -> tuple[CommandDoor | None, EventPublisher | None]:
        kafka, agent = config.kafka, self._agent
        if kafka is None:
            return None, None
        commands = events = None
        if kafka.command_topic is not None:
            if self._journal is None:
                path = Path(config.daemon.data_dir) / JOURNAL_NAME
                self._journal = Journal(path, kafka.remembered_requests)
            commands = CommandDoor(
                kafka,
                agent_id=agent.agent_id,
                tags=lambda: agent.config.agent.tags,
                dispatch=self._dispatch,
                journal=self._journal,
            )
        if kafka.event_topic is not None:
            events = EventPublisher(kafka, agent_id=agent.agent_id, snapshot=self._snapshot)
        return commands, events

    def _open(self, made: tuple[CommandDoor | None, EventPublisher | None]) -> None:
        self._commands, self._events = made
        if self._commands is not None:
            self._commands.start()
        if self._events is not None:
            self._events.start()

    async def _reload(self, _old: AgentConfig, new: AgentConfig) -> None:
        # The command in hand may be this very reload: it is answered by the former
        # door, which ends in the background of the new one.
        made = await asyncio.to_thread(self._made, new)
        former = (self._commands, self._events)
        self._open(made)
        self._retire(*former)

    def _retire(self, commands: CommandDoor | None, events: EventPublisher | None) -> None:
        async def end() -> None:
            if commands is not None:
                await commands.stop()
            if events is not None:
                await events.stop()

        task = asyncio.get_running_loop().create_task(end(), name="kafka-retire")
        self._retiring = task  # kept from the garbage collector until it is done

    async def _dispatch(self, name: str, params: Mapping[str, Any], key_id: str) -> Any:
        return await self._agent.commands.dispatch(name, params, Origin("kafka", key_id))

    def _tell(self, event: TaskEvent) -> None:
        if self._events is not None:
            self._events.task_state(event.task_id, event.state, event.error)

    def _snapshot(self) -> dict[str, Any]:
        agent = self._agent
        tasks = []
        for entry in agent.supervisor.entries.values():
            details = entry.task.status() if entry.task is not None else {}
            summary = entry.summary()
            tasks.append(
                {
                    "id": summary["id"],
                    "state": summary["state"],
                    "last_error": summary["last_error"],
                    "ledger": details.get("ledger"),
                }
            )
        return {
            "tags": dict(agent.config.agent.tags),
            "agent_version": agent.version,
            "uptime_s": round(agent.uptime_s, 3),
            "tasks": tasks,
        }
