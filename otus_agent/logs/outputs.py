"""Outputs of the log: each has a bounded queue and a thread of its own.

Whoever logs only appends to queues. A full disk, a pipe that nobody reads or a
Loki that hangs holds up its own thread and nothing else.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from otus_agent.logs.entry import Entry

Render = Callable[[Entry], bytes]

MAX_ENTRIES_AT_ONCE = 512


class Output:
    """A bounded queue and the thread that empties it.

    Args:
        name: names the thread and the figures.
        queue_size: entries that wait at most; beyond it the oldest are dropped
            and counted.
    """

    def __init__(self, name: str, queue_size: int) -> None:
        self.name = name
        self._queue: deque[Entry] = deque()
        self._queue_size = queue_size
        self._changed = threading.Condition()
        self._closing = False
        self._is_writing = False
        self._figures = {"written": 0, "dropped_queue": 0, "dropped_error": 0}
        self._thread = threading.Thread(target=self._run, name=f"log {name}"[:15], daemon=True)

    def start(self) -> None:
        """Begins to write."""
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Takes an entry, from any thread, without ever waiting for the output."""
        with self._changed:
            if len(self._queue) >= self._queue_size:
                self._queue.popleft()
                self._figures["dropped_queue"] += 1
            self._queue.append(entry)
            self._changed.notify()

    def close(self, deadline: float) -> None:
        """Writes what waits until the deadline (monotonic), then gives up the rest."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))
        if not self._thread.is_alive():
            self._release()

    def flush(self, timeout_s: float) -> bool:
        """Waits until nothing waits any more; returns whether that came in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with self._changed:
                if not self._queue and not self._is_writing:
                    return True
            time.sleep(0.002)
        return False

    def stats(self) -> dict[str, Any]:
        """Entries written, dropped by reason, and waiting."""
        with self._changed:
            return {**self._figures, "queued": len(self._queue)}

    def reopen(self) -> None:
        """Opens anew what it writes to, where that can be."""

    def _count(self, name: str, by: int) -> None:
        with self._changed:
            self._figures[name] = self._figures.get(name, 0) + by

    def _take(
        self, timeout_s: float | None, most: int = MAX_ENTRIES_AT_ONCE, *, holding: bool = False
    ) -> list[Entry]:
        """What waits, at most so many; waits itself until there is something.

        Args:
            timeout_s: how long to wait; None waits for as long as it takes.
            most: how many at most.
            holding: whether the caller still has entries from before.
        """
        with self._changed:
            self._is_writing = holding
            if not self._queue and not self._closing:
                self._changed.wait(timeout_s)
            entries = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
            self._is_writing = holding or bool(entries)
            return entries

    def _run(self) -> None:
        while True:
            entries = self._take(None)
            if entries:
                try:
                    self.write(entries)
                except Exception:  # noqa: BLE001 the log can't log its own trouble
                    self._count("dropped_error", len(entries))
            elif self._closing:
                return

    def write(self, entries: list[Entry]) -> None:
        """Writes entries and counts what became of them; may block."""
        raise NotImplementedError

    def _release(self) -> None:
        """Closes what it writes to; its thread has ended."""


class StreamOutput(Output):
    """Lines to a file descriptor that stays another's."""

    def __init__(self, name: str, queue_size: int, fd: int, render: Render) -> None:
        super().__init__(name, queue_size)
        self._fd = fd
        self._render = render

    def write(self, entries: list[Entry]) -> None:
        """Writes entries; a stream that is gone counts them as dropped."""
        octets = b"".join(self._render(entry) + b"\n" for entry in entries)
        try:
            write_all(self._fd, octets)
        except OSError:
            self._count("dropped_error", len(entries))
            return
        self._count("written", len(entries))


def write_all(fd: int, octets: bytes) -> None:
    """Writes all octets; a descriptor that does not block is waited for.

    Raises:
        OSError: it failed; some of the octets may be written.
    """
    import select

    view = memoryview(octets)
    while view:
        try:
            written = os.write(fd, view)
        except BlockingIOError:
            room = select.poll()  # select(2) knows no descriptor beyond 1,023
            room.register(fd, select.POLLOUT)
            room.poll(1000)
            continue
        view = view[written:]
