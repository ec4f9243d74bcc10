"""`otus fleet` as an operator types it, against agents and a broker that are real."""

from __future__ import annotations

import asyncio
import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from integration.test_kafka_fleet import (
    Fleet,
    _patience,
    _running,
    client,
    fleet,
    task,
)
from otus_agent.cli import main
from otus_agent.kafka.fleet import FleetClient
from waiting import wait_until_async

pytestmark = pytest.mark.kafka
__all__ = ["_patience", "_running", "client", "fleet"]


def otus(*arguments: str) -> tuple[int, str, str]:
    """`otus fleet …` in this process: twenty interpreters would take a minute to start.

    Returns:
        Exit code, standard output, standard error.
    """
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            main(["fleet", *arguments])
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int), "main() always ends with an exit code"
    return code, out.getvalue(), err.getvalue()


class Cli:
    """The operator at the keyboard, with configuration and key."""

    def __init__(self, fleet: Fleet) -> None:
        self._config = fleet.keys / "operator.json"
        kafka = fleet.kafka.model_dump(mode="json", exclude={"signing", "remote"})
        self._config.write_text(json.dumps({"kafka": kafka}))
        self._key = str(fleet.keys / "ops.pem")
        self.stderr = ""

    async def __call__(self, *arguments: str, code: int | None = 0, signed: bool = True) -> str:
        key = ["--key", self._key] if signed else []
        if "list" not in arguments[:1] and "--timeout" not in arguments:
            key += ["--timeout", "120s"]
        # In a thread: the command has an event loop of its own.
        got, stdout, self.stderr = await asyncio.to_thread(
            otus, *arguments, *key, "--config", str(self._config)
        )
        assert code in (got, None), (arguments, stdout, self.stderr)
        return stdout


async def test_an_operators_session(client: FleetClient, fleet: Fleet, tmp_path: Path) -> None:
    """List, dry run, create, failures first, unsigned, status, a missing agent, delete."""
    cli = Cli(fleet)
    first, second, third = sorted(fleet.ids)

    async def all_alive() -> bool:
        listed = json.loads(await cli("list", "-o", "json", code=None, signed=False))
        assert [agent["agent_id"] for agent in listed] == sorted(fleet.ids)
        return {agent["state"] for agent in listed} == {"alive"}

    await wait_until_async(all_alive)
    assert first in await cli("list", "-t", "number=0", signed=False)

    file = tmp_path / "task.json"
    file.write_text(json.dumps({"command": "task.create", "task": task("cli")}))
    create = ("task", "create", "-f", str(file), "-t")
    planned: Any = json.loads(await cli(*create, "region=cn-east-1", "--dry-run", "-o", "json"))
    assert planned["reaches"] == [first, second]
    assert planned["command"]["signature"]["key"] == "ops"
    assert all(agent.runs == [] for agent in fleet.agents)

    assert "cli running" in await cli(*create, first)
    table = (await cli(*create, "*", code=1)).splitlines()
    assert first in table[1]
    assert "task_already_exists" in table[1]
    assert "1 failed" in cli.stderr
    assert "signature_missing" in await cli("reload", "-t", third, code=1, signed=False)

    status = json.loads(await cli("task", "status", "cli", "-o", "json"))
    assert status["succeeded"]
    assert {answer["result"]["state"] for answer in status["answers"].values()} == {"running"}

    for timeout in ("2s", "20s", "120s"):  # the first may be too short for an agent that stalls
        await cli("status", "-t", first, "-t", "nobody", "--timeout", timeout, code=1)
        if "1 did not answer" in cli.stderr:
            break
    assert "1 did not answer" in cli.stderr
    await cli("task", "delete", "cli", "-t", first)
    assert "no tasks" in await cli("task", "list", "-t", first)
    await cli("send", "task.delete", "--params", '{"id": "cli"}', "-t", "number=1")


def test_mistakes_are_told_in_one_line(broker: Any, tmp_path: Path) -> None:
    """Exit codes: 2 usage, 3 no broker, 5 configuration; never a traceback."""

    here = f"127.0.0.1:{broker.ports['plaintext']}"
    cases = [
        (("reload", "--brokers", here), 2, "--target"),
        (("list", "--brokers", "nonsense"), 2, "--brokers"),
        (("list", "--brokers", here, "--since", "soon"), 2, "--since"),
        (("send", "status", "--params", "[", "-t", "*", "--brokers", here), 2, "--params"),
        (("list", "--brokers", "127.0.0.1:1"), 3, "no broker answers"),
        (("list",), 5, "no kafka section"),
        (("status", "--brokers", here, "--key", "/nonexistent"), 5, "/nonexistent"),
    ]
    for arguments, code, text in cases:
        got, _, stderr = otus(*arguments)
        assert got == code, (arguments, stderr)
        assert text in stderr
    key = tmp_path / "ops.pem"
    assert otus("keygen", str(key))[0] == 0
    assert key.stat().st_mode & 0o777 == 0o600
    assert otus("keygen", str(key))[0] == 1
