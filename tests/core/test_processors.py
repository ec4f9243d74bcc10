"""The filter and label processors: what the core does, their Python form does as well."""

from __future__ import annotations

import struct

import pytest
from pydantic import ValidationError

import otus_core
from otus_core import Output, Pipeline, PipelineConfig, Stage, StageKind
from otus_plugins.processor.filter import FACTORY as FILTER
from otus_plugins.processor.filter import FilterConfig, FilterProcessor
from otus_plugins.processor.label import FACTORY as LABEL
from otus_plugins.processor.label import LabelConfig, LabelProcessor
from otus_sdk.expression import Schema, compile_expression
from otus_sdk.labels import LabelType
from otus_sdk.model import OutputPacket


def frame(payload: bytes, source: str = "10.0.0.1", port: int = 5060, vlan: int = 0) -> bytes:
    udp = struct.pack("!HHHH", port, 5062, 8 + len(payload), 0) + payload
    addresses = bytes(map(int, source.split("."))) + b"\xc0\0\2\7"
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 63, 17, 0) + addresses
    tag = struct.pack("!HH", 0x8100, vlan) if vlan else b""
    return b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01" + tag + b"\x08\0" + ip + udp


def sip(method: str, cseq: int = 1, account: str = "") -> bytes:
    extra = f"X-Account: {account}\r\n" if account else ""
    return (
        f"{method} sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK7\r\n"
        f"From: Alice <sip:alice@example.com>;tag=9f\r\nTo: Bob <sip:bob@example.com>\r\n"
        f"Call-ID: {cseq}@example.com\r\nCSeq: {cseq} {method}\r\n{extra}Content-Length: 0\r\n\r\n"
    ).encode()


FRAMES = [
    frame(sip("INVITE")),
    frame(sip("OPTIONS", 7), "10.0.0.2"),
    frame(sip("OPTIONS", 8), "192.0.2.1", vlan=12),
    frame(sip("BYE", 9, "4711"), port=5080),
    frame(b"no SIP at all", "10.9.9.9"),
    frame(b"SIP/2.0 486 Busy Here\r\nCall-ID: x\r\nCSeq: 7 INVITE\r\n\r\n"),
]
CAPTURE = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1) + b"".join(
    struct.pack("<IIII", 1700000000, n, len(octets), len(octets)) + octets
    for n, octets in enumerate(FRAMES)
)
PARSER = Stage(StageKind.PARSE_SIP, header_labels={"sip.header.x_account": "X-Account"})


def run(*processors: Stage) -> list[OutputPacket]:
    """The records that come out behind these processors."""
    pipeline = Pipeline(
        otus_core.open_memory(CAPTURE),
        PipelineConfig(
            "task", "agent", "0", (PARSER, *processors), forward_unmatched=True, outputs=Output.NONE
        ),
    )
    assert pipeline.poll(0).ended
    packets = list(pipeline.snapshot())
    pipeline.close()
    return packets


def native_filter(expression: str, action: str) -> Stage:
    ids = otus_core.label_ids([PARSER])
    program = compile_expression(expression, Schema(dict.fromkeys(ids, LabelType.STRING), ids))
    return Stage(
        StageKind.FILTER, filter=otus_core.Filter(program.bytecode), keep_if=action == "keep_if"
    )


@pytest.mark.parametrize("action", ["drop_if", "keep_if"])
@pytest.mark.parametrize(
    ("expression", "num_matching"),
    [
        ("sip.method == 'OPTIONS'", 2),
        ("sip.method != 'OPTIONS'", 4),
        ("sip.cseq >= 7 && sip.cseq < 9", 3),
        ("has(sip.method)", 4),
        ("sip.status_code == 486 || payload_type == 'raw'", 2),
        ("src_ip.startsWith('10.') && vlan == 0", 5),
        ("src_ip == '192.0.2.1' && vlan == 12 && ttl == 63 && caplen == wirelen", 1),
        ("src_port in [5080] || dst_port == 1", 1),
        ("has(sip.header.x_account) && sip.header.x_account.matches('^[0-9]+$')", 1),
        ("protocol == 'udp' && ip_version == 4 && tunnel == ''", 6),
        ("false", 0),
    ],
)
def test_filter_equals_its_python_form(expression: str, num_matching: int, action: str) -> None:
    """For each condition core and Python keep the same records, as many as counted by hand."""
    everything = run()
    reference = FilterProcessor()
    reference.init(FilterConfig(**{action: expression}))
    expected = [packet.ts_ns for packet in everything if reference.process(packet)]
    kept = [packet.ts_ns for packet in run(native_filter(expression, action))]
    assert kept == expected
    matching = len(kept) if action == "keep_if" else len(everything) - len(kept)
    assert matching == num_matching


def test_native_form_of_a_filter() -> None:
    """The agent is told the action and the condition."""
    assert FILTER.native is not None
    stage = FILTER.native(FilterConfig(drop_if="truncated"))
    assert stage is not None
    assert (stage.kind, dict(stage.config)) == (
        "filter",
        {"action": "drop_if", "expression": "truncated"},
    )


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({}, "either drop_if or keep_if"),
        ({"drop_if": "truncated", "keep_if": "truncated"}, "either drop_if or keep_if"),
        ({"drop_if": "sip.method = 'A'"}, "column 12: unexpected '='"),
        ({"drop_if": ""}, "is empty"),
        ({"keep_if": "src_port == 'a'"}, "compares an int with a string"),
        ({"drop": "truncated"}, "Extra inputs"),
    ],
)
def test_filter_sections_refused(section: dict[str, str], says: str) -> None:
    """A wrong section says what is wrong, and where in the condition."""
    with pytest.raises(ValidationError, match=says):
        FilterConfig(**section)  # type: ignore[arg-type]


def test_label_equals_its_python_form() -> None:
    """Fixed labels and the agent's tags are set, over what was there."""
    config = LabelConfig(
        labels={"env.name": "production", "sip.method": "overwritten"},
        tags={"env.region": "region", "env.rack": "rack"},
        agent_tags={"region": "cn-east-1"},
    )
    reference = LabelProcessor()
    reference.init(config)
    expected = run()
    assert all(reference.process(packet) for packet in expected)
    assert LABEL.native is not None
    stage = LABEL.native(config)
    assert stage is not None
    labelled = run(Stage(StageKind.LABEL, labels=stage.config["labels"]))
    assert [packet.labels for packet in labelled] == [packet.labels for packet in expected]
    assert labelled[0].labels["env.region"] == "cn-east-1"
    assert labelled[0].labels["env.rack"] == ""
    assert labelled[0].labels["sip.method"] == "overwritten"


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({}, "labels, tags or both"),
        ({"labels": {"Upper": "x"}}, "is no label name"),
        ({"labels": {"a": "x"}, "tags": {"a": "x"}}, "in labels and in tags"),
    ],
)
def test_label_sections_refused(section: dict[str, dict[str, str]], says: str) -> None:
    """A wrong section says what is wrong."""
    with pytest.raises(ValidationError, match=says):
        LabelConfig(**section)
