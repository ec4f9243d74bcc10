"""Runs an agent as a daemon: files, signals, doors, and an end in order.

Start: PID file, socket, privileges away, logs, agent, socket answers (READY),
tasks come back, telemetry and fleet door. Stop, in the reverse: fleet door,
tasks with their reporters flushed within a deadline, telemetry, socket, logs,
PID file.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any, Protocol

from otus_agent import allocator, hardening, systemd
from otus_agent.agent import Agent
from otus_agent.config.agent import AgentConfig
from otus_agent.config.fields import split_address
from otus_agent.config.loading import load
from otus_agent.logs import Logs
from otus_agent.logs.logger import get_logger
from otus_agent.pidfile import PidFile
from otus_agent.rpc import RpcServer
from otus_sdk.errors import OtusError

_log = get_logger(__name__)

EXIT_OK = 0
EXIT_ERROR = 1

# What a part may take to stop, beyond the tasks' own deadline.
PART_TIMEOUT_S = 5.0


# A burst leaves holes of free memory behind.
GIVE_BACK_INTERVAL_S = 30.0

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0

# What runs beside the agent, by the section of the configuration that wants it.
_PARTS = {
    "metrics": ("otus_agent.telemetry", "Telemetry"),
    "kafka": ("otus_agent.kafka", "FleetDoor"),
}


class Part(Protocol):
    """Telemetry, or a door: something that starts and stops with the daemon."""

    async def start(self) -> None:
        """Starts it."""

    async def stop(self) -> None:
        """Stops it. Safe without start, safe twice."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """How the daemon was called: what a reload reads again."""

    config_path: str | None
    environment: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)

    def read(self) -> AgentConfig:
        """The configuration that file, environment and flags give now."""
        return load(AgentConfig, self.config_path, self.environment, self.flags)


class Daemon:
    """One run of the daemon. Make it before any thread, run it once."""

    def __init__(self, invocation: Invocation, config: AgentConfig) -> None:
        self._invocation = invocation
        self._config = config
        self._pid_file = PidFile(config.daemon.pid_file)
        self._logs = Logs(config.agent_id)
        self._agent: Agent | None = None
        self._door: RpcServer | None = None
        self._parts: dict[str, Part] = {}
        self._changing_parts = asyncio.Lock()
        self._signals = 0
        self._background: set[asyncio.Task[Any]] = set()

    def run(self, on_ready: Any = None) -> int:
        """Runs until told to stop.

        Args:
            on_ready: called without arguments when the socket answers.

        Returns:
            The exit code.

        Raises:
            OtusError: it can't start.
            OSError: one of its files can't be used.
        """
        self._pid_file.acquire()
        try:
            allocator.settle()
            hardening.forbid_core_dumps()
            hardening.raise_descriptor_limit()
            hardening.allow_priority()
            return asyncio.run(self._main(on_ready))
        finally:
            self._logs.close()
            self._pid_file.release()

    async def _main(self, on_ready: Any) -> int:
        agent = self._agent = Agent(
            self._config, read_config=self._invocation.read, logs=self._logs
        )
        door = self._door = RpcServer(agent.commands, lambda: agent.config.daemon)
        agent.parts["socket"] = door.stats
        door.bind()
        try:
            # Threads inherit capabilities, and logs are the first to have one.
            problem = self._give_up_privileges()
            self._logs.start(self._config.log)
            self._log_start(problem)
            self._handle_signals()
            await agent.start(restore=False)
            await door.start()
            systemd.notify_ready("answering commands")
            if on_ready is not None:
                on_ready()
            self._spawn(self._feed_watchdog(), "watchdog")
            self._spawn(self._start_rest(agent), "start")
            await agent.shutdown_requested.wait()
        finally:
            await self._shut_down(agent, door)
        return EXIT_OK

    def _give_up_privileges(self) -> str:
        kept = list(hardening.KEPT)
        metrics = self._config.metrics
        if metrics.enabled and 0 < split_address(metrics.listen)[1] < 1024:
            kept.append("CAP_NET_BIND_SERVICE")
        try:
            hardening.drop_capabilities(kept)
        except OSError as error:
            return str(error.strerror or error)
        return ""

    def _log_start(self, problem: str) -> None:
        assert self._agent is not None  # noqa: S101 made just before
        _log.info(
            "daemon starts",
            version=self._agent.version,
            agent=self._agent.agent_id,
            pid=os.getpid(),
            config=self._invocation.config_path or "defaults",
        )
        if problem:
            _log.warning("capabilities could not be given up", reason=problem)
        if not hardening.has_capability("CAP_NET_RAW"):
            _log.warning(
                "no CAP_NET_RAW: live capture will fail; `otus doctor` tells how to give it"
            )

    # --- After READY ---------------------------------------------------------

    async def _start_rest(self, agent: Agent) -> None:
        await agent.supervisor.start_loaded()
        for name in _PARTS:
            agent.reload_hooks.append((name, partial(self._restart, name)))
        await asyncio.gather(*(self._bring_up(name) for name in self._wanted_parts()))
        # What is there now lives as long as the daemon: no need to walk it again.
        allocator.release()
        gc.freeze()
        self._spawn(self._give_memory_back(), "memory")

    async def _give_memory_back(self) -> None:
        while True:
            await asyncio.sleep(GIVE_BACK_INTERVAL_S)
            await asyncio.to_thread(allocator.trim)

    def _wanted_parts(self) -> list[str]:
        assert self._agent is not None  # noqa: S101 made before anything starts
        config = self._agent.config
        wanted = {"metrics": config.metrics.enabled, "kafka": config.kafka is not None}
        return [name for name, is_wanted in wanted.items() if is_wanted]

    async def _bring_up(self, name: str) -> None:
        """Starts a part, tries again while it can't, and tells why until then."""
        assert self._agent is not None  # noqa: S101 made before anything starts
        delay_s, told = FIRST_RETRY_S, ""
        while True:
            async with self._changing_parts:
                if name in self._parts or name not in self._wanted_parts():
                    return
                try:
                    await self._start_part(name)
                    return
                except Exception as error:  # noqa: BLE001 capture goes on without it
                    reason = str(error) or type(error).__name__
                    is_expected = isinstance(error, (OtusError, OSError))
                    cause = None if is_expected else error
            self._agent.parts[name] = partial(dict, error=reason)
            if reason != told:
                _log.error(
                    "part did not start and is tried again",
                    part=name,
                    reason=reason,
                    exc_info=cause,
                )
                told = reason
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_RETRY_S)

    async def _start_part(self, name: str) -> None:
        """Starts metrics or the fleet door.

        Raises:
            Exception: whatever it raised; it is stopped again.
        """
        module, class_name = _PARTS[name]
        # Imported on a thread: it takes longer than clients like to wait.
        imported = await asyncio.to_thread(import_module, module)
        make = getattr(imported, class_name, None)
        if make is None:
            raise ImportError(f"{module} has no {class_name}")
        part: Part = make(self._agent)
        try:
            await part.start()
        except Exception:
            with contextlib.suppress(Exception):
                await part.stop()
            raise
        self._parts[name] = part

    async def _stop_part(self, name: str) -> None:
        assert self._agent is not None  # noqa: S101 made before anything starts
        part = self._parts.pop(name, None)
        self._agent.parts.pop(name, None)
        if part is None:
            return
        try:
            async with asyncio.timeout(PART_TIMEOUT_S):
                await part.stop()
        except TimeoutError:
            _log.error("part does not stop and is given up", part=name)
        except Exception:  # noqa: BLE001 the rest has to stop as well
            _log.exception("part stop raised", part=name)

    async def _stop_fleet_commands(self) -> None:
        part = self._parts.get("kafka")
        if part is None or not hasattr(part, "stop_commands"):
            return
        try:
            async with asyncio.timeout(PART_TIMEOUT_S):
                await part.stop_commands()
        except TimeoutError:
            _log.error("a fleet command does not end and is given up")
        except Exception:  # noqa: BLE001 the rest has to stop as well
            _log.exception("fleet commands did not stop")

    async def _restart(self, name: str, old: AgentConfig, new: AgentConfig) -> None:
        """Has a part go over to the new configuration, or leaves it on the old one.

        Raises:
            Exception: why it can't be had by the new one.
        """
        assert self._agent is not None  # noqa: S101 reload comes through the agent
        async with self._changing_parts:
            part = self._parts.get(name)
            if part is not None and hasattr(part, "reload"):
                # The command in hand may be this reload: it must not wait for its own end.
                await part.reload(old, new)
                return
            await self._stop_part(name)
            self._agent.config = new
            try:
                if name in self._wanted_parts():
                    await self._start_part(name)
            except Exception:
                self._agent.config = old
                if part is not None:
                    with contextlib.suppress(Exception):
                        await self._start_part(name)
                raise

    # --- Signals -------------------------------------------------------------

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal, signal.Signals(number).name)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload_signal)
        # A reader of our output that goes away is an error of writing, no death.
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def _on_stop_signal(self, name: str) -> None:
        assert self._agent is not None  # noqa: S101 set before handlers are
        self._signals += 1
        _log.info("signal", signal=name, count=self._signals)
        if self._signals == 1:
            self._agent.request_shutdown()
        elif self._signals == 2:
            self._agent.request_shutdown()
            self._agent.supervisor.hurry()
        else:
            self._logs.flush(0.5)
            os._exit(EXIT_ERROR)  # asked three times: whatever still hangs is left to the kernel

    def _on_reload_signal(self) -> None:
        self._spawn(self._reload(), "reload")

    async def _reload(self) -> None:
        assert self._agent is not None  # noqa: S101 set before handlers are
        systemd.notify_reloading()
        try:
            await self._agent.reload()
        except OtusError as error:
            _log.error("reload refused, nothing changed", reason=error.message)
        systemd.notify_ready("answering commands")

    async def _feed_watchdog(self) -> None:
        interval = systemd.watchdog_interval_s()
        while interval is not None:
            systemd.notify("WATCHDOG=1")
            await asyncio.sleep(interval)

    def _spawn(self, work: Any, name: str) -> None:
        task = asyncio.create_task(self._contained(work, name), name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _contained(self, work: Any, name: str) -> None:
        try:
            await work
        except Exception:  # noqa: BLE001 the daemon goes on without it
            _log.exception("background work failed", work=name)

    # --- The end -------------------------------------------------------------

    async def _shut_down(self, agent: Agent, door: RpcServer) -> None:
        systemd.notify_stopping()
        timeout_s = agent.shutdown_timeout_s
        if timeout_s is None:
            timeout_s = agent.config.daemon.shutdown_timeout
        _log.info("daemon stops", tasks=agent.supervisor.counts(), deadline_s=timeout_s)
        watchdogs = [task for task in self._background if task.get_name() == "watchdog"]
        for task in self._background.difference(watchdogs):
            task.cancel()
        await self._stop_fleet_commands()
        await agent.stop(timeout_s)
        await self._stop_part("kafka")  # now that the tasks' last states are told
        await self._stop_part("metrics")
        await door.stop()
        for task in watchdogs:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        _log.info("daemon stopped")


def run(invocation: Invocation, *, background: bool = False) -> int:
    """Runs the daemon, here or in the background; returns the exit code.

    Raises:
        OtusError: it can't start (in the foreground; the background tells on
            standard error).
    """
    config = invocation.read()
    if background:
        return _run_in_background(invocation, config)
    return Daemon(invocation, config).run()


def _run_in_background(invocation: Invocation, config: AgentConfig) -> int:
    """Detaches; the caller goes on when the socket answers, or tells why it never will."""
    if all(output.type in ("stdout", "stderr") for output in config.log.outputs):
        sys.stderr.write("otus: note: no log output but standard streams, which nobody reads "
                         "in the background: add one of type file to log.outputs\n")  # fmt: skip
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os.close(writing)
        os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as pipe:
            message = pipe.read()
        if message == b"ready":
            return EXIT_OK
        text = message.decode("utf-8", "replace") or "the daemon died while it started"
        sys.stderr.write(f"otus: {text}\n")
        return EXIT_ERROR
    os.close(reading)
    os.setsid()
    if os.fork():
        os._exit(0)  # the grandchild has no terminal and never gets one
    os.chdir("/")
    _detach_streams()

    def ready() -> None:
        os.write(writing, b"ready")
        os.close(writing)

    code = EXIT_ERROR
    try:
        code = Daemon(invocation, config).run(ready)
    except Exception as error:  # noqa: BLE001 nobody else is left to tell
        with contextlib.suppress(OSError):
            os.write(writing, _why(error).encode())
    finally:
        os._exit(code)


def _why(error: Exception) -> str:
    """What a foreground daemon would have told on standard error."""
    if isinstance(error, OtusError):
        return error.message
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return f"{type(error).__name__}: {error}"


def _detach_streams() -> None:
    """Input and outputs become /dev/null; a log to stdout has no reader here."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if null > 2:
        os.close(null)
