"""librdkafka's mock cluster: the fallback, and for faults no broker can be made to show."""

from __future__ import annotations

from confluent_kafka import Producer


class MockCluster:
    """Lives as long as the object does."""

    def __init__(self, brokers: int = 1) -> None:
        self._owner = Producer({"test.mock.num.brokers": brokers, "log_level": 0})
        found = self._owner.list_topics(timeout=10).brokers.values()
        self.brokers = [f"{broker.host}:{broker.port}" for broker in found]

    @property
    def bootstrap(self) -> str:
        return self.brokers[0]
