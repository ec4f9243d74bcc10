"""`otus read` on files: what it prints, in every form, and what it says of bad files."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from frames import CALLEE, CALLER, pcap, response, sip, udp, write_pcap

OTUS = [sys.executable, "-m", "otus_agent"]
CALL = [
    udp(sip("INVITE", "call-1")),
    udp(response(180, "Ringing", "call-1"), CALLEE, CALLER),
    udp(response(200, "OK", "call-1"), CALLEE, CALLER),
    udp(sip("ACK", "call-1")),
    udp(sip("BYE", "call-1", 2)),
    udp(response(200, "OK", "call-1", "BYE"), CALLEE, CALLER),
]
BUSY = [
    udp(sip("INVITE", "call-2")),
    udp(response(486, "Busy Here", "call-2"), CALLEE, CALLER),
    udp(sip("ACK", "call-2")),
]


def otus(*arguments: str | Path, stdin: bytes | None = None, code: int = 0) -> tuple[str, str]:
    """Runs the command and returns standard output and standard error."""
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [*OTUS, *map(str, arguments)], input=stdin, capture_output=True, env=environment, timeout=300,
        check=False,
    )  # fmt: skip
    out, error = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == code, (done.returncode, out, error)
    assert "Traceback" not in error
    return out, error


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return Path(write_pcap(tmp_path / "calls.pcap", [*CALL, udp(b"junk"), *BUSY]))


def test_table_has_a_line_for_each_message(capture: Path) -> None:
    """Every message has one line with addresses, method or status, CSeq, Call-ID and URIs."""
    out, error = otus("read", capture)
    head, *lines = out.splitlines()
    assert head.split() == ["TIME", "SOURCE", "DESTINATION", "MESSAGE", "CSEQ", "CALL-ID", "FROM",
                            "TO"]  # fmt: skip
    assert len(lines) == len(CALL) + len(BUSY)
    assert lines[0].split() == [
        "2023-11-14", "22:13:20.000000", "192.0.2.1:5060", "192.0.2.2:5060", "INVITE", "1", "INVITE",
        "call-1", "sip:alice@example.org", "sip:bob@example.org",
    ]  # fmt: skip
    assert "486 Busy Here" in lines[-2]
    assert error.strip() == "10 packets, 9 SIP messages"


def test_one_packet_is_no_plural(tmp_path: Path) -> None:
    """The summary counts in words that agree."""
    _, error = otus("read", write_pcap(tmp_path / "one.pcap", CALL[:1]))
    assert error.strip() == "1 packet, 1 SIP message"


def test_json_is_one_object_a_line(capture: Path) -> None:
    """Each line is one record with labels and payload."""
    out, error = otus("read", "--output", "json", capture)
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["labels"].get("sip.method") for record in records[:4]] == [
        "INVITE", None, None, "ACK",
    ]  # fmt: skip
    assert records[0]["payload"]["request_uri"] == "sip:bob@example.org"
    assert error == ""


def test_calls_have_one_line_a_dialog(capture: Path) -> None:
    """Answered and failed calls are told apart, with duration, code and messages."""
    out, _ = otus("read", "--calls", "-o", "json", capture)
    answered, busy = (json.loads(line) for line in out.splitlines())
    assert answered["call_id"] == "call-1"
    assert (answered["state"], answered["status_code"], answered["messages"]) == (
        "answered",
        200,
        6,
    )
    assert answered["duration_s"] == 0.002  # from the 200 to the BYE, 1 ms a frame
    assert (busy["state"], busy["status_code"], busy["reason"]) == ("failed", 486, "Busy Here")
    table, _ = otus("read", "--calls", capture)
    assert len(table.splitlines()) == 3


def test_labels_select(capture: Path) -> None:
    """All labels that are given must hold."""
    out, error = otus("read", "--label", "sip.method=INVITE", capture)
    assert len(out.splitlines()) == 1 + 2
    assert error.strip() == "10 packets, 9 SIP messages, 2 shown"
    out, _ = otus("read", "--label", "sip.method=INVITE", "--label", "sip.call_id=call-2", capture)
    assert len(out.splitlines()) == 1 + 1


def test_filter_expression_selects(capture: Path) -> None:
    """An expression is checked and runs in the core; a wrong one names what is wrong."""
    pytest.importorskip("otus_sdk.expression", reason="filter expressions are not built")
    out, _ = otus("read", "--filter", "sip.status_code >= 400", capture)
    assert [line for line in out.splitlines() if "486" in line] == out.splitlines()[1:]
    _, error = otus("read", "--filter", "sip.methd == 'X'", capture, code=5)
    assert error.startswith("otus: --filter: column 1: unknown field 'sip.methd'; did you mean")
    _, error = otus("read", "--filter", "sip.method = 'X'", capture, code=5)
    assert error.splitlines() == [
        "otus: --filter: column 12: unexpected '=': comparison is '=='",
        "  sip.method = 'X'",
        "             ^",
    ]
    _, error = otus("read", "--bpf", "udp prt 5060", capture, code=5)
    assert error.startswith('otus: --bpf: "udp prt 5060": ')


def test_standard_input_is_a_file_named_dash(capture: Path) -> None:
    """`tcpdump -w - | otus read -` needs no file between."""
    out, _ = otus("read", capture)
    with capture.open("rb") as stdin:
        done = subprocess.run(
            [*OTUS, "read", "-"], stdin=stdin, capture_output=True, timeout=300, check=True
        )
    assert done.stdout.decode() == out


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_compressed_files(tmp_path: Path, suffix: str) -> None:
    """gzip and zstd files read like plain ones; one that is cut off is an error after its part."""
    octets = pcap(CALL * 500)
    if suffix == "gz":
        compressed = gzip.compress(octets)
    else:
        zstandard = pytest.importorskip("zstandard")
        compressed = zstandard.ZstdCompressor().compress(octets)
    whole = tmp_path / f"a.pcap.{suffix}"
    whole.write_bytes(compressed)
    _, error = otus("read", whole)
    assert error.strip() == f"{6 * 500} packets, {6 * 500} SIP messages"
    cut = tmp_path / f"b.pcap.{suffix}"
    cut.write_bytes(compressed[: len(compressed) // 2])
    _, error = otus("read", cut, code=1)
    assert error == f"otus: {cut}: the compressed file is cut off\n"


def test_compressed_files_that_are_damaged(tmp_path: Path) -> None:
    """What comes before the damage is told, and the damage by its own name."""
    octets = pcap(CALL)
    # Two members, padding between: what `cat` and tape archivers make.
    joined = tmp_path / "joined.pcap.gz"
    joined.write_bytes(gzip.compress(octets[:99]) + bytes(64) + gzip.compress(octets[99:]))
    out, _ = otus("read", joined)
    assert len(out.splitlines()) == 1 + 6
    small = tmp_path / "small.pcap.gz"
    small.write_bytes(gzip.compress(octets, 0)[:-200])
    out, error = otus("read", small, code=1)
    assert len(out.splitlines()) == 1 + 5
    assert error == f"otus: {small}: the compressed file is cut off\n"
    flipped = tmp_path / "flipped.pcap.gz"
    flipped.write_bytes(gzip.compress(pcap(CALL * 20), 0)[:-8] + bytes(8))
    out, error = otus("read", flipped, code=1)
    assert len(out.splitlines()) > 6 * 18
    assert f"otus: {flipped}: can't be decompressed: " in error


def test_bad_files_are_told_and_the_others_read(tmp_path: Path, capture: Path) -> None:
    """Each bad file costs one line on standard error and the exit code, not the others' messages."""
    empty, text, missing = tmp_path / "empty", tmp_path / "text", tmp_path / "missing"
    empty.write_bytes(b"")
    text.write_bytes(b"this is no capture file at all")
    out, error = otus("read", empty, text, missing, tmp_path, capture, code=1)
    assert len(out.splitlines()) == 1 + 9
    lines = error.splitlines()
    assert len(lines) == 4
    for line, path in zip(lines, (empty, text, missing, tmp_path), strict=True):
        assert line.startswith(f"otus: {path}: "), line


