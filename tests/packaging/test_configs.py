"""What is shipped beside the program: the systemd unit, the manifests, the container."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

UNIT = "configs/otus.service"


def unit_values(root: Path, key: str) -> list[str]:
    lines = (root / UNIT).read_text().splitlines()
    return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]


@pytest.fixture(scope="module")
def systemd_analyze() -> str:
    program = shutil.which("systemd-analyze")
    if not program:
        pytest.skip("no systemd-analyze on this machine")
    return program


def test_unit_is_hardened(root: Path, systemd_analyze: str) -> None:
    """systemd's own audit gives 2.0 or better."""
    done = subprocess.run(
        [systemd_analyze, "security", "--offline=true", "--threshold=20", str(root / UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for otus.service: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found.group(1)) <= 2.0


def test_unit_has_no_unknown_key(root: Path, systemd_analyze: str, tmp_path: Path) -> None:
    """A mistyped directive is only warned about, and would protect nothing."""
    unit = tmp_path / "otus.service"
    unit.write_text((root / UNIT).read_text().replace("/usr/bin/otus", "/bin/true"))
    done = subprocess.run(
        [systemd_analyze, "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line for line in done.stderr.splitlines() if "otus.service" in line] == []


def test_unit_is_what_the_daemon_speaks(root: Path) -> None:
    """Readiness, watchdog, reload and the folders the daemon writes to."""
    assert unit_values(root, "Type") == ["notify"]
    assert unit_values(root, "WatchdogSec")
    assert unit_values(root, "ExecReload") == ["/bin/kill -HUP $MAINPID"]
    for key in ("StateDirectory", "RuntimeDirectory", "LogsDirectory"):
        assert unit_values(root, key) == ["otus"]
    assert unit_values(root, "AmbientCapabilities") == unit_values(root, "CapabilityBoundingSet")
    # What it may write to is under the folders that systemd makes for it.
    environment = dict(item.split("=", 1) for item in unit_values(root, "Environment"))
    assert environment == {
        "OTUS_DAEMON__PID_FILE": "/run/otus/otus.pid",
        "OTUS_DAEMON__SOCKET_PATH": "/run/otus/otus.sock",
    }


def manifests(root: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((root / "configs" / "kubernetes" / "otus.yaml").read_text()))


def test_manifests_are_valid_kubernetes(root: Path) -> None:
    """Each document matches the schema that Kubernetes publishes, unknown keys refused."""
    kinds = [document["kind"] for document in manifests(root)]
    assert kinds == ["Namespace", "ServiceAccount", "ConfigMap", "DaemonSet"]
    for document in manifests(root):
        kubernetes_validate.validate(document, "1.31", strict=True)


def test_validation_can_fail(root: Path) -> None:
    """The schema check above refuses a mistyped key."""
    daemon_set = manifests(root)[-1]
    daemon_set["spec"]["template"]["spec"]["hostNetwrok"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(daemon_set, "1.31", strict=True)


def test_pod_captures_without_privilege(root: Path) -> None:
    """The node's network, one capability, no root, a read-only root, probes and bounds."""
    pod = manifests(root)[-1]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    security = container["securityContext"]
    assert pod["hostNetwork"] is True
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert security["privileged"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"], "add": ["NET_RAW"]}
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()
    assert container["resources"]["limits"]["memory"] == "512Mi"


def test_container_user_is_the_pods(root: Path) -> None:
    """The image's user owns the folders that the pod mounts."""
    containerfile = (root / "Containerfile").read_text()
    pod = manifests(root)[-1]["spec"]["template"]["spec"]
    assert f"--uid {pod['securityContext']['runAsUser']} " in containerfile
    assert "\nUSER otus\n" in containerfile
    assert "\nHEALTHCHECK " in containerfile
