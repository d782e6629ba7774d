"""The snapshot as a function of settings and knowledge: what is proxied, why not, and what is taken."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cpe_mcp.aaa.cookie import NO_CREDENTIAL, CookieError, Credential, own_credential
from cpe_mcp.discovery.candidates import Candidate
from cpe_mcp.paths.snapshot import Snapshot, WanView, from_wire, to_wire
from cpe_mcp.policy.reasons import TEXTS, Reason
from cpe_mcp.settings.router import GlobalSettings, RouterSettings
from cpe_mcp.upstream.snapshot_builder import build, describe_changes, interception

pytestmark = pytest.mark.unit

DSL = WanView("dsl", "eth1", "198.51.100.2", "")
LTE = WanView("lte", "wwan0", "", "2001:db8:2::2")
FAR = Candidate("far", ("192.0.2.1",), 5124, "static", "", "alice", "a key of some length")
FAR6 = FAR._replace(name="far6", addresses=("2001:db8::1",))


def made(general: GlobalSettings | None = None, **changes: Any) -> Snapshot:
    arguments: dict[str, Any] = {
        "generation": 7,
        "wans": [DSL, LTE],
        "scheme": ("adaptive", Reason.SCHEME_ROOM),
        "usable": [FAR],
        "left_alone": "",
        "authorization": "",
        "reaches_ipv6": lambda name: True,
        "congestion_controls": ["cubic"],
    }
    return build(RouterSettings(general=general or GlobalSettings()), **(arguments | changes))


def test_all_is_well() -> None:
    snapshot = made()
    assert (snapshot.proxy, snapshot.reason) == (True, Reason.READY)
    assert snapshot.wans == (DSL, LTE)
    assert snapshot.generation == 7


def test_settings_go_in_as_they_are() -> None:
    general = GlobalSettings(fallback="block", pool_size=3, pool_idle_s=4.0, connect_timeout_s=5.0, reply_timeout_s=6.0)
    snapshot = made(general)
    assert (snapshot.fallback, snapshot.pool_size, snapshot.pool_idle_s) == ("block", 3, 4.0)
    assert (snapshot.connect_timeout_s, snapshot.reply_timeout_s) == (5.0, 6.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"wans": [], "authorization": Reason.NOT_AUTHORIZED, "usable": []}, Reason.NO_WAN),
        ({"authorization": Reason.NOT_AUTHORIZED, "usable": []}, Reason.NOT_AUTHORIZED),
        ({"usable": [], "left_alone": Reason.CONCENTRATOR_REFUSED}, Reason.CONCENTRATOR_REFUSED),
        ({"usable": []}, Reason.NO_CONCENTRATOR),
        ({"usable": [FAR6], "wans": [DSL]}, Reason.NO_COMMON_FAMILY),
    ],
)
def test_what_has_to_be_mended_first_is_the_reason(changes: dict[str, Any], reason: str) -> None:
    snapshot = made(**changes)
    assert (snapshot.proxy, snapshot.reason) == (False, reason)


def test_a_refusal_by_radius_blocks_where_the_settings_say_so_and_nothing_else_does() -> None:
    assert made(authorization=Reason.NOT_AUTHORIZED, usable=[], blocks=True).fallback == "block"
    assert made(authorization=Reason.NOT_AUTHORIZED, usable=[]).fallback == "direct"
    assert made(blocks=True).fallback == "direct"


def test_switched_off_comes_before_everything() -> None:
    assert made(GlobalSettings(enabled=False), wans=[], usable=[]).reason == Reason.DISABLED


def test_one_concentrator_of_a_common_family_is_enough() -> None:
    assert made(usable=[FAR6, FAR], wans=[DSL]).reason == Reason.READY


def test_cookies_are_made_of_the_settings_else_of_what_radius_granted_and_never_for_another_make() -> None:
    granted = Credential("", b"key from RADIUS", b"handle")
    nameless = FAR._replace(subscriber="", key="")
    for candidate, given, credential in (
        (FAR, NO_CREDENTIAL, own_credential("alice", FAR.key)),
        (FAR, granted, own_credential("alice", FAR.key)),
        (nameless, NO_CREDENTIAL, NO_CREDENTIAL),
        (nameless, granted, granted),
        (nameless._replace(foreign=True), granted, NO_CREDENTIAL),
    ):
        (row,) = made(usable=[candidate], granted=given).concentrators
        assert row.credential == credential
    with pytest.raises(CookieError, match="has no key"):
        made(usable=[FAR._replace(key="")])


@pytest.mark.requirement("7.4-a")
def test_what_is_sent_to_the_workers_is_read_back_and_nothing_prints_a_key() -> None:
    snapshot = made(usable=[FAR._replace(subscriber="", key="")], granted=Credential("", b"a secret key", b"handle"))
    assert from_wire(to_wire(snapshot)) == snapshot
    assert "secret" not in repr(snapshot)
    assert "handle of" not in repr(snapshot)


def test_each_concentrator_carries_what_is_known_of_its_ipv6() -> None:
    snapshot = made(usable=[FAR, FAR6._replace(foreign=True)], reaches_ipv6=lambda name: name == "far6")
    assert [(row.name, row.reaches_ipv6, row.foreign) for row in snapshot.concentrators] == [
        ("far", False, False),
        ("far6", True, True),
    ]


def test_congestion_control() -> None:
    auto = made(congestion_controls=["cubic", "bbr"])
    assert (auto.congestion_control, auto.lossy_congestion_control) == ("", "bbr")
    fixed = made(GlobalSettings(congestion_control="cubic"), congestion_controls=["cubic", "bbr"])
    assert (fixed.congestion_control, fixed.lossy_congestion_control) == ("cubic", "")


def test_nothing_is_taken_without_a_worker_or_when_switched_off() -> None:
    assert interception(made(), workers=0) == (False, False)
    for fallback in ("direct", "block"):
        off = made(GlobalSettings(enabled=False, fallback=fallback))
        assert interception(off, workers=1) == (False, False)


def test_both_families_are_taken_while_the_concentrator_reaches_ipv6() -> None:
    assert interception(made(), workers=1) == (True, True)
    assert interception(made(reaches_ipv6=lambda name: False), workers=1) == (True, False)


def test_ipv6_counts_only_for_a_concentrator_that_can_be_connected_to() -> None:
    """The one that reaches IPv6 servers has an address that no WAN has the family of."""
    snapshot = made(usable=[FAR, FAR6], wans=[DSL], reaches_ipv6=lambda name: name == "far6")
    assert interception(snapshot, workers=1) == (True, False)


def test_while_nothing_can_be_proxied_connections_are_taken_only_to_be_refused() -> None:
    assert interception(made(usable=[]), workers=1) == (False, False)
    assert interception(made(GlobalSettings(fallback="block"), usable=[]), workers=1) == (True, True)


def test_nothing_is_said_of_what_stayed_the_same() -> None:
    assert describe_changes(made(), made()) == []
    assert describe_changes(made(), made()._replace(generation=8, pool_size=99)) == []


def test_what_changed_is_said_in_words() -> None:
    lines = describe_changes(made(), made(wans=[LTE], usable=[]))
    assert lines == [
        f"connections are not proxied: {TEXTS[Reason.NO_CONCENTRATOR]}",
        "usable WANs: lte",
        "usable concentrators: none",
    ]
    assert describe_changes(made(usable=[]), made())[0] == f"connections are proxied: {TEXTS[Reason.READY]}"


def test_another_reason_is_a_change_although_nothing_was_proxied_before() -> None:
    (line,) = describe_changes(made(usable=[]), made(usable=[], left_alone=Reason.CONCENTRATOR_BUSY))
    assert TEXTS[Reason.CONCENTRATOR_BUSY] in line


def test_trust_in_ipv6_is_said_when_it_goes_and_when_it_returns() -> None:
    trusted, not_trusted = made(), made(reaches_ipv6=lambda name: False)
    assert describe_changes(trusted, not_trusted) == [f"concentrator far: {TEXTS[Reason.NO_IPV6]}"]
    assert describe_changes(not_trusted, trusted) == ["concentrator far: is trusted with IPv6 servers again"]


def test_a_key_is_in_no_line() -> None:
    other = dataclasses.replace(RouterSettings())
    assert other == RouterSettings()
    lines = describe_changes(made(usable=[]), made())
    assert not [line for line in lines if FAR.key in line]
