"""An agent that runs beside a test, and the wires over which it gets its frames."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

from agent_fakes import config
from frames import START_NS
from ledger_plugins import registry
from namespaces import TwoHosts
from otus_agent.agent import Agent

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
ANSWER_S = 120.0


def soak_seconds() -> float:
    """How long the soak tests take together (SOAK_SECONDS)."""
    return float(os.environ.get("SOAK_SECONDS", "1800"))


def enter_namespace(name: str) -> None:
    """Moves the calling thread, and the threads that it starts from here on, to a namespace."""
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {name}")
    finally:
        os.close(fd)


def in_namespace(name: str, call: Callable[[], T]) -> T:
    """The result of a call made by a thread in a namespace."""
    found: list[T] = []

    def run() -> None:
        enter_namespace(name)
        found.append(call())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


class AgentThread:
    """An agent on an event loop of its own; every ledger is looked at all the time.

    Attributes:
        found: Imbalances that the look-out saw, whenever that was.
        looks: How often it looked.
        failures: What tests found, the first one first.
    """

    def __init__(self, folder: Path, namespace: str = "") -> None:
        self.found: list[str] = []
        self.looks = 0
        self.failures: list[str] = []
        self._folder = folder
        self._namespace = namespace
        self._ready = threading.Event()
        self._done = asyncio.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agent")
        self._watcher = threading.Thread(target=self._watch, name="look-out")

    def __enter__(self) -> AgentThread:
        self._thread.start()
        assert self._ready.wait(ANSWER_S), "the agent did not start"
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._watcher.join()
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()

    def _run(self) -> None:
        if self._namespace:
            enter_namespace(self._namespace)
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.agent = Agent(config(self._folder, task_restart_delay=0), registry=registry())
        await self.agent.start()
        self._ready.set()
        await self._done.wait()
        await self.agent.stop(10)

    def _watch(self) -> None:
        while not self._closing.wait(0.002):
            for entry in list(dict(self.agent.supervisor.entries).values()):
                task: Any = entry.task
                if task is not None:
                    self.found += task.ledger().imbalances
                    self.looks += 1

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine on the agent's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(ANSWER_S)

    def command(self, name: str, **params: Any) -> Any:
        """What a command answers."""
        return self.run(self.agent.commands.dispatch(name, params))


class FileWire:
    """A capture file that grows and that tasks follow.

    Attributes:
        arrived: Frames that a task over it has to explain.
    """

    live = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._clock_ns = START_NS
        self.begin()

    def begin(self) -> None:
        """A new file."""
        self._number += 1
        self.arrived = 0
        self.path = self._folder / f"wire-{self._number}.pcap"
        self.path.write_bytes(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))

    def step_clock(self, step_ns: int) -> None:
        """The next frames come so much later, or before those that were."""
        self._clock_ns = (self._clock_ns + step_ns) % (2**32 * 10**9)

    def send(self, frames: Iterable[bytes]) -> None:
        """Appends frames, a millisecond apart."""
        octets = []
        for frame in frames:
            self.step_clock(1_000_000)
            seconds, nanoseconds = divmod(self._clock_ns, 10**9)
            octets.append(struct.pack("<IIII", seconds, nanoseconds, len(frame), len(frame)))
            octets.append(frame)
            self.arrived += 1
        with self.path.open("ab") as file:
            file.write(b"".join(octets))

    def capture(self, pipelines: int, blocks: int) -> dict[str, Any]:
        """The capture section of a task on this wire."""
        return {"type": "pcap", "files": [str(self.path)], "follow": True}


class VethWire:
    """A link between two namespaces of its own, with nothing on it but what is sent.

    Attributes:
        arrived: Frames that the driver handed to the other end, by its own count: of
            those that the test sent all, but what was sent while the link was down.
    """

    live = True

    def __init__(self, hosts: TwoHosts) -> None:
        self.hosts = hosts
        self.arrived = 0
        self._socket: socket.socket | None = None
        self._handed_over = 0
        self._open()

    def begin(self) -> None:
        """Nothing is left over from before."""

    def _open(self) -> None:
        def raw_socket() -> socket.socket:
            opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            opened.bind((self.hosts.interface, 0))
            return opened

        self.close()
        self._socket = in_namespace(self.hosts.caller, raw_socket)
        self._handed_over = self._driver_count()

    def close(self) -> None:
        """Lets the link go."""
        if self._socket is not None:
            self._socket.close()

    def _driver_count(self) -> int:
        """What the sending end has handed over, as /proc/net/dev has it (transmit packets)."""
        command = self.hosts.inside(self.hosts.caller, "cat", "/proc/net/dev")
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for line in listed.splitlines():
            name, _, figures = line.partition(":")
            if name.strip() == self.hosts.interface:
                return int(figures.split()[9])
        raise AssertionError(f"no interface {self.hosts.interface}")

    def send(self, frames: Iterable[bytes]) -> None:
        """Sends frames, which get lost while the link is down."""
        assert self._socket is not None
        for frame in frames:
            with contextlib.suppress(OSError):
                self._socket.send(frame)
        count = self._driver_count()
        self.arrived += count - self._handed_over
        self._handed_over = count

    def capture(self, pipelines: int, blocks: int) -> dict[str, Any]:
        """The capture section of a task on this wire."""
        return {
            "type": "afpacket",
            "interface": self.hosts.interface,
            "fanout_size": pipelines,
            "block_octets": 16_384,
            "num_blocks": blocks,
            "retire_timeout": "5ms",
        }

    def set_link(self, state: str) -> None:
        """Takes the capturing end down or up."""
        self._ip("-n", self.hosts.callee, "link", "set", self.hosts.interface, state)
        if state == "up":
            self.hosts.wait_for_link()

    def remove_and_return(self, sockets: int) -> None:
        """Removes the link and makes it anew; returns when that many rings are on it."""
        name = self.hosts.interface
        self._ip("-n", self.hosts.callee, "link", "delete", name)
        self.hosts.link()
        self._open()
        if sockets:
            self.hosts.wait_for_capture(self.hosts.callee, sockets)

    @staticmethod
    def _ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)


Wire = FileWire | VethWire
