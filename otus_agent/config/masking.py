"""Secrets are known by the name of their key, and never printed."""

from __future__ import annotations

import re
from typing import Any

MASK = "**********"

_SECRET_KEY = re.compile(
    r"passw(or)?d|passphrase|secret|token|credential|signing_key|hmac|private_key|api_?key|authorization",
    re.IGNORECASE,
)
_NO_SECRET_KEY = re.compile(r"_(file|path|topic|id|ids|url)$", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(?<=://)([^/\s:@]+):([^/\s@]+)@")


def is_secret_key(key: str) -> bool:
    """Whether a key of this name holds a secret rather than naming where it is."""
    return bool(_SECRET_KEY.search(key)) and not _NO_SECRET_KEY.search(key)


def masked(value: Any, *, secret: bool = False) -> Any:
    """A copy of plain values (dicts, lists, scalars) with every secret replaced."""
    if isinstance(value, dict):
        return {
            key: masked(member, secret=secret or is_secret_key(str(key)))
            for key, member in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [masked(member, secret=secret) for member in value]
    if secret and value is not None and value != "" and not isinstance(value, bool):
        return MASK
    if isinstance(value, str):
        return _URL_PASSWORD.sub(rf"\1:{MASK}@", value)
    return value
