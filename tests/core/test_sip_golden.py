"""The torture messages of RFC 4475 and RFC 5118, each with what is to be read from it.

A case is a Markdown file in `sip_golden/`: the message, then a table of expected fields.
`sip_golden/README.md` says how to read and write one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from sip_dumping import Dump, SipDump

FOLDER = Path(__file__).parent / "sip_golden"
CASES = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")


@dataclass(frozen=True)
class Case:
    octets: bytes
    expected: Mapping[str, str | None]
    anomalies: frozenset[str]
    rfc: str
    section: str


def unescape(text: str) -> bytes:
    """The octets of a message block: RFC 4475 section 2.1's marks undone, CRLF as line end."""
    text = re.sub(
        r'<repeat count="(\d+)">(.*?)</repeat>', lambda m: m.group(2) * int(m.group(1)), text
    )
    text = re.sub(
        r"<allOneLine>\n(.*?)\n</allOneLine>",
        lambda m: m.group(1).replace("\n", ""),
        text,
        flags=re.DOTALL,
    )
    octets = b""
    for index, part in enumerate(re.split(r"<hex>([0-9A-Fa-f\s]*)</hex>", text)):
        is_hex = index % 2 == 1
        octets += bytes.fromhex(part) if is_hex else part.replace("\n", "\r\n").encode("ascii")
    return octets


def read_value(cell: str) -> str | None:
    """A table cell: `text` with <xx> for octets that don't print, *absent*, *empty*, or a word."""
    if cell == "*absent*":
        return None
    if cell == "*empty*":
        return ""
    cell = cell.replace("\\|", "|")
    if cell.startswith("`` "):
        cell = cell[3:-3]
    elif cell.startswith("`"):
        cell = cell[1:-1]
    return re.sub(r"<([0-9a-f]{2})>", lambda m: chr(int(m.group(1), 16)), cell)


def read_case(path: Path) -> Case:
    text = path.read_text(encoding="utf-8")
    block = re.search(r"```sip\n(.*?)```\n", text, flags=re.DOTALL)
    source = re.search(r"RFC (\d+) section ([\d.]+\d)\.", text)
    assert block is not None, path
    assert source is not None, path
    expected: dict[str, str | None] = {}
    anomalies = set()
    for line in text.splitlines():
        row = re.match(r"\| (.+?) \| (.+?) \|(?: .* \|| \|)$", line)
        if row is None or row.group(1) in {"field", "---"}:
            continue
        name, cell = row.groups()
        if name != "anomaly":
            expected[name] = read_value(cell)
        elif cell != "*none*":
            anomalies.add(read_value(cell) or "")
    return Case(unescape(block.group(1)), expected, frozenset(anomalies), *source.groups())


def as_text(value: object) -> str | None:
    """A field of the dump in the form of a table cell."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def look_up(dump: Dump, name: str) -> str | None:
    """One field by the name that the tables use."""
    fields = dump.fields
    if name == "num_headers":
        return str(len(dump.headers))
    if name == "body_len":
        return str(len(dump.body))
    if name == "sdp.endpoints":
        return " ".join(f"{media['address']}:{media['port']}" for media in fields["sdp"]["media"])
    kind, _, rest = name.partition(".")
    if kind in {"header", "header_count", "header_folded"}:
        found = [h for h in dump.headers if rest.lower() in {h.name.lower(), h.known.lower()}]
        if kind == "header_count":
            return str(len(found))
        return str(found[0].folded) if kind == "header_folded" else found[0].value
    value: object = fields
    for part in name.split("."):
        assert isinstance(value, dict), name
        value = value[part]
    return as_text(value)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_torture_message(path: Path, sip_dump: SipDump) -> None:
    """Each field of the table is read as it says, and exactly the named anomalies are found."""
    case = read_case(path)
    dump = sip_dump.parse(case.octets)
    assert dump.fields["can_handle"]
    assert dump.status == "ok"
    got = {name: look_up(dump, name) for name in case.expected}
    assert got == case.expected
    assert frozenset(dump.fields["anomalies"]) == case.anomalies


def test_all_messages_are_there() -> None:
    """All 49 messages of RFC 4475 and all 11 of RFC 5118 have a case, each section once."""
    by_rfc: dict[str, list[str]] = {}
    for path in CASES:
        case = read_case(path)
        by_rfc.setdefault(case.rfc, []).append(case.section)
    torture = [f"3.1.1.{n}" for n in range(1, 14)] + [f"3.1.2.{n}" for n in range(1, 20)]
    torture += ["3.2.1"] + [f"3.3.{n}" for n in range(1, 16)] + ["3.4.1"]
    assert sorted(by_rfc["4475"]) == sorted(torture)
    assert sorted(by_rfc["5118"]) == sorted([f"4.{n}" for n in range(1, 11)] + ["4.5"])


def test_messages_are_the_published_ones(corpus: Path) -> None:
    """Where the corpus has a message as published, ours is the same octet for octet."""
    compared = 0
    for path in CASES:
        case = read_case(path)
        folder = corpus / "sipmsg" / f"rfc{case.rfc}"
        published = folder / (f"{path.stem}.dat" if case.rfc == "4475" else path.stem)
        if published.exists():
            assert case.octets == published.read_bytes(), path.stem
            compared += 1
    assert compared >= 31
