"""Where a task's frames come from: rings, files, and capturers written in Python.

The core reads rings and files by itself. What it can't open, compressed files
and Python capturers, reaches it through a pipe, written by a thread: the
pipeline behind is the same, and so are the results.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import io
import os
import socket
import stat
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import otus_core
from otus_agent.ledger import SourceAccount
from otus_agent.logs.logger import get_logger
from otus_agent.plugin_calls import PLUGIN_STOP_TIMEOUT_S
from otus_agent.registry import one_line
from otus_sdk.errors import PipelineStopped, TaskStartFailed, UnsupportedProtocol
from otus_sdk.factory import NativeStage
from otus_sdk.model import CaptureStats, RawPacket

__all__ = ["FileSource", "PipeSink", "PluginSource", "RingSource", "Source", "make_source"]

log = get_logger("otus.capture")

Instruction = tuple[int, int, int, int]
PIPE_OCTETS = 1 << 20
CHUNK_OCTETS = 1 << 18
PIECE_OCTETS = 1 << 10
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class Source(Protocol):
    """The frames of one task, for one or several pipelines."""

    num_pipelines: int
    can_wait: bool
    """Not live: loses nothing when the pipeline takes its time."""

    def open(self) -> list[Iterator[otus_core.Capture]]:
        """Opens the first capture of each pipeline; more may follow it.

        Raises:
            TaskStartFailed: It can't be opened; one line says why.
        """
        ...

    def start(self) -> None:
        """Lets frames come, where the source has a thread of its own."""

    def stop(self) -> None:
        """Ends a thread of its own; safe twice."""

    def error(self) -> str:
        """What went wrong on the source's side, if anything."""
        ...

    def account(self, core: SourceAccount) -> SourceAccount:
        """The account that the ledger shows, from the one that the core gives."""
        ...


# --- rings -------------------------------------------------------------------

_FANOUT = {
    "none": otus_core.Fanout.NONE,
    "hash": otus_core.Fanout.HASH,
    "cpu": otus_core.Fanout.CPU,
    "lb": otus_core.Fanout.LB,
    "rollover": otus_core.Fanout.ROLLOVER,
    "qm": otus_core.Fanout.QM,
}


# As netdevice(7) has them.
_SIOCGIFFLAGS = 0x8913
_IFF_UP = 1


class RingSource:
    """AF_PACKET rings on one interface, one a pipeline, in one fanout group.

    Args:
        config: The afpacket plugin's native stage.
        bpf: Attached before the sockets are bound.
        fanout: With mode hash: chooses the pipeline of each frame.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        bpf: Sequence[Instruction] = (),
        fanout: Sequence[Instruction] = (),
    ) -> None:
        self._config = config
        self._bpf = tuple(bpf)
        self._fanout = tuple(fanout)
        self.num_pipelines = int(config.get("fanout_size", 1))
        self.can_wait = False
        self.fanout_id = 0

    def open(self) -> list[Iterator[otus_core.Capture]]:
        """Opens all rings, the first one choosing the fanout group."""
        opened: list[otus_core.Capture] = []
        group = int(self._config.get("fanout_id", 0))
        try:
            for _ in range(self.num_pipelines):
                opened.append(self._open_ring(group))
                group = group or opened[0].fanout_id()
        except otus_core.CoreError as error:
            for capture in opened:
                capture.close()
            raise TaskStartFailed(error.message) from error
        self.fanout_id = group
        return [iter([capture]) for capture in opened]

    def waits_for(self) -> str:
        """What has to happen to the interface before frames come again; empty for nothing."""
        name = str(self._config["interface"])
        if name == "any":
            return ""
        request = struct.pack("16sH22x", name.encode(), 0)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
                answer = fcntl.ioctl(probe, _SIOCGIFFLAGS, request)
        except OSError as error:
            return f"interface {name} to come back" if error.errno == errno.ENODEV else ""
        (flags,) = struct.unpack_from("16xH", answer)
        return "" if flags & _IFF_UP else f"interface {name} to be set up"

    def _open_ring(self, group: int) -> otus_core.Capture:
        config = self._config
        mode = _FANOUT[config.get("fanout", "hash")] if self.num_pipelines > 1 else _FANOUT["none"]
        return otus_core.open_afpacket(
            otus_core.AfPacketConfig(
                interface=config["interface"],
                block_octets=config["block_octets"],
                num_blocks=config["num_blocks"],
                retire_timeout_ms=config["retire_timeout_ms"],
                snap_len=config["snap_len"],
                promiscuous=config["promiscuous"],
                hardware_timestamps=config["hardware_timestamps"],
                wait_for_interface=config.get("wait_for_interface", False),
                fanout=mode,
                fanout_id=group,
                fanout_program=self._fanout if mode == otus_core.Fanout.HASH else (),
                bpf=self._bpf,
            )
        )

    def start(self) -> None:
        """Nothing: frames come as soon as a ring is open."""

    def stop(self) -> None:
        """Nothing: the pipeline ends its ring."""

    def error(self) -> str:
        """Nothing: the core tells of the ring's troubles."""
        return ""

    def account(self, core: SourceAccount) -> SourceAccount:
        """The rings' own account."""
        return core


