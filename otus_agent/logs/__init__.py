"""Structured logs to several outputs at once, never in the way of what logs.

The agent logs events with fields (``otus_agent.logs.logger``) on top of
``logging``, so that its records and those of libraries take the same way. One handler turns a record into an ``Entry`` and hands it to
each output's queue.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
import time
from typing import TYPE_CHECKING, Any

from otus_agent.logs.entry import (
    LEVELS,
    entry_of,
    one_line,
    render_json,
    render_text,
)
from otus_agent.logs.outputs import Output, Render, StreamOutput
from otus_agent.logs.repeats import Repeats

if TYPE_CHECKING:
    from otus_agent.config import agent as settings

__all__ = ["Logs", "log_to_stderr"]

CLOSE_TIMEOUT_S = 3.0

# Libraries that tell too much, and that more than once; httpx would tell of every push to Loki.
_QUIET_LOGGERS = ("httpx", "httpcore", "asyncio", "aiokafka", "urllib3")


class Logs:
    """The daemon's log outputs. Implements ``otus_agent.agent.LogControl``."""

    def __init__(self, agent_id: str) -> None:
        self._agent_id = agent_id
        self._outputs: list[Output] = []
        self._config: settings.LogConfig | None = None
        self._level = "info"
        self._lost = 0
        self._repeats = Repeats()
        self._handler = _FrontHandler(self)

    def start(self, config: settings.LogConfig) -> None:
        """Takes over ``logging``, and opens the outputs.

        Raises:
            OSError: an output can't be opened; nothing is taken over.
        """
        self.apply(config)
        root = logging.getLogger()
        root.handlers[:] = [self._handler]
        logging.captureWarnings(True)

    def apply(self, config: settings.LogConfig) -> None:
        """Changes level, form and outputs to a configuration.

        Raises:
            OSError: a new output can't be opened; everything stays as it was.
        """
        if self._config is None or _output_settings(self._config) != _output_settings(config):
            outputs = self._open(config)
            old, self._outputs = self._outputs, outputs
            for output in outputs:
                output.start()
            _close_all(old)
        else:
            for output in self._outputs:
                output.reopen()
        self._config = config
        self.set_level(config.level)

    def _open(self, config: settings.LogConfig) -> list[Output]:
        outputs: list[Output] = []
        try:
            for one in config.outputs:
                outputs.append(self._open_one(config, one))  # noqa: PERF401 closed on error
        except OSError:
            _close_all(outputs)
            raise
        return outputs

    def _open_one(self, config: settings.LogConfig, one: settings.LogOutput) -> Output:
        if one.type == "file":
            from otus_agent.logs.file import DAY_S, MEGABYTE, FileOutput

            return FileOutput(
                one.path,
                config.queue_size,
                _render(one.format or config.format),
                max_octets=one.max_size_mb * MEGABYTE,
                max_age_s=one.max_age_days * DAY_S,
                max_backups=one.max_backups,
                compress=one.compress,
            )
        if one.type == "loki":
            from otus_agent.logs.loki import LokiOutput

            password = one.password.get_secret_value() if one.password else ""
            return LokiOutput(
                one.endpoint,
                one.queue_size,
                _render(config.format),
                labels={"app": "otus", "agent": self._agent_id, **one.labels},
                batch_size=one.batch_size,
                flush_interval_s=one.flush_interval,
                timeout_s=one.timeout,
                max_backoff_s=one.max_backoff,
                structured_metadata=one.structured_metadata,
                headers={"X-Scope-OrgID": one.tenant} if one.tenant else {},
                auth=(one.username, password) if one.username else None,
                ca_file=one.ca_file,
            )
        fd = 1 if one.type == "stdout" else 2
        render = _render(one.format or config.format)
        return StreamOutput(one.type, config.queue_size, fd, render)

    @property
    def level(self) -> str:
        """The level in force."""
        return self._level

    def set_level(self, level: str) -> None:
        """Changes the level at once, for all outputs."""
        self._level = level
        logging.getLogger().setLevel(LEVELS[level])
        for name in _QUIET_LOGGERS:
            logging.getLogger(name).setLevel(max(logging.WARNING, LEVELS[level]))

    def put(self, record: logging.LogRecord) -> None:
        """Hands a record to every output."""
        try:
            entry = entry_of(record)
        except Exception:  # noqa: BLE001 somebody else's __str__ or format
            self._lost += 1
            return
        if record.name.partition(".")[0] in _QUIET_LOGGERS:
            repeated = self._repeats.since_told(entry.logger, entry.event)
            if repeated is None:
                return
            if repeated:
                entry = dataclasses.replace(entry, fields={**entry.fields, "repeated": repeated})
        for output in self._outputs:
            output.put(entry)

    def stats(self) -> dict[str, Any]:
        """Entries written, dropped by reason, and waiting, by output."""
        figures: dict[str, Any] = {output.name: output.stats() for output in self._outputs}
        if self._lost:
            figures["unreadable"] = self._lost
        if self._repeats.total:
            figures["repeated"] = self._repeats.total
        return figures

    def flush(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Waits until every output is empty; returns whether that came in time."""
        deadline = time.monotonic() + timeout_s
        return all(output.flush(deadline - time.monotonic()) for output in self._outputs)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Writes what waits within the time, and gives ``logging`` back. Safe twice."""
        root = logging.getLogger()
        if self._handler in root.handlers:
            root.removeHandler(self._handler)
            logging.captureWarnings(False)
        outputs, self._outputs = self._outputs, []
        self._config = None
        _close_all(outputs, timeout_s)


def _close_all(outputs: list[Output], timeout_s: float = CLOSE_TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout_s
    for output in outputs:
        output.close(deadline)


def _output_settings(config: settings.LogConfig) -> tuple[Any, ...]:
    return (config.format, config.queue_size, config.outputs)


def _render(form: str) -> Render:
    return render_json if form == "json" else render_text


class _FrontHandler(logging.Handler):
    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        self._logs.put(record)


def log_to_stderr(*, verbose: bool = False) -> None:
    """Logs to standard error at once: for commands that run without a daemon.

    Args:
        verbose: tell everything, with times and tracebacks; else only what went
            wrong, one line each.
    """

    class _Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            entry = entry_of(record)
            line = render_text(entry).decode() if verbose else f"otus: {one_line(entry)}"
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(line + "\n")

    root = logging.getLogger()
    root.handlers[:] = [_Handler()]
    root.setLevel(logging.DEBUG if verbose else logging.WARNING)
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING if verbose else logging.ERROR)
