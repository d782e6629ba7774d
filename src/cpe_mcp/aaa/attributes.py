"""What our vendor-specific RADIUS attributes say: octets to concentrators and back, caps, the scheme.

No attribute was ever assigned for this; the enterprise number is a setting (design D12). One octets attribute per
concentrator and not a TLV with sub-attributes: RADIUS libraries merge several TLVs of one type into one when they
decode, and which address belongs to which concentrator would be lost. Packets and sockets must not be in here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple

from cpe_mcp.paths.scheme import split_scheme

Concentrator = tuple[tuple[str, ...], int]
"""Addresses of one concentrator, best first, and its port; port 0 means the service port of the settings."""

CONCENTRATOR_IPV4 = 1
CONCENTRATOR_IPV6 = 2
CONCENTRATOR = 3
DOWN_MBIT = 4
UP_MBIT = 5
SCHEME = 6
SERVICE_CLASS = 7
SUBSCRIBER_KEY = 8
HANDLE = 9
WAN_ADDRESS = 10
QUOTA = 11
CONNECTIONS = 16
"""Vendor types, as in the dictionary file."""

_MAX_OCTETS = 247
"""What one vendor-specific attribute can hold (RFC 2865 section 5.26)."""
KEY_MIN_OCTETS = 16
"""Of a subscriber key: a shorter one can be guessed off line from one cookie."""
_INTEGER_OCTETS = 4
"""RFC 2865 section 5."""
_SHOWN_CHARS = 40
"""Of a value that is wrong: it goes to a log line."""
_ADDRESS_OCTETS = {4: 4, 6: 16}


class Quota(NamedTuple):
    """The volume of one month that an Accept grants on one WAN."""

    wan: str
    gb: float
    day: int = 0
    """Day of the month on which it begins anew; 0: as the settings say."""


class Terms(NamedTuple):
    """What an Accept says of how this subscriber is served; see :class:`cpe_mcp.aaa.answer.RadiusAnswer`."""

    down_mbit: int = 0
    up_mbit: int = 0
    scheme: str = ""
    connections: int = 0


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


def pull_integer(name: str, value: bytes) -> int:
    """The number in an attribute such as CPE-MCP-Down-Mbit. Raises AttributeValueError."""
    if len(value) != _INTEGER_OCTETS:
        raise AttributeValueError(f"{name}: {len(value)} octets, not {_INTEGER_OCTETS}")
    return int.from_bytes(value, "big")


def pull_scheme(value: bytes) -> str:
    """The scheme in a CPE-MCP-Scheme attribute; whether there is such a WAN is not known here. Raises AttributeValueError."""
    text = value.decode(errors="replace")
    try:
        split_scheme(text)
    except ValueError as error:
        raise AttributeValueError(f"CPE-MCP-Scheme: {str(error).replace(repr(text), repr(_shown(text)))}") from None
    return text


def pull_service_class(value: bytes) -> tuple[str, str]:
    """Service class and address of a CPE-MCP-Service-Class attribute, ``gaming 192.0.2.7``. Raises AttributeValueError."""
    text = value.decode(errors="replace")
    word, _, address = text.partition(" ")
    try:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,63}", word, re.ASCII):
            raise ValueError(word)
        return word, str(ip_address(address.strip()))
    except ValueError:
        raise AttributeValueError(
            f"CPE-MCP-Service-Class: {_shown(text)!r} is not a word and the address of a concentrator"
        ) from None


def pull_service_classes(values: Sequence[bytes]) -> tuple[list[tuple[str, str]], list[str]]:
    """All of one Accept, and why each attribute that is malformed was left out."""
    found, errors = [], []
    for value in values:
        try:
            found.append(pull_service_class(value))
        except AttributeValueError as error:
            errors.append(str(error))
    return found, errors


def pull_filter(value: bytes) -> str:
    """The name in a Filter-Id attribute (RFC 2865 section 5.11). Raises AttributeValueError."""
    text = value.decode(errors="replace")
    if not text or not text.isprintable():
        raise AttributeValueError("Filter-Id: not a name in printable characters")
    return text


def pull_filters(values: Sequence[bytes]) -> tuple[list[str], list[str]]:
    """All of one Accept, and why each attribute that is malformed was left out."""
    found, errors = [], []
    for value in values:
        try:
            found.append(pull_filter(value))
        except AttributeValueError as error:
            errors.append(str(error))
    return list(dict.fromkeys(found)), errors


def pull_terms(
    down: Sequence[bytes], up: Sequence[bytes], scheme: Sequence[bytes], connections: Sequence[bytes] = ()
) -> tuple[Terms, list[str]]:
    """The terms of one Accept, and why each attribute that is malformed was left out. The last one of a kind counts."""
    found: dict[str, Any] = {}
    errors = []
    for field, values, pull in (
        ("down_mbit", down, partial(pull_integer, "CPE-MCP-Down-Mbit")),
        ("up_mbit", up, partial(pull_integer, "CPE-MCP-Up-Mbit")),
        ("scheme", scheme, pull_scheme),
        ("connections", connections, partial(pull_integer, "CPE-MCP-Connections")),
    ):
        for value in values:
            try:
                found[field] = pull(value)
            except AttributeValueError as error:
                errors.append(str(error))
    return Terms(**found), errors


def pull_quota(value: bytes) -> Quota:
    """WAN, GB and perhaps day of a CPE-MCP-Quota attribute, ``lte 50 15``. Raises AttributeValueError."""
    text = value.decode(errors="replace")
    found = re.fullmatch(r"(\S{1,63}) +([0-9]{1,6}(?:\.[0-9]{1,6})?)(?: +([0-9]{1,2}))?", text, re.ASCII)
    day = int(found[3] or 0) if found is not None else 0
    if found is None or float(found[2]) == 0 or (found[3] and not 1 <= day <= 31):
        raise AttributeValueError(
            f"CPE-MCP-Quota: {_shown(text)!r} is not the name of a WAN, GB of a month and perhaps the day it begins on"
        )
    return Quota(found[1], float(found[2]), day)


def pull_quotas(values: Sequence[bytes]) -> tuple[list[Quota], list[str]]:
    """All of one Accept, and why each attribute that is malformed was left out."""
    found, errors = [], []
    for value in values:
        try:
            found.append(pull_quota(value))
        except AttributeValueError as error:
            errors.append(str(error))
    return found, errors


def pull_key(decrypted: bytes) -> bytes:
    """The key in a CPE-MCP-Subscriber-Key attribute after decryption. Raises AttributeValueError, which never shows it."""
    if len(decrypted) < KEY_MIN_OCTETS:
        raise AttributeValueError(
            f"CPE-MCP-Subscriber-Key: {len(decrypted)} octets, at least {KEY_MIN_OCTETS} are needed"
        )
    return decrypted


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:_SHOWN_CHARS]


def _text(octets: bytes) -> str:
    return str(IPv4Address(octets) if len(octets) == 4 else IPv6Address(octets))
