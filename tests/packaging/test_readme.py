"""README: every command in it is run, here or where ELSEWHERE says, and the Chinese one keeps step."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from namespaces import TwoHosts
from otus_agent.config.loading import load, read_source
from otus_agent.config.task import TaskConfig
from otus_agent.config.task_files import check_task
from otus_agent.registry import PluginRegistry
from readme import FENCE, blocks, environment
from waiting import wait_until

CHINESE = "README.zh.md"
# Commands that set up whole machines or run for minutes: the test that runs each, and
# what it calls there.
ELSEWHERE = {
    "make demo": ("tests/integration/test_demo.py", "demo/run.py"),
    "make test": (".ci/run", "make test"),
    "make bench": ("Makefile", "bench: dev"),
    "make build": (".ci/run", "make test"),
    "make deb": ("tests/packaging/test_tree.py", "packaging/deb.py"),
    "make install": ("tests/packaging/test_tree.py", "install-files"),
    "make wheels": ("tests/packaging/conftest.py", "packaging/wheels.py"),
    "pip install --find-links": ("tests/packaging/test_dist.py", '"--find-links"'),
    "apt install": ("tests/packaging/test_tree.py", '"dpkg", "-i"'),
    "podman build": ("tests/packaging/test_container.py", '"build", "--isolation"'),
    "sudo": ("tests/packaging/test_readme.py", "blocks(page"),
    ". .venv": ("tests/packaging/test_dist.py", "venv.create"),
}


@pytest.fixture
def page(root: Path) -> Path:
    return root / "README.md"


def test_commands_without_a_network(root: Path, page: Path, tmp_path: Path) -> None:
    """Each command of the plain blocks succeeds, in order, and tells of the bundled calls."""
    script = "".join(blocks(page))
    assert script.count("otus ") >= 5
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=root, env=environment(tmp_path), capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"sip.method":"INVITE"') == 3
    assert "otus-stun 0.1.0" in done.stdout


@pytest.fixture
def hosts(network_namespaces: None) -> Iterator[TwoHosts]:
    with TwoHosts(interface="eth0") as made:
        yield made


@pytest.mark.root
def test_live_commands(root: Path, page: Path, hosts: TwoHosts, tmp_path: Path) -> None:
    """The foreground task captures real calls until Ctrl-C; then the daemon's life, in order."""
    foreground, daemon = blocks(page, "live")
    variables = environment(tmp_path)
    run_until_interrupted(root, variables, hosts, shlex.split(foreground.strip()), tmp_path)
    done = subprocess.run(
        hosts.inside(hosts.callee, "bash", "-euxo", "pipefail", "-c", daemon),
        cwd=root, env=variables, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sip-console" in done.stdout, done.stdout
    assert "otus_capture_packets_total{" in done.stdout, done.stdout


def run_until_interrupted(
    root: Path, variables: dict[str, str], hosts: TwoHosts, command: list[str], tmp_path: Path
) -> None:
    log = tmp_path / "run.log"
    with (
        log.open("w") as out,
        subprocess.Popen(
            hosts.inside(hosts.callee, *command), cwd=root, env=variables, stdout=out, stderr=out
        ) as process,
    ):
        try:
            hosts.wait_for_capture(hosts.callee)
            with hosts.answering():
                sent = hosts.call(1)
            wait_until(lambda: log.read_text().count("call-id=") == sent, what="all is reported")
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=300) == 0, log.read_text()
        finally:
            process.kill()
    told = log.read_text()
    assert told.splitlines()[-1] == "balanced", told


def test_its_task_is_a_good_one(page: Path, tmp_path: Path) -> None:
    """The task that README shows resolves against the installed plugins."""
    (text,) = blocks(page, language="yaml")
    file = tmp_path / "task.yaml"
    file.write_text(text)
    source = read_source(file)

    def inherit(kind: str, own: object) -> object:
        return {"brokers": ["localhost:9092"], **own} if kind == "kafka" else own  # type: ignore[dict-item]

    check_task(load(TaskConfig, file), source, PluginRegistry.load(), inherit)
    assert yaml.safe_load(text)["capture"]["type"] == "afpacket"


