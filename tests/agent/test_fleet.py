"""The operator's side of the fleet, without Kafka: who is meant, what counts as success."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError
from hypothesis import given, settings
from hypothesis import strategies as st

from otus_agent.cli.fleet import _show_agents, _show_outcome
from otus_agent.config.kafka import KafkaConfig
from otus_agent.kafka import fleet as fleet_module
from otus_agent.kafka.events import EventPublisher
from otus_agent.kafka.fleet import (
    AgentView,
    BrokersUnreachable,
    FleetClient,
    Outcome,
    _json_object,
    _take_event,
)

KAFKA = KafkaConfig.model_validate({"brokers": ["127.0.0.1:1"]})


@dataclass
class Message:
    value: bytes | None
    timestamp: int = 0


def view(agent_id: str, state: str = "alive", **tags: str) -> AgentView:
    return AgentView(agent_id, state, 0.0, {"tags": tags})


KNOWN = {
    one.agent_id: one
    for one in (
        view("a", region="east"),
        view("b", region="east"),
        view("c", state="silent", region="west"),
        view("d", state="stopped", region="east"),
    )
}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("*", {"a", "b", "c"}),
        ("region=east", {"a", "b"}),
        ("region=north", set()),
        ("a", {"a"}),
        ("unknown", {"unknown"}),
        ("d", {"d"}),
        (["a", "region=west"], {"a", "c"}),
        (["a", "unknown"], {"a", "unknown"}),
    ],
)
def test_who_should_answer(target: Any, expected: set[str]) -> None:
    """Known agents that are meant, silent ones too; those that said goodbye only by name."""
    assert FleetClient(KAFKA).expected(target, KNOWN) == expected


def outcome(expected: set[str], **statuses: str) -> Outcome:
    answers = {name: {"status": status} for name, status in statuses.items()}
    return Outcome({}, frozenset(expected), answers)


@pytest.mark.parametrize(
    ("one", "succeeded"),
    [
        (outcome({"a", "b"}, a="ok", b="ok"), True),
        (outcome({"a", "b"}, a="ok"), False),
        (outcome({"a", "b"}, a="ok", b="error"), False),
        (outcome(set()), False),
        (outcome(set(), a="ok"), True),
        (outcome({"a"}, a="ok", b="error"), False),
    ],
)
def test_success_needs_everybody(one: Outcome, succeeded: bool) -> None:
    """Nobody missing, nobody failed, and somebody there."""
    assert one.succeeded is succeeded


def test_envelopes_of_the_client() -> None:
    """The task stands beside the command; ids differ; parameters are left out where none."""
    client = FleetClient(KAFKA, clock=lambda: 1_767_225_600.0)
    first = client.envelope("task.create", ["a", "b"], {"task": {"id": "t"}})
    assert first["task"] == {"id": "t"}
    assert "params" not in first
    assert first["target"] == ["a", "b"]
    assert first["timestamp"] == "2026-01-01T00:00:00.000Z"
    assert first["request_id"] != client.envelope("status", "*")["request_id"]


def test_events_make_a_view_of_an_agent() -> None:
    """The newest event decides on the state, the newest heartbeat on the rest."""
    views: dict[str, AgentView] = {}

    def take(at: int, **event: Any) -> None:
        _take_event(views, Message(json.dumps(event).encode(), at))  # type: ignore[arg-type]

    take(1000, agent_id="a", type="agent.started")
    take(2000, agent_id="a", type="heartbeat", tags={"x": "y"})
    assert (views["a"].state, views["a"].last_seen, views["a"].tags) == ("alive", 2.0, {"x": "y"})
    take(3000, agent_id="a", type="agent.stopped")
    take(2500, agent_id="a", type="heartbeat", tags={})
    assert (views["a"].state, views["a"].tags) == ("stopped", {"x": "y"})
    take(4000, agent_id="a", type="agent.started")
    assert views["a"].state == "alive"
    take(5000, agent_id=7, type="heartbeat")
    take(5000, type="heartbeat")
    assert set(views) == {"a"}


async def test_an_agent_is_as_old_as_it_was_when_reading_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A topic that takes long to read makes nobody silent; heartbeats went on meanwhile."""
    now = 1_000.0

    async def slowly(*_: object) -> AsyncIterator[Message]:
        nonlocal now
        beat = {"agent_id": "a", "type": "heartbeat", "heartbeat_interval_s": 10}
        yield Message(json.dumps(beat).encode(), 999_000)
        now += 600

    @asynccontextmanager
    async def reading(*_: object) -> AsyncIterator[tuple[None, dict[str, int]]]:
        yield None, {}

    monkeypatch.setattr(fleet_module, "_until", slowly)
    client = FleetClient(KAFKA, clock=lambda: now)
    monkeypatch.setattr(client, "_reading", reading)
    assert (await client.agents())["a"].state == "alive"


