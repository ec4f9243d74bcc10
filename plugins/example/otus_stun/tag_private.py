"""Labels packets by whether their addresses are private, one by one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from otus_sdk import OutputPacket, PluginFactory, PluginKind


@dataclass(frozen=True, slots=True)
class TagPrivateConfig:
    """The `config` section: a plain dataclass will do."""

    drop_internal: bool = False


@lru_cache(maxsize=65536)
def is_private(address: str) -> bool:
    """Whether the address never leaves its network; False for no address."""
    try:
        return ip_address(address).is_private
    except ValueError:
        return False


class TagPrivate:
    """Sets `net.scope` to internal, outbound, inbound or external."""

    name = "tag_private"

    def init(self, config: TagPrivateConfig) -> None:
        """Takes the configuration."""
        self._drop_internal = config.drop_internal

    def start(self) -> None:
        """Nothing to open."""

    def stop(self) -> None:
        """Nothing to close."""

    def process(self, packet: OutputPacket) -> bool:
        """Labels the packet; False drops it."""
        source, target = is_private(packet.src_ip), is_private(packet.dst_ip)
        if source and target:
            scope = "internal"
        elif source:
            scope = "outbound"
        else:
            scope = "inbound" if target else "external"
        packet.labels["net.scope"] = scope
        return not (self._drop_internal and scope == "internal")


FACTORY = PluginFactory(
    kind=PluginKind.PROCESSOR,
    name="tag_private",
    create=TagPrivate,
    config_type=TagPrivateConfig,
    description="Labels packets by private and public addresses",
)
