"""Which destinations a concentrator refuses, compiled to the rows of a destination table (design D15).

A concentrator is a proxy on the Internet: without this it would open the operator's own network to every subscriber. Global
addresses are reachable, nothing else; an IPv4 address that is refused is refused in every IPv6 form that embeds it, too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from cpe_mcp.policy.address_space import GLOBAL6, MULTICAST4, NOT_GLOBAL4, RETIRED_RELAY4

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")

NOT_GLOBAL6 = ("2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16")
"""Exceptions inside it and beside it: protocol assignments with Teredo and ORCHID, documentation, segment routing."""
REACHABLE6_EXCEPTIONS = ("64:ff9b::/96",)
"""NAT64 stands for IPv4: its global addresses are reachable, the others are refused by embedding."""


def compile_rows(*, allow: Iterable[str], deny: Iterable[str], own: Iterable[str]) -> dict[str, list[list[Any]]]:
    """``{"allow": rows, "deny": rows}``, a row being ``[16 octets, prefix length]``.

    ``allow`` of the settings wins over what is refused by default; ``deny`` and our ``own`` addresses win over everything.
    """
    refused = [ipaddress.ip_network(text) for text in (*deny, *own)]
    allowed = [network for text in allow if not _inside(network := ipaddress.ip_network(text), refused)]
    allowed += [MAPPED, ipaddress.ip_network(GLOBAL6), *map(ipaddress.ip_network, REACHABLE6_EXCEPTIONS)]
    denied = [ipaddress.ip_network(text) for text in (*NOT_GLOBAL4, MULTICAST4, RETIRED_RELAY4, *NOT_GLOBAL6)]
    # Longest match decides and, at equal length, the denied one: an allowed prefix that equals a default must unseat it.
    default_forms = {form for network in denied for form in _forms(network)}
    allowed_forms = {form for network in allowed for form in _forms(network)}
    refused_forms = {form for network in refused for form in _forms(network)}
    return {
        "allow": [_row(form) for form in sorted(allowed_forms - refused_forms)],
        "deny": [_row(form) for form in sorted((default_forms - allowed_forms) | refused_forms)],
    }


def _forms(network: Network) -> set[ipaddress.IPv6Network]:
    """The prefix as IPv6, and every IPv6 prefix that stands for it."""
    if isinstance(network, ipaddress.IPv6Network):
        return {network}
    address, length = int(network.network_address), network.prefixlen
    return {
        ipaddress.IPv6Network((int(MAPPED.network_address) | address, 96 + length)),
        ipaddress.IPv6Network((int(NAT64.network_address) | address, 96 + length)),
        ipaddress.IPv6Network((int(SIX_TO_FOUR.network_address) | address << 80, 16 + length)),
    }


def _inside(network: Network, refused: Iterable[Network]) -> bool:
    return any(network.version == other.version and network.subnet_of(other) for other in refused)  # type: ignore[arg-type]


def _row(network: ipaddress.IPv6Network) -> list[Any]:
    return [network.network_address.packed, network.prefixlen]
