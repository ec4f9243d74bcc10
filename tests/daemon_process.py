"""A daemon in a process of its own, for tests that signal it, kill it and starve it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from waiting import wait_until

TESTS = Path(__file__).resolve().parent
FAKE_DAEMON = TESTS / "agent_fake_daemon.py"


def write_config(folder: Path, **sections: Any) -> Path:
    """A global configuration whose files are all in folder; sections lay over it."""
    config: dict[str, Any] = {
        "daemon": {
            "pid_file": str(folder / "otus.pid"),
            "socket_path": str(folder / "otus.sock"),
            "data_dir": str(folder / "data"),
        },
        "log": {"level": "debug", "outputs": [{"type": "file", "path": str(folder / "otus.log")}]},
        "metrics": {"enabled": False},
        "agent": {"id": "agent-under-test"},
    }
    for name, section in sections.items():
        config[name] = {**config.get(name, {}), **section}
    path = folder / "config.yml"
    path.write_text(json.dumps(config))
    return path


class DaemonProcess:
    """One run of a daemon, real or with fake tasks; killed at the end of its block."""

    def __init__(
        self,
        folder: Path,
        *,
        fake: bool = True,
        environment: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.socket_path = str(folder / "otus.sock")
        self._fake = fake
        self._environment = environment or {}
        self._prefix = list(prefix)
        self.process: subprocess.Popen[str] | None = None

    def command(self) -> list[str]:
        config = str(self.folder / "config.yml")
        if self._fake:
            return [*self._prefix, sys.executable, str(FAKE_DAEMON), config]
        return [*self._prefix, sys.executable, "-m", "otus_agent", "--config", config, "daemon"]

    def environ(self) -> dict[str, str]:
        paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            **self._environment,
        }

    def spawn(self) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            self.command(), env=self.environ(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return self.process

    def __enter__(self) -> DaemonProcess:
        self.spawn()
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def wait_ready(self, deadline_s: float = 120.0) -> None:
        def answers() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                assert self.process.stdout is not None
                raise AssertionError(f"the daemon ended: {self.process.stdout.read()}")
            try:
                return "result" in self.call("status")
            except OSError:
                return False

        wait_until(answers, deadline_s, "the daemon answers")

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """As kill -9 does."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def stop(self, deadline_s: float = 120.0) -> int:
        """As an operator does: SIGTERM, and its exit code."""
        assert self.process is not None
        self.signal(signal.SIGTERM)
        return self.process.wait(deadline_s)

    def call(self, method: str, deadline_s: float = 120.0, **params: Any) -> dict[str, Any]:
        """One JSON-RPC call on a connection of its own."""
        request = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(deadline_s)
            client.connect(self.socket_path)
            client.sendall(json.dumps(request).encode() + b"\n")
            with client.makefile("rb") as answers:
                line = answers.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("no answer")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def task_states(self) -> dict[str, str]:
        rows = self.call("task.list")["result"]["tasks"]
        return {row["id"]: row["state"] for row in rows}

    def log_lines(self) -> list[dict[str, Any]]:
        log = self.folder / "otus.log"
        if not log.exists():
            return []
        return [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.log_lines() if line["event"] == event]
