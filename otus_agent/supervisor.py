"""All tasks of one agent: created, watched, restarted, kept on disk, brought back.

A task is on disk before it starts, so that a crash in between brings it back,
and it is taken from disk only after it has stopped. What a command did not yet
answer may have happened or not; what it answered has.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakValueDictionary

from otus_agent import allocator
from otus_agent.config.loading import Source, validate
from otus_agent.config.masking import masked
from otus_agent.config.task import TaskConfig
from otus_agent.logs.logger import get_logger
from otus_agent.store import StoreFailed, TaskRecord, TaskStore
from otus_sdk.errors import OtusError, TaskAlreadyExists, TaskNotFound, TaskStartFailed

if TYPE_CHECKING:
    from otus_agent.config.agent import DaemonConfig

_log = get_logger(__name__)

ACTIVE_STATES = frozenset({"created", "starting", "running", "stopping"})

# Beyond its own deadline a task gets this long before it is given up.
STOP_GRACE_S = 5.0
# What a stop gets once it is hurried: enough to count what is dropped.
HURRIED_STOP_S = 1.0
FIRST_RESTART_DELAY_S = 1.0


class RunningTask(Protocol):
    """What the supervisor needs of ``otus_agent.task.Task``."""

    @property
    def state(self) -> Any:
        """A string enumeration: created starting running stopping stopped failed."""

    @property
    def last_error(self) -> Any:
        """What went wrong last, or None."""

    @property
    def finished(self) -> asyncio.Event:
        """Set when the task has ended by itself."""

    async def start(self) -> None:
        """Starts it, or raises and leaves nothing behind."""

    async def stop(self, deadline_s: float) -> None:
        """Stops it within a deadline. Safe twice."""

    def hurry(self) -> None:
        """Lets a stop that waits for reporters drop what is not flushed, now."""

    def status(self) -> dict[str, Any]:
        """State, counters and ledger, as JSON knows them."""


TaskFactory = Callable[[TaskConfig], RunningTask]


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """A task changed its state.

    Attributes:
        task_id: which one.
        state: the new state, or ``deleted``.
        error: why it failed; empty otherwise.
        time: when, seconds since 1970 by the wall clock.
    """

    task_id: str
    state: str
    error: str
    time: float


@dataclass(slots=True, eq=False)
class TaskEntry:
    """One task that exists: its configuration and, unless it can't start, its run."""

    id: str
    raw: Mapping[str, Any]
    created_at: float
    config: TaskConfig | None = None
    task: RunningTask | None = None
    error: str = ""
    restarts: int = 0
    since: float = field(default_factory=time.monotonic)
    watcher: asyncio.Task[None] | None = None

    @property
    def state(self) -> str:
        """The run's state; ``failed`` where there is no run."""
        if self.task is None:
            return "failed" if self.error else "created"
        return str(getattr(self.task.state, "value", self.task.state))

    @property
    def last_error(self) -> str:
        """Why it failed, or the last thing that went wrong; empty for nothing."""
        return self.error or str((self.task and self.task.last_error) or "")

    def summary(self) -> dict[str, Any]:
        """One row of ``task.list``."""
        capture = self.raw.get("capture")
        capture = capture if isinstance(capture, Mapping) else {}
        files = capture.get("files") or ""
        if not isinstance(files, list):  # one as it is; what is no file at all fails the start
            files = [files]
        return {
            "id": self.id,
            "state": self.state,
            "uptime_s": round(time.monotonic() - self.since, 3),
            "created_at": self.created_at,
            "capture": str(capture.get("type", "")),
            "interface": str(capture.get("interface") or ""),
            "files": ", ".join(str(file) for file in files),
            "restarts": self.restarts,
            "last_error": self.last_error,
        }

    def details(self) -> dict[str, Any]:
        """All that the run tells of itself, and the summary over it."""
        try:
            told = self.task.status() if self.task is not None else {}
        except Exception:  # noqa: BLE001 a task's own code
            _log.exception("task status raised", task=self.id)
            told = {}
        return {**told, **self.summary()}


