"""Metrics: names, values, who may read them, and what is gone when a task is."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import socket
import ssl
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from agent_fakes import config
from frames import ethernet, sip, udp, write_pcap
from kafka_broker.certificates import make_certificates
from otus_agent.agent import Agent
from otus_agent.config.metrics import MetricsConfig
from otus_agent.registry import PluginRegistry
from otus_agent.telemetry import Telemetry
from otus_agent.telemetry import endpoint as endpoint_module
from otus_agent.telemetry import telemetry as telemetry_module
from otus_agent.telemetry.endpoint import Endpoint
from otus_agent.telemetry.metrics import METRICS, Kind
from otus_sdk.errors import OtusError
from otus_sdk.factory import PluginFactory, PluginKind
from otus_sdk.model import CaptureStats, RawPacket
from otus_sdk.protocols import PacketSink
from tasks import Plugin
from waiting import wait_until_async


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ends are of this process: when the machine stalls it, nobody is to be cut off."""
    monkeypatch.setattr(endpoint_module, "REQUEST_TIMEOUT_S", 120.0)
    monkeypatch.setattr(endpoint_module._Handler, "timeout", 120.0)
    monkeypatch.setattr(telemetry_module, "LOOP_TIMEOUT_S", 120.0)


Samples = dict[str, dict[frozenset[tuple[str, str]], float]]


def get(port: int, path: str = "/metrics", user: str = "") -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def scrape(telemetry: Telemetry) -> Samples:
    status, text = await asyncio.to_thread(get, telemetry.port)
    assert status == 200
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            series = found.setdefault(sample.name, {})
            series[frozenset(sample.labels.items())] = sample.value
    return found


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get(name, {}).get(frozenset(labels.items()))


def make_agent(folder: Path, **metrics: Any) -> Agent:
    whole = config(folder)
    section = whole.metrics.model_validate({"listen": "127.0.0.1:0", **metrics})
    return Agent(whole.model_copy(update={"metrics": section}))


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    agent = make_agent(tmp_path)
    await agent.start()
    yield agent
    await agent.stop(5)


@pytest.fixture
async def telemetry(agent: Agent) -> AsyncIterator[Telemetry]:
    telemetry = Telemetry(agent)
    await telemetry.start()
    yield telemetry
    await telemetry.stop()


def task(folder: Path, task_id: str = "calls") -> dict[str, Any]:
    """A task that follows a file of three SIP messages and one packet that is none."""
    path = folder / f"{task_id}.pcap"
    payloads = [sip(call_id=f"call-{i}") for i in range(3)] + [b"something else"]
    write_pcap(path, [udp(payload) for payload in payloads])
    return {
        "id": task_id,
        "capture": {"type": "pcap", "files": [str(path)], "follow": True},
        "parsers": ["sip"],
        "reporters": [{"type": "console", "config": {"format": "json"}}],
    }


async def create(agent: Agent, raw: dict[str, Any]) -> None:
    await agent.commands.dispatch("task.create", {"task": raw})
    entry = agent.supervisor.get(raw["id"])

    def all_reported() -> bool:
        return sum(account.reported for account in entry.task.accounts()) == 3  # type: ignore[attr-defined,union-attr]

    await wait_until_async(all_reported, what="three records reported")


async def test_the_names_that_the_specification_fixes(
    agent: Agent, telemetry: Telemetry, tmp_path: Path
) -> None:
    """Names, labels and values of the six fixed metrics, by hand from the four packets."""
    await create(agent, task(tmp_path))
    got = await scrape(telemetry)
    assert value(got, "otus_capture_packets_total", task="calls", interface="pcap") == 4
    assert value(got, "otus_capture_drops_total", task="calls", stage="kernel") == 0
    stages = {"received": 4, "decoded": 4, "parsed": 3, "processed": 3, "reported": 3, "dropped": 1}
    for stage, count in stages.items():
        series = {"task": "calls", "pipeline": "calls-0", "stage": stage}
        assert value(got, "otus_pipeline_packets_total", **series) == count, stage
    assert value(got, "otus_task_status", task="calls", status="running") == 1
    assert value(got, "otus_task_status", task="calls", status="failed") == 0
    assert value(got, "otus_reassembly_active_fragments", task="calls") == 0
    assert (
        value(got, "otus_pipeline_latency_seconds_count", task="calls", stage="decode") is not None
    )
    assert value(got, "otus_ledger_balanced", task="calls") == 1
    unmatched = {"task": "calls", "pipeline": "calls-0", "group": "unmatched", "reason": "dropped"}
    assert value(got, "otus_pipeline_outcomes_total", **unmatched) == 1


