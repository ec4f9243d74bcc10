"""Every SIP message of the corpus against the oracle; `docs/sip-differences.md` says what differs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sip_dumping import Dump, SipDump


def oracle_messages(corpus: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for oracle in sorted((corpus / "sipmsg").glob("oracle_*.jsonl")):
        for line in oracle.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            yield corpus / "sipmsg" / entry["set"] / entry["name"], entry["raw"]


def one_line(value: str | None) -> str | None:
    return re.sub(r"\s+", " ", value) if value else None


def expected_body_len(raw: dict[str, Any]) -> int:
    """RFC 3261 18.3: what stands behind Content-Length's octets is no part of the body."""
    there = int(raw["body_len"])
    length = raw["content_length"]
    if length is not None and re.fullmatch(r"[0-9]+", length):
        return min(there, int(length))
    return there


def differences(dump: Dump, raw: dict[str, Any]) -> set[str]:
    if dump.status != "ok":
        return {"not SIP"}
    fields = dump.fields
    pairs = {
        "startline": (fields["start_line"], raw["startline"]),
        "call_id": (fields["call_id"] or None, raw["call_id"] or None),
        "cseq": (one_line(dump.header("CSeq")), one_line(raw["cseq"])),
        "nheaders": (len(dump.headers), raw["nheaders"]),
        "body_len": (len(dump.body), expected_body_len(raw)),
    }
    for end in ("from", "to"):
        pairs[f"{end}_uri"] = (fields[end]["uri"] or None, raw[f"{end}_uri"] or None)
        pairs[f"{end}_tag"] = (fields[end]["tag"] or None, raw[f"{end}_tag"] or None)
    return {name for name, (ours, theirs) in pairs.items() if ours != theirs}


def listed_differences(root: Path) -> dict[str, set[str]]:
    """The table of docs/sip-differences.md, a row of several numbered files spread out."""
    listed: dict[str, set[str]] = {}
    for line in (root / "docs" / "sip-differences.md").read_text(encoding="utf-8").splitlines():
        row = re.match(r"\| (\S+)/(\S+)(?: to (\S+))? \| (.+?) \| .+ \|$", line)
        if row is None:
            continue
        folder, first, last, names = row.groups()
        files = [first]
        if last is not None:
            low, high = (int(re.findall(r"\d+", name)[-1]) for name in (first, last))
            files = [re.sub(r"\d+", f"{n:03d}", first) for n in range(low, high + 1)]
        for file in files:
            listed[f"{folder}/{file}"] = set(names.split(", "))
    return listed


def test_corpus_agrees_with_the_oracle(corpus: Path, root: Path, sip_dump: SipDump) -> None:
    """Each message is read as the oracle reads it, or as the documentation says it is not."""
    paths, raws = zip(*oracle_messages(corpus), strict=True)
    assert len(paths) > 200
    found = {}
    for path, raw, dump in zip(paths, raws, sip_dump.parse_files(paths), strict=True):
        different = differences(dump, raw)
        if different:
            found[f"{path.parent.name}/{path.name}"] = different
    assert found == listed_differences(root)


@pytest.mark.parametrize("options", [(), ("--stream", "--frame"), ("--truncated",)])
def test_portable_code_reads_the_same(
    corpus: Path, sip_dump: SipDump, sip_dump_portable: SipDump, options: tuple[str, ...]
) -> None:
    """The code without vector instructions gives the same result for every file of the corpus."""
    paths = [path for path in sorted((corpus / "sipmsg").glob("*/*")) if path.is_file()]
    assert len(paths) > 300
    fast = sip_dump.parse_files(paths, *options)
    assert fast == sip_dump_portable.parse_files(paths, *options)
