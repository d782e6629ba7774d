"""``cpe-mcpd`` and a real FreeRADIUS in the lab: over which lines it asks, what answers do, and what never leaves it."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import radclient

from cpe_mcp.aaa.attributes import Concentrator
from cpe_mcp.aaa.cookie import make_handle
from cpe_mcp.lab.certificates import PROGRAM as OPENSSL
from cpe_mcp.lab.configs import NFT_TABLE
from cpe_mcp.lab.freeradius import DETAIL, RadiusUser
from cpe_mcp.lab.namespaces import LabError
from cpe_mcp.lab.network import Lab, RadiusOptions, check_machine
from cpe_mcp.lab.plan import ADDRESSES
from cpe_mcp.lab.scenarios.daemons import await_status, flows_to
from cpe_mcp.lab.scenarios.transfer import Talk, answers, fetch_small, greeting_server
from cpe_mcp.policy.reasons import Reason

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(shutil.which(OPENSSL) is None, reason="needs the program openssl"),
]

NAME = f"radd{os.getpid()}"
SECRET, PASSWORD = "planted-radius-secret", "planted-radius-password"
COOKIE_SECRET = "planted-cookie-secret-of-the-operator"
HANDED = make_handle("alice", COOKIE_SECRET.encode(), time.time() + 3600)
TALK_PORT = 7777
CLOSED_PORT = 81
CAP_MBIT = 16
CONCENTRATOR: Concentrator = ((ADDRESSES.concentrator1.v4, ADDRESSES.concentrator1.v6), 0)
OPEN = {name: {"operator_network": False} for name in ("dsl", "lte")}
"""Both lines are the Internet."""
COUNTER = (
    "table inet count {{\nchain in {{\ntype filter hook prerouting priority raw\nip daddr {address} counter\n}}\n}}\n"
)


@pytest.fixture(scope="module", autouse=True)
def _machine() -> None:
    try:
        check_machine()
    except LabError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    user = RadiusUser(
        "alice",
        PASSWORD,
        session_timeout_s=5,
        concentrators=(CONCENTRATOR,),
        key=HANDED.key,
        handle=HANDED.handle,
        classes=(b"gold",),
        down_mbit=CAP_MBIT,
        reply=("CPE-MCP-Quota += 'lte 5 17'", "CPE-MCP-Quota += 'cable 9'"),
    )
    options = RadiusOptions(secret=SECRET, password=PASSWORD, tls=True)
    with Lab(NAME, radius=options, radius_users=[user], dhcp4_mcps=None, dhcp6_mcp=None) as lab:
        for host in ("isp-dsl", "isp-lte"):
            lab.run(host, ["nft", "-f", "-"], input=COUNTER.format(address=ADDRESSES.radius.v4))
        # Nothing but the cookies that the router makes of the Accept counts here.
        lab.start_concentrator(
            1, general={"cookie_secret": COOKIE_SECRET}, listener={"authorization": "cookie"}, radius={"enabled": False}
        )
        yield lab


@pytest.fixture
def router(lab: Lab) -> Iterator[Lab]:
    yield lab
    lab.stop_cpe()


def asked_over(lab: Lab) -> dict[str, int]:
    """Packets to the RADIUS server by line, since the lab began."""
    found = {}
    for line in ("dsl", "lte"):
        listed = lab.run(f"isp-{line}", ["nft", "list", "table", "inet", "count"]).stdout
        match = re.search(r"packets (\d+)", listed)
        assert match is not None, listed
        found[line] = int(match[1])
    return found


def await_radius(lab: Lab, **wanted: Any) -> dict[str, Any]:
    def is_so(now: Any) -> bool:
        return all(now["radius"].get(name) == value for name, value in wanted.items())

    return await_status(lab, f"RADIUS: {wanted}", is_so)


@pytest.mark.requirement("7.3-a")
def test_udp_over_lines_of_others_is_refused_with_the_options_named(router: Lab) -> None:
    before = asked_over(router)
    router.start_cpe(wans=OPEN)
    now = await_radius(router, reason=Reason.AUTH_UNPROTECTED)
    assert "operator_network '1'" in now["radius"]["detail"]
    assert "transport 'tls'" in now["radius"]["detail"]
    assert now["radius"]["detail"] in now["warnings"]
    stage = next(row for row in router.ask("check")["stages"] if row["stage"] == "authenticate")
    assert "operator_network" in stage["next"]
    await_status(router, "two WANs", lambda now: sum(wan["usable"] for wan in now["wans"]) == 2)
    assert not router.ask("status")["interception"]["on"]
    assert fetch_small(router), "connections are forwarded plainly"
    assert asked_over(router) == before, "nothing has gone out"


@pytest.mark.requirement("7.3-a")
@pytest.mark.requirement("Y-9")
def test_udp_leaves_by_the_operators_network_only_and_asking_again_touches_no_flow(router: Lab) -> None:
    before = asked_over(router)
    router.start_cpe(wans={"dsl": {"operator_network": False, "preference": 5}})
    now = await_status(router, "connections are taken", lambda now: now["interception"]["on"])
    assert [row["addresses"][0] for row in now["concentrators"]] == [ADDRESSES.concentrator1.v4]
    server = ADDRESSES.server.v4
    with greeting_server(router, "server", server, TALK_PORT), Talk(router, "client1", server, TALK_PORT) as talk:
        assert answers(talk, 3)
        (flow,) = flows_to(router, server, TALK_PORT)
        assert flow["action"] == "proxy"
        asked = router.ask("status")["radius"]["counters"]["answers"]
        await_status(router, "asked again", lambda now: now["radius"]["counters"]["answers"] > asked)
        assert answers(talk, 3)
        assert [row["id"] for row in flows_to(router, server, TALK_PORT)] == [flow["id"]]
    after = asked_over(router)
    assert after["lte"] > before["lte"]
    assert after["dsl"] == before["dsl"], "the line that is preferred is not the operator's"
    lte = next(wan for wan in router.ask("paths")["wans"] if wan["name"] == "lte")
    assert (lte["quota"]["limit_gb"], lte["metered"]) == (5.0, True), "the quota of the Accept is in force"
    assert router.log("cpe-mcpd").count("RADIUS gives a quota to cable, and there is no such WAN here") == 1


@pytest.mark.requirement("7.1-a")
@pytest.mark.requirement("7.3-a")
def test_tls_over_any_line_and_neither_secrets_nor_people_are_seen_where_they_should_not(router: Lab) -> None:
    before = asked_over(router)
    drop = ["inet", "count", "in", "ip", "daddr", ADDRESSES.radius.v4, "tcp", "flags", "syn", "drop"]
    router.run("isp-dsl", ["nft", "add", "rule", *drop])
    options = {**router.tls_options, "timeout_s": 1, "accounting": True}
    hardware = re.search(r"link/ether (\S+)", router.run("client1", ["ip", "-o", "link"]).stdout)
    assert hardware is not None
    router.start_cpe(
        wans=OPEN,
        radius=options,
        general={"metrics_s": 1},
        logging={"level": "debug", "flows": True},
        rules={"planted_phone": {"name": "Planted at night", "mac": [hardware[1]], "dest_port": ["7"]}},
        ident={"enabled": True, "user": "planted-ident-user"},
    )
    now = await_radius(router, accepted=True, server=f"{ADDRESSES.radius.v4}:2083", transport="tls")
    assert now["radius"]["reason"] == Reason.READY
    after = asked_over(router)
    assert after["dsl"] > before["dsl"], "the better line is tried first"
    assert after["lte"] > before["lte"], "and the other one when the server is not reached over it"
    await_status(router, "connections are taken", lambda now: now["interception"]["on"])
    await_status(router, "accounting over TLS", lambda now: now["radius"]["accounting"]["sent"] == 4)
    assert "Accounting-On" in (router.directory / "radius" / DETAIL).read_text()
    for words in ("flush chain inet count in", f"add rule inet count in ip daddr {ADDRESSES.radius.v4} counter"):
        router.run("isp-dsl", ["nft", *words.split()])  # what follows needs the terms of RADIUS all the time
    await_radius(router, accepted=True)
    assert fetch_small(router)
    closed = ["curl", "-sf", "-m", "5", "-o", "/dev/null", f"http://{ADDRESSES.server.v4}:{CLOSED_PORT}/"]
    assert router.run("client1", closed, check=False).returncode, "nobody is there: it is left to plain forwarding"
    log_ends = time.monotonic() + 5
    while router.log("cpe-mcpd").count("flow client=") < 2 and time.monotonic() < log_ends:
        time.sleep(0.05)
    router_key = Path(router.tls_options["tls_key"]).read_text().splitlines()[1]
    planted = [SECRET, PASSWORD, COOKIE_SECRET, router_key]
    planted += [form for octets in (HANDED.key, HANDED.handle) for form in (octets.hex(), repr(bytes(octets))[2:-1])]
    texts = {
        "the log": router.log("cpe-mcpd") + router.log("cpe-mcp-relay"),
        "status": str(router.ask("status")),
        "the support report": str(router.ask("support", {"full": True})),
        "why": str(router.ask("why", {"dest": ADDRESSES.server.v4})),
        "check": str(router.ask("check")),
        "arguments of processes": _arguments(),
        "files that others may read": _readable(router.cpe_run_dir),
    }
    found = [(where, secret) for where, text in texts.items() for secret in planted if secret in text]
    assert not found
    device, server = ADDRESSES.client1, ADDRESSES.server
    people = ["alice", "planted-ident-user", "planted_phone", "Planted at night", hardware[1], *device, *server]
    assert [word for word in people if word not in texts["the support report"]] == [device.v6, server.v6], (
        "the real one"
    )
    shown = {
        "the log": texts["the log"],
        "the support report for others": str(router.ask("support")["report"]),
        "files that others may read": texts["files that others may read"],
    }
    assert f"flow client=192.168.77.x server=10.20.0.x#{CLOSED_PORT} action=" in shown["the log"]
    assert f"10.20.0.x port {CLOSED_PORT} is left to plain forwarding" in shown["the log"], "level debug"
    assert hardware[1][:8] in shown["the support report for others"], "of the rule"
    assert [(where, word) for where, text in shown.items() for word in people if word in text] == []
    lines = [wan[name] for wan in router.ask("paths")["wans"] for name in ("address4", "address6") if wan[name]]
    assert len(lines) == 4
    assert [line for line in lines if line in shown["the support report for others"]] == []


def test_the_cap_of_the_accept_holds_back_what_goes_through_concentrators(router: Lab) -> None:
    """The concentrator here knows of none, and the lines carry several times as much. Two workers: all of it is for the
    one that has something to carry."""
    router.start_cpe()
    router.start_cpe_relay(1)
    try:
        await_status(
            router, "two workers take connections", lambda now: now["interception"]["on"] and len(now["workers"]) == 2
        )
        size = 4_000_000
        router.serve_file("capped", size)
        started = time.monotonic()
        router.run("client1", ["curl", "-sfo", "/dev/null", f"http://{ADDRESSES.server.v4}/capped"], timeout=20)
        mbit = size * 8e-6 / (time.monotonic() - started)
        assert 0.7 * CAP_MBIT < mbit < 1.1 * CAP_MBIT
        assert {row["action"] for row in flows_to(router, ADDRESSES.server.v4, 80)} == {"proxy"}
    finally:
        router.stop_cpe("cpe-mcp-relay1")


@pytest.mark.requirement("5.3-b")
@pytest.mark.skipif(shutil.which(radclient.PROGRAM) is None, reason="needs the program radclient")
def test_coa_and_disconnect_on_the_operators_line_only(router: Lab) -> None:
    """As a Disconnect is a Reject, the router asks again by itself."""
    router.start_cpe(wans={"dsl": {"operator_network": False}}, radius={"dynamic": True, "retry_s": 3})
    await_status(router, "connections are taken", lambda now: now["interception"]["on"])
    opened = f"ip saddr {ADDRESSES.radius.v4} udp dport 3799 accept"
    router.run("cpe", ["nft", "insert", "rule", "inet", NFT_TABLE, "input", *opened.split()])
    lines = {wan["name"]: wan["address4"] for wan in router.ask("paths")["wans"]}
    assert router.ask("status")["radius"]["dynamic"]["addresses"][0] == lines["lte"]

    def send(line: str, kind: str, *attributes: str, secret: str = SECRET, tries: int = 3) -> str:
        meant = ('NAS-Identifier = "cpe-mcp"', 'User-Name = "alice"')
        target, namespace = f"{lines[line]}:3799", router.namespace("radius")
        return radclient.send(
            namespace, router.directory / "radius", target, kind, *meant, *attributes, secret=secret, tries=tries
        )

    assert send("dsl", "coa", 'CPE-MCP-Scheme = "aggregate"', tries=1) == "", "the port is closed there"
    assert send("lte", "coa", 'CPE-MCP-Scheme = "aggregate"', secret="guessed", tries=1) == ""
    assert "Error-Cause = Unsupported-Attribute" in send("lte", "coa", 'Filter-Id = "gold"')
    refused = send("lte", "coa", 'CPE-MCP-Scheme = "single:moon"', "CPE-MCP-Down-Mbit = 1")
    assert "Error-Cause = Invalid-Attribute-Value" in refused
    assert router.ask("status")["scheme"]["name"] == "adaptive"
    assert router.ask("status")["radius"]["cap"] == {"down_mbit": CAP_MBIT, "up_mbit": 0}
    changes = ('CPE-MCP-Scheme = "aggregate"', "Session-Timeout = 600", "CPE-MCP-Up-Mbit = 7")
    assert "CoA-ACK" in send("lte", "coa", *changes)
    await_status(router, "another scheme", lambda now: now["scheme"]["name"] == "aggregate")
    assert router.ask("status")["radius"]["cap"] == {"down_mbit": CAP_MBIT, "up_mbit": 7}
    assert router.ask("status")["radius"]["expires_s"] > 500
    assert "Disconnect-ACK" in send("lte", "disconnect")
    now = await_radius(router, reason=Reason.NOT_AUTHORIZED)
    assert "Disconnect-Request" in now["radius"]["detail"]
    assert now["radius"]["cap"] == {"down_mbit": 0, "up_mbit": 0}, "it was of the Accept"
    await_radius(router, accepted=True)
    (peer,) = router.ask("status")["radius"]["dynamic"]["peers"]
    assert peer["counters"] == {"coa-ack": 1, "coa-nak": 2, "disconnect-ack": 1, "forged": 1}


def test_a_reject_blocks_where_the_settings_say_so(router: Lab) -> None:
    router.start_cpe(radius={"password": "wrong", "on_reject": "block"})
    now = await_radius(router, reason=Reason.NOT_AUTHORIZED)
    assert now["fallback"] == "block"
    await_status(router, "connections are taken to be refused", lambda now: now["interception"]["on"])
    assert not fetch_small(router, timeout_s=2)


def _arguments() -> str:
    lines = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            lines.append(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(lines)


def _readable(directory: Path) -> str:
    """The content of all files below that others may read."""
    texts = []
    for path in directory.rglob("*"):
        if path.is_file() and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            texts.append(path.read_text(errors="replace"))
    assert texts, "there are such files: metrics"
    return "\n".join(texts)


def _accounted(lab: Lab) -> list[dict[str, str]]:
    """What FreeRADIUS has written of accounting, in the order in which it came."""
    path = lab.directory / "radius" / DETAIL
    blocks = path.read_text().split("\n\n") if path.exists() else []
    return [dict(re.findall(r"^\t(\S+) = \"?(.*?)\"?$", block, re.M)) for block in blocks if "Acct-Status" in block]


@pytest.mark.requirement("X-13")
def test_accounting_for_each_wan_and_in_total(router: Lab) -> None:
    before, earlier = asked_over(router), len(_accounted(router))

    def await_records(count: int) -> list[dict[str, str]]:
        deadline = time.monotonic() + 10
        while len(found := _accounted(router)[earlier:]) < count:
            assert time.monotonic() < deadline, (found, router.ask("status")["radius"])
            time.sleep(0.05)
        return found

    away = "table inet away {\nchain in {\ntype filter hook input priority 0\nudp dport 1813 drop\n}\n}\n"
    router.run("radius", ["nft", "-f", "-"], input=away)
    try:
        router.start_cpe(wans={"dsl": {"operator_network": False}}, radius={"accounting": True, "timeout_s": 0.5})
        await_status(
            router,
            "records wait",
            lambda now: now["radius"]["accounting"]["waiting"] == 4 and now["radius"]["accounting"]["trouble"],
        )
        (silent,) = router.ask("status")["radius"]["accounting"]["trouble_words"]
        over = {"code": "server-over", "args": [f"{ADDRESSES.radius.v4}:1813", "lte"]}
        assert silent == {"code": "server-silent", "args": [over]}
        time.sleep(1)
    finally:
        router.run("radius", ["nft", "delete", "table", "inet", "away"])
    started = await_records(4)
    assert min(int(row["Acct-Delay-Time"]) for row in started) >= 1, "since it happened, not since it was sent"
    ports = [(row["Acct-Status-Type"], row.get("NAS-Port-Id")) for row in started]
    assert ports[0] == ("Accounting-On", None)
    assert sorted(ports[1:], key=str) == [("Start", "dsl"), ("Start", "lte"), ("Start", None)]
    total = next(row for row in started[1:] if "NAS-Port-Id" not in row)
    assert {row["Acct-Multi-Session-Id"] for row in started[1:]} == {total["Acct-Session-Id"]}
    assert len({row["Acct-Session-Id"] for row in started[1:]}) == 3
    assert {row["Class"] for row in started[1:]} == {"0x676f6c64"}
    assert {row["User-Name"] for row in started[1:]} == {"alice"}
    await_status(router, "connections are taken", lambda now: now["interception"]["on"])
    assert fetch_small(router)
    shown = router.ask("status")["radius"]["accounting"]
    counts = {"sessions": 3, "sent": 4, "waiting": 0, "lost": 0}
    assert shown == {"enabled": True, "trouble": "", "trouble_words": [], **counts}
    argv = [sys.executable, "-m", "cpe_mcp.cli.main", "--run-dir", str(router.cpe_run_dir), "status"]
    text = router.run("cpe", argv, check=False).stdout
    assert "Accounting:    4 records sent, 0 wait, 0 lost\n" in text
    assert f"RADIUS server: {ADDRESSES.radius.v4}:1812 answered, asked over UDP\n" in text
    assert f"Rate cap:      {CAP_MBIT} Mbit/s down, no limit up" in text

    router.link("dsl").cut("down")
    try:
        (gone,) = await_records(5)[4:]
    finally:
        router.link("dsl").restore()
    assert (gone["Acct-Status-Type"], gone["NAS-Port-Id"]) == ("Stop", "dsl")
    assert gone["Acct-Terminate-Cause"] == "Lost-Carrier"
    router.stop_cpe()
    *records, off = await_records(8)
    assert off["Acct-Status-Type"] == "Accounting-Off"
    stops = [row for row in records if row["Acct-Status-Type"] == "Stop"]
    assert {row["Acct-Multi-Session-Id"] for row in stops} == {total["Acct-Session-Id"]}
    (whole,) = [row for row in stops if "NAS-Port-Id" not in row]
    for way in ("Input", "Output"):
        carried = [int(row[f"Acct-{way}-Octets"]) for row in stops if row is not whole]
        assert sum(carried) == int(whole[f"Acct-{way}-Octets"]) > 0
    after = asked_over(router)
    assert after["dsl"] == before["dsl"], "accounting too leaves by the operator's network only"
