"""The pure halves of what the daemon answers: ledger, history, why, check, neighbours, metrics."""

from __future__ import annotations

import ast
import inspect
import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest

from cpe_mcp.aaa.cookie import NO_CREDENTIAL
from cpe_mcp.paths.snapshot import EMPTY, ConcentratorView, Snapshot, WanView
from cpe_mcp.policy.reasons import Reason
from cpe_mcp.relay.records import FlowRecord
from cpe_mcp.settings.uci import parse
from cpe_mcp.upstream import check as check_module
from cpe_mcp.upstream import neighbours as neighbours_module
from cpe_mcp.upstream.check import Evidence, check
from cpe_mcp.upstream.check_texts import TEXTS
from cpe_mcp.upstream.history import GAP_S, SAMPLES, History
from cpe_mcp.upstream.ledger import KEPT_RECORDS, Ledger
from cpe_mcp.upstream.metrics import PREFIX, exposition
from cpe_mcp.upstream.neighbours import Neighbours, describe
from cpe_mcp.upstream.why import Facts, explain
from cpe_mcp.upstream.why_flow import explain_flow

pytestmark = pytest.mark.unit

RECORD = FlowRecord(
    id=7,
    started=1.5,
    client="192.168.1.2",
    client_port=4000,
    server="192.0.2.80",
    server_port=443,
    family=4,
    concentrator="mine",
    wan="dsl",
    action="proxy",
    reason="pooled",
    pooled=True,
    first_byte_ms=20.0,
    bytes_up=1000,
    bytes_down=5_000_000,
    duration_s=3.0,
    end="closed",
    mptcp=True,
)


# The ledger ---------------------------------------------------------------------------------------------------------


def test_ledger_sums_and_keeps_the_last() -> None:
    ledger = Ledger()
    for number in range(KEPT_RECORDS + 5):
        ledger.add({**RECORD._asdict(), "id": number}, worker=2)
    assert [row["id"] for row in ledger.last(3)] == ["2:1004", "2:1003", "2:1002"]
    assert len(ledger.last(10_000)) == KEPT_RECORDS
    totals = ledger.totals()
    assert (totals["flows"], totals["bytes_up"], totals["by_end"]) == (1005, 1_005_000, {"closed": 1005})
    assert ledger.fallbacks() == {}


@pytest.mark.requirement("Y-8")
def test_ledger_counts_fallbacks_by_wan_and_reason() -> None:
    ledger = Ledger()
    for wan, reason in (("lte", "mptcp-stripped"), ("lte", "mptcp-stripped"), ("dsl", "mptcp-lost"), ("dsl", "")):
        ledger.add({**RECORD._asdict(), "wan": wan, "fallback": reason, "mptcp": not reason})
    assert ledger.fallbacks() == {"lte": {"mptcp-stripped": 2}, "dsl": {"mptcp-lost": 1}}


def test_ledger_understands_older_and_newer_workers() -> None:
    ledger = Ledger()
    old = RECORD._asdict()
    for name in ("mptcp", "fallback", "bytes_by_wan"):
        del old[name]
    assert ledger.add(old).bytes_by_wan == {}
    assert ledger.add({**RECORD._asdict(), "colour": "green"}).end == "closed"
    with pytest.raises(TypeError):
        ledger.add({"id": 1})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", [3, 2, 1]),
        ("192.168.1.9", [1]),
        (":8443", [2]),
        ("MINE", [2, 1]),
        ("direct", [3]),
        ("lte", [2]),
        ("nothing", []),
    ],
)
def test_ledger_filter(text: str, found: list[int]) -> None:
    ledger = Ledger()
    rows: list[dict[str, Any]] = [
        {"id": 1, "client": "192.168.1.9"},
        {"id": 2, "server_port": 8443, "bytes_by_wan": {"lte": {"down": 1, "up": 1}}},
        {"id": 3, "action": "direct", "concentrator": "", "wan": ""},
    ]
    for row in rows:
        ledger.add({**RECORD._asdict(), **row})
    assert [int(row["id"].partition(":")[2]) for row in ledger.last(10, text)] == found
    assert len(ledger.last(1, text)) == min(1, len(found))


