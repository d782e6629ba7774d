"""The figures of the demo against their limits: each limit at its edge, and what was not measured never holds."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cpe_mcp.lab.scenarios.limits import (
    EFFICIENCY_MIN,
    GAP_MAX_MS,
    RECOVERY_MAX_MS,
    SHARE_TOLERANCE,
    TTFB_SLACK_MS,
    check,
    demo_checks,
    discovery_checks,
    failover_checks,
    interception_checks,
    transfer_checks,
    ttfb_checks,
)

pytestmark = pytest.mark.unit

WANS = {
    "dsl": {"rtt_ms": 20.0, "tcp_mbit": {"down": 96.0, "up": 38.0}},
    "lte": {"rtt_ms": 50.0, "tcp_mbit": {"down": 48.0, "up": 24.0}},
}
GOOD: dict[str, Any] = {
    "wans": WANS,
    "discovery": {"source": "dhcp4"},
    "radius": {"result": "accept"},
    "download": {"sha256_ok": True, "efficiency": 0.97, "bytes_by_wan": {"dsl": 96, "lte": 48}},
    "upload": {"sha256_ok": True, "efficiency": 0.97, "bytes_by_wan": {"dsl": 38, "lte": 24}},
    "ttfb_ms": {"direct": 42.0, "fresh": 43.0, "pooled": 23.0},
    "failover": [
        {
            "wan": wan,
            "cut": cut,
            "gap_ms": 250,
            "recovery_ms": 500,
            "return_ms": 900,
            "connections_lost": 0,
            "sha256_ok": True,
        }
        for wan in WANS
        for cut in GAP_MAX_MS
    ],
    "interception": {
        "modem_page_direct": True,
        "concentrator_port_before": {"v4": "open", "v6": "open"},
        "concentrator_port": {"v4": "silent", "v6": "silent"},
        "port_forward": True,
        "greeting": {"proxied": True, "ms": 44.0},
        "ipv6_download": {"sha256_ok": True, "proxied": True},
    },
    "fail_open": {
        "running_direct_flow_survives_start": True,
        "direct_talk_survives": True,
        "daemon_stopped": True,
        "daemon_killed": True,
        "all_killed": True,
        "rejected": {"plain": True},
    },
}


def report(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(GOOD) | changes


def failed(checks: list[Any]) -> list[str]:
    return [row.name for row in checks if not row.ok]


def test_a_good_report_holds() -> None:
    assert failed(demo_checks(report())) == []


def test_an_empty_report_holds_nothing() -> None:
    checks = demo_checks({"wans": WANS})
    assert checks
    assert all(not row.ok for row in checks)


@pytest.mark.parametrize("part", sorted(set(GOOD) - {"wans"}))
def test_a_part_whose_stage_failed_does_not_hold(part: str) -> None:
    nothing: Any = [] if part == "failover" else {}
    assert failed(demo_checks(report(**{part: nothing})))
    assert failed(demo_checks({name: value for name, value in GOOD.items() if name != part}))


@pytest.mark.parametrize(
    ("value", "sense", "ok"),
    [(1.0, ">=", True), (0.999, ">=", False), (1.0, "<=", True), (1.001, "<=", False), (None, ">=", False)],
)
def test_a_limit_itself_holds(value: float | None, sense: str, ok: bool) -> None:
    row = check("x", value, sense, 1.0, "ms")
    assert (row.ok, row.value, row.limit, row.sense, row.unit) == (ok, value, 1.0, sense, "ms")


@pytest.mark.parametrize("source", ["static", "radius", "", "dhcp6"])
def test_only_dhcp_counts_as_discovered(source: str) -> None:
    names = failed(discovery_checks(report(discovery={"source": source})))
    assert names == ([] if source == "dhcp6" else ["concentrator discovered by DHCP"])


@pytest.mark.parametrize("job", sorted(EFFICIENCY_MIN))
def test_efficiency_at_its_edge(job: str) -> None:
    bad = report()
    bad[job]["efficiency"] = EFFICIENCY_MIN[job]
    assert failed(transfer_checks(bad)) == []
    bad[job]["efficiency"] -= 0.001
    assert failed(transfer_checks(bad)) == [f"{job}: efficiency"]


def test_a_line_that_carries_more_or_less_than_its_share_is_found() -> None:
    bad = report()
    third = 1 / 3  # what lte can carry of both
    for share, holds in ((third + SHARE_TOLERANCE - 0.01, True), (third + SHARE_TOLERANCE + 0.01, False)):
        bad["download"]["bytes_by_wan"] = {"dsl": 1000 * (1 - share), "lte": 1000 * share}
        assert (failed(transfer_checks(bad)) == []) is holds


def test_shares_are_not_judged_when_a_line_was_never_measured_alone() -> None:
    bad = report()
    del bad["wans"]["lte"]["tcp_mbit"]
    assert "download: lines' shares off by" in failed(transfer_checks(bad))


def test_a_warm_connection_has_to_save_a_round_trip_of_the_best_line() -> None:
    good = report(ttfb_ms={"direct": 42.0, "fresh": 42.0 + TTFB_SLACK_MS, "pooled": 22.0 + TTFB_SLACK_MS})
    assert failed(ttfb_checks(good)) == []
    late = report(ttfb_ms={"direct": 42.0, "fresh": 42.2 + TTFB_SLACK_MS, "pooled": 22.2 + TTFB_SLACK_MS})
    assert failed(ttfb_checks(late)) == ["first byte, fresh connection", "first byte, warm connection"]


@pytest.mark.parametrize("cut", sorted(GAP_MAX_MS))
def test_gaps_and_recovery_at_their_edges(cut: str) -> None:
    bad = report()
    row = next(row for row in bad["failover"] if (row["wan"], row["cut"]) == ("dsl", cut))
    row["gap_ms"], row["recovery_ms"] = GAP_MAX_MS[cut], RECOVERY_MAX_MS
    assert failed(failover_checks(bad)) == []
    row["gap_ms"] += 1
    assert failed(failover_checks(bad)) == [f"dsl {cut}: gap"]
    row["gap_ms"], row["recovery_ms"] = 100, None
    assert failed(failover_checks(bad)) == [f"dsl {cut}: recovered after"]


def test_lost_connections_and_changed_content_are_found() -> None:
    for name, value in (("connections_lost", 1), ("connections_lost", None), ("sha256_ok", False)):
        bad = report()
        bad["failover"][0][name] = value
        assert failed(failover_checks(bad)) == ["dsl silent: connections live on, content equal"]


def test_a_line_that_never_carries_again_is_found() -> None:
    bad = report()
    bad["failover"][-1]["return_ms"] = None
    assert failed(failover_checks(bad)) == ["lte down: the line carries again later"]


def test_a_kind_of_cut_that_was_left_out_does_not_hold() -> None:
    assert len(failed(failover_checks(report(failover=GOOD["failover"][1:])))) == 4


@pytest.mark.parametrize(
    ("before", "now", "ok"),
    [
        ({"v4": "open", "v6": "open"}, {"v4": "silent", "v6": "refused"}, True),
        ({"v4": "open", "v6": "open"}, {"v4": "silent", "v6": "open"}, False),
        ({"v4": "open", "v6": "silent"}, {"v4": "silent", "v6": "silent"}, False),
        ({}, {"v4": "silent"}, False),
        ({"v4": "open"}, None, False),
    ],
)
def test_a_shut_port_shows_something_only_if_it_was_open_before(
    before: dict[str, str], now: dict[str, str] | None, ok: bool
) -> None:
    bad = report()
    bad["interception"] |= {"concentrator_port_before": before, "concentrator_port": now}
    assert ("LAN cannot reach the concentrator's port" not in failed(interception_checks(bad))) is ok
