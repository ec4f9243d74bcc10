"""The daemon does its work under the capabilities and system calls that otus.service leaves it.

systemd is not needed: the unit's own lines are put into force with setpriv and seccomp.
Its user is not taken over, since the interpreter of a checkout may be readable to one alone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from namespaces import TwoHosts
from waiting import wait_until

UNIT = "configs/otus.service"


def values(root: Path, key: str) -> list[str]:
    lines = (root / UNIT).read_text().splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]


def system_calls(name: str) -> set[str]:
    """A group's system calls, its own groups' included; any other name is itself."""
    if not name.startswith("@"):
        return {name}
    listed = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
    ).stdout.split("\n")[1:]
    members = (line.strip() for line in listed)
    calls = (system_calls(item) for item in members if item and not item.startswith("#"))
    return set().union(*calls)


def allowed_calls(root: Path) -> set[str]:
    """What is left of the unit's SystemCallFilter lines, in their order (systemd.exec(5))."""
    # systemd adds these to each allow list, to be able to start the program.
    allowed = system_calls("@default") | {"execve"}
    for line in values(root, "SystemCallFilter"):
        for name in line.removeprefix("~").split():
            if line.startswith("~"):
                allowed -= system_calls(name)
            else:
                allowed |= system_calls(name)
    return allowed


@pytest.fixture(scope="module")
def sandbox(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    for program in ("systemd-analyze", "setpriv", "cc"):
        if not shutil.which(program):
            pytest.skip(f"needs {program}")
    folder = tmp_path_factory.mktemp("sandbox")
    (families,) = values(root, "RestrictAddressFamilies")
    rows = (f"#ifdef SYS_{name}\nCALL(SYS_{name})\n#endif\n" for name in allowed_calls(root))
    (folder / "allowed.h").write_text("".join(sorted(rows)))
    listed = " ".join(f"FAMILY({family})" for family in families.split())
    subprocess.run(
        ["cc", f"-I{folder}", f"-DFAMILIES={listed}", f"-DNUM_FAMILIES={len(families.split())}",
         "-o", str(folder / "unit_sandbox"), str(root / "tests/packaging/unit_sandbox.c")],
        check=True,
    )  # fmt: skip
    return folder / "unit_sandbox"


@pytest.fixture
def hosts(network_namespaces: None) -> Iterator[TwoHosts]:
    with TwoHosts() as made:
        yield made


def confined(root: Path, sandbox: Path, *command: str) -> list[str]:
    """The command line that runs `command` with the unit's capabilities and system calls."""
    names = [
        name.removeprefix("CAP_").lower() for name in values(root, "AmbientCapabilities")[0].split()
    ]
    kept = ",".join(f"+{name}" for name in names)
    return [
        "setpriv", f"--bounding-set=-all,{kept}", f"--inh-caps=-all,{kept}",
        "--securebits=+noroot", f"--ambient-caps=-all,{kept}", "--no-new-privs",
        str(sandbox), *command,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "code", "works"),
    [
        ("a plain call", "os.getpid()", True),
        ("packet sockets", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", True),
        ("a family not named", "socket.socket(socket.AF_VSOCK)", False),
        ("writable code", "mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)", False),
        ("a call not named", "os.chroot('/')", False),
        ("a capability not given", "os.setgroups([])", False),
    ],
)
@pytest.mark.usefixtures("network_namespaces")
def test_the_sandbox_holds(root: Path, sandbox: Path, what: str, code: str, works: bool) -> None:
    """What the unit allows works under it, and what it forbids fails with EPERM."""
    code = f"import mmap, os, socket\ntry:\n    {code}\nexcept PermissionError: os._exit(9)"
    done = subprocess.run(
        confined(root, sandbox, sys.executable, "-c", code),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (0 if works else 9), f"{what}: {done.stderr}"


@pytest.mark.root
def test_daemon_captures_reloads_and_stops_in_the_sandbox(
    root: Path, sandbox: Path, hosts: TwoHosts, tmp_path: Path
) -> None:
    """Group on the socket, nothing to complain of, live capture on two pipelines, SIGHUP, stop."""
    log = tmp_path / "log"
    environment = {
        **os.environ,
        "OTUS_DAEMON__PID_FILE": str(tmp_path / "otus.pid"),
        "OTUS_DAEMON__SOCKET_PATH": str(tmp_path / "otus.sock"),
        "OTUS_DAEMON__DATA_DIR": str(tmp_path / "data"),
        "OTUS_DAEMON__SOCKET_GROUP": "0",
    }
    task = {
        "id": "sip",
        "capture": {"type": "afpacket", "interface": hosts.interface, "fanout_size": 2},
        "workers": {"affinity": [0]},
        "parsers": ["sip"],
        "reporters": [{"type": "console", "config": {"format": "json"}}],
    }
    (tmp_path / "task.json").write_text(json.dumps(task))
    otus = str(Path(sys.executable).with_name("otus"))

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [otus, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def records(kind: str, value: str) -> list[dict[str, Any]]:
        whole, _, _ = log.read_text().rpartition("\n")
        lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [line for line in lines if line.get(kind) == value]

    with log.open("wb") as out:
        process = subprocess.Popen(
            hosts.inside(hosts.callee, *confined(root, sandbox, otus, "daemon")),
            env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
        try:
            wait_until(lambda: ask("status").returncode == 0 or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            made = ask("task", "create", "-f", str(tmp_path / "task.json"))
            assert made.returncode == 0, made.stderr
            hosts.wait_for_capture(hosts.callee, sockets=2)
            with hosts.answering():
                sent = hosts.call(3)
            wait_until(lambda: len(records("payload_type", "sip")) == sent, what="all is reported")
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: "reload" in log.read_text(), what="SIGHUP is taken")
            process.terminate()
            assert process.wait(timeout=300) == 0
        finally:
            process.kill()
            process.wait()
    assert records("level", "info")
    assert records("level", "warn") + records("level", "error") == []
