"""The daemon as a process: files, signals, supervision, and faults around it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from agent_fakes import task
from daemon_process import DaemonProcess, write_config
from leaks import assert_settles
from waiting import wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_config(tmp_path)
    return tmp_path


def test_it_runs_and_ends_in_order_and_leaves_no_files(folder: Path) -> None:
    with DaemonProcess(folder) as daemon:
        assert (folder / "otus.pid").read_text().strip() == str(daemon.pid)
        daemon.call("task.create", task=task())
        assert daemon.stop() == 0
        assert not (folder / "otus.pid").exists()
        assert not (folder / "otus.sock").exists()
        events = [line["event"] for line in daemon.log_lines()]
        assert events[0] == "daemon starts"
        assert events[-2:] == ["daemon stops", "daemon stopped"]
    with DaemonProcess(folder) as daemon:
        wait_until(lambda: daemon.task_states() == {"one": "running"})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_hurries_a_task_that_does_not_stop(
    folder: Path, number: signal.Signals
) -> None:
    with DaemonProcess(folder) as daemon:
        daemon.call("task.create", task=task(stop="hang"))
        daemon.signal(number)
        wait_until(lambda: daemon.logged("daemon stops"))
        assert daemon.process is not None
        assert daemon.process.poll() is None
        daemon.signal(number)
        assert daemon.process.wait(120) == 0
        assert daemon.logged("tasks are given up")


def test_a_task_that_does_not_stop_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    write_config(tmp_path, daemon={"shutdown_timeout": "100ms"})
    with DaemonProcess(tmp_path) as daemon:
        daemon.call("task.create", task=task(stop="hang"))
        assert daemon.stop() == 0
        assert daemon.logged("task does not stop and is given up")


def test_shutdown_through_the_socket_is_answered_and_done(folder: Path) -> None:
    with DaemonProcess(folder) as daemon:
        assert daemon.call("shutdown")["result"]["stopping"] is True
        assert daemon.process is not None
        assert daemon.process.wait(120) == 0


def test_a_second_daemon_is_refused_and_the_first_goes_on(folder: Path) -> None:
    with DaemonProcess(folder) as first:
        second = DaemonProcess(folder)
        process = second.spawn()
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 1
        assert f"already running (pid {first.pid}" in out
        assert "otus stop" in out
        assert out.count("\n") == 1
        assert "result" in first.call("status")
        assert (folder / "otus.pid").read_text().strip() == str(first.pid)


def test_one_that_shares_only_the_data_directory_is_refused_as_well(folder: Path) -> None:
    with DaemonProcess(folder):
        other = folder / "other"
        other.mkdir()
        write_config(other, daemon={"data_dir": str(folder / "data")})
        process = DaemonProcess(other).spawn()
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 1
        assert "in use by another daemon" in out


def test_stale_files_of_a_killed_daemon_stop_nobody(folder: Path) -> None:
    with DaemonProcess(folder) as first:
        first.call("task.create", task=task())
        first.kill()
    assert (folder / "otus.pid").exists()
    assert (folder / "otus.sock").exists()
    with DaemonProcess(folder) as second:
        wait_until(lambda: second.task_states() == {"one": "running"})
        assert (folder / "otus.pid").read_text().strip() == str(second.pid)


def test_a_pid_file_that_names_another_living_process_stops_nobody(folder: Path) -> None:
    (folder / "otus.pid").write_text(f"{os.getpid()}\n")
    with DaemonProcess(folder) as daemon:
        assert (folder / "otus.pid").read_text().strip() == str(daemon.pid)


# --- Reload ------------------------------------------------------------------


def test_sighup_applies_what_can_change_and_says_what_can_not(folder: Path) -> None:
    with DaemonProcess(folder) as daemon:
        write_config(
            folder,
            log={"level": "error"},
            daemon={"data_dir": "/elsewhere", "max_tasks": 1},
            agent={"tags": {"role": "edge"}},
        )
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: daemon.call("status")["result"]["log_level"] == "error")
        assert daemon.call("status")["result"]["tags"] == {"role": "edge"}
        shown = daemon.call("config.show")["result"]
        assert shown["daemon"]["data_dir"] == str(folder / "data")
        assert shown["daemon"]["max_tasks"] == 1
        answer = daemon.call("reload")["result"]
        assert answer == {
            "applied": [],
            "restart_needed": ["daemon.data_dir"],
            "failed": {},
            "tasks_as_before": [],
        }


def test_a_reload_names_the_tasks_that_run_on_with_what_they_inherited(folder: Path) -> None:
    """Brokers of running tasks stay, unless a task has its own; the answer says which do."""
    write_config(folder, kafka={"brokers": ["a.invalid:9092"]})
    to_kafka = {"type": "kafka", "config": {"topic": "t"}}
    own = {"type": "kafka", "config": {"topic": "t", "brokers": ["c.invalid:9092"]}}
    with DaemonProcess(folder) as daemon:
        for task_id, reporters in (("heir", [to_kafka]), ("own", [own]), ("none", ["console"])):
            daemon.call("task.create", task={**task(task_id), "reporters": reporters})
        write_config(folder, kafka={"brokers": ["b.invalid:9092"]})
        answer = daemon.call("reload")["result"]
        assert answer["applied"] == ["kafka.brokers"]
        assert answer["tasks_as_before"] == ["heir"]


def test_a_reload_takes_the_log_level_back_to_the_file_and_says_so(folder: Path) -> None:
    with DaemonProcess(folder) as daemon:
        daemon.call("log.level", level="error")
        assert daemon.call("reload")["result"]["applied"] == ["log.level"]
        assert daemon.call("log.level")["result"]["level"] == "debug"
        assert daemon.call("reload")["result"]["applied"] == []


def test_a_bad_file_leaves_everything_as_it_was(folder: Path) -> None:
    with DaemonProcess(folder) as daemon:
        daemon.call("task.create", task=task())
        before = daemon.call("config.show")["result"]
        (folder / "config.yml").write_text("log: {level: loud}")
        error = daemon.call("reload")["error"]
        assert error["data"]["code"] == "configuration_invalid"
        assert "config.yml:1:14: log.level: must be" in error["message"]
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: daemon.logged("reload refused, nothing changed"))
        assert daemon.call("config.show")["result"] == before
        assert daemon.task_states() == {"one": "running"}


def test_a_log_output_that_can_not_be_opened_leaves_the_old_ones(folder: Path) -> None:
    with DaemonProcess(folder) as daemon:
        write_config(folder, log={"outputs": [{"type": "file", "path": "/proc/none/x.log"}]})
        answer = daemon.call("reload")["result"]
        assert "log" in answer["failed"]
        wait_until(lambda: daemon.logged("configuration reloaded"))


def test_environment_wins_over_the_file_after_a_reload_too(folder: Path) -> None:
    with DaemonProcess(folder, environment={"OTUS_LOG__LEVEL": "warn"}) as daemon:
        daemon.call("reload")
        assert daemon.call("status")["result"]["log_level"] == "warn"


# --- systemd -----------------------------------------------------------------


def test_systemd_is_told_of_every_step_and_that_the_loop_lives(folder: Path) -> None:
    path = folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(path))
        supervisor.settimeout(120)

        def next_told(what: str) -> str:
            while True:
                message = supervisor.recv(4096).decode()
                if what in message:
                    return message

        environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "100000"}
        with DaemonProcess(folder, environment=environment) as daemon:
            assert f"MAINPID={daemon.pid}" in next_told("READY=1")
            for _ in range(3):
                next_told("WATCHDOG=1")
            daemon.signal(signal.SIGHUP)
            assert "MONOTONIC_USEC=" in next_told("RELOADING=1")
            next_told("READY=1")
            daemon.signal(signal.SIGTERM)
            next_told("STOPPING=1")


def test_a_notify_socket_that_is_gone_disturbs_nobody(folder: Path) -> None:
    environment = {"NOTIFY_SOCKET": str(folder / "gone"), "WATCHDOG_USEC": "50000"}
    with DaemonProcess(folder, environment=environment) as daemon:
        assert daemon.stop() == 0


# --- Privileges --------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="needs capabilities to see them given up")
def test_only_the_capabilities_of_capture_stay_in_every_thread(folder: Path) -> None:
    with DaemonProcess(folder) as daemon:
        kept = 1 << 12 | 1 << 13
        for thread in Path(f"/proc/{daemon.pid}/task").iterdir():
            try:
                lines = (thread / "status").read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
            status = dict(line.split(":\t", 1) for line in lines)
            assert int(status["CapEff"], 16) & ~kept == 0
            assert int(status["CapPrm"], 16) & ~kept == 0
            assert int(status["CapBnd"], 16) & ~kept == 0
            assert status["NoNewPrivs"] == "1"
        limits = Path(f"/proc/{daemon.pid}/limits").read_text()
        assert [line.split()[4:6] for line in limits.splitlines() if "core file" in line] == [
            ["0", "0"]
        ]


# --- In the background -------------------------------------------------------


def test_background_returns_when_the_socket_answers(folder: Path) -> None:
    daemon = DaemonProcess(folder)
    done = subprocess.run(
        [*daemon.command(), "--background"], env=daemon.environ(), timeout=300, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = daemon.call("status")["result"]["pid"]
    try:
        second = subprocess.run(
            [*daemon.command(), "--background"], env=daemon.environ(), timeout=300, check=False,
            capture_output=True, text=True,
        )  # fmt: skip
        assert second.returncode == 1
        assert f"already running (pid {pid}" in second.stderr
    finally:
        daemon.call("shutdown")
        wait_until(lambda: not Path(f"/proc/{pid}").exists())


# --- Faults ------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [6, pytest.param(60, marks=pytest.mark.soak)])
def test_kill_9_in_a_storm_of_creates_and_deletes_loses_nothing_answered(
    folder: Path, rounds: int
) -> None:
    """What was answered has happened; what was not may or may not have."""
    random_numbers = random.Random(5)
    expected: dict[str, bool] = {}  # id: exists, of what was answered
    unsure: set[str] = set()
    for _ in range(rounds):
        with DaemonProcess(folder) as daemon:
            wait_until(lambda d=daemon: set(d.task_states().values()) <= {"running"})  # type: ignore[misc]
            _check_consistent(daemon, expected, unsure)
            storm = _Storm(daemon, expected, unsure)
            storm.start()
            enough = random_numbers.randrange(1, 40)
            wait_until(lambda s=storm, n=enough: s.answered >= n)  # type: ignore[misc]
            daemon.kill()
            storm.join(120)
    with DaemonProcess(folder) as daemon:
        wait_until(lambda: set(daemon.task_states().values()) <= {"running"})
        _check_consistent(daemon, expected, unsure)
        assert not list((folder / "data").rglob(".new-*"))
        assert not list((folder / "data").rglob("*.corrupt"))


def _check_consistent(daemon: DaemonProcess, expected: dict[str, bool], unsure: set[str]) -> None:
    states = daemon.task_states()
    assert set(states.values()) <= {"running"}
    for task_id, exists in expected.items():
        if task_id not in unsure:
            assert (task_id in states) is exists, task_id
    on_disk = {
        json.loads(file.read_text())["id"] for file in (daemon.folder / "data/tasks").iterdir()
    }
    assert on_disk == set(states)
    expected.clear()
    expected.update(dict.fromkeys(states, True))
    unsure.clear()


class _Storm(threading.Thread):
    """Creates and deletes tasks as fast as it gets answers, until there are none."""

    def __init__(self, daemon: DaemonProcess, expected: dict[str, bool], unsure: set[str]) -> None:
        super().__init__(daemon=True)
        self._daemon = daemon
        self._expected = expected
        self._unsure = unsure
        self.answered = 0

    def run(self) -> None:
        numbers = random.Random(7)
        while True:
            task_id = f"t{numbers.randrange(8)}"
            create = not self._expected.get(task_id, False)
            self._unsure.add(task_id)
            try:
                if create:
                    answer = self._daemon.call("task.create", task=task(task_id))
                else:
                    answer = self._daemon.call("task.delete", id=task_id)
            except OSError:
                return
            assert "result" in answer, answer
            self._unsure.discard(task_id)
            self._expected[task_id] = create
            self.answered += 1


def _limit_files(pid: int, octets: int) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (octets, hard))


def test_a_full_disk_refuses_tasks_keeps_running_ones_and_recovers_by_itself(
    folder: Path,
) -> None:
    with DaemonProcess(folder) as daemon:
        daemon.call("task.create", task=task("before"))
        # Like a full disk: no file grows any more, neither tasks nor log.
        _limit_files(daemon.pid, 1)
        error = daemon.call("task.create", task=task("during"))["error"]
        assert error["data"]["code"] == "store_failed"
        assert "can't be written" in error["message"]
        assert daemon.task_states() == {"before": "running"}

        def lost() -> int:
            logs = daemon.call("stats")["result"]["logs"]
            return int(logs[f"file {folder}/otus.log"]["dropped_error"])

        wait_until(lambda: lost() > 0)
        _limit_files(daemon.pid, resource.RLIM_INFINITY)
        assert "result" in daemon.call("task.create", task=task("after"))
        assert "result" in daemon.call("task.delete", id="before")
        assert daemon.task_states() == {"after": "running"}

        def writes_again() -> list[dict[str, Any]]:
            daemon.call("log.level", level=random.choice(["debug", "info"]))
            return daemon.logged("log level changed")

        wait_until(writes_again)
        for line in (folder / "otus.log").read_text().splitlines():
            assert line.startswith("{")


@pytest.mark.parametrize("cycles", [100, pytest.param(1_000, marks=pytest.mark.soak)])
def test_creates_and_deletes_leak_nothing(folder: Path, cycles: int) -> None:
    def figures() -> dict[str, int]:
        found: dict[str, int] = daemon.call("status")["result"]["process"]
        return found

    def work() -> None:
        for number in range(cycles):
            daemon.call("task.create", task=task(f"t{number}"))
            daemon.call("task.delete", id=f"t{number}")

    with DaemonProcess(folder) as daemon:
        for number in range(120):  # the history fills up, caches warm up
            daemon.call("task.create", task=task(f"warm{number}"))
            daemon.call("task.delete", id=f"warm{number}")
        assert_settles(figures, work, descriptors=1, threads=1, resident_octets=2_000_000)
        assert daemon.call("status")["result"]["history"] == 100


def test_clients_that_do_what_they_like_leave_nothing_behind(folder: Path) -> None:
    """Garbage, half requests, hang-ups before the answer: thousands of them."""
    numbers = random.Random(11)
    messages = [
        b"\x00" * 100,
        b"[" * 5_000 + b"\n",
        b'{"jsonrpc":"2.0","method":"stats","id":1}\n' * 3,
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf",
        b'{"jsonrpc":"2.0","method":"task.create","params":{"task":{"id":"x"}},"id":1}\n',
    ]

    def figures() -> dict[str, int]:
        found: dict[str, int] = daemon.call("status")["result"]["process"]
        return found

    def mischief(rounds: int) -> None:
        for _ in range(rounds):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(daemon.socket_path)
                # Who is one too many may be told so, and cut off, before.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    client.send(numbers.choice(messages))

    def is_quiet() -> bool:
        # An answer may be that there are too many clients, until those are gone.
        answer = daemon.call("status").get("result", {"socket": {"clients": 0}})
        return bool(answer["socket"]["clients"] == 1)

    def work() -> None:
        for _ in range(8):
            mischief(200)
            wait_until(is_quiet)

    with DaemonProcess(folder) as daemon:
        work()  # finds how much memory as many clients at once take
        assert_settles(figures, work, descriptors=0, threads=0, resident_octets=3_000_000)
        assert "connections_failed" not in daemon.call("status")["result"]["socket"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_it_runs_as_an_ordinary_user_without_any_capability() -> None:
    """Files of that user only; what it can't do is told, and nothing is refused by it."""
    # Not below pytest's own folder, which each pytest that starts closes to other users.
    with tempfile.TemporaryDirectory() as folder:
        run_as_an_ordinary_user(Path(folder))


def run_as_an_ordinary_user(home: Path) -> None:
    write_config(home)
    os.chown(home, 12_345, 12_345)
    setpriv = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "--inh-caps=-all",
               "--bounding-set=-all"]  # fmt: skip
    probe = subprocess.run(
        [*setpriv, sys.executable, "-c", "import otus_sdk"], capture_output=True, check=False
    )
    if probe.returncode != 0:
        pytest.skip("this user may not read the installed Python")
    with DaemonProcess(home, prefix=setpriv) as daemon:
        daemon.call("task.create", task=task())
        figures = daemon.call("status")["result"]["process"]
        assert figures["descriptors"] > 5
        assert [line for line in daemon.log_lines() if line["event"].startswith("no CAP_NET_RAW")]
        assert daemon.stop() == 0


def test_without_permission_it_says_what_to_do(tmp_path: Path) -> None:
    write_config(tmp_path, daemon={"pid_file": "/proc/otus.pid"})
    daemon = DaemonProcess(tmp_path, fake=False)
    process = daemon.spawn()
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert out.count("\n") == 1
    assert "/proc/otus.pid" in out
