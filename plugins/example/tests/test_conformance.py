"""The plugins hold the contracts, and do what they are for."""

from pathlib import Path
from typing import Any

import pytest
from otus_stun import hexdump, parser, tag_private, tally

from otus_sdk.testing import PluginConformance, make_packet, make_record

BINDING = b"\x00\x01\x00\x08\x21\x12\xa4\x42" + bytes(12) + b"\x80\x22\x00\x03abc\x00"


class TestParser(PluginConformance):
    factory = parser.FACTORY
    packets = (make_packet(BINDING),)

    def test_software(self) -> None:
        """The SOFTWARE attribute is in the payload."""
        result = parser.parse(BINDING)
        assert result.labels == {"stun.class": "request", "stun.method": "binding"}
        assert result.payload["software"] == "abc"


class TestTagPrivate(PluginConformance):
    factory = tag_private.FACTORY
    records = (make_record(src_ip="10.0.0.1", dst_ip="8.8.8.8"),)

    def test_scope(self) -> None:
        """An address pair gets its scope."""
        record = make_record(src_ip="10.0.0.1", dst_ip="8.8.8.8")
        assert self.make_plugin().process(record)
        assert record.labels["net.scope"] == "outbound"


class TestTally(PluginConformance):
    factory = tally.FACTORY

    @pytest.fixture(autouse=True)
    def _path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        config: dict[str, Any] = {"path": str(tmp_path / "counts.json")}
        monkeypatch.setattr(type(self), "config", config)


class TestHexdump(PluginConformance):
    factory = hexdump.FACTORY
    bad_configs = ({"path": "x", "gap_ns": -1},)

    @pytest.fixture(autouse=True)
    def _path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "frames.txt"
        path.write_text("00 11 22\n" * 10)
        monkeypatch.setattr(type(self), "config", {"path": str(path)})
