"""Parts of the kafka reporter that need no broker: account, encoding, cutting, configuration."""

from __future__ import annotations

import inspect
import json
import re
import struct
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator, MessageBatch
from aiokafka.producer.producer import AIOKafkaProducer
from aiokafka.producer.sender import Sender
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as st

from integration.records import BASE_TS_NS, batch
from otus_agent.config.kafka import KafkaConfig, inherit
from otus_agent.kafka.client import tls_context as agent_tls_context
from otus_plugins.reporter import kafka
from otus_plugins.reporter.kafka import KafkaReporterConfig
from otus_plugins.reporter.kafka.config import Tls
from otus_plugins.reporter.kafka.connection import tls_context as reporter_tls_context
from otus_plugins.reporter.kafka.encode import Encoder
from otus_plugins.reporter.kafka.outbox import Held, Outbox, Place, Waiting
from otus_plugins.reporter.kafka.oversize import cut_json, cut_protobuf, cut_raw
from otus_plugins.reporter.kafka.records import FinishedBatch, Section, compressor

FOLDER = Path(kafka.__file__).parent
DECODERS = {
    "none": lambda data: data,
    "gzip": gzip_decode,
    "snappy": snappy_decode,
    "lz4": lz4_decode,
    "zstd": zstd_decode,
}


def config(**settings: Any) -> KafkaReporterConfig:
    return KafkaReporterConfig.model_validate({"brokers": ["a:1"], "topic": "t", **settings})


# --- The account -----------------------------------------------------------------


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["admit", "take", "give_back", "report", "drop", "fail"]),
            st.integers(0, 7),
            st.integers(1, 400),
        ),
        max_size=60,
    )
)
def test_the_account_balances_whatever_happens(steps: list[tuple[str, int, int]]) -> None:
    """taken = reported + dropped + failed + queued, and the bound holds, after every step."""
    outbox = Outbox(1000)
    items: list[Held] = []
    taken = 0
    for action, which, octets in steps:
        open_items = [item for item in items if item.place is not Place.SETTLED]
        item = open_items[which % len(open_items)] if open_items else None
        if action == "admit":
            item = Waiting("t", which + 1, octets, 0.0, batch=batch(0, 1))
            items.append(item)
            taken += item.num_records
            outbox.admit(item)
        elif item is None:
            continue
        elif action == "take" and item.place is Place.QUEUED:
            outbox.take(item)
        elif action == "give_back" and item.place is Place.BUSY:
            outbox.give_back(item)
        elif action == "report":
            outbox.settle_reported(item)
        elif action == "drop":
            outbox.settle_dropped(item, "deadline")
        elif action == "fail":
            outbox.settle_failed(item, "timeout")
        stats = outbox.stats()
        settled = stats.reported + sum(stats.dropped.values()) + sum(stats.failed.values())
        assert settled + stats.queued == taken
        held = [one for one in items if one.place is not Place.SETTLED]
        assert stats.queued == sum(one.num_records for one in held)
        assert outbox.octets == sum(one.octets for one in held)
        queued = [one for one in held if one.place is Place.QUEUED]
        assert outbox.octets <= 1000 or not queued


def test_settling_twice_is_a_fault_and_not_a_wrong_account() -> None:
    """Records are counted once or not at all."""
    outbox = Outbox(1000)
    item = Waiting("t", 1, 1, 0.0, batch=batch(0, 1))
    outbox.admit(item)
    outbox.settle_reported(item)
    with pytest.raises(RuntimeError):
        outbox.settle_dropped(item, "x")


# --- Encoding --------------------------------------------------------------------


