"""`otus fleet` as an operator types it, against agents and a broker that are real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from integration.test_kafka_fleet import (
    ROOT,
    Fleet,
    _running,
    client,
    fleet,
    task,
)
from otus_agent.kafka.fleet import FleetClient

pytestmark = pytest.mark.kafka
__all__ = ["_running", "client", "fleet"]


class Cli:
    def __init__(self, fleet: Fleet) -> None:
        self._config = fleet.keys / "operator.json"
        kafka = fleet.kafka.model_dump(mode="json", exclude={"signing", "remote"})
        self._config.write_text(json.dumps({"kafka": kafka}))
        self._key = str(fleet.keys / "ops.pem")

    def __call__(self, *arguments: str, code: int = 0, signed: bool = True) -> str:
        path = os.pathsep.join(str(ROOT / part) for part in (".", "plugins", "core_c"))
        key = ["--key", self._key] if signed else []
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from otus_agent.cli import main; main()",
                "fleet",
                *arguments,
                *key,
                "--config",
                str(self._config),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        self.stderr = done.stderr
        return done.stdout


async def test_an_operators_session(client: FleetClient, fleet: Fleet, tmp_path: Path) -> None:
    """List, dry run, create, failures first, unsigned, status, a missing agent, delete."""
    cli = Cli(fleet)
    first, second, third = sorted(fleet.ids)

    listed = json.loads(cli("list", "-o", "json", signed=False))
    assert [agent["agent_id"] for agent in listed] == sorted(fleet.ids)
    assert {agent["state"] for agent in listed} == {"alive"}
    assert first in cli("list", "-t", "number=0", signed=False)

    file = tmp_path / "task.json"
    file.write_text(json.dumps({"command": "task.create", "task": task("cli")}))
    create = ("task", "create", "-f", str(file), "-t")
    planned: Any = json.loads(cli(*create, "region=cn-east-1", "--dry-run", "-o", "json"))
    assert planned["reaches"] == [first, second]
    assert planned["command"]["signature"]["key"] == "ops"
    assert all(agent.runs == [] for agent in fleet.agents)

    assert "cli running" in cli(*create, first)
    table = cli(*create, "*", code=1).splitlines()
    assert first in table[1]
    assert "task_already_exists" in table[1]
    assert "1 failed" in cli.stderr
    assert "signature_missing" in cli("reload", "-t", third, code=1, signed=False)

    status = json.loads(cli("task", "status", "cli", "-o", "json"))
    assert status["succeeded"]
    assert {answer["result"]["state"] for answer in status["answers"].values()} == {"running"}

    cli("task", "delete", "cli", "-t", first, "-t", "nobody", "--timeout", "2s", code=1)
    assert "1 did not answer" in cli.stderr
    assert "no tasks" in cli("task", "list", "-t", first)
    cli("send", "task.delete", "--params", '{"id": "cli"}', "-t", "number=1")


async def test_mistakes_are_told_in_one_line(broker: Any, tmp_path: Path) -> None:
    """Exit codes: 2 usage, 3 no broker, 5 configuration; never a traceback."""

    def otus(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from otus_agent.cli import main; main()",
                "fleet",
                *arguments,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        return done.returncode, done.stderr

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
        got, stderr = otus(*arguments)
        assert (got, "Traceback" in stderr) == (code, False), (arguments, stderr)
        assert text in stderr
    key = tmp_path / "ops.pem"
    assert otus("keygen", str(key))[0] == 0
    assert key.stat().st_mode & 0o777 == 0o600
    assert otus("keygen", str(key))[0] == 1
