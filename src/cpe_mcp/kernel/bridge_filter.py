"""The kernel's packet filter below bridges, module br_netfilter: with it, a bridged LAN's connections cannot be taken.

It shows packets to nftables below the bridge already, and the socket that tproxy finds there is lost on the way up: the SYN
vanishes (seen on 6.18). Stock OpenWrt does not load it, container runtimes do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from cpe_mcp.kernel.sysctl import read

NAMES = ("net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables")


def active(lan: Iterable[str]) -> tuple[str, ...]:
    """Those of :data:`NAMES` that are on while one of these devices is a bridge."""
    found = tuple(name for name in NAMES if read(name) == "1")
    return found if found and any(os.path.isdir(f"/sys/class/net/{device}/bridge") for device in lan) else ()
