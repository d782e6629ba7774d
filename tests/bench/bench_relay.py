"""The relay side by side with HAProxy in one run: ``make bench``. Unshaped veth, no delay: what a machine costs, not a line.

Peers: HAProxy 2.6 under ``mptcpize`` at both ends with PROXY v2 (it neither authorizes nor speaks Convert), and plain
forwarding. Rounds of all variants are interleaved, since the machine's speed drifts; every round is kept in the file.
CPU is the kernel's own account of the processes (/proc/PID/schedstat), both ends together.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "netns"))

from relay_world import CONCENTRATOR, INTERCEPT_PORT, SERVER4, World, inside

from cpe_mcp.lab import state

ROUNDS = 3
REQUESTS = 3000
PARALLEL = 32
IPERF_S = 2
HTTP_PORT, IPERF_PORT, HAPROXY_PORT = 80, 5201, 5126

HAPROXY = """
global
    maxconn 4096
    nbthread 1
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
"""
HAPROXY_CPE = f"""
frontend lan
    bind 0.0.0.0:{INTERCEPT_PORT} transparent
    default_backend far
backend far
    server far {CONCENTRATOR}:{HAPROXY_PORT} send-proxy-v2
"""
HAPROXY_FAR = f"""
frontend mptcp
    bind 0.0.0.0:{HAPROXY_PORT} accept-proxy
    default_backend servers
backend servers
    server asked 0.0.0.0
"""
NGINX = """
daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/nginx.err;
events {{ worker_connections 4096; }}
http {{ access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
  uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  server {{ listen {address}:80 backlog=4096; location / {{ return 200 "ok\\n"; }} }} }}
