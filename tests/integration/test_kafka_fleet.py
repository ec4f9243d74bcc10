"""Three agent processes, one broker: the fleet steered as an operator would."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message, Producer

from integration.consuming import create_topic, read, write
from kafka_broker.broker import Broker
from kafka_broker.proxy import Proxy
from memory_use import peak_octets
from otus_agent.config.kafka import KafkaConfig
from otus_agent.kafka import fleet as fleet_module
from otus_agent.kafka.fleet import FleetClient, Outcome
from otus_agent.kafka.signing import generate_keypair, load_signer
from waiting import DEADLINE_S, wait_until, wait_until_async

pytestmark = pytest.mark.kafka
ROOT = Path(__file__).resolve().parents[2]
REGIONS = ("cn-east-1", "cn-east-1", "eu-west-1")


@dataclass
class AgentProcess:
    """One agent; `runs` lists the tasks it ever started."""

    agent_id: str
    config: Path
    runs_file: Path
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        path = os.pathsep.join(str(ROOT / part) for part in (".", "plugins", "core_c"))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    str(Path(__file__).with_name("fleet_agent.py")),
                    str(self.config),
                    str(self.runs_file),
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path},
            )

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(120)
            finally:
                self.process.kill()
                self.process.wait(120)
            self.process = None

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(120)
            self.process = None

    @property
    def runs(self) -> list[str]:
        return self.runs_file.read_text().split() if self.runs_file.exists() else []


@dataclass
class Fleet:
    agents: list[AgentProcess]
    kafka: KafkaConfig
    keys: Path
    broker: Broker
    proxy: Proxy

    @property
    def ids(self) -> set[str]:
        return {agent.agent_id for agent in self.agents}

    def client(self, signer: str | None = "ops") -> FleetClient:
        key = load_signer(self.keys / f"{signer}.pem") if signer else None
        return FleetClient(self.kafka, key)


@pytest.fixture(scope="module")
def _running(
    _session_broker: Broker | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet | None]:
    """Three agents for all tests here: to start them takes longer than most tests."""
    if _session_broker is None:
        yield None
        return
    with Proxy(_session_broker.proxy_port, _session_broker.proxied_port) as proxy:
        made = _make_fleet(_session_broker, proxy, tmp_path_factory.mktemp("fleet"))
        try:
            yield made
        finally:
            for agent in made.agents:
                agent.kill()


def _make_fleet(broker: Broker, proxy: Proxy, folder: Path) -> Fleet:
    """Agents on topics of their own; the third reaches the broker through a proxy port."""
    mark = uuid.uuid4().hex[:6]
    topics = {f"{name}_topic": f"otus-{name}-{mark}" for name in ("command", "response", "event")}
    for topic in topics.values():
        create_topic(broker.bootstrap, topic, partitions=2)
    trusted = []
    for key in ("ops", "next", "stranger"):
        private, public = generate_keypair()
        (folder / f"{key}.pem").write_bytes(private)
        if key != "stranger":
            trusted.append({"id": key, "public_key": public})
    common: dict[str, Any] = {
        **topics,
        "heartbeat_interval": 1.0,
        "command_ttl": 600,
        "signing": {"keys": trusted},
        "remote": {"interfaces": ["eth*"]},
    }
    agents = []
    for number, region in enumerate(REGIONS):
        agent_id = f"agent-{mark}-{number}"
        address = f"127.0.0.1:{broker.proxy_port}" if number == 2 else broker.bootstrap
        own = folder / agent_id
        own.mkdir()
        config = {
            "daemon": {"data_dir": str(own)},
            "kafka": {**common, "brokers": [address]},
            "agent": {"id": agent_id, "tags": {"region": region, "number": str(number)}},
        }
        (own / "config.json").write_text(json.dumps(config))
        agents.append(AgentProcess(agent_id, own / "config.json", own / "runs", own / "log"))
    kafka = KafkaConfig.model_validate({**common, "brokers": [broker.bootstrap]})
    return Fleet(agents, kafka, folder, broker, proxy)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator is told after ten seconds that no broker answers; a busy machine may need more."""
    monkeypatch.setattr(fleet_module, "REQUEST_TIMEOUT_S", DEADLINE_S)


