"""README: every command in it is run, and every file it points to is there."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from namespaces import TwoHosts
from waiting import wait_until

FENCE = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LIVE = "# live\n"


def blocks(root: Path, *, live: bool) -> list[str]:
    found = FENCE.findall((root / "README.md").read_text())
    return [block.removeprefix(LIVE) for block in found if block.startswith(LIVE) == live]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The commands are those of this environment, and the daemon's files are the test's."""
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (binaries / "sudo").chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OTUS_DAEMON__PID_FILE": str(tmp_path / "otus.pid"),
        "OTUS_DAEMON__SOCKET_PATH": str(tmp_path / "otus.sock"),
        "OTUS_DAEMON__DATA_DIR": str(tmp_path / "data"),
        "COLUMNS": "200",
    }


def test_commands_without_a_network(root: Path, environment: dict[str, str]) -> None:
    """Each command of the plain blocks succeeds, in order, and tells of the bundled calls."""
    script = "".join(blocks(root, live=False))
    assert script.count("otus ") >= 5
    done = subprocess.run(
        ["bash", "-euxc", script],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"sip.method":"INVITE"') == 3


@pytest.fixture
def hosts(network_namespaces: None) -> Iterator[TwoHosts]:
    with TwoHosts(interface="eth0") as made:
        yield made


@pytest.mark.root
def test_live_commands(
    root: Path, environment: dict[str, str], hosts: TwoHosts, tmp_path: Path
) -> None:
    """The foreground task captures real calls until Ctrl-C; then the daemon's life, in order."""
    foreground, daemon = blocks(root, live=True)
    run_until_interrupted(root, environment, hosts, shlex.split(foreground.strip()), tmp_path)
    done = subprocess.run(
        hosts.inside(hosts.callee, "bash", "-euxc", daemon),
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sip-console" in done.stdout


def run_until_interrupted(
    root: Path, environment: dict[str, str], hosts: TwoHosts, command: list[str], tmp_path: Path
) -> None:
    log = tmp_path / "run.log"
    with (
        log.open("w") as out,
        subprocess.Popen(
            hosts.inside(hosts.callee, *command), cwd=root, env=environment, stdout=out, stderr=out
        ) as process,
    ):
        try:
            hosts.wait_for_capture(hosts.callee)
            with hosts.answering():
                sent = hosts.call(1)
            wait_until(lambda: log.read_text().count("call-id=") == sent, 15, "all is reported")
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
    assert log.read_text().splitlines()[-1] == "balanced"


def test_links_lead_somewhere(root: Path) -> None:
    """Every file that README and the documents beside it link to exists."""
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (root / name).read_text()):
            assert (root / target).exists(), f"{name}: {target}"


def test_every_target_it_names_exists(root: Path) -> None:
    """`make NAME` in README and CONTRIBUTING is a target of the Makefile."""
    makefile = (root / "Makefile").read_text()
    for name in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\bmake ([a-z][a-z-]+)", (root / name).read_text()):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{name}: make {target}"
