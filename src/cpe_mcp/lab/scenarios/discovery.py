"""Where the concentrators are found, and what RADIUS answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpe_mcp.lab import report as reporting
from cpe_mcp.lab.namespaces import LabError
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.scenarios.daemons import await_status
from cpe_mcp.lab.scenarios.stages import Stages, in_lab

STATIC_NAME = "mine"
SHOWN = ("name", "addresses", "port", "source", "interface", "usable")


def discovered(lab: Lab) -> dict[str, Any]:
    """``source`` of the best concentrator, and all ``concentrators`` in order. Raises LabError when there is none."""
    rows = await_status(lab, "a concentrator is known", lambda now: bool(now["concentrators"]))["concentrators"]
    return {"source": rows[0]["source"], "concentrators": [{key: row[key] for key in SHOWN} for row in rows]}


def radius_answer(lab: Lab) -> dict[str, Any]:
    """``result``: accept, or the reason why not; with the ``server`` that answered. Raises LabError without an answer."""
    radius = await_status(lab, "RADIUS has answered", lambda now: bool(now["radius"]["server"]))["radius"]
    result = "accept" if radius["accepted"] else radius["reason"]
    return {"result": result, "text": radius["text"], "server": radius["server"]}


def static_wins(lab: Lab) -> dict[str, Any]:
    """With a concentrator in the settings, what DHCP says does not count."""
    lab.start_cpe(concentrators={STATIC_NAME: {"address": [lab.addresses.concentrator2.v4]}})
    try:
        found = discovered(lab)
    finally:
        lab.stop_cpe()
    if [row["name"] for row in found["concentrators"]] != [STATIC_NAME]:
        raise LabError(f"a static concentrator did not win: {found['concentrators']}")
    return found


def run(options: Mapping[str, Any], report: dict[str, Any]) -> None:
    """The scenario ``discovery``."""

    def course(lab: Lab, stages: Stages, report: dict[str, Any]) -> None:
        lab.start_concentrator(1)
        lab.start_cpe()
        report["discovery"] = stages.do("discovery by DHCP", lambda: discovered(lab))
        report["radius"] = stages.do("RADIUS", lambda: radius_answer(lab))
        lab.stop_cpe()
        report["static"] = stages.do("a static concentrator wins", lambda: static_wins(lab))

    stages = in_lab(options, report, course)
    report["result"] = "fail" if stages.failed else "pass"
    print(reporting.render(report))
