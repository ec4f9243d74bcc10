"""The AF_PACKET source on real interfaces: what comes in, what must not, and what it survives."""

from __future__ import annotations

import collections
import contextlib
import re
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import frames as made
from namespaces import CALLEE, CALLER, INTERFACE, TwoHosts
from otus_agent.capture_filter import compile_capture_filter, fanout_program
from waiting import wait_until

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("network_namespaces")]

VLAN_VALID, OUTGOING = 1, 4

# Sends the frames that it reads as lines of hex on an interface.
SENDER = """
import socket, sys
port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
port.bind((sys.argv[1], 0))
for line in sys.stdin:
    count, octets = line.split()
    for _ in range(int(count)):
        port.send(bytes.fromhex(octets))
    print("sent", flush=True)
"""


@pytest.fixture(scope="module")
def dump_program(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """core_c/tests/capture_dump.c, which prints what the source gives."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs a C compiler")
    program = tmp_path_factory.mktemp("capture") / "capture_dump"
    core = root / "core_c"
    sources = [core / "src/bpf.c", core / "src/status.c", *core.glob("src/capture*.c")]
    subprocess.run(
        [compiler, "-std=c11", "-O1", "-D_GNU_SOURCE", f"-I{core}/include", f"-I{core}/src",
         core / "tests/capture_dump.c", *sources, "-o", program],
        check=True,
        timeout=300,
    )  # fmt: skip
    return program


@pytest.fixture
def hosts() -> Iterator[TwoHosts]:
    with TwoHosts() as two:
        # Nothing but the test's own frames: no IPv6 router or neighbour discovery.
        for name in (two.caller, two.callee):
            ip(name, "link", "set", INTERFACE, "arp", "off")
            for scope in ("all", "default"):
                setting = f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"
                subprocess.run(
                    two.inside(name, "sh", "-c", f"[ ! -e {setting} ] || echo 1 > {setting}"),
                    check=True,
                )
        yield two


def ip(name: str, *arguments: str) -> None:
    done = subprocess.run(
        ["ip", "-n", name, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


@dataclass(frozen=True)
class Frame:
    socket: int
    if_index: int
    link_type: int
    caplen: int
    wirelen: int
    vlan_tci: int
    vlan_tpid: int
    flags: int
    ts_ns: int
    octets: bytes

    @classmethod
    def read(cls, line: str) -> Frame:
        *numbers, octets = line.split()[1:]
        return cls(*map(int, numbers), bytes.fromhex(octets))

    @property
    def mark(self) -> bytes:
        """The frame's own text, by which the test knows it again."""
        found = re.search(rb"<[\w-]+>", self.octets)
        return found[0] if found else b""


class Dump:
    """A running capture_dump."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    @property
    def frames(self) -> list[Frame]:
        return [Frame.read(line) for line in list(self.lines) if line.startswith("frame ")]

    def marks(self) -> collections.Counter[bytes]:
        return collections.Counter(frame.mark for frame in self.frames if frame.mark)

    def wait_for(self, *marks: bytes) -> None:
        wait_until(lambda: set(marks) <= set(self.marks()), what=f"{marks} captured")

    def stop(self) -> dict[str, int]:
        """Stops, lets it drain, and returns the sockets' statistics summed."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(120) == 0, self.error()
        self._reader.join(120)
        total: collections.Counter[str] = collections.Counter()
        for line in self.lines:
            if line.startswith("stats "):
                total.update({k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", line)})
        # The ledger: every frame that the filter let pass is somewhere.
        left = total["dropped"] + total["ignored"] + total["waiting"] + total["given"]
        assert total["received"] == left
        assert total["waiting"] == 0
        return dict(total)

    def error(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(120)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


@pytest.fixture
def start(hosts: TwoHosts, dump_program: Path, tmp_path: Path) -> Iterator:
    """Starts capture_dump in a namespace and waits until it captures."""
    running: list[Dump] = []

    def write(name: str, program: Sequence[Sequence[int]]) -> str:
        path = tmp_path / f"{name}-{len(running)}"
        rows = [" ".join(map(str, insn)) for insn in program]
        path.write_text("\n".join([str(len(rows)), *rows, ""]))
        return f"{name}={path}"

    def go(name: str, interface: str, *options: str, bpf=(), program=(), ready=True) -> Dump:
        extra = [*options]
        if bpf:
            extra.append(write("filter", bpf))
        if program:
            extra.append(write("program", program))
        process = subprocess.Popen(
            hosts.inside(name, str(dump_program), interface, *extra),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        dump = Dump(process)
        running.append(dump)
        if ready:
            wait_until(lambda: dump.lines or process.poll() is not None, what="capture ready")
            assert dump.lines, dump.error()
        return dump

    yield go
    for dump in running:
        dump.close()


class Sender:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def send(self, *octets: bytes, count: int = 1) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        for frame in octets:
            self.process.stdin.write(f"{count} {frame.hex()}\n")
            self.process.stdin.flush()
            assert self.process.stdout.readline() == "sent\n"


@contextlib.contextmanager
def sender(hosts: TwoHosts, name: str, interface: str = INTERFACE) -> Iterator[Sender]:
    process = subprocess.Popen(
        hosts.inside(name, sys.executable, "-c", SENDER, interface),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Sender(process)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def udp(mark: str, port: int = 5060, source: int = 5060) -> bytes:
    return made.udp(f"<{mark}>".encode().ljust(40), (CALLER, source), (CALLEE, port))


def tag(frame: bytes, tci: int, tpid: int = 0x8100) -> bytes:
    return frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:]


def test_a_stripped_tag_is_in_the_metadata(hosts, start):
    """The kernel takes the outer tag out of the frame: its TPID and priority are kept."""
    dump = start(hosts.callee, INTERFACE)
    with sender(hosts, hosts.caller) as wire:
        wire.send(
            udp("plain"),
            tag(udp("tagged"), 0x6064),
            tag(udp("service"), 0x0065, 0x88A8),
            tag(tag(udp("both"), 7), 0x0066, 0x88A8),
            tag(udp("zero"), 0),
        )
        dump.wait_for(b"<plain>", b"<tagged>", b"<service>", b"<both>", b"<zero>")
    seen = {frame.mark: frame for frame in dump.frames}
    assert seen[b"<plain>"].flags & VLAN_VALID == 0
    assert seen[b"<tagged>"].vlan_tci == 0x6064
    assert seen[b"<tagged>"].vlan_tpid == 0x8100
    assert seen[b"<tagged>"].octets == udp("tagged")
    assert (seen[b"<service>"].vlan_tci, seen[b"<service>"].vlan_tpid) == (0x65, 0x88A8)
    assert seen[b"<both>"].octets == tag(udp("both"), 7)
    assert seen[b"<zero>"].flags & VLAN_VALID
    assert dump.stop()["given"] == 5


def test_loopback_shows_each_frame_once(hosts, start):
    one, every = start(hosts.callee, "lo"), start(hosts.callee, "any")
    with sender(hosts, hosts.callee, "lo") as wire:
        for number in range(20):
            wire.send(udp(f"lo-{number}"))
    wanted = [f"<lo-{number}>".encode() for number in range(20)]
    one.wait_for(*wanted)
    every.wait_for(*wanted)
    one.stop()
    assert every.stop()["ignored"] >= 20
    for dump in (one, every):
        assert set(dump.marks().values()) == {1}
        assert not [frame for frame in dump.frames if frame.mark and frame.flags & OUTGOING]


def make_device(name: str, *arguments: str) -> None:
    done = subprocess.run(
        ["ip", "-n", name, "link", "add", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"this kernel has no such device: ip link add {' '.join(arguments)}")


def check_cooked(frame: Frame) -> None:
    """Linux cooked v1: type, ARPHRD_ETHER, address length, address, protocol; then IPv4."""
    assert frame.link_type == 113
    assert frame.octets[2:6] == bytes.fromhex("00010006")
    assert frame.octets[14:17] == b"\x08\0\x45"
    assert (frame.caplen, frame.wirelen) == (len(frame.octets),) * 2


def broadcast(frame: bytes) -> bytes:
    """The frame to everyone, with the IPv4 checksum that a bridge's netfilter looks at."""
    head = frame[14:24] + b"\0\0" + frame[26:34]
    return b"\xff" * 6 + frame[6:24] + checksum(head) + frame[26:]


def test_any_shows_what_passes_a_bridge_once_and_cooked(hosts, start):
    """The bridge above a port sees every frame once more."""
    make_device(hosts.callee, "bridge0", "type", "bridge")
    ip(hosts.callee, "link", "set", INTERFACE, "master", "bridge0")
    ip(hosts.callee, "link", "set", "bridge0", "up")
    state = hosts.inside(hosts.callee, "cat", f"/sys/class/net/{INTERFACE}/brport/state")
    wait_until(lambda: subprocess.check_output(state) == b"3\n", what="the port forwards")
    near, far = start(hosts.caller, "any"), start(hosts.callee, "any")
    with sender(hosts, hosts.caller) as wire:
        wire.send(broadcast(udp("one")), broadcast(udp("two")))
    for dump in (near, far):
        dump.wait_for(b"<one>", b"<two>")
        stats = dump.stop()
        assert dump.marks() == {b"<one>": 1, b"<two>": 1}
        assert stats["ignored"] >= (2 if dump is far else 0)
        for frame in dump.frames:
            if frame.mark:
                check_cooked(frame)


def test_any_shows_what_passes_a_vlan_device_once(hosts, start):
    make_device(hosts.callee, "link", INTERFACE, "name", "vlan5", "type", "vlan", "id", "5")
    ip(hosts.callee, "link", "set", "vlan5", "up")
    dump = start(hosts.callee, "any")
    with sender(hosts, hosts.caller) as wire:
        wire.send(tag(udp("in"), 5))
    dump.wait_for(b"<in>")
    with sender(hosts, hosts.callee, "vlan5") as wire:
        wire.send(udp("out"))
    dump.wait_for(b"<out>")
    assert dump.stop()["ignored"] >= 2
    assert dump.marks() == {b"<in>": 1, b"<out>": 1}
    assert {frame.vlan_tci for frame in dump.frames if frame.mark} == {5}


def test_both_ends_of_a_veth_in_one_namespace_are_one_sighting(hosts, start):
    ip(hosts.callee, "link", "add", "left", "type", "veth", "peer", "name", "right")
    for end in ("left", "right"):
        ip(hosts.callee, "link", "set", end, "up")
    dump = start(hosts.callee, "any")
    with sender(hosts, hosts.callee, "left") as wire:
        wire.send(udp("across"))
    dump.wait_for(b"<across>")
    dump.stop()
    assert dump.marks() == {b"<across>": 1}


def test_a_filter_on_any_is_run_over_the_network_layer(hosts, start):
    made_filter = compile_capture_filter("udp port 5060", link_type=113)
    dump = start(hosts.callee, "any", bpf=made_filter.kernel)
    with sender(hosts, hosts.caller) as wire:
        wire.send(udp("wanted"), udp("other", 1, 2), tag(udp("tagged"), 5), udp("last"))
    dump.wait_for(b"<wanted>", b"<tagged>", b"<last>")
    dump.stop()
    assert set(dump.marks()) == {b"<wanted>", b"<tagged>", b"<last>"}


# Makes a tun device and writes what it reads as lines of hex: packets that come in.
TUN = """
import fcntl, os, struct, subprocess, sys
fd = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x0001 | 0x1000))
subprocess.run(["ip", "link", "set", "tun0", "up"], check=True)
print("sent", flush=True)
for line in sys.stdin:
    os.write(fd, bytes.fromhex(line.split()[1]))
    print("sent", flush=True)
"""


def test_a_device_without_link_header_is_cooked_and_filtered(hosts, start):
    if not Path("/dev/net/tun").exists():
        pytest.skip("needs /dev/net/tun")
    process = subprocess.Popen(
        hosts.inside(hosts.callee, sys.executable, "-c", TUN),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "sent\n"
        bpf = compile_capture_filter("udp port 5060", link_type=113).kernel
        dump = start(hosts.callee, "tun0", bpf=bpf)
        Sender(process).send(udp("refused", 1, 2)[14:], udp("wanted")[14:])
        dump.wait_for(b"<wanted>")
        dump.stop()
        assert dump.marks() == {b"<wanted>": 1}
        [frame] = [frame for frame in dump.frames if frame.mark]
        assert frame.link_type == 113
        # ARPHRD_NONE, no address, IPv4.
        assert frame.octets[2:4] == b"\xff\xfe"
        assert frame.octets[14:] == b"\x08\0" + udp("wanted")[14:]
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def test_nothing_unfiltered_slips_in(hosts, start):
    """Frames that the filter refuses flow while sockets are opened, with and without fanout."""
    bpf = compile_capture_filter("udp port 5060").kernel
    stop = threading.Event()
    with sender(hosts, hosts.caller) as wire:

        def flood() -> None:
            while not stop.is_set():
                wire.send(udp("refused", 1, 2), count=200)
                wire.send(udp("wanted"), count=5)

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            for options in [(), ("sockets=2", "fanout=hash")] * 4:
                dump = start(hosts.callee, INTERFACE, *options, bpf=bpf)
                dump.wait_for(b"<wanted>")
                dump.stop()
                assert set(dump.marks()) == {b"<wanted>"}
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize("mode", ["hash", "program", "lb", "cpu", "rollover", "qm"])
def test_fanout_gives_each_frame_to_one_socket(hosts, start, mode):
    program = fanout_program() if mode == "program" else ()
    name = "hash" if mode == "program" else mode
    dump = start(hosts.callee, INTERFACE, "sockets=2", f"fanout={name}", program=program)
    with sender(hosts, hosts.caller) as wire:
        for number in range(200):
            wire.send(udp(f"flow-{number}", source=10000 + number))
    dump.wait_for(*(f"<flow-{number}>".encode() for number in range(200)))
    assert dump.stop()["given"] == 200
    assert set(dump.marks().values()) == {1}
    if mode in ("hash", "program", "lb"):
        assert {frame.socket for frame in dump.frames} == {0, 1}


def test_groups_of_two_tasks_do_not_share_frames(hosts, start):
    """The kernel chooses each group's number; the first of a host is 0, which is none."""
    dumps = [start(hosts.callee, INTERFACE, "sockets=2", "fanout=hash") for _ in range(3)]
    numbers = [int(dump.lines[0].split()[1]) for dump in dumps]
    assert len(set(numbers)) == 3
    assert 0 not in numbers
    with sender(hosts, hosts.caller) as wire:
        for number in range(50):
            wire.send(udp(f"flow-{number}", source=10000 + number))
    for dump in dumps:
        dump.wait_for(*(f"<flow-{number}>".encode() for number in range(50)))
        dump.stop()
        assert set(dump.marks().values()) == {1}


def ipv6_fragments(mark: str, source: str, target: str) -> list[bytes]:
    """One UDP datagram in three fragments; only the first shows ports."""
    payload = f"<{mark}>".encode().ljust(64)
    datagram = struct.pack("!HHHH", 5060, 5060, 8 + len(payload), 0) + payload
    pieces = []
    for offset in range(0, len(datagram), 24):
        more = 1 if offset + 24 < len(datagram) else 0
        piece = struct.pack("!BBHI", 17, 0, offset | more, 77) + datagram[offset : offset + 24]
        pieces.append(made.ethernet(made.ip(piece, source, target, 44)))
    return pieces


def vxlan(inner: bytes, entropy: int) -> bytes:
    """RFC 7348: the source port is the sender's to choose, and so may differ by fragment."""
    return made.udp(b"\x08\0\0\0\0\0\x07\0" + inner, (CALLER, entropy), (CALLEE, 4789))


def test_what_belongs_together_goes_to_one_socket(hosts, start):
    """Both directions, IPv6 fragments beside their flow, and a tunnel's inner fragments."""
    dump = start(
        hosts.callee, INTERFACE, "sockets=4", "fanout=hash", program=fanout_program(["vxlan"])
    )
    together: dict[str, list[bytes]] = {}
    for n in range(24):
        here, there = (f"10.0.{n}.1", 5060 + n), (f"10.0.{n}.2", 7000)
        together[f"flow {n}"] = [made.udp(b"x", here, there), made.udp(b"x", there, here)]
        six, other = f"2001:db8::{n + 1:x}", "2001:db8::ffff"
        together[f"six {n}"] = [
            made.udp(b"x", (six, 5060), (other, 5060)),
            made.udp(b"x", (other, 5061), (six, 5060)),
            *ipv6_fragments(f"six-{n}", six, other),
        ]
        inner = [
            made.udp(b"x", here, there),
            made.udp(b"y", there, here),
            made.udp(b"z", (here[0], 1), (there[0], 2)),
        ]
        together[f"vxlan {n}"] = [vxlan(f, 40000 + k) for k, f in enumerate(inner)]
        together[f"vxlan six {n}"] = [
            vxlan(f, 41000 + k) for k, f in enumerate(ipv6_fragments(f"in-{n}", other, six))
        ]
    sent = [frame for group in together.values() for frame in group]
    with sender(hosts, hosts.caller) as wire:
        wire.send(*sent)
    wait_until(lambda: len(dump.frames) >= len(sent), what="all frames")
    dump.stop()
    at = {frame.octets: frame.socket for frame in dump.frames}
    for name, group in together.items():
        assert len({at[frame] for frame in group}) == 1, name
    assert set(at.values()) == {0, 1, 2, 3}


def test_ipv4_fragments_reach_a_group_as_one_datagram(hosts, start):
    """The kernel puts them together before it chooses: the ports decide, as for their flow."""
    payload = b"<whole>".ljust(3000)
    datagram = struct.pack("!HHHH", 5060, 5060, 8 + len(payload), 0) + payload
    dump = start(hosts.callee, INTERFACE, "sockets=2", "fanout=hash", program=fanout_program())
    with sender(hosts, hosts.caller) as wire:
        for offset in range(0, len(datagram), 1400):
            piece = datagram[offset : offset + 1400]
            more = 0x2000 if offset + 1400 < len(datagram) else 0
            packet = bytearray(made.ip(piece, CALLER, CALLEE, 17))
            packet[6:8] = (more | offset // 8).to_bytes(2)
            packet[10:12] = checksum(bytes(packet[:20]))
            wire.send(made.ethernet(bytes(packet)))
    dump.wait_for(b"<whole>")
    assert dump.stop()["given"] == 1
    assert dump.frames[0].wirelen == 14 + 20 + len(datagram)


def checksum(header: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2)


def test_an_interface_that_goes_down_is_waited_for(hosts, start):
    dump = start(hosts.callee, INTERFACE)
    with sender(hosts, hosts.caller) as wire:
        wire.send(udp("before"))
        dump.wait_for(b"<before>")
        for _ in range(3):
            ip(hosts.callee, "link", "set", INTERFACE, "down")
            ip(hosts.callee, "link", "set", INTERFACE, "up")
        hosts.wait_for_link()
        wire.send(udp("after"))
        dump.wait_for(b"<after>")
    dump.stop()


def test_an_interface_that_is_down_at_first_is_waited_for(hosts, start):
    ip(hosts.callee, "link", "set", INTERFACE, "down")
    dump = start(hosts.callee, INTERFACE)
    ip(hosts.callee, "link", "set", INTERFACE, "up")
    hosts.wait_for_link()
    with sender(hosts, hosts.caller) as wire:
        wire.send(udp("up"))
        dump.wait_for(b"<up>")


def test_a_removed_interface_ends_the_source_with_one_line(hosts, start):
    dump = start(hosts.callee, INTERFACE)
    ip(hosts.callee, "link", "delete", INTERFACE)
    assert dump.process.wait(120) == 1
    assert dump.error() == f"interface {INTERFACE} was removed\n"


@pytest.mark.parametrize("options", [(), ("sockets=3", "fanout=hash")])
def test_a_removed_interface_is_taken_up_when_it_returns(hosts, start, options):
    dump = start(hosts.callee, INTERFACE, "wait=1", *options)
    sockets = 3 if options else 1
    for turn in range(3):
        with sender(hosts, hosts.caller) as wire:
            for number in range(20):
                wire.send(udp(f"{turn}-{number}", source=20000 + number))
            dump.wait_for(*(f"<{turn}-{number}>".encode() for number in range(20)))
        ip(hosts.callee, "link", "delete", INTERFACE)
        hosts.link()
        with sender(hosts, hosts.caller) as wire:
            # Frames are lost until it is noticed, by each socket of the group.
            def noticed(wire: Sender = wire, turn: int = turn) -> bool:
                for number in range(60):
                    wire.send(udp(f"again-{turn}-{number}", source=20000 + number))
                seen = [one for one in dump.frames if b"<again-%d-" % turn in one.octets]
                return {one.socket for one in seen} == set(range(sockets)) and len(
                    {one.mark for one in seen}
                ) == 60

            wait_until(noticed, what="captured again")
    stats = dump.stop()
    assert stats["removals"] == 3 * sockets
    assert all(count == 1 for mark, count in dump.marks().items() if b"again" not in mark)


def promiscuity(hosts: TwoHosts) -> int:
    shown = subprocess.check_output(
        ["ip", "-n", hosts.callee, "-d", "link", "show", INTERFACE], text=True
    )
    found = re.search(r"promiscuity (\d+)", shown)
    assert found, shown
    return int(found[1])


@pytest.mark.parametrize("options", [(), ("sockets=2", "fanout=hash")])
def test_a_killed_capture_leaves_no_promiscuous_interface(hosts, start, options):
    """A membership of the socket ends with it; the interface flag would outlive the process."""
    assert promiscuity(hosts) == 0
    quiet = start(hosts.callee, INTERFACE, "promiscuous=0", *options)
    assert promiscuity(hosts) == 0
    quiet.stop()
    dump = start(hosts.callee, INTERFACE, *options)
    assert promiscuity(hosts) >= 1
    dump.process.kill()
    dump.process.wait(120)
    wait_until(lambda: promiscuity(hosts) == 0, what="no promiscuous mode left")


def test_the_snap_length_cuts_and_the_wire_length_stays(hosts, start):
    dump = start(hosts.callee, INTERFACE, "snap=60")
    with sender(hosts, hosts.caller) as wire:
        wire.send(udp("cut"))
    dump.wait_for(b"<cut>")
    (frame,) = dump.frames
    assert (frame.caplen, frame.wirelen) == (60, len(udp("cut")))
    assert frame.octets == udp("cut")[:60]


def test_a_small_ring_that_overruns_counts_every_frame(hosts, start):
    dump = start(hosts.callee, INTERFACE, "block=4096", "blocks=2", "quiet=1")
    dump.process.send_signal(19)  # SIGSTOP: nobody reads the ring
    with sender(hosts, hosts.caller) as wire:
        wire.send(udp("flood"), count=500)
    dump.process.send_signal(18)
    stats = dump.stop()
    assert stats["received"] == 500
    assert stats["dropped"] > 0
    assert stats["freezes"] > 0


@pytest.mark.parametrize(
    ("interface", "options", "message"),
    [
        ("eht0", (), "no interface eht0; there are: lo, otus0, any"),
        ("lo", ("hardware=1",), "lo gives no hardware timestamps: Operation not supported"),
        ("any", ("hardware=1",), "hardware timestamps need one interface, not any"),
        ("lo", ("block=3000",), "ring blocks of 3000 octets: must be a power of two from 4096 on"),
        ("a-name-that-is-too-long", (), "an interface name has 1 to 15 octets"),
    ],
)
def test_what_cannot_be_opened_says_why_in_one_line(hosts, start, interface, options, message):
    dump = start(hosts.callee, interface, *options, ready=False)
    assert dump.process.wait(120) == 1
    assert dump.error() == message + "\n"


def test_a_program_that_the_kernel_refuses_says_so(hosts, start):
    dump = start(hosts.callee, INTERFACE, bpf=[(21, 0, 0, 5)], ready=False)
    assert dump.process.wait(120) == 1
    assert dump.error() == (
        "the kernel refused the capture filter of 1 instructions: Invalid argument\n"
    )


def test_without_the_capability_one_line_says_what_to_do(hosts, dump_program):
    """CAP_NET_RAW alone is enough, and without it there is a remedy to read."""
    if not shutil.which("setpriv"):
        pytest.skip("needs setpriv (package util-linux)")

    def run(*capabilities: str) -> subprocess.CompletedProcess[str]:
        keep = ",".join(("-all", *capabilities))
        command = ["setpriv", "--reuid=65534", "--clear-groups", f"--inh-caps={keep}",
                   f"--ambient-caps={keep}", str(dump_program), INTERFACE]  # fmt: skip
        return subprocess.run(
            hosts.inside(hosts.callee, *command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    dump_program.chmod(0o755)
    for folder in list(dump_program.parents)[:-2]:
        folder.chmod(folder.stat().st_mode | 0o011)
    refused = run()
    assert refused.returncode == 1
    assert refused.stderr.startswith("no permission to capture on otus0: CAP_NET_RAW is missing")
    assert "setcap cap_net_raw" in refused.stderr
    assert refused.stderr.count("\n") == 1
    allowed = run("+net_raw")
    assert allowed.returncode == 0, allowed.stderr
    assert allowed.stdout.startswith("ready 0\n")
