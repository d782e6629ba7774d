"""The DHCP options that carry concentrators (MCPs): octets to addresses and back.

The layouts are those of RFC 7291 (PCP servers), which the drafts for MCPs took over: a DHCPv4 option is a row of
(list length, addresses of one MCP); a DHCPv6 option is the addresses of one MCP, and there is one instance per MCP.
Ports are not carried. The option codes were never assigned, so they are arguments here (design D12). Where the octets
come from, how long they hold and which MCP is used must not be in here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

from cpe_mcp.discovery.srv import SERVICE

Mcp = tuple[str, ...]
"""The addresses of one MCP as text, in the order they were listed, without repetitions."""

MAX_HEX_CHARS = 2048
"""Longest option value taken, as hex: about what fits a DHCP message of one Ethernet frame, twice what anybody needs."""
MAX_PASSTHRU_HEX_CHARS = 8192
"""Longest passthru value taken: it holds all options of a DHCPv6 reply."""

_DOMAIN = re.compile(r"(?=.{3,253}$)([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z0-9-]{2,63}", re.ASCII)
"""Two labels at least."""
DOMAIN_MAX = 253 - len(f"{SERVICE}.")
"""Characters of a domain below which the service has its name: a name in DNS has 253 of them (RFC 1035 section 3.1)."""
_HEX = re.compile(r"[0-9a-f]*", re.ASCII)
_UNUSABLE4 = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("127.0.0.0/8"),
    IPv4Network("224.0.0.0/4"),
    IPv4Network("240.0.0.0/4"),
)
"""Multicast and loopback: RFC 7291; the other two are no host's address. Private ones are legitimate."""


class OptionError(ValueError):
    """A DHCP option that has to be discarded as a whole. Says which one and why."""

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(f"{option}: {reason}")
        self.option = option
        self.reason = reason


def pull_hex(text: str, option: str, limit: int = MAX_HEX_CHARS) -> bytes:
    """Octets of an option value as DHCP clients hand it over: lowercase hex without separators. Raises OptionError."""
    if len(text) > limit:
        raise OptionError(option, f"{len(text)} hex digits, at most {limit} are taken")
    if not _HEX.fullmatch(text):
        raise OptionError(option, "not lowercase hex digits")
    if len(text) % 2:
        raise OptionError(option, f"odd number of hex digits ({len(text)})")
    return bytes.fromhex(text)


def join_instances(options: Iterable[tuple[int, bytes]], code: int) -> bytes | None:
    """The value of DHCPv4 option ``code``: its instances in one message, concatenated in order (RFC 3396 section 5).

    None when the option is absent.
    """
    instances = [value for instance, value in options if instance == code]
    return b"".join(instances) if instances else None


def pull_dhcp4(data: bytes, code: int, *, own: Collection[str] = ()) -> list[Mcp]:
    """The MCPs in the joined value of DHCPv4 option ``code``.

    Addresses no host can have, and those in ``own`` (this router's), are left out; an MCP without any left is left
    out. Raises OptionError when a list length is zero, not a multiple of 4, or reaches beyond the option.
    """
    option = f"DHCPv4 option {code}"
    if not data:
        raise OptionError(option, "empty")
    mcps = []
    at = 0
    while at < len(data):
        size = data[at]
        start = at + 1
        at = start + size
        if size == 0 or size % 4:
            raise OptionError(option, f"list length {size} at octet {start - 1} is not a positive multiple of 4")
        if at > len(data):
            raise OptionError(
                option, f"list length {size} at octet {start - 1}, only {len(data) - start} octets follow"
            )
        mcps.append([_usable4(IPv4Address(data[i : i + 4])) for i in range(start, at, 4)])
    return _without_unusable(mcps, own)


