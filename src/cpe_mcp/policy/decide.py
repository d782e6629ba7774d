"""What happens to one flow, and why. The relay workers and ``cpe-mcp why`` call the same function, so both say the same.

No state, no clock, no IO; nothing of an address but its family is looked at yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from cpe_mcp.paths.snapshot import ORDINARY
from cpe_mcp.policy.reasons import Reason

if TYPE_CHECKING:
    from cpe_mcp.paths.snapshot import ClassView, ConcentratorView, Snapshot, WanView

PROXY = "proxy"
DIRECT = "direct"
BLOCK = "block"
SINGLE = "single:"
"""What a scheme that names its WAN begins with."""


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
    scheme: str = ""
    """What distributes the bytes; "" when the action is not ``proxy``."""
    scheme_reason: str = ""
    """Why that scheme, or why the WANs have their places under it."""
    bound: bool = False
    """To ``wan`` alone: plain TCP to the concentrator, and no failover (design D3)."""


class Wans(NamedTuple):
    """Where the first subflow of a flow may leave, best first."""

    wans: tuple[WanView, ...]
    bound: bool
    scheme: str
    scheme_reason: str


def decide(
    family: int, address: str | bytes, port: int, snapshot: Snapshot, flow_class: ClassView = ORDINARY
) -> Decision:
    """The decision for a flow to ``address`` (text or packed) of ``family`` 4 or 6.

    The first concentrator that serves the family, over the first WAN that has an address of a family the concentrator
    has too. Without one: what the settings say (design D4), except when the package is switched off: then direct.
    """
    if not snapshot.proxy:
        return _otherwise(snapshot, flow_class, (snapshot.reason,))
    chosen = wans_of(snapshot, flow_class)
    if not chosen.wans:
        return _otherwise(snapshot, flow_class, (chosen.scheme_reason if snapshot.wans else Reason.NO_WAN,))
    in_the_way: tuple[str, ...] = ()
    if flow_class.concentrator and not any(is_chosen(row, flow_class) for row in snapshot.concentrators):
        in_the_way += (Reason.CHOICE_UNUSABLE,)
    for concentrator in concentrators_of(snapshot, flow_class):
        if family == 6 and not concentrator.reaches_ipv6:
            in_the_way += (Reason.NO_IPV6,)
            continue
        wan = first_wan(concentrator, chosen.wans)
        if wan is not None:
            reasons = (Reason.PROXIED, *in_the_way)
            return Decision(PROXY, concentrator, wan, reasons, chosen.scheme, chosen.scheme_reason, chosen.bound)
        in_the_way += (Reason.NO_COMMON_FAMILY,)
    return _otherwise(snapshot, flow_class, in_the_way or (Reason.NO_CONCENTRATOR,))


def wans_of(snapshot: Snapshot, flow_class: ClassView = ORDINARY) -> Wans:
    """The WANs of a class. None where a strict one is bound to a WAN that is not usable."""
    ordinary = Wans(snapshot.wans, False, snapshot.scheme, snapshot.scheme_reason)
    if not flow_class.scheme:
        return ordinary
    if not flow_class.scheme.startswith(SINGLE):
        by_rtt = sorted(snapshot.wans, key=lambda wan: (wan.tier, wan.base_rtt_ms or float("inf")))
        return Wans(tuple(by_rtt), True, flow_class.scheme, Reason.SCHEME_BOUND)
    name = flow_class.scheme[len(SINGLE) :]
    bound = tuple(wan for wan in (*snapshot.wans, *snapshot.other_wans) if wan.name == name)
    if bound or flow_class.strict:
        reason = Reason.SCHEME_BOUND if bound else Reason.SCHEME_WAN_UNUSABLE
        return Wans(bound, True, flow_class.scheme, reason)
    return ordinary._replace(scheme_reason=Reason.SCHEME_WAN_UNUSABLE)


def ways_of(
    family: int, snapshot: Snapshot, flow_class: ClassView = ORDINARY
) -> Iterator[tuple[ConcentratorView, WanView, bool]]:
    """Every concentrator and WAN that may carry such a flow, and whether it is bound to it; the first is that of
    :func:`decide`."""
    if not snapshot.proxy:
        return
    chosen = wans_of(snapshot, flow_class)
    for concentrator in concentrators_of(snapshot, flow_class):
        if family == 4 or concentrator.reaches_ipv6:
            for wan in chosen.wans:
                if is_common(concentrator, wan):
                    yield concentrator, wan, chosen.bound


def concentrators_of(snapshot: Snapshot, flow_class: ClassView = ORDINARY) -> Iterator[ConcentratorView]:
    """In the order in which a flow of this class asks them: the chosen ones, then those that serve everybody."""
    if flow_class.concentrator:
        yield from (row for row in snapshot.concentrators if is_chosen(row, flow_class))
    for row in snapshot.concentrators:
        if not row.service_class and not (flow_class.concentrator and is_chosen(row, flow_class)):
            yield row


def first_wan(concentrator: ConcentratorView, wans: tuple[WanView, ...]) -> WanView | None:
    """The first WAN that has an address of the family of one of the concentrator's addresses."""
    return next((wan for wan in wans if is_common(concentrator, wan)), None)


def is_common(concentrator: ConcentratorView, wan: WanView) -> bool:
    """Whether the WAN has an address of the family of one of the concentrator's addresses."""
    return any(wan.address6 if ":" in address else wan.address4 for address in concentrator.addresses)


def is_chosen(concentrator: ConcentratorView, flow_class: ClassView) -> bool:
    """Whether the class asks for this one, by its name or its service class."""
    return flow_class.concentrator == concentrator.name or flow_class.concentrator in concentrator.service_class


def _otherwise(snapshot: Snapshot, flow_class: ClassView, reasons: tuple[str, ...]) -> Decision:
    if flow_class.strict or (snapshot.fallback == BLOCK and snapshot.reason != Reason.DISABLED):
        return Decision(BLOCK, None, None, (*reasons, Reason.BLOCKED))
    return Decision(DIRECT, None, None, reasons)
