"""The text of the nftables transaction; what the rules do is tested on the kernel."""

from __future__ import annotations

import pytest

from cpe_mcp.kernel.nft import Interception, render

pytestmark = pytest.mark.unit

PLAN = Interception(
    lan=("br-lan", "br-guest"),
    wans=("eth1", "wwan0"),
    wan_networks=("192.0.2.0/24", "2001:db8:1::/64"),
    concentrators=(("198.51.100.7", 5124), ("2001:db8::7", 5124)),
    port=5125,
    active4=True,
    active6=True,
    any_destination=False,
    pass_mptcp=False,
)


def rules(plan: Interception, chain: str) -> list[str]:
    start = f"add rule inet cpe_mcp {chain} "
    return [line.removeprefix(start) for line in render(plan).splitlines() if line.startswith(start)]


def test_only_the_own_table_is_touched() -> None:
    for line in render(PLAN).splitlines():
        assert " inet cpe_mcp" in line, line


@pytest.mark.requirement("5.3-f")
def test_concentrators_are_closed_to_the_lan_before_anything_else() -> None:
    assert rules(PLAN, "prerouting")[:3] == [
        'iifname != { "br-lan", "br-guest" } return',
        "ip daddr . tcp dport @mcp4 drop",
        "ip6 daddr . tcp dport @mcp6 drop",
    ]
    assert "add element inet cpe_mcp mcp4 { 198.51.100.7 . 5124 }" in render(PLAN)
    assert "add element inet cpe_mcp mcp6 { 2001:db8::7 . 5124 }" in render(PLAN)


def test_switched_off_it_still_guards_the_concentrators_and_carries_on_what_was_taken() -> None:
    off = PLAN._replace(active4=False, active6=False)
    assert rules(off, "intercept") == []
    kept = rules(off, "prerouting")
    assert "ip daddr . tcp dport @mcp4 drop" in kept
    assert any("socket transparent 1" in rule for rule in kept)
    assert not any("jump" in rule for rule in kept)


def test_each_family_by_itself() -> None:
    four = "\n".join(rules(PLAN._replace(active6=False), "intercept"))
    assert "tproxy ip to :5125" in four
    assert "tproxy ip6" not in four


def test_exemptions_come_before_tproxy() -> None:
    chain = rules(PLAN, "intercept")
    first_tproxy = next(index for index, rule in enumerate(chain) if "tproxy" in rule)
    for word in ("fib daddr type", "@wan4", "@wan6", "10.0.0.0/8", "2000::/3", "@direct4", "@direct6", "oifname !="):
        assert any(word in rule for rule in chain[:first_tproxy]), word


def test_settings_show_in_the_rules() -> None:
    assert not any("10.0.0.0/8" in rule for rule in rules(PLAN._replace(any_destination=True), "intercept"))
    assert "tcp option mptcp exists return" in rules(PLAN._replace(pass_mptcp=True), "intercept")


def test_sets_that_fill_at_run_time_are_not_emptied() -> None:
    assert "flush set inet cpe_mcp direct4" not in render(PLAN)
    assert "flush set inet cpe_mcp mcp4" in render(PLAN)


def test_no_lan_no_rules() -> None:
    assert rules(PLAN._replace(lan=()), "prerouting") == []
    assert rules(PLAN._replace(wans=()), "intercept") == []
