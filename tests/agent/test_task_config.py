"""Task configurations: what holds, what does not, and how plugins' sections are checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from otus_agent.config.task import TaskConfig, task_prefix
from otus_agent.registry import PluginRegistry
from otus_agent.resolve import TaskInvalid, resolve_task
from otus_sdk.errors import PluginNotFound
from otus_sdk.factory import PluginFactory, PluginKind

# The product owner's example, SPEC section 6.
EXAMPLE: dict[str, Any] = {
    "id": "sip-capture-01",
    "capture": {
        "type": "afpacket",
        "interface": "eth0",
        "bpf_filter": "udp port 5060",
        "fanout_size": 4,
        "snap_len": 65535,
    },
    "decoder": {"tunnels": ["vxlan"], "ip_reassembly": True},
    "parsers": ["sip"],
    "processors": [{"type": "filter", "config": {"drop_if": "sip.method == 'OPTIONS'"}}],
    "reporters": [
        {
            "type": "kafka",
            "config": {"topic": "otus-sip-data", "batch_size": 500, "flush_interval": "1s"},
        }
    ],
}


class CaptureConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")
    interface: str
    snap_len: int = 65535


@dataclass
class TopicConfig:
    topic: str
    size: int = 1

    def __post_init__(self) -> None:
        if self.topic == "bad":
            raise ValueError("topic may not be bad")


REGISTRY = PluginRegistry.of(
    PluginFactory(PluginKind.CAPTURER, "ring", object, CaptureConfig),  # type: ignore[arg-type]
    PluginFactory(PluginKind.PARSER, "sip", object),  # type: ignore[arg-type]
    PluginFactory(PluginKind.REPORTER, "out", object, TopicConfig),  # type: ignore[arg-type]
)


def task(**changes: Any) -> TaskConfig:
    base: dict[str, Any] = {
        "id": "t",
        "capture": {"type": "ring", "interface": "eth0"},
        "reporters": [{"type": "out", "config": {"topic": "x"}}],
    }
    return TaskConfig.model_validate({**base, **changes})


def test_the_example_of_the_specification_holds() -> None:
    """The documented task is accepted, and survives being written and read again."""
    config = TaskConfig.model_validate(EXAMPLE)
    assert config.parsers[0].type == "sip"
    assert config.capture.config["fanout_size"] == 4
    assert TaskConfig.model_validate(json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("decoder", "fragment_timeout"), ("streams", "gap_timeout"),
        ("streams", "idle_timeout"), ("flows", "ttl"),
    ],
)  # fmt: skip
def test_packet_time_is_what_the_core_can_count(section: str, key: str) -> None:
    """32 bits of milliseconds; what is more is told with its key, before anything starts."""
    assert task(**{section: {key: "49d"}})
    with pytest.raises(ValidationError, match="must be a duration of at most 49d"):
        task(**{section: {key: "50d"}})


def test_command_envelope_and_bare_task_are_told_apart() -> None:
    """The task of a task.create command is found; another command is refused."""
    assert task_prefix({"command": "task.create", "task": EXAMPLE}) == ("task",)
    assert task_prefix({"task": EXAMPLE}) == ("task",)
    assert task_prefix(EXAMPLE) == ()
    with pytest.raises(ValueError, match=r"must be .task\.create."):
        task_prefix({"command": "task.delete", "task": {"id": "x"}})


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "../etc"},
        {"id": ""},
        {"id": "x" * 129},
        {"parser": ["sip"]},
        {"reporters": []},
        {"unmatched": "keep"},
        {"decoder": {"tunnels": ["vxlam"]}},
        {"decoder": {"tunnels": [{"gre": {"ports": [1]}}]}},
        {"decoder": {"tunnels": [{"vxlan": {"ports": [0]}}]}},
        {"streams": {"tcp_ports": [70000]}},
        {"workers": {"affinity": [-1]}},
        {"reporters": [{"type": "out", "name": "a"}, {"type": "out", "name": "a"}]},
        {"capture": {"interface": "eth0"}},
    ],
)
def test_what_does_not_hold_is_refused(changes: dict[str, Any]) -> None:
    """Each of these is a mistake that the model itself can see."""
    with pytest.raises(ValidationError):
        task(**changes)


def test_tunnel_ports_by_name_and_by_section() -> None:
    """A tunnel may be a name, or a section with ports."""
    config = task(decoder={"tunnels": ["gre", {"vxlan": {"ports": [4789, 8472]}}]})
    assert config.decoder.tunnel_ports == {"gre": (), "vxlan": (4789, 8472)}


def test_reporters_of_one_type_get_different_names() -> None:
    """The ledger needs one name a reporter, also where a given name is in the way."""
    config = task(reporters=["out", "out", {"type": "other", "name": "out-2"}])
    assert config.reporter_names == ("out", "out-3", "out-2")


def test_a_good_task_resolves_to_validated_sections() -> None:
    """Pydantic models and plain dataclasses both come out as instances."""
    resolved = resolve_task(task(), REGISTRY)
    assert resolved.capturer.config == CaptureConfig(interface="eth0")
    assert resolved.reporters[0].config == TopicConfig("x")
    assert resolved.parsers[0].name == "sip"


def test_all_problems_are_listed_with_their_keys() -> None:
    """Unknown keys, missing keys and wrong types are named, near names offered."""
    broken = task(
        capture={"type": "ring", "interfce": "eth0"},
        parsers=["sipp"],
        reporters=[
            {"type": "out", "config": {"topic": "x", "sice": 2}},
            {"type": "out", "config": {"topic": "x", "size": "two"}},
            {"type": "out", "config": {"topic": "bad"}},
        ],
    )
    with pytest.raises(TaskInvalid) as caught:
        resolve_task(broken, REGISTRY)
    problems = {problem.path: problem.message for problem in caught.value.problems}
    assert problems["capture", "interfce"] == "unknown key, did you mean 'interface'?"
    assert "did you mean 'sip'" in problems["parsers", 0, "type"]
    assert problems["reporters", 0, "config", "sice"] == "unknown key, did you mean 'size'?"
    assert problems["reporters", 1, "config", "size"] == "must be a whole number, not 'two'"
    assert any("may not be bad" in message for message in problems.values())


def test_a_missing_plugin_alone_keeps_its_code() -> None:
    """Where the plugin is all that is wrong, the error is plugin_not_found."""
    with pytest.raises(PluginNotFound):
        resolve_task(task(parsers=["sipp"]), REGISTRY)


def test_reporters_inherit_before_they_are_validated() -> None:
    """What the global section gives counts as given."""
    config = task(reporters=["out"])
    resolved = resolve_task(config, REGISTRY, lambda kind, own: {"topic": kind, **own})
    assert resolved.reporters[0].config == TopicConfig("out")
