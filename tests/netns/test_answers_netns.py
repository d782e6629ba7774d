"""The daemon's questions on a real kernel, asked as a user asks: by the command line, and once as the UI does."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from relay_world import CONCENTRATOR, SERVER4, World, run
from test_upstream_netns import Router

from cpe_mcp.control.ask import ApiError, ask
from cpe_mcp.control.frames import API_SOCKET

pytestmark = pytest.mark.netns

MEGABYTES = 12
EXTRA = """
config radius 'radius'
    option secret 'planted-secret'
    option username 'alice'
    option password 'planted-password'
"""


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    directory = tmp_path_factory.mktemp("answers")
    world = World(directory, "answ", bare=True)
    try:
        world.start_concentrator()
        router = Router(world, directory, extra=EXTRA, metrics_s="1")
        router.wait("Interception:  on")
        yield router
    finally:
        world.close()


def question(router: Router, method: str, **args: Any) -> Any:
    return ask(str(router.run_dir / API_SOCKET), method, args)


def until(seconds: float, what: str, condition: Any) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, what
        time.sleep(0.1)
    return found


def download(connection: socket.socket) -> None:
    for _ in range(MEGABYTES):
        connection.sendall(bytes(1 << 20))
    connection.recv(1)


def fetch(client: socket.socket) -> None:
    left = MEGABYTES << 20
    while left:
        left -= len(client.recv(min(left, 1 << 20)))


@pytest.mark.requirement("X-8")
@pytest.mark.requirement("Y-7")
def test_a_download_from_its_subflows_to_the_proof_and_the_graph(router: Router) -> None:
    port = router.world.serve(download)
    with router.world.connect(SERVER4, port) as client:
        fetch(client)
        reply = question(router, "flows", filter=f":{port}")
        assert reply["silent_workers"] == 0
        (flow,) = reply["flows"]
        assert flow["id"].startswith("0:")
        assert flow["mptcp"] is True
        for subflow in flow["subflows"]:
            assert set(subflow) == {
                *("wan", "local", "remote", "backup", "rtt_ms", "cwnd", "bytes_down", "bytes_up", "retransmits"),
                *("down_mbit", "up_mbit", "delivery_mbit", "busy_ms", "rwnd_limited_ms", "sndbuf_limited_ms"),
                *("reordered", "segments_out", "min_rtt_ms", "reordered_share", "resent_share", "fill"),
            }
            assert subflow["local"].startswith({"one": "10.1.0.1:", "two": "10.2.0.1:"}[subflow["wan"]])
            assert subflow["remote"] == f"{CONCENTRATOR}:5124"
        assert {subflow["wan"] for subflow in flow["subflows"]} == {"one", "two"}
        answer = question(router, "why", id=flow["id"])
        assert answer["flow"]["client_port"] == flow["client_port"]
        assert answer["reasons"]
        with pytest.raises(ApiError, match="no live connection"):
            question(router, "why", id="0:999999")
        shown = router.cli("flows", "--filter", str(port)).stdout
        assert "    one: 10.1.0.1:" in shown
    (record,) = until(4, "no record", lambda: question(router, "records", filter=f":{port}")["flows"])
    assert record["id"] == flow["id"]
    down = {wan: row["down"] for wan, row in record["bytes_by_wan"].items()}
    assert MEGABYTES << 20 <= sum(down.values()) < (MEGABYTES << 20) * 1.2
    assert "WANs used" in router.cli("records").stdout
    rows = until(
        3, "no rate in the history", lambda: [r for r in question(router, "history")["wans"] if max(r["down_mbit"]) > 1]
    )
    assert question(router, "history")["interval_s"] == 1.0
    assert {row["name"] for row in rows} <= {"one", "two"}
    assert all(0 < len(row["down_mbit"]) == len(row["up_mbit"]) <= 180 for row in rows)


def test_drop_by_the_command_line(router: Router) -> None:
    port = router.world.serve(download)
    with router.world.connect(SERVER4, port) as client:
        (flow,) = until(3, "no flow", lambda: question(router, "flows", filter=f":{port}")["flows"])
        assert router.cli("drop", flow["id"]).returncode == 0
        with pytest.raises(ConnectionResetError):
            fetch(client)
        assert router.cli("drop", flow["id"]).returncode == 1
    assert router.cli("drop", "7:1").returncode == 1, "no such worker"
    refused = router.cli("drop", "seventeen")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    (record,) = until(3, "no record", lambda: question(router, "records", filter=f":{port}")["flows"])
    assert record["end"] == "dropped"


@pytest.mark.requirement("Y-6")
def test_why_on_a_real_routing_table(router: Router) -> None:
    def reasons(dest: str) -> tuple[str, set[str]]:
        reply = question(router, "why", dest=dest, client="192.168.9.2")
        return reply["action"], {row["reason"] for row in reply["reasons"]}

    assert reasons("203.0.113.1") == ("proxy", {"proxied"})
    until(4, "no warm connection", lambda: question(router, "why", dest="203.0.113.1")["warm"])
    reply = question(router, "why", dest="203.0.113.1")
    assert (reply["wan"], reply["wan_reason"], reply["scheme"]) == ("one", "first-preference", "adaptive")
    assert (reply["concentrator"], reply["concentrator_reason"]) == ("mine", "concentrator-only")
    assert reasons("10.2.0.77") == ("direct", {"wan-network"}), "the modem's page"
    assert reasons("192.168.9.2") == ("direct", {"other-way"}), "the LAN"
    assert reasons("10.1.0.1")[0] == "direct", "the router itself"
    run("ip", "-n", router.world.router, "route", "add", "203.0.113.0/24", "dev", "lan")
    try:
        assert reasons("203.0.113.1") == ("direct", {"other-way"}), "a route elsewhere, as that of a VPN"
    finally:
        run("ip", "-n", router.world.router, "route", "del", "203.0.113.0/24", "dev", "lan")


def test_why_with_a_name_and_with_nonsense(router: Router) -> None:
    reply = question(router, "why", dest="localhost", port=80)
    assert reply["name"] == "localhost"
    assert {answer["destination"] for answer in reply["answers"]} <= {"127.0.0.1", "::1"}
    assert reply["action"] == "direct"
    for args in (
        {},
        {"dest": "no.such.name.invalid"},
        {"dest": "8.8.8.8", "port": 70000},
        {"dest": "8.8.8.8", "client": "x"},
    ):
        with pytest.raises(ApiError):
            question(router, "why", **args)
    status_while_resolving = time.monotonic()
    question(router, "status")
    assert time.monotonic() - status_while_resolving < 1


@pytest.mark.requirement("Y-10")
def test_check_passes_with_evidence_and_fails_without_a_line(router: Router) -> None:
    until(4, "check does not pass", lambda: router.cli("check").returncode == 0)
    rows = {row["stage"]: row for row in question(router, "check")["stages"]}
    assert {"intercept", "discover", "authenticate", "connect", "join", "aggregate"} <= set(rows)
    assert rows["join"]["info"] is False, "joined subflows are seen"
    run("ip", "netns", "exec", router.world.router, "nft", "delete", "table", "inet", "cpe_mcp")
    # The daemon puts its table back within a moment: whichever is seen must be true.
    row = next(row for row in question(router, "check")["stages"] if row["stage"] == "intercept")
    assert row["ok"] or "nftables" in row["detail"]
    until(5, "the table did not come back", lambda: router.cli("check").returncode == 0)


STRIP = """
table inet strip {
  chain out {
    type filter hook output priority 0
    oifname "@DEVICE@" tcp flags syn reset tcp option mptcp
  }
}
"""


@pytest.mark.requirement("X-9")
@pytest.mark.requirement("Y-8")
@pytest.mark.parametrize(
    ("device", "wan", "evidence", "seen"),
    [
        ("w2", "two", "none on two", {"subflows", "joins"}),
        ("w1", "one", "warm connections fell back to plain TCP", {"mptcp-stripped"}),
    ],
)
def test_the_wan_that_strips_mptcp_is_found_and_no_other(
    router: Router, device: str, wan: str, evidence: str, seen: set[str]
) -> None:
    def judged() -> dict[str, Any]:
        return {row["name"]: row["mptcp"] for row in question(router, "paths")["wans"]}

    namespace = ("ip", "netns", "exec", router.world.router)
    run(*namespace, "nft", "-f", "-", stdin=STRIP.replace("@DEVICE@", device))
    try:
        router.restart_worker()
        until(6, router.cli("check").stdout, lambda: evidence in router.cli("check").stdout)
        assert router.cli("check").returncode == 1
        until(15, str(judged()), lambda: judged()[wan]["reason"] == "access-strips")
        # The daemon's own look over this WAN may have said it before the missing subflows did.
        until(15, str(judged()), lambda: seen <= {row["seen"] for row in judged()[wan]["evidence"]})
        rows = judged()
        del rows[wan]
        assert [row["state"] for row in rows.values()] == ["works"]
        assert f"{wan}: access-strips: " in router.cli("paths").stdout
        assert f"warning: {wan}: access-strips: " in router.cli("status").stdout
    finally:
        run(*namespace, "nft", "delete", "table", "inet", "strip")
        router.restart_worker()
    # The first subflow that joins makes the daemon look again, half a minute after its last look at the earliest.
    until(45, str(judged()), lambda: {row["state"] for row in judged().values()} == {"works"})
    until(6, "check does not pass again", lambda: router.cli("check").returncode == 0)


@pytest.mark.requirement("X-2")
def test_the_report_of_a_running_daemon_has_no_secret(router: Router) -> None:
    shown = router.cli("support")
    assert shown.returncode == 0, shown.stderr
    for secret in ("wonderland", "planted-secret", "planted-password"):
        assert secret not in shown.stdout
    for word in ("cpe-mcp", "tproxy", "10.1.0.x id 1 subflow", "fwmark 0x40000000/0x40000000", "MPCapableSYNTX="):
        assert word in shown.stdout, word
    assert "10.1.0.1 id" in router.cli("support", "--full").stdout


@pytest.mark.requirement("X-14")
def test_metrics_are_written_and_go_with_the_daemon(router: Router) -> None:
    path: Path = router.run_dir / "cpe-mcp.prom"
    text = until(3, "no metrics file", lambda: path.exists() and path.read_text())
    assert "cpe_mcp_proxying 1" in text
    assert path.stat().st_mode & 0o777 == 0o644
    assert "cpe_mcp_proxying 1" in router.cli("metrics").stdout
    router.config.write_text(router.config.read_text().replace("option metrics_s '1'", "option metrics_s '0'"))
    assert router.cli("reload").returncode == 0
    until(3, "the file is still there", lambda: not path.exists())


def test_every_command_has_json(router: Router) -> None:
    for command in ("status", "paths", "flows", "records", "concentrators", "check", "support", "metrics"):
        shown = router.cli(command, "--json")
        assert isinstance(json.loads(shown.stdout), dict), command
    assert json.loads(router.cli("--json", "why", SERVER4).stdout)["destination"] == SERVER4
