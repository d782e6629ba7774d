"""The self-test of ``cpe-mcp check``: one row per stage, made from what ``status`` tells. Pure.

A stage that fails says what to do next; those behind it may fail for its sake.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpe_mcp.policy.reasons import TEXTS, Reason


def check(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows ``{"stage", "ok", "detail", "next"}``, in the order in which the stages depend on each other."""
    stages = (_settings, _wan, _discovery, _authentication, _worker, _concentrator, _interception)
    rows = []
    for stage in stages:
        ok, detail, next_step = stage(status)
        rows.append({"stage": stage.__name__[1:], "ok": ok, "detail": detail, "next": "" if ok else next_step})
    return rows


_Row = tuple[bool, str, str]


def _settings(status: Mapping[str, Any]) -> _Row:
    path = status["settings"]
    if not status["enabled"]:
        return False, TEXTS[Reason.DISABLED], f"set enabled to 1 in section global of {path}, then cpe-mcp reload"
    if status["warnings"]:
        return False, "; ".join(status["warnings"]), f"mend it in {path}, then cpe-mcp reload"
    return True, path, ""


def _wan(status: Mapping[str, Any]) -> _Row:
    usable = [wan["name"] for wan in status["wans"] if wan["usable"]]
    others = [f"{wan['name']}: {wan['text']}" for wan in status["wans"] if not wan["usable"]]
    detail = ", ".join([*usable, *others]) or "none is configured"
    return bool(usable), detail, "cpe-mcp paths shows each WAN; check its cable, its device name and its address"


def _discovery(status: Mapping[str, Any]) -> _Row:
    rows = status["concentrators"]
    if rows:
        return True, ", ".join(f"{row['name']} ({row['source']})" for row in rows), ""
    discarded = [row["discarded"] for row in status["sources"] if row["discarded"]]
    detail = "; ".join(discarded) or "no concentrator is known"
    return False, detail, "ask your operator for the DHCP option, or add a section concentrator with its address"


def _authentication(status: Mapping[str, Any]) -> _Row:
    radius = status["radius"]
    detail = f"{radius['text']} ({radius['detail']})" if radius["detail"] else radius["text"]
    ok = radius["accepted"] or not radius["enabled"]
    return ok, detail, "check server, secret, username and password of section radius"


def _worker(status: Mapping[str, Any]) -> _Row:
    count = len(status["workers"])
    detail = f"{count} connected" if count else TEXTS[Reason.NO_WORKER]
    return bool(count), detail, "start the relay: /etc/init.d/cpe-mcp restart, or cpe-mcp-relay"


def _concentrator(status: Mapping[str, Any]) -> _Row:
    """Warm connections are the evidence: each has been answered by the concentrator."""
    usable = [row for row in status["concentrators"] if row["usable"]]
    if not usable:
        detail = "; ".join(f"{row['name']}: {row['text']}" for row in status["concentrators"]) or "none"
        return False, detail, "cpe-mcp concentrators shows how long it is left alone; check that it runs and its key"
    pool = status["pool"]
    if not pool["size"]:
        return True, f"{usable[0]['name']} is usable (not tried: the warm pool is switched off)", ""
    if pool["ready"]:
        return True, f"{usable[0]['name']} answers, {pool['ready']} warm connections are ready", ""
    detail = f"{usable[0]['name']} has not accepted a connection yet"
    return False, detail, "check that it runs, and that TCP to its port is not blocked on the way"


def _interception(status: Mapping[str, Any]) -> _Row:
    taken = status["interception"]
    if not taken["on"]:
        return False, taken["text"], "mend the first stage that failed"
    return True, "IPv4 and IPv6" if taken["ipv6"] else "IPv4 only", ""
