"""An agent process for fleet tests: everything real but the capture.

usage: fleet_agent.py CONFIG.json RUNS.txt
Each task that starts appends its id to RUNS.txt: how tests see what ran how often.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

from otus_agent.agent import Agent
from otus_agent.config.agent import AgentConfig
from otus_agent.config.task import TaskConfig
from otus_agent.kafka import FleetDoor


class FakeTask:
    """A task that does nothing but be there."""

    def __init__(self, config: TaskConfig, runs: Path) -> None:
        self._config = config
        self._runs = runs
        self.state = "created"
        self.last_error = None
        self.finished = asyncio.Event()

    async def start(self) -> None:
        with self._runs.open("a") as file:
            file.write(f"{self._config.id}\n")
        self.state = "running"

    async def stop(self, deadline_s: float) -> None:
        self.state = "stopped"

    def status(self) -> dict[str, Any]:
        return {"ledger": {"received": 7, "reported": 7}}


async def main(config: AgentConfig, runs: Path) -> None:
    agent = Agent(config, task_factory=lambda task: FakeTask(task, runs))
    door = FleetDoor(agent)
    await agent.start()
    await door.start()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, agent.request_shutdown)
    await agent.shutdown_requested.wait()
    await door.stop_commands()
    await agent.stop()
    await door.stop()


if __name__ == "__main__":
    read = AgentConfig.model_validate(json.loads(Path(sys.argv[1]).read_text()))
    asyncio.run(main(read, Path(sys.argv[2])))