# --- files -------------------------------------------------------------------


class FileSource:
    """Capture files, one after the other, as one pipeline.

    Args:
        config: The pcap plugin's native stage: `files` (paths and patterns),
            `speed` (0: as fast as possible), `follow`.
        bpf: Applied to every frame (a raw filter); usually none.
    """

    num_pipelines = 1
    can_wait = True

    def __init__(self, config: Mapping[str, Any], bpf: Sequence[Instruction] = ()) -> None:
        self._files = list(config["files"])
        self._speed = float(config.get("speed", 0.0))
        self._follow = bool(config.get("follow", False))
        self._bpf = tuple(bpf)
        self._feed: _Feed | None = None
        self._errors: list[str] = []
        self.current = ""
        self.paths: list[str] = []

    def open(self) -> list[Iterator[otus_core.Capture]]:
        """Opens the first file; the others are opened as the one before ends."""
        self.paths = expand(self._files)
        first = self._open_file(self.paths[0])
        return [self._captures(first)]

    def _captures(self, first: otus_core.Capture) -> Iterator[otus_core.Capture]:
        yield first
        for path in self.paths[1:]:
            self._check_feed()
            yield self._open_file(path)
        self._check_feed()

    def _open_file(self, path: str) -> otus_core.Capture:
        self.current = path
        last = path == self.paths[-1]
        try:
            fd = self._descriptor(path)
        except OSError as error:
            raise TaskStartFailed(f"{path}: {error.strerror or error}") from error
        try:
            return otus_core.open_file(
                otus_core.FileConfig(
                    fd, speed=self._speed, follow=self._follow and last, bpf=self._bpf
                )
            )
        except otus_core.CoreError as error:
            self._check_feed()
            raise TaskStartFailed(f"{path}: {error.message}") from error

    def _descriptor(self, path: str) -> int:
        """A descriptor that the core may own: the file's, or a pipe with its octets."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            magic = os.pread(fd, 4, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
            if magic.startswith((GZIP_MAGIC, ZSTD_MAGIC)):
                self._feed = _Feed(path, os.fdopen(fd, "rb", buffering=0), magic)
                return self._feed.start()
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(fd)
            raise
        return fd

    def _check_feed(self) -> None:
        feed, self._feed = self._feed, None
        if feed is not None and (error := feed.finish()):
            self._errors.append(error)
            raise TaskStartFailed(error)

    def start(self) -> None:
        """Nothing: the core reads by itself."""

    def stop(self) -> None:
        """Nothing: the thread that decompresses ends with the pipeline that reads from it."""

    def error(self) -> str:
        """What was wrong with a compressed file; called once its reader has ended."""
        feed, self._feed = self._feed, None
        if feed is not None and (error := feed.finish()):
            self._errors.append(error)
        return "; ".join(self._errors)

    def account(self, core: SourceAccount) -> SourceAccount:
        """The file's own account."""
        return core


