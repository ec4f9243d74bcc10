"""How `otus read` writes: a table, JSON lines, YAML; messages or calls."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

import orjson

from otus_agent.cli.render import printable

__all__ = ["Call", "Calls", "Output", "make_output"]

_MESSAGE_COLUMNS = (("TIME", 26), ("SOURCE", 21), ("DESTINATION", 21), ("MESSAGE", 24),
                    ("CSEQ", 14), ("CALL-ID", 36), ("FROM", 30), ("TO", 0))  # fmt: skip
_CALL_COLUMNS = (("START", 26), ("DURATION", 9), ("RESULT", 14), ("MESSAGES", 8), ("CALL-ID", 36),
                 ("FROM", 30), ("TO", 0))  # fmt: skip
_COLORS = {"": "\x1b[36m", "1": "\x1b[33m", "2": "\x1b[32m", "3": "\x1b[33m"}
_RED, _RESET = "\x1b[31m", "\x1b[0m"


class Output(Protocol):
    """Takes the records that were selected."""

    @property
    def wants(self) -> frozenset[str]:
        """The encoded forms that it needs, as a reporter's `wants`."""
        ...

    def write(self, batch: Any, rows: Iterable[int]) -> int:
        """Takes these rows of a batch; returns how many they were."""
        ...

    def finish(self) -> None:
        """Writes what is held back."""


def make_output(form: str, stream: TextIO, *, calls: bool) -> Output:
    """The output for `--output` and `--calls`."""
    if calls:
        return Calls(form, stream)
    if form == "json":
        return JsonMessages(stream)
    if form == "yaml":
        return YamlMessages(stream)
    return MessageTable(stream)


