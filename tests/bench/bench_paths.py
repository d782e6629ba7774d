"""Paths side by side with what a router's user has today, in one run per pair of lines: ``make bench``.

Peers: ``ip mptcp`` endpoints set once, with a routing table for each line, and no daemon; and mptcpd with its default plugin
and the same routing tables. Neither has a proxy, so their client is an MPTCP socket on the router itself, and its server
speaks MPTCP too (nginx under mptcpize): the peers are spared all that a proxy costs. Ours is a plain TCP client in the LAN.
All hosts use cubic; this package what it is shipped with.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from cpe_mcp.lab import configs
from cpe_mcp.lab.link import LinkSpec
from cpe_mcp.lab.measure import size_of
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.plan import LINK_NAMES, next_address
from cpe_mcp.lab.scenarios.daemons import await_taken
from cpe_mcp.lab.scenarios.failover import IPV4_ONLY, Timing, Trouble, trouble_line
from cpe_mcp.lab.scenarios.frame import AS_SHIPPED
from cpe_mcp.lab.scenarios.lines import measure_down
from cpe_mcp.lab.scenarios.stages import Stages
from cpe_mcp.lab.scenarios.transfer import Content, Download
from cpe_mcp.lab.scenarios.unequal import QUIET_S, VARIANTS

MPTCP_PORT = 8081
DOWNLOAD_S = 10.0
SHORT_SIZES = {"100 kB": 100_000, "500 kB": 500_000, "2 MB": 2_000_000}
SHORT_TRIES, SHORT_PAUSE_S = 5, 0.1
TABLES = {"dsl": 101, "lte": 102}
MPTCPD = "/usr/libexec/mptcpd"
MPTCPD_OPTIONS = ("--log=stderr", "--addr-flags=subflow", "--notify-flags=existing,skip_link_local,skip_loopback")
"""Its default plugin addr_adv, told to use the addresses for subflows, as a client's have to be."""
DEAD_WAIT_S, DEAD_TIMEOUT_S = 3.0, 10.0
SETTLE_S = 3.0
"""After a line's return."""
RETURN_S = 5.0
"""Longer is not waited for a line that is back."""
NEVER = None
"""Figure of what did not come while it was waited for: worse than any number."""


class Way(NamedTuple):
    """One way to use both lines."""

    name: str
    start: Callable[[], None]
    stop: Callable[[], None]
    download: Callable[[Lab, int], Download]


def peer_download(lab: Lab, size: int) -> Download:
    """By an MPTCP socket on the router."""
    return Download(lab, size, host="cpe", port=MPTCP_PORT, is_mptcp=True)


def set_routes(lab: Lab) -> None:
    """A table for each line, chosen by source address: what a careful user has, and what netifd puts back."""
    for name, table in TABLES.items():
        address = _address4(lab, name)
        if not address:
            continue
        lab.run(
            "cpe",
            ["ip", "route", "replace", "default", "via", lab.gateway4(name), "dev", name, "table", str(table)],
            check=False,
        )
        while lab.run("cpe", ["ip", "rule", "del", "lookup", str(table)], check=False).returncode == 0:
            pass
        lab.run("cpe", ["ip", "rule", "add", "from", address, "lookup", str(table)])


def _address4(lab: Lab, name: str) -> str:
    words = lab.run("cpe", ["ip", "-4", "-o", "address", "show", "dev", name]).stdout.split()
    return words[3].partition("/")[0] if len(words) > 3 else ""


def clean(lab: Lab) -> None:
    """Neither endpoints nor tables."""
    lab.run("cpe", ["ip", "mptcp", "endpoint", "flush"])
    for table in TABLES.values():
        while lab.run("cpe", ["ip", "rule", "del", "lookup", str(table)], check=False).returncode == 0:
            pass


