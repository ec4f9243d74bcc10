"""A daemon whose tasks are fakes: ``python agent_fake_daemon.py CONFIG [--background]``."""

from __future__ import annotations

import os
import sys

from agent_fakes import FakeTask
from otus_agent.agent import Agent
from otus_agent.daemon import Invocation, run
from otus_sdk.errors import OtusError

if __name__ == "__main__":
    Agent._make_task = lambda _self, config: FakeTask(config)  # type: ignore[method-assign]
    environment = {name: text for name, text in os.environ.items() if name.startswith("OTUS_")}
    try:
        code = run(Invocation(sys.argv[1], environment), background="--background" in sys.argv)
    except (OtusError, OSError) as error:
        sys.exit(f"otus: {error}")
    sys.exit(code)
