"""What CoA and Disconnect do to a concentrator's sessions: all of them or none, at once, and nobody else's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from test_concentrator_authorization import ACCEPT, CONFIG, Desk, FakeFilters, run, settle

from cpe_mcp.aaa.answer import RadiusAnswer
from cpe_mcp.aaa.cookie import make_cookie, make_handle, own_credential
from cpe_mcp.aaa.dynamic import Change, ErrorCause, Refused, Selector
from cpe_mcp.concentrator import authorizer, handles
from cpe_mcp.concentrator.authorizer import Authorizer, Session
from cpe_mcp.concentrator.dynamic import SubscriberSessions
from cpe_mcp.concentrator.dynamic_rules import rules
from cpe_mcp.concentrator.filters import FilterHook
from cpe_mcp.concentrator.handles import HandleSession
from cpe_mcp.concentrator.verdict import Verdict
from cpe_mcp.settings import SettingsError, parse_concentrator
from cpe_mcp.settings.concentrator import RadiusSettings, SubscriberSettings

pytestmark = [pytest.mark.unit, pytest.mark.requirement("5.3-b")]

OURS = "192.0.2.1"
KEY = "wonderland-and-back"
SECRET = "of-all-concentrators"
UNIX_S = 1.8e9


class Host:
    """A control of paper, with line-7 on two addresses, line-8 on one, carl in the table, and line-9 known by a handle."""

    def __init__(self) -> None:
        self.paper = FakeFilters()
        self.filters: FilterHook = self.paper
        carl = SubscriberSettings(name="carl", key=KEY, address=("10.8.0.0/24",), down_mbit=10)
        self.authorizer = Authorizer([carl], RadiusSettings(enabled=True), SECRET)
        for address, user in (("10.9.9.7", "line-7"), ("2001:db8::7", "line-7"), ("10.9.9.8", "line-8")):
            self.authorizer.learn(address, RadiusAnswer("accept", "", user=user, down_mbit=20), 0.0)
        self.caps: list[Mapping[str, tuple[float, float]]] = []
        self.forgotten: list[Mapping[str, Any]] = []
        self.accounted: list[str] = []
        self.ids = {"line-8": "boot-8", "line-9": "boot-9", "carl": "boot-c"}
        self.now = 100.0
        self.handles_for_s = 0.0
        self.sessions = SubscriberSessions(self, now=lambda: self.now, unix=lambda: UNIX_S)
        self.verdict("198.51.100.9", cookie_of("line-9"))

    def own_addresses(self) -> Collection[str]:
        return (OURS,)

    def set_caps(self, caps_mbit: Mapping[str, tuple[float, float]]) -> None:
        self.caps.append(dict(caps_mbit))

    def session_id(self, subscriber: str) -> str:
        return self.ids.get(subscriber, "")

    def subscriber_of(self, session_id: str) -> str:
        return next((name for name, known in self.ids.items() if known == session_id), "")

    def ended(self, subscriber: str) -> None:
        self.accounted.append(subscriber)

    def forget(self, who: Mapping[str, Any]) -> None:
        self.forgotten.append(dict(who))

    def follow_filters(self, *addresses: str) -> None:
        gone = dict.fromkeys(self.authorizer.take_unfiltered(), ())
        if gone:
            self.filters.apply(gone)

    def handle_ttl_s(self) -> float:
        return self.handles_for_s

    def found(self, **selector: Any) -> list[str]:
        found = self.sessions.find(Selector(**selector))
        return [
            row.address
            if isinstance(row, Session)
            else row.subscriber
            if isinstance(row, Verdict)
            else f"handle of {row.verdict.subscriber}"
            if isinstance(row, HandleSession)
            else f"perhaps a handle of {row.subscriber}"
            for row in found
        ]

    def change(self, selector: Selector, **change: Any) -> None:
        self.sessions.change(self.sessions.find(selector), Change(**change))

    def verdict(self, address: str, cookie: bytes = b"", needs: str = "address") -> Any:
        verdict = self.authorizer.judge(
            address=address, cookie=cookie, needs=needs, now=self.now, clock_s=UNIX_S, unix_s=UNIX_S
        )
        return verdict if isinstance(verdict, Verdict) else None


def cookie_of(name: str, ends_s: float = 1000.0) -> bytes:
    """Made with a handle that AAA has given him."""
    return make_cookie(make_handle(name, SECRET.encode(), UNIX_S + ends_s), UNIX_S)


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ({"user": "line-7"}, ["10.9.9.7", "2001:db8::7"]),
        ({"user": "line-7", "addresses": ("2001:db8::7",)}, ["2001:db8::7"]),
        ({"addresses": ("10.9.9.8",)}, ["10.9.9.8"]),
        ({"user": "2001:db8:0::7"}, ["2001:db8::7"]),  # as the Access-Request had it for User-Name
        ({"user": "line-8", "addresses": ("10.9.9.7",)}, []),
        ({"user": "carl"}, ["carl"]),
        ({"addresses": ("10.8.0.200",)}, ["carl"]),
        ({"user": "carl", "addresses": ("10.9.9.7",)}, []),
        ({"user": "nobody"}, []),
        ({"calling_station": "02:00:00:00:00:01"}, []),
        ({"user": "line-7", "session_id": "5"}, []),
        ({"user": "line-7", "session_id": "boot-8"}, []),
        ({"user": "line-8", "session_id": "boot-8", "multi_session_id": "boot-8"}, ["10.9.9.8"]),
        ({"session_id": "boot-8"}, ["10.9.9.8"]),
        ({"multi_session_id": "boot-9"}, ["handle of line-9"]),
        ({"session_id": "boot-c"}, ["carl"]),
        ({"session_id": "boot-8", "multi_session_id": "boot-9"}, []),
        ({"user": "line-9"}, ["handle of line-9"]),
        ({"user": "line-9", "addresses": ("198.51.100.9",)}, []),  # it may be a NAT's
        ({"addresses": ("198.51.100.9",)}, []),
    ],
)
def test_which_sessions_are_meant(selector: dict[str, Any], names: list[str]) -> None:
    assert Host().found(**selector) == names


def test_a_change_holds_for_what_runs_and_what_comes() -> None:
    host = Host()
    host.change(
        Selector(user="line-7"), down_mbit=5, connections=9, scheme="overflow", filters=("gold",), session_timeout_s=50
    )
    assert host.caps == [{"line-7": (5.0, 0.0)}]
    assert host.paper.applied == [{"10.9.9.7": ("gold",), "2001:db8::7": ("gold",)}]
    names = {"names": ["line-7"]}
    assert host.forgotten == [{"address": "10.9.9.7"} | names, {"address": "2001:db8::7"} | names], (
        "workers ask anew; flows go on"
    )
    for address in ("10.9.9.7", "2001:db8::7"):
        verdict = host.verdict(address)
        assert (verdict.cap_mbit, verdict.connections, verdict.ttl_s) == ((5, 0), 9, 50)
    rows = {row["address"]: row for row in host.authorizer.status(host.now)}
    assert (rows["10.9.9.7"]["scheme"], rows["10.9.9.7"]["filters"]) == ("overflow", ["gold"])
    assert (rows["10.9.9.8"]["scheme"], rows["10.9.9.8"]["filters"]) == ("", [])
    assert host.verdict("10.9.9.8").cap_mbit == (20, 0)


def test_what_is_not_named_stays() -> None:
    host = Host()
    host.change(Selector(user="line-7"), filters=("gold",))
    host.change(Selector(user="line-7"), up_mbit=3)
    assert host.verdict("10.9.9.7").cap_mbit == (20, 3)
    assert host.authorizer.filters_of("10.9.9.7") == ("gold",)


@pytest.mark.parametrize(
    ("user", "change", "cause"),
    [
        ("line-7", {"down_mbit": 5, "filters": ("gold", "lead")}, ErrorCause.INVALID_ATTRIBUTE_VALUE),
        ("line-7", {"down_mbit": 5, "session_timeout_s": 0}, ErrorCause.INVALID_ATTRIBUTE_VALUE),
        ("carl", {"down_mbit": 5, "filters": ("gold",)}, ErrorCause.UNSUPPORTED_ATTRIBUTE),
        ("carl", {"down_mbit": 5, "scheme": "overflow"}, ErrorCause.UNSUPPORTED_ATTRIBUTE),
        ("line-9", {"down_mbit": 5, "session_timeout_s": 50}, ErrorCause.UNSUPPORTED_ATTRIBUTE),
        ("line-9", {"down_mbit": 5, "filters": ("gold",)}, ErrorCause.UNSUPPORTED_ATTRIBUTE),
    ],
)
def test_all_or_nothing(user: str, change: dict[str, Any], cause: ErrorCause) -> None:
    host = Host()
    before = host.authorizer.status(host.now), host.authorizer.table_row("carl")
    with pytest.raises(Refused) as error:
        host.change(Selector(user=user), **change)
    assert error.value.cause == cause
    assert user not in str(error.value), "this text goes to the log"
    assert (host.authorizer.status(host.now), host.authorizer.table_row("carl")) == before
    assert (host.caps, host.forgotten, host.paper.applied) == ([], [], [])


def test_filters_that_cannot_be_put_in_place_change_nothing_else() -> None:
    host = Host()
    host.paper.is_broken = True
    with pytest.raises(Refused, match="no room") as error:
        host.change(Selector(user="line-7"), down_mbit=5, filters=("gold",))
    assert error.value.cause == ErrorCause.RESOURCES_UNAVAILABLE
    assert (host.caps, host.forgotten) == ([], [])
    assert host.verdict("10.9.9.7").cap_mbit == (20, 0)


def test_concentrators_without_this_one_send_the_subscriber_away_and_back() -> None:
    host = Host()
    host.change(Selector(user="line-7"), concentrators=((("192.0.2.99",), 0),))
    verdict = host.verdict("10.9.9.7")
    assert (verdict.kind, verdict.reason) == ("reject", "moved")
    assert host.forgotten[0] == {"address": "10.9.9.7", "names": ["line-7"], "end": "warm"}, "flows that run go on"
    host.change(Selector(user="line-7"), concentrators=((("192.0.2.99",), 0), (("2001:db8::9", OURS), 5124)))
    assert host.verdict("10.9.9.7").kind == "accept"


def test_a_subscriber_of_the_table_is_changed_until_the_settings_are_read_again() -> None:
    host, cookie = Host(), make_cookie(own_credential("carl", KEY), 1.8e9)
    host.change(Selector(user="carl"), down_mbit=2, connections=3)
    assert host.caps == [{"carl": (2.0, 0.0)}]
    assert host.forgotten == [{"subscriber": "carl"}]
    for verdict in (host.verdict("10.8.0.9"), host.verdict("198.51.100.1", cookie)):
        assert (verdict.kind, verdict.cap_mbit, verdict.connections) == ("accept", (2, 0), 3)


def test_a_disconnect_ends_flows_and_radius_is_asked_anew() -> None:
    host = Host()
    host.change(Selector(user="line-7"), filters=("gold",))
    host.sessions.disconnect(host.sessions.find(Selector(user="line-7", addresses=("10.9.9.7",))))
    assert host.forgotten[-1:] == [{"address": "10.9.9.7", "names": ["line-7"], "end": "flows"}]
    assert host.paper.applied[-1] == {"10.9.9.7": ()}
    assert host.verdict("10.9.9.7") is None
    assert host.verdict("2001:db8::7").kind == "accept"
    host.sessions.disconnect(host.sessions.find(Selector(user="carl")))
    assert host.forgotten[-1] == {"subscriber": "carl", "end": "flows"}
    assert host.accounted == ["line-7", "carl"], "accounting is told"


@pytest.mark.requirement("X-16")
def test_who_is_known_by_a_handle_is_changed_sent_away_and_called_back() -> None:
    host = Host()
    host.change(Selector(user="line-9"), down_mbit=2, connections=3)
    assert host.caps == [{"line-9": (2.0, 0.0)}]
    assert host.forgotten == [{"subscriber": "line-9"}]
    verdict = host.verdict("203.0.113.5", cookie_of("line-9"))
    assert (verdict.kind, verdict.subscriber, verdict.cap_mbit, verdict.connections) == ("accept", "line-9", (2, 0), 3)
    host.change(Selector(user="line-9"), concentrators=((("192.0.2.99",), 0),))
    assert host.forgotten[-1] == {"subscriber": "line-9", "end": "warm"}
    assert host.verdict("203.0.113.5", cookie_of("line-9")).reason == "moved"
    host.change(Selector(user="line-9"), concentrators=(((OURS,), 0),))
    assert host.verdict("203.0.113.5", cookie_of("line-9")).kind == "accept"
    host.now += 2000.0
    with pytest.raises(Refused) as error:
        host.change(Selector(user="line-9"), down_mbit=9)
    assert error.value.cause == ErrorCause.SESSION_CONTEXT_NOT_FOUND, "his handle is over"


@pytest.mark.requirement("X-16")
def test_a_disconnect_ends_flows_and_handle_until_radius_gives_a_later_one() -> None:
    host = Host()
    used = cookie_of("line-9", 1000.0)
    assert host.verdict("203.0.113.5", used).kind == "accept"
    host.sessions.disconnect(host.sessions.find(Selector(user="line-9")))
    assert host.forgotten == [{"subscriber": "line-9", "end": "flows"}]
    assert host.accounted == ["line-9"]
    for ends_s in (1000.0, 500.0):
        verdict = host.verdict("203.0.113.5", cookie_of("line-9", ends_s))
        assert (verdict.kind, verdict.reason) == ("reject", "handle-ended")
    assert host.found(user="line-9") == []
    assert host.authorizer.take_ended() == ["line-9"], "what was kept for him may go"
    assert host.verdict("203.0.113.5", cookie_of("line-9", 1001.0)).kind == "accept"
    assert host.verdict("198.51.100.1", cookie_of("line-8")).subscriber == "line-8", "nobody else's"


@pytest.mark.requirement("X-16")
def test_where_it_is_known_how_long_handles_last_a_disconnect_ends_those_that_were_not_seen() -> None:
    host = Host()
    assert host.found(user="line-10") == []
    host.handles_for_s = 600.0
    assert host.found(user="line-10") == ["perhaps a handle of line-10"]
    for selector in (
        {"user": "line-10", "addresses": ("203.0.113.5",)},
        {"user": "line-10", "session_id": "5"},
        {"user": "203.0.113.5", "calling_station": "x"},
        {"addresses": ("203.0.113.5",)},
    ):
        assert host.found(**selector) == []
    assert host.found(user="carl") == ["carl"], "his key is no handle"
    with pytest.raises(Refused) as error:
        host.change(Selector(user="line-10"), down_mbit=3)
    assert error.value.cause == ErrorCause.SESSION_CONTEXT_NOT_FOUND
    host.sessions.disconnect(host.sessions.find(Selector(user="line-10")))
    assert host.verdict("203.0.113.5", cookie_of("line-10", 600.0)).reason == "handle-ended"
    assert host.verdict("203.0.113.5", cookie_of("line-10", 601.0)).kind == "accept"


@pytest.mark.requirement("X-16")
@pytest.mark.parametrize("change", [{"connections": 9}, {"filters": ("gold",)}, {"down_mbit": 10}])
def test_of_one_who_has_both_what_a_change_does_not_name_stays(change: dict[str, Any]) -> None:
    host = Host()
    host.authorizer.learn("10.9.9.8", RadiusAnswer("accept", "", user="line-8", down_mbit=20, up_mbit=5), 0.0)
    host.verdict("10.9.9.8", cookie_of("line-8"))
    host.change(Selector(user="line-8"), **change)
    assert host.caps == ([{"line-8": (10.0, 5.0)}] if "down_mbit" in change else [])
    for verdict in (host.verdict("10.9.9.8"), host.verdict("203.0.113.5", cookie_of("line-8"))):
        assert verdict.cap_mbit == (change.get("down_mbit", 20), 5)
        assert verdict.connections == change.get("connections", 0)


@pytest.mark.requirement("X-16")
def test_what_radius_said_of_an_address_counts_for_a_handle_while_it_holds() -> None:
    host = Host()
    assert host.verdict("203.0.113.5", cookie_of("line-8")).cap_mbit == (20, 0)
    host.now = 3700.0
    assert host.verdict("203.0.113.5", cookie_of("line-8", 9e3)).cap_mbit == (0, 0)
    host.change(Selector(user="line-8"), down_mbit=2)
    assert host.verdict("203.0.113.5", cookie_of("line-8", 9e3)).cap_mbit == (2, 0)


@pytest.mark.requirement("X-16")
def test_of_an_address_without_a_name_those_are_meant_who_came_from_there_where_both_are_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(authorizer, "BEARERS_MAX", 2)
    host = Host()
    host.authorizer.learn("10.9.9.1", RadiusAnswer("accept", "", down_mbit=20), 0.0)
    for name in ("line-9", "line-11", "line-12"):
        assert host.verdict("10.9.9.1", cookie_of(name), needs="both").kind == "accept"
    assert host.verdict("10.9.9.1", cookie_of("line-13")).kind == "accept", "there the address said nothing of him"
    host.change(Selector(addresses=("10.9.9.1",)), down_mbit=5)
    assert host.caps == [dict.fromkeys(("10.9.9.1", "line-11", "line-12"), (5.0, 0.0))]
    host.sessions.disconnect(host.sessions.find(Selector(addresses=("10.9.9.1",))))
    assert host.forgotten[-1] == {"address": "10.9.9.1", "names": ["10.9.9.1", "line-11", "line-12"], "end": "flows"}
    assert host.accounted == ["10.9.9.1", "line-11", "line-12"]
    host.authorizer.learn("10.9.9.1", RadiusAnswer("accept", ""), host.now)
    session = host.authorizer.session("10.9.9.1")
    assert session is not None
    assert host.authorizer.names_at(session) == ("10.9.9.1",), "with the session what was known of it has gone"


@pytest.mark.requirement("X-16")
def test_who_was_sent_away_and_comes_with_a_later_handle_is_served_and_asked_about_anew() -> None:
    host = Host()
    host.verdict("10.9.9.8", cookie_of("line-8"))
    host.change(Selector(user="line-8"), concentrators=((("192.0.2.99",), 0),))
    assert host.verdict("10.9.9.8", cookie_of("line-8")).reason == "moved"
    assert host.verdict("10.9.9.8").reason == "moved"
    assert host.verdict("10.9.9.8", cookie_of("line-8", 1001.0)).kind == "accept"
    assert host.verdict("10.9.9.8") is None


@pytest.mark.requirement("X-16")
def test_one_who_has_both_an_address_and_a_handle_is_meant_with_both() -> None:
    host = Host()
    host.verdict("10.9.9.8", cookie_of("line-8"))
    assert host.found(user="line-8") == ["10.9.9.8", "handle of line-8"]
    host.change(Selector(user="line-8"), down_mbit=3, filters=("gold",))
    assert host.paper.applied == [{"10.9.9.8": ("gold",)}]
    for verdict in (host.verdict("10.9.9.8"), host.verdict("203.0.113.5", cookie_of("line-8"))):
        assert verdict.cap_mbit == (3, 0)
    host.sessions.disconnect(host.sessions.find(Selector(user="line-8")))
    assert host.verdict("10.9.9.8") is None, "RADIUS is asked"
    assert host.verdict("203.0.113.5", cookie_of("line-8")).reason == "handle-ended"


def test_a_disconnect_for_which_there_is_no_room_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles, "ENDED_MAX", 0)
    host = Host()
    host.verdict("10.9.9.8", cookie_of("line-8"))
    with pytest.raises(Refused) as error:
        host.sessions.disconnect(host.sessions.find(Selector(user="line-8")))
    assert error.value.cause == ErrorCause.RESOURCES_UNAVAILABLE
    assert (host.forgotten, host.accounted) == ([], [])
    assert host.verdict("10.9.9.8").kind == "accept"


def test_settings_that_are_read_again_leave_an_ended_handle_ended() -> None:
    host = Host()
    host.sessions.disconnect(host.sessions.find(Selector(user="line-9")))
    again = Authorizer([], RadiusSettings(), SECRET)
    again.inherit(host.authorizer, host.now)
    host.authorizer = again
    assert host.verdict("203.0.113.5", cookie_of("line-9")).reason == "handle-ended"


def test_a_session_that_has_run_out_is_still_found_for_its_flows() -> None:
    host = Host()
    host.now = 3700.0
    assert host.verdict("10.9.9.7") is None
    assert host.authorizer.expired(host.now)
    assert host.found(user="line-7") == ["10.9.9.7", "2001:db8::7"]
    with pytest.raises(Refused) as error:
        host.change(Selector(user="line-7"), filters=("gold",))
    assert (error.value.cause, host.paper.applied) == (ErrorCause.SESSION_CONTEXT_NOT_FOUND, [])
    host.change(Selector(user="line-7"), filters=("gold",), session_timeout_s=60)
    assert host.verdict("10.9.9.7").ttl_s == 60, "a new time brings it back"


BOTH = "\nconfig listener 'home'\n\toption port '5125'\n\toption facing 'customer'\n\toption authorization 'both'\n"


def with_secret(directory: Path, more: str = "") -> Desk:
    desk = Desk(directory)
    text = CONFIG.replace("@RUN@", str(directory)).replace(
        "option run_dir", f"option cookie_secret '{SECRET}'\n\toption run_dir"
    )
    desk.control._use(parse_concentrator(text + more))
    desk.control._radius = desk.radius  # type: ignore[assignment]
    return desk


def cookie_now(name: str, ends_s: float = 1000.0) -> bytes:
    return make_cookie(make_handle(name, SECRET.encode(), time.time() + ends_s), time.time())


@pytest.mark.requirement("X-16")
@pytest.mark.parametrize(("end", "reason"), [("flows", "withdrawn"), ("warm", "moved")])
def test_what_a_cookie_had_proven_before_the_end_counts_no_more_when_radius_answers(
    tmp_path: Path, end: str, reason: str
) -> None:
    async def scenario() -> None:
        desk = with_secret(tmp_path, BOTH)
        desk.ask("10.9.9.9", cookie=cookie_now("line-7"), listener="home")
        desk.ask("10.9.9.9", cookie=cookie_now("line-8"), listener="home")
        await settle()
        desk.control.forget({"subscriber": "line-7", "end": end})
        await desk.answer(0, ACCEPT._replace(user=""))
        assert desk.workers[0].answers() == [(1, "reject", reason), (2, "accept", "ready")]

    asyncio.run(scenario())


@pytest.mark.requirement("X-16")
@pytest.mark.requirement("5.3-d")
def test_whoever_brings_a_handle_where_addresses_count_is_asked_about_once_for_his_terms(tmp_path: Path) -> None:
    async def scenario() -> None:
        desk = with_secret(tmp_path)
        for _ in range(3):
            desk.ask("10.9.9.9", cookie=cookie_now("line-7"))
        await settle()
        assert [verdict for _, verdict, _ in desk.workers[0].answers()] == 3 * ["accept"], "nobody waits"
        assert [address for address, _ in desk.radius.asked] == ["10.9.9.9"]
        await desk.answer(0, ACCEPT._replace(down_mbit=8, connections=5))
        caps = [payload for kind, payload in desk.workers[0].frames if kind == "caps"]
        assert caps
        assert "line-7" in caps[0], "what runs already is held to it"
        desk.ask("10.9.9.9", cookie=cookie_now("line-7"))
        await settle()
        answer = desk.workers[0].frames[-1][1]
        assert (answer["subscriber"], answer["connections"]) == ("line-7", 5)
        assert len(desk.radius.asked) == 1, "remembered"
        desk.ask("10.66.0.1", cookie=cookie_now("line-9"))
        await settle()
        await desk.answer(1, RadiusAnswer("reject", "unknown"))
        desk.ask("10.66.0.1", cookie=cookie_now("line-9"))
        await settle()
        assert desk.workers[0].answers()[-1][1] == "accept", "his cookie is enough"
        assert len(desk.radius.asked) == 2

    asyncio.run(scenario())


def test_a_worker_whose_channel_broke_hears_of_what_was_ended_meanwhile(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        control, (one, two) = desk.control, desk.workers
        control.forget({"address": "10.9.9.1", "end": "flows"})
        control.server.workers.discard(one)
        control._worker_gone(one)  # type: ignore[arg-type]
        control.forget({"address": "10.9.9.2", "end": "flows"})
        control.forget({"address": "10.9.9.3"})
        one.frames.clear()
        control.server.workers.add(one)  # type: ignore[arg-type]
        control._hello(one)  # type: ignore[arg-type]
        told = [payload for kind, payload in one.frames if kind == "forget"]
        assert told == [{"all": True}, {"address": "10.9.9.2", "end": "flows"}]
        two.frames.clear()
        control._hello(two)  # type: ignore[arg-type]
        assert not [payload for kind, payload in two.frames if kind == "forget"], "another process, or never away"

    run(tmp_path, scenario)


def test_an_accept_that_was_on_its_way_when_the_disconnect_came_is_asked_again(tmp_path: Path) -> None:
    async def scenario(desk: Desk) -> None:
        desk.ask("10.9.9.9")
        await settle()
        await desk.answer(0, ACCEPT._replace(session_timeout_s=1e-9))
        desk.ask("10.9.9.9")
        await settle()
        sessions = desk.control._dynamic._sessions
        sessions.disconnect(sessions.find(Selector(user="line-7")))
        await desk.answer(1, ACCEPT)
        assert len(desk.workers[0].answers()) == 1, "that Accept is of before"
        await desk.answer(2, RadiusAnswer("reject", "blocked"))
        assert desk.workers[0].answers()[1:] == [(2, "reject", "not-authorized")]
        assert ("forget", {"address": "10.9.9.9", "names": ["line-7"], "end": "flows"}) in desk.workers[1].frames

    run(tmp_path, scenario)


# Settings ---------------------------------------------------------------------------------------------------------------

RADIUS = """
config radius 'radius'
	list server '192.0.2.10:1645'
	list server '2001:db8::10'
	option secret 'of-the-servers'
