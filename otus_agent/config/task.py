"""What a task is made of, as task files, RPC and Kafka commands write it.

The model checks what it can know by itself; what plugins expect of their own
sections is checked by `otus_agent.resolve`, which knows the plugins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from otus_agent.config.fields import ConfigModel, Duration, PositiveDuration

TUNNEL_KINDS = ("vxlan", "gre", "erspan", "geneve", "ipip", "gtpu", "tzsp")
TUNNELS_WITH_PORTS = ("vxlan", "geneve", "gtpu", "tzsp")

TASK_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"

# Bounds of the core's arrays (decode.h, stream.h, pipeline); tests compare them.
MAX_TUNNEL_PORTS = 8
MAX_STREAM_PORTS = 32
MAX_STAGES = 64
# Milliseconds of packet time are 32 bits in the core.
MAX_PACKET_TIME_S = 49 * 86_400

Port = Annotated[int, Field(ge=1, le=65535)]
MIB = 1 << 20


class TunnelConfig(ConfigModel):
    """How one kind of tunnel is recognised."""

    ports: list[Port] = Field(default_factory=list, max_length=MAX_TUNNEL_PORTS)
    """UDP ports; empty: the registered one."""


def _known_tunnel(entry: str | dict[str, TunnelConfig]) -> str | dict[str, TunnelConfig]:
    sections = {entry: TunnelConfig()} if isinstance(entry, str) else entry
    for kind, section in sections.items():
        if kind not in TUNNEL_KINDS:
            raise ValueError(f"must be one of {', '.join(TUNNEL_KINDS)}")
        if section.ports and kind not in TUNNELS_WITH_PORTS:
            raise ValueError(f"{kind} has no ports, only {', '.join(TUNNELS_WITH_PORTS)} have")
    return entry


TunnelEntry = Annotated[str | dict[str, TunnelConfig], AfterValidator(_known_tunnel)]


def _in_packet_time(seconds: float) -> float:
    if seconds > MAX_PACKET_TIME_S:
        raise ValueError("must be a duration of at most 49d")
    return seconds


PacketTime = Annotated[PositiveDuration, AfterValidator(_in_packet_time)]
"""What the core counts in milliseconds."""


class DecoderSection(ConfigModel):
    """From the frame to the innermost packet."""

    tunnels: list[TunnelEntry] = Field(default_factory=list)
    """Tunnels that are followed: names, or name: {ports: [...]}."""
    ip_reassembly: bool = True
    """Put IPv4 and IPv6 fragments together."""
    max_datagrams: int = Field(default=4096, ge=1, le=1 << 20)
    """Datagrams that are not complete yet, at once."""
    max_fragments: int = Field(default=64, ge=2, le=8192)
    """Fragments in one datagram."""
    max_fragment_octets: int = Field(default=16 * MIB, ge=65536, le=1 << 31)
    """Octets of all fragments held."""
    max_datagrams_per_source: int = Field(default=256, ge=1, le=1 << 20)
    """Datagrams that are not complete yet, of one source address."""
    fragment_timeout: PacketTime = 5.0
    """How long a datagram may take to be completed, in packet time."""

    @property
    def tunnel_ports(self) -> dict[str, tuple[int, ...]]:
        """Each tunnel that is followed with its ports; none: the registered ones."""
        ports: dict[str, tuple[int, ...]] = {}
        for entry in self.tunnels:
            if isinstance(entry, str):
                ports.setdefault(entry, ())
            else:
                ports.update({kind: tuple(config.ports) for kind, config in entry.items()})
        return ports


class StreamSection(ConfigModel):
    """SIP over TCP and WebSocket: streams that are put in order."""

    tcp_ports: list[Port] = Field(default_factory=lambda: [5060], max_length=MAX_STREAM_PORTS)
    """Streams with either end on one of these; empty switches the stage off."""
    max_streams: int = Field(default=1024, ge=1, le=1 << 20)
    """Streams tracked; the oldest gives way."""
    max_stream_octets: int = Field(default=256 * 1024, ge=4096, le=1 << 28)
    """Octets held of one stream."""
    max_message_octets: int = Field(default=65536, ge=1024, le=1 << 24)
    """A Content-Length above this is absurd: the next message is searched."""
    gap_timeout: PacketTime = 3.0
    """How long to wait for lost segments, in packet time."""
    idle_timeout: PacketTime = 600.0
    """Streams without traffic are forgotten after this, in packet time."""


class FlowSection(ConfigModel):
    """Media endpoints learnt from SDP, by which RTP is recognised."""

    max_flows: int = Field(default=32768, ge=0, le=1 << 22)
    """Endpoints held, RTP and the RTCP behind it as one; the oldest gives way. 0: no registry."""
    ttl: PacketTime = 300.0
    """Endpoints without traffic are forgotten after this, in packet time."""


class WorkerSection(ConfigModel):
    """The threads that run pipelines, and what they hand over."""

    affinity: list[Annotated[int, Field(ge=0, le=4095)]] = Field(default_factory=list)
    """CPUs, one a pipeline in turn; empty: wherever the kernel puts them."""
    nice: int = Field(default=-10, ge=-20, le=19)
    """Niceness of pipelines that capture live, where the kernel allows it; 0: as the daemon's."""
    batch_records: int = Field(default=2048, ge=1, le=65536)
    """Records in one batch at most."""
    batch_octets: int = Field(default=3584 * 1024, ge=256 * 1024, le=256 * MIB)
    """Octets of one batch's arena; with 200 a record it fills two pages of 2 MiB."""


