"""The command line's end of the socket: one call, one answer. Imports little."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from otus_agent.cli.errors import CliError

DEFAULT_SOCKET = "/var/run/otus.sock"
DEFAULT_CONFIG = "/etc/otus/config.yml"
CALL_TIMEOUT_S = 60.0


def config_path(given: str | None) -> str | None:
    """The configuration file: the one given, or the system's where there is one."""
    if given:
        return str(Path(given).absolute())
    return DEFAULT_CONFIG if Path(DEFAULT_CONFIG).exists() else None


def socket_path(given: str | None, config: str | None) -> str:
    """The daemon's socket: given, by environment, by configuration file, or the default.

    The file is looked at for this one key alone: a mistake elsewhere in it must
    not keep an operator from the daemon that runs.

    Raises:
        CliError: a file that was given can't be read: the default would be another
            daemon's, and `otus --config typo.yml stop` would end that one.
    """
    if given:
        return given
    from_environment = os.environ.get("OTUS_DAEMON__SOCKET_PATH")
    if from_environment:
        return from_environment
    path = config_path(config)
    if path is not None:
        from otus_agent.config.documents import DocumentError, parse_document

        try:
            data = parse_document(Path(path).read_text(encoding="utf-8")).data
        except (OSError, UnicodeDecodeError, DocumentError) as error:
            if not config:
                return DEFAULT_SOCKET
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise CliError(
                f"{config}: can't be read: {why}; mend it, or give --socket",
                "configuration_invalid",
            ) from error
        daemon = data.get("daemon") if isinstance(data, dict) else None
        found = daemon.get("socket_path") if isinstance(daemon, dict) else None
        if isinstance(found, str):
            return found
    return DEFAULT_SOCKET


class Client:
    """Calls a daemon's commands.

    Args:
        path: its socket.
        timeout_s: how long an answer may take.
    """

    def __init__(self, path: str, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self.path = path
        self._timeout_s = timeout_s

    def call(self, method: str, **params: Any) -> Any:
        """The result of a command.

        Raises:
            CliError: the daemon can't be reached, does not answer, or says no.
        """
        request = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
        line = json.dumps(request).encode("utf-8", "surrogatepass") + b"\n"
        try:
            answer = json.loads(self._exchange(line))
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise CliError(f"{self.path} does not speak JSON-RPC: is it otus's socket?")
        if "error" in answer:
            raise _error_of(answer["error"])
        return answer.get("result")

    def _exchange(self, line: bytes) -> bytes:
        deadline = time.monotonic() + self._timeout_s
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self._timeout_s)
                connection.connect(self.path)
                # A refused client finds the reason sent already.
                with contextlib.suppress(BrokenPipeError):
                    connection.sendall(line)
                return _read_line(connection, deadline)
        except TimeoutError:
            message = f"the daemon on {self.path} did not answer in {self._timeout_s:g} s"
            raise CliError(message, "daemon_not_running") from None
        except OSError as error:
            raise CliError(_unreachable(self.path, error), "daemon_not_running") from None


def _read_line(connection: socket.socket, deadline: float) -> bytes:
    octets = bytearray()
    while not octets.endswith(b"\n"):
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        chunk = connection.recv(1 << 16)
        if not chunk:
            break
        octets += chunk
    if not octets:
        raise ConnectionResetError("it closed the connection")
    return bytes(octets)


def _unreachable(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"no daemon: there is no {path}; start one with `otus daemon`, or give --socket"
    if isinstance(error, ConnectionRefusedError):
        return f"no daemon answers on {path} (it died?): start one with `otus daemon`"
    if isinstance(error, PermissionError):
        return f"no permission for {path}: use sudo, or join daemon.socket_group"
    return f"can't reach the daemon on {path}: {error.strerror or error}"


def _error_of(error: Any) -> CliError:
    if not isinstance(error, dict):
        return CliError(str(error))
    data = error.get("data") if isinstance(error.get("data"), dict) else {}
    problems = data.get("problems", []) if isinstance(data, dict) else []
    code = str(data.get("code", "")) if isinstance(data, dict) else ""
    return CliError(str(error.get("message", "unknown error")), code, problems)
