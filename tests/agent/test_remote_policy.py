"""What a command from Kafka may do: an attacker with a good signature against the rules."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otus_agent.config.kafka import KafkaConfig, inherit
from otus_agent.kafka.errors import CommandNotAllowed
from otus_agent.kafka.policy import RemotePolicy
from otus_agent.registry import PluginRegistry
from otus_agent.resolve import ResolvedTask, resolve_task
from otus_agent.supervisor import parse_task
from otus_sdk.errors import ConfigurationInvalid, OtusError

BROKER = "kafka-1:9092"
REGISTRY = PluginRegistry.load()
SECRETS = {
    "tls": {"ca_file": "/etc/otus/ca.pem"},
    "sasl": {"username": "otus", "password": "secret"},
}


def task(**changes: Any) -> dict[str, Any]:
    return {
        "id": "t",
        "capture": {"type": "afpacket", "interface": "eth0"},
        "parsers": ["sip"],
        "reporters": [{"type": "kafka", "config": {"topic": "otus-sip"}}],
        **changes,
    }


def kafka_reporter(**config: Any) -> dict[str, Any]:
    return task(reporters=[{"type": "kafka", "config": config}])


def kafka_config(**remote: Any) -> KafkaConfig:
    return KafkaConfig.model_validate({"brokers": [BROKER], "remote": remote, **SECRETS})


def check(raw: Any, **remote: Any) -> None:
    RemotePolicy(kafka_config(**remote)).check("task.create", {"task": raw})


def test_an_ordinary_task_passes() -> None:
    """The defaults let the fleet capture on interfaces and report to the agent's brokers."""
    check(task())
    check(task(reporters=["kafka"]))
    check(kafka_reporter(topic="x", brokers=[BROKER]))
    check(kafka_reporter(topic_prefix="sip-data"))
    check(task(processors=[{"type": "filter", "config": {"drop_if": "sip.method == 'OPTIONS'"}}]))
    check(task(parsers=[{"type": "sip", "config": {"headers": {"sip.path": "Path"}}}, "rtp"]))
    check(kafka_reporter(topic="x", brokers=["other:9092"]), brokers=["other:9092"])


@pytest.mark.parametrize(
    "raw",
    [
        task(capture={"type": "pcap", "path": "x.pcap"}),
        task(capture={"type": "pcap"}),
        task(capture={"type": "afpacket", "interface": "eth0", "dump_file": "x"}),
        task(capture={"type": "mine", "interface": "eth0"}),
        task(reporters=[{"type": "console"}]),
        task(reporters=["console"]),
        task(reporters=["kafka", "console"]),
        task(parsers=["mine"]),
        task(processors=["mine"]),
        task(processors=[{"type": "mine", "config": {"endpoint": "http://169.254.169.254/"}}]),
        task(parsers=[{"type": "sip", "config": {"dictionary": "/etc/passwd"}}]),
        task(parsers=[{"type": "sip", "config": {"deep": [{"x": "file:///etc/passwd"}]}}]),
        task(parsers=[{"type": "sip", "config": {"x": "names/../../../etc/passwd"}}]),
        task(parsers=[{"type": "sip", "config": {"x": " ./x"}}]),
        task(processors=[{"type": "label", "config": {"lookup_path": "x"}}]),
        task(processors=[{"type": "label", "config": {"x": "../secret"}}]),
        task(processors=[{"type": "label", "config": {"x": "~/secret"}}]),
        kafka_reporter(topic="x", brokers=["evil:9092"]),
        kafka_reporter(topic="x", brokers=[BROKER, "evil:9092"]),
        kafka_reporter(topic="x", brokers="evil:9092"),
        kafka_reporter(topic="x", brokers=f"{BROKER},evil:9092"),
        kafka_reporter(topic="x", brokers={BROKER: 1}),
        kafka_reporter(topic="x", brokers=[[BROKER]]),
        kafka_reporter(topic="x", brokers=None),
        kafka_reporter(topic="x", brokers=7),
        kafka_reporter(topic="x", tls={"check_hostname": False}),
        kafka_reporter(topic="x", tls={"key_file": "/etc/ssl/private/host.key"}),
        kafka_reporter(topic="x", tls=None),
        kafka_reporter(topic="x", sasl={"username": "u"}),
        kafka_reporter(topic="x", sasl=None),
        kafka_reporter(topic="x", client_id="otus-fleet"),
        kafka_reporter(topic=["otus-commands"]),
        kafka_reporter(topic="otus-commands"),
        kafka_reporter(topic="otus-responses"),
        kafka_reporter(topic_prefix="otus"),
        kafka_reporter(topic_prefix="otus-events"),
        "task",
        [task()],
        None,
    ],
)
def test_what_a_remote_task_may_never_do(raw: Any) -> None:
    """No files, no strange peers, plugins or security settings, no control topics."""
    with pytest.raises(CommandNotAllowed):
        check(raw)


