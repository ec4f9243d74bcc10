"""The ledger, whatever happens: every frame that was sent is explained, at every moment.

A machine of hypothesis' making creates and deletes tasks, sends traffic of all
kinds, overloads rings and queues, lets stages and reporters fail, hang and lie,
and takes the interface away, while another thread looks at the ledger all the
time. Whenever things come to rest, the frames explained are the frames sent.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ledger_plugins import CONTROLS, REPORTER_MOODS, STAGE_MOODS, Control
from ledger_traffic import KINDS, Traffic
from ledger_world import AgentThread, FileWire, VethWire, Wire, in_namespace, soak_seconds
from namespaces import TwoHosts
from otus_agent.ledger import Ledger
from otus_agent.task import Task
from otus_agent.telemetry.metrics import METRICS
from otus_agent.telemetry.reading import Reader
from otus_sdk.model import RawPacket
from waiting import wait_until

MAX_TASKS = 3
REST_S = 200.0
EXAMPLES = 10
SAMPLES = {metric.name: metric.samples for metric in METRICS}

decoders = st.fixed_dictionaries(
    {
        "ip_reassembly": st.sampled_from([True, True, False]),
        "max_datagrams": st.sampled_from([1, 4, 1000]),
        "max_fragments": st.sampled_from([2, 100]),
        "max_datagrams_per_source": st.sampled_from([2, 256]),
        "fragment_timeout": st.sampled_from(["5ms", "1s"]),
        "tunnels": st.sampled_from([[], ["vxlan"]]),
    }
)
streams = st.fixed_dictionaries(
    {
        "tcp_ports": st.sampled_from([[5060], []]),
        "max_streams": st.sampled_from([1, 3, 1024]),
        "max_stream_octets": st.sampled_from([4096, 262144]),
        "max_message_octets": st.sampled_from([1024, 4096]),
        "gap_timeout": st.sampled_from(["5ms", "3s"]),
        "idle_timeout": st.sampled_from(["20ms", "600s"]),
    }
)
choices = st.fixed_dictionaries(
    {
        "decoder": decoders,
        "streams": streams,
        "parsers": st.sampled_from(
            [["sip"], ["sip", "rtp"], ["mine", "sip"], ["sip", "mine"], ["mine"]]
        ),
        "processors": st.lists(
            st.sampled_from(["filter", "label", "unruly", "picky"]), max_size=2, unique=True
        ),
        "reporters": st.lists(
            st.tuples(st.sampled_from(["unruly", "late"]), st.sampled_from([1, 2, 256])),
            min_size=1,
            max_size=3,
        ),
        "unmatched": st.sampled_from(["drop", "forward"]),
        "workers": st.fixed_dictionaries(
            {
                "batch_records": st.sampled_from([1, 7, 4096]),
                "batch_octets": st.sampled_from([262144, 8 << 20]),
            }
        ),
        "faults": st.fixed_dictionaries(
            {
                "on_error": st.sampled_from(["keep", "drop"]),
                "max_consecutive": st.sampled_from([2, 1000]),
                "time_budget": st.just(0),
                "quarantine": st.sampled_from(["bypass", "bypass", "fail"]),
            }
        ),
        "filtered": st.sampled_from([False, False, True]),
        "pipelines": st.sampled_from([1, 1, 2]),
        "blocks": st.sampled_from([2, 64]),
        "listed": st.sampled_from([False, False, True]),
    }
)

_PLUGIN_CONFIG = {
    "filter": {"drop_if": "sip.method == 'OPTIONS' || sip.call_id.endsWith('7')"},
    "label": {"labels": {"site": "lab"}},
}


def task_config(name: str, wire: Wire, chosen: dict[str, Any]) -> dict[str, Any]:
    """A task from what was chosen for it."""
    obey = {"task": name}
    if chosen["listed"]:
        capture: dict[str, Any] = {"type": "list", **obey}
    else:
        capture = wire.capture(chosen["pipelines"], chosen["blocks"])
        if chosen["filtered"]:
            capture["bpf_filter"] = "udp port 5060"
    plain = ("decoder", "streams", "unmatched", "workers", "faults")
    return {
        "id": name,
        "capture": capture,
        "parsers": [
            {"type": parser, "config": obey if parser == "mine" else {}}
            for parser in chosen["parsers"]
        ],
        "processors": [
            {"type": processor, "config": _PLUGIN_CONFIG.get(processor, obey)}
            for processor in chosen["processors"]
        ],
        "reporters": [
            {"type": kind, "config": obey, "queue_batches": batches}
            for kind, batches in chosen["reporters"]
        ],
        "stop_deadline": "20s",
        **{key: chosen[key] for key in plain},
    }


@dataclass(slots=True)
class Watched:
    """A task, and what it has to explain.

    Attributes:
        began: Frames that had arrived on the wire before it.
        exact: The kernel hands it every frame as it is. Where it filters, or
            defragments for a fanout group, only the equations are known.
    """

    name: str
    task: Task
    control: Control
    config: dict[str, Any]
    began: int
    exact: bool

    @property
    def is_running(self) -> bool:
        return str(self.task.state) == "running"


class LedgerMachine(RuleBasedStateMachine):
    """Set `agent` and `wire` in a subclass."""

    agent: AgentThread
    wire: Wire
    serial = 0

    def __init__(self) -> None:
        super().__init__()
        self.watched: dict[str, Watched] = {}
        self.link_is_up = True
        self.story: list[str] = []

    def _must(self, holds: object, *what: object) -> None:
        """Fails with what happened before. Hypothesis, which tries again, may not see it twice."""
        if not holds:
            self.agent.failures.append("\n".join([*self.story, *map(str, what)]))
            raise AssertionError(*what)

    def _command(self, name: str, **params: Any) -> Any:
        try:
            return self.agent.command(name, **params)
        except Exception as error:  # noqa: BLE001 whatever it is, it must not be
            self._must(False, f"{name}: {error!r}")

    def _wait(self, condition: Callable[[], object], *what: object) -> None:
        try:
            wait_until(condition, REST_S)
        except AssertionError:
            ledgers = [one.task.ledger() for one in self.watched.values()]
            self._must(False, "in vain waited for:", *what, "at last:", *ledgers)

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.story.append(f"seed {seed}")
        self.wire.begin()
        self.traffic = Traffic(seed)

    # --- what happens --------------------------------------------------------

    @precondition(lambda self: len(self.watched) < MAX_TASKS and self.link_is_up)
    @rule(chosen=choices)
    def create(self, chosen: dict[str, Any]) -> None:
        LedgerMachine.serial += 1
        name = f"t{LedgerMachine.serial}"
        control = CONTROLS[name] = Control()
        control.released.set()
        config = task_config(name, self.wire, chosen)
        self.story.append(f"create {config}")
        self._command("task.create", task=config)
        task: Any = self.agent.agent.supervisor.get(name).task
        kernel_takes_part = self.wire.live and (chosen["filtered"] or chosen["pipelines"] > 1)
        began = self.wire.arrived if self.wire.live else 0
        exact = chosen["listed"] or not kernel_takes_part
        self.watched[name] = Watched(name, task, control, config, began, exact)

    @rule(
        kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=2, max_size=8),
        count=st.integers(1, 15),
    )
    def send(self, kinds: list[str], count: int) -> None:
        self.story.append(f"send {count} of {kinds}")
        self._send([frame for kind in kinds for frame in self.traffic.make(kind, count)])

    @rule(count=st.sampled_from([500, 3000]))
    def flood(self, count: int) -> None:
        """More than a small ring holds, faster than a slow stage takes it."""
        self.story.append(f"flood of {count}")
        self._send(self.traffic.make("calls", 20) * (count // 20))

    @precondition(lambda self: not self.wire.live)
    @rule(milliseconds=st.sampled_from([-3_600_000, -50, 50, 3_600_000, 10**12]))
    def step_the_clock(self, milliseconds: int) -> None:
        assert isinstance(self.wire, FileWire)
        self.story.append(f"clock steps by {milliseconds} ms")
        self.wire.step_clock(milliseconds * 1_000_000)

    def _send(self, frames: list[bytes]) -> None:
        self.wire.send(frames)
        for one in self._of("list"):
            base = len(one.control.frames)
            one.control.frames += [RawPacket(f, 10**18 + base + i) for i, f in enumerate(frames)]

    def _of(self, kind: str) -> list[Watched]:
        return [one for one in self.watched.values() if one.config["capture"]["type"] == kind]

    @precondition(lambda self: self.watched)
    @rule(data=st.data(), mood=st.sampled_from(REPORTER_MOODS))
    def reporters_become(self, data: st.DataObject, mood: str) -> None:
        one = self._choose(data)
        self.story.append(f"reporters of {one.name} become {mood}")
        one.control.reporter = mood

    @precondition(lambda self: self.watched)
    @rule(data=st.data(), mood=st.sampled_from(STAGE_MOODS))
    def stages_become(self, data: st.DataObject, mood: str) -> None:
        one = self._choose(data)
        self.story.append(f"stages of {one.name} become {mood}")
        one.control.set_stage(mood)

    def _choose(self, data: st.DataObject) -> Watched:
        return self.watched[data.draw(st.sampled_from(sorted(self.watched)))]

    @precondition(lambda self: self.wire.live)
    @rule()
    def link_goes_down_or_up(self) -> None:
        assert isinstance(self.wire, VethWire)
        self._all_received()
        self.link_is_up = not self.link_is_up
        self.story.append(f"link is up: {self.link_is_up}")
        self.wire.set_link("up" if self.link_is_up else "down")

    @precondition(lambda self: self.wire.live and self.link_is_up)
    @rule()
    def link_is_removed_and_returns(self) -> None:
        assert isinstance(self.wire, VethWire)
        self.story.append("link is removed and returns")
        self._come_to_rest()
        rings = sum(len(one.task.workers) for one in self._running("afpacket"))
        self.wire.remove_and_return(rings)

    def _running(self, kind: str) -> list[Watched]:
        return [one for one in self._of(kind) if one.is_running]

    @precondition(lambda self: self.watched)
    @rule(data=st.data(), calm=st.booleans())
    def delete(self, data: st.DataObject, calm: bool) -> None:
        one = self._choose(data)
        self.story.append(f"delete {one.name}, calm: {calm}")
        # Files and plugins are read no further than to where they were stopped; a ring gives all.
        total_known = calm and one.exact and one.is_running
        if calm:
            one.control.calm()
        if total_known and one.config["capture"]["type"] != "afpacket":
            self._wait(lambda: not one.is_running or self._is_explained(one), one.name)
        self._delete(one, "10s" if calm else "200ms")
        if total_known and one.task.last_error is None:
            self._check_total(one, one.task.ledger())

    @precondition(lambda self: self.watched and self.link_is_up)
    @rule(data=st.data(), calm=st.booleans())
    def delete_in_full_traffic(self, data: st.DataObject, calm: bool) -> None:
        one = self._choose(data)
        self.story.append(f"delete {one.name} in full traffic, calm: {calm}")
        frames = self.traffic.make("calls", 40) * 20
        sender = threading.Thread(target=self._send, args=(frames,))
        sender.start()
        if calm:
            one.control.calm()
        self._delete(one, "10s" if calm else "200ms")
        sender.join()

    def _delete(self, one: Watched, timeout: str) -> None:
        del self.watched[one.name]
        final = self._command("task.delete", id=one.name, timeout=timeout)
        self._must(final["ledger"]["balanced"], final["ledger"]["imbalances"])
        # A pipeline that was stuck in a plugin comes out of it later, and its books are right.
        one.control.calm()
        for worker in one.task.workers:
            self._must(worker.ended.wait(REST_S), worker.pipeline_id)
        ledger = one.task.ledger()
        self._must(ledger.balanced, one.name, ledger.imbalances)
        for equation in ledger.equations:
            for part in ("waiting", "queued", "fragments_held", "segments_held", "pending"):
                self._must(part not in equation.parts, f"{one.name} after the end: {equation}")
        del CONTROLS[one.name]

    @rule()
    def rest(self) -> None:
        self._come_to_rest()

    # --- what must hold ------------------------------------------------------

    @invariant()
    def balances_at_every_moment(self) -> None:
        found, self.agent.found = self.agent.found, []
        self._must(not found, *found)
        for one in self.watched.values():
            ledger = one.task.ledger()
            self._must(ledger.balanced, one.name, *ledger.imbalances)

    def _arrived(self, one: Watched) -> int:
        if one.config["capture"]["type"] == "list":
            return len(one.control.frames)
        return self.wire.arrived - one.began

    def _all_received(self) -> None:
        """Waits until each ring has taken in, or dropped, what arrived."""
        for one in self._running("afpacket"):
            if one.exact:
                self._wait(
                    lambda one=one: (
                        not one.is_running
                        or one.task.ledger().equation("capture").total >= self._arrived(one)
                    ),
                    f"{self._arrived(one)} frames received by {one.name}",
                )

    def _come_to_rest(self) -> None:
        for one in self.watched.values():
            one.control.calm()
        self._all_received()
        for one in self._running("afpacket") + self._running("list") + self._running("pcap"):
            # A plugin that is quarantined in what is left to do may end its task.
            self._wait(lambda one=one: not one.is_running or self._is_idle(one), one.name)
            ledger = one.task.ledger()
            self._must(ledger.balanced, one.name, *ledger.imbalances)
            if one.exact:
                self._wait(lambda one=one: not one.is_running or self._is_explained(one), one.name)
                if one.is_running:
                    self._check_total(one, one.task.ledger())
        for one in self.watched.values():
            error = one.task.last_error or ""
            self._must(one.is_running or "plugin" in error, one.name, one.task.state, error)
        self._check_metrics()

    @staticmethod
    def _is_idle(one: Watched) -> bool:
        """Nothing is on its way; a reporter that keeps its own books may hold something."""
        waits = "waiting" in one.task.ledger().equation("capture").parts
        queued = [delivery.account() for delivery in one.task.deliveries]
        return not waits and not any(
            (account.queued and not account.name.startswith("late")) or account.queued_batches
            for account in queued
        )

    def _is_explained(self, one: Watched) -> bool:
        capture = one.task.ledger().equation("capture")
        return capture.total == self._arrived(one) and "waiting" not in capture.parts

    def _check_total(self, one: Watched, ledger: Ledger) -> None:
        capture = ledger.equation("capture")
        self._must(capture.total == self._arrived(one), one.name, self._arrived(one), capture)
        self._must("waiting" not in capture.parts, one.name, capture)

    def _check_metrics(self) -> None:
        reading = Reader(self.agent.agent, max_age_s=0.0).read()
        sums: dict[str, dict[tuple[str, str], float]] = {}
        for name in ("otus_capture_packets_total", "otus_capture_drops_total"):
            for value, labels in SAMPLES[name](reading):
                sums.setdefault(labels[0], {})[name, labels[1]] = value
        for value, (task, _, stage) in SAMPLES["otus_pipeline_packets_total"](reading):
            stages = sums.setdefault(task, {})
            stages["pipeline", stage] = stages.get(("pipeline", stage), 0) + value
        for value, (task,) in SAMPLES["otus_ledger_balanced"](reading):
            self._must(value == 1, f"otus_ledger_balanced of {task} is {value}")
        for one in self.watched.values():
            if one.exact and one.is_running:
                shown = sums[one.name]
                explained = (
                    shown["otus_capture_drops_total", "kernel"] + shown["pipeline", "received"]
                )
                self._must(explained == self._arrived(one), one.name, explained, shown)

    def teardown(self) -> None:
        if isinstance(self.wire, VethWire) and not self.link_is_up:
            self.wire.set_link("up")
        try:
            self._come_to_rest()
        finally:
            for one in list(self.watched.values()):
                one.control.calm()
                self._delete(one, "10s")


def explore(machine: type[LedgerMachine], seconds: float = 0.0) -> None:
    """Runs the machine: the same few examples each time, or for many seconds ever new ones."""
    how = settings(
        max_examples=EXAMPLES,
        stateful_step_count=40 if seconds else 20,
        derandomize=not seconds,
        database=None,
        print_blob=False,
        # Threads and kernels never do the same twice: there is nothing to shrink by.
        phases=[Phase.generate],
    )
    end = time.monotonic() + seconds
    while True:
        try:
            run_state_machine_as_test(machine, settings=how)
        except Exception as error:
            if machine.agent.failures:
                raise AssertionError(machine.agent.failures[0]) from error
            raise
        if time.monotonic() >= end:
            break
    assert machine.agent.looks > 100


@pytest.fixture
def hosts(network_namespaces: None) -> Iterator[TwoHosts]:
    with TwoHosts(silent=True) as two:
        yield two


def explore_files(folder: Path, seconds: float = 0.0) -> None:
    with AgentThread(folder) as running:

        class OverFiles(LedgerMachine):
            agent = running
            wire = FileWire(folder)

        explore(OverFiles, seconds)


def explore_live(hosts: TwoHosts, folder: Path, seconds: float = 0.0) -> None:
    over = VethWire(hosts)
    with AgentThread(folder, hosts.callee) as running:

        class OverVeth(LedgerMachine):
            agent = running
            wire = over

        explore(OverVeth, seconds)
    over.close()


@pytest.mark.timeout(1200)
def test_from_files_every_frame_is_explained(tmp_path: Path) -> None:
    explore_files(tmp_path)


@pytest.mark.root
@pytest.mark.timeout(1200)
def test_live_every_frame_is_explained(hosts: TwoHosts, tmp_path: Path) -> None:
    explore_live(hosts, tmp_path)


@pytest.mark.root
@pytest.mark.parametrize("interface", ["lo", "any"])
def test_a_frame_that_the_socket_shows_twice_counts_once(
    hosts: TwoHosts, tmp_path: Path, interface: str
) -> None:
    """On loopback each frame is seen going out and coming in; the ledger knows of one."""

    def loopback() -> socket.socket:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        opened.bind(("lo", 0))
        return opened

    control = CONTROLS["twice"] = Control()
    with AgentThread(tmp_path, hosts.callee) as running:
        task = {
            "id": "twice",
            "capture": {"type": "afpacket", "interface": interface},
            "reporters": [{"type": "unruly", "config": {"task": "twice"}}],
        }
        running.command("task.create", task=task)
        with in_namespace(hosts.callee, loopback) as sender:
            for frame in Traffic(1).make("calls", 40):
                sender.send(frame)
        entry: Any = running.agent.supervisor.get("twice")
        ledger = entry.task.ledger
        wait_until(lambda: ledger().equation("decode").total == 40, REST_S, ledger())
        running.command("task.delete", id="twice")
    assert control.reporter == "good"
    assert ledger().balanced, ledger().imbalances
    assert ledger().equation("capture").parts == {"dropped[kernel]": 0, "received[frames]": 40}


@pytest.mark.soak
def test_from_files_for_long(tmp_path: Path) -> None:
    explore_files(tmp_path, soak_seconds() / 4)


@pytest.mark.soak
@pytest.mark.root
def test_live_for_long(hosts: TwoHosts, tmp_path: Path) -> None:
    explore_live(hosts, tmp_path, soak_seconds() / 4)
