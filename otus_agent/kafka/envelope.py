"""Command envelopes: how they are written, read, and whom they are for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from otus_agent.kafka.errors import EnvelopeInvalid

VERSION = 1
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
_COMMAND = re.compile(r"[a-z][a-z0-9_.]{0,63}\Z")
_MEMBERS = frozenset(
    {"version", "target", "command", "request_id", "timestamp", "task", "params", "signature"}
)
_MAX_TARGETS = 10_000

Target = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Envelope:
    """One command as it came.

    Attributes:
        raw: the whole envelope, as JSON has it.
        target: see `matches`.
        command: name in the command table.
        request_id: chosen by the sender, unique.
        timestamp_ms: when it was sent, milliseconds since 1970.
        params: the command's parameters.
    """

    raw: Mapping[str, Any]
    target: Target
    command: str
    request_id: str
    timestamp_ms: int
    params: dict[str, Any]


def decode(value: bytes | None) -> dict[str, Any]:
    """Reads the JSON object of a message.

    Raises:
        EnvelopeInvalid: it is none. Nothing can be answered then.
    """
    try:
        raw = json.loads(value or b"", object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise EnvelopeInvalid(f"not JSON: {str(error)[:200]}") from error
    if not isinstance(raw, dict):
        raise EnvelopeInvalid("not a JSON object")
    return raw


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # A name that stands twice reads differently to different parsers, so that what
    # was signed and what is run could differ.
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return members


def parse(raw: Mapping[str, Any]) -> Envelope:
    """Checks an envelope's members.

    Raises:
        EnvelopeInvalid: the message names the member.
    """
    unknown = sorted(set(raw) - _MEMBERS)
    if unknown:
        raise EnvelopeInvalid(f"unknown member {unknown[0][:64]!r}")
    version = raw.get("version")
    if version != VERSION or isinstance(version, bool):
        raise EnvelopeInvalid(f"version: this agent speaks {VERSION}, not {str(version)[:16]}")
    command, request_id = raw.get("command"), raw.get("request_id")
    if not isinstance(command, str) or not _COMMAND.match(command):
        raise EnvelopeInvalid("command: must be a command's name")
    if not isinstance(request_id, str) or not _REQUEST_ID.match(request_id):
        raise EnvelopeInvalid("request_id: must be 1 to 128 letters, digits and . _ : -")
    return Envelope(
        raw,
        _target(raw.get("target")),
        command,
        request_id,
        timestamp_ms(raw.get("timestamp")),
        _params(raw),
    )


def _params(raw: Mapping[str, Any]) -> dict[str, Any]:
    params = raw.get("params")
    if params is None:
        params = {}
    if not isinstance(params, dict):
        raise EnvelopeInvalid("params: must be an object")
    if "task" not in raw:
        return params
    if not isinstance(raw["task"], dict):
        raise EnvelopeInvalid("task: must be an object")
    if "task" in params:
        raise EnvelopeInvalid("task: stands in params as well")
    return {**params, "task": raw["task"]}


def _target(target: Any) -> Target:
    if isinstance(target, str) and target:
        return target
    if (
        isinstance(target, list)
        and 0 < len(target) <= _MAX_TARGETS
        and all(isinstance(each, str) and each for each in target)
    ):
        return tuple(target)
    raise EnvelopeInvalid('target: must be an agent id, a list, "*" or a tag selector')


def timestamp_ms(value: Any) -> int:
    """Reads RFC 3339 text with a zone, or milliseconds since 1970.

    Raises:
        EnvelopeInvalid: it is neither.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 53:
        return value
    if isinstance(value, str) and len(value) <= 40:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is not None and moment.tzinfo is not None:
            return int(moment.timestamp() * 1000)
    raise EnvelopeInvalid("timestamp: must be RFC 3339 text with a zone, or milliseconds")


def now_text(now_s: float) -> str:
    """A time as answers, events and commands carry it."""
    text = datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def matches(target: Target, agent_id: str, tags: Mapping[str, str]) -> bool:
    """Whether a target means this agent.

    Args:
        target: "*" (every agent), an agent id, a tag selector ("region=cn-east-1,role=edge":
            all of them hold; "role!=edge" holds where the tag is another or missing),
            or several of these, one of which must hold.
        agent_id: this agent's id.
        tags: this agent's tags.
    """
    if not isinstance(target, str):
        return any(matches(each, agent_id, tags) for each in target)
    if target in ("*", agent_id):
        return True
    if "=" not in target:
        return False
    return all(_holds(term.strip(), tags) for term in target.split(","))


def _holds(term: str, tags: Mapping[str, str]) -> bool:
    name, separator, wanted = term.partition("=")
    if not separator:
        return False
    negated = name.endswith("!")
    name = name.removesuffix("!").strip()
    if not name:
        return False
    return (tags.get(name) == wanted.strip()) is not negated


def message_key(target: Target) -> bytes:
    """The Kafka key of a command: its target, so that one agent's commands keep their order."""
    return (target if isinstance(target, str) else ",".join(target)).encode()
