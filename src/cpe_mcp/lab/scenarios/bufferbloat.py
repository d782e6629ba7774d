"""A mobile line with a long queue, full in both directions: nobody may call a busy line dead."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from cpe_mcp.lab.link import DEFAULT_LINKS, LinkSpec
from cpe_mcp.lab.measure import mbit
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.scenarios.daemons import status
from cpe_mcp.lab.scenarios.frame import AS_SHIPPED, Report, Run, Scenario, judged, prepared
from cpe_mcp.lab.scenarios.limits import BEST_LINE_MIN, Check, check
from cpe_mcp.lab.scenarios.load import endless_upload
from cpe_mcp.lab.scenarios.main_job import line_bytes
from cpe_mcp.lab.scenarios.stages import Stages
from cpe_mcp.lab.scenarios.transfer import Content, Download

BLOATED = LinkSpec(50, 25, 50, queue_ms=300)
LOAD_S = 60.0
"""An hour is ``--seconds 3600``."""
CONTENT_S = 12.0
PAUSE_S = 0.2
ALARM = re.compile(r"wan (\w+) is (?!up\b)([a-z -]+):")
"""How the daemon's log says that it takes a WAN out of use."""


def alarms(log: str) -> list[str]:
    """What the daemon has logged of WANs that it took out of use."""
    return [line for line in log.splitlines() if ALARM.search(line)]


def _load(lab: Lab, content: Content, seconds: float) -> dict[str, Any]:
    """One download after another, beside an upload that does not end."""
    before, seen = line_bytes(lab, "down"), len(alarms(lab.log("cpe-mcpd")))
    started = time.monotonic()
    errors = []
    worst_rtt_ms = dict.fromkeys(before, 0.0)
    with endless_upload(lab):
        download = Download(lab, content.size)
        while time.monotonic() < started + seconds:
            time.sleep(PAUSE_S)
            for wan in status(lab)["wans"]:
                worst_rtt_ms[wan["name"]] = max(worst_rtt_ms[wan["name"]], wan["rtt_ms"])
            if not download.is_running:
                errors += [error] if (error := download.wait(0).error) else []
                download = Download(lab, content.size)
        took_s = time.monotonic() - started
        carried = {name: count - before[name] for name, count in line_bytes(lab, "down").items()}
        download.stop()
    return {
        "seconds": round(took_s, 1),
        "mbit": round(mbit(sum(carried.values()), took_s), 1),
        "bytes_by_wan": carried,
        "alarms": alarms(lab.log("cpe-mcpd"))[seen:],
        "errors": errors,
        "worst_rtt_ms": worst_rtt_ms,
    }


def _course(lab: Lab, stages: Stages, report: Report, *, seconds: float) -> None:
    content = prepared(lab, stages, report, CONTENT_S, is_measured=False)
    if content is None:
        return
    found = stages.do(f"{seconds:g} s of full load both ways", partial(_load, lab, content, seconds))
    report["load"] = found
    if found is not None:
        report["notes"] = [
            f"{found['seconds']:g} s at {found['mbit']:g} Mbit/s down, beside an upload: {len(found['alarms'])} false alarms",
            *found["alarms"][:3],
        ]


def _checks(report: Mapping[str, Any]) -> Sequence[Check]:
    found, best = report.get("load") or {}, (report.get("direct") or {}).get("mbit")
    alarmed, errors = found.get("alarms"), found.get("errors")
    return [
        check("false alarms", None if alarmed is None else len(alarmed), "<=", 0),
        check("connections lost", None if errors is None else len(errors), "<=", 0),
        check(
            "against the best line alone",
            round(found["mbit"] / best, 3) if found and best else None,
            ">=",
            BEST_LINE_MIN,
        ),
    ]


def _lasting(seconds: float) -> Run:
    return judged(partial(_course, seconds=seconds), _checks, **AS_SHIPPED)


def scenarios() -> list[Scenario]:
    """One, which can be made longer."""
    return [
        Scenario(
            "bufferbloat",
            "a mobile line with a queue of 300 ms under full load: no line is called dead (--seconds 3600 for an hour)",
            _lasting(LOAD_S),
            {**DEFAULT_LINKS, "lte": BLOATED},
            _lasting,
        )
    ]
