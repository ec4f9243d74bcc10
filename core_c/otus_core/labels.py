"""The built-in labels and their types, as the core's table gives them."""

from __future__ import annotations

from typing import Final

from otus_core.native import lib, text

BUILT_IN: Final = tuple(text(lib.otus_label_name(i)) for i in range(lib.OTUS_NUM_LABELS))

INTEGERS: Final = frozenset(
    name for i, name in enumerate(BUILT_IN) if lib.otus_label_type(i) == lib.OTUS_LABEL_INT
)
"""Labels whose text is a decimal number, and which filters compare as one."""

MAX_CUSTOM: Final[int] = lib.OTUS_MAX_LABELS - lib.OTUS_NUM_LABELS
MAX_NAME_OCTETS: Final[int] = lib.OTUS_MAX_LABEL_NAME
