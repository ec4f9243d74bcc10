"""Otus over a capture file in memory: one pipeline, one core, through the public binding.

    python bench/otus_offline.py FILE WORK [LOOPS]

WORK is `parse` (decode and full SIP parse), `json` (the same, a filter and JSON), or
`rtp` (known flows, labelled and counted). Prints packets and CPU seconds of the loop.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import otus_core
from otus_core import Filter, FlowRegistry, Output, Pipeline, PipelineConfig, Stage, StageKind
from otus_sdk.expression import compile_expression

FILTER = "sip.method == 'OPTIONS' || sip.status_code == 489"


def stages(work: str) -> list[Stage]:
    chain = [Stage(StageKind.PARSE_SIP)]
    if work == "rtp":
        chain.append(Stage(StageKind.PARSE_RTP))
    if work == "json":
        chain.append(Stage(StageKind.FILTER, filter=Filter(compile_expression(FILTER).bytecode)))
    return chain


def run(path: str, work: str, loops: int) -> tuple[int, float]:
    """Returns packets and seconds of CPU."""
    config = PipelineConfig(
        "bench",
        "bench",
        "bench-0",
        stages(work),
        outputs=Output.JSON if work == "json" else Output.NONE,
        flows=FlowRegistry(1 << 16, 3_600_000),
    )
    pipeline = Pipeline(otus_core.open_memory(Path(path).read_bytes(), loops), config)
    start = time.process_time()
    while not pipeline.poll(0).ended:
        pass
    seconds = time.process_time() - start
    packets = pipeline.counters()["received"]["frames"]
    pipeline.close()
    return packets, seconds


if __name__ == "__main__":
    packets, seconds = run(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    print(packets, seconds)
