"""Frames from a text file: one a line, as hex, spaces allowed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from otus_sdk import CaptureStats, PacketSink, PluginFactory, PluginKind, RawPacket


@dataclass(frozen=True, slots=True)
class HexdumpConfig:
    """The `capture` section beside `type: hexdump`."""

    path: str
    start_ns: int = 1_700_000_000_000_000_000
    gap_ns: int = 1_000_000

    def __post_init__(self) -> None:
        if self.gap_ns < 0:
            raise ValueError("gap_ns must not be negative")


class Hexdump:
    """Reads the file line by line and puts each frame into the pipeline."""

    name = "hexdump"
    can_wait = True  # a file is not live: rather than losing records, wait for reporters

    def init(self, config: HexdumpConfig) -> None:
        """Takes the configuration."""
        self._config = config
        self._received = 0
        self._stopped = False

    def start(self) -> None:
        """Nothing to open: `capture` does."""

    def stop(self) -> None:
        """Makes `capture` return; called from another thread."""
        self._stopped = True

    def capture(self, output: PacketSink) -> None:
        """Reads to the end of the file, or until `stop`."""
        for packet in self._packets():
            if self._stopped:
                return
            self._received += output.put([packet])

    def _packets(self) -> Iterator[RawPacket]:
        with Path(self._config.path).open() as file:
            for number, line in enumerate(file):
                if line.strip():
                    time = self._config.start_ns + number * self._config.gap_ns
                    yield RawPacket(bytes.fromhex(line), time)

    def stats(self) -> CaptureStats:
        """Frames so far."""
        return CaptureStats(received=self._received)


FACTORY = PluginFactory(
    kind=PluginKind.CAPTURER,
    name="hexdump",
    create=Hexdump,
    config_type=HexdumpConfig,
    description="Frames from a text file of hex lines",
)
