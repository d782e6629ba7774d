"""What ``cpe-mcp status`` says of RADIUS."""

from __future__ import annotations

from typing import Any

import pytest

from cpe_mcp.cli.radius_lines import radius_lines

pytestmark = pytest.mark.unit

NO_CAP = {"down_mbit": 0, "up_mbit": 0}
ACCEPTED: dict[str, Any] = {
    "enabled": True,
    "accepted": True,
    "reason": "ready",
    "text": "accepted",
    "detail": "",
    "transport": "tls",
    "server": "192.0.2.20:2083",
    "expires_s": 2886.4,
    "asks_again_s": 2166.0,
    "cap": NO_CAP,
    "accounting": {"enabled": False},
    "dynamic": None,
}


def lines(warnings: tuple[str, ...] = (), **changes: Any) -> dict[str, str]:
    return radius_lines({"radius": {**ACCEPTED, **changes}, "warnings": list(warnings)})


def test_who_answered_how_it_is_asked_how_long_it_holds_and_when_it_is_asked_again() -> None:
    assert lines() == {
        "RADIUS": "accepted",
        "RADIUS server": "192.0.2.20:2083 answered, asked over TLS",
        "RADIUS times": "what it said holds for another 48 min 6 s, asked again in 36 min 6 s",
    }


def test_what_is_not_known_is_left_out() -> None:
    silent = lines(text="no RADIUS server answered", detail="x did not answer", server="", expires_s=None)
    assert silent["RADIUS"] == "no RADIUS server answered (x did not answer)"
    assert silent["RADIUS server"] == "none has answered, asked over TLS"
    assert silent["RADIUS times"] == "asked again in 36 min 6 s"
    assert "RADIUS times" not in lines(expires_s=None, asks_again_s=None), "an Accept without an end"
    assert lines(("said",), detail="said")["RADIUS"] == "accepted", "a warning says it already"
    off = {"enabled": False, "text": "not asked", "detail": ""}
    assert radius_lines({"radius": off, "warnings": []}) == {"RADIUS": "not asked"}


def test_the_cap_that_the_accept_orders() -> None:
    assert "Rate cap" not in lines()
    both = lines(cap={"down_mbit": 100, "up_mbit": 50})["Rate cap"]
    assert both == "100 Mbit/s down, 50 Mbit/s up for all that goes through concentrators, as RADIUS says"
    assert lines(cap={"down_mbit": 0, "up_mbit": 5})["Rate cap"].startswith("no limit down, 5 Mbit/s up")


@pytest.mark.requirement("X-13")
def test_accounting_and_why_its_records_wait() -> None:
    assert "Accounting" not in lines()
    counts = {"enabled": True, "sent": 12, "waiting": 0, "lost": 0, "trouble": ""}
    assert lines(accounting=counts)["Accounting"] == "12 records sent, 0 wait, 0 lost"
    waits = {**counts, "waiting": 1, "trouble": "192.0.2.20:1813 did not answer"}
    assert lines(accounting=waits)["Accounting"] == (
        "12 records sent, 1 waits (192.0.2.20:1813 did not answer), 0 lost"
    )


@pytest.mark.requirement("5.3-b")
def test_where_changes_are_taken_and_what_came() -> None:
    nothing: dict[str, Any] = {"addresses": [], "counters": {}}
    assert lines(dynamic=nothing)["Changes"] == "taken at no address: none yet"
    some = {"addresses": ["10.0.0.7"], "counters": {"stale": 1, "coa-ack": 2}}
    assert lines(dynamic=some)["Changes"] == "taken at 10.0.0.7: 2 coa-ack, 1 stale"