def test_a_file_that_is_cut_off_gives_what_it_has(tmp_path: Path) -> None:
    """Records before the cut are told."""
    octets = pcap(CALL)
    path = tmp_path / "cut.pcap"
    path.write_bytes(octets[:-10])
    out, error = otus("read", path, code=1)
    assert len(out.splitlines()) == 1 + 5
    assert error.startswith(f"otus: {path}: the file is cut off inside its last record, at octet ")
    assert len(error.splitlines()) == 1


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """A message can't move the cursor or forge a line through its header fields."""
    evil = udp(sip("INVITE", "id\x1b[2J\x08evil"))
    out, _ = otus("read", write_pcap(tmp_path / "evil.pcap", [evil]))
    assert "\x1b" not in out
    assert "\x08" not in out
    assert "evil" in out


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    """`otus read x | head -1` prints one line and nothing on standard error."""
    path = write_pcap(tmp_path / "big.pcap", CALL * 5000)
    done = subprocess.run(
        f"{sys.executable} -m otus_agent read {path} | head -1", shell=True, capture_output=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.stdout.startswith(b"TIME")
    assert done.stderr == b""


def test_usage_errors(capture: Path) -> None:
    """A label without a value is a usage error."""
    _, error = otus("read", "--label", "sip.method", capture, code=2)
    assert "NAME=VALUE" in error
    _, error = otus("read", "--label", "sip.methd=INVITE", capture, code=2)
    assert "--label sip.methd=INVITE: no such label, did you mean 'sip.method'" in error
