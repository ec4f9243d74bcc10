"""JSON-RPC over the Unix socket: the standard, the bounds, and hostile clients."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import resource
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_fakes import config, fake_agent, task
from otus_agent import jsonrpc, rpc
from otus_agent.agent import Agent
from otus_agent.commands import NoParams
from otus_agent.rpc import RpcServer, SocketInUse
from waiting import wait_until_async

# Long: whoever is not to be cut off is not, however busy the machine.
LIMITS = {"request_timeout": "120s", "max_request_octets": 20_000}


class Door:
    """A server on an agent, and clients to it."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.server = RpcServer(agent.commands, lambda: agent.config.daemon)
        self.path = agent.config.daemon.socket_path

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path)

    async def send(self, octets: bytes) -> bytes:
        """All that comes back for octets on a connection that is then closed for writing."""
        reader, writer = await self.connect()
        writer.write(octets)
        writer.write_eof()
        async with asyncio.timeout(120):
            answer = await reader.read()
        writer.close()
        return answer

    async def call(self, method: str, **params: Any) -> Any:
        request = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
        return json.loads(await self.send(json.dumps(request).encode() + b"\n"))


async def open_door(folder: Path, **limits: Any) -> Door:
    agent = fake_agent(folder, **{**LIMITS, **limits})
    await agent.start()
    door = Door(agent)
    await door.server.start()
    return door


async def close_door(door: Door) -> None:
    await door.server.stop()
    await door.agent.stop()


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    door = await open_door(tmp_path)
    yield door
    await close_door(door)


def request(method: str = "status", request_id: Any = 1, **more: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": method, "id": request_id, **more}).encode()


# --- The standard ------------------------------------------------------------


async def test_a_call_is_answered_on_one_line(door: Door) -> None:
    answer = await door.send(request("task.create", "a", params={"task": task()}) + b"\n")
    assert answer.endswith(b"\n")
    assert answer.count(b"\n") == 1
    parsed = json.loads(answer)
    assert parsed["jsonrpc"] == "2.0"
    assert parsed["id"] == "a"
    assert parsed["result"]["state"] == "running"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"{", -32700),
        (b"\xff\xfe", -32700),
        (b"[" * 100_00, -32700),
        (b"[]", -32600),
        (b"1", -32600),
        (b"null", -32600),
        (b'{"method": "status", "id": 1}', -32600),
        (b'{"jsonrpc": "1.0", "method": "status", "id": 1}', -32600),
        (b'{"jsonrpc": "2.0", "method": 1, "id": 1}', -32600),
        (b'{"jsonrpc": "2.0", "method": "status", "id": {}}', -32600),
        (b'{"jsonrpc": "2.0", "method": "status", "id": true}', -32600),
        (b'{"jsonrpc": "2.0", "method": "nothing", "id": 1}', -32601),
        (b'{"jsonrpc": "2.0", "method": "status", "params": [1], "id": 1}', -32602),
        (b'{"jsonrpc": "2.0", "method": "task.status", "params": {"ID": "x"}, "id": 1}', -32602),
        (b'{"jsonrpc": "2.0", "method": "task.status", "params": {"id": "x"}, "id": 1}', -32001),
        (
            b'{"jsonrpc": "2.0", "method": "task.create", "params": {"task": {}}, "id": 1}',
            -32011,
        ),
    ],
)
async def test_errors_carry_the_codes_of_the_standard_and_of_otus(
    door: Door, message: bytes, code: int
) -> None:
    assert json.loads(await door.send(message + b"\n"))["error"]["code"] == code


async def test_an_error_of_otus_carries_its_name(door: Door) -> None:
    answer = await door.call("task.delete", id="x")
    assert answer["error"]["data"]["code"] == "task_not_found"
    near = await door.call("task.stats")
    assert near["error"]["message"] == "no command 'task.stats', did you mean 'task.status'?"
    wrong = await door.call("task.list", histroy=True)
    assert "histroy: unknown key, did you mean 'history'?" in wrong["error"]["message"]


async def test_notifications_are_done_and_not_answered_even_when_they_fail(door: Door) -> None:
    notification = {"jsonrpc": "2.0", "method": "task.create", "params": {"task": task()}}
    lines = [json.dumps(notification).encode(), json.dumps(notification).encode(), request()]
    answer = json.loads(await door.send(b"\n".join(lines)))
    assert answer["result"]["tasks"] == {"running": 1}


async def test_a_null_id_is_answered(door: Door) -> None:
    assert json.loads(await door.send(request(request_id=None)))["id"] is None


