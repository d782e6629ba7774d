"""A line that comes and goes: running connections, quiet ones and new ones live through it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import Any

from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.scenarios.daemons import status
from cpe_mcp.lab.scenarios.frame import AS_SHIPPED, Report, Run, Scenario, judged, start_daemons
from cpe_mcp.lab.scenarios.limits import Check, check, holds
from cpe_mcp.lab.scenarios.load import NewConnections, streams
from cpe_mcp.lab.scenarios.stages import Stages
from cpe_mcp.lab.scenarios.transfer import Talk, answers, greeting_server

FLAPPING = "dsl"
"""The better line: the one that connections begin on."""
FLAP_S = 20.0
"""A hundred flaps are ``--seconds 200``."""
CUT_S = (0.3, 0.8, 1.5)
BACK_S = (0.5, 1.0, 1.6, 0.7)
"""In turn: how long the line is away and back: less and more than it takes to notice, and than the return takes."""
EVERY_DOWN = 5
"""One flap in so many takes the link down, the others are silent."""
STREAMS, STREAM_MBIT = 2, 8.0
TALKS = 4
TALK_PORT = 2222
TALK_TIMEOUT_S = 5.0
NEW_EVERY_S, NEW_TIMEOUT_S = 0.5, 5.0
FLAPS_SHARE = 0.8
"""Of as many flaps as fit into the time: so many there have to be."""
GONE = frozenset({"dead", "held down", "offline"})
"""States in which the router has seen the line go."""


def _flaps(lab: Lab, seconds: float) -> dict[str, Any]:
    """Flap for so long, with everything running beside it."""
    server, link = lab.addresses.server.v4, lab.link(FLAPPING)
    flaps = 0
    cut_s, back_s = cycle(CUT_S), cycle(BACK_S)
    states: set[str] = set()
    with contextlib.ExitStack() as stack:
        stack.enter_context(greeting_server(lab, "server", server, TALK_PORT))
        talks = [stack.enter_context(Talk(lab, "client1", server, TALK_PORT)) for _ in range(TALKS)]
        running = stack.enter_context(streams(lab, STREAMS, STREAM_MBIT))
        with NewConnections(lab, every_s=NEW_EVERY_S, timeout_s=NEW_TIMEOUT_S) as new:
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                flaps += 1
                link.cut("down" if flaps % EVERY_DOWN == 0 else "silent")
                time.sleep(next(cut_s))
                link.restore()
                time.sleep(next(back_s))
                states |= {wan["state"] for wan in status(lab)["wans"] if wan["name"] == FLAPPING}
        tries = new.tries()
        lost_talks = sum(not answers(talk, TALK_TIMEOUT_S) for talk in talks)
        lost_streams = sum(not stream.is_running for stream in running)
    failed = [one.error for one in tries if one.first_byte_s is None]
    times = sorted(one.first_byte_s for one in tries if one.first_byte_s is not None)
    return {
        "flaps": flaps,
        "flaps_possible": round(seconds / (sum(CUT_S) / len(CUT_S) + sum(BACK_S) / len(BACK_S)), 1),
        "connections": TALKS + STREAMS,
        "connections_lost": lost_talks + lost_streams,
        "new_connections": len(tries),
        "new_connections_failed": failed,
        "first_byte_ms": {
            "median": round(1000 * times[len(times) // 2]) if times else None,
            "worst": round(1000 * times[-1]) if times else None,
        },
        "states_seen": sorted(states),
    }


def _course(lab: Lab, stages: Stages, report: Report, *, seconds: float) -> None:
    start_daemons(lab, stages)
    found = stages.do(f"{FLAPPING} flaps for {seconds:g} s", partial(_flaps, lab, seconds))
    report["flapping"] = found
    if found is not None:
        report["notes"] = [
            f"{found['flaps']} flaps: {found['connections_lost']} of {found['connections']} connections lost, "
            f"{len(found['new_connections_failed'])} of {found['new_connections']} new ones failed",
            f"first byte of new ones: median {found['first_byte_ms']['median']} ms, "
            f"worst {found['first_byte_ms']['worst']} ms",
        ]


def _checks(report: Mapping[str, Any]) -> Sequence[Check]:
    found = report.get("flapping") or {}
    failed = found.get("new_connections_failed")
    return [
        check("flaps", found.get("flaps"), ">=", FLAPS_SHARE * found.get("flaps_possible", 1)),
        holds("the router saw the line go", not GONE.isdisjoint(found["states_seen"]) if found else None),
        holds("and come back", "up" in found["states_seen"] if found else None),
        check("running connections lost", found.get("connections_lost"), "<=", 0),
        check("new connections failed", None if failed is None else len(failed), "<=", 0),
    ]


def _lasting(seconds: float) -> Run:
    return judged(partial(_course, seconds=seconds), _checks, **AS_SHIPPED)


def scenarios() -> list[Scenario]:
    """One, which can be made longer."""
    return [
        Scenario(
            "flapping",
            "the better line comes and goes all the time: no connection is lost (--seconds 200 for a hundred flaps)",
            _lasting(FLAP_S),
            lasting=_lasting,
        )
    ]
