"""Gathers what the support report shows: files, the kernel, and what the daemon has answered. The text is :mod:`.support`."""

from __future__ import annotations

import asyncio
import platform
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cpe_mcp.aaa.cookie import Credential
from cpe_mcp.kernel.mptcp import MptcpNetlink
from cpe_mcp.kernel.nft_view import table_listing
from cpe_mcp.kernel.routing_view import rules
from cpe_mcp.kernel.sysctl import read
from cpe_mcp.settings import RouterSettings, mask_secrets
from cpe_mcp.upstream.support import names_of, report, secrets_of, servers_of, without_people

RELEASE = Path("/etc/openwrt_release")
MODEL = Path("/tmp/sysinfo/model")
NETSTAT = Path("/proc/net/netstat")
SYSCTLS = (
    "net.mptcp.enabled",
    "net.mptcp.path_manager",
    "net.mptcp.scheduler",
    "net.mptcp.blackhole_timeout",
    "net.mptcp.allow_join_initial_addr_port",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_available_congestion_control",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.conf.all.rp_filter",
    "net.bridge.bridge-nf-call-iptables",
)
FLAGS = {1: "signal", 2: "subflow", 4: "backup", 8: "fullmesh", 16: "implicit", 32: "laminar"}


async def gather(
    settings: RouterSettings,
    *,
    status: Mapping[str, Any],
    stages: Sequence[Mapping[str, Any]],
    live: Sequence[Mapping[str, Any]],
    finished: Sequence[Mapping[str, Any]],
    granted: Credential,
    secrets: Iterable[str],
    full: bool,
) -> str:
    """The report. ``granted`` and ``secrets``: what is not in the settings; ``full``: people as they are."""
    nft = await asyncio.to_thread(table_listing)
    parts: dict[str, Any] = {
        "about": _about(status),
        "check": [
            f"{'--' if row.get('info') else 'ok' if row['ok'] else 'FAIL'} {row['stage']}: {row['detail']}"
            + (f" -> {row['next']}" if row["next"] else "")
            for row in stages
        ],
        "settings": mask_secrets(settings),
        "status": {name: value for name, value in status.items() if name not in ("wans", "concentrators", "sources")},
        "paths": status["wans"],
        "concentrators": status["concentrators"],
        "sources": status["sources"],
        "live connections": list(live),
        "finished connections": list(finished),
        "nft table inet cpe_mcp": nft,
        "policy rules": _asked(lambda: [rule.text() for rule in rules()]),
        "mptcp endpoints": _asked(_endpoints),
        "sysctl": {name: value for name in SYSCTLS if (value := read(name)) is not None},
        "mptcp counters": _counters(),
    }
    text = report(
        parts, [*secrets, *secrets_of(settings), *_printed_octets(granted.key), *_printed_octets(granted.handle)]
    )
    return text if full else without_people(text, {*names_of(settings), granted.name}, servers_of(settings, status))


def _about(status: Mapping[str, Any]) -> dict[str, str]:
    about = {
        "cpe-mcp": status["version"],
        "kernel": status["kernel"],
        "machine": platform.machine(),
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }
    for name, path, pattern in (("system", RELEASE, r"DISTRIB_DESCRIPTION='?([^'\n]*)"), ("model", MODEL, r"(.+)")):
        try:
            found = re.search(pattern, path.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if found:
            about[name] = found[1]
    return about


def _endpoints() -> list[str]:
    netlink = MptcpNetlink()
    try:
        subflows, accepted = netlink.limits()
        lines = [f"limits: subflows {subflows}, add_addr_accepted {accepted}"]
        for endpoint in netlink.endpoints():
            words = " ".join(word for bit, word in FLAGS.items() if endpoint.flags & bit)
            lines.append(f"{endpoint.address} id {endpoint.id} {words} device index {endpoint.device_index}")
    finally:
        netlink.close()
    return lines


def _counters() -> str:
    """The MPTcpExt line of this namespace, counters that are 0 left out."""
    try:
        lines = [line.split() for line in NETSTAT.read_text(encoding="ascii").splitlines()]
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    rows = [line[1:] for line in lines if line and line[0] == "MPTcpExt:"]
    if len(rows) != 2:
        return ""
    return " ".join(f"{name}={count}" for name, count in zip(*rows, strict=False) if count != "0")


def _asked(question: Any) -> Any:
    try:
        return question()
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"


def _printed_octets(octets: bytes) -> tuple[str, str]:
    """As hexadecimal, and as Python prints them."""
    return octets.hex(), repr(bytes(octets))[2:-1]