async def test_a_batch_is_answered_by_an_array_without_its_notifications(door: Door) -> None:
    batch = [
        {"jsonrpc": "2.0", "method": "task.create", "params": {"task": task()}, "id": 1},
        {"jsonrpc": "2.0", "method": "task.create", "params": {"task": task("two")}},
        5,
        {"jsonrpc": "2.0", "method": "task.list", "id": 2},
    ]
    first, invalid, listing = json.loads(await door.send(json.dumps(batch).encode()))
    assert first["result"]["id"] == "one"
    assert invalid["error"]["code"] == -32600
    assert [row["id"] for row in listing["result"]["tasks"]] == ["one", "two"]
    only_notifications = [{"jsonrpc": "2.0", "method": "status"}] * 2
    assert await door.send(json.dumps(only_notifications).encode()) == b""
    assert b"more than" in await door.send(b"[" + b",".join([b"1"] * 1001) + b"]")


async def test_a_handler_that_raises_or_answers_nonsense_is_an_internal_error(door: Door) -> None:
    async def raises(_params: Any, _origin: Any) -> None:
        raise ZeroDivisionError

    async def nested(_params: Any, _origin: Any) -> Any:
        answer: list[Any] = []
        answer.append(answer)
        return answer

    door.agent.commands.register("raises", NoParams, raises)
    door.agent.commands.register("nested", NoParams, nested)
    assert (await door.call("raises"))["error"]["code"] == -32603
    assert (await door.call("nested"))["error"]["code"] == -32603


# --- HTTP on the same socket -------------------------------------------------


def http(body: bytes, *headers: str, line: str = "POST /rpc HTTP/1.1") -> bytes:
    length = f"Content-Length: {len(body)}"
    return "\r\n".join([line, "Host: x", length, *headers, "", ""]).encode() + body


async def test_http_post_is_answered_and_the_connection_goes_on(door: Door) -> None:
    answer = await door.send(http(request()) + http(request("task.list"), "Connection: close"))
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.count(b'"jsonrpc":"2.0"') == 2


async def test_an_http_notification_is_answered_by_no_content(door: Door) -> None:
    answer = await door.send(http(b'{"jsonrpc":"2.0","method":"status"}'))
    assert answer == b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 405),
        (b"POST / HTTP/1.1\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 20001\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
        (b"POST / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nX: " + b"y" * 17_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\n" + b"X: y\r\n" * 5_000 + b"\r\n", 431),
    ],
)
async def test_http_that_is_not_served_gets_its_status(
    door: Door, octets: bytes, status: int
) -> None:
    answer = await door.send(octets)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close" in answer


async def test_curl_works(door: Door) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    process = await asyncio.create_subprocess_exec(
        curl, "-sS", "--fail", "--unix-socket", door.path, "http://otus/rpc",
        "-d", request().decode(), stdout=subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert json.loads(out)["result"]["agent_id"] == "agent-under-test"


async def test_a_large_body_that_waits_for_100_continue_gets_it(door: Door) -> None:
    reader, writer = await door.connect()
    body = request() + b" " * 5_000
    head, _, _ = http(body, "Expect: 100-continue", "Connection: close").partition(body)
    writer.write(head)
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()


# --- Bounds and hostile clients ----------------------------------------------


async def test_an_oversized_request_is_refused_before_it_is_all_there(door: Door) -> None:
    reader, writer = await door.connect()
    writer.write(b"x" * 30_000)  # no end of line yet
    answer = json.loads(await asyncio.wait_for(reader.read(), 120))
    assert answer["error"]["code"] == -32600
    assert "longer than 20000 octets" in answer["error"]["message"]
    writer.close()


@pytest.mark.parametrize("half", [b'{"jsonrpc"', b"POST / HTTP/1.1\r\nX", http(b"12")[:-1]])
async def test_a_half_sent_request_is_cut_off_in_time_and_others_are_served(
    tmp_path: Path, half: bytes
) -> None:
    door = await open_door(tmp_path, request_timeout="300ms")
    reader, writer = await door.connect()
    writer.write(half)
    await wait_until_async(
        lambda: door.server.held_octets or "requests_timed_out" in door.server.stats()
    )
    door.agent.config = config(tmp_path, **LIMITS)
    assert "result" in await door.call("status")
    assert await asyncio.wait_for(reader.read(), 120) == b""
    assert door.server.stats()["requests_timed_out"] == 1
    writer.close()
    await close_door(door)


async def test_a_client_that_does_not_read_its_answers_is_cut_off(tmp_path: Path) -> None:
    door = await open_door(tmp_path, max_request_octets=10_000_000, request_timeout="300ms")
    reader, writer = await door.connect()
    with pytest.raises(ConnectionError):  # noqa: PT012 - whichever of the two meets it
        async with asyncio.timeout(120):
            for _ in range(10_000):
                writer.write(request("status") * 1 + b"\n" + b"[" + b"1," * 400 + b"1]\n")
                await writer.drain()
    door.agent.config = config(tmp_path, **LIMITS)
    assert "result" in await door.call("status")
    writer.close()
    del reader
    await close_door(door)


async def test_requests_arrive_in_any_pieces(door: Door) -> None:
    reader, writer = await door.connect()
    for octet in request("status") + b"\n" + request("task.list", 2) + b"\n":
        writer.write(bytes([octet]))
        await writer.drain()
    assert json.loads(await reader.readline())["id"] == 1
    assert json.loads(await reader.readline())["id"] == 2
    writer.close()


async def test_five_hundred_clients_at_once_are_all_answered(door: Door) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4_096), hard))
    try:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        answers = await asyncio.gather(*(door.call("status") for _ in range(500)))
        assert all("result" in answer for answer in answers)
        await wait_until_async(lambda: door.server.stats()["clients"] == 0)
        await wait_until_async(lambda: len(os.listdir("/proc/self/fd")) <= before + 2)  # noqa: PTH208
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_clients_beyond_the_bound_are_told(tmp_path: Path) -> None:
    door = await open_door(tmp_path, max_clients=2)
    held = [await door.connect() for _ in range(2)]
    await wait_until_async(lambda: door.server.stats()["clients"] == 2)
    reader, writer = await door.connect()
    assert b"too many clients" in await reader.read()
    for _, one in [*held, (reader, writer)]:
        one.close()
    await wait_until_async(lambda: door.server.stats()["clients"] == 0)
    assert "result" in await door.call("status")
    await close_door(door)


