"""A stand-in for Loki that is strict about the protocol and misbehaves on demand."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class LokiServer:
    """Listens on a port of its own; what it was told is in ``entries``.

    ``behaviour`` holds what the next requests meet, in turn: a status, ``hang``
    (no answer until closed), ``slow`` (an answer after a while) or ``drop``
    (the connection ends). When it is empty, requests are checked and taken.
    """

    def __init__(self, port: int = 0) -> None:
        self.entries: list[tuple[dict[str, str], int, str, dict[str, str]]] = []
        self.batches: list[int] = []
        self.violations: list[str] = []
        self.requests: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.behaviour: deque[int | str] = deque()
        self.retry_after: str | None = None
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.serve(self)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/loki/api/v1/push"

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def lines(self) -> list[str]:
        return [line for _, _, line, _ in self.entries]

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(time.monotonic())
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        what = self.behaviour.popleft() if self.behaviour else 204
        if what == "hang":
            self.released.wait(30)
            return
        if what == "drop":
            handler.close_connection = True
            return
        if what == "slow":
            self.released.wait(0.3)
            what = 204
        if what == 204:
            what = self._take(handler, body)
        handler.send_response(int(what))
        if what == 429 and self.retry_after:
            handler.send_header("Retry-After", self.retry_after)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def _take(self, handler: BaseHTTPRequestHandler, body: bytes) -> int:
        """Checks a push as Loki does, and then some; 400 where it does not hold."""
        before = len(self.violations)
        self.headers.append(dict(handler.headers.items()))
        if handler.path != "/loki/api/v1/push":
            self.violations.append(f"path {handler.path}")
        if handler.headers["Content-Type"] != "application/json":
            self.violations.append(f"content type {handler.headers['Content-Type']}")
        try:
            streams = json.loads(body)["streams"]
            taken = [entry for stream in streams for entry in self._check_stream(stream)]
        except (ValueError, LookupError, TypeError) as error:
            self.violations.append(f"body: {error!r}")
            return 400
        if len({json.dumps(stream["stream"], sort_keys=True) for stream in streams}) != len(
            streams
        ):
            self.violations.append("one label set in two streams")
        if len(self.violations) > before:
            return 400
        self.entries += taken
        self.batches.append(len(taken))
        return 204

    def _check_stream(self, stream: Any) -> list[tuple[dict[str, str], int, str, dict[str, str]]]:
        labels = stream["stream"]
        for name, value in labels.items():
            if not LABEL_NAME.fullmatch(name) or not isinstance(value, str):
                self.violations.append(f"label {name}={value!r}")
        if not {"app", "agent", "level"} <= set(labels):
            self.violations.append(f"labels {sorted(labels)}")
        if not stream["values"]:
            self.violations.append("a stream without values")
        found = []
        for value in stream["values"]:
            time_ns, line, metadata = value[0], value[1], value[2] if len(value) > 2 else {}
            if not isinstance(time_ns, str) or not re.fullmatch(r"\d{19}", time_ns):
                self.violations.append(f"time {time_ns!r}")
            if not isinstance(line, str) or not line:
                self.violations.append(f"line {line!r}")
            if not all(isinstance(one, str) for one in (*metadata, *metadata.values())):
                self.violations.append(f"metadata {metadata!r}")
            found.append((labels, int(time_ns), line, metadata))
        return found


def basic_auth(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
