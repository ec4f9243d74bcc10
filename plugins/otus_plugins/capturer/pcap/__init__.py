"""Reads capture files; run by the core."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from otus_plugins.capturer.pcap.reader import read_file
from otus_sdk.factory import NativeStage, PluginFactory, PluginKind, Stability
from otus_sdk.model import CaptureStats, RawPacket
from otus_sdk.protocols import PacketSink

__all__ = ["FACTORY", "PcapCapturer", "PcapCapturerConfig"]

_TIMES = re.compile(r"x([0-9]+(?:\.[0-9]+)?)\Z")
CHUNK = 256


def _list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class PcapCapturerConfig(BaseModel):
    """The `capture` section of a task with `type: pcap`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: Annotated[list[str], BeforeValidator(_list), Field(min_length=1)]
    bpf_filter: str | None = None
    timing: str = "fast"
    follow: bool = False

    @field_validator("timing")
    @classmethod
    def _known_timing(cls, timing: str) -> str:
        speed_of(timing)
        return timing


def speed_of(timing: str) -> float:
    """How many times faster than the capture: 0 for as fast as possible.

    Raises:
        ValueError: It is none of `fast`, `original`, `xN`.
    """
    if timing in ("fast", "original"):
        return 0.0 if timing == "fast" else 1.0
    match = _TIMES.match(timing)
    if match is None or not 0 < float(match[1]) <= 1e6:
        raise ValueError("must be fast, original, or xN such as x10")
    return float(match[1])


class PcapCapturer:
    """The reference form: reads files packet by packet, at full speed."""

    name = "pcap"

    def init(self, config: PcapCapturerConfig) -> None:
        """Takes the configuration."""
        self._files = config.files
        self._received = 0
        self._stopped = False

    def start(self) -> None:
        """Nothing: files are opened as they are read."""

    def stop(self) -> None:
        """Makes `capture` return after the packets in hand."""
        self._stopped = True

    def capture(self, output: PacketSink) -> None:
        """Reads all files from the first to the last.

        Raises:
            OSError: A file can't be read.
            ValueError: It is no capture file.
        """
        for path in self._files:
            chunk: list[RawPacket] = []
            for packet in read_file(path):
                if self._stopped:
                    return
                chunk.append(packet)
                if len(chunk) == CHUNK:
                    self._received += output.put(chunk)
                    chunk = []
            self._received += output.put(chunk)

    def stats(self) -> CaptureStats:
        """Frames read so far."""
        return CaptureStats(received=self._received)


def _native(config: PcapCapturerConfig) -> NativeStage:
    return NativeStage(
        "file",
        {
            "files": config.files,
            "bpf_filter": config.bpf_filter,
            "speed": speed_of(config.timing),
            "follow": config.follow,
        },
    )


FACTORY = PluginFactory(
    kind=PluginKind.CAPTURER,
    name="pcap",
    create=PcapCapturer,
    config_type=PcapCapturerConfig,
    description="From pcap and pcapng files, plain or compressed, followed or replayed",
    stability=Stability.STABLE,
    native=_native,
)
