"""Events are the difference of two views, and the daemon's are made of what control and authenticator say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from cpe_mcp.bus.events import (
    ACCEPTED,
    AUTH,
    CONCENTRATOR,
    DISCOVERY,
    OFF,
    PATH,
    WAITING,
    ConcentratorView,
    PathView,
    View,
    differences,
)

TEXTS = {"wan-silent": "nothing comes back", "not-authorized": "RADIUS refused", "wan-up": "it works"}
UP = PathView(True, "up", "wan-up")
BEFORE = View({"dsl": UP, "lte": UP}, {"home": ConcentratorView(True, "")}, ACCEPTED, "")


def events(after: View, before: View = BEFORE) -> list[tuple[str, Mapping[str, Any]]]:
    return list(differences(before, after, TEXTS))


def test_nothing_changed() -> None:
    assert events(BEFORE) == []


def test_a_wan_goes_and_comes() -> None:
    after = BEFORE._replace(paths={"dsl": UP, "lte": PathView(False, "down", "wan-silent")})
    down = {"wan": "lte", "state": "down", "reason": "wan-silent", "text": "nothing comes back"}
    assert events(after) == [(PATH, down)]
    up = {"wan": "lte", "state": "up", "reason": "wan-up", "text": "it works"}
    assert events(BEFORE, after) == [(PATH, up)]


def test_a_usable_wan_in_doubt_is_no_event_but_another_reason_of_a_dead_one_is() -> None:
    doubt = BEFORE._replace(paths={"dsl": UP, "lte": PathView(True, "doubt", "wan-silent")})
    assert events(doubt) == []
    # a quota's step is news, also of a WAN that goes on carrying
    out = BEFORE._replace(paths={"dsl": UP, "lte": UP._replace(state="out of quota", quota="over")})
    assert [(data["wan"], data["state"]) for _, data in events(out)] == [("lte", "out of quota")]
    lossy = BEFORE._replace(paths={"dsl": UP, "lte": PathView(True, "degraded", "wan-lossy")})
    assert [(data["wan"], data["state"]) for _, data in events(lossy)] == [("lte", "degraded")]
    assert [(data["wan"], data["state"]) for _, data in events(BEFORE, lossy)] == [("lte", "up")]
    silent = BEFORE._replace(paths={"dsl": UP, "lte": PathView(False, "down", "wan-silent")})
    unplugged = BEFORE._replace(paths={"dsl": UP, "lte": PathView(False, "down", "wan-link-down")})
    assert [data["reason"] for _, data in events(unplugged, silent)] == ["wan-link-down"]


def test_wans_and_concentrators_that_are_new_or_gone() -> None:
    after = View({"dsl": UP, "cable": UP}, {"other": ConcentratorView(False, "wan-silent")}, ACCEPTED, "")
    assert [
        (event, data.get("wan", data.get("name")), data.get("state", data.get("usable")))
        for event, data in events(after)
    ] == [
        (PATH, "cable", "up"),
        (PATH, "lte", "gone"),
        (CONCENTRATOR, "other", False),
        (CONCENTRATOR, "home", False),
    ]


def test_authentication() -> None:
    refused = BEFORE._replace(auth=WAITING, auth_reason="not-authorized")
    assert events(refused) == [(AUTH, {"state": WAITING, "reason": "not-authorized", "text": "RADIUS refused"})]
    assert events(BEFORE, refused) == [(AUTH, {"state": ACCEPTED, "reason": "", "text": "accepted"})]
    assert events(BEFORE._replace(auth=OFF)) == [(AUTH, {"state": OFF, "reason": "", "text": "not asked"})]


@pytest.mark.requirement("7.3-a")
def test_a_concentrator_that_is_not_believed_is_told_once() -> None:
    refused = BEFORE._replace(refused=(("dhcp4", "dsl", ("203.0.113.66",), "unconfirmed"),))
    ((event, data),) = events(refused)
    assert (event, data["source"], data["interface"], data["addresses"], data["reason"]) == (
        DISCOVERY,
        "dhcp4",
        "dsl",
        ["203.0.113.66"],
        "unconfirmed",
    )
    assert events(refused, refused) == []
