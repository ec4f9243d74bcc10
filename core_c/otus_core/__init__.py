"""The C core as Python sees it: thin, typed, without policy.

One call takes thousands of packets through capture, decoding, parsing,
filtering and encoding with the GIL released; what comes back is a `Batch`.
"""

from otus_core.batch import Batch
from otus_core.capture import (
    AfPacketConfig,
    Capture,
    Fanout,
    FileConfig,
    open_afpacket,
    open_file,
    open_memory,
)
from otus_core.counters import COUNTERS, Counter, by_group
from otus_core.flow import Filter, FlowRegistry
from otus_core.native import CoreError
from otus_core.pipeline import (
    LATENCY_STAGES,
    TUNNELS,
    CaptureStats,
    DecoderConfig,
    DropReason,
    ExactView,
    Latency,
    Output,
    Pipeline,
    PipelineConfig,
    PollResult,
    Stage,
    StageKind,
    StreamConfig,
    label_ids,
)

__all__ = [
    "COUNTERS",
    "LATENCY_STAGES",
    "TUNNELS",
    "AfPacketConfig",
    "Batch",
    "Capture",
    "CaptureStats",
    "CoreError",
    "Counter",
    "DecoderConfig",
    "DropReason",
    "ExactView",
    "Fanout",
    "FileConfig",
    "Filter",
    "FlowRegistry",
    "Latency",
    "Output",
    "Pipeline",
    "PipelineConfig",
    "PollResult",
    "Stage",
    "StageKind",
    "StreamConfig",
    "by_group",
    "label_ids",
    "open_afpacket",
    "open_file",
    "open_memory",
]
