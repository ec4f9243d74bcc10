"""Logs: what a line looks like, files that turn over, Loki in good and bad days."""

from __future__ import annotations

import gzip
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from free_ports import free_port
from loki_server import LokiServer, basic_auth
from otus_agent import logs as logs_module
from otus_agent.config.agent import LogConfig
from otus_agent.config.masking import MASK
from otus_agent.config.task import FaultSection
from otus_agent.logs import Logs
from otus_agent.logs import loki as loki_module
from otus_agent.logs.entry import Entry, render_json, render_text
from otus_agent.logs.file import FileOutput
from otus_agent.logs.logger import get_logger
from otus_agent.logs.outputs import StreamOutput
from otus_agent.logs.repeats import Repeats
from otus_agent.stages import FaultTracker
from waiting import wait_until


@pytest.fixture
def logs() -> Iterator[Callable[..., Logs]]:
    """Starts logs by a configuration; closes them at the end."""
    started: list[Logs] = []
    root = logging.getLogger()
    before = (list(root.handlers), root.level)

    def start(**config: Any) -> Logs:
        one = Logs("agent-1")
        one.start(LogConfig.model_validate(config))
        started.append(one)
        return one

    yield start
    for one in started:
        one.close(2.0)
    root.handlers[:], root.level = before[0], before[1]


@pytest.fixture
def loki(monkeypatch: pytest.MonkeyPatch) -> Iterator[LokiServer]:
    monkeypatch.setattr(loki_module, "FIRST_BACKOFF_S", 0.01)
    server = LokiServer()
    yield server
    server.close()


def to_file(folder: Path, **more: Any) -> dict[str, Any]:
    return {"type": "file", "path": str(folder / "otus.log"), **more}


def to_loki(server: LokiServer, **more: Any) -> dict[str, Any]:
    return {"type": "loki", "endpoint": server.url, "flush_interval": "20ms", **more}


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines so far; one that is being written is left out."""
    whole, _, _ = (folder / "otus.log").read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def entry(event: str = "event", **fields: Any) -> Entry:
    return Entry(1_795_510_213_218_227_000, "info", "tests", event, fields, "")


# --- Lines ---------------------------------------------------------------------


def test_a_line_is_one_json_object_with_fixed_keys(
    logs: Callable[..., Logs], tmp_path: Path
) -> None:
    log = logs(outputs=[to_file(tmp_path)])
    get_logger("otus.x").info("task created", task="a", octets=b"\x00\xff", number=5)
    logging.getLogger("library").warning("%s of %d", "one", 2)
    try:
        raise ValueError("broken")
    except ValueError:
        get_logger("otus.y").exception("it failed")
    assert log.flush(120)
    first, second, third = read_lines(tmp_path)
    assert list(first)[:4] == ["ts", "level", "logger", "event"]
    assert first["ts"].endswith("Z")
    assert (first["task"], first["octets"], first["number"]) == ("a", "00ff", 5)
    assert (second["level"], second["event"]) == ("warn", "one of 2")
    assert third["exception"].endswith("ValueError: broken")


def test_a_plugins_fault_is_logged_once_a_kind_with_its_packet(
    logs: Callable[..., Logs], tmp_path: Path
) -> None:
    log = logs(outputs=[to_file(tmp_path)])
    tracker = FaultTracker("mine", FaultSection(), "t1")
    for octets in (b"\x01\xff", b"\x02"):
        try:
            raise ValueError("no such field")
        except ValueError as error:
            tracker.fault(error, octets)
    assert log.flush(120)
    (line,) = read_lines(tmp_path)
    assert (line["level"], line["task"], line["plugin"]) == ("error", "t1", "mine")
    assert line["packet"] == "01ff"
    assert line["exception"].endswith("ValueError: no such field")


def test_secrets_do_not_reach_the_log(logs: Callable[..., Logs], tmp_path: Path) -> None:
    log = logs(outputs=[to_file(tmp_path)])
    get_logger("tests").info(
        "connecting", password="hunter2", sasl={"password": "hunter2"}, url="http://u:hunter2@x/"
    )
    assert log.flush(120)
    assert "hunter2" not in (tmp_path / "otus.log").read_text()
    assert read_lines(tmp_path)[0]["password"] == MASK


@given(st.text(), st.dictionaries(st.text(), st.text() | st.integers() | st.none(), max_size=4))
def test_whatever_is_logged_stays_on_one_line(event: str, fields: dict[str, Any]) -> None:
    one = entry(event, **{f"f_{key}": value for key, value in fields.items()})
    assert b"\n" not in render_json(one)
    assert len(render_text(one).decode().splitlines()) == 1
    assert json.loads(render_json(entry(event)))["event"] == event


def test_a_traceback_forges_no_line_and_steers_no_terminal() -> None:
    """What a plugin raises may quote a packet."""
    told = "Traceback:\n  File x\nValueError: \x1b[2J\rforged\x85\u2028line"
    one = Entry(1_795_510_213_218_227_000, "error", "tests", "event", {}, told)
    lines = render_text(one).decode().splitlines()
    assert lines[1:] == [
        "  Traceback:",
        "    File x",
        "  ValueError: \\x1b[2J\\rforged\\x85\\u2028line",
    ]


def test_odd_values_are_told_all_the_same() -> None:
    odd = entry("\ud800", big=1 << 70, level="mine", nested={"a": [1]})
    document = json.loads(render_json(odd))
    assert document["event"] == "\ud800"
    assert document["big"] == 1 << 70
    assert document["level"] == "info"
    assert document["level_"] == "mine"
    assert b'nested=\'{"a"' in render_text(odd) or b'nested={"a": [1]}' in render_text(odd)


def test_what_can_not_be_formatted_is_counted_and_harms_nobody(
    logs: Callable[..., Logs], tmp_path: Path
) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("broken")

    log = logs(outputs=[to_file(tmp_path)])
    get_logger("tests").info("x", value=Broken())
    logging.getLogger().info("%d", "no number")
    get_logger("tests").info("after")
    assert log.flush(120)
    assert [line["event"] for line in read_lines(tmp_path)] == ["after"]
    assert log.stats()["unreadable"] == 2


def test_a_library_that_repeats_itself_is_told_once_a_minute_and_counted(
    logs: Callable[..., Logs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that is gone for an hour turns no other line out of the files."""
    now = [1000.0]
    monkeypatch.setattr(logs_module, "Repeats", lambda: Repeats(lambda: now[0]))
    log = logs(outputs=[to_file(tmp_path)])
    for minute in range(3):
        now[0] = 1000.0 + 60 * minute
        for _ in range(500):
            logging.getLogger("aiokafka.client").error("no node %s", 1)
            get_logger("otus.mine").warning("mine")
    logging.getLogger("aiokafka.client").error("no node %s", 2)
    assert log.flush(120)
    lines = [line for line in read_lines(tmp_path) if line["logger"] == "aiokafka.client"]
    assert [(line["event"], line.get("repeated")) for line in lines] == [
        ("no node 1", None), ("no node 1", 499), ("no node 1", 499), ("no node 2", None),
    ]  # fmt: skip
    assert log.stats()["repeated"] == 3 * 499
    assert len(read_lines(tmp_path)) == 4 + 3 * 500


