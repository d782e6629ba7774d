"""Puts the concentrator's nftables table in place, takes it away, reads what it has dropped, and carries out Filter-Id."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Iterator
from typing import Any

from cpe_mcp.aaa.dynamic_packets import plain_address
from cpe_mcp.concentrator.filters import FilterError, Filters
from cpe_mcp.kernel.nft_events import NftEvents
from cpe_mcp.kernel.nft_table import counters, listing, load
from cpe_mcp.kernel.numbers import CONCENTRATOR_TABLE
from cpe_mcp.policy.concentrator_rules import COUNTERS, EVERY_IPV4, Border, Side, elements, removal, render
from cpe_mcp.policy.filter_rules import Filter, members
from cpe_mcp.policy.masking import without_hosts
from cpe_mcp.settings import ConcentratorSettings, SettingsError

log = logging.getLogger(__name__)

ELEMENT = f" element inet {CONCENTRATOR_TABLE} "
"""In a line with subscribers' addresses, which are not for the log."""
EVERY_ADDRESS = frozenset(("::", EVERY_IPV4))
PAUSE_S, PAUSE_MAX_S = 0.1, 1.6
"""Between two looks at the table, however often somebody changes it; doubled each time that it was changed again, for two who
both want it to be theirs."""
DISTURBED = f"somebody has taken away or changed the nftables table inet {CONCENTRATOR_TABLE}"
RETRY_S = 1.0
"""Until the next attempt to put it back, and between two looks where the kernel does not tell of changes."""


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
    rows = [(plain_address(address), row) for row in settings.listeners for address in row.address]
    rows.sort(key=lambda pair: (pair[0] in EVERY_ADDRESS, not pair[1].device))
    for interface in settings.interfaces:
        for address, row in rows:
            if row.device in ("", interface.device):
                where = "" if address == "::" else address
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
        self.disturbed = 0
        """How often somebody else took the table away, or changed it."""
        self._before = dict(self.dropped)
        self._text = ""
        """The table as it is wanted."""
        self._listing: str | None = ""
        """The table as nft showed it once it was loaded; None: it could not be."""
        self._loads = 0
        """How often it was to be loaded."""
        self._is_lost = False
        """It was there, and could not be put back."""
        self._is_started = False
        self._has_limits = False
        self._filters: tuple[Filter, ...] = ()
        self._filtered: dict[str, tuple[str, ...]] = {}
        """Address -> names of its filters, as in the table."""

    def start(self, settings: ConcentratorSettings) -> None:
        """From now on the kernel is touched. Raises SettingsError as :meth:`follow` does."""
        self._is_started = True
        self.follow(settings)

    def follow(self, settings: ConcentratorSettings) -> None:
        """Load the table when it is not in the kernel as it shall be, or remove it.

        Limits that are not in place are logged: a concentrator without them serves, with less protection. Raises
        SettingsError, with everything as before, where sides or filters would not be: somebody counts on those.
        """
        if not self._is_started:
            return
        border = border_of(settings)
        text = render(border)
        if text == self._text and self._is_as_loaded():
            return
        self.look()
        filtered = _known(border.filters, self._filtered)
        try:
            self._put(text, border.filters, filtered)
        except (RuntimeError, OSError) as error:
            if border.is_needed():
                raise SettingsError(f"sections interface and filter need their nftables table: {error}") from None
            self._listing = None
            log.error(
                "no limit on handshakes before TCP (section limits, option filter): %s; the other limits hold", error
            )
        self._text, self._filters, self._filtered = text, border.filters, filtered
        self._has_limits = border.has_limits
        if self._listing is None:
            self.is_on = False
        else:
            self._holds()

    def _holds(self) -> None:
        """The table is in place."""
        self._is_lost, self.is_on = False, bool(self._text) and self._has_limits

    def _is_as_loaded(self) -> bool:
        """Whether the kernel has the table as it was loaded; False when it cannot be told."""
        with contextlib.suppress(RuntimeError):
            return listing(CONCENTRATOR_TABLE) == self._listing
        return False

    async def keep(self) -> None:
        """Until it is cancelled: when somebody flushes the ruleset, as each reload of a firewall may do, or changes the table,
        it is put back at once."""
        changed = asyncio.Event()
        events = NftEvents(changed.set, CONCENTRATOR_TABLE)
        is_told = True
        try:
            events.start()
        except OSError as error:
            is_told = False
            log.warning("the kernel does not tell of changes in nftables: %s; looked at every %g s", error, RETRY_S)
        pause_s = PAUSE_S
        try:
            while True:
                try:
                    was_changed = await self._restore()
                except RuntimeError as error:
                    log.error("nftables table inet %s cannot be looked at: %s", CONCENTRATOR_TABLE, error)
                    was_changed = True
                    changed.set()
                pause_s = min(2 * pause_s, PAUSE_MAX_S) if was_changed else PAUSE_S
                await asyncio.sleep(pause_s)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S if self._is_lost or not is_told else None):
                        await changed.wait()
                changed.clear()
        finally:
            events.close()

    async def _restore(self) -> bool:
        """Put the table back if it is not as it was loaded; True: it was not. What was never loaded is not tried again. Raises
        RuntimeError when it cannot be told."""
        loads = self._loads
        if not self._text or (self._listing is None and not self._is_lost):
            return False
        there = await asyncio.to_thread(listing, CONCENTRATOR_TABLE)
        if not self._is_started or loads != self._loads or there == self._listing:
            return False
        try:
            self._put(self._text, self._filters, self._filtered)
        except (RuntimeError, OSError) as error:
            if not self._is_lost:
                self.disturbed += 1
                log.error("%s, and it cannot be put back: %s; tried again every %g s", DISTURBED, error, RETRY_S)
            self._listing, self._is_lost, self.is_on = None, True, False
        else:
            self._is_put_back()
        return True

    def _is_put_back(self) -> None:
        if not self._is_lost:
            self.disturbed += 1
        self._holds()
        log.warning("%s; it is put back", DISTURBED)

    def _put(self, text: str, filters: tuple[Filter, ...], filtered: Filters) -> None:
        """Load a table, or remove it for "". Raises RuntimeError or OSError; the kernel then has what it had."""
        self._loads += 1
        self._load((text or removal()) + elements(members(filters, filtered)))
        self._before = dict(self.dropped)
        there = listing(CONCENTRATOR_TABLE)
        if bool(there) != bool(text):
            raise RuntimeError("the table went away as it was loaded")
        self._listing = there

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
            was_there = self._is_as_loaded()
            try:  # somebody may have flushed the ruleset: everything once more
                self._put(self._text, self._filters, filtered)
            except (RuntimeError, OSError) as error:
                raise FilterError(str(error)) from None
            if not was_there:
                self._is_put_back()
        self._filtered = filtered

    def table_row(self) -> dict[str, Any]:
        """For ``status``: whether the settings want a table, whether it is there, and how often somebody disturbed it."""
        is_wanted = bool(self._text)
        return {
            "wanted": is_wanted,
            "in_place": is_wanted and self._listing is not None,
            "disturbed": self.disturbed,
        }

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
        known = self._before  # of this table: another one may be loaded meanwhile
        found = counters(CONCENTRATOR_TABLE)
        for name, before in known.items():
            now = before + found.get(name, 0)
            self.dropped[name] = max(now, self.dropped[name])

    async def look_aside(self) -> None:
        """The same without stopping the event loop."""
        await asyncio.to_thread(self.look)

    def remove(self) -> None:
        """No trace."""
        self._is_started = False
        if self._text or self._listing is None:
            self._text, self._listing, self.is_on = "", "", False
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

    async def keep(self) -> None:
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
    line = lines[int(place[1]) - 1].removeprefix(f"add rule inet {CONCENTRATOR_TABLE} ")
    return f", in: {without_hosts(line) if ELEMENT in line else line}"
