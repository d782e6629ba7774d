"""The router's figures as Prometheus text, for the textfile collector of a node exporter. Pure.

The concentrator serves its own over HTTP; a router has an exporter already, and this is a file in RAM that it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from cpe_mcp.settings.router import GB

PREFIX = "cpe_mcp_"
GAUGE, COUNTER = "gauge", "counter"


class Family(NamedTuple):
    """One metric with all its samples."""

    name: str
    kind: str
    doc: str
    samples: tuple[tuple[Mapping[str, str], float], ...]


def exposition(status: Mapping[str, Any]) -> str:
    """Text format 0.0.4 made from the answer of ``status``."""
    lines: list[str] = []
    for family in families(status):
        lines.append(f"# HELP {PREFIX}{family.name} {family.doc}")
        lines.append(f"# TYPE {PREFIX}{family.name} {family.kind}")
        lines += [f"{PREFIX}{family.name}{_labels(labels)} {_number(value)}" for labels, value in family.samples]
    return "\n".join(lines) + "\n"


def families(status: Mapping[str, Any]) -> Iterator[Family]:
    """All metrics, in the order in which they are shown."""
    taken, pool, totals, radius = (status[name] for name in ("interception", "pool", "totals", "radius"))
    version = {"version": status["version"], "kernel": status["kernel"]}
    yield _one("build", GAUGE, "Version of the package and of the kernel; always 1.", 1, version)
    yield _one("uptime_seconds", GAUGE, "Since the control daemon started.", status["uptime_s"])
    yield _one("proxying", GAUGE, "1 while connections may be proxied.", status["proxy"])
    on = {"ipv4": taken["on"], "ipv6": taken["on"] and taken["ipv6"]}
    yield _many("intercepting", GAUGE, "1 while new connections of this family are taken.", "family", on)
    yield _one("workers", GAUGE, "Connected relay workers.", len(status["workers"]))
    yield _one("radius_accepted", GAUGE, "1 while RADIUS has accepted, or is not asked.", _is_allowed(radius))
    yield from _wans(status["wans"])
    usable = {row["name"]: row["usable"] for row in status["concentrators"]}
    yield _many("concentrator_usable", GAUGE, "1 while new connections may go there.", "concentrator", usable)
    yield _one("pool_ready", GAUGE, "Warm connections.", pool["ready"])
    yield _one("pool_plain", GAUGE, "Warm connections that fell back to plain TCP.", pool["plain"])
    yield _one("pool_taken_total", COUNTER, "Flows that a warm connection carried.", pool["taken"])
    yield _one("pool_missed_total", COUNTER, "Flows that found no warm connection.", pool["missed"])
    yield _one(
        "flows_lossy_total", COUNTER, "Flows that got the congestion control for lossy lines.", status["lossy_flows"]
    )
    yield _one("flows_live", GAUGE, "Connections that are carried now.", status["live"])
    yield _many("flows_total", COUNTER, "Finished connections by action.", "action", totals["by_action"])
    yield _many("flow_ends_total", COUNTER, "Finished connections by the reason they ended.", "end", totals["by_end"])
    moved = {"down": totals["bytes_down"], "up": totals["bytes_up"]}
    yield _many("flow_bytes_total", COUNTER, "Bytes of finished connections.", "direction", moved)
    doc = "Finished connections that were proxied over plain TCP, by the WAN of the first subflow."
    yield _by_two("fallbacks_total", doc, ("wan", "reason"), status["fallbacks"])
    doc = "Handshakes with concentrators, by how they ended."
    yield _by_two("handshakes_total", doc, ("wan", "outcome"), status["handshakes"])
    states = {"works": 1.0, "removed": 0.0}
    known = {row["name"]: row["mptcp"]["state"] for row in status["wans"] if row["mptcp"]["state"] in states}
    through = {name: states[state] for name, state in known.items()}
    yield _many("wan_mptcp", GAUGE, "1 where Multipath TCP gets through, 0 where it is removed.", "wan", through)


def _wans(wans: Iterable[Mapping[str, Any]]) -> Iterator[Family]:
    columns: tuple[tuple[str, str, str, Callable[[Mapping[str, Any]], float]], ...] = (
        ("wan_usable", GAUGE, "1 while subflows use this WAN.", lambda row: row["usable"]),
        ("wan_degraded", GAUGE, "1 while it works, but not as it should.", lambda row: row["state"] == "degraded"),
        ("wan_repairs_total", COUNTER, "Times that lost subflows were made anew.", lambda row: row["repairs"]),
        ("wan_backup", GAUGE, "1 while its subflows are backup.", lambda row: row["backup"]),
        ("wan_rtt_seconds", GAUGE, "Round trip to the concentrator.", lambda row: row["rtt_ms"] / 1000),
        ("wan_receive_bytes_total", COUNTER, "All bytes its device received.", lambda row: row["bytes_down"] or 0),
        ("wan_transmit_bytes_total", COUNTER, "All bytes its device sent.", lambda row: row["bytes_up"] or 0),
    )
    rows = list(wans)
    for name, kind, doc, value in columns:
        yield _many(name, kind, doc, "wan", {row["name"]: value(row) for row in rows})
    lost = {row["name"]: row["loss_percent"] / 100 for row in rows if row["loss_percent"] is not None}
    yield _many("wan_probe_loss_ratio", GAUGE, "Share of the probes of late that were not answered.", "wan", lost)
    limited = {row["name"]: row["quota"] for row in rows if row["quota"]["limit_gb"]}
    doc = "Volume of a month, of WANs that have a quota."
    yield _many("wan_quota_bytes", GAUGE, doc, "wan", {name: q["limit_gb"] * GB for name, q in limited.items()})
    doc = "Used of it in this counting period, both directions."
    yield _many("wan_quota_used_bytes", GAUGE, doc, "wan", {name: q["used_gb"] * GB for name, q in limited.items()})


def _is_allowed(radius: Mapping[str, Any]) -> bool:
    return bool(radius["accepted"] or not radius["enabled"])


def _one(name: str, kind: str, doc: str, value: float, labels: Mapping[str, str] | None = None) -> Family:
    return Family(name, kind, doc, ((labels or {}, value),))


def _many(name: str, kind: str, doc: str, label: str, values: Mapping[str, float]) -> Family:
    return Family(name, kind, doc, tuple(({label: key}, value) for key, value in values.items()))


def _by_two(name: str, doc: str, labels: tuple[str, str], counts: Mapping[str, Mapping[str, float]]) -> Family:
    rows = [(one, other, count) for one, row in counts.items() for other, count in row.items()]
    return Family(name, COUNTER, doc, tuple(({labels[0]: one, labels[1]: other}, count) for one, other, count in rows))


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