def test_every_other_command_is_run_somewhere(root: Path, page: Path) -> None:
    """Commands outside the blocks above are run by the test that ELSEWHERE names."""
    text = page.read_text(encoding="utf-8")
    for named, block in FENCE.findall(text):
        assert named in ("sh", "yaml"), block
    commands = [line for block in blocks(page, "elsewhere") for line in block.splitlines()]
    inline = re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    commands += [code for code in inline if re.match(r"(make|pip|podman|apt|sudo|\.) ", code)]
    assert len(commands) >= 8
    reference = (root / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    for command in commands:
        proof = [ELSEWHERE[start] for start in ELSEWHERE if command.startswith(start)]
        assert proof, f"no test runs: {command}"
        for name, call in proof:
            assert call in (root / name).read_text(encoding="utf-8"), (
                f"{name} does not run {command}"
            )
    for code in inline:
        if code.startswith("otus "):
            assert f"`otus {code.split()[1]}" in reference, code


def test_every_target_it_names_exists(root: Path) -> None:
    """`make NAME` in README and CONTRIBUTING is a target of the Makefile."""
    makefile = (root / "Makefile").read_text()
    for name in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\bmake ([a-z][a-z-]+)", (root / name).read_text()):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{name}: make {target}"


def skeleton(page: Path) -> dict[str, list[str]]:
    """What two languages have in common: the ranks of headings, code, links, pictures."""
    text = page.read_text(encoding="utf-8")
    prose = FENCE.sub("", text)
    links = re.findall(r"\]\(([^)\s]+)\)", prose)
    return {
        "headings": re.findall(r"^(#+) ", prose, re.MULTILINE),
        "blocks": [re.sub(r"[ \t]+# .*", "", block) for _, block in FENCE.findall(text)],
        # A sentence may put them in another order, and name one twice.
        "code": sorted(set(re.findall(r"`([^`\n]+)`", prose))),
        "links": sorted(set(links) - {CHINESE, "README.md"}),
    }


def test_the_chinese_readme_keeps_step(root: Path, page: Path) -> None:
    """It has the same headings, commands, code words and links as the English one."""
    english, chinese = skeleton(page), skeleton(root / CHINESE)
    assert english["blocks"]
    for part, found in english.items():
        assert chinese[part] == found, part
    assert f"({CHINESE})" in page.read_text(encoding="utf-8")
    assert "(README.md)" in (root / CHINESE).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["flow.svg", "speed.svg"])
def test_pictures_read_on_light_and_dark(root: Path, name: str) -> None:
    """Each brings a background of its own and recolours it for dark pages."""
    from xml.etree import ElementTree

    path = root / "docs" / "images" / name
    picture = ElementTree.parse(path).getroot()
    space = "{http://www.w3.org/2000/svg}"
    _, _, width, height = map(float, picture.attrib["viewBox"].split())
    card = picture.find(f"{space}rect[@class='card']")
    assert card is not None
    assert float(card.attrib["width"]) >= width - 1
    assert float(card.attrib["height"]) >= height - 1
    style = picture.findtext(f"{space}style") or ""
    light, _, dark = style.partition("@media (prefers-color-scheme: dark)")
    # Whatever has a colour in the light has one in the dark, and nothing is coloured in place.
    classes = {each for item in picture.iter() for each in item.attrib.get("class", "").split()}
    coloured = set(re.findall(r"\.(\w+)[^{}]*\{[^}]*(?:fill|stroke): #", light))
    assert coloured == set(re.findall(r"\.(\w+)[^{}]*\{[^}]*(?:fill|stroke): #", dark))
    assert classes - coloured <= {"head", "name"}
    assert not [item for item in picture.iter() if "fill" in item.attrib or "stroke" in item.attrib]