def fragment(identification: int, offset: int) -> bytes:
    """An IPv4 fragment of 8 octets, more to come."""
    head = struct.pack(
        "!BBHHHBBH", 0x45, 0, 28, identification, 0x2000 | offset // 8, 64, 17, 0
    ) + bytes((192, 0, 2, 1, 192, 0, 2, 2))
    return ethernet(head + bytes(8))


async def test_fragments_that_wait_are_shown(
    agent: Agent, telemetry: Telemetry, tmp_path: Path
) -> None:
    """Two fragments of one datagram and one of another, none complete; the ledger balances."""
    raw = task(tmp_path)
    waiting = [fragment(1, 0), fragment(1, 16), fragment(2, 8)]
    messages = [udp(sip(call_id=f"call-{i}")) for i in range(3)]
    write_pcap(tmp_path / "calls.pcap", waiting + messages)
    await create(agent, raw)
    got = await scrape(telemetry)
    assert value(got, "otus_reassembly_active_fragments", task="calls") == 3
    assert value(got, "otus_reassembly_active_datagrams", task="calls") == 2
    assert value(got, "otus_ledger_balanced", task="calls") == 1


async def test_a_deleted_task_disappears_and_a_new_one_starts_at_zero(
    agent: Agent, telemetry: Telemetry, tmp_path: Path
) -> None:
    """No series outlives its task, and a task of the same name counts anew."""
    await create(agent, task(tmp_path))
    await scrape(telemetry)
    await agent.commands.dispatch("task.delete", {"id": "calls"})
    got = await scrape(telemetry)
    for name, series in got.items():
        assert not any(("task", "calls") in labels for labels in series), name
    await create(agent, task(tmp_path))
    got = await scrape(telemetry)
    assert value(got, "otus_capture_packets_total", task="calls", interface="pcap") == 4


class FlakyCapturer(Plugin):
    """Captures four frames and fails; the second time it stays."""

    name = "flaky"
    runs: ClassVar[int] = 0

    def init(self, config: Any) -> None:
        self.stopped = threading.Event()

    def stop(self) -> None:
        self.stopped.set()

    def capture(self, output: PacketSink) -> None:
        FlakyCapturer.runs += 1
        output.put([RawPacket(udp(sip(call_id=f"call-{i}")), 10**18 + i) for i in range(4)])
        if FlakyCapturer.runs == 1:
            raise RuntimeError("told to fail")
        self.stopped.wait(120)

    def stats(self) -> CaptureStats:
        return CaptureStats()


async def test_a_restarted_task_counts_from_zero(tmp_path: Path) -> None:
    """What the failed run counted is gone: Prometheus sees a reset, and adds it up once."""
    registry = PluginRegistry.load()
    registry.add(PluginFactory(PluginKind.CAPTURER, "flaky", FlakyCapturer), "tests")
    section = MetricsConfig.model_validate({"listen": "127.0.0.1:0"})
    whole = config(tmp_path).model_copy(update={"metrics": section})
    agent = Agent(whole, registry=registry)
    await agent.start()
    telemetry = Telemetry(agent)
    await telemetry.start()
    try:
        raw = {**task(tmp_path), "capture": {"type": "flaky"}}
        await agent.commands.dispatch("task.create", {"task": raw})

        async def runs_again() -> bool:
            got = await scrape(telemetry)
            captured = value(got, "otus_capture_packets_total", task="calls", interface="flaky")
            running = value(got, "otus_task_status", task="calls", status="running")
            assert captured is None or captured <= 4  # a scrape may come between two frames
            return FlakyCapturer.runs == 2 and running == 1 and captured == 4

        await wait_until_async(runs_again)
        assert agent.supervisor.get("calls").restarts == 1
    finally:
        await telemetry.stop()
        await agent.stop(5)


