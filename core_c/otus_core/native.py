"""The door to C: the compiled module, its error convention and its tables."""

from __future__ import annotations

from typing import Any, Final

from otus_core._native import ffi, lib
from otus_sdk.errors import OtusError

__all__ = ["MESSAGE_OCTETS", "CoreError", "check", "ffi", "lib", "text"]

MESSAGE_OCTETS: Final = 512
"""Room for the one line that says why a call failed."""


class CoreError(OtusError):
    """A call into the core failed; the text says what and why in one line."""

    code = "core_error"

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def text(pointer: Any) -> str:
    """Copy a C string.

    Args:
        pointer: `char *`, or NULL.

    Returns:
        The text; empty for NULL. Octets that are no UTF-8 are replaced.
    """
    if pointer == ffi.NULL:
        return ""
    octets: bytes = ffi.string(pointer)
    return octets.decode("utf-8", "replace")


def check(status: int, message: Any = None) -> None:
    """Raise where a status is an error.

    Args:
        status: what a core function returned.
        message: the `char[]` that the function filled in, if it takes one.

    Raises:
        CoreError: status is negative.
    """
    if status >= 0:
        return
    detail = text(message) if message is not None else ""
    raise CoreError(detail or text(lib.otus_status_name(status)), status)