def test_what_repeats_itself_is_remembered_within_bounds() -> None:
    repeats = Repeats(lambda: 0.0)
    assert [repeats.since_told("a", str(number)) for number in range(1000)] == [0] * 1000
    assert repeats.since_told("a", "999") is None
    assert repeats.since_told("a", "0") == 0  # forgotten


def test_the_level_changes_at_once_for_every_logger(
    logs: Callable[..., Logs], tmp_path: Path
) -> None:
    log = logs(level="warn", outputs=[to_file(tmp_path)])
    mine = get_logger("otus.mine")
    mine.info("before")
    log.set_level("debug")
    mine.debug("between")
    logging.getLogger("library").debug("foreign")
    log.set_level("error")
    mine.warning("after")
    assert log.flush(120)
    assert [line["event"] for line in read_lines(tmp_path)] == ["between", "foreign"]
    assert log.level == "error"


def test_several_outputs_get_every_line_each_in_its_form(
    logs: Callable[..., Logs], tmp_path: Path
) -> None:
    other = tmp_path / "other.log"
    log = logs(outputs=[to_file(tmp_path), {"type": "file", "path": str(other), "format": "text"}])
    get_logger("x").info("hello", to="world")
    assert log.flush(120)
    assert read_lines(tmp_path)[0]["to"] == "world"
    assert other.read_text().endswith(" info  x: hello to=world\n")


def test_a_change_of_outputs_loses_no_line(logs: Callable[..., Logs], tmp_path: Path) -> None:
    log = logs(outputs=[to_file(tmp_path)])
    done = threading.Event()
    sent = 0

    def chatter() -> None:
        nonlocal sent
        while not done.is_set():
            get_logger("tests").info("n", number=sent)
            sent += 1
            time.sleep(0.0005)

    thread = threading.Thread(target=chatter)
    thread.start()
    for number in range(10):
        outputs = [to_file(tmp_path, max_backups=number)]
        log.apply(LogConfig.model_validate({"outputs": outputs}))
    done.set()
    thread.join()
    assert log.flush(120)
    assert sorted(line["number"] for line in read_lines(tmp_path)) == list(range(sent))


