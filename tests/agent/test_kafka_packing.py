"""The kafka reporter before any broker has answered: what waits is packed."""

from __future__ import annotations

import otus_core
from frames import pcap, sip, udp
from otus_plugins.reporter.kafka import KafkaReporter, KafkaReporterConfig
from otus_plugins.reporter.kafka.packing import pack, unpacked
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
