"""Fleet control over Kafka: commands in, answers and events out, and the client's side of it."""

from otus_agent.kafka.door import FleetDoor

__all__ = ["FleetDoor"]
