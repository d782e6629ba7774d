"""What the control daemon says of one connection's subscriber. No IO."""

from __future__ import annotations

from typing import NamedTuple

from cpe_mcp.policy.reasons import Reason

NO_CAP = (0.0, 0.0)


class Verdict(NamedTuple):
    """What a worker is told."""

    kind: str
    """``accept``, ``reject``, ``later`` or ``missing-cookie``."""
    subscriber: str
    """Name in the table, or what RADIUS calls it, or its address."""
    ttl_s: float
    reason: str
    cap_mbit: tuple[float, float] = NO_CAP
    """Of an accepted subscriber, down and up; 0: none."""
    connections: int = 0
    """Most that an accepted subscriber may have at once; 0: no limit."""
    cookie: bytes = b""
    """With ``missing-cookie``: what the peer is told."""


def both(proven: Verdict | None, known: Verdict, address: str) -> Verdict:
    """The verdict of a cookie, if there was one, and of the address. They have to be the same subscriber's, where AAA names it:
    one that AAA does not name goes by its address, and what is known of the subscriber himself comes first."""
    if proven is None:
        return known
    if proven.kind != "accept":
        return proven
    if known.kind != "accept":
        return known._replace(ttl_s=0.0)
    if known.subscriber not in (proven.subscriber, address):
        return Verdict("reject", "", 0.0, Reason.OTHER_SUBSCRIBER)
    if known.subscriber != proven.subscriber:
        down, up = (own or other for own, other in zip(proven.cap_mbit, known.cap_mbit, strict=True))
        known = known._replace(cap_mbit=(down, up), connections=proven.connections or known.connections)
    return known._replace(subscriber=proven.subscriber, ttl_s=0.0)
