"""Puts the concentrator's nftables table in place, takes it away, and reads what it has dropped."""

from __future__ import annotations

import asyncio
import logging

from cpe_mcp.kernel.nft_table import counters, load
from cpe_mcp.kernel.numbers import CONCENTRATOR_TABLE
from cpe_mcp.policy.concentrator_rules import COUNTERS, Border, Shut, removal, render
from cpe_mcp.settings import ConcentratorSettings

log = logging.getLogger(__name__)


EVERY_ADDRESS = frozenset(("::", "0.0.0.0"))


def border_of(settings: ConcentratorSettings) -> Border:
    """What the settings want of the table."""
    limits = settings.limits
    return Border(
        ports=tuple(row.port for row in settings.listeners),
        source_rate=limits.source_rate,
        prefix_rate=limits.prefix_rate,
        stranger_rate=limits.stranger_rate,
        prefix_v4=limits.prefix_v4,
        prefix_v6=limits.prefix_v6,
        strict_source=limits.strict_source,
        shut=tuple(
            Shut(interface.device, listener.port, "" if address in EVERY_ADDRESS else address)
            for interface in settings.interfaces
            for listener in settings.listeners
            if listener.facing != interface.facing
            for address in listener.address
        ),
    )


class BorderKeeper:
    """One per daemon. What it has dropped only grows, whatever becomes of the table."""

    def __init__(self) -> None:
        self.is_on = False
        self.dropped = dict.fromkeys(COUNTERS, 0)
        """Packets since the daemon started, by :data:`COUNTERS`, as of the last :meth:`look`."""
        self._before = dict(self.dropped)
        self._text = ""
        self._is_started = False

    def start(self, settings: ConcentratorSettings) -> None:
        """From now on the kernel is touched."""
        self._is_started = True
        self.follow(settings)

    def follow(self, settings: ConcentratorSettings) -> None:
        """Load the table when it is wanted and not there as it shall be, or remove it. What goes wrong is logged: a
        concentrator without it serves, with less protection."""
        if not self._is_started:
            return
        text = render(border_of(settings)) if settings.limits.filter else ""
        if text == self._text:
            return
        self.look()
        self._before = dict(self.dropped)
        try:
            load(text or removal())
            self.is_on = bool(text)
        except (RuntimeError, OSError) as error:
            self.is_on = False
            log.error(
                "no limit on handshakes before TCP (section limits, option filter): %s; the other limits hold", error
            )
        self._text = text

    def look(self) -> None:
        """Read the counters; when the table has gone, what was known stays."""
        if not self.is_on:
            return
        found = counters(CONCENTRATOR_TABLE)
        for name, before in self._before.items():
            now = before + found.get(name, 0)
            self.dropped[name] = max(now, self.dropped[name])

    async def look_aside(self) -> None:
        """The same without stopping the event loop."""
        await asyncio.to_thread(self.look)

    def remove(self) -> None:
        """No trace."""
        self._is_started = False
        if self._text:
            self._text, self.is_on = "", False
            try:
                load(removal())
            except (RuntimeError, OSError) as error:
                log.error("nftables table inet %s stays: %s", CONCENTRATOR_TABLE, error)


class NoBorder(BorderKeeper):
    """Of a concentrator that leaves nftables alone."""

    def start(self, settings: ConcentratorSettings) -> None:
        """Nothing."""