def ways(lab: Lab) -> list[Way]:
    """The peers first: this package leaves its kernel tuning behind."""
    running: list[subprocess.Popen[Any]] = []

    def static() -> None:
        set_routes(lab)
        lab.run("cpe", ["ip", "mptcp", "limits", "set", "subflows", "2", "add_addr_accepted", "2"])
        for name in LINK_NAMES:
            lab.run("cpe", ["ip", "mptcp", "endpoint", "add", _address4(lab, name), "dev", name, "subflow"])

    def mptcpd() -> None:
        set_routes(lab)
        lab.run("cpe", ["ip", "mptcp", "limits", "set", "subflows", "2", "add_addr_accepted", "2"])
        log = subprocess.DEVNULL
        running.append(lab.popen("cpe", [MPTCPD, *MPTCPD_OPTIONS], stdout=log, stderr=log))
        time.sleep(1.0)
        shown = lab.run("cpe", ["ip", "mptcp", "endpoint", "show"]).stdout
        print(f"  mptcpd's endpoints: {'; '.join(shown.splitlines())}", file=sys.stderr)

    def stop_mptcpd() -> None:
        while running:
            lab.stop(running.pop())
        clean(lab)

    def ours() -> None:
        lab.start_concentrator()
        lab.start_cpe()
        await_taken(lab)

    found = [Way("ip mptcp", static, partial(clean, lab), peer_download)]
    if Path(MPTCPD).exists():
        found.append(Way("mptcpd", mptcpd, stop_mptcpd, peer_download))
    return [*found, Way("ours", ours, lab.stop_cpe, Download)]


