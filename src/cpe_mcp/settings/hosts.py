"""Addresses with ports, as options of kind ``host`` hold them."""

from __future__ import annotations

import ipaddress
import re


def split_host(host: str, default_port: int) -> tuple[str, int]:
    """Address and port of a ``host`` option: ``192.0.2.1``, ``192.0.2.1:1812``, ``2001:db8::1``, ``[2001:db8::1]:1812``.

    Raises ValueError.
    """
    bracketed = re.fullmatch(r"\[([^]]+)\](?::(\d+))?", host)
    if bracketed:
        address, port = str(ipaddress.IPv6Address(bracketed[1])), bracketed[2]
    elif host.count(":") == 1:
        text, port = host.split(":")
        address = str(ipaddress.IPv4Address(text))
    else:
        address, port = str(ipaddress.ip_address(host)), None
    if port is None:
        return address, default_port
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError(f"port {port}")
    return address, int(port)