class FaultSection(ConfigModel):
    """What becomes of a Python plugin's faults."""

    on_error: Literal["keep", "drop"] = "keep"
    """The record on which a processor raised."""
    max_consecutive: int = Field(default=100, ge=1)
    """Packets in a row on which a plugin may raise before it is quarantined."""
    time_budget: Duration = 1.0
    """What a plugin may take for a batch; three overruns in a row quarantine it. 0: any time."""
    quarantine: Literal["bypass", "fail"] = "bypass"
    """Go on without the plugin, or fail the task."""


def _plugin_name(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


class PluginSection(ConfigModel):
    """A plugin by name, with its own configuration."""

    type: str = Field(min_length=1)
    """The plugin's name."""
    config: dict[str, Any] = Field(default_factory=dict)
    """The plugin's own keys: see its README."""


class ReporterSection(PluginSection):
    """A reporter, with the bounds of the queue before it."""

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """What the ledger and metrics call it; default: its type, numbered where it repeats."""
    queue_batches: int = Field(default=256, ge=1, le=65536)
    """Batches waiting for this reporter; beyond, the oldest is dropped."""
    queue_octets: int = Field(default=20 * MIB, ge=MIB, le=1 << 34)
    """Memory of these batches and of what the reporter holds, for which it may have a bound of its
    own; beyond, the oldest is dropped."""


class CaptureSection(ConfigModel):
    """The capturer by `type`; all other keys are the capturer's own."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = Field(min_length=1)
    """The capturer's name: afpacket, pcap, or a plugin's."""

    @property
    def config(self) -> dict[str, Any]:
        """The capturer's own keys."""
        return dict(self.model_extra or {})


Parser = Annotated[PluginSection, BeforeValidator(_plugin_name, json_schema_input_type=Any)]
Processor = Annotated[PluginSection, BeforeValidator(_plugin_name, json_schema_input_type=Any)]
ReporterEntry = Annotated[
    ReporterSection, BeforeValidator(_plugin_name, json_schema_input_type=Any)
]


class TaskConfig(ConfigModel):
    """One task: from a source of frames to reporters."""

    id: str = Field(pattern=TASK_ID_PATTERN)
    """Names the task: letters, digits, '.', '_', '-', at most 128."""
    capture: CaptureSection
    decoder: DecoderSection = Field(default_factory=DecoderSection)
    streams: StreamSection = Field(default_factory=StreamSection)
    flows: FlowSection = Field(default_factory=FlowSection)
    parsers: list[Parser] = Field(default_factory=lambda: [PluginSection(type="sip")])
    """Asked in this order; the first that can handle a packet has it."""
    processors: list[Processor] = Field(default_factory=list)
    """Run in this order over every record."""
    reporters: list[ReporterEntry] = Field(min_length=1)
    """Each gets every record."""
    unmatched: Literal["drop", "forward"] = "drop"
    """What becomes of packets that no parser took: forwarded they are "raw" records."""
    raw_payload: bool = False
    """Put the payload's octets into every record as well."""
    workers: WorkerSection = Field(default_factory=WorkerSection)
    faults: FaultSection = Field(default_factory=FaultSection)
    stop_deadline: PositiveDuration = 5.0
    """How long stopping may take to flush the reporters."""

    @model_validator(mode="after")
    def _distinct_reporters(self) -> TaskConfig:
        given = [reporter.name for reporter in self.reporters if reporter.name]
        repeated = sorted({name for name in given if given.count(name) > 1})
        if repeated:
            raise ValueError(f"two reporters named {repeated[0]!r}")
        return self

    @model_validator(mode="after")
    def _stages_that_fit(self) -> TaskConfig:
        stages = len(self.parsers) + len(self.processors)
        if stages > MAX_STAGES:
            raise ValueError(
                f"{stages} parsers and processors, must be at most {MAX_STAGES} together"
            )
        return self

    @property
    def with_inheritance(self) -> tuple[PluginSection, ...]:
        """The sections that may take something from the global configuration."""
        return (*self.processors, *self.reporters)

    @property
    def reporter_names(self) -> tuple[str, ...]:
        """What the ledger calls each reporter, in order; all different."""
        taken = {reporter.name for reporter in self.reporters if reporter.name}
        names: list[str] = []
        for reporter in self.reporters:
            name, number = reporter.name or reporter.type, 1
            while not reporter.name and (name in taken or name in names):
                number += 1
                name = f"{reporter.type}-{number}"
            names.append(name)
        return tuple(names)


def task_prefix(document: Any) -> tuple[str, ...]:
    """Where the task lies in a document that may be a `task.create` command.

    Args:
        document: `{"command": "task.create", "task": {...}}`, `{"task": {...}}`
            or a bare task.

    Returns:
        The key path of the task: `("task",)` or `()`.

    Raises:
        ValueError: It is the document of another command.
    """
    if not isinstance(document, Mapping) or "task" not in document or "capture" in document:
        return ()
    command = document.get("command", "task.create")
    if command != "task.create":
        raise ValueError(f"command is {command!r}, must be 'task.create'")
    return ("task",)
