"""The schemes that keep bytes off a line: overflow and primary-backup, counted on the line itself."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from cpe_mcp.lab.measure import mbit
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.plan import LINK_NAMES
from cpe_mcp.lab.scenarios.frame import AS_SHIPPED, Report, Scenario, judged, prepared
from cpe_mcp.lab.scenarios.limits import Check, check, holds
from cpe_mcp.lab.scenarios.load import streams
from cpe_mcp.lab.scenarios.main_job import line_bytes, plain_sum_mbit
from cpe_mcp.lab.scenarios.stages import Stages
from cpe_mcp.lab.scenarios.transfer import Content, Download

FIXED, MOBILE = "dsl", "lte"
CONTENT_S = 16.0
IDLE_S = 3.0
BELOW_COUNT, BELOW_MBIT_EACH, BELOW_S = 3, 20.0, 6.0
"""Demand below the fixed line's rate: three streams, 60 of 100 Mbit/s."""
JOIN_S, ABOVE_S = 3.0, 7.0
"""Demand above it: after the first, both lines are to be used; measured until the second."""
LEAVE_S, AFTER_S = 5.0, 3.0
"""Demand falls back: after the first, the mobile line is to be left; measured for the second."""
BELOW_SHARE_MAX, AFTER_SHARE_MAX = 0.01, 0.05
"""Of all bytes, on the mobile line."""
ABOVE_EFFICIENCY_MIN = 0.85
FAILED_S = 4.0
SETTLE_S = 6.0
"""Of primary-backup: how long each state is measured, and how long after the return nothing is asked of it."""
IP_BYTES_PER_PAYLOAD = 1500 / 1448
"""The lines count packets, plain TCP was measured in payload."""


