"""The whole chain, from a capture to acknowledged by a real broker, on this machine.

    python bench/kafka_chain.py [--packets 1000000] [--value json] [--compression zstd] …
    sudo python bench/kafka_chain.py --live 50000 [--packets 500000] …

A capture of SIP traffic lies in memory (a file in /dev/shm, mapped), a task reads it,
decodes, parses and encodes it, and the kafka reporter sends it to Apache Kafka on the
loopback interface. With --live the same packets are sent over a veth pair, so many a
second, and captured with AF_PACKET. Printed, as JSON with --json:

- packets a second of wall time, and CPU microseconds a packet of this process alone
  (the broker is another process), by thread: where the time goes;
- the same with --stage null: the chain without Kafka, so that the difference is
  what reporting costs;
- latency until acknowledged, p50 and p99 over all packets: live from the kernel's
  timestamp, to the millisecond; else from the hand-over to the reporter, which at full
  speed is what the window holds (with --rate packets are read at that pace);
- CPU microseconds a packet of the others: the broker and, live, the sender, whose
  system calls also carry each frame through the veth pair into the ring;
- live: where packets were lost, if any were.

The lean configuration is `--value raw`; what it and others leave out: docs/operations.md.

From memory, reading is held back while the reporter has more than --window octets, so
that nothing is lost: what is measured is what the chain can carry, not what it can drop.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

import traffic  # noqa: E402 from this folder

from kafka_broker.broker import Broker  # noqa: E402
from namespaces import TwoHosts  # noqa: E402
from otus_agent.bridge import Delivery  # noqa: E402
from otus_agent.config.task import TaskConfig  # noqa: E402
from otus_agent.registry import PluginRegistry  # noqa: E402
from otus_agent.task import Task, TaskEnvironment  # noqa: E402
from otus_plugins.reporter.kafka import outbox  # noqa: E402
from otus_sdk.protocols import ReportResult  # noqa: E402

DISTINCT_PACKETS = 200_000
SETTINGS = (
    "stage", "value", "compression", "acks", "headers", "partitions", "rate", "live",
    "batch_records",
)  # fmt: skip
_TICKS = os.sysconf("SC_CLK_TCK")


def capture_file(packets: int) -> Path:
    """The traffic, repeated; kept in memory over several runs."""
    folder = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())
    path = folder / f"otus-bench-{packets}.pcap"
    if not path.exists():
        frames = traffic.sip_frames(min(packets, DISTINCT_PACKETS))
        whole, rest = divmod(packets, len(frames))
        one = traffic.pcap(frames)
        with path.open("wb") as file:
            file.write(one[:24])
            for _ in range(whole):
                file.write(one[24:])
            file.write(traffic.pcap(frames[:rest])[24:])
    return path


def thread_seconds() -> dict[str, float]:
    """CPU seconds by thread, by Python's name for it where it has one."""
    seconds: dict[str, float] = defaultdict(float)
    names = {str(thread.native_id): thread.name for thread in threading.enumerate()}
    for entry in Path("/proc/self/task").iterdir():
        try:
            text = (entry / "stat").read_text()
        except OSError:
            continue
        name = names.get(entry.name) or text[text.index("(") + 1 : text.rindex(")")]
        user, system = text[text.rindex(")") + 2 :].split()[11:13]
        seconds[name] += (int(user) + int(system)) / _TICKS
    return seconds


def process_seconds(pid: int | None) -> float:
    """CPU seconds of a process; 0 for none."""
    if pid is None:
        return 0.0
    text = Path(f"/proc/{pid}/stat").read_text()
    user, system = text[text.rindex(")") + 2 :].split()[11:13]
    return (int(user) + int(system)) / _TICKS


