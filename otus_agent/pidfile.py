"""A file that holds the daemon's process id, and a lock for as long as it lives.

The lock, not the number, says whether a daemon runs: the kernel gives it back
when the process dies in whatever way, so a stale file stops nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from otus_sdk.errors import OtusError


class DaemonRunning(OtusError):
    """Another daemon has the PID file."""

    code = "daemon_running"
    rpc_code = -32022


class PidFile:
    """The daemon's PID file."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._fd = -1

    def acquire(self) -> None:
        """Takes the lock, over a stale file too, and writes this process's id.

        Raises:
            DaemonRunning: a living daemon has it.
            OSError: the file can't be made.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = os.read(fd, 32).decode("ascii", "replace").strip()
                os.close(fd)
                raise DaemonRunning(
                    f"otus is already running (pid {pid or 'unknown'}, {self._path}): "
                    "stop it with `otus stop`, or set daemon.pid_file"
                ) from None
            if self._is_still_there(fd):
                break
            os.close(fd)  # its owner removed it between our open and our lock
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd

    def _is_still_there(self, fd: int) -> bool:
        with contextlib.suppress(OSError):
            there, mine = self._path.stat(), os.fstat(fd)
            return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
        return False

    def release(self) -> None:
        """Removes the file and gives the lock back. Safe twice, and without acquire."""
        if self._fd < 0:
            return
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._fd)
        self._fd = -1
