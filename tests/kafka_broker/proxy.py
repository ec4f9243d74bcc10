"""A TCP proxy that a test can cut: how one agent loses its brokers and the rest do not."""

from __future__ import annotations

import asyncio
import socket
import threading


class Proxy:
    """Forwards 127.0.0.1:listen_port to 127.0.0.1:target_port on its own thread.

    A `listener` that is already bound stands in for listen_port: it may be of another
    network namespace.
    """

    def __init__(
        self, listen_port: int, target_port: int, listener: socket.socket | None = None
    ) -> None:
        self.listen_port = listen_port
        self._listener = listener
        self.target_port = target_port
        self._open = True
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(120)
        self._loop.close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listen_port}"

    def cut(self) -> None:
        """Ends all connections before it returns; new ones are closed at once until `heal`."""
        self._open = False
        self._call(self._drop_all())

    def heal(self) -> None:
        self._open = True

    def _call(self, coroutine) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(120)

    async def _drop_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _start(self) -> None:
        if self._listener is not None:
            self._server = await asyncio.start_server(self._serve, sock=self._listener)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.listen_port)

    async def _stop(self) -> None:
        assert self._server is not None
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._drop_all()
        for _ in range(3):  # aborted transports close their sockets in the next turns
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = [writer]
        try:
            if self._open:
                up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
                pair.append(up_writer)
                if not self._open:  # cut meanwhile
                    return
                self._writers.update(pair)
                await asyncio.gather(self._pump(reader, up_writer), self._pump(up_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass  # either side is gone, or the test is over
        finally:
            self._writers.difference_update(pair)
            for each in pair:
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.transport.abort()
