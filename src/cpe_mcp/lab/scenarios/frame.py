"""What every scenario is to ``cpe-mcp-lab``, and the frame of those that are a course and the checks of what it found."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from cpe_mcp.lab import report as reporting
from cpe_mcp.lab.link import DEFAULT_LINKS, LinkSpec
from cpe_mcp.lab.measure import size_of
from cpe_mcp.lab.network import Lab
from cpe_mcp.lab.plan import LINK_NAMES
from cpe_mcp.lab.scenarios.daemons import await_taken
from cpe_mcp.lab.scenarios.limits import Check
from cpe_mcp.lab.scenarios.lines import measure_down, reckon_down
from cpe_mcp.lab.scenarios.stages import Stages, in_lab
from cpe_mcp.lab.scenarios.transfer import Content

LOG_LINES = 40
DAEMON_LOGS = ("cpe-mcpd", "cpe-mcp-relay", "mcp-concentrator1", "mcp-concentrator2")
"""Of which a report keeps the last LOG_LINES when something did not hold."""

AS_SHIPPED: Mapping[str, Any] = {"package_congestion_control": "auto"}
"""Arguments of Lab: figures that are held against what a user has today are those of the package's defaults."""

Report = dict[str, Any]
Course = Callable[[Lab, Stages, Report], None]
"""What is done in a lab. A failed stage leaves its part of the report out."""
Checks = Callable[[Mapping[str, Any]], Sequence[Check]]
"""Pure: the report against its limits. All checks, whatever is missing in the report: what was not measured does not hold."""


class Run(Protocol):
    """``options`` are the arguments of :class:`cpe_mcp.lab.network.Lab`. Prints what it found and fills ``report`` as it goes,
    last its ``result``, ``pass`` or ``fail``. Raises LabError when there is no lab."""

    def __call__(self, options: Mapping[str, Any], report: Report) -> None: ...


class Scenario(NamedTuple):
    """One thing to see."""

    name: str
    summary: str
    run: Run
    links: Mapping[str, LinkSpec] = DEFAULT_LINKS
    """Its lines, where the user gives none."""
    lasting: Callable[[float], Run] | None = None
    """The same with another length of its load, in s; None where that makes no sense."""


def judged(course: Course, checks: Checks, **lab_options: Any) -> Run:
    """A scenario's ``run``. ``lab_options``: its own arguments of the Lab, below what is given."""

    def run(options: Mapping[str, Any], report: Report) -> None:
        kept: dict[str, list[str]] = {}
        stages = in_lab({**lab_options, **options}, report, partial(_watched, course, kept))
        found = checks(report)
        report["checks"] = [check._asdict() for check in found]
        report["result"] = "fail" if stages.failed or not all(check.ok for check in found) else "pass"
        if report["result"] == "fail":
            report["logs"] = kept
        print(reporting.render(report))

    return run


def _watched(course: Course, kept: dict[str, list[str]], lab: Lab, stages: Stages, report: Report) -> None:
    """The course; afterwards the ends of the daemons' logs are in ``kept``."""
    try:
        course(lab, stages, report)
    finally:
        for name in DAEMON_LOGS:
            with contextlib.suppress(Exception):  # it never ran
                kept[name] = lab.log(name).splitlines()[-LOG_LINES:]


def prepared(
    lab: Lab, stages: Stages, report: Report, seconds: float, *, is_measured: bool = True, **settings: Any
) -> Content | None:
    """What most scenarios begin with: content for so many seconds of both lines, each line alone, the daemons with ``settings``
    (as for :func:`start_daemons`). None when there is no content.

    Not ``is_measured``: what each line carries alone is taken from its rate, for scenarios that only need to know about it.
    """
    whole = sum(lab.link(name).spec.down_mbit for name in LINK_NAMES)
    content = stages.do("make the content", partial(Content, lab, size_of(whole, seconds)))
    if content is not None:
        measure_down(lab, stages, report) if is_measured else reckon_down(lab, report)
        start_daemons(lab, stages, **settings)
    return content


def start_daemons(lab: Lab, stages: Stages, *, concentrator: Mapping[str, Any] | None = None, **settings: Any) -> None:
    """One concentrator, and the router with ``settings`` (arguments of :meth:`Lab.start_cpe`), ready to take connections.
    ``concentrator``: arguments of :meth:`Lab.start_concentrator`."""
    stages.do("start the concentrator", partial(lab.start_concentrator, **(concentrator or {})))
    stages.do("start the router's daemons", partial(lab.start_cpe, **settings))
    stages.do("the daemons take connections", partial(await_taken, lab))
