"""Over which WANs RADIUS may be asked.

A server finds the secret by the asker's address, and behind CGN many homes share one: a UDP secret in a router is everybody's.
So UDP is only for networks where nobody else listens.
"""

from __future__ import annotations

import ipaddress

from cpe_mcp.settings.hosts import split_host
from cpe_mcp.settings.router import RouterSettings

UDP, TLS = "udp", "tls"


def may_carry(settings: RouterSettings) -> frozenset[str]:
    """Names of the WANs that may."""
    is_tls = settings.radius.transport == TLS
    return frozenset(wan.name for wan in settings.wans if wan.enabled and (is_tls or wan.operator_network))


def refusal(settings: RouterSettings) -> str:
    """Why RADIUS is not asked at all, and which option to set; "": it may be."""
    radius = settings.radius
    if not radius.enabled or may_carry(settings):
        return ""
    far = [host for host in radius.server if not ipaddress.ip_address(split_host(host, 1)[0]).is_loopback]
    if not far or not any(wan.enabled for wan in settings.wans):
        return ""
    return (
        f"RADIUS server {far[0]} is not asked: over UDP that is only done on a WAN that is the operator's own; set "
        "option operator_network '1' in the section of such a WAN, or option transport 'tls' in section radius"
    )
