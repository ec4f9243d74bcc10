"""Files, environment and flags become a validated configuration, or problems with places.

The order of precedence is file, then environment, then flags. Every value
remembers where it came from, so that a complaint about it names the line of the
file, the environment variable or the flag.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from otus_agent.config.documents import (
    DocumentError,
    KeyPath,
    dotted,
    parse_document,
    resolve_plain,
)
from otus_agent.config.explaining import (
    ConfigurationProblems,
    Problem,
    alternatives,
    nearest,
    problems_of,
)

MAX_FILE_OCTETS = 16 * 1024 * 1024

ENVIRONMENT_PREFIX = "OTUS_"

# Names that begin with the prefix and are no keys of the configuration.
OTHER_ENVIRONMENT_NAMES = frozenset(
    {
        "OTUS_CONFIG",
        "OTUS_SOCKET",
        "OTUS_OUTPUT",
        "OTUS_PLUGIN_PATH",
        "OTUS_FLEET_KEY",
        "OTUS_CORPUS",
        "OTUS_EMULATED",
        "OTUS_KAFKA_CACHE",
        "OTUS_CFLAGS",
        "OTUS_WHEEL_PLATFORM",
    }
)
# Those of them that are worth proposing.
_USERS_OTHER_NAMES = ("OTUS_CONFIG", "OTUS_SOCKET", "OTUS_OUTPUT", "OTUS_PLUGIN_PATH")
_FLAG = "--set "
_OTHER_ENVIRONMENT_PREFIXES = ("OTUS_TEST_", "OTUS_BENCH_")

ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(slots=True)
class Source:
    """A tree of plain values that knows where each of them came from."""

    name: str
    data: Any = None
    values: dict[KeyPath, str] = field(default_factory=dict)
    keys: dict[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath, *, key: bool = False) -> str:
        """The place of the value at path, or of the nearest one around it."""
        if key and path in self.keys:
            return self.keys[path]
        for length in range(len(path), -1, -1):
            if path[:length] in self.values:
                return self.values[path[:length]]
        return self.name


def read_source(path: str | Path) -> Source:
    """The document in a YAML or JSON file, not yet validated.

    Raises:
        ConfigurationProblems: the file can't be read, or is not one
            well-formed document.
    """
    name = str(path)
    try:
        with Path(path).open("rb") as file:
            octets = file.read(MAX_FILE_OCTETS + 1)
    except OSError as error:
        message = f"can't be read: {error.strerror or error}"
        raise ConfigurationProblems([Problem(name, "", message)]) from None
    if len(octets) > MAX_FILE_OCTETS:
        message = f"larger than {MAX_FILE_OCTETS} octets"
        raise ConfigurationProblems([Problem(name, "", message)])
    try:
        text = octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"not UTF-8 text (octet {error.start})"
        raise ConfigurationProblems([Problem(name, "", message)]) from None
    return parse_source(text, name)


def parse_source(text: str, name: str) -> Source:
    """The YAML or JSON document in text; name stands for it in complaints.

    Raises:
        ConfigurationProblems: it is not one well-formed document.
    """
    try:
        document = parse_document(text)
    except DocumentError as error:
        where = f"{name}:{error.line}:{error.column}"
        raise ConfigurationProblems([Problem(where, error.key, error.message)]) from None
    return Source(
        name,
        document.data,
        {path: f"{name}:{line}:{column}" for path, (line, column) in document.values.items()},
        {path: f"{name}:{line}:{column}" for path, (line, column) in document.keys.items()},
    )


def load(
    model: type[ModelT],
    path: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> ModelT:
    """The configuration that file, environment and flags give together.

    Args:
        model: what to validate into.
        path: the file, or None for defaults.
        environment: names and values, usually ``os.environ``.
        flags: dotted key to text, as ``--set`` gives them.

    Raises:
        ConfigurationProblems: any of them is wrong; all problems are listed.
    """
    source = read_source(path) if path is not None else Source("defaults")
    return load_source(model, source, environment, flags)


def load_source(
    model: type[ModelT],
    source: Source,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> ModelT:
    """The same from a document that has been read.

    Raises:
        ConfigurationProblems: any of them is wrong; all problems are listed.
    """
    if source.data is None:
        source.data = {}
    if not isinstance(source.data, dict):
        message = "must be a mapping of keys to values"
        raise ConfigurationProblems([Problem(source.where(()), "", message)])
    problems: list[Problem] = []
    if environment is not None:
        problems += _apply_environment(source, model, environment)
    for key, text in (flags or {}).items():
        problems += _apply_text(source, model, tuple(key.split(".")), text, _FLAG + key)
    if problems:
        raise ConfigurationProblems(problems)
    return validate(model, source)


def validate(model: type[ModelT], source: Source) -> ModelT:
    """Source's data as a model.

    Raises:
        ConfigurationProblems: one or more values are wrong.
    """
    try:
        return model.model_validate({} if source.data is None else source.data)
    except ValidationError as error:
        raise ConfigurationProblems(problems_of(error, model, source)) from None


# --- Environment and flags ---------------------------------------------------


def _apply_environment(
    source: Source, model: type[BaseModel], environment: Mapping[str, str]
) -> list[Problem]:
    problems: list[Problem] = []
    for name in sorted(environment):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in OTHER_ENVIRONMENT_NAMES:
            continue
        if name.startswith(_OTHER_ENVIRONMENT_PREFIXES):
            continue
        parts = tuple(part.lower() for part in name[len(ENVIRONMENT_PREFIX) :].split("__"))
        problems += _apply_text(source, model, parts, environment[name], name)
    return problems


def _apply_text(
    source: Source, model: type[BaseModel], parts: tuple[str, ...], text: str, where: str
) -> list[Problem]:
    """Puts text at the key path that parts name; returns what is wrong with it."""
    resolved = _resolve(model, parts, source.data)
    if resolved is None:
        return [Problem(where, "", f"unknown key{_nearest_name(where, model)}")]
    path, annotation = resolved
    try:
        value = parse_text(text, annotation)
    except ValueError as error:
        return [Problem(where, dotted(path), str(error))]
    target = source.data
    for depth, part in enumerate(path[:-1]):
        wanted = list if isinstance(path[depth + 1], int) else dict
        step = _member(target, part)
        if step is None:
            step = _put(target, part, wanted())
        if not isinstance(step, wanted):
            shape = "list" if wanted is list else "mapping"
            return [Problem(where, dotted(path[: depth + 1]), f"is no {shape} in the file")]
        target = step
    _put(target, path[-1], value)
    for known in [known for known in source.values if known[: len(path)] == path]:
        del source.values[known]
    source.values[path] = where
    return []


def _resolve(
    model: type[BaseModel], parts: tuple[str, ...], data: Any
) -> tuple[KeyPath, Any] | None:
    """The key path and type that parts name in model, or None when it has no such key."""
    annotation: Any = model
    path: KeyPath = ()
    for part in parts:
        step = _step(annotation, part, data)
        if step is None:
            return None
        key, annotation = step
        data = _member(data, key)
        path = (*path, key)
    return (path, annotation) if path else None


def _step(annotation: Any, part: str, data: Any) -> tuple[str | int, Any] | None:
    for candidate in alternatives(annotation):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            for name, field_info in candidate.model_fields.items():
                if name.lower() == part.lower():
                    return name, field_info.annotation
            if candidate.model_config.get("extra") == "allow":
                return part, Any
        origin = get_origin(candidate)
        if origin is dict:
            return part, get_args(candidate)[1]
        if origin in (list, tuple) and part.isdigit():
            index = int(part)
            if index <= len(data if isinstance(data, list) else ()):
                return index, get_args(candidate)[0]
    return None


def _member(data: Any, key: str | int) -> Any:
    if isinstance(data, dict):
        return data.get(key)
    if isinstance(data, list) and isinstance(key, int) and key < len(data):
        return data[key]
    return None


def _put(target: Any, key: str | int, value: Any) -> Any:
    if isinstance(key, int) and key == len(target):
        target.append(value)
    else:
        target[key] = value
    return value


def parse_text(text: str, annotation: Any) -> Any:
    """The value of an environment variable or flag for a key of this type.

    Lists are JSON or separated by commas, mappings are JSON or ``k=v`` pairs
    separated by commas; anything else is a YAML scalar, or the text itself
    where the key takes text. A key that may be anything, such as a plugin's
    own, takes JSON lists and mappings, and YAML scalars.

    Raises:
        ValueError: it looks like JSON and is not.
    """
    kinds = alternatives(annotation)
    if type(None) in kinds and text in ("", "null", "~"):
        return None
    for alternative in kinds:
        origin = get_origin(alternative)
        is_model = isinstance(alternative, type) and issubclass(alternative, BaseModel)
        if origin in (list, tuple, set, frozenset):
            if text.lstrip().startswith("["):
                return _parse_json(text)
            return [item.strip() for item in text.split(",") if item.strip()]
        if origin is dict or is_model:
            if is_model or text.lstrip().startswith("{"):
                return _parse_json(text)
            return _parse_pairs(text)
    if Any in kinds:
        return _parse_json(text) if text.lstrip()[:1] in ("[", "{") else resolve_plain(text.strip())
    if kinds == [str] or not any(one in (int, float, bool) for one in kinds):
        return text
    return resolve_plain(text.strip())


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("must be valid JSON") from None


def _parse_pairs(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in filter(None, (item.strip() for item in text.split(","))):
        key, separator, value = item.partition("=")
        if not separator:
            raise ValueError("must be JSON, or key=value pairs separated by commas")
        pairs[key.strip()] = value.strip()
    return pairs


def environment_names(model: type[BaseModel], prefix: str = ENVIRONMENT_PREFIX) -> list[str]:
    """The environment variable of every section and key of a model."""
    return [prefix + "__".join(path).upper() for path in key_paths(model)]


def key_paths(model: type[BaseModel]) -> list[tuple[str, ...]]:
    """Every key of a model and of the models in it, lists of models left closed."""
    paths: list[tuple[str, ...]] = []
    for name, field_info in model.model_fields.items():
        paths.append((name,))
        for alternative in alternatives(field_info.annotation):
            if isinstance(alternative, type) and issubclass(alternative, BaseModel):
                paths += [(name, *below) for below in key_paths(alternative)]
    return paths


def _nearest_name(where: str, model: type[BaseModel]) -> str:
    """The variable or flag that was meant, or which sections there are."""
    if where.startswith(_FLAG):
        names = [_FLAG + ".".join(path) for path in key_paths(model)]
        sections = [f"{_FLAG}{section}" for section in model.model_fields]
        return nearest(where, names, _FLAG) or nearest("", sections, _FLAG)
    names = [*environment_names(model), *_USERS_OTHER_NAMES]
    sections = [f"{ENVIRONMENT_PREFIX}{section.upper()}__..." for section in model.model_fields]
    return nearest(where, names, ENVIRONMENT_PREFIX) or nearest("", sections)
