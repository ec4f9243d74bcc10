"""What pydantic says of a wrong configuration, in the words that an operator needs.

Where it stands, which key it is, what is wrong with it, and what is allowed.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from otus_agent.config.documents import KeyPath, dotted
from otus_agent.config.masking import MASK, is_secret_key, masked
from otus_sdk.errors import ConfigurationInvalid

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from otus_agent.config.loading import Source


# Longer lists of what is known do not help.
MAX_LISTED = 16

_SHAPES = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "list_type": "must be a list",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "dataclass_type": "must be a mapping of keys to values",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One complaint: where, about which key, and what is wrong and allowed."""

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        # A flag's place is its key.
        key = "" if self.where == f"--set {self.key}" else self.key
        return ": ".join(part for part in (self.where, key, self.message) if part)


def one_line_of(problems: Sequence[str]) -> str:
    """Problems in one line, without what points into an expression below them."""
    return "; ".join(problem.partition("\n")[0] for problem in problems)


class ConfigurationProblems(ConfigurationInvalid):
    """A configuration that can't be used; ``problems`` has all that is wrong with it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        lines = [str(problem) for problem in problems]
        super().__init__(one_line_of(lines), details={"problems": lines})
        self.problems = tuple(problems)


def problems_of(error: ValidationError, model: type[BaseModel], source: Source) -> list[Problem]:
    """The problems that a pydantic error tells of, in the order of their places in source."""
    problems = [_explain(details, model, source) for details in error.errors()]
    return in_order(problems)


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Problems in the order of their places."""
    return sorted(problems, key=_place)


def _place(problem: Problem) -> tuple[int, ...]:
    return tuple(int(part) for part in problem.where.split(":")[-2:] if part.isdigit())


def _explain(details: ErrorDetails, model: type[BaseModel], source: Source) -> Problem:
    path = _real_path(details["loc"], source)
    if details["type"] == "extra_forbidden":
        known = _keys_at(model, details["loc"][:-1])
        message = "unknown key" + nearest(str(path[-1]), known)
        return Problem(source.where(path, key=True), dotted(path), message)
    if details["type"] == "union_tag_invalid":
        path = (*path, str((details.get("ctx") or {})["discriminator"]).strip("'"))
    return Problem(source.where(path), dotted(path), message_of(details, path))


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """``, did you mean 'x'?`` or the list of what is known, when that is short.

    Args:
        name: what was given.
        known: what there is.
        prefix: what all of them begin with: it makes no name like another.
    """
    names = [one.removeprefix(prefix) for one in known]
    near = difflib.get_close_matches(name.removeprefix(prefix), names, n=1, cutoff=0.6)
    if near:
        return f", did you mean {prefix + near[0]!r}?"
    if names and len(names) <= MAX_LISTED:
        return f", known are {', '.join(prefix + one for one in names)}"
    return ""


def message_of(details: ErrorDetails, path: KeyPath) -> str:
    """What is wrong with the value at path, and what is allowed."""
    context = details.get("ctx") or {}
    kind, text = details["type"], details["msg"]
    match kind:
        case "missing":
            return "missing, must be given"
        case "union_tag_not_found":
            return f"must have a {context['discriminator']}"
        case "union_tag_invalid":
            tags = str(context["expected_tags"]).split(", ")
            listed = " or ".join(filter(None, (", ".join(tags[:-1]), tags[-1])))
            return f"must be {listed}, not {_shortened(repr(context['tag']))}"
        case "value_error":
            text = str(context.get("error", text))
        case "literal_error" | "enum":
            text = f"must be {context['expected']}"
        case "string_pattern_mismatch":
            text = f"must match {context['pattern']}"
        case "too_short":
            text = f"must have at least {context['min_length']} entries"
        case _:
            text = _SHAPES.get(kind, "") or text.replace("Input should", "must")
            text = text[:1].lower() + text[1:]
    return text + _given(details["input"], path)


def _given(value: Any, path: KeyPath) -> str:
    if any(isinstance(part, str) and is_secret_key(part) for part in path):
        return f", not {MASK}"
    if isinstance(value, (dict, list)):
        return ""
    return f", not {_shortened(repr(masked(value)))}"


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _real_path(loc: tuple[str | int, ...], source: Source) -> KeyPath:
    """Loc without the names of union members that pydantic puts into it."""
    data = source.data
    path: KeyPath = ()
    for index, part in enumerate(loc):
        is_last = index == len(loc) - 1
        if isinstance(data, dict) and (part in data or is_last):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int):
            data = data[part] if part < len(data) else None
        elif data is None and isinstance(part, str):
            pass
        else:
            continue
        path = (*path, part)
    return path


def _keys_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The keys that are known at a place in a model."""
    annotations: list[Any] = [model]
    for part in loc:
        below = [one for annotation in annotations for one in _below(annotation, part)]
        annotations = below or annotations
    models = [one for one in annotations if isinstance(one, type) and issubclass(one, BaseModel)]
    tagged = [one for one in models if loc and _has_tag(one, loc[-1])]
    return [name for one in tagged or models for name in one.model_fields]


def _below(annotation: Any, part: str | int) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        info = annotation.model_fields.get(str(part))
        return alternatives(info.annotation) if info else []
    origin = get_origin(annotation)
    if origin is dict:
        return alternatives(get_args(annotation)[1])
    if origin in (list, tuple) and isinstance(part, int):
        return alternatives(get_args(annotation)[0])
    return []


def _has_tag(model: type[BaseModel], tag: str | int) -> bool:
    info = model.model_fields.get("type")
    return info is not None and tag in get_args(info.annotation)


def alternatives(annotation: Any) -> list[Any]:
    """The types that an annotation allows, unions and Annotated taken apart."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return alternatives(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [one for member in get_args(annotation) for one in alternatives(member)]
    return [annotation]
