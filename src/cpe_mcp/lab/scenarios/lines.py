"""Each line alone: plain TCP between client1 and the server, forwarded by the cpe, no daemon running."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from cpe_mcp.lab import report as reporting
from cpe_mcp.lab.measure import rate_mbit, size_of
from cpe_mcp.lab.namespaces import LabError, ip_batch
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.plan import LAN_DEVICE, LINK_NAMES
from cpe_mcp.lab.scenarios.stages import Stages, in_lab
from cpe_mcp.lab.scenarios.transfer import RAMP_S, Content, Download, plain_upload_mbit

PLAIN_S = 5.0
"""Of each plain transfer; the first RAMP_S of it does not count."""
PAYLOAD_SHARE = 1448 / 1500
"""Of a line's IP bytes, as payload of TCP with timestamps."""
STEADY_S = 3.0
"""Of a plain download that counts, where only downloads are compared."""
RAMP_RTTS = 12
"""Of slow start and the first swing of congestion control: left out."""
STEER_TABLE = 77
STEER_RULE = 77
"""Routing table and rule preference in the cpe while the LAN is steered over one line."""


@contextlib.contextmanager
def only_line(lab: Lab, name: str) -> Iterator[None]:
    """What the LAN sends leaves by this line, whatever the default route says."""
    cpe = lab.namespace("cpe")
    gateway = lab.gateway4(name)
    rule = f"rule %s pref {STEER_RULE} iif {LAN_DEVICE} lookup {STEER_TABLE}"
    route = f"route %s default via {gateway} dev {name} table {STEER_TABLE}"
    ip_batch(cpe, [route % "add", rule % "add"])
    try:
        yield
    finally:
        ip_batch(cpe, [rule % "del", route % "del"])


def plain_tcp(lab: Lab, name: str, seconds: float) -> dict[str, float]:
    """Steady Mbit/s of one TCP connection ``down`` and then ``up`` over one line alone. Raises LabError, OSError."""
    with only_line(lab, name):
        rate = lab.link(name).spec.down_mbit
        received = Download(lab, size_of(rate, seconds)).wait(3 * seconds)  # the nominal rate: it takes a little longer
        if received.error:
            raise LabError(f"plain download over {name}: {received.error}")
        return {"down": round(received.steady_mbit, 1), "up": round(plain_upload_mbit(lab, seconds), 1)}


def measure_down(lab: Lab, stages: Stages, report: dict[str, Any], seconds: float = STEADY_S) -> None:
    """As :func:`measure_lines`, but downloads only: ``seconds`` of each after slow start, which a long RTT makes long."""
    for name in LINK_NAMES:
        rate = stages.do(f"{name} alone, plain TCP", partial(plain_down_mbit, lab, name, seconds))
        if rate is not None:
            report["wans"][name]["tcp_mbit"] = {"down": rate}
    _note_best(report)
    report.setdefault("method", {})["plain"] = (
        f"plain TCP down over each line alone, {seconds:g} s after its first {RAMP_RTTS} round trips, at least {RAMP_S:g} s"
    )


def reckon_down(lab: Lab, report: dict[str, Any]) -> None:
    """The same without a transfer: what headers leave of each line's rate, which plain TCP reaches within 0.1 Mbit/s."""
    for name in LINK_NAMES:
        report["wans"][name]["tcp_mbit"] = {"down": round(lab.link(name).spec.down_mbit * PAYLOAD_SHARE, 1)}
    _note_best(report)
    report.setdefault("method", {})["plain"] = "plain TCP over each line alone was reckoned from the line's rate"


def plain_down_mbit(lab: Lab, name: str, seconds: float) -> float:
    """Steady Mbit/s of one download over one line alone. Raises LabError."""
    spec = lab.link(name).spec
    ramp_s = max(RAMP_S, RAMP_RTTS * spec.rtt_ms / 1000)
    with only_line(lab, name):
        download = Download(lab, size_of(spec.down_mbit, ramp_s + seconds))
        time.sleep(ramp_s + seconds)  # a lossy line is much slower than its rate: what has come by then counts
        received = download.stop()
    if received.error:
        raise LabError(f"plain download over {name}: {received.error}")
    return round(rate_mbit(received.arrivals, received.started + ramp_s, received.arrivals[-1][0]), 1)


def measure_lines(lab: Lab, stages: Stages, report: dict[str, Any], seconds: float = PLAIN_S) -> None:
    """Adds ``tcp_mbit`` to every entry of ``wans``, and ``direct`` (the best of them)."""
    for name in LINK_NAMES:
        rates = stages.do(f"{name} alone, plain TCP, down then up", partial(plain_tcp, lab, name, seconds))
        if rates is not None:
            report["wans"][name]["tcp_mbit"] = rates
    _note_best(report)
    report.setdefault("method", {})["plain"] = (
        f"plain TCP {seconds:g} s each way over each line alone, the first {RAMP_S:g} s not counted"
    )


def _note_best(report: dict[str, Any]) -> None:
    measured = {name: wan["tcp_mbit"] for name, wan in report["wans"].items() if "tcp_mbit" in wan}
    if measured:
        best = max(measured, key=lambda name: measured[name]["down"])
        report["direct"] = {"mbit": measured[best]["down"], "wan": best}


def content_for_lines(lab: Lab, seconds: float) -> Content:
    """Enough for the plain download of the fastest line."""
    return Content(lab, max(size_of(lab.link(name).spec.down_mbit, seconds) for name in LINK_NAMES))


def run(options: Mapping[str, Any], report: dict[str, Any]) -> None:
    """The scenario ``lines``."""

    def course(lab: Lab, stages: Stages, report: dict[str, Any]) -> None:
        if stages.do("make the content", lambda: content_for_lines(lab, PLAIN_S)):
            measure_lines(lab, stages, report)

    stages = in_lab(options, report, course)
    report["result"] = "fail" if stages.failed else "pass"
    print(reporting.render(report))
