"""The Kafka door without Kafka: envelopes, targets, age, repeats, policy, the journal."""

from __future__ import annotations

import asyncio
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
from otus_agent.kafka.commands import CommandDoor, _encoded
from otus_agent.kafka.errors import EnvelopeInvalid
from otus_agent.kafka.journal import Journal
from otus_sdk.errors import TaskNotFound
from waiting import wait_until_async

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
    capture = {"type": "afpacket", "interface": "eth0"}
    task = {"id": "t", "capture": capture, "reporters": ["kafka"]}
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


async def test_a_command_still_running_in_a_former_door_is_awaited(tmp_path: Path) -> None:
    """The door that a reload opens answers the reload's repetition by its outcome."""
    may_end = asyncio.Event()

    async def slowly(*_: object) -> str:
        await may_end.wait()
        return "reloaded"

    former = make_door(tmp_path, Ran())
    former._dispatch = slowly
    successor = make_door(tmp_path, ran := Ran())
    successor._journal = former._journal
    running = asyncio.create_task(former.handle(command()))
    await wait_until_async(lambda: former._journal.find("r-1"))
    repeated = asyncio.create_task(successor.handle(command()))
    await wait_until_async(lambda: successor.counts["duplicates"])
    may_end.set()
    assert await repeated == {**(await running or {}), "duplicate": True}
    assert not ran.commands


async def test_a_fault_in_judging_is_answered_and_not_repeated(tmp_path: Path) -> None:
    """What the rules themselves stumble over neither runs nor comes back for ever."""
    ran = Ran()
    door = make_door(tmp_path, ran)
    door._policy.check = lambda *_: [].pop()  # type: ignore[method-assign, func-returns-value]
    answer = await door.handle(command())
    assert answer is not None
    assert answer["status"] == "error"
    assert door.counts["poison"] == 1
    assert not ran.commands


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=10,
)


@given(
    st.dictionaries(
        st.sampled_from(["target", "task", "params", "signature", "timestamp", "command"]), _JSON
    )
)
async def test_no_envelope_ends_the_door(changes: dict[str, Any]) -> None:
    """Any JSON in any member is run, answered or skipped, and its answer can be sent."""
    door = make_door(Path("/nowhere"), Ran())
    answer = await door.handle(command(**changes))
    if answer is not None:
        assert json.loads(_encoded(answer, 1 << 20))["agent_id"] == "agent-1"


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


async def test_the_policy_stands_before_the_command_table(tmp_path: Path) -> None:
    """A refused command is answered, and nothing of it runs."""
    ran = Ran()
    bad = {"id": "t", "capture": {"type": "pcap", "files": ["/etc/shadow"]}, "reporters": ["kafka"]}
    door = make_door(tmp_path, ran)
    answer = await door.handle(command(command="task.create", task=bad, params=...))
    assert answer is not None
    assert answer["error"]["code"] == "command_not_allowed"
    assert not ran.commands
    assert door.counts["refused:command_not_allowed"] == 1
