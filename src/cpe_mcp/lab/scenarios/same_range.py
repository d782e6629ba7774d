"""Both lines with the same address range and the same gateway address, as behind two modems with factory settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.plan import LINK_NAMES, SAME_RANGE
from cpe_mcp.lab.scenarios.failover import cut_line
from cpe_mcp.lab.scenarios.frame import AS_SHIPPED, Report, Scenario, judged, prepared
from cpe_mcp.lab.scenarios.limits import BEST_LINE_MIN, Check, check, holds, path_checks
from cpe_mcp.lab.scenarios.main_job import download
from cpe_mcp.lab.scenarios.stages import Stages

DOWNLOAD_S = 8.0
CONTENT_S = 12.0
EFFICIENCY_MIN = 0.85
"""Over DOWNLOAD_S, of which the slower line's later start is a larger part than over a long one."""
BOTH_MIN = 0.1
"""Of the bytes, on each line: that packets leave by the line whose address they carry."""
CUT = ("dsl", "silent")


def _course(lab: Lab, stages: Stages, report: Report) -> None:
    content = prepared(lab, stages, report, CONTENT_S, is_measured=False)
    if content is None:
        return
    report["download"] = stages.do(
        "one download over both lines", partial(download, lab, report, content, "down", DOWNLOAD_S)
    )
    row = stages.do(f"cut {CUT[0]} ({CUT[1]}) in mid-download", partial(cut_line, lab, content, report, *CUT))
    report["failover"] = [row] if row is not None else []


def _checks(report: Mapping[str, Any]) -> Sequence[Check]:
    found, best = report.get("download") or {}, (report.get("direct") or {}).get("mbit")
    shares = found.get("share_by_wan") or {}
    return [
        holds("content equal at both ends", found.get("sha256_ok")),
        check("download: efficiency", found.get("efficiency"), ">=", EFFICIENCY_MIN),
        check(
            "against the best line alone",
            round(found["mbit"] / best, 3) if found and best else None,
            ">=",
            BEST_LINE_MIN,
        ),
        *(check(f"{name}: part of the bytes", shares.get(name), ">=", BOTH_MIN) for name in LINK_NAMES),
        *path_checks(report, [CUT]),
    ]


def scenarios() -> list[Scenario]:
    """One."""
    return [
        Scenario(
            "same-range",
            "both lines have the same address range and gateway: both are used, and one can fail",
            judged(_course, _checks, **AS_SHIPPED, addresses=SAME_RANGE),
        )
    ]
