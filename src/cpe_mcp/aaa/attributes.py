"""What our vendor-specific RADIUS attributes say: octets to concentrators and back.

No attribute was ever assigned for this; the enterprise number is a setting (design D12). One octets attribute per
concentrator and not a TLV with sub-attributes: RADIUS libraries merge several TLVs of one type into one when they
decode, and which address belongs to which concentrator would be lost. Packets and sockets must not be in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

Concentrator = tuple[tuple[str, ...], int]
"""Addresses of one concentrator, best first, and its port; port 0 means the service port of the settings."""

CONCENTRATOR_IPV4 = 1
CONCENTRATOR_IPV6 = 2
CONCENTRATOR = 3
"""Vendor types, as in the dictionary file."""

_MAX_OCTETS = 247
"""What one vendor-specific attribute can hold (RFC 2865 section 5.26)."""
_ADDRESS_OCTETS = {4: 4, 6: 16}


class AttributeValueError(ValueError):
    """A RADIUS attribute whose value is not what its name promises."""


def push_concentrator(concentrator: Concentrator) -> bytes:
    """The value of a CPE-MCP-Concentrator attribute. Raises ValueError."""
    addresses, port = concentrator
    value = port.to_bytes(2, "big")
    for address in map(ip_address, addresses):
        value += bytes((address.version,)) + address.packed
    if not addresses or len(value) > _MAX_OCTETS:
        raise ValueError(
            f"{len(addresses)} addresses make no CPE-MCP-Concentrator: 1 to {_MAX_OCTETS} octets are needed"
        )
    return value


def pull_concentrator(value: bytes) -> Concentrator:
    """The concentrator in a CPE-MCP-Concentrator attribute. Raises AttributeValueError."""
    addresses = []
    at = 2
    while at < len(value):
        size = _ADDRESS_OCTETS.get(value[at])
        if size is None:
            raise AttributeValueError(f"CPE-MCP-Concentrator: address family {value[at]} at octet {at} is not 4 or 6")
        octets = value[at + 1 : at + 1 + size]
        if len(octets) < size:
            raise AttributeValueError(f"CPE-MCP-Concentrator: cut short in the address at octet {at}")
        addresses.append(_text(octets))
        at += 1 + size
    if not addresses:
        raise AttributeValueError("CPE-MCP-Concentrator: no address")
    return tuple(dict.fromkeys(addresses)), int.from_bytes(value[:2], "big")


def pull_address(value: bytes, octets: int) -> Concentrator:
    """The concentrator in a CPE-MCP-Concentrator-IPv4 or -IPv6 attribute. Raises AttributeValueError."""
    if len(value) != octets:
        raise AttributeValueError(
            f"CPE-MCP-Concentrator-IPv{4 if octets == 4 else 6}: {len(value)} octets, not {octets}"
        )
    return (_text(value),), 0


def pull_concentrators(
    groups: Sequence[bytes], ipv4: Sequence[bytes], ipv6: Sequence[bytes]
) -> tuple[list[Concentrator], list[str]]:
    """All concentrators of one Accept, and why each attribute that is malformed was left out."""
    found: list[Concentrator] = []
    errors = []
    for values, octets in ((groups, 0), (ipv4, 4), (ipv6, 16)):
        for value in values:
            try:
                found.append(pull_address(value, octets) if octets else pull_concentrator(value))
            except AttributeValueError as error:
                errors.append(str(error))
    return list(dict.fromkeys(found)), errors


def _text(octets: bytes) -> str:
    return str(IPv4Address(octets) if len(octets) == 4 else IPv6Address(octets))
