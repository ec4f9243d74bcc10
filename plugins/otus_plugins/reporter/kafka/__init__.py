"""Reports records to Apache Kafka."""

from __future__ import annotations

from otus_plugins.reporter.kafka.config import KafkaReporterConfig
from otus_plugins.reporter.kafka.reporter import KafkaReporter
from otus_sdk.factory import PluginFactory, PluginKind, Stability

__all__ = ["FACTORY", "KafkaReporter", "KafkaReporterConfig"]

FACTORY = PluginFactory(
    kind=PluginKind.REPORTER,
    name="kafka",
    create=KafkaReporter,
    config_type=KafkaReporterConfig,
    description="Batched, compressed and keyed by call, to Apache Kafka",
    stability=Stability.STABLE,
)
