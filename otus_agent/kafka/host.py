"""Figures of the machine for heartbeats, read from /proc."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any


def host_figures() -> dict[str, Any]:
    """Name, kernel, processors, load, memory; what can't be read is left out."""
    system = os.uname()
    figures: dict[str, Any] = {
        "name": system.nodename,
        "kernel": system.release,
        "machine": system.machine,
        "cpus": os.cpu_count() or 0,
    }
    with contextlib.suppress(OSError):
        figures["load"] = [round(value, 2) for value in os.getloadavg()]
    with contextlib.suppress(OSError, ValueError, IndexError):
        memory = _kilobytes(Path("/proc/meminfo"), ("MemTotal", "MemAvailable"))
        figures["memory_octets"] = memory["MemTotal"] * 1024
        figures["memory_available_octets"] = memory["MemAvailable"] * 1024
    with contextlib.suppress(OSError, ValueError, IndexError):
        figures["uptime_s"] = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    return figures


def _kilobytes(path: Path, names: tuple[str, ...]) -> dict[str, int]:
    found: dict[str, int] = dict.fromkeys(names, 0)
    for line in path.read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        if name in found:
            found[name] = int(rest.split()[0])
    return found
