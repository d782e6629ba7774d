"""The line of the default route is up but dead: new connections do not wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

from cpe_mcp.lab.namespaces import LabError
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.scenarios.daemons import status
from cpe_mcp.lab.scenarios.frame import AS_SHIPPED, Report, Scenario, judged, start_daemons
from cpe_mcp.lab.scenarios.limits import TTFB_SLACK_MS, Check, check
from cpe_mcp.lab.scenarios.lines import only_line
from cpe_mcp.lab.scenarios.load import SMOOTH_S, streams, try_once
from cpe_mcp.lab.scenarios.stages import Stages
from cpe_mcp.lab.scenarios.transfer import first_byte_ms

DEAD, GOOD = "dsl", "lte"
NOTICE_MAX_S = {"with traffic": 1.0, "with bursts": 1.0, "without traffic": 3.0}
"""From the death to health's verdict, on an unmetered line."""
TRAFFIC: Mapping[str, tuple[int, float]] = {
    "with traffic": (1, SMOOTH_S),
    "with bursts": (1, 1.0),
    "without traffic": (0, 1.0),
}
"""How many streams, and how often each sends: a video sends in bursts, and is silent for most of the time."""
TRAFFIC_MBIT = 8.0
TRIES = 9
TRY_TIMEOUT_S = 5.0
PAUSE_S = 0.1
POLL_S = 0.02
GIVE_UP_S = 15.0
RETURN_S = 15.0


def _direct(lab: Lab) -> float:
    """Time to first byte over the good line alone, without the package."""
    with only_line(lab, GOOD):
        return first_byte_ms(lab, tries=TRIES, pause_s=PAUSE_S)


def _is_usable(lab: Lab) -> bool:
    return any(wan["name"] == DEAD and wan["usable"] for wan in status(lab)["wans"])


def _until(is_reached: Callable[[], bool], timeout_s: float) -> float | None:
    """How long it took, in s; None when it did not come."""
    started = time.monotonic()
    while not is_reached():
        if time.monotonic() > started + timeout_s:
            return None
        time.sleep(POLL_S)
    return time.monotonic() - started


def _row(lab: Lab, kind: str) -> dict[str, Any]:
    """The line dies; how long until that is known, then new connections. Raises LabError when it does not come back."""
    link = lab.link(DEAD)
    count, every_s = TRAFFIC[kind]
    with streams(lab, count, TRAFFIC_MBIT, every_s=every_s):
        time.sleep(2.0)
        link.cut("silent")
        try:
            noticed_s = _until(lambda: not _is_usable(lab), GIVE_UP_S)
            tries = []
            for _ in range(TRIES):
                tries.append(try_once(lab, timeout_s=TRY_TIMEOUT_S))
                time.sleep(PAUSE_S)
        finally:
            link.restore()
    if _until(lambda: _is_usable(lab), RETURN_S) is None:
        raise LabError(f"{DEAD} is not used again {RETURN_S:g} s after its return")
    times = [1000 * one.first_byte_s for one in tries if one.first_byte_s is not None]
    return {
        "kind": kind,
        "noticed_s": None if noticed_s is None else round(noticed_s, 2),
        "first_byte_ms": round(median(times), 1) if times else None,
        "worst_ms": round(max(times), 1) if times else None,
        "failed": len(tries) - len(times),
    }


def _course(lab: Lab, stages: Stages, report: Report) -> None:
    direct_ms = stages.do(f"time to first byte over {GOOD} alone, direct", partial(_direct, lab))
    found: dict[str, Any] = {"direct_ms": direct_ms, "rows": []}
    report["dead_default"] = found
    start_daemons(lab, stages)
    for kind in NOTICE_MAX_S:
        row = stages.do(f"{DEAD} dies silently, {kind}", partial(_row, lab, kind))
        if row is not None:
            found["rows"].append(row)
    report["notes"] = [
        f"{row['kind']}: noticed after {row['noticed_s']} s, then first byte after {row['first_byte_ms']} ms "
        f"(worst {row['worst_ms']} ms); {GOOD} alone, direct: {direct_ms} ms"
        for row in found["rows"]
    ]


def _checks(report: Mapping[str, Any]) -> Sequence[Check]:
    found = report.get("dead_default") or {}
    rows = {row["kind"]: row for row in found.get("rows", ())}
    direct_ms = found.get("direct_ms")
    rtt_ms = report["wans"][GOOD]["rtt_ms"] if "wans" in report else 0.0
    limit_ms = round((direct_ms or 0.0) + rtt_ms + TTFB_SLACK_MS, 1)
    checks = []
    for kind, notice_max_s in NOTICE_MAX_S.items():
        row = rows.get(kind, {})
        value = row.get("worst_ms") if direct_ms is not None else None
        checks += [
            check(f"{kind}: noticed after", row.get("noticed_s"), "<=", notice_max_s, "s"),
            check(f"{kind}: first byte of new connections, worst", value, "<=", limit_ms, "ms"),
            check(f"{kind}: new connections failed", row.get("failed"), "<=", 0),
        ]
    return checks


def scenarios() -> list[Scenario]:
    """One."""
    return [
        Scenario(
            "dead-default",
            "the default line dies silently: new connections start on the other one",
            judged(_course, _checks, **AS_SHIPPED),
        )
    ]
