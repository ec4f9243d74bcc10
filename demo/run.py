"""Real SIP calls through two network namespaces, captured live by `otus run`.

Without root, without network namespaces or without sipp it runs the same over a
capture that was taken in just that way, and says so. It ends by itself within a
minute, and leaves no namespace behind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUNDLED = HERE / "sipp-call.pcap"
OTUS = Path(sys.executable).with_name("otus")
# RFC 5737 sets these addresses aside for examples.
CALLER, CALLEE = "192.0.2.1", "192.0.2.2"
INTERFACE = "otus0"
# INVITE, 180, 200, ACK, BYE, 200: what sipp's built-in scenario sends for a call.
MESSAGES_A_CALL = 6
# Nothing is sent twice: a busy machine may answer later than SIP's first timer, 500 ms.
SIPP = ("-nostdin", "-nr")
DEADLINE_S = 60.0


class DemoError(Exception):
    """The demo could not be brought to its end; one line says why."""


def say(text: str) -> None:
    """Prints a line of the demo's own, apart from what otus prints."""
    print(f"\n--- {text}", flush=True)


def wait_for(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Waits until `condition` holds; raises DemoError past the deadline."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise DemoError(f"{what}: not within {deadline_s:.0f} s")
        time.sleep(0.05)


def ip(*arguments: str) -> None:
    """Runs iproute2; raises DemoError with its own words."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DemoError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def inside(namespace: str, *command: str) -> list[str]:
    """Returns the command line that runs `command` in a namespace."""
    return ["ip", "netns", "exec", namespace, *command]


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces joined by a veth pair; gone afterwards."""
    caller, callee = f"otus-demo-a-{os.getpid()}", f"otus-demo-b-{os.getpid()}"
    with contextlib.ExitStack() as stack:
        for namespace in (caller, callee):
            ip("netns", "add", namespace)
            stack.callback(subprocess.run, ["ip", "netns", "delete", namespace], check=False)
        ip("link", "add", INTERFACE, "netns", caller, "type", "veth",
           "peer", "name", INTERFACE, "netns", callee)  # fmt: skip
        for namespace, address in ((caller, CALLER), (callee, CALLEE)):
            ip("-n", namespace, "address", "add", f"{address}/24", "dev", INTERFACE)
            ip("-n", namespace, "link", "set", INTERFACE, "up")
        yield caller, callee


@contextlib.contextmanager
def running(command: list[str], *, quiet: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is asked to stop, and made to stop if it does not listen."""
    sink = subprocess.DEVNULL if quiet else None
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def task(capture: dict[str, object]) -> dict[str, object]:
    """Returns the task that the demo runs, over one capture source or the other."""
    return {
        "id": "demo",
        "capture": capture,
        "parsers": ["sip"],
        "reporters": [{"type": "console"}],
    }


def write_task(folder: Path, capture: dict[str, object]) -> Path:
    """Writes the task to a file, as an operator would have it."""
    path = folder / "task.json"
    path.write_text(json.dumps(task(capture), indent=2) + "\n", encoding="utf-8")
    say(f"otus run -f {path.name}, where {path.name} is")
    print(path.read_text(encoding="utf-8"), flush=True)
    return path


def has_packet_socket(namespace: str) -> bool:
    """Tells whether somebody in the namespace captures: on a packet socket that is bound."""
    listed = subprocess.run(
        inside(namespace, "cat", "/proc/net/packet"), capture_output=True, text=True, check=False
    )
    # sk RefCnt Type Proto Iface R ...
    rows = [row.split() for row in listed.stdout.splitlines()[1:]]
    return any(row[3] == "0003" and row[5] == "1" for row in rows)


def has_udp_socket(namespace: str, port: int) -> bool:
    """Tells whether somebody in the namespace listens on a UDP port."""
    listed = subprocess.run(
        inside(namespace, "cat", "/proc/net/udp"), capture_output=True, text=True, check=False
    )
    return f":{port:04X} " in listed.stdout


def live(folder: Path, calls: int) -> int:
    """Places `calls` calls between two namespaces and captures them at the callee."""
    with contextlib.ExitStack() as stack:
        caller, callee = stack.enter_context(two_hosts())
        say(f"two hosts, {CALLER} and {CALLEE}, joined by a veth pair")
        capture = {"type": "afpacket", "interface": INTERFACE, "bpf_filter": "udp port 5060"}
        path = write_task(folder, capture)
        otus = stack.enter_context(running(inside(callee, str(OTUS), "run", "-f", str(path))))
        wait_for(
            lambda: has_packet_socket(callee) or otus.poll() is not None,
            "otus run began to capture",
        )
        if otus.poll() is not None:
            raise DemoError(f"otus run ended early with exit code {otus.returncode}")
        stack.enter_context(
            running(inside(callee, "sipp", "-sn", "uas", "-i", CALLEE, *SIPP), quiet=True)
        )
        wait_for(lambda: has_udp_socket(callee, 5060), "sipp answers")
        say(f"sipp places {calls} calls, {calls * MESSAGES_A_CALL} messages; as they pass:")
        uac = ["sipp", "-sn", "uac", CALLEE, "-i", CALLER, *SIPP,
               "-m", str(calls), "-r", "2", "-d", "500", "-timeout", f"{DEADLINE_S:.0f}s"]  # fmt: skip
        placed = subprocess.run(
            inside(caller, *uac),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=2 * DEADLINE_S,
            check=False,
        )
        if placed.returncode:
            raise DemoError(f"sipp ended with exit code {placed.returncode}")
        # Longer than the ring keeps a block that is not full.
        time.sleep(0.5)
        say("the calls are over; Ctrl-C for otus, which prints its ledger")
        otus.send_signal(signal.SIGINT)
        return otus.wait(timeout=DEADLINE_S)


def offline(folder: Path) -> int:
    """Runs the same task over the bundled capture."""
    path = write_task(folder, {"type": "pcap", "files": [str(BUNDLED)]})
    return subprocess.run(
        [str(OTUS), "run", "-f", str(path)], timeout=DEADLINE_S, check=False
    ).returncode


def why_not_live() -> str | None:
    """Returns what is missing for a live capture, or None."""
    if os.geteuid() != 0:
        return f"not root (live: sudo {sys.executable} {Path(__file__).resolve()})"
    for program in ("ip", "sipp"):
        if not shutil.which(program):
            return f"no {program} on this machine"
    probe = f"otus-probe-{os.getpid()}"
    try:
        ip("netns", "add", probe)
        try:
            # In some containers namespaces can be made, and not be entered.
            ip("-n", probe, "link", "set", "lo", "up")
        finally:
            ip("netns", "delete", probe)
    except DemoError as error:
        return f"no network namespaces here ({error})"
    return None


def main() -> int:
    """Runs the demo; returns otus's exit code, or 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--offline", action="store_true", help="use the bundled capture")
    parser.add_argument("--calls", type=int, default=4)
    arguments = parser.parse_args()
    reason = "asked for" if arguments.offline else why_not_live()
    with tempfile.TemporaryDirectory(prefix="otus-demo-") as folder:
        try:
            if reason is None:
                status = live(Path(folder), arguments.calls)
            else:
                say(f"from the bundled capture of three sipp calls, not live: {reason}")
                status = offline(Path(folder))
        except (DemoError, subprocess.TimeoutExpired) as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
    if status == 0:
        say(
            "next: . .venv/bin/activate, then `otus read demo/sipp-call.pcap --calls`; README goes on"
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
