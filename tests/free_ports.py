"""TCP ports of 127.0.0.1 that stay free until a test takes them, and between its restarts."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

_LOCAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on.

    Not of the range that the kernel takes the ports of outgoing connections from: a
    client that tries to reach a server that is not there would end up taking its port.
    """
    low, high = _local_range()
    candidates = [port for port in range(10_000, 65_536) if not low <= port <= high]
    if len(candidates) < 1_000:  # the range is all that there is: then of it
        candidates = list(range(10_000, 65_536))
    # Not random's own generator: pytest plugins seed it, and sessions would get the same.
    random.SystemRandom().shuffle(candidates)
    found = []
    with contextlib.ExitStack() as held:
        for port in candidates:
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                return found
    raise AssertionError(f"{count} free ports are not to be had")


def _local_range() -> tuple[int, int]:
    with contextlib.suppress(OSError, ValueError):
        low, high = map(int, _LOCAL_RANGE.read_text().split())
        return low, high
    return 32_768, 60_999  # Linux's own


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]