async def test_unfinished_requests_of_all_clients_together_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long one beyond the bound is refused, short ones are served, and it ends with the others."""
    monkeypatch.setattr(rpc, "MAX_HELD_OCTETS", 0)
    door = await open_door(tmp_path, max_request_octets=200_000)
    held = [await door.connect() for _ in range(2)]
    for _, writer in held:
        writer.write(b"x" * 90_000)
    await wait_until_async(lambda: door.server.held_octets == 180_000)
    reader, writer = await door.connect()
    writer.write(b"x" * 90_000)
    assert b"too many long requests and answers" in await reader.read()
    writer.close()
    assert door.server.stats()["requests_crowded_out"] == 1
    assert "result" in await door.call("status")
    for _, one in held:
        one.close()
    await wait_until_async(lambda: door.server.held_octets == 0)
    long = request("status", request_id="x" * 150_000)
    assert b"result" in await door.send(long + b"\n")
    await wait_until_async(lambda: door.server.held_octets == 0)
    await close_door(door)


@pytest.mark.parametrize("as_http", [False, True])
async def test_answers_that_nobody_reads_are_bounded_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_http: bool
) -> None:
    """Clients that do not read hold a bounded part of the daemon's memory, and no other client."""
    monkeypatch.setattr(rpc, "MAX_HELD_OCTETS", 1_500_000)
    door = await open_door(tmp_path, max_request_octets=20_000)

    async def long(_params: Any, _origin: Any) -> str:
        return "x" * 1_000_000

    door.agent.commands.register("long", NoParams, long)
    reader, writer = await asyncio.open_unix_connection(door.path, limit=1)
    writer.write(request("long") + b"\n")
    await wait_until_async(lambda: door.server.held_octets > 500_000)
    refused = await door.send(http(request("long")) if as_http else request("long") + b"\n")
    assert b"too many long requests and answers" in refused
    assert refused.startswith(b"HTTP/1.1 503 ") is as_http
    assert "result" in await door.call("status")
    async with asyncio.timeout(120):
        assert len(await reader.readexactly(1_000_000)) == 1_000_000
    writer.close()
    assert len(await door.send(request("long") + b"\n")) > 1_000_000
    await close_door(door)


