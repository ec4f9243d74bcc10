"""`otus run` on an interface: real calls, cut and tunnelled messages, and every way to fail."""

from __future__ import annotations

import collections
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import frames as made
from frames import fragments
from namespaces import CALLEE, CALLER, INTERFACE, TwoHosts
from waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("network_namespaces")]

OTUS = [sys.executable, "-m", "otus_agent"]


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    with TwoHosts() as two:
        yield two


class Run:
    """A running `otus run` at the callee, its records and its ledger."""

    def __init__(self, hosts: TwoHosts, folder: Path, prefix: tuple[str, ...] = (), **task) -> None:
        capture = {"type": "afpacket", "interface": INTERFACE, **task.pop("capture", {})}
        self.task = {"id": "live", "capture": capture, "parsers": ["sip"], **task}
        self.task["reporters"] = [{"type": "console", "config": {"format": "json"}}]
        path, self.out = folder / "task.json", folder / "out"
        path.write_text(json.dumps(self.task))
        with self.out.open("w") as out:
            self.process = subprocess.Popen(
                hosts.inside(hosts.callee, *prefix, *OTUS, "run", "-f", str(path), "-o", "json"),
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
            )

    def lines(self) -> list[dict]:
        text = self.out.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def stop(self) -> list[dict]:
        """Ends it; returns its records. The ledger has to balance."""
        self.process.send_signal(signal.SIGINT)
        _, error = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, error
        assert "Traceback" not in error
        *records, status = self.lines()
        assert status["ledger"]["balanced"] is True
        return records

    def fails(self) -> tuple[int, str]:
        _, error = self.process.communicate(timeout=300)
        assert "Traceback" not in error
        return self.process.returncode, error

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def run(hosts: TwoHosts, tmp_path: Path) -> Iterator:
    running: list[Run] = []

    def go(**task) -> Run:
        running.append(Run(hosts, tmp_path, **task))
        return running[-1]

    yield go
    for one in running:
        one.close()


@pytest.mark.parametrize("pipelines", [1, 2])
def test_every_message_of_a_call_is_reported_once_and_in_order(hosts, run, pipelines):
    task = run(capture={"bpf_filter": "udp port 5060", "fanout_size": pipelines})
    hosts.wait_for_capture(hosts.callee, pipelines)
    with hosts.answering():
        sent = hosts.call(20)
        wait_until(lambda: len(task.lines()) >= sent, what="all messages")
    records = task.stop()
    assert len(records) == sent
    calls: dict[str, list[str]] = collections.defaultdict(list)
    for record in records:
        labels = record["labels"]
        calls[labels["sip.call_id"]].append(
            labels.get("sip.method") or labels["sip.status_code"] + labels["sip.cseq_method"]
        )
    assert len(calls) == 20
    for messages in calls.values():
        assert messages == ["INVITE", "180INVITE", "200INVITE", "ACK", "BYE", "200BYE"]


def send(hosts: TwoHosts, octets: list[bytes]) -> None:
    script = (
        "import socket, sys\n"
        "port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\n"
        f"port.bind(({INTERFACE!r}, 0))\n"
        "for line in sys.stdin: port.send(bytes.fromhex(line))\n"
    )
    subprocess.run(
        hosts.inside(hosts.caller, sys.executable, "-c", script),
        input="\n".join(frame.hex() for frame in octets),
        text=True,
        check=True,
        timeout=300,
    )


