"""What a new connection gets, and why: the answer of ``cpe-mcp why``. Pure; the relay workers ask the same ``decide``.

Two things decide about a connection: interception, whether it is taken at all, and then the policy. Both are asked here in
that order, and an answer that is not "proxy" says every reason that is true now, the deciding one first.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, NamedTuple

from cpe_mcp.paths.snapshot import Snapshot
from cpe_mcp.policy.decide import DIRECT, PROXY, decide
from cpe_mcp.policy.reasons import TEXTS, Reason

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Facts(NamedTuple):
    """What is true now, for one destination."""

    snapshot: Snapshot
    takes: tuple[bool, bool]
    """Whether connections are taken at all, and IPv6 ones too."""
    not_taken: str
    """Why none is taken; "" while they are."""
    intercept: str
    """The setting: ``global``, ``any`` or ``none``."""
    wan_networks: tuple[str, ...]
    """Networks directly behind the WANs."""
    devices: tuple[str, ...]
    """Those of the managed WANs."""
    device: str | None
    """By which the route to the destination leaves; "" where there is none, None where it is not known."""
    left_direct: str
    """Why it is left to plain forwarding after a failure; "" when it is not."""


def explain(address: Address, port: int, client: str, facts: Facts) -> dict[str, Any]:
    """``{"destination", "port", "client", "family", "action", "concentrator", "wan", "reasons": [{"reason", "text"}]}``.

    ``client`` is the LAN client's address, "" for any.
    """
    # A rule (section rule) decides between the two: ask it here, and put its name into the answer.
    decision = decide(address.version, str(address), port, facts.snapshot)
    forwarded = forwarded_reasons(address, facts)
    if forwarded:
        # The policy is not asked about what is not taken, so what it would do to it ("blocked") is not true.
        in_the_way = [reason for reason in decision.reasons if reason not in (Reason.PROXIED, Reason.BLOCKED)]
        action, reasons = DIRECT, [*forwarded, *in_the_way]
    else:
        action, reasons = decision.action, list(decision.reasons)
    proxied = action == PROXY
    return {
        "destination": str(address),
        "port": port,
        "client": client,
        "family": address.version,
        "action": action,
        "concentrator": decision.concentrator.name if proxied and decision.concentrator else "",
        "wan": decision.wan.name if proxied and decision.wan else "",
        "reasons": [{"reason": reason, "text": TEXTS.get(reason, reason)} for reason in dict.fromkeys(reasons)],
    }


def forwarded_reasons(address: Address, facts: Facts) -> list[str]:
    """Why a connection to there is not even taken, in the order in which the nft table asks; empty when it is."""
    reasons: list[str] = []
    if not facts.takes[0]:
        reasons.append(facts.not_taken)
    elif address.version == 6 and not facts.takes[1]:
        reasons.append(Reason.NO_IPV6)
    if facts.intercept == "none":
        reasons.append(Reason.NOT_TAKEN)
    if _is_within(address, facts.wan_networks):
        reasons.append(Reason.WAN_NETWORK)
    elif facts.intercept == "global" and not address.is_global:
        reasons.append(Reason.NOT_GLOBAL)
    if facts.left_direct:
        reasons += [Reason.LEFT_DIRECT, facts.left_direct]
    if facts.device is not None and facts.device not in facts.devices:
        reasons.append(Reason.OTHER_WAY)
    return reasons


def _is_within(address: Address, networks: Sequence[str]) -> bool:
    for text in networks:
        network = ipaddress.ip_network(text)
        if network.version == address.version and address in network:
            return True
    return False
