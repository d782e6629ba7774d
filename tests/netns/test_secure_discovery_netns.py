"""A rogue DHCP server announces its own concentrator, which works well: it gets no packet, and the user is told.

All real: the lab with DHCP servers, FreeRADIUS, both daemons; concentrator2 is the attacker's.
"""

from __future__ import annotations

import importlib.util
import itertools
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from cpe_mcp.discovery.trust import SETTLE_S
from cpe_mcp.lab import signed_zone
from cpe_mcp.lab.configs import SMALL_FILE, SMALL_FILE_BYTES
from cpe_mcp.lab.freeradius import RadiusUser
from cpe_mcp.lab.namespaces import LabError
from cpe_mcp.lab.network import Lab, RadiusOptions, check_machine
from cpe_mcp.lab.plan import ADDRESSES
from cpe_mcp.lab.scenarios.transfer import connect
from cpe_mcp.lab.signed_zone import EXPIRES_S, Target
from cpe_mcp.settings.router import DEFAULT_SERVICE_PORT

pytestmark = [pytest.mark.netns, pytest.mark.requirement("7.3-a")]

try:
    check_machine()
except LabError as problem:
    pytestmark.append(pytest.mark.skip(reason=str(problem)))

CLI = (sys.executable, "-m", "cpe_mcp.cli.main")
GOOD, EVIL = ADDRESSES.concentrator1.v4, ADDRESSES.concentrator2.v4
EVIL6 = ADDRESSES.concentrator2.v6
CPE, CPE6 = zip(ADDRESSES.cpe_dsl, ADDRESSES.cpe_lte, strict=True)
WITNESS = f"""table inet witness {{
	chain c {{
		type filter hook prerouting priority raw;
		ip saddr {{ {", ".join(CPE)} }} counter
		ip6 saddr {{ {", ".join(CPE6)} }} counter
	}}
}}"""
"""On the attacker's machine: whatever comes from the router."""
SERVED = "bob"
"""A subscriber whose Accept names the concentrator; alice's names none."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    users = [
        RadiusUser("alice", RadiusOptions().password),
        RadiusUser(SERVED, RadiusOptions().password, concentrators=(((GOOD,), 0),)),
    ]
    with Lab(f"trust-{time.time_ns() % 10**6}", dhcp4_mcps=((GOOD,),), dhcp6_mcp=None, radius_users=users) as lab:
        lab.start_concentrator(1)
        lab.start_concentrator(2)
        lab.run("concentrator2", ["nft", WITNESS])
        yield lab


def wait_for(lab: Lab, condition: Callable[[dict[str, Any]], bool], seconds: float = 8) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while True:
        status: dict[str, Any] = lab.ask("status")
        if condition(status):
            return status
        assert time.monotonic() < end, status
        time.sleep(0.05)


def announce(lab: Lab, line: str, *mcps: tuple[str, ...], domain: str = "") -> None:
    """And the client has heard of it."""
    lease = lab.cpe_run_dir / f"dhcp/{line}.v4"
    before = lease.stat().st_mtime_ns
    lab.announce(line, mcps, domain=domain)
    lab.wan(line).renew()
    end = time.monotonic() + 8
    while lease.stat().st_mtime_ns == before:
        assert time.monotonic() < end
        time.sleep(0.02)


def fetch(lab: Lab) -> None:
    url = f"http://{ADDRESSES.server.v4}/{SMALL_FILE}"
    done = lab.run("client1", ["curl", "-sS", "--max-time", "8", url], timeout=10)
    assert len(done.stdout.encode(errors="surrogateescape")) >= SMALL_FILE_BYTES // 2


def packets_to_attacker(lab: Lab) -> int:
    words = lab.run("concentrator2", ["nft", "list", "table", "inet", "witness"]).stdout.split()
    return sum(int(count) for word, count in itertools.pairwise(words) if word == "packets")


def names(status: dict[str, Any]) -> list[str]:
    return [row["addresses"][0] for row in status["concentrators"] if row["usable"]]


def refused(status: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    return [(row["source"], row["interface"], row["unconfirmed"]) for row in status["sources"] if row["unconfirmed"]]


@pytest.mark.requirement("Y-9")
def test_two_lines_that_agree_are_believed_and_one_may_fail(lab: Lab) -> None:
    lab.start_cpe()
    status = wait_for(lab, lambda row: row["interception"]["on"] and names(row) == [GOOD])
    assert refused(status) == []
    lab.link("lte").cut("down")
    try:
        status = wait_for(lab, lambda row: [s["interface"] for s in row["sources"] if s["used"]] == ["dsl"])
        assert names(status) == [GOOD]
        fetch(lab)
    finally:
        lab.link("lte").restore()
    assert wait_for(lab, lambda row: row["interception"]["on"])


def test_a_rogue_that_changes_a_running_line_gets_nothing(lab: Lab) -> None:
    announce(lab, "dsl", (EVIL,), (GOOD, EVIL))
    status = wait_for(lab, lambda row: refused(row) == [("dhcp4", "dsl", [EVIL])])
    assert names(status) == [GOOD]
    fetch(lab)
    assert packets_to_attacker(lab) == 0


def test_a_rogue_at_start_gets_nothing_and_connections_go_direct(lab: Lab) -> None:
    lab.stop_cpe()
    announce(lab, "dsl", (EVIL,))
    lab.start_cpe()
    status = wait_for(lab, lambda row: len(refused(row)) == 2 and row["radius"]["accepted"])
    assert (status["reason"], status["concentrators"]) == ("unconfirmed", [])
    fetch(lab)
    shown = lab.run("cpe", [*CLI, "--run-dir", str(lab.cpe_run_dir), "concentrators"], check=False).stdout
    assert f"dhcp4 dsl names {EVIL}, not used" in shown
    assert packets_to_attacker(lab) == 0
    told = f"dhcp4 dsl names concentrator {EVIL}"
    before = lab.log("cpe-mcpd").count(told)
    wait_for(lab, lambda row: lab.log("cpe-mcpd").count(told) > before, SETTLE_S + 5)
    announce(lab, "dsl", (EVIL,))
    time.sleep(0.5)
    assert lab.log("cpe-mcpd").count(told) == before + 1, "once"


def test_radius_names_the_right_one_and_the_rogue_gets_nothing(lab: Lab) -> None:
    lab.stop_cpe()
    lab.start_cpe(radius={"username": SERVED})
    status = wait_for(lab, lambda row: row["interception"]["on"])
    assert names(status) == [GOOD]
    assert ("dhcp4", "dsl", [EVIL]) in refused(status)
    fetch(lab)
    assert packets_to_attacker(lab) == 0


needs_dns = pytest.mark.skipif(
    shutil.which(signed_zone.PROGRAM) is None or not all(map(importlib.util.find_spec, ("dns", "cryptography"))),
    reason="needs Knot DNS, dnspython and cryptography",
)


HONEST, REPLAYING, STRIPPING = ADDRESSES.radius.v4, ADDRESSES.isp_lte.v4, ADDRESSES.server.v4
"""DNS servers: the operator's, and two that name the attacker, with the operator's keys but no signature that is good."""


class DnsServers(NamedTuple):
    """Those three."""

    anchors: list[str]
    """In that order."""
    ended_at: float
    """When the second one's signatures have ended, in seconds of time.monotonic()."""