@pytest.mark.parametrize(
    "raw",
    [
        task(capture=None),
        task(capture={}),
        task(reporters="kafka"),
        task(reporters=[7]),
        task(reporters=[{"type": "kafka", "config": []}]),
        task(reporters=[{"type": "kafka", "tls": {}}]),
        task(include="other"),
        {"task": task()},
        {},
    ],
)
def test_what_is_no_task_is_refused_as_such(raw: Any) -> None:
    """The rules judge the task that would run, so one that can't run never passes."""
    with pytest.raises(ConfigurationInvalid):
        check(raw)


def filtered(expression: Any) -> dict[str, Any]:
    return task(capture={"type": "afpacket", "interface": "eth0", "bpf_filter": expression})


@pytest.mark.parametrize(
    "expression",
    [
        "udp port 5060",
        "(udp or tcp) and portrange 5060-5090 and not host 192.0.2.1",
        "ip6 host 2001:db8::1 or net 2001:db8::/32 or ip6 src ::1",
        "ether host 02:00:5e:00:53:01 and ether[0] & 1 = 0 and not ether proto 0x88cc",
        "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 and icmp[icmptype] != icmp-echo",
        "udp[8:4] == 0x494e5649 or vlan 7 and len<=1500||udp dst port 5060&&!ip broadcast",
        "raw:1,6 0 0 65535",
        "",
        None,
    ],
)
def test_filters_of_numbers_pass(expression: str | None) -> None:
    """Whatever an operator writes with addresses, ports and offsets."""
    check(filtered(expression))


@pytest.mark.parametrize(
    "expression",
    [
        "host localhost", "host db.internal.example", "net loopback", "udp port sip",
        "ether host gateway1", "ip proto \\tcp", "host \\host", "src a", "host 192.0.2.1.x",
        "port 5060 or(host db)", "host x-y", "host a_b", "host FACE",
        "host tcp-gateway", "host icmp-x", "host raw",
    ],
)  # fmt: skip
def test_filters_that_look_names_up_are_refused(expression: str) -> None:
    """DNS, /etc/hosts, /etc/services and /etc/ethers would answer through libpcap's errors."""
    with pytest.raises(CommandNotAllowed, match="is a name"):
        check(filtered(expression))


def test_no_pattern_allows_the_file_capturer_or_a_named_file() -> None:
    """Also an operator who allows every plugin does not open local files to the fleet."""
    for raw in (
        task(capture={"type": "pcap", "files": ["a"]}),
        task(reporters=[{"type": "mine", "config": {"output_file": "x"}}]),
        task(reporters=[{"type": "mine", "config": {"socket": "x"}}]),
        task(reporters=[{"type": "mine", "config": {"to": "/var/run/docker.sock"}}]),
        task(reporters=[{"type": "mine", "config": {"brokers": ["evil:9092"]}}]),
    ):
        with pytest.raises(CommandNotAllowed):
            check(raw, capturers=["*"], reporters=["*"], processors=["*"], parsers=["*"])


def test_interfaces_topics_and_commands_are_restricted_by_pattern() -> None:
    """What the patterns do not name is refused, also when it is left out."""
    check(task(), interfaces=["eth*"])
    for capture in (
        {"interface": "wlan0"},
        {"interface": "any"},
        {},
        {"interfaces": ["eth0", "x"]},
        {"interface": 7},
    ):
        with pytest.raises(CommandNotAllowed):
            check(task(capture={"type": "afpacket", **capture}), interfaces=["eth*"])
    check(task(), topics=["otus-*"])
    with pytest.raises(CommandNotAllowed):
        check(kafka_reporter(topic="billing"), topics=["otus-*"])
    with pytest.raises(CommandNotAllowed):  # would write to data-sip
        check(kafka_reporter(topic_prefix="data"), topics=["data"])
    check(kafka_reporter(topic_prefix="data"), topics=["data-*"])
    config = KafkaConfig.model_validate({"brokers": ["a:1"], "remote": {"commands": ["*status"]}})
    RemotePolicy(config).check("task.status", {"id": "t"})
    with pytest.raises(CommandNotAllowed):
        RemotePolicy(config).check("shutdown", {})


