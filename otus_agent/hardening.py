"""What the daemon gives up once its files are open: capabilities and core dumps.

Capturing needs CAP_NET_RAW for packet sockets, and CAP_NET_ADMIN to switch a NIC's
timestamps on. Tasks are created at any time, so these stay; all others go, for good.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import struct
from collections.abc import Iterable
from pathlib import Path

# linux/capability.h
CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_SETPCAP": 8,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
}
KEPT = ("CAP_NET_RAW", "CAP_NET_ADMIN")

# RLIMIT_NICE counts from 20 down: getrlimit(2).
_MOST_URGENT = 40

_CAPABILITY_VERSION_3 = 0x20080522
# linux/prctl.h
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4


class HardeningFailed(OSError):
    """The kernel refused to take something away."""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, *args: int) -> None:
    libc = _libc()
    padded = [*args, 0, 0, 0, 0][:4]
    if libc.prctl(option, *(ctypes.c_ulong(value) for value in padded)) != 0:
        number = ctypes.get_errno()
        raise HardeningFailed(number, f"prctl({option}): {os.strerror(number)}")


def forbid_core_dumps() -> None:
    """Keeps packets and credentials in memory out of core files and of other processes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(_PR_SET_DUMPABLE, 0)


def raise_descriptor_limit() -> None:
    """Allows as many descriptors as may be: a shell's usual 1,024 are the socket's clients alone."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def allow_priority() -> None:
    """Lets threads be as urgent as they like once CAP_SYS_NICE is given up; only root may.

    Elsewhere the limit is the service manager's to set: LimitNICE= of systemd.
    """
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NICE, (_MOST_URGENT, _MOST_URGENT))


def effective_capabilities() -> int:
    """The effective set of this thread as a bit mask; 0 where it can't be told."""
    try:
        for line in Path("/proc/thread-self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    except (OSError, ValueError, IndexError):
        pass
    return 0


def has_capability(name: str) -> bool:
    """Whether this thread has a capability."""
    return bool(effective_capabilities() >> CAPABILITIES[name] & 1)


def drop_capabilities(kept: Iterable[str] = KEPT) -> int:
    """Gives up all capabilities but those in kept, and what could win them back.

    Capabilities belong to threads, and new threads inherit them: call this
    before any thread is started.

    Returns:
        The bit mask that is left.

    Raises:
        HardeningFailed: the kernel refused.
    """
    mask = sum(1 << CAPABILITIES[name] for name in kept)
    had = effective_capabilities()
    if had >> CAPABILITIES["CAP_SETPCAP"] & 1:
        last = int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii"))
        for number in range(last + 1):
            if not mask >> number & 1:
                _prctl(_PR_CAPBSET_DROP, number)
    # Ambient ones would go on to every program that is executed; none is.
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _set_capabilities(had & mask)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    return had & mask


def _set_capabilities(mask: int) -> None:
    """Effective and permitted become mask; the inheritable set becomes empty (capset(2))."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    data = struct.pack("=6I", low, low, 0, high, high, 0)
    if _libc().capset(ctypes.c_char_p(header), ctypes.c_char_p(data)) != 0:
        number = ctypes.get_errno()
        raise HardeningFailed(number, f"capset: {os.strerror(number)}")
