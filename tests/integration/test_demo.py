"""`make demo`: real calls captured live, the bundled capture otherwise, nothing left behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest


class Done(NamedTuple):
    pid: int
    code: int
    out: str
    err: str


def run_demo(root: Path, *arguments: str) -> Done:
    command = [sys.executable, "demo/run.py", *arguments]
    with subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out, err = process.communicate(timeout=300)
        finally:
            process.terminate()
    return Done(process.pid, process.returncode, out, err)


def messages(done: Done) -> list[str]:
    return [line for line in done.out.splitlines() if " udp " in line and "call-id=" in line]


def test_offline_demo_says_so_and_balances(root: Path) -> None:
    """Without root the bundled capture goes the same way: three calls of six messages."""
    done = run_demo(root, "--offline")
    assert done.code == 0, done.err
    assert "not live: asked for" in done.out
    assert len(messages(done)) == 18
    assert done.err.splitlines()[-1] == "balanced"


@pytest.mark.root
@pytest.mark.usefixtures("network_namespaces")
def test_live_demo_reports_each_message_once(root: Path) -> None:
    """Two sipp calls over veth are twelve lines, and no namespace outlives them."""
    done = run_demo(root, "--calls", "2")
    assert done.code == 0, done.out + done.err
    lines = messages(done)
    assert len(lines) == 12
    for method in ("INVITE sip:", "ACK sip:", "BYE sip:", "180 Ringing", "200 OK"):
        assert any(f" udp {method}" in line for line in lines), method
    assert done.err.splitlines()[-1] == "balanced"
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert not re.search(rf"^otus-demo-.-{done.pid}\b", left.stdout, re.MULTILINE)


def test_without_root_it_shows_the_bundled_capture(root: Path) -> None:
    """An ordinary user gets the same from the bundled capture, and is told how to see it live."""
    # A user namespace that maps nobody: the files are still ours, root's rights are gone.
    inside = ["unshare", "--user"] if os.geteuid() == 0 else []
    if inside and subprocess.run([*inside, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs user namespaces")
    done = subprocess.run(
        [*inside, sys.executable, "demo/run.py"],
        cwd=root, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "not live: not root (live: sudo " in done.stdout
    assert done.stdout.count("call-id=") == 18
    assert "next: " in done.stdout
