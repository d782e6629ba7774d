"""The self-test of ``cpe-mcp check``: one row per stage, made from what ``status`` tells and from what was looked at. Pure.

A stage that fails says what to do next; those behind it may fail for its sake. A row with ``info`` is no verdict: there was
nothing to judge yet, or it is about a neighbour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cpe_mcp.policy.decide import PROXY
from cpe_mcp.policy.reasons import TEXTS, Reason

PROOF_BYTES = 1_000_000
"""A finished flow from this size on shows whether a transfer was spread over the WANs."""
SHARE_PERCENT = 2
"""Less than this of a transfer is what a backup subflow carries anyway, not aggregation."""
RECENT = 20
"""Finished proxied flows among which a fallback to plain TCP is news, not history."""


class Evidence(NamedTuple):
    """What ``status`` does not know."""

    subflows: Mapping[str, int]
    """WAN -> established subflows to the concentrators now."""
    table: str
    """Our nft table as nft lists it; "" when it is not there."""
    records: Sequence[Mapping[str, Any]]
    """The last finished flows, newest first."""


def check(status: Mapping[str, Any], evidence: Evidence) -> list[dict[str, Any]]:
    """Rows ``{"stage", "ok", "detail", "next", "info"}``, in the order in which the stages depend on each other."""
    rows: list[dict[str, Any]] = []
    for stage in (_settings, _wan, _discover, _authenticate, _worker, _connect):
        rows.append(_row(stage.__name__[1:], stage(status)))
    for stage_with in (_intercept, _join, _aggregate):
        rows.append(_row(stage_with.__name__[1:], stage_with(status, evidence)))
    return rows


class Verdict(NamedTuple):
    """Of one stage. ``ok`` None: nothing to judge."""

    ok: bool | None
    detail: str
    next: str = ""


def _row(stage: str, verdict: Verdict) -> dict[str, Any]:
    ok, detail, next_step = verdict
    return {
        "stage": stage,
        "ok": ok is not False,
        "detail": detail,
        "next": "" if ok else next_step,
        "info": ok is None,
    }


def shares(bytes_by_wan: Mapping[str, Mapping[str, int]]) -> dict[str, float]:
    """Percent of a flow's bytes by WAN, the largest first; empty when it moved none."""
    sums = {wan: counted["down"] + counted["up"] for wan, counted in bytes_by_wan.items()}
    total = sum(sums.values())
    if not total:
        return {}
    return {wan: 100 * count / total for wan, count in sorted(sums.items(), key=lambda item: -item[1])}


def _settings(status: Mapping[str, Any]) -> Verdict:
    path = status["settings"]
    if not status["enabled"]:
        return Verdict(
            False, TEXTS[Reason.DISABLED], f"set enabled to 1 in section global of {path}, then cpe-mcp reload"
        )
    if status["warnings"]:
        return Verdict(False, "; ".join(status["warnings"]), f"mend it in {path}, then cpe-mcp reload")
    return Verdict(True, path)


def _wan(status: Mapping[str, Any]) -> Verdict:
    usable = [wan["name"] for wan in status["wans"] if wan["usable"]]
    others = [f"{wan['name']}: {wan['text']}" for wan in status["wans"] if not wan["usable"]]
    detail = ", ".join([*usable, *others]) or "none is configured"
    next_step = "cpe-mcp paths shows each WAN; check its cable, its device name and its address"
    return Verdict(bool(usable), detail, next_step)


def _discover(status: Mapping[str, Any]) -> Verdict:
    rows = status["concentrators"]
    if rows:
        return Verdict(True, ", ".join(f"{row['name']} ({row['source']})" for row in rows))
    discarded = [row["discarded"] for row in status["sources"] if row["discarded"]]
    detail = "; ".join(discarded) or "no concentrator is known"
    return Verdict(
        False, detail, "ask your operator for the DHCP option, or add a section concentrator with its address"
    )


def _authenticate(status: Mapping[str, Any]) -> Verdict:
    radius = status["radius"]
    detail = f"{radius['text']} ({radius['detail']})" if radius["detail"] else radius["text"]
    ok = radius["accepted"] or not radius["enabled"]
    if not radius["enabled"]:
        detail = "RADIUS is not asked; the concentrator knows this router by its key or its address"
    refused = [row["name"] for row in status["concentrators"] if row["reason"] == Reason.CONCENTRATOR_REFUSED]
    if ok and refused:
        detail = f"{', '.join(refused)}: {TEXTS[Reason.CONCENTRATOR_REFUSED]}"
        return Verdict(False, detail, "check subscriber and key of its section concentrator")
    return Verdict(bool(ok), detail, "check server, secret, username and password of section radius")


def _worker(status: Mapping[str, Any]) -> Verdict:
    count = len(status["workers"])
    detail = f"{count} connected" if count else TEXTS[Reason.NO_WORKER]
    return Verdict(bool(count), detail, "start the relay: /etc/init.d/cpe-mcp restart, or cpe-mcp-relay")