def children_seconds() -> float:
    """CPU seconds of children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class NullReporter:
    """Takes everything and does nothing."""

    name = "null"

    def __init__(self, wants: frozenset[str]) -> None:
        self.wants = wants

    def init(self, config: Any) -> None: ...

    def start(self) -> None: ...

    def report_batch(self, batch: Any) -> ReportResult:
        return ReportResult(len(batch), {})

    def flush(self) -> None: ...

    def stop(self) -> None: ...


class Meter:
    """Holds reading back, and takes the time of every chunk that is acknowledged."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.window_octets = arguments.window << 20
        self.rate = arguments.rate
        self.live = arguments.live
        self.due = 0.0
        self.latencies: list[tuple[float, float]] = []

    def install(self) -> None:
        put, settle = Delivery.put, outbox.Outbox.settle_reported
        meter = self

        def held_back(delivery: Delivery, batch: Any) -> None:
            put(delivery, batch)
            if meter.live:
                return
            box = getattr(delivery.reporter, "_outbox", None)
            meter.pace(len(batch))
            while delivery._queued_octets + (box.octets if box else 0) > meter.window_octets:
                time.sleep(0.005)  # looking more often would cost what is measured

        def timed(box: outbox.Outbox, item: outbox.Held) -> None:
            settle(box, item)
            if meter.live and isinstance(item, outbox.Chunk):
                # Half of them are nearer to the oldest one, half to the newest.
                now_s, batch = time.time(), item.builder
                for ts_ms in (batch._base_ts_ms, batch._max_ts_ms):
                    meter.latencies.append((now_s - ts_ms / 1000, item.num_records / 2))
            else:
                meter.latencies.append((time.monotonic() - item.born, item.num_records))

        Delivery.put = held_back  # type: ignore[method-assign]
        outbox.Outbox.settle_reported = timed  # type: ignore[method-assign]

    def pace(self, records: int) -> None:
        if self.rate:
            self.due = max(self.due, time.monotonic() - 0.1) + records / self.rate
            time.sleep(max(0.0, self.due - time.monotonic()))

    def percentile(self, part: float) -> float:
        total = sum(number for _, number in self.latencies)
        left = total * part
        for seconds, number in sorted(self.latencies):
            left -= number
            if left <= 0:
                return seconds
        return 0.0


def task_of(arguments: argparse.Namespace, path: Path, bootstrap: str) -> TaskConfig:
    reporter = {
        "type": "kafka",
        "queue_octets": 1 << 30,
        "queue_batches": 4096,
        "config": {
            "brokers": [bootstrap],
            "topic": "otus-bench",
            "value": arguments.value,
            "compression": arguments.compression,
            "acks": arguments.acks,
            "batch_size": arguments.batch_size,
            "flush_interval": arguments.flush_interval,
            "max_batch_octets": arguments.batch_octets,
            "header_labels": ["*"] if arguments.headers == "all" else [],
            "queue_octets": 1 << 30,
        },
    }
    capture: dict[str, Any] = {"type": "pcap", "files": [str(path)]}
    if arguments.live:
        capture = {"type": "afpacket", "interface": arguments.interface}
    return TaskConfig.model_validate(
        {
            "id": "bench",
            "capture": capture,
            "parsers": ["sip"],
            "reporters": [reporter],
            "workers": {"batch_records": arguments.batch_records},
        }
    )


async def measure(
    arguments: argparse.Namespace, bootstrap: str, broker_pid: int | None
) -> dict[str, Any]:
    distinct = min(arguments.packets, DISTINCT_PACKETS)
    path = await asyncio.to_thread(capture_file, distinct if arguments.live else arguments.packets)
    meter = Meter(arguments)
    meter.install()
    config = task_of(arguments, path, bootstrap)
    environment = TaskEnvironment("bench-agent", PluginRegistry.load())
    task = Task(config, environment)
    if arguments.stage == "null":
        import otus_agent.task as module

        module.construct = lambda _: NullReporter(frozenset({arguments.value} - {"raw"}))  # type: ignore[assignment]
    gc.collect()  # as the daemon does
    gc.freeze()
    sender_seconds = 0.0
    threads_before, broker_before = thread_seconds(), process_seconds(broker_pid)
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    await task.start()
    if arguments.live:
        sender_seconds = await asyncio.to_thread(send, arguments, path)
        await asyncio.sleep(1)  # what is in the ring, and the last batch
    else:
        await task.finished.wait()
    await task.stop(60)
    elapsed = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    account = task.deliveries[0].account()
    by_thread = {
        name: seconds - threads_before.get(name, 0) for name, seconds in THREADS.last.items()
    }
    cpu -= by_thread.pop(THREADS.name, 0)
    result = {
        "packets": arguments.packets,
        "reported": account.reported,
        "lost": arguments.packets - account.reported,
        "packets_per_s": round(account.reported / elapsed),
        "cpu_us_per_packet": round(cpu / arguments.packets * 1e6, 3),
        "packets_per_cpu_s": round(arguments.packets / cpu),
        "by_thread_us": {
            name: round(seconds / arguments.packets * 1e6, 3)
            for name, seconds in sorted(by_thread.items(), key=lambda item: -item[1])
            if seconds > 0
        },
        "others_us": {
            name: round(seconds / arguments.packets * 1e6, 3)
            for name, seconds in (
                ("broker", process_seconds(broker_pid) - broker_before),
                ("sender", sender_seconds),
            )
            if seconds > 0
        },
        "ack_ms_p50": round(meter.percentile(0.5) * 1000, 1),
        "ack_ms_p99": round(meter.percentile(0.99) * 1000, 1),
        "max_rss_mib": after.ru_maxrss >> 10,
        "settings": {name: getattr(arguments, name) for name in SETTINGS},
    }
    if arguments.live:
        result["ledger"] = {
            f"{line.name}: {name}": number
            for line in task.ledger().equations
            for name, number in line.parts.items()
            if number
        }
    return result


