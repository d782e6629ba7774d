"""The main job from end to end: everything a user should see before trusting the package. ``make demo`` runs it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from cpe_mcp.lab import report as reporting
from cpe_mcp.lab.measure import size_of
from cpe_mcp.lab.namespaces import LabError
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.plan import LINK_NAMES
from cpe_mcp.lab.scenarios.daemons import await_taken, count_proxied
from cpe_mcp.lab.scenarios.discovery import discovered, radius_answer
from cpe_mcp.lab.scenarios.fail_open import (
    TALK_TIMEOUT_S,
    direct_talk,
    direct_while_starting,
    killed,
    rejected,
    stopped,
)
from cpe_mcp.lab.scenarios.failover import DEFAULT_TIMING, Timing, all_cuts
from cpe_mcp.lab.scenarios.interception import concentrator_port, greeting, ipv6_download, modem_page, port_forward
from cpe_mcp.lab.scenarios.limits import demo_checks
from cpe_mcp.lab.scenarios.lines import PLAIN_S, measure_lines
from cpe_mcp.lab.scenarios.main_job import download, upload
from cpe_mcp.lab.scenarios.stages import Stages, in_lab
from cpe_mcp.lab.scenarios.transfer import HTTP_PORT, Content, answers, first_byte_ms

RECORDS_S = 3.0
"""Workers report finished flows about once a second."""
LOG_LINES = 30
DAEMON_LOGS = ("cpe-mcpd", "cpe-mcp-relay", "mcp-concentrator1")
FRESH = {"pool_size": 0}
"""Option of section global that makes every flow open its own connection to the concentrator."""


class Effort(NamedTuple):
    """How long everything takes."""

    plain_s: float = PLAIN_S
    """Each plain transfer."""
    transfer_s: float = 15.0
    """The download and the upload: slow start and the slower line's later start are a small part of it."""
    tries: int = 11
    """For each time to first byte, of which the median counts."""
    pause_s: float = 0.1
    """Between them: the pool is full again."""
    timing: Timing = DEFAULT_TIMING
    ipv6_s: float = 1.0


FULL = Effort()


def course(lab: Lab, stages: Stages, report: dict[str, Any], effort: Effort = FULL) -> None:
    """All stages in order; each fills its part of ``report``."""
    size, stored = (
        size_of(sum(rates), effort.transfer_s)
        for rates in zip(
            *((lab.link(name).spec.down_mbit, lab.link(name).spec.up_mbit) for name in LINK_NAMES), strict=True
        )
    )
    content = stages.do("make the content", partial(Content, lab, size, beside=stored))
    if content is None:
        return
    report |= {"ttfb_ms": {}, "fail_open": {}, "interception": {}}
    stages.do("start the concentrator", lab.start_concentrator)
    _without_package(lab, stages, report, effort)
    _start_and_stop(lab, stages, report, content, effort)
    stages.do("start them again, with warm connections", partial(_start_pooled, lab))
    _look_around(lab, stages, report, content, effort)
    _transfers(lab, stages, report, content, effort)
    all_cuts(lab, stages, report, content, effort.timing)
    _end(lab, stages, report)


def _without_package(lab: Lab, stages: Stages, report: dict[str, Any], effort: Effort) -> None:
    """What there is to compare with."""
    measure_lines(lab, stages, report, effort.plain_s)
    report["ttfb_ms"]["direct"] = stages.do(
        "time to first byte, direct", partial(first_byte_ms, lab, tries=effort.tries, pause_s=effort.pause_s)
    )
    report["interception"]["concentrator_port_before"] = stages.do(
        "the concentrator's port, seen from the LAN", partial(concentrator_port, lab)
    )


