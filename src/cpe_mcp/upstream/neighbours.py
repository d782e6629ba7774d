"""What else on this router has a say in where packets go: SQM, mwan3, pbr, foreign policy rules, the bridge filter.

:func:`describe` is pure and makes rows for ``cpe-mcp check``; :func:`look` reads the files and the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cpe_mcp.kernel.numbers import RULE_LOCAL
from cpe_mcp.settings.uci import Section, SettingsError, parse
from cpe_mcp.upstream.check_texts import Words, say, stage_row

UCI_DIRECTORY = "/etc/config"
FILES = ("sqm", "mwan3", "pbr")


class Neighbours(NamedTuple):
    """What was seen."""

    files: Mapping[str, tuple[Section, ...]]
    """UCI files that exist, of :data:`FILES`."""
    rules: tuple[str, ...]
    """Foreign policy rules that are asked before ours, as text."""
    bridge_filters: tuple[str, ...]
    """Names of the kernel's bridge filters that are on while a LAN device is a bridge."""


def describe(seen: Neighbours, wans: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of :func:`.check_texts.stage_row`; none for what is not there. ``wans``: rows of ``status``."""
    rows = []
    if seen.bridge_filters:
        detail = say("bridge-filtered", seen.bridge_filters)
        rows.append(stage_row("bridge", detail, say("bridge-filter-off"), ok=False, info=False))
    devices = {wan["device"]: wan["name"] for wan in wans}
    for queue in _enabled(seen.files.get("sqm", ()), "queue"):
        device = queue.get("interface", "")
        if device in devices:
            down, up = (_mbit(queue.get(name, "0")) for name in ("download", "upload"))
            rows.append(_note("sqm", say("sqm-shapes", device, down, up), say("sqm-rates", devices[device])))
    balanced = [section["name"] for section in _enabled(seen.files.get("mwan3", ()), "interface", default="0")]
    if balanced:
        rows.append(_note("mwan3", say("mwan3-balances", balanced), say("mwan3-forwarded")))
    pbr = seen.files.get("pbr", ())
    if _enabled(pbr, "pbr", default="0"):
        rows.append(_note("pbr", say("pbr-policies", len(_enabled(pbr, "policy"))), say("pbr-others")))
    if seen.rules:
        rows.append(_note("rules", say("rules-before", "; ".join(seen.rules)), say("rules-meant")))
    return rows


def look(lan: Iterable[str], directory: str = UCI_DIRECTORY) -> Neighbours:
    """Read the files and the kernel; ``lan``: the LAN's devices. A file that is not there or is broken is not a neighbour.

    Blocks for some milliseconds.
    """
    from cpe_mcp.kernel.bridge_filter import active
    from cpe_mcp.kernel.routing_view import rules

    files = {}
    for name in FILES:
        try:
            with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as file:
                files[name] = parse(file.read(), name)
        except (OSError, SettingsError):
            continue
    try:
        foreign = tuple(rule.text() for rule in rules() if 0 < rule.preference < RULE_LOCAL)
    except OSError:
        foreign = ()
    return Neighbours(files, foreign, active(lan))


def _enabled(sections: Iterable[Section], kind: str, default: str = "1") -> list[dict[str, str]]:
    """Options of the sections of this type that are switched on, with their ``name``."""
    found = []
    for section in sections:
        if section.type == kind:
            options = {"name": section.name, **{entry.name: entry.value for entry in section.entries}}
            if options.get("enabled", default) in ("1", "on", "true", "yes", "enabled"):
                found.append(options)
    return found


def _mbit(kbit: str) -> str:
    try:
        return f"{float(kbit) / 1000:g}"
    except ValueError:
        return "?"


def _note(stage: str, detail: Words, next_step: Words) -> dict[str, Any]:
    return stage_row(stage, detail, next_step, ok=True, info=True)
