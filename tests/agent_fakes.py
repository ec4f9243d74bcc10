"""Stand-ins for what an agent runs on: tasks that do as they are told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from otus_agent.agent import Agent
from otus_agent.config.agent import AgentConfig
from otus_agent.config.task import TaskConfig
from otus_sdk.errors import TaskStartFailed


class FakeTask:
    """A task without packets.

    Its capture section tells how it behaves: ``start: fail|hang|raise``,
    ``stop: hang|raise``, or ``flush``: it takes until it is hurried.
    """

    def __init__(self, config: TaskConfig) -> None:
        self.config = config
        self.behaviour: dict[str, Any] = config.capture.config
        self.state = "created"
        self.last_error = ""
        self.finished = asyncio.Event()
        self.stopped_with: float | None = None
        self.has_stopped = False
        self._hurried = asyncio.Event()

    async def start(self) -> None:
        self.state = "starting"
        match self.behaviour.get("start"):
            case "fail":
                self.state = "failed"
                raise TaskStartFailed(f"task {self.config.id!r} was told to fail")
            case "hang":
                await asyncio.sleep(3600)
            case "raise":
                raise RuntimeError("not an Otus error")
        await asyncio.sleep(0)
        self.state = "running"

    async def stop(self, deadline_s: float) -> None:
        self.stopped_with = deadline_s
        has_failed = self.state == "failed"
        if not has_failed:
            self.state = "stopping"
        match self.behaviour.get("stop"):
            case "hang":
                await asyncio.sleep(3600)
            case "flush":
                await self._hurried.wait()
            case "raise":
                raise RuntimeError("not an Otus error")
        await asyncio.sleep(0)
        if not has_failed:
            self.state = "stopped"
        self.has_stopped = True
        self.finished.set()

    def hurry(self) -> None:
        self._hurried.set()

    def end(self, error: str = "") -> None:
        """Ends by itself, as at the end of a file or by a failure."""
        self.state, self.last_error = ("failed", error) if error else ("stopped", "")
        self.finished.set()

    def status(self) -> dict[str, Any]:
        ledger = {
            "balanced": True,
            "imbalances": [],
            "equations": [
                {
                    "name": "capture",
                    "total": 9,
                    "parts": {"dropped[kernel]": 2, "received[frames]": 7},
                }
            ],
            "anomalies": {"ipv4_truncated": 1},
        }
        return {"id": self.config.id, "state": self.state, "ledger": ledger}


def task(task_id: str = "one", **behaviour: Any) -> dict[str, Any]:
    """A task's configuration."""
    return {
        "id": task_id,
        "capture": {"type": "afpacket", "interface": "eth0", **behaviour},
        "reporters": ["console"],
    }


def config(folder: Path, **daemon: Any) -> AgentConfig:
    """A configuration whose files are all in folder."""
    return AgentConfig.model_validate(
        {
            "daemon": {
                "pid_file": str(folder / "otus.pid"),
                "socket_path": str(folder / "otus.sock"),
                "data_dir": str(folder / "data"),
                **daemon,
            },
            "agent": {"id": "agent-under-test"},
        }
    )


def fake_agent(folder: Path, **daemon: Any) -> Agent:
    """An agent whose tasks are fakes."""
    return Agent(config(folder, **daemon), task_factory=FakeTask)
