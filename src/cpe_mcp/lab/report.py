"""A scenario's report for a person: what was there, what was measured, which figure held its limit. Pure.

At most about 60 lines of 100 columns; a part whose figures are missing is left out, and its failure stands in the verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

WIDTH = 100
PICTURE = """\
                        +--{dsl}--+
 client ---- router ----|                            |---- concentrator ---- server
             cpe-mcp    +--{lte}--+          |
  plain TCP              Multipath TCP, both at once          RADIUS      plain TCP"""
LINE_WIDTH = 24
MEGA = 1_000_000


def render(report: Mapping[str, Any]) -> str:
    """The whole report."""
    parts = (
        _network(report),
        _found(report),
        _lines(report),
        _transfers(report),
        _first_byte(report),
        _short(report),
        _notes(report),
        _cuts(report),
        _checks(report),
        _verdict(report),
    )
    return "\n\n".join("\n".join(line[:WIDTH] for line in part) for part in parts if part)


def _network(report: Mapping[str, Any]) -> list[str]:
    wans = report.get("wans", {})
    labels = {name: _line_label(name, wans.get(name, {})).center(LINE_WIDTH, "-") for name in ("dsl", "lte")}
    picture = PICTURE.format(**labels).splitlines() if wans else []
    facts = [
        f"Linux {report['kernel']}" if "kernel" in report else "",
        f"congestion control {report['congestion_control']}" if "congestion_control" in report else "",
        f"with the package {report['package_congestion_control']}" if "package_congestion_control" in report else "",
        f"lines: {report['emulator']}" if "emulator" in report else "",
    ]
    return ["The network", "", *picture, "", " " + ", ".join(fact for fact in facts if fact)]


def _line_label(name: str, wan: Mapping[str, Any]) -> str:
    rate = wan.get("rate_mbit") or {}
    if isinstance(rate, Mapping) and rate:
        return f" {name} {rate['down']:g}/{rate['up']:g} {wan.get('rtt_ms', 0):g} ms "
    return f" {name} "


def _found(report: Mapping[str, Any]) -> list[str]:
    lines = []
    discovery = report.get("discovery") or {}
    if discovery:
        best = discovery["concentrators"][0]
        where = f"{', '.join(best['addresses'])} port {best['port']}"
        lines.append(f"Concentrator  {where}, found by {discovery['source']} on {best['interface'] or 'no line'}")
    radius = report.get("radius") or {}
    if radius:
        lines.append(f"RADIUS        {radius['result']} by {radius['server'] or 'nobody'}: {radius['text']}")
    return lines


def _lines(report: Mapping[str, Any]) -> list[str]:
    rows = [(name, wan["tcp_mbit"]) for name, wan in report.get("wans", {}).items() if "tcp_mbit" in wan]
    if not rows:
        return []
    lines = ["Each line alone, plain TCP, without the package"]
    for name, rate in rows:
        each = "".join(f" {rate[way]:>7.1f} Mbit/s {way}" for way in ("down", "up") if way in rate)
        lines.append(f"  {name:<10}{each}")
    return lines


def _transfers(report: Mapping[str, Any]) -> list[str]:
    lines = []
    for job in ("download", "upload"):
        found = report.get(job)
        if not found:
            continue
        shares = ", ".join(
            f"{name} {found['bytes_by_wan'][name] / MEGA:.0f} MB ({share:.0%})"
            for name, share in found["share_by_wan"].items()
        )
        content = "content equal" if found["sha256_ok"] else "CONTENT DIFFERS"
        lines.append(
            f"  {job:<10} {found['mbit']:>7.1f} Mbit/s  {found['bytes'] / MEGA:.0f} MB in {found['seconds']:.1f} s,"
            f" {found['efficiency']:.0%} of both lines together, {content}"
        )
        lines.append(f"{'':21}{shares}")
    return ["One connection with the package", *lines] if lines else []


def _first_byte(report: Mapping[str, Any]) -> list[str]:
    times = {name: value for name, value in (report.get("ttfb_ms") or {}).items() if value is not None}
    if not times:
        return []
    names = {"direct": "without the package", "fresh": "with it", "pooled": "with a warm connection"}
    return [
        "Time to the first byte",
        *(f"  {names[name]:<24} {times[name]:>6.1f} ms" for name in names if name in times),
    ]


def _short(report: Mapping[str, Any]) -> list[str]:
    times = report.get("short_ms") or {}
    plain, ours = times.get("plain") or {}, times.get("ours") or {}
    rows = [f"  {name:<10} {plain[name]:>7.1f} ms {ours[name]:>7.1f} ms" for name in plain if name in ours]
    return ["Short transfers: plain TCP on the best line, and with the package", *rows] if rows else []


def _notes(report: Mapping[str, Any]) -> list[str]:
    """What a scenario found, in its own words."""
    notes = report.get("notes") or []
    return ["What was seen", *(f"  {note}" for note in notes)] if notes else []


def _cuts(report: Mapping[str, Any]) -> list[str]:
    rows = report.get("failover") or []
    if not rows:
        return []
    how = {
        "silent": "goes dead silently",
        "down": "is unplugged",
        "renewed": "loses its lease",
        "replaced": "changes address",
    }
    lines = ["What happens to a line in the middle of a download"]
    for row in rows:
        recovery = (
            "never back" if row["recovery_ms"] is None else f"full speed of the rest after {row['recovery_ms']} ms"
        )
        lost = row["connections_lost"]
        lines.append(
            f"  {row['wan']} {how.get(row['cut'], row['cut']):<19} pause {row['gap_ms']:>4} ms, {recovery},"
            f" {'no connection lost' if not lost else f'{lost} CONNECTIONS LOST'}"
        )
    return lines


def _checks(report: Mapping[str, Any]) -> list[str]:
    checks = report.get("checks") or []
    if not checks:
        return []
    return ["Figures against their limits", *(f"  {_check(row)}" for row in checks)]


def _check(row: Mapping[str, Any]) -> str:
    if row["sense"] == "is":
        value = {True: "yes", False: "no", None: "not measured"}[row["value"]]
        figure = value
    else:
        unit = f" {row['unit']}" if row["unit"] else ""
        value = "not measured" if row["value"] is None else f"{row['value']:g}{unit}"
        figure = f"{value} ({row['sense']} {row['limit']:g}{unit})"
    return f"{'ok    ' if row['ok'] else 'NOT ok'} {row['name']}: {figure}"


def _verdict(report: Mapping[str, Any]) -> list[str]:
    failed = [row for row in report.get("stages", ()) if not row["ok"]]
    lines = [f"Stage failed: {row['stage']}: {row['error']}" for row in failed]
    wrong = _names(row["name"] for row in report.get("checks", ()) if not row["ok"])
    if wrong:
        lines.append(f"Not held: {wrong}")
    seconds = f" (took {report['seconds']:.0f} s)" if "seconds" in report else ""
    passed = report.get("result") == "pass"
    return [*lines, f"Verdict: {'PASS, everything held' if passed else 'FAIL'}{seconds}"]


def _names(names: Iterable[str]) -> str:
    return "; ".join(names)
