"""Opening capture sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from otus_core.native import MESSAGE_OCTETS, check, ffi, lib

Instruction = tuple[int, int, int, int]


class Fanout(IntEnum):
    """How the kernel spreads frames over the sockets of one group (packet(7))."""

    NONE = lib.OTUS_FANOUT_NONE
    HASH = lib.OTUS_FANOUT_HASH
    CPU = lib.OTUS_FANOUT_CPU
    LB = lib.OTUS_FANOUT_LB
    ROLLOVER = lib.OTUS_FANOUT_ROLLOVER
    QM = lib.OTUS_FANOUT_QM


@dataclass(frozen=True, slots=True)
class AfPacketConfig:
    """An AF_PACKET ring.

    Attributes:
        interface: a name, or "any".
        block_octets: octets of one ring block; a power of two, at least a page;
            0 for the core's default, as in the next three.
        num_blocks: blocks in the ring.
        retire_timeout_ms: a block that is not full is handed over after this long.
        snap_len: octets kept of a frame; 0 keeps all.
        promiscuous: see frames that are not for this host.
        hardware_timestamps: take the NIC's clock where it has one.
        wait_for_interface: wait for an interface that is removed to come back;
            otherwise its removal ends the source with an error.
        fanout: how frames are spread over the group's sockets.
        fanout_id: the group; 0 asks the kernel for a free one.
        fanout_program: with HASH: BPF whose result chooses the pipeline.
        bpf: BPF instructions (code, jt, jf, k), attached before the socket is bound.
    """

    interface: str
    block_octets: int = 0
    num_blocks: int = 0
    retire_timeout_ms: int = 0
    snap_len: int = 0
    promiscuous: bool = True
    hardware_timestamps: bool = False
    wait_for_interface: bool = False
    fanout: Fanout = Fanout.NONE
    fanout_id: int = 0
    fanout_program: Sequence[Instruction] = ()
    bpf: Sequence[Instruction] = ()


@dataclass(frozen=True, slots=True)
class FileConfig:
    """A pcap or pcapng file, or a pipe that carries one.

    Attributes:
        fd: read from; the source closes it.
        speed: 0 reads as fast as the pipeline takes frames, 1 keeps the original
            gaps, N divides them.
        follow: wait for more at the end of the file.
        bpf: BPF instructions applied to each frame.
    """

    fd: int
    speed: float = 0.0
    follow: bool = False
    bpf: Sequence[Instruction] = ()


class Capture:
    """An open source. A pipeline takes it over; until then `close()` ends it.

    Lifetime: `keep` holds the octets that the C side borrows.
    """

    def __init__(self, handle: Any, keep: object = None) -> None:
        self.handle = handle
        self.keep = keep

    def fanout_id(self) -> int:
        """Return the fanout group that the kernel gave; 0 where there is none."""
        return int(lib.otus_capture_fanout_id(self.handle))

    def close(self) -> None:
        """End the source; safe twice."""
        if self.handle is not None:
            lib.otus_capture_close(self.handle)
            self.handle = None


def instructions(bpf: Sequence[Instruction]) -> Any:
    """Lay BPF instructions out for C; NULL where there are none."""
    if not bpf:
        return ffi.NULL
    return ffi.new("struct otus_bpf_insn[]", [tuple(instruction) for instruction in bpf])


def _open(function: Any, config: Any, keep: object = None) -> Capture:
    out = ffi.new("struct otus_capture **")
    message = ffi.new("char[]", MESSAGE_OCTETS)
    check(function(out, message, MESSAGE_OCTETS, config), message)
    return Capture(out[0], keep)


def open_afpacket(config: AfPacketConfig) -> Capture:
    """Open a ring on an interface.

    Raises:
        CoreError: no permission, no such interface, a filter that the kernel
            refuses, or not enough memory; one line says which and what to do.
    """
    interface = ffi.new("char[]", config.interface.encode())
    bpf = instructions(config.bpf)
    fanout_program = instructions(config.fanout_program)
    native = ffi.new(
        "struct otus_afpacket_config *",
        {
            "interface": interface,
            "block_octets": config.block_octets,
            "num_blocks": config.num_blocks,
            "retire_timeout_ms": config.retire_timeout_ms,
            "snap_len": config.snap_len,
            "promiscuous": config.promiscuous,
            "hardware_timestamps": config.hardware_timestamps,
            "fanout_mode": int(config.fanout),
            "wait_for_interface": config.wait_for_interface,
            "fanout_id": config.fanout_id,
            "fanout_program": fanout_program,
            "fanout_program_len": len(config.fanout_program),
            "filter": bpf,
            "filter_len": len(config.bpf),
        },
    )
    return _open(lib.otus_capture_open_afpacket, native)


def open_file(config: FileConfig) -> Capture:
    """Open a capture file from a descriptor.

    Raises:
        CoreError: the octets are no capture file.
    """
    bpf = instructions(config.bpf)
    native = ffi.new(
        "struct otus_file_config *",
        {
            "fd": config.fd,
            "filter": bpf,
            "filter_len": len(config.bpf),
            "timing": lib.OTUS_TIMING_PACED if config.speed > 0 else lib.OTUS_TIMING_FAST,
            "speed": config.speed,
            "follow": config.follow,
        },
    )
    return _open(lib.otus_capture_open_file, native)


def open_memory(octets: bytes, loops: int = 1) -> Capture:
    """Read a capture file's octets from memory, several times over.

    Args:
        octets: a whole pcap or pcapng file.
        loops: how often it is played, each time with the same timestamps.

    Raises:
        CoreError: the octets are no capture file.
    """
    pinned = ffi.from_buffer(octets)
    native = ffi.new(
        "struct otus_memory_config *",
        {"octets": pinned, "len": len(octets), "num_loops": loops},
    )
    return _open(lib.otus_capture_open_memory, native, keep=pinned)
