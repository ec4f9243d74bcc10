"""`otus run`: one task in the foreground, its ledger, its exit codes, its signals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from frames import sip, udp, write_pcap
from waiting import wait_until

OTUS = [sys.executable, "-m", "otus_agent"]


def otus(*arguments: str | Path, code: int = 0, stdin: str = "") -> tuple[str, str]:
    done = subprocess.run(
        [*OTUS, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False,
        input=stdin,
    )  # fmt: skip
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    capture = write_pcap(tmp_path / "a.pcap", [udp(sip()), udp(b"junk"), udp(sip("BYE"))])
    path = tmp_path / "task.yaml"
    path.write_text(
        f"id: t1\ncapture: {{type: pcap, files: {capture}}}\nparsers: [sip]\n"
        "reporters:\n  - type: console\n    config: {format: text}\n"
    )
    return path


def test_runs_to_the_end_and_tells_the_ledger(task_file: Path) -> None:
    """Messages go to standard output, the balanced ledger to standard error, exit code 0."""
    out, error = otus("run", "-f", task_file)
    assert [line.split()[5] for line in out.splitlines()] == ["INVITE", "BYE"]
    assert "parsed[sip] 2, unmatched[dropped] 1" in " ".join(error.split())
    assert error.strip().endswith("balanced")


def test_json_ledger_and_set(task_file: Path) -> None:
    """--output json gives the status as the last line; --set changes a key of the task."""
    out, _ = otus("run", "-f", task_file, "-o", "json", "--set", "reporters.0.config.format=json")
    *records, status = (json.loads(line) for line in out.splitlines())
    assert [record["labels"]["sip.method"] for record in records] == ["INVITE", "BYE"]
    assert status["state"] == "stopped"
    assert status["ledger"]["balanced"] is True


def test_a_command_envelope_on_standard_input(task_file: Path) -> None:
    """A task.create command is a task file too."""
    command = {
        "command": "task.create",
        "task": {
            "id": "t2",
            "capture": {"type": "pcap", "files": str(task_file.with_name("a.pcap"))},
            "reporters": ["console"],
        },
    }
    out, _ = otus("run", "-f", "-", stdin=json.dumps(command))
    assert len(out.splitlines()) == 2


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ("s/files:/flies:/", 5, ["task.yaml:2:", "capture.flies", "did you mean 'files'"]),
        ("s/console/consle/", 4, ["no reporter named 'consle'", "did you mean 'console'"]),
        ("s/parsers/parser/", 5, ["task.yaml:3:1", "did you mean 'parsers'"]),
        ("s/format: text/format: txet/", 5, ["task.yaml:6:", "reporters.0.config.format"]),
        ("s/a.pcap/b.pcap/", 1, ["b.pcap: No such file"]),
        ("s/id: t1/id: '..'/", 5, ["task.yaml:1:"]),
    ],
)
def test_mistakes_are_one_line_with_the_place(
    task_file: Path, change: str, code: int, words: list[str]
) -> None:
    """Each mistake is one line that names file, line and key, with its exit code."""
    _, old, new, _ = change.split("/")
    task_file.write_text(task_file.read_text().replace(old, new))
    _, error = otus("run", "-f", task_file, code=code)
    assert len(error.splitlines()) == 1
    for word in words:
        assert word in error


def test_unknown_interface_is_one_line(task_file: Path) -> None:
    """A live capture on no interface fails with one line and exit code 1."""
    task_file.write_text(
        "id: t\ncapture: {type: afpacket, interface: nosuch0}\nreporters: [console]\n"
    )
    _, error = otus("run", "-f", task_file, code=1)
    assert len(error.splitlines()) == 1
    assert "nosuch0" in error or "CAP_NET_RAW" in error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_followed_file(task_file: Path, number: signal.Signals) -> None:
    """A task that would go on for ever stops at a signal, flushed and balanced."""
    process = subprocess.Popen(
        [*OTUS, "run", "-f", str(task_file), "--set", "capture.follow=true"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for method in ("INVITE", "BYE"):
        assert method in process.stdout.readline()
    process.send_signal(number)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert error.strip().endswith("balanced")


def test_a_growing_file_is_followed(task_file: Path) -> None:
    """What is appended to a followed file is reported."""
    process = subprocess.Popen(
        [*OTUS, "run", "-f", str(task_file), "--set", "capture.follow=true"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for method in ("INVITE", "BYE"):
        assert method in process.stdout.readline()
    capture = task_file.with_name("a.pcap")
    one = write_pcap(task_file.with_name("one.pcap"), [udp(sip("REGISTER"))])
    with capture.open("ab") as file:
        file.write(Path(one).read_bytes()[24:])
    assert "REGISTER" in process.stdout.readline()
    process.terminate()
    process.communicate(timeout=300)
    assert process.returncode == 0


def test_idle_costs_nothing(task_file: Path) -> None:
    """An idle task uses no CPU to speak of: it sleeps in the core, not in a loop."""
    process = subprocess.Popen(
        [*OTUS, "run", "-f", str(task_file), "--set", "capture.follow=true"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.readline()

    def ticks() -> int:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    switches = wait_until(lambda: _switches(process.pid) > 60, what="the task to go on living")
    spent = ticks() - before
    process.terminate()
    process.communicate(timeout=300)
    assert switches
    assert spent <= 20, f"{spent} clock ticks of 10 ms"


def _switches(pid: int) -> int:
    """Voluntary context switches of all threads: how often they woke and slept again."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total
