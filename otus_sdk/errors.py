"""Every error that Otus reports on purpose, on one page.

Malformed traffic is never an exception: it is a counter (see the ledger). What
is raised here is about tasks, plugins, configuration and the daemon, and the
same `code` and `rpc_code` go out through every door: JSON-RPC, Kafka, the CLI.

    OtusError
    ├── TaskNotFound          task_not_found          -32001
    ├── TaskAlreadyExists     task_already_exists     -32002
    ├── TaskStartFailed       task_start_failed       -32003
    ├── PipelineStopped       pipeline_stopped        -32004
    ├── PacketTooShort        packet_too_short        -32005
    ├── UnsupportedProtocol   unsupported_protocol    -32006
    ├── ReassemblyTimeout     reassembly_timeout      -32007
    ├── ReassemblyLimit       reassembly_limit        -32008
    ├── PluginNotFound        plugin_not_found        -32009
    ├── PluginInitFailed      plugin_init_failed      -32010
    │   └── PluginConflict    plugin_conflict         -32013
    ├── ConfigurationInvalid  configuration_invalid   -32011
    └── DaemonNotRunning      daemon_not_running      -32012
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "ConfigurationInvalid",
    "DaemonNotRunning",
    "OtusError",
    "PacketTooShort",
    "PipelineStopped",
    "PluginConflict",
    "PluginInitFailed",
    "PluginNotFound",
    "ReassemblyLimit",
    "ReassemblyTimeout",
    "TaskAlreadyExists",
    "TaskNotFound",
    "TaskStartFailed",
    "UnsupportedProtocol",
    "error_for_code",
]


class OtusError(Exception):
    """The root of all errors that Otus raises on purpose.

    Args:
        message: One line that says what went wrong and, where there is one,
            what to do next. No line breaks.
        details: Facts beside the message, JSON-able; they travel as JSON-RPC
            `error.data`.

    Attributes:
        code: Stable text, the same through every door; never renamed.
        rpc_code: Stable JSON-RPC number in -32099 .. -32000.
    """

    code: ClassVar[str] = "internal_error"
    rpc_code: ClassVar[int] = -32000

    def __init__(self, message: str, *, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = dict(details or {})

    def to_dict(self) -> dict[str, Any]:
        """The error as it travels: `code`, `message`, and `details` where there are any."""
        answer: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details:
            answer["details"] = self.details
        return answer


class TaskNotFound(OtusError):
    """No task of this id exists."""

    code = "task_not_found"
    rpc_code = -32001


class TaskAlreadyExists(OtusError):
    """A task of this id is there already and has not stopped."""

    code = "task_already_exists"
    rpc_code = -32002


class TaskStartFailed(OtusError):
    """A phase of starting a task failed; what the phases before it made is gone again."""

    code = "task_start_failed"
    rpc_code = -32003


class PipelineStopped(OtusError):
    """The pipeline has stopped and takes nothing more."""

    code = "pipeline_stopped"
    rpc_code = -32004


class PacketTooShort(OtusError):
    """Octets handed to a decoder or parser end before the header does.

    Raised by functions that a caller asked to decode one thing; on the packet
    path the same condition is a counter.
    """

    code = "packet_too_short"
    rpc_code = -32005


class UnsupportedProtocol(OtusError):
    """Nothing here handles this protocol, link type or file format."""

    code = "unsupported_protocol"
    rpc_code = -32006


class ReassemblyTimeout(OtusError):
    """A datagram or message was not completed in time."""

    code = "reassembly_timeout"
    rpc_code = -32007


class ReassemblyLimit(OtusError):
    """A configured bound of reassembly was reached."""

    code = "reassembly_limit"
    rpc_code = -32008


class PluginNotFound(OtusError):
    """No installed distribution offers a plugin of this kind and name."""

    code = "plugin_not_found"
    rpc_code = -32009


class PluginInitFailed(OtusError):
    """A plugin was found but could not be loaded, constructed, initialised or started."""

    code = "plugin_init_failed"
    rpc_code = -32010


class PluginConflict(PluginInitFailed):
    """Two distributions offer a plugin of one kind and name."""

    code = "plugin_conflict"
    rpc_code = -32013


class ConfigurationInvalid(OtusError):
    """A configuration does not hold; the message names the key and what is allowed."""

    code = "configuration_invalid"
    rpc_code = -32011


class DaemonNotRunning(OtusError):
    """No daemon answers on the socket."""

    code = "daemon_not_running"
    rpc_code = -32012


def _all_subclasses(root: type[OtusError]) -> list[type[OtusError]]:
    found: list[type[OtusError]] = []
    for child in root.__subclasses__():
        found.append(child)
        found.extend(_all_subclasses(child))
    return found


def error_for_code(code: str | int) -> type[OtusError]:
    """The class behind a `code` or `rpc_code` that came in from elsewhere.

    Returns:
        The class, or `OtusError` for a code that this version does not know.
    """
    for error in _all_subclasses(OtusError):
        if code in (error.code, error.rpc_code):
            return error
    return OtusError
