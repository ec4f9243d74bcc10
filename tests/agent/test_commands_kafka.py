"""The Kafka door without Kafka: envelopes, targets, age, repeats, policy, the journal."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otus_agent.config.kafka import KafkaConfig
from otus_agent.kafka import envelope as envelopes
from otus_agent.kafka.commands import CommandDoor
from otus_agent.kafka.errors import CommandNotAllowed, EnvelopeInvalid
from otus_agent.kafka.journal import Journal
from otus_agent.kafka.policy import RemotePolicy
from otus_sdk.errors import TaskNotFound

NOW = 1_800_000_000.0
TAGS = {"region": "cn-east-1", "role": "edge"}


class Ran:
    """A command table that only remembers."""

    def __init__(self) -> None:
        self.commands: list[tuple[str, dict[str, Any], str]] = []
        self.fails: Exception | None = None

    async def __call__(self, name: str, params: Mapping[str, Any], key: str) -> Any:
        self.commands.append((name, dict(params), key))
        if self.fails is not None:
            raise self.fails
        return {"number": len(self.commands)}


def make_door(tmp_path: Path, ran: Ran, now: float = NOW, **kafka: Any) -> CommandDoor:
    config = KafkaConfig.model_validate({"brokers": ["127.0.0.1:1"], **kafka})
    return CommandDoor(
        config,
        agent_id="agent-1",
        tags=lambda: TAGS,
        dispatch=ran,
        journal=Journal(tmp_path / "journal.jsonl", config.remembered_requests),
        clock=lambda: now,
    )


def command(**changes: Any) -> bytes:
    envelope = {
        "version": 1,
        "target": "agent-1",
        "command": "task.status",
        "request_id": "r-1",
        "timestamp": int(NOW * 1000),
        "params": {"id": "t"},
        **changes,
    }
    return json.dumps({key: value for key, value in envelope.items() if value is not ...}).encode()


async def test_a_command_is_run_and_answered(tmp_path: Path) -> None:
    """The answer carries the request's and the agent's ids and the result."""
    ran = Ran()
    answer = await make_door(tmp_path, ran).handle(command())
    assert answer is not None
    assert ran.commands == [("task.status", {"id": "t"}, "")]
    assert answer["request_id"] == "r-1"
    assert answer["agent_id"] == "agent-1"
    assert answer["status"] == "ok"
    assert answer["result"] == {"number": 1}


async def test_an_error_is_answered_with_its_codes(tmp_path: Path) -> None:
    """The same code and number as through the socket."""
    ran = Ran()
    ran.fails = TaskNotFound("no task 't'")
    answer = await make_door(tmp_path, ran).handle(command())
    assert answer is not None
    assert answer["status"] == "error"
    assert answer["error"] == {
        "code": "task_not_found",
        "rpc_code": -32001,
        "message": "no task 't'",
    }


async def test_a_handler_that_breaks_is_answered_too(tmp_path: Path) -> None:
    """A fault of the agent's own neither stops the door nor leaves the sender waiting."""
    ran = Ran()
    ran.fails = RuntimeError("boom")
    door = make_door(tmp_path, ran)
    answer = await door.handle(command())
    assert answer is not None
    assert answer["error"]["message"] == "RuntimeError: boom"
    ran.fails = None
    assert (await door.handle(command(request_id="r-2")))["status"] == "ok"  # type: ignore[index]


