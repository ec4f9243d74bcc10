"""Fixtures of the tests that need something real beside them: a broker, interfaces."""

from kafka_broker.fixtures import _session_broker, broker, kafka, topic_name

__all__ = ["_session_broker", "broker", "kafka", "topic_name"]
