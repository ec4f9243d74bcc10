"""The agent's own loggers: an event in few words, and the facts beside it by name.

A thin layer over ``logging``, which everything that is installed logs through
anyway. (structlog has the same calls, and costs the daemon a fifth of its start.)
"""

from __future__ import annotations

import logging
from typing import Any

FIELDS_ATTRIBUTE = "otus_fields"


class EventLogger:
    """Logs events with fields: ``log.info("task created", task="a")``.

    The fields travel under one attribute of the record: as attributes of their
    own they could hide those of a record.
    """

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, /, **fields: Any) -> None:
        """What only helps to find a mistake."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        """What happens in the normal course."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        """What somebody may have to look at."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, /, *, exc_info: BaseException | None = None, **fields: Any) -> None:
        """What somebody has to look at; with the traceback of an exception where one is given."""
        self._log(logging.ERROR, event, fields, exc_info)

    def exception(self, event: str, /, **fields: Any) -> None:
        """An error with the traceback of the exception being handled."""
        self._log(logging.ERROR, event, fields, exc_info=True)

    def _log(
        self,
        level: int,
        event: str,
        fields: dict[str, Any],
        exc_info: BaseException | bool | None = None,
    ) -> None:
        if self._logger.isEnabledFor(level):
            extra = {FIELDS_ATTRIBUTE: fields}
            self._logger.log(level, "%s", event, exc_info=exc_info, extra=extra)


def get_logger(name: str) -> EventLogger:
    """The logger of this name."""
    return EventLogger(name)
