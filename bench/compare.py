"""Otus beside other tools, on one capture, in one run.

    python bench/compare.py [--packets N] [--rounds N] [--json FILE]

Each tool reads the same file of SIP calls (bench/traffic.py) from the page cache on
one core. A figure is CPU time, user and system, of the whole process, less that of
the same tool on a file of one packet: what a packet costs, start-up aside. Rounds
go through all tools in turn, so that a machine that slows down slows all of them;
medians are shown. A tool that is not installed is named and left out.
bench/picture.py draws what --json wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import traffic

HERE = Path(__file__).resolve().parent
PYTHON = sys.executable


@dataclass(frozen=True)
class Tool:
    """One contestant.

    Attributes:
        name: as the table shows it.
        does: what it does to each packet.
        command: makes the command line from a file's path; None: not installed.
        packets: at most so many, for tools that would take minutes.
    """

    name: str
    does: str
    command: Callable[[str], list[str]] | None
    packets: int


def compiled(source: str, *libraries: str) -> str | None:
    """The path of a competitor built here, or None where its library is missing."""
    target = Path(tempfile.gettempdir()) / f"otus-bench-{os.getpid()}-{Path(source).stem}"
    command = ["cc", "-O2", "-o", str(target), str(HERE / "competitors" / source), *libraries]
    done = subprocess.run(command, capture_output=True, check=False)
    return str(target) if done.returncode == 0 else None


def installed(command: str) -> Callable[[str], list[str]] | None:
    """A command line with FILE in it, where its program is installed."""
    words = shlex.split(command)
    if shutil.which(words[0]) is None:
        return None
    return lambda path: [path if word == "FILE" else word for word in words]


def of(program: str | None) -> Callable[[str], list[str]] | None:
    return (lambda path: [program, path]) if program else None


def otus(work: str) -> Callable[[str], list[str]]:
    return lambda path: [PYTHON, str(HERE / "otus_offline.py"), path, work]


def tools() -> list[Tool]:
    many, some, few = 1_000_000, 200_000, 20_000
    return [
        Tool("libpcap", "read only: the floor", of(compiled("pcap_loop.c", "-lpcap")), many),
        Tool("Otus", "decode, full SIP and SDP parse", otus("parse"), many),
        Tool("Otus", "the same, filter, JSON", otus("json"), many),
        Tool(
            "tcpdump", "read, write to /dev/null", installed("tcpdump -r FILE -w /dev/null"), many
        ),
        Tool(
            "libosip2",
            "read, parse SIP (C library)",
            of(compiled("osip_parse.c", "-lpcap", "-losipparser2")),
            some,
        ),
        Tool("nDPI", "read, detect", installed("ndpiReader -i FILE -q"), some),
        Tool("sipgrep", "read, parse, print", installed("sipgrep -I FILE"), some),
        Tool("sngrep", "read, parse, keep dialogs", installed("sngrep -I FILE -N -q"), few),
        Tool(
            "dpkt",
            "decode, parse SIP (Python)",
            lambda path: [PYTHON, str(HERE / "competitors" / "dpkt_sip.py"), path],
            few,
        ),
        Tool(
            "tshark",
            "dissect, print Call-ID",
            installed("tshark -r FILE -Y sip -T fields -e sip.Call-ID"),
            few,
        ),
    ]


def cpu_seconds(command: list[str]) -> float:
    """User and system time of a command and its children; one that fails is no contestant."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(packets: int, rounds: int) -> list[dict[str, object]]:
    """Rows of tool, what it does, packets a second (median, least, most)."""
    contestants = [tool for tool in tools() if tool.command is not None]
    for tool in tools():
        if tool.command is None:
            print(f"not installed: {tool.name}", file=sys.stderr)
    figures: dict[int, list[float]] = {i: [] for i in range(len(contestants))}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        folder = Path(name)
        sizes = {min(tool.packets, packets) for tool in contestants} | {1}
        frames = traffic.sip_frames(max(sizes))
        for size in sizes:
            (folder / f"{size}.pcap").write_bytes(traffic.pcap(frames[:size]))
        del frames
        for _ in range(rounds):
            for i, tool in enumerate(contestants):
                assert tool.command is not None
                size = min(tool.packets, packets)
                whole = cpu_seconds(tool.command(str(folder / f"{size}.pcap")))
                idle = cpu_seconds(tool.command(str(folder / "1.pcap")))
                figures[i].append(size / max(whole - idle, 1e-9))
    return [
        {
            "tool": tool.name,
            "does": tool.does,
            "packets_per_second": statistics.median(figures[i]),
            "least": min(figures[i]),
            "most": max(figures[i]),
        }
        for i, tool in enumerate(contestants)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = measure(options.packets, options.rounds)
    rows.sort(key=lambda row: -float(str(row["packets_per_second"])))
    best = next(float(str(row["packets_per_second"])) for row in rows if row["tool"] == "Otus")
    for row in rows:
        rate = float(str(row["packets_per_second"]))
        print(
            f"{row['tool']:10} {row['does']:34} {rate / 1e6:8.3f} M packets/s"
            f"   Otus is {best / rate:7.2f} times as fast"
        )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
