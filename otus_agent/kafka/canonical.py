"""One octet string for one JSON value: RFC 8785 (JCS), which is what gets signed."""

from __future__ import annotations

import json
import math
import re
from typing import Any

_MAX_INTEGER = 2**53 - 1  # RFC 8785 section 3.2.2.3: numbers are IEEE 754 doubles
_EXPONENT = re.compile(r"(-?)(\d)(?:\.(\d+))?e([+-]\d+)\Z")


def canonical(value: Any) -> bytes:
    """The canonical form.

    Raises:
        ValueError: the value has none: an integer that no double holds, a number that
            is not finite, a lone surrogate, or something JSON does not know.
    """
    try:
        return _text(value).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("a lone surrogate has no canonical form") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _text(value: Any) -> str:
    if isinstance(value, dict):
        # Section 3.2.3: sorted by UTF-16 code units.
        names = sorted(value, key=lambda name: str(name).encode("utf-16-be"))
        return "{" + ",".join(f"{_string(name)}:{_text(value[name])}" for name in names) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_text(member) for member in value) + "]"
    if isinstance(value, str):
        return _string(value)
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int):
        return str(value) if abs(value) <= _MAX_INTEGER else _large(value)
    if isinstance(value, float):
        return _number(value)
    raise ValueError(f"{type(value).__name__} is not JSON")


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a JSON object's names are text")
    return json.dumps(value, ensure_ascii=False)


def _large(value: int) -> str:
    """An integer that other parsers read as a double: only where that is the same number."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isfinite(number):
        text = _number(number)
        if number == value or text == str(value):
            return text
    raise ValueError(f"an integer of {value.bit_length()} bits is not an exact JSON number")


def _number(value: float) -> str:
    """A double as ECMAScript writes it (RFC 8785 section 3.2.2.3)."""
    if not math.isfinite(value):
        raise ValueError("JSON numbers are finite")
    text = repr(value)
    match = _EXPONENT.match(text)
    if match is None:
        return "0" if value == 0 else text.removesuffix(".0")
    sign, first, rest, exponent_text = match.groups()
    digits, exponent = first + (rest or ""), int(exponent_text)
    if 0 < exponent < 21:
        return f"{sign}{digits.ljust(exponent + 1, '0')}"
    if -7 < exponent < 0:
        return f"{sign}0.{'0' * (-exponent - 1)}{digits}"
    mantissa = first + (f".{rest}" if rest else "")
    return f"{sign}{mantissa}e{'+' if exponent > 0 else '-'}{abs(exponent)}"
