"""Puts the concentrator's nftables table in place, takes it away, reads what it has dropped, and carries out Filter-Id."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from typing import Any

from cpe_mcp.aaa.dynamic_packets import plain_address
from cpe_mcp.concentrator.filters import FilterError, Filters
from cpe_mcp.kernel.nft_table import counters, load
from cpe_mcp.kernel.numbers import CONCENTRATOR_TABLE
from cpe_mcp.policy.concentrator_rules import COUNTERS, Border, Side, elements, removal, render
from cpe_mcp.policy.filter_rules import Filter, members
from cpe_mcp.settings import ConcentratorSettings, SettingsError

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
        has_limits=limits.filter,
        sides=tuple(_sides(settings)),
        filters=tuple(Filter(row.name, row.mark, row.rule) for row in settings.filters),
    )


def _sides(settings: ConcentratorSettings) -> Iterator[Side]:
    """Of those that a device reaches, a listener at one address comes before one at all of them, and then one on that device
    before one on any (``inet_lookup_listener``). One that faces the Internet takes customers as well: it asks for more than
    they need, and a subscriber's second line may come by the other side to join."""
    rows = [(address, row) for row in settings.listeners for address in row.address]
    rows.sort(key=lambda pair: (pair[0] in EVERY_ADDRESS, not pair[1].device))
    for interface in settings.interfaces:
        for address, row in rows:
            if row.device in ("", interface.device):
                where = "" if address in EVERY_ADDRESS else address
                is_open = row.facing == "internet" or interface.facing == "customer"
                yield Side(interface.device, row.port, where, is_open)


class BorderKeeper:
    """One per daemon; it is its :class:`~cpe_mcp.concentrator.filters.FilterHook` too. What it has dropped only grows,
    whatever becomes of the table."""

    def __init__(self) -> None:
        self.is_on = False
        """The limits before TCP hold."""
        self.dropped = dict.fromkeys(COUNTERS, 0)
        """Packets since the daemon started, by :data:`COUNTERS`, as of the last :meth:`look`."""
        self._before = dict(self.dropped)
        self._text = ""
        self._is_started = False
        self._filters: tuple[Filter, ...] = ()
        self._filtered: dict[str, tuple[str, ...]] = {}
        """Address -> names of its filters, as in the table."""

    def start(self, settings: ConcentratorSettings) -> None:
        """From now on the kernel is touched. Raises SettingsError as :meth:`follow` does."""
        self._is_started = True
        self.follow(settings)

    def follow(self, settings: ConcentratorSettings) -> None:
        """Load the table when it is wanted and not there as it shall be, or remove it.

        Limits that are not in place are logged: a concentrator without them serves, with less protection. Raises
        SettingsError, with everything as before, where sides or filters would not be: somebody counts on those.
        """
        if not self._is_started:
            return
        border = border_of(settings)
        text = render(border)
        if text == self._text:
            return
        self.look()
        filtered = _known(border.filters, self._filtered)
        try:
            self._load((text or removal()) + elements(members(border.filters, filtered)))
            self.is_on = bool(text) and border.has_limits
        except (RuntimeError, OSError) as error:
            if border.is_needed():
                raise SettingsError(f"sections interface and filter need their nftables table: {error}") from None
            self.is_on = False
            log.error(
                "no limit on handshakes before TCP (section limits, option filter): %s; the other limits hold", error
            )
        self._before = dict(self.dropped)
        self._text, self._filters, self._filtered = text, border.filters, filtered

    def knows(self, name: str) -> bool:
        """See :class:`~cpe_mcp.concentrator.filters.FilterHook`."""
        return any(row.name == name for row in self._filters)

    def apply(self, filters: Filters) -> None:
        """See :class:`~cpe_mcp.concentrator.filters.FilterHook`."""
        unknown = sorted({name for names in filters.values() for name in names if not self.knows(name)})
        if unknown:
            raise FilterError(f"no section filter '{unknown[0]}'")
        plain = {plain_address(address): names for address, names in filters.items()}
        changed = {address: names for address, names in plain.items() if self._filtered.get(address, ()) != names}
        before = {address: self._filtered.get(address, ()) for address in changed}
        filtered = {address: names for address, names in (self._filtered | changed).items() if names}
        if not changed:
            return
        try:
            self._load(elements(members(self._filters, changed), members(self._filters, before)))
        except (RuntimeError, OSError):
            try:  # somebody has flushed the ruleset: everything once more
                self._load(self._text + elements(members(self._filters, filtered)))
            except (RuntimeError, OSError) as error:
                raise FilterError(str(error)) from None
            self._before = dict(self.dropped)
        self._filtered = filtered

    def filter_rows(self) -> list[dict[str, Any]]:
        """For ``status``: each filter, its mark, and how many addresses it has."""
        return [
            {
                "name": row.name,
                "mark": row.mark,
                "rules": list(row.rules),
                "addresses": sum(1 for names in self._filtered.values() if row.name in names),
            }
            for row in self._filters
        ]

    def look(self) -> None:
        """Read the counters; when the table has gone, what was known stays."""
        if not self._text:
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

    def _load(self, text: str) -> None:
        """Raises RuntimeError or OSError, in words that say what to do."""
        try:
            load(text)
        except FileNotFoundError:
            raise RuntimeError("the program nft is not there; install nftables") from None
        except RuntimeError as error:
            raise RuntimeError(f"{error}{_hint(str(error), text)}") from None


class NoBorder(BorderKeeper):
    """Of a concentrator that leaves nftables alone."""

    def start(self, settings: ConcentratorSettings) -> None:
        """Nothing."""


def _known(filters: tuple[Filter, ...], filtered: Filters) -> dict[str, tuple[str, ...]]:
    """Without the names that are not filters any more."""
    names = {row.name for row in filters}
    known = {address: tuple(name for name in has if name in names) for address, has in filtered.items()}
    return {address: has for address, has in known.items() if has}


def _hint(error: str, text: str) -> str:
    """What nft's words leave out: the rule that it speaks of, or the right that is missing."""
    if "Operation not permitted" in error:
        return " (needs the capability CAP_NET_ADMIN)"
    place = re.search(r"stdin:(\d+):", error)
    lines = text.splitlines()
    if place is None or not 0 < int(place[1]) <= len(lines):
        return ""
    return f", in: {lines[int(place[1]) - 1].removeprefix(f'add rule inet {CONCENTRATOR_TABLE} ')}"