def parse_task(raw: Mapping[str, Any]) -> TaskConfig:
    """A task's configuration as a model.

    Raises:
        ConfigurationInvalid: it does not hold; the message names the keys.
    """
    return validate(TaskConfig, Source("", dict(raw)))


def _by_id(
    tasks: Sequence[Mapping[str, Any]],
) -> dict[str, tuple[Mapping[str, Any], TaskConfig]]:
    wanted: dict[str, tuple[Mapping[str, Any], TaskConfig]] = {}
    for raw in tasks:
        config = parse_task(raw)
        if config.id in wanted:
            raise TaskAlreadyExists(f"task {config.id!r} is given twice")
        wanted[config.id] = (raw, config)
    return wanted


class Supervisor:
    """The tasks of one agent. Belongs to one event loop."""

    def __init__(self, store: TaskStore, factory: TaskFactory, limits: DaemonConfig) -> None:
        self._store = store
        self._factory = factory
        self.limits = limits
        self._entries: dict[str, TaskEntry] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._history: deque[dict[str, Any]] = deque(maxlen=limits.task_history)
        self._listeners: list[Callable[[TaskEvent], None]] = []
        self._disk = asyncio.Lock()
        self._stopping = False
        self._hurry = asyncio.Event()

    # --- Looking -------------------------------------------------------------

    @property
    def entries(self) -> Mapping[str, TaskEntry]:
        """All tasks that exist, by id."""
        return self._entries

    @property
    def history(self) -> Sequence[dict[str, Any]]:
        """Finished tasks, oldest first."""
        return self._history

    def counts(self) -> dict[str, int]:
        """How many tasks are in each state."""
        return dict(Counter(entry.state for entry in self._entries.values()))

    def get(self, task_id: str) -> TaskEntry:
        """The task of this id.

        Raises:
            TaskNotFound: there is none; the message says when it has finished.
        """
        entry = self._entries.get(task_id)
        if entry is not None:
            return entry
        if any(finished["id"] == task_id for finished in self._history):
            raise TaskNotFound(f"task {task_id!r} has finished: see `otus task list --all`")
        raise TaskNotFound(f"no task {task_id[:128]!r}: see `otus task list`")

    def status(self, task_id: str) -> dict[str, Any]:
        """All about one task, finished ones included.

        Raises:
            TaskNotFound: there is none.
        """
        entry = self._entries.get(task_id)
        if entry is None:
            for finished in reversed(self._history):
                if finished["id"] == task_id:
                    return dict(finished)
        entry = self.get(task_id)
        return {**entry.details(), "config": masked(entry.raw)}

    def add_listener(self, listener: Callable[[TaskEvent], None]) -> Callable[[], None]:
        """Calls listener on the event loop for each change of state.

        Returns:
            A function that ends it.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _tell(self, entry: TaskEntry, state: str = "") -> None:
        event = TaskEvent(entry.id, state or entry.state, entry.last_error, time.time())
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:  # noqa: BLE001 a task's own code
                _log.exception("listener of task events failed", task=entry.id)

    # --- Creating ------------------------------------------------------------

    async def create(self, raw: Mapping[str, Any]) -> TaskEntry:
        """Creates a task, keeps it on disk and starts it.

        Raises:
            ConfigurationInvalid: the configuration does not hold.
            TaskAlreadyExists: a task of this id has not stopped.
            TaskStartFailed: it could not be started, or there are too many.
            StoreFailed: it could not be kept on disk; it was not started.
        """
        config = parse_task(raw)
        async with self._lock(config.id):
            previous = self._entries.get(config.id)
            self._check_room(config.id, previous)
            if previous is not None:
                await self._retire(previous)
                # It has failed, and may not have flushed yet what it had.
                await self._stop(previous)
                self._check_room(config.id, previous)
            entry = TaskEntry(config.id, dict(raw), time.time(), config)
            self._entries[config.id] = entry
            try:
                await self._save(entry)
                await self._start(entry)
            except BaseException as error:
                await self._undo(entry, previous)
                _log.warning("task not created", task=entry.id, reason=str(error) or repr(error))
                raise
            self._watch(entry)
            return entry

    def _check_room(self, task_id: str, previous: TaskEntry | None) -> None:
        if self._stopping:
            raise TaskStartFailed("the daemon is stopping")
        if previous is not None and previous.state in ACTIVE_STATES:
            raise TaskAlreadyExists(
                f"task {task_id!r} is {previous.state}: delete it first, or take another id"
            )
        if previous is None and len(self._entries) >= self.limits.max_tasks:
            raise TaskStartFailed(f"there are {len(self._entries)} tasks (daemon.max_tasks)")

    async def _start(self, entry: TaskEntry) -> None:
        config = entry.config = entry.config or parse_task(entry.raw)
        entry.error = ""
        entry.since = time.monotonic()
        task = entry.task = self._factory(config)
        try:
            await task.start()
        except OtusError:
            entry.task = None
            raise
        except Exception as error:
            entry.task = None
            _log.exception("task start raised", task=entry.id)
            raise TaskStartFailed(f"task {entry.id!r}: {type(error).__name__}: {error}") from error
        except BaseException:
            entry.task = None
            raise
        entry.since = time.monotonic()
        self._tell(entry)

    async def _undo(self, entry: TaskEntry, previous: TaskEntry | None) -> None:
        """After a failed create: as if it had not been asked for."""
        if previous is None:
            self._entries.pop(entry.id, None)
        else:
            self._entries[entry.id] = previous
            self._watch(previous)
        try:
            if previous is None:
                await self._on_disk(self._store.delete, entry.id)
            else:
                await self._save(previous)
        except StoreFailed as error:
            _log.warning("task file may be out of date", task=entry.id, reason=error.message)

    # --- Deleting ------------------------------------------------------------

    async def delete(self, task_id: str, timeout_s: float | None = None) -> dict[str, Any]:
        """Stops a task, flushing its reporters, and forgets it.

        Returns:
            Its last status.

        Raises:
            TaskNotFound: there is none.
            StoreFailed: it has stopped, but its file could not be removed.
        """
        async with self._lock(task_id):
            entry = self.get(task_id)
            await self._retire(entry)
            await self._stop(entry, timeout_s)
            final = self._final_status(entry)
            await self._on_disk(self._store.delete, task_id)
            self._entries.pop(task_id, None)
            await self._remember(final)
            self._tell(entry, "deleted")
            entry.task = None
            await asyncio.to_thread(allocator.release)
            return final

    async def _retire(self, entry: TaskEntry) -> None:
        """Ends the entry's watcher, so that it neither restarts nor removes it."""
        watcher, entry.watcher = entry.watcher, None
        if watcher is None or watcher is asyncio.current_task():
            return
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)

    async def _stop(self, entry: TaskEntry, timeout_s: float | None = None) -> None:
        """Stops the run, whatever it takes: an error here is logged, never raised."""
        task = entry.task
        if task is None:
            return
        deadline = timeout_s
        if deadline is None:
            deadline = entry.config.stop_deadline if entry.config else self.limits.shutdown_timeout
        try:
            async with asyncio.timeout(deadline + STOP_GRACE_S):
                await task.stop(deadline)
        except TimeoutError:
            _log.error("task does not stop and is given up", task=entry.id, deadline_s=deadline)
            entry.error = entry.error or f"did not stop within {deadline:g} s"
        except Exception as error:  # noqa: BLE001 a task's own code
            _log.exception("task stop raised", task=entry.id)
            entry.error = entry.error or f"{type(error).__name__}: {error}"

    def _final_status(self, entry: TaskEntry) -> dict[str, Any]:
        try:
            details = entry.task.status() if entry.task is not None else {}
        except Exception:  # noqa: BLE001 a task's own code
            _log.exception("task status raised", task=entry.id)
            details = {}
        return {**details, **entry.summary(), "finished_at": time.time()}

    async def _remember(self, final: dict[str, Any]) -> None:
        self._history.append(final)
        try:
            await self._on_disk(self._store.save_history, list(self._history))
        except StoreFailed as error:
            _log.warning("history of tasks not kept", reason=error.message)

    # --- Watching ------------------------------------------------------------

    def _watch(self, entry: TaskEntry) -> None:
        if entry.watcher is None and not self._stopping:
            entry.watcher = asyncio.create_task(self._follow(entry), name=f"watch {entry.id}")

    async def _follow(self, entry: TaskEntry) -> None:
        """Waits for the end of a run: removes a finished task, restarts a failed one."""
        delay = FIRST_RESTART_DELAY_S
        while True:
            started = time.monotonic()
            if entry.task is not None:
                await entry.task.finished.wait()
                if entry.state != "failed":
                    await self._finish(entry)
                    return
                await self._stop(entry)
                self._tell(entry)
            if self.limits.task_restart_delay == 0:
                return
            if time.monotonic() - started > self.limits.task_restart_delay:
                delay = FIRST_RESTART_DELAY_S  # it ran well for a while
            await asyncio.sleep(min(delay, self.limits.task_restart_delay))
            delay *= 2
            await self._restart(entry)

    async def _restart(self, entry: TaskEntry) -> None:
        async with self._lock(entry.id):
            entry.restarts += 1
            try:
                await self._start(entry)
                _log.info("task restarted", task=entry.id, restarts=entry.restarts)
            except OtusError as error:
                self._failed(entry, error)

    def _failed(self, entry: TaskEntry, error: OtusError) -> None:
        is_news = entry.error != error.message
        entry.error = error.message
        if is_news:
            _log.error("task can't start", task=entry.id, reason=error.message)
            self._tell(entry)

    async def _finish(self, entry: TaskEntry) -> None:
        """A run that came to its own end, such as the end of a file."""
        async with self._lock(entry.id):
            await self._stop(entry)
            final = self._final_status(entry)
            try:
                await self._on_disk(self._store.delete, entry.id)
            except StoreFailed as error:
                _log.warning("task file remains", task=entry.id, reason=error.message)
            if self._entries.get(entry.id) is entry:
                del self._entries[entry.id]
            await self._remember(final)
            self._tell(entry)
            entry.task = None
            await asyncio.to_thread(allocator.release)

    # --- All of them ---------------------------------------------------------

    async def load(self) -> None:
        """Reads from disk the tasks that ran when the daemon last stopped or died.

        They are listed from now on; ``start_loaded`` starts them.

        Raises:
            StoreFailed: the data directory can't be read.
        """
        self._history.extend(await self._on_disk(self._store.load_history))
        for record in await self._on_disk(self._store.load):
            entry = TaskEntry(record.id, record.config, record.created_at)
            self._entries.setdefault(record.id, entry)

    async def start_loaded(self) -> None:
        """Starts the tasks that were loaded.

        One that can't start stays as failed, and is tried again; it does not
        hold up the others.
        """
        entries = [entry for entry in self._entries.values() if entry.state == "created"]
        await asyncio.gather(*(self._restore_one(entry) for entry in entries))
        if entries:
            _log.info("tasks restored", tasks=len(entries), states=self.counts())

    async def _restore_one(self, entry: TaskEntry) -> None:
        async with self._lock(entry.id):
            if self._stopping or self._entries.get(entry.id) is not entry or entry.task is not None:
                return
            try:
                await self._start(entry)
            except OtusError as error:
                self._failed(entry, error)
            self._watch(entry)

    async def apply(self, tasks: Sequence[Mapping[str, Any]], *, dry_run: bool) -> dict[str, Any]:
        """Makes the running set equal to tasks, leaving alone what is equal already.

        Returns:
            Ids under ``created``, ``replaced``, ``deleted``, ``unchanged``, and
            ``failed`` (id to reason). A task whose replacement fails runs on as
            it was.

        Raises:
            ConfigurationInvalid, TaskAlreadyExists, TaskStartFailed: one of the tasks
                does not hold, is given twice, or they are too many; nothing was done.
        """
        if len(tasks) > self.limits.max_tasks:
            raise TaskStartFailed(f"{len(tasks)} tasks are more than daemon.max_tasks")
        wanted = await asyncio.to_thread(_by_id, tasks)
        plan = self._plan(wanted)
        if dry_run:
            return {**plan, "failed": {}, "dry_run": True}
        failed: dict[str, str] = {}
        for task_id in plan["deleted"]:
            await self._attempt(failed, task_id, self.delete(task_id))
        for task_id in plan["replaced"]:
            await self._attempt(failed, task_id, self._replace(task_id, wanted[task_id][0]))
        for task_id in plan["created"]:
            await self._attempt(failed, task_id, self.create(wanted[task_id][0]))
        done = {
            action: [task_id for task_id in ids if task_id not in failed]
            for action, ids in plan.items()
        }
        return {**done, "failed": failed, "dry_run": False}

    def _plan(
        self, wanted: Mapping[str, tuple[Mapping[str, Any], TaskConfig]]
    ) -> dict[str, list[str]]:
        plan: dict[str, list[str]] = {
            "created": [],
            "replaced": [],
            "unchanged": [],
            "deleted": [task_id for task_id in self._entries if task_id not in wanted],
        }
        for task_id, (_, config) in wanted.items():
            entry = self._entries.get(task_id)
            if entry is None:
                plan["created"].append(task_id)
            elif entry.config == config and entry.state in ACTIVE_STATES:
                plan["unchanged"].append(task_id)
            else:
                plan["replaced"].append(task_id)
        return plan

    async def _replace(self, task_id: str, raw: Mapping[str, Any]) -> None:
        old = self.get(task_id)
        was_active = old.state in ACTIVE_STATES
        if was_active:
            await self.delete(task_id)
        try:
            await self.create(raw)
        except OtusError:
            if was_active:
                await self.create(old.raw)
            raise

    @staticmethod
    async def _attempt(failed: dict[str, str], task_id: str, action: Any) -> None:
        try:
            await action
        except OtusError as error:
            failed[task_id] = error.message

    async def stop_all(self, timeout_s: float) -> None:
        """Stops every run within a deadline; what is on disk stays, to come back."""
        self._stopping = True
        entries = list(self._entries.values())
        stops = asyncio.gather(*(self._shut(entry, timeout_s) for entry in entries))
        hurried = asyncio.create_task(self._hurry.wait())
        try:
            await asyncio.wait((stops, hurried), return_when=asyncio.FIRST_COMPLETED)
            if not stops.done():
                for entry in entries:
                    if entry.task is not None:
                        entry.task.hurry()
                await asyncio.wait((stops,), timeout=HURRIED_STOP_S)
            if not stops.done():
                _log.warning("tasks are given up", states=self.counts())
                stops.cancel()
            await asyncio.gather(stops, return_exceptions=True)
        finally:
            hurried.cancel()

    def hurry(self) -> None:
        """Makes ``stop_all`` drop what is not flushed, and give up what still does not stop."""
        self._hurry.set()

    async def _shut(self, entry: TaskEntry, timeout_s: float) -> None:
        await self._retire(entry)
        try:
            # A start that hangs holds the lock.
            async with asyncio.timeout(timeout_s + 2 * STOP_GRACE_S), self._lock(entry.id):
                await self._stop(entry, timeout_s)
        except TimeoutError:
            _log.error("task is given up while it starts", task=entry.id)
        self._tell(entry)

    def set_limits(self, limits: DaemonConfig) -> None:
        """Takes over changed limits; a shorter history forgets the oldest."""
        self.limits = limits
        if self._history.maxlen != limits.task_history:
            self._history = deque(self._history, maxlen=limits.task_history)

    # --- Below ---------------------------------------------------------------

    def _lock(self, task_id: str) -> asyncio.Lock:
        """One lock an id, gone when nobody holds or awaits it."""
        lock = self._locks.get(task_id)
        if lock is None:
            lock = self._locks[task_id] = asyncio.Lock()
        return lock

    async def _save(self, entry: TaskEntry) -> None:
        record = TaskRecord(entry.id, entry.raw, entry.created_at)
        await self._on_disk(self._store.save, record)

    async def _on_disk(self, function: Callable[..., Any], *args: Any) -> Any:
        """Runs a store method on a thread: a slow disk must not hold up the event loop."""
        async with self._disk:
            return await asyncio.shield(asyncio.to_thread(function, *args))
