"""The LAN goes on working whatever the package's daemons do (design D4): they start, stop, die, or are refused."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from cpe_mcp.lab import report as reporting
from cpe_mcp.lab.measure import size_of
from cpe_mcp.lab.namespaces import LabError
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.scenarios.daemons import await_status, await_taken, flows_to
from cpe_mcp.lab.scenarios.stages import Stages, in_lab
from cpe_mcp.lab.scenarios.transfer import HTTP_PORT, Content, Download, Talk, answers, fetch_small, greeting_server
from cpe_mcp.policy.reasons import Reason

TALK_PORT = 2222
BEFORE_START_S = 1.0
"""How long a direct download runs before the daemons are started."""
DIRECT_S = 5.0
"""How long it should run in all: the daemons take connections well before it ends."""
DIRECT_TIMEOUT_S = 30.0
TALK_TIMEOUT_S = 5.0
STRANGER = "mallory"
"""A subscriber whom RADIUS does not know."""


@contextlib.contextmanager
def direct_talk(lab: Lab) -> Iterator[Talk]:
    """A quiet conversation of client1 with the server; begun while no daemon runs, it is forwarded plainly for good."""
    server = lab.addresses.server.v4
    with greeting_server(lab, "server", server, TALK_PORT), Talk(lab, "client1", server, TALK_PORT) as talk:
        yield talk


def direct_while_starting(lab: Lab, content: Content, *, general: Mapping[str, Any]) -> bool:
    """Start the daemons in the middle of a direct download; whether it goes on to its end with the right content.

    Raises LabError when the daemons did not take connections before it ended: then nothing was shown.
    """
    size = min(content.size, size_of(lab.link("dsl").spec.down_mbit, DIRECT_S))
    download = Download(lab, size)
    try:
        time.sleep(BEFORE_START_S)
        lab.start_cpe(general=general)
        await_taken(lab)
        was_in_time = download.is_running
    finally:
        received = download.wait(DIRECT_TIMEOUT_S)
    if received.error:
        raise LabError(f"the direct download broke off: {received.error}")
    if not was_in_time:
        raise LabError("the direct download was over before the daemons took connections")
    if any(row["bytes_down"] >= size for row in flows_to(lab, lab.addresses.server.v4, HTTP_PORT)):
        raise LabError("the direct download was taken over by the relay")
    return received.sha256 == content.sha256(size)


def reaches_server(lab: Lab) -> bool:
    """Whether both LAN hosts reach the server, each family."""
    return all(
        fetch_small(lab, address, host=host) for host in ("client1", "client2") for address in lab.addresses.server
    )


def stopped(lab: Lab) -> bool:
    """SIGTERM to the cpe's daemons: whether the LAN still reaches the server."""
    lab.stop_cpe()
    return reaches_server(lab)


def killed(lab: Lab, *which: str) -> bool:
    """SIGKILL to the cpe's daemons, or those named: whether the LAN still reaches the server."""
    lab.kill_cpe(*which)
    return reaches_server(lab)


def rejected(lab: Lab) -> dict[str, Any]:
    """RADIUS refuses the subscriber: whether the LAN still reaches the server, and the reason in ``cpe-mcp status``."""
    lab.start_cpe(radius={"username": STRANGER})
    try:
        now = await_status(lab, "RADIUS has refused", lambda now: now["reason"] == Reason.NOT_AUTHORIZED)
        return {"plain": not now["interception"]["on"] and reaches_server(lab), "reason": now["reason"]}
    finally:
        lab.stop_cpe()


def run(options: Mapping[str, Any], report: dict[str, Any]) -> None:
    """The scenario ``fail-open``."""

    def course(lab: Lab, stages: Stages, report: dict[str, Any]) -> None:
        found: dict[str, Any] = report.setdefault("fail_open", {})
        content = Content(lab, size_of(lab.link("dsl").spec.down_mbit, DIRECT_S))
        lab.start_concentrator(1)
        with direct_talk(lab) as talk:
            found["running_direct_flow_survives_start"] = stages.do(
                "start the daemons during a direct download", lambda: direct_while_starting(lab, content, general={})
            )
            found["daemon_stopped"] = stages.do("stop the daemons", lambda: stopped(lab))
            lab.start_cpe()
            stages.do("the daemons are back", lambda: await_taken(lab))
            found["daemon_killed"] = stages.do("kill the control daemon", lambda: killed(lab, "cpe-mcpd"))
            found["all_killed"] = stages.do("kill the worker too", lambda: killed(lab))
            found["direct_talk_survives"] = answers(talk, TALK_TIMEOUT_S)
        found["rejected"] = stages.do("RADIUS refuses", lambda: rejected(lab))

    stages = in_lab(options, report, course)
    held = all(value is True for key, value in report["fail_open"].items() if key != "rejected")
    refused = (report["fail_open"]["rejected"] or {}).get("plain")
    report["result"] = "pass" if held and refused and not stages.failed else "fail"
    print(reporting.render(report))
