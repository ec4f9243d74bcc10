"""What a packet takes in the core, over several orders in which its objects are linked.

    python bench/layouts.py CAPTURE MODE [FILTER] [--orders N] [--rounds N] [--tree DIR]...

MODE and FILTER are those of bench/core/bench_pipeline.c. A packet runs through as much
code as the first-level cache holds, so that the same objects in another order differ by
2 to 3 %: one build against another says nothing about a change that small. Each tree (another
checkout, say; this one where none is named) is compiled once and linked N times; of each
binary the least of its rounds counts, the quickest hundredth of its stretches. Trees take
turns, so that a machine that slows down slows all of them.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import statistics
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
# As hatch_build.py has them.
FLAGS = ["-O3", "-fno-tree-vectorize", "-flto", "-flto-partition=one", "-std=c11",
         "-D_GNU_SOURCE", "-pthread"]  # fmt: skip
FOLDERS = ["core_c/include", "core_c/src", "bench/core"]
LOOPS = "30"
UNDISTURBED = re.compile(r"undisturbed +([\d.]+) ns")


def compile_objects(tree: Path, folder: Path) -> list[Path]:
    """Objects of bench_pipeline and the core of one checkout, in the order of their names."""
    includes = [f"-I{tree / name}" for name in FOLDERS]

    def compile_one(source: Path) -> Path:
        target = folder / f"{source.stem}.o"
        subprocess.run(["cc", *FLAGS, *includes, "-c", source, "-o", target], check=True)
        return target

    sources = [*sorted((tree / "core_c/src").glob("*.c")), tree / "bench/core/bench_pipeline.c"]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(compile_one, sources))


def link_orders(objects: list[Path], folder: Path, num: int) -> list[Path]:
    """`num` binaries: the objects as they are, then in orders that are the same every time."""
    shuffler = random.Random(1)
    binaries = []
    for index in range(num):
        binaries.append(folder / f"order-{index}")
        subprocess.run(["cc", *FLAGS, *objects, "-lz", "-o", binaries[-1]], check=True)
        objects = shuffler.sample(objects, len(objects))
    return binaries


def measure(binary: Path, arguments: list[str]) -> float:
    """Nanoseconds a packet of the stretches that nobody disturbed."""
    capture, *rest = arguments
    done = subprocess.run(
        [binary, capture, LOOPS, *rest], check=True, capture_output=True, text=True
    )
    found = UNDISTURBED.search(done.stdout)
    if found is None:
        raise SystemExit(f"{capture}: too few packets for a stretch")
    return float(found[1])


def main() -> None:
    """Prints a line a tree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("capture")
    parser.add_argument("mode")
    parser.add_argument("filter", nargs="?")
    parser.add_argument("--orders", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tree", type=Path, action="append")
    options = parser.parse_args()
    arguments = [options.capture, options.mode, *([options.filter] if options.filter else [])]
    trees = [tree.resolve() for tree in options.tree or [HERE]]
    with tempfile.TemporaryDirectory() as scratch:
        binaries: list[list[Path]] = []
        for index, tree in enumerate(trees):
            folder = Path(scratch) / str(index)
            folder.mkdir()
            binaries.append(link_orders(compile_objects(tree, folder), folder, options.orders))
        least = [[float("inf")] * options.orders for _ in trees]
        for _ in range(options.rounds):
            for order in range(options.orders):
                for index in range(len(trees)):
                    taken = measure(binaries[index][order], arguments)
                    least[index][order] = min(least[index][order], taken)
    for tree, times in zip(trees, least, strict=True):
        print(
            f"{tree}: mean {statistics.mean(times):.0f} ns a packet, median"
            f" {statistics.median(times):.0f}, {min(times):.0f} to {max(times):.0f}"
        )


if __name__ == "__main__":
    main()
