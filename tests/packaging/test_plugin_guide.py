"""docs/plugins.md: the package that it builds is built, tested, installed and run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from frames import sip, udp, write_pcap
from otus_sdk.testing import make_packet

FENCE = re.compile(r"^```(\w+)\n(?:# ([\w.]+)\n)?(.*?)^```$", re.MULTILINE | re.DOTALL)
RESOLVER = ("192.0.2.53", 53)
QUESTION = b"\3www\7example\0\0\1\0\1"


def dns(flags: int) -> bytes:
    return b"\0\1" + flags.to_bytes(2) + b"\0\1" + bytes(6) + QUESTION


def test_its_package_works_step_by_step(root: Path, tmp_path: Path) -> None:
    """The files of the guide, then its commands in order: the task reports SIP and DNS queries."""
    commands = ""
    for language, name, text in FENCE.findall((root / "docs" / "plugins.md").read_text()):
        if name:
            (tmp_path / name).write_text(text)
        elif language == "sh":
            commands += text
    assert "otus run" in commands
    frames = [
        udp(dns(0x0100), target=RESOLVER),
        udp(dns(0x8180), source=RESOLVER),
        udp(sip()),
        udp(b"\0\2", target=RESOLVER),
    ]
    write_pcap(tmp_path / "dns.pcap", frames)
    done = subprocess.run(
        ["bash", "-euxc", commands],
        cwd=tmp_path,
        # pip reads this one the wrong way round: no isolation, so no index is asked for
        # hatchling, which this environment has. Read otherwise, it is fetched.
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
             "PIP_NO_BUILD_ISOLATION": "0", "COLUMNS": "200"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"dns .*otus-dns 1\.0 .*DNS questions", done.stdout)
    records = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [record["payload_type"] for record in records] == ["dns", "sip"]
    assert records[0]["labels"] == {"dns.kind": "query", "dns.name": "www.example"}
    assert done.stderr.splitlines()[-1] == "balanced"


def test_the_sdk_readme_shows_a_plugin_that_works(root: Path) -> None:
    """Its code makes a parser that takes STUN and names the message's type."""
    text = (root / "otus_sdk" / "README.md").read_text()
    (code,) = (block for language, _, block in FENCE.findall(text) if language == "python")
    names: dict[str, Any] = {}
    exec(code, names)
    parser = names["FACTORY"].create()
    parser.init(names["FACTORY"].config_type())
    stun, other = make_packet(b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12)), make_packet(b"other")
    assert (parser.can_handle(stun), parser.can_handle(other)) == (True, False)
    assert parser.handle(stun)[1] == {"stun.message_type": "1"}
