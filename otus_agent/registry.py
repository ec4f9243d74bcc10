"""Which plugins are installed, found by entry points and loaded when asked for.

Loading is lazy: an agent that runs no Kafka reporter does not pay for importing
one, and a plugin package that can't be imported troubles only those who name it.
"""

from __future__ import annotations

import difflib
import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from otus_sdk.errors import OtusError, PluginConflict, PluginInitFailed, PluginNotFound
from otus_sdk.factory import API_VERSION, PluginFactory, PluginKind, Stability

__all__ = ["PluginInfo", "PluginRegistry"]


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One installed plugin, as `otus plugins` lists it.

    Attributes:
        kind: What it does.
        name: What task files call it.
        distribution: The installed package that offers it, with its version.
        stability: Empty where it could not be loaded.
        description: One line; empty where it could not be loaded.
        error: Why it can't be used; empty where it can.
    """

    kind: PluginKind
    name: str
    distribution: str
    stability: Stability | None = None
    description: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Offer:
    """Somebody offers a plugin of this kind and name."""

    kind: PluginKind
    name: str
    distribution: str
    target: str
    load: Callable[[], object]


def add_plugin_folders() -> None:
    """Lets plugins be found in the folders of OTUS_PLUGIN_PATH, after what is installed.

    Each holds packages as `pip install --target FOLDER` lays them out.
    """
    for name in os.environ.get("OTUS_PLUGIN_PATH", "").split(os.pathsep):
        if name and name not in sys.path and Path(name).is_dir():
            sys.path.append(name)


class PluginRegistry:
    """The plugins that this agent can use.

    `get` and `plugins` are for any thread: a plugin that two load at once is the same.
    """

    def __init__(self, offers: Iterable[_Offer] = ()) -> None:
        self._offers: dict[tuple[PluginKind, str], list[_Offer]] = {}
        self._factories: dict[tuple[PluginKind, str], PluginFactory] = {}
        for offer in offers:
            self._add(offer)

    @classmethod
    def load(cls) -> PluginRegistry:
        """The registry of what is installed; imports no plugin yet."""
        add_plugin_folders()
        return cls(
            _Offer(kind, entry.name, _distribution(entry), entry.value, entry.load)
            for kind in PluginKind
            for entry in importlib.metadata.entry_points(group=kind.entry_point_group)
        )

    @classmethod
    def of(cls, *factories: PluginFactory, distribution: str = "tests") -> PluginRegistry:
        """A registry of these factories alone."""
        registry = cls()
        for factory in factories:
            registry.add(factory, distribution)
        return registry

    def add(self, factory: PluginFactory, distribution: str) -> None:
        """Offers one more plugin, beside the installed ones."""

        def load() -> object:
            return factory

        self._add(_Offer(factory.kind, factory.name, distribution, repr(factory.create), load))

    def _add(self, offer: _Offer) -> None:
        offers = self._offers.setdefault((offer.kind, offer.name), [])
        # A folder that is on sys.path twice lists its distributions twice.
        if all(
            (known.distribution, known.target) != (offer.distribution, offer.target)
            for known in offers
        ):
            offers.append(offer)

    def names(self, kind: PluginKind) -> list[str]:
        """The names offered for a kind, sorted."""
        return sorted(name for offered, name in self._offers if offered is kind)

    def get(self, kind: PluginKind, name: str) -> PluginFactory:
        """The factory of a plugin.

        Raises:
            PluginNotFound: Nothing of this kind and name is installed.
            PluginConflict: More than one package offers it.
            PluginInitFailed: It can't be imported, or is not what it should be.
        """
        key = (kind, name)
        if key in self._factories:
            return self._factories[key]
        offers = self._offers.get(key)
        if not offers:
            raise PluginNotFound(self._not_found(kind, name), details={"name": name})
        if len(offers) > 1:
            packages = " and ".join(sorted(offer.distribution for offer in offers))
            raise PluginConflict(
                f"two {kind}s are named {name!r}, by {packages}: uninstall one of them",
                details={"name": name, "distributions": [offer.distribution for offer in offers]},
            )
        factory = _checked(offers[0])
        self._factories[key] = factory
        return factory

    def plugins(self) -> list[PluginInfo]:
        """All that is installed, loading each; what can't be used says why."""
        infos: list[PluginInfo] = []
        for (kind, name), offers in sorted(self._offers.items()):
            distribution = " and ".join(sorted(offer.distribution for offer in offers))
            try:
                factory = self.get(kind, name)
            except OtusError as error:
                infos.append(PluginInfo(kind, name, distribution, error=error.message))
            else:
                infos.append(
                    PluginInfo(kind, name, distribution, factory.stability, factory.description)
                )
        return infos

    def _not_found(self, kind: PluginKind, name: str) -> str:
        message = f"no {kind} named {name!r}"
        others = [other for other in PluginKind if (other, name) in self._offers]
        if others:
            return f"{message}: it is a {others[0]}"
        names = self.names(kind)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
        if near:
            hints = [f"{known!r} of {self._offers[kind, known][0].distribution}" for known in near]
            return f"{message}: did you mean {' or '.join(hints)}?"
        known_names = ", ".join(names) or "none"
        return f"{message}; installed are {known_names}: is its package missing?"


def _distribution(entry: importlib.metadata.EntryPoint) -> str:
    dist = entry.dist
    return f"{dist.name} {dist.version}" if dist is not None else entry.value


def _checked(offer: _Offer) -> PluginFactory:
    whose = f"{offer.kind} {offer.name!r} of {offer.distribution}"
    try:
        factory = offer.load()
    except Exception as error:
        raise PluginInitFailed(f"{whose} can't be imported: {one_line(error)}") from error
    if not isinstance(factory, PluginFactory):
        raise PluginInitFailed(f"{whose}: {offer.target} is no PluginFactory")
    if factory.api_version != API_VERSION:
        older = "the package" if factory.api_version < API_VERSION else "otus"
        raise PluginInitFailed(
            f"{whose} speaks plugin API {factory.api_version}, this agent {API_VERSION}: "
            f"upgrade {older}"
        )
    if (factory.kind, factory.name) != (offer.kind, offer.name):
        raise PluginInitFailed(f"{whose} calls itself {factory.kind} {factory.name!r}")
    return factory


def one_line(error: BaseException) -> str:
    """An exception as one line: its class where it says nothing, its first line otherwise."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    name = type(error).__name__
    if not lines:
        return name
    return lines[0] if isinstance(error, OtusError | OSError) else f"{name}: {lines[0]}"
