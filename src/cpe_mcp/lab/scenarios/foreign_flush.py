"""Somebody else on the router flushes what the daemon has put into the kernel: it is back at once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.scenarios.frame import AS_SHIPPED, Report, Scenario, judged, start_daemons
from cpe_mcp.lab.scenarios.limits import Check, check, holds
from cpe_mcp.lab.scenarios.load import streams
from cpe_mcp.lab.scenarios.stages import Stages

BACK_MAX_S = 2.0
WAIT_S = 10.0
POLL_S = 0.05
STREAM_MBIT = 8.0
COUNTED = re.compile(r"counter packets \d+ bytes \d+|expires \w+|id \d+ |# handle \d+")
"""What differs between two looks at the same rules: an endpoint comes back with another id."""
EVERYBODYS_RULES = ("0", "32766", "32767")
"""Preferences of the rules that every system has."""


class Part(NamedTuple):
    """Something in the kernel that others may take away."""

    name: str
    show: tuple[str, ...]
    flush: Callable[[Lab], object]


def _run(lab: Lab, *argv: str) -> str:
    return lab.run("cpe", argv, check=False).stdout


def _flush_rules(lab: Lab, family: str) -> None:
    for line in _run(lab, "ip", family, "rule", "show").splitlines():
        preference = line.split(":")[0]
        if preference not in EVERYBODYS_RULES:
            _run(lab, "ip", family, "rule", "del", "pref", preference)


def _flush_tables(lab: Lab) -> None:
    """Every table that a rule of ours names."""
    for family in ("-4", "-6"):
        tables = set(re.findall(r"lookup (\d+)", _run(lab, "ip", family, "rule", "show")))
        for table in tables:
            _run(lab, "ip", family, "route", "flush", "table", table)


PARTS = (
    Part(
        "nft table",
        ("nft", "list", "table", "inet", "cpe_mcp"),
        lambda lab: _run(lab, "nft", "delete", "table", "inet", "cpe_mcp"),
    ),
    Part("ip rules, IPv4", ("ip", "-4", "rule", "show"), lambda lab: _flush_rules(lab, "-4")),
    Part("ip rules, IPv6", ("ip", "-6", "rule", "show"), lambda lab: _flush_rules(lab, "-6")),
    Part("routing tables", ("ip", "-4", "route", "show", "table", "all"), _flush_tables),
    Part(
        "MPTCP endpoints",
        ("ip", "mptcp", "endpoint", "show"),
        lambda lab: _run(lab, "ip", "mptcp", "endpoint", "flush"),
    ),
    Part(
        "MPTCP limits",
        ("ip", "mptcp", "limits", "show"),
        lambda lab: _run(lab, "ip", "mptcp", "limits", "set", "subflows", "0"),
    ),
)


def _look(lab: Lab, part: Part) -> list[str]:
    """What there is of a part, without what changes by itself."""
    return sorted(COUNTED.sub("", line).strip() for line in _run(lab, *part.show).splitlines())


def _row(lab: Lab, part: Part) -> dict[str, Any]:
    before = _look(lab, part)
    part.flush(lab)
    flushed_at = time.monotonic()
    gone = _look(lab, part)
    while (now := _look(lab, part)) != before and time.monotonic() < flushed_at + WAIT_S:
        time.sleep(POLL_S)
    back_s = round(time.monotonic() - flushed_at, 2) if now == before else None
    missing = sorted(set(before) - set(now)) if back_s is None else []
    return {"part": part.name, "was_gone": gone != before, "back_s": back_s, "missing": missing[:5]}


def _course(lab: Lab, stages: Stages, report: Report) -> None:
    start_daemons(lab, stages)
    found: dict[str, Any] = {"rows": []}
    report["flush"] = found
    with streams(lab, 1, STREAM_MBIT) as running:
        time.sleep(1.0)
        for part in PARTS:
            row = stages.do(f"flush the {part.name}", partial(_row, lab, part))
            if row is not None:
                found["rows"].append(row)
        time.sleep(1.0)
        found["download_lives"] = running[0].is_running
    report["notes"] = [f"{row['part']}: back after {row['back_s']} s" for row in found["rows"]]


def _checks(report: Mapping[str, Any]) -> Sequence[Check]:
    found = report.get("flush") or {}
    rows = {row["part"]: row for row in found.get("rows", ())}
    return [
        *(
            check(f"{part.name}: back after", rows.get(part.name, {}).get("back_s"), "<=", BACK_MAX_S, "s")
            for part in PARTS
        ),
        holds("a running download lives on", found.get("download_lives")),
    ]


def scenarios() -> list[Scenario]:
    """One."""
    return [
        Scenario(
            "foreign-flush",
            "somebody flushes nft, rules, routes, endpoints and limits: they are back within 2 s",
            judged(_course, _checks, **AS_SHIPPED),
        )
    ]