def test_an_output_that_can_not_be_opened_leaves_the_old_ones(
    logs: Callable[..., Logs], tmp_path: Path
) -> None:
    log = logs(outputs=[to_file(tmp_path)])
    bad = LogConfig.model_validate(
        {"level": "debug", "outputs": [{"type": "file", "path": "/proc/none/x"}]}
    )
    with pytest.raises(OSError, match="/proc/none"):
        log.apply(bad)
    get_logger("tests").info("still here")
    assert log.flush(120)
    assert log.level == "info"
    assert len(read_lines(tmp_path)) == 1


# --- Files ---------------------------------------------------------------------


def file_output(folder: Path, **more: Any) -> FileOutput:
    settings = {"max_octets": 1_000, "max_age_s": 3_600.0, "max_backups": 3, "compress": False}
    output = FileOutput(str(folder / "otus.log"), 10_000, render_text, **{**settings, **more})
    output.start()
    return output


def close(output: Any) -> None:
    output.close(time.monotonic() + 120)


def backups(folder: Path) -> list[Path]:
    return sorted(folder.glob("otus-*"))


def test_a_file_turns_over_by_size_and_old_ones_go(tmp_path: Path) -> None:
    output = file_output(tmp_path, max_backups=2)
    for number in range(60):
        output.put(entry(f"{number:03d} {'x' * 50}"))
    assert output.flush(120)
    wait_until(lambda: len(backups(tmp_path)) == 2)
    close(output)
    assert all(file.stat().st_size <= 1_000 for file in (*backups(tmp_path), tmp_path / "otus.log"))
    text = "".join(file.read_text() for file in (*backups(tmp_path), tmp_path / "otus.log"))
    numbers = [int(line.split("tests: ")[1][:3]) for line in text.splitlines()]
    assert numbers == list(range(numbers[0], 60))


def test_set_aside_files_are_compressed_whole(tmp_path: Path) -> None:
    output = file_output(tmp_path, compress=True, max_backups=50)
    for number in range(40):
        output.put(entry(f"{number:03d} {'x' * 50}"))
    assert output.flush(120)
    wait_until(lambda: backups(tmp_path) and all(f.suffix == ".gz" for f in backups(tmp_path)))
    close(output)
    text = "".join(gzip.decompress(file.read_bytes()).decode() for file in backups(tmp_path))
    text += (tmp_path / "otus.log").read_text()
    assert [int(line.split("tests: ")[1][:3]) for line in text.splitlines()] == list(range(40))


def test_what_a_killed_process_left_behind_is_tidied_up(tmp_path: Path) -> None:
    left = tmp_path / "otus-20260101T000000.000000Z.log"
    left.write_text("whole\n")
    (tmp_path / "otus-20260101T000000.000001Z.log.gz.new").write_text("half")
    (tmp_path / "otus.log").write_text("cut o")
    output = file_output(tmp_path, compress=True)
    output.put(entry("next"))
    close(output)
    assert [file.name for file in backups(tmp_path)] == [f"{left.name}.gz"]
    first, second = (tmp_path / "otus.log").read_text().splitlines()
    assert first == "cut o"
    assert second.endswith("tests: next")


def test_what_can_not_be_tidied_up_stays(tmp_path: Path) -> None:
    """A leftover that can't be deleted kept the daemon from starting."""
    (tmp_path / "otus-20260101T000000.000001Z.log.gz.new").mkdir()
    output = file_output(tmp_path)
    output.put(entry("next"))
    close(output)
    assert (tmp_path / "otus.log").read_text().endswith("tests: next\n")


def test_files_older_than_allowed_go_and_an_old_current_one_is_set_aside(tmp_path: Path) -> None:
    ancient = tmp_path / "otus-20200101T000000.000000Z.log"
    ancient.write_text("x\n")
    os.utime(ancient, (1, 1))
    current = tmp_path / "otus.log"
    current.write_text("yesterday\n")
    os.utime(current, (time.time() - 7_200,) * 2)
    output = file_output(tmp_path, max_age_s=3_600.0)
    output.put(entry("today"))
    close(output)
    assert not ancient.exists()
    assert "today" in current.read_text()
    assert "yesterday" not in current.read_text()