# The history --------------------------------------------------------------------------------------------------------


def test_history_makes_rates_of_counters() -> None:
    history = History()
    history.observe(10.0, {"dsl": (0, 0)})
    assert history.wans() == []
    history.observe(11.0, {"dsl": (125_000, 1_250_000)})
    history.observe(13.0, {"dsl": (125_000, 3_750_000)})
    assert history.wans() == [{"name": "dsl", "down_mbit": [10.0, 10.0], "up_mbit": [1.0, 0.0]}]


def test_history_keeps_three_minutes() -> None:
    history = History()
    for second in range(SAMPLES + 50):
        history.observe(float(second), {"dsl": (0, second * second)})
    (row,) = history.wans()
    assert len(row["down_mbit"]) == len(row["up_mbit"]) == SAMPLES
    assert row["down_mbit"] == sorted(row["down_mbit"]), "the newest is not last"


def test_history_of_wans_that_come_and_go() -> None:
    history = History()
    for second in range(5):
        history.observe(float(second), {"dsl": (0, second * 125_000)})
    history.observe(5.0, {"dsl": (0, 625_000), "lte": (0, 0)})
    rows = {row["name"]: row["down_mbit"] for row in history.wans()}
    assert rows == {"dsl": [1.0] * 5, "lte": [0.0] * 5}, "all lists are of one length, to be drawn on top of each other"
    history.observe(6.0, {"lte": (0, 0)})
    assert [row["name"] for row in history.wans()] == ["lte"]


def test_history_after_a_counter_that_went_back_and_after_a_sleep() -> None:
    history = History()
    history.observe(0.0, {"dsl": (5, 5_000_000)})
    history.observe(1.0, {"dsl": (5, 100)})
    assert history.wans()[0]["down_mbit"] == [0.0]
    history.observe(2.0 + GAP_S, {"dsl": (5, 100)})
    assert history.wans() == []


# Why ----------------------------------------------------------------------------------------------------------------

WANS = (WanView("dsl", "eth1", "203.0.113.2", ""),)
MINE = (ConcentratorView("mine", ("198.51.100.1",), 5124, NO_CREDENTIAL, False),)
READY: Snapshot = EMPTY._replace(proxy=True, reason="ready", wans=WANS, concentrators=MINE)
FACTS = Facts(
    snapshot=READY,
    takes=(True, False),
    not_taken="",
    intercept="global",
    wan_networks=("203.0.113.0/24", "192.168.100.0/24"),
    devices=("eth1", "wwan0"),
    device="eth1",
    left_direct="",
)


def reasons(address: str, facts: Facts, port: int = 443) -> tuple[str, list[str]]:
    answer = explain(ipaddress.ip_address(address), port, "", facts)
    return answer["action"], [row["reason"] for row in answer["reasons"]]


@pytest.mark.requirement("Y-6")
def test_why_proxied() -> None:
    answer = explain(ipaddress.ip_address("8.8.8.8"), 443, "192.168.1.2", FACTS)
    assert (answer["action"], answer["concentrator"], answer["wan"]) == ("proxy", "mine", "dsl")
    assert answer["reasons"] == [{"reason": "proxied", "text": "carried over Multipath TCP"}]
    assert (answer["scheme"], answer["wan_reason"]) == ("adaptive", "first-only")
    assert (answer["concentrator_reason"], answer["warm"]) == ("concentrator-only", False)


