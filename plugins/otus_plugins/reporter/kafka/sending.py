"""Keeps a producer alive, and sends the chunks of each partition through it in order."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka_errors

from otus_plugins.reporter.kafka.config import KafkaReporterConfig
from otus_plugins.reporter.kafka.connection import (
    connection_settings,
    diagnose,
    discard,
    make_producer,
)
from otus_plugins.reporter.kafka.outbox import Chunk, Held, Outbox, Place

log = logging.getLogger(__name__)

# What will not get better by sending the same octets again.
PERMANENT = (
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.RecordListTooLargeError,
    kafka_errors.InvalidMessageError,
    kafka_errors.CorruptRecordException,
    kafka_errors.InvalidTimestampError,
    kafka_errors.InvalidTopicError,
)
DISCARD_PATIENCE_S = 1.0
_NOT_YET = "not connected yet"


class Gone(Exception):
    """The producer was given up while it had the chunk."""


class Link:
    """One producer, from connected to given up."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        loop = asyncio.get_running_loop()
        self.producer = producer
        self.given_up: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()

    def give_up(self) -> None:
        """Asks for another producer; what this one has in hand gets a moment to finish."""
        if not self.given_up.done():
            self.given_up.set_result(None)


class Backoff:
    """Growing pauses with jitter."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = max(first_s, longest_s)
        self._next_s = first_s

    def reset(self) -> None:
        """The next pause is the first again."""
        self._next_s = self._first_s

    def pause_s(self) -> float:
        """The length of the next pause."""
        now_s = self._next_s
        self._next_s = min(self._longest_s, self._next_s * 2)
        return now_s * random.uniform(0.5, 1.0)


class ProducerKeeper:
    """Connects in the background, and again whenever a producer is given up."""

    def __init__(self, config: KafkaReporterConfig) -> None:
        self._config = config
        self._link: Link | None = None
        self._changed = asyncio.Event()
        self.last_error = _NOT_YET

    @property
    def connected(self) -> bool:
        """Whether there is a producer to send through."""
        return self._link is not None

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff(self._config.retry_backoff, self._config.retry_backoff_max)
        while True:
            async with self._connection() as link:
                if link is not None:
                    backoff.reset()
                    await link.given_up
            await asyncio.sleep(backoff.pause_s())

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Link | None]:
        producer: AIOKafkaProducer | None = None
        settings: dict[str, Any] = {}
        try:
            # Reads certificates: they may be replaced while we run.
            settings = await asyncio.to_thread(connection_settings, self._config)
            producer = make_producer(self._config, settings)
            async with asyncio.timeout(self._config.request_timeout):
                await producer.start()
        except (OSError, kafka_errors.KafkaError, TimeoutError, ValueError) as error:
            if producer is not None:
                await discard(producer, 0.0)
            why = await diagnose(settings) if isinstance(error, kafka_errors.KafkaError) else ""
            self._say_lost(why or str(error) or type(error).__name__)
            yield None
            return
        except BaseException:
            if producer is not None:
                await discard(producer, 0.0)
            raise
        self._link = link = Link(producer)
        self._changed.set()
        if self.last_error == _NOT_YET:
            self.last_error = ""
        log.info("kafka: connected to %s", ", ".join(self._config.brokers))
        try:
            yield link
        finally:
            self._link = None
            self._changed.clear()
            link.give_up()
            try:
                await discard(producer, DISCARD_PATIENCE_S)
            finally:
                link.closed.set_result(None)

    def _say_lost(self, text: str) -> None:
        if text != self.last_error:
            self.last_error = text
            log.warning("kafka: %s; trying again", text)

    async def link(self) -> Link:
        """A producer that is connected; waits for it."""
        while True:
            link = self._link
            if link is not None and not link.given_up.done():
                return link
            if link is not None:
                self._changed.clear()  # given up, and soon replaced
            await self._changed.wait()


class PartitionSender:
    """Sends chunks of one partition, one at a time, so that their order stays."""

    def __init__(
        self, config: KafkaReporterConfig, keeper: ProducerKeeper, outbox: Outbox, topic: str
    ) -> None:
        self._config = config
        self._keeper = keeper
        self._outbox = outbox
        self._topic = topic
        self._chunks: deque[Chunk] = deque()
        self._wake = asyncio.Event()

    def put(self, chunk: Chunk) -> None:
        """Queues a chunk."""
        chunk.on_drop = self._lost
        self._chunks.append(chunk)
        self._wake.set()

    def _lost(self, _: Held) -> None:
        while self._chunks and self._chunks[0].place is Place.SETTLED:
            self._chunks.popleft()

    async def run(self) -> None:
        """Until cancelled; what it has in hand then counts as failed."""
        backoff = Backoff(self._config.retry_backoff, self._config.retry_backoff_max)
        while True:
            while not self._chunks:
                self._wake.clear()
                await self._wake.wait()
            chunk = self._chunks.popleft()
            self._outbox.take(chunk)
            try:
                again = await self._try(chunk)
            except asyncio.CancelledError:
                self._outbox.settle_failed(chunk, "stopped")
                raise
            if again:
                self._chunks.appendleft(chunk)
                self._outbox.give_back(chunk)
                await asyncio.sleep(backoff.pause_s())
            else:
                backoff.reset()

    async def _try(self, chunk: Chunk) -> bool:
        """Sends once. Returns whether to try again; else the chunk is settled."""
        loop = asyncio.get_running_loop()
        deadline = chunk.born + self._config.delivery_timeout
        attempts = chunk.attempts
        link: Link | None = None
        try:
            async with asyncio.timeout_at(max(deadline, loop.time())):
                link = await self._keeper.link()
                await self._send(chunk, link)
        except Gone:
            return True
        except Exception as error:  # noqa: BLE001 aiokafka raises more than KafkaError
            self._keeper.last_error = str(error) or type(error).__name__
            expired = loop.time() >= deadline
            # A batch that failed used up sequence numbers that the broker has not
            # seen: an idempotent producer is of no more use for this partition. One
            # that has not answered may go on trying.
            is_spent = self._config.is_idempotent or isinstance(error, TimeoutError)
            if link is not None and chunk.attempts > attempts and is_spent:
                link.give_up()
            if isinstance(error, PERMANENT):
                self._outbox.settle_failed(chunk, type(error).__name__)
                return False
            if expired:
                self._expire(chunk)
            return not expired
        self._keeper.last_error = ""
        self._outbox.settle_reported(chunk)
        return False

    def _expire(self, chunk: Chunk) -> None:
        if chunk.attempts:
            self._outbox.settle_failed(chunk, "timeout")
        else:
            self._outbox.settle_dropped(chunk, "deadline")

    async def _send(self, chunk: Chunk, link: Link) -> None:
        producer = link.producer
        partitions = await producer.partitions_for(self._topic)
        if chunk.partition not in partitions:  # the topic was made anew with fewer
            ordered = sorted(partitions)
            chunk.partition = ordered[chunk.partition % len(ordered)]
        future = await producer.send_batch(chunk.builder, self._topic, partition=chunk.partition)
        chunk.attempts += 1
        await asyncio.wait({future, link.closed}, return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            future.add_done_callback(_seen)
            raise Gone
        future.result()


def _seen(future: asyncio.Future[object]) -> None:
    """Takes note of an outcome that nobody waits for any more."""
    if not future.cancelled():
        future.exception()