"""


def cpu_s(pids: list[int]) -> float:
    """CPU time of these processes and their children so far."""
    total = 0
    for pid in pids:
        for member in [pid, *children(pid)]:
            with open(f"/proc/{member}/schedstat") as file:
                total += int(file.read().split()[0])
    return total / 1e9


def children(pid: int) -> list[int]:
    found = []
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        for child in file.read().split():
            found += [int(child), *children(int(child))]
    return found


def resident_mb(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        for member in [pid, *children(pid)]:
            with open(f"/proc/{member}/smaps_rollup") as file:
                total += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total / 1024


class Bench:
    """One world with the servers in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.world = World(directory)
        for namespace in (self.world.client, self.world.router, self.world.far):
            with inside(namespace):
                Path("/proc/sys/net/ipv4/tcp_congestion_control").write_text("cubic")
        (directory / "nginx.conf").write_text(NGINX.format(dir=directory, address=SERVER4))
        self.spawn(self.world.far, "nginx", "-p", str(directory), "-c", str(directory / "nginx.conf"))
        self.spawn(self.world.far, "iperf3", "-s", "-B", SERVER4, "-p", str(IPERF_PORT))
        self.world.wait_listening(SERVER4, HTTP_PORT)
        self.world.wait_listening(SERVER4, IPERF_PORT)

    def spawn(self, namespace: str, *argv: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.world.processes.append(process)
        return process

    def stop(self, *processes: subprocess.Popen[bytes]) -> None:
        for process in processes:
            process.terminate()
            process.wait(10)
            self.world.processes.remove(process)

    def ours(self, pool: int) -> Callable[[], list[subprocess.Popen[bytes]]]:
        def start() -> list[subprocess.Popen[bytes]]:
            self.world.snapshot = self.world.snapshot._replace(pool_size=pool)
            self.world.settings["pool_max"] = self.world.settings["half_open_max"] = 4096
            self.world.up_control.frames.clear()
            self.world.far_control.frames.clear()
            return [self.world.start_concentrator(), self.world.start_upstream()]

        return start

    def haproxy(self) -> list[subprocess.Popen[bytes]]:
        started = []
        for namespace, name, text in (
            (self.world.far, "far", HAPROXY_FAR),
            (self.world.router, "cpe", HAPROXY_CPE),
        ):
            path = self.directory / f"haproxy-{name}.cfg"
            path.write_text(HAPROXY + text)
            started.append(self.spawn(namespace, "mptcpize", "run", "haproxy", "-db", "-f", str(path)))
        self.world.wait_listening(CONCENTRATOR, HAPROXY_PORT)
        time.sleep(0.3)
        return started

    def requests(self, pids: list[int]) -> dict[str, float]:
        """Short connections: requests/s, and microseconds of CPU per connection at both ends together."""
        before = cpu_s(pids)
        output = self.client("ab", "-q", "-n", str(REQUESTS), "-c", str(PARALLEL), f"http://{SERVER4}/")
        failed = re.search(r"Failed requests:\s+(\d+)", output)
        rate = re.search(r"Requests per second:\s+([\d.]+)", output)
        assert rate is not None, output
        assert failed is not None, output
        return {
            "requests_s": float(rate.group(1)),
            "failed": float(failed.group(1)),
            "cpu_us": (cpu_s(pids) - before) / REQUESTS * 1e6,
        }

    def bulk(self, pids: list[int], *, down: bool) -> dict[str, float]:
        """One connection as fast as it goes."""
        before = cpu_s(pids)
        argv = ["iperf3", "-J", "-c", SERVER4, "-p", str(IPERF_PORT), "-t", str(IPERF_S), *(["-R"] if down else [])]
        end = json.loads(self.client(*argv))["end"]
        moved = end["sum_received"]["bytes"] / 1e9
        return {
            "gbit": end["sum_received"]["bits_per_second"] / 1e9,
            "cpu_ms_gb": (cpu_s(pids) - before) * 1000 / moved if moved else 0.0,
        }

    def client(self, *argv: str) -> str:
        command = ["ip", "netns", "exec", self.world.client, *argv]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def measure(directory: Path, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Every variant's rounds."""
    bench = Bench(directory)
    variants: dict[str, Callable[[], list[subprocess.Popen[bytes]]]] = {
        "forwarding": list,
        "haproxy": bench.haproxy,
        "cpe-mcp": bench.ours(0),
        "cpe-mcp, pool 64": bench.ours(64),
    }
    results: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    try:
        for number in range(rounds):
            for name, start in variants.items():
                processes = start()
                pids = [process.pid for process in processes]
                time.sleep(0.5)
                row = bench.requests(pids)
                for direction in ("up", "down"):
                    for key, value in bench.bulk(pids, down=direction == "down").items():
                        row[f"{key}_{direction}"] = value
                row["pss_mb"] = resident_mb(pids)
                results[name].append(row)
                bench.stop(*processes)
                print(f"round {number + 1} {name}: " + ", ".join(f"{k} {v:.1f}" for k, v in row.items()), flush=True)
    finally:
        bench.world.close()
    return results


METRICS = (
    ("requests_s", "short connections", "1/s", "higher"),
    ("cpu_us", "CPU per short connection, both ends", "us", "lower"),
    ("gbit_up", "one upload", "Gbit/s", "higher"),
    ("gbit_down", "one download", "Gbit/s", "higher"),
    ("cpu_ms_gb_up", "CPU per GB of upload, both ends", "ms", "lower"),
    ("cpu_ms_gb_down", "CPU per GB of download, both ends", "ms", "lower"),
    ("pss_mb", "memory (PSS) of both ends after it", "MB", "lower"),
)


def compare(results: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """Rows of build/bench.json: medians, and ratio > 1 where ours is better."""
    rows = []
    for name in ("cpe-mcp", "cpe-mcp, pool 64"):
        for peer in ("haproxy", "forwarding"):
            for key, metric, unit, better in METRICS:
                ours = statistics.median(row[key] for row in results[name])
                theirs = statistics.median(row[key] for row in results[peer])
                if not ours or not theirs:
                    continue  # forwarding has no process, so no CPU or memory of its own
                ratio = ours / theirs if better == "higher" else theirs / ours
                rows.append(
                    {
                        "metric": f"{metric} ({name})",
                        "unit": unit,
                        "ours": round(ours, 2),
                        "peer": round(theirs, 2),
                        "peer_name": peer,
                        "ratio": round(ratio, 2),
                        "better": better,
                        "ours_rounds": [round(row[key], 2) for row in results[name]],
                        "peer_rounds": [round(row[key], 2) for row in results[peer]],
                    }
                )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the relay beside HAProxy and plain forwarding.")
    parser.add_argument("--json", default="build/bench.json")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    missing = [name for name in ("ip", "nft", "nginx", "ab", "iperf3", "haproxy", "mptcpize") if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        print(
            f"bench needs root and these programs: {', '.join(missing) or 'all there, but not root'}", file=sys.stderr
        )
        return 2
    name = f"bench{os.getpid()}"
    state.claim(name, "cubic")  # bbr, a common default, is erratic at the microsecond round trips of a bare veth
    try:
        with tempfile.TemporaryDirectory(prefix="cpe-mcp-bench-") as directory:
            rows = compare(measure(Path(directory), options.rounds))
    finally:
        state.release(name)
    print(f"\n{'metric':<58} {'ours':>10} {'peer':>10} {'unit':<7} {'ratio':>6}  peer")
    for row in rows:
        print(
            f"{row['metric']:<58} {row['ours']:>10} {row['peer']:>10} {row['unit']:<7} {row['ratio']:>6}"
            f"  {row['peer_name']}"
        )
    path = Path(options.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
