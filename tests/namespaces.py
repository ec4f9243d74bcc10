"""Two hosts on one machine: network namespaces joined by a veth pair, and real SIP calls."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import pytest

from waiting import wait_until

# RFC 5737 sets these addresses aside for examples.
CALLER, CALLEE = "192.0.2.1", "192.0.2.2"
INTERFACE = "otus0"
# INVITE, 180, 200, ACK, BYE, 200: what sipp's built-in scenario sends for a call.
MESSAGES_A_CALL = 6

# Nothing is sent twice: a busy machine may answer later than SIP's first timer, 500 ms.
_SIPP = ("-nostdin", "-nr")

_CLONE_NEWNET = 0x40000000  # sched.h; os.setns came with Python 3.12
_serial = itertools.count()


class TwoHosts:
    """The namespaces `caller` and `callee`; both call their end of the link `interface`.

    Args:
        interface: its name at both ends.
        silent: the ends have no addresses, so that neither kernel ever sends a frame.
    """

    def __init__(self, interface: str = INTERFACE, *, silent: bool = False) -> None:
        self.interface = interface
        self.silent = silent
        tag = f"{os.getpid()}-{next(_serial)}"
        self.caller, self.callee = f"otus-a-{tag}", f"otus-b-{tag}"

    def __enter__(self) -> TwoHosts:
        for name in (self.caller, self.callee):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
            if self.silent:
                set_to_1 = "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"
                subprocess.run(self.inside(name, "sh", "-c", set_to_1), check=True)
        self.link()
        return self

    def link(self) -> None:
        """Makes the link; also again, where it was removed."""
        _ip("link", "add", self.interface, "netns", self.caller, "type", "veth",
            "peer", "name", self.interface, "netns", self.callee)  # fmt: skip
        for name, address in ((self.caller, CALLER), (self.callee, CALLEE)):
            if not self.silent:
                _ip("-n", name, "address", "add", f"{address}/24", "dev", self.interface)
            _ip("-n", name, "link", "set", self.interface, "up")
        self.wait_for_link()

    def wait_for_link(self) -> None:
        """Waits until both ends, which are up, send and receive.

        The kernel looks at a carrier that came back from a thread of its own (operational
        state, RFC 2863); until then what is sent is dropped.
        """

        def is_up(name: str) -> bool:
            command = ["ip", "-n", name, "-j", "link", "show", self.interface]
            shown = subprocess.run(command, capture_output=True, text=True, check=True)
            return str(json.loads(shown.stdout)[0]["operstate"]) == "UP"

        for name in (self.caller, self.callee):
            wait_until(lambda name=name: is_up(name), what=f"link in {name}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in (self.caller, self.callee):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    def inside(self, name: str, *command: str) -> list[str]:
        """Returns the command line that runs `command` in a namespace."""
        return ["ip", "netns", "exec", name, *command]

    def listener(self, name: str, port: int) -> socket.socket:
        """Returns a socket that listens on 127.0.0.1:port of a namespace, for use out here."""
        libc = ctypes.CDLL(None, use_errno=True)

        def listen() -> socket.socket:
            with Path(f"/run/netns/{name}").open() as namespace:
                if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"setns {name}")
            made = socket.create_server(("127.0.0.1", port))
            made.setblocking(False)
            return made

        # A namespace is entered by one thread, which ends with it.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(listen).result()

    def wait_for_capture(self, name: str, sockets: int = 1) -> None:
        """Waits until a namespace has that many packet sockets bound and receiving."""

        def ready() -> bool:
            listed = subprocess.run(
                self.inside(name, "cat", "/proc/net/packet"),
                capture_output=True,
                text=True,
                check=False,
            )
            # sk RefCnt Type Proto Iface R ...: spare sockets have no protocol yet.
            rows = [row.split() for row in listed.stdout.splitlines()[1:]]
            return sum(row[3] == "0003" and row[5] == "1" for row in rows) >= sockets

        wait_until(ready, what=f"{sockets} packet sockets in {name}")

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """A sipp that takes calls at the callee."""
        if not shutil.which("sipp"):
            pytest.skip("needs sipp (package sip-tester)")
        command = self.inside(self.callee, "sipp", "-sn", "uas", "-i", CALLEE, *_SIPP)
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def listening() -> bool:
            assert process.poll() is None, "sipp ended"
            listed = subprocess.run(
                self.inside(self.callee, "cat", "/proc/net/udp"),
                capture_output=True,
                text=True,
                check=False,
            )
            return ":13C4 " in listed.stdout

        try:
            wait_until(listening, what="sipp listens on port 5060")
            yield
        finally:
            process.kill()
            process.wait()

    def call(self, calls: int, rate: int = 50) -> int:
        """Places that many calls from the caller; returns the number of messages."""
        command = ["sipp", "-sn", "uac", CALLEE, "-i", CALLER, *_SIPP, "-m", str(calls),
                   "-r", str(rate), "-d", "50", "-timeout", "240s"]  # fmt: skip
        begun = time.monotonic()
        done = subprocess.run(
            self.inside(self.caller, *command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        took = time.monotonic() - begun
        assert done.returncode == 0, f"sipp: {done.returncode} after {took:.1f} s: {done.stderr}"
        return calls * MESSAGES_A_CALL


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
