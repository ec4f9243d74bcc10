"""Pushes log lines to Grafana Loki.

Batches are sent when they are full or when the interval is over, from a thread
of its own. 429, 5xx and connection errors are tried again with growing pauses,
while newer lines wait in the bounded queue; any other 4xx says that Loki will
never take the batch, so it is dropped and counted.
Source: Loki HTTP API, ``POST /loki/api/v1/push``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from otus_agent.logs.entry import Entry
from otus_agent.logs.outputs import Output, Render

if TYPE_CHECKING:
    import httpx

FIRST_BACKOFF_S = 0.5
# Loki refuses longer values of structured metadata (64 KiB in all, by default).
MAX_METADATA_OCTETS = 4_096


class LokiOutput(Output):
    """Lines to Loki's push endpoint."""

    def __init__(
        self,
        endpoint: str,
        queue_size: int,
        render: Render,
        *,
        labels: Mapping[str, str],
        batch_size: int,
        flush_interval_s: float,
        timeout_s: float,
        max_backoff_s: float,
        structured_metadata: bool = True,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        ca_file: str | None = None,
    ) -> None:
        super().__init__(f"loki {endpoint}", queue_size)
        self._endpoint = endpoint
        self._render = render
        self._labels = dict(labels)
        self._batch_size = batch_size
        self._flush_interval_s = flush_interval_s
        self._timeout_s = timeout_s
        self._max_backoff_s = max_backoff_s
        self._structured_metadata = structured_metadata
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._auth = auth
        self._ca_file = ca_file
        self._client: httpx.Client | None = None
        self._give_up_at: float | None = None

    def put(self, entry: Entry) -> None:
        """Takes an entry, unless it tells of pushing: that would feed on itself."""
        if not entry.logger.startswith(("httpx", "httpcore", "hpack")):
            super().put(entry)

    def close(self, deadline: float) -> None:
        """Sends what waits until the deadline (monotonic), then gives up the rest."""
        self._give_up_at = deadline
        super().close(deadline)

    def _run(self) -> None:
        batch: list[Entry] = []
        flush_at = 0.0
        while True:
            wait = max(0.0, flush_at - time.monotonic()) if batch else None
            room = self._batch_size - len(batch)
            taken = self._take(wait, room, holding=bool(batch))
            if taken and not batch:
                flush_at = time.monotonic() + self._flush_interval_s
            batch += taken
            is_due = bool(batch) and (
                len(batch) >= self._batch_size or time.monotonic() >= flush_at or self._closing
            )
            if is_due:
                try:
                    self._push(batch)
                except Exception:  # noqa: BLE001 the log can't log its own trouble
                    self._count("dropped_error", len(batch))
                batch = []
            elif self._closing and not taken:
                return

    def _push(self, batch: list[Entry]) -> None:
        """Sends a batch until Loki has it, refuses it for good, or the time is up.

        Raises:
            Exception: it can't be told in JSON, or no request can be made of it.
        """
        backoff = FIRST_BACKOFF_S
        body = self._encode(batch)
        while True:
            outcome, pause = self._attempt(body)
            if outcome != "retry":
                self._count("written" if outcome == "ok" else "dropped_refused", len(batch))
                return
            self._count("retries", 1)
            # Jitter keeps a fleet from coming back all at once.
            pause = pause or random.uniform(backoff / 2, backoff)
            backoff = min(backoff * 2, self._max_backoff_s)
            if not self._pause(min(pause, self._max_backoff_s)):
                self._count("dropped_closing", len(batch))
                return

    def _attempt(self, body: bytes) -> tuple[str, float]:
        """Outcome of one push (ok, refused, retry) and the pause that Loki asked for."""
        import httpx

        timeout = self._timeout_s
        if self._give_up_at is not None:
            timeout = min(timeout, max(0.05, self._give_up_at - time.monotonic()))
        try:
            response = self._opened().post(
                self._endpoint, content=body, headers=self._headers, timeout=timeout
            )
        except (httpx.HTTPError, OSError):
            return "retry", 0.0
        except httpx.InvalidURL:
            return "refused", 0.0
        if response.is_success:
            return "ok", 0.0
        if response.status_code == 429 or response.status_code >= 500:
            return "retry", _retry_after(response.headers.get("Retry-After", ""))
        return "refused", 0.0

    def _opened(self) -> httpx.Client:
        if self._client is None:
            import ssl

            import httpx

            context = ssl.create_default_context(cafile=self._ca_file)
            self._client = httpx.Client(auth=self._auth, verify=context)
        return self._client

    def _pause(self, seconds: float) -> bool:
        """Waits before the next attempt; False when closing leaves no time for one."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            give_up_at = self._give_up_at
            if give_up_at is not None and end >= give_up_at:
                return False
            with self._changed:
                self._changed.wait(min(end - now, 0.2))
        return True

    def _encode(self, batch: list[Entry]) -> bytes:
        """The push request: one stream for each level, values in order."""
        streams: dict[str, list[Any]] = {}
        for entry in batch:
            line = self._render(entry).decode("utf-8", "replace")
            value: list[Any] = [str(entry.time_ns), line]
            metadata = _metadata(entry) if self._structured_metadata else {}
            if metadata:
                value.append(metadata)
            streams.setdefault(entry.level, []).append(value)
        return orjson.dumps(
            {
                "streams": [
                    {"stream": {**self._labels, "level": level}, "values": values}
                    for level, values in streams.items()
                ]
            }
        )

    def _release(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _metadata(entry: Entry) -> dict[str, str]:
    """Fields as structured metadata: names of many values are no labels in Loki."""
    metadata = {"logger": entry.logger}
    for key, value in entry.fields.items():
        if isinstance(value, (str, int, float)) and len(str(value)) <= MAX_METADATA_OCTETS:
            metadata[key] = str(value)
    return metadata


def _retry_after(text: str) -> float:
    # RFC 9110 section 10.2.3; the form with a date is left to the backoff.
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0
