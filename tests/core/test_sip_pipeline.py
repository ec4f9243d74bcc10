"""What the core's SIP and RTP stages remember between messages, and labels that a task names."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence

import otus_core
from frames import pcap, response, sip, udp
from otus_core import Batch, FlowRegistry, Output, Pipeline, PipelineConfig, Stage, StageKind
from otus_sdk.model import OutputPacket

CALLER, CALLEE, OTHER = ("192.0.2.1", 4000), ("192.0.2.2", 5000), ("192.0.2.3", 6000)


def sdp(endpoint: tuple[str, int]) -> bytes:
    address, port = endpoint
    lines = ["v=0", "o=- 1 1 IN IP4 a", "s=-", f"c=IN IP4 {address}", "t=0 0"]
    return "\r\n".join([*lines, f"m=audio {port} RTP/AVP 0", ""]).encode()


def answer(status: int, tag: str, method: str = "INVITE", body: bytes = b"") -> bytes:
    head = response(status, "x", method=method).replace(b"tag=b1", f"tag={tag}".encode())
    if not body:
        return head
    length = b"Content-Length: %d\r\n" % len(body)
    typed = b"Content-Type: application/sdp\r\n" + length
    return head.replace(b"Content-Length: 0\r\n", typed) + body


def rtp(source: tuple[str, int], target: tuple[str, int]) -> bytes:
    return udp(struct.pack("!BBHII", 0x80, 0, 1, 160, 0xCAFE) + b"\xd5" * 160, source, target)


def run_batch(
    frames: Sequence[bytes], header_labels: Mapping[str, str], flows: FlowRegistry
) -> Batch:
    stages = (
        Stage(StageKind.PARSE_SIP, header_labels=header_labels),
        Stage(StageKind.PARSE_RTP),
    )
    config = PipelineConfig(
        "task",
        "agent",
        "task-0",
        stages,
        flows=flows,
        forward_unmatched=True,
        outputs=Output.JSON,
    )
    pipeline = Pipeline(otus_core.open_memory(pcap(frames)), config)
    assert pipeline.poll(0).ended
    batch = pipeline.snapshot()
    pipeline.close()
    assert len(batch) == len(frames)
    return batch


def run(
    frames: Sequence[bytes],
    header_labels: Mapping[str, str] | None = None,
    flows: FlowRegistry | None = None,
) -> list[OutputPacket]:
    if flows is None:
        flows = FlowRegistry(100, 60000)
    return list(run_batch(frames, header_labels or {}, flows))


def roles(*payloads: bytes) -> list[str | None]:
    """What each message's session description is said to be."""
    batch = run_batch([udp(payload) for payload in payloads], {}, FlowRegistry(100, 60000))
    return [json.loads(batch.json(i))["payload"].get("offer_answer") for i in range(len(batch))]


def test_headers_that_a_task_names_become_labels() -> None:
    """In any case and form, unfolded, the first of several; an absent one gives no label."""
    wanted = {
        "sip.header.x_cid": "X-CID",
        "sip.header.subject": "Subject",
        "sip.header.route": "Route",
        "sip.header.none": "X-None",
    }
    more = b"x-cid\t : one\r\n \r\n\ttwo\r\nX-CID: second\r\ns: short form\r\nRoute:\r\n <sip:a;lr>"
    (packet,) = run([udp(sip().replace(b"User-Agent: test/1", more))], wanted)
    got = {name: value for name, value in packet.labels.items() if name in wanted}
    assert got == {
        "sip.header.x_cid": "one two",
        "sip.header.subject": "short form",
        "sip.header.route": "<sip:a;lr>",
    }


def test_offer_in_the_response_to_an_invite_without_one() -> None:
    """RFC 3261 13.2.1: the 200 then offers and the ACK answers; otherwise the 200 answers."""
    ack = sip("ACK", body=sdp(CALLER))
    answered = answer(200, "b1", body=sdp(CALLEE))
    assert roles(sip(), answered, ack) == [None, "offer", "answer"]
    assert roles(sip(body=sdp(CALLER)), answered) == ["offer", "answer"]
    assert roles(answered) == ["answer"]  # where the INVITE was not seen


