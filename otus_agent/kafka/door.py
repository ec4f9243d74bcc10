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

    `start` does not wait for a broker.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._commands: CommandDoor | None = None
        self._events: EventPublisher | None = None
        self._journal: Journal | None = None
        self._retiring: asyncio.Task[None] | None = None
        self._unlisten: Callable[[], None] | None = None

    async def start(self) -> None:
        """Opens the door.

        Raises:
            ConfigurationInvalid: a trusted key can't be read.
        """
        agent = self._agent
        self._open(await asyncio.to_thread(self._made, agent.config), hello=True)
        self._unlisten = agent.supervisor.add_listener(self._tell)
        agent.parts["kafka"] = self.status

    async def stop_commands(self, deadline_s: float = 4.0) -> None:
        """Takes no more commands and answers the one in hand. Safe twice, and without start.

        Events go on until `stop`, so that the tasks' last states are told.
        """
        if self._retiring is not None:
            await asyncio.wait({self._retiring}, timeout=deadline_s)
        if self._commands is not None:
            await self._commands.stop(deadline_s)
            self._commands = None

    async def stop(self, deadline_s: float = 2.0) -> None:
        """Also sends what is queued and a last event. Best after the tasks have stopped."""
        await self.stop_commands()
        if self._unlisten is not None:
            self._unlisten()
            self._unlisten = None
        if self._events is not None:
            await self._events.stop(deadline_s)
            self._events = None
        self._agent.parts.pop("kafka", None)

    async def reload(self, _old: AgentConfig, new: AgentConfig) -> None:
        """Goes over to another `kafka` section; may be called by a command in hand here.

        Raises:
            ConfigurationInvalid: a trusted key can't be read; nothing changed.
        """
        # The command in hand may be this very reload: it is answered by the former
        # door, which ends beside the new one.
        made = await asyncio.to_thread(self._made, new)
        former = (self._commands, self._events)
        self._open(made, hello=False)
        self._retiring = asyncio.get_running_loop().create_task(_end(*former), name="kafka-retire")

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

    def _open(self, made: tuple[CommandDoor | None, EventPublisher | None], *, hello: bool) -> None:
        self._commands, self._events = made
        if self._commands is not None:
            self._commands.start()
        if self._events is not None:
            self._events.start(hello=hello)

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


async def _end(commands: CommandDoor | None, events: EventPublisher | None) -> None:
    if commands is not None:
        await commands.stop()
    if events is not None:
        await events.stop(goodbye=False)
