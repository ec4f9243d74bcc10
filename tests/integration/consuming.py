"""Reads topics with confluent-kafka: a client that shares no code with the reporter."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from waiting import DEADLINE_S


def create_topic(bootstrap: str, name: str, partitions: int = 3, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    for future in admin.create_topics([NewTopic(name, partitions, 1, config=config)]).values():
        future.result(120)


def write(producer: Producer) -> None:
    """Returns when all that was produced is on its topics."""
    left = producer.flush(DEADLINE_S)
    assert left == 0, f"{left} messages were not taken"


def delete_topic(bootstrap: str, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    for future in admin.delete_topics([name]).values():
        future.result(120)


def read(
    bootstrap: str,
    topic: str,
    until: int | Callable[[list[Message]], bool],
    deadline_s: float = DEADLINE_S,
    **settings: str,
) -> list[Message]:
    """All messages from the beginning, until so many are there; fails past the deadline."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"reader-{uuid.uuid4().hex}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "log_level": 0,
            **settings,
        }
    )
    messages: list[Message] = []
    end = time.monotonic() + deadline_s
    # Assigned, not subscribed: joining a group takes seconds.
    while not (found := consumer.list_topics(topic, timeout=deadline_s).topics[topic].partitions):
        if time.monotonic() > end:
            raise AssertionError(f"no topic {topic}")
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in found])
    try:
        while not (len(messages) >= until if isinstance(until, int) else until(messages)):
            if time.monotonic() > end:
                raise AssertionError(f"{len(messages)} messages on {topic} in {deadline_s} s")
            got = consumer.consume(1000, 0.2)
            messages += [message for message in got if message.error() is None]
    finally:
        consumer.close()
    return messages


def read_numbers(bootstrap: str, topic: str, wanted: range) -> list[int]:
    """The numbers of `records.record` on the topic, read until all that are wanted are there.

    In the order of their first coming, each once: an outage may leave a record there twice,
    since a broker can have taken what it could not answer.
    """

    def numbers(messages: list[Message]) -> list[int]:
        found = (json.loads(message.value())["payload"]["number"] for message in messages)
        return list(dict.fromkeys(found))

    return numbers(read(bootstrap, topic, lambda messages: {*numbers(messages)} >= {*wanted}))
