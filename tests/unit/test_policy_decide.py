"""Every branch of the decision about one flow."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cpe_mcp.aaa.cookie import NO_CREDENTIAL
from cpe_mcp.paths.scheme import LAST_RESORT
from cpe_mcp.paths.snapshot import EMPTY, ClassView, ConcentratorView, Snapshot, WanView
from cpe_mcp.policy.decide import concentrators_of, decide, first_wan
from cpe_mcp.policy.reasons import TEXTS, Reason

pytestmark = pytest.mark.unit

DSL = WanView("dsl", "eth1", "192.0.2.2", "")
LTE = WanView("lte", "wwan0", "198.51.100.2", "2001:db8:2::2")
V6_ONLY = WanView("cable", "eth2", "", "2001:db8:3::2")
NEAR = ConcentratorView("near", ("203.0.113.1",), 5124, NO_CREDENTIAL, True)
FAR = ConcentratorView("far", ("2001:db8:ff::1", "203.0.113.2"), 5124, NO_CREDENTIAL, True)


def snapshot(
    *concentrators: ConcentratorView,
    wans: tuple[WanView, ...] = (DSL, LTE),
    fallback: str = "direct",
    proxy: bool = True,
    reason: str = Reason.READY,
) -> Snapshot:
    return EMPTY._replace(proxy=proxy, reason=reason, wans=wans, concentrators=concentrators, fallback=fallback)


def test_the_first_concentrator_over_the_first_wan() -> None:
    decision = decide(4, "192.0.2.80", 443, snapshot(NEAR, FAR))
    assert decision[:4] == ("proxy", NEAR, DSL, (Reason.PROXIED,))


def test_packed_address_decides_the_same() -> None:
    state = snapshot(NEAR)
    assert decide(4, bytes((192, 0, 2, 80)), 443, state) == decide(4, "192.0.2.80", 443, state)


def test_a_wan_without_an_address_of_the_family_is_passed_over() -> None:
    v6_concentrator = NEAR._replace(addresses=("2001:db8:ff::1",))
    assert decide(4, "192.0.2.80", 443, snapshot(v6_concentrator)).wan == LTE


def test_a_second_address_of_the_concentrator_lets_the_better_wan_serve() -> None:
    assert first_wan(FAR, (DSL, LTE)) == DSL


def test_a_concentrator_that_no_wan_reaches_is_passed_over_and_said() -> None:
    decision = decide(4, "192.0.2.80", 443, snapshot(NEAR, FAR, wans=(V6_ONLY,)))
    assert decision[:4] == ("proxy", FAR, V6_ONLY, (Reason.PROXIED, Reason.NO_COMMON_FAMILY))


def test_no_common_family_at_all() -> None:
    decision = decide(4, "192.0.2.80", 443, snapshot(NEAR, wans=(V6_ONLY,)))
    assert decision[:4] == ("direct", None, None, (Reason.NO_COMMON_FAMILY,))


@pytest.mark.requirement("5.5-a")
def test_ipv6_goes_to_the_first_concentrator_that_reaches_it() -> None:
    without = NEAR._replace(reaches_ipv6=False)
    decision = decide(6, "2001:db8::80", 443, snapshot(without, FAR))
    assert decision[:4] == ("proxy", FAR, DSL, (Reason.PROXIED, Reason.NO_IPV6))
    assert decide(4, "192.0.2.80", 443, snapshot(without, FAR)).concentrator == without


def test_ipv6_without_a_concentrator_that_reaches_it() -> None:
    decision = decide(6, "2001:db8::80", 443, snapshot(NEAR._replace(reaches_ipv6=False)))
    assert decision[:4] == ("direct", None, None, (Reason.NO_IPV6,))


def test_no_concentrator() -> None:
    assert decide(4, "192.0.2.80", 443, snapshot()).reasons == (Reason.NO_CONCENTRATOR,)


def test_no_wan() -> None:
    assert decide(4, "192.0.2.80", 443, snapshot(NEAR, wans=())).reasons == (Reason.NO_WAN,)


def test_not_proxying_gives_the_snapshots_reason() -> None:
    decision = decide(4, "192.0.2.80", 443, snapshot(NEAR, proxy=False, reason=Reason.NOT_AUTHORIZED))
    assert decision[:4] == ("direct", None, None, (Reason.NOT_AUTHORIZED,))


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        (snapshot(fallback="block"), Reason.NO_CONCENTRATOR),
        (snapshot(NEAR, wans=(), fallback="block"), Reason.NO_WAN),
        (snapshot(NEAR, proxy=False, reason=Reason.AUTH_TIMEOUT, fallback="block"), Reason.AUTH_TIMEOUT),
    ],
)
def test_fallback_block_names_cause_and_consequence(state: Snapshot, cause: str) -> None:
    assert decide(4, "192.0.2.80", 443, state)[:4] == ("block", None, None, (cause, Reason.BLOCKED))


def test_switched_off_never_blocks() -> None:
    state = snapshot(NEAR, proxy=False, reason=Reason.DISABLED, fallback="block")
    assert decide(4, "192.0.2.80", 443, state).action == "direct"


def test_before_the_control_daemon_has_spoken_everything_is_direct() -> None:
    assert decide(6, "2001:db8::80", 443, EMPTY)[:4] == ("direct", None, None, (Reason.STARTING,))


def test_every_reason_has_a_text() -> None:
    reasons = {value for name, value in vars(Reason).items() if name.isupper()}
    assert reasons == set(TEXTS)


def test_it_brings_nothing_heavy_into_a_worker() -> None:
    heavy = "dataclasses asyncio logging ipaddress pyroute2 socket json"
    code = f"import sys, cpe_mcp.policy.decide; print([m for m in {heavy.split()!r} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


GAMING = ConcentratorView("game", ("203.0.113.9",), 5124, NO_CREDENTIAL, True, service_class=("gaming",))


class TestClasses:
    """What a rule's concentrator and scheme make of a flow."""

    @pytest.mark.requirement("5.6.3-b")
    def test_a_service_class_goes_to_its_concentrator_and_the_rest_does_not(self) -> None:
        state = snapshot(GAMING, NEAR, FAR)
        for choice in ("gaming", "game"):
            chosen = decide(4, "192.0.2.80", 443, state, ClassView(2, concentrator=choice))
            assert (chosen.concentrator, chosen.reasons) == (GAMING, (Reason.PROXIED,))
        assert decide(4, "192.0.2.80", 443, state).concentrator == NEAR

    @pytest.mark.requirement("5.6.3-b")
    def test_a_choice_that_is_not_usable_falls_back_to_the_list_and_says_so(self) -> None:
        decision = decide(4, "192.0.2.80", 443, snapshot(NEAR), ClassView(2, concentrator="gaming"))
        assert decision[:4] == ("proxy", NEAR, DSL, (Reason.PROXIED, Reason.CHOICE_UNUSABLE))

    def test_a_choice_from_the_list_comes_first_and_the_others_stay_behind_it(self) -> None:
        order = concentrators_of(snapshot(NEAR, GAMING, FAR), ClassView(2, concentrator="far"))
        assert list(order) == [FAR, NEAR]

    def test_only_others_serve_is_no_reason_to_take_a_dedicated_one(self) -> None:
        decision = decide(4, "192.0.2.80", 443, snapshot(GAMING))
        assert decision[:4] == ("direct", None, None, (Reason.NO_CONCENTRATOR,))

    @pytest.mark.requirement("5.6.2-a")
    def test_single_binds_to_its_wan_also_one_that_the_scheme_leaves_out(self) -> None:
        state = snapshot(NEAR, wans=(DSL,))._replace(other_wans=(LTE,))
        decision = decide(4, "192.0.2.80", 443, state, ClassView(2, scheme="single:lte"))
        assert (decision.wan, decision.bound) == (LTE, True)
        assert (decision.scheme, decision.scheme_reason) == ("single:lte", Reason.SCHEME_BOUND)

    @pytest.mark.requirement("5.6.2-a")
    def test_a_bound_wan_that_is_down(self) -> None:
        state = snapshot(NEAR, wans=(DSL,))._replace(scheme_reason=Reason.SCHEME_ONE)
        decision = decide(4, "192.0.2.80", 443, state, ClassView(2, scheme="single:lte"))
        assert (decision.wan, decision.bound, decision.scheme) == (DSL, False, "adaptive")
        assert decision.scheme_reason == Reason.SCHEME_WAN_UNUSABLE
        strict = decide(4, "192.0.2.80", 443, state, ClassView(3, strict=True, scheme="single:lte"))
        assert strict[:4] == ("block", None, None, (Reason.SCHEME_WAN_UNUSABLE, Reason.BLOCKED))

    @pytest.mark.requirement("5.6.2-a")
    def test_lowest_latency_takes_the_shortest_round_trip_whatever_is_preferred(self) -> None:
        state = snapshot(NEAR, wans=(DSL._replace(base_rtt_ms=40.0), LTE._replace(base_rtt_ms=25.0), V6_ONLY))
        decision = decide(4, "192.0.2.80", 443, state, ClassView(2, scheme="lowest-latency"))
        assert decision.wan is not None
        assert (decision.wan.name, decision.bound) == ("lte", True)
        unknown = decide(4, "192.0.2.80", 443, snapshot(NEAR), ClassView(2, scheme="lowest-latency"))
        assert unknown.wan == DSL

    @pytest.mark.requirement("X-5")
    def test_lowest_latency_takes_no_reserve_while_others_are_there(self) -> None:
        used_up = LTE._replace(base_rtt_ms=25.0, tier=LAST_RESORT)
        choice = ClassView(2, scheme="lowest-latency")
        decision = decide(4, "192.0.2.80", 443, snapshot(NEAR, wans=(DSL._replace(base_rtt_ms=40.0), used_up)), choice)
        assert decision.wan is not None
        assert decision.wan.name == "dsl"
        alone = decide(4, "192.0.2.80", 443, snapshot(NEAR, wans=(used_up,)), choice)
        assert alone.wan == used_up

    def test_strict_is_never_direct(self) -> None:
        decision = decide(4, "192.0.2.80", 443, snapshot(), ClassView(1, strict=True))
        assert decision[:4] == ("block", None, None, (Reason.NO_CONCENTRATOR, Reason.BLOCKED))
