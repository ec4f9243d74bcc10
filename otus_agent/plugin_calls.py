"""Calls into plugins, which may block: nobody but the plugin itself waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import queue
import threading
from collections.abc import Callable
from typing import Any

from otus_sdk.host import maybe_await

PLUGIN_STOP_TIMEOUT_S = 2.0

_Work = tuple[Callable[..., Any], tuple[Any, ...], asyncio.AbstractEventLoop, asyncio.Future[Any]]


class PluginCaller:
    """Calls the functions of one plugin, one at a time.

    Coroutines run on the event loop. Plain functions run on a thread of the plugin's own, so
    that one that blocks holds up neither the loop nor another plugin. It is a daemon thread:
    one that is stuck does not hold up the end of the process either.

    Args:
        name: The thread's, for who looks at the process.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[_Work | None] | None = None

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The function's result, awaited where it is awaitable; or what it raises.

        Cancelling gives up the waiting. A plain function goes on all the same, and the next
        one waits for its thread.
        """
        if inspect.iscoroutinefunction(function):
            return await function(*arguments)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._work is None:
            self._work = queue.SimpleQueue()
            threading.Thread(target=_run, args=(self._work,), name=self._name, daemon=True).start()
        self._work.put((function, arguments, loop, future))
        return await maybe_await(await future)

    def rest(self) -> None:
        """Ends the thread once its work is done. The next call has another."""
        if self._work is not None:
            self._work.put(None)
            self._work = None


def _run(work: queue.SimpleQueue[_Work | None]) -> None:
    while (item := work.get()) is not None:
        function, arguments, loop, future = item
        result: Any = None
        error: Exception | None = None
        try:
            result = function(*arguments)
        except (asyncio.CancelledError, StopIteration) as raised:
            # Neither may be an outcome: one looks like being cancelled, no future takes the other.
            error = RuntimeError(f"{type(raised).__name__} raised by a plugin")
        except Exception as raised:  # noqa: BLE001 a plugin may raise anything
            error = raised
        except BaseException as raised:  # noqa: BLE001 SystemExit, say: it ends no thread of ours
            error = RuntimeError(f"{type(raised).__name__} raised by a plugin")
        # A closed loop means that the process ends.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, future, result, error)
        # Not held until there is more work.
        del item, function, arguments, future, result, error


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():  # who waited has given up
        if inspect.iscoroutine(result):
            result.close()
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