async def test_every_metric_of_the_table_is_described(agent: Agent, telemetry: Telemetry) -> None:
    """Each metric goes out with the table's help text and kind."""
    await agent.commands.dispatch("status")
    _, text = await asyncio.to_thread(get, telemetry.port)
    described = {
        line.split(" ", 3)[2]: line.split(" ", 3)[3]
        for line in text.splitlines()
        if line.startswith("# HELP ")
    }
    for metric in METRICS:
        if metric.name in described:
            assert described[metric.name] == metric.meaning
    assert "otus_build_info" in described
    assert "otus_command_results_total" in described


async def test_commands_are_counted_by_door_and_outcome(agent: Agent, telemetry: Telemetry) -> None:
    """What succeeded, what failed with which code, and names that do not exist."""
    await agent.commands.dispatch("status")
    for name in ("task.status", "no.such.command"):
        with pytest.raises(OtusError):
            await agent.commands.dispatch(name, {"id": "nobody"})
    got = await scrape(telemetry)
    name = "otus_command_results_total"
    assert value(got, name, command="status", door="local", outcome="ok") == 1
    assert value(got, name, command="task.status", door="local", outcome="task_not_found") == 1
    unknown = [labels for labels in got[name] if ("command", "unknown") in labels]
    assert len(unknown) == 1


async def test_only_the_configured_path_answers(agent: Agent, telemetry: Telemetry) -> None:
    """Metrics under their path, health checks under theirs, nothing elsewhere."""
    assert (await asyncio.to_thread(get, telemetry.port, "/"))[0] == 404
    assert await asyncio.to_thread(get, telemetry.port, "/healthz") == (200, "ok\n")
    assert await asyncio.to_thread(get, telemetry.port, "/readyz") == (200, "ok\n")
    agent.request_shutdown()
    assert await asyncio.to_thread(get, telemetry.port, "/readyz") == (503, "stopping\n")


