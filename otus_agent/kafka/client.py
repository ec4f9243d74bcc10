"""What every Kafka client of the agent shares: connection settings, pauses, clean ends."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from typing import Any, Protocol

from otus_agent.config.kafka import KafkaConfig, TlsConfig
from otus_agent.tls import naming

REQUEST_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 2.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0


class Stoppable(Protocol):
    """An aiokafka producer or consumer."""

    async def stop(self) -> None:
        """Ends it."""


def tls_context(tls: TlsConfig) -> ssl.SSLContext:
    """Reads the certificates.

    Raises:
        OSError: a file cannot be read or holds no certificate; it is named.
    """
    with naming(tls.ca_file):
        context = ssl.create_default_context(cafile=tls.ca_file)
    context.check_hostname = tls.check_hostname
    if tls.cert_file is not None:
        password = tls.key_password.get_secret_value() if tls.key_password else None
        with naming(tls.cert_file, tls.key_file):
            context.load_cert_chain(tls.cert_file, tls.key_file, password)
    return context


def connection_settings(kafka: KafkaConfig, client_id: str) -> dict[str, Any]:
    """Keyword arguments that aiokafka's producer and consumer both take.

    Raises:
        OSError: see `tls_context`.
    """
    settings: dict[str, Any] = {
        "bootstrap_servers": list(kafka.brokers),
        "client_id": client_id,
        "request_timeout_ms": int(REQUEST_TIMEOUT_S * 1000),
        "security_protocol": "PLAINTEXT",
    }
    if kafka.tls is not None:
        settings["ssl_context"] = tls_context(kafka.tls)
        settings["security_protocol"] = "SSL"
    if kafka.sasl is not None:
        settings["security_protocol"] = "SASL_SSL" if kafka.tls is not None else "SASL_PLAINTEXT"
        settings["sasl_mechanism"] = kafka.sasl.mechanism
        settings["sasl_plain_username"] = kafka.sasl.username
        settings["sasl_plain_password"] = kafka.sasl.password.get_secret_value()
    return settings


async def close(client: Stoppable) -> None:
    """Stops a client; gives up where no broker answers (aiokafka would wait for one)."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await client.stop()
            return
    # Cancelled halfway: what is left are sockets and background tasks.
    inner = getattr(client, "client", None) or getattr(client, "_client", None)
    if inner is not None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await inner.close()


class Backoff:
    """Growing pauses with jitter, so that a fleet does not come back in step."""

    def __init__(self) -> None:
        self._next_s = _FIRST_PAUSE_S

    def reset(self) -> None:
        """The next pause is the first again."""
        self._next_s = _FIRST_PAUSE_S

    def pause_s(self) -> float:
        """The length of the next pause."""
        now_s = self._next_s
        self._next_s = min(_LONGEST_PAUSE_S, now_s * 2)
        return now_s * random.uniform(0.5, 1.0)


async def wait_for_event(event: asyncio.Event, timeout_s: float) -> bool:
    """Waits for an event, at most so long. Returns whether it is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
    return event.is_set()
