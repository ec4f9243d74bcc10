"""The Containerfile: every step is executed, and the agent that comes out captures.

buildah runs the steps with chroot isolation over a base made by debootstrap, so
neither a container engine nor an image registry is needed. The result is run the
way an engine would: PID 1 of a namespace of its own, as the image's user, with one
capability, on a read-only root.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from namespaces import MESSAGES_A_CALL, TwoHosts
from waiting import wait_until

pytestmark = pytest.mark.packaging

BASE = "localhost/otus-test-base"
IMAGE = "localhost/otus-test"
UID = 988


class Store:
    """buildah with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        self.options = ["--root", str(folder / "storage"), "--runroot", str(folder / "run"),
                        "--storage-driver", "overlay"]  # fmt: skip

    def buildah(self, *arguments: str) -> str:
        done = subprocess.run(
            ["buildah", *self.options, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout.strip()


def build_arguments(folder: Path) -> list[str]:
    """Lets the build trust what this machine's pip trusts, where that is set."""
    bundle = os.environ.get("PIP_CERT")
    if not bundle:
        return []
    (folder / "pip.conf").write_text("[global]\ncert = /etc/otus-test-ca.crt\n")
    return ["-v", f"{bundle}:/etc/otus-test-ca.crt:ro",
            "-v", f"{folder / 'pip.conf'}:/etc/pip.conf:ro"]  # fmt: skip


@pytest.fixture(scope="module")
def store(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    if not shutil.which("buildah"):
        pytest.skip("needs buildah")
    folder = tmp_path_factory.mktemp("containers")
    made = Store(folder)
    archive = folder / "base.tar"
    subprocess.run(["tar", "-C", str(debian), "-cf", str(archive), "."], check=True)
    scratch = made.buildah("from", "scratch")
    made.buildah("add", "--quiet", scratch, str(archive), "/")
    made.buildah("commit", "--quiet", "--rm", scratch, BASE)
    archive.unlink()
    yield made
    made.buildah("rm", "--all")
    made.buildah("rmi", "--all", "--force")


@pytest.fixture(scope="module")
def image(root: Path, store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The image, built from the Containerfile; returns its configuration."""
    more = build_arguments(tmp_path_factory.mktemp("trust"))
    store.buildah("build", "--isolation", "chroot", "--format", "docker",
              "--build-arg", f"BASE={BASE}", *more, "-t", IMAGE, str(root))  # fmt: skip
    inspected = json.loads(store.buildah("inspect", "--type", "image", IMAGE))
    return dict(inspected["Docker"]["config"])


@pytest.fixture(scope="module")
def mounted(store: Store, image: dict[str, Any]) -> str:
    container = store.buildah("from", IMAGE)
    return store.buildah("mount", container)


def test_image_runs_the_daemon_as_a_user(image: dict[str, Any]) -> None:
    """No shell before the daemon, no root, a health check, the signal that it handles."""
    assert image["User"] == "otus"
    assert image["Entrypoint"] == ["otus", "--config", "/etc/otus/config.yml"]
    assert image["Cmd"] == ["daemon"]
    assert image["StopSignal"] == "SIGTERM"
    assert image["Healthcheck"]["Test"] == ["CMD", "otus", "status"]


def test_image_holds_no_compiler(mounted: str) -> None:
    """The build stage's tools stayed behind."""
    for tool in ("gcc", "cc", "pip3"):
        assert not (Path(mounted) / "usr/bin" / tool).exists()
    assert not (Path(mounted) / "src").exists()


# What an engine does between the image and the process: namespaces, mounts, a
# read-only root, the image's user and one capability. exec throughout, so that the
# daemon is PID 1.
ENTER = r"""
set -e
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount -t tmpfs -o mode=0755 tmpfs "$1/dev"
for device in null zero random urandom; do
    touch "$1/dev/$device"; mount --bind "/dev/$device" "$1/dev/$device"
done
for folder in run/otus var/lib/otus var/log/otus tmp; do
    mount -t tmpfs -o uid=988,gid=988,mode=0750 tmpfs "$1/$folder"
done
mount -o remount,ro,bind "$1"
shift_root=$1; shift
exec chroot "$shift_root" /usr/bin/env -i PATH=/usr/bin:/bin \
    OTUS_DAEMON__SOCKET_PATH=/run/otus/otus.sock OTUS_DAEMON__PID_FILE=/run/otus/otus.pid \
    /usr/bin/setpriv --reuid 988 --regid 988 --clear-groups \
    --bounding-set=-all,+net_raw --inh-caps=-all "$@"
"""


@contextlib.contextmanager
def container(hosts: TwoHosts, mounted: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon as an engine would start it, in the callee's network."""
    command = hosts.inside(
        hosts.callee, "unshare", "--mount", "--pid", "--fork", "--kill-child",
        "sh", "-c", ENTER, "sh", mounted, "otus", "--config", "/etc/otus/config.yml", "daemon",
    )  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def pid_inside(process: subprocess.Popen[bytes]) -> int:
    """Returns the host's number of the process that unshare forked: the container's PID 1."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return wait_until(lambda: int((children.read_text().split() or ["0"])[0]), what="PID 1")


def inside(pid: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in the running container, as `podman exec` would."""
    line = ["nsenter", "--target", str(pid), "--mount", "--pid", "--net", "--root", "--wdns=/",
            "env", "-i", "PATH=/usr/bin:/bin", "OTUS_DAEMON__SOCKET_PATH=/run/otus/otus.sock",
            "setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups", *command]  # fmt: skip
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)


def test_agent_in_the_container_captures_live(
    mounted: str, two_hosts: TwoHosts, tmp_path: Path
) -> None:
    """Non-root, one capability, read-only root: every sipp message is reported, health is
    good, and SIGTERM to PID 1 ends it in order.
    """
    log = tmp_path / "log"
    with container(two_hosts, mounted, log) as process:
        pid = pid_inside(process)
        wait_until(lambda: inside(pid, "otus", "status").returncode == 0, what="the health check")
        status = Path(f"/proc/{pid}/status").read_text()
        assert f"Uid:\t{UID}\t{UID}" in status
        assert "NSpid:" in status
        assert status.split("NSpid:")[1].splitlines()[0].split()[-1] == "1"
        task = {
            "id": "sip",
            "capture": {"type": "afpacket", "interface": two_hosts.interface},
            "parsers": ["sip"],
            "reporters": [{"type": "console", "config": {"format": "json"}}],
        }
        created = inside(pid, "sh", "-c",
                         f"printf %s '{json.dumps(task)}' | otus task create -f -")  # fmt: skip
        assert created.returncode == 0, created.stderr
        two_hosts.wait_for_capture(two_hosts.callee)
        with two_hosts.answering():
            sent = two_hosts.call(5)
        assert sent == 5 * MESSAGES_A_CALL

        def reported() -> bool:
            return log.read_text().count('"payload_type":"sip"') >= sent

        wait_until(reported, what=f"{sent} messages reported")
        assert log.read_text().count('"payload_type":"sip"') == sent
        os.kill(pid, signal.SIGTERM)
        assert process.wait(timeout=300) == 0
