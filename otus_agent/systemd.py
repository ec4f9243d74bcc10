"""Tells systemd how the daemon is (sd_notify(3)), without its library."""

from __future__ import annotations

import os
import socket
import time


def notify(*assignments: str) -> bool:
    """Sends assignments such as ``READY=1``; returns whether somebody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    # A leading @ stands for the abstract namespace.
    target = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)  # a supervisor that hangs must not hang us
            sender.sendto("\n".join(assignments).encode(), target)
    except OSError:
        return False
    return True


def notify_ready(status: str) -> bool:
    """The daemon answers commands."""
    return notify("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")


def notify_reloading() -> bool:
    """A reload begins; ``notify_ready`` ends it. The time is what systemd asks for."""
    microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
    return notify("RELOADING=1", f"MONOTONIC_USEC={microseconds}")


def notify_stopping() -> bool:
    """The daemon shuts down."""
    return notify("STOPPING=1", "STATUS=stopping")


def watchdog_interval_s() -> float | None:
    """How often ``WATCHDOG=1`` is to be sent: half of what systemd allows; None for never."""
    pid = os.environ.get("WATCHDOG_PID")
    if pid is not None and pid != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or not int(microseconds):
        return None
    return int(microseconds) / 2_000_000