@pytest.fixture(scope="module")
def servers(lab: Lab) -> DnsServers:
    evil = [Target("mcp1", EVIL, DEFAULT_SERVICE_PORT)]
    anchors = [
        lab.start_dns("radius", HONEST, [Target("mcp1", GOOD, DEFAULT_SERVICE_PORT)]),
        lab.start_dns("isp-lte", REPLAYING, evil, signed_zone.EXPIRED),
    ]
    ended_at = time.monotonic() + EXPIRES_S + 1
    return DnsServers([*anchors, lab.start_dns("server", STRIPPING, evil, signed_zone.STRIPPED)], ended_at)


@needs_dns
def test_a_name_is_believed_by_its_signatures_and_not_the_attackers_resolver(lab: Lab, servers: DnsServers) -> None:
    """The zone and its parent are signed by the server; the attacker has the same zones, with keys of their own."""
    anchor = servers.anchors[0]
    lab.start_dns("isp-dsl", ADDRESSES.isp_dsl_access.v4, [Target("mcp1", EVIL, DEFAULT_SERVICE_PORT)])
    lab.stop_cpe()
    discovery = {"precedence": ["dns"], "dns_name": [signed_zone.NAME], "trust_anchor": [anchor]}
    lab.start_cpe(discovery={**discovery, "dns_server": [HONEST]})
    status = wait_for(lab, lambda row: row["interception"]["on"])
    (concentrator,) = status["concentrators"]
    assert (concentrator["source"], concentrator["addresses"]) == ("dns", [GOOD])
    row = next(row for row in status["sources"] if row["source"] == "dns")
    assert (row["dnssec"], row["unconfirmed"]) == ("dnssec-valid", [])
    fetch(lab)
    lab.stop_cpe()
    lab.start_cpe(discovery={**discovery, "dns_server": [ADDRESSES.isp_dsl_access.v4]})
    status = wait_for(lab, lambda row: refused(row) == [("dns", signed_zone.NAME, [EVIL])])
    assert (status["concentrators"], status["reason"]) == ([], "unconfirmed")
    row = next(row for row in status["sources"] if row["source"] == "dns")
    assert row["reason"] == "dnssec-bogus", row
    fetch(lab)
    assert packets_to_attacker(lab) == 0


