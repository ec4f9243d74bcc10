"""The built-in plugins hold the same contracts as anybody's."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from frames import sip, udp, write_pcap
from otus_plugins.capturer import afpacket, pcap
from otus_plugins.parser import rtp
from otus_plugins.parser import sip as sip_plugin
from otus_plugins.reporter import console
from otus_sdk.factory import PluginKind
from otus_sdk.testing import PluginConformance, make_packet

# Other people's libraries that built-in plugins may use.
THIRD_PARTY = {"aiokafka", "orjson", "durationpy", "pydantic", "zstandard"}


class TestAfPacket(PluginConformance):
    factory = afpacket.FACTORY
    config: ClassVar[dict[str, Any]] = {"interface": "eth0"}
    bad_configs = (
        {},
        {"interface": "a" * 16},
        {"interface": "eth0", "block_octets": 12345},
        {"interface": "eth0", "fanout": "random"},
        {"interface": "eth0", "retire_timeout": "soon"},
        {"interface": "eth0", "fanout_size": 0},
    )


class TestPcap(PluginConformance):
    factory = pcap.FACTORY
    config: ClassVar[dict[str, Any]] = {"files": "/nowhere"}
    bad_configs = (
        {},
        {"files": []},
        {"files": "x", "timing": "x0"},
        {"files": "x", "timing": "fst"},
    )


class TestSip(PluginConformance):
    factory = sip_plugin.FACTORY
    config: ClassVar[dict[str, Any]] = {"headers": {"sip.pai": "P-Asserted-Identity"}}
    bad_configs = ({"headers": {"Not A Label": "x"}}, {"headers": {"x.y": ""}})
    packets = (make_packet(sip()), make_packet(b"SIP/2.0 200 OK\r\n\r\n"))


class TestRtp(PluginConformance):
    factory = rtp.FACTORY
    packets = (make_packet(b"\x80\x00\x00\x01\x00\x00\x00\xa0\x12\x34\x56\x78" + b"\xd5" * 20),)


class _Stdout:
    """Standard output with a descriptor, which pytest's own has not."""

    def fileno(self) -> int:
        return 1


class TestConsole(PluginConformance):
    factory = console.FACTORY
    bad_configs = ({"format": "xml"}, {"max_pending_octets": 1}, {"max_pending_octets": 1 << 35})

    @pytest.fixture(autouse=True)
    def _a_descriptor(
        self, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.stdout", _Stdout())


class TestConsoleJson(TestConsole):
    config: ClassVar[dict[str, Any]] = {"format": "json"}


def test_plugins_import_only_the_sdk(root: Path) -> None:
    """A built-in plugin uses what a third party has: otus_sdk and other people's libraries."""
    allowed = {"otus_sdk", "otus_plugins"} | THIRD_PARTY | set(sys.stdlib_module_names)
    wrong: list[str] = []
    for path in (root / "plugins" / "otus_plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            wrong += [
                f"{path.relative_to(root)}: {name}"
                for name in names
                if name.partition(".")[0] not in allowed
            ]
    assert wrong == []


def plugin_folders(root: Path) -> list[Path]:
    folder = root / "plugins" / "otus_plugins"
    return [
        path.parent
        for kind in PluginKind
        for path in sorted(folder.glob(f"{kind.value}/*/__init__.py"))
    ]


def test_every_plugin_folder_is_complete(root: Path) -> None:
    """Each folder has a README of fixed sections that names every key of the configuration."""
    folders = plugin_folders(root)
    assert len(folders) >= 6
    for folder in folders:
        text = (folder / "README.md").read_text()
        for section in ("## What it does", "## Configuration", "## Counters", "## Example"):
            assert section in text, f"{folder}: {section}"
        module = importlib.import_module(f"otus_plugins.{folder.parent.name}.{folder.name}")
        assert module.FACTORY.kind.value == folder.parent.name
        for key in getattr(module.FACTORY.config_type, "model_fields", {}):
            assert f"`{key}`" in text, f"{folder}/README.md does not document {key}"


def test_every_sample_is_a_good_task(root: Path) -> None:
    """Each sample.yaml resolves against the installed plugins."""
    from otus_agent.config.loading import load_source, read_source
    from otus_agent.config.task import TaskConfig
    from otus_agent.config.task_files import check_task
    from otus_agent.registry import PluginRegistry

    def inherit(kind: str, own: Any) -> Any:
        return {"brokers": ["localhost:9092"], **own} if kind == "kafka" else own

    registry = PluginRegistry.load()
    for folder in plugin_folders(root):
        source = read_source(folder / "sample.yaml")
        if "capture" not in source.data:  # the plugin's own section alone
            section = {f"{folder.parent.name}s": [source.data]}
            capture = {"type": "pcap", "files": "x.pcap"}
            source.data = {"id": "t", "capture": capture, "reporters": ["console"], **section}
        check_task(load_source(TaskConfig, source), source, registry, inherit)


def test_the_python_pcap_reader_gives_what_was_written(tmp_path: Path) -> None:
    """The reference reader gives each frame with its time, also from gzip."""
    import gzip

    frames = [udp(sip()), udp(b"x" * 1400), udp(b"")]
    path = Path(write_pcap(tmp_path / "a.pcap", frames))
    packed = tmp_path / "a.pcap.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for one in (path, packed):
        packets = list(pcap.read_file(str(one)))
        assert [packet.data for packet in packets] == frames
        assert packets[1].ts_ns - packets[0].ts_ns == 1_000_000