@pytest.mark.requirement("Y-6")
def test_why_tells_whether_a_warm_connection_is_ready() -> None:
    six = MINE[0]._replace(name="six", reaches_ipv6=True)
    snapshot = READY._replace(concentrators=(*MINE, six), scheme="overflow", scheme_reason=Reason.SCHEME_ROOM)
    facts = FACTS._replace(snapshot=snapshot, takes=(True, True), warm=2, known=("mine", "six"))
    answer = explain(ipaddress.ip_address("8.8.8.8"), 443, "", facts)
    assert (answer["concentrator"], answer["concentrator_reason"], answer["warm"]) == (
        "mine",
        "concentrator-first",
        True,
    )
    assert (answer["scheme"], answer["scheme_reason"]) == ("overflow", "scheme-room")
    answer = explain(ipaddress.ip_address("2606:4700::1"), 443, "", facts)
    assert (answer["concentrator"], answer["concentrator_reason"]) == ("six", "concentrator-next")
    assert answer["warm"] is False, "the pool is that of the first one"
    direct = explain(ipaddress.ip_address("10.0.0.1"), 443, "", facts)
    assert {name: direct[name] for name in ("scheme", "wan_text", "warm")} == {
        "scheme": "",
        "wan_text": "",
        "warm": False,
    }


@pytest.mark.requirement("Y-6")
@pytest.mark.parametrize(
    ("address", "changes", "first"),
    [
        ("192.168.100.1", {}, Reason.WAN_NETWORK),
        ("203.0.113.9", {}, Reason.WAN_NETWORK),
        ("10.0.0.1", {}, Reason.NOT_GLOBAL),
        ("2606:4700::1", {}, Reason.NO_IPV6),
        ("8.8.8.8", {"intercept": "none"}, Reason.NOT_TAKEN),
        ("8.8.8.8", {"left_direct": "server-refused"}, Reason.LEFT_DIRECT),
        ("8.8.8.8", {"device": "tun0"}, Reason.OTHER_WAY),
        ("8.8.8.8", {"device": ""}, Reason.OTHER_WAY),
        ("8.8.8.8", {"takes": (False, False), "not_taken": Reason.NO_WORKER}, Reason.NO_WORKER),
    ],
)
def test_why_forwarded(address: str, changes: dict[str, Any], first: str) -> None:
    action, given = reasons(address, FACTS._replace(**changes))
    assert action == "direct"
    assert given[0] == first
    assert Reason.PROXIED not in given


def test_why_takes_any_destination_that_is_not_behind_a_wan_when_told_so() -> None:
    facts = FACTS._replace(intercept="any")
    assert reasons("10.0.0.1", facts)[0] == "proxy"
    assert reasons("192.168.100.1", facts) == ("direct", [Reason.WAN_NETWORK])


def test_why_without_knowledge_of_the_route_does_not_guess() -> None:
    assert reasons("8.8.8.8", FACTS._replace(device=None))[0] == "proxy"


def test_why_says_blocked_only_when_it_is() -> None:
    """The policy would block, but nothing is taken: then it is forwarded, whatever the policy would have said."""
    blocking = READY._replace(proxy=False, reason=Reason.NO_CONCENTRATOR, fallback="block", concentrators=())
    facts = FACTS._replace(snapshot=blocking)
    assert reasons("8.8.8.8", facts) == ("block", [Reason.NO_CONCENTRATOR, Reason.BLOCKED])
    off = facts._replace(takes=(False, False), not_taken=Reason.NO_CONCENTRATOR)
    assert reasons("8.8.8.8", off) == ("direct", [Reason.NO_CONCENTRATOR])


# Why a running flow is not faster -----------------------------------------------------------------------------------


def path_row(name: str, **changes: Any) -> dict[str, Any]:
    idle = {"down_mbit": 1.0, "up_mbit": 0.1, "capacity_down_mbit": 50.0, "capacity_up_mbit": 10.0}
    return {"name": name, "usable": True, "reason": "wan-up", "backup": False, **idle, **changes}


def subflow_row(wan: str, **changes: Any) -> dict[str, Any]:
    return {"wan": wan, "resent_share": 0.0, "reordered_share": 0.0, "backup": False, **changes}


BOTH = [path_row("dsl"), path_row("lte")]


