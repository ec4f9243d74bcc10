"""The kafka reporter against a real broker, read back with another client library."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer

from frames import sip, udp, write_pcap
from integration.consuming import create_topic, read, read_numbers, write
from integration.records import BASE_TS_NS, batch
from kafka_broker.broker import PASSWORD, USER, Broker
from kafka_broker.fixtures import Address
from otus_plugins.reporter.kafka import KafkaReporter, KafkaReporterConfig
from tasks import Collector, make_task, run_task
from waiting import wait_until_async

pytestmark = pytest.mark.kafka
TopicName = Callable[[str], str]


@asynccontextmanager
async def reporting(**settings: object) -> AsyncIterator[KafkaReporter]:
    reporter = KafkaReporter()
    reporter.init(KafkaReporterConfig.model_validate({"stop_timeout": "120s", **settings}))
    await reporter.start()
    try:
        yield reporter
    finally:
        await reporter.stop()


def assert_balanced(reporter: KafkaReporter, taken: int) -> None:
    stats = reporter.stats()
    accounted = stats.reported + sum(stats.dropped.values()) + sum(stats.failed.values())
    assert accounted + stats.queued == taken


@pytest.mark.parametrize(
    ("value", "compression"),
    [("json", "none"), ("json", "gzip"), ("json", "snappy"), ("protobuf", "lz4"), ("json", "zstd")],
)
async def test_another_client_reads_what_was_reported(
    kafka: Address, topic_name: TopicName, compression: str, value: str
) -> None:
    """Every codec gives keys, values, timestamps and headers back as they went in."""
    topic = topic_name("codec")
    async with reporting(
        brokers=[kafka.bootstrap], topic=topic, compression=compression, value=value
    ) as reporter:
        await reporter.report_batch(batch(0, 300))
        await reporter.flush()
        assert reporter.stats().reported == 300
    messages = read(kafka.bootstrap, topic, 300)
    by_number = {json.loads(m.value())["payload"]["number"]: m for m in messages}
    assert sorted(by_number) == list(range(300))
    message = by_number[123]
    assert message.key() == b"call-23@example.org"
    assert message.timestamp()[1] == BASE_TS_NS // 1_000_000 + 123
    headers = dict(message.headers())
    assert headers["task_id"] == b"task-1"
    assert headers["agent_id"] == b"agent-1"
    assert headers["pipeline_id"] == b"task-1/0"
    assert headers["payload_type"] == b"sip"
    assert headers["sip.method"] == b"INVITE"
    assert headers["sip.cseq"] == b"123"


@pytest.mark.parametrize(
    ("value", "compression"),
    [
        ("json", "none"),
        ("json", "gzip"),
        ("protobuf", "snappy"),
        ("json", "lz4"),
        ("json", "zstd"),
        ("raw", "zstd"),
    ],
)
async def test_a_capture_reaches_another_client(
    kafka: Address, topic_name: TopicName, tmp_path: Path, value: str, compression: str
) -> None:
    """A whole task: what the core encodes arrives as it was parsed, nothing lost or doubled."""
    topic = topic_name("capture")
    packets = [udp(sip(call_id=f"call-{number % 40}", cseq=number)) for number in range(400)]
    config = {
        "brokers": [kafka.bootstrap], "topic": topic, "value": value, "compression": compression,
        "stop_timeout": "120s",
    }  # fmt: skip
    task, collector = make_task(
        write_pcap(tmp_path / "in.pcap", packets),
        collector=Collector(("json", "protobuf", "packet")),
        reporters=["collect", {"type": "kafka", "config": config}],
        workers={"batch_records": 64},
    )
    await run_task(task)
    account = task.deliveries[1].account()
    assert (account.reported, account.imbalance) == (400, 0)
    value_name = "payload" if value == "raw" else value
    wanted = {
        getattr(one, value_name)(i): (one.key(i), one.labels(i), one.packet(i))
        for one in collector.batches
        for i in range(len(one))
    }
    messages = read(kafka.bootstrap, topic, 400)
    assert len(messages) == len(wanted) == 400
    for message in messages:
        key, labels, packet = wanted[message.value()]
        network = {
            "src_ip": packet.src_ip, "src_port": str(packet.src_port), "dst_ip": packet.dst_ip,
            "dst_port": str(packet.dst_port), "protocol": packet.protocol_name,
        } if value == "raw" else {}  # fmt: skip
        headers = {name: octets.decode() for name, octets in message.headers()}
        assert message.key() == key
        assert headers == {
            "task_id": "test", "agent_id": "agent-1", "pipeline_id": "test-0",
            "payload_type": "sip", **network, **labels,
        }  # fmt: skip


async def test_keys_land_where_another_client_puts_them(
    kafka: Address, topic_name: TopicName
) -> None:
    """Partition by key equals confluent's murmur2, and a call's records keep their order."""
    topic, other = topic_name("murmur"), topic_name("murmur")
    for name in (topic, other):
        if kafka.kind != "mock":
            create_topic(kafka.bootstrap, name, partitions=5)
    async with reporting(brokers=[kafka.bootstrap], topic=topic, batch_size=50) as reporter:
        for first in range(0, 1000, 100):
            await reporter.report_batch(batch(first, 100, calls=97))
        await reporter.flush()
    messages = read(kafka.bootstrap, topic, 1000)
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap, "partitioner": "murmur2", "log_level": 0}
    )
    for key in {message.key() for message in messages}:
        producer.produce(other, b"x", key)
    write(producer)
    theirs = {message.key(): message.partition() for message in read(kafka.bootstrap, other, 97)}
    assert {message.key(): message.partition() for message in messages} == theirs
    seen: dict[bytes, int] = {}
    for message in messages:
        number = json.loads(message.value())["payload"]["number"]
        assert number > seen.get(message.key(), -1), "a call's records changed their order"
        seen[message.key()] = number


async def test_topic_prefix_routes_by_payload_type(kafka: Address, topic_name: TopicName) -> None:
    """With a prefix each payload type has its topic."""
    prefix = topic_name("prefix")
    mixed = batch(0, 10)
    mixed._packets = batch(0, 5)._packets + batch(5, 5, payload_type="rtp")._packets
    async with reporting(brokers=[kafka.bootstrap], topic_prefix=prefix) as reporter:
        await reporter.report_batch(mixed)
        await reporter.flush()
    for kind, numbers in (("sip", range(5)), ("rtp", range(5, 10))):
        messages = read(kafka.bootstrap, f"{prefix}-{kind}", 5)
        assert [dict(m.headers())["payload_type"] for m in messages] == [kind.encode()] * 5
        assert sorted(json.loads(m.value())["payload"]["number"] for m in messages) == list(numbers)


async def test_few_records_leave_within_the_flush_interval(
    kafka: Address, topic_name: TopicName
) -> None:
    """A batch that never fills goes out when its oldest record has waited long enough."""
    topic = topic_name("interval")
    async with reporting(
        brokers=[kafka.bootstrap], topic=topic, batch_size=1000, flush_interval="100ms"
    ) as reporter:
        await reporter.report_batch(batch(0, 3))
        await wait_until_async(lambda: reporter.stats().reported == 3)


@pytest.mark.parametrize(
    ("policy", "reported", "dropped"), [("truncate", 3, {}), ("drop", 2, {"too_large": 1})]
)
async def test_a_record_that_is_too_large(
    kafka: Address, topic_name: TopicName, policy: str, reported: int, dropped: dict[str, int]
) -> None:
    """By policy it is cut and flagged, or dropped and counted; its neighbours are whole."""
    topic = topic_name("large")
    large = batch(0, 3)
    values = list(large._json)  # type: ignore[arg-type]
    values[1] = json.dumps({"payload": {"number": 1}, "body": "x" * 5000}).encode()
    large._json = values
    async with reporting(
        brokers=[kafka.bootstrap], topic=topic, max_message_octets=2000, oversize=policy
    ) as reporter:
        await reporter.report_batch(large)
        await reporter.flush()
        stats = reporter.stats()
    assert (stats.reported, dict(stats.dropped)) == (reported, dropped)
    assert stats.notes == ({"truncated": 1} if policy == "truncate" else {})
    messages = read(kafka.bootstrap, topic, reported)
    cut = [m for m in messages if b"oversize" in m.value()]
    assert len(cut) == reported - 2
    for message in cut:
        value = json.loads(message.value())
        assert value["oversize"] == {"octets": len(values[1]), "removed": ["body"]}
        assert value["payload"] == {"number": 1}
        assert dict(message.headers())["otus-oversize"] == str(len(values[1])).encode()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_sasl(broker: Broker, topic_name: TopicName, mechanism: str) -> None:
    """Each mechanism logs in and delivers."""
    sasl = {"mechanism": mechanism, "username": USER, "password": PASSWORD}
    async with reporting(
        brokers=[broker.sasl_bootstrap], topic=topic_name("sasl"), sasl=sasl
    ) as reporter:
        await reporter.report_batch(batch(0, 10))
        await wait_until_async(lambda: reporter.stats().reported == 10)


async def test_a_wrong_password_is_told_and_costs_only_the_records(
    broker: Broker, topic_name: TopicName
) -> None:
    """Nothing is delivered, everything is counted, and the status says why."""
    sasl = {"mechanism": "SCRAM-SHA-512", "username": USER, "password": "wrong"}
    async with reporting(
        brokers=[broker.sasl_bootstrap], topic=topic_name("sasl"), sasl=sasl, stop_timeout=0.2
    ) as reporter:
        await reporter.report_batch(batch(0, 10))
        await wait_until_async(lambda: "uthenticat" in reporter.stats().trouble)
        assert reporter.stats().queued == 10
    assert_balanced(reporter, 10)
    assert reporter.stats().dropped == {"stopped": 10}


async def test_tls_with_client_certificate(broker: Broker, topic_name: TopicName) -> None:
    """The broker accepts the certificate; without one it refuses."""
    certificates = broker.certificates
    tls = {
        "ca_file": str(certificates.ca),
        "cert_file": str(certificates.client_cert),
        "key_file": str(certificates.client_key),
    }
    async with reporting(
        brokers=[broker.tls_bootstrap], topic=topic_name("tls"), tls=tls
    ) as reporter:
        await reporter.report_batch(batch(0, 10))
        await wait_until_async(lambda: reporter.stats().reported == 10)
    async with reporting(
        brokers=[broker.tls_bootstrap],
        topic=topic_name("tls"),
        tls={"ca_file": str(certificates.ca)},
        stop_timeout=0.2,
    ) as reporter:
        await reporter.report_batch(batch(0, 10))
        await wait_until_async(lambda: reporter.last_error != "not connected yet")
    assert reporter.stats().dropped == {"stopped": 10}


@pytest.mark.parametrize("acks", ["0", "1", "all"])
async def test_acknowledgements(broker: Broker, topic_name: TopicName, acks: str) -> None:
    """Each setting delivers."""
    topic = topic_name("acks")
    create_topic(broker.bootstrap, topic, 1)
    # Nobody is told what a partition that is not up yet does to records without acks.
    producer = Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    producer.produce(topic, json.dumps({"payload": {"number": 10}}))
    write(producer)
    async with reporting(brokers=[broker.bootstrap], topic=topic, acks=acks) as reporter:
        await reporter.report_batch(batch(0, 10))
        await wait_until_async(lambda: reporter.stats().reported == 10)
    assert sorted(read_numbers(broker.bootstrap, topic, range(11))) == list(range(11))
