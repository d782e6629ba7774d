"""The text of the nftables transaction; what the rules do is tested on the kernel."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cpe_mcp.kernel.nft import Interception, hooks, name_sets, render
from cpe_mcp.policy.rules import compile_rules
from cpe_mcp.settings.router import RuleSettings

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
def test_concentrators_are_closed_to_all_behind_the_router_before_anything_else() -> None:
    guard = ["ip daddr . tcp dport @mcp4 drop", "ip6 daddr . tcp dport @mcp6 drop"]
    assert rules(PLAN, "prerouting")[:4] == [
        'iifname { "lo", "eth1", "wwan0" } return',
        *guard,
        'iifname != { "br-lan", "br-guest" } return',
    ]
    assert rules(PLAN._replace(lan=()), "prerouting") == ['iifname { "lo", "eth1", "wwan0" } return', *guard]
    assert rules(PLAN._replace(lan=(), wans=()), "prerouting") == ['iifname { "lo" } return', *guard]
    one_device = rules(PLAN._replace(lan=("eth1",)), "prerouting")
    assert one_device[0] == 'iifname { "lo", "wwan0" } return', "a LAN that comes in by a WAN's device is kept away too"
    assert "add element inet cpe_mcp mcp4 { 198.51.100.7 . 5124 }" in render(PLAN)
    assert "add element inet cpe_mcp mcp6 { 2001:db8::7 . 5124 }" in render(PLAN)


@pytest.mark.requirement("5.3-f")
def test_a_concentrator_named_by_a_mapped_address_is_closed_as_its_packets_name_it() -> None:
    text = render(PLAN._replace(concentrators=(("::ffff:198.51.100.7", 5124),), ident=True))
    assert re.findall(r"^add element inet cpe_mcp (mcp.*)$", text, re.M) == ["mcp4 { 198.51.100.7 . 5124 }"]
    assert "meta nfproto ipv4 tcp dport 113 ip saddr != { 198.51.100.7 } reject" in text


@pytest.mark.requirement("5.3-c")
def test_the_ident_port_is_closed_to_all_but_concentrators() -> None:
    assert "input" not in hooks(PLAN), "nobody listens"
    plan = PLAN._replace(ident=True)
    assert "input" in hooks(plan)
    start = 'iifname { "eth1", "wwan0" } meta nfproto'
    assert rules(plan, "input") == [
        f"{start} ipv4 tcp dport 113 ip saddr != {{ 198.51.100.7 }} reject with tcp reset",
        f"{start} ipv6 tcp dport 113 ip6 saddr != {{ 2001:db8::7 }} reject with tcp reset",
    ]
    unknown = rules(plan._replace(concentrators=()), "input")
    assert len(unknown) == 2
    assert not any("saddr" in rule for rule in unknown), "closed to everybody"


def test_switched_off_it_still_guards_the_concentrators_and_carries_on_what_was_taken() -> None:
    off = PLAN._replace(active4=False, active6=False)
    assert rules(off, "intercept") == []
    kept = rules(off, "prerouting")
    assert "ip daddr . tcp dport @mcp4 drop" in kept
    assert any("socket transparent 1" in rule for rule in kept)
    assert not any("jump" in rule for rule in kept)


def test_each_family_by_itself() -> None:
    four = "\n".join(rules(PLAN._replace(active6=False), "deliver"))
    assert "tproxy ip to :5125" in four
    assert "tproxy ip6" not in four


def test_exemptions_come_before_tproxy() -> None:
    chain = rules(PLAN, "intercept")
    assert chain[-1] == "goto take"
    for word in ("fib daddr type", "@wan4", "@wan6", "10.0.0.0/8", "2000::/3", "@direct4", "@direct6", "oifname !="):
        assert any(word in rule for rule in chain[:-1]), word


def test_settings_show_in_the_rules() -> None:
    assert not any("10.0.0.0/8" in rule for rule in rules(PLAN._replace(any_destination=True), "intercept"))
    assert "tcp option mptcp exists return" in rules(PLAN._replace(pass_mptcp=True), "intercept")


def test_sets_that_fill_at_run_time_are_not_emptied() -> None:
    assert "flush set inet cpe_mcp direct4" not in render(PLAN)
    assert "flush set inet cpe_mcp mcp4" in render(PLAN)


def test_no_lan_nothing_is_taken() -> None:
    assert not any("jump" in rule for rule in rules(PLAN._replace(lan=()), "prerouting"))
    assert rules(PLAN._replace(wans=()), "intercept") == []


def with_rules(*settings: RuleSettings, **fields: Any) -> Interception:
    return PLAN._replace(rules=compile_rules(settings), **fields)


@pytest.mark.requirement("X-7")
def test_rules_stand_in_their_order_before_the_default() -> None:
    plan = with_rules(
        RuleSettings("rule[0]", action="direct", dest=("192.0.2.0/24",)),
        RuleSettings("video", action="proxy", dest_port=("443", "8000-8100", "8050-8200"), mac=("00:53:00:12:34:56",)),
    )
    chain = rules(plan, "intercept")
    ours = [rule for rule in chain if "counter name" in rule]
    assert ours == [
        "meta nfproto ipv4 ip daddr { 192.0.2.0/24 } counter name rule_0 return",
        "meta nfproto ipv4 ether saddr { 00:53:00:12:34:56 } tcp dport { 443, 8000-8200 } "
        "counter name named_video goto take",
        "meta nfproto ipv6 ether saddr { 00:53:00:12:34:56 } tcp dport { 443, 8000-8200 } "
        "counter name named_video goto take",
    ]
    assert chain.index(ours[-1]) < next(index for index, rule in enumerate(chain) if "10.0.0.0/8" in rule)
    assert hooks(plan) == ("prerouting",), "nothing is refused, so nothing costs forwarded packets anything"


@pytest.mark.requirement("X-7")
def test_what_a_rule_blocks_is_refused_where_it_is_forwarded() -> None:
    plan = with_rules(RuleSettings("rule[0]", action="block", proto=("udp",), src=("192.168.1.7/32",)))
    assert hooks(plan) == ("prerouting", "forward")
    assert (
        "meta nfproto ipv4 ip saddr { 192.168.1.7/32 } meta l4proto { udp } counter name rule_0 goto refuse"
        in rules(plan, "forward")
    )
    assert not any("192.168.1.7" in rule for rule in rules(plan, "intercept")), "no TCP connection can match it"
    off = plan._replace(active4=False, active6=False)
    assert rules(off, "forward") == rules(plan, "forward"), "whether or not anything is taken"


def test_name_sets_follow_the_domains_and_not_the_order() -> None:
    video = RuleSettings("rule[0]", action="proxy", domain=("a.example", "b.example"))
    moved = RuleSettings("rule[7]", action="block", domain=("b.example", "a.example"))
    assert name_sets(with_rules(video)) == name_sets(with_rules(moved))
    assert len(name_sets(with_rules(video, moved))) == 2, "one for each family"
    assert all(len(name) <= 31 for name in name_sets(with_rules(video)))
    for name in name_sets(with_rules(video)):
        assert f"flush set inet cpe_mcp {name}" not in render(with_rules(video))


@pytest.mark.requirement("X-12")
def test_quic_is_refused_only_where_tcp_would_be_taken() -> None:
    plan = PLAN._replace(reject_quic=True)
    assert rules(plan, "forward")[-1] == "goto quic"
    assert any("10.0.0.0/8" in rule for rule in rules(plan, "forward"))
    assert len(rules(plan, "quic")) == 2
    assert hooks(plan._replace(active4=False, active6=False)) == ("prerouting",), "nothing is taken at this moment"
    assert hooks(PLAN) == ("prerouting",)


def test_only_what_a_rule_takes() -> None:
    plan = with_rules(RuleSettings("rule[0]", action="proxy", dest=("192.0.2.0/24",)), take_rest=False)
    assert [rule for rule in rules(plan, "intercept") if "goto take" in rule] == [
        "meta nfproto ipv4 ip daddr { 192.0.2.0/24 } counter name rule_0 goto take"
    ]
