"""The flow registry and loaded filter programs: what pipelines of a task share."""

from __future__ import annotations

from typing import Any

from otus_core.native import MESSAGE_OCTETS, check, ffi, lib


class FlowRegistry:
    """Media endpoints by address, each with its Call-ID.

    One registry per task, shared by its pipelines, bounded: the oldest entry
    gives way. Lifetime: pipelines keep their registry alive.

    Args:
        max_flows: endpoints held at once.
        ttl_ms: milliseconds of packet time after which an unused one is gone.

    Raises:
        CoreError: out of memory.
    """

    def __init__(self, max_flows: int, ttl_ms: int) -> None:
        out = ffi.new("struct otus_flow_registry **")
        check(lib.otus_flow_registry_new(out, max_flows, ttl_ms))
        self.handle: Any = ffi.gc(out[0], lib.otus_flow_registry_free)

    def __len__(self) -> int:
        return int(lib.otus_flow_count(self.handle))


class Filter:
    """A verified filter program, ready to run in any pipeline.

    Args:
        program: bytecode of `otus_sdk.expression`.

    Raises:
        CoreError: the program is not well-formed; the text names the instruction.
    """

    def __init__(self, program: bytes) -> None:
        out = ffi.new("struct otus_filter **")
        message = ffi.new("char[]", MESSAGE_OCTETS)
        check(lib.otus_filter_load(out, message, MESSAGE_OCTETS, program, len(program)), message)
        self.handle: Any = ffi.gc(out[0], lib.otus_filter_free)