@pytest.mark.parametrize("compression", list(DECODERS))
def test_a_finished_batch_is_what_aiokafka_would_have_made(compression: str) -> None:
    """Header, CRC and records equal those of aiokafka's own builder, before compression."""
    records = batch(0, 50)
    encoder = Encoder(config(compression=compression, header_labels=[]))
    finished, lost = encoder.encode([(records, None)], 1)
    assert not lost
    [builder] = finished
    theirs = BatchBuilder(1_000_000, 0)
    for index in range(50):
        headers = [
            ("task_id", b"task-1"),
            ("agent_id", b"agent-1"),
            ("pipeline_id", b"task-1/0"),
            ("payload_type", b"sip"),
        ]
        appended = theirs.append(
            timestamp=BASE_TS_NS // 10**6 + index,
            key=records.key(index),
            value=records.json(index),
            headers=headers,
        )
        assert appended is not None
    for each in (builder, theirs):
        each._set_producer_state(77, 3, 1000)
    ours, wanted = builder._build(), bytes(theirs._build())
    assert bytes(DECODERS[compression](ours[61:])) == wanted[61:]
    if compression == "none":
        assert ours == wanted
    parsed = DefaultRecordBatch(ours)
    assert parsed.validate_crc()
    assert (parsed.producer_id, parsed.producer_epoch, parsed.base_sequence) == (77, 3, 1000)
    assert builder.record_count() == 50
    assert builder.size() == len(ours)


def test_a_batch_is_sent_again_with_another_producer() -> None:
    """New producer id and sequence, new CRC, same records."""
    builder = FinishedBatch(Section(0, 1, 5, 5, b"records"), b"records", "none")
    builder._set_producer_state(1, 0, 0)
    first = builder._build()
    builder._set_producer_state(2, 0, 9)
    second = builder._build()
    assert first != second
    assert first[61:] == second[61:] == b"records"
    assert DefaultRecordBatch(second).validate_crc()


def test_kafka_private_surface() -> None:
    """What the reporter uses of aiokafka's inside is still there, with these names."""
    for name in ("append", "close", "closed", "record_count", "size", "_build"):
        assert callable(getattr(BatchBuilder, name))
        assert callable(getattr(FinishedBatch, name))
    source = inspect.getsource(MessageBatch)
    used = {
        name
        for name in dir(BatchBuilder)
        if not name.startswith("__") and f"_builder.{name}(" in source
    }
    assert used <= set(dir(FinishedBatch)), "aiokafka asks its builders for something new"
    assert list(inspect.signature(FinishedBatch._set_producer_state).parameters)[1:] == [
        "producer_id",
        "epoch",
        "base_sequence",
    ]
    assert "isinstance" not in inspect.getsource(MessageAccumulator.add_batch)
    assert "isinstance" not in inspect.getsource(AIOKafkaProducer.send_batch)
    assert isinstance(Sender.sender_task, property)


def test_large_batches_are_split() -> None:
    """No Kafka batch is larger than max_batch_octets, and no record is lost over it."""
    encoder = Encoder(config(compression="none", max_batch_octets=4096, max_message_octets=2048))
    finished, lost = encoder.encode([(batch(0, 200), None)], 2)
    assert not lost
    assert all(builder.size() <= 4096 for builder in finished)
    assert sum(builder.record_count() for builder in finished) == 200


def test_a_record_that_can_not_be_encoded_is_counted_alone() -> None:
    """A fault of one record stays with it."""
    broken = batch(0, 3)
    original = broken.labels

    def labels(index: int) -> dict[str, str]:
        if index == 1:
            raise KeyError("x")
        return original(index)

    broken.labels = labels  # type: ignore[method-assign]
    finished, lost = Encoder(config()).encode([(broken, None)], 1)
    assert lost == Counter({"encode:KeyError": 1})
    assert sum(builder.record_count() for builder in finished) == 2


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["*"], {"sip.method", "sip.call_id", "sip.cseq"}),
        ([], set()),
        (["sip.c*"], {"sip.call_id", "sip.cseq"}),
    ],
)
def test_labels_that_become_headers(patterns: list[str], names: set[str]) -> None:
    """As header_labels says."""
    [builder], _ = Encoder(config(header_labels=patterns)).encode([(batch(0, 1), None)], 1)
    assert builder.record_count() == 1
    body = zstd_decode(builder._build()[61:])
    for name in ("sip.method", "sip.call_id", "sip.cseq"):
        assert (name.encode() in body.replace(b'"' + name.encode() + b'"', b"")) is (name in names)


# --- Cutting ---------------------------------------------------------------------

json_members = st.dictionaries(
    st.text(max_size=8), st.text(max_size=200) | st.integers() | st.lists(st.text(max_size=30))
)