def send(arguments: argparse.Namespace, path: Path) -> float:
    """Sends the capture's frames from the other namespace, and returns when all are out.

    Returns:
        CPU seconds of the sender.
    """
    program = Path(tempfile.mkdtemp(prefix="otus-bench-")) / "send_frames"
    source = ROOT / "bench" / "core" / "send_frames.c"
    subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", str(source), "-o", str(program)], check=True)
    command = ["ip", "netns", "exec", arguments.sender, str(program), str(path)]
    command += [arguments.interface, str(arguments.live), str(arguments.packets)]
    before = children_seconds()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(program.parent)
    return children_seconds() - before


def run_in_namespace() -> int:
    """Runs this very command in a namespace at one end of a veth pair."""
    with TwoHosts(silent=True) as hosts:
        own = [sys.executable, *sys.argv, "--interface", hosts.interface, "--sender", hosts.caller]
        return subprocess.run(hosts.inside(hosts.callee, *own), check=False).returncode


class THREADS:
    """Threads end before the run does: their last figures are kept."""

    name = "bench-watch"
    last: dict[str, float] = {}  # noqa: RUF012 one process, one run
    stop = threading.Event()

    @classmethod
    def watch(cls) -> None:
        while not cls.stop.wait(0.05):
            for name, seconds in thread_seconds().items():
                cls.last[name] = max(seconds, cls.last.get(name, 0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--packets", type=int, default=500_000)
    parser.add_argument("--stage", choices=("kafka", "null"), default="kafka")
    parser.add_argument("--value", choices=("json", "protobuf", "raw"), default="json")
    parser.add_argument("--compression", default="zstd")
    parser.add_argument("--acks", default="all")
    parser.add_argument("--headers", choices=("all", "none"), default="all")
    parser.add_argument("--partitions", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=500)
    parser.add_argument("--batch-octets", type=int, default=1_000_000)
    parser.add_argument("--flush-interval", default="200ms")
    parser.add_argument("--window", type=int, default=48, help="MiB in the reporter at most")
    parser.add_argument("--rate", type=int, default=0, help="packets a second (0: all it can)")
    parser.add_argument("--live", type=int, default=0, help="send over veth, so many a second")
    parser.add_argument("--interface", default="", help=argparse.SUPPRESS)
    parser.add_argument("--sender", default="", help=argparse.SUPPRESS)
    parser.add_argument("--batch-records", type=int, default=2048, help="of the pipeline")
    parser.add_argument("--kafka", help="host:port of a broker that runs (default: starts one)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.live and not arguments.interface:
        sys.exit(run_in_namespace())
    broker = None
    bootstrap = arguments.kafka or os.environ.get("OTUS_TEST_KAFKA", "")
    if not bootstrap and arguments.stage == "kafka":
        broker = Broker(Path(tempfile.mkdtemp(prefix="otus-bench-")))
        broker.start()
        bootstrap = broker.bootstrap
        from integration.consuming import create_topic

        create_topic(bootstrap, "otus-bench", arguments.partitions)
    threading.Thread(target=THREADS.watch, name=THREADS.name, daemon=True).start()
    try:
        broker_pid = broker.pid if broker is not None else None
        result = asyncio.run(measure(arguments, bootstrap or "127.0.0.1:1", broker_pid))
    finally:
        THREADS.stop.set()
        if broker is not None:
            broker.kill()
    if arguments.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:20} {value}")


if __name__ == "__main__":
    main()
