"""What the lab can show: scenarios by name, as ``cpe-mcp-lab list`` has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cpe_mcp.lab.scenarios.demo import run as run_demo
from cpe_mcp.lab.scenarios.discovery import run as run_discovery
from cpe_mcp.lab.scenarios.fail_open import run as run_fail_open
from cpe_mcp.lab.scenarios.failover import run as run_failover
from cpe_mcp.lab.scenarios.lines import run as run_lines


class Scenario(NamedTuple):
    """One thing to see."""

    name: str
    summary: str
    run: Callable[[Mapping[str, Any], dict[str, Any]], None]
    """``run(options, report)``: ``options`` are the arguments of :class:`cpe_mcp.lab.network.Lab`. Prints what it found
    and fills ``report`` as it goes, last its ``result``, ``pass`` or ``fail``. Raises LabError when there is no lab."""


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("demo", "the main job from end to end, with figures against their limits (about 2 minutes)", run_demo),
        Scenario("lines", "each line alone, plain TCP, without this package", run_lines),
        Scenario("discovery", "where the concentrators are found, and what RADIUS answers", run_discovery),
        Scenario("failover", "a line is cut in the middle of a download, each line in two ways", run_failover),
        Scenario("fail-open", "the LAN still works when the daemons start, stop, die or are refused", run_fail_open),
    )
}