class Meter:
    """Bytes of all lines, both ways, between two looks."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._before = self._now()
        self._from = time.monotonic()

    def read(self) -> dict[str, Any]:
        """Since the last look."""
        now, at = self._now(), time.monotonic()
        both = {name: sum(now[name]) - sum(self._before[name]) for name in LINK_NAMES}
        down = sum(now[name][0] - self._before[name][0] for name in LINK_NAMES)
        total = sum(both.values())
        row = {
            "seconds": round(at - self._from, 1),
            "down_mbit": round(mbit(down, at - self._from), 1),
            "bytes_by_wan": both,
            "mobile_share": round(both[MOBILE] / total, 4) if total else 0.0,
        }
        self._before, self._from = now, at
        return row

    def _now(self) -> dict[str, tuple[int, int]]:
        down, up = line_bytes(self._lab, "down"), line_bytes(self._lab, "up")
        return {name: (down[name], up[name]) for name in LINK_NAMES}


def _notes(found: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [
        f"{name:<8} {found[name]['down_mbit']:>6.1f} Mbit/s down, {found[name]['mobile_share']:.1%} of it on {MOBILE}"
        for name in names
    ]


def _overflow(lab: Lab, content: Content) -> dict[str, Any]:
    """Nothing, little, much, little."""
    meter = Meter(lab)
    time.sleep(IDLE_S)
    found: dict[str, Any] = {"idle": meter.read()}
    with streams(lab, BELOW_COUNT, BELOW_MBIT_EACH) as paced:
        time.sleep(BELOW_S)
        found["below"] = meter.read()
        much = Download(lab, content.size)
        time.sleep(JOIN_S)
        found["joining"] = meter.read()
        time.sleep(ABOVE_S - JOIN_S)
        found["above"] = meter.read()
        found["error"] = much.stop().error
        time.sleep(LEAVE_S)
        found["leaving"] = meter.read()
        time.sleep(AFTER_S)
        found["after"] = meter.read()
        found["streams_lost"] = sum(not stream.is_running for stream in paced)
    return found


def _overflow_course(lab: Lab, stages: Stages, report: Report) -> None:
    content = prepared(lab, stages, report, CONTENT_S, paths={"scheme": "overflow"}, wans={MOBILE: {"metered": True}})
    if content is None:
        return
    found = stages.do("nothing, demand below the fixed line's rate, above, below", partial(_overflow, lab, content))
    report["overflow"] = found
    if found is not None:
        found["above"]["efficiency"] = round(found["above"]["down_mbit"] / _line_sum(report), 3)
        report["notes"] = _notes(found, ("idle", "below", "joining", "above", "leaving", "after"))


def _line_sum(report: Mapping[str, Any]) -> float:
    """Of what plain TCP moves on both lines, counted as the lines count: with headers."""
    return plain_sum_mbit(dict(report), "down") * IP_BYTES_PER_PAYLOAD


def _overflow_checks(report: Mapping[str, Any]) -> Sequence[Check]:
    found = report.get("overflow") or {}
    idle, below = found.get("idle", {}), found.get("below", {})
    mobile = [part["bytes_by_wan"][MOBILE] for part in (idle, below) if part]
    whole = [sum(part["bytes_by_wan"].values()) for part in (idle, below) if part]
    quiet = round(sum(mobile) / sum(whole), 4) if found and sum(whole) else None
    lost = None if not found else found["streams_lost"] + bool(found["error"])
    return [
        check(f"idle and below the fixed line's rate: part on {MOBILE}", quiet, "<=", BELOW_SHARE_MAX),
        check(
            f"above it, from {JOIN_S:g} s on: efficiency",
            found.get("above", {}).get("efficiency"),
            ">=",
            ABOVE_EFFICIENCY_MIN,
        ),
        check(
            f"below it again, from {LEAVE_S:g} s on: part on {MOBILE}",
            found.get("after", {}).get("mobile_share"),
            "<=",
            AFTER_SHARE_MAX,
        ),
        check("connections lost", lost, "<=", 0),
    ]


def _primary(lab: Lab, content: Content) -> dict[str, Any]:
    """A download on the primary line; it fails; it is back."""
    meter = Meter(lab)
    link = lab.link(FIXED)
    running = Download(lab, content.size)
    time.sleep(FAILED_S)
    found: dict[str, Any] = {"healthy": meter.read()}
    link.cut("silent")
    try:
        time.sleep(FAILED_S)
        found["failed"] = meter.read()
    finally:
        link.restore()
    time.sleep(SETTLE_S)
    found["settling"] = meter.read()
    time.sleep(FAILED_S)
    found["back"] = meter.read()
    found["ended_early"] = not running.is_running
    found["error"] = running.stop().error
    return found


def _primary_course(lab: Lab, stages: Stages, report: Report) -> None:
    content = prepared(lab, stages, report, CONTENT_S, is_measured=False, paths={"scheme": "primary-backup"})
    if content is None:
        return
    found = stages.do(f"a download; {FIXED} fails and returns", partial(_primary, lab, content))
    report["primary_backup"] = found
    if found is not None:
        report["notes"] = _notes(found, ("healthy", "failed", "settling", "back"))


def _primary_checks(report: Mapping[str, Any]) -> Sequence[Check]:
    found = report.get("primary_backup") or {}
    wans = report.get("wans", {})
    rate = (wans.get(MOBILE, {}).get("tcp_mbit") or {}).get("down")
    failed = found.get("failed", {}).get("down_mbit")
    return [
        check(f"healthy: part on {MOBILE}", found.get("healthy", {}).get("mobile_share"), "<=", BELOW_SHARE_MAX),
        check(f"{FIXED} failed: of {MOBILE}'s rate", round(failed / rate, 3) if failed and rate else None, ">=", 0.8),
        check(f"{FIXED} back: part on {MOBILE}", found.get("back", {}).get("mobile_share"), "<=", AFTER_SHARE_MAX),
        holds("the download lives on", not found["ended_early"] and not found["error"] if found else None),
    ]


def scenarios() -> list[Scenario]:
    """One for each scheme."""
    return [
        Scenario(
            "overflow",
            "scheme overflow: the mobile line only while the fixed one is full",
            judged(_overflow_course, _overflow_checks, **AS_SHIPPED),
        ),
        Scenario(
            "primary-backup",
            "scheme primary-backup: the second line only while the first is dead",
            judged(_primary_course, _primary_checks, **AS_SHIPPED),
        ),
    ]
