"""Captures live from an interface through AF_PACKET rings; run by the core."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from otus_sdk.factory import NativeStage, PluginFactory, PluginKind, Stability
from otus_sdk.model import CaptureStats
from otus_sdk.protocols import PacketSink

__all__ = ["FACTORY", "AfPacketCapturer", "AfPacketCapturerConfig"]

PAGE_OCTETS = 4096
RING_OCTETS = 32 << 20


def _milliseconds(value: object) -> object:
    """Reads "20ms" and "1s"; a number is taken as milliseconds."""
    if isinstance(value, str):
        for unit, factor in (("ms", 1.0), ("s", 1000.0)):
            number = value.removesuffix(unit)
            if number != value:
                try:
                    return round(float(number) * factor)
                except ValueError:
                    break
        raise ValueError("must be a duration such as 20ms")
    return value


class AfPacketCapturerConfig(BaseModel):
    """The `capture` section of a task with `type: afpacket`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # IFNAMSIZ of linux/if.h is 16 with the final NUL.
    interface: str = Field(min_length=1, max_length=15)
    bpf_filter: str | None = None
    raw_bpf: bool = False
    fanout_size: int = Field(default=1, ge=1, le=64)
    fanout: Literal["hash", "cpu", "lb", "rollover", "qm"] = "hash"
    fanout_id: int = Field(default=0, ge=0, le=65535)
    snap_len: int = Field(default=65535, ge=64, le=262144)
    promiscuous: bool = True
    block_octets: int = Field(default=1 << 20, ge=PAGE_OCTETS, le=1 << 26)
    num_blocks: int = Field(default=0, ge=0, le=4096)
    retire_timeout: Annotated[int, BeforeValidator(_milliseconds), Field(ge=1, le=10_000)] = 20
    hardware_timestamps: bool = False
    wait_for_interface: bool = True

    @model_validator(mode="after")
    def _fits(self) -> AfPacketCapturerConfig:
        if self.block_octets & (self.block_octets - 1):
            raise ValueError("block_octets must be a power of two")
        if self.num_blocks == 1:
            raise ValueError("num_blocks must be at least 2")
        return self


class AfPacketCapturer:
    """Stands for the core's ring, which has no form in Python."""

    name = "afpacket"

    def init(self, config: AfPacketCapturerConfig) -> None:
        """Takes the configuration."""
        self._config = config

    def start(self) -> None:
        """Nothing: the core opens the ring."""

    def stop(self) -> None:
        """Nothing: the core closes the ring."""

    def capture(self, output: PacketSink) -> None:
        """Is not called: the core captures.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("afpacket runs in the core")

    def stats(self) -> CaptureStats:
        """Nothing: the core counts."""
        return CaptureStats()


def _native(config: AfPacketCapturerConfig) -> NativeStage:
    values: dict[str, Any] = config.model_dump()
    values["retire_timeout_ms"] = values.pop("retire_timeout")
    if not config.num_blocks:
        # All rings of the task together, but no ring so small that a burst overruns it.
        blocks = RING_OCTETS // config.block_octets // config.fanout_size
        values["num_blocks"] = max(4, blocks)
    return NativeStage("afpacket", values)


FACTORY = PluginFactory(
    kind=PluginKind.CAPTURER,
    name="afpacket",
    create=AfPacketCapturer,
    config_type=AfPacketCapturerConfig,
    description="Live from an interface, AF_PACKET TPACKET_V3 with fanout",
    stability=Stability.STABLE,
    native=_native,
)
