"""The matcher of rules, and what ``why`` says of them. That the kernel decides the same is tested on the kernel."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from cpe_mcp.aaa.cookie import NO_CREDENTIAL
from cpe_mcp.kernel.hardware_address import hardware_address
from cpe_mcp.paths.snapshot import ORDINARY, ClassView, ConcentratorView, Snapshot, WanView
from cpe_mcp.policy.rules import Packet, class_of, classes_of, compile_rules, first_match, matches
from cpe_mcp.settings import parse_router
from cpe_mcp.settings.router import RuleSettings
from cpe_mcp.upstream.why import Facts, explain

pytestmark = pytest.mark.unit

WEB = Packet("192.0.2.1", 443, source="192.168.1.7", mac="00:53:00:12:34:56", names=("www.example.com",))


@pytest.mark.requirement("X-7")
@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, True),
        ({"dest": ("192.0.2.0/24",)}, True),
        ({"dest": ("2001:db8::/32",)}, False),
        ({"domain": ("example.com",)}, True),
        ({"domain": ("www.example.com",)}, True),
        ({"domain": ("ww.example.com",)}, False),
        ({"domain": ("ple.com",)}, False),
        ({"domain": ("other.example",), "dest": ("192.0.2.1/32",)}, True),
        ({"domain": ("other.example",), "dest": ("192.0.2.2/32",)}, False),
        ({"dest_port": ("80", "400-500")}, True),
        ({"dest_port": ("444",)}, False),
        ({"proto": ("tcp",)}, True),
        ({"proto": ("udp",)}, False),
        ({"mac": ("00:53:00:12:34:56",)}, True),
        ({"mac": ("00:53:00:12:34:57",), "src": ("192.168.1.0/24",)}, True),
        ({"mac": ("00:53:00:12:34:57",), "src": ("192.168.2.0/24",)}, False),
        ({"src": ("192.168.1.7/32",), "dest": ("192.0.2.2/32",)}, False),
        ({"dscp": (0,)}, True),
        ({"dscp": (46,)}, False),
    ],
)
def test_conditions(conditions: dict[str, tuple[str, ...]], expected: bool) -> None:
    (rule,) = compile_rules([RuleSettings("rule[0]", **conditions)])  # type: ignore[arg-type]
    assert matches(rule, WEB) is expected


def test_the_first_enabled_rule_that_matches() -> None:
    rules = compile_rules(
        [
            RuleSettings("rule[0]", action="block", enabled=False),
            RuleSettings("rule[1]", action="block", dest=("198.51.100.1/32",)),
            RuleSettings("rule[2]", action="direct", dest_port=("443",)),
            RuleSettings("rule[3]", action="proxy"),
        ]
    )
    found = first_match(rules, WEB)
    assert found is not None
    assert found.section == "rule[2]"
    assert first_match(rules[:1], WEB) is None


def test_a_device_rule_does_not_match_an_unknown_device() -> None:
    (rule,) = compile_rules([RuleSettings("tv", src=("192.168.1.0/24",))])
    assert not matches(rule, WEB._replace(source="", mac=""))


READY = Snapshot(
    generation=1,
    proxy=True,
    reason="ready",
    wans=(WanView("dsl", "eth1", "198.51.100.2", ""),),
    concentrators=(ConcentratorView("home", ("198.51.100.7",), 5124, NO_CREDENTIAL, False),),
    fallback="direct",
    pool_size=0,
    pool_idle_s=60.0,
    connect_timeout_s=1.0,
    reply_timeout_s=3.0,
    congestion_control="",
    lossy_congestion_control="",
)
FACTS = Facts(
    snapshot=READY,
    takes=(True, True),
    not_taken="",
    intercept="global",
    wan_networks=("198.51.100.0/24",),
    devices=("eth1",),
    device="eth1",
    left_direct="",
)


def why(dest: str, rules: str, **facts: object) -> tuple[str, str, list[str]]:
    """Action, the rule's name, reasons."""
    compiled = compile_rules(parse_router(rules).rules)
    answer = explain(ipaddress.ip_address(dest), 443, "192.168.1.7", FACTS._replace(rules=compiled, **facts))  # type: ignore[arg-type]
    return answer["action"], answer["rule"]["name"], [row["reason"] for row in answer["reasons"]]


@pytest.mark.requirement("X-7")
def test_why_names_the_rule() -> None:
    direct = "config rule 'shop'\n option name 'The shop'\n list domain example.com\n"
    assert why("8.8.8.8", direct, names=("www.example.com",)) == ("direct", "The shop", ["rule-direct"])
    assert why("8.8.8.8", direct) == ("proxy", "", ["proxied"])
    block = "config rule\n option action block\n list src 192.168.1.0/24\n"
    assert why("8.8.8.8", block) == ("block", "rule[0]", ["rule-block"])
    stopped = why("8.8.8.8", block, takes=(False, False), not_taken="no-worker")
    assert stopped == ("block", "rule[0]", ["rule-block"]), "a block holds while nothing is taken"
    include = "config rule\n option action proxy\n list dest 10.1.0.0/16\n"
    assert why("10.1.2.3", include) == ("proxy", "rule[0]", ["proxied", "rule-proxy"])
    assert why("10.2.0.1", include)[2] == ["not-global"]
    assert why("10.1.2.3", include, intercept="none")[0] == "proxy"
    assert why("10.1.2.3", include, device="wg0")[0] == "direct"


def test_the_hardware_address_is_in_the_neighbour_table(tmp_path: Path) -> None:
    table = tmp_path / "arp"
    table.write_text(
        "IP address       HW type     Flags       HW address            Mask     Device\n"
        "192.168.1.7      0x1         0x2         00:53:00:AB:CD:EF     *        br-lan\n"
        "192.168.1.8      0x1         0x0         00:00:00:00:00:00     *        br-lan\n"
    )
    assert hardware_address("192.168.1.7", str(table)) == "00:53:00:ab:cd:ef"
    assert hardware_address("192.168.1.8", str(table)) == ""
    assert hardware_address("192.168.1.9", str(table)) == ""
    assert hardware_address("192.168.1.9", str(tmp_path / "none")) == ""


def test_classes_are_numbered_by_what_they_want_and_strict_ones_are_odd() -> None:
    rules = compile_rules(
        [
            RuleSettings("a", action="proxy", dest=("192.0.2.1/32",)),
            RuleSettings("b", action="proxy", dest=("192.0.2.2/32",), fallback="block"),
            RuleSettings("c", action="proxy", dest=("192.0.2.3/32",), scheme="single:lte"),
            RuleSettings("d", action="proxy", dest=("192.0.2.4/32",), scheme="single:lte", fallback="block"),
            RuleSettings("e", action="proxy", dest=("192.0.2.5/32",), concentrator="gaming"),
            RuleSettings("f", action="proxy", dest=("192.0.2.6/32",), scheme="single:lte"),
        ]
    )
    assert [rule.class_number for rule in rules] == [0, 1, 2, 3, 4, 2]
    assert classes_of(rules) == (
        ClassView(1, strict=True),
        ClassView(2, scheme="single:lte"),
        ClassView(3, strict=True, scheme="single:lte"),
        ClassView(4, concentrator="gaming"),
    )
    assert class_of(None) == class_of(rules[0]) == ORDINARY
