"""Heartbeats and changes of state, to the event topic."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from aiokafka import AIOKafkaProducer

from otus_agent.config.kafka import KafkaConfig
from otus_agent.kafka.client import (
    REQUEST_TIMEOUT_S,
    Backoff,
    close,
    connection_settings,
    wait_for_event,
)
from otus_agent.kafka.envelope import VERSION, now_text
from otus_agent.kafka.host import host_figures

log = logging.getLogger(__name__)

_MAX_QUEUED = 1_000


class EventPublisher:
    """Tells the fleet how this agent is.

    Args:
        kafka: the global section; `event_topic` is set.
        agent_id: this agent.
        snapshot: what a heartbeat tells beside the agent's id and the host's
            figures: tags, version, uptime_s, tasks.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        *,
        agent_id: str,
        snapshot: Callable[[], Mapping[str, Any]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kafka = kafka
        self._agent_id = agent_id
        self._snapshot = snapshot
        self._clock = clock
        self._queue: deque[dict[str, Any]] = deque(maxlen=_MAX_QUEUED)
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._next_heartbeat = 0.0
        self.connected = False
        self.last_error = ""
        self.sent = 0
        self.dropped = 0

    def start(self, *, hello: bool = True) -> None:
        """Begins; the first heartbeat goes out as soon as a broker answers."""
        if hello:
            self.publish("agent.started")
        self._task = asyncio.get_running_loop().create_task(self._run(), name="kafka-events")

    async def stop(self, deadline_s: float = 2.0, *, goodbye: bool = True) -> None:
        """Sends what is queued, says goodbye and ends. Safe twice."""
        if self._task is None:
            return
        if goodbye:
            self.publish("agent.stopped")
        self._stopping.set()
        self._wake.set()
        done, _ = await asyncio.wait({self._task}, timeout=deadline_s)
        if not done:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._task = None

    def publish(self, kind: str, **fields: Any) -> None:
        """Queues an event; never waits. Without a broker the oldest go."""
        if len(self._queue) == _MAX_QUEUED:
            self.dropped += 1
        self._queue.append(self._event(kind, fields))
        self._wake.set()

    def task_state(self, task_id: str, state: str, error: str = "") -> None:
        """A task changed its state."""
        self.publish("task.state", task_id=task_id, state=state, error=error)

    def status(self) -> dict[str, Any]:
        """Whether it is connected, and how many events went out."""
        return {
            "connected": self.connected,
            "last_error": self.last_error,
            "sent": self.sent,
            "queued": len(self._queue),
            "dropped": self.dropped,
        }

    def _event(self, kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "version": VERSION,
            "type": kind,
            "agent_id": self._agent_id,
            "timestamp": now_text(self._clock()),
            **fields,
        }

    def _heartbeat(self) -> dict[str, Any]:
        fields = {
            **self._snapshot(),
            "heartbeat_interval_s": self._kafka.heartbeat_interval,
            "host": host_figures(),
        }
        return self._event("heartbeat", fields)

    async def _run(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            producer: AIOKafkaProducer | None = None
            try:
                client_id = self._kafka.client_id_for(self._agent_id)
                settings = await asyncio.to_thread(connection_settings, self._kafka, client_id)
                producer = AIOKafkaProducer(acks="all", **settings)
                async with asyncio.timeout(REQUEST_TIMEOUT_S):
                    await producer.start()
                self.connected = True
                backoff.reset()
                await self._send_all(producer)
            except Exception as error:  # noqa: BLE001 nothing ends the events but stop()
                text = str(error) or type(error).__name__
                if text != self.last_error:
                    log.warning("fleet events: %s; trying again", text)
                self.last_error = text
            finally:
                self.connected = False
                if producer is not None:
                    await close(producer)
            await wait_for_event(self._stopping, backoff.pause_s())

    async def _send_all(self, producer: AIOKafkaProducer) -> None:
        """Until stopping, or until a broker refuses; what was not sent stays queued."""
        loop = asyncio.get_running_loop()
        while True:
            while self._queue:
                await self._send_first(producer)
            if self._stopping.is_set():
                return
            if loop.time() >= self._next_heartbeat:
                self._next_heartbeat = loop.time() + self._kafka.heartbeat_interval
                await self._send(producer, self._heartbeat())
            self._wake.clear()
            if not self._queue:
                await wait_for_event(self._wake, max(0.0, self._next_heartbeat - loop.time()))

    async def _send_first(self, producer: AIOKafkaProducer) -> None:
        """Sends the oldest that is queued; one that does not get through is the oldest again."""
        event = self._queue.popleft()
        try:
            await self._send(producer, event)
        except BaseException:
            if len(self._queue) < _MAX_QUEUED:
                self._queue.appendleft(event)
            else:
                self.dropped += 1
            raise

    async def _send(self, producer: AIOKafkaProducer, event: Mapping[str, Any]) -> None:
        value = json.dumps(event, ensure_ascii=False, default=str).encode("utf-8", "replace")
        async with asyncio.timeout(2 * REQUEST_TIMEOUT_S):
            await producer.send_and_wait(self._kafka.event_topic, value, self._agent_id.encode())
        self.sent += 1