def _connect(status: Mapping[str, Any]) -> Verdict:
    """Warm connections are the evidence: each has been answered by the concentrator."""
    usable = [row for row in status["concentrators"] if row["usable"]]
    if not usable:
        detail = "; ".join(f"{row['name']}: {row['text']}" for row in status["concentrators"]) or "none is known"
        next_step = "cpe-mcp concentrators shows how long it is left alone; check that it runs and its key"
        return Verdict(False, detail, next_step)
    name, pool = usable[0]["name"], status["pool"]
    if pool["ready"]:
        return Verdict(True, f"{name} answers, {pool['ready']} warm connections are ready")
    if not pool["size"]:
        return Verdict(None, f"{name} is usable; not tried, since the warm pool is switched off (global.pool_size)")
    next_step = "check that it runs, and that TCP to its port is not blocked on the way"
    return Verdict(False, f"{name} has not accepted a connection yet", next_step)


def _intercept(status: Mapping[str, Any], evidence: Evidence) -> Verdict:
    taken = status["interception"]
    if not taken["on"]:
        return Verdict(False, taken["text"], "mend the first stage that failed")
    if "tproxy" not in evidence.table:
        detail = "connections should be taken, but table inet cpe_mcp of nftables does not do it"
        next_step = "see the log for what nft refused: kmod-nft-tproxy and kmod-nft-socket must be installed"
        return Verdict(False, detail, next_step)
    families = "IPv4 and IPv6" if taken["ipv6"] else "IPv4 only"
    count = status["live"] + status["totals"]["flows"]
    if not count:
        return Verdict(
            None, f"on for {families}; none has come yet", "open a page from a LAN device; see that option lan fits"
        )
    return Verdict(True, f"on for {families}, {count} connections taken so far")


def _join(status: Mapping[str, Any], evidence: Evidence) -> Verdict:
    """Subflows that are established now, by WAN; and what has fallen back to TCP."""
    plain, ready = status["pool"]["plain"], status["pool"]["ready"]
    usable = [wan["name"] for wan in status["wans"] if wan["usable"]]
    if plain:
        detail = f"{plain} of {ready} warm connections fell back to plain TCP: {TEXTS[Reason.MPTCP_STRIPPED]}"
        next_step = f"give another WAN than {usable[0] if usable else 'the first'} the lower preference and look again"
        return Verdict(False, detail, f"{next_step}; if it stays, see net.mptcp.enabled on the concentrator")
    recent = [row for row in evidence.records if row["action"] == PROXY][:RECENT]
    fallen = [row for row in recent if row["fallback"]]
    if fallen:
        reasons = ", ".join(sorted({f"{row['wan']}: {TEXTS.get(row['fallback'], row['fallback'])}" for row in fallen}))
        detail = f"{len(fallen)} of the last {len(recent)} connections were plain TCP ({reasons})"
        return Verdict(False, detail, f"something on {fallen[0]['wan']} removes or changes MPTCP options")
    if len(usable) < 2:
        which = f"only {usable[0]} is usable" if usable else "no WAN is usable"
        needs_two = len(status["wans"]) > 1
        return Verdict(False if needs_two else None, f"{which}: there is nothing to join", "see stage wan")
    counted = ", ".join(f"{name} {evidence.subflows.get(name, 0)}" for name in usable)
    missing = [name for name in usable if not evidence.subflows.get(name)]
    if len(missing) == len(usable):
        return Verdict(None, "no connection to a concentrator is open now", "open a page from a LAN device, then again")
    if missing:
        detail = f"subflows now: {counted}; none on {', '.join(missing)}"
        next_step = (
            f"something on {', '.join(missing)} may remove MPTCP options, or the concentrator is not reached from there"
        )
        return Verdict(False, detail, next_step)
    return Verdict(True, f"subflows now: {counted}")


def _aggregate(status: Mapping[str, Any], evidence: Evidence) -> Verdict:
    """The newest large transfer that more than one WAN carried."""
    if sum(wan["usable"] for wan in status["wans"]) < 2:
        return Verdict(None, "needs two usable WANs", "see stage wan")
    large = [
        (row, found)
        for row in evidence.records
        if row["bytes_down"] + row["bytes_up"] >= PROOF_BYTES and (found := shares(row["bytes_by_wan"]))
    ]
    next_step = "cpe-mcp speedtest fills all WANs at once; a slower one joins when the fast one is busy"
    for row, found in large:
        if sum(part >= SHARE_PERCENT for part in found.values()) > 1:
            parts = ", ".join(f"{wan} {part:.0f} %" for wan, part in found.items())
            return Verdict(True, f"a transfer of {(row['bytes_down'] + row['bytes_up']) / 1e6:.0f} MB used {parts}")
    if large:
        wan = next(iter(large[0][1]))
        return Verdict(None, f"the last large transfers did not need more than {wan}", next_step)
    return Verdict(None, "no large transfer yet", next_step)
