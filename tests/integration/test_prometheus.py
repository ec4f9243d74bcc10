"""A real Prometheus scrapes the agent; its own tools check names, rules and queries."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_fakes import config
from frames import sip, udp, write_pcap
from free_ports import free_port
from otus_agent.agent import Agent
from otus_agent.telemetry import Telemetry
from otus_agent.telemetry.metrics import METRICS, Kind
from waiting import wait_until, wait_until_async

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="needs prometheus and promtool (Debian: prometheus)",
)


def promtool(*arguments: str, octets: bytes = b"") -> str:
    done = subprocess.run(
        ["promtool", *arguments], input=octets, capture_output=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout.decode() + done.stderr.decode()


@contextlib.contextmanager
def running_prometheus(folder: Path, target: int) -> Iterator[int]:
    """A Prometheus that scrapes the port every half second; gives its own port."""
    port = free_port()
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 500ms}\n"
        "scrape_configs:\n"
        "  - job_name: otus\n"
        f"    static_configs: [{{targets: ['127.0.0.1:{target}']}}]\n"
    )
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield port
    finally:
        os.kill(process.pid, signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def query(port: int, expression: str) -> list[dict[str, Any]]:
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return result
    except OSError:
        return []  # not up yet


async def started(folder: Path) -> tuple[Agent, Telemetry]:
    whole = config(folder)
    section = whole.metrics.model_validate({"listen": "127.0.0.1:0"})
    agent = Agent(whole.model_copy(update={"metrics": section}))
    await agent.start()
    telemetry = Telemetry(agent)
    await telemetry.start()
    return agent, telemetry


async def test_a_real_prometheus_scrapes_the_agent(tmp_path: Path) -> None:
    """It is up, it has the packets, and promtool finds nothing wrong with what it was given."""
    path = write_pcap(tmp_path / "calls.pcap", [udp(sip(call_id=f"c{i}")) for i in range(7)])
    agent, telemetry = await started(tmp_path)
    try:
        await agent.commands.dispatch(
            "task.create",
            {
                "task": {
                    "id": "calls",
                    "capture": {"type": "pcap", "files": [path], "follow": True},
                    "parsers": ["sip"],
                    "reporters": ["console"],
                }
            },
        )
        with running_prometheus(tmp_path, telemetry.port) as port:

            def packets() -> list[dict[str, Any]]:
                return query(port, 'otus_pipeline_packets_total{stage="reported"} == 7')

            [series] = await wait_until_async(
                lambda: asyncio.to_thread(packets), what="seven packets in Prometheus"
            )
            assert series["metric"]["task"] == "calls"
            assert series["metric"]["pipeline"] == "calls-0"
            # On a busy machine a scrape may take longer than half a second, and counts as none.
            await wait_until_async(lambda: asyncio.to_thread(query, port, 'up{job="otus"} == 1'))

        def metrics() -> bytes:
            url = f"http://127.0.0.1:{telemetry.port}/metrics"
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=120) as answer:
                return bytes(answer.read())
            return b""  # a client that a busy machine stalls is cut off

        text = await wait_until_async(lambda: asyncio.to_thread(metrics))
        await asyncio.to_thread(promtool, "check", "metrics", octets=text)
    finally:
        await telemetry.stop()
        await agent.stop(5)


def test_alert_rules_fire_when_they_should(root: Path) -> None:
    """promtool's rule tests: each alert on the series that it is for, and not beside them."""
    folder = root / "configs" / "prometheus"
    promtool("check", "rules", str(folder / "otus.rules.yml"))
    promtool("test", "rules", str(folder / "otus.rules.test.yml"))


def known_series() -> set[str]:
    names = {"up"}
    for metric in METRICS:
        if metric.kind is Kind.HISTOGRAM:
            names |= {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
        else:
            names.add(metric.name)
    return names


def expressions(root: Path) -> dict[str, str]:
    """Every query of the dashboard and of the rules, by where it stands."""
    board = json.loads((root / "configs" / "grafana" / "otus.json").read_text(encoding="utf-8"))
    found = {
        f"dashboard: {panel['title']}: {target['refId']}": target["expr"]
        for panel in board["panels"]
        for target in panel["targets"]
    }
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            found[f"dashboard: ${variable['name']}"] = variable["definition"]
    rules = (root / "configs" / "prometheus" / "otus.rules.yml").read_text(encoding="utf-8")
    found["rules"] = rules
    return found


def test_every_query_names_metrics_and_labels_that_exist(root: Path) -> None:
    """A dashboard or a rule over a metric that is not there shows nothing, for ever."""
    known = known_series()
    labels = {label for metric in METRICS for label in metric.labels}
    labels |= {"instance", "job", "le", "severity"}
    for where, expression in expressions(root).items():
        for name in re.findall(r"\b(?:otus_[a-z_]+)\b(?!\.)", expression):
            assert name in known, f"{where}: {name}"
        for selector in re.findall(r"\{([^{}$]*=[^{}]*)\}", expression):
            for label in re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", selector):
                assert label in labels, f"{where}: {label}"


def test_prometheus_parses_every_dashboard_query(root: Path, tmp_path: Path) -> None:
    """Grafana's variables filled in, each expression is valid PromQL."""
    rules = []
    for number, (where, expression) in enumerate(expressions(root).items()):
        if not where.startswith("dashboard: ") or "label_values" in expression:
            continue
        filled = expression.replace("$__rate_interval", "5m").replace("$instance", ".*")
        filled = filled.replace("$task", ".*")
        rules.append(f"      - record: check:{number}\n        expr: {json.dumps(filled)}\n")
    assert len(rules) > 10
    path = tmp_path / "queries.yml"
    path.write_text("groups:\n  - name: check\n    rules:\n" + "".join(rules))
    wait_until(path.exists)
    promtool("check", "rules", str(path))
