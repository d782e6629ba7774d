"""The manual against the program: what a page lists is what the code has."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cpe_mcp.cli.main import COMMANDS
from cpe_mcp.concentrator.figures import COUNTER, PREFIX, Figures, SubscriberTotals, families
from cpe_mcp.policy.reasons import TEXTS, Reason
from cpe_mcp.settings import parse_concentrator, parse_router
from cpe_mcp.upstream.metrics import families as router_families

pytestmark = pytest.mark.unit

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md"])
MANUAL = sorted((DOCS / "manual").rglob("*.md"))
REASONS = sorted(value for name, value in vars(Reason).items() if name.isupper())


def test_every_reason_has_a_text() -> None:
    assert sorted(TEXTS) == REASONS


def test_troubleshooting_has_every_reason_with_its_text_once() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| ([^|]*) \|", (DOCS / "manual/troubleshooting.md").read_text(), re.M)
    assert sorted(name for name, _ in rows) == REASONS
    assert {name: text.strip() for name, text in rows} == TEXTS


def headings(page: Path) -> list[str]:
    """Anchors of a page, as Python-Markdown makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    titles = re.findall(r"^#{1,6} (.+)$", text, re.M)
    return [re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles]


def test_every_page_is_in_the_navigation_once_and_is_there() -> None:
    """What mkdocs says in its strict mode, without mkdocs."""
    navigation = (DOCS.parent / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    listed = re.findall(r"^ *- [^:\n]+: (\S+\.md)$", navigation, re.M)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS / "manual")) for page in MANUAL)
    assert listed[0] == "index.md"


@pytest.mark.parametrize("page", MANUAL, ids=lambda page: page.name)
def test_pages_of_the_manual_link_within_it_only(page: Path) -> None:
    """The rendered pages have nothing else, and no server of somebody else is needed to read them."""
    text = page.read_text()
    for image, target, anchor in re.findall(r"(!?)\[[^]]*\]\(([^)#\s]*)(#[^)\s]+)?[^)]*\)", text):
        if "://" in target:
            assert not image, f"{page.name} shows an image of a foreign server"
            continue
        other = page.parent / target if target else page
        assert other.is_relative_to(DOCS / "manual"), f"{page.name} links to {target}"
        assert ".." not in target, f"{page.name} links to {target}"
        assert other.is_file(), f"{page.name} links to {target}"
        if anchor:
            assert anchor[1:] in headings(other), f"{page.name} links to {target}{anchor}"


@pytest.mark.parametrize("page", MANUAL, ids=lambda page: page.name)
def test_pages_have_one_title_and_no_title_twice(page: Path) -> None:
    assert re.match(r"# \S", page.read_text())
    found = headings(page)
    assert len(set(found)) == len(found)
    assert len(re.findall(r"^# ", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)) == 1


@pytest.mark.parametrize("page", MANUAL, ids=lambda page: page.name)
def test_no_command_is_split_over_two_lines(page: Path) -> None:
    """The rendered page would break it there too."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    assert [line for line in text.splitlines() if line.count("`") % 2] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def metrics_listed(section: str) -> set[str]:
    """Metric names of one section of the page."""
    text = (DOCS / "manual/metrics.md").read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `([a-z_]+)` \| (?:gauge|counter) \|", text, re.M))


def test_the_metrics_page_has_every_metric_of_the_concentrator() -> None:
    everything = Figures(
        limits={"source": 1},
        version="",
        kernel="",
        uptime_s=0.0,
        workers=0,
        worker_restarts=0,
        counters={"accepted:x": 1, "error:32": 1},
        refusals={"x": 1},
        cookies={"taken": 1},
        cookies_remembered=0,
        handles={"known": 0, "ended": 0},
        radius_enabled=True,
        radius={"requests": 1},
        authorizations={"accepted": 1},
        asking=0,
        table={"wanted": True, "in_place": True, "disturbed": 0},
        filters={"x": 1},
        address_log=(0, 0),
        accounting={"sessions": 0, "sent": 0, "waiting": 0, "lost": 0},
        dynamic={"coa-ack": 1},
        ident={"told": 1},
        subscribers=(SubscriberTotals("x", 0, 0, 0, (1.0, 0.0)),),
    )
    names = {
        family.name.removeprefix(PREFIX) + ("_total" if family.kind == COUNTER else "")
        for family in families(everything)
    }
    assert metrics_listed("Metrics of a concentrator") == names | {"up"}


def test_the_metrics_page_has_every_metric_of_the_router() -> None:
    status: dict[str, Any] = {
        "version": "",
        "kernel": "",
        "uptime_s": 0,
        "proxy": True,
        "interception": {"on": True, "ipv6": True},
        "workers": [],
        "radius": {"accepted": True, "enabled": False},
        "wans": [],
        "concentrators": [],
        "pool": {"ready": 0, "plain": 0, "taken": 0, "missed": 0},
        "live": 0,
        "lossy_flows": 0,
        "totals": {"by_action": {}, "by_end": {}, "bytes_down": 0, "bytes_up": 0},
        "fallbacks": {},
        "handshakes": {},
    }
    assert metrics_listed("Metrics of a router") == {family.name for family in router_families(status)}


@pytest.mark.parametrize(
    ("module", "commands", "page"),
    [
        ("cpe_mcp.cli.main", tuple(COMMANDS), "cpe-mcp.8"),
        ("cpe_mcp.upstream.daemon", (), "cpe-mcpd.8"),
        ("cpe_mcp.relay.upstream_worker", (), "cpe-mcpd.8"),
        ("cpe_mcp.concentrator.daemon", (), "mcp-concentrator.8"),
        ("cpe_mcp.lab.main", ("list", "run", "up", "shell", "down"), "cpe-mcp-lab.8"),
    ],
)
def test_manual_pages_for_the_terminal_have_every_command_and_option(
    module: str, commands: tuple[str, ...], page: str
) -> None:
    text = (DOCS / "man" / page).read_text().replace("\\-", "-")
    for command in ("", *commands):
        argv = [sys.executable, "-m", module, *([command] if command else []), "--help"]
        shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        assert not command or re.search(rf"\b{command}\b", text), command
        for option in sorted(set(re.findall(r"--[a-z]+(?:-[a-z]+)*", shown)) - {"--help"}):
            assert option in text, f"{command} {option}"


def test_settings_shown_in_pages_are_accepted() -> None:
    """A block of settings begins with a comment that says which file it is."""
    parsers = {"cpe-mcp": parse_router, "mcp-concentrator": parse_concentrator}
    blocks = [
        block
        for page in PAGES
        for block in re.findall(r"```uci\n# /etc/config/(\S+)\n(.*?)```", page.read_text(), re.S)
    ]
    assert {name for name, _ in blocks} == set(parsers)
    for name, text in blocks:
        parsers[name](text)
