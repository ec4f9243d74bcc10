"""Session-wide fixtures; `tests/integration/conftest.py` makes them known."""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from kafka_broker.broker import Broker, BrokerUnavailable


@dataclass(frozen=True)
class Address:
    """Any Kafka that a test may talk to."""

    bootstrap: str
    kind: str  # real, mock or given


_unavailable: list[str] = []


@pytest.fixture(scope="session")
def _session_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker | None]:
    try:
        broker = Broker(tmp_path_factory.mktemp("kafka"))
        broker.start()
    except BrokerUnavailable as error:
        _unavailable.append(str(error))
        yield None
        return
    yield broker
    broker.stop()


@pytest.fixture
def broker(_session_broker: Broker | None) -> Broker:
    """The real broker of this session, up; skips where there is none."""
    if _session_broker is None:
        pytest.skip(f"no real Kafka broker: {_unavailable[0]}")
    if _session_broker._process is None:
        _session_broker.start()
    return _session_broker


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[Address]:
    """A Kafka address: OTUS_TEST_KAFKA, the real broker, or visibly the mock cluster."""
    if given := os.environ.get("OTUS_TEST_KAFKA"):
        yield Address(given, "given")
        return
    real: Broker | None = request.getfixturevalue("_session_broker")
    if real is not None:
        yield Address(real.bootstrap, "real")
        return
    from kafka_broker.mock import MockCluster

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn(f"Kafka tests run on a mock cluster: {_unavailable[0]}", stacklevel=1)
    mock = MockCluster()
    yield Address(mock.bootstrap, "mock")


@pytest.fixture
def topic_name() -> Callable[[str], str]:
    """Makes a topic name that no other test uses."""
    return lambda stem: f"{stem}-{uuid.uuid4().hex[:8]}"