@pytest.fixture
def fleet(broker: Broker, _running: Fleet) -> Fleet:
    """The three agents, up and connected."""
    _running.proxy.heal()
    for agent in _running.agents:
        if agent.process is None or agent.process.poll() is not None:
            agent.start()
    return _running


@pytest.fixture
async def client(fleet: Fleet) -> AsyncIterator[FleetClient]:
    """Connected to a fleet that is alive, without tasks and without a past."""
    async with fleet.client() as connected:
        await alive(connected, fleet.ids)
        emptied = connected.envelope("task.apply", "*", {"tasks": []})
        outcome = await connected.send(emptied, frozenset(fleet.ids), DEADLINE_S)
        assert outcome.succeeded, outcome
        for agent in fleet.agents:
            agent.runs_file.unlink(missing_ok=True)
        yield connected


async def alive(client: FleetClient, ids: set[str], state: str = "alive") -> None:
    async def seen() -> bool:
        views = await client.agents()
        return {name for name, view in views.items() if view.state == state} >= ids

    await wait_until_async(seen, what=f"{ids} {state}")


async def run(
    client: FleetClient, command: str, target: Any, timeout_s: float = DEADLINE_S, **params: Any
) -> Outcome:
    expected = client.expected(target, await client.agents())
    return await client.send(client.envelope(command, target, params), expected, timeout_s)


def task(name: str, interface: str = "eth0") -> dict[str, Any]:
    return {
        "id": name,
        "capture": {"type": "afpacket", "interface": interface},
        "reporters": [{"type": "kafka", "config": {"topic": "otus-sip-data"}}],
    }


async def test_targeted_selected_and_broadcast(client: FleetClient, fleet: Fleet) -> None:
    """Each way of addressing reaches those it means, and nobody else; all of them answer."""
    first, second, third = fleet.agents
    outcome = await run(client, "task.create", first.agent_id, task=task("one"))
    assert outcome.succeeded
    assert set(outcome.answers) == {first.agent_id}
    outcome = await run(client, "task.create", "region=cn-east-1", task=task("east"))
    assert outcome.succeeded
    assert set(outcome.answers) == {first.agent_id, second.agent_id}
    outcome = await run(
        client, "task.create", [second.agent_id, "region=eu-west-1"], task=task("list")
    )
    assert outcome.succeeded
    outcome = await run(client, "task.create", "*", task=task("all"))
    assert outcome.succeeded
    assert set(outcome.answers) == fleet.ids
    assert first.runs == ["one", "east", "all"]
    assert second.runs == ["east", "list", "all"]
    assert third.runs == ["list", "all"]


async def test_heartbeats_and_state_changes(client: FleetClient, fleet: Fleet) -> None:
    """Heartbeats tell tags, version, tasks with ledger and the host; state changes follow."""
    first = fleet.agents[0]
    assert (await run(client, "task.create", first.agent_id, task=task("seen"))).succeeded

    async def told() -> dict[str, Any]:
        view = (await client.agents())[first.agent_id]
        # The last heartbeat may be older than the task, and tell of other tests' tasks.
        tasks = [(one["id"], one["state"]) for one in view.heartbeat.get("tasks", ())]
        return dict(view.heartbeat) if tasks == [("seen", "running")] else {}

    heartbeat = await wait_until_async(told)
    assert heartbeat["tags"]["region"] == "cn-east-1"
    assert heartbeat["agent_version"]
    assert heartbeat["uptime_s"] > 0
    assert heartbeat["host"]["cpus"] > 0
    assert heartbeat["tasks"] == [
        {
            "id": "seen",
            "state": "running",
            "last_error": "",
            "ledger": {"received": 7, "reported": 7},
        }
    ]
    first.stop()
    await alive(client, {first.agent_id}, "stopped")
    assert client.expected("*", await client.agents()) == fleet.ids - {first.agent_id}

    def told_that_it_runs(messages: list[Message]) -> bool:
        events = [json.loads(message.value()) for message in messages]
        return any(
            event["type"] == "task.state"
            and (event["agent_id"], event["task_id"]) == (first.agent_id, "seen")
            and event["state"] == "running"
            for event in events
        )

    read(*where(fleet, "event_topic"), told_that_it_runs)


