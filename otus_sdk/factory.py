"""How a plugin is found and made.

A distribution offers a plugin through an entry point in one of the groups
below, which loads a `PluginFactory`:

    [project.entry-points."otus.parser"]
    stun = "my_package.stun:FACTORY"
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from otus_sdk.protocols import Plugin

__all__ = [
    "API_VERSION",
    "NativeStage",
    "NoConfig",
    "PluginFactory",
    "PluginKind",
    "Stability",
]

API_VERSION: Final = 1
"""The version of the contracts in this package. It changes when a plugin has to change."""

_PLUGIN_NAME = re.compile(r"[a-z][a-z0-9_-]*\Z")


class PluginKind(enum.StrEnum):
    """What a plugin does in a pipeline."""

    CAPTURER = "capturer"
    PARSER = "parser"
    PROCESSOR = "processor"
    REPORTER = "reporter"

    @property
    def entry_point_group(self) -> str:
        """The entry point group that is searched for this kind: "otus.parser"."""
        return f"otus.{self.value}"


class Stability(enum.StrEnum):
    """What its users may expect of a plugin."""

    EXPERIMENTAL = "experimental"
    BETA = "beta"
    STABLE = "stable"


@dataclass(frozen=True, slots=True)
class NoConfig:
    """The configuration of a plugin that has none: any key is an error."""


@dataclass(frozen=True, slots=True)
class NativeStage:
    """A stage that the core runs instead of the plugin's Python methods.

    Attributes:
        kind: What the core knows: "sip", "rtp", "filter", "label" as stages;
            "afpacket", "file" as sources.
        config: The stage's own parameters, already validated.
    """

    kind: str
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PluginFactory:
    """All that the agent needs to know of a plugin before it makes one.

    Attributes:
        kind: What it does.
        name: What task files call it: "kafka". `[a-z][a-z0-9_-]*`, unique among
            the installed plugins of its kind.
        create: Makes an instance; takes nothing, opens nothing. `init(config)`
            follows.
        config_type: A pydantic model or a dataclass. The agent validates the
            task's configuration into it and names the key where it can't.
        description: One line for `otus plugins`.
        api_version: `API_VERSION` of the SDK it was written against; the agent
            refuses one that it does not speak.
        stability: What users may expect.
        native: Where the core can do the work: makes its stage from the
            validated configuration, or returns None where this configuration
            needs the Python form.
    """

    kind: PluginKind
    name: str
    create: Callable[[], Plugin]
    config_type: type = NoConfig
    description: str = ""
    api_version: int = API_VERSION
    stability: Stability = Stability.EXPERIMENTAL
    native: Callable[[Any], NativeStage | None] | None = None

    def __post_init__(self) -> None:
        if not _PLUGIN_NAME.match(self.name):
            raise ValueError(
                f"plugin name {self.name!r}: lower-case letters, digits, '_' and '-', "
                "a letter first"
            )
