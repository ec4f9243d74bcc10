"""Otus over a capture file: one pipeline, one core, through the public binding.

    python bench/otus_offline.py FILE WORK

WORK is `parse` (decode and full SIP parse), `json` (the same, a filter and JSON), or
`rtp` (known flows, labelled and counted). Prints packets and CPU seconds of the loop.
"""

from __future__ import annotations

import os
import sys
import time

import otus_core
from otus_core import (
    FileConfig,
    Filter,
    FlowRegistry,
    Output,
    Pipeline,
    PipelineConfig,
    Stage,
    StageKind,
)
from otus_sdk.expression import compile_expression

FILTER = "sip.method == 'OPTIONS' || sip.status_code == 489"
FILTER_PROGRAM = compile_expression(FILTER).bytecode


def stages(work: str) -> list[Stage]:
    chain = [Stage(StageKind.PARSE_SIP)]
    if work == "rtp":
        chain.append(Stage(StageKind.PARSE_RTP))
    if work == "json":
        chain.append(Stage(StageKind.FILTER, filter=Filter(FILTER_PROGRAM)))
    return chain


def run(path: str, work: str) -> tuple[int, float]:
    """Returns packets and seconds of CPU."""
    config = PipelineConfig(
        "bench",
        "bench",
        "bench-0",
        stages(work),
        outputs=Output.JSON if work == "json" else Output.NONE,
        flows=FlowRegistry(1 << 16, 3_600_000),
    )
    # The source closes the descriptor.
    pipeline = Pipeline(otus_core.open_file(FileConfig(os.open(path, os.O_RDONLY))), config)
    start = time.process_time()
    while not pipeline.poll(0).ended:
        pass
    seconds = time.process_time() - start
    packets = pipeline.counters()["received"]["frames"]
    pipeline.close()
    return packets, seconds


if __name__ == "__main__":
    print(*run(sys.argv[1], sys.argv[2]))
