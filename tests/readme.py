"""README's commands, for the tests that run them.

The first line of a fenced block says where it is run: nothing, in a shell; `# live`, at
a host with traffic; `# kafka`, beside a broker; `# elsewhere`, by other tests.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"# (live|kafka|elsewhere)\n")
# sudo is what gives root; here the test has it already, and keeps its environment.
SUDO = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
exec "$@"
"""
# On a busy machine the daemon answers commands long before it serves metrics.
CURL = """#!/bin/sh
exec {curl} --retry 30 --retry-delay 2 --retry-connrefused "$@"
"""


def blocks(page: Path, mark: str = "", language: str = "sh") -> list[str]:
    """The blocks of one language under one mark, without it, in order."""
    found = []
    for named, text in FENCE.findall(page.read_text(encoding="utf-8")):
        marked = MARK.match(text)
        if named == language and (marked[1] if marked else "") == mark:
            found.append(text[marked.end() :] if marked else text)
    return found


def environment(folder: Path) -> dict[str, str]:
    """The commands are those of this environment; daemon's and pip's files are the test's."""
    binaries, site = folder / "bin", folder / "site"
    binaries.mkdir()
    (binaries / "sudo").write_text(SUDO)
    (binaries / "sudo").chmod(0o755)
    if curl := shutil.which("curl"):
        (binaries / "curl").write_text(CURL.format(curl=curl))
        (binaries / "curl").chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{binaries}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OTUS_DAEMON__PID_FILE": str(folder / "otus.pid"),
        "OTUS_DAEMON__SOCKET_PATH": str(folder / "otus.sock"),
        "OTUS_DAEMON__DATA_DIR": str(folder / "data"),
        "OTUS_PLUGIN_PATH": str(site),
        "PIP_TARGET": str(site),
        "PIP_NO_DEPS": "1",
        # pip reads this one the wrong way round: no isolation.
        "PIP_NO_BUILD_ISOLATION": "0",
        "COLUMNS": "200",
    }
