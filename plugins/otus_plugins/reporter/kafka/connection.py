"""Producers: made from the configuration, and got rid of even while no broker answers."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.conn import collect_hosts, create_conn

from otus_plugins.reporter.kafka.config import KafkaReporterConfig, Tls

_CONNECTION_OPTIONS = {
    "client_id",
    "request_timeout_ms",
    "security_protocol",
    "ssl_context",
    "sasl_mechanism",
    "sasl_plain_username",
    "sasl_plain_password",
}


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Reads the certificates.

    Raises:
        OSError: a file cannot be read or holds no certificate; it is named.
    """
    with _naming(tls.ca_file):
        context = ssl.create_default_context(cafile=tls.ca_file)
    context.check_hostname = tls.check_hostname
    if tls.cert_file is not None:
        password = tls.key_password.get_secret_value() if tls.key_password else None
        with _naming(tls.cert_file, tls.key_file):
            context.load_cert_chain(tls.cert_file, tls.key_file, password)
    return context


@contextlib.contextmanager
def _naming(*files: str | None) -> Iterator[None]:
    """Has an error name the files, which ssl does not."""
    try:
        yield
    except OSError as error:
        named = " or ".join(filter(None, files))
        raise OSError(f"{named}: {error.strerror or error}") from error


def connection_settings(config: KafkaReporterConfig) -> dict[str, Any]:
    """Keyword arguments for aiokafka: where the brokers are and who we are.

    Raises:
        OSError: see `tls_context`.
    """
    settings: dict[str, Any] = {
        "bootstrap_servers": config.brokers,
        "client_id": config.client_id,
        "request_timeout_ms": int(config.request_timeout * 1000),
        "retry_backoff_ms": int(config.retry_backoff * 1000),
    }
    secured = "SSL" if config.tls is not None else "PLAINTEXT"
    if config.tls is not None:
        settings["ssl_context"] = tls_context(config.tls)
    if config.sasl is not None:
        secured = "SASL_SSL" if config.tls is not None else "SASL_PLAINTEXT"
        settings["sasl_mechanism"] = config.sasl.mechanism
        settings["sasl_plain_username"] = config.sasl.username
        settings["sasl_plain_password"] = config.sasl.password.get_secret_value()
    settings["security_protocol"] = secured
    return settings


def make_producer(config: KafkaReporterConfig, settings: dict[str, Any]) -> AIOKafkaProducer:
    """A producer that is not started. Batches come to it finished and compressed."""
    acks: int | str = "all" if config.acks == "all" else int(config.acks)
    return AIOKafkaProducer(
        acks=acks,
        enable_idempotence=config.is_idempotent,
        max_batch_size=config.max_batch_octets,
        max_request_size=config.max_batch_octets,
        **settings,
    )


async def diagnose(settings: dict[str, Any]) -> str:
    """Why the first broker cannot be used; aiokafka itself only says that none can."""
    hosts = collect_hosts(settings["bootstrap_servers"])
    host, port, _ = hosts[0]
    options = {name: value for name, value in settings.items() if name in _CONNECTION_OPTIONS}
    try:
        connection = await create_conn(host, port, **options)
    except Exception as error:  # noqa: BLE001 any reason is worth telling
        return f"{host}:{port}: {str(error) or type(error).__name__}"
    connection.close()
    return ""


async def discard(producer: AIOKafkaProducer, patience_s: float) -> None:
    """Closes a producer, by force when it does not manage by itself in time.

    aiokafka's stop() waits for every batch, which without a broker is for ever:
    then the sender task is cancelled and the connections are closed under it.
    """
    with contextlib.suppress(Exception):
        async with asyncio.timeout(patience_s):
            await producer.stop()
            return
    sender = producer._sender.sender_task  # noqa: SLF001 pinned by test_kafka_private_surface
    if sender is not None:
        sender.cancel()
    with contextlib.suppress(Exception):
        async with asyncio.timeout(max(patience_s, 1.0)):
            await producer.client.close()
            if sender is not None:
                await asyncio.wait({sender})
    if sender is not None and sender.done() and not sender.cancelled():
        sender.exception()  # seen: nobody else will ask
