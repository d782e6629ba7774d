"""What is done with packets from the addresses that have a filter of RADIUS, as rules of the concentrator's nftables table.

Pure; :mod:`.concentrator_rules` puts them into the table. A filter is what a Filter-Id names (RFC 2865 section 5.11): a set of
source addresses for each family, and rules of the operator's for their packets (requirement 5.3-b).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

FAMILIES = ((4, "ip"), (6, "ip6"))


class Filter(NamedTuple):
    """One of them."""

    name: str
    """Letters, digits, underscores."""
    mark: int
    """Bits set in the packets' mark; 0: none."""
    rules: tuple[str, ...]
    """Statements of nftables, in order."""

    def set_name(self, version: int) -> str:
        """Of the set with its addresses of this family."""
        return f"filter{version}_{self.name}"

    def chain(self) -> str:
        """Name of the chain with its rules."""
        return f"filter_{self.name}"


def set_definitions(filters: Iterable[Filter]) -> list[str]:
    """The sets. Who fills them bounds them: as many addresses as have an Accept."""
    return [f"{row.set_name(version)} {{ type ipv{version}_addr; }}" for row in filters for version, _ in FAMILIES]


def filter_rules(filters: Iterable[Filter]) -> list[str]:
    """For all packets: those from each filter's addresses go through its chain."""
    return [
        f"{word} saddr @{row.set_name(version)} jump {row.chain()}" for row in filters for version, word in FAMILIES
    ]


def chain_rules(row: Filter) -> list[str]:
    """What the filter's chain holds."""
    marked = [f"meta mark set meta mark or {row.mark:#x}"] if row.mark else []
    return [*marked, *row.rules]


def members(filters: Iterable[Filter], wanted: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Set name -> addresses, of what is wanted (address -> names of filters); names that are not there are left out. The
    addresses are plain ones: none of IPv4 as IPv6 has it."""
    by_name = {row.name: row for row in filters}
    found: dict[str, list[str]] = {}
    for address, names in wanted.items():
        for name in names:
            if name in by_name:
                found.setdefault(by_name[name].set_name(6 if ":" in address else 4), []).append(address)
    return found
