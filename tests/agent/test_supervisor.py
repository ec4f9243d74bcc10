"""Tasks: created, kept on disk, watched, brought back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent_fakes import FakeTask, fake_agent, task
from otus_agent import supervisor as supervisor_module
from otus_agent.agent import Agent
from otus_agent.store import StoreFailed, StoreLocked, TaskRecord, TaskStore
from otus_agent.supervisor import TaskEvent
from otus_sdk.errors import (
    ConfigurationInvalid,
    TaskAlreadyExists,
    TaskNotFound,
    TaskStartFailed,
)
from waiting import wait_until_async


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    agent = fake_agent(tmp_path)
    await agent.start()
    yield agent
    await agent.stop(0.1)


def files(agent: Agent) -> list[str]:
    folder = Path(agent.config.daemon.data_dir) / "tasks"
    return sorted(file.name for file in folder.iterdir())


def fake(agent: Agent, task_id: str = "one") -> FakeTask:
    run = agent.supervisor.get(task_id).task
    assert isinstance(run, FakeTask)
    return run


async def test_a_created_task_runs_and_is_on_disk_for_its_owner_alone(agent: Agent) -> None:
    entry = await agent.supervisor.create(task())
    assert entry.state == "running"
    assert files(agent) == ["one.json"]
    file = Path(agent.config.daemon.data_dir) / "tasks" / "one.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text())["config"] == task()


async def test_a_running_id_is_refused_and_the_running_task_is_left_alone(agent: Agent) -> None:
    await agent.supervisor.create(task())
    run = fake(agent)
    with pytest.raises(TaskAlreadyExists, match="'one' is running"):
        await agent.supervisor.create(task())
    assert fake(agent) is run
    assert files(agent) == ["one.json"]


async def test_of_two_creates_at_once_one_wins(agent: Agent) -> None:
    results = await asyncio.gather(
        *(agent.supervisor.create(task()) for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(result, TaskAlreadyExists) for result in results) == 19


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [({"start": "fail"}, TaskStartFailed), ({"start": "raise"}, TaskStartFailed)],
)
async def test_a_task_that_does_not_start_leaves_nothing_behind(
    agent: Agent, behaviour: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await agent.supervisor.create(task(**behaviour))
    assert not agent.supervisor.entries
    assert files(agent) == []


async def test_a_cancelled_create_leaves_nothing_behind(agent: Agent) -> None:
    creating = asyncio.create_task(agent.supervisor.create(task(start="hang")))
    await wait_until_async(
        lambda: files(agent) == ["one.json"] and agent.supervisor.get("one").state == "starting"
    )
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert not agent.supervisor.entries
    assert files(agent) == []


async def test_an_invalid_task_names_the_key(agent: Agent) -> None:
    with pytest.raises(ConfigurationInvalid, match=r"capture\.type: missing"):
        await agent.supervisor.create({"id": "x", "capture": {}, "reporters": ["console"]})
    with pytest.raises(ConfigurationInvalid, match="parser: unknown key, did you mean 'parsers'"):
        await agent.supervisor.create({**task(), "parser": []})


async def test_a_deleted_task_is_stopped_forgotten_and_remembered(agent: Agent) -> None:
    await agent.supervisor.create(task())
    run = fake(agent)
    final = await agent.supervisor.delete("one", 1.5)
    assert run.stopped_with == 1.5
    assert final["state"] == "stopped"
    assert files(agent) == []
    with pytest.raises(TaskNotFound, match="has finished"):
        agent.supervisor.get("one")
    assert agent.supervisor.status("one")["ledger"]["balanced"] is True
    with pytest.raises(TaskNotFound, match="no task 'two'"):
        await agent.supervisor.delete("two")


async def test_a_task_that_does_not_stop_is_given_up(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "STOP_GRACE_S", 0.05)
    await agent.supervisor.create(task(stop="hang"))
    final = await agent.supervisor.delete("one", 0.05)
    assert "did not stop within" in final["last_error"]
    assert not agent.supervisor.entries


async def test_a_task_that_raises_while_it_stops_is_deleted_all_the_same(agent: Agent) -> None:
    await agent.supervisor.create(task(stop="raise"))
    assert "RuntimeError" in (await agent.supervisor.delete("one"))["last_error"]
    assert files(agent) == []


async def test_a_task_that_comes_to_its_end_moves_to_the_history(agent: Agent) -> None:
    await agent.supervisor.create(task())
    fake(agent).end()
    await wait_until_async(lambda: not agent.supervisor.entries and agent.supervisor.history)
    assert agent.supervisor.history[-1]["id"] == "one"
    assert files(agent) == []


async def test_a_failed_task_is_tried_again_until_it_runs(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "FIRST_RESTART_DELAY_S", 0.01)
    await agent.supervisor.create(task())
    first = fake(agent)
    first.end(error="interface gone")
    await wait_until_async(lambda: agent.supervisor.get("one").state == "running")
    assert fake(agent) is not first
    assert agent.supervisor.get("one").restarts == 1
    assert files(agent) == ["one.json"]


async def test_a_failed_task_that_is_not_tried_again_stays_to_be_seen(tmp_path: Path) -> None:
    agent = fake_agent(tmp_path, task_restart_delay="0s")
    await agent.start()
    await agent.supervisor.create(task())
    fake(agent).end(error="interface gone")
    await wait_until_async(agent.supervisor.get("one").watcher.done)  # type: ignore[union-attr]
    assert agent.supervisor.get("one").summary()["last_error"] == "interface gone"
    entry = await agent.supervisor.create(task())
    assert entry.state == "running"
    await agent.stop()


async def test_a_failed_task_that_still_flushes_ends_before_another_takes_its_id(
    agent: Agent,
) -> None:
    """It was given up halfway: its reporters went on for ever, and nobody counted what they had."""
    await agent.supervisor.create(task(stop="flush"))
    first = fake(agent)
    first.end(error="interface gone")
    await wait_until_async(lambda: first.stopped_with is not None)
    creating = asyncio.create_task(agent.supervisor.create(task()))
    await wait_until_async(lambda: creating.done() or agent.supervisor.get("one").watcher is None)
    first.hurry()
    assert (await creating).state == "running"
    assert first.has_stopped
    assert fake(agent) is not first


async def test_tasks_come_back_and_a_failing_one_holds_up_none(tmp_path: Path) -> None:
    agent = fake_agent(tmp_path)
    await agent.start()
    for number in range(3):
        await agent.supervisor.create(task(f"t{number}"))
    await agent.stop()
    folder = tmp_path / "data" / "tasks"
    broken = json.loads((folder / "t1.json").read_text())
    broken["config"]["capture"]["start"] = "fail"
    (folder / "t1.json").write_text(json.dumps(broken))
    outdated = {**json.loads((folder / "t1.json").read_text()), "id": "t3"}
    outdated["config"] = {**outdated["config"], "id": "t3", "no_longer": "known"}
    (folder / "t3.json").write_text(json.dumps(outdated))
    (folder / "half.json").write_text('{"version": 1, "id"')
    (folder / ".new-left").write_text("x")

    second = fake_agent(tmp_path)
    await second.start()
    states = {entry.id: entry.state for entry in second.supervisor.entries.values()}
    assert states == {"t0": "running", "t1": "failed", "t2": "running", "t3": "failed"}
    assert "told to fail" in second.supervisor.get("t1").last_error
    assert "no_longer: unknown key" in second.supervisor.get("t3").last_error
    assert (folder / "half.corrupt").exists()
    assert not (folder / ".new-left").exists()
    await second.stop()
    assert (folder / "t1.json").exists()


async def test_a_file_of_a_task_that_never_held_is_listed_as_any_other(tmp_path: Path) -> None:
    """A kill -9 between writing it and its first start leaves it: it broke every list."""
    folder = tmp_path / "data" / "tasks"
    agent = fake_agent(tmp_path)
    await agent.start()
    await agent.supervisor.create(task())
    await agent.stop()
    left = json.loads((folder / "one.json").read_text())
    left["config"]["capture"]["files"] = 5
    (folder / "one.json").write_text(json.dumps(left))
    second = fake_agent(tmp_path)
    await second.start()
    assert second.supervisor.get("one").summary()["files"] == "5"
    await second.stop()


async def test_history_is_bounded_and_outlives_a_restart(tmp_path: Path) -> None:
    agent = fake_agent(tmp_path, task_history=3)
    await agent.start()
    for number in range(5):
        await agent.supervisor.create(task(f"t{number}"))
        await agent.supervisor.delete(f"t{number}")
    await agent.stop()
    second = fake_agent(tmp_path, task_history=3)
    await second.start()
    assert [finished["id"] for finished in second.supervisor.history] == ["t2", "t3", "t4"]
    await second.stop()


async def test_apply_makes_the_running_set_equal_and_leaves_equal_tasks_alone(
    agent: Agent,
) -> None:
    for name in ("same", "changed", "gone"):
        await agent.supervisor.create(task(name))
    same = fake(agent, "same")
    wanted = [task("same"), task("changed", snap_len=100), task("new"), task("bad", start="fail")]
    plan = await agent.supervisor.apply(wanted, dry_run=True)
    assert plan["deleted"] == ["gone"]
    assert set(agent.supervisor.entries) == {"same", "changed", "gone"}
    done = await agent.supervisor.apply(wanted, dry_run=False)
    assert done == {
        "created": ["new"], "replaced": ["changed"], "deleted": ["gone"], "unchanged": ["same"],
        "failed": {"bad": "task 'bad' was told to fail"}, "dry_run": False,
    }  # fmt: skip
    assert fake(agent, "same") is same
    assert fake(agent, "changed").behaviour["snap_len"] == 100


async def test_apply_of_an_invalid_set_does_nothing(agent: Agent) -> None:
    await agent.supervisor.create(task("one"))
    with pytest.raises(ConfigurationInvalid):
        await agent.supervisor.apply([task("two"), {"id": "three"}], dry_run=False)
    with pytest.raises(TaskAlreadyExists, match="given twice"):
        await agent.supervisor.apply([task("two"), task("two")], dry_run=False)
    assert set(agent.supervisor.entries) == {"one"}


async def test_a_replacement_that_fails_leaves_the_old_task_running(agent: Agent) -> None:
    await agent.supervisor.create(task())
    done = await agent.supervisor.apply([task(start="fail")], dry_run=False)
    assert "one" in done["failed"]
    assert fake(agent).behaviour == {"interface": "eth0"}
    assert agent.supervisor.get("one").state == "running"


async def test_listeners_hear_of_every_change_and_a_broken_one_harms_nobody(agent: Agent) -> None:
    events: list[TaskEvent] = []

    def broken(_event: TaskEvent) -> None:
        raise RuntimeError("broken")

    agent.supervisor.add_listener(broken)
    remove = agent.supervisor.add_listener(events.append)
    await agent.supervisor.create(task())
    await agent.supervisor.delete("one")
    remove()
    await agent.supervisor.create(task())
    assert [(event.task_id, event.state) for event in events] == [
        ("one", "running"),
        ("one", "deleted"),
    ]


async def test_the_number_of_tasks_is_bounded(tmp_path: Path) -> None:
    agent = fake_agent(tmp_path, max_tasks=2)
    await agent.start()
    await agent.supervisor.create(task("a"))
    await agent.supervisor.create(task("b"))
    with pytest.raises(TaskStartFailed, match="max_tasks"):
        await agent.supervisor.create(task("c"))
    await agent.stop()


async def test_stopping_can_be_hurried(agent: Agent) -> None:
    await agent.supervisor.create(task(stop="hang"))
    stopping = asyncio.create_task(agent.supervisor.stop_all(60))
    await wait_until_async(lambda: fake(agent).state == "stopping")
    agent.supervisor.hurry()
    async with asyncio.timeout(120):
        await stopping
    with pytest.raises(TaskStartFailed, match="stopping"):
        await agent.supervisor.create(task("late"))


async def test_a_hurried_task_that_still_flushes_ends_in_order(agent: Agent) -> None:
    await agent.supervisor.create(task(stop="flush"))
    run = fake(agent)
    stopping = asyncio.create_task(agent.supervisor.stop_all(60))
    await wait_until_async(lambda: run.state == "stopping")
    agent.supervisor.hurry()
    await stopping
    assert run.state == "stopped"


async def test_a_full_disk_refuses_the_task_and_leaves_the_others(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await agent.supervisor.create(task("before"))

    def full(self: TaskStore, path: Path, _document: Any) -> None:
        raise StoreFailed(f"{path} can't be written: No space left on device")

    monkeypatch.setattr(TaskStore, "_write", full)
    with pytest.raises(StoreFailed, match="No space left"):
        await agent.supervisor.create(task("after"))
    assert set(agent.supervisor.entries) == {"before"}
    assert fake(agent, "before").state == "running"
    await agent.supervisor.delete("before")
    assert files(agent) == []


def test_two_stores_do_not_share_a_directory(tmp_path: Path) -> None:
    first, second = TaskStore(tmp_path), TaskStore(tmp_path)
    first.open()
    with pytest.raises(StoreLocked, match=r"daemon\.data_dir"):
        second.open()
    first.close()
    first.close()
    second.open()
    second.close()


def test_any_id_makes_a_file_in_the_directory(tmp_path: Path) -> None:
    store = TaskStore(tmp_path)
    store.open()
    for task_id in ("../../etc/passwd", "a/b", "..", "ü", "x" * 128):
        store.save(TaskRecord(task_id, {}, 1.0))
    assert {record.id for record in store.load()} == {
        "../../etc/passwd",
        "a/b",
        "..",
        "ü",
        "x" * 128,
    }
    assert all(file.parent == tmp_path / "tasks" for file in (tmp_path / "tasks").iterdir())
    store.close()


def test_a_store_in_an_impossible_place_says_so() -> None:
    with pytest.raises(StoreFailed, match="/proc/nowhere"):
        TaskStore("/proc/nowhere/data").open()


async def test_steps_of_the_clock_change_neither_uptimes_nor_restarts(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "FIRST_RESTART_DELAY_S", 0.01)
    wall_clock = time.time
    for offset in (-86_400.0 * 365, 86_400.0 * 365):
        monkeypatch.setattr(time, "time", lambda offset=offset: wall_clock() + offset)
        await agent.supervisor.create(task())
        first = fake(agent)
        first.end(error="broken")
        await wait_until_async(lambda run=first: agent.supervisor.get("one").task is not run)
        await wait_until_async(lambda: agent.supervisor.get("one").state == "running")
        assert 0 <= agent.supervisor.get("one").summary()["uptime_s"] < 3600
        assert 0 <= agent.status()["uptime_s"] < 3600
        await agent.supervisor.delete("one")


async def test_a_task_whose_status_raises_is_listed_and_deleted_all_the_same(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(_self: FakeTask) -> dict[str, Any]:
        raise RuntimeError("broken")

    await agent.supervisor.create(task())
    monkeypatch.setattr(FakeTask, "status", raises)
    assert agent.supervisor.status("one")["state"] == "running"
    assert agent.stats()["tasks"]["one"]["state"] == "running"
    assert (await agent.supervisor.delete("one"))["state"] == "stopped"