@contextlib.contextmanager
def mptcp_server(lab: Lab) -> Iterator[None]:
    """The same files by MPTCP."""
    directory = lab.directory / "server"
    text = configs.nginx_conf(str(directory)).replace("nginx.pid", "nginx-mptcp.pid")
    text = text.replace("listen 80 ", f"listen {MPTCP_PORT} ").replace("listen [::]:80 ", f"listen [::]:{MPTCP_PORT} ")
    config = directory / "nginx-mptcp.conf"
    config.write_text(text)
    argv = ["mptcpize", "run", "nginx", "-c", str(config), "-p", str(directory), "-e", "stderr"]
    lab.run("server", ["ip", "mptcp", "limits", "set", "subflows", "2"])
    server = lab.popen("server", argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    try:
        yield
    finally:
        lab.stop(server)


def short_ms(lab: Lab, way: Way) -> dict[str, float]:
    """Median of each short transfer."""
    found = {}
    for name, size in SHORT_SIZES.items():
        times = []
        for _ in range(SHORT_TRIES):
            times.append(1000 * way.download(lab, size).wait(20).seconds)
            time.sleep(SHORT_PAUSE_S)
        found[name] = round(median(times), 1)
    return found


def troubles(lab: Lab, way: Way) -> dict[str, Trouble]:
    """What happens to the better line; routes are put back as netifd does."""
    link = lab.link("dsl")

    def restore() -> None:
        link.restore()
        if way.name != "ours":
            set_routes(lab)

    def replaced() -> None:
        lab.wan("dsl").replace_address4(next_address("dsl"))
        if way.name != "ours":
            set_routes(lab)

    def original() -> None:
        lab.wan("dsl").replace_address4(lab.addresses.cpe_dsl.v4)

    return {
        "dies silently": Trouble("silent", partial(link.cut, "silent"), restore),
        "goes down": Trouble("down", partial(link.cut, "down"), restore),
        "gets another address": Trouble("replaced", replaced, original),
    }


def dead_default_ms(lab: Lab, way: Way) -> float | None:
    """A new connection's small transfer while the default line is silently dead, 3 s after its death."""
    link = lab.link("dsl")
    link.cut("silent")
    try:
        time.sleep(DEAD_WAIT_S)
        started = time.monotonic()
        download = way.download(lab, 1000)
        while not download.arrivals and time.monotonic() < started + DEAD_TIMEOUT_S:
            time.sleep(0.001)
        first = download.arrivals[0][0] - started if download.arrivals else NEVER
        download.stop()
        return NEVER if first is NEVER else round(1000 * first, 1)
    finally:
        link.restore()


def measure(variant_name: str, what: Mapping[str, bool]) -> dict[str, dict[str, float | None]]:
    """Metric -> way -> figure, over one pair of lines."""
    variant = next(variant for variant in VARIANTS if variant.name == variant_name)
    links: dict[str, LinkSpec] = {"dsl": variant.dsl, "lte": variant.lte}
    found: dict[str, dict[str, float | None]] = {}
    with Lab("bench", links=links, **AS_SHIPPED, **IPV4_ONLY) as lab, mptcp_server(lab):
        report = lab.facts()
        stages = Stages(report)
        whole = sum(link.down_mbit for link in links.values())
        content = Content(lab, size_of(whole, DOWNLOAD_S))
        measure_down(lab, stages, report)
        plain = sum(wan["tcp_mbit"]["down"] for wan in report["wans"].values())
        for way in ways(lab):
            print(f"{variant.name}: {way.name}", file=sys.stderr, flush=True)
            way.start()
            row: dict[str, float | None] = {}
            if what.get("short"):
                row |= {f"transfer of {name}, ms": ms for name, ms in short_ms(lab, way).items()}
                time.sleep(QUIET_S)
            if what.get("download"):
                received = way.download(lab, size_of(plain, DOWNLOAD_S)).wait(4 * DOWNLOAD_S)
                row["download, efficiency"] = round(received.mbit / plain, 3)
            if what.get("dead"):
                time.sleep(QUIET_S)
                row["first byte while the default line is dead, ms"] = dead_default_ms(lab, way)
                time.sleep(SETTLE_S)
            for name, trouble in troubles(lab, way).items():
                if not what.get(name):
                    continue
                timing = Timing(after_s=3.0)
                done = trouble_line(
                    lab,
                    content,
                    report,
                    "dsl",
                    trouble,
                    timing,
                    quiet_talks=0,
                    download=way.download,
                    return_timeout_s=RETURN_S,
                )
                print(f"  {name}: gap of {done['gap_ms']} ms after {done['gap_at_ms']} ms", file=sys.stderr)
                row[f"line {name}: gap, ms"] = done["gap_ms"]
                row[f"line {name}: recovered after, ms"] = done["recovery_ms"]
                if trouble.name != "replaced":  # bytes to the old address count as the line's
                    row[f"line {name}: carries again after, ms"] = done["back_ms"]
                time.sleep(SETTLE_S)
            way.stop()
            for metric, figure in row.items():
                found.setdefault(metric, {})[way.name] = figure
    return {f"{variant.summary}: {metric}": figures for metric, figures in found.items()}


RUNS: dict[str, tuple[str, dict[str, bool]]] = {
    "start": ("rtt-20-50", {"download": True, "short": True, "dead": True}),
    "cut": ("rtt-20-50", {"dies silently": True, "goes down": True}),
    "address": ("rtt-20-50", {"gets another address": True}),
    "slow": ("rtt-20-200", {"download": True, "short": True}),
    "uneven": ("rate-200-10", {"download": True}),
    "lossy": ("loss-slow", {"download": True}),
}
"""By name: a pair of lines of the scenarios, and what is measured over it."""


def ratio(ours: float | None, peer: float | None, *, is_higher_better: bool) -> float | None:
    """More than 1: ours is better. None where one of both never came; 0 is as good as that."""
    if not ours or not peer:
        return None
    return round(ours / peer if is_higher_better else peer / ours, 2)


def rows_of(figures: Mapping[str, Mapping[str, float | None]]) -> list[dict[str, Any]]:
    """Rows of build/bench.json: one for each metric and peer; a figure that never came is null."""
    rows = []
    for metric, by_way in figures.items():
        name, _, unit = metric.rpartition(", ")
        better = "higher" if unit == "efficiency" else "lower"
        ours = by_way["ours"]
        for peer_name, peer in by_way.items():
            if peer_name != "ours":
                rows.append(
                    {
                        "metric": name if unit == "ms" else metric,
                        "unit": "ms" if unit == "ms" else "of plain TCP over each line",
                        "ours": ours,
                        "peer": peer,
                        "peer_name": peer_name,
                        "ratio": ratio(ours, peer, is_higher_better=better == "higher"),
                        "better": better,
                    }
                )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description="Paths against static endpoints and mptcpd.")
    parser.add_argument("--json", default="build/bench.json", help="rows are added to those that are there")
    parser.add_argument("--only", choices=RUNS, help="one of the runs")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("bench needs root", file=sys.stderr)
        return 2
    if shutil.which("mptcpize") is None:
        print("bench_paths needs mptcpize: apt install mptcpize", file=sys.stderr)
        return 2
    path = Path(options.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in [options.only] if options.only else RUNS:
        rows = rows_of(measure(*RUNS[name]))
        for row in rows:
            cells = ["never" if row[key] is NEVER else row[key] for key in ("ours", "peer")]
            shown = "-" if row["ratio"] is None else row["ratio"]
            print(f"{row['metric']:<72} {cells[0]:>8} {cells[1]:>8} {shown:>7}  {row['peer_name']}")
        there = json.loads(path.read_text()) if path.exists() else []
        new = {(row["metric"], row["peer_name"]) for row in rows}
        kept = [row for row in there if (row["metric"], row["peer_name"]) not in new]
        path.write_text(json.dumps([*kept, *rows], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
