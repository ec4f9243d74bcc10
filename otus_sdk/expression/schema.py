"""Which fields an expression may name, and what they are."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from otus_sdk.expression.tree import FieldType
from otus_sdk.labels import BUILTIN_LABELS, LabelType, check_label_name

__all__ = ["MAX_LABELS", "NETWORK_FIELDS", "NetworkField", "Schema"]

MAX_LABELS: Final = 128
"""Label ids that a pipeline of the core can hold, the built-in ones included."""


class NetworkField(enum.IntEnum):
    """The fields that every packet has, with their number in bytecode."""

    SRC_IP = 0
    DST_IP = 1
    PROTOCOL = 2
    TUNNEL = 3
    PAYLOAD_TYPE = 4
    SRC_PORT = 16
    DST_PORT = 17
    IP_VERSION = 18
    TTL = 19
    VLAN = 20
    CAPLEN = 21
    WIRELEN = 22
    TRUNCATED = 32
    REASSEMBLED = 33

    @property
    def type(self) -> FieldType:
        """What an expression sees."""
        if self < NetworkField.SRC_PORT:
            return FieldType.STRING
        return FieldType.INT if self < NetworkField.TRUNCATED else FieldType.BOOL


NETWORK_FIELDS: Final[Mapping[str, NetworkField]] = MappingProxyType(
    {field.name.lower(): field for field in NetworkField}
)
_TYPES = {LabelType.STRING: FieldType.STRING, LabelType.INT: FieldType.INT}


@dataclass(frozen=True, slots=True)
class _Label:
    id: int
    type: FieldType


class Schema:
    """The labels of a task beside the built-in ones, and the ids that the core gave them.

    Args:
        labels: Name to type, in the order of their ids.
        label_ids: Name to id where ids do not simply follow the built-in ones.
        permissive: A label that is not known is a string without an id: the
            expression can be evaluated in Python, not compiled.

    Raises:
        ValueError: A name that no label can have.
    """

    def __init__(
        self,
        labels: Mapping[str, LabelType] | None = None,
        label_ids: Mapping[str, int] | None = None,
        *,
        permissive: bool = False,
    ) -> None:
        self.permissive = permissive
        self._labels: dict[str, _Label] = {}
        for number, (name, kind) in enumerate([*BUILTIN_LABELS.items(), *(labels or {}).items()]):
            check_label_name(name)
            known = (label_ids or {}).get(name, number)
            self._labels.setdefault(name, _Label(known, _TYPES[kind]))

    def type_of(self, name: str) -> FieldType | None:
        """The type of a field, None where there is no such field."""
        if name in NETWORK_FIELDS:
            return NETWORK_FIELDS[name].type
        label = self._labels.get(name)
        if label is None:
            return FieldType.STRING if self.permissive and "." in name else None
        return label.type

    def is_label(self, name: str) -> bool:
        """Whether the field is a label, which a packet may be without."""
        return name not in NETWORK_FIELDS

    def label_id(self, name: str) -> int | None:
        """The core's id of a label."""
        label = self._labels.get(name)
        return None if label is None else label.id

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted([*NETWORK_FIELDS, *self._labels])

    def near(self, name: str) -> list[str]:
        """Up to three names that are like the one given."""
        close = difflib.get_close_matches(name, self.names(), n=3, cutoff=0.6)
        if not close:
            # "method" and "call_id" mean a label of some protocol.
            close = [known for known in self.names() if known.rpartition(".")[2] == name][:3]
        return close
