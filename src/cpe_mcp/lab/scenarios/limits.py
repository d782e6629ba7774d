"""The figures against their limits: a verdict that says which one did not hold. Pure.

A figure that was not measured does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cpe_mcp.lab.measure import shares

EFFICIENCY_MIN = {"download": 0.90, "upload": 0.85}
SHARE_TOLERANCE = 0.10
"""A line's share of the bytes against its share of the plain rates, as a fraction."""
BEST_LINE_MIN = 0.95
"""Of the best single line's rate: whatever the lines are like, using both never costs more than this."""
SHORT_MAX = 1.05
"""Time of a short transfer, as a multiple of plain TCP's on the best line."""
GAP_MAX_MS = {"silent": 500, "down": 300}
RECOVERY_MAX_MS = 1000
"""What the demo shows to everybody, on any machine."""
PATHS_GAP_MAX_MS = {"silent": 350, "down": 250, "unplugged": 250, "renewed": 350, "replaced": 350}
PATHS_RECOVERY_MAX_MS = 500
BACK_MAX_MS = 2000
"""What the scenarios hold this package to. The last: until a line that is back carries running connections again."""
TTFB_SLACK_MS = 3.0
"""For the relays at both ends and the emulator."""


class Check(NamedTuple):
    """One figure, or one thing that has to be true, and whether it held."""

    name: str
    value: float | bool | None
    """None: not measured."""
    limit: float | bool
    sense: str
    """``>=`` or ``<=``; ``is`` for what has to be true."""
    unit: str
    ok: bool


def check(name: str, value: float | None, sense: str, limit: float, unit: str = "") -> Check:
    """A figure against its limit."""
    ok = value is not None and (value >= limit if sense == ">=" else value <= limit)
    return Check(name, value, limit, sense, unit, ok)


def holds(name: str, value: bool | None) -> Check:
    """Something that has to be true."""
    return Check(name, value, True, "is", "", value is True)


def demo_checks(report: Mapping[str, Any]) -> list[Check]:
    """Everything that the demo has to show."""
    return [
        *discovery_checks(report),
        *transfer_checks(report),
        *ttfb_checks(report),
        *failover_checks(report),
        *interception_checks(report),
        *fail_open_checks(report),
    ]


def discovery_checks(report: Mapping[str, Any]) -> list[Check]:
    """Found by DHCP, accepted by RADIUS."""
    source = str(_part(report, "discovery").get("source", ""))
    return [
        holds("concentrator discovered by DHCP", source.startswith("dhcp")),
        holds("RADIUS accepts the subscriber", _part(report, "radius").get("result") == "accept"),
    ]


def transfer_checks(report: Mapping[str, Any]) -> list[Check]:
    """Download and upload."""
    checks = []
    for job, direction in (("download", "down"), ("upload", "up")):
        found = _part(report, job)
        checks.append(holds(f"{job}: content equal at both ends", found.get("sha256_ok")))
        checks.append(check(f"{job}: efficiency", found.get("efficiency"), ">=", EFFICIENCY_MIN[job]))
        distance = _share_distance(report, found.get("bytes_by_wan"), direction)
        checks.append(check(f"{job}: lines' shares off by", distance, "<=", SHARE_TOLERANCE))
    return checks


def ttfb_checks(report: Mapping[str, Any]) -> list[Check]:
    """Time to first byte; the line is the one that forwards plainly."""
    times = _part(report, "ttfb_ms")
    direct = times.get("direct")
    if direct is None:
        return [holds("time to first byte measured directly", None)]
    rtt = min(wan["rtt_ms"] for wan in report["wans"].values())
    return [
        check("first byte, fresh connection", times.get("fresh"), "<=", round(direct + TTFB_SLACK_MS, 1), "ms"),
        check("first byte, warm connection", times.get("pooled"), "<=", round(direct - rtt + TTFB_SLACK_MS, 1), "ms"),
    ]


