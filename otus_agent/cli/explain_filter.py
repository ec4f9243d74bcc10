"""`otus explain-filter`: what the kernel takes and what the core then keeps."""

from __future__ import annotations

from collections.abc import Sequence

import rich_click as click

from otus_agent.capture_filter import (
    LINK_ETHERNET,
    REGISTERED_PORTS,
    TUNNEL_PROTOCOLS,
    explain,
    interface_link_type,
)

_KINDS = (*REGISTERED_PORTS, *TUNNEL_PROTOCOLS)


def _split(values: Sequence[str]) -> tuple[list[str], dict[str, list[int]]]:
    """Take "vxlan,gre" and "vxlan:4789" apart."""
    kinds: list[str] = []
    ports: dict[str, list[int]] = {}
    for entry in ",".join(values).split(","):
        kind, _, port = entry.strip().partition(":")
        if not kind:
            continue
        if kind not in _KINDS:
            raise click.BadParameter(f"no tunnel {kind}; there are: {', '.join(_KINDS)}")
        if port:
            if kind not in REGISTERED_PORTS or not port.isdecimal() or not 0 < int(port) < 65536:
                raise click.BadParameter(f"{entry}: no UDP port of {kind}")
            ports.setdefault(kind, []).append(int(port))
        if kind not in kinds:
            kinds.append(kind)
    return kinds, ports


@click.command(name="explain-filter")
@click.argument("expression")
@click.option(
    "--tunnels",
    "-t",
    multiple=True,
    metavar="KIND[:PORT]",
    help=f"Tunnels that the task follows: {', '.join(_KINDS)}; several with commas.",
)
@click.option("--interface", "-i", help="Make the program for this interface; else for Ethernet.")
def explain_filter(expression: str, tunnels: tuple[str, ...], interface: str | None) -> None:
    """Show what becomes of a capture filter.

    EXPRESSION is what tcpdump takes, in quotes. The kernel gets a wider program,
    so that fragments, VLAN tags and tunnels reach the decoder; the exact one
    judges each packet after decoding.
    """
    kinds, ports = _split(tunnels)
    link_type = interface_link_type(interface) if interface else LINK_ETHERNET
    click.echo(explain(expression, link_type=link_type, tunnels=kinds, tunnel_ports=ports))
