"""IP addresses in the one text form that packets show (RFC 5952)."""

from __future__ import annotations

import ipaddress

__all__ = ["canonical_ip", "ip_octets"]

_MAPPED = bytes(10) + b"\xff\xff"


def ip_octets(text: str) -> bytes | None:
    """The 4 or 16 octets of an address, None where the text is no address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if getattr(address, "scope_id", None) is not None:
        return None
    return address.packed


def canonical_ip(text: str) -> str | None:
    """The address as the core writes it, None where the text is no address."""
    octets = ip_octets(text)
    if octets is None:
        return None
    # ipaddress shows the embedded IPv4 address from Python 3.13 on only.
    if len(octets) == 16 and octets.startswith(_MAPPED):
        return f"::ffff:{ipaddress.IPv4Address(octets[12:])}"
    return str(ipaddress.ip_address(octets))
