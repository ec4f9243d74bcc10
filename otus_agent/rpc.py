"""The local door: JSON-RPC over a Unix socket, by lines or by HTTP POST.

A client that begins with an HTTP request line is answered in HTTP, so that
``curl --unix-socket`` works; any other sends one JSON text a line. Requests are
bounded in size and in time, connections in number, and a client that does not
read its answers is cut off: none of them holds up another.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import grp
import os
import re
import socket
import stat
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otus_agent import jsonrpc
from otus_agent.commands import CommandTable, Origin
from otus_agent.logs.logger import get_logger
from otus_sdk.errors import OtusError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otus_agent.config.agent import DaemonConfig

_log = get_logger(__name__)

BACKLOG = 1_024
IDLE_TIMEOUT_S = 300.0
MAX_HEADER_OCTETS = 16_384
CHUNK_OCTETS = 65_536
# Requests that are not complete yet and answers that are not read yet, of all clients
# together; short ones always have room.
MAX_HELD_OCTETS = 67_108_864

_SO_PEERGROUPS = 59  # asm-generic/socket.h, Linux 4.13
_REQUEST_LINE = re.compile(rb"([A-Z]+) (\S{1,2000}) HTTP/1\.([01])\r?")
_REASONS = {
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class SocketInUse(OtusError):
    """The socket's path can't be taken: somebody answers there, or it is no socket."""

    code = "socket_in_use"
    rpc_code = -32021


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, by SO_PEERCRED."""

    pid: int
    uid: int
    gid: int

    def __str__(self) -> str:
        return f"uid {self.uid} pid {self.pid}"


class _TooLarge(Exception):
    """A request is longer than allowed."""


class _Crowded(Exception):
    """A long request or answer finds no room beside those of others."""


class _HttpRefused(Exception):
    """An HTTP request that is answered by a status and the end of the connection."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class RpcServer:
    """Serves a command table on a Unix socket.

    Args:
        commands: what can be called.
        config: read again for each request, so that a reload changes limits.
    """

    def __init__(self, commands: CommandTable, config: Callable[[], DaemonConfig]) -> None:
        self._commands = commands
        self._config = config
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._path = Path(config().socket_path)
        self._inode = (-1, -1)
        self._connections: set[asyncio.Task[None]] = set()
        self._busy: set[asyncio.Task[None] | None] = set()
        self._counts: Counter[str] = Counter()
        self.held_octets = 0
        self._allowed_gid: int | None = None

    def bind(self) -> None:
        """Takes the socket's path, over a stale socket too.

        Raises:
            SocketInUse: somebody answers there, or it is no socket.
            OSError: the path can't be used, or the group does not exist.
        """
        config = self._config()
        _remove_stale(self._path)
        if config.socket_group is not None:
            self._allowed_gid = _group_id(config.socket_group)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        # The mode has to be right from the first moment on.
        mask = os.umask(0o177)
        try:
            server.bind(str(self._path))
            if self._allowed_gid is not None:
                os.chown(self._path, -1, self._allowed_gid)
                self._path.chmod(0o660)
        except OSError as error:
            server.close()
            raise OSError(error.errno, error.strerror, str(self._path)) from None
        finally:
            os.umask(mask)
        status = self._path.stat()
        self._inode = (status.st_dev, status.st_ino)
        server.listen(BACKLOG)
        self._socket = server

    async def start(self) -> None:
        """Begins to answer. ``bind`` comes first."""
        if self._socket is None:
            self.bind()
        self._server = await asyncio.start_unix_server(
            self._accept, sock=self._socket, backlog=BACKLOG, limit=CHUNK_OCTETS
        )

    async def stop(self, timeout_s: float = 1.0) -> None:
        """Ends the door: no new clients, answers under way within the time. Safe twice."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._remove_path()
        for connection in list(self._connections):
            if connection not in self._busy:
                connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections, timeout=timeout_s)
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _remove_path(self) -> None:
        # Another daemon may have taken the path over by now: leave its socket.
        with contextlib.suppress(OSError):
            status = self._path.stat()
            if (status.st_dev, status.st_ino) == self._inode:
                self._path.unlink()

    def stats(self) -> dict[str, Any]:
        """Connections now, and what came in so far."""
        return {"clients": len(self._connections), **dict(sorted(self._counts.items()))}

    # --- Connections ---------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 start_unix_server runs this as a task
        self._connections.add(task)
        try:
            await _Connection(self, reader, writer).serve()
        except asyncio.CancelledError:
            pass  # the door closes; the stream server would log this as an error
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            self._counts["connections_broken"] += 1
        except Exception:  # noqa: BLE001 one client harms no other
            self._counts["connections_failed"] += 1
            _log.exception("connection failed")
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    def refusal(self, peer: Peer, connection: socket.socket) -> str:
        """Why this peer may not use the door; empty when it may."""
        if len(self._connections) > self._config().max_clients:
            self._counts["refused_clients"] += 1
            return "too many clients (daemon.max_clients)"
        if peer.uid in (0, os.geteuid()):
            return ""
        if self._allowed_gid is not None:
            groups = {peer.gid, *_supplementary_groups(connection)}
            if self._allowed_gid in groups:
                return ""
        self._counts["refused_peers"] += 1
        _log.warning("socket: peer refused", uid=peer.uid, gid=peer.gid, pid=peer.pid)
        return f"uid {peer.uid} may not use this socket (daemon.socket_group)"

    async def answer(self, message: bytes | bytearray, peer: Peer) -> bytes | None:
        """The answer to one JSON-RPC message."""
        origin = Origin("socket", str(peer))
        self._counts["requests"] += 1
        return await jsonrpc.handle(
            message, lambda name, params: self._commands.dispatch(name, params, origin)
        )

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """While a command runs, closing the door waits for its answer."""
        task = asyncio.current_task()
        self._busy.add(task)
        try:
            yield
        finally:
            self._busy.discard(task)

    @property
    def max_held_octets(self) -> int:
        """What may be held for all clients together."""
        return max(MAX_HELD_OCTETS, self.limits.max_request_octets)

    def has_room(self, octets: int) -> bool:
        """Whether as much more may be held."""
        return self.held_octets + octets <= self.max_held_octets

    @property
    def limits(self) -> DaemonConfig:
        """The limits in force now."""
        return self._config()

    def count(self, name: str) -> None:
        """Counts one more of name."""
        self._counts[name] += 1


