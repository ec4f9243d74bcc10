"""The command line: what it prints, what it ends with, and how fast it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_fakes import task
from daemon_process import DaemonProcess, write_config
from otus_agent import cli as cli_package
from otus_agent.cli import COMMANDS, _run, client, render
from otus_agent.cli.figures import figures_of
from otus_agent.cli.render import show_table
from otus_agent.cli.task_view import show_status

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in this process: exit code, output, errors."""
    for name in [name for name in os.environ if name.startswith("OTUS_")]:
        monkeypatch.delenv(name)

    def run(*args: str) -> tuple[int, str, str]:
        code = _run(list(args))
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    folder = tmp_path_factory.mktemp("cli")
    write_config(folder)
    with DaemonProcess(folder) as daemon:
        yield daemon


@pytest.fixture
def otus(run: Run, daemon: DaemonProcess) -> Iterator[Run]:
    """Runs a command against the daemon, which has no tasks before and after."""
    yield lambda *args: run("--socket", daemon.socket_path, *args)
    for task_id in daemon.task_states():
        daemon.call("task.delete", id=task_id)


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    file = tmp_path / "one.json"
    file.write_text(json.dumps({"command": "task.create", "task": task()}))
    return file


# --- Without a daemon ----------------------------------------------------------


def test_every_command_of_the_table_is_there_or_still_to_come(run: Run) -> None:
    for name, entry in COMMANDS.items():
        module = Path(cli_package.__file__).parent / f"{entry.module}.py"
        if not module.exists():
            continue
        code, out, _ = run(name, "--help")
        assert code == 0, name
        assert "Usage" in out


def test_help_imports_nothing_heavy() -> None:
    """The slow imports are those of the daemon; `otus --help` must not pay for them."""
    script = (
        "import sys\nfrom otus_agent.cli import _run\ncode = _run(['--help'])\n"
        "heavy = {'pydantic', 'asyncio', 'httpx', 'structlog', 'yaml', 'aiokafka', 'otus_core',"
        " 'opentelemetry', 'orjson'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy or code else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_help_tells_the_exit_codes(run: Run) -> None:
    _, out, _ = run("--help")
    text = " ".join(out.split())
    assert "0 ok, 1 error, 2 usage, 3 daemon unreachable, 4 not found, 5" in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["tsk"], "otus: no command 'tsk', did you mean 'task'?: see `otus --help`"),
        (["task", "create"], "Missing option '--file'"),
        (["task", "list", "--outptu", "json"], "No such option"),
        (["--output", "xml", "status"], "'xml' is not one of 'table', 'json', 'yaml'"),
        (["daemon", "--set", "nonsense"], "must be KEY=VALUE"),
    ],
)
def test_wrong_usage_is_one_line_and_2(run: Run, args: list[str], message: str) -> None:
    code, out, err = run(*args)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert message in err


def test_an_error_steers_no_terminal(run: Run) -> None:
    """It may quote a plugin, which may quote a packet."""
    code, _, err = run("run", "-f", "/nowhere/\x1b[2J\r.json")
    assert code == 5
    assert err == "otus: /nowhere/\ufffd[2J\ufffd.json: can't be read: No such file or directory\n"


@pytest.mark.parametrize("args", [["status"], ["task", "list"], ["stop"], ["top"], ["reload"]])
def test_without_a_daemon_it_is_one_line_and_3(run: Run, args: list[str], tmp_path: Path) -> None:
    code, _, err = run("--socket", str(tmp_path / "none.sock"), *args)
    assert code == 3
    assert err == (
        f"otus: no daemon: there is no {tmp_path}/none.sock; "
        "start one with `otus daemon`, or give --socket\n"
    )


