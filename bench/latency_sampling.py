"""What the sampled stage latencies cost: instructions with and without them.

    python bench/latency_sampling.py

Builds the pipeline twice, as it is and with sampling out of reach, and counts the
instructions of both over the same packets with callgrind: a figure that a busy
machine does not change.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import traffic

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = "OTUS_LATENCY_SAMPLE = 1024"
NEVER = "OTUS_LATENCY_SAMPLE = 0x40000000"
PACKETS = 20_000


def build(core: Path, program: Path) -> None:
    sources = [str(ROOT / "bench" / "core" / "bench_pipeline.c"), *map(str, core.glob("src/*.c"))]
    includes = [f"-I{core / 'include'}", f"-I{core / 'src'}"]
    command = ["cc", "-std=c11", "-O3", "-D_GNU_SOURCE", *includes, *sources, "-o", str(program)]
    subprocess.run(command, check=True)


def instructions(program: Path, capture: Path) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run(
        [*command, str(program), str(capture), "1", "parse"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None
    return int(found[1])


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        capture = folder / "sip.pcap"
        capture.write_bytes(traffic.pcap(traffic.sip_frames(PACKETS)))
        without = folder / "core_c"
        shutil.copytree(ROOT / "core_c", without)
        header = without / "include" / "otus" / "pipeline.h"
        header.write_text(header.read_text().replace(SAMPLE, NEVER))
        assert NEVER in header.read_text()
        build(ROOT / "core_c", folder / "with")
        build(without, folder / "without")
        more = instructions(folder / "with", capture)
        less = instructions(folder / "without", capture)
    print(
        f"{more} instructions with sampling, {less} without: {100 * (more / less - 1):.4f} % more"
    )


if __name__ == "__main__":
    main()
