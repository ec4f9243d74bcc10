"""The kafka reporter: takes batches over at once, and delivers them in the background."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiokafka import errors as kafka_errors

from otus_plugins.reporter.kafka.config import KafkaReporterConfig
from otus_plugins.reporter.kafka.encode import Encoded, Encoder
from otus_plugins.reporter.kafka.outbox import Chunk, Held, Outbox, Place, Waiting
from otus_plugins.reporter.kafka.packing import PackedBatch, can_pack, pack, unpacked
from otus_plugins.reporter.kafka.sending import PartitionSender, ProducerKeeper
from otus_sdk.host import RecordList
from otus_sdk.protocols import RecordBatch, ReporterStats, ReportResult

log = logging.getLogger(__name__)

# What a record is charged with where the batch does not tell its size.
_GUESSED_RECORD_OCTETS = 2_048
# So much at most is encoded in one go, if it is more than one batch: bounds what
# one go holds, and how long a stop has to wait for it.
_MAX_GATHERED_OCTETS = 8 << 20


class KafkaReporter:
    """See README.md. Everything but `stats()` belongs to one event loop."""

    name = "kafka"

    def __init__(self) -> None:
        self.wants: frozenset[str] = frozenset()
        self._config: KafkaReporterConfig | None = None
        self._outbox = Outbox(0)
        self._topics: dict[str, TopicLane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeper: ProducerKeeper | None = None
        self._encoder: Encoder | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._stopped = False
        self._flush_cut_off = False
        self._told: set[str] = set()

    def init(self, config: KafkaReporterConfig) -> None:
        """Keeps the configuration and settles what the core has to encode."""
        self._config = config
        self.wants = frozenset() if config.value == "raw" else frozenset({config.value})
        self._outbox = Outbox(config.queue_octets)
        self._encoder = Encoder(config)

    async def start(self) -> None:
        """Begins to connect; does not wait for it."""
        config = self._settings
        self._executor = ThreadPoolExecutor(1, "otus-kafka-encode")
        self._keeper = ProducerKeeper(config)
        self.spawn(self._keeper.run())

    async def report_batch(self, batch: RecordBatch) -> ReportResult:
        """Takes the batch over."""
        if self._stopped:
            self._outbox.refuse(len(batch), "stopped")
            return ReportResult(0, {"stopped": len(batch)})
        now = asyncio.get_running_loop().time()
        octets = _octets_of(batch)
        for topic, indices in self._by_topic(batch):
            number = len(batch) if indices is None else len(indices)
            share = octets if indices is None else octets * number // max(len(batch), 1)
            lane = self._lane(topic)
            lane.put(
                Waiting(topic, number, share, now, batch=batch, indices=indices, on_drop=lane.lost)
            )
        return ReportResult(0, {}, pending=len(batch))

    async def flush(self) -> None:
        """Returns when all that was taken over is reported, dropped or failed."""
        for lane in self._topics.values():
            lane.hurry()
        try:
            await self._outbox.emptied()
        except asyncio.CancelledError:
            self._flush_cut_off = True
            raise

    async def stop(self) -> None:
        """Flushes for at most `stop_timeout`; what is left counts as dropped or failed.

        A flush that was cut off, as by a task's deadline, is not begun again.
        """
        if self._stopped:
            return
        self._stopped = True
        try:
            if self._keeper is not None and not self._flush_cut_off:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.stop_timeout):
                        await self.flush()
        finally:
            await self._release()

    async def _release(self) -> None:
        """Ends all that runs here, and settles what is held; also where it is cut off itself."""
        for task in self._tasks:
            task.cancel()
        try:
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            self._outbox.drop_all("stopped")
            if self._executor is not None:
                self._executor.shutdown(wait=False, cancel_futures=True)

    def stats(self) -> ReporterStats:
        """The account since the start. From any thread."""
        truncated = self._encoder.truncated if self._encoder is not None else 0
        stats = self._outbox.stats()
        return dataclasses.replace(
            stats,
            notes={"truncated": truncated} if truncated else {},
            trouble=self.last_error if stats.queued or not self.connected else "",
            held_octets=self._outbox.octets,
        )

    def encode(self, items: list[Waiting], num_partitions: int) -> asyncio.Future[Encoded]:
        """Encodes on the reporter's own thread."""
        if self._encoder is None:
            raise RuntimeError("init() comes first")
        encode, parts = self._encoder.encode, [(item.batch, item.indices) for item in items]
        return asyncio.get_running_loop().run_in_executor(
            self._executor, lambda: encode(unpacked(parts), num_partitions)
        )

    def tell_once(self, error: Exception) -> None:
        """Logs what kept a batch from being encoded, the first of its kind."""
        kind = type(error).__name__
        if kind not in self._told:
            self._told.add(kind)
            text = "kafka: a batch could not be encoded; further ones of this kind are only counted"
            log.error(text, exc_info=error)

    def pack(self, item: Waiting) -> asyncio.Future[PackedBatch]:
        """Packs on the reporter's own thread."""
        return asyncio.get_running_loop().run_in_executor(self._executor, pack, item.batch)

    @property
    def connected(self) -> bool:
        """Whether a broker answers."""
        return self._keeper is not None and self._keeper.connected

    @property
    def last_error(self) -> str:
        """What went wrong last, for status displays."""
        return "" if self._keeper is None else self._keeper.last_error

    @property
    def _settings(self) -> KafkaReporterConfig:
        if self._config is None:
            raise RuntimeError("init() comes first")
        return self._config

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine of this reporter until `stop`."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("kafka: a worker ended: %r", error, exc_info=error)

    def _by_topic(self, batch: RecordBatch) -> list[tuple[str, list[int] | None]]:
        config = self._settings
        if config.topic is not None:
            return [(config.topic, None)]
        by_kind: dict[str, list[int]] = {}
        for index in range(len(batch)):
            by_kind.setdefault(batch.payload_type(index), []).append(index)
        if len(by_kind) == 1:
            return [(config.topic_for(next(iter(by_kind))), None)]
        by_topic: dict[str, list[int]] = {}
        for kind, indices in by_kind.items():
            by_topic.setdefault(config.topic_for(kind), []).extend(indices)
        return [(topic, sorted(indices)) for topic, indices in by_topic.items()]

    def _lane(self, topic: str) -> TopicLane:
        lane = self._topics.get(topic)
        if lane is None:
            if self._keeper is None:
                raise RuntimeError("start() comes first")
            lane = TopicLane(self, topic, self._settings, self._keeper, self._outbox)
            self._topics[topic] = lane
            self.spawn(lane.run())
            self.spawn(lane.pack_waiting())
        return lane


