"""The Kafka door: takes commands from the fleet's topic, runs them once, answers.

Order of things for one message, so that nothing is run twice and nothing is lost:
judge it, write down that it begins, run it, write down how it ended, send the
answer and have it acknowledged, commit the offset. Wherever that is cut off, the
message comes again and goes on from what was written down.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import (
    AIOKafkaConsumer,
    AIOKafkaProducer,
    ConsumerRebalanceListener,
    ConsumerRecord,
    TopicPartition,
)
from aiokafka.errors import KafkaError

from otus_agent.config.kafka import KafkaConfig
from otus_agent.kafka import envelope as envelopes
from otus_agent.kafka.client import (
    REQUEST_TIMEOUT_S,
    Backoff,
    close,
    connection_settings,
    wait_for_event,
)
from otus_agent.kafka.envelope import Envelope
from otus_agent.kafka.errors import (
    CommandInterrupted,
    CommandStale,
    EnvelopeInvalid,
    RequestIdReused,
)
from otus_agent.kafka.journal import Journal
from otus_agent.kafka.policy import RemotePolicy
from otus_agent.kafka.signing import Verifier, digest
from otus_agent.kafka.unpacking import bound_unpacking
from otus_sdk.errors import OtusError

log = logging.getLogger(__name__)

Dispatch = Callable[[str, Mapping[str, Any], str], Awaitable[Any]]
"""Runs a command: name, parameters, and who sent it. Raises OtusError."""

_POLL_S = 0.2
# How long brokers let the partitions of a command in hand stay where they are, once another
# member joins its group. The session's ten seconds, aiokafka's default, are short for one that
# flushes reporters; who has died is out of the group by its session all the same.
REBALANCE_TIMEOUT_S = 300.0
# What messages of one fetch may come to, so many times the largest command.
_UNPACKED_COMMANDS = 4


class CommandDoor:
    """One agent's consumer of commands.

    Args:
        kafka: the global section; `command_topic` and `response_topic` are set.
        agent_id: this agent.
        tags: its tags, asked anew for each command.
        dispatch: runs a command that passed.
        journal: where run commands are remembered; a door and its successor may
            share it.
        clock: seconds since 1970.

    Raises:
        ConfigurationInvalid: a trusted key can't be read.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        *,
        agent_id: str,
        tags: Callable[[], Mapping[str, str]],
        dispatch: Dispatch,
        journal: Journal,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kafka = kafka
        self._agent_id = agent_id
        self._tags = tags
        self._dispatch = dispatch
        self._clock = clock
        self._verifier = Verifier(kafka.signing)
        self._policy = RemotePolicy(kafka)
        self._journal = journal
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        # Held while a command runs: a partition is not given up under it.
        self._busy = asyncio.Lock()
        self._giving_up = False
        self._next: dict[TopicPartition, int] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._producer: AIOKafkaProducer | None = None
        self.connected = False
        self.last_error = ""
        self.counts: Counter[str] = Counter()

    # --- Life ----------------------------------------------------------------

    def start(self) -> None:
        """Begins, and goes on through every outage."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="kafka-commands")

    async def stop(self, deadline_s: float = 5.0) -> None:
        """Finishes the command in hand, answers it, and ends. Safe twice."""
        self._stopping.set()
        if self._task is not None:
            done, _ = await asyncio.wait({self._task}, timeout=deadline_s)
            if not done:
                self._task.cancel()
                await asyncio.wait({self._task})
            self._task = None

    def status(self) -> dict[str, Any]:
        """Whether it is connected, and what became of the messages so far."""
        return {
            "connected": self.connected,
            "last_error": self.last_error,
            "topic": self._kafka.command_topic,
            "group": self._kafka.group_for(self._agent_id),
            "remembered_requests": len(self._journal),
            "journal_errors": self._journal.write_errors,
            "counts": dict(self.counts),
        }

    async def _run(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                async with self._session():
                    backoff.reset()
                    await self._consume()
            except Exception as error:  # noqa: BLE001 nothing ends the door but stop()
                text = str(error) or type(error).__name__
                if text != self.last_error:
                    log.warning("fleet commands: %s; trying again", text)
                self.last_error = text
            await wait_for_event(self._stopping, backoff.pause_s())

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[None]:
        client_id = self._kafka.client_id_for(self._agent_id)
        settings = await asyncio.to_thread(connection_settings, self._kafka, client_id)
        consumer = AIOKafkaConsumer(
            group_id=self._kafka.group_for(self._agent_id),
            # A restarted agent takes its former self's place at once.
            group_instance_id=self._agent_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            metadata_max_age_ms=30_000,
            rebalance_timeout_ms=int(REBALANCE_TIMEOUT_S * 1000),
            max_partition_fetch_bytes=max(1 << 20, self._kafka.max_command_octets + 4096),
            **settings,
        )
        unpacked_octets = _UNPACKED_COMMANDS * max(1 << 20, self._kafka.max_command_octets)
        bound_unpacking(consumer, unpacked_octets, self._note_skipped)
        producer = AIOKafkaProducer(acks="all", **settings)
        try:
            async with asyncio.timeout(3 * REQUEST_TIMEOUT_S):
                await producer.start()
                self._consumer, self._producer = consumer, producer
                consumer.subscribe([self._kafka.command_topic], listener=_Rebalance(self))
                await consumer.start()
            self.connected = True
            log.info("fleet commands: listening on %s", self._kafka.command_topic)
            yield
        finally:
            self.connected = self._giving_up = False
            self._consumer = self._producer = None
            self._next.clear()
            await close(consumer)
            await close(producer)

    async def _consume(self) -> None:
        while not self._stopping.is_set():
            assert self._consumer is not None  # noqa: S101 inside a session
            got = await self._consumer.getmany(timeout_ms=int(_POLL_S * 1000), max_records=1)
            for partition, messages in got.items():
                for message in messages:
                    async with self._busy:
                        await self._take(partition, message)

    # --- Partitions ----------------------------------------------------------

    async def give_up_partitions(self) -> None:
        """Returns when no command runs; none begins before `take_partitions`."""
        self._giving_up = True
        async with self._busy:
            self._next.clear()

    def take_partitions(self) -> None:
        """Partitions are ours, until `give_up_partitions`."""
        self._giving_up = False

    async def _next_offset(self, consumer: AIOKafkaConsumer, partition: TopicPartition) -> int:
        """The first offset that is still to be judged; without a commit, what the TTL lets pass."""
        known = self._next.get(partition)
        if known is None:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                known = await consumer.committed(partition)
                if known is None:
                    known = await self._offset_by_age(consumer, partition)
            self._next[partition] = known
        return known

    async def _offset_by_age(self, consumer: AIOKafkaConsumer, partition: TopicPartition) -> int:
        since_s = self._clock() - self._kafka.command_ttl - self._kafka.clock_skew
        # The end is asked for first: what comes in between is then not skipped.
        end: int = (await consumer.end_offsets([partition]))[partition]
        found = await consumer.offsets_for_times({partition: int(since_s * 1000)})
        first = found.get(partition)
        return end if first is None else int(first.offset)

    async def _commit(self, partition: TopicPartition, offset: int) -> None:
        """Commits one explicit offset. One that fails is made good by the next, or the journal."""
        if self._consumer is None:
            return
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await self._consumer.commit({partition: offset})
        except (KafkaError, TimeoutError) as error:
            self.counts["commit_errors"] += 1
            log.debug("fleet commands: offset not committed: %s", error)

    # --- Messages ------------------------------------------------------------

    async def _take(self, partition: TopicPartition, message: ConsumerRecord) -> None:
        consumer = self._consumer
        if consumer is None or partition not in consumer.assignment():
            return  # another member of the group has it now
        if self._giving_up:
            consumer.seek(partition, message.offset)  # whoever gets the partition gets it anew
            return
        first = await self._next_offset(consumer, partition)
        if message.offset < first:
            consumer.seek(partition, first)
            return
        self.counts["received"] += 1
        answer = await self.handle(message.value)
        if answer is not None and not await self._answer(answer):
            return  # stopping without a broker: not committed, so it comes again
        self._next[partition] = message.offset + 1
        await self._commit(partition, message.offset + 1)

    def _note_skipped(self, number: int) -> None:
        self.counts["poison"] += number

    async def handle(self, value: bytes | None) -> dict[str, Any] | None:
        """Judges one message and runs its command where it passes.

        Returns:
            The answer; None where there is nothing to answer: poison that names
            no request, and commands for others.
        """
        if value is not None and len(value) > self._kafka.max_command_octets:
            self.counts["poison"] += 1
            return None
        try:
            raw = envelopes.decode(value)
        except EnvelopeInvalid as error:
            self.counts["poison"] += 1
            log.warning("fleet commands: a message was skipped: %s", error)
            return None
        try:
            envelope = envelopes.parse(raw)
        except EnvelopeInvalid as error:
            self.counts["poison"] += 1
            return self._answer_to_poison(raw, error)
        if not envelopes.matches(envelope.target, self._agent_id, self._tags()):
            self.counts["for_others"] += 1
            return None
        return await self._judge_and_run(envelope)

    def _answer_to_poison(
        self, raw: Mapping[str, Any], error: EnvelopeInvalid
    ) -> dict[str, Any] | None:
        """Says what was wrong, where the message says whom to tell it; else None."""
        target, request_id = raw.get("target"), raw.get("request_id")
        if not isinstance(request_id, str) or not 0 < len(request_id) <= 128:
            return None
        if not isinstance(target, str) or not envelopes.matches(
            target, self._agent_id, self._tags()
        ):
            return None
        return self._response(request_id, str(raw.get("command", ""))[:64], error=error)

    async def _judge_and_run(self, envelope: Envelope) -> dict[str, Any]:
        try:
            key_id = self._verifier.verify(envelope.raw)
            mark = digest(envelope.raw)
            if self._journal.find(envelope.request_id) is not None:
                return await self._repeated(envelope, mark)
            self._check_age(envelope)
            self._policy.check(envelope.command, envelope.params)
        except OtusError as error:
            self.counts[f"refused:{error.code}"] += 1
            log.warning("fleet command %s refused: %s", envelope.command, error)
            return self._response(envelope.request_id, envelope.command, error=error)
        except ValueError as error:
            self.counts["poison"] += 1
            poison = EnvelopeInvalid(str(error))
            return self._response(envelope.request_id, envelope.command, error=poison)
        except Exception as error:
            # A fault in judging must not bring the same message back for ever.
            log.exception("fleet command %s could not be judged", envelope.command)
            self.counts["poison"] += 1
            fault = OtusError(f"{type(error).__name__}: {error}")
            return self._response(envelope.request_id, envelope.command, error=fault)
        with self._journal.in_hand(envelope.request_id):
            await asyncio.to_thread(
                self._journal.begin, envelope.request_id, mark, envelope.timestamp_ms
            )
            answer = await self._run_command(envelope, key_id)
            await asyncio.to_thread(self._journal.finish, envelope.request_id, answer)
        return answer

    async def _run_command(self, envelope: Envelope, key_id: str) -> dict[str, Any]:
        try:
            result = await self._dispatch(envelope.command, envelope.params, key_id)
        except OtusError as error:
            self.counts["failed"] += 1
            return self._response(envelope.request_id, envelope.command, error=error)
        except Exception as error:
            # A handler's own fault must not stop the commands that follow.
            log.exception("fleet command %s failed", envelope.command)
            self.counts["failed"] += 1
            fault = OtusError(f"{type(error).__name__}: {error}")
            return self._response(envelope.request_id, envelope.command, error=fault)
        self.counts["run"] += 1
        return self._response(envelope.request_id, envelope.command, result=result)

    async def _repeated(self, envelope: Envelope, mark: str) -> dict[str, Any]:
        """The answer to a request_id that was there before."""
        self.counts["duplicates"] += 1
        # A reload hands over to a new door, which may see the very command again
        # that the former one is still running.
        await self._journal.ended(envelope.request_id)
        known = self._journal.find(envelope.request_id)
        if known is None or known.digest != mark:
            error: OtusError = RequestIdReused("another command has had this request_id")
            return self._response(envelope.request_id, envelope.command, error=error)
        if known.answer is not None:
            return {**known.answer, "duplicate": True}
        if known.done:
            return self._response(envelope.request_id, envelope.command, result=None, again=True)
        error = CommandInterrupted(
            "the agent ended while it ran this command; ask for task.status before sending it anew"
        )
        return self._response(envelope.request_id, envelope.command, error=error, again=True)

    def _check_age(self, envelope: Envelope) -> None:
        now_ms = int(self._clock() * 1000)
        age_s = (now_ms - envelope.timestamp_ms) / 1000
        if age_s > self._kafka.command_ttl:
            raise CommandStale(
                f"sent {age_s:.0f} s ago; this agent takes commands for {self._kafka.command_ttl:g} s"
            )
        if age_s < -self._kafka.clock_skew:
            raise CommandStale(f"dated {-age_s:.0f} s in the future")
        if envelope.timestamp_ms < self._journal.floor_ms:
            raise CommandStale("older than the commands this agent remembers")

    # --- Answers -------------------------------------------------------------

    def _response(
        self,
        request_id: str,
        command: str,
        *,
        result: Any = None,
        error: OtusError | None = None,
        again: bool = False,
    ) -> dict[str, Any]:
        response: dict[str, Any] = {
            "version": envelopes.VERSION,
            "request_id": request_id,
            "agent_id": self._agent_id,
            "command": command,
            "status": "ok" if error is None else "error",
            "timestamp": envelopes.now_text(self._clock()),
        }
        if error is None:
            response["result"] = result
        else:
            response["error"] = {**error.to_dict(), "rpc_code": error.rpc_code}
        if again:
            response["duplicate"] = True
        return response

    async def _answer(self, answer: Mapping[str, Any]) -> bool:
        """Sends until it is acknowledged. Returns False where stopping came first."""
        value = _encoded(answer, self._kafka.max_command_octets)
        key = str(answer["request_id"]).encode()
        backoff = Backoff()
        while True:
            try:
                if self._producer is None:
                    return False
                async with asyncio.timeout(2 * REQUEST_TIMEOUT_S):
                    await self._producer.send_and_wait(self._kafka.response_topic, value, key)
                return True
            except (KafkaError, TimeoutError) as error:
                self.counts["answer_errors"] += 1
                self.last_error = str(error) or type(error).__name__
            if self._stopping.is_set() or await wait_for_event(self._stopping, backoff.pause_s()):
                return False


class _Rebalance(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is not typed
    """Ties the coming and going of partitions to the door."""

    def __init__(self, door: CommandDoor) -> None:
        self._door = door

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        if revoked:
            await self._door.give_up_partitions()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._door.take_partitions()


def _encoded(answer: Mapping[str, Any], limit: int) -> bytes:
    """The answer as JSON; one that no broker would take loses its result and says so."""
    value = json.dumps(answer, ensure_ascii=False, default=str).encode("utf-8", "replace")
    if len(value) <= limit:
        return value
    cut = {**answer, "result": None, "truncated": {"octets": len(value)}}
    return json.dumps(cut, ensure_ascii=False, default=str).encode("utf-8", "replace")
