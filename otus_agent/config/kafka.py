"""The global `kafka` section: where the brokers are and what the fleet may do here.

The command door, the event publisher, the fleet client and (by inheritance, see
`inherit`) every kafka reporter read their connection settings from `KafkaConfig`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from otus_agent.config.fields import ConfigModel, Duration

# Kafka's own rule for topic names (also what keeps "{agent_id}" typos out of them).
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_BROKER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


def _comma_list(value: object) -> object:
    """Reads "a,b" as two entries: environment variables hold text only."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


TextList = Annotated[list[str], BeforeValidator(_comma_list)]


class SaslConfig(ConfigModel):
    """How to log in at the brokers."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """How the password is proven."""
    username: str
    """User to log in as."""
    password: SecretStr
    """Its password."""


class TlsConfig(ConfigModel):
    """TLS towards the brokers; an empty section is TLS with the system's authorities."""

    ca_file: str | None = None
    """Authorities to trust instead of the system's."""
    cert_file: str | None = None
    """This agent's certificate, for brokers that ask for one."""
    key_file: str | None = None
    """Private key of that certificate."""
    key_password: SecretStr | None = None
    """Password of that key."""
    check_hostname: bool = True
    """Whether a broker's certificate must name the broker."""

    @model_validator(mode="after")
    def _certificate_needs_key(self) -> TlsConfig:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file without cert_file")
        return self


class TrustedKey(ConfigModel):
    """One key whose signature on a command this agent believes.

    Several may be trusted at once, which is how keys are rotated: add the new one
    everywhere, sign with it, then take the old one away (or let `not_after` do it).
    """

    id: str = Field(min_length=1, max_length=64)
    """Name of the key, as signatures give it."""
    algorithm: Literal["ed25519", "hmac-sha256"] = "ed25519"
    """How signatures are made."""
    public_key: str | None = None
    """ed25519: 32 octets as base64 or hex, or a PEM block."""
    public_key_file: str | None = None
    """File that holds the public key instead."""
    secret: SecretStr | None = None
    """hmac-sha256: at least 16 octets as base64, or hex with the prefix "hex:"."""
    secret_file: str | None = None
    """File that holds the secret instead."""
    not_before: datetime | None = None
    """Signatures are believed from this moment on."""
    not_after: datetime | None = None
    """Signatures are believed until this moment."""
    commands: TextList = Field(default=["*"])
    """Patterns of the commands this key may sign."""

    @model_validator(mode="after")
    def _one_source(self) -> TrustedKey:
        public = (self.public_key, self.public_key_file)
        secret = (self.secret, self.secret_file)
        wanted, other = (public, secret) if self.algorithm == "ed25519" else (secret, public)
        names = "public_key" if self.algorithm == "ed25519" else "secret"
        if sum(value is not None for value in wanted) != 1 or any(v is not None for v in other):
            raise ValueError(f"an {self.algorithm} key needs either {names} or {names}_file")
        for moment in (self.not_before, self.not_after):
            if moment is not None and moment.tzinfo is None:
                raise ValueError("not_before and not_after need a time zone, e.g. a final Z")
        return self


class SigningConfig(ConfigModel):
    """Which signatures on commands are believed, and whether one is needed."""

    keys: list[TrustedKey] = Field(default=[])
    """Keys that are trusted."""
    require_signature: bool | None = None
    """None: needed as soon as a key is configured."""

    @field_validator("keys")
    @classmethod
    def _unique_ids(cls, keys: list[TrustedKey]) -> list[TrustedKey]:
        ids = [key.id for key in keys]
        repeated = sorted({name for name in ids if ids.count(name) > 1})
        if repeated:
            raise ValueError(f"two keys of one id: {', '.join(repeated)}")
        return keys

    @model_validator(mode="after")
    def _required_needs_keys(self) -> SigningConfig:
        if self.require_signature and not self.keys:
            raise ValueError("require_signature without any key would refuse every command")
        return self

    @property
    def required(self) -> bool:
        """Whether a command without a signature is refused."""
        return bool(self.keys) if self.require_signature is None else self.require_signature


class RemotePolicy(ConfigModel):
    """What commands that come through Kafka may do here. Patterns are shell globs.

    Plugins are allowed by name, since only whoever installed one knows what its
    configuration can make it read or reach.

    Whatever is written here, a remote task never names a local file, never sets
    its own credentials or TLS settings, and never reports to the control topics.
    """

    commands: TextList = Field(default=["*"])
    """Commands that may come from Kafka."""
    interfaces: TextList = Field(default=["*"])
    """Interfaces that remote tasks may capture on."""
    capturers: TextList = Field(default=["afpacket"])
    """Capturers that remote tasks may use."""
    parsers: TextList = Field(default=["sip", "rtp"])
    """Parsers that remote tasks may use."""
    processors: TextList = Field(default=["filter", "label"])
    """Processors that remote tasks may use."""
    reporters: TextList = Field(default=["kafka"])
    """Reporters that remote tasks may use."""
    brokers: TextList = Field(default=[])
    """host:port beside `kafka.brokers`, which are always allowed."""
    topics: TextList = Field(default=["*"])
    """Topics that remote tasks may report to."""


