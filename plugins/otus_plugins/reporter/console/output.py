"""Standard output written by a thread, so that a slow terminal holds up nobody."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import stat
import sys
import threading
from collections import deque
from collections.abc import Sequence

from otus_sdk.protocols import ReporterStats

__all__ = ["PatientOutput"]

CLOSE_TIMEOUT_S = 0.5
# What a line costs beside its octets: an object, and its place in the queue.
LINE_OVERHEAD = sys.getsizeof(b"") + 8
# Written in one go: a copy of what waits, of this size at most.
PIECE_OCTETS = 1 << 18
SLOW = "slow_output"
BROKEN = "broken_pipe"
FULL = "disk_full"
# Where standard output is a file: passes by itself when there is room again.
_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class PatientOutput:
    """A bounded queue of lines before a file descriptor.

    `write` never waits: beyond `max_octets` the oldest lines are dropped.

    Args:
        max_octets: Memory that lines may hold.
        color: "auto", "always" or "never".
        fd: Where to write; standard output unless given. Not closed.
    """

    def __init__(self, max_octets: int, color: str = "auto", fd: int | None = None) -> None:
        self._fd = sys.stdout.fileno() if fd is None else fd
        self.color = color == "always" or (
            color == "auto" and os.isatty(self._fd) and not os.environ.get("NO_COLOR")
        )
        self._max_octets = max_octets
        self._chunk = _chunk_octets(self._fd)
        self._lines: deque[bytes] = deque()
        self._octets = self._octets_in_hand = 0
        self._changed = threading.Condition()
        self._written = self._slow = self._broken = self._full = self._in_hand = 0
        self._closing = self._is_broken = False
        self._is_torn = False  # the last line written has no end
        # Wakes the thread from waiting for a reader that takes nothing.
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name="otus-console", daemon=True)
        self._thread.start()

    def write(self, lines: Sequence[bytes]) -> None:
        """Queues lines, each with its line end."""
        with self._changed:
            if self._is_broken or self._closing:
                self._broken += len(lines)
                return
            self._lines.extend(lines)
            self._octets += sum(map(len, lines)) + LINE_OVERHEAD * len(lines)
            while self._octets + self._octets_in_hand > self._max_octets and self._lines:
                self._octets -= len(self._lines.popleft()) + LINE_OVERHEAD
                self._slow += 1
            self._changed.notify_all()

    def stats(self) -> ReporterStats:
        """Lines by what became of them."""
        with self._changed:
            failed = {BROKEN: self._broken, FULL: self._full}
            return ReporterStats(
                reported=self._written,
                dropped={SLOW: self._slow} if self._slow else {},
                failed={reason: count for reason, count in failed.items() if count},
                queued=len(self._lines) + self._in_hand,
                held_octets=self._octets + self._octets_in_hand,
            )

    async def flush(self) -> None:
        """Returns once nothing waits any more."""
        await asyncio.to_thread(self._wait_empty)

    def _wait_empty(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: (not self._lines and not self._in_hand) or self._closing)

    async def close(self) -> None:
        """Ends the thread; lines that wait still are dropped. Safe twice."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._slow += len(self._lines)
            self._lines.clear()
            self._octets = 0
            self._changed.notify_all()
        os.write(self._wake_write, b"x")
        await asyncio.to_thread(self._thread.join, CLOSE_TIMEOUT_S)
        if self._thread.is_alive():
            return  # a stopped terminal holds it in write(); it ends with the process
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._closing)
                if not self._lines:
                    return
                lines = self._take_piece()
            self._write_out(lines)

    def _take_piece(self) -> list[bytes]:
        lines: list[bytes] = []
        while self._lines and self._octets_in_hand < PIECE_OCTETS:
            lines.append(self._lines.popleft())
            self._octets_in_hand += len(lines[-1]) + LINE_OVERHEAD
        self._octets -= self._octets_in_hand
        self._in_hand = len(lines)
        return lines

    def _write_out(self, lines: list[bytes]) -> None:
        """Writes lines, many in one call; counts each as written, dropped or failed."""
        mend = b"\n" if self._is_torn else b""
        left = memoryview(mend + b"".join(lines))
        ends = iter(_ends(lines))
        end = next(ends, None)
        done, line_start = -len(mend), 0
        is_full = False
        while left and self._wait_writable():
            try:
                wrote = os.write(self._fd, left[: self._chunk])
            except BlockingIOError:
                continue
            except OSError as error:
                is_full = error.errno in _FULL_ERRORS
                self._is_broken = not is_full
                break
            left = left[wrote:]
            done += wrote
            complete = 0
            while end is not None and end <= done:
                complete += 1
                line_start, end = end, next(ends, None)
            self._is_torn = done > line_start
            with self._changed:
                self._written += complete
                self._in_hand -= complete
        with self._changed:
            rest, self._in_hand = self._in_hand, 0
            self._octets_in_hand = 0
            if self._is_broken:
                self._broken += rest + len(self._lines)
                self._lines.clear()
                self._octets = 0
            elif is_full:
                self._full += rest
            else:
                self._slow += rest
            self._changed.notify_all()

    def _wait_writable(self) -> bool:
        """Waits for the reader; False where `close` came first and it takes nothing."""
        poller = select.poll()
        poller.register(self._fd, select.POLLOUT)
        poller.register(self._wake_read, select.POLLIN)
        with contextlib.suppress(InterruptedError):
            events = dict(poller.poll())
            if self._wake_read in events:
                return bool(events.get(self._fd, 0) & select.POLLOUT) and not self._closing
        return True


def _chunk_octets(fd: int) -> int:
    """What can be written without waiting once poll() says so.

    The descriptor is shared with whoever started us, so it is not made
    non-blocking: a write longer than the reader has room for would wait.
    """
    if os.isatty(fd):
        return 256  # WAKEUP_CHARS of Linux's tty layer
    return 1 << 20 if stat.S_ISREG(os.fstat(fd).st_mode) else select.PIPE_BUF


def _ends(lines: Sequence[bytes]) -> list[int]:
    ends: list[int] = []
    total = 0
    for line in lines:
        total += len(line)
        ends.append(total)
    return ends
