"""Every branch of the decision about one flow."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cpe_mcp.paths.snapshot import EMPTY, ConcentratorView, Snapshot, WanView
from cpe_mcp.policy.decide import decide, first_wan
from cpe_mcp.policy.reasons import TEXTS, Reason

pytestmark = pytest.mark.unit

DSL = WanView("dsl", "eth1", "192.0.2.2", "")
LTE = WanView("lte", "wwan0", "198.51.100.2", "2001:db8:2::2")
V6_ONLY = WanView("cable", "eth2", "", "2001:db8:3::2")
NEAR = ConcentratorView("near", ("203.0.113.1",), 5124, b"", True)
FAR = ConcentratorView("far", ("2001:db8:ff::1", "203.0.113.2"), 5124, b"", True)


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
    assert decision == ("proxy", NEAR, DSL, (Reason.PROXIED,))


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
    assert decision == ("proxy", FAR, V6_ONLY, (Reason.PROXIED, Reason.NO_COMMON_FAMILY))


def test_no_common_family_at_all() -> None:
    decision = decide(4, "192.0.2.80", 443, snapshot(NEAR, wans=(V6_ONLY,)))
    assert decision == ("direct", None, None, (Reason.NO_COMMON_FAMILY,))


@pytest.mark.requirement("5.5-a")
def test_ipv6_goes_to_the_first_concentrator_that_reaches_it() -> None:
    without = NEAR._replace(reaches_ipv6=False)
    decision = decide(6, "2001:db8::80", 443, snapshot(without, FAR))
    assert decision == ("proxy", FAR, DSL, (Reason.PROXIED, Reason.NO_IPV6))
    assert decide(4, "192.0.2.80", 443, snapshot(without, FAR)).concentrator == without


def test_ipv6_without_a_concentrator_that_reaches_it() -> None:
    decision = decide(6, "2001:db8::80", 443, snapshot(NEAR._replace(reaches_ipv6=False)))
    assert decision == ("direct", None, None, (Reason.NO_IPV6,))


def test_no_concentrator() -> None:
    assert decide(4, "192.0.2.80", 443, snapshot()).reasons == (Reason.NO_CONCENTRATOR,)


def test_no_wan() -> None:
    assert decide(4, "192.0.2.80", 443, snapshot(NEAR, wans=())).reasons == (Reason.NO_WAN,)


def test_not_proxying_gives_the_snapshots_reason() -> None:
    decision = decide(4, "192.0.2.80", 443, snapshot(NEAR, proxy=False, reason=Reason.NOT_AUTHORIZED))
    assert decision == ("direct", None, None, (Reason.NOT_AUTHORIZED,))


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        (snapshot(fallback="block"), Reason.NO_CONCENTRATOR),
        (snapshot(NEAR, wans=(), fallback="block"), Reason.NO_WAN),
        (snapshot(NEAR, proxy=False, reason=Reason.AUTH_TIMEOUT, fallback="block"), Reason.AUTH_TIMEOUT),
    ],
)
def test_fallback_block_names_cause_and_consequence(state: Snapshot, cause: str) -> None:
    assert decide(4, "192.0.2.80", 443, state) == ("block", None, None, (cause, Reason.BLOCKED))


def test_switched_off_never_blocks() -> None:
    state = snapshot(NEAR, proxy=False, reason=Reason.DISABLED, fallback="block")
    assert decide(4, "192.0.2.80", 443, state).action == "direct"


def test_before_the_control_daemon_has_spoken_everything_is_direct() -> None:
    assert decide(6, "2001:db8::80", 443, EMPTY) == ("direct", None, None, (Reason.STARTING,))


def test_every_reason_has_a_text() -> None:
    reasons = {value for name, value in vars(Reason).items() if name.isupper()}
    assert reasons == set(TEXTS)


def test_it_brings_nothing_heavy_into_a_worker() -> None:
    heavy = "dataclasses asyncio logging ipaddress pyroute2 socket json"
    code = f"import sys, cpe_mcp.policy.decide; print([m for m in {heavy.split()!r} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
