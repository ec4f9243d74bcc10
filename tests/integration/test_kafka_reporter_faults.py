"""The kafka reporter while the brokers misbehave: bounded, balanced, and well again by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from integration.consuming import create_topic, delete_topic, read_numbers
from integration.records import batch
from integration.test_kafka_reporter import assert_balanced, reporting
from kafka_broker.broker import PASSWORD, USER, Broker
from kafka_broker.mock import MockCluster
from kafka_broker.proxy import Proxy
from waiting import wait_until_async

pytestmark = pytest.mark.kafka
TopicName = Callable[[str], str]
FAST = {"retry_backoff": "50ms", "retry_backoff_max": "300ms", "request_timeout": "2s"}


@pytest.fixture
def proxy(broker: Broker) -> Iterator[Proxy]:
    """The way to the broker that a test can cut: quicker than to start a broker anew."""
    with Proxy(broker.proxy_port, broker.proxied_port) as running:
        yield running


@pytest.fixture
def mock() -> Iterator[MockCluster]:
    cluster = MockCluster(3)
    yield cluster
    cluster.close()


async def test_a_broker_that_dies_costs_nothing_that_fits_the_queue(
    broker: Broker, topic_name: TopicName
) -> None:
    """Records taken before, during and after an outage all arrive, by themselves."""
    topic = topic_name("outage")
    async with reporting(
        brokers=[broker.bootstrap], topic=topic, flush_interval="20ms", **FAST
    ) as reporter:
        await reporter.report_batch(batch(0, 100))
        await wait_until_async(lambda: reporter.stats().reported == 100)
        broker.kill()
        for first in range(100, 1000, 100):
            await reporter.report_batch(batch(first, 100))
            await asyncio.sleep(0.05)
        assert reporter.stats().queued == 900
        await asyncio.to_thread(broker.start)
        await reporter.report_batch(batch(1000, 100))
        await wait_until_async(lambda: reporter.stats().reported == 1100)
        assert_balanced(reporter, 1100)
    assert {*read_numbers(broker.bootstrap, topic, range(1100))} == {*range(1100)}


async def test_the_queue_is_bounded_and_drops_its_oldest(
    broker: Broker, proxy: Proxy, topic_name: TopicName
) -> None:
    """With no broker at the start, the newest records survive, and the rest is counted."""
    topic = topic_name("bounded")
    proxy.cut()
    async with reporting(
        brokers=[proxy.address], topic=topic, queue_octets=1 << 20, batch_size=10_000, **FAST
    ) as reporter:
        for first in range(0, 2000, 50):
            await reporter.report_batch(batch(first, 50))
            assert reporter._outbox.octets <= 1 << 20
        await asyncio.sleep(0)
        dropped = reporter.stats().dropped["queue_full"]
        assert 0 < dropped < 2000
        assert_balanced(reporter, 2000)
        proxy.heal()
        await wait_until_async(lambda: reporter.stats().queued == 0)
        assert_balanced(reporter, 2000)
        kept = reporter.stats().reported
        assert kept == 2000 - dropped
    newest = range(dropped, 2000)
    assert {*read_numbers(broker.bootstrap, topic, newest)} == {*newest}


async def test_records_past_their_deadline_are_given_up(
    broker: Broker, proxy: Proxy, topic_name: TopicName
) -> None:
    """During a long outage each record is held for delivery_timeout, then counted."""
    topic = topic_name("deadline")
    create_topic(broker.bootstrap, topic)
    async with reporting(
        brokers=[proxy.address], topic=topic, delivery_timeout="3s", **FAST
    ) as reporter:
        taken = 0

        async def settled(records: int) -> None:
            nonlocal taken
            await reporter.report_batch(batch(taken, records))
            taken += records
            await wait_until_async(lambda: reporter.stats().queued == 0)

        while not reporter.stats().reported:  # a machine that stalls may miss it at first
            await settled(100)
        before = reporter.stats()
        proxy.cut()
        await settled(100)
        stats = reporter.stats()
        assert stats.reported == before.reported
        assert_balanced(reporter, taken)
        assert {*stats.dropped, *stats.failed} <= {"deadline", "timeout"}


@pytest.mark.parametrize("idempotence", [True, False])
async def test_a_broker_that_hangs(
    broker: Broker, topic_name: TopicName, idempotence: bool
) -> None:
    """Connections that stay up but answer nothing are survived like any outage."""
    topic = topic_name("hang")
    async with reporting(
        brokers=[broker.bootstrap],
        topic=topic,
        idempotence=idempotence,
        flush_interval="20ms",
        **{**FAST, "request_timeout": "1s"},
    ) as reporter:
        await reporter.report_batch(batch(0, 100))
        await wait_until_async(lambda: reporter.stats().reported == 100)
        broker.pause()
        try:
            await reporter.report_batch(batch(100, 100))
            await asyncio.sleep(2.5)
            assert reporter.stats().queued == 100
        finally:
            broker.resume()
        await wait_until_async(lambda: reporter.stats().reported == 200)
    assert {*read_numbers(broker.bootstrap, topic, range(200))} == {*range(200)}


async def test_stopping_without_a_broker_keeps_its_deadline(
    proxy: Proxy, topic_name: TopicName
) -> None:
    """stop() returns soon after stop_timeout, and every record is accounted for."""
    async with reporting(
        brokers=[proxy.address], topic=topic_name("stop"), stop_timeout="300ms", **FAST
    ) as reporter:
        await reporter.report_batch(batch(0, 100))
        await wait_until_async(lambda: reporter.stats().reported == 100)
        proxy.cut()
        await reporter.report_batch(batch(100, 100))
        await asyncio.sleep(0.3)
        async with asyncio.timeout(120):
            await reporter.stop()
    assert reporter.stats().queued == 0
    assert_balanced(reporter, 200)


async def test_a_topic_that_is_deleted_and_made_anew(broker: Broker, topic_name: TopicName) -> None:
    """Reporting goes on into the new topic, though it has fewer partitions."""
    topic = topic_name("deleted")
    create_topic(broker.bootstrap, topic, partitions=4)
    async with reporting(
        brokers=[broker.bootstrap], topic=topic, flush_interval="20ms", **FAST
    ) as reporter:
        await reporter.report_batch(batch(0, 100))
        await wait_until_async(lambda: reporter.stats().reported == 100)
        delete_topic(broker.bootstrap, topic)
        await reporter.report_batch(batch(100, 100))
        await asyncio.sleep(0.2)
        await reporter.report_batch(batch(200, 100))
        await wait_until_async(lambda: reporter.stats().queued == 0)
        await reporter.report_batch(batch(300, 100))
        await wait_until_async(lambda: reporter.stats().reported == 400)
        assert_balanced(reporter, 400)
    read_numbers(broker.bootstrap, topic, range(300, 400))


async def test_authorisation_revoked_and_granted_again(
    broker: Broker, topic_name: TopicName
) -> None:
    """A refusal is retried: when the right to write is back, so is the data."""
    topic = topic_name("acl")
    create_topic(broker.bootstrap, topic)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    acl = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, f"User:{USER}", "*")
    deny = AclBinding(*acl, AclOperation.WRITE, AclPermissionType.DENY)
    sasl = {"mechanism": "SCRAM-SHA-256", "username": USER, "password": PASSWORD}
    async with reporting(
        brokers=[broker.sasl_bootstrap], topic=topic, sasl=sasl, flush_interval="20ms", **FAST
    ) as reporter:
        await reporter.report_batch(batch(0, 100))
        await wait_until_async(lambda: reporter.stats().reported == 100)
        for future in admin.create_acls([deny]).values():
            future.result(120)
        await reporter.report_batch(batch(100, 100))
        await wait_until_async(lambda: "uthoriz" in reporter.last_error)
        assert reporter.stats().queued == 100
        everything = AclBindingFilter(*acl, AclOperation.ANY, AclPermissionType.ANY)
        for future in admin.delete_acls([everything]).values():
            future.result(120)
        await wait_until_async(lambda: reporter.stats().reported == 200)


async def test_a_leader_that_moves(mock: MockCluster, topic_name: TopicName) -> None:
    """The partition's new leader gets the records (mock cluster: one real broker can't move)."""
    topic = topic_name("leader")
    mock.create_topic(topic, 1)
    mock.move_leader(topic, 0, 1)
    async with reporting(
        brokers=mock.brokers, topic=topic, flush_interval="20ms", **FAST
    ) as reporter:
        for number, leader in enumerate((2, 3, 1)):
            await reporter.report_batch(batch(number * 100, 100))
            await wait_until_async(lambda n=number: reporter.stats().reported == 100 * (n + 1))
            mock.move_leader(topic, 0, leader)
        await reporter.report_batch(batch(300, 100))
        await wait_until_async(lambda: reporter.stats().reported == 400)
    # An answer that comes too late leaves a batch there twice; its first place counts.
    assert [*read_numbers(mock.bootstrap, topic, range(400))] == list(range(400))


async def test_errors_of_the_batch_itself_are_not_retried(
    mock: MockCluster, topic_name: TopicName
) -> None:
    """A batch that the broker calls too large fails at once; the next one goes through."""
    topic = topic_name("refused")
    mock.create_topic(topic, 1)
    patient = {**FAST, "request_timeout": "60s"}  # the one answer with the error must count
    async with reporting(
        brokers=mock.brokers, topic=topic, flush_interval="20ms", **patient
    ) as reporter:
        mock.fail_produce(10)  # MESSAGE_TOO_LARGE
        await reporter.report_batch(batch(0, 100))
        await wait_until_async(lambda: reporter.stats().queued == 0)
        assert reporter.stats().failed == {"MessageSizeTooLargeError": 100}
        await reporter.report_batch(batch(100, 100))
        await wait_until_async(lambda: reporter.stats().reported == 100)
        assert_balanced(reporter, 200)
