"""The command topic of a real broker: what a rebalance does, and what it keeps out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message, Producer

from integration.consuming import create_topic, read, write
from kafka_broker.broker import Broker
from otus_agent.config.kafka import KafkaConfig
from otus_agent.kafka.commands import CommandDoor
from otus_agent.kafka.fleet import FleetClient
from otus_agent.kafka.journal import Journal
from waiting import wait_until_async

pytestmark = pytest.mark.kafka
PARTITIONS = 4


class Member:
    """One agent's door, and what it ran; commands with `hold` wait until they are let go."""

    def __init__(self, kafka: KafkaConfig, number: int, folder: Path) -> None:
        self.ran: list[str] = []
        self.let_go = asyncio.Event()
        self.door = CommandDoor(
            kafka,
            agent_id=f"member-{number}",
            tags=dict,
            dispatch=self._dispatch,
            journal=Journal(folder / f"journal-{number}", 1000),
        )

    async def _dispatch(self, name: str, params: Mapping[str, Any], key_id: str) -> Any:
        self.ran.append(params["id"])
        if params["id"].startswith("hold"):
            await self.let_go.wait()

    @property
    def partitions(self) -> int:
        consumer = self.door._consumer
        return len(consumer.assignment()) if consumer is not None else 0


@asynccontextmanager
async def member(kafka: KafkaConfig, number: int, folder: Path) -> AsyncIterator[Member]:
    made = Member(kafka, number, folder)
    made.door.start()
    try:
        yield made
    finally:
        made.let_go.set()
        await made.door.stop(30)


async def test_a_rebalance_neither_doubles_nor_loses_a_command(
    broker: Broker, topic_name: Callable[[str], str], tmp_path: Path
) -> None:
    """Two agents share a work queue; one joins while the other runs a command."""
    commands, answers = topic_name("commands"), topic_name("answers")
    create_topic(broker.bootstrap, commands, PARTITIONS)
    create_topic(broker.bootstrap, answers, 1)
    kafka = KafkaConfig(
        brokers=[broker.bootstrap], command_topic=commands, response_topic=answers,
        command_group=topic_name("group"), event_topic=None,
    )  # fmt: skip
    producer = Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    client = FleetClient(kafka)

    def produce(stem: str, count: int) -> list[str]:
        names = [f"{stem}-{number}" for number in range(count)]
        for number, name in enumerate(names):
            envelope = client.envelope("task.delete", "*", {"id": name}, request_id=name)
            producer.produce(commands, json.dumps(envelope), partition=number % PARTITIONS)
        write(producer)
        return names

    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(member(kafka, 1, tmp_path))
        await wait_until_async(lambda: first.partitions == PARTITIONS)
        # A command of more than ten seconds was run by both: the brokers did not wait for it.
        consumer = first.door._consumer
        assert consumer is not None
        assert consumer._rebalance_timeout_ms >= 300_000
        names = produce("alone", 8)
        await wait_until_async(lambda: len(first.ran) == 8)
        names += produce("hold", 1)
        await wait_until_async(lambda: "hold-0" in first.ran)

        revoked = asyncio.Event()
        give_up_partitions = first.door.give_up_partitions

        async def noticed() -> None:
            revoked.set()
            await give_up_partitions()

        first.door.give_up_partitions = noticed  # type: ignore[method-assign]
        second = await stack.enter_async_context(member(kafka, 2, tmp_path))
        async with asyncio.timeout(120):
            await revoked.wait()
        names += produce("meanwhile", 8)
        assert second.partitions == 0, "partitions went over under a running command"
        first.let_go.set()
        await wait_until_async(lambda: second.partitions == PARTITIONS // 2)
        names += produce("together", 8)
        await wait_until_async(lambda: len(first.ran) + len(second.ran) >= len(names))
        await wait_until_async(lambda: first.partitions == PARTITIONS // 2)
    assert sorted(first.ran + second.ran) == sorted(names)
    assert len(second.ran) >= 4

    def all_answered(messages: list[Message]) -> bool:
        return {json.loads(one.value())["request_id"] for one in messages} == {*names}

    told = read(broker.bootstrap, answers, all_answered)
    assert not any(json.loads(one.value()).get("duplicate") for one in told)


@pytest.mark.parametrize("compression_type", ["producer", "uncompressed"])
def test_a_topic_without_compression_keeps_bombs_out(
    broker: Broker, topic_name: Callable[[str], str], compression_type: str
) -> None:
    """docs/fleet.md: the broker then measures what agents would have to hold."""
    topic = topic_name("bomb")
    create_topic(broker.bootstrap, topic, 1, **{"compression.type": compression_type})
    errors: list[KafkaError | None] = []
    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap, "log_level": 0, "compression.type": "zstd",
            "message.max.bytes": 100_000_000,
        }
    )  # fmt: skip
    producer.produce(topic, bytes(50_000_000), on_delivery=lambda error, _: errors.append(error))
    write(producer)
    (error,) = errors
    if compression_type == "producer":
        assert error is None, "the attack does not even work: this test shows nothing"
    else:
        assert error is not None
        assert error.code() == KafkaError.MSG_SIZE_TOO_LARGE