def test_media_of_a_forked_call() -> None:
    """Each dialog's media is known until its own BYE is answered, the caller's until the last."""
    bye = sip("BYE", cseq=2)
    frames = [
        udp(sip(body=sdp(CALLER))),
        udp(answer(200, "b1", body=sdp(CALLEE))),
        udp(answer(200, "b2", body=sdp(OTHER))),
        rtp(("203.0.113.9", 9), OTHER),
        udp(bye),
        rtp(("203.0.113.9", 9), OTHER),  # the BYE is not answered yet
        udp(answer(200, "b2", "BYE")),
        rtp(("203.0.113.9", 9), OTHER),
        rtp(("203.0.113.9", 9), CALLEE),
        rtp(("203.0.113.9", 9), CALLER),
        udp(answer(200, "b1", "BYE")),
        rtp(("203.0.113.9", 9), CALLEE),
        rtp(("203.0.113.9", 9), CALLER),
    ]
    flows = FlowRegistry(100, 60000)
    kinds = [packet.payload_type for packet in run(frames, flows=flows)]
    assert kinds[3:] == ["rtp", "sip", "rtp", "sip", "raw", "rtp", "rtp", "sip", "raw", "raw"]
    assert len(flows) == 0


def test_endpoints_are_kept_where_somebody_looks_for_them() -> None:
    """SIP alone notes dialogs, by which it tells offers from answers, and no endpoint."""
    messages = [sip(), answer(200, "b1", body=sdp(CALLEE))]
    for stages, endpoints in (
        ((Stage(StageKind.PARSE_SIP),), 0),
        ((Stage(StageKind.PARSE_SIP), Stage(StageKind.PARSE_RTP)), 2),
    ):
        flows = FlowRegistry(100, 60000)
        config = PipelineConfig("task", "agent", "task-0", stages, flows=flows)
        pipeline = Pipeline(otus_core.open_memory(pcap([udp(m) for m in messages])), config)
        assert pipeline.poll(0).ended
        assert len(flows) == endpoints
        batch = pipeline.snapshot()
        assert json.loads(batch.json(1))["payload"]["offer_answer"] == "offer"
        pipeline.close()


def test_what_gives_way_in_a_full_registry_is_counted() -> None:
    """Room for one endpoint is one bucket of six: of ten calls four give way, and their
    endpoints, which are noted where somebody looks for them."""
    messages = [sip(call_id=f"call-{i}", body=sdp(("192.0.2.1", 4000 + 2 * i))) for i in range(10)]
    sip_stage, rtp_stage = Stage(StageKind.PARSE_SIP), Stage(StageKind.PARSE_RTP)
    for stages, flows_evicted in (((sip_stage,), 0), ((sip_stage, rtp_stage), 2 * (10 - 6))):
        flows = FlowRegistry(1, 60000)
        config = PipelineConfig("task", "agent", "task-0", stages, flows=flows)
        pipeline = Pipeline(otus_core.open_memory(pcap([udp(m) for m in messages])), config)
        assert pipeline.poll(0).ended
        anomalies = pipeline.counters()["anomaly"]
        assert anomalies["calls_evicted"] == 10 - 6
        assert anomalies["flows_evicted"] == flows_evicted  # RTP and RTCP of each
        pipeline.close()


def test_rtp_and_rtcp_are_told_by_their_octets() -> None:
    """Whatever the description made of the port: SR on the RTP port, RTP on the RTCP port."""
    far = ("203.0.113.9", 9)
    report = struct.pack("!BBHIQIII", 0x80, 200, 6, 0xCAFE, 0, 0, 0, 0)
    address, port = CALLER
    frames = [
        udp(sip(body=sdp(CALLER))),
        rtp(far, CALLER),
        udp(report, far, CALLER),
        udp(report, far, (address, port + 1)),
        rtp(far, (address, port + 1)),
    ]
    packets = run(frames)
    assert [packet.payload_type for packet in packets[1:]] == ["rtp", "rtcp", "rtcp", "rtp"]
    assert packets[2].labels["rtcp.packet_type"] == "200"


def test_media_of_a_refused_reinvite_goes_on() -> None:
    """A re-INVITE that is refused leaves the session as it was, RFC 3261 14.1."""
    reinvite = sip(body=sdp(CALLER), cseq=2).replace(
        b"example.org>\r\nCall", b"example.org>;tag=b1\r\nCall"
    )
    assert b"tag=b1" in reinvite
    frames = [
        udp(sip(body=sdp(CALLER))),
        udp(answer(200, "b1", body=sdp(CALLEE))),
        udp(reinvite),
        udp(answer(488, "b1")),
        rtp(("203.0.113.9", 9), CALLER),
    ]
    packets = run(frames)
    assert packets[-1].payload_type == "rtp"
    assert packets[-1].labels["rtp.call_id"] == "call-1"