def test_every_task_of_an_apply_is_looked_at() -> None:
    """Commands that carry several tasks get no way around the rules."""
    policy = RemotePolicy(kafka_config())
    policy.check("task.apply", {"tasks": [task()], "dry_run": True})
    bad = task(capture={"type": "pcap", "path": "x"})
    for tasks in ([task(), bad], {"a": task(), "b": bad}, "/task", [[bad]]):
        with pytest.raises(CommandNotAllowed):
            policy.check("task.apply", {"tasks": tasks})


def test_parameters_that_the_rules_do_not_know_are_refused() -> None:
    """A task can't come in under another name, nor a file."""
    policy = RemotePolicy(kafka_config())
    policy.check("task.delete", {"id": "t", "timeout": "5s"})
    for params in ({"change": task()}, {"files": ["x"]}, {"id": "../../etc/x"}, {"x": "/etc/x"}):
        with pytest.raises(CommandNotAllowed):
            policy.check("task.update", params)


# --- Whatever passes is harmless -------------------------------------------------

_HOSTILE = st.sampled_from(
    [
        "/etc/shadow", "../x", "evil:9092", BROKER, "pcap", "console", "kafka", "afpacket", "mine",
        "eth0", "any", "otus-commands", "otus", "t", "", 7, None, True, [], {},
        ["evil:9092"], [BROKER], {"ca_file": "/x"}, {"type": "kafka"}, {"type": "console"},
    ]
)  # fmt: skip
_KEYS = st.sampled_from(
    [
        "type", "config", "interface", "interfaces", "files", "path", "bpf_filter", "brokers",
        "topic", "topic_prefix", "tls", "sasl", "client_id", "name", "headers", "labels",
        "drop_if", "key_file", "task", "include",
    ]
)  # fmt: skip
_SETTINGS = st.recursive(
    _HOSTILE,
    lambda inner: st.dictionaries(_KEYS, inner, max_size=4) | st.lists(inner, max_size=3),
    max_leaves=8,
)
_CHANGES = st.dictionaries(
    st.sampled_from(["capture", "parsers", "processors", "reporters", "id", "unmatched", "x"]),
    _SETTINGS | st.lists(_SETTINGS, max_size=2),
    max_size=3,
)
_REPORTER = st.dictionaries(
    st.sampled_from(["brokers", "topic", "topic_prefix", "tls", "sasl", "client_id", "value"]),
    _SETTINGS,
    max_size=3,
)


def resolved(raw: dict[str, Any], kafka: KafkaConfig) -> ResolvedTask:
    return resolve_task(
        parse_task(raw),
        REGISTRY,
        lambda kind, section: inherit(kafka, section) if kind == "kafka" else section,
    )


@given(_CHANGES, _REPORTER)
def test_whatever_passes_reads_no_file_and_reaches_no_stranger(
    changes: dict[str, Any], reporter: dict[str, Any]
) -> None:
    """Of any task: it is refused with an OtusError, or what would run keeps to the rules."""
    kafka = kafka_config(interfaces=["eth*"])
    raw = {**kafka_reporter(**{"topic": "x", **reporter}), **changes}
    try:
        RemotePolicy(kafka).check("task.create", {"task": raw})
        made = resolved(raw, kafka)
    except OtusError:
        return
    assert made.capturer.factory.name == "afpacket"
    assert made.capturer.config.interface.startswith("eth")
    for one in made.reporters:
        assert one.factory.name == "kafka"
        assert one.config.brokers == [BROKER]
        assert one.config.tls.ca_file == SECRETS["tls"]["ca_file"]
        assert one.config.tls.check_hostname
        assert one.config.sasl.username == "otus"
        topic = one.config.topic or f"{one.config.topic_prefix}-"
        assert not any(control.startswith(topic) for control in kafka.control_topics())
