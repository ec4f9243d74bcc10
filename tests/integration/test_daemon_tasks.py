"""The daemon with real tasks: files, interfaces that come and go, brokers that never answer."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import frames
from daemon_process import DaemonProcess, write_config
from free_ports import free_port
from leaks import assert_settles
from loki_server import LokiServer
from namespaces import INTERFACE, TwoHosts
from otus_agent.cli.figures import figures_of
from waiting import wait_until

SENDER = """
import socket, sys
port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
port.bind((sys.argv[1], 0))
port.send(bytes.fromhex(sys.argv[2]))
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    write_config(tmp_path)
    with DaemonProcess(tmp_path, fake=False) as daemon:
        yield daemon


def capture_file(folder: Path, messages: int = 50) -> Path:
    file = folder / "calls.pcap"
    frames.write_pcap(
        file, [frames.udp(frames.sip(call_id=f"call-{number}")) for number in range(messages)]
    )
    return file


def from_file(task_id: str, file: Path, **more: Any) -> dict[str, Any]:
    return {
        "id": task_id,
        "capture": {"type": "pcap", "files": [str(file)], **more},
        "parsers": ["sip"],
        "reporters": [{"type": "console", "config": {}}],
    }


def live(task_id: str, interface: str = "lo") -> dict[str, Any]:
    return {
        "id": task_id,
        "capture": {"type": "afpacket", "interface": interface, "promiscuous": False},
        "reporters": [{"type": "console", "config": {}}],
    }


def ok(answer: dict[str, Any]) -> Any:
    assert "result" in answer, answer
    return answer["result"]


