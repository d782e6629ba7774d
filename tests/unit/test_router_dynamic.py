"""Dynamic authorization of a router: a change takes the way of an Accept, a Disconnect that of a Reject."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from test_authenticator import DSL, OWN, TEXT, VIEWS, settings

from cpe_mcp.aaa.answer import RadiusAnswer
from cpe_mcp.aaa.dynamic import Change, ErrorCause, Refused, Selector
from cpe_mcp.aaa.dynamic_packets import Rules
from cpe_mcp.aaa.session import AuthSession
from cpe_mcp.paths.snapshot import WanView
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.settings import SettingsError, parse_router, warnings_of
from cpe_mcp.settings.router import RadiusSettings, WanSettings
from cpe_mcp.upstream.authenticator import AccountingIds, Authenticator
from cpe_mcp.upstream.dynamic import RouterSession, rules

pytestmark = [pytest.mark.unit, pytest.mark.requirement("5.3-b")]

ACCEPT = RadiusAnswer("accept", "", ((("192.0.2.1",), 0),), 100.0, "s", "line-0815", 100, 50, "overflow")
CONCENTRATORS = ((("192.0.2.2",), 5124),)


class FakeRadius:
    """Answers when it is told to."""

    asks_here = True

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[RadiusAnswer]] = []
        self.counters: dict[str, int] = {}

    async def authenticate(self, **_: Any) -> RadiusAnswer:
        self.asked.append(asyncio.get_running_loop().create_future())
        return await self.asked[-1]


class Desk:
    """An authenticator that was accepted."""

    def __init__(self, **radius: Any) -> None:
        self.changes = 0
        self.authenticator = Authenticator(settings(DSL, OWN, **radius), wans=lambda: VIEWS, on_change=self._changed)
        self.radius = self.authenticator._client = FakeRadius()  # type: ignore[assignment]
        self.session = RouterSession(
            self.authenticator,
            username="alice",
            wans={"dsl", "vlan"},
            addresses=lambda: ["192.0.2.7", "10.0.0.7"],
            calling_station=lambda: "02-00-00-00-00-01",
            accounting_ids=lambda: AccountingIds(("5-1", "5-2", "5-3"), "5-1"),
        )
        self.authenticator.start()

    def _changed(self) -> None:
        self.changes += 1

    async def answer(self, answer: RadiusAnswer) -> None:
        await settle()
        self.radius.asked[-1].set_result(answer)
        await settle()

    async def ask_again(self) -> None:
        """Accepted without an end, and a question is open all the same."""
        await self.answer(ACCEPT._replace(session_timeout_s=None))
        assert self.authenticator._session is not None
        self.authenticator._session.hurry(0)
        self.authenticator._rearm()
        await settle()

    def change(self, **change: Any) -> None:
        self.session.change(self.session.find(Selector(user="alice")), Change(**change))


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run(scenario: Callable[[Desk], Awaitable[None]], **radius: Any) -> None:
    async def main() -> None:
        desk = Desk(**radius)
        await scenario(desk)
        await desk.authenticator.stop()

    asyncio.run(main())


def test_which_session_is_meant() -> None:
    async def scenario(desk: Desk) -> None:
        assert desk.session.find(Selector(user="alice")) == [], "nothing was accepted yet"
        await desk.answer(ACCEPT)
        for selector in (
            Selector(user="alice"),
            Selector(user="line-0815"),
            Selector(addresses=("192.0.2.7", "10.0.0.7")),
            Selector(user="alice", calling_station="02-00-00-00-00-01"),
            Selector(session_id="5-1"),
            Selector(user="alice", session_id="5-3", multi_session_id="5-1"),
        ):
            assert desk.session.find(selector) == [ACCEPT]
        for selector in (
            Selector(user="bob"),
            Selector(user="alice", addresses=("192.0.2.9",)),
            Selector(user="alice", session_id="7"),
            Selector(multi_session_id="5-3"),
        ):
            assert desk.session.find(selector) == []

    run(scenario)


def test_a_concentrator_that_refuses_makes_it_ask_again() -> None:
    async def scenario(desk: Desk) -> None:
        desk.authenticator.doubt()
        await settle()
        assert len(desk.radius.asked) == 1, "there is no Accept that could be wrong"
        await desk.answer(ACCEPT)
        desk.authenticator.doubt()
        await settle()
        assert len(desk.radius.asked) == 1, "it was only just asked"
        await asyncio.sleep(0.05)
        await settle()
        assert len(desk.radius.asked) == 2
        assert desk.authenticator.accept == ACCEPT, "it holds meanwhile"

    run(scenario, retry_s=0.02)


def test_a_change_is_an_accept_that_says_something_else() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.answer(ACCEPT)
        until, changes = desk.authenticator.until, desk.changes
        desk.change(concentrators=CONCENTRATORS, scheme="single:dsl", down_mbit=7)
        await settle()
        expected = ACCEPT._replace(concentrators=CONCENTRATORS, scheme="single:dsl", down_mbit=7)
        assert (desk.authenticator.accept, desk.authenticator.scheme) == (expected, "single:dsl")
        assert (desk.authenticator.until, desk.authenticator.reason()) == (until, "")
        assert desk.changes > changes, "whoever acts on an Accept is told"
        assert len(desk.radius.asked) == 1, "nothing is asked for it"

    run(scenario)


def test_another_session_timeout_counts_from_now() -> None:
    session = AuthSession(retry_s=30, now=0)
    session.asked()
    session.answered(ACCEPT, 0)
    session.replace(ACCEPT._replace(session_timeout_s=50.0), 10, is_new_time=True)
    assert (session.until, session.ask_at(11)) == (60, 50)
    session.replace(ACCEPT, 20, is_new_time=False)
    assert (session.until, session.ask_at(21)) == (60, 50)


@pytest.mark.parametrize(
    "change", [{"scheme": "single:moon", "down_mbit": 1}, {"session_timeout_s": 0, "down_mbit": 1}]
)
def test_all_or_nothing(change: dict[str, Any]) -> None:
    async def scenario(desk: Desk) -> None:
        await desk.answer(ACCEPT)
        with pytest.raises(Refused) as error:
            desk.change(**change)
        assert error.value.cause == ErrorCause.INVALID_ATTRIBUTE_VALUE
        assert desk.authenticator.accept == ACCEPT

    run(scenario)


def test_a_disconnect_is_as_a_reject() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.answer(ACCEPT)
        desk.session.disconnect(desk.session.find(Selector(user="alice")))
        await settle()
        assert (desk.authenticator.reason(), desk.authenticator.accept) == (Reason.NOT_AUTHORIZED, None)
        assert desk.authenticator.blocks()
        status = desk.authenticator.status()
        assert "Disconnect-Request" in status["detail"]
        assert len(desk.radius.asked) == 1, "it asks again after retry_s, and not at once"
        assert status["asks_again_s"] > 25

    run(scenario, on_reject="block")


def test_an_accept_that_was_on_its_way_when_the_disconnect_came_does_not_count() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.ask_again()
        assert len(desk.radius.asked) == 2
        desk.session.disconnect(desk.session.find(Selector(user="alice")))
        await desk.answer(ACCEPT)
        assert desk.authenticator.reason() == Reason.NOT_AUTHORIZED

    run(scenario)


def test_a_disconnect_or_change_is_told_at_once_though_a_question_is_open() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.ask_again()
        changes = desk.changes
        desk.change(down_mbit=7)
        assert desk.changes > changes
        await desk.answer(ACCEPT)
        assert desk.authenticator.accept is not None
        assert desk.authenticator.accept.down_mbit == 7, "that Accept is of before"
        await asyncio.sleep(0.05)
        await settle()
        assert len(desk.radius.asked) == 3, "asked again, for what may have changed since"
        changes = desk.changes
        desk.session.disconnect(desk.session.find(Selector(user="alice")))
        assert desk.changes > changes, "whoever acts on a Reject is told before the question ends"
        await desk.answer(ACCEPT)
        assert desk.authenticator.reason() == Reason.NOT_AUTHORIZED

    run(scenario, retry_s=0.02)


# Where it listens, and to whom ------------------------------------------------------------------------------------------


WANS = [*VIEWS, WanView("both", "eth3", "10.3.0.7", "2001:db8::7"), WanView("down", "eth4", "", "")]


def listens(*more: WanSettings, **radius: Any) -> list[Any]:
    """The places and ports that an authenticator opens."""
    found: list[Any] = []

    async def main() -> None:
        authenticator = Authenticator(settings(DSL, OWN, *more, **radius), wans=lambda: WANS, on_change=lambda: None)
        authenticator._client = FakeRadius()  # type: ignore[assignment]
        if authenticator._dynamic is not None:
            authenticator._dynamic.follow = lambda places, port: found.append((places, port))  # type: ignore[method-assign]
        authenticator.start()
        await authenticator.stop()

    asyncio.run(main())
    return found


def test_it_listens_on_wans_of_the_operators_network_only() -> None:
    own = [WanSettings(name=name, device="eth9", operator_network=True) for name in ("both", "down")]
    assert listens(*own, dynamic=True) == [
        ([("10.0.0.7", "eth2"), ("10.3.0.7", "eth3"), ("2001:db8::7", "eth3")], 3799),
    ]
    off = WanSettings(name="both", device="eth3", operator_network=True, enabled=False)
    assert listens(off, dynamic=True, transport="tls", tls_ca="/ca", tls_cert="/c", tls_key="/k")[0][0] == [
        ("10.0.0.7", "eth2")
    ]


def test_it_is_off_by_default() -> None:
    assert listens() == []
    assert listens(dynamic=True, dynamic_port=4000) == [([("10.0.0.7", "eth2")], 4000)]
    assert listens(dynamic=True, enabled=False) == []


def test_the_servers_may_send_or_who_is_named_and_proofs_are_required() -> None:
    radius = RadiusSettings(server=("192.0.2.20:1645", "2001:db8::20"), secret="s", dynamic=True)
    assert rules(radius) == Rules({"192.0.2.20": b"s", "2001:db8::20": b"s"}, 32473, True, True, 300.0)
    named = RadiusSettings(server=("192.0.2.20",), secret="s", dynamic_client=("192.0.2.21",))
    assert rules(named).secrets == {"192.0.2.21": b"s"}


def test_settings_that_cannot_be_meant() -> None:
    tls = " option transport 'tls'\n option tls_ca '/ca'\n option tls_cert '/c'\n option tls_key '/k'\n"
    with pytest.raises(SettingsError, match="option secret: is required when dynamic is on"):
        parse_router(TEXT + tls + " option dynamic '1'\n")
    (warning,) = warnings_of(parse_router(TEXT + tls + " option secret 's'\n option dynamic '1'\n"))
    assert "option dynamic of section radius does nothing" in warning