"""
ON = "config dynamic 'dynamic'\n\toption enabled '1'\n"


def client(*lines: str, name: str = "aaa") -> str:
    return "\n\t".join((f"config dynamic_client '{name}'", *lines)) + "\n"


def secrets(text: str) -> dict[str, bytes]:
    return dict(rules(parse_concentrator(text)).secrets)


def test_nobody_may_send_by_default() -> None:
    settings = parse_concentrator(RADIUS + client("list address '192.0.2.11'", "option secret 's'"))
    assert not settings.dynamic.enabled
    assert rules(settings).secrets == {}


def test_who_may_send() -> None:
    assert secrets(ON + RADIUS) == {"192.0.2.10": b"of-the-servers", "2001:db8::10": b"of-the-servers"}
    one = client("list address '192.0.2.11'", "list address '::ffff:192.0.2.12'", "option secret 'one'")
    assert secrets(ON + RADIUS + one) == {"192.0.2.11": b"one", "192.0.2.12": b"one"}
    off = client("list address '192.0.2.11'", "option secret 'one'", "option enabled '0'")
    assert secrets(ON + RADIUS + off) == {}, "who has sections means only those"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ON, ("enabled", "dynamic_client")),
        (ON + client("list address '192.0.2.11'"), ("aaa", "secret")),
        (ON + client("option secret 'one'"), ("aaa", "address")),
        (
            client("list address '192.0.2.11'", "option secret 'one'")
            + client("list address '192.0.2.11'", "option secret 'two'", name="bbb"),
            ("bbb", "192.0.2.11", "aaa"),
        ),
    ],
)
def test_settings_that_cannot_be_meant(text: str, words: Iterable[str]) -> None:
    with pytest.raises(SettingsError) as error:
        parse_concentrator(text)
    for word in words:
        assert word in str(error.value)
    assert "one" not in str(error.value).replace("none", "")
