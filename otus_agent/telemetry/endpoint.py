"""The HTTP endpoint: metrics under one path, `/healthz` and `/readyz` beside it.

`prometheus_client.start_http_server` would answer on every path and knows no
basic authentication.
"""

from __future__ import annotations

import base64
import contextlib
import hmac
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from otus_agent.config.fields import split_address
from otus_agent.config.metrics import MetricsConfig
from otus_agent.tls import naming

log = logging.getLogger("otus.telemetry")

# A scraper that stalls costs one of these threads until its time is up.
MAX_CONNECTIONS = 16
REQUEST_TIMEOUT_S = 5.0
REQUEST_DEADLINE_S = 30.0

Check = Callable[[], str]
"""Returns "" where all is well, else what is not."""
Moment = Callable[[], contextlib.AbstractContextManager[None]]


class Endpoint:
    """Serves a registry over HTTP on threads of its own.

    Args:
        config: address, path, TLS, basic authentication.
        registry: what is served.
        moment: entered for each scrape, so that all of it is of one moment.
        healthy: whether the process does its work.
        ready: whether it is to get work.

    Raises:
        OSError: the address can't be listened on, or a file can't be read.
    """

    def __init__(
        self,
        config: MetricsConfig,
        registry: CollectorRegistry,
        moment: Moment,
        healthy: Check,
        ready: Check,
    ) -> None:
        host, port = split_address(config.listen)
        checks = {"/healthz": healthy, "/readyz": ready}
        served = _Served(registry, moment, config.path, checks, _credentials(config))
        handler = type("Handler", (_Handler,), {"served": served})
        context = _tls_context(config)
        self._server = _Server(host, port, handler, context)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is listened on, chosen by the kernel where 0 was asked for."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stops listening; requests under way end by their own timeout."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _credentials(config: MetricsConfig) -> bytes | None:
    if config.basic_auth is None:
        return None
    pair = f"{config.basic_auth.username}:{config.basic_auth.read_password()}"
    return base64.b64encode(pair.encode())


def _tls_context(config: MetricsConfig) -> ssl.SSLContext | None:
    if config.tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with naming(config.tls.cert_file, config.tls.key_file):
        context.load_cert_chain(config.tls.cert_file, config.tls.key_file)
    if config.tls.client_ca_file is not None:
        with naming(config.tls.client_ca_file):
            context.load_verify_locations(config.tls.client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(
        self, host: str, port: int, handler: type[_Handler], context: ssl.SSLContext | None
    ) -> None:
        if ":" in host or not host:
            # "" and v6 addresses: one socket for both families.
            self.address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        self._context = context
        self._lock = threading.Lock()
        # By the accepted socket's id: the socket, a TLS one as soon as it is, and its start.
        self._connections: dict[int, tuple[socket.socket, float]] = {}
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        if self.address_family is socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            is_full = len(self._connections) >= MAX_CONNECTIONS
            if is_full:
                self._end_overdue()
            else:
                self._connections[id(request)] = (request, time.monotonic())
        if is_full:
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._forget(request)
            raise

    def _end_overdue(self) -> None:
        """Who sends an octet now and then never times out: ends those for the next ones."""
        begun_before = time.monotonic() - REQUEST_DEADLINE_S
        for connection, since in self._connections.values():
            if since <= begun_before:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _forget(self, request: Any) -> None:
        with self._lock:
            self._connections.pop(id(request), None)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        accepted = request
        try:
            request.settimeout(REQUEST_TIMEOUT_S)
            if self._context is not None:
                # On the connection's own thread: a handshake that hangs stops nobody.
                request = self._context.wrap_socket(request, server_side=True)
                with self._lock:
                    since = self._connections[id(accepted)][1]
                    self._connections[id(accepted)] = (request, since)
            super().process_request_thread(request, client_address)
        except OSError:
            self.shutdown_request(request)
        finally:
            self._forget(accepted)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nothing to print a traceback for."""


@dataclass(frozen=True, slots=True)
class _Served:
    """What all requests share."""

    registry: CollectorRegistry
    moment: Moment
    metrics_path: str
    checks: Mapping[str, Check]
    credentials: bytes | None
    scraping: threading.Lock = field(default_factory=threading.Lock)


class _Handler(BaseHTTPRequestHandler):
    served: ClassVar[_Served]
    timeout = REQUEST_TIMEOUT_S
    server_version = "otus"
    sys_version = ""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == self.served.metrics_path:
            self._serve_metrics()
        elif path in self.served.checks:
            problem = self.served.checks[path]()
            status = HTTPStatus.SERVICE_UNAVAILABLE if problem else HTTPStatus.OK
            self._answer(status, (problem or "ok").encode() + b"\n")
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"try " + self.served.metrics_path.encode() + b"\n")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _serve_metrics(self) -> None:
        if not self._is_authorised():
            self._answer(
                HTTPStatus.UNAUTHORIZED,
                b"name and password needed\n",
                ("WWW-Authenticate", 'Basic realm="otus"'),
            )
            return
        encoder, content_type = choose_encoder(self.headers.get("Accept", ""))
        try:
            # One at a time: OpenTelemetry's exporter would give one scrape what another collected.
            with self.served.scraping, self.served.moment():
                body = encoder(self.served.registry)
        except Exception:
            log.exception("a scrape failed")
            self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"failed: the log has the reason\n")
            return
        self._answer(HTTPStatus.OK, body, ("Content-Type", content_type))

    def _is_authorised(self) -> bool:
        if self.served.credentials is None:
            return True
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        # In constant time: how much of a guess is right must not be measurable.
        return scheme.lower() == "basic" and hmac.compare_digest(
            given.strip().encode("utf-8", "replace"), self.served.credentials
        )

    def _answer(self, status: HTTPStatus, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        if not any(name == "Content-Type" for name, _ in headers):
            self.send_header("Content-Type", "text/plain; charset=utf-8")
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base class names it
        """Scrapes are not worth a log line."""