@needs_dns
def test_signatures_that_were_removed_or_have_ended_are_refused_and_keep_no_honest_answer_away(
    lab: Lab, servers: DnsServers
) -> None:
    lab.stop_cpe()
    time.sleep(max(0.0, servers.ended_at - time.monotonic()))
    discovery = {"precedence": ["dns"], "dns_name": [signed_zone.NAME], "trust_anchor": servers.anchors}
    lab.start_cpe(discovery={**discovery, "dns_server": [REPLAYING, STRIPPING]})
    status = wait_for(lab, lambda row: refused(row) == [("dns", signed_zone.NAME, [EVIL])])
    assert (status["concentrators"], status["reason"]) == ([], "unconfirmed")
    row = next(row for row in status["sources"] if row["source"] == "dns")
    assert row["reason"] == "dnssec-expired", row
    assert f"{REPLAYING} over dsl: the signature of" in row["detail"]
    assert f"{STRIPPING} over lte: {signed_zone.NAME} is not signed" in row["detail"]
    lab.stop_cpe()
    lab.start_cpe(discovery={**discovery, "dns_server": [REPLAYING, STRIPPING, HONEST]})
    status = wait_for(lab, lambda row: row["interception"]["on"])
    assert [(row["source"], row["addresses"]) for row in status["concentrators"]] == [("dns", [GOOD])]
    fetch(lab)
    assert packets_to_attacker(lab) == 0


@needs_dns
@pytest.mark.requirement("Y-9")
def test_a_domain_from_dhcp_of_both_lines_leads_to_the_signed_zone(lab: Lab) -> None:
    """The zone of the test before; nothing but its anchor and the resolver is set, which the real tree needs neither of."""
    lab.stop_cpe()
    anchor = lab.start_dns("concentrator1", GOOD, [Target("mcp1", GOOD, DEFAULT_SERVICE_PORT)])
    announce(lab, "dsl", domain="operator.example")
    announce(lab, "lte")
    lab.start_cpe(discovery={"trust_anchor": [anchor], "dns_server": [GOOD]})
    status = wait_for(lab, lambda row: refused(row) == [("dns", signed_zone.NAME, [GOOD])])
    assert status["concentrators"] == [], "only one line gave the name"
    announce(lab, "lte", domain="operator.example")
    status = wait_for(lab, lambda row: row["interception"]["on"])
    assert [(row["source"], row["addresses"]) for row in status["concentrators"]] == [("dns", [GOOD])]
    fetch(lab)
    announce(lab, "dsl", (EVIL,))
    announce(lab, "lte", (GOOD,))


def test_the_attacker_would_have_taken_it_all_where_everything_is_believed(lab: Lab) -> None:
    """That the rogue is one: without the rule the traffic is its."""
    lab.stop_cpe()
    lab.start_cpe(wans={"dsl": {"trust_dhcp": True}})
    wait_for(lab, lambda row: row["interception"]["on"] and EVIL in names(row))
    fetch(lab)
    assert packets_to_attacker(lab) > 0


