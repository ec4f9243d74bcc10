"""One log line, taken from the thread that logged it, rendered on another."""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from otus_agent.config.masking import masked
from otus_agent.logs.logger import FIELDS_ATTRIBUTE

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NEEDS_QUOTES = re.compile(r"[\s\"'=\x00-\x1f\x7f\x85\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Entry:
    """What was logged.

    Attributes:
        time_ns: when, nanoseconds since 1970 by the wall clock.
        level: debug, info, warn or error.
        logger: who logged it.
        event: what happened.
        fields: facts beside it, as JSON knows them, secrets masked.
        exception: a traceback; empty for none.
    """

    time_ns: int
    level: str
    logger: str
    event: str
    fields: Mapping[str, Any]
    exception: str


def level_name(number: int) -> str:
    """Otus's name of a level of ``logging``; what lies between counts as the lower one."""
    for name in ("error", "warn", "info"):
        if number >= LEVELS[name]:
            return name
    return "debug"


def entry_of(record: logging.LogRecord) -> Entry:
    """The entry of a record; its values are read now, since they may change later."""
    exception = ""
    if record.exc_info and record.exc_info[0] is not None:
        exception = "".join(traceback.format_exception(*record.exc_info)).rstrip()
    fields = getattr(record, FIELDS_ATTRIBUTE, None) or {}
    return Entry(
        time_ns=int(record.created * 1e9),
        level=level_name(record.levelno),
        logger=record.name,
        event=record.getMessage(),
        fields={str(key): _plain(value) for key, value in masked(dict(fields)).items()},
        exception=exception,
    )


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(member) for key, member in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(member) for member in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    return str(value)


def timestamp(time_ns: int) -> str:
    """RFC 3339 in UTC with microseconds."""
    moment = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ns // 1_000 % 1_000_000:06d}Z"


def render_json(entry: Entry) -> bytes:
    """One JSON object on one line, without its end."""
    document: dict[str, Any] = {
        "ts": timestamp(entry.time_ns),
        "level": entry.level,
        "logger": entry.logger,
        "event": entry.event,
    }
    for key, value in entry.fields.items():
        document[f"{key}_" if key in document or key == "exception" else key] = value
    if entry.exception:
        document["exception"] = entry.exception
    try:
        return orjson.dumps(document)
    except (TypeError, ValueError, RecursionError):
        # Lone surrogates or integers beyond 64 bits.
        return json.dumps(document, ensure_ascii=True, default=str).encode()


def render_text(entry: Entry) -> bytes:
    """One line for people; only a traceback takes further lines."""
    line = f"{timestamp(entry.time_ns)} {entry.level:<5} {entry.logger}: {one_line(entry)}"
    if entry.exception:
        line += "".join(f"\n  {_harmless(part)}" for part in entry.exception.split("\n"))
    return line.encode("utf-8", "backslashreplace")


def one_line(entry: Entry) -> str:
    """The event and its fields: ``task failed task=a reason="no such file"``."""
    fields = "".join(f" {key}={_quoted(value)}" for key, value in entry.fields.items())
    return _harmless(entry.event + fields)


def _harmless(text: str) -> str:
    # A packet or a client must not be able to forge a line, or to steer a terminal.
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def _quoted(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if isinstance(value, str) and (not text or _NEEDS_QUOTES.search(text)):
        return json.dumps(text, ensure_ascii=False)
    return text
