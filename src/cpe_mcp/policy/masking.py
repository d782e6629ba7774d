"""What of people may stand in logs and reports: the network of an address, the maker of a device. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection

MAC = re.compile(r"(?<![0-9A-Za-z])((?:[0-9A-Fa-f]{2}:){3})(?:[0-9A-Fa-f]{2}:){2}[0-9A-Fa-f]{2}(?![0-9A-Za-z:])")
IPV4 = re.compile(r"(?<![0-9])(?<![0-9]\.)[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9]|\.[0-9])(?:/[0-9]{1,2})?")
IPV6 = re.compile(r"[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:]*+(?![0-9A-Za-z_]|\.[0-9])(?:/[0-9]{1,3})?")
"""What may be an address or a network; :mod:`ipaddress` knows."""
IPV4_BITS, IPV6_BITS = 24, 48
"""What is left of an address. A network that is no smaller is not one home's."""


def shortened(address: str) -> str:
    """``192.168.1.x`` and ``2001:db8:1:x``: the network stays, the host goes. Anything else stays as it is."""
    import ipaddress  # not above: everything in policy stays light enough for a relay worker

    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    mapped = getattr(parsed, "ipv4_mapped", None)
    if mapped is not None:
        return f"::ffff:{shortened(str(mapped))}"
    if parsed.version == 4:
        return f"{address.rpartition('.')[0]}.x"
    groups = parsed.exploded.split(":")[: IPV6_BITS // 16]
    return ":".join(group.lstrip("0") or "0" for group in groups) + ":x"


def without_hosts(text: str, *, kept: Collection[str] = ()) -> str:
    """``text`` with every address of a host, network of a home and hardware address in it shortened. Addresses that are
    ``kept`` stay, and those that are nobody's (unspecified, loopback, multicast)."""
    text = MAC.sub(r"\1x", text)
    for pattern in (IPV4, IPV6):
        text = pattern.sub(lambda found: _without_host(found[0], kept), text)
    return text


def _without_host(text: str, kept: Collection[str]) -> str:
    """``text``: what a pattern has found, with a colon of the sentence before or behind it at most."""
    import ipaddress

    before = ":" if text.startswith(":") and not text.startswith("::") else ""
    behind = ":" if text.endswith(":") and not text.endswith("::") else ""
    written = text[len(before) : len(text) - len(behind)]
    address = written.partition("/")[0]
    try:
        network = ipaddress.ip_network(written, strict=False)
    except ValueError:
        return text
    is_wide = network.prefixlen <= (IPV4_BITS if network.version == 4 else IPV6_BITS)
    first = network.network_address
    if is_wide or address in kept or first.is_unspecified or first.is_loopback or first.is_multicast:
        return text
    return f"{before}{shortened(address)}{written[len(address) :]}{behind}"
