"""Adds labels to every record: run by the core; the Python form is its reference."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from otus_sdk.factory import NativeStage, PluginFactory, PluginKind, Stability
from otus_sdk.labels import check_label_name
from otus_sdk.model import OutputPacket

__all__ = ["FACTORY", "LabelConfig", "LabelProcessor"]


class LabelConfig(BaseModel):
    """The `config` section."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: dict[str, str] = Field(default_factory=dict, max_length=64)
    tags: dict[str, str] = Field(default_factory=dict, max_length=64)
    agent_tags: dict[str, str] = Field(default_factory=dict)

    @field_validator("labels", "tags")
    @classmethod
    def _names(cls, labels: dict[str, str]) -> dict[str, str]:
        for name in labels:
            check_label_name(name)
        return labels

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.labels and not self.tags:
            raise ValueError("give labels, tags or both")
        twice = sorted(self.labels.keys() & self.tags.keys())
        if twice:
            raise ValueError(f"label {twice[0]!r} stands in labels and in tags")
        return self

    def values(self) -> dict[str, str]:
        """Label to value; a tag that this agent does not have gives an empty value."""
        from_tags = {name: self.agent_tags.get(tag, "") for name, tag in self.tags.items()}
        return {**self.labels, **from_tags}


class LabelProcessor:
    """The reference form of the core's label stage."""

    name = "label"

    def init(self, config: LabelConfig) -> None:
        """Takes the configuration."""
        self._values = config.values()

    def start(self) -> None:
        """Nothing to open."""

    def stop(self) -> None:
        """Nothing to close."""

    def process(self, packet: OutputPacket) -> bool:
        """Sets the labels; every record goes on."""
        packet.labels.update(self._values)
        return True


def _native(config: LabelConfig) -> NativeStage:
    return NativeStage("label", {"labels": config.values()})


FACTORY = PluginFactory(
    kind=PluginKind.PROCESSOR,
    name="label",
    create=LabelProcessor,
    config_type=LabelConfig,
    description="Adds labels with fixed values or the agent's tags",
    stability=Stability.STABLE,
    native=_native,
)