@needs_dns
@pytest.mark.requirement("5.1-a")
def test_priority_and_weight_say_which_concentrator_of_a_signed_zone_is_used(lab: Lab) -> None:
    """Not its name, nor its place in the zone; both work."""
    lab.stop_cpe()
    other, third = EVIL, ADDRESSES.server.v4
    targets = [
        Target("alpha", third, DEFAULT_SERVICE_PORT, priority=20, weight=65535),
        Target("beta", other, DEFAULT_SERVICE_PORT, priority=10, weight=0),
        Target("gamma", GOOD, DEFAULT_SERVICE_PORT, priority=10, weight=65535),
    ]
    anchor = lab.start_dns("concentrator2", EVIL, targets)
    lab.start_cpe(
        discovery={
            "precedence": ["dns"],
            "dns_name": [signed_zone.NAME],
            "trust_anchor": [anchor],
            "dns_server": [EVIL],
        }
    )
    status = wait_for(lab, lambda row: row["interception"]["on"])
    assert names(status) == [GOOD, other, third]
    before = [flows_of(lab, number) for number in (1, 2)]
    fetch(lab)
    wait_for(lab, lambda _: flows_of(lab, 1) > before[0])
    assert flows_of(lab, 2) == before[1]


def flows_of(lab: Lab, number: int) -> int:
    """Connections that a concentrator has carried."""
    return sum(row["flows"] for row in lab.ask_concentrator(number, "status")["subscribers"])


@pytest.mark.requirement("5.3-f")
def test_the_lan_is_kept_from_a_concentrator_learnt_later_and_from_one_of_a_lesser_source(lab: Lab) -> None:
    """Here both lines come to name the second one, so it is the operator's."""
    lab.stop_cpe()
    for line in ("dsl", "lte"):
        announce(lab, line, (GOOD,))
    lab.start_cpe()
    wait_for(lab, lambda row: names(row) == [GOOD] and row["interception"]["on"])
    assert (is_open(lab, GOOD), is_open(lab, EVIL)) == (False, True)
    announce(lab, "dsl", (GOOD,), (EVIL,))
    wait_for(lab, lambda row: refused(row) == [("dhcp4", "dsl", [EVIL])])
    assert is_open(lab, EVIL), "whoever lies on one line closes no port of others"
    announce(lab, "lte", (GOOD,), (EVIL,))
    wait_for(lab, lambda row: names(row) == [GOOD, EVIL])
    await_closed(lab, EVIL)
    assert not is_open(lab, GOOD)
    lab.stop_cpe()
    lab.start_cpe(concentrators={"home": {"address": [GOOD]}})
    wait_for(lab, lambda row: names(row) == [GOOD] and len(row["sources"]) >= 2)
    await_closed(lab, EVIL)
    for line in ("dsl", "lte"):
        announce(lab, line, (GOOD,))
    end = time.monotonic() + 5
    while not is_open(lab, EVIL):
        assert time.monotonic() < end, "it is nobody's any more"


def test_a_rogue_in_dhcp6_gets_nothing(lab: Lab) -> None:
    lab.stop_cpe()
    lab.link("dsl").cut("down")
    lab.announce("dsl", ((GOOD,),), dhcp6_mcp=(EVIL6,))
    lab.link("dsl").restore()
    before = packets_to_attacker(lab)
    lab.start_cpe()
    status = wait_for(lab, lambda row: refused(row) == [("dhcp6", "dsl", [EVIL6])] and row["interception"]["on"])
    assert names(status) == [GOOD]
    fetch(lab)
    assert packets_to_attacker(lab) == before


def await_closed(lab: Lab, address: str) -> None:
    end = time.monotonic() + 5
    while is_open(lab, address):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert not is_open(lab, address)


def is_open(lab: Lab, address: str) -> bool:
    """The service port there, for a host of the LAN."""
    try:
        connect(lab, "client1", address, DEFAULT_SERVICE_PORT, timeout_s=0.5).close()
    except TimeoutError:
        return False
    return True
