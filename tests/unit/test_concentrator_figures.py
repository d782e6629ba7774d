"""Figures to metric families: names, labels, and what is left out."""

from __future__ import annotations

import re

import pytest

from cpe_mcp.concentrator.figures import COUNTER, GAUGE, Family, Figures, SubscriberTotals, families

pytestmark = [pytest.mark.unit, pytest.mark.requirement("X-14")]

NOTHING = Figures(
    version="1.2",
    kernel="6.18",
    uptime_s=3.5,
    workers=0,
    worker_restarts=0,
    counters={},
    limits={},
    refusals={},
    cookies={},
    cookies_remembered=0,
    handles={"known": 0, "ended": 0},
    radius_enabled=False,
    radius={},
    authorizations={},
    asking=0,
    table={"wanted": False, "in_place": False, "disturbed": 0},
    filters={},
    address_log=(0, 0),
    accounting={"sessions": 0, "sent": 0, "waiting": 0, "lost": 0},
    dynamic={},
    ident={},
    subscribers=(),
)


def by_name(figures: Figures) -> dict[str, Family]:
    found = {family.name.removeprefix("mcp_concentrator_"): family for family in families(figures)}
    assert len(found) == len(families(figures)), "a name is there twice"
    return found


def test_before_anything_happened_there_are_zeros_and_no_empty_families() -> None:
    found = by_name(NOTHING)
    assert found["flows"].samples == (((), 0.0),)
    assert found["bytes"].samples == ((("up",), 0.0), (("down",), 0.0))
    for name in (
        "connections_accepted",
        "connections_refused",
        "convert_errors",
        "radius_packets",
        "subscriber_bytes",
        "subscriber_flows",
    ):
        assert name not in found


def test_names_and_labels_are_what_prometheus_takes() -> None:
    busy = NOTHING._replace(
        counters={"accepted:a": 1, "error:32": 1},
        refusals={"closed": 1},
        radius_enabled=True,
        radius={"requests": 1},
        authorizations={"accepted": 1},
        asking=2,
        address_log=(3, 1),
        accounting={"sessions": 2, "sent": 9, "waiting": 1, "lost": 0},
        dynamic={"coa-ack": 1},
        ident={"told": 1},
        subscribers=(SubscriberTotals("x", 1, 2, 3),),
    )
    for family in families(busy):
        assert re.fullmatch(r"mcp_concentrator_[a-z_]+[a-z]", family.name)
        assert not family.name.endswith("_total"), "the library adds it"
        assert family.kind in (COUNTER, GAUGE)
        assert family.doc.endswith(".")
        for label in family.labels:
            assert re.fullmatch(r"[a-z]+", label)
        for values, _ in family.samples:
            assert len(values) == len(family.labels)


def test_caps_are_in_bytes_and_only_of_those_who_have_one() -> None:
    rows = (
        SubscriberTotals("a", 0, 0, 0, (8.0, 0.5)),
        SubscriberTotals("b", 1, 2, 3),
        SubscriberTotals("c", 0, 0, 0, (0.0, 1.0)),
    )
    found = by_name(NOTHING._replace(subscribers=rows, counters={"held_back": 4}))
    assert found["subscriber_cap_bytes_per_second"].samples == (
        (("a", "down"), 1e6),
        (("a", "up"), 62500.0),
        (("c", "up"), 125000.0),
    )
    assert found["directions_held_back"].samples == (((), 4.0),)
    assert "subscriber_cap_bytes_per_second" not in by_name(NOTHING._replace(subscribers=rows[1:2]))


def test_counters_of_the_workers_find_their_places() -> None:
    found = by_name(
        NOTHING._replace(
            counters={
                "accepted:home": 7,
                "accepted:guests": 2,
                "authorized": 5,
                "refused_no_descriptors": 4,
                "error:32": 6,
                "error:97": 1,
                "half_open": 8,
                "waiting": 9,
                "relaying": 10,
                "action_proxy": 11,
                "plain_tcp": 12,
                "bytes_up": 13,
                "bytes_down": 14,
                "verdict_cached": 15,
                "verdict_asked": 16,
            },
            limits={"half_open": 3, "source": 0},
            workers=2,
            worker_restarts=1,
        )
    )
    assert found["connections_accepted"].samples == ((("guests",), 2.0), (("home",), 7.0))
    assert found["connections_authorized"].samples == (((), 5.0),)
    assert dict(found["connections_dropped"].samples) == {("descriptors",): 4.0}
    assert dict(found["limit_reached"].samples) == {("half_open",): 3.0, ("source",): 0.0}
    assert found["convert_errors"].samples == ((("32",), 6.0), (("97",), 1.0))
    assert found["half_open"].samples == (((), 8.0),)
    assert found["warm_connections"].samples == (((), 9.0),)
    assert found["flows_live"].samples == (((), 10.0),)
    assert found["flows"].samples == (((), 11.0),)
    assert found["flows_plain_tcp"].samples == (((), 12.0),)
    assert found["bytes"].samples == ((("up",), 13.0), (("down",), 14.0))
    assert dict(found["authorizations"].samples) == {("cache",): 15.0, ("control",): 16.0}
    assert found["workers"].samples == (((), 2.0),)
    assert found["worker_restarts"].samples == (((), 1.0),)


def test_radius_shows_only_while_it_is_asked() -> None:
    asked = NOTHING._replace(radius_enabled=True, radius={"requests": 2, "forged": 1})
    assert by_name(asked)["radius_packets"].samples == ((("forged",), 1.0), (("requests",), 2.0))
    assert "radius_packets" not in by_name(asked._replace(radius_enabled=False))
    remembered = asked._replace(authorizations={"refused": 3, "accepted": 4}, asking=5)
    assert by_name(remembered)["radius_addresses"].samples == ((("accepted",), 4.0), (("refused",), 3.0))
    assert by_name(remembered)["radius_asking"].samples == (((), 5.0),)


@pytest.mark.requirement("5.3-b")
def test_what_came_of_dynamic_authorization() -> None:
    found = by_name(NOTHING._replace(dynamic={"stale": 1, "coa-ack": 2}))
    assert found["dynamic_requests"].samples == ((("coa-ack",), 2.0), (("stale",), 1.0))
    assert "dynamic_requests" not in by_name(NOTHING)


def test_subscribers_show_when_they_are_given() -> None:
    found = by_name(NOTHING._replace(subscribers=(SubscriberTotals("alice", 2, 10, 20),)))
    assert found["subscriber_flows"].samples == ((("alice",), 2.0),)
    assert found["subscriber_bytes"].samples == ((("alice", "up"), 10.0), (("alice", "down"), 20.0))


@pytest.mark.requirement("5.3-b")
def test_filters_have_their_numbers_of_addresses() -> None:
    found = by_name(NOTHING._replace(filters={"gold": 2, "quiet": 0}))
    assert found["filter_addresses"].samples == ((("gold",), 2.0), (("quiet",), 0.0))