async def test_connections_that_never_end_make_place_for_a_scrape(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An octet now and then keeps a connection from timing out, but not for ever."""
    monkeypatch.setattr(endpoint_module, "REQUEST_DEADLINE_S", 0.0)
    idle = [socket.create_connection(("127.0.0.1", telemetry.port)) for _ in range(16)]
    for one in idle:
        one.sendall(b"GET /met")

    def scraped() -> bool:
        for one in idle:
            with contextlib.suppress(OSError):
                one.sendall(b"r")
        try:
            return get(telemetry.port)[0] == 200
        except OSError:
            return False

    await wait_until_async(lambda: asyncio.to_thread(scraped))
    for one in idle:
        one.close()


async def test_basic_authentication_guards_the_metrics(tmp_path: Path) -> None:
    """The right name and password get in, nothing else does; health checks need none."""
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    agent = make_agent(
        tmp_path, basic_auth={"username": "prom", "password_file": str(secret)}, path="/m"
    )
    telemetry = Telemetry(agent)
    await telemetry.start()
    try:
        for user, status in (("", 401), ("prom:wrong", 401), ("prom:s3cret", 200)):
            assert (await asyncio.to_thread(get, telemetry.port, "/m", user))[0] == status
        assert (await asyncio.to_thread(get, telemetry.port, "/healthz"))[0] == 200
    finally:
        await telemetry.stop()


async def test_tls_serves_those_whom_the_authority_knows(tmp_path: Path) -> None:
    """With a client authority configured: who has its certificate gets in, nobody else."""
    pem = make_certificates(tmp_path)
    server = {"cert_file": str(pem.server), "key_file": str(pem.server)}
    agent = make_agent(tmp_path, tls={**server, "client_ca_file": str(pem.ca)})
    telemetry = Telemetry(agent)
    await telemetry.start()

    def fetch(context: ssl.SSLContext) -> str:
        url = f"https://127.0.0.1:{telemetry.port}/metrics"
        with urllib.request.urlopen(url, timeout=120, context=context) as answer:
            return str(answer.read().decode())

    try:
        known = ssl.create_default_context(cafile=str(pem.ca))
        with pytest.raises(OSError):
            await asyncio.to_thread(fetch, known)
        known.load_cert_chain(pem.client_cert, pem.client_key)
        assert "otus_build_info" in await asyncio.to_thread(fetch, known)
        with pytest.raises(OSError):
            await asyncio.to_thread(get, telemetry.port)
    finally:
        await telemetry.stop()


async def test_a_certificate_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    lost = tmp_path / "lost.pem"
    telemetry = Telemetry(make_agent(tmp_path, tls={"cert_file": str(lost), "key_file": str(lost)}))
    with pytest.raises(OSError, match=str(lost)):
        await telemetry.start()
    await telemetry.stop()


class Receiver(BaseHTTPRequestHandler):
    """What an OTLP collector is to the agent."""

    requests: ClassVar[list[ExportMetricsServiceRequest]] = []
    tokens: ClassVar[list[str | None]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.requests.append(ExportMetricsServiceRequest.FromString(body))
        self.tokens.append(self.headers.get("x-token"))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002


async def test_metrics_are_pushed_by_otlp(tmp_path: Path) -> None:
    """Counters, gauges and the core's histograms, with the agent's name and the headers."""
    collector = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=collector.serve_forever)
    thread.start()
    endpoint = f"http://127.0.0.1:{collector.server_address[1]}/v1/metrics"
    otlp = {"endpoint": endpoint, "interval": "1s", "headers": {"x-token": "secret"}}
    agent = make_agent(tmp_path, otlp=otlp)
    await agent.start()
    telemetry = Telemetry(agent)
    await telemetry.start()
    try:
        await create(agent, task(tmp_path))

        def pushed() -> dict[str, Any]:
            return {
                metric.name: metric
                for request in list(Receiver.requests)
                for resource in request.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
            }

        def all_there() -> bool:
            metrics = pushed()
            if not {"otus_capture_packets", "otus_reporter_latency_seconds"} <= metrics.keys():
                return False
            return metrics["otus_capture_packets"].sum.data_points[0].as_int == 4

        await wait_until_async(all_there)
        assert "otus_pipeline_latency_seconds" in pushed()
        reported = pushed()["otus_reporter_latency_seconds"].histogram.data_points
        assert [sum(point.bucket_counts) == point.count >= 1 for point in reported] == [True]
        assert set(Receiver.tokens) == {"secret"}
        attributes = Receiver.requests[0].resource_metrics[0].resource.attributes
        names = {one.key: one.value.string_value for one in attributes}
        assert names["service.instance.id"] == "agent-under-test"
    finally:
        await telemetry.stop()
        await agent.stop(5)
        collector.shutdown()
        thread.join()
        collector.server_close()


async def test_stop_is_safe_without_start_and_twice(agent: Agent) -> None:
    """And the port is free again afterwards."""
    telemetry = Telemetry(agent)
    await telemetry.stop()
    await telemetry.start()
    port = telemetry.port
    await telemetry.stop()
    await telemetry.stop()
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(get, port)


def test_names_follow_the_conventions() -> None:
    """Counters end in _total, no metric is listed twice, every one says what it means."""
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.name.startswith("otus_")
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert metric.meaning.endswith(".")


async def test_tasks_come_and_go_while_others_scrape(
    agent: Agent, telemetry: Telemetry, tmp_path: Path
) -> None:
    """Every scrape is whole, whoever else scrapes and whatever is closed meanwhile."""
    await create(agent, task(tmp_path, "stays"))
    done = threading.Event()
    faults: list[str] = []
    scrapes = [0, 0, 0, 0]

    def keep_scraping(number: int) -> None:
        while not done.is_set():
            try:
                status, text = get(telemetry.port)
                families = [family.name for family in text_string_to_metric_families(text)]
                if status != 200 or len(set(families)) != len(families):
                    faults.append(f"{status}, a family twice")
                once = ("otus_build_info", 'otus_ledger_balanced{task="stays"} 1.0')
                faults.extend(name for name in once if text.count(f"\n{name}") != 1)
            except Exception as error:  # noqa: BLE001 whatever it is, it must not be
                faults.append(repr(error))
            scrapes[number] += 1

    scrapers = [threading.Thread(target=keep_scraping, args=(i,)) for i in range(len(scrapes))]
    for scraper in scrapers:
        scraper.start()
    for number in range(15):
        await create(agent, task(tmp_path, f"t{number}"))
        await agent.commands.dispatch("task.delete", {"id": f"t{number}"})
    await wait_until_async(lambda: min(scrapes) >= 3)
    done.set()
    for scraper in scrapers:
        await asyncio.to_thread(scraper.join)
    assert not faults


async def test_a_task_that_cannot_be_read_costs_the_others_nothing(
    agent: Agent, telemetry: Telemetry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its state; everything else is there; the failure is counted."""
    await create(agent, task(tmp_path, "good"))
    await create(agent, task(tmp_path, "bad"))

    def fail() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(agent.supervisor.get("bad").task, "ledger", fail)
    got = await scrape(telemetry)
    assert value(got, "otus_capture_packets_total", task="good", interface="pcap") == 4
    assert value(got, "otus_task_status", task="bad", status="running") == 1
    failures = value(got, "otus_scrape_failures_total")
    assert failures is not None
    assert failures >= 1


async def test_a_scrape_that_fails_says_so_and_the_next_one_works(
    agent: Agent, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 and a log line, no connection that just ends."""

    class Broken:
        def stats(self) -> dict[str, Any]:
            raise RuntimeError("a bug")

    monkeypatch.setattr(agent, "logs", Broken())
    status, text = await asyncio.to_thread(get, telemetry.port)
    assert (status, text) == (500, "failed: the log has the reason\n")
    monkeypatch.undo()
    assert (await asyncio.to_thread(get, telemetry.port))[0] == 200


async def test_a_core_that_is_closed_keeps_its_last_word(
    agent: Agent, telemetry: Telemetry, tmp_path: Path
) -> None:
    """Counters and histograms of several files add up, and never fall when a file ends."""
    raw = task(tmp_path)
    more = write_pcap(tmp_path / "more.pcap", [udp(sip(call_id=f"m{i}")) for i in range(1500)])
    raw["capture"]["files"] = [more, *raw["capture"]["files"]]
    await agent.commands.dispatch("task.create", {"task": raw})
    entry = agent.supervisor.get("calls")

    def all_reported() -> bool:
        return sum(account.reported for account in entry.task.accounts()) == 1503  # type: ignore[attr-defined,union-attr]

    await wait_until_async(all_reported)
    got = await scrape(telemetry)
    decode = {"task": "calls", "stage": "decode"}
    # One packet in 1024 is timed, in each file: one of the first 1500, none of the next four.
    assert value(got, "otus_pipeline_latency_seconds_count", **decode) == 1
    assert value(got, "otus_capture_packets_total", task="calls", interface="pcap") == 1504
    delivered = value(got, "otus_reporter_latency_seconds_count", task="calls", reporter="console")
    assert delivered is not None
    assert delivered >= 2


class Overlapping:
    """A collector that sees whether two collect at once."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.together = threading.Event()

    def collect(self) -> Iterator[Any]:
        self.inside += 1
        self.most = max(self.most, self.inside)
        if self.inside > 1:
            self.together.set()
        self.together.wait(0.3)
        self.inside -= 1
        yield from ()


def test_two_scrapes_at_once_wait_for_each_other() -> None:
    """OpenTelemetry's exporter gives one scrape what another collected, where they may meet."""
    registry, collector = CollectorRegistry(), Overlapping()
    registry.register(collector)
    collector.most = 0
    section = MetricsConfig.model_validate({"listen": "127.0.0.1:0"})
    endpoint = Endpoint(section, registry, contextlib.nullcontext, lambda: "", lambda: "")
    scrapers = [threading.Thread(target=get, args=(endpoint.port,)) for _ in range(3)]
    for scraper in scrapers:
        scraper.start()
    for scraper in scrapers:
        scraper.join()
    endpoint.close()
    assert collector.most == 1
