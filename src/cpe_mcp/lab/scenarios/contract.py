"""What the subscriber's contract says: a WAN's monthly quota, and a cap of all lines together, counted on the lines."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from cpe_mcp.lab.measure import mbit, size_of
from cpe_mcp.lab.namespaces import LabError
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.plan import ADDRESSES, LINK_NAMES
from cpe_mcp.lab.scenarios.daemons import POLL_S
from cpe_mcp.lab.scenarios.frame import AS_SHIPPED, Report, Scenario, judged, prepared, start_daemons
from cpe_mcp.lab.scenarios.limits import Check, check, holds
from cpe_mcp.lab.scenarios.lines import reckon_down
from cpe_mcp.lab.scenarios.main_job import line_bytes
from cpe_mcp.lab.scenarios.stages import Stages
from cpe_mcp.lab.scenarios.transfer import Content, Download
from cpe_mcp.policy.quota import OVER, SOFT

UNLIMITED, LIMITED = "dsl", "lte"
QUOTA_MB, SOFT_SHARE = 25, 0.8
"""Of ``lte``: crossed within 5 s of a download over both lines."""
CROSS_S = 20.0
LEAVE_S, AFTER_S = 1.0, 2.0
"""From the step on: its connections have moved away after the first, and that is measured for the second."""
FAILED_S = 3.0
REST_SHARE_MAX = 0.02
"""Of all bytes, on a line that is to be kept for need: probes, and what was under way."""
OVERSHOOT_MAX = 1.25
"""Of the soft limit: what arrives until the counters are read and the peer has been told."""
CAP_MBIT, CAP_TOLERANCE = 60.0, 0.06
"""Below what both lines carry and above what one does: of payload, which the concentrator counts."""
CAP_FROM_S, CAP_S = 2.0, 3.0
"""A download has had time to get there; it is measured for so long, alone and then beside another one that got there too."""
QUOTA_CONTENT_S, CAP_CONTENT_S = 16.0, 8.0


def _await_quota(lab: Lab, state: str) -> dict[str, Any]:
    """Until the quota of LIMITED is in that state. Raises LabError."""
    deadline = time.monotonic() + CROSS_S
    while time.monotonic() < deadline:
        rows: list[dict[str, Any]] = lab.ask("paths")["wans"]
        row = next(row for row in rows if row["name"] == LIMITED)
        if row["quota"]["state"] == state:
            return row
        time.sleep(POLL_S)
    raise LabError(f"the quota of {LIMITED} is still not {state} after {CROSS_S:g} s")


def _carried(lab: Lab) -> dict[str, int]:
    """Bytes of each line, both ways."""
    down, up = line_bytes(lab, "down"), line_bytes(lab, "up")
    return {name: down[name] + up[name] for name in LINK_NAMES}


def _share(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    moved = {name: after[name] - before[name] for name in LINK_NAMES}
    return round(moved[LIMITED] / max(1, sum(moved.values())), 4)


def _quota(lab: Lab, content: Content) -> dict[str, Any]:
    """One download: until the soft limit, after it, on the last line that works, and beyond the quota."""
    begin = _carried(lab)
    running = Download(lab, content.size)
    soft = _await_quota(lab, SOFT)
    crossed = _carried(lab)
    time.sleep(LEAVE_S)
    left = _carried(lab)
    time.sleep(AFTER_S)
    after = _carried(lab)
    link = lab.link(UNLIMITED)
    link.cut("silent")
    try:
        over = _await_quota(lab, OVER)
        failing, at = _carried(lab), time.monotonic()
        time.sleep(FAILED_S)
        failed = _carried(lab)
        seconds = time.monotonic() - at
    finally:
        link.restore()
    error = "" if running.is_running else "it ended early"
    return {
        "share_before": _share(begin, crossed),
        "place_after": soft["place"],
        "mb_at_step": round((left[LIMITED] - begin[LIMITED]) / 1e6, 1),
        "share_after": _share(left, after),
        "state_over": over["state"],
        "mbit_last_resort": round(mbit(failed[LIMITED] - failing[LIMITED], seconds), 1),
        "error": running.stop().error or error,
    }


def _quota_course(lab: Lab, stages: Stages, report: Report) -> None:
    limited = {"quota_gb": QUOTA_MB / 1000, "quota_soft_percent": round(100 * SOFT_SHARE)}
    state_dir = {"state_dir": str(lab.directory / "cpe/flash")}
    content = prepared(
        lab, stages, report, QUOTA_CONTENT_S, is_measured=False, wans={LIMITED: limited}, general=state_dir
    )
    if content is not None:
        report["quota"] = stages.do(
            f"a download crosses the quota of {LIMITED}; {UNLIMITED} fails", partial(_quota, lab, content)
        )


def _quota_checks(report: Mapping[str, Any]) -> Sequence[Check]:
    found = report.get("quota") or {}
    rate = (report.get("wans", {}).get(LIMITED, {}).get("tcp_mbit") or {}).get("down")
    last = found.get("mbit_last_resort")
    return [
        check(f"before the soft limit: part on {LIMITED}", found.get("share_before"), ">=", 0.1),
        check(
            f"bytes on {LIMITED} a second after the soft limit",
            found.get("mb_at_step"),
            "<=",
            QUOTA_MB * SOFT_SHARE * OVERSHOOT_MAX,
            "MB",
        ),
        check(f"after it: part on {LIMITED}", found.get("share_after"), "<=", REST_SHARE_MAX),
        check(
            f"{UNLIMITED} failed, quota used up: of {LIMITED}'s rate",
            round(last / rate, 3) if last and rate else None,
            ">=",
            0.8,
        ),
        holds("the download lives on", not found["error"] if found else None),
    ]


def _cap(lab: Lab, content: Content) -> dict[str, Any]:
    """One download under the cap, then a second one beside it."""
    running = [Download(lab, content.size)]
    windows = []
    for _ in range(2):
        time.sleep(CAP_FROM_S)
        begin = time.monotonic()
        time.sleep(CAP_S)
        windows.append((begin, time.monotonic()))
        if len(running) == 1:
            running.append(Download(lab, content.size))
    received = [download.stop() for download in running]
    rates = [[_rate(row.arrivals, *window) for row in received] for window in windows]
    return {
        "cap_mbit": CAP_MBIT,
        "one_mbit": rates[0][0],
        "two_mbit": [round(rate, 1) for rate in rates[1]],
        "two_sum_mbit": round(sum(rates[1]), 1),
        "error": " ".join(row.error for row in received).strip(),
    }


def _rate(arrivals: Sequence[tuple[float, int]], start: float, end: float) -> float:
    return round(mbit(sum(size for at, size in arrivals if start < at <= end), end - start), 1)


def _cap_course(lab: Lab, stages: Stages, report: Report) -> None:
    whole = sum(lab.link(name).spec.down_mbit for name in LINK_NAMES)
    content = stages.do("make the content", partial(Content, lab, size_of(whole, CAP_CONTENT_S)))
    if content is None:
        return
    reckon_down(lab, report)
    prefixes = [prefix for name in LINK_NAMES for prefix in ADDRESSES.of(name)]
    capped = {"capped": {"address": prefixes, "down_mbit": CAP_MBIT}}
    start_daemons(lab, stages, concentrator={"subscribers": capped, "radius": {"enabled": False}})
    report["cap"] = stages.do(f"downloads under a cap of {CAP_MBIT:g} Mbit/s", partial(_cap, lab, content))


def _cap_checks(report: Mapping[str, Any]) -> Sequence[Check]:
    found = report.get("cap") or {}
    one, two = found.get("one_mbit"), found.get("two_sum_mbit")
    low, high = round(CAP_MBIT * (1 - CAP_TOLERANCE), 1), round(CAP_MBIT * (1 + CAP_TOLERANCE), 1)
    share = round(min(found["two_mbit"]) / found["two_sum_mbit"], 2) if found and two else None
    return [
        check("one download", one, ">=", low, "Mbit/s"),
        check("one download", one, "<=", high, "Mbit/s"),
        check("two downloads together", two, ">=", low, "Mbit/s"),
        check("two downloads together", two, "<=", high, "Mbit/s"),
        check("part of the one that has less", share, ">=", 0.3),
        holds("no download is lost", not found["error"] if found else None),
    ]


def scenarios() -> list[Scenario]:
    """The quota of a WAN, and the cap of a subscriber."""
    return [
        Scenario(
            "quota",
            "the mobile line's quota is crossed: reserve from 80 % on, last resort when it is used up",
            judged(_quota_course, _quota_checks, **AS_SHIPPED),
        ),
        Scenario(
            "cap",
            "the concentrator holds a subscriber to a cap, over both lines together",
            judged(_cap_course, _cap_checks, **AS_SHIPPED),
        ),
    ]
