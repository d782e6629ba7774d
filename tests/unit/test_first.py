"""Why a new connection begins on this WAN, and goes to this concentrator."""

from __future__ import annotations

import pytest

from cpe_mcp.policy.first import Standing, why_concentrator, why_wan

pytestmark = pytest.mark.unit

DSL = Standing("dsl", is_reserve=False, is_metered=False, preference=10)
LTE = Standing("lte", is_reserve=False, is_metered=True, preference=10)


@pytest.mark.requirement("Y-6")
@pytest.mark.parametrize(
    ("chosen", "order", "scheme", "reason"),
    [
        ("dsl", [DSL], "adaptive", "first-only"),
        ("lte", [DSL, LTE], "adaptive", "first-family"),
        ("dsl", [DSL, LTE], "adaptive", "first-latency"),
        ("dsl", [DSL, LTE._replace(preference=20)], "adaptive", "first-preference"),
        ("dsl", [DSL, LTE._replace(preference=20)], "lowest-latency", "first-latency"),
        ("dsl", [DSL._replace(preference=30), LTE], "overflow", "first-unmetered"),
        ("dsl", [DSL._replace(preference=30), LTE._replace(is_reserve=True)], "overflow", "first-role"),
        ("dsl", [DSL._replace(preference=30), LTE._replace(quota="soft")], "adaptive", "first-quota"),
        (
            "dsl",
            [DSL._replace(is_reserve=True), LTE._replace(quota="over", is_reserve=True)],
            "adaptive",
            "first-quota",
        ),
        ("dsl", [DSL, LTE._replace(quota="soft", is_reserve=True)], "adaptive", "first-role"),
        ("lte", [LTE, DSL._replace(strips=True)], "overflow", "first-strips"),
        ("lte", [LTE, DSL], "primary-backup", "first-scheme"),
        ("lte", [LTE._replace(preference=20), DSL], "adaptive", "first-scheme"),
        ("lte", [LTE, DSL], "lowest-latency", "first-latency"),
    ],
)
def test_why_this_wan(chosen: str, order: list[Standing], scheme: str, reason: str) -> None:
    assert why_wan(chosen, order, scheme) == reason


@pytest.mark.parametrize(("scheme", "reason"), [("single:lte", "first-scheme"), ("lowest-latency", "first-latency")])
def test_why_this_wan_for_a_class_of_its_own(scheme: str, reason: str) -> None:
    assert why_wan("lte", [DSL, LTE], scheme, bound=True) == reason


def test_why_this_concentrator() -> None:
    assert why_concentrator("a", ["a"]) == "concentrator-only"
    assert why_concentrator("a", ["a", "b"]) == "concentrator-first"
    assert why_concentrator("b", ["a", "b"], by_rule=True) == "concentrator-rule"
    assert why_concentrator("b", ["a", "b"]) == "concentrator-next"
