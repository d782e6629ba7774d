"""Concentrators die and return: the next one takes over, and with none left the LAN is forwarded plainly."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from cpe_mcp.lab.namespaces import ip_batch
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.plan import CORE, UPLINK_DEVICE
from cpe_mcp.lab.scenarios.daemons import await_taken, status
from cpe_mcp.lab.scenarios.frame import AS_SHIPPED, Report, Scenario, judged
from cpe_mcp.lab.scenarios.limits import Check, check, holds
from cpe_mcp.lab.scenarios.load import NewConnections, Try
from cpe_mcp.lab.scenarios.stages import Stages
from cpe_mcp.policy.reasons import Reason

NUMBERS = (1, 2)
NEW_EVERY_S = 0.25
NEW_TIMEOUT_S = 6.0
BEFORE_S, DURING_S, AFTER_S = 2.0, 4.0, 8.0
"""With all alive, after the death, and after the return."""
FAILOVER_MAX_S = 1.0
"""From the death of the best concentrator to new connections that are as quick as before."""
QUICK_FACTOR, QUICK_SLACK_S = 1.5, 0.05
"""What counts as quick: that many times the usual first byte, and a bit; the next concentrator has no warm connections at
first, which costs a round trip of each line."""
CHANGES_MAX = 2
"""Of the state "taken or not" after a return: on once, and at most one correction; more is flapping."""
RETURN_MAX_S = 20.0
STEADY_S = 3.0
"""After a return from silence: for so long nothing changes any more."""
PLAIN_MAX_S = 3.0
"""From the moment when the only concentrator falls silent to plain forwarding: the lines' silence, probes over a line that was
idle, and a verdict."""


def vanish(lab: Lab, number: int) -> None:
    """Its host is unplugged: nothing answers, nothing refuses."""
    ip_batch(lab.namespace(f"concentrator{number}"), [f"link set {UPLINK_DEVICE} down"])


def unplug(lab: Lab, number: int, how: str = "down") -> None:
    """The same at the switch, so that it keeps addresses and routes and can be plugged in again (``up``)."""
    ip_batch(lab.namespace(CORE), [f"link set concentrator{number} {how}"])


def kill(lab: Lab, number: int) -> None:
    """Its processes die: the kernel there refuses connections."""
    lab.kill_concentrator(number)


WAYS: Mapping[str, Callable[[Lab, int], None]] = {"vanishes": vanish, "dies": kill}


def quick_after_s(tries: Sequence[Try], event: float, usual_s: float) -> float | None:
    """From when on after ``event`` every new connection is quick again; None when the last one is not."""
    limit = QUICK_FACTOR * usual_s + QUICK_SLACK_S
    slow = [one for one in tries if one.started >= event and (one.first_byte_s is None or one.first_byte_s > limit)]
    if not slow:
        return 0.0
    last = max(one.started for one in slow)
    return max(0.0, last - event) if any(one.started > last for one in tries) else None


def row_of(tries: Sequence[Try], event: float) -> dict[str, Any]:
    """Figures of the new connections around a death at ``event``."""
    usual = sorted(one.first_byte_s for one in tries if one.started < event and one.first_byte_s is not None)
    after = [one for one in tries if one.started >= event]
    times = [one.first_byte_s for one in after if one.first_byte_s is not None]
    quick_s = quick_after_s(tries, event, usual[len(usual) // 2]) if usual else None
    return {
        "usual_ms": round(1000 * usual[len(usual) // 2], 1) if usual else None,
        "new_connections": len(after),
        "failed": [one.error for one in after if one.first_byte_s is None],
        "worst_ms": round(1000 * max(times), 1) if times else None,
        "quick_again_after_s": None if quick_s is None else round(quick_s, 2),
    }


def _one_dies(lab: Lab, way: str) -> dict[str, Any]:
    """The best one, while new connections are made all the time."""
    with NewConnections(lab, every_s=NEW_EVERY_S, timeout_s=NEW_TIMEOUT_S) as new:
        time.sleep(BEFORE_S)
        event = time.monotonic()
        WAYS[way](lab, NUMBERS[0])
        time.sleep(DURING_S)
    return {**row_of(new.tries(), event), "taken_after": status(lab)["interception"]["on"]}


def _all_die(lab: Lab) -> dict[str, Any]:
    """All of them, and they return."""
    with NewConnections(lab, every_s=NEW_EVERY_S, timeout_s=NEW_TIMEOUT_S) as new:
        time.sleep(BEFORE_S)
        event = time.monotonic()
        for number in NUMBERS:
            kill(lab, number)
        time.sleep(DURING_S)
        taken_while_dead = status(lab)["interception"]["on"]
        row = row_of([one for one in new.tries() if one.started < time.monotonic() - NEW_EVERY_S], event)
        for number in NUMBERS:
            lab.start_concentrator(number)
        returned = time.monotonic()
        changes, taken_s, taken = 0, None, taken_while_dead
        while time.monotonic() < returned + (AFTER_S if taken_s is not None else RETURN_MAX_S):
            now = status(lab)["interception"]["on"]
            if now != taken:
                changes, taken = changes + 1, now
                taken_s = time.monotonic() - returned if now and taken_s is None else taken_s
            time.sleep(0.05)
    return {
        **row,
        "failed": [one.error for one in new.tries() if one.started >= event and one.first_byte_s is None],
        "taken_while_dead": taken_while_dead,
        "taken_again_s": None if taken_s is None else round(taken_s, 2),
        "taken_at_end": status(lab)["interception"]["on"],
        "changes": changes,
    }


def _all_vanish(lab: Lab) -> dict[str, Any]:
    """Their hosts are unplugged all at once, as when the only one there is vanishes, and come back. What was on its way to them
    is lost; what begins once that is known is not."""
    with NewConnections(lab, every_s=NEW_EVERY_S, timeout_s=NEW_TIMEOUT_S) as new:
        time.sleep(BEFORE_S / 2)
        event = time.monotonic()
        for number in NUMBERS:
            unplug(lab, number)
        plain_s = None
        while time.monotonic() < event + DURING_S:
            if plain_s is None and not status(lab)["interception"]["on"]:
                plain_s = time.monotonic() - event
            time.sleep(0.05)
        silent = status(lab)
        for number in NUMBERS:
            unplug(lab, number, "up")
        returned = time.monotonic()
        taken_s, changes, taken = None, 0, silent["interception"]["on"]
        while time.monotonic() < returned + (RETURN_MAX_S if taken_s is None else taken_s + STEADY_S):
            now = status(lab)["interception"]["on"]
            changes, taken = changes + (now != taken), now
            taken_s = time.monotonic() - returned if now and taken_s is None else taken_s
            time.sleep(0.05)
        end = status(lab)
    known = event + (PLAIN_MAX_S if plain_s is None else plain_s)
    return {
        "plain_after_s": None if plain_s is None else round(plain_s, 2),
        "failed_once_known": [
            one.error for one in new.tries() if one.started >= known + NEW_EVERY_S and one.first_byte_s is None
        ],
        "reason": silent["interception"]["reason"],
        "wans_while_silent": {wan["name"]: wan["state"] for wan in silent["wans"]},
        "wans_at_end": {wan["name"]: wan["state"] for wan in end["wans"]},
        "taken_again_s": None if taken_s is None else round(taken_s, 2),
        "taken_at_end": end["interception"]["on"],
        "changes": changes,
    }


def _start(lab: Lab) -> None:
    for number in NUMBERS:
        lab.start_concentrator(number)
    lab.start_cpe()
    await_taken(lab)


def _one_course(lab: Lab, stages: Stages, report: Report, *, way: str) -> None:
    stages.do("start both concentrators and the router", partial(_start, lab))
    report["concentrator"] = stages.do(f"the first concentrator {way}", partial(_one_dies, lab, way))
    _note(report)


def _all_course(lab: Lab, stages: Stages, report: Report) -> None:
    stages.do("start both concentrators and the router", partial(_start, lab))
    report["concentrator"] = stages.do("both concentrators die and return", partial(_all_die, lab))
    _note(report)
    found = report["silence"] = stages.do(
        "no concentrator is there any more, and then again", partial(_all_vanish, lab)
    )
    if found is not None:
        report.setdefault("notes", []).append(
            f"all silent: forwarded plainly after {found['plain_after_s']} s ({found['reason']}), lines meanwhile "
            f"{', '.join(found['wans_while_silent'].values())}; taken again {found['taken_again_s']} s after the return"
        )


def _note(report: Report) -> None:
    found = report["concentrator"]
    if found is None:
        return
    report["notes"] = [
        f"first byte of new connections: usual {found['usual_ms']} ms, worst {found['worst_ms']} ms, "
        f"{len(found['failed'])} of {found['new_connections']} failed",
        f"as quick as before {found['quick_again_after_s']} s after the death",
    ]
    if "taken_again_s" in found:
        report["notes"].append(f"taken again {found['taken_again_s']} s after the return, {found['changes']} changes")


def _common(found: Mapping[str, Any]) -> list[Check]:
    failed = found.get("failed")
    return [
        check("new connections failed", None if failed is None else len(failed), "<=", 0),
        check("new connections quick again after", found.get("quick_again_after_s"), "<=", FAILOVER_MAX_S, "s"),
    ]


def _one_checks(report: Mapping[str, Any]) -> Sequence[Check]:
    found = report.get("concentrator") or {}
    return [*_common(found), holds("the next one takes over", found.get("taken_after"))]


def _all_checks(report: Mapping[str, Any]) -> Sequence[Check]:
    found, silence = report.get("concentrator") or {}, report.get("silence") or {}
    failed = silence.get("failed_once_known")
    return [
        *_common(found),
        holds("with none left the LAN is forwarded plainly", found["taken_while_dead"] is False if found else None),
        check("taken again after the return", found.get("taken_again_s"), "<=", RETURN_MAX_S, "s"),
        check("changes after the return", found.get("changes"), "<=", CHANGES_MAX),
        holds("taken at the end", found.get("taken_at_end")),
        check("all silent: forwarded plainly after", silence.get("plain_after_s"), "<=", PLAIN_MAX_S, "s"),
        check(
            "all silent: new connections failed once that is known", None if failed is None else len(failed), "<=", 0
        ),
        holds("all silent: the reason", silence["reason"] == Reason.CONCENTRATOR_UNREACHABLE if silence else None),
        holds("all silent: the lines are not blamed", _are_up(silence.get("wans_while_silent"))),
        check("all silent: taken again after the return", silence.get("taken_again_s"), "<=", RETURN_MAX_S, "s"),
        check("all silent: changes after the return", silence.get("changes"), "<=", CHANGES_MAX),
        holds("all silent: taken at the end", silence.get("taken_at_end")),
        holds("all silent: all lines used at the end", _are_up(silence.get("wans_at_end"))),
    ]


def _are_up(states: Mapping[str, str] | None) -> bool | None:
    return None if states is None else set(states.values()) == {"up"}


def scenarios() -> list[Scenario]:
    """One concentrator in two ways, and all."""
    return [
        *(
            Scenario(
                f"concentrator-{way}",
                f"the first of two concentrators {way}: new connections go on with the next one",
                judged(partial(_one_course, way=way), _one_checks, **AS_SHIPPED),
            )
            for way in WAYS
        ),
        Scenario(
            "concentrators-return",
            "all concentrators die, and then vanish, the LAN goes on without them, and they return",
            judged(_all_course, _all_checks, **AS_SHIPPED),
        ),
    ]
