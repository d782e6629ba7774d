"""What the lab can show: scenarios by name, as ``cpe-mcp-lab list`` has them."""

from __future__ import annotations

from cpe_mcp.lab.scenarios.bufferbloat import scenarios as bufferbloat
from cpe_mcp.lab.scenarios.concentrators import scenarios as concentrators
from cpe_mcp.lab.scenarios.contract import scenarios as contract
from cpe_mcp.lab.scenarios.dead_default import scenarios as dead_default
from cpe_mcp.lab.scenarios.demo import run as run_demo
from cpe_mcp.lab.scenarios.discovery import run as run_discovery
from cpe_mcp.lab.scenarios.dos import scenarios as dos
from cpe_mcp.lab.scenarios.fail_open import run as run_fail_open
from cpe_mcp.lab.scenarios.failover import scenarios as failover
from cpe_mcp.lab.scenarios.flapping import scenarios as flapping
from cpe_mcp.lab.scenarios.foreign_flush import scenarios as foreign_flush
from cpe_mcp.lab.scenarios.frame import Scenario
from cpe_mcp.lab.scenarios.lines import run as run_lines
from cpe_mcp.lab.scenarios.same_range import scenarios as same_range
from cpe_mcp.lab.scenarios.schemes import scenarios as schemes
from cpe_mcp.lab.scenarios.stripped import scenarios as stripped
from cpe_mcp.lab.scenarios.unequal import scenarios as unequal

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("demo", "the main job from end to end, with figures against their limits (about 2 minutes)", run_demo),
        Scenario("lines", "each line alone, plain TCP, without this package", run_lines),
        Scenario("discovery", "where the concentrators are found, and what RADIUS answers", run_discovery),
        Scenario("fail-open", "the LAN still works when the daemons start, stop, die or are refused", run_fail_open),
        *failover(),
        *unequal(),
        *dead_default(),
        *flapping(),
        *same_range(),
        *stripped(),
        *bufferbloat(),
        *schemes(),
        *contract(),
        *concentrators(),
        *foreign_flush(),
        *dos(),
    )
}
