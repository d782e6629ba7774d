"""What a new connection gets, and why: the answer of ``cpe-mcp why``. Pure; the relay workers ask the same ``decide``.

Two things decide about a connection: interception, whether it is taken at all, and then the policy. Both are asked here in
that order, and an answer that is not "proxy" says every reason that is true now, the deciding one first.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any, NamedTuple

from cpe_mcp.paths.snapshot import ClassView, Snapshot
from cpe_mcp.policy.decide import BLOCK, DIRECT, PROXY, Decision, decide, is_chosen
from cpe_mcp.policy.first import Standing, why_concentrator, why_wan
from cpe_mcp.policy.reasons import TEXTS, Reason
from cpe_mcp.policy.rules import REASONS, Packet, Rule, class_of, first_match

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
    rules: tuple[Rule, ...] = ()
    """The user's."""
    names: tuple[str, ...] = ()
    """Names that the destination was looked up by, where rules can see them."""
    mac: str = ""
    """The client's hardware address, "" where it is not known."""
    order: tuple[Standing, ...] = ()
    """The WANs that may begin connections, best first."""
    known: tuple[str, ...] = ()
    """Names of all concentrators that are known, best first."""
    warm: int = 0
    """Warm connections that are ready."""


def explain(address: Address, port: int, client: str, facts: Facts) -> dict[str, Any]:
    """``{"destination", "port", "client", "family", "action", "rule": {"name", "section", "action"}, "concentrator",
    "concentrator_reason", "concentrator_text", "wan", "wan_reason", "wan_text", "scheme", "scheme_reason", "scheme_text",
    "warm", "reasons": [{"reason", "text"}]}``; the texts of "rule" are "" where no rule matches, those of what is not chosen
    are "" where the connection is not proxied. ``warm``: it would be carried by a warm connection.

    ``client`` is the LAN client's address, "" for any.
    """
    rule = _rule(address, port, client, facts)
    decision = decide(address.version, str(address), port, facts.snapshot, class_of(rule))
    forwarded = forwarded_reasons(address, facts, rule)
    if rule is not None and rule.action == BLOCK:
        # Refused where it is forwarded, whether or not anything is taken.
        action, reasons = BLOCK, [Reason.RULE_BLOCK]
    elif forwarded:
        # The policy is not asked about what is not taken, so what it would do to it ("blocked") is not true.
        in_the_way = [reason for reason in decision.reasons if reason not in (Reason.PROXIED, Reason.BLOCKED)]
        action, reasons = DIRECT, [*forwarded, *in_the_way]
        if rule is not None and rule.is_strict:
            action, reasons = BLOCK, [*reasons, Reason.BLOCKED]
    else:
        action, reasons = decision.action, list(decision.reasons)
        if rule is not None:
            reasons.append(REASONS[rule.action])
    proxied = action == PROXY
    return {
        "destination": str(address),
        "port": port,
        "client": client,
        "family": address.version,
        "action": action,
        "rule": {
            "name": rule.label if rule is not None else "",
            "section": rule.section if rule is not None else "",
            "action": rule.action if rule is not None else "",
        },
        **(_choice(decision, facts, class_of(rule)) if proxied else NO_CHOICE),
        "reasons": [{"reason": reason, "text": TEXTS.get(reason, reason)} for reason in dict.fromkeys(reasons)],
    }


NO_CHOICE = {
    **dict.fromkeys(("concentrator", "concentrator_reason", "concentrator_text"), ""),
    **dict.fromkeys(("wan", "wan_reason", "wan_text", "scheme", "scheme_reason", "scheme_text"), ""),
    "warm": False,
}
"""Of a connection that is not proxied."""


def _choice(decision: Decision, facts: Facts, flow_class: ClassView) -> dict[str, Any]:
    """Where a proxied connection goes, and why there."""
    assert decision.concentrator is not None
    assert decision.wan is not None
    concentrator, wan = decision.concentrator.name, decision.wan.name
    concentrator_reason = why_concentrator(
        concentrator, facts.known, by_rule=is_chosen(decision.concentrator, flow_class)
    )
    wan_reason = why_wan(wan, facts.order, decision.scheme, bound=decision.bound)
    pool = decide(4, "", 0, facts.snapshot)  # what the workers warm up
    is_warm = facts.warm > 0 and not decision.bound and pool[1:3] == decision[1:3]
    return {
        "concentrator": concentrator,
        "concentrator_reason": concentrator_reason,
        "concentrator_text": TEXTS[concentrator_reason],
        "wan": wan,
        "wan_reason": wan_reason,
        "wan_text": TEXTS[wan_reason],
        "scheme": decision.scheme,
        "scheme_reason": decision.scheme_reason,
        "scheme_text": TEXTS.get(decision.scheme_reason, decision.scheme_reason),
        "warm": is_warm,
    }


def _rule(address: Address, port: int, client: str, facts: Facts) -> Rule | None:
    """The rule that a TCP connection meets; none for what rules do not look at: it leaves by no managed WAN (D13)."""
    if _is_within(address, facts.wan_networks) or (facts.device is not None and facts.device not in facts.devices):
        return None
    packet = Packet(str(address), port, source=client, mac=facts.mac, names=facts.names)
    return first_match(facts.rules, packet)


def forwarded_reasons(address: Address, facts: Facts, rule: Rule | None = None) -> list[str]:
    """Why a connection to there is not even taken, in the order in which the nft table asks; empty when it is."""
    reasons: list[str] = []
    if not facts.takes[0]:
        reasons.append(facts.not_taken)
    elif address.version == 6 and not facts.takes[1]:
        reasons.append(Reason.NO_IPV6)
    is_included = rule is not None and rule.action == PROXY
    if rule is not None and rule.action == DIRECT:
        reasons.append(Reason.RULE_DIRECT)
    elif facts.intercept == "none" and not is_included:
        reasons.append(Reason.NOT_TAKEN)
    if _is_within(address, facts.wan_networks):
        reasons.append(Reason.WAN_NETWORK)
    elif facts.intercept == "global" and not address.is_global and rule is None:
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