@pytest.mark.requirement("Y-6")
@pytest.mark.parametrize(
    ("changes", "wans", "found"),
    [
        ({}, BOTH, [("server-slow", "")]),
        ({"action": "direct", "mptcp": False, "verdict": "rule-direct"}, BOTH, [("rule-direct", "")]),
        (
            {"fallback": "mptcp-stripped", "mptcp": False, "verdict": "mptcp-stripped", "verdict_wans": ["dsl"]},
            BOTH,
            [("mptcp-stripped", "dsl")],
        ),
        ({}, [path_row("dsl")], [("server-slow", ""), ("one-wan", "dsl")]),
        (
            {"verdict": "wan-full", "verdict_wans": ["dsl"]},
            [path_row("dsl"), path_row("lte", usable=False, reason="wan-silent")],
            [("wan-full", "dsl"), ("wan-silent", "lte")],
        ),
        ({}, [path_row("dsl"), path_row("lte", backup=True)], [("server-slow", ""), ("wan-in-reserve", "lte")]),
        (
            {"verdict": "wan-full", "verdict_wans": ["dsl", "lte"]},
            BOTH,
            [("wan-full", "dsl"), ("wan-full", "lte")],
        ),
        (
            {"subflows": [subflow_row("dsl")]},
            [path_row("dsl"), path_row("lte", reason="wan-out-of-quota", place="absent")],
            [("server-slow", ""), ("wan-out-of-quota", "lte")],
        ),
        ({"subflows": [subflow_row("dsl")]}, BOTH, [("server-slow", ""), ("not-joined", "lte")]),
        (
            {"subflows": [subflow_row("dsl"), subflow_row("lte", reordered_share=0.02)]},
            BOTH,
            [("server-slow", ""), ("wan-lossy", "lte")],
        ),
        (
            {
                "subflows": [subflow_row("dsl"), subflow_row("lte", resent_share=0.05)],
                "verdict": "wan-lossy",
                "verdict_wans": ["lte"],
            },
            BOTH,
            [("wan-lossy", "lte")],
        ),
    ],
)
def test_why_a_flow_is_not_faster(changes: dict[str, Any], wans: list[Any], found: list[tuple[str, str]]) -> None:
    subflows = [subflow_row("dsl"), subflow_row("lte")]
    flow = {**RECORD._asdict(), "subflows": subflows, "verdict": "server-slow", "verdict_wans": [], **changes}
    rows = explain_flow(flow, wans)
    assert [(row["reason"], row["wan"]) for row in rows] == found
    assert all(row["text"] != row["reason"] for row in rows)


# Check --------------------------------------------------------------------------------------------------------------


def wan_row(name: str, device: str, *, usable: bool = True) -> dict[str, Any]:
    return {
        "name": name,
        "device": device,
        "usable": usable,
        "state": "up" if usable else "offline",
        "loss_percent": 1.5 if usable else None,
        "repairs": 0,
        "reason": "wan-up" if usable else "wan-link-down",
        "text": "up" if usable else "the link is down",
        "backup": False,
        "rtt_ms": 20.5,
        "bytes_up": 1000,
        "bytes_down": 2000,
        "address4": "203.0.113.2",
        "address6": "",
        "mptcp": {"state": "works", "reason": "mptcp-works", "text": "it gets through", "evidence": []},
        "quota": {"used_gb": 0.0, "limit_gb": 0, "percent": 0.0, "state": "within", "resets_on": ""},
    }


def status(**changes: Any) -> dict[str, Any]:
    return {
        "version": "1.0",
        "kernel": "6.6.0",
        "uptime_s": 12.5,
        "settings": "/etc/config/cpe-mcp",
        "enabled": True,
        "proxy": True,
        "warnings": [],
        "wans": [wan_row("dsl", "eth1"), wan_row("lte", "wwan0")],
        "concentrators": [
            {
                "name": "mine",
                "addresses": ["198.51.100.1"],
                "source": "static",
                "usable": True,
                "reason": "",
                "text": "usable",
            }
        ],
        "sources": [],
        "radius": {"enabled": False, "accepted": False, "text": "not asked", "detail": ""},
        "workers": [{"index": 0, "pid": 5, "counters": {}}],
        "pool": {"size": 8, "ready": 8, "plain": 0, "taken": 3, "missed": 1, "died": 0},
        "interception": {"on": True, "ipv6": False, "reason": "", "text": ""},
        "live": 2,
        "lossy_flows": 2,
        "totals": Ledger().totals(),
        "fallbacks": {},
        "handshakes": {},
        **changes,
    }


