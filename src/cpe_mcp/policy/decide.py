"""What happens to one flow, and why. The relay workers and ``cpe-mcp why`` call the same function, so both say the same.

No state, no clock, no IO; nothing of an address but its family is looked at yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cpe_mcp.policy.reasons import Reason

if TYPE_CHECKING:
    from cpe_mcp.paths.snapshot import ConcentratorView, Snapshot, WanView

PROXY = "proxy"
DIRECT = "direct"
BLOCK = "block"


class Decision(NamedTuple):
    """What one flow gets."""

    action: str
    """:data:`PROXY`, :data:`DIRECT` or :data:`BLOCK`."""
    concentrator: ConcentratorView | None
    """Set when the action is ``proxy``, like ``wan``."""
    wan: WanView | None
    """Where the first subflow leaves."""
    reasons: tuple[str, ...]
    """Values of :class:`Reason`, at least one; the first one decided, the others tell what else was in the way."""


def decide(family: int, address: str | bytes, port: int, snapshot: Snapshot) -> Decision:
    """The decision for a flow to ``address`` (text or packed) of ``family`` 4 or 6.

    The first concentrator that serves the family, over the first WAN that has an address of a family the concentrator
    has too. Without one: what the settings say (design D4), except when the package is switched off: then direct.
    """
    if not snapshot.proxy:
        return _otherwise(snapshot, (snapshot.reason,))
    if not snapshot.wans:
        return _otherwise(snapshot, (Reason.NO_WAN,))
    in_the_way: tuple[str, ...] = ()
    for concentrator in snapshot.concentrators:
        if family == 6 and not concentrator.reaches_ipv6:
            in_the_way += (Reason.NO_IPV6,)
            continue
        wan = first_wan(concentrator, snapshot.wans)
        if wan is not None:
            return Decision(PROXY, concentrator, wan, (Reason.PROXIED, *in_the_way))
        in_the_way += (Reason.NO_COMMON_FAMILY,)
    return _otherwise(snapshot, in_the_way or (Reason.NO_CONCENTRATOR,))


def first_wan(concentrator: ConcentratorView, wans: tuple[WanView, ...]) -> WanView | None:
    """The first WAN that has an address of the family of one of the concentrator's addresses."""
    for wan in wans:
        for address in concentrator.addresses:
            if wan.address6 if ":" in address else wan.address4:
                return wan
    return None


def _otherwise(snapshot: Snapshot, reasons: tuple[str, ...]) -> Decision:
    if snapshot.fallback == BLOCK and snapshot.reason != Reason.DISABLED:
        return Decision(BLOCK, None, None, (*reasons, Reason.BLOCKED))
    return Decision(DIRECT, None, None, reasons)
