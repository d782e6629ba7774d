"""An access network takes the MPTCP options away: it is used as far as it goes, and people are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.plan import LINK_NAMES
from cpe_mcp.lab.scenarios.daemons import status
from cpe_mcp.lab.scenarios.frame import AS_SHIPPED, Report, Scenario, judged, prepared
from cpe_mcp.lab.scenarios.limits import BEST_LINE_MIN, Check, check, holds
from cpe_mcp.lab.scenarios.load import NewConnections
from cpe_mcp.lab.scenarios.main_job import download
from cpe_mcp.lab.scenarios.stages import Stages
from cpe_mcp.paths.health import DEGRADED

DOWNLOAD_S = 6.0
CONTENT_S = 12.0
NEW_EVERY_S, NEW_TIMEOUT_S = 0.5, 5.0


def _transfer(lab: Lab, report: Report, content: Any, wan: str) -> dict[str, Any]:
    """A download, and new connections beside it; what the daemon says of it afterwards."""
    with NewConnections(lab, every_s=NEW_EVERY_S, timeout_s=NEW_TIMEOUT_S) as new:
        found = download(lab, report, content, "down", DOWNLOAD_S)
    tries = new.tries()
    told = status(lab)
    return {
        **found,
        "new_connections": len(tries),
        "new_connections_failed": [one.error for one in tries if one.first_byte_s is None],
        "fallbacks": told.get("fallbacks", {}),
        "state": next((row["state"] for row in told["wans"] if row["name"] == wan), ""),
        "text": next((row["text"] for row in told["wans"] if row["name"] == wan), ""),
    }


def _course(lab: Lab, stages: Stages, report: Report, *, wan: str) -> None:
    stages.do(f"{wan} strips MPTCP", partial(lab.strip_mptcp, wan))
    content = prepared(lab, stages, report, CONTENT_S, is_measured=False)
    if content is None:
        return
    found = stages.do("a download, and new connections beside it", partial(_transfer, lab, report, content, wan))
    report["download"] = found
    if found is not None:
        report["notes"] = [
            f"{wan} is called {found['state']}: {found['text'] or 'nothing more'}",
            f"fallbacks: {found['fallbacks'] or 'none counted'}",
        ]


def _checks(report: Mapping[str, Any], *, wan: str) -> Sequence[Check]:
    found, best = report.get("download") or {}, (report.get("direct") or {}).get("mbit")
    failed = found.get("new_connections_failed")
    return [
        holds("content equal at both ends", found.get("sha256_ok")),
        check(
            "against the best line alone",
            round(found["mbit"] / best, 3) if found and best else None,
            ">=",
            BEST_LINE_MIN,
        ),
        check("new connections failed", None if failed is None else len(failed), "<=", 0),
        holds("people are told of the line", found["state"] == DEGRADED if found else None),
    ]


def scenarios() -> list[Scenario]:
    """One for each line."""
    return [
        Scenario(
            f"stripped-{wan}",
            f"the access network of {wan} takes MPTCP's options away",
            judged(partial(_course, wan=wan), partial(_checks, wan=wan), **AS_SHIPPED),
        )
        for wan in LINK_NAMES
    ]
