"""What RADIUS settings and answers lead to: who may be asked over which WAN, what a verdict does, what an Accept changes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cpe_mcp.aaa import session as session_module
from cpe_mcp.aaa.answer import ACCEPT, REJECT, TIMEOUT, RadiusAnswer
from cpe_mcp.aaa.attributes import Quota
from cpe_mcp.paths.snapshot import WanView
from cpe_mcp.policy.reasons import TEXTS, Reason
from cpe_mcp.settings import SettingsError, parse_router, warnings_of
from cpe_mcp.settings.radius_ways import may_carry, refusal
from cpe_mcp.settings.router import RadiusSettings, RouterSettings, WanSettings
from cpe_mcp.upstream.authenticator import Authenticator, basis_of, hardware_address
from cpe_mcp.upstream.terms import unknown_wans, with_terms

pytestmark = pytest.mark.unit

DSL, LTE = WanSettings(name="dsl", device="eth1"), WanSettings(name="lte", device="wwan0")
OWN = WanSettings(name="vlan", device="eth2", operator_network=True)
RADIUS = RadiusSettings(enabled=True, server=("192.0.2.20",), secret="s", username="alice", password="p")
VIEWS = [WanView("dsl", "eth1", "192.0.2.7", ""), WanView("vlan", "eth2", "10.0.0.7", "")]
TEXT = """
config wan 'dsl'
    option device 'eth1'
config radius
    option enabled '1'
    list server '192.0.2.20'
    option username 'alice'
