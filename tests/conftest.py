"""Groups of tests by what they need, what is missing for those that cannot run, and which requirements were proven.

A test belongs to the group of its folder. Tests of a group whose needs are not met are skipped with the missing feature
named, and the summary at the end says which requirement identifiers ran and which did not.
"""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cpe_mcp.kernel.numbers import IPPROTO_MPTCP

GROUPS = ("unit", "fuzz", "netns", "openwrt", "bench")
OUTCOMES = ("passed", "failed", "skipped")


def _is_root() -> bool:
    return os.geteuid() == 0


@functools.cache
def _has_mptcp() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
    except OSError:
        return False
    return Path("/proc/sys/net/mptcp/enabled").read_text().strip() == "1"


@functools.cache
def _has_namespaces() -> bool:
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.call([unshare, "--net", "true"], stderr=subprocess.DEVNULL) == 0


def _program(name: str) -> Callable[[], bool]:
    return lambda: shutil.which(name) is not None


NEEDS: dict[str, dict[str, Callable[[], bool]]] = {
    "netns": {
        "root": _is_root,
        "network namespaces": _has_namespaces,
        "kernel MPTCP": _has_mptcp,
        "the program ip": _program("ip"),
        "the program nft": _program("nft"),
    },
    "openwrt": {"the program ubus": _program("ubus"), "the program uci": _program("uci")},
}
NEEDS["bench"] = NEEDS["netns"]


class Evidence:
    """What ran, by group and by requirement, and why the rest did not."""

    def __init__(self) -> None:
        self.groups: dict[str, list[str]] = {}
        """Test identifier -> its groups."""
        self.requirements: dict[str, list[str]] = {}
        """Test identifier -> requirement identifiers."""
        self.outcomes: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        """Test identifier -> why it was skipped."""

    def group_lines(self) -> Iterator[str]:
        """One line for each group that was collected."""
        for group in GROUPS:
            tests = [test for test, groups in self.groups.items() if group in groups and test in self.outcomes]
            if not tests:
                continue
            counts = [f"{sum(self.outcomes[test] == outcome for test in tests)} {outcome}" for outcome in OUTCOMES]
            yield f"{group:8} {', '.join(counts)}"
            for reason in sorted({self.reasons[test] for test in tests if self.outcomes[test] == "skipped"}):
                yield f"{'':8} skipped: {reason}"

    def requirement_lines(self) -> Iterator[str]:
        """Requirement identifiers: failed in any test, else proven by those that ran, else not run."""
        outcomes: dict[str, set[str]] = defaultdict(set)
        missing: dict[str, set[str]] = defaultdict(set)
        for test, outcome in self.outcomes.items():
            for requirement in self.requirements[test]:
                outcomes[requirement].add(outcome)
                if outcome == "skipped":
                    missing[requirement].add(self.reasons[test])
        verdicts: dict[str, list[str]] = {"proven": [], "FAILED": [], "not run": []}
        for requirement, seen in sorted(outcomes.items()):
            verdicts["FAILED" if "failed" in seen else "proven" if "passed" in seen else "not run"].append(requirement)
        for verdict, requirements in verdicts.items():
            if requirements:
                yield f"requirements {verdict}: {', '.join(requirements)}"
        for requirement, reasons in sorted(missing.items()):
            if requirement not in verdicts["not run"]:
                yield f"requirement {requirement} in part only: {'; '.join(sorted(reasons))}"

    def skipped_in(self, group: str) -> int:
        """How many tests of a group did not run."""
        return sum(group in self.groups[test] for test, outcome in self.outcomes.items() if outcome == "skipped")


EVIDENCE = pytest.StashKey[Evidence]()


def pytest_configure(config: pytest.Config) -> None:
    """Start with no evidence."""
    config.stash[EVIDENCE] = Evidence()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test with the group of its folder, and skip those whose needs are not met."""
    evidence = config.stash[EVIDENCE]
    missing = {group: [need for need, is_met in needs.items() if not is_met()] for group, needs in NEEDS.items()}
    for item in items:
        folder = next((part for part in reversed(item.path.parts) if part in GROUPS), None)
        if folder is not None and item.get_closest_marker(folder) is None:
            item.add_marker(folder)
        groups = [group for group in GROUPS if item.get_closest_marker(group) is not None]
        evidence.groups[item.nodeid] = groups
        evidence.requirements[item.nodeid] = [str(mark.args[0]) for mark in item.iter_markers("requirement")]
        for group in groups:
            if missing.get(group):
                item.add_marker(pytest.mark.skip(reason=f"needs {', '.join(missing[group])}"))


class Recorder:
    """Keeps the outcome of every test; an error in set-up or tear-down counts as failed."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note one phase of one test."""
        if report.when != "call" and report.outcome == "passed":
            return
        if self._evidence.outcomes.get(report.nodeid) != "failed":
            self._evidence.outcomes[report.nodeid] = report.outcome
        if report.skipped and isinstance(report.longrepr, tuple):
            self._evidence.reasons[report.nodeid] = report.longrepr[2].removeprefix("Skipped: ")
        else:
            self._evidence.reasons.setdefault(report.nodeid, "expected to fail")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Begin to record."""
    session.config.pluginmanager.register(Recorder(session.config.stash[EVIDENCE]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which groups and requirements ran, before pytest's own last line."""
    evidence = config.stash[EVIDENCE]
    terminalreporter.section("groups and requirements")
    for line in (*evidence.group_lines(), *evidence.requirement_lines()):
        terminalreporter.line(line)
    skipped = evidence.skipped_in("netns")
    if skipped and os.environ.get("CI") == "true" and _is_root() and _has_mptcp():
        terminalreporter.line(
            f"ATTENTION: {skipped} netns tests were skipped although this machine has root and kernel MPTCP; "
            "this run does not prove what they would",
            red=True,
        )
