"""Wires the concentrator's end of dynamic authorization: what the settings want, the packets, the sessions, the sockets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any

from cpe_mcp.aaa.dynamic import Attributes, Decision, Nas, decide
from cpe_mcp.aaa.dynamic_packets import DynamicAuthorization, Rules, plain_address
from cpe_mcp.aaa.dynamic_server import DynamicServer
from cpe_mcp.concentrator.dynamic import ABILITIES, SubscriberSessions
from cpe_mcp.settings import ConcentratorSettings, split_host

log = logging.getLogger(__name__)


class DynamicEnd:
    """``own_addresses()``: those by which a NAS-IP-Address may mean us."""

    def __init__(
        self,
        settings: ConcentratorSettings,
        sessions: SubscriberSessions,
        own_addresses: Callable[[], Collection[str]],
    ) -> None:
        self._settings = settings
        self._sessions = sessions
        self._own_addresses = own_addresses
        self._core = DynamicAuthorization(rules(settings), self._decide)
        self._server = DynamicServer(self._core)
        self._errors: list[str] = []

    def configure(self, settings: ConcentratorSettings) -> None:
        """Other settings."""
        self._settings = settings
        self._core.configure(rules(settings))
        self.follow()

    def follow(self) -> None:
        """Open what the settings want and is not open; called now and then, for an address that comes later."""
        dynamic = self._settings.dynamic
        places = [(address, dynamic.device) for address in dynamic.address] if dynamic.enabled else []
        errors = self._server.follow(places, dynamic.port)
        for line in errors:
            if line not in self._errors:
                log.error("%s", line)
        self._errors = errors

    def close(self) -> None:
        """Serve nowhere."""
        self._server.close()

    @property
    def counters(self) -> dict[str, int]:
        """Requests by what came of them."""
        return dict(self._core.counters)

    def status(self) -> dict[str, Any]:
        """For people, ready for JSON."""
        dynamic = self._settings.dynamic
        return {
            "enabled": dynamic.enabled,
            "port": dynamic.port,
            "addresses": [address for address, _ in self._server.places()],
            **self._core.status(),
        }

    def _decide(self, code: int, attributes: Attributes) -> Decision:
        radius = self._settings.radius
        return decide(
            code,
            attributes,
            nas=Nas(radius.nas_identifier, [plain_address(text) for text in self._own_addresses()]),
            enterprise=radius.enterprise,
            abilities=ABILITIES,
            sessions=self._sessions,
        )


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
