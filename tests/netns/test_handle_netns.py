"""A subscriber who is known by his handle alone, from FreeRADIUS' Accept to the Disconnect and back, as docs/manual/radius.md
sets it up: what the operator sends reaches him, whatever address he comes from."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator

import pytest
import radclient

from cpe_mcp.aaa.attributes import Concentrator
from cpe_mcp.lab.freeradius import RadiusUser
from cpe_mcp.lab.network import Lab, RadiusOptions
from cpe_mcp.lab.plan import ADDRESSES
from cpe_mcp.lab.scenarios.daemons import POLL_S, await_status, flows_to
from cpe_mcp.lab.scenarios.transfer import Talk, answers, fetch_small, greeting_server

pytestmark = [
    pytest.mark.netns,
    pytest.mark.requirement("5.3-b"),
    pytest.mark.requirement("X-16"),
    pytest.mark.skipif(shutil.which(radclient.PROGRAM) is None, reason="needs the program radclient"),
]

SUBSCRIBER = "line-0815"
CONCENTRATOR: Concentrator = ((ADDRESSES.concentrator1.v4, ADDRESSES.concentrator1.v6), 0)
TALK_PORT = 7777
CAP_MBIT = 16
RETRY_S = 1.0
REFUSED_S = 5.0
"""A refused router may take 2 s to close, and then its record is sent."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    options = RadiusOptions(subscriber=SUBSCRIBER, cookie_secret="shared-by-all-concentrators")
    user = RadiusUser(SUBSCRIBER, options.password, session_timeout_s=600, concentrators=(CONCENTRATOR,))
    with Lab(f"hdl{os.getpid()}", radius=options, radius_users=[user], dhcp4_mcps=None, dhcp6_mcp=None) as lab:
        lab.start_concentrator(
            general={"cookie_secret": options.cookie_secret},
            listener={"authorization": "cookie"},
            radius={"enabled": False},  # it asks nobody: what it knows is in the handle
            dynamic={"enabled": True},
        )
        lab.start_cpe(radius={"retry_s": RETRY_S})
        await_status(lab, "connections are taken", lambda now: now["interception"]["on"] and now["pool"]["ready"] > 0)
        yield lab


def send(lab: Lab, kind: str, *attributes: str) -> str:
    return radclient.send(
        lab.namespace("radius"),
        lab.directory / "radius",
        f"{ADDRESSES.concentrator1.v4}:3799",
        kind,
        'NAS-Identifier = "mcp-concentrator"',
        f'User-Name = "{SUBSCRIBER}"',
        *attributes,
        secret=lab.radius.secret,
    )


def test_a_cap_by_coa_holds_back_who_is_known_by_his_handle(lab: Lab) -> None:
    (row,) = lab.ask_concentrator(1, "status")["handles"]
    assert (row["subscriber"], row["verdict"], row["reason"]) == (SUBSCRIBER, "accept", "ready")
    assert lab.radius.handle_ttl_s - 60 < row["left_s"] <= lab.radius.handle_ttl_s
    assert "Error-Cause = Unsupported-Attribute" in send(lab, "coa", 'Filter-Id = "gold"')
    assert "CoA-ACK" in send(lab, "coa", f"CPE-MCP-Down-Mbit = {CAP_MBIT}")
    size = 4_000_000
    lab.serve_file("capped", size)
    started = time.monotonic()
    lab.run("client1", ["curl", "-sfo", "/dev/null", f"http://{ADDRESSES.server.v4}/capped"], timeout=20)
    mbit = size * 8e-6 / (time.monotonic() - started)
    assert 0.7 * CAP_MBIT < mbit < 1.1 * CAP_MBIT
    assert {row["action"] for row in flows_to(lab, ADDRESSES.server.v4, 80)} == {"proxy"}


def test_a_disconnect_ends_his_flows_and_his_handle_and_radius_gives_him_another(lab: Lab) -> None:
    server = ADDRESSES.server.v4
    accepts = lab.ask("status")["radius"]["counters"]["answers"]
    with greeting_server(lab, "server", server, TALK_PORT), Talk(lab, "client1", server, TALK_PORT) as talk:
        assert answers(talk, 3)
        assert [row["action"] for row in flows_to(lab, server, TALK_PORT)] == ["proxy"]
        assert "Disconnect-ACK" in send(lab, "disconnect")
        assert not answers(talk, 3)
    end = time.monotonic() + REFUSED_S
    while "handle-ended" not in {row["reason"] for row in lab.ask_concentrator(1, "status")["refusals"]}:
        assert time.monotonic() < end, "the old handle is refused"
        time.sleep(POLL_S)
    await_status(
        lab, "RADIUS is asked for another one", lambda now: now["radius"]["counters"]["answers"] == accepts + 1
    )
    await_status(lab, "it is taken", lambda now: now["interception"]["on"] and now["pool"]["ready"] > 0)
    assert fetch_small(lab)
    rows = lab.ask_concentrator(1, "status")["handles"]
    assert [(row["subscriber"], row["verdict"]) for row in rows] == [(SUBSCRIBER, "accept"), (SUBSCRIBER, "reject")]
    assert not lab.ask_concentrator(1, "status")["radius"]["enabled"]
