"""``cpe-mcp speedtest``: starts a speed test, shows it while it runs, prints what came out."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from cpe_mcp.cli.table import table

POLL_S = 0.25
EXIT_OK, EXIT_NO = 0, 1
DIRECTIONS = {"down": "download", "up": "upload"}
BAR = 20

Ask = Callable[..., Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Beside the ones that every command has."""
    parser.add_argument("--wan", metavar="NAME", default="", help="only this WAN; else each, then all together")


def run(ask: Ask, arguments: argparse.Namespace) -> tuple[Any, str, int]:
    """What each WAN carries alone, and what all of them carry together. Ends with Ctrl-C."""
    shown = sys.stderr.isatty() and not arguments.json
    result = ask("speedtest", action="start", wan=arguments.wan)
    try:
        while result["state"] == "running":
            if shown:
                _show(progress_line(result))
            time.sleep(POLL_S)
            result = ask("speedtest")
    except KeyboardInterrupt:
        result = ask("speedtest", action="stop")
    if shown:
        _show("")
    all_done = all(row["state"] == "done" for row in result["runs"])
    return result, report(result), EXIT_OK if all_done else EXIT_NO


def progress_line(result: dict[str, Any]) -> str:
    """What is measured at the moment; "" between two runs."""
    for number, row in enumerate(result["runs"], 1):
        if row["state"] == "running":
            bar = "#" * int(row["progress"] * BAR)
            name = f"{number}/{len(result['runs'])} {_name(row)} {DIRECTIONS[row['direction']]}"
            return f"{name} [{bar:<{BAR}}] {row['mbit']:.1f} Mbit/s"
    return ""


def report(result: dict[str, Any]) -> str:
    """One row per WAN, and one for all together."""
    rows: dict[str, dict[str, str]] = {}
    notes = []
    for run_ in result["runs"]:
        row = rows.setdefault(run_["wan"], {"wan": _name(run_)})
        row[run_["direction"]] = f"{run_['mbit']:.1f}" if run_["state"] == "done" else run_["state"]
        if run_["error"]:
            notes.append(f"{_name(run_)}, {DIRECTIONS[run_['direction']]}: {run_['error']}")
    columns = {"wan": "WAN", "down": "download (Mbit/s)", "up": "upload (Mbit/s)"}
    lines = [table(list(rows.values()), columns), *dict.fromkeys(notes)]
    return "\n".join([*lines, f"measured against {result['concentrator']}"] if result.get("concentrator") else lines)


def _name(row: dict[str, Any]) -> str:
    return row["wan"] or "all together"


def _show(line: str) -> None:
    """In place of the line before."""
    print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
