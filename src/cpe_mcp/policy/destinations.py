"""Whether a concentrator may connect to an address (design D15): the look-up half, as the relay workers carry it.

The table comes ready-made from the control daemon (:mod:`cpe_mcp.concentrator.destination_rules` compiles it); here are
only octets and masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Sequence[Any]]
"""``[network, prefix length]`` each: 16 octets, IPv4 mapped, and 0 to 128."""


class DestinationTable:
    """Allowed and denied prefixes; the longest match decides, and of two equally long ones the denied."""

    __slots__ = ("_masked",)

    def __init__(self, rows: Mapping[str, Rows]) -> None:
        """``{"allow": rows, "deny": rows}``. Raises ValueError for a row that is not one."""
        by_length: dict[int, dict[int, bool]] = {}
        for allowed, name in ((True, "allow"), (False, "deny")):
            for network, length in rows[name]:
                if len(network) != 16 or not 0 <= length <= 128:
                    raise ValueError(f"destination row {network!r}/{length}")
                by_length.setdefault(128 - length, {})[int.from_bytes(network, "big") >> (128 - length)] = allowed
        self._masked = sorted(by_length.items())

    def is_reachable(self, address: bytes) -> bool:
        """Whether 16 octets of address may be connected to. What no row covers may not."""
        number = int.from_bytes(address, "big")
        for shift, networks in self._masked:
            allowed = networks.get(number >> shift)
            if allowed is not None:
                return allowed
        return False