@given(json_members, st.integers(60, 400))
def test_cut_json_fits_and_is_json(record: dict[str, Any], limit: int) -> None:
    """Within the limit, still an object, with what went named; what is left is unchanged."""
    value = json.dumps(record).encode()
    cut = cut_json(value, limit)
    if cut is None:
        return
    assert len(cut) <= limit
    kept = json.loads(cut)
    told = kept.pop("oversize")
    assert told["octets"] == len(value)
    for name, member in kept.items():
        assert record[name] == member
    assert set(kept) | set(told["removed"]) >= set(record) - {"oversize"}


def field(number: int, octets: bytes) -> bytes:
    assert len(octets) < 128
    return bytes([number << 3 | 2, len(octets)]) + octets


@given(st.lists(st.binary(max_size=100), max_size=15), st.integers(0, 500))
def test_cut_protobuf_keeps_whole_fields(octets: list[bytes], limit: int) -> None:
    """Fields stay whole and in order; the largest go first."""
    fields = [field(number + 1, one) for number, one in enumerate(octets)]
    cut = cut_protobuf(b"".join(fields), limit)
    assert cut is not None
    assert len(cut) <= limit or cut == b"".join(fields) == b""
    rest = iter(fields)
    at = 0
    while at < len(cut):
        one = next(one for one in rest if cut.startswith(one, at))
        at += len(one)


@given(st.binary(max_size=60))
def test_cut_protobuf_survives_any_octets(value: bytes) -> None:
    """What is no message is None or a part of it, never an exception."""
    cut = cut_protobuf(value, 10)
    assert cut is None or len(cut) <= 10


def test_cut_raw_keeps_the_beginning() -> None:
    """Of a payload as much as there is room for; without room there is no record."""
    assert cut_raw(b"INVITE sip:b", 6) == b"INVITE"
    assert cut_raw(b"INVITE sip:b", 0) is None


def test_cut_protobuf_refuses_what_is_no_message() -> None:
    """A length beyond the end, a group, a tag that does not end."""
    for value in (b"\x0a\x7f", b"\x0b", b"\xff" * 11, struct.pack("<B", 9) + b"\0"):
        assert cut_protobuf(value, 0) is None


# --- Configuration ---------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"topic": None},
        {"topic": "a b"},
        {"topic": ".."},
        {"topic_prefix": "x"},
        {"brokers": []},
        {"brokers": ["host"]},
        {"brokers": ["host:70000"]},
        {"compression": "brotli"},
        {"compression": "gzip", "compression_level": 10},
        {"compression": "gzip", "compression_level": -1},
        {"compression": "lz4", "compression_level": -1},
        {"compression": "lz4", "compression_level": 17},
        {"compression_level": 23},
        {"compression": "snappy", "compression_level": 1},
        {"compression": "none", "compression_level": 1},
        {"queue_octets": 1 << 35},
        {"acks": "1", "idempotence": True},
        {"acks": 2},
        {"max_message_octets": 900_000, "max_batch_octets": 900_000},
        {"flush_interval": "soon"},
        {"flush_interval": -1},
        {"tls": {"key_file": "k"}},
        {"sasl": {"username": "u"}},
        {"surprise": 1},
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    """When the task is created, not when the first packet comes."""
    with pytest.raises(ValueError):
        config(**settings)


@pytest.mark.parametrize(
    ("compression", "levels"), [("gzip", (0, 9)), ("lz4", (0, 16)), ("zstd", (-7, 22))]
)
def test_every_level_that_is_taken_compresses(compression: str, levels: tuple[int, int]) -> None:
    data = b"INVITE sip:a@example.com SIP/2.0\r\n" * 100
    for level in range(levels[0], levels[1] + 1):
        config(compression=compression, compression_level=level)
        assert DECODERS[compression](compressor(compression, level)(data)) == data


@pytest.mark.parametrize("tls_context", [reporter_tls_context, agent_tls_context])
def test_a_certificate_that_can_not_be_read_is_named(tls_context: Any, tmp_path: Path) -> None:
    """Python's ssl says "No such file or directory" and "PEM lib", and not of what."""
    empty, nowhere = tmp_path / "empty.pem", tmp_path / "nowhere.pem"
    empty.touch()
    for sections in ({"ca_file": nowhere}, {"ca_file": empty}, {"cert_file": empty}):
        tls = {name: str(path) for name, path in sections.items()}
        with pytest.raises(OSError, match=re.escape(*tls.values())):
            tls_context(Tls.model_validate(tls))


