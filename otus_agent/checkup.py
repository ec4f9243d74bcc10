"""What ``otus doctor`` looks at. Each check is a function that looks and changes nothing."""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import os
import platform
import re
import shutil
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from otus_agent.capture_filter import has_libpcap
from otus_agent.config.fields import split_address
from otus_agent.hardening import has_capability

Result = Literal["ok", "info", "warn", "fail"]

# TPACKET_V3 is there from 3.2 on; capabilities and fanout as we use them from 4.14 on.
OLDEST_KERNEL = (4, 14)
CONNECT_TIMEOUT_S = 2.0
# A pipeline's ring, arena and pools at their defaults, roughly.
OCTETS_A_TASK = 128 << 20

# linux/ethtool.h, linux/sockios.h, linux/if.h
_SIOCETHTOOL = 0x8946
_OFFLOADS = ("large-receive-offload", "generic-receive-offload")
_ETHTOOL_GFLAGS, _ETHTOOL_GGRO = 0x25, 0x2B
_ETH_FLAG_LRO = 1 << 15
_IFF_UP = 0x1


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found, and what mends it."""

    check: str
    result: Result
    finding: str
    fix: str = ""


def examine(
    config: Any, config_problem: str, daemon_socket: str, interfaces: Sequence[str]
) -> list[Finding]:
    """All findings about this machine.

    Args:
        config: an ``AgentConfig``.
        config_problem: why it is only the defaults; empty where it is not.
        daemon_socket: where a daemon would answer.
        interfaces: whose names to look at; empty looks at those that are up.
    """
    checks: list[Callable[[], list[Finding]]] = [
        lambda: [_configuration(config_problem)],
        _kernel,
        _capabilities,
        _core,
        lambda: _interfaces(interfaces),
        _receive_limits,
        _memory,
        _clock,
        _libpcap,
        lambda: _directories(config),
        lambda: _kafka(config),
        lambda: [_daemon(daemon_socket)],
    ]
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check()
        except OSError as error:
            name = getattr(check, "__name__", "check").strip("_<>")
            findings.append(Finding(name, "warn", f"can't be checked: {error}"))
    return findings


def _configuration(problem: str) -> Finding:
    if problem:
        return Finding("configuration", "fail", problem, "mend it; `otus validate FILE` checks it")
    return Finding("configuration", "ok", "valid")


def _kernel() -> list[Finding]:
    release = platform.release()
    numbers = re.match(r"(\d+)\.(\d+)", release)
    text = f"{platform.system()} {release} {platform.machine()}"
    if platform.system() != "Linux":
        return [Finding("kernel", "fail", text, "live capture needs Linux")]
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST_KERNEL:
        oldest = ".".join(map(str, OLDEST_KERNEL))
        return [Finding("kernel", "fail", text, f"upgrade to a kernel of {oldest} or newer")]
    return [Finding("kernel", "ok", text)]


def _capabilities() -> list[Finding]:
    give = "`sudo setcap cap_net_raw,cap_net_admin+ep $(readlink -f $(which python3))`, "
    give += "or run as the systemd unit does, or as root"
    findings = []
    if has_capability("CAP_NET_RAW"):
        findings.append(Finding("CAP_NET_RAW", "ok", "packet sockets can be opened"))
    else:
        findings.append(Finding("CAP_NET_RAW", "fail", "missing: no live capture", give))
    if has_capability("CAP_NET_ADMIN"):
        findings.append(Finding("CAP_NET_ADMIN", "ok", "NIC timestamps can be switched on"))
    else:
        findings.append(Finding("CAP_NET_ADMIN", "info", "missing: no NIC timestamps", give))
    return findings


def _core() -> list[Finding]:
    try:
        importlib.import_module("otus_core")
    except ImportError as error:
        return [Finding("core", "fail", f"otus_core can't be imported: {error}",
                        "reinstall otus: `pip install --force-reinstall otus`")]  # fmt: skip
    return [Finding("core", "ok", "native core loads")]


# --- Interfaces ----------------------------------------------------------------


def _interfaces(names: Sequence[str]) -> list[Finding]:
    known = [name for _, name in socket.if_nameindex()]
    findings: list[Finding] = []
    chosen = list(names) or [name for name in known if _is_up(name) and name != "lo"]
    for name in chosen:
        if name not in known:
            listed = ", ".join(known)
            findings.append(Finding("interface", "fail", f"{name}: not there",
                                    f"name one of {listed}"))  # fmt: skip
            continue
        findings += _interface(name)
    if not chosen:
        findings.append(Finding("interface", "warn", "none is up besides lo",
                                "`ip link set NAME up`"))  # fmt: skip
    return findings


def _interface(name: str) -> list[Finding]:
    if not _is_up(name):
        return [Finding("interface", "warn", f"{name}: down", f"`ip link set {name} up`")]
    mtu = Path(f"/sys/class/net/{name}/mtu").read_text(encoding="ascii").strip()
    findings = [Finding("interface", "ok", f"{name}: up, MTU {mtu}")]
    on = [offload for offload in _OFFLOADS if _offload_is_on(name, offload)]
    if "large-receive-offload" in on:
        findings.append(Finding(
            "offloads", "warn", f"{name}: large-receive-offload merges packets beyond recovery",
            f"`ethtool -K {name} lro off`",
        ))  # fmt: skip
    elif on:
        findings.append(Finding(
            "offloads", "info",
            f"{name}: {', '.join(on)} on; merged frames are decoded, but are no frames of the wire",
            f"`ethtool -K {name} gro off` to see frames as they were sent",
        ))  # fmt: skip
    dropped = _statistic(name, "rx_dropped") + _statistic(name, "rx_missed_errors")
    if dropped:
        findings.append(Finding(
            "nic drops", "info", f"{name}: {dropped} frames lost before any socket since boot",
            f"if it grows: `ethtool -G {name} rx MAX`, more queues, or RPS",
        ))  # fmt: skip
    return findings


def _statistic(name: str, counter: str) -> int:
    try:
        text = Path(f"/sys/class/net/{name}/statistics/{counter}").read_text(encoding="ascii")
        return int(text)
    except (OSError, ValueError):
        return 0


def _is_up(name: str) -> bool:
    try:
        flags = Path(f"/sys/class/net/{name}/flags").read_text(encoding="ascii")
        return bool(int(flags, 16) & _IFF_UP)
    except (OSError, ValueError):
        return False


def _offload_is_on(name: str, offload: str) -> bool:
    is_gro = offload == "generic-receive-offload"
    value = _ethtool_value(name, _ETHTOOL_GGRO if is_gro else _ETHTOOL_GFLAGS)
    return bool(value) if is_gro else bool(value & _ETH_FLAG_LRO)


def _ethtool_value(name: str, command: int) -> int:
    """One word by the SIOCETHTOOL ioctl; 0 where the driver does not know."""
    argument = bytearray(struct.pack("=II", command, 0))
    holder = (ctypes.c_char * len(argument)).from_buffer(argument)
    request = struct.pack("16sP16x", name.encode()[:15], ctypes.addressof(holder))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            fcntl.ioctl(probe, _SIOCETHTOOL, request)
        except OSError:
            return 0
    return int(struct.unpack("=II", bytes(argument))[1])


# --- The machine -----------------------------------------------------------------


def _receive_limits() -> list[Finding]:
    try:
        backlog = int(Path("/proc/sys/net/core/netdev_max_backlog").read_text(encoding="ascii"))
        softnet = Path("/proc/net/softnet_stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []
    dropped = sum(int(line.split()[1], 16) for line in softnet)
    if dropped:
        return [Finding(
            "backlog", "warn", f"{dropped} packets lost in the kernel's backlog since boot",
            "`sysctl -w net.core.netdev_max_backlog=50000`",
        )]  # fmt: skip
    if backlog < 10_000:
        return [Finding(
            "backlog", "info", f"net.core.netdev_max_backlog is {backlog}",
            "with RPS and more than 300,000 packets/s: "
            "`sysctl -w net.core.netdev_max_backlog=50000`",
        )]  # fmt: skip
    return [Finding("backlog", "ok", f"net.core.netdev_max_backlog is {backlog}, nothing lost")]


def _memory() -> list[Finding]:
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    available = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    octets = int(available[1]) * 1024 if available else 0
    limit = _cgroup_limit()
    if limit is not None and limit < octets:
        octets = limit
    mebibytes, needed = octets >> 20, OCTETS_A_TASK >> 20
    if octets < OCTETS_A_TASK:
        return [Finding(
            "ring memory", "fail", f"{mebibytes} MiB available, a task takes about {needed} MiB",
            "free memory, raise the container's limit, or set a smaller ring in the task",
        )]  # fmt: skip
    return [Finding("ring memory", "ok", f"{mebibytes} MiB available, about {needed} a task")]


def _cgroup_limit() -> int | None:
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        return None if text == "max" else int(text)
    except (OSError, ValueError):
        return None


def _clock() -> list[Finding]:
    if time.time() < 1_700_000_000:
        return [Finding("clock", "fail", "the clock is years behind: timestamps will be wrong",
                        "set it: `timedatectl set-ntp true`")]  # fmt: skip
    # adjtimex(2): struct timex begins with modes; its answer is the clock's state.
    answer = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    if answer == 5:  # TIME_ERROR
        return [Finding(
            "clock", "warn", "the kernel says that the clock is not synchronised",
            "run chrony or systemd-timesyncd: commands of a fleet and calls across agents "
            "are compared by time",
        )]  # fmt: skip
    return [Finding("clock", "ok", "synchronised")]


def _libpcap() -> list[Finding]:
    if has_libpcap():
        return [Finding("libpcap", "ok", "found: bpf_filter can be compiled")]
    return [Finding("libpcap", "warn", "not found: tasks with bpf_filter can't start",
                    "`apt install libpcap0.8`")]  # fmt: skip


def _directories(config: Any) -> list[Finding]:
    """Whether the daemon's files can be made where the configuration wants them."""
    daemon = config.daemon
    places = {
        "data_dir": Path(daemon.data_dir),
        "pid_file": Path(daemon.pid_file).parent,
        "socket_path": Path(daemon.socket_path).parent,
    }
    files = [Path(output.path).parent for output in config.log.outputs if output.type == "file"]
    places |= {f"log {folder}": folder for folder in files}
    return [_directory(name.partition(" ")[0], folder) for name, folder in places.items()]


