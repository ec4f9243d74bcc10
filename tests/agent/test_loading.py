"""Files, environment and flags become a configuration, or problems with places."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from command_tree import variables
from otus_agent.config.agent import AgentConfig, FileOutput, LokiOutput, derive_agent_id
from otus_agent.config.fields import format_duration, parse_duration
from otus_agent.config.loading import ConfigurationProblems, key_paths, load, parse_source, validate
from otus_agent.config.masking import MASK, masked
from otus_agent.config.schema import json_schema

SPEC_EXAMPLE = """\
daemon: {pid_file: /var/run/otus.pid, socket_path: /var/run/otus.sock, data_dir: /var/lib/otus}
log:
  level: info
  format: json
  outputs:
    - {type: file, path: /var/log/otus/otus.log, max_size_mb: 100, max_backups: 5, max_age_days: 30, compress: true}
    - {type: loki, endpoint: "http://loki:3100/loki/api/v1/push", labels: {app: otus, env: production}, batch_size: 100, flush_interval: 5s}
    - {type: stdout}
kafka:
  brokers: [kafka-1:9092, kafka-2:9092, kafka-3:9092]
  command_topic: otus-commands
  command_group: "otus-{agent_id}"
  response_topic: otus-responses
  event_topic: otus-events
metrics: {enabled: true, listen: ":9090", path: /metrics}
agent: {id: "", tags: {region: cn-east-1, role: edge}}
"""


def problems(text: str = "", **loading: dict[str, str]) -> list[str]:
    source = parse_source(text, "otus.yml")
    with pytest.raises(ConfigurationProblems) as caught:  # noqa: PT012 - one of the two
        validate(AgentConfig, source)
        load(AgentConfig, None, **loading)
    return [str(problem) for problem in caught.value.problems]


def test_the_documented_example_is_read_as_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text(SPEC_EXAMPLE)
    config = load(AgentConfig, file)
    assert config.agent.tags == {"region": "cn-east-1", "role": "edge"}
    assert config.kafka is not None
    assert config.kafka.brokers[2] == "kafka-3:9092"
    output, loki, _ = config.log.outputs
    assert isinstance(output, FileOutput)
    assert output.max_backups == 5
    assert isinstance(loki, LokiOutput)
    assert loki.flush_interval == 5.0


def test_the_shipped_file_holds_the_defaults() -> None:
    shipped = Path(__file__).parents[2] / "configs" / "config.yml"
    assert load(AgentConfig, shipped) == AgentConfig()


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text("# nothing\n")
    assert load(AgentConfig, file) == AgentConfig()


def test_flags_win_over_environment_and_environment_over_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text("log: {level: error, format: text}\ndaemon: {max_tasks: 7}\n")
    environment = {"OTUS_LOG__LEVEL": "warn", "OTUS_LOG__FORMAT": "json"}
    config = load(AgentConfig, file, environment, {"log.level": "debug"})
    assert (config.log.level, config.log.format, config.daemon.max_tasks) == ("debug", "json", 7)


def test_environment_takes_lists_by_commas_and_json_and_reaches_into_lists_and_mappings() -> None:
    environment = {
        "OTUS_KAFKA__BROKERS": "a:1, b:2",
        "OTUS_AGENT__TAGS": "role=edge,region=x",
        "OTUS_AGENT__TAGS__REGION": "y",
        "OTUS_LOG__OUTPUTS__0__TYPE": "stderr",
        "OTUS_DAEMON__SOCKET_GROUP": "",
        "OTUS_METRICS__ENABLED": "false",
        "OTUS_AGENT__ID": "007",
        "OTUS_CORPUS": "not a key, and no error",
        "OTUS_TEST_KAFKA": "neither",
    }
    config = load(AgentConfig, None, environment)
    assert config.kafka is not None
    assert config.kafka.brokers == ["a:1", "b:2"]
    assert config.agent.tags == {"role": "edge", "region": "y"}
    assert config.log.outputs[0].type == "stderr"
    assert config.daemon.socket_group is None
    assert config.metrics.enabled is False
    assert config.agent.id == "007"
    as_json = load(AgentConfig, None, {"OTUS_KAFKA__BROKERS": '["c:3"]'})
    assert as_json.kafka is not None
    assert as_json.kafka.brokers == ["c:3"]


def test_no_variable_of_the_command_line_is_taken_for_a_key() -> None:
    """Each variable that gives an option its default can be set beside a configuration."""
    names = variables() | {"OTUS_PLUGIN_PATH"}
    assert names >= {"OTUS_CONFIG", "OTUS_SOCKET", "OTUS_FLEET_KEY"}
    load(AgentConfig, None, dict.fromkeys(names, "x"))


def test_every_key_has_an_environment_variable_that_reaches_it() -> None:
    for path in key_paths(AgentConfig):
        name = "OTUS_" + "__".join(path).upper()
        try:
            load(AgentConfig, None, {name: "!"})
        except ConfigurationProblems as error:
            assert "unknown key" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "daemon: {sockt_path: /y}",
            "otus.yml:1:10: daemon.sockt_path: unknown key, did you mean 'socket_path'?",
        ),
        ("metrcs: {}", "otus.yml:1:1: metrcs: unknown key, did you mean 'metrics'?"),
        (
            "log:\n  level: loud",
            "otus.yml:2:10: log.level: must be 'debug', 'info', 'warn' or 'error', not 'loud'",
        ),
        (
            "log: {outputs: [{type: loki, endpoint: 'http://x', labls: {}}]}",
            "otus.yml:1:52: log.outputs.0.labls: unknown key, did you mean 'labels'?",
        ),
        (
            "log: {outputs: [{type: loki}]}",
            "otus.yml:1:17: log.outputs.0.endpoint: missing, must be given",
        ),
        (
            "log: {outputs: [{type: loki, endpoint: 'http://x', password: [hunter2]}]}",
            f"otus.yml:1:62: log.outputs.0.password: must be text, not {MASK}",
        ),
        (
            "daemon: {shutdown_timeout: soon}",
            "otus.yml:1:28: daemon.shutdown_timeout: must be a duration such as 500ms, 5s or 1m30s, not 'soon'",
        ),
        (
            "log: {outputs: [{type: stdin}]}",
            "otus.yml:1:24: log.outputs.0.type: must be 'file', 'loki', 'stdout' or 'stderr', not 'stdin'",
        ),
        (
            "daemon: {pid_file: otus.pid}",
            "otus.yml:1:20: daemon.pid_file: must be an absolute path, not 'otus.pid'",
        ),
        (
            f"daemon: {{socket_path: /{'x' * 107}}}",
            (
                "otus.yml:1:23: daemon.socket_path: must be at most 107 octets long, "
                f"not '/{'x' * 55}..."
            ),
        ),
        ("log: {outputs: 1}", "otus.yml:1:16: log.outputs: must be a list, not 1"),
        (
            "metrics: {enabled: ja}",
            "otus.yml:1:20: metrics.enabled: must be true or false, not 'ja'",
        ),
        (
            "log: {outputs: [{type: loki, endpoint: 'ftp://me:hunter2@x'}]}",
            (
                "otus.yml:1:40: log.outputs.0.endpoint: must be an http:// or https:// URL, "
                f"not 'ftp://me:{MASK}@x'"
            ),
        ),
        ("metrics: 5", "otus.yml:1:10: metrics: must be a mapping of keys to values, not 5"),
    ],
)
def test_a_wrong_file_is_explained_by_line_key_and_what_is_allowed(
    text: str, expected: str
) -> None:
    assert problems(text) == [expected]


def test_unknown_environment_names_and_flags_name_the_nearest() -> None:
    assert problems(environment={"OTUS_LGO__LEVEL": "x"}, flags={"log.levl": "x"}) == [
        "OTUS_LGO__LEVEL: unknown key, did you mean 'OTUS_LOG__LEVEL'?",
        "--set log.levl: unknown key, did you mean '--set log.level'?",
    ]


def test_an_unknown_name_without_a_near_one_is_told_the_sections() -> None:
    """What all names begin with makes none like another."""
    assert problems(environment={"OTUS_SOKET": "x", "OTUS_X": "x"}, flags={"foo.bar": "x"}) == [
        "OTUS_SOKET: unknown key, did you mean 'OTUS_SOCKET'?",
        (
            "OTUS_X: unknown key, known are OTUS_DAEMON__..., OTUS_LOG__..., OTUS_KAFKA__..., "
            "OTUS_METRICS__..., OTUS_AGENT__..."
        ),
        (
            "--set foo.bar: unknown key, known are --set daemon, --set log, --set kafka, "
            "--set metrics, --set agent"
        ),
    ]


def test_wrong_values_name_the_variable_and_the_flag_that_gave_them() -> None:
    environment = {"OTUS_LOG__LEVEL": "loud", "OTUS_AGENT__TAGS": "{", "OTUS_LOG__OUTPUTS": "x"}
    assert "OTUS_AGENT__TAGS: agent.tags: must be valid JSON" in problems(environment=environment)
    assert problems(flags={"daemon.max_tasks": "many"})[0].startswith("--set daemon.max_tasks: ")


def test_all_problems_are_told_at_once() -> None:
    assert len(problems("a: 1\nlog: {level: x, format: y}\nagent: {id: '-'}\n")) == 4


def test_a_missing_file_is_one_line() -> None:
    with pytest.raises(ConfigurationProblems, match=r"^/nonexistent: can't be read: No such file"):
        load(AgentConfig, "/nonexistent")


def test_the_schema_describes_every_key() -> None:
    schema = json_schema("agent")
    assert schema["additionalProperties"] is False
    for name, section in schema["$defs"].items():
        assert section["additionalProperties"] is False, name
    daemon = schema["$defs"]["DaemonConfig"]["properties"]
    assert all("description" in member for member in daemon.values())


@given(st.integers(min_value=0, max_value=10**9), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_durations_round_trip(number: int, unit: str) -> None:
    seconds = parse_duration(f"{number}{unit}")
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-9)


@pytest.mark.parametrize("text", ["", "5", "5 s", "-5s", "s", True, None, -1, float("nan"), "5s!"])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_compound_durations_add_up() -> None:
    assert parse_duration("1m30s") == 90.0
    assert parse_duration("1h0.5s") == 3600.5


def test_secrets_are_masked_by_key_and_in_urls() -> None:
    shown = masked(
        {
            "sasl": {"username": "u", "password": "p", "password_file": "/f"},
            "tokens": ["a", "b"],
            "url": "https://user:pw@host/x",
            "api_key": "",
        }
    )
    assert shown == {
        "sasl": {"username": "u", "password": MASK, "password_file": "/f"},
        "tokens": [MASK, MASK],
        "url": f"https://user:{MASK}@host/x",
        "api_key": "",
    }


@given(st.text())
def test_a_derived_agent_id_is_a_valid_one(hostname: str) -> None:
    AgentConfig.model_validate({"agent": {"id": derive_agent_id(hostname)}})


def test_models_forbid_what_they_do_not_know() -> None:
    def check(model: type[BaseModel]) -> None:
        assert model.model_config.get("extra") == "forbid", model

    for model in (AgentConfig, FileOutput, LokiOutput):
        check(model)
