"""Cuts a record that is too large down to what still says what it was.

The result is whole JSON or Protobuf: the largest members go first, and what
went is told in the record itself (JSON) and in the header `otus-oversize`. A raw
value keeps its beginning.
"""

from __future__ import annotations

import json

HEADER = "otus-oversize"


def cut_json(value: bytes, limit: int) -> bytes | None:
    """A JSON object of at most `limit` octets, or None where that cannot be made.

    The members dropped are listed under "oversize": {"octets": n, "removed": […]}.
    """
    record = json.loads(value)
    if not isinstance(record, dict):
        return None
    sizes = {name: len(_dump(member)) for name, member in record.items()}
    removed: list[str] = []
    while True:
        record["oversize"] = {"octets": len(value), "removed": removed}
        cut = _dump(record)
        if len(cut) <= limit:
            return cut
        if not sizes:
            return None
        largest = max(sizes, key=sizes.__getitem__)
        del sizes[largest], record[largest]
        removed.append(largest)


def _dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def cut_protobuf(value: bytes, limit: int) -> bytes | None:
    """A message of at most `limit` octets without its largest fields, or None.

    Leaving out fields of a proto3 message leaves a proto3 message.
    """
    fields = _fields(value)
    if fields is None:
        return None
    keep = set(range(len(fields)))
    size = len(value)
    for index in sorted(keep, key=lambda i: len(fields[i]), reverse=True):
        if size <= limit:
            break
        keep.discard(index)
        size -= len(fields[index])
    return b"".join(fields[index] for index in sorted(keep))


def cut_raw(value: bytes, limit: int) -> bytes | None:
    """The first `limit` octets, or None where there is no room for one."""
    return value[:limit] if limit > 0 else None


def _fields(value: bytes) -> list[bytes] | None:
    """The top-level fields with their tags; None where this is no message."""
    fields: list[bytes] = []
    at = 0
    while at < len(value):
        start = at
        tag, at = _varint(value, at)
        if tag is None:
            return None
        wire_type = tag & 7
        if wire_type == 0:
            number, at = _varint(value, at)
            if number is None:
                return None
        elif wire_type == 2:
            length, at = _varint(value, at)
            if length is None:
                return None
            at += length
        elif wire_type in (1, 5):
            at += 8 if wire_type == 1 else 4
        else:
            return None
        if at > len(value):
            return None
        fields.append(value[start:at])
    return fields


def _varint(value: bytes, at: int) -> tuple[int | None, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(value):
            return None, at
        octet = value[at]
        at += 1
        number |= (octet & 0x7F) << shift
        if octet < 0x80:
            return number, at
    return None, at
