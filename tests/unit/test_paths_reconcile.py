"""Desired against observed: only the difference, and nothing on a second look."""

from __future__ import annotations

import pytest

from cpe_mcp.paths.observed import FLAG_BACKUP, FLAG_SUBFLOW, DeviceView, Endpoint, Observed, Route, Rule
from cpe_mcp.paths.reconcile import (
    RETURN_PAUSE_S,
    carrying,
    plan_endpoints,
    plan_routes,
    wanted_endpoints,
    wanted_routes,
    wanted_rules,
)

pytestmark = pytest.mark.unit

DSL = DeviceView(
    "eth1", 3, True, "10.1.0.2", "2001:db8:1::2", ("10.1.0.0/24", "2001:db8:1::/64"), "10.1.0.1", "fe80::1"
)
LTE = DeviceView("wwan0", 4, True, "10.2.0.2", "", ("10.2.0.0/24",), "", None)
ORDER = ["dsl", "lte"]
VIEWS = {"dsl": DSL, "lte": LTE}


def test_endpoints_exist_for_living_wans_only() -> None:
    wanted = wanted_endpoints(ORDER, VIEWS, ["dsl"], [])
    assert {endpoint.address for endpoint in wanted.values()} == {"10.1.0.2", "2001:db8:1::2"}
    assert wanted_endpoints(ORDER, VIEWS, [], []) == {}


def test_the_last_silent_wans_keep_their_endpoints() -> None:
    assert carrying(["lte"], ["dsl"]) == {"lte"}
    assert carrying([], ["dsl", "lte"]) == {"dsl", "lte"}
    assert carrying([], []) == frozenset()


def test_an_address_that_went() -> None:
    assert DSL.is_ready()
    assert DSL.without("2001:db8:1::2").is_ready()
    assert not DSL.without("2001:db8:1::2").without("10.1.0.2").is_ready()
    assert DSL.without("10.1.0.77") == DSL


def test_backup_is_a_flag() -> None:
    wanted = wanted_endpoints(ORDER, VIEWS, ORDER, ["lte"])
    flags = {endpoint.address: endpoint.flags for endpoint in wanted.values()}
    assert flags["10.1.0.2"] == FLAG_SUBFLOW
    assert flags["10.2.0.2"] == FLAG_SUBFLOW | FLAG_BACKUP


def test_a_wan_without_a_default_route_has_no_endpoint() -> None:
    views = {"dsl": DSL._replace(gateway4=None, gateway6=None)}
    assert wanted_endpoints(["dsl"], views, ["dsl"], []) == {}


def test_second_plan_is_empty() -> None:
    wanted = wanted_endpoints(ORDER, VIEWS, ORDER, ["lte"])
    first = plan_endpoints(wanted, [], [3, 4], {}, 100.0)
    assert len(first.add) == 3
    second = plan_endpoints(wanted, list(first.add), [3, 4], {}, 100.0)
    assert second == ((), (), ())


def test_flags_are_changed_in_place_under_the_id_the_kernel_has() -> None:
    wanted = wanted_endpoints(ORDER, VIEWS, ORDER, [])
    there = [endpoint._replace(id=endpoint.id + 20) for endpoint in wanted.values()]
    there[0] = there[0]._replace(flags=FLAG_SUBFLOW | FLAG_BACKUP)
    plan = plan_endpoints(wanted, there, [3, 4], {}, 100.0)
    assert (plan.add, plan.delete) == ((), ())
    assert [endpoint.id for endpoint in plan.change] == [there[0].id]


def test_a_return_waits_after_the_deletion() -> None:
    wanted = wanted_endpoints(["dsl"], VIEWS, ["dsl"], [])
    deleted = {"10.1.0.2": 100.0}
    early = plan_endpoints(wanted, [], [3], deleted, 100.0 + RETURN_PAUSE_S - 0.01)
    assert [endpoint.address for endpoint in early.add] == ["2001:db8:1::2"]
    late = plan_endpoints(wanted, [], [3], deleted, 100.01 + RETURN_PAUSE_S)
    assert len(late.add) == 2


def test_an_old_address_on_our_device_goes_and_foreign_endpoints_stay() -> None:
    wanted = wanted_endpoints(["dsl"], VIEWS, ["dsl"], [])
    old = Endpoint(9, "10.1.0.77", 3, FLAG_SUBFLOW)
    foreign = Endpoint(12, "172.16.0.1", 77, 1)
    plan = plan_endpoints(wanted, [old, foreign, *wanted.values()], [3], {}, 100.0)
    assert plan == ((), (old,), ())


def test_an_address_that_moved_is_deleted_first_and_added_in_a_later_round() -> None:
    wanted = wanted_endpoints(["dsl"], VIEWS, ["dsl"], [])
    elsewhere = Endpoint(5, "10.1.0.2", 8, FLAG_SUBFLOW)
    plan = plan_endpoints(wanted, [elsewhere], [3], {}, 100.0)
    assert plan.delete == (elsewhere,)
    assert "10.1.0.2" not in {endpoint.address for endpoint in plan.add}


def test_routes_and_rules_of_two_wans() -> None:
    routes = wanted_routes(ORDER, VIEWS)
    assert Route(5101, 4, "default", "10.1.0.1", "eth1", "10.1.0.2") in routes
    assert Route(5101, 6, "default", "fe80::1", "eth1", "") in routes
    assert Route(5102, 4, "default", "", "wwan0", "10.2.0.2") in routes, "a point-to-point line has no gateway"
    assert not [route for route in routes if route.table == 5102 and route.family == 6]
    rules = wanted_rules(ORDER, VIEWS)
    assert Rule(4, 520, 5101, "10.1.0.2", "", 0) in rules
    assert Rule(4, 523, 5102, "", "wwan0", 0) in rules


def test_routes_come_in_an_order_that_works_and_then_no_more() -> None:
    routes, rules = wanted_routes(ORDER, VIEWS), wanted_rules(ORDER, VIEWS)
    observed = Observed({}, frozenset({Route(5101, 4, "default", "10.1.0.9", "eth1", "")}), frozenset())
    plan = plan_routes(routes, rules, observed)
    assert plan.delete_routes == (Route(5101, 4, "default", "10.1.0.9", "eth1", ""),)
    kinds = [route.destination == "default" for route in plan.add_routes]
    assert kinds == sorted(kinds), "a default route before the network its gateway is in"
    assert plan_routes(routes, rules, Observed({}, routes, rules)).is_empty()


def test_a_device_that_is_down_has_no_routes() -> None:
    routes = wanted_routes(["dsl"], {"dsl": DSL._replace(is_up=False)})
    assert {route.table for route in routes} == {5100}
