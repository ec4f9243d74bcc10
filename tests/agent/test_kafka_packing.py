"""The kafka reporter before any broker has answered: what waits is packed."""

from __future__ import annotations

import pytest

import otus_core
from frames import pcap, sip, udp
from otus_plugins.reporter.kafka import KafkaReporter, KafkaReporterConfig
from otus_plugins.reporter.kafka.encode import Encoder
from otus_plugins.reporter.kafka.packing import pack, unpacked
from otus_plugins.reporter.kafka.reporter import TopicLane
from waiting import wait_until_async

RECORDS = 500


def core_batch() -> otus_core.Batch:
    frames = [udp(sip(call_id=f"call-{number}")) for number in range(RECORDS)]
    stages = (otus_core.Stage(otus_core.StageKind.PARSE_SIP),)
    config = otus_core.PipelineConfig("task", "agent", "task-0", stages)
    pipeline = otus_core.Pipeline(otus_core.open_memory(pcap(frames)), config)
    assert pipeline.poll(0).ended
    batch = pipeline.hand_over()
    pipeline.close()
    return batch


def test_a_batch_comes_out_as_it_went_in() -> None:
    """Records, labels and encoded forms, in less than a tenth of the memory meanwhile."""
    batch = core_batch()
    packed = pack(batch)
    assert packed.held_octets < batch.held_octets / 10
    [(again, indices), (same, _)] = unpacked([(packed, [3, 1]), (batch, None)])
    assert indices == [3, 1]
    assert same is batch
    assert len(again) == RECORDS
    for number in range(RECORDS):
        assert again.json(number) == batch.json(number)
        assert again.labels(number)["sip.call_id"] == f"call-{number}"
        assert again.key(number) == f"call-{number}".encode()


async def test_what_waits_for_a_first_answer_is_packed() -> None:
    """Of the same memory more than ten times as many records wait; each is accounted for."""
    batch = core_batch()
    bound = 2 * batch.held_octets
    reporter = KafkaReporter()
    reporter.init(
        KafkaReporterConfig(brokers=["127.0.0.1:1"], topic="t", queue_octets=bound, stop_timeout=0)
    )
    await reporter.start()
    for number in range(1, 21):
        await reporter.report_batch(batch)
        await wait_until_async(lambda: reporter.stats().held_octets < batch.held_octets)
        assert reporter.stats().queued == number * RECORDS
    for _ in range(100):  # faster than it packs, and more than there is room for
        await reporter.report_batch(batch)
        assert reporter.stats().held_octets <= bound
    assert reporter.stats().queued > 20 * RECORDS  # what is packed does not go for what is not
    await reporter.stop()
    stats = reporter.stats()
    assert (stats.queued, stats.held_octets, stats.reported) == (0, 0, 0)
    assert sum(stats.dropped.values()) == 120 * RECORDS
    assert stats.dropped["queue_full"] > 0


async def test_batches_that_can_not_be_encoded_are_counted_and_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However many there are, the log has one line for each kind of error."""

    async def one_partition(lane: TopicLane) -> int:
        return 1

    def fail(encoder: Encoder, parts: object, num_partitions: int) -> None:
        raise ValueError("told to fail")

    monkeypatch.setattr(TopicLane, "_partitions", one_partition)
    monkeypatch.setattr(Encoder, "encode", fail)
    reporter = KafkaReporter()
    reporter.init(KafkaReporterConfig(brokers=["127.0.0.1:1"], topic="t", stop_timeout=0))
    await reporter.start()
    for number in range(1, 4):
        await reporter.report_batch(core_batch())
        await wait_until_async(
            lambda: reporter.stats().dropped.get("encode", 0) == number * RECORDS  # noqa: B023
        )
    await reporter.stop()
    told = [record for record in caplog.records if "could not be encoded" in record.message]
    assert len(told) == 1
    assert told[0].exc_info is not None
