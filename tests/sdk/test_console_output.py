"""The console reporter where standard output is a file, and its disk is full for a while."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from emulated import starts_python

# A limit on the file's size fails as a full disk does, in the middle of a line as well.
PROGRAM = """
import asyncio, os, resource, sys
from otus_plugins.reporter.console.output import PatientOutput

def limit(octets):
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, resource.RLIM_INFINITY))

async def main():
    output = PatientOutput(1 << 20, fd=os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT))
    for numbers, room in ((range(5), 24), (range(5, 8), resource.RLIM_INFINITY)):
        limit(room)
        output.write([b'{"number":%d}\\n' % number for number in numbers])
        await output.flush()
    stats = output.stats()
    await output.close()
    print(stats.reported, stats.failed, stats.dropped, stats.queued)

asyncio.run(main())
"""


@starts_python
def test_a_full_disk_is_counted_and_got_over(tmp_path: Path) -> None:
    """What had no room has failed; behind it each line stands alone again."""
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, out], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "4 {'disk_full': 4} {} 0\n"
    lines = out.read_text().splitlines()
    assert lines.pop(1) == '{"number":1'  # cut off at octet 24
    assert [json.loads(line)["number"] for line in lines] == [0, 5, 6, 7]