def expand(patterns: Sequence[str]) -> list[str]:
    """Paths as they are, patterns as the sorted files that match.

    Raises:
        TaskStartFailed: A pattern matches nothing.
    """
    paths: list[str] = []
    for pattern in patterns:
        if Path(pattern).exists() or not glob.has_magic(pattern):
            paths.append(pattern)
            continue
        found = sorted(glob.glob(pattern))  # noqa: PTH207 the pattern may be absolute
        if not found:
            raise TaskStartFailed(f"{pattern}: no file matches")
        paths += found
    return paths


def _decompressor(magic: bytes) -> Callable[[], Any]:
    """What makes a decompressor of one gzip member or zstd frame."""
    if magic.startswith(GZIP_MAGIC):
        return lambda: zlib.decompressobj(wbits=31)
    try:
        import zstandard
    except ImportError:
        raise UnsupportedProtocol("reading zstd needs the package zstandard") from None
    return lambda: zstandard.ZstdDecompressor().decompressobj()


def _decompressed(file: io.FileIO, magic: bytes) -> Iterator[bytes]:
    """What is compressed in the file, piece by piece, one member or frame after the other.

    Small pieces go in, because a thousand times and more may come out.

    Raises:
        EOFError: The file is cut off; what was there has been given.
    """
    make = _decompressor(magic)
    frame: Any = None
    while chunk := file.read(CHUNK_OCTETS):
        for at in range(0, len(chunk), PIECE_OCTETS):
            octets = chunk[at : at + PIECE_OCTETS]
            if frame is None:
                octets = octets.lstrip(b"\0")  # padding between members
            while octets:
                frame = frame or make()
                yield frame.decompress(octets)
                octets = b""
                if frame.eof:
                    octets, frame = frame.unused_data.lstrip(b"\0"), None
    if frame is not None:
        raise EOFError("the compressed file is cut off")


class _Feed:
    """A thread that decompresses a file into a pipe. Owns the file."""

    def __init__(self, path: str, file: io.FileIO, magic: bytes) -> None:
        self._path = path
        self._file = file
        self._chunks = _decompressed(file, magic)
        self._error = ""
        self._thread = threading.Thread(target=self._run, name="otus-unzip", daemon=True)
        self._write_fd = -1

    def start(self) -> int:
        """Starts it and returns the descriptor to read from."""
        read_fd, self._write_fd = _pipe()
        self._thread.start()
        return read_fd

    def finish(self) -> str:
        """Waits for the end (the reader has closed, or all is read); what went wrong."""
        self._thread.join()
        return self._error

    def _run(self) -> None:
        try:
            with self._file, os.fdopen(self._write_fd, "wb", buffering=0):
                for chunk in self._chunks:
                    _write_all(self._write_fd, chunk)
        except BrokenPipeError:
            pass  # the pipeline has stopped
        except (OSError, EOFError) as error:
            self._error = f"{self._path}: {error}"
        except Exception as error:  # noqa: BLE001 zstandard has an error class of its own
            self._error = f"{self._path}: can't be decompressed: {error}"


def _pipe() -> tuple[int, int]:
    read_fd, write_fd = os.pipe()
    # A larger pipe means fewer switches between threads; not every kernel gives it.
    with contextlib.suppress(OSError, AttributeError):
        import fcntl

        fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, PIPE_OCTETS)
    return read_fd, write_fd


def _write_all(fd: int, octets: bytes | memoryview) -> None:
    view = memoryview(octets)
    while view:
        view = view[os.write(fd, view) :]


# --- capturers in Python -----------------------------------------------------


