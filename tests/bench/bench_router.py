"""What the router's daemon and one worker cost while nothing happens, against the budget for small routers: ``make bench``.

Everything runs in the lab with its two WANs and a full warm pool. Memory is counted as if no other program used Python: what
both processes have for themselves (Pss_Anon), and the larger one's file pages once, since they share those.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.scenarios.daemons import await_taken
from cpe_mcp.lab.scenarios.transfer import fetch_small

DAEMON, WORKER = "cpe-mcpd", "cpe-mcp-relay"
SETTLE_S = 5.0
"""After the pool is full: the first probes are over."""
IDLE_S = 30.0
REFRESHES = 100
"""Of the overview page; each asks the daemon what one refresh of the page asks."""
OVERVIEW = ("status", "history", "records")
BUDGET = {"memory": 40.0, "start": 3.0, "idle": 0.3, "refresh": 20.0}
"""MB, s, % of a core, ms of the daemon's CPU."""


def memory_kb(pid: int) -> tuple[int, int]:
    """``(anonymous, file)`` of one process."""
    rows = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    rollup = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return int(rollup["Pss_Anon"].split()[0]), int(rows["RssFile"].split()[0])


def cpu_s(pid: int) -> float:
    """On-CPU time of all threads of a process: schedstat counts ns, where stat counts ticks of 10 ms."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


def measure() -> list[dict[str, Any]]:
    """Rows of build/bench.json."""
    with Lab() as lab:
        lab.start_concentrator()
        started = time.monotonic()
        lab.start_cpe()
        while not (fetch_small(lab) and _is_carried(lab)):
            time.sleep(0.02)
        start_s = time.monotonic() - started
        await_taken(lab)
        time.sleep(SETTLE_S)
        daemon, worker = lab.daemon_pid(DAEMON), lab.daemon_pid(WORKER)
        before = cpu_s(daemon) + cpu_s(worker)
        time.sleep(IDLE_S)
        idle_percent = (cpu_s(daemon) + cpu_s(worker) - before) / IDLE_S * 100
        anonymous, files = zip(*(memory_kb(pid) for pid in (daemon, worker)), strict=True)
        parts = {"daemon_anonymous_mb": anonymous[0] / 1024, "worker_anonymous_mb": anonymous[1] / 1024}
        refresh_ms = statistics.median(_refresh_ms(lab, daemon) for _ in range(REFRESHES))
    memory_mb = (sum(anonymous) + max(files)) / 1024
    return [
        _row("memory of the router's daemon and one worker, idle", "MB", memory_mb, "memory") | parts,
        _row("start of the daemons to the first connection carried", "s", start_s, "start"),
        _row("CPU of the daemon and one worker, idle", "% of a core", idle_percent, "idle"),
        _row("CPU of the daemon for one refresh of the overview", "ms", refresh_ms, "refresh"),
    ]


def _is_carried(lab: Lab) -> bool:
    return any(row["action"] == "proxy" for row in lab.ask("records")["flows"])


def _refresh_ms(lab: Lab, daemon: int) -> float:
    before = cpu_s(daemon)
    for method in OVERVIEW:
        lab.ask(method, {"limit": 20} if method == "records" else {})
    return (cpu_s(daemon) - before) * 1000


def _row(metric: str, unit: str, ours: float, budget: str) -> dict[str, Any]:
    limit = BUDGET[budget]
    return {
        "metric": metric,
        "unit": unit,
        "ours": round(ours, 2),
        "peer": limit,
        "peer_name": "budget",
        "ratio": round(limit / ours, 2) if ours else 0.0,
        "better": "lower",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the idle router against its budget.")
    parser.add_argument("--json", default="build/bench.json", help="rows are added to those that are there")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("bench needs root", file=sys.stderr)
        return 2
    rows = measure()
    for row in rows:
        print(f"{row['metric']:<58} {row['ours']:>10} {row['peer']:>10} {row['unit']:<12} {row['ratio']:>6}  budget")
    path = Path(options.json)
    there = json.loads(path.read_text()) if path.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = [row for row in there if row["metric"] not in {new["metric"] for new in rows}]
    path.write_text(json.dumps([*kept, *rows], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
