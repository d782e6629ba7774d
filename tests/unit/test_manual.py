"""The manual against the program: what a page lists is what the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cpe_mcp.policy.reasons import TEXTS, Reason
from cpe_mcp.settings import parse_concentrator, parse_router

pytestmark = pytest.mark.unit

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md"])
REASONS = sorted(value for name, value in vars(Reason).items() if name.isupper())


def test_every_reason_has_a_text() -> None:
    assert sorted(TEXTS) == REASONS


def test_troubleshooting_has_every_reason_with_its_text_once() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| ([^|]*) \|", (DOCS / "manual/troubleshooting.md").read_text(), re.M)
    assert sorted(name for name, _ in rows) == REASONS
    assert {name: text.strip() for name, text in rows} == TEXTS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


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