async def test_task_beside_the_command_is_the_task_parameter(tmp_path: Path) -> None:
    """The form of the task files: {"command": "task.create", "task": {…}}."""
    ran = Ran()
    task = {"id": "t", "capture": {"type": "afpacket", "interface": "eth0"}}
    await make_door(tmp_path, ran).handle(command(command="task.create", task=task, params=...))
    assert ran.commands == [("task.create", {"task": task}, "")]


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("agent-1", True),
        ("agent-2", False),
        ("*", True),
        (["agent-2", "agent-1"], True),
        (["agent-2", "agent-3"], False),
        ("region=cn-east-1", True),
        ("region=cn-east-1,role=edge", True),
        ("region=cn-east-1, role = edge", True),
        ("region=cn-east-1,role=core", False),
        ("role!=core", True),
        ("role!=edge", False),
        ("missing!=x", True),
        ("missing=x", False),
        ("region=cn-east-1,", False),
        ("=", False),
        (["role=core", "role=edge"], True),
        ("AGENT-1", False),
    ],
)
async def test_targets(tmp_path: Path, target: object, meant: bool) -> None:
    """Id, list, everybody, tags; whoever is not meant says nothing."""
    ran = Ran()
    door = make_door(tmp_path, ran)
    answer = await door.handle(command(target=target))
    assert (answer is not None) is meant
    assert bool(ran.commands) is meant
    assert door.counts["for_others"] == (not meant)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff\xfe",
        b"[]",
        b"7",
        b"{",
        b"[" * 100_000,
        b'{"a": ' * 5_000,
        b'{"request_id": "x", "request_id": "y"}',
        b"{}",
        b'{"version": 1, "target": "agent-2", "request_id": "r"}',
        b'{"version": 1, "target": ["agent-1"], "request_id": 7}',
    ],
)
async def test_poison_is_counted_and_skipped(tmp_path: Path, value: bytes | None) -> None:
    """Whatever stands in the topic, the door goes on."""
    ran = Ran()
    door = make_door(tmp_path, ran)
    assert await door.handle(value) is None
    assert door.counts["poison"] == 1
    assert (await door.handle(command()))["status"] == "ok"  # type: ignore[index]


async def test_a_message_beyond_the_limit_is_poison(tmp_path: Path) -> None:
    """Its size alone is enough."""
    door = make_door(tmp_path, Ran(), max_command_octets=1024)
    assert await door.handle(command(params={"id": "x" * 2000})) is None
    assert door.counts["poison"] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"version": True},
        {"version": ...},
        {"command": "Task Create"},
        {"command": 7},
        {"timestamp": ...},
        {"timestamp": "yesterday"},
        {"timestamp": "2027-01-15T08:00:00"},
        {"timestamp": 1.5},
        {"params": []},
        {"task": 7},
        {"task": {}, "params": {"task": {}}},
        {"surprise": 1},
    ],
)
async def test_a_wrong_envelope_for_this_agent_is_answered(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    """Who sent it is told what is wrong with it; nothing runs."""
    ran = Ran()
    answer = await make_door(tmp_path, ran).handle(command(**changes))
    assert answer is not None
    assert answer["error"]["code"] == "envelope_invalid"
    assert answer["request_id"] == "r-1"
    assert not ran.commands


@given(st.dictionaries(st.text(max_size=12), st.none() | st.integers() | st.text(), max_size=8))
def test_parse_raises_nothing_but_its_error(raw: dict[str, Any]) -> None:
    """Any object is an envelope or EnvelopeInvalid."""
    with contextlib.suppress(EnvelopeInvalid):
        envelopes.parse({**raw, "version": 1})


@pytest.mark.parametrize("age_s", [301, 1e6, -31, -1e6])
async def test_stale_and_future_commands_are_refused_with_an_answer(
    tmp_path: Path, age_s: float
) -> None:
    """Outside of TTL and clock skew nothing runs."""
    ran = Ran()
    answer = await make_door(tmp_path, ran).handle(command(timestamp=int((NOW - age_s) * 1000)))
    assert answer is not None
    assert answer["error"]["code"] == "command_stale"
    assert not ran.commands


@pytest.mark.parametrize("age_s", [0, 299, -29])
async def test_commands_within_the_ttl_run(tmp_path: Path, age_s: float) -> None:
    """Up to the limits everything runs, whichever way the time is written."""
    ran = Ran()
    door = make_door(tmp_path, ran)
    await door.handle(command(timestamp=int((NOW - age_s) * 1000)))
    await door.handle(command(timestamp=envelopes.now_text(NOW - age_s), request_id="r-2"))
    assert len(ran.commands) == 2


async def test_a_repeated_command_runs_once_and_is_answered_again(tmp_path: Path) -> None:
    """The second answer is the first one, marked; also after a restart."""
    ran = Ran()
    door = make_door(tmp_path, ran)
    first = await door.handle(command())
    assert await door.handle(command()) == {**(first or {}), "duplicate": True}
    restarted = make_door(tmp_path, ran, now=NOW + 10)
    assert await restarted.handle(command()) == {**(first or {}), "duplicate": True}
    assert len(ran.commands) == 1


async def test_another_command_under_a_used_request_id_is_refused(tmp_path: Path) -> None:
    """One id, one command."""
    ran = Ran()
    door = make_door(tmp_path, ran)
    await door.handle(command())
    answer = await door.handle(command(params={"id": "other"}))
    assert answer is not None
    assert answer["error"]["code"] == "request_id_reused"
    assert len(ran.commands) == 1


async def test_a_command_that_a_crash_cut_off_is_not_run_again(tmp_path: Path) -> None:
    """The sender is told that its outcome is unknown."""

    class Crash(BaseException):
        pass

    async def crash(*_: object) -> None:
        raise Crash

    door = make_door(tmp_path, Ran())
    door._dispatch = crash
    with pytest.raises(Crash):
        await door.handle(command())
    ran = Ran()
    answer = await make_door(tmp_path, ran).handle(command())
    assert answer is not None
    assert answer["error"]["code"] == "command_interrupted"
    assert not ran.commands


async def test_refused_commands_do_not_use_up_the_request_id(tmp_path: Path) -> None:
    """Nobody can block a command by sending its id first without a signature."""
    ran = Ran()
    secret = "MDEyMzQ1Njc4OWFiY2RlZg=="
    key = {"id": "k", "algorithm": "hmac-sha256", "secret": secret}
    strict = make_door(tmp_path, ran, signing={"keys": [key]})
    refused = await strict.handle(command())
    assert refused is not None
    assert refused["error"]["code"] == "signature_missing"
    assert (await make_door(tmp_path, ran).handle(command()))["status"] == "ok"  # type: ignore[index]


async def test_forgetting_never_lets_a_replay_through(tmp_path: Path) -> None:
    """With more commands than are remembered, an old one is stale rather than new."""
    ran = Ran()
    door = make_door(tmp_path, ran, remembered_requests=16)
    for number in range(20):
        at = int(NOW * 1000) + number
        await door.handle(command(request_id=f"r-{number}", timestamp=at))
    for again in (door, make_door(tmp_path, ran, remembered_requests=16)):
        answer = await again.handle(command(request_id="r-0", timestamp=int(NOW * 1000)))
        assert answer is not None
        assert answer["error"]["code"] == "command_stale"
    assert len(ran.commands) == 20


def test_the_journal_stays_bounded_and_survives_a_torn_line(tmp_path: Path) -> None:
    """Many requests leave a small file; half a line at its end costs only that line."""
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, 16)
    for number in range(200):
        journal.begin(f"r-{number}", "d", number)
        journal.finish(f"r-{number}", {"answer": number})
    assert len(path.read_text().splitlines()) <= 4 * 16 + 2
    with path.open("a") as file:
        file.write('{"begin": "torn')
    again = Journal(path, 16)
    assert len(again) == 16
    found = again.find("r-199")
    assert found is not None
    assert found.answer == {"answer": 199}
    assert again.floor_ms == 184


