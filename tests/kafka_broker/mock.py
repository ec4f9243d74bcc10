"""librdkafka's mock cluster: the fallback, and for faults no broker can be made to show.

Driven through the functions that the confluent-kafka wheel's librdkafka exports.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import confluent_kafka

_PRODUCER = 0
_PRODUCE_API_KEY = 0


def _library() -> ctypes.CDLL:
    package = Path(confluent_kafka.__file__).parent
    for folder in (package.parent / "confluent_kafka.libs", package):
        for path in sorted(folder.glob("librdkafka*.so*")):
            return ctypes.CDLL(str(path))
    raise OSError("no librdkafka beside confluent_kafka")


class MockCluster:
    """Lives until `close`."""

    def __init__(self, brokers: int = 1) -> None:
        lib = self._lib = _library()
        for name, result, arguments in (
            (
                "rd_kafka_new",
                ctypes.c_void_p,
                [ctypes.c_int] + [ctypes.c_void_p] * 2 + [ctypes.c_size_t],
            ),
            ("rd_kafka_mock_cluster_new", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int]),
            ("rd_kafka_mock_cluster_bootstraps", ctypes.c_char_p, [ctypes.c_void_p]),
            ("rd_kafka_mock_cluster_destroy", None, [ctypes.c_void_p]),
            ("rd_kafka_destroy", None, [ctypes.c_void_p]),
            (
                "rd_kafka_mock_topic_create",
                ctypes.c_int,
                [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int],
            ),
            (
                "rd_kafka_mock_partition_set_leader",
                ctypes.c_int,
                [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32],
            ),
            (
                "rd_kafka_mock_push_request_errors_array",
                None,
                [ctypes.c_void_p, ctypes.c_int16, ctypes.c_size_t, ctypes.POINTER(ctypes.c_int)],
            ),
            ("rd_kafka_mock_broker_set_down", ctypes.c_int, [ctypes.c_void_p, ctypes.c_int32]),
            ("rd_kafka_mock_broker_set_up", ctypes.c_int, [ctypes.c_void_p, ctypes.c_int32]),
        ):
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
        error = ctypes.create_string_buffer(256)
        self._client = lib.rd_kafka_new(_PRODUCER, None, error, len(error))
        self._cluster = lib.rd_kafka_mock_cluster_new(self._client, brokers)

    @property
    def bootstrap(self) -> str:
        return self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    @property
    def brokers(self) -> list[str]:
        return self.bootstrap.split(",")

    def create_topic(self, name: str, partitions: int) -> None:
        assert (
            self._lib.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1) == 0
        )

    def move_leader(self, topic: str, partition: int, broker: int) -> None:
        """Broker ids count from 1."""
        moved = self._lib.rd_kafka_mock_partition_set_leader(
            self._cluster, topic.encode(), partition, broker
        )
        assert moved == 0

    def fail_produce(self, *error_codes: int) -> None:
        """The next produce requests are answered with these Kafka error codes."""
        codes = (ctypes.c_int * len(error_codes))(*error_codes)
        self._lib.rd_kafka_mock_push_request_errors_array(
            self._cluster, _PRODUCE_API_KEY, len(error_codes), codes
        )

    def close(self) -> None:
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._client)
