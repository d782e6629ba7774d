"""What the lab can show: scenarios by name, as ``cpe-mcp-lab list`` has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from cpe_mcp.lab.scenarios import demo, discovery, fail_open, failover, lines


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
        Scenario("demo", "the main job from end to end, with figures against their limits (about 2 minutes)", demo.run),
        Scenario("lines", "each line alone, plain TCP, without this package", lines.run),
        Scenario("discovery", "where the concentrators are found, and what RADIUS answers", discovery.run),
        Scenario("failover", "a line is cut in the middle of a download, each line in two ways", failover.run),
        Scenario("fail-open", "the LAN still works when the daemons start, stop, die or are refused", fail_open.run),
    )
}
