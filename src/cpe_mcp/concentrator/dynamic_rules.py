"""What a concentrator's settings say of dynamic authorization."""

from __future__ import annotations

from cpe_mcp.aaa.dynamic_packets import Rules, plain_address
from cpe_mcp.aaa.dynamic_server import Place
from cpe_mcp.settings import ConcentratorSettings, split_host


def rules(settings: ConcentratorSettings) -> Rules:
    """Who may send, and what a packet must have. Without a client of its own it is the RADIUS servers, with their secret."""
    radius, dynamic = settings.radius, settings.dynamic
    secrets = {
        plain_address(address): client.secret.encode()
        for client in settings.dynamic_clients
        if client.enabled
        for address in client.address
    }
    if not settings.dynamic_clients:
        secrets = {plain_address(split_host(host, 0)[0]): radius.secret.encode() for host in radius.server}
    return Rules(
        secrets if dynamic.enabled else {},
        radius.enterprise,
        dynamic.require_message_authenticator,
        dynamic.require_timestamp,
        dynamic.window_s,
    )


def places(settings: ConcentratorSettings) -> list[Place]:
    """Where it listens."""
    dynamic = settings.dynamic
    return [(address, dynamic.device) for address in dynamic.address] if dynamic.enabled else []
