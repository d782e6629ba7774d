"""Scenarios as data: what was not measured does not hold, and each has its lines."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from cpe_mcp.lab.main import _lab_options, _parser
from cpe_mcp.lab.plan import LINK_NAMES
from cpe_mcp.lab.scenarios import SCENARIOS
from cpe_mcp.lab.scenarios.concentrators import _all_checks
from cpe_mcp.lab.scenarios.flapping import _checks as flapping_checks
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


FLAPPED = {
    "flaps": 11,
    "flaps_possible": 10.9,
    "connections_lost": 0,
    "new_connections_failed": [],
    "states_seen": ["held down", "up"],
}


@pytest.mark.parametrize(
    ("found", "missed"),
    [
        (FLAPPED, []),
        ({**FLAPPED, "flaps": 1}, ["flaps"]),
        ({**FLAPPED, "states_seen": ["up"]}, ["the router saw the line go"]),
        ({**FLAPPED, "states_seen": ["dead"]}, ["and come back"]),
    ],
)
def test_a_line_that_nobody_saw_flap_did_not(found: dict[str, object], missed: list[str]) -> None:
    assert [check.name for check in flapping_checks({"flapping": found}) if not check.ok] == missed


RETURNED = {
    "failed": [],
    "quick_again_after_s": 0.0,
    "taken_while_dead": False,
    "taken_again_s": 3.0,
    "taken_at_end": True,
    "changes": 1,
}
SILENT = {
    "plain_after_s": 1.2,
    "failed_once_known": [],
    "reason": "concentrator-unreachable",
    "wans_while_silent": {"dsl": "up", "lte": "up"},
    "wans_at_end": {"dsl": "up", "lte": "up"},
    "taken_again_s": 1.0,
    "taken_at_end": True,
    "changes": 1,
}


@pytest.mark.parametrize(
    ("returned", "silent", "missed"),
    [
        ({}, {}, []),
        ({"changes": 2, "taken_at_end": False}, {}, ["taken at the end"]),
        ({}, {"wans_while_silent": {"dsl": "dead", "lte": "up"}}, ["all silent: the lines are not blamed"]),
        ({}, {"wans_at_end": {"dsl": "held down", "lte": "up"}}, ["all silent: all lines used at the end"]),
        ({}, {"reason": "no-wan"}, ["all silent: the reason"]),
        ({}, {"failed_once_known": None}, ["all silent: new connections failed once that is known"]),
    ],
)
def test_concentrators_have_to_be_back_at_the_end(
    returned: dict[str, object], silent: dict[str, object], missed: list[str]
) -> None:
    report = {"concentrator": {**RETURNED, **returned}, "silence": {**SILENT, **silent}}
    assert [check.name for check in _all_checks(report) if not check.ok] == missed
    assert not any(check.ok for check in _all_checks({}))


def test_what_never_came_is_no_figure_of_the_bench() -> None:
    path = Path(__file__).parents[1] / "bench/bench_paths.py"
    spec = importlib.util.spec_from_file_location("bench_paths", path)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    (row,) = bench.rows_of({"recovered after, ms": {"ours": None, "mptcpd": 300}})
    assert (row["ours"], row["peer"], row["ratio"]) == (None, 300, None)
    (row,) = bench.rows_of({"recovered after, ms": {"ours": 100, "mptcpd": 300}})
    assert row["ratio"] == 3.0
