"""The ``metrics`` section of the global configuration."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, model_validator

from otus_agent.config.fields import ConfigModel, ListenAddress, PositiveDuration


class MetricsTlsConfig(ConfigModel):
    """Serves the metrics endpoint over TLS."""

    cert_file: Path
    """Certificate chain in PEM."""
    key_file: Path
    """Its private key in PEM, not encrypted."""
    client_ca_file: Path | None = None
    """Where set, only clients with a certificate of this authority are served."""


class BasicAuthConfig(ConfigModel):
    """Asks for a name and a password (RFC 7617) before metrics are given."""

    username: str
    """The name."""
    password: SecretStr | None = None
    """The password; rather keep it in a file."""
    password_file: Path | None = None
    """File that holds the password; white space at its end is cut off."""

    @model_validator(mode="after")
    def _one_password(self) -> BasicAuthConfig:
        if (self.password is None) == (self.password_file is None):
            raise ValueError("give either password or password_file")
        return self

    def read_password(self) -> str:
        """The password, from wherever it is.

        Raises:
            OSError: the file can't be read.
        """
        if self.password_file is not None:
            return self.password_file.read_text(encoding="utf-8").rstrip()
        return self.password.get_secret_value() if self.password is not None else ""


class OtlpConfig(ConfigModel):
    """Pushes the same metrics by OTLP over HTTP as well."""

    endpoint: str = Field(pattern=r"^https?://")
    """Full URL, as http://collector:4318/v1/metrics."""
    interval: PositiveDuration = 30.0
    """Time between two pushes."""
    timeout: PositiveDuration = 10.0
    """How long one push may take."""
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    """HTTP headers to send along, such as a tenant or an authorization."""


class MetricsConfig(ConfigModel):
    """Where and how metrics are offered."""

    enabled: bool = True
    """Whether the agent offers metrics at all."""
    listen: ListenAddress = ":9090"
    """Address of the Prometheus endpoint; without a host every address."""
    path: str = Field(default="/metrics", pattern=r"^/")
    """Path of the Prometheus endpoint."""
    tls: MetricsTlsConfig | None = None
    """TLS for the endpoint; null serves plain HTTP."""
    basic_auth: BasicAuthConfig | None = None
    """Name and password for the metrics; health checks never need them."""
    otlp: OtlpConfig | None = None
    """OTLP push; null for none."""
