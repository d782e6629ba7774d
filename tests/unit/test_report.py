"""The report for people: what it shows, what it leaves out, and that nothing missing makes it fail."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cpe_mcp.lab.report import WIDTH, render
from cpe_mcp.lab.scenarios.limits import Check, check, holds

pytestmark = pytest.mark.unit

WHOLE: dict[str, Any] = {
    "kernel": "6.18.1",
    "congestion_control": "bbr",
    "emulator": "a program",
    "wans": {
        "dsl": {"rate_mbit": {"down": 100, "up": 40}, "rtt_ms": 20, "tcp_mbit": {"down": 96.5, "up": 38.6}},
        "lte": {"rate_mbit": {"down": 50, "up": 25}, "rtt_ms": 50, "tcp_mbit": {"down": 48.3, "up": 24.1}},
    },
    "discovery": {
        "source": "dhcp4",
        "concentrators": [{"addresses": ["10.20.0.10"], "port": 5124, "interface": "dsl"}],
    },
    "radius": {"result": "accept", "server": "10.20.0.20:1812", "text": "accepted"},
    "download": {
        "bytes": 272_000_000,
        "seconds": 15.5,
        "mbit": 139.9,
        "efficiency": 0.97,
        "sha256_ok": True,
        "bytes_by_wan": {"dsl": 192_000_000, "lte": 95_000_000},
        "share_by_wan": {"dsl": 0.67, "lte": 0.33},
    },
    "ttfb_ms": {"direct": 42.0, "fresh": 43.0, "pooled": 22.0},
    "failover": [
        {"wan": "dsl", "cut": "silent", "gap_ms": 324, "recovery_ms": 543, "connections_lost": 0},
        {"wan": "lte", "cut": "down", "gap_ms": 90, "recovery_ms": None, "connections_lost": 2},
    ],
    "checks": [
        check("download: efficiency", 0.97, ">=", 0.9)._asdict(),
        check("dsl silent: gap", None, "<=", 500, "ms")._asdict(),
        holds("port forward", True)._asdict(),
    ],
    "stages": [{"stage": "lines", "ok": True, "error": ""}],
    "seconds": 122.4,
    "result": "pass",
}


def test_a_whole_report() -> None:
    text = render(WHOLE)
    for piece in (
        "Linux 6.18.1, congestion control bbr, lines: a program",
        " dsl 100/40 20 ms ",
        "10.20.0.10 port 5124, found by dhcp4 on dsl",
        "accept by 10.20.0.20:1812",
        "96.5 Mbit/s down    38.6 Mbit/s up",
        "139.9 Mbit/s  272 MB in 15.5 s, 97% of both lines together, content equal",
        "dsl 192 MB (67%), lte 95 MB (33%)",
        "with a warm connection     22.0 ms",
        "dsl goes dead silently",
        "pause  324 ms, full speed of the rest after 543 ms, no connection lost",
        "lte is unplugged",
        "never back, 2 CONNECTIONS LOST",
        "Verdict: PASS, everything held (took 122 s)",
    ):
        assert piece in text


def test_no_line_is_wider_than_a_terminal() -> None:
    long = copy.deepcopy(WHOLE)
    long["emulator"] = "x" * 500
    long["radius"]["text"] = "y" * 500
    assert max(map(len, render(long).splitlines())) == WIDTH


def test_what_did_not_hold_is_marked_and_named() -> None:
    failed = copy.deepcopy(WHOLE)
    failed["result"] = "fail"
    failed["download"]["sha256_ok"] = False
    text = render(failed)
    assert "CONTENT DIFFERS" in text
    assert "NOT ok dsl silent: gap: not measured (<= 500 ms)" in text
    assert "ok     download: efficiency: 0.97 (>= 0.9)" in text
    assert "ok     port forward: yes" in text
    assert "Not held: dsl silent: gap" in text
    assert text.endswith("Verdict: FAIL (took 122 s)")


def test_a_stage_that_failed_is_said_with_its_error() -> None:
    failed = copy.deepcopy(WHOLE)
    failed["stages"] = [{"stage": "network", "ok": False, "error": "no root"}]
    assert "Stage failed: network: no root" in render(failed)


@pytest.mark.parametrize("part", sorted(WHOLE))
def test_any_part_may_be_missing(part: str) -> None:
    text = render({name: value for name, value in WHOLE.items() if name != part})
    assert "Verdict:" in text


@pytest.mark.parametrize("part", ["discovery", "radius", "download", "ttfb_ms", "failover"])
def test_a_part_whose_stage_failed_may_be_nothing(part: str) -> None:
    assert "Verdict:" in render(WHOLE | {part: None})


def test_nothing_at_all_is_a_failure_in_words() -> None:
    text = render({})
    assert "The network" in text
    assert "Verdict: FAIL" in text


def test_times_that_were_not_measured_are_left_out() -> None:
    text = render(WHOLE | {"ttfb_ms": {"direct": None, "fresh": 43.0, "pooled": None}})
    assert "with it" in text
    assert "without the package" not in text.partition("Time to the first byte")[2].partition("\n\n")[0]
    assert "Time to the first byte" not in render(WHOLE | {"ttfb_ms": {"direct": None}})


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (holds("x", True), "ok     x: yes"),
        (holds("x", False), "NOT ok x: no"),
        (holds("x", None), "NOT ok x: not measured"),
        (check("x", 1.5, "<=", 2.0, "ms"), "ok     x: 1.5 ms (<= 2 ms)"),
        (check("x", None, ">=", 2.0), "NOT ok x: not measured (>= 2)"),
    ],
)
def test_each_kind_of_check(row: Check, text: str) -> None:
    assert f"  {text}" in render({"checks": [row._asdict()]}).splitlines()
