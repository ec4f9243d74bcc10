"""Keeps or drops records by a condition: run by the core; the Python form is its reference."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from otus_sdk.expression import (
    Expression,
    ExpressionError,
    Schema,
    check,
    evaluate,
    parse_expression,
)
from otus_sdk.factory import NativeStage, PluginFactory, PluginKind, Stability
from otus_sdk.model import OutputPacket

__all__ = ["FACTORY", "FilterConfig", "FilterProcessor"]

# Which labels a task has, only the agent knows: it checks their names when it
# compiles the condition for the core.
_ANY_LABEL = Schema(permissive=True)


class FilterConfig(BaseModel):
    """The `config` section: exactly one of the two."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    drop_if: str | None = None
    keep_if: str | None = None

    @field_validator("drop_if", "keep_if")
    @classmethod
    def _is_condition(cls, text: str | None) -> str | None:
        if text is None:
            return None
        try:
            check(parse_expression(text), text, _ANY_LABEL)
        except ExpressionError as error:
            raise ValueError(error.pointed()) from error
        return text

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.drop_if is None) == (self.keep_if is None):
            raise ValueError("give either drop_if or keep_if")
        return self

    @property
    def action(self) -> str:
        """The key that was given: drop_if or keep_if."""
        return "drop_if" if self.keep_if is None else "keep_if"

    @property
    def expression(self) -> str:
        """The condition."""
        return self.drop_if or self.keep_if or ""


class FilterProcessor:
    """The reference form of the core's filter stage."""

    name = "filter"

    def init(self, config: FilterConfig) -> None:
        """Takes the configuration."""
        self._tree: Expression = parse_expression(config.expression)
        self._keeps = config.action == "keep_if"

    def start(self) -> None:
        """Nothing to open."""

    def stop(self) -> None:
        """Nothing to close."""

    def process(self, packet: OutputPacket) -> bool:
        """Whether the record goes on."""
        return evaluate(self._tree, packet, _ANY_LABEL) == self._keeps


def _native(config: FilterConfig) -> NativeStage:
    return NativeStage("filter", {"action": config.action, "expression": config.expression})


FACTORY = PluginFactory(
    kind=PluginKind.PROCESSOR,
    name="filter",
    create=FilterProcessor,
    config_type=FilterConfig,
    description="Keeps or drops records by a condition over labels and network fields",
    stability=Stability.STABLE,
    native=_native,
)
