"""JSON Schemas of the configuration files, for editors and for ``otus config schema``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

SchemaKind = Literal["agent", "task"]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(kind: SchemaKind) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the global or of a task's configuration."""
    schema = {"$schema": _DRAFT} | model_for(kind).model_json_schema()
    schema["title"] = f"Otus {kind} configuration"
    return schema


def model_for(kind: SchemaKind) -> type[BaseModel]:
    """The model behind a kind of configuration file."""
    if kind == "agent":
        from otus_agent.config.agent import AgentConfig

        return AgentConfig
    from importlib import import_module

    model: type[BaseModel] = import_module("otus_agent.config.task").TaskConfig
    return model
