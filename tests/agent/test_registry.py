"""The registry finds plugins, and says what is wrong where it does not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from otus_agent.registry import PluginRegistry
from otus_sdk.errors import PluginConflict, PluginInitFailed, PluginNotFound
from otus_sdk.factory import PluginFactory, PluginKind


class Nothing:
    name = "nothing"

    def init(self, config: object) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


def factory(kind: PluginKind, name: str, api_version: int = 1) -> PluginFactory:
    return PluginFactory(kind, name, Nothing, api_version=api_version)


def install(folder: Path, name: str, kind: str, entry: str, code: str) -> None:
    """Writes a distribution with one module and one entry point, as pip leaves it."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[otus.{kind}]\n{entry} = {module}:FACTORY\n")


GOOD = """
from otus_sdk.factory import PluginFactory, PluginKind
FACTORY = PluginFactory(PluginKind.PARSER, "stun", object, description="STUN")
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_an_entry_point_of_an_installed_package_is_found(site: Path) -> None:
    """A package is found by its entry point, and its package and description are listed."""
    install(site, "otus-stun-a", "parser", "stun", GOOD)
    registry = PluginRegistry.load()
    assert registry.get(PluginKind.PARSER, "stun").description == "STUN"
    (info,) = [info for info in registry.plugins() if info.name == "stun"]
    assert (info.distribution, info.description, info.error) == ("otus-stun-a 1.0", "STUN", "")


def test_a_package_in_a_folder_of_the_plugin_path_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `pip install --target` put into a named folder is found like an installed package."""
    install(tmp_path, "otus-stun-p", "parser", "stun-p", GOOD.replace('"stun"', '"stun-p"'))
    monkeypatch.setattr("sys.path", [*sys.path])
    with pytest.raises(PluginNotFound):
        PluginRegistry.load().get(PluginKind.PARSER, "stun-p")
    monkeypatch.setenv("OTUS_PLUGIN_PATH", f"/nowhere:{tmp_path}")
    registry = PluginRegistry.load()
    assert registry.get(PluginKind.PARSER, "stun-p").description == "STUN"


def test_two_packages_of_one_name_are_an_error_that_names_both(site: Path) -> None:
    """Neither of two plugins of one name is taken; the message has both packages."""
    install(site, "otus-stun-b", "parser", "stun", GOOD)
    install(site, "otus-stun-c", "parser", "stun", GOOD)
    with pytest.raises(PluginConflict, match=r"otus-stun-b 1\.0 and otus-stun-c 1\.0"):
        PluginRegistry.load().get(PluginKind.PARSER, "stun")


def test_a_package_that_can_not_be_imported_troubles_only_its_users(site: Path) -> None:
    """An ImportError names package and cause, and the other plugins still load."""
    install(site, "otus-broken", "parser", "broken", "import no_such_module_here\n")
    install(site, "otus-stun-d", "parser", "stun", GOOD)
    registry = PluginRegistry.load()
    with pytest.raises(PluginInitFailed, match=r"otus-broken 1\.0 can't be imported.*no_such"):
        registry.get(PluginKind.PARSER, "broken")
    assert registry.get(PluginKind.PARSER, "stun")
    errors = {info.name: info.error for info in registry.plugins()}
    assert "no_such_module_here" in errors["broken"]
    assert errors["stun"] == ""


def test_what_is_no_factory_is_refused(site: Path) -> None:
    """An entry point that loads something else says what it loaded."""
    install(site, "otus-odd", "parser", "odd", "FACTORY = 7\n")
    with pytest.raises(PluginInitFailed, match="is no PluginFactory"):
        PluginRegistry.load().get(PluginKind.PARSER, "odd")


@pytest.mark.parametrize(("version", "who"), [(2, "otus"), (0, "the package")])
def test_another_api_version_is_refused(version: int, who: str) -> None:
    """A plugin of another API is not run, and the message says what to upgrade."""
    registry = PluginRegistry.of(factory(PluginKind.PARSER, "stun", version))
    with pytest.raises(PluginInitFailed, match=f"API {version}.*upgrade {who}"):
        registry.get(PluginKind.PARSER, "stun")


def test_unknown_names_get_a_hint() -> None:
    """A misspelt name gets the nearest one with its package; another kind's is named as such."""
    registry = PluginRegistry.of(
        factory(PluginKind.PARSER, "sip"), factory(PluginKind.REPORTER, "kafka"), distribution="o 1"
    )
    with pytest.raises(PluginNotFound, match="did you mean 'sip' of o 1"):
        registry.get(PluginKind.PARSER, "sipp")
    with pytest.raises(PluginNotFound, match="it is a reporter"):
        registry.get(PluginKind.PARSER, "kafka")
    with pytest.raises(PluginNotFound, match="installed are sip"):
        registry.get(PluginKind.PARSER, "quic")
