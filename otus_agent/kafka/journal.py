"""Which commands were run: what makes a command run once over repeats, crashes and restarts.

A line is written and synced before a command runs and another one, with the
answer, after it. Bounded: the oldest requests are forgotten, and what is older
than a forgotten one is taken for stale from then on, so that forgetting never
lets a replayed command through.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MAX_ANSWER_OCTETS = 64 << 10
_MAX_KEPT_ANSWERS = 200


@dataclass(slots=True)
class Request:
    """A command that was begun.

    Attributes:
        request_id: its id.
        digest: what tells it from another command of the same id.
        timestamp_ms: when it was sent.
        done: whether it came to an end.
        answer: how, where that is still kept.
    """

    request_id: str
    digest: str
    timestamp_ms: int
    done: bool = False
    answer: dict[str, Any] | None = None


class Journal:
    """Requests by id, on disk. `begin` and `finish` block: call them off the event loop.

    Args:
        path: the file; its folder must exist. Read at once, tolerating a last line
            that a crash cut short.
        bound: how many requests are remembered.
    """

    def __init__(self, path: Path, bound: int) -> None:
        self._path = path
        self._bound = bound
        self._requests: OrderedDict[str, Request] = OrderedDict()
        self._in_hand: dict[str, asyncio.Event] = {}
        self._lines = 0
        self._compacted = False
        self.floor_ms = 0
        """Commands sent before this are stale: their like may have been forgotten."""
        self.write_errors = 0
        self._load()

    def __len__(self) -> int:
        return len(self._requests)

    def find(self, request_id: str) -> Request | None:
        """The request of this id, if it was begun and is remembered."""
        return self._requests.get(request_id)

    @contextlib.contextmanager
    def in_hand(self, request_id: str) -> Iterator[None]:
        """Says that a door of this process runs the command. Event loop only."""
        ended = self._in_hand[request_id] = asyncio.Event()
        try:
            yield
        finally:
            del self._in_hand[request_id]
            ended.set()

    async def ended(self, request_id: str) -> None:
        """Returns when no door of this process runs the command. Event loop only."""
        if (ended := self._in_hand.get(request_id)) is not None:
            await ended.wait()

    def begin(self, request_id: str, digest: str, timestamp_ms: int) -> None:
        """Remembers that a command is about to run."""
        self._remember(Request(request_id, digest, timestamp_ms))
        self._write({"begin": request_id, "digest": digest, "at": timestamp_ms})

    def finish(self, request_id: str, answer: dict[str, Any]) -> None:
        """Remembers how it ended."""
        request = self._requests[request_id]
        request.done = True
        if len(_dump(answer)) <= _MAX_ANSWER_OCTETS:
            request.answer = answer
        self._forget_answers()
        self._write({"done": request_id, "answer": request.answer})

    def _remember(self, request: Request) -> None:
        self._requests[request.request_id] = request
        while len(self._requests) > self._bound:
            _, oldest = self._requests.popitem(last=False)
            self.floor_ms = max(self.floor_ms, oldest.timestamp_ms + 1)

    def _forget_answers(self) -> None:
        kept = 0
        for request in reversed(self._requests.values()):
            kept += request.answer is not None
            if kept > _MAX_KEPT_ANSWERS and request.answer is not None:
                request.answer = None
                return  # one at a time comes in, so one at a time goes

    def _load(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            with self._path.open(encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    with contextlib.suppress(ValueError, KeyError, TypeError):
                        self._replay(json.loads(line))
                    self._lines += 1

    def _replay(self, entry: dict[str, Any]) -> None:
        if "floor" in entry:
            self.floor_ms = max(self.floor_ms, int(entry["floor"]))
        elif "begin" in entry:
            self._remember(Request(entry["begin"], entry["digest"], int(entry["at"])))
        else:
            request = self._requests[entry["done"]]
            request.done, request.answer = True, entry.get("answer")
            self._forget_answers()

    def _write(self, entry: dict[str, Any]) -> None:
        """Appends and syncs. A disk that refuses does not stop the fleet's commands."""
        try:
            if not self._compacted or self._lines > 4 * self._bound:
                self._compact()
            else:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(_dump(entry) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                self._lines += 1
        except OSError:
            self.write_errors += 1
            self._compacted = False  # the next one writes all that is remembered

    def _compact(self) -> None:
        """Writes what is remembered to a new file and puts it in the old one's place."""
        fresh = self._path.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as file:
            lines: list[dict[str, Any]] = [{"floor": self.floor_ms}]
            for request in self._requests.values():
                lines.append(
                    {
                        "begin": request.request_id,
                        "digest": request.digest,
                        "at": request.timestamp_ms,
                    }
                )
                if request.done:
                    lines.append({"done": request.request_id, "answer": request.answer})
            file.writelines(_dump(line) + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self._lines = len(lines)
        self._compacted = True


def _dump(value: object) -> str:
    # Answers may hold what only a handler knows; the line must be written all the same.
    return json.dumps(value, default=str)