GOOD = Evidence({"dsl": 8, "lte": 8}, "... tproxy ip to :5125 ...", [])


def row(stage: str, evidence: Evidence = GOOD, **changes: Any) -> dict[str, Any]:
    found = {row["stage"]: row for row in check(status(**changes), evidence)}
    return found[stage]


@pytest.mark.requirement("7.3-a")
def test_check_names_what_is_announced_and_not_believed() -> None:
    source = {"source": "dhcp4", "interface": "dsl", "unconfirmed": ["203.0.113.66"], "discarded": ""}
    found = row("discover", concentrators=[], sources=[source])
    assert not found["ok"]
    assert "203.0.113.66 (dhcp4 dsl)" in found["detail"]
    assert "no second one confirms it" in found["detail"]
    assert "trust_dhcp" in found["next"]


@pytest.mark.requirement("Y-10")
def test_check_has_every_stage_and_all_is_well() -> None:
    rows = check(status(), GOOD)
    stages = [row["stage"] for row in rows]
    assert {"intercept", "discover", "authenticate", "connect", "join", "aggregate"} <= set(stages)
    assert all(row["ok"] for row in rows)
    assert [row["stage"] for row in rows if row["info"]] == ["aggregate"], "what was not seen is no verdict"


@pytest.mark.requirement("Y-10")
@pytest.mark.parametrize(
    ("stage", "changes", "words"),
    [
        ("settings", {"enabled": False}, "enabled"),
        ("wan", {"wans": [wan_row("dsl", "eth1", usable=False)]}, "cable"),
        ("discover", {"concentrators": []}, "DHCP"),
        (
            "authenticate",
            {"radius": {"enabled": True, "accepted": False, "reason": "auth-timeout", "detail": ""}},
            "secret",
        ),
        (
            "authenticate",
            {
                "concentrators": [
                    {
                        "name": "mine",
                        "source": "static",
                        "usable": False,
                        "reason": "concentrator-refused",
                        "text": "refused",
                    }
                ]
            },
            "key",
        ),
        ("worker", {"workers": []}, "relay"),
        ("connect", {"pool": {"size": 8, "ready": 0, "plain": 0}}, "port"),
        (
            "intercept",
            {"interception": {"on": False, "ipv6": False, "reason": "no-wan", "text": "no WAN"}},
            "first stage",
        ),
        ("join", {"pool": {"size": 8, "ready": 8, "plain": 3}}, "mptcp.enabled"),
        ("join", {"wans": [wan_row("dsl", "eth1"), wan_row("lte", "wwan0", usable=False)]}, "see to the WANs"),
    ],
)
def test_check_names_the_next_step_of_a_stage_that_fails(stage: str, changes: dict[str, Any], words: str) -> None:
    found = row(stage, **changes)
    assert found["ok"] is False
    assert found["info"] is False
    assert words in found["next"]


def test_what_the_check_says_has_a_text_and_only_what_it_says() -> None:
    """Whatever is said at any time stands in the table that the UI translates, with as many arguments as places."""
    said = set()
    for module in (check_module, neighbours_module):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say":
                code = node.args[0]
                branches = (code.body, code.orelse) if isinstance(code, ast.IfExp) else (code,)
                for branch in branches:
                    if isinstance(branch, ast.Constant) and isinstance(branch.value, str):
                        said.add(branch.value)
                        assert TEXTS[branch.value].replace("%%", "").count("%s") == len(node.args) - 1, branch.value
    assert said == set(TEXTS)


def test_the_check_says_the_same_in_words_and_in_text() -> None:
    found = row("join", GOOD._replace(subflows={"dsl": 8, "lte": 0}))
    counted = [{"code": "count", "args": ["dsl", 8]}, {"code": "count", "args": ["lte", 0]}]
    assert found["detail_words"] == {"code": "subflows-missing", "args": [counted, ["lte"]]}
    assert found["detail"] == "subflows now: dsl 8, lte 0; none on lte"
    assert found["next_words"] == {"code": "not-joining", "args": [["lte"]]}
    assert row("join")["next_words"] == {}