class PipeSink:
    """Where a Python capturer puts its frames: they go on as pcapng through a pipe.

    Implements `otus_sdk.PacketSink`; `put` may come from any thread.
    """

    def __init__(self, write_fd: int) -> None:
        self._fd = write_fd
        self._lock = threading.Lock()
        self._interfaces: dict[tuple[int, int], int] = {}
        self._rest = b""
        self.accepted = 0
        os.set_blocking(write_fd, True)
        _write_all(write_fd, _SECTION_HEADER)

    def put(self, packets: Iterable[RawPacket], *, block: bool = True) -> int:
        """Takes frames; see `otus_sdk.PacketSink.put`."""
        taken = 0
        with self._lock:
            try:
                for packet in packets:
                    if not self._accept(packet, block=block):
                        break
                    taken += 1
            except (BrokenPipeError, OSError) as error:
                raise PipelineStopped("the pipeline has stopped") from error
        return taken

    def _accept(self, packet: RawPacket, *, block: bool) -> bool:
        # Counted first: the pipeline may have read the frame before write() is back.
        self.accepted += 1
        written = False
        key = (packet.if_index, packet.link_type)
        is_new = key not in self._interfaces
        try:
            written = self._write(self._encode(packet), block=block)
        finally:
            if not written:
                self.accepted -= 1
                if is_new:
                    self._interfaces.pop(key, None)  # nothing told of it
        return written

    def _write(self, octets: bytes, *, block: bool) -> bool:
        """Writes a block; False where that would wait. A block begun is always ended."""
        if block:
            _write_all(self._fd, self._rest + octets)
            self._rest = b""
            return True
        os.set_blocking(self._fd, False)
        try:
            if self._rest:
                self._rest = self._rest[os.write(self._fd, self._rest) :]
                if self._rest:
                    return False
            self._rest = octets[os.write(self._fd, octets) :]
        except BlockingIOError:
            return False
        finally:
            os.set_blocking(self._fd, True)
        return True

    def _encode(self, packet: RawPacket) -> bytes:
        key = (packet.if_index, packet.link_type)
        header = b""
        if key not in self._interfaces:
            self._interfaces[key] = len(self._interfaces)
            header = _interface_block(packet.link_type)
        return header + _packet_block(self._interfaces[key], packet)

    def close(self) -> None:
        """Ends the stream; safe twice."""
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd < 0:
                return
            with contextlib.suppress(OSError):
                _write_all(fd, self._rest)
            os.close(fd)


