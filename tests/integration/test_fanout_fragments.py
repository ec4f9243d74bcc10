"""What decision 0005 rests on: the kernel's fanout hash keeps a datagram's fragments together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FANOUT_HASH_DEFRAG = 0x8000


@pytest.mark.root
@pytest.mark.usefixtures("network_namespaces")
@pytest.mark.parametrize("flags", [0, FANOUT_HASH_DEFRAG])
def test_fanout_hash_keeps_fragments_together(root: Path, flags: int) -> None:
    pytest.importorskip("scapy", reason="scapy builds the fragments")
    name = f"otus-fan-{os.getpid()}-{flags}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        command = ["ip", "netns", "exec", name, sys.executable, root / "tests/fanout_spread.py"]
        run = subprocess.run([*command, str(flags)], check=True, capture_output=True, text=True)
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
    spread = json.loads(run.stdout)
    # The one case that is not covered, and the proof that parting would be seen.
    assert spread.pop("vxlan, ports hashed")[0] > 10
    assert spread
    for kind, (parted, used) in spread.items():
        assert parted == 0, kind
        assert used == 4, f"{kind}: only {used} of 4 sockets were used"
