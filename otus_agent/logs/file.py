"""A log file that is rotated by size and age, kept in number, compressed by gzip.

``otus.log`` becomes ``otus-20261124T082138.123456Z.log``, and then
``otus-20261124T082138.123456Z.log.gz``. Compression runs on a thread of its own,
since a hundred megabytes take seconds in which lines go on arriving.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from otus_agent.logs.entry import Entry
from otus_agent.logs.outputs import Output, Render, write_all

MEGABYTE = 1_000_000
DAY_S = 86_400.0
# While a file can't be opened or written, it is tried again this often.
RETRY_S = 1.0
# How often a file that was moved away by somebody else is looked for.
CHECK_S = 1.0


class FileOutput(Output):
    """Lines to a rotated file.

    Raises:
        OSError: the file can't be opened. Later trouble is counted, not raised.
    """

    def __init__(
        self,
        path: str,
        queue_size: int,
        render: Render,
        *,
        max_octets: float,
        max_age_s: float,
        max_backups: int,
        compress: bool,
    ) -> None:
        super().__init__(f"file {path}", queue_size)
        self._path = Path(path)
        self._render = render
        self._max_octets = max_octets
        self._max_age_s = max_age_s
        self._max_backups = max_backups
        self._compress = compress
        self._fd = -1
        self._size = 0
        self._born = 0.0
        self._retry_at = 0.0
        self._check_at = 0.0
        self._torn = False
        self._reopen = False
        self._sweeping = threading.Lock()
        self._open()
        self._sweep()

    def reopen(self) -> None:
        """Opens the file anew before the next line: for those who rotate it themselves."""
        self._reopen = True

    def write(self, entries: list[Entry]) -> None:
        """Writes entries; while the disk is full or broken they are dropped and counted."""
        now = time.monotonic()
        for entry in entries:
            line = self._render(entry) + b"\n"
            if not self._is_ready(now, len(line)):
                self._count("dropped_error", 1)
                continue
            try:
                # A line that was cut off is ended before the next one begins.
                write_all(self._fd, b"\n" + line if self._torn else line)
            except OSError:
                self._count("dropped_error", 1)
                self._give_up(now)
                continue
            self._torn = False
            self._size += len(line)
            self._count("written", 1)

    def _is_ready(self, now: float, octets: int) -> bool:
        if self._fd >= 0 and (self._reopen or now >= self._check_at):
            self._check(now)
        if self._fd < 0:
            if now < self._retry_at:
                return False
            try:
                self._open()
            except OSError:
                self._retry_at = now + RETRY_S
                return False
        is_full = self._size > 0 and self._size + octets > self._max_octets
        if is_full or now - self._born > self._max_age_s:
            self._rotate()
        return self._fd >= 0

    def _check(self, now: float) -> None:
        """Lets go of a file that is no longer at its path."""
        self._check_at = now + CHECK_S
        try:
            there = self._path.stat()
            mine = os.fstat(self._fd)
            is_mine = (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
        except OSError:
            is_mine = False
        if self._reopen or not is_mine:
            self._reopen = False
            self._close()

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o640)
        status = os.fstat(self._fd)
        self._size = status.st_size
        # A crash or a full disk may have cut the last line off.
        self._torn = self._size > 0 and os.pread(self._fd, 1, self._size - 1) != b"\n"
        # Its age is told by the monotonic clock from here on; what it was
        # before can only be guessed from when it was last written.
        age = max(0.0, time.time() - status.st_mtime) if status.st_size else 0.0
        self._born = time.monotonic() - age

    def _close(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def _give_up(self, now: float) -> None:
        self._retry_at = now + RETRY_S
        self._close()

    # --- Rotation ------------------------------------------------------------

    def _rotate(self) -> None:
        """Sets the file aside and begins a new one; where that fails it goes on growing."""
        if self._size == 0:
            self._born = time.monotonic()
            return
        try:
            self._path.rename(self._backup_name())
        except OSError:
            self._count("rotation_failed", 1)
            self._born = time.monotonic()
            self._max_octets += self._size  # not again with every line
            return
        self._close()
        try:
            self._open()
        except OSError:
            self._retry_at = time.monotonic() + RETRY_S
        self._count("rotated", 1)
        threading.Thread(target=self._sweep, name="log rotation", daemon=True).start()

    def _backup_name(self) -> Path:
        stem, suffix = self._path.stem, self._path.suffix
        moment = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        # After a step of the clock the name may be taken.
        for number in range(10_000):
            name = f"{stem}-{moment}{f'.{number}' if number else ''}{suffix}"
            backup = self._path.with_name(name)
            if not backup.exists() and not backup.with_name(f"{name}.gz").exists():
                return backup
        raise FileExistsError(f"no free name beside {self._path}")

    def _backups(self) -> list[Path]:
        """Set-aside files, oldest first."""
        pattern = f"{self._path.stem}-*Z*{self._path.suffix}"
        found: list[tuple[float, str, Path]] = []
        for file in (*self._path.parent.glob(pattern), *self._path.parent.glob(f"{pattern}.gz")):
            with contextlib.suppress(OSError):
                found.append((file.stat().st_mtime, file.name, file))
        return [file for _, _, file in sorted(found)]

    def _sweep(self) -> None:
        """Deletes files beyond number or age, and compresses those that stay."""
        with self._sweeping:
            for leftover in self._path.parent.glob(f"{self._path.stem}-*.gz.new"):
                with contextlib.suppress(OSError):
                    leftover.unlink()
            backups = self._backups()
            oldest = time.time() - self._max_age_s
            kept = backups[max(0, len(backups) - self._max_backups) :]
            for backup in backups:
                with contextlib.suppress(OSError):
                    if backup not in kept or backup.stat().st_mtime < oldest:
                        backup.unlink()
                    elif self._compress and backup.suffix != ".gz":
                        self._pack(backup)

    def _pack(self, backup: Path) -> None:
        packed = backup.with_name(f"{backup.name}.gz")
        partial = backup.with_name(f"{backup.name}.gz.new")
        try:
            status = backup.stat()
            with backup.open("rb") as source, gzip.open(partial, "wb", compresslevel=6) as target:
                shutil.copyfileobj(source, target, 1 << 20)
            partial.chmod(status.st_mode & 0o777)
            os.utime(partial, (status.st_atime, status.st_mtime))
            partial.rename(packed)
            backup.unlink()
        except OSError:
            self._count("compression_failed", 1)
            partial.unlink(missing_ok=True)

    def _release(self) -> None:
        self._close()
        # A compression under way ends with its file whole.
        with self._sweeping:
            pass
