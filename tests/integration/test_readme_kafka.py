"""README's Kafka and fleet commands: a real agent, a real broker, real calls."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from kafka_broker.broker import Broker
from kafka_broker.proxy import Proxy
from namespaces import TwoHosts
from readme import blocks, environment
from waiting import wait_until

from .consuming import read

PLACEHOLDER = "kafka-1:9092"
TOPIC = "otus-sip-data"


@pytest.mark.root
@pytest.mark.kafka
def test_a_fleet_of_one_as_readme_tells(
    root: Path, tmp_path: Path, broker: Broker, network_namespaces: None
) -> None:
    """Daemon, heartbeat, a task through Kafka, calls captured and sent, shutdown through Kafka."""
    (script,) = blocks(root / "README.md", "kafka")
    assert PLACEHOLDER in script
    script = script.replace(PLACEHOLDER, broker.bootstrap)
    host, _, port = broker.bootstrap.rpartition(":")
    assert host == "127.0.0.1"
    # However busy the machine is, who is asked has the time to answer.
    script = re.sub(
        r"^(otus fleet (?:task|shutdown) .*)$", r"\1 --timeout 120s", script, flags=re.M
    )
    start, listing, rest = script.partition("otus fleet list\n")
    # The calls are placed while the task of the middle command runs.
    before, after = rest.split("otus fleet task status", 1)
    exports = "".join(line + "\n" for line in script.splitlines() if line.startswith("export "))
    variables = environment(tmp_path)
    with TwoHosts(interface="eth0") as hosts:

        def run(commands: str, *, must_succeed: bool = True) -> str:
            done = subprocess.run(
                hosts.inside(hosts.callee, "bash", "-euxo", "pipefail", "-c", commands),
                cwd=root, env=variables, capture_output=True, text=True, check=False, timeout=300,
            )  # fmt: skip
            assert done.returncode == 0 or not must_succeed, done.stdout + done.stderr
            return done.stdout

        listener = hosts.listener(hosts.callee, int(port))
        with Proxy(int(port), int(port), listener):
            try:
                run(start)
                wait_until(
                    lambda: "alive" in run(exports + listing, must_succeed=False),
                    what="a heartbeat",
                )
                run(exports + before)
                hosts.wait_for_capture(hosts.callee, sockets=2)
                with hosts.answering():
                    sent = hosts.call(3)
                messages = read(broker.bootstrap, TOPIC, sent)
                told = run(f"{exports}otus fleet task status{after}")
            finally:
                variables["OTUS_KAFKA__BROKERS"] = broker.bootstrap
                stop = hosts.inside(hosts.callee, "otus", "stop")
                subprocess.run(stop, env=variables, check=False, capture_output=True)
    assert [word for word in ("running", "deleted", "stopping") if word not in told] == []
    assert len(messages) == sent
    records = [json.loads(message.value() or b"") for message in messages]
    assert {record["task_id"] for record in records} == {"sip-kafka"}
    # A call stays in its partition.
    places = {
        (record["labels"]["sip.call_id"], m.partition())
        for record, m in zip(records, messages, strict=True)
    }
    assert len(places) == len({call for call, _ in places}) == 3