def utc(ts_ns: int) -> str:
    """Date and time in UTC with microseconds: 2024-05-06 07:08:09.000010."""
    seconds, nanoseconds = divmod(ts_ns, 10**9)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{nanoseconds // 1000:06d}"


def iso(ts_ns: int) -> str:
    """The same as RFC 3339 has it, with nanoseconds."""
    seconds, nanoseconds = divmod(ts_ns, 10**9)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


def endpoint(address: str, port: int) -> str:
    """An address with its port, IPv6 in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _color_of(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")


def _row(columns: tuple[tuple[str, int], ...], cells: Iterable[str]) -> str:
    padded = (cell.ljust(width) for cell, (_, width) in zip(cells, columns, strict=True))
    return "  ".join(padded).rstrip()


class JsonMessages:
    """One JSON object a line, as the core encodes it."""

    wants = frozenset({"json"})

    def __init__(self, stream: TextIO) -> None:
        self._out = stream.buffer

    def write(self, batch: Any, rows: Iterable[int]) -> int:
        """Writes the rows."""
        lines = [batch.json(row) for row in rows]
        if lines:
            self._out.write(b"\n".join(lines) + b"\n")
            self._out.flush()
        return len(lines)

    def finish(self) -> None:
        """Nothing is held back."""


class YamlMessages:
    """One YAML document a record."""

    wants = frozenset({"json"})

    def __init__(self, stream: TextIO) -> None:
        self._out = stream

    def write(self, batch: Any, rows: Iterable[int]) -> int:
        """Writes the rows."""
        import yaml

        count = 0
        for count, row in enumerate(rows, 1):  # noqa: B007 counted
            record = orjson.loads(batch.json(row))
            yaml.safe_dump(
                record, self._out, sort_keys=False, allow_unicode=True, explicit_start=True
            )
        self._out.flush()
        return count

    def finish(self) -> None:
        """Nothing is held back."""


class MessageTable:
    """One line a message, in columns."""

    wants: frozenset[str] = frozenset()

    def __init__(self, stream: TextIO) -> None:
        self._out = stream
        self._color = _color_of(stream)
        self._has_head = False

    def write(self, batch: Any, rows: Iterable[int]) -> int:
        """Writes the rows, the column heads before the first."""
        lines = [self._line(batch.packet(row)) for row in rows]
        if lines:
            self._head()
            self._out.write("\n".join(lines) + "\n")
            self._out.flush()
        return len(lines)

    def _head(self) -> None:
        if not self._has_head:
            self._has_head = True
            self._out.write(_row(_MESSAGE_COLUMNS, (name for name, _ in _MESSAGE_COLUMNS)) + "\n")

    def _line(self, packet: Any) -> str:
        labels = {name: printable(value) for name, value in packet.labels.items()}
        get = labels.get
        code = get("sip.status_code", "")
        what = get("sip.method") or f"{code} {get('sip.reason', '')}".strip()
        if packet.payload_type != "sip":
            what = packet.payload_type
        cells = [
            utc(packet.ts_ns),
            endpoint(packet.src_ip, packet.src_port),
            endpoint(packet.dst_ip, packet.dst_port),
            what.ljust(_MESSAGE_COLUMNS[3][1]),
            f"{get('sip.cseq', '')} {get('sip.cseq_method', '')}".strip(),
            get("sip.call_id") or get("rtp.call_id") or get("rtcp.call_id") or "",
            get("sip.from_uri", ""),
            get("sip.to_uri", ""),
        ]
        if self._color:
            cells[3] = f"{_COLORS.get(code[:1], _RED)}{cells[3]}{_RESET}"
        return _row(_MESSAGE_COLUMNS, cells)

    def finish(self) -> None:
        """Nothing is held back."""


@dataclass(slots=True)
class Call:
    """All messages of one Call-ID."""

    call_id: str
    from_uri: str = ""
    to_uri: str = ""
    method: str = ""
    start_ns: int = 0
    end_ns: int = 0
    ringing_ns: int = 0
    answered_ns: int = 0
    ended_ns: int = 0
    code: int = 0
    reason: str = ""
    cancelled: bool = False
    messages: int = 0

    def add(self, ts_ns: int, labels: dict[str, str]) -> None:
        """Takes one more message."""
        if not self.messages:
            self.start_ns = ts_ns
            self.from_uri = labels.get("sip.from_uri", "")
            self.to_uri = labels.get("sip.to_uri", "")
            self.method = labels.get("sip.method") or labels.get("sip.cseq_method", "")
        self.messages += 1
        self.start_ns = min(self.start_ns, ts_ns)
        self.end_ns = max(self.end_ns, ts_ns)
        method = labels.get("sip.method")
        if method == "BYE":
            self.ended_ns = self.ended_ns or ts_ns
        elif method == "CANCEL":
            self.cancelled = True
        elif method is None and labels.get("sip.cseq_method") == self.method:
            self._add_response(ts_ns, labels)

    def _add_response(self, ts_ns: int, labels: dict[str, str]) -> None:
        """RFC 3261 8.1.3: what answers the request that began the dialog."""
        code = int(labels.get("sip.status_code") or 0)
        if 180 <= code < 190:
            self.ringing_ns = self.ringing_ns or ts_ns
        if 200 <= code < 300 and not self.answered_ns:
            self.answered_ns = ts_ns
            self.code, self.reason = code, labels.get("sip.reason", "")
        elif not self.answered_ns and code > 0:
            self.code, self.reason = code, labels.get("sip.reason", "")

    @property
    def state(self) -> str:
        """answered, failed, cancelled, ringing, trying; or `ok` for what is no call."""
        if self.answered_ns:
            return "answered" if self.method == "INVITE" else "ok"
        if self.code >= 300:
            return "cancelled" if self.cancelled and self.code == 487 else "failed"
        return "ringing" if self.ringing_ns else "trying"

    @property
    def duration_ns(self) -> int:
        """Of an answered call from the answer to the BYE, else from first to last message."""
        if self.method == "INVITE" and self.answered_ns:
            return max(0, (self.ended_ns or self.end_ns) - self.answered_ns)
        return self.end_ns - self.start_ns

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "call_id": self.call_id,
            "method": self.method,
            "from_uri": self.from_uri,
            "to_uri": self.to_uri,
            "start": iso(self.start_ns),
            "answered": iso(self.answered_ns) if self.answered_ns else None,
            "end": iso(self.end_ns),
            "duration_s": round(self.duration_ns / 1e9, 6),
            "state": self.state,
            "status_code": self.code or None,
            "reason": self.reason,
            "messages": self.messages,
        }


class Calls:
    """One line a call, written at the end; memory grows with calls, not with messages."""

    wants: frozenset[str] = frozenset()

    def __init__(self, form: str, stream: TextIO) -> None:
        self._form = form
        self._out = stream
        self.calls: dict[str, Call] = {}

    def write(self, batch: Any, rows: Iterable[int]) -> int:
        """Adds the rows to their calls."""
        count = 0
        for row in rows:
            labels = batch.labels(row)
            call_id = labels.get("sip.call_id")
            if call_id is None:
                continue
            count += 1
            call = self.calls.get(call_id)
            if call is None:
                call = self.calls[call_id] = Call(call_id)
            call.add(batch.ts_ns(row), labels)
        return count

    def finish(self) -> None:
        """Writes all calls, in the order of their first message."""
        if self._form == "json":
            for call in self.calls.values():
                self._out.write(orjson.dumps(call.to_dict()).decode() + "\n")
        elif self._form == "yaml":
            import yaml

            for call in self.calls.values():
                yaml.safe_dump(
                    call.to_dict(), self._out, sort_keys=False, allow_unicode=True,
                    explicit_start=True,
                )  # fmt: skip
        elif self.calls:
            self._write_table()
        self._out.flush()

    def _write_table(self) -> None:
        color = _color_of(self._out)
        self._out.write(_row(_CALL_COLUMNS, (name for name, _ in _CALL_COLUMNS)) + "\n")
        for call in self.calls.values():
            result = f"{call.state} {call.code or ''}".strip().ljust(_CALL_COLUMNS[2][1])
            if color:
                result = f"{_COLORS.get(str(call.code)[:1], _RED)}{result}{_RESET}"
            cells = (
                utc(call.start_ns),
                f"{call.duration_ns / 1e9:.3f}s",
                result,
                str(call.messages),
                printable(call.call_id),
                printable(call.from_uri),
                printable(call.to_uri),
            )
            self._out.write(_row(_CALL_COLUMNS, cells) + "\n")