def pull_domain(data: bytes, code: int) -> str:
    """The domain in a DHCPv4 option, in lower case; text without a terminator, as option 15 has it (RFC 2132 section 3.17).
    Raises OptionError."""
    text = data.decode("ascii", "replace").removesuffix("\0").removesuffix(".")  # some servers end texts with NUL
    if not _DOMAIN.fullmatch(text):
        raise OptionError(f"DHCPv4 option {code}", f"{text[:64]!r} is not a domain name")
    if len(text) > DOMAIN_MAX:
        raise OptionError(
            f"DHCPv4 option {code}", f"a domain of {len(text)} characters is too long for {SERVICE} below it"
        )
    return text.lower()


def pull_dhcp6(instances: Sequence[bytes], code: int, *, own: Collection[str] = ()) -> list[Mcp]:
    """The MCPs in all instances of DHCPv6 option ``code``, one MCP each; an IPv4-mapped address is the IPv4 address.

    Leaves out what :func:`pull_dhcp4` does. Raises OptionError when an instance is not a positive multiple of 16 octets.
    """
    mcps = []
    for number, data in enumerate(instances, 1):
        if not data or len(data) % 16:
            raise OptionError(
                f"DHCPv6 option {code}", f"length {len(data)} of instance {number} is not a positive multiple of 16"
            )
        mcps.append([_usable6(IPv6Address(data[i : i + 16])) for i in range(0, len(data), 16)])
    return _without_unusable(mcps, own)


def pull_passthru(data: bytes, code: int) -> list[bytes]:
    """Every instance of DHCPv6 option ``code`` in odhcp6c's PASSTHRU, which is a row of options as on the wire.

    The only place where all instances survive: its environment variables keep the last one. Raises OptionError when
    the row is cut short.
    """
    instances = []
    at = 0
    while at < len(data):
        start = at + 4
        size = int.from_bytes(data[at + 2 : start], "big")
        if start > len(data) or start + size > len(data):
            raise OptionError("DHCPv6 passthru", f"cut short in the option at octet {at}")
        if int.from_bytes(data[at : at + 2], "big") == code:
            instances.append(data[start : start + size])
        at = start + size
    return instances


def passthru_of_status(status: Mapping[str, Any]) -> str:
    """The passthru hex in netifd's answer to ``ubus call network.interface.NAME status``; "" when it has none."""
    data = status.get("data")
    passthru = data.get("passthru") if isinstance(data, Mapping) else None
    return passthru if isinstance(passthru, str) else ""


def push_dhcp4(mcps: Iterable[Sequence[str]]) -> bytes:
    """The value of the DHCPv4 option that hands out ``mcps``, each the IPv4 addresses of one. Raises ValueError."""
    value = b""
    for mcp in mcps:
        addresses = b"".join(IPv4Address(address).packed for address in mcp)
        if not 4 <= len(addresses) <= 0xFC:
            raise ValueError(f"an MCP has 1 to 63 IPv4 addresses in a DHCPv4 option, not {len(mcp)}")
        value += bytes((len(addresses),)) + addresses
    return value


def push_dhcp6(mcp: Sequence[str]) -> bytes:
    """The value of the one DHCPv6 option instance that hands out one MCP, IPv4 addresses in mapped form.

    Raises ValueError.
    """
    if not mcp:
        raise ValueError("an MCP has at least one address")
    return b"".join(IPv6Address(f"::ffff:{address}" if ":" not in address else address).packed for address in mcp)


def _usable4(address: IPv4Address) -> str:
    return "" if any(address in network for network in _UNUSABLE4) else str(address)


def _usable6(address: IPv6Address) -> str:
    if address.ipv4_mapped is not None:
        return _usable4(address.ipv4_mapped)
    # A link-local address means nothing without a scope, and the option has no room for one.
    unusable = address.is_multicast or address.is_loopback or address.is_unspecified or address.is_link_local
    return "" if unusable else str(address)


def _without_unusable(mcps: Iterable[Iterable[str]], own: Collection[str]) -> list[Mcp]:
    usable = (tuple(dict.fromkeys(a for a in mcp if a and a not in own)) for mcp in mcps)
    return list(dict.fromkeys(mcp for mcp in usable if mcp))