def test_the_socket_comes_from_option_environment_or_configuration(
    run: Run, daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = str(daemon.folder / "config.yml")
    assert run("--config", config, "status")[0] == 0
    assert run("status", "--socket", daemon.socket_path)[0] == 0
    monkeypatch.setenv("OTUS_SOCKET", daemon.socket_path)
    assert run("status")[0] == 0
    assert run("--config", "/nowhere.yml", "status")[0] == 0
    monkeypatch.setenv("OTUS_SOCKET", "/nowhere.sock")
    assert run("--socket", daemon.socket_path, "status")[0] == 0
    assert run("--config", config, "status")[0] == 3


def test_brokers_that_do_not_answer_are_told_in_one_line() -> None:
    command = [sys.executable, "-m", "otus_agent", "fleet", "list", "--brokers", "127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("otus: no broker answers at 127.0.0.1:1: ")
    assert done.stderr.count("\n") == 1


def test_a_configuration_that_can_not_be_read_means_no_other_daemon(
    run: Run, daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`otus --config typo.yml stop` does not stop the daemon at the default socket."""
    monkeypatch.setattr(client, "DEFAULT_SOCKET", daemon.socket_path)
    monkeypatch.setattr(client, "DEFAULT_CONFIG", str(tmp_path / "default.yml"))
    typo = str(tmp_path / "typo.yml")
    told = f"otus: {typo}: can't be read: No such file or directory; mend it, or give --socket\n"
    assert run("--config", typo, "status") == (5, "", told)
    Path(typo).write_text("daemon: [\n")
    code, out, error = run("--config", typo, "status")
    assert (code, out, error.count("\n")) == (5, "", 1)
    assert f"{typo}: can't be read: " in error
    # What nobody asked for does not stand between an operator and the daemon.
    (tmp_path / "default.yml").write_text("daemon: [\n")
    assert run("status")[0] == 0


def test_validate_tells_place_key_and_what_is_allowed(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "otus.yml"
    file.write_text("log:\n  levle: info\ndaemon: {max_tasks: 0}\n")
    code, out, err = run("validate", str(file))
    assert code == 5
    assert out == ""
    assert err.splitlines() == [
        f"{file}:2:3: log.levle: unknown key, did you mean 'level'?",
        f"{file}:3:21: daemon.max_tasks: must be greater than or equal to 1, not 0",
        "otus: 2 problems in 1 of 1 files",
    ]


def test_validate_knows_tasks_and_the_keys_of_their_plugins(run: Run, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(yaml.safe_dump(task()))
    bad.write_text(
        "command: task.create\n"
        "task:\n"
        "  id: x\n"
        "  capture: {type: afpacket, interfce: eth0}\n"
        "  parsers: [sipp]\n"
        "  reporters:\n"
        "    - {type: kafka, config: {topc: x}}\n"
    )
    assert run("validate", str(good)) == (0, f"{good}: valid task configuration\n", "")
    code, _, err = run("validate", str(good), str(bad))
    assert code == 5
    assert f"{bad}:4:29: capture.interfce: unknown key, did you mean 'interface'?" in err
    assert f"{bad}:5:13: parsers.0.type: no parser named 'sipp': did you mean 'sip'" in err
    assert f"{bad}:7:30: reporters.0.config.topc: unknown key, did you mean 'topic'?" in err
    code, out, _ = run("validate", str(bad), "--output", "json")
    assert code == 5
    assert json.loads(out)[0]["valid"] is False


def test_validate_tells_of_a_tasks_keys_and_its_plugins_ones_at_once(
    run: Run, tmp_path: Path
) -> None:
    """What is wrong with one section hides nothing in another, the capture filter included."""
    file = tmp_path / "task.json"
    file.write_text(
        '{"id": "no spaces please",\n'
        ' "capture": {"type": "pcap", "files": ["x"], "bpf_filter": "udp prt 5060"},\n'
        ' "decoder": {"ip_reassembly": "perhaps"},\n'
        ' "processors": [{"type": "filter", "config": {"drop_if": "sip.method == 5"}}],\n'
        ' "reporters": [{"type": "console", "config": {"format": "xml"}}]}\n'
    )
    code, _, err = run("validate", str(tmp_path))  # a directory stands for its files
    assert code == 5
    told = [line.removeprefix(f"{file}:") for line in err.splitlines()]
    assert told[0].startswith("1:8: id: must match ^[A-Za-z0-9]")
    assert told[1].startswith('2:60: capture.bpf_filter: "udp prt 5060": ')
    assert told[2] == "3:31: decoder.ip_reassembly: must be true or false, not 'perhaps'"
    assert told[3].startswith("4:58: processors.0.config.drop_if: expression, column 12: ")
    assert told[4:6] == ["  sip.method == 5", "             ^~"]
    assert told[6].startswith("5:57: reporters.0.config.format: must be ")
    assert told[7:] == ["otus: 5 problems in 1 of 1 files"]


def test_validate_refuses_a_label_that_nothing_in_the_task_makes(run: Run, tmp_path: Path) -> None:
    """As creating the task does, at the key, with the nearest names and a caret."""
    file = tmp_path / "task.json"
    capture = '"capture": {"type": "pcap", "files": ["x"]}, "reporters": ["console"]'
    sip = '{"type": "sip", "config": {"headers": {"sip.header.x_cid": "X-CID"}}}'
    text = f'{{"id": "x", {capture}, "parsers": [{sip}], "processors": ['
    condition = '{"type": "filter", "config": {"drop_if": "%s == \'a\'"}}'
    label = '{"type": "label", "config": {"labels": {"site.name": "a"}}}'
    file.write_text(f"{text}{label}, {condition % 'sip.metod'}]}}\n")
    code, _, err = run("validate", str(file))
    told = err.splitlines()
    assert code == 5
    assert "processors.1.config.drop_if: expression, column 1: unknown field 'sip.metod'" in told[0]
    assert "did you mean sip.method" in told[0]
    assert told[1:3] == ["  sip.metod == 'a'", "  ^~~~~~~~~"]
    for known in ("sip.header.x_cid", "site.name", "rtp.call_id"):
        file.write_text(f"{text}{label}, {condition % known}]}}\n")
        assert run("validate", str(file))[0] == 0


def test_a_key_forges_no_line(run: Run, tmp_path: Path) -> None:
    """Only what points into an expression is told in several lines."""
    file = tmp_path / "task.json"
    file.write_text(
        '{"id": "x", "a\\notus: all is well\\u001b[2J": 1, "capture": {"type": "pcap"}}'
    )
    code, _, err = run("validate", "--kind", "task", str(file))
    assert code == 5
    assert "\x1b" not in err
    assert "\notus: all is well" not in err


def test_what_is_shipped_is_valid(run: Run, root: Path) -> None:
    assert run("validate", str(root / "configs" / "config.yml"))[0] == 0
    for file in sorted((root / "configs" / "tasks").iterdir()):
        from otus_agent.cli.task import read_task

        assert read_task(str(file))["id"] == file.stem


def test_config_show_masks_secrets_and_obeys_the_environment(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "otus.yml"
    file.write_text(
        "kafka: {brokers: [k:9092], sasl: {username: u, password: hunter2}}\n"
        "log: {outputs: [{type: loki, endpoint: 'http://u:hunter2@x/y', password: hunter2}]}\n"
    )
    monkeypatch.setenv("OTUS_LOG__LEVEL", "error")
    for form in ("yaml", "json", "table"):
        code, out, _ = run("config", "show", "--config", str(file), "--output", form)
        assert code == 0
        assert "hunter2" not in out
        shown = yaml.safe_load(out)
        assert shown["log"]["level"] == "error"
        assert shown["kafka"]["sasl"]["username"] == "u"
    file.write_text("logg: {}")
    assert run("config", "show", "--config", str(file))[0] == 5


@pytest.mark.parametrize(("args", "title"), [([], "agent"), (["--task"], "task")])
def test_config_schema_is_json_schema(run: Run, args: list[str], title: str) -> None:
    code, out, _ = run("config", "schema", *args)
    assert code == 0
    assert json.loads(out)["title"] == f"Otus {title} configuration"


def test_a_daemon_with_a_bad_configuration_ends_with_5_and_all_problems(
    run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "otus.yml"
    file.write_text("logg: {}\nagent: {id: '?'}\n")
    code, _, err = run("--config", str(file), "daemon")
    assert code == 5
    assert [line.split(": ")[2] for line in err.splitlines()] == ["logg", "agent.id"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_what_the_shell_understands(run: Run, shell: str) -> None:
    code, out, _ = run("completion", shell)
    assert code == 0
    assert "_OTUS_COMPLETE" in out
    binary = shutil.which(shell)
    if binary is None:
        pytest.skip(f"{shell} is not installed: its script is made but not tried")
    subprocess.run([binary, "-n"], input=out, text=True, check=True, timeout=300)


def _complete(daemon: DaemonProcess, *words: str) -> list[str]:
    environment = {
        **daemon.environ(),
        "_OTUS_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["otus", *words]),
        "COMP_CWORD": str(len(words)),
        "OTUS_SOCKET": daemon.socket_path,
    }
    done = subprocess.run(
        [sys.executable, "-c", "from otus_agent.cli import main; main()"], env=environment,
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_completion_knows_commands_options_and_task_ids(daemon: DaemonProcess) -> None:
    daemon.call("task.create", task=task("call-7"))
    daemon.call("task.create", task=task("other"))
    try:
        assert _complete(daemon, "ta") == ["task"]
        assert _complete(daemon, "task", "st") == ["status"]
        assert _complete(daemon, "task", "delete", "ca") == ["call-7"]
        assert sorted(_complete(daemon, "task", "status", "")) == ["call-7", "other"]
        assert _complete(daemon, "task", "list", "--outp") == ["--output"]
        assert _complete(daemon, "log", "level", "de") == ["debug"]
    finally:
        daemon.call("task.delete", id="call-7")
        daemon.call("task.delete", id="other")


# --- With a daemon -------------------------------------------------------------


def test_a_task_is_created_listed_told_of_and_deleted(otus: Run, task_file: Path) -> None:
    assert otus("task", "list") == (0, "no tasks: create one with `otus task create -f FILE`\n", "")
    assert otus("task", "create", "-f", str(task_file)) == (0, "one running\n", "")
    code, out, err = otus("task", "create", "-f", str(task_file))
    assert (code, out) == (1, "")
    assert err == "otus: task 'one' is running: delete it first, or take another id\n"
    _, out, _ = otus("task", "list")
    assert out.split()[:6] == ["ID", "STATE", "UP", "CAPTURE", "RESTARTS", "LAST"]
    assert "one  running" in out
    assert "afpacket eth0" in out
    assert "\x1b" not in out
    _, out, _ = otus("task", "status", "one")
    assert "state    running" in out
    assert "capture   9  dropped[kernel] 2, received[frames] 7  =" in out
    assert out.splitlines()[-2:] == ["anomalies: ipv4_truncated 1", "balanced"]
    assert otus("task", "delete", "one")[1].startswith("one deleted: ")
    assert "one " in otus("task", "list", "--all")[1]


def test_a_task_comes_from_standard_input_too(
    otus: Run, daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO(yaml.safe_dump(task("piped"))))
    assert otus("task", "create", "-f", "-")[0] == 0
    assert daemon.task_states() == {"piped": "running"}


def test_a_bad_task_file_never_reaches_the_daemon(
    otus: Run, daemon: DaemonProcess, tmp_path: Path
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("id: x\ncapture: {type: afpacket}\nreporters: []\nparser: [sip]\n")
    code, _, err = otus("task", "create", "-f", str(file))
    assert code == 5
    assert f"otus: {file}:4:1: parser: unknown key, did you mean 'parsers'?" in err.splitlines()
    assert otus("task", "create", "-f", str(tmp_path / "none.yaml"))[0] == 5
    assert daemon.task_states() == {}


@pytest.mark.parametrize("command", ["delete", "status"])
def test_a_task_that_is_not_there_is_4(otus: Run, command: str) -> None:
    code, _, err = otus("task", command, "nothing")
    assert code == 4
    assert err == "otus: no task 'nothing': see `otus task list`\n"


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_results_are_for_programs_too(otus: Run, task_file: Path, form: str) -> None:
    read: Any = json.loads if form == "json" else yaml.safe_load
    assert read(otus("task", "create", "-f", str(task_file), "-o", form)[1])[0]["id"] == "one"
    assert read(otus("-o", form, "task", "list")[1])["tasks"][0]["state"] == "running"
    assert read(otus("task", "status", "one", "-o", form)[1])["ledger"]["balanced"] is True
    assert read(otus("status", "-o", form)[1])["agent_id"] == "agent-under-test"
    assert "one" in read(otus("stats", "-o", form)[1])["tasks"]


def test_apply_makes_the_set_equal_to_a_directory(
    otus: Run, daemon: DaemonProcess, tmp_path: Path
) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task(name)))
    assert (
        otus("task", "apply", str(folder), "--dry-run")[1]
        == "a would be created\nb would be created\n"
    )
    assert daemon.task_states() == {}
    assert otus("task", "apply", str(folder))[1] == "a created\nb created\n"
    (folder / "a.yaml").unlink()
    (folder / "b.yaml").write_text(yaml.safe_dump(task("b", snap_len=99)))
    (folder / "c.yaml").write_text(yaml.safe_dump(task("c", start="fail")))
    code, out, err = otus("task", "apply", str(folder))
    assert code == 1
    assert out == "a deleted\nb replaced\nc FAILED: task 'c' was told to fail\n"
    assert err == "otus: 1 of 2 tasks failed\n"
    assert daemon.task_states() == {"b": "running"}
    (folder / "d.yaml").write_text(yaml.safe_dump(task("b")))
    code, _, err = otus("task", "apply", str(folder))
    assert code == 5
    assert "is in" in err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert otus("task", "apply", str(empty))[0] == 1
    assert daemon.task_states() == {"b": "running"}


def test_log_level_is_told_and_set(otus: Run) -> None:
    assert otus("log", "level", "warn")[:2] == (0, "warn\n")
    assert otus("log", "level")[:2] == (0, "warn\n")
    otus("log", "level", "debug")


def test_reload_says_what_came_of_it(otus: Run, daemon: DaemonProcess) -> None:
    assert otus("reload")[:2] == (0, "nothing changed\n")
    try:
        write_config(daemon.folder, daemon={"max_tasks": 5, "pid_file": "/x"})
        code, out, _ = otus("reload")
        assert code == 0
        assert out == "applied         daemon.max_tasks\nneeds restart   daemon.pid_file\n"
        (daemon.folder / "config.yml").write_text("x: 1\ny: 2\n")
        code, _, err = otus("reload")
        assert code == 5
        assert len(err.splitlines()) == 2
    finally:
        write_config(daemon.folder)
        otus("reload")


def test_top_shows_tasks_and_ends_after_its_rounds(otus: Run, task_file: Path) -> None:
    otus("task", "create", "-f", str(task_file))
    code, out, _ = otus("top", "--count", "2", "--interval", "0.1")
    assert code == 0
    assert "one" in out
    assert "PACKETS/S" in out


def test_colours_are_off_with_no_color(otus: Run, task_file: Path, daemon: DaemonProcess) -> None:
    otus("task", "create", "-f", str(task_file))
    script = shutil.which("script")
    if script is None:
        pytest.skip("script(1) is not installed: no terminal to be had")

    def listing(**environment: str) -> str:
        command = f"{sys.executable} -m otus_agent --socket {daemon.socket_path} task list"
        clean = {name: text for name, text in daemon.environ().items() if name != "NO_COLOR"}
        done = subprocess.run(
            [script, "-qec", command, "/dev/null"], capture_output=True, text=True, timeout=300,
            check=True, env={**clean, "TERM": "xterm-256color", **environment},
        )  # fmt: skip
        return done.stdout

    assert "\x1b[32mrunning" in listing()
    # Colours are 30 to 37 and up; bold type is none.
    assert "\x1b[32m" not in listing(NO_COLOR="1")


def test_plugins_are_listed_with_and_without_a_daemon(otus: Run, run: Run) -> None:
    for listing in (otus("plugins", "-o", "json"), run("plugins", "-o", "json")):
        rows = json.loads(listing[1])["plugins"]
        assert ("parser", "sip") in {(row["kind"], row["name"]) for row in rows}


def test_doctor_finds_what_is_wrong_and_tells_the_fix(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "otus.yml"
    file.write_text(f"kafka: {{brokers: ['127.0.0.1:1']}}\ndaemon: {{data_dir: {tmp_path}}}\n")
    code, out, err = run("--config", str(file), "doctor", "-i", "no-such-if", "-o", "json")
    findings = {(one["check"], one["result"]): one for one in json.loads(out)}
    assert code == 1
    assert findings["interface", "fail"]["finding"] == "no-such-if: not there"
    assert "127.0.0.1:1" in findings["kafka", "fail"]["finding"]
    assert findings["kafka", "fail"]["fix"]
    assert all(one["fix"] for one in json.loads(out) if one["result"] != "ok")
    assert "failed: interface" in err
    file.write_text("logg: 1")
    _, out, _ = run("--config", str(file), "doctor", "-i", "lo")
    assert "logg: unknown key" in out
    assert "lo: up" in out


def test_stop_waits_until_the_daemon_is_gone(run: Run, tmp_path: Path) -> None:
    write_config(tmp_path)
    with DaemonProcess(tmp_path) as daemon:
        assert run("--socket", daemon.socket_path, "stop") == (0, "stopped\n", "")
        assert not (tmp_path / "otus.sock").exists()


def test_a_status_shows_pipelines_reporters_plugins_and_what_is_not_explained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_status({
        "id": "a", "state": "failed", "created_at": 0, "uptime_s": 5, "capture": "pcap",
        "interface": "", "files": "a.pcap, b.pcap", "restarts": 2, "last_error": "disk [gone]",
        "notes": ["a note"],
        "pipelines": [
            {"id": "a-0", "running": True, "stuck_in": "mine", "received": 7000, "dropped": 1,
             "counters": {"decoded": {"packets": 6000}, "emitted": {"records": 5}}},
        ],
        "reporters": [{"name": "kafka", "offered": 5, "reported": 1, "queued": 2,
                       "queued_octets": 2048, "dropped": {"queue": 1}, "failed": {"auth": 1}}],
        "plugins": [{"plugin": "mine", "faults": {"KeyError": 3}, "overruns": 0,
                     "quarantined": None},
                    {"plugin": "good", "faults": {}, "overruns": 0, "quarantined": None}],
        "ledger": {"balanced": False, "imbalances": ["decode: 3 in, 2 explained, difference 1"],
                   "equations": [{"name": "decode", "total": 3, "parts": {"decoded[packets]": 2}}],
                   "anomalies": {}, "interface_dropped": 4},
    })  # fmt: skip
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "capture pcap a.pcap, b.pcap" in lines
    assert "last error disk [gone]" in lines
    assert "a-0 stuck in mine 7,000 1 6,000 0 5" in lines
    assert "kafka 5 1 2 2.0 KiB 1 1" in lines
    assert "mine KeyError 3 0" in lines
    assert not [line for line in lines if line.startswith("good")]
    assert "decode 3 decoded[packets] 2 ≠" in lines
    assert lines[-3:] == [
        "lost before the socket: 4",
        "NOT EXPLAINED: decode: 3 in, 2 explained, difference 1",
        "NOT BALANCED",
    ]


def test_a_narrow_terminal_cuts_no_id_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sentences are folded; a table of words is rather wider than the terminal."""
    monkeypatch.setattr(render, "PIPE_WIDTH", 40)
    ids = ["sip-capture-of-the-northern-edge-01", "b"]
    show_table(["ID", "STATE", "#RESTARTS", "LAST ERROR"],
               [(one, "running", 1, "no such interface, and so on and on") for one in ids], "")  # fmt: skip
    out = capsys.readouterr().out
    for word in (*ids, "RESTARTS", "running"):
        assert word in out
    assert max(len(line) for line in out.splitlines()) < 80


def test_losses_are_told_apart_from_what_was_meant(run: Run) -> None:
    ledger = {
        "balanced": True,
        "equations": [
            {"name": "capture", "total": 100, "parts": {"dropped[kernel]": 7, "received[frames]": 93}},
            {"name": "decode", "total": 93, "parts": {"decoded[packets]": 90, "undecodable[non_ip]": 1,
                                                      "undecodable[ipv4_version]": 2}},
            {"name": "parse", "total": 90, "parts": {"parsed[sip]": 89, "pending": 1}},
            {"name": "report[kafka]", "total": 50, "parts": {"reported": 40, "queued": 4,
                                                            "dropped[queue]": 6}},
        ],
        "anomalies": {},
    }  # fmt: skip
    figures = figures_of({"ledger": ledger})
    assert (figures.received, figures.reported, figures.queued) == (100, 40, 4)
    assert figures.lost == {
        "capture dropped[kernel]": 7, "decode undecodable[ipv4_version]": 2,
        "report[kafka] dropped[queue]": 6,
    }  # fmt: skip
    assert figures_of({}).lost_total == 0
