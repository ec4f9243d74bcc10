"""What a task may say about its kafka reporter."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import durationpy
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_BROKER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
# Octets that a record adds to its key, value and headers, and a batch to its records.
RECORD_OVERHEAD = 64
BATCH_OVERHEAD = 61
# The levels of those compressions that have any.
_LEVELS = {"gzip": (0, 9), "lz4": (0, 16), "zstd": (-7, 22)}


def _seconds(value: object) -> object:
    if isinstance(value, str):
        try:
            return durationpy.from_str(value).total_seconds()
        except durationpy.DurationError as error:
            raise ValueError(f"not a duration such as 500ms, 5s or 1m30s: {value!r}") from error
    return value


Seconds = Annotated[float, BeforeValidator(_seconds), Field(ge=0, le=86_400)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sasl(_Section):
    """How to log in at the brokers."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    username: str
    password: SecretStr


class Tls(_Section):
    """TLS towards the brokers; an empty section is TLS with the system's authorities."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    key_password: SecretStr | None = None
    check_hostname: bool = True

    @model_validator(mode="after")
    def _key_needs_certificate(self) -> Tls:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file without cert_file")
        return self


class KafkaReporterConfig(_Section):
    """The `config` of a reporter of type kafka; the agent fills in what it inherits."""

    brokers: list[str] = Field(min_length=1)
    client_id: str = "otus"
    sasl: Sasl | None = None
    tls: Tls | None = None

    topic: str | None = None
    topic_prefix: str | None = None
    value: Literal["json", "protobuf", "raw"] = "json"
    header_labels: list[str] = ["*"]
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = "zstd"
    compression_level: int | None = None

    acks: Literal["all", "1", "0"] = "all"
    idempotence: bool | None = None
    batch_size: int = Field(500, ge=1, le=1_000_000)
    linger: Seconds = 0.0
    flush_interval: Seconds = 0.2
    max_batch_octets: int = Field(1_000_000, ge=1_024, le=1 << 30)
    max_message_octets: int = Field(900_000, ge=256, le=1 << 30)
    oversize: Literal["truncate", "drop"] = "truncate"
    queue_octets: int = Field(15 << 20, ge=64 << 10, le=1 << 34)

    request_timeout: Annotated[Seconds, Field(ge=0.1)] = 10.0
    delivery_timeout: Annotated[Seconds, Field(ge=0.5)] = 120.0
    retry_backoff: Annotated[Seconds, Field(ge=0.01)] = 0.1
    retry_backoff_max: Annotated[Seconds, Field(ge=0.01)] = 5.0
    stop_timeout: Seconds = 5.0

    @field_validator("brokers")
    @classmethod
    def _brokers_are_addresses(cls, brokers: list[str]) -> list[str]:
        for broker in brokers:
            match = _BROKER.fullmatch(broker)
            if match is None or not 0 < int(match[2]) < 65_536:
                raise ValueError(f"not host:port: {broker!r}")
        return brokers

    @field_validator("topic", "topic_prefix")
    @classmethod
    def _topic_name(cls, topic: str | None) -> str | None:
        if topic is not None and (_TOPIC.fullmatch(topic) is None or topic in (".", "..")):
            raise ValueError(f"not a Kafka topic name: {topic!r}")
        return topic

    @field_validator("acks", mode="before")
    @classmethod
    def _acks_as_text(cls, acks: object) -> object:
        return {0: "0", 1: "1", -1: "all", "-1": "all"}.get(acks, acks)

    @model_validator(mode="after")
    def _consistent(self) -> KafkaReporterConfig:
        if (self.topic is None) == (self.topic_prefix is None):
            raise ValueError("exactly one of topic and topic_prefix is needed")
        if self.idempotence and self.acks != "all":
            raise ValueError("idempotence needs acks: all")
        if self.max_message_octets + RECORD_OVERHEAD + BATCH_OVERHEAD > self.max_batch_octets:
            raise ValueError("max_message_octets does not fit into max_batch_octets")
        if self.compression_level is not None:
            self._check_level(self.compression_level)
        return self

    def _check_level(self, level: int) -> None:
        if self.compression not in _LEVELS:
            raise ValueError(f"compression {self.compression} has no compression_level")
        least, most = _LEVELS[self.compression]
        if not least <= level <= most:
            raise ValueError(
                f"compression_level of {self.compression} must be {least} to {most}, not {level}"
            )

    @property
    def is_idempotent(self) -> bool:
        """On unless switched off, where the acknowledgements allow it."""
        return self.acks == "all" if self.idempotence is None else self.idempotence

    def topic_for(self, payload_type: str) -> str:
        """The topic of records of one payload type."""
        if self.topic is not None:
            return self.topic
        kind = re.sub(r"[^A-Za-z0-9._-]", "_", payload_type) or "raw"
        return f"{self.topic_prefix}-{kind}"[:249]
