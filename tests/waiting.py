"""Waiting for a condition with a deadline: what tests do instead of sleeping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
INTERVAL_S = 0.01
# Costs nothing when met: a busy machine may stall any process for seconds, again and again.
DEADLINE_S = 120.0


def wait_until(condition: Callable[[], T], deadline_s: float = DEADLINE_S, what: str = "") -> T:
    """Polls `condition` until it is true and returns what it gave; fails past the deadline."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s} s: {what or condition}")
        time.sleep(INTERVAL_S)
    return value


async def wait_until_async(
    condition: Callable[[], T | Awaitable[T]], deadline_s: float = DEADLINE_S, what: str = ""
) -> T:
    """The same inside an event loop; the condition may be a coroutine function."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s} s: {what or condition}")
        await asyncio.sleep(INTERVAL_S)