async def test_a_batch_whose_answers_get_too_long_is_cut_off(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later calls are told that they were not run."""
    monkeypatch.setattr(jsonrpc, "MAX_ANSWER_OCTETS", 100)
    calls = b",".join(request("status", number) for number in (1, 2, 3))
    first, second, third = json.loads(await door.send(b"[" + calls + b"]\n"))
    assert "result" in first
    assert [second["id"], third["id"]] == [2, 3]
    assert second["error"]["message"].startswith("not run: ")


async def test_closing_the_door_waits_for_the_answer_under_way(door: Door) -> None:
    running = asyncio.Event()
    go_on = asyncio.Event()

    async def slow(_params: Any, _origin: Any) -> str:
        running.set()
        await go_on.wait()
        return "done"

    door.agent.commands.register("slow", NoParams, slow)
    idle_reader, idle_writer = await door.connect()
    call = asyncio.create_task(door.call("slow"))
    await running.wait()
    stopping = asyncio.create_task(door.server.stop(120))
    assert await idle_reader.read() == b""
    go_on.set()
    await stopping
    assert (await call)["result"] == "done"
    assert not os.path.exists(door.path)  # noqa: ASYNC240, PTH110
    idle_writer.close()


FUZZ = settings(
    max_examples=60,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda below: (
        st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=8), below, max_size=4)
    ),
    max_leaves=15,
)
METHODS = st.sampled_from(
    ["task.create", "task.delete", "task.list", "task.status", "task.apply", "status", "stats",
     "log.level", "config.show", "x"]
)  # fmt: skip
CALLS = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "method": METHODS | st.text(max_size=5)},
    optional={
        "id": JSON,
        "params": JSON
        | st.dictionaries(
            st.sampled_from(["id", "task", "tasks", "level", "timeout", "dry_run"]),
            JSON,
            max_size=3,
        ),
    },
)
MESSAGES = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda value: json.dumps(value).encode(), CALLS | JSON | st.lists(CALLS, max_size=4)),
    st.builds(lambda depth, what: what * depth, st.integers(1, 9_000), st.sampled_from([b"[", b'{"a":'])),
    st.builds(http, st.binary(max_size=100)),
    st.builds(lambda text: text.encode(), st.from_regex(r"[A-Z]{3,7} /\S{0,5} HTTP/1\.[01]\r?\n", fullmatch=True)),
)  # fmt: skip


@FUZZ
@given(messages=st.lists(MESSAGES, max_size=4), cuts=st.lists(st.integers(0, 2_000), max_size=4))
def test_nothing_that_a_client_sends_disturbs_the_next_one(
    tmp_path: Path, messages: list[bytes], cuts: list[int]
) -> None:
    async def run() -> None:
        door = await open_door(tmp_path)
        reader, writer = await door.connect()
        octets = b"\n".join(messages) + b"\n"
        positions = sorted({0, *(cut for cut in cuts if cut < len(octets)), len(octets)})
        try:
            for start, end in itertools.pairwise(positions):
                writer.write(octets[start:end])
                await writer.drain()
            writer.write_eof()
            async with asyncio.timeout(120):
                answer = await reader.read()
            if not answer.startswith(b"HTTP/") and b"HTTP/1.1" not in answer:
                for line in answer.splitlines():
                    json.loads(line)
        except ConnectionError:
            pass
        writer.close()
        assert (await door.call("status"))["result"]["agent_id"] == "agent-under-test"
        assert "connections_failed" not in door.server.stats()
        await close_door(door)

    asyncio.run(run())


# --- Who may come in, and the socket's file ----------------------------------


async def test_the_socket_is_its_owners_alone(door: Door) -> None:
    assert os.stat(door.path).st_mode & 0o777 == 0o600  # noqa: PTH116


async def test_a_group_may_be_let_in(tmp_path: Path) -> None:
    door = await open_door(tmp_path, socket_group=str(os.getgid()))
    assert os.stat(door.path).st_mode & 0o777 == 0o660  # noqa: PTH116
    await close_door(door)
    missing = fake_agent(tmp_path, socket_group="no-such-group")
    with pytest.raises(OSError, match="no-such-group"):
        RpcServer(missing.commands, lambda: missing.config.daemon).bind()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize(("groups", "may"), [([], False), ([54_321], True)])
async def test_a_peer_is_known_by_its_credentials_whatever_the_files_mode(
    tmp_path: Path, groups: list[int], may: bool
) -> None:
    door = await open_door(tmp_path, socket_group="54321")
    os.chmod(door.path, 0o666)  # noqa: PTH101
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    script = (
        "import socket,sys;s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "contextlib=__import__('contextlib')\n"
        "with contextlib.suppress(BrokenPipeError): s.sendall(sys.argv[2].encode()+b'\\n')\n"
        "sys.stdout.write(s.makefile().readline())"
    )
    process = await asyncio.create_subprocess_exec(
        "/usr/bin/python3", "-c", script, door.path, request().decode(),
        stdout=subprocess.PIPE, user=12_345, group=12_345, extra_groups=groups,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert ("result" in json.loads(out)) is may
    await close_door(door)


async def test_a_stale_socket_is_taken_over_and_a_live_one_is_not(tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(tmp_path / "otus.sock"))
    stale.close()  # the file stays, as after a kill -9
    door = await open_door(tmp_path)
    assert "result" in await door.call("status")
    second = RpcServer(door.agent.commands, lambda: door.agent.config.daemon)
    with pytest.raises(SocketInUse, match="otus stop"):
        second.bind()
    assert "result" in await door.call("status")
    await close_door(door)


def test_a_file_in_the_sockets_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "otus.sock").write_text("precious")
    agent = fake_agent(tmp_path)
    with pytest.raises(SocketInUse, match="no socket"):
        RpcServer(agent.commands, lambda: agent.config.daemon).bind()
    assert (tmp_path / "otus.sock").read_text() == "precious"
