"""Concentrators in the standard attributes DHCPv4-Options (245.4) and DHCPv6-Options (245.3) of RFC 9445.

They are of the Long Extended Type (RFC 6929 section 2.2), which no library at hand knows: a value is the extended type, an
octet whose first bit says that the next attribute continues it, and then raw DHCP options.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cpe_mcp.aaa.attributes import Concentrator
from cpe_mcp.discovery.dhcp_options import OptionError, join_instances, pull_dhcp4, pull_dhcp6, pull_passthru

LONG_EXTENDED_5 = 245
DHCPV6_OPTIONS, DHCPV4_OPTIONS = 3, 4
"""Extended types (RFC 9445 sections 3.1 and 3.2)."""
MORE = 0x80
PAD, END = 0, 255
"""DHCPv4 options of one octet (RFC 2132 section 3)."""


def pull_dhcp_concentrators(values: Sequence[bytes], *, code4: int, code6: int) -> tuple[list[Concentrator], list[str]]:
    """The concentrators in all attributes 245 of one Accept, and why what is malformed was left out.

    Options of other codes are ignored: only those that are set are permitted (RFC 9445 section 3.3).
    """
    whole, errors = join_fragments(values)
    found: list[Concentrator] = []
    options4: list[tuple[int, bytes]] = []
    instances6: list[bytes] = []
    for kind, data in whole:
        try:
            if kind == DHCPV4_OPTIONS:
                options4 += split_dhcp4(data)
            elif kind == DHCPV6_OPTIONS:
                instances6 += pull_passthru(data, code6)
        except OptionError as error:
            errors.append(f"DHCPv{4 if kind == DHCPV4_OPTIONS else 6}-Options: {error.reason}")
    joined = join_instances(options4, code4)
    for family, value in ((4, joined), (6, instances6)):
        try:
            if isinstance(value, bytes):
                found += [(mcp, 0) for mcp in pull_dhcp4(value, code4)]
            elif value:
                found += [(mcp, 0) for mcp in pull_dhcp6(value, code6)]
        except OptionError as error:
            errors.append(f"DHCPv{family}-Options: {error}")
    return found, errors


def join_fragments(values: Iterable[bytes]) -> tuple[list[tuple[int, bytes]], list[str]]:
    """``(extended type, value)`` of each whole attribute, and why others were left out."""
    whole: list[tuple[int, bytes]] = []
    errors: list[str] = []
    begun: tuple[int, bytes] | None = None
    for value in values:
        if len(value) < 2:
            errors.append(f"attribute 245: {len(value)} octets hold no extended type")
            begun = None
            continue
        kind, data = value[0], value[2:]
        if begun is not None and begun[0] != kind:
            errors.append(f"attribute 245.{begun[0]}: its continuation is missing")
            begun = None
        if begun is not None:
            data = begun[1] + data
        if value[1] & MORE:
            begun = kind, data
        else:
            whole.append((kind, data))
            begun = None
    if begun is not None:
        errors.append(f"attribute 245.{begun[0]}: its continuation is missing")
    return whole, errors


def split_dhcp4(data: bytes) -> list[tuple[int, bytes]]:
    """Raw DHCPv4 options as ``(code, value)``, in order and not yet joined. Raises OptionError."""
    options = []
    at = 0
    while at < len(data):
        code = data[at]
        if code == END:
            break
        if code == PAD:
            at += 1
            continue
        start = at + 2
        size = data[at + 1] if at + 1 < len(data) else 0
        if start > len(data) or start + size > len(data):
            raise OptionError("DHCPv4 options", f"cut short in the option at octet {at}")
        options.append((code, data[start : start + size]))
        at = start + size
    return options
