"""What a command tells when it fails, and the exit code that scripts see.

0 ok, 1 error, 2 usage, 3 daemon unreachable, 4 not found, 5 invalid configuration.
"""

from __future__ import annotations

from collections.abc import Sequence

EXIT_OK = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_NOT_FOUND = 4
EXIT_INVALID_CONFIGURATION = 5
EXIT_INTERRUPTED = 130  # by Ctrl-C, as shells have it

_EXIT_CODES = {
    "daemon_not_running": EXIT_UNREACHABLE,
    "brokers_unreachable": EXIT_UNREACHABLE,
    "task_not_found": EXIT_NOT_FOUND,
    "plugin_not_found": EXIT_NOT_FOUND,
    "configuration_invalid": EXIT_INVALID_CONFIGURATION,
    "parameters_invalid": EXIT_USAGE,
    "command_not_found": EXIT_USAGE,
}


class CliError(Exception):
    """A failure with one line to tell, the next step in it.

    Args:
        message: the line.
        code: an error's stable code, which decides the exit code.
        problems: lines to tell instead, one a problem.
    """

    def __init__(self, message: str, code: str = "", problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.problems = list(problems)

    @property
    def exit_code(self) -> int:
        """What the process ends with."""
        return exit_code_of(self.code)


def exit_code_of(code: str) -> int:
    """The exit code for an error's stable code."""
    return _EXIT_CODES.get(code, EXIT_ERROR)