class KafkaConfig(ConfigModel):
    """The global `kafka` section."""

    brokers: Annotated[TextList, Field(min_length=1)]
    """host:port of some brokers of the cluster."""
    client_id: str = "otus-{agent_id}"
    """How this agent calls itself at the brokers."""
    command_topic: str | None = "otus-commands"
    """Null: no commands are taken from Kafka."""
    command_group: str = "otus-{agent_id}"
    """One group an agent lets every agent see every command."""
    response_topic: str | None = "otus-responses"
    """Topic that answers to commands go to."""
    event_topic: str | None = "otus-events"
    """Null: no heartbeats or state changes are sent."""
    heartbeat_interval: Annotated[Duration, Field(ge=0.1)] = 10.0
    """Time between two heartbeats."""
    command_ttl: Annotated[Duration, Field(ge=1)] = 300.0
    """Commands older than this are refused, not run."""
    clock_skew: Duration = 30.0
    """How far in the future a command's timestamp may lie."""
    max_command_octets: int = Field(1 << 20, ge=1024)
    """Longest command that is looked at."""
    remembered_requests: int = Field(10_000, ge=16)
    """How many request ids are kept to recognise repeated commands."""
    sasl: SaslConfig | None = None
    """Login at the brokers; null for none."""
    tls: TlsConfig | None = None
    """TLS towards the brokers; null for none."""
    signing: SigningConfig = Field(default_factory=SigningConfig)
    """Which signatures are believed, and whether one is needed."""
    remote: RemotePolicy = Field(default_factory=RemotePolicy)
    """What commands from Kafka may do here."""

    @field_validator("brokers")
    @classmethod
    def _brokers(cls, brokers: list[str]) -> list[str]:
        return [check_broker(broker) for broker in brokers]

    @field_validator("command_topic", "response_topic", "event_topic")
    @classmethod
    def _topics(cls, topic: str | None) -> str | None:
        if topic is not None and (_TOPIC.fullmatch(topic) is None or topic in (".", "..")):
            raise ValueError(f"not a Kafka topic name: {topic!r}")
        return topic

    @model_validator(mode="after")
    def _commands_need_answers(self) -> KafkaConfig:
        if self.command_topic and not self.response_topic:
            raise ValueError("command_topic needs a response_topic for the answers")
        used = [t for t in (self.command_topic, self.response_topic, self.event_topic) if t]
        if len(set(used)) != len(used):
            raise ValueError("command_topic, response_topic and event_topic must differ")
        return self

    def control_topics(self) -> frozenset[str]:
        """The topics of fleet control, which no reporter may write to."""
        topics = (self.command_topic, self.response_topic, self.event_topic)
        return frozenset(topic for topic in topics if topic)

    def group_for(self, agent_id: str) -> str:
        """The consumer group of this agent."""
        return self.command_group.replace("{agent_id}", agent_id)

    def client_id_for(self, agent_id: str) -> str:
        """The client id of this agent."""
        return self.client_id.replace("{agent_id}", agent_id)


def check_broker(broker: str) -> str:
    """Returns `host:port` as it was given.

    Raises:
        ValueError: it is something else.
    """
    match = _BROKER.fullmatch(broker)
    if match is None or not 0 < int(match[2]) < 65536:
        raise ValueError(f"not host:port: {broker!r}")
    return broker


def octets(text: str) -> bytes:
    """Reads key material written as base64, or as hex with the prefix "hex:".

    Raises:
        ValueError: it is neither.
    """
    try:
        if text.startswith("hex:"):
            return bytes.fromhex(text[4:])
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ValueError("neither base64 nor hex: with a prefix") from error


def inherit(
    kafka: KafkaConfig | None, reporter: Mapping[str, Any], agent_id: str = ""
) -> dict[str, Any]:
    """Lays a kafka reporter's own config over what it inherits, key by key.

    Args:
        kafka: the global section, or None where there is none.
        reporter: the `config` object of the task's reporter, not yet validated.
        agent_id: fills `{agent_id}` in an inherited client id.

    Returns:
        A new dict. `brokers`, `client_id`, `sasl` and `tls` come from the global
        section where the reporter has none; inside `sasl` and `tls` each key is
        inherited by itself, and an explicit null switches the section off.
    """
    merged: dict[str, Any] = dict(reporter)
    if kafka is None:
        return merged
    merged.setdefault("brokers", list(kafka.brokers))
    merged.setdefault("client_id", kafka.client_id_for(agent_id))
    for name, section in (("sasl", kafka.sasl), ("tls", kafka.tls)):
        if section is None or merged.get(name, {}) is None:
            continue
        own = merged.get(name, {})
        if isinstance(own, Mapping):
            merged[name] = {**_revealed(section), **own}
    return merged


def _revealed(section: SaslConfig | TlsConfig) -> dict[str, Any]:
    values = section.model_dump(exclude_none=True)
    return {
        key: value.get_secret_value() if isinstance(value, SecretStr) else value
        for key, value in values.items()
    }
