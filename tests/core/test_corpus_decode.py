"""The decoder against the oracle, frame by frame, on every capture of the corpus."""

from __future__ import annotations

import json
import re
from pathlib import Path

from decode_dumping import DecodeDump
from decode_oracle import differences, expect

#: No timeout and no limit on fragments: the oracle has neither.
OPTIONS = ("-t", "4000000000", "-f", "8192")


def listed_differences(root: Path) -> dict[tuple[str, int], str]:
    """(capture, frame): field, as docs/decoder-differences.md lists them."""
    listed = {}
    text = (root / "docs/decoder-differences.md").read_text()
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 4 or not re.fullmatch(r"[\d\s-]+", cells[1]) or cells[1] == "---":
            continue
        assert cells[3], f"no reason given: {line}"
        for item in cells[1].split():
            first, _, last = item.partition("-")
            for frame in range(int(first), int(last or first) + 1):
                listed[cells[0], frame] = cells[2]
    return listed


def test_every_capture_agrees_with_the_oracle(
    root: Path, corpus: Path, decode_dump: DecodeDump
) -> None:
    listed = listed_differences(root)
    assert listed
    unlisted: list[str] = []
    seen: set[tuple[str, int]] = set()
    agreed = fragments = tunnels = 0
    for capture in sorted((corpus / "pcap").iterdir()):
        oracle_path = corpus / "oracle" / f"{capture.name}.dec.jsonl"
        oracle = [json.loads(line) for line in oracle_path.read_text().splitlines()]
        decoded = decode_dump.file(capture, *OPTIONS)
        assert len(decoded) >= len(oracle), f"{capture.name}: frames lost"
        for ours, theirs in zip(decoded, oracle, strict=False):
            assert ours["frame"] == theirs["frame"]
            wrong = differences(theirs, ours)
            place = (capture.name, ours["frame"])
            if wrong and set(wrong) == {listed.get(place)}:
                seen.add(place)
            elif wrong:
                unlisted.append(f"{capture.name} frame {ours['frame']}: {wrong}")
            elif ours["status"] == "ok" and expect(theirs).status == "ok":
                agreed += 1
                fragments += ours["reassembled"]
                tunnels += bool(ours["tunnels"])
    assert not unlisted, f"{len(unlisted)} unlisted differences:\n" + "\n".join(unlisted[:20])
    assert not set(listed) - seen, "listed in docs/decoder-differences.md, but not seen"
    # That the comparison compares: what the corpus holds at least.
    assert agreed > 24000
    assert fragments > 200
    assert tunnels > 2900