def test_steps_of_the_clock_neither_turn_files_over_nor_lose_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = file_output(tmp_path, max_backups=100)
    wall_clock = time.time
    for offset in (0.0, -86_400.0, 86_400.0, 0.0):
        monkeypatch.setattr(time, "time", lambda offset=offset: wall_clock() + offset)
        output.put(entry(f"step {offset}"))
        assert output.flush(120)
    close(output)
    assert backups(tmp_path) == []
    assert (tmp_path / "otus.log").read_text().count("step ") == 4


def test_two_set_aside_at_one_moment_do_not_overwrite_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import datetime

    from otus_agent.logs import file as file_module

    class Frozen(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime(2026, 1, 1, tzinfo=tz)

    monkeypatch.setattr(file_module, "datetime", Frozen)
    output = file_output(tmp_path, max_backups=100, max_octets=10)
    for number in range(5):
        output.put(entry(str(number)))
    close(output)
    assert len(backups(tmp_path)) == 4


def test_a_file_that_is_moved_away_is_opened_anew(tmp_path: Path) -> None:
    output = file_output(tmp_path)
    output.put(entry("one"))
    assert output.flush(120)
    (tmp_path / "otus.log").rename(tmp_path / "moved")
    output.reopen()
    output.put(entry("two"))
    close(output)
    assert "two" in (tmp_path / "otus.log").read_text()
    assert "one" in (tmp_path / "moved").read_text()


def test_a_full_disk_is_counted_and_got_over(tmp_path: Path) -> None:
    (tmp_path / "otus.log").symlink_to("/dev/full")  # every write: no space left
    output = file_output(tmp_path)
    for number in range(20):
        output.put(entry(str(number)))
    assert output.flush(120)
    assert output.stats()["dropped_error"] == 20
    (tmp_path / "otus.log").unlink()

    def writes() -> bool:
        output.put(entry("again"))
        return output.stats()["written"] > 0

    wait_until(writes)
    close(output)


def test_a_directory_that_can_not_be_written_leaves_the_file_growing(tmp_path: Path) -> None:
    output = file_output(tmp_path, max_octets=100)
    output._backup_name = lambda: Path("/proc/none/x")  # type: ignore[method-assign]
    for _ in range(10):
        output.put(entry("x" * 60))
    close(output)
    assert output.stats()["written"] == 10
    assert output.stats()["rotation_failed"] >= 1


def test_nobody_waits_for_a_reader_that_does_not_read() -> None:
    reading, writing = os.pipe()
    output = StreamOutput("pipe", 1_000, writing, render_text)
    output.start()
    for number in range(20_000):  # far beyond pipe and queue
        output.put(entry(f"{number} {'x' * 100}"))
    figures = output.stats()
    assert figures["dropped_queue"] > 10_000
    assert figures["queued"] <= 1_000
    close_at = time.monotonic() + 0.05
    output.close(close_at)  # comes back although the thread hangs
    os.set_blocking(reading, False)
    while output._thread.is_alive():
        try:
            os.read(reading, 1 << 20)
        except BlockingIOError:
            time.sleep(0.001)
    os.close(reading)
    os.close(writing)


# --- Loki ----------------------------------------------------------------------


def test_loki_gets_labels_lines_and_metadata_as_its_protocol_says(
    logs: Callable[..., Logs], loki: LokiServer
) -> None:
    log = logs(outputs=[to_loki(loki, labels={"env": "test"}, tenant="t1", username="u",
                                password="p")])  # fmt: skip
    get_logger("otus.a").info("hello", call_id="abc@host", number=7)
    get_logger("otus.b").error("trouble")
    assert log.flush(120)
    assert loki.violations == []
    (labels, _, line, metadata), (other, *_) = sorted(loki.entries, key=lambda one: one[1])
    assert labels == {"app": "otus", "agent": "agent-1", "env": "test", "level": "info"}
    assert other["level"] == "error"
    assert json.loads(line)["event"] == "hello"
    assert metadata == {"logger": "otus.a", "call_id": "abc@host", "number": "7"}
    assert loki.headers[0]["X-Scope-OrgID"] == "t1"
    assert loki.headers[0]["Authorization"] == basic_auth("u", "p")


def test_batches_are_full_or_on_time(logs: Callable[..., Logs], loki: LokiServer) -> None:
    log = logs(outputs=[to_loki(loki, batch_size=10, flush_interval="1h")])
    for number in range(25):
        get_logger("tests").info("n", number=number)
    wait_until(lambda: loki.batches == [10, 10])
    log.apply(LogConfig.model_validate({"outputs": [to_loki(loki, batch_size=10)]}))
    assert loki.batches == [10, 10, 5]  # what waited is sent at the end
    get_logger("tests").info("alone")
    wait_until(lambda: loki.batches == [10, 10, 5, 1])
    assert [json.loads(line).get("number") for line in loki.lines()][:25] == list(range(25))


@pytest.mark.parametrize("trouble", [[500, 503, 500], [429], ["drop", "drop"], ["slow"]])
def test_passing_trouble_is_waited_out_without_loss_or_doubles(
    logs: Callable[..., Logs], loki: LokiServer, trouble: list[int | str]
) -> None:
    loki.behaviour.extend(trouble)
    log = logs(outputs=[to_loki(loki)])
    for number in range(5):
        get_logger("tests").info("n", number=number)
    assert log.flush(120)
    assert sorted(json.loads(line)["number"] for line in loki.lines()) == list(range(5))
    assert log.stats()[f"loki {loki.url}"]["written"] == 5


def test_pauses_grow_and_a_wish_for_a_pause_is_granted(
    logs: Callable[..., Logs], loki: LokiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loki_module.random, "uniform", lambda _low, high: high)
    loki.behaviour.extend([500, 500, 500, 429])
    loki.retry_after = "1"
    log = logs(outputs=[to_loki(loki)])
    get_logger("tests").info("x")
    assert log.flush(120)
    gaps = [
        later - earlier for earlier, later in zip(loki.requests, loki.requests[1:], strict=False)
    ]
    assert gaps[0] >= 0.01
    assert gaps[1] >= 0.02
    assert gaps[2] >= 0.04
    assert gaps[3] >= 1.0


def test_what_loki_will_never_take_is_dropped_and_counted(
    logs: Callable[..., Logs], loki: LokiServer
) -> None:
    loki.behaviour.extend([400, 401])
    log = logs(outputs=[to_loki(loki, batch_size=1)])
    for event in ("a", "b", "c"):
        get_logger("tests").info(event)
    assert log.flush(120)
    assert [json.loads(line)["event"] for line in loki.lines()] == ["c"]
    assert log.stats()[f"loki {loki.url}"]["dropped_refused"] == 2


def test_a_loki_that_hangs_holds_up_nobody_and_is_bounded(
    logs: Callable[..., Logs], loki: LokiServer, tmp_path: Path
) -> None:
    loki.behaviour.extend(["hang"] * 50)
    log = logs(outputs=[to_loki(loki, queue_size=100, timeout="30s"), to_file(tmp_path)])
    for number in range(1_000):
        get_logger("tests").info("n", number=number)
    wait_until(lambda: len(read_lines(tmp_path)) == 1_000)
    figures = log.stats()[f"loki {loki.url}"]
    assert figures["queued"] <= 100
    assert figures["dropped_queue"] >= 700
    log.close(0.2)  # does not wait for the answer that never comes
    loki.released.set()


def test_a_loki_that_is_not_there_yet_gets_everything_once_it_is(
    logs: Callable[..., Logs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loki_module, "FIRST_BACKOFF_S", 0.01)
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}/loki/api/v1/push"
    log = logs(outputs=[{"type": "loki", "endpoint": endpoint, "flush_interval": "10ms",
                         "max_backoff": "50ms"}])  # fmt: skip
    get_logger("tests").info("early")
    wait_until(lambda: log.stats()[f"loki {endpoint}"].get("retries", 0) >= 2)
    server = LokiServer(port)
    try:
        wait_until(lambda: len(server.entries) == 1)
    finally:
        server.close()


def test_pushing_does_not_feed_on_its_own_lines(
    logs: Callable[..., Logs], loki: LokiServer
) -> None:
    log = logs(level="debug", outputs=[to_loki(loki)])
    logging.getLogger("httpx").error("HTTP Request: POST")
    get_logger("tests").info("mine")
    assert log.flush(120)
    wait_until(lambda: len(loki.entries) >= 1)
    assert [json.loads(line)["event"] for line in loki.lines()] == ["mine"]


def test_what_can_not_be_sent_at_all_is_counted_and_ends_nothing(
    logs: Callable[..., Logs], loki: LokiServer
) -> None:
    """A tenant that no header can hold ended the thread: nothing was sent or counted any more."""
    log = logs(outputs=[to_loki(loki, tenant="Mieter-\u20ac")])
    for number in (1, 2):
        get_logger("tests").info("x")
        wait_until(lambda n=number: log.stats()[f"loki {loki.url}"]["dropped_error"] == n)


def test_close_sends_what_waits_and_is_safe_twice(
    logs: Callable[..., Logs], loki: LokiServer
) -> None:
    log = logs(outputs=[to_loki(loki, flush_interval="1h")])
    get_logger("tests").info("last words")
    log.close(60)
    log.close(60)
    assert len(loki.entries) == 1
