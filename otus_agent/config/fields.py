"""Field types that several configuration models share."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    WithJsonSchema,
)

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

_UNIT_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)")
_DURATION_PATTERN = r"^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h|d))+$"


def parse_duration(value: Any) -> float:
    """Seconds of a duration such as ``5s``, ``1m30s`` or ``250ms``.

    Args:
        value: text, or a number of seconds.

    Raises:
        ValueError: it is neither, or it is negative.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("must be a duration such as 500ms, 5s or 1m30s")
    if isinstance(value, str):
        text = value.strip()
        parts = _DURATION_PART.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise ValueError("must be a duration such as 500ms, 5s or 1m30s")
        return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    seconds = float(value)
    if not 0 <= seconds < 1e12:
        raise ValueError("must be a duration that is not negative")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest text that ``parse_duration`` reads back as the same value."""
    if seconds == 0:
        return "0s"
    if seconds < 1:
        milliseconds = round(seconds * 1000, 6)
        return f"{milliseconds:g}ms"
    for unit in ("d", "h", "m"):
        if seconds % _UNIT_SECONDS[unit] == 0:
            return f"{int(seconds // _UNIT_SECONDS[unit])}{unit}"
    return f"{int(seconds)}s" if seconds == int(seconds) else f"{seconds!r}s"


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": _DURATION_PATTERN},
                {"type": "number", "minimum": 0},
            ],
            "description": "a duration: 500ms, 5s, 1m30s, or a number of seconds",
        }
    ),
]
"""Seconds as a float, written as ``5s`` or ``1m30s``."""


def _positive(seconds: float) -> float:
    if seconds <= 0:
        raise ValueError("must be a duration longer than 0s")
    return seconds


PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
"""A ``Duration`` that is not zero."""


def split_address(text: str) -> tuple[str, int]:
    """Host and port of ``host:port``, ``:port`` (host empty) or ``[v6]:port``.

    Raises:
        ValueError: there is no port, or it is not in 0..65535.
    """
    host, separator, port = text.rpartition(":")
    if not separator or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("must be host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("must be host:port, an IPv6 address in brackets")
    return host, int(port)


def _listen_address(text: str) -> str:
    split_address(text)
    return text


ListenAddress = Annotated[str, AfterValidator(_listen_address)]
"""``host:port`` to listen on; ``:port`` means every address."""


class ConfigModel(BaseModel):
    """The base of every section: unknown keys are errors, values do not change."""

    # Building validators for every section takes longer than the daemon may take
    # to answer; deferred, a section is built once, as part of the whole. For the
    # same reason the text below a field is read from the source for schemas alone,
    # and not by pydantic for each model (use_attribute_docstrings).
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in field_docs(cls).items():
            if name in properties:
                properties[name]["description"] = text
        return schema


def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """The text below each field of a model, in its source; none where there is no source."""
    import ast
    import inspect
    import textwrap

    docs: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, ConfigModel):
            continue
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except (OSError, TypeError):
            continue
        definition = ast.parse(source).body[0]
        assert isinstance(definition, ast.ClassDef)  # noqa: S101 it is a class's source
        for field, below in itertools.pairwise(definition.body):
            match field, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    docs[name] = inspect.cleandoc(text)
    return docs
