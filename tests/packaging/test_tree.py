"""The self-contained tree and the .deb: they run in a Debian that has no Python."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.packaging

Chroot = Callable[..., subprocess.CompletedProcess[str]]

CAPTURE = "demo/sipp-call.pcap"
# Three calls of sipp's built-in scenario.
MESSAGES, INVITES = 18, 3


def write_task(clean_root: Path, **more: object) -> None:
    task = {
        "id": "packaged",
        "capture": {"type": "pcap", "files": ["/capture.pcap"]},
        "parsers": ["sip"],
        "reporters": [{"type": "console", "config": {"format": "json"}}],
        **more,
    }
    (clean_root / "task.json").write_text(json.dumps(task))


@pytest.fixture
def installed(root: Path, tree: Path, clean_root: Path) -> Path:
    """A Debian without Python, with what `make install` places and a capture to read."""
    command = ["make", "--silent", "install-files", f"DESTDIR={clean_root}", "PREFIX=/usr"]
    subprocess.run(command, cwd=root, check=True)
    shutil.copy(root / CAPTURE, clean_root / "capture.pcap")
    return clean_root


def test_task_runs_without_python(installed: Path, in_chroot: Chroot) -> None:
    """`otus run` reads the capture, reports every message and balances its ledger."""
    write_task(installed)
    done = in_chroot("otus", "run", "-f", "/task.json")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(records) == MESSAGES
    assert {record["payload_type"] for record in records} == {"sip"}
    assert done.stderr.splitlines()[-1] == "balanced"


def test_daemon_lives_without_python(installed: Path) -> None:
    """In the background, with its default paths: it answers, lists the plugins, and stops."""
    commands = "otus daemon --background; otus status; otus plugins; otus doctor || true; otus stop"
    script = f"mount -t proc proc {installed}/proc; exec chroot {installed} sh -exc '{commands}'"
    done = subprocess.run(
        ["unshare", "--mount", "--net", "sh", "-ec", script],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "afpacket" in done.stdout
    assert re.search(r"libpcap +found", done.stdout)
    assert not list(installed.glob("run/otus.*"))


def test_filters_compile_without_a_libpcap_installed(installed: Path, in_chroot: Chroot) -> None:
    """The tree brings the libpcap that compiles the operator's filter."""
    assert not list(installed.glob("usr/lib/**/libpcap*")) or all(
        "lib/otus/" in str(path) for path in installed.glob("usr/lib/**/libpcap*")
    )
    write_task(
        installed,
        capture={"type": "pcap", "files": ["/capture.pcap"], "bpf_filter": "src host 192.0.2.1"},
    )
    done = in_chroot("otus", "run", "-f", "/task.json")
    sources = [json.loads(line)["src_ip"] for line in done.stdout.splitlines()]
    # INVITE, ACK and BYE of each call.
    assert sources == ["192.0.2.1"] * 9


def test_every_builtin_plugin_is_found(installed: Path, in_chroot: Chroot) -> None:
    """Entry points survive the freezing: an unknown name is answered with the known ones."""
    write_task(installed, reporters=["nowhere"])
    done = in_chroot("otus", "run", "-f", "/task.json", check=False)
    assert done.returncode in (1, 4, 5)
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_third_party_plugin_from_a_folder(
    installed: Path,
    in_chroot: Chroot,
    tmp_path: Path,
) -> None:
    """A package put beside the executable joins a task; it may import any of the stdlib."""
    install_plugin(tmp_path / "package", installed / "usr/lib/otus/plugins")
    write_task(installed, processors=["only-invites"])
    done = in_chroot("otus", "run", "-f", "/task.json")
    methods = [json.loads(line)["labels"]["sip.method"] for line in done.stdout.splitlines()]
    assert methods == ["INVITE"] * INVITES
    assert done.stderr.splitlines()[-1] == "balanced"


def install_plugin(package: Path, folder: Path) -> None:
    package.mkdir()
    (package / "pyproject.toml").write_text(
        textwrap.dedent("""
        [build-system]
        requires = ["hatchling"]
        build-backend = "hatchling.build"
        [project]
        name = "only-invites"
        version = "1.0"
        [project.entry-points."otus.processor"]
        only-invites = "only_invites:FACTORY"
        [tool.hatch.build.targets.wheel]
        include = ["only_invites.py"]
        """)
    )
    (package / "only_invites.py").write_text(
        textwrap.dedent("""
        import smtplib, sqlite3, wave, xmlrpc.client  # nothing of otus imports these
        from otus_sdk import PluginFactory, PluginKind

        class OnlyInvites:
            name = "only-invites"
            def init(self, config): pass
            def start(self): pass
            def stop(self): pass
            def process(self, packet):
                return packet.labels.get("sip.method") == "INVITE"

        FACTORY = PluginFactory(
            kind=PluginKind.PROCESSOR, name="only-invites", create=OnlyInvites
        )
        """)
    )
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps",
               "--target", str(folder), str(package)]  # fmt: skip
    subprocess.run(command, check=True)


@pytest.fixture(scope="module")
def deb(root: Path, tree: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "packaging/deb.py"], cwd=root, check=True, capture_output=True, text=True
    )
    return Path(done.stdout.strip())


def test_deb_installs_runs_and_goes(
    deb: Path, clean_root: Path, root: Path, in_chroot: Chroot
) -> None:
    """dpkg installs it with its user and unit; purged, it leaves nothing behind."""
    shutil.copy(deb, clean_root / "otus.deb")
    shutil.copy(root / CAPTURE, clean_root / "capture.pcap")
    write_task(clean_root)
    in_chroot("dpkg", "-i", "/otus.deb")
    assert re.search(
        r"^Depends: libc6 \(>= \d+\.\d+\)$", in_chroot("dpkg", "-s", "otus").stdout, re.M
    )
    assert in_chroot("getent", "passwd", "otus").stdout.startswith("otus:")
    unit = (clean_root / "usr/lib/systemd/system/otus.service").read_text()
    assert re.search(r"^ExecStart=/usr/bin/otus ", unit, re.MULTILINE)
    # The configuration may hold passwords: root writes it, the daemon reads it, nobody else.
    mode = in_chroot("stat", "-c", "%U %G %a", "/etc/otus/config.yml").stdout
    assert mode == "root otus 640\n"
    assert len(in_chroot("otus", "run", "-f", "/task.json").stdout.splitlines()) == MESSAGES
    in_chroot("dpkg", "-P", "otus")
    for gone in ("usr/lib/otus", "usr/bin/otus", "etc/otus", "usr/lib/systemd/system/otus.service"):
        assert not (clean_root / gone).exists()


def test_deb_keeps_an_edited_configuration(deb: Path, clean_root: Path, in_chroot: Chroot) -> None:
    """An upgrade leaves what the operator wrote."""
    shutil.copy(deb, clean_root / "otus.deb")
    in_chroot("dpkg", "-i", "/otus.deb")
    config = clean_root / "etc/otus/config.yml"
    config.write_text(config.read_text() + "# edited\n")
    in_chroot("dpkg", "-i", "/otus.deb")
    assert config.read_text().endswith("# edited\n")