def _directory(check: str, folder: Path) -> Finding:
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        # Not the directories that are everybody's: nobody is to take over /var/run.
        elsewhere = (
            f"`sudo install -d -o USER {folder}`"
            if check == "data_dir"
            else "name a place of the daemon's own in the configuration"
        )
        return Finding(check, "warn", f"{folder}: no permission to write",
                       f"run as the daemon's user, or {elsewhere}")  # fmt: skip
    free = shutil.disk_usage(existing).free
    if free < 100 << 20:
        return Finding(check, "warn", f"{existing}: {free >> 20} MiB free",
                       "make room: tasks and logs are kept there")  # fmt: skip
    return Finding(check, "ok", f"{folder}: writable, {free >> 30} GiB free")


# --- Others ----------------------------------------------------------------------


def _kafka(config: Any) -> list[Finding]:
    if config.kafka is None:
        return [Finding("kafka", "info", "not configured: no remote commands",
                        "set kafka.brokers where a fleet is to steer this agent")]  # fmt: skip
    findings = [_broker(broker) for broker in config.kafka.brokers]
    if any(finding.result == "ok" for finding in findings):
        return [
            finding if finding.result == "ok"
            else Finding(finding.check, "warn", finding.finding, finding.fix)
            for finding in findings
        ]  # fmt: skip
    return findings


def _broker(broker: str) -> Finding:
    host, port = split_address(broker)
    try:
        with socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S):
            return Finding("kafka", "ok", f"{broker}: accepts connections")
    except OSError as error:
        reason = error.strerror or str(error)
        return Finding("kafka", "fail", f"{broker}: {reason}",
                       "check kafka.brokers, the name service and firewalls")  # fmt: skip


def _daemon(path: str) -> Finding:
    from otus_agent.cli.client import Client
    from otus_agent.cli.errors import CliError

    try:
        answer = Client(path, 2.0).call("status")
    except CliError as error:
        finding, _, step = error.message.partition("; ")
        return Finding("daemon", "info", finding, step or "start one with `otus daemon`")
    tasks = sum(answer["tasks"].values())
    failed = answer["tasks"].get("failed", 0)
    text = f"{answer['agent_id']} runs, pid {answer['pid']}, {tasks} tasks"
    if failed:
        return Finding("daemon", "warn", f"{text}, {failed} failed", "`otus task list` tells why")
    return Finding("daemon", "ok", text)
