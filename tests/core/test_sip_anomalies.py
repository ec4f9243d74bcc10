"""The reference of SIP anomalies says what the code says."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_anomaly_is_documented(root: Path) -> None:
    """docs/reference/sip-anomalies.md lists OTUS_SIP_ANOMALIES, in order, with its meanings."""
    header = (root / "core_c" / "include" / "otus" / "sip.h").read_text(encoding="utf-8")
    table = header[header.index("#define OTUS_SIP_ANOMALIES(X)") :]
    table = table[: table.index("enum otus_sip_anomaly {")]
    in_code = re.findall(r'X\(\w+,\s*"(\w+)",[\s\\]*"([^"]*)"\)', table)
    reference = (root / "docs" / "reference" / "sip-anomalies.md").read_text(encoding="utf-8")
    in_docs = re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", reference, flags=re.MULTILINE)
    assert in_docs == in_code
    assert len(in_code) >= 40
