"""Real captures through the whole pipeline, against an independent decoder's reading."""

from __future__ import annotations

import collections
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import otus_core
from otus_core import (
    DecoderConfig,
    Output,
    Pipeline,
    PipelineConfig,
    Stage,
    StageKind,
    StreamConfig,
)
from otus_sdk.model import OutputPacket

ROOT = Path(__file__).resolve().parents[2]
DIFFERENCES = ROOT / "docs" / "capture-differences.md"

Message = tuple[Any, ...]


def listed_differences() -> dict[str, tuple[int, int]]:
    """Captures with how many messages only the oracle has, and only Otus has."""
    row = re.compile(r"^\| `(?P<name>[^`]+)` \| (?P<missing>\d+) \| (?P<extra>\d+) \| .+ \|$")
    found = {}
    for line in DIFFERENCES.read_text(encoding="utf-8").splitlines():
        if match := row.match(line):
            found[match["name"]] = (int(match["missing"]), int(match["extra"]))
    return found


def packets(capture: Path, ports: tuple[int, ...]) -> Iterator[OutputPacket]:
    """Every SIP message that the pipeline finds, all tunnels followed."""
    config = PipelineConfig(
        "corpus",
        "test",
        "corpus-0",
        [Stage(StageKind.PARSE_SIP)],
        decoder=DecoderConfig(tunnels=dict.fromkeys(otus_core.TUNNELS[1:], ())),
        streams=StreamConfig(ports=ports),
        outputs=Output.NONE,
    )
    fd = os.open(capture, os.O_RDONLY)
    pipeline = Pipeline(otus_core.open_file(otus_core.FileConfig(fd)), config)
    try:
        ended = False
        while not ended:
            try:
                ended = pipeline.poll(0).ended
            except otus_core.CoreError:
                ended = True  # a damaged file: what came before the damage counts
            yield from pipeline.snapshot()
    finally:
        pipeline.close()


def text(value: str | None) -> str | None:
    r"""The oracle writes octets that are no UTF-8 as \xNN; Otus replaces them."""
    return re.sub(r"\\x[89a-f][0-9a-f]", "\ufffd", value) if value else None


def ours(packet: OutputPacket) -> Message:
    labels = packet.labels
    return (
        labels.get("sip.method") or labels.get("sip.status_code"),
        labels.get("sip.call_id") or None,
        labels.get("sip.cseq"),
        labels.get("sip.cseq_method"),
        labels.get("sip.from_uri") or None,
        labels.get("sip.to_uri") or None,
        (packet.src_ip, packet.src_port, packet.dst_ip, packet.dst_port),
    )


def theirs(row: dict[str, Any]) -> Message:
    return (
        row["method"] or str(row["status"]),
        text(row.get("call_id_raw", row["call_id"])),
        str(row["cseq"]) if row["cseq"] is not None else None,
        text(row["cseq_method"]),
        text(row.get("from_uri")),
        text(row.get("to_uri")),
        (row["src"], row["sport"], row["dst"], row["dport"]),
    )


def oracle_rows(oracle: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in oracle.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if not row.get("quoted_in_icmp")]


def stream_ports(rows: list[dict[str, Any]]) -> tuple[int, ...]:
    """The service ends of the capture's TCP connections: what an operator would configure."""
    ends = {row[end] for row in rows if row["transport"] != "udp" for end in ("sport", "dport")}
    return tuple(sorted(port for port in ends if port < 20000))[:32]


def test_every_message_of_every_capture(corpus: Path) -> None:
    """Method or status, Call-ID, CSeq, From, To, addresses and ports agree message by message."""
    listed = listed_differences()
    oracles = sorted((corpus / "oracle").glob("*.sip.jsonl"))
    assert oracles
    unexplained = []
    num_messages = 0
    for oracle in oracles:
        name = oracle.name.removesuffix(".sip.jsonl")
        rows = oracle_rows(oracle)
        want = collections.Counter(map(theirs, rows))
        found = packets(corpus / "pcap" / name, stream_ports(rows))
        got = collections.Counter(map(ours, found))
        num_messages += want.total()
        difference = ((want - got).total(), (got - want).total())
        if difference != listed.get(name, (0, 0)):
            examples = [*(want - got), *(got - want)][:4]
            unexplained.append(f"{name}: missing, extra = {difference}: {examples}")
    assert num_messages > 1000
    assert not unexplained, "\n".join(unexplained)


@pytest.mark.parametrize("name", ["derived__siptcp_reseg_open.pcap", "made__sipws_base.pcap"])
def test_messages_of_a_stream_come_out_octet_for_octet(corpus: Path, name: str) -> None:
    """TCP and WebSocket framing delimits each message where the source stream had it."""
    import hashlib

    oracle = corpus / "oracle" / f"{name}.sip.jsonl"
    if not oracle.exists():
        pytest.skip(f"{name} is not in this corpus")
    rows = oracle_rows(oracle)
    want = collections.Counter(row["msg_sha1"] for row in rows)
    got = collections.Counter(
        hashlib.sha1(packet.raw_payload or b"", usedforsecurity=False).hexdigest()
        for packet in packets(corpus / "pcap" / name, stream_ports(rows))
    )
    assert got == want
