"""Scenarios as data: what was not measured does not hold, and each has its lines."""

from __future__ import annotations

import pytest

from cpe_mcp.lab.main import _lab_options, _parser
from cpe_mcp.lab.plan import LINK_NAMES
from cpe_mcp.lab.scenarios import SCENARIOS
from cpe_mcp.lab.scenarios.unequal import VARIANTS, _checks, short_checks


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: str(variant.name))
def test_an_empty_report_holds_nothing(variant: object) -> None:
    checks = _checks({}, variant=variant)  # type: ignore[arg-type]
    assert checks
    assert not any(check.ok for check in checks)
    assert len({check.name for check in checks}) == len(checks)


def test_short_transfers_are_held_against_plain_tcp() -> None:
    plain = {"100 kB": 100.0, "500 kB": 100.0, "2 MB": 100.0}
    checks = short_checks({"plain": plain, "ours": {"100 kB": 90.0, "500 kB": 105.0, "2 MB": 106.0}})
    assert [(check.value, check.ok) for check in checks] == [(0.9, True), (1.05, True), (1.06, False)]


def test_every_scenario_has_both_lines_and_a_summary() -> None:
    for name, scenario in SCENARIOS.items():
        assert scenario.name == name
        assert set(scenario.links) == set(LINK_NAMES)
        assert scenario.summary


def test_what_is_typed_wins_over_the_scenarios_own_lines() -> None:
    own = SCENARIOS["loss-slow"].links
    typed = _parser().parse_args(["run", "loss-slow", "--lte", "30/10/70"])
    links = _lab_options(typed, own)["links"]
    assert links["dsl"] == own["dsl"]
    assert (links["lte"].down_mbit, links["lte"].rtt_ms, links["lte"].loss_percent) == (30, 70, 1)
    bare = _parser().parse_args(["run", "loss-slow", "--loss-lte", "0"])
    assert _lab_options(bare, own)["links"]["lte"].loss_percent == 0