def test_a_file_is_read_to_its_end_and_the_ledger_is_kept(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    ok(daemon.call("task.create", task=from_file("calls", capture_file(tmp_path))))
    wait_until(lambda: not daemon.task_states())
    status = ok(daemon.call("task.status", id="calls"))
    assert status["state"] == "stopped"
    assert status["ledger"]["balanced"] is True
    figures = figures_of(status)
    assert (figures.received, figures.emitted, figures.reported) == (50, 50, 50)
    # What has come to its end does not come back.
    assert daemon.stop() == 0
    with DaemonProcess(tmp_path, fake=False) as again:
        assert again.task_states() == {}
        assert ok(again.call("task.status", id="calls"))["state"] == "stopped"


@pytest.mark.parametrize(
    ("change", "code", "part"),
    [
        ({"capture": {"type": "pcap", "files": ["/none.pcap"]}}, "task_start_failed", "/none.pcap"),
        ({"capture": {"type": "nothing"}}, "plugin_not_found", "no capturer named 'nothing'"),
        ({"parsers": ["sipp"]}, "plugin_not_found", "did you mean 'sip'"),
        ({"capture": {"type": "pcap", "file": "x"}}, "configuration_invalid", "capture.file"),
    ],
)
def test_a_task_that_can_not_start_says_why_in_one_line_and_leaves_nothing(
    daemon: DaemonProcess, tmp_path: Path, change: dict[str, Any], code: str, part: str
) -> None:
    task = {**from_file("x", tmp_path / "calls.pcap"), **change}
    capture_file(tmp_path)
    error = daemon.call("task.create", task=task)["error"]
    assert error["data"]["code"] == code
    assert part in error["message"]
    assert "\n" not in error["message"]
    assert daemon.task_states() == {}
    assert not list((tmp_path / "data" / "tasks").iterdir())


def test_a_reporter_that_never_connects_holds_up_nobody(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen()  # accepts connections and never says a word
    broker = f"127.0.0.1:{silent.getsockname()[1]}"
    task = from_file("calls", capture_file(tmp_path), follow=True)
    config = {"brokers": [broker], "topic": "t", "delivery_timeout": "1h"}
    task["reporters"].append({"type": "kafka", "config": config})
    ok(daemon.call("task.create", task=task))

    def console_has_all() -> bool:
        parts = {
            one["name"]: one["parts"]
            for one in ok(daemon.call("task.status", id="calls"))["ledger"]["equations"]
        }
        return parts["report[console]"].get("reported") == 50

    wait_until(console_has_all)
    # Without the timeout it would wait for the records' own deadline.
    final = ok(daemon.call("task.delete", id="calls", timeout="1s", deadline_s=60))
    assert final["ledger"]["balanced"] is True
    silent.close()


def test_tasks_come_back_after_kill_9_and_run_side_by_side(
    daemon: DaemonProcess, tmp_path: Path
) -> None:
    for number in range(3):
        file = capture_file(tmp_path)
        ok(daemon.call("task.create", task=from_file(f"t{number}", file, follow=True)))
    daemon.kill()
    with DaemonProcess(tmp_path, fake=False) as again:
        wait_until(lambda: set(again.task_states().values()) == {"running"})
        assert set(again.task_states()) == {"t0", "t1", "t2"}
        assert again.stop() == 0


def test_metrics_and_health_are_served_and_survive_a_reload(tmp_path: Path) -> None:
    port = free_port()
    write_config(tmp_path, metrics={"enabled": True, "listen": f"127.0.0.1:{port}"})

    def scrape(path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=300) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    with DaemonProcess(tmp_path, fake=False) as daemon:
        wait_until(lambda: "otus_task_status" in scrape("/metrics") or scrape("/metrics"))
        write_config(
            tmp_path, metrics={"enabled": True, "listen": f"127.0.0.1:{port}", "path": "/other"}
        )
        assert ok(daemon.call("reload", deadline_s=60))["applied"] == ["metrics.path"]
        wait_until(lambda: scrape("/other"))
        assert not scrape("/metrics")
        # An address that is taken leaves the endpoint that is there.
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            write_config(tmp_path, metrics={"enabled": True, "listen": address})
            answer = ok(daemon.call("reload", deadline_s=60))
            assert "metrics" in answer["failed"]
        wait_until(lambda: scrape("/other"))
        assert daemon.stop() == 0


def test_a_metrics_address_that_is_taken_is_told_of_and_tried_again(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack, socket.socket() as taken:
        taken.bind(("127.0.0.1", port := free_port()))
        taken.listen()
        write_config(tmp_path, metrics={"enabled": True, "listen": f"127.0.0.1:{port}"})
        stack.enter_context(daemon := DaemonProcess(tmp_path, fake=False))
        wait_until(lambda: "error" in ok(daemon.call("status")).get("metrics", {}))
        told = ok(daemon.call("status"))["metrics"]["error"]
        assert "Address already in use" in told
        taken.close()
        wait_until(lambda: ok(daemon.call("status"))["metrics"].get("port") == port)
        assert len(daemon.logged("part did not start and is tried again")) == 1


def test_brokers_that_are_away_keep_the_daemon_neither_from_starting_nor_stopping(
    tmp_path: Path,
) -> None:
    write_config(tmp_path, kafka={"brokers": ["127.0.0.1:1"]})
    with DaemonProcess(tmp_path, fake=False) as daemon:
        wait_until(lambda: "kafka" in ok(daemon.call("status")))
        ok(daemon.call("task.create", task=from_file("calls", capture_file(tmp_path))))
        wait_until(lambda: not daemon.task_states())
        assert daemon.stop() == 0


# --- Interfaces ----------------------------------------------------------------


@pytest.fixture
def hosts(network_namespaces: None) -> Iterator[TwoHosts]:
    with TwoHosts() as hosts:
        yield hosts


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _send(hosts: TwoHosts) -> None:
    octets = frames.udp(frames.sip()).hex()
    command = hosts.inside(hosts.caller, sys.executable, "-c", SENDER, INTERFACE, octets)
    with contextlib.suppress(subprocess.CalledProcessError):
        subprocess.run(command, check=True, capture_output=True, timeout=300)


def _reported(daemon: DaemonProcess) -> int:
    return figures_of(ok(daemon.call("task.status", id="live"))).reported


@pytest.mark.root
def test_an_interface_that_goes_and_comes_back_is_captured_on_again(
    hosts: TwoHosts, tmp_path: Path
) -> None:
    write_config(tmp_path)
    prefix = hosts.inside(hosts.callee)
    with DaemonProcess(tmp_path, fake=False, prefix=prefix) as daemon:
        ok(daemon.call("task.create", task=live("live", INTERFACE)))

        def hears_again() -> bool:
            before = _reported(daemon)
            _send(hosts)
            deadline = time.monotonic() + 1
            while time.monotonic() < deadline:
                if _reported(daemon) > before:
                    return True
                time.sleep(0.02)
            return False

        def waits_for(what: str) -> bool:
            return f"waits for {what}" in ok(daemon.call("task.status", id="live"))["notes"]

        wait_until(hears_again)
        _ip("-n", hosts.callee, "link", "set", INTERFACE, "down")
        assert waits_for(f"interface {INTERFACE} to be set up")
        _ip("-n", hosts.callee, "link", "set", INTERFACE, "up")
        wait_until(hears_again)
        _ip("-n", hosts.callee, "link", "delete", INTERFACE)
        assert waits_for(f"interface {INTERFACE} to come back")
        _ip("link", "add", INTERFACE, "netns", hosts.caller, "type", "veth",
            "peer", "name", INTERFACE, "netns", hosts.callee)  # fmt: skip
        for name in (hosts.caller, hosts.callee):
            _ip("-n", name, "link", "set", INTERFACE, "up")
        wait_until(hears_again)
        assert "waits for" not in str(ok(daemon.call("task.status", id="live"))["notes"])
        assert daemon.task_states() == {"live": "running"}
        assert ok(daemon.call("task.status", id="live"))["ledger"]["balanced"] is True
        assert daemon.stop() == 0


@pytest.mark.root
def test_tasks_on_one_interface_each_see_every_packet(hosts: TwoHosts, tmp_path: Path) -> None:
    """Each task has a fanout group of its own: pipelines share packets, tasks do not."""
    write_config(tmp_path)
    with DaemonProcess(tmp_path, fake=False, prefix=hosts.inside(hosts.callee)) as daemon:
        for task_id in ("a", "b"):
            task = live(task_id, INTERFACE)
            task["capture"]["fanout_size"] = 2
            ok(daemon.call("task.create", task=task))
        for _ in range(5):
            _send(hosts)

        def reported(task_id: str) -> int:
            return figures_of(ok(daemon.call("task.status", id=task_id))).reported

        wait_until(lambda: [reported("a"), reported("b")] == [5, 5])
        assert len(ok(daemon.call("task.status", id="a"))["pipelines"]) == 2
        assert daemon.stop() == 0


@pytest.mark.root
def test_a_task_whose_interface_is_not_there_yet_at_the_start_is_brought_back_when_it_is(
    hosts: TwoHosts, tmp_path: Path
) -> None:
    write_config(tmp_path, daemon={"task_restart_delay": "1s"})
    prefix = hosts.inside(hosts.callee)
    with DaemonProcess(tmp_path, fake=False, prefix=prefix) as daemon:
        ok(daemon.call("task.create", task=live("live", INTERFACE)))
        ok(daemon.call("task.create", task=live("other", "lo")))
        assert daemon.stop() == 0
    _ip("-n", hosts.callee, "link", "set", INTERFACE, "name", "elsewhere", "down")
    with DaemonProcess(tmp_path, fake=False, prefix=prefix) as daemon:
        wait_until(lambda: daemon.task_states() == {"live": "failed", "other": "running"})
        rows = {row["id"]: row for row in ok(daemon.call("task.list"))["tasks"]}
        assert INTERFACE in rows["live"]["last_error"]
        _ip("-n", hosts.callee, "link", "set", "elsewhere", "name", INTERFACE, "up")
        wait_until(lambda: daemon.task_states()["live"] == "running")
        daemon.signal(signal.SIGTERM)
        assert daemon.process is not None
        assert daemon.process.wait(120) == 0


@pytest.mark.parametrize("cycles", [60, pytest.param(1_000, marks=pytest.mark.soak)])
def test_real_tasks_leave_no_descriptor_thread_or_memory(
    daemon: DaemonProcess, tmp_path: Path, cycles: int
) -> None:
    file = capture_file(tmp_path, messages=5)

    # Nobody reads what the daemon prints: a full pipe would hold up each stop.
    nothing = [{"type": "filter", "config": {"keep_if": "sip.method == 'NONE'"}}]

    def cycle(number: int) -> None:
        task = {**from_file(f"t{number}", file, follow=True), "processors": nothing}
        ok(daemon.call("task.create", task=task))
        ok(daemon.call("task.delete", id=f"t{number}"))

    def figures() -> dict[str, int]:
        found: dict[str, int] = ok(daemon.call("status"))["process"]
        return found

    def work() -> None:
        for number in range(cycles):
            cycle(number)

    for number in range(30):
        cycle(number)
    assert_settles(figures, work, descriptors=0, threads=1, resident_octets=12_000_000)


# --- Logs that go nowhere ---------------------------------------------------------


def test_a_loki_that_hangs_holds_up_neither_pipelines_nor_the_end(tmp_path: Path) -> None:
    """Every packet is reported, lines beyond the queue are counted, and the daemon stops."""
    loki = LokiServer()
    loki.behaviour.extend(["hang"] * 1_000)
    to_loki = {"type": "loki", "endpoint": loki.url, "queue_size": 20, "flush_interval": "10ms"}
    write_config(tmp_path, log={"outputs": [to_loki]})
    try:
        with DaemonProcess(tmp_path, fake=False) as daemon:
            for number in range(60):
                daemon.call("log.level", level=("info", "debug")[number % 2])
            ok(daemon.call("task.create", task=from_file("calls", capture_file(tmp_path))))
            wait_until(lambda: not daemon.task_states())
            figures = ok(daemon.call("stats"))["logs"][f"loki {loki.url}"]
            assert figures["written"] == 0
            assert figures["queued"] <= 20
            assert figures["dropped_queue"] > 0
            assert figures_of(ok(daemon.call("task.status", id="calls"))).reported == 50
            assert daemon.stop() == 0
    finally:
        loki.released.set()
        loki.close()


# --- A disk that is full ---------------------------------------------------------


class _SmallDisk:
    """A tmpfs of 512 KiB for data and log, in a mount namespace of the daemon's own."""

    PREFIX = ("unshare", "--mount", "sh", "-c",
              'mount -t tmpfs -o size=512k otus-test "$0" && exec "$@"')  # fmt: skip

    def __init__(self, folder: Path) -> None:
        self._mount_point = folder / "disk"
        self._mount_point.mkdir()
        write_config(
            folder,
            daemon={"data_dir": str(self._mount_point / "data")},
            log={"outputs": [{"type": "file", "path": str(self._mount_point / "otus.log")}]},
        )
        self.daemon = DaemonProcess(
            folder, fake=False, prefix=[*self.PREFIX, str(self._mount_point)]
        )

    @property
    def inside(self) -> Path:
        """The disk, seen from outside of the namespace."""
        return Path(f"/proc/{self.daemon.pid}/root") / self._mount_point.relative_to("/")

    def fill(self) -> None:
        with (self.inside / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)

    def make_room(self) -> None:
        (self.inside / "filler").unlink()

    def log_lines(self) -> int:
        """Whole lines in the log; one that the disk had no room for is none."""
        return (self.inside / "otus.log").read_text().count("}\n")


@pytest.mark.root
def test_a_disk_that_is_full_refuses_tasks_and_leaves_the_running_ones_alone(
    network_namespaces: None, tmp_path: Path
) -> None:
    """Data and log directory without a free block: capture goes on, losses are counted,
    and with room again everything works as before, without a restart.
    """
    file = capture_file(tmp_path, messages=5)
    disk = _SmallDisk(tmp_path)
    with disk.daemon as daemon:
        ok(daemon.call("task.create", task=from_file("before", file, follow=True)))
        disk.fill()
        error = daemon.call("task.create", task=from_file("during", file, follow=True))["error"]
        assert error["data"]["code"] == "store_failed"
        assert error["message"].endswith("can't be written: No space left on device")
        assert daemon.task_states() == {"before": "running"}

        def lines_lost() -> int:
            daemon.call("log.level", level="debug")
            daemon.call("log.level", level="info")
            logs = ok(daemon.call("stats"))["logs"]
            return sum(output["dropped_error"] for output in logs.values())

        wait_until(lines_lost)
        more = frames.write_pcap(tmp_path / "more.pcap", [frames.udp(frames.sip())] * 3)
        with file.open("ab") as growing:
            growing.write(Path(more).read_bytes()[24:])

        def reported() -> int:
            return figures_of(ok(daemon.call("task.status", id="before"))).reported

        wait_until(lambda: reported() == 8)
        written = disk.log_lines()
        disk.make_room()
        ok(daemon.call("task.create", task=from_file("after", file, follow=True)))
        ok(daemon.call("task.delete", id="before"))

        wait_until(lambda: lines_lost() and disk.log_lines() > written)
        assert daemon.task_states() == {"after": "running"}
        assert [one.name for one in (disk.inside / "data" / "tasks").iterdir()] == ["after.json"]