@pytest.mark.parametrize("pipelines", [1, 3])
def test_no_fragment_tag_or_tunnel_is_lost(hosts, run, pipelines):
    """With a filter that names a port, on several pipelines, each message comes out once."""
    task = run(
        capture={"bpf_filter": "udp port 5060", "fanout_size": pipelines},
        decoder={"tunnels": ["vxlan"]},
    )
    hosts.wait_for_capture(hosts.callee, pipelines)
    octets: list[bytes] = []
    wanted: collections.Counter[str] = collections.Counter()

    def message(name: str, padding: int, source: str, target: str, port: int = 5060) -> bytes:
        wanted[name] += 1
        body = b"v=0\r\n" + b"a=x\r\n" * padding
        return made.udp(made.sip(call_id=name, body=body), (source, 5070), (target, port))[14:]

    for n in range(12):
        four, six = (f"10.1.{n}.1", CALLEE), (f"2001:db8::{n + 1:x}", "2001:db8::ffff")
        for family, (source, target) in (("four", four), ("six", six)):
            for kind, cut in (("whole", 0), ("cut", 400)):
                plain = message(f"{family}-{kind}-{n}", cut, source, target)
                pieces = fragments(plain, n + 1) if cut else [plain]
                octets += [made.ethernet(piece) for piece in pieces]
                tagged = message(f"{family}-{kind}-tag-{n}", cut, source, target)
                pieces = fragments(tagged, 100 + n) if cut else [tagged]
                for piece in pieces:
                    frame = made.ethernet(piece)
                    octets.append(frame[:12] + b"\x81\0\0\5" + frame[12:])
                inner = message(f"{family}-{kind}-vxlan-{n}", cut, source, target)
                pieces = fragments(inner, 200 + n) if cut else [inner]
                for entropy, piece in enumerate(pieces):
                    body = b"\x08\0\0\0\0\0\7\0" + made.ethernet(piece)
                    octets.append(made.udp(body, (CALLER, 40000 + entropy), (CALLEE, 4789)))
    unwanted = made.udp(made.sip(call_id="unwanted"), (CALLER, 5070), (CALLEE, 5999))
    send(hosts, [*octets, unwanted])
    wait_until(lambda: len(task.lines()) >= len(wanted), what="all messages")
    seen = collections.Counter(record["labels"]["sip.call_id"] for record in task.stop())
    assert seen == wanted


def test_down_and_up_again_goes_on(hosts, run):
    task = run(capture={"bpf_filter": "udp port 5060"})
    hosts.wait_for_capture(hosts.callee)
    for turn in range(3):
        frame = made.udp(made.sip(call_id=f"turn-{turn}"), (CALLER, 5070), (CALLEE, 5060))
        hosts.wait_for_link()
        send(hosts, [frame])
        wait_until(lambda turn=turn: len(task.lines()) > turn, what="captured")
        for state in ("down", "up"):
            subprocess.run(["ip", "-n", hosts.callee, "link", "set", INTERFACE, state], check=True)
    assert len(task.stop()) == 3


def test_a_removed_interface_ends_it_with_one_line_where_it_should_not_wait(hosts, run):
    task = run(capture={"wait_for_interface": False})
    hosts.wait_for_capture(hosts.callee)
    send(hosts, [made.udp(made.sip(), (CALLER, 5070), (CALLEE, 5060))])
    wait_until(task.lines, what="captured")
    subprocess.run(["ip", "-n", hosts.callee, "link", "delete", INTERFACE], check=True)
    code, error = task.fails()
    assert code == 1
    assert f"interface {INTERFACE} was removed" in error


@pytest.mark.parametrize(
    ("capture", "code", "words"),
    [
        ({"interface": "eht0"}, 1, "no interface eht0; there are: lo, otus0, any"),
        ({"bpf_filter": "udp prot 5060"}, 5, "syntax error"),
        ({"bpf_filter": "raw:1,21 0 0 5"}, 1, "the kernel refused the capture filter"),
        ({"hardware_timestamps": True}, 1, "gives no hardware timestamps"),
    ],
)
def test_what_cannot_start_says_why_in_one_line(hosts, run, capture, code, words):
    task = run(capture=capture)
    got, error = task.fails()
    assert words in error
    assert len(error.splitlines()) == 1
    assert got == code


def test_without_the_capability_one_line_says_what_to_do(hosts, run):
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv (package util-linux)")
    if not os.access(sys.executable, os.X_OK):
        pytest.skip("needs an interpreter that others may run")
    task = run(prefix=("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"))
    code, error = task.fails()
    assert code == 1
    assert "CAP_NET_RAW is missing" in error
    assert len(error.splitlines()) == 1