"""


def settings(*wans: WanSettings, **radius: Any) -> RouterSettings:
    values = {name: getattr(RADIUS, name) for name in RADIUS.__slots__}
    return RouterSettings(wans=wans, radius=RadiusSettings(**{**values, **radius}))


class TestWays:
    @pytest.mark.requirement("7.3-a")
    def test_udp_only_over_the_operators_own_network(self) -> None:
        assert may_carry(settings(DSL, OWN)) == {"vlan"}
        assert may_carry(settings(DSL, LTE)) == frozenset()
        assert may_carry(settings(DSL, LTE, transport="tls")) == {"dsl", "lte"}

    @pytest.mark.requirement("7.3-a")
    def test_udp_without_such_a_wan_is_refused_and_both_options_are_named(self) -> None:
        said = refusal(settings(DSL, LTE))
        assert "RADIUS server 192.0.2.20 is not asked" in said
        assert "operator_network '1'" in said
        assert "transport 'tls'" in said
        assert warnings_of(settings(DSL, LTE)) == [said]

    @pytest.mark.parametrize(
        "allowed",
        [
            settings(DSL, OWN),
            settings(DSL, transport="tls"),
            settings(DSL, enabled=False),
            settings(DSL, server=("127.0.0.1:1812", "[::1]:1812")),
            settings(),
        ],
        ids=["marked", "tls", "off", "on-this-machine", "no-wan"],
    )
    def test_what_is_not_refused(self, allowed: RouterSettings) -> None:
        assert refusal(allowed) == ""

    def test_a_wan_that_is_off_does_not_count(self) -> None:
        off = WanSettings(name="vlan", device="eth2", operator_network=True, enabled=False)
        assert refusal(settings(DSL, off)) != ""

    def test_one_server_elsewhere_is_enough_for_a_refusal(self) -> None:
        assert "2001:db8::20" in refusal(settings(DSL, server=("::1", "2001:db8::20")))

    @pytest.mark.parametrize(
        ("more", "missing"),
        [
            ("", "option secret: is required"),
            (" option transport 'tls'\n", "option tls_ca: is required"),
            (" option transport 'tls'\n option tls_ca '/ca'\n", "option tls_cert: is required"),
            (" option transport 'tls'\n option tls_ca '/ca'\n option tls_cert '/c'\n", "option tls_key: is required"),
        ],
    )
    def test_what_a_transport_needs(self, more: str, missing: str) -> None:
        with pytest.raises(SettingsError, match=missing):
            parse_router(TEXT + more)

    def test_tls_needs_no_secret(self) -> None:
        tls = " option transport 'tls'\n option tls_ca '/ca'\n option tls_cert '/c'\n option tls_key '/k'\n"
        assert parse_router(TEXT + tls).radius.transport == "tls"


def standing(answer: RadiusAnswer | None, *wans: WanSettings, **radius: Any) -> tuple[str, bool, dict[str, Any]]:
    async def look() -> tuple[str, bool, dict[str, Any]]:
        authenticator = Authenticator(settings(*wans, **radius), wans=lambda: VIEWS, on_change=lambda: None)
        if answer is not None:
            assert authenticator._session is not None
            authenticator._session.answered(answer, asyncio.get_running_loop().time())
        return authenticator.reason(), authenticator.blocks(), authenticator.status()

    return asyncio.run(look())


class TestVerdicts:
    @pytest.mark.parametrize(
        ("answer", "radius", "reason", "blocks"),
        [
            (RadiusAnswer(ACCEPT, ""), {}, "", False),
            (RadiusAnswer(ACCEPT, ""), {"on_reject": "block", "on_timeout": "block"}, "", False),
            (RadiusAnswer(REJECT, "no"), {}, Reason.NOT_AUTHORIZED, False),
            (RadiusAnswer(REJECT, "no"), {"on_reject": "block"}, Reason.NOT_AUTHORIZED, True),
            (RadiusAnswer(REJECT, "no"), {"on_timeout": "block"}, Reason.NOT_AUTHORIZED, False),
            (RadiusAnswer(REJECT, "no"), {"on_timeout": "proxy"}, Reason.NOT_AUTHORIZED, False),
            (RadiusAnswer(TIMEOUT, "-"), {}, Reason.AUTH_TIMEOUT, False),
            (RadiusAnswer(TIMEOUT, "-"), {"on_reject": "block"}, Reason.AUTH_TIMEOUT, False),
            (RadiusAnswer(TIMEOUT, "-"), {"on_timeout": "block"}, Reason.AUTH_TIMEOUT, True),
            (RadiusAnswer(TIMEOUT, "-"), {"on_timeout": "proxy"}, "", False),
            (None, {}, Reason.AUTH_PENDING, False),
            (None, {"on_timeout": "block"}, Reason.AUTH_PENDING, True),
            (None, {"on_timeout": "proxy"}, "", False),
        ],
    )
    def test_reject_and_silence_do_as_the_setting_says(
        self, answer: RadiusAnswer | None, radius: dict[str, Any], reason: str, blocks: bool
    ) -> None:
        assert standing(answer, OWN, **radius)[:2] == (reason, blocks)

    def test_the_reason_is_shown_also_where_connections_are_taken_without_an_answer(self) -> None:
        _, _, status = standing(RadiusAnswer(TIMEOUT, "silent"), OWN, on_timeout="proxy")
        assert (status["accepted"], status["reason"], status["detail"]) == (False, Reason.AUTH_TIMEOUT, "silent")

    @pytest.mark.requirement("7.3-a")
    def test_a_question_that_may_not_go_out_is_shown_with_the_options_and_never_asked(self) -> None:
        reason, blocks, status = standing(None, DSL)
        assert (reason, blocks) == (Reason.AUTH_UNPROTECTED, False)
        assert (status["accepted"], status["text"]) == (False, TEXTS[Reason.AUTH_UNPROTECTED])
        assert "operator_network '1'" in status["detail"]
        assert status["asks_again_s"] is None

        async def start() -> None:
            authenticator = Authenticator(settings(DSL), wans=lambda: VIEWS, on_change=lambda: None)
            before = asyncio.all_tasks()
            authenticator.start()
            assert asyncio.all_tasks() == before
            await authenticator.stop()

        asyncio.run(start())

    def test_only_wans_that_may_carry_it_are_ways(self) -> None:
        async def ways() -> list[str]:
            authenticator = Authenticator(settings(DSL, OWN), wans=lambda: VIEWS, on_change=lambda: None)
            return [way.name for way in authenticator.ways()]

        assert asyncio.run(ways()) == ["vlan"]

    def test_it_waits_for_a_wan_that_may_carry_the_question_and_says_so(self) -> None:
        async def scenario() -> None:
            views: list[WanView] = VIEWS[:1]
            authenticator = Authenticator(
                settings(DSL, OWN, server=("192.0.2.20",)), wans=lambda: views, on_change=lambda: None
            )
            asked = []

            async def ask() -> RadiusAnswer:
                asked.append([way.name for way in authenticator.ways()])
                return RadiusAnswer(ACCEPT, "")

            authenticator._ask = ask  # type: ignore[method-assign]
            authenticator.start()
            await asyncio.sleep(0.02)
            status = authenticator.status()
            assert (asked, status["reason"], status["asks_again_s"]) == ([], Reason.AUTH_PENDING, None)
            assert status["detail"] == "no WAN that may carry the question is up"
            assert status["detail_words"] == [{"code": "question-no-way", "args": []}]
            views = VIEWS
            authenticator.hurry()
            await asyncio.sleep(0.02)
            assert asked == [["vlan"]]
            assert authenticator.reason() == ""
            await authenticator.stop()

        asyncio.run(scenario())

    def test_an_accept_that_runs_out_while_the_server_is_asked_is_no_more(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(session_module, "MIN_SESSION_S", 0.0)

        async def scenario() -> None:
            told = []
            authenticator = Authenticator(
                settings(DSL, OWN), wans=lambda: VIEWS, on_change=lambda: told.append(authenticator.reason())
            )
            answers = [RadiusAnswer(ACCEPT, "", session_timeout_s=0.1)]

            async def ask() -> RadiusAnswer:
                if not answers:
                    await asyncio.sleep(30)
                return answers.pop()

            authenticator._ask = ask  # type: ignore[method-assign]
            authenticator.start()
            await asyncio.sleep(0.3)
            assert told == [Reason.AUTH_PENDING, "", Reason.AUTH_TIMEOUT]
            await authenticator.stop()

        asyncio.run(scenario())


class TestBasis:
    def test_what_makes_a_session_begin_anew(self) -> None:
        base = basis_of(settings(DSL, OWN))
        assert base == basis_of(settings(DSL, OWN))
        assert base != basis_of(settings(DSL, OWN, username="bob"))
        assert base != basis_of(settings(DSL, LTE))
        assert base == basis_of(settings(DSL, OWN, accounting=True, accounting_port=18130, interim_s=90))

    def test_a_quota_of_the_accept_does_not(self) -> None:
        changed = with_terms(settings(DSL, OWN), RadiusAnswer(ACCEPT, "", quotas=(Quota("dsl", 5.0),)))
        assert changed != settings(DSL, OWN)
        assert basis_of(changed) == basis_of(settings(DSL, OWN))

    def test_hardware_address_of_the_first_device_that_has_one(self, tmp_path: Path) -> None:
        for device, text in (("ppp0", "\n"), ("wwan0", "00:00:00:00:00:00\n"), ("eth1", "00:00:5e:00:53:a1\n")):
            (tmp_path / device).mkdir()
            (tmp_path / device / "address").write_text(text)
        assert hardware_address(("none", "ppp0", "wwan0", "eth1"), str(tmp_path)) == "00-00-5E-00-53-A1"
        assert hardware_address(("none", "ppp0"), str(tmp_path)) == ""


class TestTerms:
    def quota(self, user: tuple[float, int], *granted: Quota) -> tuple[float, int]:
        wan = WanSettings(name="lte", device="wwan0", quota_gb=user[0], quota_day=user[1])
        (changed,) = with_terms(settings(wan), RadiusAnswer(ACCEPT, "", quotas=granted)).wans
        return changed.quota_gb, changed.quota_day

    @pytest.mark.parametrize(
        ("user", "granted", "expected"),
        [
            ((0.0, 1), Quota("lte", 50.0), (50.0, 1)),
            ((0.0, 1), Quota("lte", 50.0, 15), (50.0, 15)),
            ((60.0, 9), Quota("lte", 50.0), (50.0, 9)),
            ((60.0, 9), Quota("lte", 50.0, 15), (50.0, 15)),
            ((30.0, 9), Quota("lte", 50.0, 15), (30.0, 9)),
            ((50.0, 9), Quota("lte", 50.0, 15), (50.0, 9)),
            ((30.0, 9), Quota("dsl", 5.0, 15), (30.0, 9)),
        ],
    )
    def test_the_smaller_quota_holds(
        self, user: tuple[float, int], granted: Quota, expected: tuple[float, int]
    ) -> None:
        assert self.quota(user, granted) == expected

    def test_without_an_accept_the_users_own_settings_hold(self) -> None:
        assert with_terms(settings(DSL), None) == settings(DSL)
        assert with_terms(settings(DSL), RadiusAnswer(ACCEPT, "")) == settings(DSL)

    def test_a_wan_that_is_not_there_is_named(self) -> None:
        answer = RadiusAnswer(ACCEPT, "", quotas=(Quota("lte", 5.0), Quota("dsl", 5.0)))
        assert unknown_wans(settings(DSL), answer) == ["lte"]
        assert unknown_wans(settings(DSL), None) == []