# https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-02.html, sections 4.1 to 4.3.
_SECTION_HEADER = struct.pack("=IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
_NANOSECONDS = struct.pack("=HHBxxxHH", 9, 1, 9, 0, 0)


def _interface_block(link_type: int) -> bytes:
    length = 20 + len(_NANOSECONDS)
    return (
        struct.pack("=IIHHI", 1, length, link_type, 0, 0) + _NANOSECONDS + struct.pack("=I", length)
    )


def _packet_block(interface: int, packet: RawPacket) -> bytes:
    padding = -len(packet.data) % 4
    length = 32 + len(packet.data) + padding
    head = struct.pack(
        "=IIIIIII",
        6,
        length,
        interface,
        packet.ts_ns >> 32,
        packet.ts_ns & 0xFFFFFFFF,
        len(packet.data),
        packet.wirelen or len(packet.data),
    )
    return head + packet.data + b"\0" * padding + struct.pack("=I", length)


class PluginSource:
    """A capturer written in Python, in a thread of its own.

    Args:
        name: For messages.
        capturer: Initialised.
    """

    num_pipelines = 1

    def __init__(self, name: str, capturer: Any) -> None:
        self._name = name
        self.capturer = capturer
        self.can_wait = bool(getattr(capturer, "can_wait", False))
        self._sink: PipeSink | None = None
        self._error = ""
        self._stats = CaptureStats()
        self._told_of_stats = False
        self._thread = threading.Thread(target=self._run, name="otus-capturer", daemon=True)
        self._stopping: threading.Thread | None = None

    def open(self) -> list[Iterator[otus_core.Capture]]:
        """Opens the pipe between the capturer and the core."""
        read_fd, write_fd = _pipe()
        self._sink = PipeSink(write_fd)
        try:
            return [iter([otus_core.open_file(otus_core.FileConfig(read_fd))])]
        except otus_core.CoreError as error:
            self._sink.close()
            raise TaskStartFailed(f"capturer {self._name!r}: {error.message}") from error

    def start(self) -> None:
        """Starts capturing."""
        self._thread.start()

    def stop(self) -> None:
        """Asks the capturer to return; the thread then ends the stream. Safe twice."""
        if self._stopping is None:
            self._stopping = threading.Thread(target=self._stop, name="otus-stop", daemon=True)
            self._stopping.start()
            self._stopping.join(PLUGIN_STOP_TIMEOUT_S)
            if self._stopping.is_alive():
                late = f"it took longer than {PLUGIN_STOP_TIMEOUT_S:g} s"
                log.error("capturer: stop failed", capturer=self._name, reason=late)
        if not self._thread.ident and self._sink is not None:
            self._sink.close()

    def _stop(self) -> None:
        try:
            self.capturer.stop()
        except Exception as error:  # noqa: BLE001 a plugin may raise anything
            log.error("capturer: stop failed", capturer=self._name, reason=one_line(error))

    def _run(self) -> None:
        sink = self._sink
        assert sink is not None  # noqa: S101 open() comes before start()
        try:
            self.capturer.capture(sink)
        except PipelineStopped:
            pass
        except Exception as error:
            self._error = f"capturer {self._name!r} failed: {one_line(error)}"
            log.exception("capturer failed", capturer=self._name, reason=one_line(error))
        finally:
            sink.close()

    def error(self) -> str:
        """What the capturer raised."""
        return self._error

    def account(self, core: SourceAccount) -> SourceAccount:
        """The capturer's own account, its losses before the pipe included."""
        stats = self._last_stats()
        accepted = self._sink.accepted if self._sink is not None else 0
        return SourceAccount(
            # The pipe's count is exact; what the capturer says of losses is added.
            received=accepted + stats.dropped,
            dropped=stats.dropped,
            interface_dropped=stats.interface_dropped,
            # What was still in the pipe when the task was stopped.
            left=accepted - core.received if core.ended else 0,
            ended=core.ended,
        )

    def _last_stats(self) -> CaptureStats:
        """What the capturer says; what it said before, where it says nothing that can be read."""
        try:
            stats = self.capturer.stats()
            if not isinstance(stats, CaptureStats):
                raise TypeError(f"stats() must give CaptureStats, not {stats!r:.80}")
            self._stats = stats
        except Exception as error:  # noqa: BLE001 a plugin may raise anything
            if not self._told_of_stats:
                self._told_of_stats = True
                log.error("capturer: stats raised", capturer=self._name, reason=one_line(error))
        return self._stats


@dataclass(frozen=True, slots=True)
class Filters:
    """The operator's capture filter, compiled.

    Attributes:
        kernel: Attached to the socket: lets fragments, VLANs and tunnels pass.
        exact: Run on the innermost datagram.
        exact_view: What of the packet it is shown.
        fanout: Chooses the pipeline of each frame.
        note: What the operator should know about it; may be empty.
    """

    kernel: tuple[Instruction, ...] = ()
    exact: tuple[Instruction, ...] = ()
    exact_view: otus_core.ExactView = otus_core.ExactView.INNER
    fanout: tuple[Instruction, ...] = ()
    note: str = ""


def make_source(native: NativeStage, filters: Filters) -> Source:
    """A source that the core runs.

    Raises:
        TaskStartFailed: The core knows no such source.
    """
    if native.kind == "afpacket":
        return RingSource(native.config, filters.kernel, filters.fanout)
    if native.kind == "file":
        return FileSource(native.config, filters.kernel)
    raise TaskStartFailed(f"the core has no capture source {native.kind!r}")