def test_topics() -> None:
    """One topic for all, or the prefix, a hyphen and a payload type that fits."""
    assert config().topic_for("sip") == "t"
    prefixed = config(topic=None, topic_prefix="otus")
    assert prefixed.topic_for("rtp") == "otus-rtp"
    assert prefixed.topic_for("my type/1") == "otus-my_type_1"
    assert len(prefixed.topic_for("x" * 400)) == 249


def test_idempotence_follows_the_acknowledgements() -> None:
    """On with all, off with less, unless switched off."""
    assert config().is_idempotent
    assert not config(acks=1).is_idempotent
    assert not config(idempotence=False).is_idempotent


def test_the_global_section_is_inherited_key_by_key() -> None:
    """Own keys go before; inside sasl and tls too; null switches a section off."""
    section = KafkaConfig.model_validate(
        {
            "brokers": "k1:9092,k2:9092",
            "sasl": {"username": "u", "password": "p"},
            "tls": {"ca_file": "/ca"},
        }
    )
    inherited = KafkaReporterConfig.model_validate(inherit(section, {"topic": "t"}, "agent-1"))
    assert inherited.brokers == ["k1:9092", "k2:9092"]
    assert inherited.client_id == "otus-agent-1"
    assert inherited.sasl is not None
    assert inherited.sasl.password.get_secret_value() == "p"
    assert inherited.tls is not None
    assert inherited.tls.ca_file == "/ca"
    own = inherit(
        section,
        {"topic": "t", "brokers": ["x:1"], "sasl": {"password": "q"}, "tls": None},
    )
    changed = KafkaReporterConfig.model_validate(own)
    assert changed.brokers == ["x:1"]
    assert changed.sasl is not None
    assert changed.sasl.username == "u"
    assert changed.sasl.password.get_secret_value() == "q"
    assert changed.tls is None
    assert inherit(None, {"topic": "t"}) == {"topic": "t"}


def test_secrets_are_not_printed() -> None:
    """Neither repr nor JSON of a configuration shows a password."""
    shown = config(sasl={"username": "u", "password": "hidden-word"})
    assert "hidden-word" not in repr(shown) + shown.model_dump_json()


def test_the_readme_knows_every_key_and_the_sample_holds() -> None:
    """Each key of the configuration has its row; the sample is valid."""
    readme = (FOLDER / "README.md").read_text()
    for name in KafkaReporterConfig.model_fields:
        assert f"| `{name}` |" in readme, f"{name} is not in README.md"
    for heading in ("What it does", "Configuration", "Counters", "Example"):
        assert f"## {heading}\n" in readme
    sample = yaml.safe_load((FOLDER / "sample.yaml").read_text())
    assert sample["type"] == "kafka"
    config(**sample["config"])


def test_the_fleet_pages_know_every_key(root: Path) -> None:
    """Each key of the global section, of a trusted key and of the policy is in docs/fleet.md."""
    from otus_agent.config.kafka import RemotePolicy, TrustedKey

    page = (root / "docs" / "fleet.md").read_text()
    for model in (KafkaConfig, TrustedKey, RemotePolicy):
        for name in model.model_fields:
            assert f"`{name}`" in page, f"{model.__name__}.{name} is not in docs/fleet.md"
    protocol = (root / "docs" / "reference" / "fleet-protocol.md").read_text()
    from otus_agent.kafka import errors

    for name in errors.__all__:
        error = getattr(errors, name)
        assert f"| `{error.code}` | {error.rpc_code} |" in protocol


def test_the_plugin_imports_the_sdk_alone() -> None:
    """Built-in plugins use what third parties can use."""
    for path in FOLDER.glob("*.py"):
        text = path.read_text()
        assert "otus_agent" not in text
        assert "otus_core" not in text
    project = tomllib.loads((FOLDER.parents[3] / "pyproject.toml").read_text())
    assert any(one.startswith("aiokafka") for one in project["project"]["dependencies"])
