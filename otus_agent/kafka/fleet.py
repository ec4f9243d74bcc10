"""The operator's side: who is alive, and commands to many agents with their answers gathered."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from otus_agent.config.kafka import KafkaConfig
from otus_agent.kafka import envelope as envelopes
from otus_agent.kafka.client import REQUEST_TIMEOUT_S, close, connection_settings
from otus_agent.kafka.signing import Signer, sign
from otus_agent.kafka.unpacking import bound_unpacking
from otus_sdk.errors import OtusError

CLIENT_ID = "otus-fleet"
# An agent that let so many heartbeats pass is not called alive any more.
MISSED_HEARTBEATS = 3
DEFAULT_SINCE_S = 600.0
_MAX_EVENT_OCTETS = 4 << 20
_MAX_UNPACKED_OCTETS = 4 * _MAX_EVENT_OCTETS
_MAX_EVENTS_AT_ONCE = 1000
_MAX_AGENT_ID = 128
_LONG_S = 1e10


class BrokersUnreachable(OtusError):
    """No broker answers."""

    code = "brokers_unreachable"
    rpc_code = -32047


@dataclass(slots=True)
class AgentView:
    """What the events tell of one agent.

    Attributes:
        agent_id: its id.
        state: alive, silent (heartbeats are missing) or stopped (it said goodbye).
        last_seen: seconds since 1970, by the broker's clock where it stamps messages.
        heartbeat: its last one; empty where only other events were seen.
    """

    agent_id: str
    state: str
    last_seen: float
    heartbeat: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tags(self) -> dict[str, str]:
        """Its tags."""
        tags = self.heartbeat.get("tags")
        return dict(tags) if isinstance(tags, dict) else {}

    @property
    def tasks(self) -> list[Mapping[str, Any]]:
        """The tasks that its last heartbeat told of."""
        tasks = self.heartbeat.get("tasks")
        listed = tasks if isinstance(tasks, list) else []
        return [task for task in listed if isinstance(task, dict)]

    def seconds(self, name: str, default: float = 0.0) -> float:
        """A time of its last heartbeat; the default where that holds something else."""
        value = self.heartbeat.get(name)
        return value if isinstance(value, int | float) and 0 <= value < _LONG_S else default


@dataclass(slots=True)
class Outcome:
    """What came of one command.

    Attributes:
        envelope: what was (or would be) sent.
        expected: the agents that are known to be meant.
        answers: by agent id.
    """

    envelope: Mapping[str, Any]
    expected: frozenset[str]
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """Expected agents that did not answer."""
        return sorted(self.expected - set(self.answers))

    @property
    def failed(self) -> list[str]:
        """Agents that answered with an error."""
        return sorted(name for name, one in self.answers.items() if one.get("status") != "ok")

    @property
    def succeeded(self) -> bool:
        """Whether somebody answered, and everybody who was meant did so with success."""
        return bool(self.answers) and not self.missing and not self.failed


Progress = Callable[[Outcome], None]


class FleetClient:
    """Sends commands and reads events. One at a time; use it as a context manager.

    Args:
        kafka: where the brokers and topics are.
        signer: signs every command; None sends unsigned ones.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        signer: Signer | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kafka = kafka
        self._signer = signer
        self._clock = clock
        self._settings: dict[str, Any] = {}
        self._producer: AIOKafkaProducer | None = None

    async def __aenter__(self) -> FleetClient:
        """Connects.

        Raises:
            BrokersUnreachable: no broker answers within ten seconds.
        """
        try:
            self._settings = connection_settings(self._kafka, CLIENT_ID)
            self._producer = AIOKafkaProducer(acks="all", **self._settings)
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await self._producer.start()
        except (KafkaError, OSError) as error:
            await self.__aexit__()
            brokers = ", ".join(self._kafka.brokers)
            raise BrokersUnreachable(f"no broker answers at {brokers}: {error}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes the connections."""
        if self._producer is not None:
            await close(self._producer)
            self._producer = None

    # --- Events --------------------------------------------------------------

    async def agents(self, since_s: float = DEFAULT_SINCE_S) -> dict[str, AgentView]:
        """The agents that sent an event in the last `since_s` seconds, by id.

        Raises:
            BrokersUnreachable: the events can't be read.
        """
        topic = self._kafka.event_topic
        views: dict[str, AgentView] = {}
        if topic is None:
            return views
        async with self._reading(topic, self._clock() - since_s) as (consumer, ends):
            now = self._clock()  # what comes from here on is not read
            async for message in _until(consumer, ends):
                _take_event(views, message)
        for view in views.values():
            interval = view.seconds("heartbeat_interval_s", self._kafka.heartbeat_interval)
            if view.state == "alive" and now - view.last_seen > MISSED_HEARTBEATS * interval:
                view.state = "silent"
        return views

    async def events(self, since_s: float = 0.0) -> AsyncIterator[dict[str, Any]]:
        """Events as they come, without end."""
        topic = self._kafka.event_topic
        if topic is None:
            return
        async with self._reading(topic, self._clock() - since_s) as (consumer, _):
            while True:
                event = _json_object((await consumer.getone()).value)
                if event is not None:
                    yield event

    # --- Commands ------------------------------------------------------------

    def envelope(
        self,
        command: str,
        target: envelopes.Target,
        params: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> dict[str, Any]:
        """A command as it is sent, signed where there is a key."""
        body = dict(params or {})
        sent: dict[str, Any] = {
            "version": envelopes.VERSION,
            "target": target if isinstance(target, str) else list(target),
            "command": command,
            "request_id": request_id or str(uuid.uuid4()),
            "timestamp": envelopes.now_text(self._clock()),
        }
        if "task" in body:
            sent["task"] = body.pop("task")
        if body:
            sent["params"] = body
        return sent if self._signer is None else sign(sent, self._signer)

    def expected(self, target: envelopes.Target, known: Mapping[str, AgentView]) -> frozenset[str]:
        """Who should answer: known agents that are meant, and ids that are named."""
        named = [target] if isinstance(target, str) else list(target)
        ids = {each for each in named if each != "*" and "=" not in each}
        for view in known.values():
            if view.state != "stopped" and envelopes.matches(target, view.agent_id, view.tags):
                ids.add(view.agent_id)
        return frozenset(ids)

    async def send(
        self,
        envelope: Mapping[str, Any],
        expected: frozenset[str],
        timeout_s: float = 10.0,
        progress: Progress | None = None,
    ) -> Outcome:
        """Sends a command and gathers answers until all expected ones are there, or too late.

        Raises:
            BrokersUnreachable: the command could not be handed to a broker, or the
                answers can't be read.
        """
        outcome = Outcome(envelope, expected)
        if self._producer is None:
            raise BrokersUnreachable("not connected")
        topic, answers = self._kafka.command_topic, self._kafka.response_topic
        if topic is None or answers is None:
            raise BrokersUnreachable("the configuration names no command and response topic")
        async with self._reading(answers, None) as (consumer, _):
            try:
                async with asyncio.timeout(2 * REQUEST_TIMEOUT_S):
                    await self._producer.send_and_wait(
                        topic,
                        json.dumps(envelope, ensure_ascii=False).encode(),
                        envelopes.message_key(envelope["target"]),
                    )
            except (KafkaError, TimeoutError) as error:
                raise BrokersUnreachable(f"the command was not taken: {error}") from error
            if progress is not None:
                progress(outcome)
            try:
                async with asyncio.timeout(timeout_s):
                    await self._gather(consumer, outcome, progress)
            except TimeoutError:
                pass
        return outcome

    async def _gather(
        self, consumer: AIOKafkaConsumer, outcome: Outcome, progress: Progress | None
    ) -> None:
        while not outcome.expected or outcome.missing:
            answer = _json_object((await consumer.getone()).value)
            if answer is None or answer.get("request_id") != outcome.envelope["request_id"]:
                continue
            agent_id = _agent_id(answer)
            if agent_id:
                outcome.answers.setdefault(agent_id, answer)
                if progress is not None:
                    progress(outcome)

    @asynccontextmanager
    async def _reading(
        self, topic: str, since: float | None
    ) -> AsyncIterator[tuple[AIOKafkaConsumer, dict[TopicPartition, int]]]:
        """A consumer of all partitions from a time on (None: from now), and their ends."""
        if self._producer is None:
            raise BrokersUnreachable("not connected")
        try:
            numbers = await self._producer.partitions_for(topic)  # makes it, where brokers allow
        except KafkaError as error:
            raise BrokersUnreachable(f"no topic {topic}: {error}") from error
        partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer = AIOKafkaConsumer(
            auto_offset_reset="earliest", enable_auto_commit=False, **self._settings
        )
        bound_unpacking(consumer, _MAX_UNPACKED_OCTETS)
        try:
            await consumer.start()
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            starts = dict(ends)
            if since is not None:
                found = await consumer.offsets_for_times(
                    {partition: max(0, int(since * 1000)) for partition in partitions}
                )
                starts |= {part: first.offset for part, first in found.items() if first}
            for partition, offset in starts.items():
                consumer.seek(partition, offset)
            yield consumer, {part: end for part, end in ends.items() if end > starts[part]}
        except KafkaError as error:
            raise BrokersUnreachable(f"topic {topic} can't be read: {error}") from error
        finally:
            await close(consumer)


async def _until(
    consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]
) -> AsyncIterator[ConsumerRecord]:
    """All messages up to the ends."""
    left = dict(ends)
    while left:
        got = await consumer.getmany(*left, timeout_ms=500, max_records=_MAX_EVENTS_AT_ONCE)
        for partition, messages in got.items():
            for message in messages:
                yield message
            if messages and messages[-1].offset + 1 >= left[partition]:
                del left[partition]
        for partition in list(left):
            # Compaction and aborted transactions leave gaps before the end.
            if await consumer.position(partition) >= left[partition]:
                del left[partition]


def _take_event(views: dict[str, AgentView], message: ConsumerRecord) -> None:
    event = _json_object(message.value)
    agent_id = _agent_id(event or {})
    if event is None or not agent_id:
        return
    kind = event.get("type")
    seen = message.timestamp / 1000
    view = views.setdefault(agent_id, AgentView(agent_id, "alive", seen))
    if seen < view.last_seen:
        return
    view.last_seen = seen
    if kind == "heartbeat":
        view.heartbeat = event
    view.state = "stopped" if kind == "agent.stopped" else "alive"


def _json_object(value: bytes | None) -> dict[str, Any] | None:
    """The JSON object of a message; None for anything else: topics hold what they hold."""
    if value is None or len(value) > _MAX_EVENT_OCTETS:
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _agent_id(message: Mapping[str, Any]) -> str:
    agent_id = message.get("agent_id")
    return agent_id if isinstance(agent_id, str) and len(agent_id) <= _MAX_AGENT_ID else ""


def seen_text(moment: float, now: float) -> str:
    """How long ago something was, for tables."""
    age = max(0, int(now - moment))
    if age < 120:
        return f"{age} s ago"
    return datetime.fromtimestamp(moment).astimezone().isoformat(timespec="seconds")