def where(fleet: Fleet, topic: str) -> tuple[str, str]:
    return fleet.broker.bootstrap, getattr(fleet.kafka, topic)


async def test_failures_are_answers_too(client: FleetClient, fleet: Fleet) -> None:
    """One agent fails, the others do not: the outcome says who and why."""
    first = fleet.agents[0]
    assert (await run(client, "task.create", first.agent_id, task=task("twice"))).succeeded
    outcome = await run(client, "task.create", "*", task=task("twice"))
    assert outcome.failed == [first.agent_id]
    assert outcome.answers[first.agent_id]["error"]["code"] == "task_already_exists"
    assert not outcome.succeeded
    assert first.runs == ["twice"]


async def test_a_duplicated_and_a_replayed_command(client: FleetClient, fleet: Fleet) -> None:
    """The same message again, at once or after a restart, is answered again and not run."""
    first = fleet.agents[0]
    envelope = client.envelope("task.create", first.agent_id, {"task": task("once")})
    expected = frozenset({first.agent_id})
    answers = [
        (await client.send(envelope, expected, DEADLINE_S)).answers[first.agent_id]
        for _ in range(2)
    ]
    first.kill()
    first.start()
    answers.append((await client.send(envelope, expected, DEADLINE_S)).answers[first.agent_id])
    assert [answer["status"] for answer in answers] == ["ok"] * 3
    assert [answer.get("duplicate", False) for answer in answers] == [False, True, True]
    # The restart restores the task from disk, which starts it a second time.
    assert first.runs == ["once", "once"]


async def test_unsigned_and_wrongly_signed(client: FleetClient, fleet: Fleet) -> None:
    """Refused by every agent, with the reason; a second trusted key is believed."""
    for signer, code in ((None, "signature_missing"), ("stranger", "signature_invalid")):
        async with fleet.client(signer) as other:
            outcome = await run(other, "task.create", "*", task=task("evil"))
        assert outcome.failed == sorted(fleet.ids)
        assert {one["error"]["code"] for one in outcome.answers.values()} == {code}
    forged = client.envelope("task.create", "*", {"task": task("evil")})
    forged["task"] = task("changed")
    outcome = await client.send(forged, frozenset(fleet.ids), DEADLINE_S)
    assert {one["error"]["code"] for one in outcome.answers.values()} == {"signature_invalid"}
    async with fleet.client("next") as rotated:
        assert (await run(rotated, "task.create", "*", task=task("good"))).succeeded
    assert all(agent.runs == ["good"] for agent in fleet.agents)


async def test_remote_tasks_are_held_to_the_policy(client: FleetClient, fleet: Fleet) -> None:
    """Also with a good signature: no other interfaces, no files."""
    outcome = await run(client, "task.create", "*", task=task("x", interface="lo"))
    assert {one["error"]["code"] for one in outcome.answers.values()} == {"command_not_allowed"}
    reading = {**task("x"), "capture": {"type": "pcap", "path": "/etc/shadow"}}
    outcome = await run(client, "task.create", "*", task=reading)
    assert {one["error"]["code"] for one in outcome.answers.values()} == {"command_not_allowed"}
    assert all(agent.runs == [] for agent in fleet.agents)


async def test_a_partitioned_agent_catches_up(client: FleetClient, fleet: Fleet) -> None:
    """Cut off it is missed, named, and runs the command once when it is back within the TTL."""
    third = fleet.agents[2]
    fleet.proxy.cut()
    so_far: list[Outcome] = []
    envelope = client.envelope("task.create", "*", {"task": task("cut")})
    sending = asyncio.create_task(
        client.send(envelope, frozenset(fleet.ids), 3 * DEADLINE_S, so_far.append)
    )
    await wait_until_async(lambda: so_far and so_far[-1].missing == [third.agent_id])
    assert not so_far[-1].succeeded
    async with fleet.client() as other:
        await alive(other, {third.agent_id}, "silent")
    assert third.runs == []
    fleet.proxy.heal()
    assert (await sending).succeeded
    assert third.runs == ["cut"]
    assert (await run(client, "task.list", third.agent_id)).succeeded
    assert third.runs == ["cut"]


