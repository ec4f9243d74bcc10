"""Tasks on disk: one file each, so that a crash at any moment loses none.

A file is written beside its name, synced, renamed over it, and the directory is
synced: after a kill -9 or a power cut there is the old file or the new one,
never half of either (POSIX rename is atomic; only fsync makes it durable).
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from otus_agent.logs.logger import get_logger
from otus_sdk.errors import OtusError

_log = get_logger(__name__)

FORMAT_VERSION = 1
_TEMPORARY_PREFIX = ".new-"


class StoreFailed(OtusError):
    """Something could not be written to, or read from, the data directory."""

    code = "store_failed"
    rpc_code = -32020


class StoreLocked(StoreFailed):
    """Another daemon uses the data directory."""


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """What outlives a restart of one task.

    Attributes:
        id: the task's id.
        config: its configuration as it was given, secrets included.
        created_at: when it was created, seconds since 1970 by the wall clock.
    """

    id: str
    config: Mapping[str, Any]
    created_at: float


class TaskStore:
    """The data directory of one daemon.

    Every method blocks on the disk: call it off the event loop. One thread at
    a time.
    """

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)
        self._tasks = self._directory / "tasks"
        self._history = self._directory / "history.json"
        self._lock_fd = -1

    def open(self) -> None:
        """Makes the directory where it is missing, and takes its lock.

        Raises:
            StoreLocked: another process has the lock.
            StoreFailed: the directory can't be made or written to.
        """
        try:
            # Task files hold credentials of reporters: nobody else reads them.
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._tasks.mkdir(mode=0o700, exist_ok=True)
            lock = self._directory / "lock"
            self._lock_fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise StoreLocked(
                f"{self._directory} is in use by another daemon: give this one a daemon.data_dir "
                "of its own"
            ) from None
        except OSError as error:
            self.close()
            raise StoreFailed(f"{_path_of(error, self._directory)}: {error.strerror}") from None
        self._remove_leftovers()

    def close(self) -> None:
        """Gives the lock back. Safe twice, and without open."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _remove_leftovers(self) -> None:
        for leftover in (
            *self._tasks.glob(f"{_TEMPORARY_PREFIX}*"),
            *self._directory.glob(f"{_TEMPORARY_PREFIX}*"),
        ):
            leftover.unlink(missing_ok=True)

    def save(self, record: TaskRecord) -> None:
        """Makes the record durable, in place of an older one of the same id.

        Raises:
            StoreFailed: it could not be written; the older one is still there.
        """
        document = {
            "version": FORMAT_VERSION,
            "id": record.id,
            "created_at": record.created_at,
            "config": record.config,
        }
        self._write(self._path(record.id), document)

    def delete(self, task_id: str) -> None:
        """Forgets the record durably; nothing happens where there is none.

        Raises:
            StoreFailed: it could not be removed.
        """
        try:
            self._path(task_id).unlink(missing_ok=True)
            _sync_directory(self._tasks)
        except OSError as error:
            raise StoreFailed(f"{_path_of(error, self._tasks)}: {error.strerror}") from None

    def load(self) -> list[TaskRecord]:
        """All records, oldest first; a file that holds none is set aside and logged.

        Raises:
            StoreFailed: the directory can't be read.
        """
        records: list[TaskRecord] = []
        try:
            files = sorted(self._tasks.glob("*.json"))
        except OSError as error:
            raise StoreFailed(f"{self._tasks}: {error.strerror}") from None
        for file in files:
            try:
                records.append(_parse_record(file.read_bytes()))
            except (OSError, ValueError) as error:
                _log.error("task file set aside", file=str(file), reason=str(error))
                self._set_aside(file)
        return sorted(records, key=lambda record: (record.created_at, record.id))

    @staticmethod
    def _set_aside(file: Path) -> None:
        try:
            file.rename(file.with_suffix(".corrupt"))
        except OSError as error:
            _log.warning("task file can't be renamed", file=str(file), reason=error.strerror)

    def save_history(self, entries: list[dict[str, Any]]) -> None:
        """Keeps what is known of finished tasks.

        Raises:
            StoreFailed: it could not be written; the older one is still there.
        """
        self._write(self._history, {"version": FORMAT_VERSION, "entries": entries})

    def load_history(self) -> list[dict[str, Any]]:
        """Finished tasks, oldest first; empty where nothing readable is kept."""
        try:
            document = orjson.loads(self._history.read_bytes())
            entries = document["entries"]
            return [entry for entry in entries if isinstance(entry, dict)]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, LookupError, TypeError) as error:
            _log.warning("history can't be read", file=str(self._history), reason=str(error))
            return []

    def _path(self, task_id: str) -> Path:
        return self._tasks / f"{quote(task_id, safe='')}.json"

    def _write(self, path: Path, document: Mapping[str, Any]) -> None:
        try:
            octets = orjson.dumps(document, option=orjson.OPT_INDENT_2)
        except orjson.JSONEncodeError as error:
            raise StoreFailed(f"{path.name} can't be stored: {error}") from None
        temporary = ""
        try:
            fd, temporary = tempfile.mkstemp(prefix=_TEMPORARY_PREFIX, dir=path.parent)
            with os.fdopen(fd, "wb") as file:
                file.write(octets)
                file.flush()
                os.fsync(fd)
            os.rename(temporary, path)  # noqa: PTH104 beside os.fsync
            _sync_directory(path.parent)
        except OSError as error:
            if temporary:
                Path(temporary).unlink(missing_ok=True)
            raise StoreFailed(f"{path} can't be written: {error.strerror}") from None


def _parse_record(octets: bytes) -> TaskRecord:
    document = orjson.loads(octets)
    if not isinstance(document, dict) or document.get("version") != FORMAT_VERSION:
        raise ValueError("not a task file of this version")
    task_id, config = document.get("id"), document.get("config")
    created_at = document.get("created_at")
    if not isinstance(task_id, str) or not isinstance(config, dict):
        raise ValueError("no task in it")
    if not isinstance(created_at, (int, float)):
        raise ValueError("damaged")
    return TaskRecord(task_id, config, float(created_at))


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _path_of(error: OSError, otherwise: Path) -> str:
    return str(error.filename or otherwise)
