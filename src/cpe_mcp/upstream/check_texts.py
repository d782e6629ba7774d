"""What the self-test says, as data (design D8): a code and its arguments, so that the UI can say it in another language.

:data:`TEXTS` is what a person reads here; each ``%s`` takes the next argument. The codes of :mod:`cpe_mcp.policy.reasons`
are codes too, without arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Union

from cpe_mcp.policy import reasons

Argument = Union[str, int, "Words", Sequence["Argument"]]
"""A name or a number as it is, words of their own, or a list, which is read with commas."""


class Words(NamedTuple):
    """One thing said."""

    code: str
    arguments: tuple[Argument, ...] = ()

    def __str__(self) -> str:
        template = TEXTS.get(self.code)
        if template is None:
            return reasons.TEXTS.get(self.code, self.code)
        return template % tuple(map(_read, self.arguments))

    def to_wire(self) -> dict[str, Any]:
        """``{"code": ..., "args": [...]}`` for JSON and ubus."""
        return {"code": self.code, "args": [_to_wire(argument) for argument in self.arguments]}


def say(code: str, *arguments: Argument) -> Words:
    """``Words`` in short."""
    return Words(code, arguments)


def stage_row(stage: str, detail: Words, next_step: Words | None, *, ok: bool, info: bool) -> dict[str, Any]:
    """One stage as ``cpe-mcp check`` answers it. ``detail`` and ``next`` in English, and as words."""
    return {
        "stage": stage,
        "ok": ok,
        "detail": str(detail),
        "detail_words": detail.to_wire(),
        "next": str(next_step or ""),
        "next_words": next_step.to_wire() if next_step else {},
        "info": info,
    }


def _read(argument: Argument) -> str:
    if isinstance(argument, (str, int, Words)):
        return str(argument)
    return ", ".join(map(_read, argument))


def _to_wire(argument: Argument) -> Any:
    if isinstance(argument, Words):
        return argument.to_wire()
    if isinstance(argument, (str, int)):
        return argument
    return [_to_wire(item) for item in argument]


TEXTS = {
    # parts of others
    "plain": "%s",
    "because": "%s: %s",
    "in-brackets": "%s (%s)",
    "percent": "%s %s %%",
    "count": "%s %s",
    "none-known": "none is known",
    # settings
    "enable": "set enabled to 1 in section global of %s, then cpe-mcp reload",
    "mend-settings": "mend it in %s, then cpe-mcp reload",
    # wan
    "no-wan-configured": "none is configured",
    "check-wan": "cpe-mcp paths shows each WAN; check its cable, its device name and its address",
    # discover
    "no-concentrator-known": "no concentrator is known",
    "ask-operator": "ask your operator for the DHCP option, or add a section concentrator with its address",
    "confirm-or-trust": "cpe-mcp concentrators says who names what; have a second source name it, or set trust_dhcp of that "
    "WAN if only your operator can answer DHCP there",
    # authenticate
    "radius-accepted": "accepted",
    "radius-not-asked": "RADIUS is not asked; the concentrator knows this router by its key or its address",
    "check-key": "check subscriber and key of its section concentrator",
    "check-radius": "check server, secret, username and password of section radius",
    "protect-radius": "set operator_network of a WAN that is the operator's own, or transport tls in section radius",
    # worker
    "workers-connected": "%s connected",
    "start-worker": "start the relay: /etc/init.d/cpe-mcp restart, or cpe-mcp-relay",
    # connect
    "check-concentrator": "cpe-mcp concentrators shows how long it is left alone; check that it runs and its key",
    "pool-ready": "%s answers, %s warm connections are ready",
    "pool-off": "%s is usable; not tried, since the warm pool is switched off (global.pool_size)",
    "no-connection-yet": "%s has not accepted a connection yet",
    "check-port": "check that it runs, and that TCP to its port is not blocked on the way",
    # intercept
    "mend-first": "mend the first stage that failed",
    "no-tproxy": "connections should be taken, but table inet cpe_mcp of nftables does not do it",
    "install-tproxy": "see the log for what nft refused: kmod-nft-tproxy and kmod-nft-socket must be installed",
    "on-both": "on for IPv4 and IPv6, %s connections taken so far",
    "on-ipv4": "on for IPv4 only, %s connections taken so far",
    "on-both-unused": "on for IPv4 and IPv6; none has come yet",
    "on-ipv4-unused": "on for IPv4 only; none has come yet",
    "open-page-lan": "open a page from a LAN device; see that option lan fits",
    # join
    "pool-plain": "%s of %s warm connections fell back to plain TCP: %s",
    "swap-preference": "give another WAN than %s the lower preference and look again; if it stays, see net.mptcp.enabled on "
    "the concentrator",
    "recent-plain": "%s of the last %s connections were plain TCP (%s)",
    "options-removed": "something on %s removes or changes MPTCP options",
    "one-wan-usable": "only %s is usable: there is nothing to join",
    "no-wan-usable": "no WAN is usable: there is nothing to join",
    "see-wan": "first see to the WANs, above",
    "no-open-connection": "no connection to a concentrator is open now",
    "open-page-again": "open a page from a LAN device, then again",
    "subflows": "subflows now: %s",
    "subflows-missing": "subflows now: %s; none on %s",
    "not-joining": "something on %s may remove MPTCP options, or the concentrator is not reached from there",
    # aggregate
    "needs-two": "needs two usable WANs",
    "transfer-used": "a transfer of %s MB used %s",
    "one-was-enough": "the last large transfers did not need more than %s",
    "no-transfer-yet": "no large transfer yet",
    "try-speedtest": "cpe-mcp speedtest fills all WANs at once; a slower one joins when the fast one is busy",
    # neighbours
    "bridge-filtered": "the kernel filters bridged packets (%s): they cannot be taken",
    "bridge-filter-off": "set that to 0, or unload br_netfilter (container programs load it)",
    "sqm-shapes": "SQM shapes %s to %s / %s Mbit/s down / up",
    "sqm-rates": "keep it; where its rates are right, give them to wan %s as rate_down_mbit, rate_up_mbit; the manual's page "
    "on living together says more",
    "mwan3-balances": "mwan3 balances %s",
    "mwan3-forwarded": "its policies rule what is forwarded, not what is taken; the manual's page on living together says more",
    "pbr-policies": "pbr is enabled with %s policies",
    "pbr-others": "what it sends to other interfaces than the WANs is not taken; the manual's page on living together says "
    "more",
    "rules-before": "policy rules of others come before ours: %s",
    "rules-meant": "what they catch is routed by them first; see that this is meant",
}