def test_check_does_not_believe_in_an_interception_that_nft_does_not_have() -> None:
    found = row("intercept", GOOD._replace(table=""))
    assert found["ok"] is False
    assert "kmod-nft-tproxy" in found["next"]


@pytest.mark.requirement("X-9")
def test_check_names_the_wan_that_no_subflow_joins() -> None:
    found = row("join", GOOD._replace(subflows={"dsl": 8, "lte": 0}))
    assert found["ok"] is False
    assert "none on lte" in found["detail"]


@pytest.mark.requirement("X-9")
def test_check_names_the_wan_whose_connections_fell_back() -> None:
    fallen = {**RECORD._asdict(), "wan": "lte", "fallback": "mptcp-stripped", "mptcp": False}
    found = row("join", GOOD._replace(records=[RECORD._asdict(), fallen]))
    assert found["ok"] is False
    assert found["detail"].startswith("1 of the last 2 connections were plain TCP (lte: ")
    long_ago = [*[RECORD._asdict()] * 20, fallen]
    assert row("join", GOOD._replace(records=long_ago))["ok"] is True


@pytest.mark.requirement("X-3")
def test_check_is_content_with_one_wan() -> None:
    one: dict[str, Any] = {"wans": [wan_row("dsl", "eth1")]}
    assert row("join", GOOD._replace(subflows={"dsl": 8}), **one)["info"] is True
    assert row("aggregate", **one)["info"] is True


@pytest.mark.requirement("Y-7")
def test_check_proves_aggregation_with_a_transfer() -> None:
    transfers: list[dict[str, Any]] = [
        {"bytes_down": 10},
        {"bytes_down": 10_000_000, "bytes_by_wan": {"dsl": {"down": 10_000_000, "up": 1}}},
        {
            "bytes_down": 34_000_000,
            "bytes_by_wan": {"lte": {"down": 37_000, "up": 0}, "dsl": {"down": 63_000, "up": 0}},
        },
    ]
    records = [{**RECORD._asdict(), "bytes_up": 1, **transfer} for transfer in transfers]
    found = row("aggregate", GOOD._replace(records=records))
    assert (found["ok"], found["info"]) == (True, False)
    assert "34 MB used dsl 63 %, lte 37 %" in found["detail"]
    alone = row("aggregate", GOOD._replace(records=records[:2]))
    assert alone["info"] is True
    assert "more than dsl" in alone["detail"]


# Neighbours ---------------------------------------------------------------------------------------------------------

SQM = """
config queue 'eth1'
	option enabled '1'
	option interface 'eth1'
	option download '85000'
	option upload '10500'

config queue 'other'
	option enabled '1'
	option interface 'eth7'
"""
MWAN3 = """
config globals 'globals'

config interface 'wan'
	option enabled '1'

config interface 'wan6'
	option enabled '0'
"""
PBR = """
config pbr 'config'
	option enabled '1'

config policy
	option interface 'vpn'

config policy
	option enabled '0'
"""


@pytest.mark.requirement("X-15")
def test_neighbours_are_told_of_and_no_failures() -> None:
    files = {"sqm": parse(SQM, "sqm"), "mwan3": parse(MWAN3, "mwan3"), "pbr": parse(PBR, "pbr")}
    rows = describe(Neighbours(files, ("IPv4 100: from all lookup 7",), ()), [wan_row("dsl", "eth1")])
    assert [row["stage"] for row in rows] == ["sqm", "mwan3", "pbr", "rules"]
    assert all(row["ok"] and row["info"] and row["next"] for row in rows)
    assert rows[0]["detail"] == "SQM shapes eth1 to 85 / 10.5 Mbit/s down / up"
    assert rows[1]["detail"] == "mwan3 balances wan"
    assert rows[2]["detail"] == "pbr is enabled with 1 policies"


