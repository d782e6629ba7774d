"""fw4's rules said again: what is refused is left alone, and a doubt never lets anything be taken."""

from __future__ import annotations

import pytest

from cpe_mcp.policy.firewall_rules import NO_FIREWALL, view_of

pytestmark = [pytest.mark.unit, pytest.mark.requirement("X-15")]

BASE = """table inet fw4 {
	chain forward {
		type filter hook forward priority filter; policy %(policy)s;
		ct state vmap { established : accept, related : accept } comment "!fw4: Handle forwarded flows"
%(rules)s
	}

	chain to_wan {
		oifname "eth1" counter accept comment "!fw4: accept wan IPv4/IPv6 traffic"
	}

	chain no_wan {
		oifname { "eth1", "wwan0" } counter packets 3 bytes 9 drop
	}
}
"""


def forward(*rules: str, policy: str = "drop") -> list[str]:
    """The repeated forward chain."""
    view = view_of(BASE % {"policy": policy, "rules": "\n".join(f"\t\t{rule}" for rule in rules)})
    return list(dict(view.chains)["fw4_forward"])


def unsure(*rules: str) -> tuple[str, ...]:
    return view_of(BASE % {"policy": "drop", "rules": "\n".join(f"\t\t{rule}" for rule in rules)}).unsure


def test_without_fw4_nothing_is_held_back() -> None:
    assert view_of("") == NO_FIREWALL
    assert view_of("Error: No such file or directory") == NO_FIREWALL
    assert view_of("table inet fw4 {\n}\n") == NO_FIREWALL


@pytest.mark.parametrize(
    ("rule", "repeated"),
    [
        ("tcp dport 25 counter drop", "tcp dport 25 accept"),
        ('tcp dport { 25, 587 } counter reject comment "!fw4: no mail, accept none"', "tcp dport { 25, 587 } accept"),
        ("ip saddr 192.168.1.0/24 accept", "ip saddr 192.168.1.0/24 goto deliver"),
        ('iifname "br-guest" reject with icmpx admin-prohibited', 'iifname "br-guest" accept'),
        ('log prefix "drop wan forward: " drop', "accept"),
        (
            'ether saddr 00:11:22:33:44:55 meta hour != "07:00"-"21:00" counter drop',
            'ether saddr 00:11:22:33:44:55 meta hour != "07:00"-"21:00" accept',
        ),
        ('oifname "eth1" accept', 'fib daddr . mark oifname "eth1" goto deliver'),
        ('oifname != "eth1" drop', 'fib daddr . mark oifname != "eth1" accept'),
        ("ip daddr & 0.0.0.255 == 0.0.0.7 drop", "ip daddr & 0.0.0.255 == 0.0.0.7 accept"),
        ("meta nfproto ipv6 jump to_wan", "meta nfproto ipv6 jump fw4_to_wan"),
        ("ct status dnat accept", "ct status dnat goto deliver"),
    ],
)
def test_matches_stay_and_verdicts_change(rule: str, repeated: str) -> None:
    assert forward(rule) == [repeated, "accept"]
    assert not unsure(rule)


def test_the_end_of_the_chain_is_its_policy() -> None:
    assert forward(policy="drop") == ["accept"]
    assert forward(policy="accept") == ["goto deliver"]


@pytest.mark.parametrize(
    "rule",
    [
        "udp dport 443 drop",
        "meta l4proto udp drop",
        "icmpv6 type { echo-request } limit rate 1000/second accept",
        "meta l4proto { tcp, udp } flow add @ft",
        "meta mark set 0x1",
        "ct state vmap { established : accept, related : accept, invalid : drop }",
    ],
)
def test_what_is_no_matter_of_a_new_tcp_connection_is_left_out(rule: str) -> None:
    assert forward(rule) == ["accept"]
    assert not unsure(rule)


@pytest.mark.parametrize(
    ("rule", "repeated"),
    [
        # refusals: the match that cannot be foreseen counts as fulfilled
        ("tcp dport 80 ip daddr @bad drop", "tcp dport 80 accept"),
        ("ip daddr @bad tcp dport 80 drop", "tcp dport 80 accept"),
        ("ip saddr . tcp dport @bad drop", "accept"),
        ("ip saddr 192.168.1.9 limit rate 10/minute burst 5 packets drop", "ip saddr 192.168.1.9 accept"),
        ("meta mark & 0x000000ff == 0x00000001 drop", "accept"),
        ('ip saddr 192.168.1.9 osf name "Windows" drop', "ip saddr 192.168.1.9 accept"),
        ("tcp dport 80 queue to 1", "tcp dport 80 accept"),
        ("ip daddr @bad jump no_wan", "jump fw4_refusals_no_wan"),
        ("tcp dport 80 ip daddr @good return", "tcp dport 80 accept"),
    ],
)
def test_a_doubt_leaves_alone(rule: str, repeated: str) -> None:
    assert forward(rule, policy="accept") == [repeated, "goto deliver"]


@pytest.mark.parametrize("rule", ["ip daddr @good accept", "limit rate 10/minute accept", "ip daddr @good jump to_wan"])
def test_a_doubt_has_nothing_taken(rule: str) -> None:
    assert forward(rule) == ["accept"]
    assert not unsure(rule), "nobody is harmed"


def test_a_verdict_map_that_speaks_of_new_connections_leaves_all_alone() -> None:
    assert forward("ct state vmap { new : drop, established : accept }", policy="accept") == ["accept", "goto deliver"]


def test_what_cannot_be_foreseen_has_the_users_name_for_it() -> None:
    rule = 'ip daddr @bad counter drop comment "!fw4: bad hosts"'
    assert unsure(rule, rule) == ("bad hosts",)


def test_more_base_chains_can_refuse_and_not_let_through() -> None:
    listing = BASE % {"policy": "accept", "rules": ""}
    own = (
        "\tchain mine {\n\t\ttype filter hook forward priority filter - 1; policy accept;\n"
        "\t\ttcp dport 22 accept\n\t\ttcp dport 23 drop\n\t}\n"
        "\tchain dstnat {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n"
        "\t\ttcp dport 53 redirect to :53\n\t\ttcp dport 81 dnat ip to 192.168.1.2:80\n\t}\n"
    )
    view = view_of(listing.removesuffix("}\n") + own + "}\n")
    chains = dict(view.chains)
    assert chains["fw4"] == ("jump fw4_refusals_mine", "jump fw4_refusals_dstnat", "goto fw4_forward")
    assert chains["fw4_refusals_mine"] == ("tcp dport 23 accept",)
    assert chains["fw4_refusals_dstnat"] == ("tcp dport 53 accept", "tcp dport 81 accept")


def test_chains_are_repeated_once_and_before_they_are_named() -> None:
    listing = BASE % {"policy": "drop", "rules": "\t\tjump to_wan\n\t\ttcp dport 1 jump to_wan\n\t\tjump elsewhere"}
    names = [name for name, _ in view_of(listing).chains]
    assert names == ["fw4_to_wan", "fw4_elsewhere", "fw4_forward", "fw4"]
    assert dict(view_of(listing).chains)["fw4_elsewhere"] == ("accept",), "a chain that is not there"