def failover_checks(report: Mapping[str, Any]) -> list[Check]:
    """Each line, each kind of cut."""
    rows = {(row["wan"], row["cut"]): row for row in report.get("failover", ())}
    checks = []
    for wan in report["wans"]:
        for cut, gap_max_ms in GAP_MAX_MS.items():
            row = rows.get((wan, cut), {})
            lost = row.get("connections_lost")
            survived = None if lost is None else lost == 0 and row["sha256_ok"]
            checks += [
                holds(f"{wan} {cut}: connections live on, content equal", survived),
                check(f"{wan} {cut}: gap", row.get("gap_ms"), "<=", gap_max_ms, "ms"),
                check(f"{wan} {cut}: recovered after", row.get("recovery_ms"), "<=", RECOVERY_MAX_MS, "ms"),
                holds(f"{wan} {cut}: the line carries again later", row.get("return_ms") is not None),
            ]
    return checks


def path_checks(report: Mapping[str, Any], rows_wanted: Sequence[tuple[str, str]]) -> list[Check]:
    """Rows of ``failover``, wanted as (line, kind of trouble), against the scenarios' limits."""
    rows = {(row["wan"], row["cut"]): row for row in report.get("failover", ())}
    checks = []
    for wan, cut in rows_wanted:
        row = rows.get((wan, cut), {})
        lost = row.get("connections_lost")
        checks += [
            holds(f"{wan} {cut}: connections live on, content equal", lost == 0 and row["sha256_ok"] if row else None),
            check(f"{wan} {cut}: gap", row.get("gap_ms"), "<=", PATHS_GAP_MAX_MS[cut], "ms"),
            check(f"{wan} {cut}: recovered after", row.get("recovery_ms"), "<=", PATHS_RECOVERY_MAX_MS, "ms"),
            check(f"{wan} {cut}: carries again after", row.get("back_ms"), "<=", BACK_MAX_MS, "ms"),
        ]
    return checks


def interception_checks(report: Mapping[str, Any]) -> list[Check]:
    """What is taken and what is not."""
    found = _part(report, "interception")
    ipv6 = found.get("ipv6_download") or {}
    greeting = found.get("greeting") or {}
    direct = _part(report, "ttfb_ms").get("direct", 0.0)
    return [
        holds("modem page is not intercepted", found.get("modem_page_direct")),
        holds("LAN cannot reach the concentrator's port", _is_shut(found)),
        holds("port forward to a LAN server works", found.get("port_forward")),
        holds("server speaks first: through the package", greeting.get("proxied")),
        check("server speaks first: greeting after", greeting.get("ms"), "<=", round(direct + TTFB_SLACK_MS, 1), "ms"),
        holds("IPv6 download: content equal", ipv6.get("sha256_ok")),
        holds("IPv6 download: through the package", ipv6.get("proxied")),
    ]


def fail_open_checks(report: Mapping[str, Any]) -> list[Check]:
    """The LAN works without the daemons."""
    found = _part(report, "fail_open")
    return [
        holds("a running direct download survives their start", found.get("running_direct_flow_survives_start")),
        holds("a quiet direct connection survives start and stop", found.get("direct_talk_survives")),
        holds("LAN reaches the server: daemons stopped", found.get("daemon_stopped")),
        holds("LAN reaches the server: control daemon killed", found.get("daemon_killed")),
        holds("LAN reaches the server: all daemons killed", found.get("all_killed")),
        holds("LAN reaches the server: RADIUS refuses, reason shown", (found.get("rejected") or {}).get("plain")),
    ]


def _is_shut(found: Mapping[str, Any]) -> bool | None:
    """Whether the port that was open to the LAN before the daemons started (else nothing is shown) is not any more."""
    before, now = found.get("concentrator_port_before"), found.get("concentrator_port")
    if not before or not now:
        return None
    return set(before.values()) == {"open"} and "open" not in now.values()


def _share_distance(report: Mapping[str, Any], carried: Mapping[str, int] | None, direction: str) -> float | None:
    """The largest difference between a line's share of the bytes and its share of the plain rates."""
    if not carried or not all("tcp_mbit" in wan for wan in report["wans"].values()):
        return None
    expected = shares({name: wan["tcp_mbit"][direction] for name, wan in report["wans"].items()})
    return round(max(abs(share - expected[name]) for name, share in shares(carried).items()), 3)


def _part(report: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A part of the report; empty when its stage failed."""
    return report.get(key) or {}