def test_neighbours_that_are_off_or_absent_are_not_mentioned() -> None:
    off = {
        "sqm": parse(SQM.replace("'1'", "'0'"), "sqm"),
        "mwan3": parse(MWAN3.replace("'1'", "'0'"), "mwan3"),
        "pbr": parse(PBR.replace("'1'", "'0'"), "pbr"),
    }
    for files in (off, {}):
        assert describe(Neighbours(files, (), ()), [wan_row("dsl", "eth1")]) == []


def test_the_bridge_filter_is_a_failure() -> None:
    (found,) = describe(Neighbours({}, (), ("net.bridge.bridge-nf-call-iptables",)), [])
    assert (found["stage"], found["ok"]) == ("bridge", False)


# Metrics ------------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("X-14")
def test_metrics_are_prometheus_text() -> None:
    parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is not installed")
    ledger = Ledger()
    ledger.add(RECORD._asdict())
    ledger.add({**RECORD._asdict(), "fallback": "mptcp-stripped", "mptcp": False, "wan": "lte"})
    odd = [{"name": 'a"b\\c\nd', "source": "static", "usable": False, "reason": "", "text": ""}]
    handshakes = {"lte": {"mptcp": 2, "mptcp-stripped": 5}}
    wans = [wan_row("dsl", "eth1"), wan_row("lte", "wwan0"), wan_row("wifi", "wlan0")]
    wans[1]["mptcp"]["state"], wans[2]["mptcp"]["state"] = "removed", "unknown"
    wans[1]["quota"] |= {"used_gb": 12.345678, "limit_gb": 50.0}
    told = {"totals": ledger.totals(), "fallbacks": ledger.fallbacks(), "handshakes": handshakes, "wans": wans}
    text = exposition(status(**told, concentrators=odd))
    families = {family.name: family for family in parser.text_string_to_metric_families(text)}
    samples = {(s.name, *sorted(s.labels.items())): s.value for family in families.values() for s in family.samples}
    assert samples["cpe_mcp_proxying",] == 1
    assert samples["cpe_mcp_uptime_seconds",] == 12.5
    assert samples["cpe_mcp_intercepting", ("family", "ipv6")] == 0
    assert samples["cpe_mcp_wan_receive_bytes_total", ("wan", "lte")] == 2000
    assert samples["cpe_mcp_wan_quota_bytes", ("wan", "lte")] == 50e9
    assert samples["cpe_mcp_wan_quota_used_bytes", ("wan", "lte")] == 12_345_678_000
    assert ("cpe_mcp_wan_quota_bytes", ("wan", "dsl")) not in samples
    assert samples["cpe_mcp_wan_rtt_seconds", ("wan", "dsl")] == pytest.approx(0.0205)
    assert samples["cpe_mcp_flows_total", ("action", "proxy")] == 2
    assert samples["cpe_mcp_fallbacks_total", ("reason", "mptcp-stripped"), ("wan", "lte")] == 1
    assert samples["cpe_mcp_handshakes_total", ("outcome", "mptcp-stripped"), ("wan", "lte")] == 5
    through = {name: samples.get(("cpe_mcp_wan_mptcp", ("wan", name))) for name in ("dsl", "lte", "wifi")}
    assert through == {"dsl": 1, "lte": 0, "wifi": None}
    assert samples["cpe_mcp_concentrator_usable", ("concentrator", 'a"b\\c\nd')] == 0
    assert all(family.documentation for family in families.values())


def test_metrics_without_anything_to_count_are_still_whole() -> None:
    text = exposition(status(wans=[], concentrators=[]))
    assert text.endswith("\n")
    assert all(line.startswith(("#", "cpe_mcp_")) for line in text.splitlines())


def test_the_names_of_metrics_are_in_the_manual() -> None:
    page = (Path(__file__).parents[2] / "docs/manual/metrics.md").read_text()
    page = page[page.index("## Metrics of a router") :]
    names = [line.split()[2] for line in exposition(status()).splitlines() if line.startswith("# TYPE")]
    assert re.findall(r"^\| `(\w+)` \|", page, re.M) == [name.removeprefix(PREFIX) for name in names]