class _Connection:
    """One client, from its first octet to its last."""

    def __init__(
        self, server: RpcServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._buffer = bytearray()
        self._scanned = 0
        self._accounted = 0
        self._is_http = False
        # drain() is to return when all is sent: the connection may end then.
        writer.transport.set_write_buffer_limits(high=0)

    async def serve(self) -> None:
        """Answers requests until the client goes, or does what it may not."""
        connection = self._writer.get_extra_info("socket")
        peer = _peer_of(connection)
        refusal = self._server.refusal(peer, connection)
        if refusal:
            await self._send_line(jsonrpc.encode(jsonrpc.error_answer(-32000, refusal)))
            return
        try:
            await self._serve_requests(peer)
        except _TooLarge:
            self._server.count("requests_too_large")
            message = f"longer than {self._server.limits.max_request_octets} octets"
            await self._send_line(
                jsonrpc.encode(jsonrpc.error_answer(jsonrpc.INVALID_REQUEST, message))
            )
        except _Crowded:
            self._server.count("requests_crowded_out")
            message = "too many long requests and answers at one time: try again"
            body = jsonrpc.encode(jsonrpc.error_answer(-32000, message))
            await (
                self._send_http(503, body, keep=False) if self._is_http else self._send_line(body)
            )
        except _HttpRefused as error:
            self._server.count("requests_refused")
            body = jsonrpc.encode(jsonrpc.error_answer(jsonrpc.INVALID_REQUEST, error.message))
            await self._send_http(error.status, body, keep=False)
        finally:
            self._buffer.clear()
            self._account()

    def _account(self) -> None:
        """Tells the server how much is held here of what is not complete yet."""
        self._server.held_octets += len(self._buffer) - self._accounted
        self._accounted = len(self._buffer)

    async def _serve_requests(self, peer: Peer) -> None:
        while (line := await self._read_line(self._server.limits.max_request_octets)) is not None:
            match = _REQUEST_LINE.fullmatch(line)
            self._is_http = match is not None
            if match is not None:
                if not await self._serve_http(match, peer):
                    return
            elif line.strip():
                with self._server.busy():
                    answer = await self._server.answer(line, peer)
                    if answer is not None:
                        await self._send_line(answer)

    # --- Reading -------------------------------------------------------------

    async def _read_line(self, max_octets: int, deadline: float | None = None) -> bytes | None:
        """The next line without its end; None at the end of the stream."""
        while True:
            end = self._buffer.find(b"\n", self._scanned)
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                self._scanned = 0
                self._account()
                if len(line) > max_octets:
                    raise _TooLarge
                return line
            self._scanned = len(self._buffer)
            if self._scanned > max_octets:
                raise _TooLarge
            if self._buffer and deadline is None:
                deadline = asyncio.get_running_loop().time() + self._server.limits.request_timeout
            if not await self._fill(deadline):
                # The last line may lack its end.
                line, self._scanned = bytes(self._buffer), 0
                self._buffer.clear()
                self._account()
                return line if line.strip() else None

    async def _fill(self, deadline: float | None) -> bool:
        """Reads some octets; False at the end of the stream."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(deadline or loop.time() + IDLE_TIMEOUT_S):
                octets = await self._reader.read(CHUNK_OCTETS)
        except TimeoutError:
            if deadline is not None:
                self._server.count("requests_timed_out")
            raise
        self._buffer += octets
        self._account()
        if len(self._buffer) > CHUNK_OCTETS and not self._server.has_room(0):
            raise _Crowded
        return bool(octets)

    async def _read_exactly(self, length: int, deadline: float) -> bytes:
        while len(self._buffer) < length:
            if not await self._fill(deadline):
                raise ConnectionError("cut off")
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        self._scanned = 0
        self._account()
        return body

    # --- HTTP ----------------------------------------------------------------

    async def _serve_http(self, request_line: re.Match[bytes], peer: Peer) -> bool:
        """Answers one HTTP request; returns whether the connection goes on."""
        limits = self._server.limits
        deadline = asyncio.get_running_loop().time() + limits.request_timeout
        headers = await self._read_headers(deadline)
        if request_line[1] != b"POST":
            raise _HttpRefused(405, "only POST is allowed")
        # RFC 9112 section 6: requests with a body have a length here.
        length_text = headers.get(b"content-length", b"")
        if b"transfer-encoding" in headers or not re.fullmatch(rb"[0-9]{1,15}", length_text):
            raise _HttpRefused(411, "Content-Length must be given")
        length = int(length_text)
        if length > limits.max_request_octets:
            raise _HttpRefused(413, f"longer than {limits.max_request_octets} octets")
        if headers.get(b"expect", b"").lower() == b"100-continue":
            await self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await self._read_exactly(length, deadline)
        # RFC 9112 section 9.3: 1.1 persists unless it is told to close.
        tokens = headers.get(b"connection", b"").lower()
        keep = b"close" not in tokens and (request_line[3] == b"1" or b"keep-alive" in tokens)
        with self._server.busy():
            answer = await self._server.answer(body, peer)
            await self._send_http(204 if answer is None else 200, answer or b"", keep=keep)
        return keep

    async def _read_headers(self, deadline: float) -> dict[bytes, bytes]:
        headers: dict[bytes, bytes] = {}
        octets = 0
        while True:
            try:
                line = await self._read_line(MAX_HEADER_OCTETS, deadline)
            except _TooLarge:
                raise _HttpRefused(431, "header fields are too large") from None
            if line is None:
                raise ConnectionError("cut off")
            line = line.removesuffix(b"\r")
            if not line:
                return headers
            octets += len(line)
            if octets > MAX_HEADER_OCTETS:
                raise _HttpRefused(431, "header fields are too large")
            name, separator, value = line.partition(b":")
            key = name.lower()
            # RFC 9112 section 5.1: no white space before the colon. Two
            # differing lengths are an attack (RFC 9112 section 6.3).
            if (
                not separator
                or name != name.strip()
                or (key == b"content-length" and headers.get(key, value.strip()) != value.strip())
            ):
                raise _HttpRefused(400, "malformed header field")
            headers[key] = value.strip()

    async def _send_http(self, status: int, body: bytes, *, keep: bool) -> None:
        head = [f"HTTP/1.1 {status} {_REASONS[status]}"]
        if status != 204:  # RFC 9110 section 8.6: no Content-Length with 204
            head += ["Content-Type: application/json", f"Content-Length: {len(body) + 1}"]
            body += b"\n"
        if status == 405:
            head.append("Allow: POST")
        if not keep:
            head.append("Connection: close")
        await self._send("\r\n".join([*head, "", ""]).encode() + body)

    # --- Writing -------------------------------------------------------------

    async def _send_line(self, line: bytes) -> None:
        await self._send(line + b"\n")

    async def _send(self, octets: bytes) -> None:
        """Sends, and waits until it is read.

        Raises:
            _Crowded: too much waits already for clients that do not read.
            TimeoutError: this client does not read.
        """
        server = self._server
        if len(octets) > CHUNK_OCTETS and not server.has_room(len(octets)):
            raise _Crowded
        server.held_octets += len(octets)
        try:
            self._writer.write(octets)
            async with asyncio.timeout(server.limits.request_timeout):
                await self._writer.drain()
        finally:
            server.held_octets -= len(octets)


def _peer_of(connection: socket.socket) -> Peer:
    octets = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return Peer(*struct.unpack("3i", octets))


def _supplementary_groups(connection: socket.socket) -> tuple[int, ...]:
    try:
        # Python allows 1,024 octets here: 256 groups; a peer with more has none.
        octets = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1_024)
    except OSError:
        return ()
    return struct.unpack(f"{len(octets) // 4}I", octets)


def _group_id(group: str) -> int:
    if group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        message = f"daemon.socket_group: there is no group {group!r}"
        raise OSError(errno.EINVAL, message) from None


def _remove_stale(path: Path) -> None:
    """Removes a socket that nobody listens on.

    Raises:
        SocketInUse: somebody does, or something else is there.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketInUse(f"{path} is there and no socket: remove it, or set daemon.socket_path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        # EAGAIN: a listener whose backlog is full.
        if probe.connect_ex(str(path)) in (0, errno.EAGAIN, errno.EINPROGRESS):
            raise SocketInUse(
                f"another daemon answers on {path}: stop it with `otus stop`, "
                "or set daemon.socket_path"
            )
    path.unlink(missing_ok=True)
