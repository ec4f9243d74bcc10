"""What one task of defaults takes at most: a daemon with its ring, and every queue full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daemon_process import DaemonProcess, write_config
from frames import sip, udp
from ledger_world import VethWire
from memory_use import peak_octets
from namespaces import TwoHosts
from waiting import wait_until

pytestmark = pytest.mark.root

MAX_RESIDENT_OCTETS = 128 << 20
# As many calls as the call table of defaults has room for, and some.
CALLS = 40_000
# More than a console takes in that time.
BURST = 20_000
REST_S = 120.0
SDP = (
    b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
    b"m=audio 40000 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n"
    b"a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n"
)


def invites(first: int) -> list[bytes]:
    return [
        udp(sip(call_id=f"{number:x}@192.0.2.1", body=SDP))
        for number in range(first, first + BURST)
    ]


@pytest.mark.parametrize(
    "reporter",
    [
        pytest.param({"type": "console"}, id="a console that nobody reads"),
        pytest.param(
            {"type": "kafka", "config": {"brokers": ["127.0.0.1:1"], "topic": "nowhere"}},
            id="brokers that are not there",
        ),
    ],
)
def test_a_task_of_defaults_keeps_within_its_memory(
    network_namespaces: None, tmp_path: Path, reporter: dict[str, Any]
) -> None:
    """However long nothing gets out: queues drop their oldest, and nothing else grows."""
    write_config(tmp_path, log={"level": "error"}, metrics={"enabled": True, "listen": ":0"})
    with TwoHosts(silent=True) as hosts:
        wire = VethWire(hosts)
        with DaemonProcess(tmp_path, fake=False, prefix=hosts.inside(hosts.callee)) as daemon:

            def ok(method: str, **params: Any) -> Any:
                answer = daemon.call(method, **params)
                assert "result" in answer, answer
                return answer["result"]

            def ledger() -> dict[str, Any]:
                found: dict[str, Any] = ok("task.status", id="t")["ledger"]
                assert found["balanced"], found["imbalances"]
                return found

            def all_explained() -> bool:
                capture = ledger()["equations"][0]
                return "waiting" not in capture["parts"] and capture["total"] == wire.arrived

            def lost() -> int:
                parts: dict[str, int] = ledger()["equations"][-1]["parts"]
                return sum(number for name, number in parts.items() if name.startswith("dropped"))

            capture = {"type": "afpacket", "interface": hosts.interface}
            ok("task.create", task={"id": "t", "capture": capture, "reporters": [reporter]})
            sent = 0
            while sent < CALLS or not lost():
                wire.send(invites(sent))
                sent += BURST
                wait_until(all_explained, REST_S, f"{wire.arrived} frames")
            peak = peak_octets(daemon.pid)
            print(f"{sent} frames, at most {peak >> 20} MiB resident")
            assert peak < MAX_RESIDENT_OCTETS
            final = ok("task.delete", id="t", timeout="1s")
            assert final["ledger"]["balanced"], final["ledger"]["imbalances"]
        wire.close()
