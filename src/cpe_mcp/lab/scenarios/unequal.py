"""Two lines that are not alike, in round trip, in rate or in loss: one long download, and short ones, against plain TCP."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any, NamedTuple

from cpe_mcp.lab.link import LinkSpec
from cpe_mcp.lab.measure import size_of
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.plan import LINK_NAMES
from cpe_mcp.lab.scenarios.frame import AS_SHIPPED, Report, Scenario, judged, start_daemons
from cpe_mcp.lab.scenarios.limits import BEST_LINE_MIN, SHORT_MAX, Check, check, holds
from cpe_mcp.lab.scenarios.lines import measure_down
from cpe_mcp.lab.scenarios.main_job import download
from cpe_mcp.lab.scenarios.stages import Stages
from cpe_mcp.lab.scenarios.transfer import Content, fetch_ms

DOWNLOAD_S, EFFICIENCY_S = 10.0, 15.0
"""Slow start and the slower line's later start are a small part of it. The second where an efficiency is asked for, as in the
demo."""
SHORT_SIZES = {"100 kB": 100_000, "500 kB": 500_000, "2 MB": 2_000_000}
SHORT_TRIES = 5
"""Of each size, of which the median counts."""
SHORT_PAUSE_S = 0.1
"""Between them: a warm connection is ready again."""
QUIET_S = 5.5
"""Before the long download: longer than ``idle_s``, so that it begins as any download of a quiet home does."""


class Variant(NamedTuple):
    """One pair of lines."""

    name: str
    summary: str
    dsl: LinkSpec
    lte: LinkSpec
    efficiency_min: float | None = None
    """None: only to be compared with the best single line."""
    is_short_measured: bool = False

    @property
    def download_s(self) -> float:
        """How long the download takes, about."""
        return DOWNLOAD_S if self.efficiency_min is None else EFFICIENCY_S


FAST = LinkSpec(100, 40, 20)
VARIANTS = (
    Variant("rtt-20-20", "lines of 20 and 20 ms", FAST, LinkSpec(50, 25, 20), 0.95),
    Variant("rtt-20-50", "lines of 20 and 50 ms", FAST, LinkSpec(50, 25, 50), 0.90, True),
    Variant("rtt-20-100", "lines of 20 and 100 ms", FAST, LinkSpec(50, 25, 100), None, True),
    Variant("rtt-20-200", "lines of 20 and 200 ms", FAST, LinkSpec(50, 25, 200), 0.80, True),
    Variant("rate-100-10", "lines of 100 and 10 Mbit/s", FAST, LinkSpec(10, 5, 50)),
    Variant("rate-200-10", "lines of 200 and 10 Mbit/s", LinkSpec(200, 50, 20), LinkSpec(10, 5, 50)),
    Variant("loss-slow", "1 % loss on the slower line", FAST, LinkSpec(50, 25, 50, loss_percent=1)),
    Variant("loss-fast", "1 % loss on the faster line", LinkSpec(100, 40, 20, loss_percent=1), LinkSpec(50, 25, 50)),
)


def short_ms(lab: Lab) -> dict[str, float]:
    """Median time of each short transfer, in ms from before the handshake to the last byte. Raises OSError, LabError."""
    return {
        name: round(median(fetch_ms(lab, size, tries=SHORT_TRIES, pause_s=SHORT_PAUSE_S)), 1)
        for name, size in SHORT_SIZES.items()
    }


def _course(lab: Lab, stages: Stages, report: Report, *, variant: Variant) -> None:
    whole = sum(lab.link(name).spec.down_mbit for name in LINK_NAMES)
    content = stages.do("make the content", partial(Content, lab, size_of(whole, variant.download_s)))
    if content is None:
        return
    measure_down(lab, stages, report)
    short: dict[str, Any] = report.setdefault("short_ms", {}) if variant.is_short_measured else {}
    if variant.is_short_measured:
        short["plain"] = stages.do("short transfers, plain TCP over dsl", partial(short_ms, lab))
    start_daemons(lab, stages)
    if variant.is_short_measured:
        short["ours"] = stages.do("short transfers with the package", partial(short_ms, lab))
        stages.do("the lines fall quiet", partial(time.sleep, QUIET_S))
    report["download"] = stages.do(
        "one download over both lines", partial(download, lab, report, content, "down", variant.download_s)
    )
    report.setdefault("method", {})["transfer"] = f"about {variant.download_s:g} s, all of it counted"


def _checks(report: Mapping[str, Any], *, variant: Variant) -> Sequence[Check]:
    found = report.get("download") or {}
    rate, best = found.get("mbit"), (report.get("direct") or {}).get("mbit")
    against_best = round(rate / best, 3) if rate is not None and best else None
    checks = [
        holds("content equal at both ends", found.get("sha256_ok")),
        check("download: against the best line alone", against_best, ">=", BEST_LINE_MIN),
    ]
    if variant.efficiency_min is not None:
        checks.append(check("download: efficiency", found.get("efficiency"), ">=", variant.efficiency_min))
    if variant.is_short_measured:
        checks += short_checks(report.get("short_ms") or {})
    return checks


def short_checks(short: Mapping[str, Any]) -> list[Check]:
    """``plain`` and ``ours``: ms by size."""
    plain, ours = short.get("plain") or {}, short.get("ours") or {}
    return [
        check(
            f"{name}: time against plain TCP on the best line",
            round(ours[name] / plain[name], 3) if name in ours and name in plain else None,
            "<=",
            SHORT_MAX,
        )
        for name in SHORT_SIZES
    ]


def scenarios() -> list[Scenario]:
    """One for each variant."""
    return [
        Scenario(
            variant.name,
            f"{variant.summary}: one long download{' and short ones' if variant.is_short_measured else ''}",
            judged(partial(_course, variant=variant), partial(_checks, variant=variant), **AS_SHIPPED),
            {"dsl": variant.dsl, "lte": variant.lte},
        )
        for variant in VARIANTS
    ]