def test_a_disk_that_refuses_does_not_stop_commands(tmp_path: Path) -> None:
    """What can't be written is counted, and remembered in memory."""
    journal = Journal(tmp_path / "missing" / "journal.jsonl", 16)
    journal.begin("r", "d", 1)
    journal.finish("r", {})
    assert journal.write_errors == 2
    assert journal.find("r") is not None
    assert journal.find("r").done  # type: ignore[union-attr]


# --- Remote policy -------------------------------------------------------------


def task(**changes: Any) -> dict[str, Any]:
    return {
        "id": "t",
        "capture": {"type": "afpacket", "interface": "eth0"},
        "parsers": ["sip"],
        "reporters": [{"type": "kafka", "config": {"topic": "otus-sip"}}],
        **changes,
    }


def kafka_reporter(**config: Any) -> dict[str, Any]:
    return task(reporters=[{"type": "kafka", "config": config}])


def check(raw: Any, **remote: Any) -> None:
    config = KafkaConfig.model_validate({"brokers": ["kafka-1:9092"], "remote": remote})
    RemotePolicy(config).check("task.create", {"task": raw})


def test_an_ordinary_task_passes() -> None:
    """The defaults let the fleet capture on interfaces and report to the agent's brokers."""
    check(task())
    check(kafka_reporter(topic="x", brokers=["kafka-1:9092"]))
    check(task(processors=[{"type": "filter", "config": {"drop_if": "sip.method == 'OPTIONS'"}}]))
    check(kafka_reporter(topic="x", brokers=["other:9092"]), brokers=["other:9092"])