async def test_a_full_queue_of_events_loses_its_oldest_and_no_other() -> None:
    """One that came while another was on its way cost a third, and nobody counted it."""
    publisher = EventPublisher(KAFKA, agent_id="a", snapshot=dict)
    sent: list[int] = []

    class Producer:
        async def send_and_wait(self, _topic: str, value: bytes, _key: bytes) -> None:
            if len(sent) == 1 and publisher.dropped == 0:
                publisher.publish("x", number=1_001)
                publisher.publish("x", number=1_002)
                raise KafkaConnectionError
            sent.append(json.loads(value)["number"])
            if len(sent) == 1:
                publisher.publish("x", number=1_000)

    for number in range(1_000):
        publisher.publish("x", number=number)
    publisher._stopping.set()
    with pytest.raises(KafkaConnectionError):
        await publisher._send_all(Producer())
    await publisher._send_all(Producer())
    # 0 went out, and 1,000 took its place; while 1 was on its way, 1,002 took that of 2,
    # and when it came back there was none for 1.
    assert sent == [0, *range(3, 1_003)]
    assert (publisher.sent, publisher.dropped) == (1_001, 2)


async def test_a_topic_that_can_not_be_read_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not allowed to read, or a broker that goes meanwhile: no traceback for the operator."""

    class Producer:
        async def partitions_for(self, topic: str) -> set[int]:
            return {0}

    class Consumer:
        def __init__(self, **_: object) -> None:
            self._client = SimpleNamespace(send=None)

        async def start(self) -> None:
            raise TopicAuthorizationFailedError("otus-events")

        async def stop(self) -> None: ...

    monkeypatch.setattr(fleet_module, "AIOKafkaConsumer", Consumer)
    client = FleetClient(KAFKA)
    client._producer = Producer()
    with pytest.raises(BrokersUnreachable, match=r"otus-events can't be read: .*otus-events"):
        await client.agents()


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"[]", b"7", b"[" * 100_000, b"{"])
def test_what_else_stands_in_a_topic_is_passed_over(value: bytes | None) -> None:
    """Other writers' messages are not events, and no fault."""
    assert _json_object(value) is None


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just("\x1b]0;title\x07\n"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


@settings(max_examples=25)
@given(
    st.dictionaries(
        st.sampled_from(["tags", "uptime_s", "heartbeat_interval_s", "tasks", "agent_version"]),
        _ANYTHING,
    ),
    st.dictionaries(st.sampled_from(["status", "error", "result", "duplicate"]), _ANYTHING),
)
def test_no_agent_can_break_the_operators_terminal(
    capsys: pytest.CaptureFixture[str], heartbeat: dict[str, Any], answer: dict[str, Any]
) -> None:
    """Whatever an event or an answer holds is shown, and nothing of it steers the terminal."""
    views: dict[str, AgentView] = {}
    event = {**heartbeat, "agent_id": "\x1b[2Ja", "type": "heartbeat"}
    _take_event(views, Message(json.dumps(event).encode()))  # type: ignore[arg-type]
    _show_agents(list(views.values()))
    given_up = Outcome({"request_id": "r"}, frozenset({"a"}), {"\x1b[2Ja": answer})
    _show_outcome(given_up, "table", lambda row: f"{row['id']} {row['uptime_s'] < 10}")
    assert "\x1b]" not in (shown := capsys.readouterr().out)
    assert "\x1b[2J" not in shown
