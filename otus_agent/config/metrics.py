"""The ``metrics`` section of the global configuration."""

from __future__ import annotations

from otus_agent.config.fields import ConfigModel, ListenAddress


class MetricsConfig(ConfigModel):
    """Where and how metrics are offered."""

    enabled: bool = True
    """Whether the agent offers metrics at all."""
    listen: ListenAddress = ":9090"
    """Address of the Prometheus endpoint; without a host every address."""
    path: str = "/metrics"
    """Path of the Prometheus endpoint."""