@pytest.mark.parametrize(
    "raw",
    [
        task(capture={"type": "pcap", "path": "x.pcap"}),
        task(capture={"type": "pcap"}),
        task(capture={"type": "afpacket", "interface": "eth0", "dump_file": "x"}),
        task(capture={"type": "mine", "interface": "eth0"}),
        task(capture=None),
        task(capture={}),
        task(reporters=[{"type": "console"}]),
        task(reporters=["console"]),
        task(reporters=[{"type": "kafka", "config": []}]),
        task(reporters="kafka"),
        task(reporters=[7]),
        task(parsers=[{"type": "sip", "config": {"dictionary": "/etc/passwd"}}]),
        task(parsers=[{"type": "sip", "config": {"deep": [{"x": "file:///etc/passwd"}]}}]),
        task(processors=[{"type": "label", "config": {"lookup_path": "x"}}]),
        task(processors=[{"type": "label", "config": {"x": "../secret"}}]),
        task(processors=[{"type": "label", "config": {"x": "~/secret"}}]),
        kafka_reporter(topic="x", brokers=["evil:9092"]),
        kafka_reporter(topic="x", brokers=["kafka-1:9092", "evil:9092"]),
        kafka_reporter(topic="x", brokers="evil:9092"),
        kafka_reporter(topic="x", tls={"check_hostname": False}),
        kafka_reporter(topic="x", tls=None),
        kafka_reporter(topic="x", sasl={"username": "u"}),
        kafka_reporter(topic="otus-commands"),
        kafka_reporter(topic="otus-responses"),
        kafka_reporter(topic_prefix="otus"),
        {"id": "t", "capture": {"type": "afpacket"}, "reporters": [{"type": "kafka", "tls": {}}]},
        "task",
    ],
)
def test_what_a_remote_task_may_never_do(raw: Any) -> None:
    """No files, no strange peers, no own security settings, no control topics."""
    with pytest.raises(CommandNotAllowed):
        check(raw)


def test_no_pattern_allows_the_file_capturer() -> None:
    """Also an operator who allows every capturer does not open local files to the fleet."""
    with pytest.raises(CommandNotAllowed):
        check(task(capture={"type": "pcap", "files": ["a"]}), capturers=["*"])


def test_interfaces_topics_and_commands_are_restricted_by_pattern() -> None:
    """What the patterns do not name is refused, also when it is left out."""
    check(task(), interfaces=["eth*"])
    for capture in (
        {"interface": "wlan0"},
        {"interface": "any"},
        {},
        {"interfaces": ["eth0", "x"]},
    ):
        with pytest.raises(CommandNotAllowed):
            check(task(capture={"type": "afpacket", **capture}), interfaces=["eth*"])
    check(task(), topics=["otus-*"])
    with pytest.raises(CommandNotAllowed):
        check(kafka_reporter(topic="billing"), topics=["otus-*"])
    config = KafkaConfig.model_validate({"brokers": ["a:1"], "remote": {"commands": ["*status"]}})
    RemotePolicy(config).check("task.status", {"id": "t"})
    with pytest.raises(CommandNotAllowed):
        RemotePolicy(config).check("shutdown", {})


def test_every_task_of_an_apply_is_looked_at() -> None:
    """Commands that carry several tasks get no way around the rules."""
    config = KafkaConfig.model_validate({"brokers": ["kafka-1:9092"]})
    bad = task(capture={"type": "pcap", "path": "x"})
    for tasks in ([task(), bad], {"a": task(), "b": bad}, "task"):
        with pytest.raises(CommandNotAllowed):
            RemotePolicy(config).check("task.apply", {"tasks": tasks})


async def test_the_policy_stands_before_the_command_table(tmp_path: Path) -> None:
    """A refused command is answered, and nothing of it runs."""
    ran = Ran()
    bad = task(capture={"type": "pcap", "path": "/etc/shadow"})
    door = make_door(tmp_path, ran)
    answer = await door.handle(command(command="task.create", task=bad, params=...))
    assert answer is not None
    assert answer["error"]["code"] == "command_not_allowed"
    assert not ran.commands
    assert door.counts["refused:command_not_allowed"] == 1
