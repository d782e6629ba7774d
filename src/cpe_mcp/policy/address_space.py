"""Which addresses are global: what an interception takes by default, and what a concentrator reaches by default."""

from __future__ import annotations

NOT_GLOBAL4 = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
)
"""IANA IPv4 special-purpose registry, what is not globally reachable; multicast apart."""
MULTICAST4 = "224.0.0.0/4"
RETIRED_RELAY4 = "192.88.99.0/24"
"""Anycast of 6to4 relays (RFC 7526): global by its registration, and nobody's server."""
GLOBAL6 = "2000::/3"
"""The only IPv6 space that is given out. Documentation and other exceptions inside it never leave a router anyway."""
