"""One end of dynamic authorization, whole: packets, decisions and sockets put together for those who have the sessions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from cpe_mcp.aaa.dynamic import Attributes, Decision, Nas, Sessions, decide
from cpe_mcp.aaa.dynamic_packets import DynamicAuthorization, Rules
from cpe_mcp.aaa.dynamic_server import DynamicServer, Place

log = logging.getLogger(__name__)

CLOCK_BEGINS = 1767225600
"""1 January 2026: a clock that shows less was never set."""


class DynamicEnd:
    """``nas()``: who we are now; ``abilities``: see :func:`cpe_mcp.aaa.dynamic.decide`."""

    def __init__(self, rules: Rules, *, nas: Callable[[], Nas], abilities: Collection[str], sessions: Sessions) -> None:
        self._rules = rules
        self._nas = nas
        self._abilities = abilities
        self._sessions = sessions
        self._core = DynamicAuthorization(rules, self._decide)
        self._server = DynamicServer(self._core, unix=_unix)
        self._errors: list[str] = []

    def configure(self, rules: Rules) -> None:
        """Other settings."""
        self._rules = rules
        self._core.configure(rules)

    def inherit(self, other: DynamicEnd) -> None:
        """What the end before has had is not taken again."""
        self._core.inherit(other._core)

    def follow(self, places: Iterable[Place], port: int) -> None:
        """Serve there and nowhere else; called now and then, for an address that comes later."""
        errors = self._server.follow(places, port)
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
        """For people, ready for JSON: ``addresses`` where it serves, ``counters``, and those of each of the ``peers``."""
        return {"addresses": [address for address, _ in self._server.places()], **self._core.status()}

    def _decide(self, code: int, attributes: Attributes) -> Decision:
        return decide(
            code,
            attributes,
            nas=self._nas(),
            enterprise=self._rules.enterprise,
            abilities=self._abilities,
            sessions=self._sessions,
        )


def _unix() -> float | None:
    now = time.time()
    return now if now >= CLOCK_BEGINS else None
