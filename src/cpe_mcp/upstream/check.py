"""The self-test of ``cpe-mcp check``: one row per stage, made from what ``status`` tells and from what was looked at. Pure.

A stage that fails says what to do next; those behind it may fail for its sake. A row with ``info`` is no verdict: there was
nothing to judge yet, or it is about a neighbour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cpe_mcp.policy.decide import PROXY
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.upstream.check_texts import Words, say, stage_row

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
    """Rows of :func:`.check_texts.stage_row`, in the order in which the stages depend on each other."""
    rows: list[dict[str, Any]] = []
    for stage in (_settings, _wan, _discover, _authenticate, _worker, _connect):
        rows.append(_judged(stage.__name__[1:], stage(status)))
    for stage_with in (_intercept, _join, _aggregate):
        rows.append(_judged(stage_with.__name__[1:], stage_with(status, evidence)))
    return rows


class Verdict(NamedTuple):
    """Of one stage. ``ok`` None: nothing to judge."""

    ok: bool | None
    detail: Words
    next: Words | None = None


def _judged(stage: str, verdict: Verdict) -> dict[str, Any]:
    ok, detail, next_step = verdict
    return stage_row(stage, detail, None if ok else next_step, ok=ok is not False, info=ok is None)


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
        return Verdict(False, say(Reason.DISABLED), say("enable", path))
    if status["warnings"]:
        return Verdict(False, say("plain", "; ".join(status["warnings"])), say("mend-settings", path))
    return Verdict(True, say("plain", path))


def _wan(status: Mapping[str, Any]) -> Verdict:
    usable = [wan["name"] for wan in status["wans"] if wan["usable"]]
    others = [say("because", wan["name"], say(wan["reason"])) for wan in status["wans"] if not wan["usable"]]
    detail = say("plain", [*usable, *others]) if usable or others else say("no-wan-configured")
    return Verdict(bool(usable), detail, say("check-wan"))


def _discover(status: Mapping[str, Any]) -> Verdict:
    rows = status["concentrators"]
    if rows:
        return Verdict(True, say("plain", [say("in-brackets", row["name"], row["source"]) for row in rows]))
    refused = [
        say("in-brackets", ", ".join(row["unconfirmed"]), f"{row['source']} {row['interface']}")
        for row in status["sources"]
        if row["unconfirmed"]
    ]
    if refused:
        return Verdict(False, say("plain", [say(Reason.UNCONFIRMED), *refused]), say("confirm-or-trust"))
    discarded = "; ".join(row["discarded"] for row in status["sources"] if row["discarded"])
    return Verdict(False, say("plain", discarded) if discarded else say("no-concentrator-known"), say("ask-operator"))


def _authenticate(status: Mapping[str, Any]) -> Verdict:
    radius = status["radius"]
    if not radius["enabled"]:
        detail = say("radius-not-asked")
    else:
        detail = say("radius-accepted") if radius["accepted"] else say(radius["reason"])
        if radius["detail"]:
            detail = say("in-brackets", detail, radius["detail"])
    ok = radius["accepted"] or not radius["enabled"]
    refused = [row["name"] for row in status["concentrators"] if row["reason"] == Reason.CONCENTRATOR_REFUSED]
    if ok and refused:
        return Verdict(False, say("because", refused, say(Reason.CONCENTRATOR_REFUSED)), say("check-key"))
    is_unprotected = radius.get("reason") == Reason.AUTH_UNPROTECTED
    return Verdict(bool(ok), detail, say("protect-radius" if is_unprotected else "check-radius"))


def _worker(status: Mapping[str, Any]) -> Verdict:
    count = len(status["workers"])
    detail = say("workers-connected", count) if count else say(Reason.NO_WORKER)
    return Verdict(bool(count), detail, say("start-worker"))


def _connect(status: Mapping[str, Any]) -> Verdict:
    """Warm connections are the evidence: each has been answered by the concentrator."""
    known = status["concentrators"]
    usable = [row for row in known if row["usable"]]
    if not usable:
        each = [say("because", row["name"], say(row["reason"])) for row in known]
        return Verdict(False, say("plain", each) if each else say("none-known"), say("check-concentrator"))
    name, pool = usable[0]["name"], status["pool"]
    if pool["ready"]:
        return Verdict(True, say("pool-ready", name, pool["ready"]))
    if not pool["size"]:
        return Verdict(None, say("pool-off", name))
    return Verdict(False, say("no-connection-yet", name), say("check-port"))


def _intercept(status: Mapping[str, Any], evidence: Evidence) -> Verdict:
    taken = status["interception"]
    if not taken["on"]:
        return Verdict(False, say(taken["reason"]), say("mend-first"))
    if "tproxy" not in evidence.table:
        return Verdict(False, say("no-tproxy"), say("install-tproxy"))
    count = status["live"] + status["totals"]["flows"]
    if not count:
        return Verdict(None, say("on-both-unused" if taken["ipv6"] else "on-ipv4-unused"), say("open-page-lan"))
    return Verdict(True, say("on-both" if taken["ipv6"] else "on-ipv4", count))


def _join(status: Mapping[str, Any], evidence: Evidence) -> Verdict:
    """Subflows that are established now, by WAN; and what has fallen back to TCP."""
    plain, ready = status["pool"]["plain"], status["pool"]["ready"]
    usable = [wan["name"] for wan in status["wans"] if wan["usable"]]
    if plain:
        detail = say("pool-plain", plain, ready, say(Reason.MPTCP_STRIPPED))
        return Verdict(False, detail, say("swap-preference", usable[0] if usable else "?"))
    recent = [row for row in evidence.records if row["action"] == PROXY][:RECENT]
    fallen = [row for row in recent if row["fallback"]]
    if fallen:
        each = [say("because", wan, say(why)) for wan, why in sorted({(row["wan"], row["fallback"]) for row in fallen})]
        detail = say("recent-plain", len(fallen), len(recent), each)
        return Verdict(False, detail, say("options-removed", fallen[0]["wan"]))
    if len(usable) < 2:
        detail = say("one-wan-usable", usable[0]) if usable else say("no-wan-usable")
        return Verdict(False if len(status["wans"]) > 1 else None, detail, say("see-wan"))
    counted = [say("count", name, evidence.subflows.get(name, 0)) for name in usable]
    missing = [name for name in usable if not evidence.subflows.get(name)]
    if len(missing) == len(usable):
        return Verdict(None, say("no-open-connection"), say("open-page-again"))
    if missing:
        return Verdict(False, say("subflows-missing", counted, missing), say("not-joining", missing))
    return Verdict(True, say("subflows", counted))


def _aggregate(status: Mapping[str, Any], evidence: Evidence) -> Verdict:
    """The newest large transfer that more than one WAN carried."""
    if sum(wan["usable"] for wan in status["wans"]) < 2:
        return Verdict(None, say("needs-two"), say("see-wan"))
    large = [
        (row, found)
        for row in evidence.records
        if row["bytes_down"] + row["bytes_up"] >= PROOF_BYTES and (found := shares(row["bytes_by_wan"]))
    ]
    for row, found in large:
        if sum(part >= SHARE_PERCENT for part in found.values()) > 1:
            parts = [say("percent", wan, round(part)) for wan, part in found.items()]
            return Verdict(True, say("transfer-used", round((row["bytes_down"] + row["bytes_up"]) / 1e6), parts))
    if large:
        return Verdict(None, say("one-was-enough", next(iter(large[0][1]))), say("try-speedtest"))
    return Verdict(None, say("no-transfer-yet"), say("try-speedtest"))
