"""What reading certificates needs everywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def naming(*files: str | Path | None) -> Iterator[None]:
    """Has an error name the files, which ssl does not: it only says "PEM lib".

    Raises:
        OSError: what was raised inside, with the files before it.
    """
    try:
        yield
    except OSError as error:
        named = " or ".join(str(file) for file in files if file)
        raise OSError(f"{named}: {error.strerror or error}") from error
