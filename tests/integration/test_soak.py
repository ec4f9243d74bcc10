"""A daemon under traffic and faults for long: its memory stays, its ledger balances.

SOAK_SECONDS tells how long all soak tests together take; half an hour without it.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon_process import DaemonProcess, write_config
from ledger_traffic import KINDS, Traffic
from ledger_world import VethWire, soak_seconds
from namespaces import TwoHosts
from waiting import wait_until

pytestmark = [pytest.mark.soak, pytest.mark.root]

REST_S = 120.0
WARM_UP_TENTHS = 3
MAX_GROWTH_OCTETS = 24 << 20


def live_task(wire: VethWire) -> dict[str, Any]:
    """One live task; one reporter's reader never reads, the other's broker is never there."""
    return {
        "id": "live",
        "capture": wire.capture(1, 64),
        "decoder": {"tunnels": ["vxlan"]},
        "parsers": ["sip", "rtp"],
        "unmatched": "forward",
        "reporters": [
            {"type": "console", "config": {"format": "json", "max_pending_octets": 1 << 20}},
            {
                "type": "kafka",
                "queue_octets": 4 << 20,
                "config": {
                    "brokers": ["127.0.0.1:1"],
                    "topic": "nowhere",
                    "delivery_timeout": "5s",
                    "queue_octets": 4 << 20,
                },
            },
        ],
    }


class Soak:
    """Traffic without end, and in every round a fault."""

    def __init__(self, daemon: DaemonProcess, wire: VethWire) -> None:
        self.daemon = daemon
        self.wire = wire
        self.traffic = Traffic(1)
        self.random = random.Random(1)
        self.rounds = 0
        self.faults: list[Callable[[], None]] = [
            self.link_down_and_up,
            self.link_removed,
            self.reload,
            self.short_task,
            self.flood,
        ]

    def ok(self, method: str, **params: Any) -> Any:
        answer = self.daemon.call(method, **params)
        assert "result" in answer, answer
        return answer["result"]

    def round(self) -> None:
        kinds = self.random.sample(sorted(KINDS), 4)
        for kind in kinds:
            self.wire.send(self.traffic.make(kind, 50))
        self.random.choice(self.faults)()
        self.rounds += 1
        self.check()

    def link_down_and_up(self) -> None:
        self.check()
        self.wire.set_link("down")
        self.wire.send(self.traffic.make("calls", 5))
        self.wire.set_link("up")

    def link_removed(self) -> None:
        self.check()
        self.wire.remove_and_return(1)

    def reload(self) -> None:
        self.daemon.signal(signal.SIGHUP)

    def short_task(self) -> None:
        """Comes and goes, with flows, streams and fragments in hand."""
        task = {**live_task(self.wire), "id": f"short-{self.rounds}"}
        self.ok("task.create", task=task)
        for kind in ("open fragments", "broken streams", "calls"):
            self.wire.send(self.traffic.make(kind, 20))
        final = self.ok("task.delete", id=task["id"], timeout="1s")
        assert final["ledger"]["balanced"], final["ledger"]["imbalances"]

    def flood(self) -> None:
        self.wire.send(self.traffic.make("calls", 50) * 100)

    def check(self) -> None:
        """At rest all that arrived is explained, and at every moment what is there balances."""

        def all_explained() -> bool:
            ledger = self.ok("task.status", id="live")["ledger"]
            assert ledger["balanced"], ledger["imbalances"]
            capture = ledger["equations"][0]
            return "waiting" not in capture["parts"] and capture["total"] == self.wire.arrived

        wait_until(all_explained, REST_S, f"{self.wire.arrived} frames, round {self.rounds}")

    def resident_octets(self) -> int:
        octets: int = self.ok("status")["process"]["resident_octets"]
        return octets


def test_a_daemon_under_traffic_and_faults(network_namespaces: None, tmp_path: Path) -> None:
    write_config(tmp_path, log={"level": "error"})
    begun = time.monotonic()
    seconds = soak_seconds() / 2
    with TwoHosts(silent=True) as hosts:
        wire = VethWire(hosts)
        with DaemonProcess(tmp_path, fake=False, prefix=hosts.inside(hosts.callee)) as daemon:
            soak = Soak(daemon, wire)
            soak.ok("task.create", task=live_task(wire))
            resident: list[int] = []
            for tenth in range(1, 11):
                while time.monotonic() - begun < seconds * tenth / 10:
                    soak.round()
                resident.append(soak.resident_octets())
            print(
                f"{soak.rounds} rounds, {wire.arrived} frames; resident memory in KiB after each "
                f"tenth of the time: {' '.join(str(octets >> 10) for octets in resident)}"
            )
            # The first tenths fill pools, queues and caches up to their bounds.
            assert resident[-1] - resident[WARM_UP_TENTHS] < MAX_GROWTH_OCTETS
            final = soak.ok("task.delete", id="live", timeout="2s")
            assert final["ledger"]["balanced"], final["ledger"]["imbalances"]
            assert daemon.stop() == 0
        wire.close()
