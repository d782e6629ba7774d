"""SRV records to an ordered list (RFC 2782). Nothing is asked in here, and chance is an argument."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

SERVICE = "_convert._tcp"
"""Before a domain, where its SRV records are."""
TARGETS_MAX = 16
"""As many concentrators as one name may give: ten are no rarity (design D11)."""
RECORDS_MAX = 64
"""Records of one name that are put in order: an answer has room for thousands."""
NO_TARGET = "."
"""The service is decidedly not available."""


class Srv(NamedTuple):
    """One SRV record."""

    priority: int
    weight: int
    port: int
    target: str


def ordered(records: Iterable[Srv], draw: Callable[[int], int]) -> list[Srv]:
    """Lower priorities first; within one, by weight and chance. ``draw(n)`` gives a number from 0 to n, both included."""
    left = sorted(sorted(set(records), key=rank)[:RECORDS_MAX])
    chosen: list[Srv] = []
    while left:
        # RFC 2782: those of weight 0 stand first, so that they have a very small chance while others have weight.
        group = sorted((row for row in left if row.priority == left[0].priority), key=lambda row: row.weight)
        number = draw(sum(row.weight for row in group))
        total = 0
        for row in group:
            total += row.weight
            if total >= number:
                chosen.append(row)
                left.remove(row)
                break
    return [row for row in chosen if row.target != NO_TARGET]


def rank(record: Srv) -> tuple[int, int]:
    """The key to sort by where some have to be left out: those that most routers would take come first."""
    return record.priority, -record.weight


def mcps_of(records: Sequence[Srv], addresses: Mapping[str, Sequence[str]]) -> tuple[tuple[tuple[str, ...], int], ...]:
    """``(addresses, port)`` of each record whose target has addresses that a concentrator can have."""
    found = []
    for record in records:
        usable = tuple(address for address in addresses.get(record.target, ()) if is_possible(address))
        if usable and record.port:
            found.append((usable, record.port))
    return tuple(dict.fromkeys(found))


def is_possible(address: str) -> bool:
    """Whether a host elsewhere can have it."""
    parsed = ipaddress.ip_address(address)
    return not (parsed.is_loopback or parsed.is_multicast or parsed.is_unspecified or parsed.is_link_local)