def _start_and_stop(lab: Lab, stages: Stages, report: dict[str, Any], content: Content, effort: Effort) -> None:
    """The daemons' first life, without warm connections."""
    fail_open = report["fail_open"]
    with direct_talk(lab) as talk:
        fail_open["running_direct_flow_survives_start"] = stages.do(
            "start the daemons during a direct download", partial(direct_while_starting, lab, content, general=FRESH)
        )
        report["discovery"] = stages.do("discovery", partial(discovered, lab))
        report["radius"] = stages.do("RADIUS", partial(radius_answer, lab))
        report["ttfb_ms"]["fresh"] = stages.do(
            "time to first byte, fresh connections", partial(proxied_first_byte_ms, lab, effort)
        )
        fail_open["daemon_stopped"] = stages.do("stop the daemons", partial(stopped, lab))
        fail_open["direct_talk_survives"] = answers(talk, TALK_TIMEOUT_S)


def _start_pooled(lab: Lab) -> None:
    lab.start_cpe()
    await_taken(lab)


def _look_around(lab: Lab, stages: Stages, report: dict[str, Any], content: Content, effort: Effort) -> None:
    """Small questions to the daemons' second life."""
    report["ttfb_ms"]["pooled"] = stages.do(
        "time to first byte, warm connections", partial(proxied_first_byte_ms, lab, effort)
    )
    found = report["interception"]
    found["modem_page_direct"] = stages.do("the modem's page", partial(modem_page, lab))
    found["concentrator_port"] = stages.do("the concentrator's port again", partial(concentrator_port, lab))
    found["port_forward"] = stages.do("a port forward", partial(port_forward, lab))
    found["greeting"] = stages.do("a server that speaks first", partial(greeting, lab))
    ipv6_bytes = min(content.size, size_of(lab.link("dsl").spec.down_mbit, effort.ipv6_s))
    found["ipv6_download"] = stages.do("an IPv6 download", partial(ipv6_download, lab, content, ipv6_bytes))


def _transfers(lab: Lab, stages: Stages, report: dict[str, Any], content: Content, effort: Effort) -> None:
    """The job itself."""
    for title, direction, job in (("download", "down", download), ("upload", "up", upload)):
        report[title] = stages.do(
            f"one {title} over both lines", partial(job, lab, report, content, direction, effort.transfer_s)
        )
    report["method"]["transfer"] = (
        f"about {effort.transfer_s:g} s each, all of it counted: handshake, slow start and the end"
    )


def _end(lab: Lab, stages: Stages, report: dict[str, Any]) -> None:
    """The ways in which daemons go away, and a subscriber who is refused."""
    fail_open = report["fail_open"]
    fail_open["daemon_killed"] = stages.do("kill the control daemon", partial(killed, lab, "cpe-mcpd"))
    fail_open["all_killed"] = stages.do("kill the worker too", partial(killed, lab))
    fail_open["rejected"] = stages.do("RADIUS refuses another subscriber", partial(rejected, lab))


def proxied_first_byte_ms(lab: Lab, effort: Effort) -> float:
    """Time to first byte through the package. Raises LabError when a try went another way."""
    server = lab.addresses.server.v4
    before = count_proxied(lab, server, HTTP_PORT)
    result = first_byte_ms(lab, tries=effort.tries, pause_s=effort.pause_s)
    deadline = time.monotonic() + RECORDS_S
    while (proxied := count_proxied(lab, server, HTTP_PORT) - before) < effort.tries and time.monotonic() < deadline:
        time.sleep(0.1)
    if proxied < effort.tries:
        raise LabError(f"only {proxied} of {effort.tries} tries went through the package")
    return result


def run(options: Mapping[str, Any], report: dict[str, Any], effort: Effort = FULL) -> None:
    """The scenario ``demo``."""
    kept: dict[str, list[str]] = {}

    def whole(lab: Lab, stages: Stages, report: dict[str, Any]) -> None:
        course(lab, stages, report, effort)
        for name in DAEMON_LOGS:
            with contextlib.suppress(OSError):
                kept[name] = lab.log(name).splitlines()[-LOG_LINES:]

    stages = in_lab(options, report, whole)
    checks = demo_checks(report)
    report["checks"] = [check._asdict() for check in checks]
    report["result"] = "pass" if not stages.failed and all(check.ok for check in checks) else "fail"
    if report["result"] == "fail":
        report["logs"] = kept
    print(reporting.render(report))
