"""The global configuration: one model a section, as the documentation shows it."""

from __future__ import annotations

import re
import socket
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from otus_agent.config.fields import ConfigModel, Duration, PositiveDuration
from otus_agent.config.kafka import KafkaConfig
from otus_agent.config.metrics import MetricsConfig

LogLevel = Literal["debug", "info", "warn", "error"]

# sockaddr_un (unix(7)), its end included.
MAX_SOCKET_PATH_OCTETS = 107

_AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("must be an absolute path")
    return path


def _socket_path(path: str) -> str:
    if len(_absolute(path).encode()) > MAX_SOCKET_PATH_OCTETS:
        raise ValueError(f"must be at most {MAX_SOCKET_PATH_OCTETS} octets long")
    return path


AbsolutePath = Annotated[str, AfterValidator(_absolute)]


class DaemonConfig(ConfigModel):
    """Files of the daemon, and how it behaves at its edges."""

    pid_file: AbsolutePath = "/var/run/otus.pid"
    """Holds the daemon's process id, and a lock while it runs."""
    socket_path: Annotated[str, AfterValidator(_socket_path)] = "/var/run/otus.sock"
    """Unix socket that the command line talks to."""
    socket_group: str | None = None
    """Group that may use the socket (mode 0660); without one only the owner may (0600)."""
    data_dir: AbsolutePath = "/var/lib/otus"
    """Directory of what outlives a restart: tasks and their history."""
    shutdown_timeout: PositiveDuration = 10.0
    """How long tasks may take to flush when the daemon stops."""
    task_history: int = Field(default=100, ge=0, le=10_000)
    """Finished tasks that are remembered; older ones are forgotten."""
    max_tasks: int = Field(default=1_000, ge=1, le=100_000)
    """Tasks that may exist at one time."""
    task_restart_delay: Duration = 60.0
    """Longest pause before a failed task is tried again; 0 leaves it failed."""
    max_request_octets: int = Field(default=4_194_304, ge=1_024, le=268_435_456)
    """Longest request that the socket accepts, in octets."""
    request_timeout: PositiveDuration = 10.0
    """How long a client may take to send one request, or to read its answer."""
    max_clients: int = Field(default=1_024, ge=1, le=65_536)
    """Connections to the socket at one time; further ones are refused."""


def _http_url(url: str) -> str:
    if not re.match(r"https?://[^/\s]+", url):
        raise ValueError("must be an http:// or https:// URL")
    return url


class FileOutput(ConfigModel):
    """A log file that is rotated by size, age and number."""

    type: Literal["file"]
    """Makes this output a file."""
    path: AbsolutePath
    """File to write; its directory is made when it is missing."""
    format: Literal["json", "text"] | None = None
    """Form of a line; null takes ``log.format``."""
    max_size_mb: float = Field(default=100, gt=0)
    """The file is rotated before it grows beyond this many megabytes."""
    max_backups: int = Field(default=5, ge=0)
    """Rotated files that are kept."""
    max_age_days: float = Field(default=30, gt=0)
    """Rotated files older than this are deleted, and an older current file is rotated."""
    compress: bool = True
    """Whether rotated files are compressed with gzip."""


class LokiOutput(ConfigModel):
    """Pushes log lines to Grafana Loki in batches."""

    type: Literal["loki"]
    """Makes this output Grafana Loki."""
    endpoint: Annotated[str, AfterValidator(_http_url)]
    """Push URL, ending in ``/loki/api/v1/push``."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of every stream, beside ``app``, ``agent`` and ``level``."""
    batch_size: int = Field(default=100, ge=1, le=100_000)
    """Lines that make a batch."""
    flush_interval: PositiveDuration = 5.0
    """A batch is sent after this time even if it is not full."""
    queue_size: int = Field(default=10_000, ge=1, le=10_000_000)
    """Lines that wait at most; beyond it the oldest are dropped and counted."""
    timeout: PositiveDuration = 10.0
    """How long one push may take."""
    max_backoff: PositiveDuration = 60.0
    """Longest pause between attempts while Loki fails."""
    structured_metadata: bool = True
    """Whether fields travel as structured metadata, which Loki has from 3.0 on by default."""
    tenant: str | None = None
    """Value of ``X-Scope-OrgID``."""
    username: str | None = None
    """User of HTTP basic authentication."""
    password: SecretStr | None = None
    """Password of HTTP basic authentication."""
    ca_file: str | None = None
    """Certificates to trust instead of the system's."""


class StreamOutput(ConfigModel):
    """Writes log lines to the daemon's standard output or standard error."""

    type: Literal["stdout", "stderr"]
    """Makes this output a standard stream."""
    format: Literal["json", "text"] | None = None
    """Form of a line; null takes ``log.format``."""


LogOutput = Annotated[FileOutput | LokiOutput | StreamOutput, Field(discriminator="type")]


def _default_outputs() -> list[FileOutput | LokiOutput | StreamOutput]:
    return [StreamOutput(type="stdout")]


class LogConfig(ConfigModel):
    """What is logged, how, and where to."""

    level: LogLevel = "info"
    """Least severity that is logged; changeable at run time."""
    format: Literal["json", "text"] = "json"
    """Form of a line: one JSON object, or text for people."""
    outputs: list[LogOutput] = Field(default_factory=_default_outputs)
    """Where lines go; each output gets every line."""
    queue_size: int = Field(default=10_000, ge=1, le=10_000_000)
    """Lines that wait for an output at most; beyond it the oldest are dropped and counted."""


def _agent_id(text: str) -> str:
    if text and not _AGENT_ID.fullmatch(text):
        raise ValueError(
            "must be letters, digits, '.', '_' and '-', at most 128, beginning with a letter or digit"
        )
    return text


class IdentityConfig(ConfigModel):
    """Who this agent is in its fleet."""

    id: Annotated[str, AfterValidator(_agent_id)] = ""
    """Name of this agent; empty takes the host's name."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Tags by which commands select agents."""


class AgentConfig(ConfigModel):
    """The whole global configuration."""

    daemon: DaemonConfig = Field(default_factory=DaemonConfig)
    log: LogConfig = Field(default_factory=LogConfig)
    kafka: KafkaConfig | None = None
    metrics: MetricsConfig = Field(default_factory=MetricsConfig)
    agent: IdentityConfig = Field(default_factory=IdentityConfig)

    @property
    def agent_id(self) -> str:
        """The configured id, or one derived from the host's name."""
        return self.agent.id or derive_agent_id(socket.gethostname())


def derive_agent_id(hostname: str) -> str:
    """An agent id made from a host name; what an id may not hold becomes ``-``."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", hostname).strip("-._")
    return cleaned[:128] or "otus"
