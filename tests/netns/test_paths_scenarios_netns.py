"""The lab's scenarios of paths, each as ``cpe-mcp-lab run`` runs it: every check must hold. The figures of each run are left
in ``build/scenarios``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cpe_mcp.lab.main import main
from cpe_mcp.lab.namespaces import LabError
from cpe_mcp.lab.network import check_machine

pytestmark = [pytest.mark.netns, pytest.mark.requirement("Y-5"), pytest.mark.requirement("Y-12")]

NAME = f"s{os.getpid()}"
RESULTS = Path(__file__).parents[2] / "build/scenarios"

SCENARIOS = (
    "rtt-20-20",
    "rtt-20-50",
    "rtt-20-100",
    "rtt-20-200",
    "rate-100-10",
    "rate-200-10",
    "loss-slow",
    "loss-fast",
    "failover",
    "address-change",
    "dead-default",
    "flapping",
    "same-range",
    "stripped-dsl",
    "stripped-lte",
    "bufferbloat",
    "overflow",
    "primary-backup",
    "quota",
    "cap",
    "concentrator-dies",
    "concentrator-vanishes",
    "concentrators-return",
    "foreign-flush",
)


@pytest.fixture(scope="module", autouse=True)
def _machine() -> None:
    try:
        check_machine()
    except LabError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(scenario: str) -> None:
    """Figures of time hang on a machine that may have done something else: one that misses its limit is measured once more, and
    both are told."""
    failed = run(scenario)
    if failed:
        print(f"missed, and measured again: {failed}")
        failed = run(scenario)
    assert failed == {}


def run(scenario: str) -> dict[str, tuple[Any, Any]]:
    """Checks that did not hold: name -> value, limit. Every stage went well."""
    result = RESULTS / f"{scenario}.json"
    main(["run", scenario, "--name", NAME, "--json", str(result)])
    report: dict[str, Any] = json.loads(result.read_text())
    assert [row for row in report["stages"] if not row["ok"]] == []
    assert report["checks"]
    return {check["name"]: (check["value"], check["limit"]) for check in report["checks"] if not check["ok"]}


def test_every_scenario_of_paths_is_run_here() -> None:
    from cpe_mcp.lab.scenarios import SCENARIOS as ALL

    elsewhere = {"demo", "lines", "discovery", "fail-open", "attacks"}
    assert set(SCENARIOS) == set(ALL) - elsewhere