class TopicLane:
    """Gathers what goes to one topic, has it encoded, and spreads it over the partitions."""

    def __init__(
        self,
        reporter: KafkaReporter,
        topic: str,
        config: KafkaReporterConfig,
        keeper: ProducerKeeper,
        outbox: Outbox,
    ) -> None:
        self._reporter = reporter
        self._topic = topic
        self._config = config
        self._keeper = keeper
        self._outbox = outbox
        self._waiting: deque[Waiting] = deque()
        self._loose: deque[Waiting] = deque()  # those of them that are not packed
        self._has_loose = asyncio.Event()
        self._num_waiting = 0
        self._num_partitions = 0
        self._wake = asyncio.Event()
        self._hurried = False
        self._senders: dict[int, PartitionSender] = {}

    def put(self, item: Waiting) -> None:
        """Takes an item."""
        self._waiting.append(item)
        self._num_waiting += item.num_records
        if not self._num_partitions:
            self._loose.append(item)
            self._has_loose.set()
        self._outbox.admit(item)
        if self._num_waiting >= self._config.batch_size or len(self._waiting) == 1:
            self._wake.set()

    def lost(self, item: Held) -> None:
        """The outbox dropped an item that waited here: what it holds is let go."""
        self._num_waiting -= item.num_records
        if isinstance(item, Waiting):
            item.batch = RecordList(())
        self._forget_settled()

    def _forget_settled(self) -> None:
        for queue in (self._waiting, self._loose):
            while queue and queue[0].place is Place.SETTLED:
                queue.popleft()

    def hurry(self) -> None:
        """Does not wait for more until nothing waits."""
        self._hurried = True
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._gather()
            num_partitions = await self._partitions()
            items = self._take()
            if not items:
                continue
            try:
                encoded = await self._reporter.encode(items, num_partitions)
            except BaseException as error:
                reason = "stopped" if isinstance(error, asyncio.CancelledError) else "encode"
                for item in items:
                    item.on_drop = None
                    self._outbox.settle_dropped(item, reason)
                if not isinstance(error, Exception):
                    raise
                self._reporter.tell_once(error)
                continue
            self._spread(items, encoded)

    def _spread(self, items: list[Waiting], encoded: Encoded) -> None:
        batches, lost = encoded
        born = items[0].born
        chunks = [
            Chunk(
                self._topic,
                builder.record_count(),
                builder.size(),
                born,
                partition=builder.partition,
                builder=builder,
            )
            for builder in batches
        ]
        self._outbox.replace(items, chunks, lost)
        for chunk in chunks:
            if chunk.place is not Place.SETTLED:
                self._sender(chunk.partition).put(chunk)

    async def pack_waiting(self) -> None:
        """Until it is known into how many partitions records go."""
        while not self._num_partitions:
            if not self._loose:
                self._has_loose.clear()
                await self._has_loose.wait()
                continue
            item = self._loose.popleft()
            if item.place is not Place.QUEUED or not can_pack(item.batch):
                continue
            packed = await self._reporter.pack(item)
            if item.place is Place.QUEUED:
                self._outbox.pack(item, packed)
        self._loose.clear()

    async def _gather(self) -> None:
        """Returns when `batch_size` records wait, or the oldest has waited long enough."""
        loop = asyncio.get_running_loop()
        enough_at: float | None = None
        while True:
            if not self._waiting:
                self._hurried = False
                self._wake.clear()
                await self._wake.wait()
                continue
            now = loop.time()
            until = self._waiting[0].born + self._config.flush_interval
            if self._num_waiting >= self._config.batch_size:
                enough_at = now if enough_at is None else enough_at
                until = min(until, enough_at + self._config.linger)
            if self._hurried or now >= until:
                return
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._wake.wait()

    async def _partitions(self) -> int:
        """How many partitions the topic has; waits for the first answer, then remembers."""
        while True:
            if self._num_partitions and not self._keeper.connected:
                return self._num_partitions
            try:
                async with asyncio.timeout(1.0):
                    link = await self._keeper.link()
                    found = await link.producer.partitions_for(self._topic)
                if found:
                    self._num_partitions = len(found)
                    return self._num_partitions
            except (TimeoutError, kafka_errors.KafkaError) as error:
                if not isinstance(error, TimeoutError):
                    self._keeper.last_error = str(error) or type(error).__name__
                if self._num_partitions:
                    return self._num_partitions
                self._expire()
                await asyncio.sleep(self._config.retry_backoff)

    def _expire(self) -> None:
        oldest = asyncio.get_running_loop().time() - self._config.delivery_timeout
        while self._waiting and self._waiting[0].born < oldest:
            self._outbox.settle_dropped(self._waiting[0], "deadline")

    def _take(self) -> list[Waiting]:
        items: list[Waiting] = []
        octets = 0
        while self._waiting and (
            not items or octets + self._waiting[0].loose_octets <= _MAX_GATHERED_OCTETS
        ):
            item = self._waiting.popleft()
            if item.place is Place.SETTLED:
                continue
            octets += item.loose_octets
            self._outbox.take(item)
            self._num_waiting -= item.num_records
            items.append(item)
        self._forget_settled()
        return items

    def _sender(self, partition: int) -> PartitionSender:
        sender = self._senders.get(partition)
        if sender is None:
            sender = PartitionSender(self._config, self._keeper, self._outbox, self._topic)
            self._senders[partition] = sender
            self._reporter.spawn(sender.run())
        return sender


def _octets_of(batch: RecordBatch) -> int:
    """The memory that a batch holds; a guess where it does not tell."""
    held = getattr(batch, "held_octets", None)
    return held if isinstance(held, int) else len(batch) * _GUESSED_RECORD_OCTETS