async def test_a_restarted_broker(client: FleetClient, fleet: Fleet) -> None:
    """Agents come back by themselves; a command sent right after the restart runs once."""
    assert (await run(client, "task.create", "*", task=task("before"))).succeeded
    fleet.broker.kill()
    await asyncio.sleep(1)
    await asyncio.to_thread(fleet.broker.start)
    async with fleet.client() as fresh:
        outcome = await run(fresh, "task.create", sorted(fleet.ids), task=task("after"))
    assert outcome.succeeded, outcome
    assert all(agent.runs == ["before", "after"] for agent in fleet.agents)


async def test_an_offline_agent_resumes_where_it_stopped(client: FleetClient, fleet: Fleet) -> None:
    """Commands sent meanwhile are run in order; poison between them is skipped."""
    first = fleet.agents[0]
    assert (await run(client, "task.create", first.agent_id, task=task("a"))).succeeded
    first.stop()
    producer = Producer({"bootstrap.servers": fleet.broker.bootstrap, "log_level": 0})
    assert fleet.kafka.command_topic is not None
    for name in ("b", "c"):
        envelope = client.envelope("task.create", first.agent_id, {"task": task(name)})
        value = json.dumps(envelope)
        for octets in (b"{poison", value.encode(), b"\x00\xff"):
            producer.produce(fleet.kafka.command_topic, octets, first.agent_id)
    stale = FleetClient(fleet.kafka, load_signer(fleet.keys / "ops.pem"), lambda: 1_700_000_000.0)
    old = stale.envelope("task.create", first.agent_id, {"task": task("stale")})
    producer.produce(fleet.kafka.command_topic, json.dumps(old), first.agent_id)
    write(producer)
    first.start()
    wait_until(lambda: first.runs[-2:] == ["b", "c"])
    outcome = await run(client, "status", first.agent_id)
    counts = outcome.answers[first.agent_id]["result"]["kafka"]["commands"]["counts"]
    assert counts["poison"] == 4
    assert counts["refused:command_stale"] == 1
    assert first.runs.count("b") == first.runs.count("c") == 1
    assert "stale" not in first.runs


async def test_a_batch_that_grows_without_end_is_skipped(client: FleetClient, fleet: Fleet) -> None:
    """Some kilobytes that unpack to 200 MB take no memory of an agent, and hold up no command."""
    first = fleet.agents[0]
    assert first.process is not None
    assert fleet.kafka.command_topic is not None
    before = await run(client, "status", first.agent_id)
    peak = peak_octets(first.process.pid)
    settings = {"compression.type": "zstd", "message.max.bytes": 300_000_000, "log_level": 0}
    producer = Producer({"bootstrap.servers": fleet.broker.bootstrap, **settings})
    producer.produce(fleet.kafka.command_topic, bytes(200_000_000), first.agent_id)
    write(producer)
    assert (await run(client, "task.create", first.agent_id, task=task("behind"))).succeeded
    after = await run(client, "status", first.agent_id)
    skipped = [
        outcome.answers[first.agent_id]["result"]["kafka"]["commands"]["counts"].get("poison", 0)
        for outcome in (before, after)
    ]
    assert skipped[1] == skipped[0] + 1
    assert peak_octets(first.process.pid) - peak < 50_000_000


async def test_shutdown_is_answered_and_not_repeated(client: FleetClient, fleet: Fleet) -> None:
    """The agent answers before it goes; started again it does not obey a second time."""
    first = fleet.agents[0]
    outcome = await run(client, "shutdown", first.agent_id)
    assert outcome.succeeded, outcome
    assert first.process is not None
    await wait_until_async(lambda: first.process and first.process.poll() is not None)
    first.start()
    assert (await run(client, "status", first.agent_id)).succeeded
    assert first.process.poll() is None
